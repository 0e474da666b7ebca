"""What `BatchNorm1d` promises, one test per row: its signature and modes.

What it answers when things go wrong stands in test_batch_norm_errors.py, how exact it is in test_batch_norm_accuracy.py, the layer of course material and the layers around it in test_batch_norm.py.
"""

from __future__ import annotations

import copy
import inspect
from pathlib import Path

import numpy as np
import pytest

import treadle
from tests.python.batch_norm_reference import KINDS, close, draw, grads_of, normalised, over, per_channel, state
from treadle import nn

KEYS = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


def test_signature() -> None:
    assert str(inspect.signature(nn.BatchNorm1d)) == (
        "(dim: 'int', eps: 'float' = 1e-05, momentum: 'float | None' = 0.1, device: 'str | None' = None, dtype: 'Any' = 'float32', "
        "*, affine: 'bool' = True, track_running_stats: 'bool' = True, unbiased: 'bool' = False) -> 'None'"
    )


@pytest.mark.parametrize("shape", [(16, 3), (4, 3, 7), (1, 3, 2)])
def test_signature_input_and_train(shape: tuple[int, ...]) -> None:
    x, bn = 5 * draw(*shape) + 100, nn.BatchNorm1d(3)
    bn.weight.copy_([2, 3, 4])
    bn.bias.copy_([1, 0, -1])
    close(bn(treadle.tensor(x)), per_channel([2, 3, 4], x) * normalised(x) + per_channel([1, 0, -1], x), 4e-6)


def test_signature_input_of_any_strides_is_not_copied() -> None:
    x = treadle.randn(256, 512).T[::2]
    bn, before = nn.BatchNorm1d(256), treadle.memory_stats()["live_bytes"]
    y = bn(x)
    assert y.shape == (256, 256)
    assert treadle.memory_stats()["live_bytes"] - before < 1.5 * y.nbytes


@pytest.mark.parametrize("shape", [(16, 3), (4, 3, 7)])
def test_signature_eval_uses_the_running_statistics_and_has_all_gradients(shape: tuple[int, ...]) -> None:
    x, g, bn = draw(*shape), draw(*shape), nn.BatchNorm1d(3)
    values = {"weight": [2, 3, 4], "bias": [1, 0, -1], "running_mean": [1, 2, 3], "running_var": [4, 1, 9]}
    for name, value in values.items():
        getattr(bn, name).copy_(value)
    before = state(bn)
    y, dx, dw, db = grads_of(bn.eval(), x, g)
    root = np.sqrt(per_channel([4, 1, 9], x) + 1e-5)
    hat = (x - per_channel([1, 2, 3], x)) / root
    close(y, per_channel([2, 3, 4], x) * hat + per_channel([1, 0, -1], x))
    close(dx, g * per_channel([2, 3, 4], x) / root)
    close(dw, (g * hat).sum(over(x)))
    close(db, g.sum(over(x)))
    assert state(bn) == before


@pytest.mark.parametrize("shape", [(16, 3), (4, 3, 7)])
@pytest.mark.parametrize("recording", [True, False], ids=["recording", "no_grad"])
@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0, 0.75])
def test_signature_running_update(momentum: float, recording: bool, shape: tuple[int, ...]) -> None:
    x, bn = 2 * draw(*shape) + 1, nn.BatchNorm1d(3, momentum=momentum)
    with treadle.autograd.set_grad_enabled(recording):
        bn(treadle.tensor(x))
    close(bn.running_mean, momentum * x.astype("float64").mean(over(x)))
    close(bn.running_var, (1 - momentum) + momentum * x.astype("float64").var(over(x)))
    assert bn.num_batches_tracked.item() == 1
    assert bn.running_mean.grad_fn is bn.running_var.grad_fn is None
    assert not bn.running_mean.requires_grad


def test_signature_unbiased() -> None:
    x, biased, unbiased = draw(10, 2), nn.BatchNorm1d(2), nn.BatchNorm1d(2, unbiased=True)
    y, z = biased(treadle.tensor(x)), unbiased(treadle.tensor(x))
    close(biased.running_var, 0.9 + 0.1 * x.var(0))
    close(unbiased.running_var, 0.9 + 0.1 * x.var(0, ddof=1))
    np.testing.assert_array_equal(y.detach().numpy(), z.detach().numpy())


