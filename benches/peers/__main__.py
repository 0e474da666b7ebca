"""Runs every row in every library, interleaved, and writes the table.

    python -m benches.peers [--only TEXT] [--passes N] [--rounds N] [--out FOLDER]
    python -m benches.peers --report runs/peers/peers.json

Every library runs in a process of its own. In each round every process measures the row once, in turn, so that whatever else the
machine does hits all of them alike. What it does lasts for seconds, so all rows are gone through several times, and the table shows
medians over the rounds of all passes; rows in fresh processes are in the first alone. A row is shown whoever wins it. With --report
nothing is measured: the table, the checks and the chart are made of what was.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benches.peers import contest, report


def main(groups: tuple[str, ...] = (), table: Any = report.table) -> None:
    """Measures and reports; `groups` limits it to some."""
    parser = argparse.ArgumentParser(prog="python -m benches.peers", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="only rows whose group or name contains this text")
    parser.add_argument("--passes", type=int, default=3, help="how often to go through all rows (default: 3)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each row and library in a pass (default: 3)")
    parser.add_argument("--out", type=Path, default=Path("runs/peers"), help="folder for the table (default: runs/peers)")
    parser.add_argument("--report", type=Path, help="a peers.json, of which table, checks and chart are made")
    options = parser.parse_args()
    written = json.loads(options.report.read_text()) if options.report else _measured(options, groups)
    rows = [row for row in written["rows"] if not groups or row["group"] in groups]
    text = table(written["machine"], rows)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "peers.md").write_text(text)
    if options.report or groups:
        print(text)
    print(report.checks(rows))
    from benches.peers import chart

    chart.draw(rows, options.out / "peers.png")
    print(f"{options.out}: peers.md, peers.png" + ("" if options.report else ", peers.json"))
    contest.check_threads(rows)


def _measured(options: argparse.Namespace, groups: tuple[str, ...]) -> dict[str, Any]:
    """The machine's facts and the results, printed as they come, and written after each pass: what ends a long run costs one."""
    from benches.peers import machine, rows

    facts = machine.facts()
    print("\n".join(f"{name}: {value}" for name, value in facts.items()), flush=True)
    chosen = [row for row in rows.rows() if options.only in row.group or options.only in row.name]
    chosen = [row for row in chosen if not groups or row.group in groups]
    # Rows in fresh processes come first, while no other process of a library is there. Memory and imports vary less than times of
    # microseconds, and a round of them takes minutes.
    results = {}
    for row in filter(lambda row: row.fresh, chosen):
        results[row] = contest.run(row, [], options.rounds)
        print(report.line(results[row]), flush=True)
    written = _written(options.out, facts, list(results.values()))
    steady = [row for row in chosen if not row.fresh]
    contestants = [contest.Contestant(*c) for c in contest.CONTESTANTS] if steady else []
    for number in range(options.passes if steady else 0):
        print(f"pass {number + 1} of {options.passes}", flush=True)
        for row in steady:
            results[row] = contest.run(row, contestants, options.rounds, results.get(row))
            print(report.line(results[row]), flush=True)
        written = _written(options.out, facts, [results[row] for row in chosen])
    return written


def _written(out: Path, facts: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Any]:
    """What peers.json holds, and writes it."""
    written = {"machine": facts, "rows": results}
    out.mkdir(parents=True, exist_ok=True)
    (out / "peers.json").write_text(json.dumps(written, indent=1))
    return written


if __name__ == "__main__":
    main()
