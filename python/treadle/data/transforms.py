"""Transforms of whole batches of images (N, H, W) or (N, C, H, W), drawn from a generator."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle import _core
from treadle._core import Generator, Tensor
from treadle.checks import at_least, probability

__all__ = ["Compose", "Normalize", "RandomCrop", "RandomHorizontalFlip"]


Images = Tensor | npt.NDArray[Any]


def _images(op: str, x: Images) -> npt.NDArray[Any]:
    if not isinstance(x, Tensor | np.ndarray):
        raise TypeError(f"{op}: expected a tensor or array of images, got {type(x).__name__}")
    if x.ndim not in (3, 4):
        raise ValueError(f"{op}: expected images (N, H, W) or (N, C, H, W), got {x.shape}")
    return x.numpy() if isinstance(x, Tensor) else x


class Compose:
    """Transforms one after another.

    Args:
        transforms: Functions of a batch.

    Raises:
        TypeError: No list.

    Example:
        >>> augment = Compose([RandomCrop(4), RandomHorizontalFlip()])
        >>> loader = DataLoader(dataset, 100, transform=lambda x, y: (augment(x), y))
    """

    def __init__(self, transforms: list[Callable[[Any], Any]]) -> None:
        if not isinstance(transforms, Iterable):
            raise TypeError(f"compose: expected a list of functions, got {type(transforms).__name__}")
        self.transforms = list(transforms)

    def __call__(self, x: Any) -> Any:
        """What the last transform makes of a batch."""
        for transform in self.transforms:
            x = transform(x)
        return x


class RandomHorizontalFlip:
    """Mirrors each image with probability p.

    Args:
        p: In [0, 1].
        generator: What is drawn from; None is the default generator.

    Shape:
        (N, H, W) or (N, C, H, W); the result is of the same shape and type.

    Raises:
        ValueError: A p outside [0, 1], or, when called, another shape.

    Example:
        >>> RandomHorizontalFlip(generator=treadle.Generator(0))(images)
    """

    def __init__(self, p: float = 0.5, generator: Generator | None = None) -> None:
        self.p, self.generator = probability("random_horizontal_flip", "p", p), generator

    def __call__(self, x: Images) -> Tensor:
        """Of the same shape."""
        images = _images("random_horizontal_flip", x)
        flipped = _core.bernoulli((len(images),), self.p, self.generator).numpy() != 0
        return Tensor(np.where(flipped.reshape(-1, *[1] * (images.ndim - 1)), images[..., ::-1], images))


class RandomCrop:
    """Shifts each image by up to `padding` pixels each way; what comes in is zero.

    Args:
        padding: At least 0.
        generator: What is drawn from; None is the default generator.

    Shape:
        (N, H, W) or (N, C, H, W); the result is of the same shape and type.

    Raises:
        ValueError: A padding below 0, or, when called, another shape.

    Example:
        >>> RandomCrop(4, generator=treadle.Generator(0))(images)

    Source: Krizhevsky et al. 2012, as customary since He et al. 2016.
    """

    def __init__(self, padding: int = 4, generator: Generator | None = None) -> None:
        self.padding, self.generator = at_least("random_crop", "padding", padding, 0), generator

    def __call__(self, x: Images) -> Tensor:
        """Of the same shape."""
        images, p = _images("random_crop", x), self.padding
        n, (height, width) = len(images), images.shape[-2:]
        wide = np.pad(images, [(0, 0)] * (images.ndim - 2) + [(p, p), (p, p)])
        windows = np.lib.stride_tricks.sliding_window_view(wide, (height, width), axis=(-2, -1))
        shifts = _core.randint(0, 2 * p + 1, (2, n), self.generator).numpy()
        at = (np.arange(n), shifts[0], shifts[1])
        return Tensor(np.ascontiguousarray(windows[at] if images.ndim == 3 else windows[at[0], :, at[1], at[2]]))


class Normalize:
    """(x − mean)/std as float32; uint8 images are taken as they are, 0 to 255.

    Args:
        mean: A number, or one per channel for (N, C, H, W).
        std: Likewise, above 0.

    Shape:
        (N, H, W) or (N, C, H, W); the result is float32 of the same shape.

    Raises:
        ValueError: A std that is not above 0, infinities, means of more than one axis or of another number than stds, or, when
            called, other channels.

    Example:
        >>> Normalize(mean=[125.3, 123.0, 113.9], std=[63.0, 62.1, 66.7])(images)
    """

    def __init__(self, mean: Any, std: Any) -> None:
        self.mean, self.std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
        shapes = {held.shape for held in (self.mean, self.std)} - {()}
        if len(shapes) > 1 or any(len(shape) > 1 for shape in shapes):
            raise ValueError(f"normalize: expected numbers or one per channel, got {self.mean.shape} and {self.std.shape}")
        if not (np.all(self.std > 0) and all(np.isfinite(held).all() for held in (self.mean, self.std))):
            raise ValueError(f"normalize: expected a finite mean and std above 0, got {mean} and {std}")

    def __call__(self, x: Images) -> Tensor:
        """Of the same shape, in float32."""
        images = _images("normalize", x)
        for held in (self.mean, self.std):
            if held.ndim and (images.ndim != 4 or images.shape[1] != len(held)):
                raise ValueError(f"normalize: expected images (N, {len(held)}, H, W), got {images.shape}")
        mean, std = (held.reshape(-1, 1, 1) if held.ndim else held for held in (self.mean, self.std))
        return Tensor((images.astype(np.float32) - mean) / std)
