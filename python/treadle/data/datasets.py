"""Datasets of images: the digits that ship with treadle, and folders of MNIST-format files."""

from __future__ import annotations

from importlib import resources
from os import PathLike
from pathlib import Path

import numpy as np

from treadle._core import Tensor
from treadle.checks import flag
from treadle.data.dataset import TensorDataset
from treadle.data.idx import read_idx

__all__ = ["MNIST", "Digits"]


class Digits(TensorDataset):
    """1797 hand-written digits of 8 by 8 pixels, with grey values 0 to 16.

    Attributes:
        images: uint8 (1797, 8, 8).
        labels: int64 (1797,).

    Examples are (64 float32 in [0, 1], label).

    Source: Alpaydin & Kaynak 1998, "Optical recognition of handwritten digits", UCI Machine Learning Repository,
    doi 10.24432/C50P49, CC BY 4.0.
    """

    def __init__(self) -> None:
        with resources.files("treadle.data").joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
            images, labels = arrays["images"], arrays["labels"]
        self.images = Tensor(images.reshape(-1, 8, 8))
        self.labels = Tensor(labels.astype(np.int64))
        super().__init__((images.reshape(len(images), 64) / 16).astype(np.float32), self.labels)


class MNIST(TensorDataset):
    """A folder with the four files of MNIST, or of a set in its format such as Fashion-MNIST, gzipped or not.

    Args:
        root: The folder.
        train: Whether to read the training files (`train-…`) or the test files (`t10k-…`).

    Attributes:
        images: uint8 (N, H, W).
        labels: int64 (N,).

    Examples are (uint8 image, label).

    Raises:
        FileNotFoundError: A file that is missing; the message names it.
        ValueError: A damaged file, images and labels that do not fit together, labels that are no whole numbers of at least 0, or
            a train other than True and False, such as the name of a part.
    """

    def __init__(self, root: str | PathLike[str], train: bool = True) -> None:
        self.images, labels = read_mnist(root, flag("mnist", "train", train))
        assert labels is not None
        self.labels = labels
        super().__init__(self.images, self.labels)


def read_mnist(root: str | PathLike[str], train: bool, labelled: bool = True) -> tuple[Tensor, Tensor | None]:
    """Images and int64 labels of a part of a folder; unless it must be labelled, None where there is no file of labels."""
    part = "train" if train else "t10k"
    images, labels = read_idx(_find(Path(root), f"{part}-images-idx3-ubyte")), None
    try:
        labels = read_idx(_find(Path(root), f"{part}-labels-idx1-ubyte"))
    except FileNotFoundError:
        if labelled:
            raise
    if images.ndim != 3 or (labels is not None and labels.shape != images.shape[:1]):
        got = f"{images.shape} and {'none' if labels is None else labels.shape}"
        raise ValueError(f"mnist: expected images (N, H, W) and labels (N,), got {got} in {root}")
    if labels is None:
        return images, None
    least = labels.numpy().min(initial=0)
    if labels.dtype.is_floating_point or least < 0:
        got = labels.dtype.name if labels.dtype.is_floating_point else f"{least}"
        raise ValueError(f"mnist: expected labels that are whole numbers of at least 0, got {got} in {root}")
    return images, labels.astype("int64")


def _find(root: Path, name: str) -> Path:
    for candidate in (name, f"{name}.gz", name.replace("-idx", ".idx"), name.replace("-idx", ".idx") + ".gz"):
        if (root / candidate).is_file():
            return root / candidate
    raise FileNotFoundError(f"mnist: expected {name} or {name}.gz in {root}, got neither")
