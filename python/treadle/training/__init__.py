"""Training a model: `fit`, `evaluate`, `predict`, and what they are made of."""

from treadle.training.checkpoint import load_checkpoint, save_checkpoint
from treadle.training.evaluation import evaluate, predict
from treadle.training.history import History
from treadle.training.loop import fit
from treadle.training.metrics import MAE, R2, Accuracy, Metric, accuracy, confusion_matrix, mae, r2
from treadle.training.stopping import EarlyStopping

__all__ = [
    "MAE",
    "R2",
    "Accuracy",
    "EarlyStopping",
    "History",
    "Metric",
    "accuracy",
    "confusion_matrix",
    "evaluate",
    "fit",
    "load_checkpoint",
    "mae",
    "predict",
    "r2",
    "save_checkpoint",
]
