"""Optimizers, learning-rate schedules and gradient clipping."""

from treadle.optim import lr_scheduler
from treadle.optim.adam import Adam, AdamW
from treadle.optim.clip import clip_grad_norm_, clip_grad_value_
from treadle.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)
from treadle.optim.optimizer import Optimizer
from treadle.optim.rmsprop import RMSprop
from treadle.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "CosineAnnealingLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "Optimizer",
    "RMSprop",
    "ReduceLROnPlateau",
    "StepLR",
    "clip_grad_norm_",
    "clip_grad_value_",
    "lr_scheduler",
]
