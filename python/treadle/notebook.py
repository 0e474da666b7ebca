"""HTML that notebooks show instead of `repr`.

Invariant: every text is escaped, and no colour or font is set, so that light and dark themes look as they do elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treadle.nn.module import Module

__all__ = ["table", "tree"]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; all columns but the first are aligned to the right.

    Args:
        heads: What stands above the columns.
        rows: The cells of each row; leading spaces indent the first.
    """
    lines = [_line("th", heads), *(_line("td", cells) for cells in rows)]
    return f"<table>{''.join(lines)}</table>"


def _line(tag: str, cells: Sequence[str]) -> str:
    made = []
    for number, cell in enumerate(cells):
        text = cell.lstrip(" ")
        indent = f"; padding-left: {0.5 + 0.5 * (len(cell) - len(text))}em" if number == 0 else ""
        made.append(f'<{tag} style="text-align: {"right" if number else "left"}{indent}">{escape(text)}</{tag}>')
    return f"<tr>{''.join(made)}</tr>"


def tree(module: Module, name: str = "") -> str:
    """A module as a line, with its children folded into it.

    Args:
        module: What is shown.
        name: Under what name its parent holds it.
    """
    count = sum(parameter.size for parameter in module.parameters())
    title = f"{escape(name)}: " if name else ""
    detail = f"({escape(module.extra_repr())})" if module.extra_repr() else ""
    line = f"{title}<b>{escape(type(module).__name__)}</b>{detail}" + (f" – {count:,} parameters" if count else "")
    children = [tree(child, below) for below, child in module.named_children()]
    if not children:
        return f"<div>{line}</div>"
    opened = "" if name else ' open=""'
    return f'<details{opened}><summary>{line}</summary><div style="margin-left: 1.5em">{"".join(children)}</div></details>'
