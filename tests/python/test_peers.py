"""Every row of the comparison with other libraries runs in treadle."""

from __future__ import annotations

import itertools

import pytest

from benches.peers import footprint, treadle_work
from benches.peers.rows import Row, rows

LARGEST = 1_000_000  # elements of an array
GROUPS = {group: list(members) for group, members in itertools.groupby(rows(), lambda row: row.group)}


@pytest.mark.parametrize("group", GROUPS)
def test_rows_run(group: str) -> None:
    ran = 0
    for row in GROUPS[group]:
        if row.fresh:
            assert callable(getattr(footprint, row.work)), row.name
        elif row.size <= LARGEST:
            getattr(treadle_work, row.work)(**row.args)()
            ran += 1
    assert ran or all(row.fresh for row in GROUPS[group])


def test_names_are_distinct() -> None:
    def key(row: Row) -> tuple[str, str]:
        return row.group, row.name

    assert len({key(row) for row in rows()}) == len(rows())
