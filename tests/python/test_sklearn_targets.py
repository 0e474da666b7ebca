"""What y, its classes and its weights mean to the estimators, where scikit-learn's own checks do not look."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_diabetes

from treadle import models, nn
from treadle.sklearn import MLPRegressor, ModuleRegressor

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
