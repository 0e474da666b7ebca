"""Containers of modules, and what modules show of themselves."""

from __future__ import annotations

import numpy as np
import pytest
from test_module import model

import treadle
from treadle import nn


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

    norm, relu = nn.BatchNorm1d(3), nn.ReLU()
    x = treadle.randn(8, 3)
    for modules in (
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


@pytest.mark.parametrize("patched", range(3))
def test_sequential_uses_the_forward_that_an_instance_was_given(patched):
    modules = nn.Linear(3, 3), nn.BatchNorm1d(3), nn.ReLU()
    modules[patched].forward = lambda x: x * 0 - 5
    x = treadle.randn(4, 3)
    want = x
    for module in modules:
        want = module(want)
    np.testing.assert_array_equal(nn.Sequential(*modules)(x).numpy(), want.numpy())


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
