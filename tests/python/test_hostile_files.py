"""Files that lie: what the fuzzer keeps, bytes changed at random, and small files that ask for much memory."""

from __future__ import annotations

import gzip
import random
import struct
import tracemalloc
from pathlib import Path

import pytest

from tests.fuzz.readers import CORPUS, READERS
from treadle.data import read_idx
from treadle.data.table import read_csv


@pytest.mark.parametrize("name", READERS)
def test_a_reader_withstands_the_corpus_and_5_000_changes_of_it(name: str) -> None:
    files = [file.read_bytes() for file in sorted((CORPUS / name).iterdir())]
    assert len(files) > 2
    chance = random.Random(0)
    for data in files:
        READERS[name](data)
    for _ in range(5_000):
        changed = bytearray(chance.choice(files))
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(changed) + 1)
            changed[at : at + chance.randrange(3)] = chance.choice((b"", b"\0", b"\xff", b"9", b",", chance.randbytes(1)))
        READERS[name](bytes(changed))


def test_categories_are_refused_before_their_features_take_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [",".join([f"c{i % 1000}"] * 300 + ["0.5", "1"]) for i in range(1000)]
    path.write_text("\n".join([",".join([f"x{i}" for i in range(300)] + ["number", "y"]), *rows]))
    with pytest.raises(ValueError, match="at most 1073741824 bytes of features, got 2400000000 from 1000 rows"):
        read_csv(path, "y")


def test_sizes_an_idx_file_claims_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x02" + struct.pack(">II", 2**31 - 1, 2**28) + b"few"))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"expected 576460752034988032 bytes .* got 3 in"):
            read_idx(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
