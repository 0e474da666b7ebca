"""The scikit-learn estimators: its own checks, its tools around them, and what their parameters mean."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import joblib
import numpy as np
import pytest
from scipy import sparse
from sklearn import neural_network
from sklearn.base import clone, is_classifier
from sklearn.datasets import load_diabetes, load_iris, make_classification, make_multilabel_classification, make_regression
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import parametrize_with_checks

import treadle
from treadle import models, nn, optim
from treadle.sklearn import MLPClassifier, MLPRegressor, ModuleClassifier, ModuleRegressor
from treadle.sklearn._training import Score, Targets

IRIS = load_iris(return_X_y=True)
DIABETES = load_diabetes(return_X_y=True)


def two_layers(n_features: int, n_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(n_features, 64), nn.ReLU(), nn.Linear(64, n_outputs))


FOUR = [MLPClassifier(), MLPRegressor(), ModuleClassifier(two_layers), ModuleRegressor(two_layers)]


def named(estimators: list[Any]) -> Any:
    return pytest.mark.parametrize("estimator", estimators, ids=[type(e).__name__ for e in estimators])


def data_for(estimator: Any) -> tuple[Any, Any]:
    return IRIS if "Classifier" in type(estimator).__name__ else DIABETES


def outputs(estimator: Any, x: Any) -> Any:
    return estimator.predict_proba(x) if hasattr(estimator, "predict_proba") else estimator.predict(x)


@pytest.fixture
def _array_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCIPY_ARRAY_API", "1")


@pytest.mark.usefixtures("_array_api")
@parametrize_with_checks(FOUR)
def test_check_estimator(estimator: Any, check: Any) -> None:
    check(estimator)


@named(FOUR)
def test_same_seed_same_bits_and_other_seed_others(estimator: Any) -> None:
    x, y = data_for(estimator)
    runs = [clone(estimator).set_params(random_state=seed, max_iter=3, batch_size=32).fit(x, y) for seed in (0, 0, 1)]
    assert np.array_equal(outputs(runs[0], x), outputs(runs[1], x))
    assert runs[0].loss_curve_ == runs[1].loss_curve_
    assert not np.array_equal(outputs(runs[0], x), outputs(runs[2], x))


@named(FOUR)
def test_fit_leaves_the_default_generator_alone(estimator: Any) -> None:
    before = treadle.default_generator().get_state()
    clone(estimator).set_params(max_iter=2, random_state=0).fit(*data_for(estimator))
    assert treadle.default_generator().get_state() == before


@named(FOUR)
def test_pickle_joblib_and_deepcopy(estimator: Any) -> None:
    x, y = data_for(estimator)
    fitted = clone(estimator).set_params(max_iter=3, random_state=0).fit(x, y)
    file = io.BytesIO()
    joblib.dump(fitted, file)
    file.seek(0)
    for twin in (pickle.loads(pickle.dumps(fitted)), joblib.load(file), copy.deepcopy(fitted)):
        assert np.array_equal(outputs(twin, x), outputs(fitted, x))
        again = copy.deepcopy(fitted).partial_fit(x, y)
        assert np.array_equal(outputs(twin.partial_fit(x, y), x), outputs(again, x))


@named(FOUR)
def test_pipeline_grid_search_and_parallel_cross_validation(estimator: Any) -> None:
    x, y = data_for(estimator)
    small = clone(estimator).set_params(random_state=0, max_iter=10)
    pipeline = make_pipeline(StandardScaler(), small).set_output(transform="default")
    name = pipeline.steps[-1][0]
    search = GridSearchCV(pipeline, {f"{name}__learning_rate_init": [1e-5, 1e-2]}, cv=3).fit(x, y)
    assert search.best_params_ == {f"{name}__learning_rate_init": 1e-2}
    assert np.array_equal(cross_val_score(pipeline, x, y, cv=3, n_jobs=2), cross_val_score(pipeline, x, y, cv=3))


@named(FOUR)
def test_early_stopping_restores_the_best_epoch(estimator: Any) -> None:
    x, y = data_for(estimator)
    options = {"early_stopping": True, "random_state": 0, "learning_rate_init": 0.05, "n_iter_no_change": 5, "tol": 1e-9}
    stopped = clone(estimator).set_params(**options, max_iter=300).fit(x, y)
    scores = stopped.validation_scores_
    best = int(np.argmax(scores))
    assert stopped.n_iter_ == best + 1 + 6 < 300
    assert len(stopped.history_["valid_loss"]) == len(stopped.loss_curve_) == stopped.n_iter_
    name = "accuracy" if is_classifier(estimator) else "r2"
    columns = ["epoch", "train_loss", f"train_{name}", "valid_loss", f"valid_{name}", "lr", "seconds"]
    assert stopped.history_.columns == columns
    assert stopped.history_["epoch"] == list(range(1, stopped.n_iter_ + 1))
    assert all(score is not None and score <= 1 for score in stopped.history_[f"train_{name}"])
    fresh = clone(estimator).set_params(**options, max_iter=best + 1).fit(x, y)
    assert np.array_equal(outputs(stopped, x), outputs(fresh, x))


@named(FOUR)
def test_warm_start_and_partial_fit_go_on(estimator: Any) -> None:
    x, y = data_for(estimator)
    warm = clone(estimator).set_params(warm_start=True, max_iter=3, random_state=0).fit(x, y)
    first = warm.loss_
    assert warm.fit(x, y).n_iter_ == 6
    assert warm.loss_ < first
    online = clone(estimator).set_params(random_state=0)
    first_call = {"classes": np.unique(y)} if is_classifier(estimator) else {}
    for step in range(4):
        online.partial_fit(x, y, **(first_call if step == 0 else {}))
    assert online.n_iter_ == 4
    with pytest.raises(ValueError, match="early_stopping: expected False in partial_fit, got True"):
        online.set_params(early_stopping=True).partial_fit(x, y)


# What the parameters mean: the same as scikit-learn's, where they have the same names.


def give_weights(source: Any, target: Any) -> None:
    """Copies the weights of a fitted network into scikit-learn's estimator of the same shape."""
    linear = [m for m in source.module_.modules() if isinstance(m, nn.Linear)]
    for layer, coef, intercept in zip(linear, target.coefs_, target.intercepts_, strict=True):
        coef[:] = layer.weight.numpy().T
        intercept[:] = layer.bias.numpy()


