"""When estimators stop, beside scikit-learn's own count of epochs without progress."""

from __future__ import annotations

import math

import pytest
from sklearn import neural_network

from treadle import nn
from treadle.sklearn import MLPClassifier
from treadle.sklearn._training import Progress


@pytest.mark.parametrize("highest", [False, True], ids=["loss", "score"])
@pytest.mark.parametrize("tol", [0.0, 0.25, 1.0])
def test_progress_is_counted_as_scikit_learn_counts_it(tol: float, highest: bool) -> None:
    theirs = neural_network.MLPClassifier(tol=tol)
    theirs.best_loss_, theirs.best_validation_score_, theirs._no_improvement_count = math.inf, -math.inf, 0
    theirs.loss_curve_, theirs.validation_scores_, theirs.coefs_, theirs.intercepts_ = [], [], [], []
    ours = Progress("value", 3, tol, lambda: False, highest=highest)
    for value in (1.0, 1.0, 1.0, 0.75, 0.75, 0.875, 0.5, 1.25, 1.25, 0.25, 1.5, 1.5, 1.5, 2.5, 2.5, -1.0):
        theirs._score = lambda *_, value=value, **__: value
        theirs.loss_curve_.append(value)
        theirs._update_no_improvement_count(highest, None, None, None)
        ours.update({"value": value}, nn.Identity())
        assert ours.state_dict()["waited"] == theirs._no_improvement_count


def test_without_a_tolerance_the_same_score_again_is_progress() -> None:
    x, y = [[-1.0], [1.0]] * 30, [0, 1] * 30
    model = MLPClassifier(random_state=0, learning_rate_init=0.05, tol=0.0, early_stopping=True, max_iter=60, n_iter_no_change=2)
    assert model.fit(x, y).n_iter_ == 60
    assert model.validation_scores_[20:] == [1.0] * 40
