"""`NetworkClassifier`: what y means to a classifier, and what outputs mean.

y is one of three kinds: "single" (a class per row), "labels" (an indicator matrix: any number of labels per row) and "several"
(more than one column of classes). Invariant: the network has one output per class, of every column for "several".
"""

from __future__ import annotations

from functools import partial
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from treadle import _core
from treadle._core import Tensor
from treadle.sklearn._base import Array, Network
from treadle.sklearn._training import Criterion

__all__ = ["NetworkClassifier"]


class NetworkClassifier(ClassifierMixin, Network):  # type: ignore[misc]
    """A network over classes."""

    class_weight: Any
    _score_name = "accuracy"

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train for one epoch, going on from where the last call or `fit` ended.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Dense numbers.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Classes, or an indicator matrix of labels.
        classes : array-like, default=None
            All classes there will be (a list of arrays where y has several columns of classes, even if this y looks like an
            indicator matrix); the first call needs them, unless y is an indicator matrix, and a later one may repeat them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        self
        """
        if classes is None and not hasattr(self, "module_") and type_of_target(y) != "multilabel-indicator":
            raise ValueError("partial_fit: expected classes in the first call, got None")
        return self._fit(X, y, sample_weight, classes, incremental=True)

    def predict(self, X: Any) -> Array:
        """The most probable classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Dense numbers.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Classes, or an indicator matrix of labels, as y was in `fit`.
        """
        codes = self._decide(self._outputs(X))
        if self._kind == "labels":
            return codes
        if self._kind == "single":
            return np.asarray(self._labels[0][codes])
        return np.stack([labels[codes[:, k]] for k, labels in enumerate(self._labels)], axis=1)

    def decision_function(self, X: Any) -> Any:
        """The network's outputs, before softmax or sigmoid.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Dense numbers.

        Returns
        -------
        d : ndarray of shape (n_samples,) or (n_samples, n_classes), or list of them
            In the order of `classes_`; for two classes how much larger the second's output is; one array for each of several
            columns of classes.
        """
        outputs = self._outputs(X)
        if self._kind == "labels":
            return outputs
        parts = [part[:, 1] - part[:, 0] if part.shape[1] == 2 else part for part in self._parts(outputs)]
        return parts[0] if self._kind == "single" else parts

    def predict_proba(self, X: Any) -> Any:
        """Probabilities of the classes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Dense numbers.

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes), or list of them
            In the order of `classes_`; for labels the probability of each; one array for each of several columns of classes.
        """
        outputs = self._outputs(X)
        if self._kind == "labels":
            return _core.sigmoid(Tensor(outputs)).numpy().copy()
        parts = [_core.softmax(Tensor(part), 1).numpy().copy() for part in self._parts(outputs)]
        return parts[0] if self._kind == "single" else parts

    def predict_log_proba(self, X: Any) -> Any:
        """Logarithms of `predict_proba`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Dense numbers.

        Returns
        -------
        log_p : ndarray of shape (n_samples, n_classes), or list of them
            As `predict_proba`.
        """
        p = self.predict_proba(X)
        with np.errstate(divide="ignore"):
            return [np.log(part) for part in p] if isinstance(p, list) else np.log(p)

    def _parts(self, outputs: Array) -> list[Array]:
        """The outputs of each column of classes."""
        return np.split(outputs, np.cumsum(self._sizes)[:-1], axis=1)

    def _decide(self, outputs: Array) -> Array:
        """Codes: the class with the largest output, of every column; or which labels are likelier than not."""
        if self._kind == "labels":
            return (outputs > 0).astype(np.int64)
        codes = [part.argmax(axis=1) for part in self._parts(outputs)]
        return codes[0] if self._kind == "single" else np.stack(codes, axis=1)

    def _score_outputs(self, outputs: Array, targets: Array, weight: Array | None) -> float:
        right = self._decide(outputs) == targets
        if right.ndim == 2:
            right, weight = right.all(axis=1), None if weight is None else weight[:, 0]
        return float(np.average(right, weights=weight))

    def _encode(self, y: Array, weight: Array, fresh: bool, classes: Any) -> Array:
        check_classification_targets(y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if fresh:
            self._learn_classes(y, classes)
        width = None if self._kind == "single" else len(self._labels)
        if (y.shape[1] if y.ndim == 2 else None) != width:
            raise ValueError(f"y: expected {'1 axis' if width is None else f'{width} columns'} as before, got shape {y.shape}")
        if classes is not None:
            self._expect_same(self._find_labels(y, classes))
        columns = [y] if y.ndim == 1 else list(y.T)
        codes = [_codes(column, labels) for column, labels in zip(columns, self._labels, strict=True)]
        if self.warm_start and not fresh and classes is None:
            self._expect_all(codes)
        if self._kind == "single":
            return codes[0]
        return np.stack(codes, axis=1).astype(np.float64 if self._kind == "labels" else np.int64)

    def _learn_classes(self, y: Array, classes: Any) -> None:
        """Sets what kind y is, and its classes."""
        if y.ndim == 1:
            self._kind = "single"
        else:
            indicator = type_of_target(y) == "multilabel-indicator" and not _by_column(classes)
            self._kind = "labels" if indicator else "several"
        self._labels = self._find_labels(y, classes)
        self._sizes = [1 if self._kind == "labels" else len(labels) for labels in self._labels]
        self.n_outputs_ = sum(self._sizes)
        self.classes_: Any = {"single": self._labels[0], "labels": np.arange(len(self._labels)), "several": self._labels}[
            self._kind
        ]

    def _find_labels(self, y: Array, classes: Any) -> list[Array]:
        """The classes of each column, sorted: those that are given, or else those in y."""
        if self._kind == "single":
            return [_distinct(y if classes is None else classes)]
        if self._kind == "labels":
            if classes is not None:
                _expect_labels(classes, y.shape[1])
            return [np.arange(2)] * y.shape[1]
        if classes is not None and not (_by_column(classes) and len(classes) == y.shape[1]):
            raise ValueError(f"classes: expected an array for each of {y.shape[1]} columns of y, got {classes!r:.100}")
        return [_distinct(column) for column in (y.T if classes is None else classes)]

    def _expect_same(self, labels: list[Array]) -> None:
        if len(labels) != len(self._labels) or not all(map(np.array_equal, labels, self._labels)):
            was, got = (" and ".join(str(column.tolist()) for column in each) for each in (self._labels, labels))
            raise ValueError(f"classes: expected those of the calls before, {was}, got {got}; a new estimator takes others")

    def _expect_all(self, codes: list[Array]) -> None:
        for column, labels in zip(codes, self._labels, strict=True):
            if self._kind != "labels" and len(np.unique(column)) != len(labels):
                got = labels[np.unique(column)].tolist()
                raise ValueError(f"warm_start: expected y with the classes of the fit before, {labels.tolist()}, got {got}")

    def _strata(self, targets: Array) -> Array | None:
        return targets if self._kind == "single" else None

    def _reweigh(self, targets: Array, weight: Array) -> Array:
        if self.class_weight is None:
            return weight
        columns = targets.reshape(len(targets), -1).astype(np.int64).T
        specs = self.class_weight if isinstance(self.class_weight, list) else [self.class_weight] * len(columns)
        if len(specs) != len(columns):
            raise ValueError(f"class_weight: expected one for each of {len(columns)} columns of y, got {len(specs)}")
        factors = [
            _class_weights(spec, codes, labels, weight) for spec, codes, labels in zip(specs, columns, self._labels, strict=True)
        ]
        weight = weight * np.prod(factors, axis=0)
        if not weight.any():
            raise ValueError("class_weight: expected a weight above 0 for a class in y, got none")
        return weight

    def _criterion(self) -> Criterion:
        if self._kind == "labels":
            return Criterion(_label_loss, float(len(self._labels)))
        if self._kind == "single":
            return Criterion(_class_loss)
        return Criterion(partial(_column_losses, self._sizes), float(len(self._labels)))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.target_tags.multi_output = True
        return tags


def _by_column(classes: Any) -> bool:
    """Whether classes are those of several columns, an array of each."""
    return isinstance(classes, list | tuple | np.ndarray) and any(np.ndim(column) for column in classes)


def _distinct(classes: Any) -> Array:
    """Classes, sorted."""
    found: Array = np.unique(np.asarray(classes))
    if not found.size:
        raise ValueError("classes: expected at least one class, got none")
    if not np.array_equal(found, found):  # of NaN
        raise ValueError(f"classes: expected classes that equal themselves, got {found.tolist()}; leave out NaN")
    return found


def _expect_labels(classes: Any, width: int) -> None:
    """Of an indicator matrix classes can be its two values or the numbers of its columns."""
    if _by_column(classes) or not any(np.array_equal(np.unique(np.asarray(classes)), np.arange(n)) for n in (2, width)):
        wanted = f"[0, 1] or the numbers of {width} labels, as y is an indicator matrix"
        raise ValueError(f"classes: expected {wanted}, got {classes!r:.100}; give an array for each column of classes")


def _codes(column: Array, labels: Array) -> Array:
    """Positions of a column's values among the classes."""
    codes = np.minimum(np.searchsorted(labels, column), len(labels) - 1)
    unknown = labels[codes] != column
    if unknown.any():
        raise ValueError(f"y: expected classes among {labels.tolist()}, got {np.unique(column[unknown]).tolist()}")
    return codes


