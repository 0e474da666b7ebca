"""Tables and columns of pandas, polars and pyarrow: as input of the estimators, and as tensors.

Invariant: whichever library a table comes from, the fitted network and its predictions are those of the plain array, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import treadle
from treadle import nn
from treadle.sklearn import MLPClassifier, MLPRegressor, ModuleClassifier, ModuleRegressor
from treadle.training import predict

X, CODES = load_iris(return_X_y=True)
COLUMNS = ["sepal length", "sepal width", "petal length", "petal width"]
LABELS = np.array(["setosa", "versicolor", "virginica"])[CODES]
INDICATOR = np.eye(3, dtype=np.int64)[CODES] | (X[:, :1] > 6)
WEIGHT = np.random.default_rng(0).uniform(0.5, 2.0, len(X))

Build = Callable[[Any, list[str]], Any]


def _arrow(values: Any, names: list[str]) -> pa.Table:
    return pa.table({name: values[:, k] for k, name in enumerate(names)})


TABLES: dict[str, Build] = {
    "pandas": lambda values, names: pd.DataFrame(values, columns=names),
    "pandas on arrow": lambda values, names: pd.DataFrame(values, columns=names).convert_dtypes(dtype_backend="pyarrow"),
    "polars": lambda values, names: pl.DataFrame(values, schema=names),
    "pyarrow": _arrow,
}
SERIES: dict[str, Callable[[Any], Any]] = {
    "pandas": pd.Series,
    "pandas on arrow": lambda values: pd.Series(values).convert_dtypes(dtype_backend="pyarrow"),
    "polars": pl.Series,
    "pyarrow": lambda values: pa.chunked_array([values[:50].tolist(), values[50:].tolist()]),
}
libraries = pytest.mark.parametrize("library", TABLES)
frames = pytest.mark.parametrize("library", ["pandas", "polars"])


def two_layers(n_features: int, n_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(n_features, 8), nn.Tanh(), nn.Linear(8, n_outputs))


SHORT: dict[str, Any] = {"max_iter": 3, "random_state": 0}
CLASSIFIERS = [MLPClassifier((8,), **SHORT), ModuleClassifier(two_layers, **SHORT)]
REGRESSORS = [MLPRegressor((8,), **SHORT), ModuleRegressor(two_layers, **SHORT)]


# Estimators -------------------------------------------------------------------------


@libraries
@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=lambda e: type(e).__name__)
def test_a_classifier_of_a_table_is_that_of_the_array(estimator: Any, library: str) -> None:
    table, labels, weight = TABLES[library](X, COLUMNS), SERIES[library](LABELS), SERIES[library](WEIGHT)
    fitted = clone(estimator).fit(table, labels, weight)
    plain = clone(estimator).fit(X, LABELS, WEIGHT)
    assert fitted.feature_names_in_.tolist() == COLUMNS
    assert fitted.n_features_in_ == 4
    assert fitted.classes_.tolist() == ["setosa", "versicolor", "virginica"]
    assert np.array_equal(fitted.predict_proba(table), plain.predict_proba(X))
    assert np.array_equal(fitted.predict(table), plain.predict(X))
    assert fitted.score(table, labels) == plain.score(X, LABELS)


@libraries
@pytest.mark.parametrize("estimator", REGRESSORS, ids=lambda e: type(e).__name__)
def test_a_regressor_of_a_table_is_that_of_the_array(estimator: Any, library: str) -> None:
    table, weight = TABLES[library](X[:, :3], COLUMNS[:3]), SERIES[library](WEIGHT)
    fitted = clone(estimator).fit(table, SERIES[library](X[:, 3]), weight)
    assert np.array_equal(fitted.predict(table), clone(estimator).fit(X[:, :3], X[:, 3], WEIGHT).predict(X[:, :3]))
    several = clone(estimator).fit(table, TABLES[library](X[:, 2:], COLUMNS[2:]))
    assert np.array_equal(several.predict(table), clone(estimator).fit(X[:, :3], X[:, 2:]).predict(X[:, :3]))


@libraries
def test_labels_and_several_columns_of_classes_of_a_table(library: str) -> None:
    table = TABLES[library](X, COLUMNS)
    model = MLPClassifier((8,), **SHORT)
    labels = clone(model).fit(table, TABLES[library](INDICATOR, ["a", "b", "c"]))
    assert np.array_equal(labels.predict_proba(table), clone(model).fit(X, INDICATOR).predict_proba(X))
    columns = np.stack([LABELS, np.where(X[:, 0] > 6, "long", "short")], axis=1)
    several = clone(model).fit(table, TABLES[library](columns, ["species", "size"]))
    plain = clone(model).fit(X, columns)
    assert [classes.tolist() for classes in several.classes_] == [classes.tolist() for classes in plain.classes_]
    assert np.array_equal(several.predict(table), plain.predict(X))


@pytest.mark.parametrize("kind", ["category of pandas", "categorical of polars", "enum of polars", "flags of polars"])
def test_targets_that_are_categories(kind: str) -> None:
    made: dict[str, Callable[[], Any]] = {
        "category of pandas": lambda: pd.Series(LABELS).astype("category"),
        "categorical of polars": lambda: pl.Series(LABELS, dtype=pl.Categorical),
        "enum of polars": lambda: pl.Series(LABELS, dtype=pl.Enum(["virginica", "versicolor", "setosa"])),
        "flags of polars": lambda: pl.Series(CODES == 2),
    }
    y = made[kind]()
    model = MLPClassifier((8,), **SHORT, class_weight="balanced").fit(X, y)
    assert model.classes_.tolist() == ([False, True] if kind == "flags of polars" else sorted(set(LABELS)))
    assert set(model.predict(X)) <= set(model.classes_)
    assert model.score(X, y) == np.mean(model.predict(X) == np.asarray(y))


@frames
@pytest.mark.parametrize("estimator", [CLASSIFIERS[0], REGRESSORS[1]], ids=lambda e: type(e).__name__)
def test_columns_are_checked_by_name_and_order(estimator: Any, library: str) -> None:
    build = TABLES[library]
    model = clone(estimator).fit(build(X, COLUMNS), CODES)
    before = model.predict(build(X, COLUMNS))
    with pytest.raises(ValueError, match="Feature names must be in the same order as they were in fit"):
        model.predict(build(X[:, ::-1], COLUMNS[::-1]))
    with pytest.raises(ValueError, match="Feature names seen at fit time, yet now missing:\n- petal width"):
        model.predict(build(X[:, :3], COLUMNS[:3]))
    with pytest.raises(ValueError, match="Feature names unseen at fit time:\n- other"):
        model.partial_fit(build(X, [*COLUMNS[:3], "other"]), CODES)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        assert np.array_equal(model.predict(X), before)


@frames
def test_steps_of_a_pipeline_may_pass_tables_on(library: str) -> None:
    table = TABLES[library](X, COLUMNS)
    model = make_pipeline(StandardScaler(), MLPClassifier((8,), **SHORT)).set_output(transform=library)
    assert model.fit(table, LABELS)[-1].feature_names_in_.tolist() == COLUMNS
    assert isinstance(model[:-1].transform(table), pd.DataFrame if library == "pandas" else pl.DataFrame)
    plain = make_pipeline(StandardScaler(), MLPClassifier((8,), **SHORT)).fit(X, LABELS)
    # The scaler's own sums depend on how a table lies in memory.
    assert np.allclose(model.predict_proba(table), plain.predict_proba(X), rtol=1e-5)


@frames
def test_mixed_columns_go_through_a_column_transformer(library: str) -> None:
    mixed: Any = {"width": X[:, 3].tolist(), "kind": LABELS.tolist()}
    table = pd.DataFrame(mixed) if library == "pandas" else pl.DataFrame(mixed)
    columns = make_column_transformer((StandardScaler(), ["width"]), (OneHotEncoder(sparse_output=False), ["kind"]))
    model = make_pipeline(columns, MLPClassifier((8,), random_state=0, learning_rate_init=0.05)).set_output(transform=library)
    assert model.fit(table, LABELS).score(table, LABELS) > 0.95
    assert len(model[-1].feature_names_in_) == 4
    with pytest.raises(ValueError, match="could not convert string to float: 'setosa'"):
        MLPClassifier().fit(table, LABELS)


@frames
def test_searches_in_two_processes_over_tables(library: str) -> None:
    table, y = TABLES[library](X, COLUMNS), SERIES[library](LABELS)
    model = MLPClassifier((8,), max_iter=20, random_state=0)
    search = GridSearchCV(model, {"learning_rate_init": [1e-4, 0.05]}, cv=3, n_jobs=2).fit(table, y)
    assert search.best_params_ == {"learning_rate_init": 0.05}
    assert search.best_estimator_.feature_names_in_.tolist() == COLUMNS
    assert np.array_equal(cross_val_predict(model, table, y, n_jobs=2), cross_val_predict(model, X, LABELS))


@libraries
def test_partial_fit_and_class_weights_by_table(library: str) -> None:
    table, y = TABLES[library](X, COLUMNS), SERIES[library](LABELS)
    model = MLPClassifier((8,), class_weight={"setosa": 3.0}, **SHORT)
    online = clone(model).partial_fit(table, y, classes=np.unique(LABELS)).partial_fit(table, y, sample_weight=WEIGHT)
    plain = clone(model).partial_fit(X, LABELS, classes=np.unique(LABELS)).partial_fit(X, LABELS, sample_weight=WEIGHT)
    assert np.array_equal(online.predict_proba(table), plain.predict_proba(X))


def test_missing_values_are_refused() -> None:
    holes = np.where(X > 7, np.nan, X)
    for table in (
        pd.DataFrame(holes, columns=COLUMNS),
        pd.DataFrame(holes, columns=COLUMNS).convert_dtypes(),
        pl.DataFrame(holes, schema=COLUMNS).fill_nan(None),
        _arrow(holes, COLUMNS),
    ):
        with pytest.raises(ValueError, match="Input X contains NaN"):
            MLPClassifier().fit(table, LABELS)


def test_sparse_data_is_refused_by_name() -> None:
    fitted, thin = MLPClassifier((8,), **SHORT).fit(X, CODES), sparse.csr_array(X * (X > 3))
    for call in (
        lambda: MLPClassifier().fit(thin, CODES),
        lambda: MLPRegressor().fit(sparse.coo_matrix(X), CODES),
        lambda: MLPClassifier().fit(pd.DataFrame.sparse.from_spmatrix(thin), CODES),
        lambda: fitted.partial_fit(thin, CODES),
        lambda: fitted.predict(thin),
        lambda: fitted.predict_proba(thin),
    ):
        with pytest.raises(TypeError, match="Sparse data was passed for X, but dense data is required"):
            call()
    for model in (MLPClassifier(), MLPRegressor()):
        with pytest.raises(TypeError, match=r"^y: expected dense targets, got sparse ones; use y.toarray\(\)$"):
            model.fit(X, sparse.csr_array(INDICATOR))
        assert not hasattr(model, "module_")


# Tensors ----------------------------------------------------------------------------


@libraries
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "int32", "bool"])
def test_columns_keep_their_element_type(library: str, dtype: str) -> None:
    values = (np.arange(100) % 2).astype(dtype)
    tensor = treadle.tensor(SERIES[library](values) if library != "pyarrow" else pa.array(values))
    # Conversion to pandas' best types makes whole numbers of floats.
    want = "int64" if dtype == "int32" or (library == "pandas on arrow" and dtype.startswith("float")) else dtype
    assert tensor.dtype == want
    assert tensor.tolist() == values.tolist()


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_tables_become_matrices(library: str) -> None:
    tensor = treadle.tensor(TABLES[library](X, COLUMNS))
    assert tensor.dtype == "float64"
    assert np.array_equal(tensor.numpy(), X)


def test_tables_of_pandas_that_are_no_one_type_are_converted_first() -> None:
    for table in (pd.DataFrame({"a": [1.5], "b": [True]}), TABLES["pandas on arrow"](X, COLUMNS)):
        with pytest.raises(TypeError, match=r"^tensor: expected .*, got DataFrame that NumPy takes for object"):
            treadle.tensor(table)
        assert np.array_equal(treadle.tensor(table.to_numpy("float64")).numpy(), table.astype("float64").to_numpy())


def test_missing_values_become_nan() -> None:
    for column in (
        pl.Series([1, None]),
        pa.array([1, None]),
        pa.chunked_array([[1.0], [None]]),
        pd.Series([1, None], dtype="Int64"),
    ):
        tensor = treadle.tensor(column)
        assert tensor.dtype == "float64"
        assert tensor.isnan().tolist() == [False, True]


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame, pa.table, lambda columns: list(zip(*columns.values(), strict=True))])
def test_predict_takes_tables_and_lists(kind: Callable[[Any], Any]) -> None:
    columns = {"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0]}
    model = nn.Linear(2, 2)
    want = predict(model, np.column_stack(list(columns.values())))
    np.testing.assert_allclose(predict(model, kind(columns), batch_size=2), want, rtol=1e-6)


def test_columns_that_hold_no_numbers_are_refused() -> None:
    for column in (pl.Series(["a"]), pa.array(["a"]), pl.Series([[1.0], [2.0, 3.0]]), pl.DataFrame({"a": [1], "b": ["x"]})):
        with pytest.raises(TypeError, match=r"^tensor: expected .*, got .* that NumPy takes for"):
            treadle.tensor(column)


def test_a_column_that_changes_later_does_not_reach_the_tensor() -> None:
    values = np.zeros(3)
    frame = pd.DataFrame({"a": values})
    tensor = treadle.tensor(frame["a"])
    frame.loc[0, "a"] = 5.0
    values[1] = 7.0
    assert tensor.tolist() == [0, 0, 0]


def test_tensors_become_columns() -> None:
    tensor = treadle.tensor([1.0, 2.0])
    series = pl.Series("t", tensor.numpy())
    assert series.dtype == pl.Float32
    assert series.to_list() == pl.DataFrame({"t": tensor.numpy()})["t"].to_list() == [1, 2]
    column = pa.array(tensor.numpy())
    assert column.type == pa.float32()
    assert column.to_pylist() == [1, 2]
    assert pl.from_numpy(treadle.ones(2, 3).numpy(), schema=["a", "b", "c"]).shape == (2, 3)
