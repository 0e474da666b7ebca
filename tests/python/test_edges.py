"""Values and gradients where a formula written plainly breaks: infinities, constants, sure predictions, data far from 0."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.nn import functional

INF = float("inf")


def test_bce_of_sure_predictions_keeps_its_digits() -> None:
    x = np.array([-30.0, -17.0, -3.0, 0.0, 8.0, 17.0, 30.0], "float32")
    for y in (0.0, 1.0):
        target = treadle.full((7,), y)
        wanted = np.logaddexp(0, (1 - 2 * y) * x.astype("float64"))
        logits = treadle.tensor(x, requires_grad=True)
        losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        np.testing.assert_allclose(losses.numpy(), wanted, rtol=1e-6)
        losses.sum().backward()
        np.testing.assert_allclose(logits.grad.numpy(), 1 / (1 + np.exp(-x.astype("float64"))) - y, rtol=1e-6, atol=1e-7)


def test_the_deviation_of_a_constant_has_no_slope() -> None:
    x = treadle.tensor([[1.0, 1.0], [1.0, 3.0]], requires_grad=True)
    deviation = x.std(0)
    assert deviation.tolist() == [0, 1]
    deviation.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [[0, -0.5], [0, 0.5]])
    assert np.isnan(treadle.tensor([[np.nan], [1.0]], requires_grad=True).std(0).item())


@pytest.mark.parametrize(
    "unchanged",
    [
        lambda x: x**1.0,
        lambda x: x.reshape(3),
        lambda x: x.broadcast_to(3),
        lambda x: x.expand(-1),
        lambda x: x.flatten(),
        lambda x: x.squeeze(),
        lambda x: x.view(-1),
        lambda x: x.float(),
        lambda x: x.astype("float32"),
        lambda x: +x,
        lambda x: functional.dropout(x, 0.5, training=False),
        lambda x: functional.dropout(x, 0.0),
    ],
)
def test_what_an_operation_leaves_as_it_is_is_its_result_all_the_same(
    unchanged: Callable[[treadle.Tensor], treadle.Tensor],
) -> None:
    x = treadle.ones(3, requires_grad=True)
    y = unchanged(x)
    assert not y.is_leaf
    with pytest.raises(RuntimeError, match="detach"):
        y.requires_grad_(False)
    y.sum().backward()
    assert x.grad.tolist() == [1, 1, 1]
    with treadle.no_grad():
        assert not unchanged(x).requires_grad
    x.requires_grad_(False)
    unchanged(x).requires_grad_()
    assert not x.requires_grad


def test_a_copy_of_a_leaf_is_another_leaf() -> None:
    x = treadle.ones(3, requires_grad=True)
    y = copy.copy(x)
    assert y.is_leaf
    y.sum().backward()
    assert x.grad is None
    y.requires_grad_(False)
    assert x.requires_grad
    assert not copy.copy(y).requires_grad
    assert copy.copy(x * 2).grad_fn == "mul"


def test_huber_at_an_infinite_error() -> None:
    x = treadle.tensor([INF, -INF, 3.0, 0.5], requires_grad=True)
    losses = functional.huber_loss(x, treadle.zeros(4), reduction="none")
    assert losses.tolist() == [INF, INF, 2.5, 0.125]
    losses.sum().backward()
    assert x.grad.tolist() == [1, -1, 1, 0.5]


@pytest.mark.parametrize("training", [True, False])
def test_what_a_mask_leaves_out_is_in_no_gradient(training: bool) -> None:
    data = np.random.default_rng(0).normal(size=(4, 2)).astype("float32")
    data[3] = np.nan
    bn, mask = nn.BatchNorm1d(2).train(training), treadle.tensor([True, True, True, False])

    def gradients(create_graph: bool) -> list[np.ndarray]:
        x = treadle.tensor(data, requires_grad=True)
        loss = bn(x, mask).exp().sum()
        return [g.detach().numpy() for g in treadle.grad(loss, [x, *bn.parameters()], create_graph=create_graph)]

    for plain, recorded in zip(gradients(False), gradients(True), strict=True):
        assert np.isfinite(plain).all()
        np.testing.assert_allclose(recorded, plain, rtol=1e-5, atol=1e-6)


NORMS: dict[str, Callable[[str], nn.Module]] = {
    "batch norm": lambda dtype: nn.BatchNorm1d(8, dtype=dtype),
    "layer norm": lambda dtype: nn.LayerNorm(8, dtype=dtype),
    "group norm": lambda dtype: nn.GroupNorm(2, 8, dtype=dtype),
}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_far_from_zero(name: str, create_graph: bool) -> None:
    rng = np.random.default_rng(1)
    data, dy = (rng.normal(size=(64, 8)) + 1e6).astype("float32"), rng.normal(size=(64, 8)).astype("float32")

    def gradients(dtype: str) -> list[np.ndarray]:
        norm, x = NORMS[name](dtype), treadle.tensor(data.astype(dtype), requires_grad=True)
        loss = (norm(x) * treadle.tensor(dy.astype(dtype))).sum()
        found = treadle.grad(loss, [x, *norm.parameters()], create_graph=create_graph and dtype == "float32")
        return [g.detach().numpy() for g in found]

    for got, wanted in zip(gradients("float32"), gradients("float64"), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)


CLASSES: dict[str, Callable[[treadle.Tensor], treadle.Tensor]] = {
    "cross-entropy": lambda x: functional.cross_entropy(x, treadle.zeros(len(x), dtype="int64"), label_smoothing=0.1),
    "logsumexp": lambda x: x.logsumexp(1).sum(),
}


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("start", [1e3, 1e6, 3e38])
def test_gradients_of_scores_far_from_zero(name: str, create_graph: bool, start: float) -> None:
    scores = np.float32(np.random.default_rng(1).integers(0, 4, (16, 5))) + np.float32(start)
    got, wanted = (treadle.tensor(scores.astype(dtype), requires_grad=True) for dtype in ("float32", "float64"))
    first, second = (treadle.grad(CLASSES[name](x), x, create_graph=create_graph)[0].detach().numpy() for x in (got, wanted))
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(second.sum(), 16 if name == "logsumexp" else 0, atol=1e-7)


@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("float64", "float32"), ("float64", "int64")])
def test_bce_of_two_types_is_of_the_wider(dtypes: tuple[str, str]) -> None:
    x, y = treadle.randn(5, dtype=dtypes[0]), (treadle.rand(5) > 0.5).astype(dtypes[1])
    loss = functional.binary_cross_entropy_with_logits(x, y, reduction="none")
    assert loss.dtype == "float64"
    wide = x.numpy().astype("float64")
    np.testing.assert_allclose(loss.numpy(), np.logaddexp(0, wide) - wide * y.numpy(), rtol=1e-12)


def test_bce_has_second_derivatives_of_logits_and_targets() -> None:
    x, y = treadle.randn(6, dtype="float64", requires_grad=True), treadle.rand(6, dtype="float64", requires_grad=True)
    weight = treadle.rand(6, dtype="float64")
    for pos_weight in (None, treadle.tensor(2.5, dtype="float64")):

        def loss(x: treadle.Tensor, y: treadle.Tensor, pos_weight: treadle.Tensor | None = pos_weight) -> treadle.Tensor:
            return functional.binary_cross_entropy_with_logits(x, y, weight=weight, pos_weight=pos_weight, reduction="none")

        assert treadle.autograd.gradcheck(loss, [x, y])
        assert treadle.autograd.gradgradcheck(loss, [x, y])


@pytest.mark.parametrize(("x", "y"), [(50.0, 1 - 2.0**-24), (100.0, 0.999999), (1e4, 0.99997), (20.0, 1.0), (-50.0, 2.0**-24)])
def test_bce_of_soft_targets_keeps_its_digits(x: float, y: float) -> None:
    target = np.float32(y)
    loss = functional.binary_cross_entropy_with_logits(treadle.tensor([x]), treadle.tensor([target]))
    wanted = (1 - float(target)) * max(x, 0) - float(target) * min(x, 0) + np.log1p(np.exp(-abs(x)))
    assert loss.item() == pytest.approx(wanted, rel=1e-6)
    assert functional.binary_cross_entropy_with_logits(treadle.tensor([INF]), treadle.tensor([0.0])).item() == INF


@pytest.mark.parametrize("delta", [INF, 1e39])
def test_huber_of_a_delta_beyond_every_error_is_the_square(delta: float) -> None:
    x = treadle.tensor([1.0, -2.0], requires_grad=True)
    loss = nn.HuberLoss(delta=delta)(x, treadle.zeros(2))
    loss.backward()
    assert (loss.item(), x.grad.tolist()) == (1.25, [0.5, -1.0])


def test_logsumexp_of_infinities() -> None:
    x = treadle.tensor([[INF, 1.0], [-INF, -INF], [-INF, 1.0]], requires_grad=True)
    total = x.logsumexp(1)
    assert total.tolist() == [INF, -INF, 1.0]
    total.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[np.nan, 0], [0, 0], [0, 1]])


def test_nothing_reaches_x_between_crossed_bounds() -> None:
    x = treadle.tensor([0.5, 1.0, 2.0], requires_grad=True)
    y = x.clip(2.0, 0.5)
    y.sum().backward()
    assert (y.tolist(), x.grad.tolist()) == ([0.5] * 3, [0.0] * 3)


def test_a_gradient_at_a_bound_is_zero_as_that_of_relu() -> None:
    x = treadle.tensor([-INF, -1.0, 0.0, 0.5, 1.0, 2.0, INF], requires_grad=True)
    wanted = {(0.0, 1.0): [0, 0, 0, 1, 0, 0, 0], (0.0, None): [0, 0, 0, 1, 1, 1, 1], (None, 1.0): [1, 1, 1, 1, 0, 0, 0]}
    for bounds, slopes in wanted.items():
        x.grad = None
        x.clip(*bounds).sum().backward()
        assert x.grad.tolist() == slopes


def test_a_variance_far_from_zero_is_exact() -> None:
    assert treadle.tensor([1e7, 1e7 + 1]).var().item() == 0.25
    x = np.float32(np.random.default_rng(0).normal(0, 0.3, (1, 1, 64)) + 1e7)
    layer = nn.InstanceNorm1d(1, momentum=1.0, track_running_stats=True)
    layer(treadle.tensor(x))
    assert layer.running_var.item() == pytest.approx(x.astype("float64").var(ddof=1), rel=1e-6)
    assert np.isnan(treadle.ones(3).var(correction=float("nan")).item())


def test_powers_of_zero_have_second_derivatives() -> None:
    for exponents in (0.0, treadle.zeros(4)):
        x = treadle.tensor([0.0, 1.0, 1e-30, np.nan], requires_grad=True)
        y = x**exponents + x**3
        (slope,) = treadle.grad(y.sum(), [x], create_graph=True)
        (bend,) = treadle.grad(slope.sum(), [x])
        np.testing.assert_array_equal(bend.numpy(), np.float32([0.0, 6.0, 6e-30, np.nan]))


def test_two_numbers_have_one_type() -> None:
    mask = treadle.tensor([True, False])
    for got in (treadle.where(mask, 1, 2.5), treadle.where(mask, 1.0, 2), treadle.ops.add(1, 2.5)):
        assert got.dtype == treadle.float32
    assert treadle.where(mask, 1, 2).dtype == treadle.int64
