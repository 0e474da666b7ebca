"""Every row of the comparison with other libraries runs in treadle."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

import pytest
from matplotlib import pyplot as plt

from benches.peers import chart, contest, footprint, treadle_work, worker
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


def test_what_takes_long_at_its_first_run_alone_is_run_often() -> None:
    pauses = iter([0.1])
    assert worker.calibrate(lambda: time.sleep(next(pauses, 0.0))) > 20


def test_a_library_that_takes_more_threads_than_it_was_given_is_found() -> None:
    assert worker.measure(lambda: time.sleep(0.01), 3)["busy"] < 0.5
    contest.check_threads(
        [{"name": "a", "busy": {"jax/1": [1.0, 1.9, 1.1], "jax/default": [1.9], "torch/1/plain": [0.9]}}, {"name": "b"}]
    )
    with pytest.raises(
        RuntimeError, match=r"peers: expected one busy processor where there is one thread, got 1.90 of jax/1 in a$"
    ):
        contest.check_threads([{"name": "a", "busy": {"jax/1": [1.0, 1.9, 1.9]}}])


def test_passes_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    row = next(row for row in rows() if not row.fresh)
    found = iter([{"samples": {"treadle/1": [1.0, 5.0]}}, {"samples": {"treadle/1": [2.0]}}, {"skipped": "no memory"}])
    monkeypatch.setattr(contest, "run_row", lambda *_: next(found))
    first = contest.run(row, [], 2)
    both = contest.run(row, [], 1, first)
    assert (first["median"], both["median"]) == ({"treadle/1": 3.0}, {"treadle/1": 2.0})
    assert both["samples"] == {"treadle/1": [1.0, 5.0, 2.0]}
    assert contest.run(row, [], 1, both) == both


def test_names_are_distinct() -> None:
    def key(row: Row) -> tuple[str, str]:
        return row.group, row.name

    assert len({key(row) for row in rows()}) == len(rows())


def test_the_chart_has_a_mark_in_every_row_and_ticks_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plt, "close", lambda figure: None)
    ratios = [{}, *({"torch/1": times, "jax/1": 1.0} for times in (0.19, 1000.0))]
    named = [(group, str(n), ratio) for group in "abcdef" for n, ratio in enumerate(ratios)]
    results = [{"group": g, "name": n * 40, "median": {"treadle/default": 1.0, **ratio}} for g, n, ratio in named]
    chart.draw(results, tmp_path / "peers.png")
    for axes in plt.gcf().axes:
        assert len(axes.get_yticklabels()) in (0, len(ratios) - 1)
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    monkeypatch.undo()
    plt.close("all")
