"""`Network`: what all estimators share, from checked input to a trained module.

Invariants: a fit is decided by the parameters, the data and `random_state`; a row of weight 0 is as good as not there,
but for its class. One that raises leaves the estimator as it was, a network that went on with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from treadle._core import Generator, Tensor
from treadle.nn import Module
from treadle.optim import AdamW, Optimizer
from treadle.sklearn._checks import check_name, check_numbers, check_parameters
from treadle.sklearn._training import (
    SCHEDULES,
    SOLVERS,
    Array,
    Criterion,
    Progress,
    Rows,
    Schedule,
    Score,
    Targets,
    make_optimizer,
    make_schedule,
)
from treadle.training import History, fit, predict

__all__ = ["Array", "Network"]

_FLOATS = [np.float64, np.float32]


class Network(BaseEstimator, ABC):  # type: ignore[misc]
    """Parameters of training, `fit`, and what is known afterwards. Subclasses say what the network is and what y means."""

    def __init__(
        self,
        *,
        solver: str,
        alpha: float,
        batch_size: int | str,
        learning_rate_init: float,
        schedule: str | Callable[[Optimizer], Schedule] | None,
        max_iter: int,
        shuffle: bool,
        random_state: Any,
        tol: float,
        early_stopping: bool,
        validation_fraction: float,
        n_iter_no_change: int,
        momentum: float,
        dtype: str,
        verbose: bool,
        warm_start: bool,
    ) -> None:
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate_init = learning_rate_init
        self.schedule = schedule
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.momentum = momentum
        self.dtype = dtype
        self.verbose = verbose
        self.warm_start = warm_start

    # What a subclass says.

    @abstractmethod
    def _build(self, features: int, outputs: int) -> Module:
        """A new network."""

    @abstractmethod
    def _encode(self, y: Array, weight: Array, fresh: bool, classes: Any) -> Array:
        """Targets as the loss takes them; a fresh start also learns from them what y looks like and sets `n_outputs_`."""

    @abstractmethod
    def _criterion(self) -> Criterion:
        """The loss."""

    @abstractmethod
    def _score_outputs(self, outputs: Array, targets: Array, weight: Array | None) -> float:
        """Accuracy or R² of outputs against encoded targets."""

    _score_name = ""

    def _reweigh(self, targets: Array, weight: Array) -> Array:
        """Weights of rows, with those of classes in them."""
        return weight

    def _strata(self, targets: Array) -> Array | None:
        """What the validation rows are stratified by."""
        return None

    def _chance(self) -> AbstractContextManager[None]:
        """Where the network is built and runs: what it draws comes from the estimator's generator."""
        return nullcontext()

    def _make_schedule(self, optimizer: Optimizer, rows: int, batches: int) -> Schedule | None:
        return make_schedule(self.schedule, optimizer, self.learning_rate_init, self.max_iter, batches)

    def _slow_down(self, optimizer: Optimizer) -> bool:
        """Asked when there was no progress: whether to go on, at a lower rate."""
        return False

    # Training.

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on `X` and `y`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Dense numbers.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Classes, an indicator matrix of labels, or numbers.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows; those of weight 0 are left out, but their classes are known.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, None, incremental=False)

    def _fit(self, X: Any, y: Any, sample_weight: Any, classes: Any, incremental: bool) -> Self:
        before, go_back = self.__dict__.copy(), self._way_back()
        try:
            self._fit_anew_or_on(X, y, sample_weight, classes, incremental)
        except BaseException:  # Ctrl-C as well
            self.__dict__ = before
            go_back()
            raise
        return self

    def _way_back(self) -> Callable[[], None]:
        """What makes everything that a network that goes on changes in place what it is now; only what changes is copied."""
        if not hasattr(self, "module_"):
            return lambda: None
        stateful = [held for held in (self.module_, self._scheduler, self._optimizer) if held is not None]
        states, random, epochs = [held.state_dict() for held in stateful], self._generator.get_state(), len(self.history_)

        def go_back() -> None:
            for held, state in zip(stateful, states, strict=True):  # the optimizer last, as a schedule sets its rates
                held.load_state_dict(state)
            self._generator.set_state(random)
            del self.history_.rows[epochs:]

        return go_back

    def _fit_anew_or_on(self, X: Any, y: Any, sample_weight: Any, classes: Any, incremental: bool) -> None:
        self._check_parameters(incremental)
        fresh = not hasattr(self, "module_") or not (incremental or self.warm_start)
        numeric = not is_classifier(self)
        if issparse(y):
            raise TypeError("y: expected dense targets, got sparse ones; use y.toarray()")
        check_numbers("X", X)
        if numeric:
            check_numbers("y", y)
        X, y = validate_data(self, X, y, dtype=_FLOATS, order="C", multi_output=True, y_numeric=numeric, reset=fresh)
        weight = _weights(sample_weight, len(X))
        targets = self._encode(y, weight, fresh, classes)
        if not weight.all():
            X, targets, weight = X[weight > 0], targets[weight > 0], weight[weight > 0]
        weight = _of_finite_sum(self._reweigh(targets, weight))
        if fresh:
            self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
            self._generator = Generator(self._seed)
            self._precision = self._choose_precision(X, incremental)
        X = _cast(X, self._precision)
        train, valid = self._split(targets) if self.early_stopping else (np.arange(len(X)), None)
        with self._chance():
            if fresh:
                self.module_ = self._build(X.shape[1], self.n_outputs_).astype(self._precision)
                self.history_ = History()
            self._begin(len(train), float(weight[train].mean()), incremental and not fresh)
            rows = _rows(X, targets, weight, train)
            held_out = None if valid is None else _rows(X, targets, weight, valid)
            self._run(rows, held_out, incremental)

    def _choose_precision(self, X: Array, incremental: bool) -> str:
        if self.dtype != "auto":
            return self.dtype
        return str(X.dtype) if len(X) <= self._batch_size(len(X)) and not incremental else "float32"

    def _check_parameters(self, incremental: bool) -> None:
        """What nothing else checks, before anything changes."""
        check_parameters(self)
        check_name("solver", self.solver, SOLVERS)
        check_name("dtype", self.dtype, ("auto", "float32", "float64"))
        if self.schedule is not None and not callable(self.schedule):
            check_name("schedule", self.schedule, SCHEDULES)
        if incremental and isinstance(self.schedule, str):
            raise ValueError(f"schedule: expected None or a callable in partial_fit, got {self.schedule!r}")
        if incremental and self.early_stopping:
            raise ValueError(f"early_stopping: expected False in partial_fit, got {self.early_stopping!r}")

    def _split(self, targets: Array) -> tuple[Array, Array]:
        """Rows to train on and rows to validate on."""
        numbers, share = np.arange(len(targets)), self.validation_fraction
        train, valid = train_test_split(numbers, test_size=share, random_state=self._seed, stratify=self._strata(targets))
        if len(valid) < 2:
            raise ValueError(f"validation_fraction: expected at least 2 rows to validate on, got {share} of {len(targets)} rows")
        return train, valid

    def _batch_size(self, rows: int) -> int:
        return min(200 if isinstance(self.batch_size, str) else int(self.batch_size), rows)

    def _begin(self, rows: int, mean_weight: float, go_on: bool) -> None:
        """Makes the optimizer and its schedule, unless the last one goes on, and sets how much it decays."""
        size = self._batch_size(rows)
        if not go_on:
            nesterov = bool(getattr(self, "nesterovs_momentum", True))
            self._optimizer = make_optimizer(self.solver, self.module_, self.learning_rate_init, self.momentum, nesterov)
            self._scheduler = self._make_schedule(self._optimizer, rows, -(-rows // size))
        group = self._optimizer.param_groups[0]
        if group["params"][0].ndim > 1:
            group["weight_decay"] = self._decay(size * mean_weight)

    def _decay(self, weight: float) -> float:
        """The penalty's share in the gradient of a batch of that weight."""
        decay = float(self.alpha) if isinstance(self._optimizer, AdamW) else float(self.alpha) / weight
        if decay > float(np.finfo(self._precision).max):
            why = f"alpha={self.alpha} over a batch's weight of {weight:.3g}; scale sample_weight and class_weight, or take alpha=0"
            raise ValueError(f"alpha: expected a penalty that {self._precision} holds, got {why}")
        return decay

    def _run(self, rows: Rows, held_out: Rows | None, incremental: bool) -> None:
        """One epoch, or epochs until there is no more progress."""
        column = "train_loss" if held_out is None else f"valid_{self._score_name}"
        slow_down = partial(self._slow_down, self._optimizer)
        progress = Progress(column, self.n_iter_no_change, self.tol, slow_down, highest=held_out is not None)
        rows.size, rows.generator = self._batch_size(len(rows.x)), self._generator if self.shuffle else None
        fit(
            self.module_,
            rows,
            held_out,
            loss=self._criterion(),
            optimizer=self._optimizer,
            epochs=1 if incremental else self.max_iter,
            scheduler=self._scheduler,
            metrics={} if held_out is None else {self._score_name: Score(self._score_outputs)},
            progress=self.verbose,
            early_stopping=None if incremental else progress,
            callbacks=(self._remember,),
        )

    def _remember(self, history: History, _: Module) -> None:
        """Puts the last epoch behind those of earlier calls."""
        row, score = history.rows[-1], self._score_name
        columns = ("train_loss", f"train_{score}", "valid_loss", f"valid_{score}", "lr", "seconds")
        self.history_.append({"epoch": len(self.history_) + 1} | {name: row.get(name) for name in columns})

    # What is known afterwards.

    def _outputs(self, X: Any) -> Array:
        """The network's outputs for checked input."""
        check_is_fitted(self, "module_")
        check_numbers("X", X)
        X = validate_data(self, X, dtype=_FLOATS, order="C", reset=False)
        return predict(self.module_, _cast(X, self._precision))

    @property
    def loss_curve_(self) -> list[float]:
        """Mean training loss of each epoch."""
        return self.history_["train_loss"]  # type: ignore[return-value]

    @property
    def loss_(self) -> float:
        """Mean training loss of the last epoch."""
        return self.loss_curve_[-1]

    @property
    def best_loss_(self) -> float:
        """The lowest training loss of an epoch."""
        return min(self.loss_curve_)

    @property
    def n_iter_(self) -> int:
        """Epochs since the network was new."""
        return len(self.history_)

    @property
    def validation_scores_(self) -> list[float | None] | None:
        """Accuracy or R² on the validation rows after each epoch, None after one without; None without early stopping."""
        return self.history_[f"valid_{self._score_name}"] if self.early_stopping else None

    @property
    def best_validation_score_(self) -> float | None:
        """The highest of `validation_scores_`; None where there is none."""
        return max((score for score in self.validation_scores_ or [] if score is not None), default=None)


def _weights(sample_weight: Any, rows: int) -> Array:
    """Checked weights of rows."""
    if sample_weight is None:
        return np.ones(rows)
    weight: Array = check_array(sample_weight, ensure_2d=False, dtype=np.float64, input_name="sample_weight")
    if weight.shape != (rows,):
        raise ValueError(f"sample_weight: expected shape {(rows,)}, got {weight.shape}")
    if (weight < 0).any():
        raise ValueError(f"sample_weight: expected no weight below 0, got {weight.min()}")
    if not weight.any():
        raise ValueError("sample_weight: expected a weight above 0, got only zeros")
    return _of_finite_sum(weight)


def _of_finite_sum(weight: Array) -> Array:
    """Weights of rows, if they add up to a number."""
    with np.errstate(over="ignore"):
        if not np.isfinite(weight.sum()):
            raise ValueError(
                f"sample_weight: expected weights, those of classes included, of a finite sum, got up to {weight.max()}"
            )
    return weight


def _cast(X: Array, precision: str) -> Array:
    """Finite numbers in the network's precision."""
    if X.dtype == precision:
        return X
    with np.errstate(over="ignore"):
        cast = X.astype(precision)
    if not np.isfinite(cast).all():
        raise ValueError(f"X: expected values within {precision}, got {np.abs(X).max()}")
    return cast


def _rows(X: Array, targets: Array, weight: Array, chosen: Array) -> Rows:
    """The chosen rows as tensors in the precision of X; weights get mean 1, and are left out where all are the same."""
    if len(chosen) != len(X):
        X, targets, weight = X[chosen], targets[chosen], weight[chosen]
    targets = targets.astype(X.dtype) if targets.dtype.kind == "f" else targets
    if weight.min() == weight.max():
        return Rows(Tensor(X), Targets(Tensor(targets), None))
    weight = (weight / weight.mean()).astype(X.dtype)
    spread = weight if targets.ndim == 1 else np.repeat(weight[:, None], targets.shape[1], axis=1)
    return Rows(Tensor(X), Targets(Tensor(targets), Tensor(spread)))
