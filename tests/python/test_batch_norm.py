"""`BatchNorm1d` against a composed layer in the vocabulary of course material, and the layers that work with it.

What it promises row by row is in test_batch_norm_contract.py, test_batch_norm_errors.py and test_batch_norm_accuracy.py.
"""

from __future__ import annotations

import copy
import gc

import numpy as np
import pytest

import treadle
from tests.python.batch_norm_reference import close, draw, grads_of
from treadle import init, nn, ops


class ComposedBatchNorm1d(nn.Module):
    """Batch norm of single operations, in the vocabulary of course material; running statistics are plain attributes."""

    def __init__(self, dim: int, eps: float = 1e-5, momentum: float = 0.1, device: str | None = None, dtype: str = "float32"):
        super().__init__()
        self.dim = dim
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(init.ones(dim, device=device, dtype=dtype))
        self.bias = nn.Parameter(init.zeros(dim, device=device, dtype=dtype))
        self.running_mean = init.zeros(dim, device=device, dtype=dtype)
        self.running_var = init.ones(dim, device=device, dtype=dtype)

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


def test_batch_norm_keeps_working_after_running_mean_is_reassigned() -> None:
    bn = nn.BatchNorm1d(3)
    bn.running_mean = (1 - bn.momentum) * bn.running_mean + bn.momentum * treadle.ones(3)
    close(bn.eval()(treadle.full((2, 3), 0.1)), np.zeros((2, 3)))


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
def test_signature_fold_fuse_linear_bn(bias: bool, affine: bool) -> None:
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


@pytest.mark.parametrize("shape", [(1100, 130), (3, 2, 50_000), (40, 8, 9)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_gradients_written_over_those_that_arrive_have_the_bits_of_those_that_are_not(
    shape: tuple[int, ...], training: bool
) -> None:
    treadle.manual_seed(3)
    layer = nn.BatchNorm1d(shape[1]).train(training)
    x, scale = treadle.randn(*shape).requires_grad_(), treadle.randn(*shape)

    def gradients(retain_graph: bool) -> list[np.ndarray]:
        (layer(x) * scale).sum().backward(retain_graph=retain_graph)
        found = [t.grad.numpy().copy() for t in (x, *layer.parameters())]
        for t in (x, *layer.parameters()):
            t.grad = None
        return found

    for apart, over in zip(gradients(True), gradients(False), strict=True):
        assert np.array_equal(apart, over)
    cotangent = treadle.randn(*shape)
    before = cotangent.numpy().copy()
    layer(x).backward(cotangent)
    assert np.array_equal(cotangent.numpy(), before)
