"""treadle: deep learning for models that fit on a CPU.

Tensors, automatic differentiation and layers with a Rust core. `treadle.nn`, `treadle.optim`, `treadle.data` and the other
subpackages load on first use, so that importing treadle costs little more than importing NumPy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from treadle._core import (
    DType,
    Generator,
    Tensor,
    __version__,
    arange,
    bernoulli,
    bool_,
    concatenate,
    default_generator,
    empty_cache,
    eye,
    float32,
    float64,
    full,
    full_like,
    get_num_threads,
    int64,
    manual_seed,
    memory_stats,
    normal,
    ones,
    ones_like,
    rand,
    randint,
    randn,
    randperm,
    set_num_threads,
    split,
    stack,
    tensor,
    uint8,
    uniform,
    where,
    zeros,
    zeros_like,
)
from treadle.autograd import enable_grad, grad, is_grad_enabled, no_grad, set_grad_enabled

if TYPE_CHECKING:
    from treadle import autograd, data, init, models, nn, ops, optim, training
    from treadle.anomaly import detect_anomaly
    from treadle.interchange import from_dlpack
    from treadle.nn.summary import summary
    from treadle.serialization import load, save

_SUBPACKAGES = frozenset({"autograd", "data", "init", "models", "nn", "onnx", "ops", "optim", "sklearn", "training"})
_LAZY = {
    "detect_anomaly": "treadle.anomaly",
    "from_dlpack": "treadle.interchange",
    "load": "treadle.serialization",
    "save": "treadle.serialization",
    "summary": "treadle.nn.summary",
}

__all__ = [
    "DType",
    "Generator",
    "Tensor",
    "__version__",
    "arange",
    "autograd",
    "bernoulli",
    "bool_",
    "concatenate",
    "data",
    "default_generator",
    "detect_anomaly",
    "empty_cache",
    "enable_grad",
    "eye",
    "float32",
    "float64",
    "from_dlpack",
    "full",
    "full_like",
    "get_num_threads",
    "grad",
    "init",
    "int64",
    "is_grad_enabled",
    "load",
    "manual_seed",
    "memory_stats",
    "models",
    "nn",
    "no_grad",
    "normal",
    "ones",
    "ones_like",
    "ops",
    "optim",
    "rand",
    "randint",
    "randn",
    "randperm",
    "save",
    "set_grad_enabled",
    "set_num_threads",
    "split",
    "stack",
    "summary",
    "tensor",
    "training",
    "uint8",
    "uniform",
    "where",
    "zeros",
    "zeros_like",
]


def __getattr__(name: str) -> Any:
    """Loads a subpackage, or a name of one, the first time it is asked for."""
    if name in _SUBPACKAGES:
        return importlib.import_module(f"treadle.{name}")
    if name in _LAZY:
        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'treadle' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
