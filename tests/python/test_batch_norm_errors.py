"""What `BatchNorm1d` answers when things go wrong, one test per row of its page, and that nothing has moved then."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from tests.python.batch_norm_reference import KINDS, draw, state
from treadle import nn


def refuses(bn: nn.BatchNorm1d, x: Any, error: type[Exception], message: str) -> None:
    """Says so in these words, and nothing has moved."""
    before = state(bn)
    for options in ({}, {"relu": True}):
        with pytest.raises(error) as caught:
            bn(x, **options)
        assert str(caught.value) == message
    assert state(bn) == before


kinds = pytest.mark.parametrize("kind", KINDS)


@kinds
@pytest.mark.parametrize("shape", [(1, 8), (1, 8, 1)])
def test_error_one_value_per_channel(shape: tuple[int, ...], kind: str) -> None:
    message = f"training needs more than one value per channel, got shape {shape}; use drop_last=True in the DataLoader, or eval()"
    refuses(nn.BatchNorm1d(8, **KINDS[kind]), treadle.ones(*shape), ValueError, f"batch_norm: {message}")


@kinds
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("shape", [(8, 5), (8, 5, 2)])
def test_error_wrong_channels(shape: tuple[int, ...], training: bool, kind: str) -> None:
    bn = nn.BatchNorm1d(4, **KINDS[kind]).train(training)
    refuses(bn, treadle.ones(*shape), ValueError, f"batch_norm: expected 4 channels, got 5 in shape {shape}")


WRONG: dict[str, tuple[Any, type[Exception], str]] = {
    "1-D": (treadle.ones(4), ValueError, "expected shape (N, C) or (N, C, L), got (4,)"),
    "4-D": (treadle.ones(2, 4, 2, 2), ValueError, "expected shape (N, C) or (N, C, L), got (2, 4, 2, 2)"),
    "integer": (treadle.ones(8, 4, dtype="int64"), TypeError, "expected float32 or float64, got int64"),
    "boolean": (treadle.ones(8, 4, dtype="bool"), TypeError, "expected float32 or float64, got bool"),
    "NumPy array": (np.ones((8, 4)), TypeError, "expected a Tensor, got ndarray; wrap it with treadle.tensor(...)"),
    "list": ([[1.0]], TypeError, "expected a Tensor, got list; wrap it with treadle.tensor(...)"),
}


@kinds
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("what", WRONG)
def test_error_input(what: str, training: bool, kind: str) -> None:
    x, error, message = WRONG[what]
    refuses(nn.BatchNorm1d(4, **KINDS[kind]).train(training), x, error, f"batch_norm: {message}")


MASKS: dict[str, tuple[treadle.Tensor, str]] = {
    "of numbers": (treadle.ones(8), "expected a bool mask of shape (8,), got float32 of shape (8,)"),
    "of another shape": (treadle.ones(7, dtype="bool"), "expected a bool mask of shape (8,), got bool of shape (7,)"),
    "with one position": (
        treadle.arange(8) == 3,
        "training needs more than one value per channel, got shape (8, 4) with 1 kept positions; "
        "use drop_last=True in the DataLoader, or eval()",
    ),
}


@pytest.mark.parametrize("what", MASKS)
def test_error_mask(what: str) -> None:
    bn, (mask, message) = nn.BatchNorm1d(4), MASKS[what]
    before = state(bn)
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        bn(treadle.ones(8, 4), mask)
    assert str(caught.value) == f"batch_norm: {message}"
    assert state(bn) == before


def with_buffer(name: str, value: treadle.Tensor) -> nn.BatchNorm1d:
    """A layer one of whose statistics was put in by hand."""
    bn = nn.BatchNorm1d(4)
    setattr(bn, name, nn.Buffer(value))
    return bn


BUFFERS: dict[str, tuple[str, treadle.Tensor, str]] = {
    "two types": (
        "running_var",
        treadle.ones(4, dtype="float64"),
        "expected running statistics of one float type, got float32 and float64",
    ),
    "a count that is a float": (
        "num_batches_tracked",
        treadle.tensor(0.0),
        "expected an int64 count of batches of one element, got float32 of shape ()",
    ),
    "no count": (
        "num_batches_tracked",
        treadle.zeros(0, dtype="int64"),
        "expected an int64 count of batches of one element, got int64 of shape (0,)",
    ),
}


@pytest.mark.parametrize("what", BUFFERS)
def test_error_buffers(what: str) -> None:
    name, value, message = BUFFERS[what]
    refuses(with_buffer(name, value), treadle.ones(8, 4), TypeError, f"batch_norm: {message}")


def test_error_momentum_set_later() -> None:
    bn = nn.BatchNorm1d(4)
    bn.momentum = 1.5
    refuses(bn, treadle.ones(8, 4), ValueError, "batch_norm: expected momentum in [0, 1], got 1.5")
    with pytest.raises(ValueError, match=r"momentum in \[0, 1\], got -1"):
        nn.functional.batch_norm(treadle.ones(8, 4), treadle.zeros(4), treadle.ones(4), training=True, momentum=-1)


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dim": 0}, ValueError, "expected dim of at least 1, got 0"),
        ({"dim": -3}, ValueError, "expected dim of at least 1, got -3"),
        ({"dim": 2.5}, TypeError, "expected dim as an int, got float"),
        ({"eps": 0}, ValueError, "expected eps above 0, got 0"),
        ({"eps": -1e-5}, ValueError, "expected eps above 0, got -1e-05"),
        ({"eps": float("nan")}, ValueError, "expected eps above 0, got nan"),
        ({"momentum": 1.5}, ValueError, "expected momentum in [0, 1], got 1.5"),
        ({"momentum": -0.1}, ValueError, "expected momentum in [0, 1], got -0.1"),
        ({"device": "cuda"}, ValueError, "expected device None or \"cpu\" (treadle runs on the CPU), got 'cuda'"),
        ({"dtype": "int64"}, TypeError, "expected dtype float32 or float64, got int64"),
    ],
    ids=lambda value: "=".join(map(str, *value.items())) if isinstance(value, dict) else "",
)
def test_error_construction(options: dict[str, Any], error: type[Exception], message: str, bare: bool) -> None:
    with pytest.raises(error) as caught:
        nn.BatchNorm1d(**({"dim": 4} | options), affine=not bare, track_running_stats=not bare)
    assert str(caught.value) == f"batch_norm: {message}"


@kinds
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 3), (3, 4, 0)])
def test_error_empty_batch_is_none(shape: tuple[int, ...], training: bool, kind: str) -> None:
    bn = nn.BatchNorm1d(4, **KINDS[kind]).train(training)
    before, x = state(bn), treadle.zeros(*shape, requires_grad=True)
    y = bn(x)
    y.sum().backward()
    assert y.shape == x.grad.shape == shape
    assert all(parameter.grad.tolist() == [0, 0, 0, 0] for parameter in bn.parameters())
    assert state(bn) == before


@pytest.mark.parametrize("shape", [(8, 4), (8, 4, 2), (2000, 4)])
def test_error_non_finite_batch(shape: tuple[int, ...]) -> None:
    x, bn = draw(*shape), nn.BatchNorm1d(4)
    bn(treadle.tensor(x))
    before = state(bn)
    x[2, 1], x[3, 3] = np.nan, np.inf
    with pytest.warns(RuntimeWarning) as caught:
        y = nn.Sequential(bn)(treadle.tensor(x)).detach().numpy()
    assert [str(warning.message) for warning in caught] == [
        "batch_norm: expected finite batch statistics, got non-finite ones in 2 of 4 channels; "
        "their running statistics keep their last finite value"
    ]
    assert caught[0].filename == __file__
    assert np.isnan(y[:, [1, 3]]).all()
    assert np.isfinite(y[:, [0, 2]]).all()
    after = state(bn)
    for name in ("running_mean", "running_var"):
        moved = [ours != theirs for ours, theirs in zip(after[name], before[name], strict=True)]
        assert moved == [True, False, True, False]
    assert after["num_batches_tracked"] == 2
    with warnings.catch_warnings(action="error"):
        bn.eval()(treadle.tensor(x))


def test_error_float64_input_promotes_as_numpy_does() -> None:
    bn = nn.BatchNorm1d(3)
    assert bn(treadle.tensor(draw(8, 3).astype("float64"))).dtype == "float64"
    assert bn.running_mean.dtype == "float32"
    assert nn.BatchNorm1d(3, dtype="float64")(treadle.tensor(draw(8, 3))).dtype == "float64"


def said(call: Any) -> str:
    """What an error or a warning says."""
    try:
        with warnings.catch_warnings(action="error"):
            call()
    except (ValueError, TypeError, RuntimeWarning) as error:
        return str(error)
    return ""


def uncounted(x: treadle.Tensor, *, training: bool = True) -> treadle.Tensor:
    """Statistics as a mean over all batches, which nobody counts."""
    return nn.functional.batch_norm(x, treadle.zeros(4), treadle.ones(4), training=training, momentum=None)


def test_error_all_batches_alike_without_their_count() -> None:
    mean, var = treadle.zeros(4), treadle.ones(4)
    message = "^batch_norm: expected a momentum where batches are not counted, got None; pass 1 / n with the n-th batch$"
    with pytest.raises(ValueError, match=message):
        nn.functional.batch_norm(treadle.ones(8, 4), mean, var, training=True, momentum=None)
    assert (mean.tolist(), var.tolist()) == ([0.0] * 4, [1.0] * 4)
    # What the message says gives the mean.
    for n in range(1, 4):
        nn.functional.batch_norm(treadle.full((8, 4), 10.0 * (n - 1)), mean, var, training=True, momentum=1 / n)
    np.testing.assert_allclose(mean.numpy(), 10.0, rtol=1e-6)
    # Where nothing moves there is nothing to weigh.
    assert uncounted(treadle.ones(8, 4), training=False).shape == (8, 4)
    assert nn.functional.batch_norm(treadle.ones(8, 4), training=True, momentum=None).shape == (8, 4)


def test_the_page_has_every_error_word_for_word() -> None:
    bn, x, spoilt = nn.BatchNorm1d(4), treadle.ones(8, 4), draw(8, 4)
    spoilt[2, 1], spoilt[3, 3] = np.nan, np.inf
    calls = [
        lambda: nn.BatchNorm1d(8)(treadle.ones(1, 8)),
        *(lambda mask=mask: bn(x, mask) for mask in (treadle.arange(8) == 3, treadle.ones(8))),
        lambda: bn(treadle.ones(8, 5)),
        *(lambda what=what: bn(WRONG[what][0]) for what in ("4-D", "1-D", "integer", "NumPy array")),
        *(
            lambda options=options: nn.BatchNorm1d(**options)
            for options in ({"dim": 4, "eps": 0}, {"dim": 4, "momentum": 1.5}, {"dim": 0})
        ),
        *(lambda name=name, value=value: with_buffer(name, value)(x) for name, value, _ in list(BUFFERS.values())[:2]),
        lambda: uncounted(x),
        lambda: bn(treadle.tensor(spoilt)),
    ]
    page = (Path(__file__).parents[2] / "docs" / "batchnorm.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\* (?:RuntimeWarning: )?`(batch_norm: [^`]*)`\n\n {4}\S", page, re.MULTILINE)
    assert sorted(listed) == sorted(map(said, calls))
