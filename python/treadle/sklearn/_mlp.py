"""`MLPClassifier` and `MLPRegressor`: multilayer perceptrons with scikit-learn's parameters, and some of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from treadle._core import Tensor
from treadle.optim import Optimizer
from treadle.sklearn._classifier import NetworkClassifier
from treadle.sklearn._perceptron import Perceptron
from treadle.sklearn._regressor import NetworkRegressor
from treadle.sklearn._training import Schedule

__all__ = ["MLPClassifier", "MLPRegressor"]


class MLPClassifier(Perceptron, NetworkClassifier):
    """A multilayer perceptron for classes, several columns of classes, or labels.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(100,)
        Units of the hidden layers.
    activation : {'identity', 'logistic', 'tanh', 'relu', 'gelu', 'silu'}, default='relu'
        Function after each hidden layer.
    solver : {'sgd', 'adam', 'adamw', 'rmsprop'}, default='adam'
        Optimizer.
    alpha : float, default=0.0001
        L2 penalty, divided by the weight of a batch; for 'adamw' the decay itself. Biases are not decayed.
    batch_size : int or 'auto', default='auto'
        Rows per step; 'auto' is min(200, n_samples).
    learning_rate : {'constant', 'invscaling', 'adaptive'}, default='constant'
        Rates of solver 'sgd': lowered by `power_t`, or divided by 5 whenever progress stops.
    learning_rate_init : float, default=0.001
        First learning rate.
    power_t : float, default=0.5
        Exponent of 'invscaling'.
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
    nesterovs_momentum : bool, default=True
        Whether that momentum is Nesterov's.
    batch_norm : bool, default=False
        Whether each hidden layer is normalised before its activation.
    dropout : float, default=0.0
        Probability of zeroing a hidden unit in training.
    residual : bool, default=False
        Whether a hidden layer as wide as its input adds that input to its output.
    class_weight : dict, 'balanced', list of dict or None, default=None
        Weights of classes, multiplied with `sample_weight`; 'balanced' gives each class the same sum of weights.
    dtype : {'auto', 'float32', 'float64'}, default='auto'
        What is computed in. 'auto' is float32, but the precision of X where a batch holds all rows: then weighted and
        repeated rows are equivalent to the last digits, but for `batch_norm`, `dropout`, `early_stopping` and 'invscaling', which
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
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from treadle.sklearn import MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), MLPClassifier(random_state=0))
    >>> model.fit(X, y).score(X, y) > 0.95
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        *,
        activation: str = "relu",
        solver: str = "adam",
        alpha: float = 1e-4,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 1e-3,
        power_t: float = 0.5,
        schedule: str | Callable[[Optimizer], Schedule] | None = None,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        batch_norm: bool = False,
        dropout: float = 0.0,
        residual: bool = False,
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
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.learning_rate = learning_rate
        self.power_t = power_t
        self.nesterovs_momentum = nesterovs_momentum
        self.batch_norm = batch_norm
        self.dropout = dropout
        self.residual = residual
        self.class_weight = class_weight


class MLPRegressor(Perceptron, NetworkRegressor):
    """A multilayer perceptron for one or several numbers.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default=(100,)
        Units of the hidden layers.
    activation : {'identity', 'logistic', 'tanh', 'relu', 'gelu', 'silu'}, default='relu'
        Function after each hidden layer.
    solver : {'sgd', 'adam', 'adamw', 'rmsprop'}, default='adam'
        Optimizer.
    loss : {'squared_error', 'absolute_error', 'huber'} or callable, default='squared_error'
        What is minimised (squared errors halved); a callable takes outputs and targets of shape
        (n_rows, n_outputs) and gives a loss for each element.
    alpha : float, default=0.0001
        L2 penalty, divided by the weight of a batch; for 'adamw' the decay itself. Biases are not decayed.
    batch_size : int or 'auto', default='auto'
        Rows per step; 'auto' is min(200, n_samples).
    learning_rate : {'constant', 'invscaling', 'adaptive'}, default='constant'
        Rates of solver 'sgd': lowered by `power_t`, or divided by 5 whenever progress stops.
    learning_rate_init : float, default=0.001
        First learning rate.
    power_t : float, default=0.5
        Exponent of 'invscaling'.
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
    nesterovs_momentum : bool, default=True
        Whether that momentum is Nesterov's.
    batch_norm : bool, default=False
        Whether each hidden layer is normalised before its activation.
    dropout : float, default=0.0
        Probability of zeroing a hidden unit in training.
    residual : bool, default=False
        Whether a hidden layer as wide as its input adds that input to its output.
    scale_target : bool, default=True
        Whether the network sees y with mean 0 and variance 1; predictions are scaled back.
    dtype : {'auto', 'float32', 'float64'}, default='auto'
        What is computed in. 'auto' is float32, but the precision of X where a batch holds all rows: then weighted and
        repeated rows are equivalent to the last digits, but for `batch_norm`, `dropout`, `early_stopping` and 'invscaling', which
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
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from treadle.sklearn import MLPRegressor
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), MLPRegressor(random_state=0))
    >>> model.fit(X, y).score(X, y) > 0.5
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: int | Sequence[int] = (100,),
        *,
        activation: str = "relu",
        solver: str = "adam",
        loss: str | Callable[[Tensor, Tensor], Tensor] = "squared_error",
        alpha: float = 1e-4,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 1e-3,
        power_t: float = 0.5,
        schedule: str | Callable[[Optimizer], Schedule] | None = None,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        batch_norm: bool = False,
        dropout: float = 0.0,
        residual: bool = False,
        scale_target: bool = True,
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
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.loss = loss
        self.learning_rate = learning_rate
        self.power_t = power_t
        self.nesterovs_momentum = nesterovs_momentum
        self.batch_norm = batch_norm
        self.dropout = dropout
        self.residual = residual
        self.scale_target = scale_target