def converged(estimator: Any, *data: Any) -> Any:
    """Fits scikit-learn's estimator, which warns that it has not converged."""
    with pytest.warns(ConvergenceWarning):
        return estimator.fit(*data)


@pytest.mark.parametrize(
    "options",
    [
        {"solver": "sgd", "alpha": 0.5, "momentum": 0.0},
        {"solver": "sgd", "alpha": 0.1, "momentum": 0.9},
        {"solver": "sgd", "momentum": 0.5, "nesterovs_momentum": False, "activation": "tanh"},
        {"solver": "adam", "alpha": 0.5, "activation": "logistic"},
        {"solver": "adam", "alpha": 0.1, "batch_size": 100},
        {"solver": "sgd", "alpha": 0.5, "batch_size": 100},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["MLPClassifier", "MLPRegressor"])
def test_steps_are_those_of_scikit_learn(kind: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((100, 5)), rng.uniform(0.5, 2.0, 100)
    y = rng.integers(0, 3, 100) if kind == "MLPClassifier" else rng.standard_normal(100)
    shared = {"hidden_layer_sizes": (7, 6), "batch_size": 50, "shuffle": False, "random_state": 0}
    shared |= {"warm_start": True, "max_iter": 1, "n_iter_no_change": 100}
    own = {"dtype": "float64"} | ({} if kind == "MLPClassifier" else {"scale_target": False})
    ours = getattr(treadle.sklearn, kind)(**shared | own | options).fit(x, y)
    theirs = converged(getattr(neural_network, kind)(**shared | options), x, y)
    give_weights(ours, theirs)
    sample_weight = weight if options.get("batch_size") == 100 else None  # theirs weighs every batch alike
    ours.set_params(max_iter=15).fit(x, y, sample_weight)
    converged(theirs.set_params(max_iter=15), x, y, sample_weight)
    # Adam's eps is added before the bias correction there, after it here.
    close = {"rtol": 0.0, "atol": 1e-5} if options["solver"] == "adam" else {"rtol": 1e-10}
    assert np.allclose(outputs(ours, x), outputs(theirs, x), **close)


@named([MLPClassifier(random_state=0), MLPRegressor(random_state=0)])
def test_weights_are_repetitions(estimator: Any) -> None:
    x, y = (part[::2] for part in data_for(estimator))
    x, y = x[:60], y[:60]
    weight = np.random.default_rng(0).integers(0, 4, 60)
    weighted = clone(estimator).fit(x, y, weight)
    repeated = clone(estimator).fit(np.repeat(x, weight, axis=0), np.repeat(y, weight))
    assert np.allclose(outputs(weighted, x), outputs(repeated, x), rtol=1e-7)
    scaled = clone(estimator).set_params(alpha=0.0)
    assert np.allclose(outputs(scaled.fit(x, y, weight), x), outputs(clone(scaled).fit(x, y, 7.0 * weight), x), rtol=1e-7)


def test_validation_rows_count_by_their_weights() -> None:
    score = Score(lambda outputs, targets, weight: float(np.average(outputs == targets, weights=weight)))
    score.update(treadle.tensor([1, 0]), Targets(treadle.tensor([1, 1]), treadle.tensor([3.0, 1.0])))
    assert score.compute() == 0.75


def test_class_weight_is_a_weight_of_rows() -> None:
    x, y = IRIS[0][20:], np.array(["a", "b", "c"])[IRIS[1][20:]]
    for spec in ("balanced", {"a": 3.0, "b": 0.5, "c": 1.0}, {"b": 2.0}):
        by_class = MLPClassifier(class_weight=spec, random_state=0, max_iter=20).fit(x, y)
        row_weights = compute_sample_weight(spec, y) if spec == "balanced" or len(spec) == 3 else np.where(y == "b", 2.0, 1.0)
        by_row = MLPClassifier(random_state=0, max_iter=20).fit(x, y, row_weights)
        assert np.allclose(by_class.predict_proba(x), by_row.predict_proba(x), rtol=1e-7)
    _, labels = make_multilabel_classification(130, n_classes=3, random_state=0)
    specs = [{0: 1.0, 1: 2.0}, {1: 3.0}, "balanced"]
    rows = np.where(labels[:, 0] == 1, 2.0, 1.0) * np.where(labels[:, 1] == 1, 3.0, 1.0)
    rows *= compute_sample_weight("balanced", labels[:, 2])
    # the last column is balanced under the weights so far, which are all 1
    by_class = MLPClassifier(class_weight=specs, random_state=0, max_iter=20).fit(x, labels)
    assert np.allclose(by_class.predict_proba(x), MLPClassifier(random_state=0, max_iter=20).fit(x, labels, rows).predict_proba(x))


def test_labels_and_several_columns_of_classes() -> None:
    x, labels = make_multilabel_classification(300, n_classes=4, random_state=0)
    x = StandardScaler().fit_transform(x)
    model = MLPClassifier(random_state=0, learning_rate_init=0.01, max_iter=60).fit(x, labels)
    p = model.predict_proba(x)
    assert p.shape == (300, 4)
    assert np.array_equal(model.predict(x), p > 0.5)
    assert model.score(x, labels) > 0.9
    columns = np.stack([np.array(["no", "yes"])[labels[:, 0]], np.array(["p", "q", "r"])[labels[:, 1] + labels[:, 2]]], axis=1)
    several = MLPClassifier(random_state=0, learning_rate_init=0.01, max_iter=60).fit(x, columns)
    assert [c.tolist() for c in several.classes_] == [["no", "yes"], ["p", "q", "r"]]
    assert (several.predict(x) == columns).all(axis=1).mean() > 0.9
    assert [part.shape for part in several.predict_proba(x)] == [(300, 2), (300, 3)]
    assert [part.shape for part in several.decision_function(x)] == [(300,), (300, 3)]


def test_several_numbers_and_their_scale() -> None:
    x, y = make_regression(300, 8, n_targets=3, random_state=0)
    far = y * [1.0, 1e-4, 1e4] + [0.0, 5.0, 1e6]
    model = MLPRegressor(random_state=0, learning_rate_init=0.01).fit(x, far)
    assert model.predict(x).shape == (300, 3)
    assert model.score(x, far) > 0.98
    same = MLPRegressor(random_state=0, learning_rate_init=0.01).fit(x, y)
    assert np.allclose((model.predict(x) - [0.0, 5.0, 1e6]) / [1.0, 1e-4, 1e4], same.predict(x), atol=2.0)


@pytest.mark.parametrize("loss", ["absolute_error", "huber", lambda out, y: (out - y).abs()], ids=["absolute", "huber", "own"])
def test_losses(loss: Any) -> None:
    x, y = make_regression(300, 5, noise=1.0, random_state=0)
    assert MLPRegressor(loss=loss, random_state=0, learning_rate_init=0.01).fit(x, y, np.ones(300)).score(x, y) > 0.95


@pytest.mark.parametrize("batch_size", [1, 16, 37, 299, 300, 1000])
def test_batches_cover_all_rows_and_none_is_single(batch_size: int) -> None:
    x, y = make_classification(300, random_state=0)
    options = {"batch_norm": batch_size > 1, "dropout": 0.1, "residual": True, "hidden_layer_sizes": (20, 20)}
    model = MLPClassifier(batch_size=batch_size, max_iter=8, random_state=0, learning_rate_init=0.01, **options).fit(x, y)
    assert model.score(x, y) > 0.75


def test_rates() -> None:
    x, y = IRIS
    options: dict[str, Any] = {"random_state": 0, "max_iter": 30, "solver": "sgd"}
    falling = MLPClassifier(learning_rate="invscaling", power_t=0.3, **options).fit(x, y)
    assert np.allclose(falling.history_["lr"], [0.001 / (150 * t + 1) ** 0.3 for t in range(30)])
    adaptive = MLPClassifier(learning_rate="adaptive", tol=10.0, n_iter_no_change=3, **options).fit(x, y)
    assert np.allclose(adaptive.history_["lr"], [0.001 * 0.2 ** ((t - 1) // 4) if t else 0.001 for t in range(adaptive.n_iter_)])
    cosine = MLPClassifier(schedule="cosine", **options).fit(x, y)
    assert cosine.history_["lr"][15] == pytest.approx(5e-4)
    assert MLPClassifier(schedule="one_cycle", batch_size=40, **options).fit(x, y).history_["lr"][-1] < 1e-4
    stepped = MLPClassifier(schedule=lambda optimizer: optim.StepLR(optimizer, 10, 0.5), **options).fit(x, y)
    assert stepped.history_["lr"][::10] == pytest.approx([1e-3, 5e-4, 2.5e-4])


def test_modules_are_copied_and_their_outputs_checked() -> None:
    x, y = IRIS
    treadle.manual_seed(0)
    module = models.MLP(4, (16,), 3)
    before = {name: t.numpy().copy() for name, t in module.state_dict().items()}
    options: dict[str, Any] = {"batch_size": 30, "solver": "adamw", "learning_rate_init": 0.01, "schedule": "cosine"}
    model = ModuleClassifier(module, random_state=0, max_iter=50, **options).fit(x, y)
    assert model.score(x, y) > 0.9
    assert all(np.array_equal(before[name], t.numpy()) for name, t in module.state_dict().items())
    assert ModuleClassifier(nn.Linear, random_state=0, max_iter=1).fit(x, y).module_.weight.shape == (3, 4)
    with pytest.raises(ValueError, match=r"module: expected outputs of shape \(n_rows, 3\), got \(2, 5\) for 2 rows"):
        ModuleClassifier(models.MLP(4, (16,), 5)).fit(x, y)
    with pytest.raises(TypeError, match=r"module: expected a treadle\.nn\.Module or a callable that makes one, got int"):
        ModuleClassifier(lambda n_features, n_outputs: 3).fit(x, y)


@pytest.mark.parametrize("name", ["solver", "activation", "schedule", "learning_rate", "dtype", "batch_size"])
def test_unknown_options_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected .*, got 'lbfgs'"):
        MLPClassifier(**{name: "lbfgs"}).fit(*IRIS)


@pytest.mark.parametrize("rate", ["adaptive", "invscaling"])
def test_a_schedule_goes_with_constant_rates_only(rate: str) -> None:
    with pytest.raises(ValueError, match=f"schedule: expected None with learning_rate='{rate}', got 'cosine'"):
        MLPClassifier(learning_rate=rate, schedule="cosine").fit(*IRIS)


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 2.0},
        {"tol": -1},
        {"n_iter_no_change": 0},
        {"max_iter": 2.5},
        {"max_iter": True},
        {"batch_size": 2.5},
        {"early_stopping": "no"},
        {"shuffle": "no"},
        {"nesterovs_momentum": "no"},
        {"alpha": "b"},
        {"alpha": np.nan},
        {"validation_fraction": "a"},
        {"validation_fraction": 1.0},
        {"learning_rate_init": 0.0},
        {"dropout": None},
        {"class_weight": {0: 1.0, 7: 2.0}},
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ValueError, match=f"^{name}: expected "):
        MLPClassifier(**options).fit(*IRIS)


def test_parameters_may_be_numpy_scalars() -> None:
    options = {"max_iter": np.int64(2), "alpha": np.float32(0.1), "shuffle": np.bool_(True), "n_iter_no_change": np.inf}
    assert MLPClassifier(**options, class_weight={0: 1, 1: 1, 2: 1, 7: 2}).fit(*IRIS).n_iter_ == 2


def test_the_best_validation_score_is_kept() -> None:
    model = MLPClassifier(max_iter=5, early_stopping=True, random_state=0).fit(*IRIS)
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert MLPClassifier(max_iter=1).fit(*IRIS).best_validation_score_ is None


def test_modules_in_threads_train_as_they_would_alone() -> None:
    x, y = IRIS

    def train(seed: int) -> bytes:
        def network(features: int, outputs: int) -> nn.Module:
            return models.MLP(features, (8,), outputs, drop_prob=0.5)

        model = ModuleClassifier(network, random_state=seed, max_iter=20, batch_size=30).fit(x, y)
        return b"".join(t.numpy().tobytes() for t in model.module_.state_dict().values())

    before = treadle.default_generator().get_state()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(train, range(8))) == [train(seed) for seed in range(8)]
    assert treadle.default_generator().get_state() == before


def test_refusals() -> None:
    x, y = IRIS
    with pytest.raises(TypeError, match="Sparse data was passed"):
        MLPClassifier().fit(sparse.csr_array(x), y)
    with pytest.raises(NotFittedError):
        MLPRegressor().predict(x)
    with pytest.raises(ValueError, match="partial_fit: expected classes in the first call, got None"):
        MLPClassifier().partial_fit(x, y)
    with pytest.raises(ValueError, match=r"y: expected classes among \[0, 1, 2\], got \[7\]"):
        MLPClassifier().partial_fit(x, np.where(y == 0, 7, y), classes=[0, 1, 2])
    with pytest.raises(ValueError, match=r"warm_start: expected y with the classes of the fit before, \[0, 1, 2\], got \[1, 2\]"):
        MLPClassifier(warm_start=True, max_iter=1).fit(x, y).fit(x[50:], y[50:])
    with pytest.raises(ValueError, match="X: expected values within float32"):
        MLPClassifier(dtype="float32").fit(x * 1e300, y)
    with pytest.raises(FloatingPointError, match="fit: expected a finite loss"):
        MLPRegressor(solver="sgd", learning_rate_init=1e6).fit(*DIABETES)


def test_treadle_needs_scikit_learn_only_here() -> None:
    code = """
import sys, treadle
from treadle import nn, optim, training, data
assert "sklearn" not in sys.modules
sys.modules["sklearn"] = None
try:
    import treadle.sklearn
except ImportError as error:
    assert "pip install treadle[sklearn]" in str(error)
else:
    raise SystemExit("expected an ImportError")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_verbose_writes_a_line_per_epoch(capsys: pytest.CaptureFixture[str]) -> None:
    MLPClassifier(max_iter=3, verbose=True, early_stopping=True, random_state=0).fit(*IRIS)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all("loss" in line and "valid" in line for line in lines)
