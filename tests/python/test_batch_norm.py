"""`BatchNorm1d`: against NumPy and a composed layer, what it refuses, and the layers that work with it."""

from __future__ import annotations

import copy
import gc
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import init, nn, ops

SEED = 1


@pytest.fixture(autouse=True)
def _seeded() -> None:
    treadle.manual_seed(SEED)


class ComposedBatchNorm1d(nn.Module):
    """Batch norm of single operations, in the vocabulary of course material; running statistics are plain attributes."""

    def __init__(self, dim: int, eps: float = 1e-5, momentum: float = 0.1, device: str | None = None, dtype: str = "float32"):
        super().__init__()
        self.dim = dim
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(init.ones(dim, device=device, dtype=dtype))
        self.bias = nn.Parameter(init.zeros(dim, device=device, dtype=dtype))
        self.running_mean = nn.Parameter(init.zeros(dim, device=device, dtype=dtype))
        self.running_var = nn.Parameter(init.ones(dim, device=device, dtype=dtype))

    def forward(self, x: treadle.Tensor) -> treadle.Tensor:
        def wide(row: treadle.Tensor) -> treadle.Tensor:
            return ops.broadcast_to(ops.reshape(row, (1, -1)), x.shape)

        mean, var = self.running_mean, self.running_var
        if self.training:
            batch_size = x.shape[0]
            mean = ops.divide_scalar(ops.summation(x, axes=0), batch_size)
            var = ops.divide_scalar(ops.summation(ops.power_scalar(x - wide(mean), 2), axes=0), batch_size)
            self.running_mean = (1 - self.momentum) * self.running_mean + self.momentum * mean
            self.running_var = (1 - self.momentum) * self.running_var + self.momentum * var
        frac = ops.divide(x - wide(mean), ops.power_scalar(wide(var) + self.eps, 0.5))
        return ops.multiply(wide(self.weight), frac) + wide(self.bias)


def close(got: Any, expected: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(got), np.asarray(expected), rtol=tolerance, atol=tolerance)


def grads_of(layer: nn.Module, x: np.ndarray, cotangent: np.ndarray) -> list[np.ndarray]:
    """y and the gradients of x, weight and bias for one cotangent."""
    layer.zero_grad()
    leaf = treadle.tensor(x, requires_grad=True)
    y = layer(leaf)
    y.backward(treadle.tensor(cotangent))
    return [t.numpy() for t in (y.detach(), leaf.grad, layer.weight.grad, layer.bias.grad)]


def draw(*shape: int) -> np.ndarray:
    return treadle.randn(*shape).numpy().copy()


def norm64(x: np.ndarray, axes: tuple[int, ...], eps: float = 1e-5) -> np.ndarray:
    x = x.astype("float64")
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


# BatchNorm1d: values ---------------------------------------------------------


def test_composed_batch_norm_agrees_with_the_layer() -> None:
    composed, layer = ComposedBatchNorm1d(5), nn.BatchNorm1d(5)
    for parameter, value in (("weight", draw(5)), ("bias", draw(5))):
        getattr(composed, parameter).copy_(value)
        getattr(layer, parameter).copy_(value)
    for step in range(4):
        x = 3 * draw(16, 5) + step
        for ours, theirs in zip(grads_of(layer, x, g := draw(16, 5)), grads_of(composed, x, g), strict=True):
            close(ours, theirs)
        close(layer.running_mean, composed.running_mean.detach())
        close(layer.running_var, composed.running_var.detach())
    composed.running_mean, composed.running_var = composed.running_mean.detach(), composed.running_var.detach()
    for ours, theirs in zip(grads_of(layer.eval(), x, g := draw(16, 5)), grads_of(composed.eval(), x, g), strict=True):
        close(ours, theirs)


def test_composed_batch_norm_keeps_memory_bounded_where_the_user_detaches() -> None:
    composed, x = ComposedBatchNorm1d(8), treadle.randn(16, 8)
    held = []
    for step in range(600):
        composed(x).sum().backward()
        composed.running_mean, composed.running_var = composed.running_mean.detach(), composed.running_var.detach()
        if step in (99, 599):
            gc.collect()
            stats = treadle.memory_stats()
            held.append((stats["live_bytes"], stats["live_nodes"]))
    assert held[0] == held[1]


@pytest.mark.parametrize("shape", [(16, 3), (4, 3, 7)])
def test_batch_norm_against_numpy(shape: tuple[int, ...]) -> None:
    axes = (0, 2) if len(shape) == 3 else (0,)
    x, bn = 5 * draw(*shape) + 100, nn.BatchNorm1d(3)
    close(bn(treadle.tensor(x)), norm64(x, axes), 2e-6)
    close(bn.running_mean, 0.1 * x.astype("float64").mean(axes))
    close(bn.running_var, 0.9 + 0.1 * x.astype("float64").var(axes))
    assert bn.num_batches_tracked.item() == 1


