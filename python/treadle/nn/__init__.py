"""Layers, losses and the modules that hold them."""

from treadle.autograd import checkpoint
from treadle.nn import functional, utils
from treadle.nn.activation import ELU, GELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, SiLU, Softmax, Softplus, Tanh
from treadle.nn.container import ModuleDict, ModuleList, Residual, Sequential
from treadle.nn.dropout import Dropout
from treadle.nn.linear import Embedding, Flatten, Identity, Linear
from treadle.nn.loss import BCEWithLogitsLoss, CrossEntropyLoss, HuberLoss, L1Loss, MSELoss, NLLLoss, SoftmaxLoss
from treadle.nn.module import Module
from treadle.nn.norm import BatchNorm1d, GroupNorm, LayerNorm, LayerNorm1d, RMSNorm
from treadle.nn.parameter import Buffer, Parameter
from treadle.nn.spatial_norm import BatchNorm2d, InstanceNorm1d

__all__ = [
    "ELU",
    "GELU",
    "BCEWithLogitsLoss",
    "BatchNorm1d",
    "BatchNorm2d",
    "Buffer",
    "CrossEntropyLoss",
    "Dropout",
    "Embedding",
    "Flatten",
    "GroupNorm",
    "HuberLoss",
    "Identity",
    "InstanceNorm1d",
    "L1Loss",
    "LayerNorm",
    "LayerNorm1d",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "MSELoss",
    "Module",
    "ModuleDict",
    "ModuleList",
    "NLLLoss",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "SoftmaxLoss",
    "Softplus",
    "Tanh",
    "checkpoint",
    "functional",
    "utils",
]
