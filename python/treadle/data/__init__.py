"""Datasets, loaders, transforms, and readers of files."""

from treadle.data.dataset import Dataset, Subset, TensorDataset, random_split
from treadle.data.datasets import MNIST, Digits
from treadle.data.idx import read_idx
from treadle.data.loader import DataLoader, collate
from treadle.data.table import read_csv
from treadle.data.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip

__all__ = [
    "MNIST",
    "Compose",
    "DataLoader",
    "Dataset",
    "Digits",
    "Normalize",
    "RandomCrop",
    "RandomHorizontalFlip",
    "Subset",
    "TensorDataset",
    "collate",
    "random_split",
    "read_csv",
    "read_idx",
]