def _class_weights(spec: Any, codes: Array, labels: Array, weight: Array) -> Array:
    """The weight of each row's class; "balanced" gives every class that is there the same sum of weights."""
    if spec == "balanced":
        sums = np.bincount(codes, weights=weight, minlength=len(labels))
        table = weight.sum() / (np.count_nonzero(sums) * np.where(sums > 0, sums, 1.0))
    elif isinstance(spec, dict):
        known = [label for label in labels.tolist() if label in spec]
        # A dict may name classes that are not in this y, as in a fold, but then it has to name all that are.
        if len(known) != len(labels) and len(known) != len(spec):
            raise ValueError(f"class_weight: expected weights of classes among {labels.tolist()}, got {sorted(spec, key=str)}")
        table = np.array([spec.get(label, 1.0) for label in labels.tolist()], dtype=np.float64)
    else:
        raise ValueError(f"class_weight: expected None, 'balanced', a dict or a list of them, got {spec!r}")
    wrong = ~(np.isfinite(table) & (table >= 0))
    if wrong.any():
        got = f"{table[wrong][0]} for {labels[wrong].tolist()[0]!r}"
        raise ValueError(f"class_weight: expected finite weights of at least 0, got {got}")
    return np.asarray(table[codes])


def _class_loss(outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
    return _core.cross_entropy(outputs, targets, None, reduction)


def _label_loss(outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
    return _core.bce_with_logits(outputs, targets, None, None, reduction)


def _column_losses(sizes: list[int], outputs: Tensor, targets: Tensor, reduction: str) -> Tensor:
    """Cross-entropy of each of several columns of classes."""
    parts = enumerate(outputs.split(sizes, 1))
    losses = _core.stack([_core.cross_entropy(part, targets[:, k], None, "none") for k, part in parts], 1)
    return losses.mean() if reduction == "mean" else losses
