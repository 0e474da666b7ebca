"""Modules: what a state_dict holds, and what is loaded or refused."""

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
