"""`treadle.cli.data`: what a run makes of its data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from treadle import Generator
from treadle.cli.data import _moments, loader, prepare
from treadle.cli.main import main


def test_the_scale_of_images_is_that_of_all_pixels() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5000, 3), dtype=np.uint8)
    assert _moments(pixels) == pytest.approx((pixels.mean(), pixels.std()))
    assert _moments(np.full((2, 3), 7, np.uint8)) == (7.0, 1.0)


def test_numbers_of_any_size_are_standardised(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((40, 2)) * [1e-200, 1e-320]
    (tmp_path / "t.csv").write_text("x,y\n" + "\n".join(f"{x!r},{y!r}" for x, y in rows.tolist()))
    train = prepare(str(tmp_path / "t.csv"), "y", 0).train
    for column in (train.x.numpy(), train.y.numpy()):
        assert (column.mean(), column.std()) == pytest.approx((0, 1), abs=1e-2)


@pytest.mark.parametrize("size", [3, 100, 479])
def test_no_batch_to_train_on_is_a_single_row(size: int) -> None:
    rows = prepare("digits", None, 0).train  # 1438: one more than a multiple of 3 and of 479
    single = len(rows) % size == 1
    sizes = [len(x) for x, _ in loader(rows, size, Generator(0))]
    assert (sum(sizes), 1 in sizes) == (len(rows) - single, False)
    assert sum(len(x) for x, _ in loader(rows, size)) == len(rows)


def write_idx(path: Path, array: np.ndarray) -> None:
    """A file of bytes, or of 32-bit integers."""
    kind = {"uint8": 8, "int32": 12}[array.dtype.name]
    head = bytes([0, 0, kind, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(head + array.astype(array.dtype.newbyteorder(">")).tobytes())


def test_a_folder_without_images_to_test_on_says_so(tmp_path: Path) -> None:
    for part, rows in (("train", 4), ("t10k", 0)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", np.arange(rows * 6, dtype=np.uint8).reshape(rows, 2, 3))
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte", np.arange(rows, dtype=np.uint8))
    with pytest.raises(ValueError, match="expected at least 2 rows to train on and 1 to test, got 4 and 0"):
        prepare(str(tmp_path), None, 0)


@pytest.mark.parametrize("part", ["train", "t10k"])
def test_a_wild_label_is_refused_before_anything_is_written(part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, labels in (("train", [0, 1, 999, 2]), ("t10k", [0, 1])):
        write_idx(tmp_path / f"{name}-images-idx3-ubyte", np.arange(len(labels) * 6, dtype=np.uint8).reshape(-1, 2, 3))
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte", np.array(labels, np.int32))
    assert len(prepare(str(tmp_path), None, 0).recipe["classes"]) == 1000
    write_idx(tmp_path / f"{part}-labels-idx1-ubyte", np.array({"train": [0, 1, 1000, 2], "t10k": [0, 2**30]}[part], np.int32))
    assert main(["train", "--data", str(tmp_path), "--out", str(tmp_path / "run"), "--quiet"]) == 2
    got = {"train": 1000, "t10k": 2**30}[part]
    said = f"treadle: error: {tmp_path}: expected labels below 1000, got {got} in {part}-labels-idx1-ubyte\n"
    assert capsys.readouterr().err == said
    assert not (tmp_path / "run").exists()
