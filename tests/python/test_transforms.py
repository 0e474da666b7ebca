"""Transforms of `treadle.data`: what each makes of images, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from treadle import Generator, Tensor
from treadle.data import Compose, DataLoader, Normalize, RandomCrop, RandomHorizontalFlip, TensorDataset

Array = npt.NDArray[Any]


def test_a_transform_of_another_number_of_arguments_is_refused() -> None:
    pairs = TensorDataset(np.zeros((4, 2, 2)), np.zeros(4))
    message = (
        r"^data_loader: expected a transform of 2 arguments, the parts of a batch, got Normalize; .* lambda x, y: \(f\(x\), y\)"
    )
    with pytest.raises(TypeError, match=message):
        next(iter(DataLoader(pairs, 2, transform=Normalize(0.0, 1.0))))
    with pytest.raises(TypeError, match=r"^normalize: expected a tensor or array of images, got str$"):
        next(iter(DataLoader(pairs, 2, transform=lambda x, y: (Normalize(0.0, 1.0)("x"), y))))


def images(*shape: int, dtype: str = "uint8") -> Array:
    return np.random.default_rng(0).integers(1, 256, shape).astype(dtype)


@pytest.mark.parametrize("shape", [(40, 5, 6), (40, 3, 5, 6)])
@pytest.mark.parametrize("as_tensor", [True, False])
def test_a_crop_is_a_shift_with_zeros(shape: tuple[int, ...], as_tensor: bool) -> None:
    x = images(*shape)
    cropped = RandomCrop(2, Generator(0))(Tensor(x) if as_tensor else x)
    assert (cropped.shape, cropped.dtype) == (x.shape, "uint8")
    seen = set()
    for before, after in zip(x, cropped.numpy(), strict=True):
        wide = np.pad(before, [(0, 0)] * (before.ndim - 2) + [(2, 2), (2, 2)])
        places = [(i, j) for i in range(5) for j in range(5) if np.array_equal(wide[..., i : i + 5, j : j + 6], after)]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 10
    np.testing.assert_array_equal(RandomCrop(2, Generator(0))(x).numpy(), cropped.numpy())
    np.testing.assert_array_equal(RandomCrop(0)(x).numpy(), x)


@pytest.mark.parametrize("shape", [(200, 4, 5), (200, 2, 4, 5)])
def test_a_flip_mirrors_whole_images(shape: tuple[int, ...]) -> None:
    x = images(*shape, dtype="float32")
    flipped = RandomHorizontalFlip(0.25, Generator(0))(Tensor(x)).numpy()
    mirrored = [np.array_equal(after, before[..., ::-1]) for before, after in zip(x, flipped, strict=True)]
    kept = [np.array_equal(after, before) for before, after in zip(x, flipped, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 25 <= sum(mirrored) <= 75
    np.testing.assert_array_equal(RandomHorizontalFlip(1.0)(x).numpy(), x[..., ::-1])
    np.testing.assert_array_equal(RandomHorizontalFlip(0.0)(x).numpy(), x)


def test_normalising() -> None:
    x = images(4, 3, 2, 2)
    mean, std = [10.0, 20.0, 30.0], [1.0, 2.0, 4.0]
    wanted = (x - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    for given_mean, given_std in ((mean, std), (mean, 2.0), (5.0, std)):
        y = Normalize(given_mean, given_std)(Tensor(x))
        assert (y.shape, y.dtype) == (x.shape, "float32")
    np.testing.assert_allclose(Normalize(mean, std)(x).numpy(), wanted, rtol=1e-6)
    np.testing.assert_allclose(Normalize(100, 50)(x[:, 0]).numpy(), (x[:, 0] - 100.0) / 50, rtol=1e-6)


def test_transforms_follow_one_another() -> None:
    x = images(3, 4, 4)
    both = Compose([RandomHorizontalFlip(1.0), Normalize(0, 2)])
    np.testing.assert_array_equal(both(Tensor(x)).numpy(), x[..., ::-1] / np.float32(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: RandomCrop(-1), "random_crop: expected padding of at least 0, got -1"),
        (lambda: RandomHorizontalFlip(1.5), r"random_horizontal_flip: expected p in \[0, 1\], got 1.5"),
        (lambda: Normalize(0, 0), "normalize: expected a finite mean and std above 0, got 0 and 0"),
        (lambda: Normalize(0, [1, float("nan")]), "normalize: expected a finite mean and std above 0"),
        (lambda: Normalize(0, float("inf")), "normalize: expected a finite mean and std above 0, got 0 and inf"),
        (lambda: Normalize([0, 0, 0], [1, 1]), r"normalize: expected numbers or one per channel, got \(3,\) and \(2,\)"),
        (lambda: Normalize([[0]], 1), r"normalize: expected numbers or one per channel, got \(1, 1\) and \(\)"),
        (lambda: Normalize(0, [[1]]), r"normalize: expected numbers or one per channel, got \(\) and \(1, 1\)"),
        (lambda: Normalize([0, 0], 1)(images(2, 2, 2)), r"normalize: expected images \(N, 2, H, W\), got \(2, 2, 2\)"),
        (lambda: Normalize([0, 0], 1)(images(2, 3, 2, 2)), r"normalize: expected images \(N, 2, H, W\), got \(2, 3, 2, 2\)"),
        (lambda: RandomCrop(1)(images(2, 2)), r"random_crop: expected images \(N, H, W\) or \(N, C, H, W\), got \(2, 2\)"),
        (lambda: RandomHorizontalFlip()(images(2)), r"random_horizontal_flip: expected images .*, got \(2,\)"),
    ],
)
def test_transforms_refuse_what_they_cannot_do(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        call()


def test_a_single_transform_is_no_list_of_them() -> None:
    with pytest.raises(TypeError, match=r"^compose: expected a list of functions, got Normalize$"):
        Compose(Normalize(0, 1))  # type: ignore[arg-type]


def test_images_in_a_list_are_refused() -> None:
    with pytest.raises(TypeError, match=r"^random_crop: expected a tensor or array of images, got list$"):
        RandomCrop(1)([[[1]]])  # type: ignore[arg-type]