def test_batch_norm_running_statistics_options() -> None:
    x = draw(10, 2)
    n_minus_1, cumulative = nn.BatchNorm1d(2, unbiased=True), nn.BatchNorm1d(2, momentum=None)
    n_minus_1(treadle.tensor(x))
    close(n_minus_1.running_var, 0.9 + 0.1 * x.var(0, ddof=1))
    batches = [draw(10, 2) for _ in range(3)]
    for batch in batches:
        cumulative(treadle.tensor(batch))
    close(cumulative.running_mean, np.mean([b.mean(0) for b in batches], axis=0))
    with treadle.no_grad():
        cumulative(treadle.tensor(x))
    assert cumulative.num_batches_tracked.item() == 4
    cumulative.reset_parameters()
    assert (cumulative.running_mean.tolist(), cumulative.running_var.tolist()) == ([0, 0], [1, 1])
    assert cumulative.num_batches_tracked.item() == 0


def test_batch_norm_without_affine_or_tracking() -> None:
    x = draw(8, 3)
    bare = nn.BatchNorm1d(3, affine=False, track_running_stats=False)
    assert list(bare.state_dict()) == []
    close(bare.eval()(treadle.tensor(x)), norm64(x, (0,)), 2e-6)
    assert list(nn.BatchNorm1d(3, affine=False).state_dict()) == ["running_mean", "running_var", "num_batches_tracked"]


def test_batch_norm_mask_counts_only_what_is_kept() -> None:
    x, keep = draw(8, 3), np.array([1, 1, 0, 1, 0, 1, 1, 0], bool)
    masked, plain = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    y = masked(treadle.tensor(x), treadle.tensor(keep))
    close(y[keep], plain(treadle.tensor(x[keep])), 1e-6)
    assert not np.any(y.numpy()[~keep])
    close(masked.running_var, plain.running_var, 1e-6)


def test_batch_norm_mode_at_forward_decides_backward() -> None:
    x, g, bn = draw(8, 3), draw(8, 3), nn.BatchNorm1d(3)
    expected = grads_of(copy.deepcopy(bn), x, g)[1]
    leaf = treadle.tensor(x, requires_grad=True)
    y = bn(leaf)
    bn.eval()
    y.backward(treadle.tensor(g))
    np.testing.assert_array_equal(leaf.grad.numpy(), expected)


def test_batch_norm_keeps_working_after_running_mean_is_reassigned() -> None:
    bn = nn.BatchNorm1d(3)
    bn.running_mean = (1 - bn.momentum) * bn.running_mean + bn.momentum * treadle.ones(3)
    close(bn.eval()(treadle.full((2, 3), 0.1)), np.zeros((2, 3)))


def test_batch_norm_promotes_as_numpy_does() -> None:
    bn = nn.BatchNorm1d(3)
    assert bn(treadle.tensor(draw(8, 3).astype("float64"))).dtype == "float64"
    assert bn.running_mean.dtype == "float32"
    assert nn.BatchNorm1d(3, dtype="float64")(treadle.tensor(draw(8, 3))).dtype == "float64"


# BatchNorm1d: what is refused ----------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dim": 0}, ValueError, "batch_norm: expected dim of at least 1, got 0"),
        ({"dim": -3}, ValueError, "batch_norm: expected dim of at least 1, got -3"),
        ({"dim": 2.5}, TypeError, "batch_norm: expected dim as an int, got float"),
        ({"dim": 4, "eps": 0}, ValueError, "batch_norm: expected eps above 0, got 0"),
        ({"dim": 4, "eps": -1e-5}, ValueError, "batch_norm: expected eps above 0, got -1e-05"),
        ({"dim": 4, "eps": float("nan")}, ValueError, "batch_norm: expected eps above 0, got nan"),
        ({"dim": 4, "momentum": 1.5}, ValueError, "batch_norm: expected momentum in [0, 1], got 1.5"),
        ({"dim": 4, "momentum": -0.1}, ValueError, "batch_norm: expected momentum in [0, 1], got -0.1"),
        (
            {"dim": 4, "device": "cuda"},
            ValueError,
            "batch_norm: expected device None or \"cpu\" (treadle runs on the CPU), got 'cuda'",
        ),
        ({"dim": 4, "dtype": "int64"}, TypeError, "batch_norm: expected dtype float32 or float64, got int64"),
    ],
)
@pytest.mark.parametrize("bare", [False, True])
def test_batch_norm_construction(options: dict[str, Any], error: type[Exception], message: str, bare: bool) -> None:
    with pytest.raises(error) as caught:
        nn.BatchNorm1d(**options, affine=not bare, track_running_stats=not bare)
    assert str(caught.value) == message


