"""Modules: what a state_dict holds, and what is loaded, assigned or refused."""

from __future__ import annotations

import numpy as np
import pytest
from test_module import model

import treadle
from treadle import nn


def test_state_dict_is_a_detached_snapshot():
    m = nn.Linear(2, 2)
    before = m.state_dict()
    kept = before["weight"].numpy().copy()
    m.weight.copy_(treadle.zeros(2, 2))
    assert not before["weight"].requires_grad
    np.testing.assert_array_equal(before["weight"].numpy(), kept)


def test_load_state_dict_round_trip_keeps_identity_and_casts():
    source, target = model(), model()
    source(treadle.randn(8, 4))
    weight = target[0].weight
    values = {name: np.asarray(t.numpy(), "float64" if t.dtype == "float32" else None) for name, t in source.state_dict().items()}
    assert target.load_state_dict(values) == ([], [])
    assert target[0].weight is weight
    assert weight.dtype == "float32"
    assert weight.requires_grad
    for name, t in source.state_dict().items():
        np.testing.assert_array_equal(target.state_dict()[name].numpy(), t.numpy())


def test_load_state_dict_lists_every_difference_and_changes_nothing():
    m = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    before = {name: t.numpy().copy() for name, t in m.state_dict().items()}
    values = {"0.weight": treadle.zeros(3, 2), "1.weight": treadle.zeros(3, 1), "1.bias": treadle.zeros(2), "z": 1.0, "extra": 2.0}
    with pytest.raises(ValueError, match="load_state_dict") as caught:
        m.load_state_dict(values)
    assert str(caught.value) == (
        "load_state_dict: expected the names and shapes of Sequential, got missing 0.bias; unexpected extra; unexpected z; "
        "1.bias of shape (2,) instead of (1,); 1.weight of shape (3, 1) instead of (1, 3)"
    )
    for name, t in m.state_dict().items():
        np.testing.assert_array_equal(t.numpy(), before[name])


def test_load_state_dict_names_what_is_no_tensor():
    m = nn.Linear(1, 2)
    with pytest.raises(TypeError, match=r"^load_state_dict: bias: tensor: expected .*, got str$"):
        m.load_state_dict({"weight": treadle.zeros(2, 1), "bias": "x"})


def test_load_state_dict_not_strict_names_what_differs_but_still_checks_shapes():
    m = nn.Linear(2, 1)
    assert m.load_state_dict({"weight": treadle.zeros(1, 2), "more": 1.0}, strict=False) == (["bias"], ["more"])
    assert m.weight.tolist() == [[0, 0]]
    with pytest.raises(ValueError, match=r"weight of shape \(2, 1\) instead of \(1, 2\)"):
        m.load_state_dict({"weight": treadle.zeros(2, 1)}, strict=False)


def test_load_state_dict_without_num_batches_tracked():
    bn = nn.BatchNorm1d(3)
    values = {name: t for name, t in bn.state_dict().items() if name != "num_batches_tracked"}
    assert bn.load_state_dict(values) == ([], [])


def test_a_parameter_gives_way_to_a_parameter_or_none_only():
    m = nn.Linear(2, 2)
    weight, before = m.weight, m.weight.tolist()
    for value in (treadle.ones(2, 2), np.ones((2, 2)), 1.0, [weight]):
        with pytest.raises(TypeError, match=r"nn\.Parameter or None for the parameter 'weight', got .*weight\.copy_"):
            m.weight = value
    with treadle.no_grad(), pytest.raises(TypeError, match="got Tensor"):
        m.weight *= 0.5
    assert m.weight is weight
    assert weight.tolist() == before
    m.weight, m.bias = nn.Parameter(treadle.ones(2, 2)), None
    assert [name for name, _ in m.named_parameters()] == ["weight"]
    del m.weight
    m.weight = treadle.ones(2, 2)
    assert m.state_dict() == {}


def test_a_tensor_over_a_buffer_stays_a_buffer():
    class Scale(nn.Module):
        def __init__(self):
            self.mean = nn.Buffer(treadle.zeros(2))

        def forward(self, x):
            self.mean = 0.5 * self.mean + 0.5 * x.mean(0)
            return x - self.mean

    m = Scale()
    for _ in range(2):
        m(treadle.tensor([[2.0, 4.0]]))
    assert type(m.mean) is nn.Buffer
    assert {name: value.tolist() for name, value in m.state_dict().items()} == {"mean": [1.5, 3.0]}
    with pytest.raises(RuntimeError, match=r"off the tape for the buffer 'mean', got one with gradients; detach\(\) it"):
        m(treadle.ones(1, 2, requires_grad=True))
    for value in (np.ones(2), [1.0, 2.0], 0):
        with pytest.raises(TypeError, match="Tensor or None for the buffer 'mean'"):
            m.mean = value
    assert m.mean.tolist() == [1.5, 3.0]
    m.mean = None
    assert m.state_dict() == {}
