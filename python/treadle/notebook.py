"""HTML that notebooks show instead of `repr`.

Invariant: every text is escaped, and no colour or font is set, so that light and dark themes look as they do elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from treadle._core import Tensor
    from treadle.nn.module import Module

__all__ = ["table", "tensor", "tree"]

# A longer axis of a table is cut even where NumPy would print all of it: a table's lines do not wrap.
_LONGEST = 20


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table; all columns but the first are aligned to the right.

    Args:
        heads: What stands above the columns.
        rows: The cells of each row; leading spaces indent the first.
        caption: What stands above the table.
    """
    lines = [_line("th", heads), *(_line("td", cells) for cells in rows)]
    above = f'<caption style="text-align: left; white-space: nowrap">{escape(caption)}</caption>' if caption else ""
    return f"<table>{above}{''.join(lines)}</table>"


def _line(tag: str, cells: Sequence[str]) -> str:
    made = []
    for number, cell in enumerate(cells):
        text = cell.lstrip(" ")
        indent = f"; padding-left: {0.5 + 0.5 * (len(cell) - len(text))}em" if number == 0 else ""
        made.append(f'<{tag} style="text-align: {"right" if number else "left"}{indent}">{escape(text)}</{tag}>')
    return f"<tr>{''.join(made)}</tr>"


def tree(module: Module, name: str = "", above: tuple[Module, ...] = ()) -> str:
    """A module as a line, with its children folded into it; one that holds itself is not shown again.

    Args:
        module: What is shown.
        name: Under what name its parent holds it.
        above: The modules that it is shown in.
    """
    if any(module is one for one in above):
        return f"<div>{escape(name)}: …</div>"
    count = sum(parameter.size for parameter in module.parameters())
    title = f"{escape(name)}: " if name else ""
    detail = f"({escape(module.extra_repr())})" if module.extra_repr() else ""
    line = f"{title}<b>{escape(type(module).__name__)}</b>{detail}" + (f" – {count:,} parameters" if count else "")
    children = [tree(child, below, (*above, module)) for below, child in module.named_children()]
    if not children:
        return f"<div>{line}</div>"
    opened = "" if name else ' open=""'
    return f'<details{opened}><summary>{line}</summary><div style="margin-left: 1.5em">{"".join(children)}</div></details>'


def tensor(x: Tensor) -> str:
    """A tensor of one or two axes as a table with the places of its elements, any other as NumPy prints it, under its facts.

    Digits, and how much of a cut axis is shown, are NumPy's print options.

    Args:
        x: What is shown.
    """
    facts = [f"{type(x).__name__} of shape {x.shape}", x.dtype.name]
    if x.grad_fn is not None:
        facts.append(f"grad_fn={x.grad_fn}")
    elif x.requires_grad:
        facts.append("requires_grad=True")
    caption, values = ", ".join(facts), x.numpy()
    if values.ndim not in (1, 2) or values.size == 0:
        return f"<div>{escape(caption)}</div><pre>{escape(np.array2string(values, separator=', '))}</pre>"
    grid = np.atleast_2d(values)
    kept = [_kept(size, values.size) for size in grid.shape]
    shown = [[index for index in axis if index is not None] for axis in kept]
    texts = iter(_texts(grid[np.ix_(*shown)]))
    rows = []
    for row in kept[0]:
        place = "…" if row is None else str(row) if values.ndim == 2 else ""
        rows.append([place, *("…" if row is None or column is None else next(texts) for column in kept[1])])
    return table(["", *("…" if column is None else str(column) for column in kept[1])], rows, caption)


def _kept(length: int, size: int) -> list[int | None]:
    """The places of an axis that are shown; None stands for those left out between the first and the last."""
    options = np.get_printoptions()
    edge = options["edgeitems"]
    if length <= max(2 * edge, 1) or (size <= options["threshold"] and length <= _LONGEST):
        return list(range(length))
    return [*range(edge), None, *range(length - edge, length)]


def _texts(values: np.ndarray) -> list[str]:
    """Elements as NumPy prints them, all with as many digits as the longest needs."""
    text = np.array2string(
        values.ravel(), separator="\n", threshold=values.size + 1, max_line_width=10**9, floatmode="maxprec_equal"
    )
    return [line.strip() for line in text.strip("[]").split("\n")]
