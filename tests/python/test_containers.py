"""Containers of modules, and what modules show of themselves."""

from __future__ import annotations

import numpy as np
import pytest
from test_module import model

import treadle
from treadle import nn
from treadle.nn import functional as F


def test_repr_is_nested():
    assert repr(nn.Sequential(nn.Linear(4, 3), nn.Residual(nn.Sequential(nn.ReLU(), nn.Dropout(0.1))))) == (
        "Sequential(\n"
        "  (0): Linear(in_features=4, out_features=3, bias=True)\n"
        "  (1): Residual(\n"
        "    (fn): Sequential(\n"
        "      (0): ReLU()\n"
        "      (1): Dropout(p=0.1)\n"
        "    )\n"
        "  )\n"
        ")"
    )
    assert repr(nn.BatchNorm1d(8)) == "BatchNorm1d(8, eps=1e-05, momentum=0.1, affine=True, track_running_stats=True)"


def test_sequential_indexing_slicing_append():
    m = model()
    assert len(m) == 5
    assert m[-1] is list(m)[4]
    assert list(m[1:3]) == [m[1], m[2]]
    tail = m[3:]
    assert [name for name, _ in tail.named_children()] == ["3", "4"]
    tail.append(nn.ReLU())
    tail.append(nn.ReLU())
    tail.append(nn.Tanh())
    assert len(tail) == 5
    assert isinstance(tail[-1], nn.Tanh)
    m[2] = nn.Tanh()
    assert isinstance(m[2], nn.Tanh)
    with pytest.raises(IndexError):
        m[5]
    with pytest.raises(TypeError, match="Sequential: expected modules, got function"):
        nn.Sequential(nn.ReLU(), lambda x: x)


def test_sequential_is_its_modules_one_after_another():
    class Doubling(nn.ReLU):
        def forward(self, x):
            return 2 * super().forward(x)

    linear, norm, relu = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU()
    x = treadle.randn(8, 3)
    for modules in (
        [linear],
        [linear, relu],
        [nn.Linear(3, 3, bias=False), relu, linear, relu, relu],
        [linear, norm, relu, linear, linear, relu, norm],
        [linear, Doubling()],
        [norm],
        [norm, norm],
        [norm, relu],
        [norm, relu, relu],
        [relu, norm, norm, relu, norm],
        [norm, Doubling(), norm, nn.Linear(3, 3)],
        [],
    ):
        want = x
        for module in modules:
            want = module(want)
        assert np.array_equal(nn.Sequential(*modules)(x).detach().numpy(), want.detach().numpy())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(5, 4), (3, 5, 4), (4,), (0, 4), (64, 4)])
def test_linear_and_relu_together_have_the_gradients_of_each_alone(shape, dtype):
    linear = nn.Linear(4, 6, dtype=dtype)
    gradients = []
    for layers in (nn.Sequential(linear, nn.ReLU()), lambda x: F.relu(linear(x))):
        treadle.manual_seed(0)
        x = treadle.randn(*shape, dtype=dtype, requires_grad=True)
        y = layers(x)
        leaves = [x, linear.weight, linear.bias]
        first = treadle.grad(y, leaves, treadle.randn(*y.shape, dtype=dtype), create_graph=True)
        second = treadle.grad((first[0] ** 2).sum() + (first[1] ** 2).sum(), [x, linear.weight])
        layers(x).backward(treadle.ones_like(y))
        gradients.append([y, *first, *second, x.grad, linear.weight.grad, linear.bias.grad])
        linear.zero_grad()
    for together, alone in zip(*gradients, strict=True):
        np.testing.assert_array_equal(together.detach().numpy(), alone.detach().numpy())


def test_linear_and_relu_together_pass_nan_on_and_keep_only_what_comes_out():
    model = nn.Sequential(nn.Linear(64, 512), nn.ReLU())
    with treadle.no_grad():
        model[0].weight[:2] = float("nan")
    x = treadle.randn(256, 64)
    before = treadle.memory_stats()["live_bytes"]
    y = model(x)
    assert np.isnan(y[:, :2].detach().numpy()).all()
    assert (y[:, 2:].detach().numpy() >= 0).all()
    assert treadle.memory_stats()["live_bytes"] - before < 1.5 * y.nbytes


@pytest.mark.parametrize("patched", range(3))
def test_sequential_uses_the_forward_that_an_instance_was_given(patched):
    modules = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU()
    modules[patched].forward = lambda x: x * 0 - 5
    x = treadle.randn(4, 3)
    want = x
    for module in modules:
        want = module(want)
    np.testing.assert_array_equal(nn.Sequential(*modules)(x).numpy(), want.numpy())
    if patched != 1:
        two = nn.Sequential(modules[0], modules[2])
        np.testing.assert_array_equal(two(x).numpy(), modules[2](modules[0](x)).numpy())


def test_sequential_calls_a_module_that_has_a_call_of_its_own():
    class Doubled(nn.Linear):
        def __call__(self, x):
            return 2 * super().__call__(x)

    layer = Doubled(3, 2)
    x = treadle.randn(4, 3)
    np.testing.assert_array_equal(nn.Sequential(layer)(x).numpy(), 2 * layer.forward(x).numpy())


def test_sequential_of_a_dict_names_its_modules():
    m = nn.Sequential({"body": nn.Linear(2, 3), "act": nn.ReLU(), "head": nn.Linear(3, 1)})
    assert list(m.state_dict()) == ["body.weight", "body.bias", "head.weight", "head.bias"]
    assert m(treadle.ones(4, 2)).shape == (4, 1)
    assert list(m[:2].state_dict()) == ["body.weight", "body.bias"]


def test_container_subclass_keeps_its_own_members():
    class Scaled(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(2, 2))
            self.scale = nn.Parameter(treadle.ones(1))

    assert [name for name, _ in Scaled().named_parameters()] == ["0.weight", "0.bias", "scale"]


def test_module_list_and_dict():
    layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 1)])
    layers.append(nn.ReLU())
    assert list(layers.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert list(layers[1:].state_dict()) == ["0.weight", "0.bias"]
    heads = nn.ModuleDict({"policy": nn.Linear(2, 4)})
    heads["value"] = nn.Linear(2, 1)
    assert list(heads) == list(heads.keys()) == ["policy", "value"]
    assert "value" in heads
    assert dict(heads.items())["value"] is heads["value"] is list(heads.values())[1]
    assert next(iter(heads.state_dict())) == "policy.weight"
    del heads["policy"]
    assert len(heads) == 1
    with pytest.raises(TypeError, match="ModuleDict: expected modules, got int"):
        heads["n"] = 3
    with pytest.raises(TypeError, match="residual: expected a module, got int"):
        nn.Residual(3)
