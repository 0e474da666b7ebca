"""How each layer is written in ONNX: one function per forward.

None of them needs to know how many axes a value has, so that the same file serves any of them that the layer takes. Invariant: a
norm's input is centred before the norm's own node, which runtimes compute with a rounded mean, or one folded into the bias: far
from 0 that leaves few digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from treadle import models, nn
from treadle._core import Tensor
from treadle.onnx._graph import Graph, register

_SAME_NAME = {
    nn.ReLU: "Relu",
    nn.Sigmoid: "Sigmoid",
    nn.Tanh: "Tanh",
    nn.Softplus: "Softplus",
}


for _cls, _operator in _SAME_NAME.items():
    register(_cls)(lambda graph, layer, x, operator=_operator: graph.node(operator, x))


@register(nn.LeakyReLU)
def _leaky_relu(graph: Graph, layer: nn.LeakyReLU, x: str) -> str:
    return graph.node("LeakyRelu", x, alpha=float(layer.negative_slope))


@register(nn.ELU)
def _elu(graph: Graph, layer: nn.ELU, x: str) -> str:
    return graph.node("Elu", x, alpha=float(layer.alpha))


@register(nn.GELU)
def _gelu(graph: Graph, layer: nn.GELU, x: str) -> str:
    twice = graph.node("Add", graph.node("Erf", graph.node("Mul", x, graph.constant(math.sqrt(0.5)))), graph.constant(1))
    return graph.node("Mul", graph.node("Mul", x, graph.constant(0.5)), twice)


@register(nn.SiLU)
def _silu(graph: Graph, layer: nn.SiLU, x: str) -> str:
    return graph.node("Mul", x, graph.node("Sigmoid", x))


@register(nn.Softmax)
def _softmax(graph: Graph, layer: nn.Softmax, x: str) -> str:
    return graph.node("Softmax", x, axis=layer.dim)


@register(nn.LogSoftmax)
def _log_softmax(graph: Graph, layer: nn.LogSoftmax, x: str) -> str:
    return graph.node("LogSoftmax", x, axis=layer.dim)


@register(nn.Linear)
def _linear(graph: Graph, layer: nn.Linear, x: str) -> str:
    y = graph.node("MatMul", x, graph.node("Transpose", graph.weight(layer.weight)))
    return y if layer.bias is None else graph.node("Add", y, graph.weight(layer.bias))


@register(nn.Embedding)
def _embedding(graph: Graph, layer: nn.Embedding, x: str) -> str:
    return graph.node("Gather", graph.weight(layer.weight), x)


@register(nn.Identity, nn.Dropout)
def _unchanged(graph: Graph, layer: nn.Module, x: str) -> str:
    return x


def _integers(graph: Graph, *values: int) -> str:
    return graph.constant(values, np.int64)


@register(nn.Flatten)
def _flatten(graph: Graph, layer: nn.Flatten, x: str) -> str:
    """Reshape to the sizes before, the product of those inside, and the sizes after; a -1 would be any number in an empty batch."""
    before = _sizes(graph, x, 0, layer.start_dim)
    if layer.end_dim == -1:  # an operator of ONNX, which infers the product from the shape
        parts = [before, _sizes(graph, graph.node("Flatten", x, axis=layer.start_dim), 1, 2)]
    else:
        inside = graph.node("ReduceProd", _sizes(graph, x, layer.start_dim, layer.end_dim + 1), keepdims=1)
        parts = [before, inside, _sizes(graph, x, layer.end_dim + 1, np.iinfo(np.int64).max)]
    return graph.node("Reshape", x, graph.node("Concat", *parts, axis=0), allowzero=1)


def _sizes(graph: Graph, x: str, first: int, last: int) -> str:
    """Sizes of the axes from the first to before the last."""
    return graph.node("Slice", graph.node("Shape", x), _integers(graph, first), _integers(graph, last))


def _filled(graph: Graph, tensor: Tensor | None, sizes: Sequence[int], value: float) -> str:
    """A parameter, or where there is none an array of what it stands for."""
    return graph.constant(np.full(sizes, value)) if tensor is None else graph.weight(tensor)


def _scaled(graph: Graph, x: str, layer: nn.BatchNorm1d | nn.GroupNorm, sizes: tuple[int, ...]) -> str:
    """weight·x + bias, with weight and bias of the given sizes."""
    for operator, tensor in (("Mul", layer.weight), ("Add", layer.bias)):
        if tensor is not None:
            x = graph.node(operator, x, graph.node("Reshape", graph.weight(tensor), _integers(graph, *sizes)))
    return x


@register(nn.BatchNorm1d, nn.BatchNorm2d)
def _batch_norm(graph: Graph, layer: nn.BatchNorm1d, x: str) -> str:
    if layer.running_mean is None or layer.running_var is None:
        return _batch_statistics(graph, layer, x)
    weight, bias = _filled(graph, layer.weight, (layer.dim,), 1), _filled(graph, layer.bias, (layer.dim,), 0)
    mean, var = graph.weight(layer.running_mean), graph.weight(layer.running_var)
    one, zero = (graph.constant(np.full(layer.dim, value)) for value in (1, 0))
    # x - mean, exactly, whatever the number of axes: a factor of 1 and a term of -mean.
    centred = graph.node("BatchNormalization", x, one, zero, mean, one, epsilon=0.0)
    return graph.node("BatchNormalization", centred, weight, bias, zero, var, epsilon=layer.eps)


def _batch_statistics(graph: Graph, layer: nn.BatchNorm1d, x: str) -> str:
    """With statistics of the batch over all axes but that of the channels, joined into one for the purpose."""
    planes = graph.node("Reshape", x, _integers(graph, 0, layer.dim, -1))
    centred = _centred(graph, _centred(graph, planes, [0, 2]), [0, 2])
    y = _scaled(graph, _by_root(graph, centred, [0, 2], layer.eps), layer, (layer.dim, 1))
    return graph.node("Reshape", y, graph.node("Shape", x))


def _centred(graph: Graph, x: str, axes: list[int]) -> str:
    """x without its mean, up to the mean's rounding, which is near 0."""
    return graph.node("Sub", x, graph.node("ReduceMean", x, axes=axes))


