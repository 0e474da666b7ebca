"""`ModuleClassifier` and `ModuleRegressor`: any module, or what makes one, as an estimator."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from treadle import _core
from treadle._core import Tensor
from treadle.autograd import drawing_from
from treadle.nn import Module
from treadle.optim import Optimizer
from treadle.sklearn._base import Network
from treadle.sklearn._classifier import NetworkClassifier
from treadle.sklearn._regressor import NetworkRegressor
from treadle.sklearn._training import Schedule
from treadle.training import predict

__all__ = ["ModuleClassifier", "ModuleRegressor"]


class _Wrapped(Network):
    """What the two share: where the network comes from."""

    module: Any

    def _build(self, features: int, outputs: int) -> Module:
        made = self.module
        if isinstance(made, Module):
            made = copy.deepcopy(made)
        elif isinstance(made, type) or (callable(made) and not hasattr(made, "state_dict")):
            made = made(features, outputs)
        if not isinstance(made, Module):
            got = f"{type(made).__module__}.{type(made).__name__}".removeprefix("builtins.")
            raise TypeError(f"module: expected a treadle.nn.Module or a callable that makes one, got {got}")
        shape = predict(made, _core.zeros(2, features)).shape
        if shape != (2, outputs):
            raise ValueError(f"module: expected outputs of shape (n_rows, {outputs}), got {shape} for 2 rows")
        return made

    @contextmanager
    def _chance(self) -> Iterator[None]:
        """The default generator of this thread stands where the estimator's own does."""
        default = copy.copy(self._generator)
        with drawing_from(default):
            try:
                yield
            finally:
                self._generator.set_state(default.get_state())


class ModuleClassifier(_Wrapped, NetworkClassifier):
    """Any module as a classifier.

    Parameters
    ----------
    module : nn.Module, or callable
        A module, which is copied and stays as it is, or a callable that makes one from
        (n_features, n_outputs). It gives one output per class, without softmax.
    solver : {'sgd', 'adam', 'adamw', 'rmsprop'}, default='adam'
        Optimizer.
    alpha : float, default=0.0001
        L2 penalty, divided by the weight of a batch; for 'adamw' the decay itself. Biases are not decayed.
    batch_size : int or 'auto', default='auto'
        Rows per step; 'auto' is min(200, n_samples).
    learning_rate_init : float, default=0.001
        First learning rate.
    schedule : {'cosine', 'one_cycle'}, callable or None, default=None
        Learning rates of any solver over `max_iter` epochs; a callable makes a schedule from the optimizer.
    max_iter : int, default=200
        The most epochs.
    shuffle : bool, default=True
        Whether each epoch has an order of its own.
    random_state : int, RandomState or None, default=None
        What initial values, order, dropout and validation rows are drawn from.
    tol : float, default=0.0001
        How much better than the best before it a loss or score must be to count as progress.
    early_stopping : bool, default=False
        Whether rows are set aside and their accuracy is watched; the weights of the best epoch are restored.
    validation_fraction : float, default=0.1
        Share of the rows that is set aside.
    n_iter_no_change : int, default=10
        Training ends after more epochs than this without progress.
    momentum : float, default=0.9
        Momentum of solver 'sgd'.
    class_weight : dict, 'balanced', list of dict or None, default=None
        Weights of classes, multiplied with `sample_weight`; 'balanced' gives each class the same sum of weights.
    dtype : {'auto', 'float32', 'float64'}, default='auto'
        What is computed in. 'auto' is float32, but the precision of X where a batch holds all rows: then weighted and
        repeated rows are equivalent to the last digits, but for `early_stopping` and layers such as batch norm and dropout, which
        go by rows.
    verbose : bool, default=False
        Whether a line per epoch is written to stderr.
    warm_start : bool, default=False
        Whether `fit` goes on from the weights of the last fit.

    Attributes
    ----------
    classes_ : ndarray, or list of them
        Classes, in the order of `predict_proba`.
    module_ : nn.Module
        The trained network.
    history_ : History
        Loss, validation loss and accuracy, learning rate and seconds of each epoch.
    loss_curve_, loss_, best_loss_ : list of float, float, float
        Training loss of each epoch, of the last, and the lowest.
    validation_scores_ : list of float or None
        Accuracy on the validation rows after each epoch, with early stopping.
    best_validation_score_ : float or None
        The highest of them.
    n_iter_ : int
        Epochs trained.
    n_outputs_ : int
        Outputs of the network.
    n_features_in_, feature_names_in_ : int, ndarray of str
        Columns of X, and their names if it has any.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from treadle import models
    >>> from treadle.sklearn import ModuleClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = ModuleClassifier(models.MLPResNet(64, num_classes=10), max_iter=5, random_state=0)
    >>> model.fit(X, y).score(X, y) > 0.95
    True
    """

    def __init__(
        self,
        module: Any,
        *,
        solver: str = "adam",
        alpha: float = 1e-4,
        batch_size: int | str = "auto",
        learning_rate_init: float = 1e-3,
        schedule: str | Callable[[Optimizer], Schedule] | None = None,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        momentum: float = 0.9,
        class_weight: Any = None,
        dtype: str = "auto",
        verbose: bool = False,
        warm_start: bool = False,
    ) -> None:
        super().__init__(
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate_init=learning_rate_init,
            schedule=schedule,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            momentum=momentum,
            dtype=dtype,
            verbose=verbose,
            warm_start=warm_start,
        )
        self.module = module
        self.class_weight = class_weight


