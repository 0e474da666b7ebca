"""Measures of `treadle.training`: they agree with their formulas, however rows are batched."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import treadle
from treadle import nn
from treadle.training import MAE, R2, Accuracy, accuracy, confusion_matrix, evaluate, mae, r2

VALUES = arrays(np.float64, st.integers(2, 30), elements=st.floats(-1e3, 1e3))


@given(VALUES, st.integers(0, 5), st.integers(1, 30))
def test_measures_do_not_depend_on_how_rows_are_batched(targets: np.ndarray, seed: int, cut: int) -> None:
    assume(np.ptp(targets) > 1e-3)
    outputs = targets + np.random.default_rng(seed).normal(size=targets.shape)
    for metric in (MAE(), R2()):
        for part in (slice(0, cut), slice(cut, None)):
            metric.update(outputs[part], targets[part])
        whole = {MAE: mae, R2: r2}[type(metric)](outputs, targets)
        np.testing.assert_allclose(metric.compute(), whole, rtol=1e-6)


def test_measures_agree_with_their_formulas() -> None:
    rng = np.random.default_rng(0)
    targets = 1e6 + rng.normal(size=200)
    outputs = targets + 0.3 * rng.normal(size=200)
    assert mae(outputs, targets) == pytest.approx(np.abs(outputs - targets).mean())
    assert r2(outputs, targets) == pytest.approx(1 - ((targets - outputs) ** 2).sum() / ((targets - targets.mean()) ** 2).sum())
    assert math.isnan(r2([1.0, 2.0, 2.0], [0.1, 0.1, 0.1]))
    with np.errstate(over="ignore"):
        assert math.isnan(r2([1e200, 2e200], [1e200, 3e200]))
    assert math.isnan(Accuracy().compute())
    with pytest.raises(ValueError, match=r"^r2: expected as many outputs as targets, got \(3,\) and \(1,\)$"):
        r2([1.0, 2.0, 3.0], [1.0])


def test_accuracy_takes_scores_indices_and_probabilities() -> None:
    scores = treadle.tensor([[0.1, 0.9], [0.8, 0.2], [0.6, 0.4]])
    assert accuracy(scores, treadle.tensor([1, 0, 1])) == pytest.approx(2 / 3)
    assert accuracy([1, 0, 0], [1, 0, 1]) == pytest.approx(2 / 3)
    assert accuracy(scores, [[0.0, 1.0], [1.0, 0.0], [0.4, 0.6]]) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match=r"accuracy: expected as many outputs as targets, got \(3,\) and \(2,\)"):
        accuracy(scores, [0, 1])


def test_one_output_for_two_classes_needs_a_threshold() -> None:
    logits, targets = treadle.tensor([[-3.0], [2.0], [5.0]]), treadle.tensor([0, 1, 0])
    for outputs in (logits, logits.reshape(3)):
        for same in (targets, targets.reshape(3, 1), targets.float()):
            assert accuracy(outputs, same, threshold=0.0) == pytest.approx(2 / 3)
        assert confusion_matrix(outputs, targets, threshold=0.0).tolist() == [[1, 1], [0, 1]]
        with pytest.raises(ValueError, match=r"accuracy: expected outputs as scores .* give the threshold"):
            accuracy(outputs.sigmoid(), targets)
    with pytest.raises(ValueError, match=r"expected outputs \(N,\) or \(N, 1\) with a threshold, got shape \(3, 2\)"):
        accuracy(np.zeros((3, 2)), targets, threshold=0.5)


@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(), nn.functional.binary_cross_entropy_with_logits])
def test_the_usual_metric_of_binary_logits_is_their_accuracy(loss: Any) -> None:
    x = treadle.tensor(np.linspace(-1.0, 1.0, 8, dtype=np.float32)[:, None])
    y = (x > 0.5).float()
    model = nn.Linear(1, 1)
    model.load_state_dict({"weight": [[1.0]], "bias": [0.0]})
    assert evaluate(model, [(x, y)], loss=loss)["accuracy"] == 0.75


def test_there_is_no_usual_metric_of_one_output_and_another_loss() -> None:
    batches = [(treadle.ones(4, 2), treadle.tensor([0, 1, 1, 1]))]
    found = evaluate(nn.Linear(2, 1), batches, loss=lambda o, y: nn.functional.mse_loss(o[:, 0], y.float()))
    assert list(found) == ["loss"]


@pytest.mark.parametrize(("value", "shown"), [(None, "None"), (np.ones(2), r"array\(\[1., 1.\]\)"), ("0.5 or so", "'0.5 or so'")])
def test_a_metric_that_computes_no_number_is_named(value: Any, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Accuracy, "compute", lambda self: value)
    batches = [(treadle.ones(4, 2), treadle.tensor([0, 1, 1, 1]))]
    with pytest.raises(TypeError, match=f"^evaluate: expected metric 'right' to compute a number, got {shown}$"):
        evaluate(nn.Linear(2, 2), batches, metrics={"right": Accuracy()})


def test_confusion_matrix_counts_truth_by_prediction() -> None:
    counts = confusion_matrix([0, 2, 2, 1], [0, 2, 1, 1], 4)
    assert counts.tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert confusion_matrix([], []).shape == (0, 0)
    with pytest.raises(ValueError, match=r"expected classes in \[0, 2\), got 0 to 2"):
        confusion_matrix([0, 2], [0, 1], 2)
    with pytest.raises(TypeError, match=r"^confusion_matrix: expected num_classes as an int, got float$"):
        confusion_matrix([0, 1], [0, 1], 2.0)  # type: ignore[arg-type]