def _by_root(graph: Graph, x: str, axes: list[int], eps: float) -> str:
    """x/√(mean(x²) + eps)."""
    square = graph.node("ReduceMean", graph.node("Mul", x, x), axes=axes)
    return graph.node("Div", x, graph.node("Sqrt", graph.node("Add", square, graph.constant(eps))))


@register(nn.InstanceNorm1d)
def _instance_norm(graph: Graph, layer: nn.InstanceNorm1d, x: str) -> str:
    if layer.running_mean is not None:
        return _batch_norm(graph, layer, x)
    weight, bias = _filled(graph, layer.weight, (layer.dim,), 1), _filled(graph, layer.bias, (layer.dim,), 0)
    return graph.node("InstanceNormalization", _centred(graph, x, [2]), weight, bias, epsilon=layer.eps)


@register(nn.GroupNorm)
def _group_norm(graph: Graph, layer: nn.GroupNorm, x: str) -> str:
    """Groups are channels of an instance norm; then every channel has its own weight."""
    groups = layer.num_groups
    joined = _centred(graph, graph.node("Reshape", x, _integers(graph, 0, groups, -1)), [2])
    one, zero = graph.constant(np.ones(groups)), graph.constant(np.zeros(groups))
    y = graph.node("InstanceNormalization", joined, one, zero, epsilon=layer.eps)
    y = _scaled(graph, graph.node("Reshape", y, _integers(graph, 0, layer.num_channels, -1)), layer, (layer.num_channels, 1))
    return graph.node("Reshape", y, graph.node("Shape", x))


@register(nn.LayerNorm)
def _layer_norm(graph: Graph, layer: nn.LayerNorm, x: str) -> str:
    axes = list(range(-len(layer.normalized_shape), 0))
    inputs = [_centred(graph, x, axes), _filled(graph, layer.weight, layer.normalized_shape, 1)]
    inputs += [] if layer.bias is None else [graph.weight(layer.bias)]
    return graph.node("LayerNormalization", *inputs, axis=axes[0], epsilon=layer.eps)


@register(nn.RMSNorm)
def _rms_norm(graph: Graph, layer: nn.RMSNorm, x: str) -> str:
    axes = list(range(-len(layer.normalized_shape), 0))
    return graph.node("Mul", _by_root(graph, x, axes, layer.eps), graph.weight(layer.weight))


@register(nn.Sequential)
def _sequential(graph: Graph, layer: nn.Sequential, x: str) -> str:
    for module in layer:
        x = graph.module(module, x)
    return x


@register(nn.Residual)
def _residual(graph: Graph, layer: nn.Residual, x: str) -> str:
    return graph.node("Add", graph.module(layer.fn, x), x)


@register(models.MLP, models.MLPResNet)
def _layers(graph: Graph, model: models.MLP | models.MLPResNet, x: str) -> str:
    return graph.module(model.layers, x)
