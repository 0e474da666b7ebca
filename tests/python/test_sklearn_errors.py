"""A fit that raises leaves an estimator as it was: fitted, with the same predictions, or not fitted; going on, too."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError

from treadle import nn, optim
from treadle.sklearn import MLPClassifier, MLPRegressor, ModuleClassifier, ModuleRegressor

X, CODES = load_iris(return_X_y=True)


def raises(*_: Any) -> Any:
    raise RuntimeError("mine")


def interrupts(*_: Any) -> Any:
    raise KeyboardInterrupt


class Foreign:
    """A module of another library: callable, but not with sizes."""

    def __call__(self, x: Any) -> Any:
        return x

    def state_dict(self) -> dict[str, Any]:
        return {}


CLASSIFIER = MLPClassifier(random_state=0, max_iter=3)
REGRESSOR = MLPRegressor(random_state=0, max_iter=3, scale_target=True)
MODULE = ModuleClassifier(lambda n_features, n_outputs: nn.Linear(n_features, n_outputs), random_state=0, max_iter=3)
WRONG: list[tuple[Any, dict[str, Any]]] = [
    (CLASSIFIER, {"solver": "nope"}),
    (CLASSIFIER, {"learning_rate": "nope"}),
    (CLASSIFIER, {"schedule": "nope"}),
    (CLASSIFIER, {"schedule": raises}),
    (CLASSIFIER, {"schedule": interrupts}),
    (CLASSIFIER, {"activation": "nope"}),
    (CLASSIFIER, {"dtype": "nope"}),
    (CLASSIFIER, {"class_weight": "nope"}),
    (CLASSIFIER, {"hidden_layer_sizes": (0,)}),
    (CLASSIFIER, {"early_stopping": True, "validation_fraction": 0.001}),
    (CLASSIFIER, {"solver": "sgd", "batch_size": 16, "learning_rate_init": 1e30}),
    (REGRESSOR, {"loss": "nope"}),
    (REGRESSOR, {"loss": interrupts}),
    (REGRESSOR, {"loss": lambda outputs, targets: outputs.sum()}),
    (REGRESSOR, {"loss": lambda outputs, targets: None}),
    (MODULE, {"module": raises}),
    (MODULE, {"module": nn.Linear(4, 7)}),
]


@pytest.mark.parametrize(("estimator", "wrong"), WRONG, ids=[f"{next(reversed(wrong))}-{i}" for i, (_, wrong) in enumerate(WRONG)])
def test_a_wrong_option_leaves_the_estimator_as_it_was(estimator: Any, wrong: dict[str, Any]) -> None:
    fitted, fresh = clone(estimator).fit(X, CODES), clone(estimator)
    predicted, facts = fitted.predict(X), set(vars(fitted))
    rows = X[:, :2] if "module" not in wrong else X  # columns of another number are forgotten, too
    for failing in (fitted, fresh):
        failing.set_params(**wrong)
        with pytest.raises((TypeError, ValueError, RuntimeError, ArithmeticError, KeyboardInterrupt)):
            failing.fit(rows, CODES * 2)
    assert set(vars(fitted)) == facts
    assert (fitted.n_features_in_, fitted.n_iter_) == (4, 3)
    np.testing.assert_array_equal(fitted.predict(X), predicted)
    assert set(vars(fresh)) == set(fresh.get_params())
    with pytest.raises(NotFittedError):
        fresh.predict(X)


@pytest.mark.parametrize("name", ["solver", "activation", "learning_rate", "schedule", "dtype", "loss"])
def test_a_network_that_goes_on_takes_no_unknown_name_either(name: str) -> None:
    fitted = clone(REGRESSOR).fit(X, CODES).set_params(**{name: "nope"})
    predicted = fitted.predict(X)
    for go_on in (fitted.partial_fit, fitted.set_params(warm_start=True).fit):
        with pytest.raises(ValueError, match=f"^{name}: expected .*, got 'nope'$"):
            go_on(X, CODES)
    np.testing.assert_array_equal(fitted.predict(X), predicted)


class FailsLater:
    """A loss of which the third batch fails."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.left = error, 3

    def __call__(self, outputs: Any, targets: Any) -> Any:
        self.left -= 1
        if not self.left:
            raise self.error
        return (outputs - targets) ** 2