def test_signature_momentum_none() -> None:
    bn, batches = nn.BatchNorm1d(2, momentum=None), [draw(10, 2) for _ in range(5)]
    for count, batch in enumerate(batches, start=1):
        bn(treadle.tensor(batch))
        close(bn.running_mean, np.mean([b.mean(0) for b in batches[:count]], axis=0))
        close(bn.running_var, np.mean([b.var(0) for b in batches[:count]], axis=0))
    assert bn.num_batches_tracked.item() == 5


@pytest.mark.parametrize("kind", KINDS)
def test_signature_affine_and_track_running_stats(kind: str) -> None:
    bn, x = nn.BatchNorm1d(3, **KINDS[kind]), draw(8, 3)
    affine, tracked = KINDS[kind].get("affine", True), KINDS[kind].get("track_running_stats", True)
    assert list(bn.state_dict()) == KEYS[: 2 * affine] + KEYS[2 : 2 + 3 * tracked]
    assert [name for name, _ in bn.named_parameters()] == KEYS[: 2 * affine]
    close(bn(treadle.tensor(x)), normalised(x), 2e-6)
    if not tracked:
        close(bn.eval()(treadle.tensor(x)), normalised(x), 2e-6)


def test_signature_buffers() -> None:
    bn = nn.BatchNorm1d(3)
    found = {name: (type(tensor), tensor.shape, tensor.dtype.name) for name, tensor in bn.named_buffers()}
    assert found == {
        "running_mean": (nn.Buffer, (3,), "float32"),
        "running_var": (nn.Buffer, (3,), "float32"),
        "num_batches_tracked": (nn.Buffer, (), "int64"),
    }
    assert len(bn.parameters()) == 2


def test_signature_state_dict_keys(tmp_path: Path) -> None:
    """Those of PyTorch, and a file that PyTorch wrote."""
    bn = nn.BatchNorm1d(3)
    assert list(bn.state_dict()) == KEYS
    loaded = treadle.load(Path(__file__).parent / "fixtures" / "layers.pt")
    values = {key: loaded[f"batch_norm_1d.state.{key}"] for key in KEYS}
    assert bn.load_state_dict(values) == ([], [])
    close(bn.eval()(loaded["batch_norm_1d.x"]).detach(), loaded["batch_norm_1d.y"], 1e-6)
    treadle.save(tmp_path / "bn.safetensors", bn.state_dict())
    other, file = nn.BatchNorm1d(3), treadle.load(tmp_path / "bn.safetensors")
    other.load_state_dict(file)
    assert state(other) == state(bn)
    del file["num_batches_tracked"]
    nn.BatchNorm1d(3).load_state_dict(file)


def test_signature_helpers() -> None:
    bn = nn.BatchNorm1d(2, unbiased=True)
    fresh = state(bn)
    bn.weight.copy_([3, 4])
    bn(treadle.tensor(draw(4, 2)))
    bn.reset_running_stats()
    assert state(bn) == fresh | {"weight": [3, 4]}
    bn.reset_parameters()
    assert state(bn) == fresh
    assert repr(nn.BatchNorm1d(2)) == "BatchNorm1d(2, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)"


def test_signature_mode_at_forward_decides_backward() -> None:
    x, g, bn = draw(8, 3), draw(8, 3), nn.BatchNorm1d(3)
    for training in (True, False):
        expected = grads_of(copy.deepcopy(bn).train(training), x, g)[1]
        leaf = treadle.tensor(x, requires_grad=True)
        y = bn.train(training)(leaf)
        bn.train(not training)
        y.backward(treadle.tensor(g))
        np.testing.assert_array_equal(leaf.grad.numpy(), expected)


@pytest.mark.parametrize("shape", [(8, 3), (5, 3, 4)])
def test_signature_mask(shape: tuple[int, ...]) -> None:
    """Outputs, gradients and statistics are those of the kept positions alone; the others are zeros whatever they hold."""
    x, g = draw(*shape), draw(*shape)
    positions = (shape[0], *shape[2:])
    keep = np.random.default_rng(0).random(positions) < 0.6
    kept = (lambda t: t[keep]) if x.ndim == 2 else (lambda t: np.moveaxis(t, 1, 2)[keep])
    masked, plain = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    want = grads_of(plain, np.ascontiguousarray(kept(x)), np.ascontiguousarray(kept(g)))
    np.moveaxis(x, 1, -1)[~keep] = np.nan
    leaf = treadle.tensor(x, requires_grad=True)
    y = masked(leaf, treadle.tensor(keep))
    y.backward(treadle.tensor(g))
    for whole, part in ((y.detach().numpy(), want[0]), (leaf.grad.numpy(), want[1])):
        close(kept(whole), part, 1e-6)
        assert not np.moveaxis(whole, 1, -1)[~keep].any()
    close(masked.weight.grad, want[2], 1e-6)
    close(masked.bias.grad, want[3], 1e-6)
    close(masked.running_mean, plain.running_mean, 1e-6)
    close(masked.running_var, plain.running_var, 1e-6)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_signature_higher_order(training: bool) -> None:
    """Third order, so that backward of backward of backward runs; values of second order are in test_batch_norm_accuracy.py."""
    bn = nn.BatchNorm1d(3, dtype="float64").train(training)
    g = treadle.tensor(draw(6, 3).astype("float64"))

    def penalty(x: treadle.Tensor) -> treadle.Tensor:
        (dx,) = treadle.grad((bn(x).tanh() * g).sum(), [x], create_graph=True)
        return dx.square().sum()

    x = treadle.tensor(draw(6, 3).astype("float64"))
    assert treadle.autograd.gradgradcheck(penalty, [x.requires_grad_()])