KINDS: dict[str, dict[str, bool]] = {
    "whole": {},
    "no affine": {"affine": False},
    "no tracking": {"track_running_stats": False},
    "bare": {"affine": False, "track_running_stats": False},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (treadle.ones(8, 5), ValueError, "batch_norm: expected 4 channels, got 5 in shape (8, 5)"),
        (treadle.ones(8, 5, 2), ValueError, "batch_norm: expected 4 channels, got 5 in shape (8, 5, 2)"),
        (treadle.ones(4), ValueError, "batch_norm: expected shape (N, C) or (N, C, L), got (4,)"),
        (treadle.ones(2, 4, 2, 2), ValueError, "batch_norm: expected shape (N, C) or (N, C, L), got (2, 4, 2, 2)"),
        (treadle.ones(8, 4, dtype="int64"), TypeError, "batch_norm: expected float32 or float64, got int64"),
        (treadle.ones(8, 4, dtype="bool"), TypeError, "batch_norm: expected float32 or float64, got bool"),
        (np.ones((8, 4)), TypeError, "batch_norm: expected a Tensor, got ndarray; wrap it with treadle.tensor(...)"),
        ([[1.0]], TypeError, "batch_norm: expected a Tensor, got list; wrap it with treadle.tensor(...)"),
        *(
            (
                treadle.ones(*shape),
                ValueError,
                f"batch_norm: training needs more than one value per channel, got shape {shape}; "
                "use drop_last=True in the DataLoader, or eval()",
            )
            for shape in ((1, 4), (1, 4, 1))
        ),
    ],
)
def test_batch_norm_input(kind: str, x: Any, error: type[Exception], message: str) -> None:
    bn = nn.BatchNorm1d(4, **KINDS[kind])
    before = {name: t.tolist() for name, t in bn.state_dict().items()}
    for call in (bn, bn.forward_relu):
        with pytest.raises(error) as caught:
            call(x)
        assert str(caught.value) == message
    assert {name: t.tolist() for name, t in bn.state_dict().items()} == before


def test_batch_norm_of_an_empty_batch_moves_nothing() -> None:
    bn = nn.BatchNorm1d(4)
    x = treadle.zeros(0, 4, requires_grad=True)
    y = bn(x)
    y.sum().backward()
    assert y.shape == (0, 4)
    assert bn.weight.grad.tolist() == [0, 0, 0, 0]
    assert (bn.num_batches_tracked.item(), bn.running_mean.tolist()) == (0, [0, 0, 0, 0])


def test_batch_norm_of_non_finite_values_warns_and_keeps_the_running_statistics() -> None:
    x = draw(8, 4)
    x[2, 1], x[3, 3] = np.nan, np.inf
    bn = nn.BatchNorm1d(4)
    with pytest.warns(RuntimeWarning, match="non-finite ones in 2 of 4 channels"):
        y = bn(treadle.tensor(x)).numpy()
    assert np.isnan(y[:, 1]).all()
    assert np.isfinite(y[:, [0, 2]]).all()
    assert np.isfinite(bn.running_mean.numpy()).all()
    assert (bn.running_mean.tolist()[1], bn.running_var.tolist()[3]) == (0, 1)


# Around BatchNorm1d ------------------------------------------------------------


def test_sequential_fuses_relu_with_the_same_result() -> None:
    bn = nn.BatchNorm1d(3)
    bn.weight.copy_(draw(3))
    fused, plain = nn.Sequential(bn, nn.ReLU()), copy.deepcopy(bn)
    x, g = draw(16, 3), draw(16, 3)
    a, b = (treadle.tensor(x, requires_grad=True) for _ in range(2))
    y, z = fused(a), plain(b).relu()
    y.backward(treadle.tensor(g))
    z.backward(treadle.tensor(g))
    close(y.detach(), z.detach(), 1e-6)
    close(a.grad, b.grad, 1e-6)
    close(bn.weight.grad, plain.weight.grad, 1e-6)
    assert bn.num_batches_tracked.item() == 1


def test_sequential_calls_the_forward_of_a_subclass() -> None:
    class Loud(nn.BatchNorm1d):
        def forward(self, x: treadle.Tensor, mask: treadle.Tensor | None = None) -> treadle.Tensor:
            return super().forward(x, mask) + 10

    assert nn.Sequential(Loud(2), nn.ReLU())(treadle.tensor(draw(4, 2))).numpy().min() > 5


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_fuse_linear_bn(bias: bool, affine: bool) -> None:
    linear, bn = nn.Linear(6, 4, bias=bias), nn.BatchNorm1d(4, affine=affine)
    for _ in range(5):
        bn(linear(treadle.tensor(draw(32, 6))))
    if affine:
        bn.weight.copy_(draw(4))
        bn.bias.copy_(draw(4))
    x = treadle.tensor(draw(20, 6))
    state, kept = treadle.default_generator().get_state(), linear.state_dict()
    fused = nn.utils.fuse_linear_bn(linear, bn)
    close(fused(x).detach(), bn.eval()(linear(x)).detach(), 1e-6)
    assert treadle.default_generator().get_state() == state
    assert all(np.array_equal(t.numpy(), kept[name].numpy()) for name, t in linear.state_dict().items())
    with pytest.raises(ValueError, match="fuse_linear_bn: expected 4 channels as the linear layer gives, got 5"):
        nn.utils.fuse_linear_bn(linear, nn.BatchNorm1d(5))
    with pytest.raises(ValueError, match="got a batch norm with track_running_stats=False"):
        nn.utils.fuse_linear_bn(linear, nn.BatchNorm1d(4, track_running_stats=False))