def tower(n_features: int, n_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(n_features, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, n_outputs))


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize(
    "options",
    [
        {"solver": "adam"},
        {"solver": "sgd", "momentum": 0.9},
        {"solver": "adam", "schedule": lambda optimizer: optim.CosineAnnealingLR(optimizer, 10)},
    ],
    ids=["adam", "sgd", "schedule"],
)
def test_a_network_that_goes_on_is_as_it_was_where_that_fails(options: dict[str, Any], error: BaseException) -> None:
    squared = FailsLater(error)
    squared.left = -1
    model = ModuleRegressor(tower, loss=squared, random_state=0, max_iter=3, batch_size=20, **options).fit(X, CODES)
    twin = copy.deepcopy(model)
    for go_on in (model.partial_fit, lambda *rows: model.set_params(warm_start=True).fit(*rows), model.partial_fit):
        model.set_params(loss=FailsLater(error))
        with pytest.raises(type(error)):
            go_on(X, CODES)
        np.testing.assert_array_equal(model.predict(X), twin.predict(X))
        assert model.loss_curve_ == twin.loss_curve_
        model.set_params(loss=squared)
    for both in (model, twin):
        both.partial_fit(X, CODES).partial_fit(X, CODES)
    np.testing.assert_array_equal(model.predict(X), twin.predict(X))
    assert model.history_["lr"] == twin.history_["lr"]
    assert model.loss_curve_ == twin.loss_curve_
    assert len(model.loss_curve_) == 5


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ModuleClassifier(None).fit(X, CODES),
            TypeError,
            "module: expected a treadle.nn.Module or a callable that makes one, got NoneType",
        ),
        (
            lambda: ModuleClassifier(Foreign()).fit(X, CODES),
            TypeError,
            r"module: expected a treadle.nn.Module or a callable that makes one, got .*\.Foreign",
        ),
        (
            lambda: MLPClassifier(dtype="float32").fit(X, CODES, sample_weight=np.full(len(X), 1e-46)),
            ValueError,
            r"alpha: expected a penalty that float32 holds, got alpha=0.0001 over a batch's weight of .*; scale sample_weight .*",
        ),
        (
            lambda: MLPRegressor().fit(X, CODES, sample_weight=np.full(len(X), 1e308)),
            ValueError,
            r"sample_weight: expected weights, those of classes included, of a finite sum, got up to 1e\+308",
        ),
        (
            lambda: MLPClassifier(batch_norm=True).partial_fit(X[:1], CODES[:1], [0, 1, 2]),
            ValueError,
            "batch_norm: expected at least 2 rows in a batch to train on, got 1; give more rows at once, and a batch_size above 1",
        ),
        (lambda: MLPRegressor(batch_norm=True, batch_size=1).fit(X, CODES), ValueError, "batch_norm: expected at least 2 rows .*"),
        (lambda: MLPClassifier().partial_fit(X, CODES, []), ValueError, "classes: expected at least one class, got none"),
        *(
            (
                lambda value=value: MLPRegressor(loss=lambda outputs, targets: value).fit(X[:2], CODES[:2]),
                TypeError,
                rf"loss: expected a Tensor of shape \(2, 1\), one value per target, got a {got}",
            )
            for value, got in [(None, "NoneType"), (1.0, "float"), (np.zeros((2, 1)), "ndarray")]
        ),
        (
            lambda: MLPRegressor(loss=nn.MSELoss).fit(X, CODES),
            TypeError,
            r"loss: expected a name or a function, got the class MSELoss; make one of it: MSELoss\(reduction='none'\)",
        ),
    ],
)
def test_what_an_estimator_cannot_train_on_is_said_in_its_terms(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}$"):
        call()
