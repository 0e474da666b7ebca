"""scikit-learn estimators: `MLPClassifier` and `MLPRegressor`, and `ModuleClassifier` and `ModuleRegressor` around any module.

Needs scikit-learn: `pip install treadle[sklearn]`.
"""

try:
    import sklearn  # noqa: F401
except ImportError as error:
    raise ImportError("treadle.sklearn: expected scikit-learn, got none; pip install treadle[sklearn]") from error

from treadle.sklearn._mlp import MLPClassifier, MLPRegressor
from treadle.sklearn._module import ModuleClassifier, ModuleRegressor

__all__ = ["MLPClassifier", "MLPRegressor", "ModuleClassifier", "ModuleRegressor"]