class ModuleRegressor(_Wrapped, NetworkRegressor):
    """Any module as a regressor.

    Parameters
    ----------
    module : nn.Module, or callable
        A module, which is copied and stays as it is, or a callable that makes one from
        (n_features, n_outputs). It gives one output per column of y.
    solver : {'sgd', 'adam', 'adamw', 'rmsprop'}, default='adam'
        Optimizer.
    loss : {'squared_error', 'absolute_error', 'huber'} or callable, default='squared_error'
        What is minimised (squared errors halved); a callable takes outputs and targets of shape
        (n_rows, n_outputs) and gives a loss for each element.
    alpha : float, default=0.0001
        L2 penalty, divided by the weight of a batch; for 'adamw' the decay itself. Biases are not decayed.
    batch_size : int or 'auto', default='auto'
        Rows per step; 'auto' is min(200, n_samples).
    learning_rate_init : float, default=0.001
        First learning rate.
    schedule : {'cosine', 'one_cycle'}, callable or None, default=None
        Learning rates of any solver over `max_iter` epochs; a callable makes a schedule from the optimizer.
    max_iter : int, default=200
        The most epochs.
    shuffle : bool, default=True
        Whether each epoch has an order of its own.
    random_state : int, RandomState or None, default=None
        What initial values, order, dropout and validation rows are drawn from.
    tol : float, default=0.0001
        How much better than the best before it a loss or score must be to count as progress.
    early_stopping : bool, default=False
        Whether rows are set aside and their R² is watched; the weights of the best epoch are restored.
    validation_fraction : float, default=0.1
        Share of the rows that is set aside.
    n_iter_no_change : int, default=10
        Training ends after more epochs than this without progress.
    momentum : float, default=0.9
        Momentum of solver 'sgd'.
    scale_target : bool, default=False
        Whether the network sees y with mean 0 and variance 1; predictions are scaled back.
    dtype : {'auto', 'float32', 'float64'}, default='auto'
        What is computed in. 'auto' is float32, but the precision of X where a batch holds all rows: then weighted and
        repeated rows are equivalent to the last digits, but for `early_stopping` and layers such as batch norm and dropout, which
        go by rows.
    verbose : bool, default=False
        Whether a line per epoch is written to stderr.
    warm_start : bool, default=False
        Whether `fit` goes on from the weights of the last fit.

    Attributes
    ----------
    module_ : nn.Module
        The trained network.
    history_ : History
        Loss, validation loss and R², learning rate and seconds of each epoch.
    loss_curve_, loss_, best_loss_ : list of float, float, float
        Training loss of each epoch, of the last, and the lowest.
    validation_scores_ : list of float or None
        R² on the validation rows after each epoch, with early stopping.
    best_validation_score_ : float or None
        The highest of them.
    n_iter_ : int
        Epochs trained.
    n_outputs_ : int
        Outputs of the network.
    n_features_in_, feature_names_in_ : int, ndarray of str
        Columns of X, and their names if it has any.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from treadle import models
    >>> from treadle.sklearn import ModuleRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> def network(n_features, n_outputs):
    ...     return models.MLP(n_features, (64,), n_outputs)
    >>> model = ModuleRegressor(network, scale_target=True, max_iter=30, random_state=0)
    >>> model.fit(X, y).score(X, y) > 0.4
    True
    """

    def __init__(
        self,
        module: Any,
        *,
        solver: str = "adam",
        loss: str | Callable[[Tensor, Tensor], Tensor] = "squared_error",
        alpha: float = 1e-4,
        batch_size: int | str = "auto",
        learning_rate_init: float = 1e-3,
        schedule: str | Callable[[Optimizer], Schedule] | None = None,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        momentum: float = 0.9,
        scale_target: bool = False,
        dtype: str = "auto",
        verbose: bool = False,
        warm_start: bool = False,
    ) -> None:
        super().__init__(
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate_init=learning_rate_init,
            schedule=schedule,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            momentum=momentum,
            dtype=dtype,
            verbose=verbose,
            warm_start=warm_start,
        )
        self.module = module
        self.loss = loss
        self.scale_target = scale_target
