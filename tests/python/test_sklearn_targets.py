"""What y, its classes and its weights mean to the estimators, where scikit-learn's own checks do not look."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression

from treadle import models, nn
from treadle.sklearn import MLPClassifier, MLPRegressor, ModuleRegressor

X, Y = load_diabetes(return_X_y=True)


def network(features: int, outputs: int) -> nn.Module:
    return models.MLP(features, (8,), outputs)


@pytest.mark.parametrize(("factor", "offset"), [(1.0, 1e9), (1.0, -1e10), (1e40, 0.0), (1e-50, 0.0), (1e7, 1.7e9)])
@pytest.mark.parametrize(
    "estimator",
    [MLPRegressor(random_state=0, max_iter=30), ModuleRegressor(network, scale_target=True, random_state=0)],
    ids=["MLP", "Module"],
)
def test_numbers_of_any_scale_are_predicted(estimator: MLPRegressor, factor: float, offset: float) -> None:
    near = estimator.fit(X, Y).score(X, Y)
    far = estimator.fit(X, Y * factor + offset)
    assert far.predict(X).dtype == far.predict(X.astype(np.float32)).dtype == np.float64
    assert far.score(X, Y * factor + offset) == pytest.approx(near, abs=1e-2)


@pytest.mark.parametrize("exponent", [600, 1000, -600, -1000])
def test_what_is_predicted_grows_with_y(exponent: int) -> None:
    model = MLPRegressor(random_state=0, max_iter=3)
    near = clone(model).fit(X, Y).predict(X)
    assert np.array_equal(model.fit(X, np.ldexp(Y, exponent)).predict(X), np.ldexp(near, exponent))


@pytest.mark.parametrize("weight", [np.inf, np.nan, -1.0])
def test_weights_of_classes_are_finite(weight: float) -> None:
    message = f"class_weight: expected finite weights of at least 0, got {weight} for 'b'"
    with pytest.raises(ValueError, match=re.escape(message)):
        MLPClassifier(class_weight={"a": 1.0, "b": weight}).fit(np.eye(4), list("abab"))


def test_epochs_before_early_stopping_have_no_score() -> None:
    model = MLPRegressor(warm_start=True, max_iter=2, random_state=0).fit(X, Y)
    assert model.set_params(early_stopping=True).best_validation_score_ is None
    scores = model.fit(X, Y).validation_scores_
    assert scores[:2] == [None, None]
    assert model.best_validation_score_ == max(scores[2:])


def test_a_class_of_weight_0_is_a_class() -> None:
    x, y = load_iris(return_X_y=True)
    weight = np.where(y == 1, 0.0, 1.0)
    model = MLPClassifier(max_iter=60, random_state=0).fit(x, y, weight)
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.predict_proba(x).shape == (150, 3)
    assert model.score(x[y != 1], y[y != 1]) == 1.0
    vote = VotingClassifier([("ours", model), ("theirs", LogisticRegression())], voting="soft")
    assert vote.fit(x, y, sample_weight=weight).score(x[y != 1], y[y != 1]) == 1.0
    # The rows themselves are as good as not there.
    wild = np.where(weight[:, None] > 0, x, 1e6)
    assert np.array_equal(clone(model).fit(wild, y, weight).predict_proba(x), model.predict_proba(x))
    number = MLPRegressor(max_iter=5, random_state=0)
    without = clone(number).fit(x[weight > 0], y[weight > 0])
    assert np.array_equal(clone(number).fit(wild, np.where(weight > 0, y, 1e9), weight).predict(x), without.predict(x))


def test_later_calls_of_partial_fit_may_only_repeat_the_classes() -> None:
    x, y = load_iris(return_X_y=True)
    model = MLPClassifier(random_state=0).partial_fit(x, y, classes=[2, 1, 0]).partial_fit(x, y, classes=[0, 1, 2])
    before = model.predict_proba(x)
    for classes in ([0, 1, 2, 3], [0, 1]):
        message = f"classes: expected those of the calls before, [0, 1, 2], got {classes}; a new estimator takes others"
        with pytest.raises(ValueError, match=re.escape(message)):
            model.partial_fit(x, y, classes=classes)
    assert np.array_equal(model.predict_proba(x), before)
    pairs = np.stack([y, np.minimum(y, 1)], axis=1)
    several = MLPClassifier(random_state=0).partial_fit(x, pairs, classes=[[0, 1, 2], [0, 1]])
    with pytest.raises(ValueError, match=re.escape("before, [0, 1, 2] and [0, 1], got [0, 1, 2] and [0, 2]")):
        several.partial_fit(x, pairs, classes=[[0, 1, 2], [0, 2]])
    labels = MLPClassifier(random_state=0).partial_fit(x, pairs > 0, classes=[0, 1])
    assert labels.partial_fit(x, pairs > 0, classes=[0, 1]).n_iter_ == 2


def test_classes_say_whether_a_matrix_of_0_and_1_is_of_labels() -> None:
    x, y = load_iris(return_X_y=True)
    several, flags = np.stack([y, 2 - y], axis=1), np.stack([y > 0, y > 1], axis=1).astype(int)
    model = MLPClassifier(random_state=0).partial_fit(x, flags, classes=[[0, 1, 2], [2, 1, 0]]).partial_fit(x, several)
    assert [column.tolist() for column in model.classes_] == [[0, 1, 2], [0, 1, 2]]
    assert [p.shape for p in model.predict_proba(x)] == [(150, 3), (150, 3)]
    wide = np.concatenate([flags, flags[:, :1]], axis=1)
    assert MLPClassifier(random_state=0).partial_fit(x, wide, classes=[0, 1, 2]).predict(x).shape == (150, 3)
    labels = "expected [0, 1] or the numbers of 2 labels, as y is an indicator matrix, got"
    known = MLPClassifier(random_state=0).partial_fit(x, flags)
    for begun, target, classes, message in [
        (known, flags, [[0, 1], [0, 1]], labels),
        (clone(known), flags, ["a", "b"], labels),
        (clone(known), several, [0, 1, 2], "expected an array for each of 2 columns of y, got [0, 1, 2]"),
        (clone(known), several, [[0, 1, 2]], "expected an array for each of 2 columns of y, got [[0, 1, 2]]"),
        (clone(known), y, [0, 1, 2, np.nan], "expected classes that equal themselves, got [0.0, 1.0, 2.0, nan]; leave out NaN"),
    ]:
        with pytest.raises(ValueError, match=re.escape(f"classes: {message}")):
            begun.partial_fit(x, target, classes=classes)


DAYS = np.datetime64("2026-01-01", "ns") + np.arange(40).astype("m8[D]")


@pytest.mark.parametrize(
    "dates",
    [
        DAYS[:, None],
        (DAYS - DAYS[0])[:, None],
        [[day] for day in DAYS],
        pd.DataFrame({"day": DAYS}),
        pd.DataFrame({"day": pd.to_datetime(DAYS).tz_localize("UTC")}),
        pl.DataFrame({"day": DAYS, "x": np.ones(40)}),
        pa.table({"day": DAYS}),
        [[day - DAYS[0], 1.0] for day in DAYS],
        pd.DataFrame({"day": pd.Series(list(DAYS - DAYS[0]), dtype=object), "x": np.ones(40)}),
    ],
    ids=["dates", "durations", "list", "pandas", "zone", "polars", "arrow", "mixed list", "objects"],
)
def test_dates_are_no_numbers(dates: Any) -> None:
    y = np.arange(40) % 2
    with pytest.raises(TypeError, match=r"X: expected numbers, got .*(64|time).*; make numbers of dates first"):
        MLPClassifier(max_iter=1).fit(dates, y)
    width = np.shape(dates)[1]
    fitted = MLPRegressor(max_iter=1).fit(np.eye(40)[:, :width], y)
    with pytest.raises(TypeError, match="X: expected numbers, got"):
        fitted.predict(dates)
    for days in (DAYS, np.array([*DAYS, *(DAYS - DAYS[0])], object)[:40], np.array([*(DAYS - DAYS[0]), ""], object)[:-1]):
        with pytest.raises(TypeError, match=r"y: expected numbers, got (datetime|timedelta)64\[ns\]"):
            MLPRegressor(max_iter=1).fit(np.eye(40), days)
    assert MLPClassifier(max_iter=1).fit(np.eye(40), DAYS.astype("M8[M]")).classes_.dtype == "M8[M]"  # as classes they may be