@pytest.mark.parametrize("momentum", [0.1, None])
def test_signature_recompute_moves_statistics_once(momentum: float | None) -> None:
    again, once = nn.BatchNorm1d(3, momentum=momentum), nn.BatchNorm1d(3, momentum=momentum)
    for _ in range(3):
        x, g = draw(8, 3), treadle.tensor(draw(8, 3))
        a, b = (treadle.tensor(x, requires_grad=True) for _ in range(2))
        nn.checkpoint(again, a).backward(g)
        once(b).backward(g)
        np.testing.assert_array_equal(a.grad.numpy(), b.grad.numpy())
    assert state(again) == state(once)
    assert again.num_batches_tracked.item() == 3


def test_siblings_instance_norm_recomputed_moves_statistics_once() -> None:
    again, once = (nn.InstanceNorm1d(3, track_running_stats=True, momentum=None) for _ in range(2))
    inside = nn.Sequential(again)
    for _ in range(3):
        x = draw(8, 3, 5)
        nn.checkpoint(lambda a: nn.checkpoint(inside, a), treadle.tensor(x, requires_grad=True)).sum().backward()
        once(treadle.tensor(x))
    assert state(again) == state(once)
    assert again.num_batches_tracked.item() == 3


def test_siblings_instance_norm_keeps_finite_statistics() -> None:
    norm = nn.InstanceNorm1d(3, track_running_stats=True)
    norm(treadle.tensor(draw(4, 3, 5)))
    before = state(norm)
    norm(treadle.zeros(0, 3, 5))
    assert state(norm) == before
    x = draw(4, 3, 5)
    x[2, 1, 0] = np.inf
    with pytest.warns(RuntimeWarning, match="instance_norm: expected finite batch statistics, got non-finite ones in 1 of 3"):
        norm(treadle.tensor(x))
    moved = [ours != theirs for ours, theirs in zip(state(norm)["running_var"], before["running_var"], strict=True)]
    assert moved == [True, False, True]


def test_siblings_batch_norm_2d_takes_masks_as_arrays() -> None:
    x, mask = treadle.tensor(draw(4, 3, 2, 5)), draw(4, 2, 5) > 0
    want = nn.BatchNorm2d(3)(x, treadle.tensor(mask))
    np.testing.assert_array_equal(nn.BatchNorm2d(3)(x, mask).detach().numpy(), want.detach().numpy())
    with pytest.raises(ValueError, match=r"batch_norm: expected a mask \(N, H, W\), got shape \(4,\)"):
        nn.BatchNorm2d(3)(x, mask[:, 0, 0])


def test_siblings_instance_norm_statistics_decay() -> None:
    layer, x = nn.InstanceNorm1d(2, momentum=0.25, track_running_stats=True), treadle.randn(3, 2, 4) + 5
    layer(x)
    layer(2 * x)
    mean, var = x.numpy().mean(2).mean(0), x.numpy().var(2, ddof=1).mean(0)
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.75 * 0.25 * mean + 0.25 * 2 * mean, rtol=1e-5)
    np.testing.assert_allclose(layer.running_var.numpy(), 0.75 * (0.75 + 0.25 * var) + 0.25 * 4 * var, rtol=1e-5)


def test_siblings_members_follow_the_options() -> None:
    assert nn.InstanceNorm1d(3).state_dict() == {}
    assert list(nn.InstanceNorm1d(3, affine=True).state_dict()) == ["weight", "bias"]
    for layer in (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.RMSNorm):
        members = layer(3, dtype="float64").state_dict()
        assert {t.dtype for name, t in members.items() if name != "num_batches_tracked"} == {treadle.float64}
