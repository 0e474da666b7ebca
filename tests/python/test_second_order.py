"""Gradients of gradients through whole models, against finite differences in float64."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle import nn


def gradient_norm(model: nn.Module, x: treadle.Tensor, y: treadle.Tensor, create_graph: bool) -> treadle.Tensor:
    """Half the squared norm of the loss's gradient with respect to all parameters."""
    loss = nn.functional.cross_entropy(model(x), y)
    grads = treadle.grad(loss, model.parameters(), create_graph=create_graph)
    total = grads[0].square().sum()
    for g in grads[1:]:
        total = total + g.square().sum()
    return total * 0.5


@pytest.mark.parametrize("train", [True, False])
def test_gradient_norm_of_an_mlp_with_batch_norm(train: bool) -> None:
    treadle.manual_seed(3)
    model = nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 6), nn.BatchNorm1d(6), nn.GELU(), nn.Linear(6, 3)
    )
    model.to("float64")
    x, y = treadle.randn(12, 5, dtype="float64"), treadle.randint(0, 3, (12,))
    model(x)
    model.train(train)
    parameters = model.parameters()
    directions = [treadle.randn(*p.shape, dtype="float64") for p in parameters]
    # A Linear before a BatchNorm1d in training has a bias without influence; all others must be reached.
    seconds = treadle.grad(gradient_norm(model, x, y, True), parameters, allow_unused=True)
    got = sum((s * d).sum().item() for s, d in zip(seconds, directions, strict=True) if s is not None)
    start = [p.detach() for p in parameters]

    def moved(t: float) -> float:
        for p, s, d in zip(parameters, start, directions, strict=True):
            p.copy_(s + t * d)
        return float(gradient_norm(model, x, y, False).item())

    h = 2e-4
    want = (8 * (moved(h) - moved(-h)) - (moved(2 * h) - moved(-2 * h))) / (12 * h)
    assert abs(want) > 1e-3
    np.testing.assert_allclose(got, want, rtol=1e-6)
