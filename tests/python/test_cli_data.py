"""`treadle.cli.data`: what a run makes of its data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from treadle import Generator
from treadle.cli.data import _moments, loader, prepare


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


def test_a_folder_without_images_to_test_on_says_so(tmp_path: Path) -> None:
    for part, rows in (("train", 4), ("t10k", 0)):
        for name, shape in (("images-idx3", (rows, 2, 3)), ("labels-idx1", (rows,))):
            head = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes()
            (tmp_path / f"{part}-{name}-ubyte").write_bytes(head + np.arange(np.prod(shape), dtype=np.uint8).tobytes())
    with pytest.raises(ValueError, match="expected at least 2 rows to train on and 1 to test, got 4 and 0"):
        prepare(str(tmp_path), None, 0)
