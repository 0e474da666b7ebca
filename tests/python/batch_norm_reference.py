"""What the tests of batch norm share: inputs, the definition in float64, and all gradients of a layer."""

from __future__ import annotations

from typing import Any

import numpy as np

import treadle
from treadle import nn

KINDS: dict[str, dict[str, bool]] = {
    "whole": {},
    "no affine": {"affine": False},
    "no tracking": {"track_running_stats": False},
    "bare": {"affine": False, "track_running_stats": False},
}


def close(got: Any, expected: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(got), np.asarray(expected), rtol=tolerance, atol=tolerance)


def state(layer: nn.Module) -> dict[str, Any]:
    """All tensors of the layer, as they are now."""
    return {name: tensor.tolist() for name, tensor in layer.state_dict().items()}


def draw(*shape: int) -> np.ndarray:
    return treadle.randn(*shape).numpy().copy()


def over(x: Any) -> tuple[int, ...]:
    """The axes that statistics are taken over: all but the channels'."""
    return tuple(axis for axis in range(x.ndim) if axis != 1)


def per_channel(values: Any, x: Any) -> np.ndarray:
    """Numbers of channels in a shape that broadcasts against x."""
    return np.reshape(values, (-1,) + (1,) * (x.ndim - 2))


def normalised(x: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """In float64."""
    wide = x.astype("float64")
    return (wide - wide.mean(over(x), keepdims=True)) / np.sqrt(wide.var(over(x), keepdims=True) + eps)


def grads_of(layer: nn.Module, x: np.ndarray, cotangent: np.ndarray) -> list[np.ndarray]:
    """y and the gradients of x, weight and bias for one cotangent."""
    layer.zero_grad()
    leaf = treadle.tensor(x, requires_grad=True)
    y = layer(leaf)
    y.backward(treadle.tensor(cotangent))
    return [t.numpy() for t in (y.detach(), leaf.grad, layer.weight.grad, layer.bias.grad)]
