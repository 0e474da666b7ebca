"""What `fit` and `evaluate` are given, looked at before anything changes; of batches, what can be known before they come."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from inspect import signature
from numbers import Real
from typing import Any

from treadle._core import Tensor
from treadle.nn import Module
from treadle.optim import LRScheduler, Optimizer, ReduceLROnPlateau
from treadle.optim._rates import expect_newest
from treadle.training.stopping import EarlyStopping

__all__ = [
    "check_batches",
    "check_callbacks",
    "check_loss",
    "check_metrics",
    "check_optimizer",
    "check_parts",
    "inputs_of",
    "length",
    "pair",
    "scalar",
]

_LISTS = (tuple, list)  # made once, as a union in the code would be at every call
_HOW = "make them with DataLoader(TensorDataset(x, y), 64)"


def check_batches(op: str, data: Any, pairs: bool = True, times: int = 1) -> None:
    """Refuses rows where batches of them are meant, what is no pair or none where pairs are, and what does not last so often."""
    if not isinstance(data, Iterable) or hasattr(data, "__array__"):
        raise _no_batches(op, f"a {type(data).__name__}", _HOW)
    if pairs and length(data) == 0:
        raise ValueError(f"{op}: expected at least 1 batch, got none")
    if pairs and isinstance(data, list | tuple) and data:
        pair(op, data[0])
    if times > 1 and isinstance(data, Iterator):
        got = f"a {type(data).__name__}, which is used up by the first"
        raise ValueError(f"{op}: expected batches to go through {times} times, got {got}; give a list or a DataLoader")


def length(batches: Iterable[Any]) -> int | None:
    """How many batches there are, when that can be known."""
    try:
        return len(batches)  # type: ignore[arg-type]
    except TypeError:
        return None


def pair(op: str, batch: Any) -> tuple[Any, Any]:
    """Inputs and targets of a batch; ValueError when it is made of anything else."""
    if isinstance(batch, _LISTS):
        if len(batch) == 2:
            return batch  # type: ignore[return-value]
        how = "several inputs, or targets, go into one tuple" if batch[2:] else "give targets too"
        raise _no_batches(op, f"a batch of {len(batch)}", how)
    raise _no_batches(op, f"a {type(batch).__name__} as a batch", _HOW)


def inputs_of(op: str, batch: Any) -> Any:
    """Inputs of a batch, which may come with targets; ValueError when those are of a single row."""
    if not isinstance(batch, _LISTS):
        return batch
    if any(isinstance(part, int | float) or getattr(part, "shape", None) == () for part in batch[1:]):
        raise _no_batches(op, "a row", _HOW)
    return batch[0]


def _no_batches(op: str, got: str, how: str) -> ValueError:
    return ValueError(f"{op}: expected batches (inputs, targets), got {got}; {how}")


def check_callbacks(callbacks: Any) -> tuple[Callable[..., object], ...]:
    """The callbacks, which may come from a generator; refuses what cannot be called."""
    if not isinstance(callbacks, Iterable):
        got = f"a {type(callbacks).__name__}"
        raise TypeError(f"fit: expected callbacks as a list of functions, got {got}; put it into a list")
    given = tuple(callbacks)
    for callback in given:
        if not callable(callback):
            raise TypeError(f"fit: expected callbacks that can be called, got a {type(callback).__name__}; give functions")
        try:
            signature(callback).bind(None, None)
        except ValueError:
            continue  # it is one of C that does not say what it takes
        except TypeError as error:
            raise TypeError(f"fit: expected callbacks that take a history and a model, got {callback!r} ({error})") from None
    return given


def check_loss(op: str, loss: Any) -> None:
    """Refuses what is known not to give one number for a batch."""
    if isinstance(loss, type):
        raise TypeError(f"{op}: expected a loss, got the class {loss.__name__}; make one of it: {loss.__name__}()")
    if not callable(loss):
        how = "give a function of outputs and targets, or a loss module such as nn.CrossEntropyLoss()"
        raise TypeError(f"{op}: expected a loss that can be called, got a {type(loss).__name__}; {how}")
    if getattr(loss, "reduction", None) == "none":
        raise ValueError(f"{op}: expected a loss that averages over the batch, got reduction 'none'; use 'mean'")


def scalar(op: str, loss: Any) -> float:
    """The number that a loss is; ValueError when it is anything else."""
    if isinstance(loss, Tensor) and loss.size == 1:
        return float(loss.item())
    got = f"shape {loss.shape}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
    how = "average over the batch with mean()"
    raise ValueError(f"{op}: expected a loss that is a Tensor of one number, got {got}; {how}")


def check_metrics(op: str, metrics: Any) -> None:
    """Refuses all but names and measures, and the name that the loss has."""
    if metrics is None:
        return
    if not isinstance(metrics, Mapping):
        how = "give them names, as {'accuracy': Accuracy()}"
        raise TypeError(f"{op}: expected metrics as a dict, got {type(metrics).__name__}; {how}")
    for name, metric in metrics.items():
        if isinstance(metric, type):
            raise TypeError(f"{op}: expected a measure as metric {name!r}, got the class {metric.__name__}; make one of it")
        if not all(callable(getattr(metric, part, None)) for part in ("reset", "update", "compute")):
            how = "write a class with reset, update and compute, or use Accuracy(), MAE() or R2()"
            raise TypeError(f"{op}: expected a measure as metric {name!r}, got a {type(metric).__name__}; {how}")
    if "loss" in metrics:
        raise ValueError(f"{op}: expected names of metrics other than 'loss', which the loss has, got {sorted(metrics)}; rename it")


def check_parts(model: Any, optimizer: Any, scheduler: Any, early_stopping: Any, clip_norm: Any) -> None:
    """Refuses parts of another kind, a schedule that does not set the optimizer's rates, and what is no bound of a norm."""
    _check_kind("model", model, Module)
    _check_kind("optimizer", optimizer, Optimizer)
    if early_stopping is not None:
        _check_kind("early_stopping", early_stopping, EarlyStopping)
    if scheduler is not None:
        _check_kind("scheduler", scheduler, LRScheduler, ReduceLROnPlateau)
        if scheduler.optimizer is not optimizer:
            raise ValueError("fit: expected a scheduler of the optimizer, got one of another; make it of the optimizer given")
        expect_newest(scheduler)
    number = isinstance(clip_norm, Real) and not isinstance(clip_norm, bool)
    if clip_norm is not None and not (number and clip_norm >= 0):
        raise ValueError(f"fit: expected clip_norm as a number of at least 0, got {clip_norm!r}")


def _check_kind(name: str, part: Any, *kinds: type) -> None:
    if not isinstance(part, kinds):
        wanted = " or ".join(kind.__name__ for kind in kinds)
        got = f"the class {part.__name__}; make one of it" if isinstance(part, type) else f"a {type(part).__name__}"
        raise TypeError(f"fit: expected {name} as {wanted}, got {got}")


def check_optimizer(model: Module, optimizer: Optimizer) -> None:
    """Refuses an optimizer that trains nothing of the model, and warns of what it leaves out."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    trained = {name: id(parameter) for name, parameter in model.named_parameters() if parameter.requires_grad}
    left = [repr(name) for name, parameter in trained.items() if parameter not in held]
    if left and len(left) == len(trained):
        raise ValueError(
            "fit: expected an optimizer of the model's parameters, got one that holds none that is trained; "
            "make it of model.parameters(), after astype(), double() or float()"
        )
    if left:
        shown = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
        how = "give it all parameters, or freeze those that are to stay with requires_grad_(False)"
        warnings.warn(f"fit: the optimizer does not train {shown}; {how}", RuntimeWarning, stacklevel=3)
