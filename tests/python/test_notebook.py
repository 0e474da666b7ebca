"""Tensors show themselves in notebooks: the elements that are there, in the digits of NumPy, and nothing that a page could run."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np
import pytest

import treadle
from treadle import nn


def parsed(x: treadle.Tensor) -> ElementTree.Element:
    return ElementTree.fromstring(f"<body>{x._repr_html_()}</body>")


def cells(x: treadle.Tensor) -> list[list[str]]:
    return [[cell.text or "" for cell in row] for row in parsed(x).iter("tr")]


def caption(x: treadle.Tensor) -> str:
    (found,) = [*parsed(x).iter("caption"), *parsed(x).findall("div")]
    return found.text or ""


@pytest.fixture(autouse=True)
def _usual_print_options() -> Iterator[None]:
    with np.printoptions():
        yield


def test_two_axes_are_a_table_with_the_places_of_its_elements() -> None:
    assert cells(treadle.tensor([[1.0, 2.5], [3.0, -4.25]])) == [
        ["", "0", "1"],
        ["0", "1.00", "2.50"],
        ["1", "3.00", "-4.25"],
    ]


def test_one_axis_is_one_line() -> None:
    assert cells(treadle.arange(3)) == [["", "0", "1", "2"], ["", "0", "1", "2"]]


@pytest.mark.parametrize(
    ("x", "shown"),
    [
        (treadle.tensor([True, False]), ["True", "False"]),
        (treadle.tensor([float("nan"), float("inf"), 1.0]), ["nan", "inf", "1."]),
        (treadle.tensor([1e-9, 1.5, 3e9]), ["1.0e-09", "1.5e+00", "3.0e+09"]),
        (treadle.tensor([7], dtype="uint8"), ["7"]),
    ],
    ids=["bool", "not finite", "exponents", "one element"],
)
def test_elements_are_written_as_numpy_writes_them(x: treadle.Tensor, shown: list[str]) -> None:
    assert cells(x)[1][1:] == shown


def test_a_view_shows_its_own_elements() -> None:
    assert cells(treadle.arange(12).reshape(3, 4).T[1:3, ::2]) == [["", "0", "1"], ["0", "1", "9"], ["1", "2", "10"]]


def test_numpys_print_options_hold() -> None:
    with np.printoptions(precision=2, edgeitems=1):
        assert cells(treadle.full((1, 21), 1 / 3)) == [["", "0", "…", "20"], ["0", "0.33", "…", "0.33"]]


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((20, 20), 20, 20),
        ((21, 4), 7, 4),
        ((4, 21), 4, 7),
        ((2000, 3), 7, 3),
        ((334, 3), 7, 3),
        ((40, 26), 7, 7),
        ((6, 1000), 6, 7),
        ((1001,), 1, 7),
    ],
)
def test_long_axes_are_cut(shape: tuple[int, ...], rows: int, columns: int) -> None:
    heads, *lines = cells(treadle.arange(np.prod(shape).item()).reshape(shape))
    assert (len(lines), len(heads) - 1) == (rows, columns)
    assert lines[-1][-1] == str(np.prod(shape) - 1)
    assert heads[-1] == str(shape[-1] - 1)
    assert ("…" in heads) == (columns == 7)
    assert (["…"] * len(heads) in lines) == (rows == 7)


@pytest.mark.parametrize(
    ("x", "facts"),
    [
        (treadle.zeros(2, 3), "Tensor of shape (2, 3), float32"),
        (treadle.zeros(2, requires_grad=True), "Tensor of shape (2,), float32, requires_grad=True"),
        (treadle.zeros(2, requires_grad=True) * 2, "Tensor of shape (2,), float32, grad_fn=mul"),
        (nn.Parameter(treadle.zeros(2, dtype="float64")), "Parameter of shape (2,), float64, requires_grad=True"),
        (treadle.tensor(3), "Tensor of shape (), int64"),
        (treadle.zeros(2, 3, 4), "Tensor of shape (2, 3, 4), float32"),
        (treadle.zeros(0, 4), "Tensor of shape (0, 4), float32"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_caption_has_the_facts(x: treadle.Tensor, facts: str) -> None:
    assert caption(x) == facts


@pytest.mark.parametrize("shape", [(), (2, 3, 4), (40, 50, 60), (0,), (0, 4)])
def test_other_shapes_are_printed(shape: tuple[int, ...]) -> None:
    x = treadle.ones(shape)
    (printed,) = parsed(x).findall("pre")
    assert printed.text == np.array2string(x.numpy(), separator=", ")


def test_nothing_is_left_unescaped() -> None:
    class Odd(nn.Parameter):
        pass

    Odd.__name__ = "<script>"
    assert "&lt;script&gt; of shape" in Odd(treadle.zeros(2))._repr_html_()
    assert "&lt;script&gt; of shape" in Odd(treadle.zeros(()))._repr_html_()
