"""`treadle.checks`: counts, shares, numbers and parameters are refused alike wherever they are given, before anything changes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import init, models, nn, optim
from treadle.data import DataLoader, RandomCrop, RandomHorizontalFlip, TensorDataset
from treadle.training import EarlyStopping, fit, predict


def _fit(epochs: Any = 1, **options: Any) -> Any:
    model, rows = nn.Linear(2, 1), TensorDataset(treadle.ones(4, 2), treadle.ones(4, 1))
    sgd = optim.SGD(model.parameters(), lr=0.1)
    return fit(model, DataLoader(rows, 4), loss=nn.MSELoss(), optimizer=sgd, epochs=epochs, progress=False, **options)


def _schedule(kind: Callable[..., Any], **options: Any) -> Any:
    return kind(optim.SGD([treadle.ones(2, requires_grad=True)], lr=1.0), **options)


def _gradcheck(trials: Any) -> Any:
    return treadle.autograd.gradcheck(treadle.ops.tanh, treadle.ones(2, dtype="float64").requires_grad_(), trials=trials)


COUNTS: list[tuple[str, int, Callable[[Any], Any]]] = [
    ("step_lr: expected step_size", 1, lambda n: _schedule(optim.StepLR, step_size=n)),
    ("multi_step_lr: expected milestones", 0, lambda n: _schedule(optim.MultiStepLR, milestones=[3, n])),
    ("linear_lr: expected total_iters", 1, lambda n: _schedule(optim.LinearLR, total_iters=n)),
    ("cosine_annealing_lr: expected T_max", 1, lambda n: _schedule(optim.CosineAnnealingLR, T_max=n)),
    ("one_cycle_lr: expected total_steps", 1, lambda n: _schedule(optim.OneCycleLR, max_lr=1.0, total_steps=n)),
    ("reduce_lr_on_plateau: expected patience", 0, lambda n: _schedule(optim.ReduceLROnPlateau, patience=n)),
    ("reduce_lr_on_plateau: expected cooldown", 0, lambda n: _schedule(optim.ReduceLROnPlateau, cooldown=n)),
    ("fit: expected epochs", 1, _fit),
    ("fit: expected keep_last", 1, lambda n: _fit(checkpoint="c", keep_last=n)),
    ("fit: expected checkpoint_every", 1, lambda n: _fit(checkpoint="c", checkpoint_every=n)),
    ("early_stopping: expected patience", 1, lambda n: EarlyStopping(patience=n)),
    ("predict: expected batch_size", 1, lambda n: predict(nn.Linear(2, 1), treadle.ones(4, 2), n)),
    ("data_loader: expected batch_size", 1, lambda n: DataLoader(TensorDataset(treadle.ones(2)), n)),
    ("random_crop: expected padding", 0, RandomCrop),
    ("summary: expected repeats", 1, lambda n: treadle.summary(nn.ReLU(), (1, 2), n)),
    ("gradcheck: expected trials", 1, _gradcheck),
    ("mlp_resnet: expected num_blocks", 0, lambda n: models.MLPResNet(4, num_blocks=n)),
    ("xavier_uniform: expected fan_in", 1, lambda n: init.xavier_uniform(n, 3)),
]


@pytest.mark.parametrize(("start", "low", "make"), COUNTS, ids=[start for start, _, _ in COUNTS])
def test_counts_are_integers_that_are_large_enough(
    start: str, low: int, make: Callable[[Any], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for value in (math.nan, low + 0.5, True, str(low)):
        with pytest.raises(TypeError, match=f"^{start} as an int, got {type(value).__name__}$"):
            make(value)
    with pytest.raises(ValueError, match=f"^{start} of at least {low}, got {low - 1}$"):
        make(low - 1)
    make(np.int64(low))


SHARES: list[tuple[str, Callable[[float], Any]]] = [
    ("one_cycle_lr: expected pct_start", lambda p: _schedule(optim.OneCycleLR, max_lr=1.0, total_steps=2, pct_start=p)),
    ("cross_entropy: expected label_smoothing", lambda p: nn.CrossEntropyLoss(label_smoothing=p)),
    ("random_horizontal_flip: expected p", RandomHorizontalFlip),
    ("dropout: expected p", nn.Dropout),
]


@pytest.mark.parametrize(("start", "make"), SHARES, ids=[start for start, _ in SHARES])
def test_shares_lie_between_0_and_1(start: str, make: Callable[[float], Any]) -> None:
    for value in (math.nan, -0.1, 1.1):
        with pytest.raises(ValueError, match=rf"^{start} in \[0, 1\], got {re.escape(str(value))}$"):
            make(value)
    assert make(0)
    assert make(np.float32(1))


NUMBERS: list[tuple[str, Callable[[Any], Any]]] = [
    *SHARES,
    ("step_lr: expected gamma", lambda x: _schedule(optim.StepLR, step_size=1, gamma=x)),
    ("multi_step_lr: expected gamma", lambda x: _schedule(optim.MultiStepLR, milestones=[1], gamma=x)),
    ("exponential_lr: expected gamma", lambda x: _schedule(optim.ExponentialLR, gamma=x)),
    ("linear_lr: expected start_factor", lambda x: _schedule(optim.LinearLR, start_factor=x)),
    ("linear_lr: expected end_factor", lambda x: _schedule(optim.LinearLR, end_factor=x)),
    ("cosine_annealing_lr: expected eta_min", lambda x: _schedule(optim.CosineAnnealingLR, T_max=1, eta_min=x)),
    ("one_cycle_lr: expected max_lr", lambda x: _schedule(optim.OneCycleLR, max_lr=x, total_steps=2)),
    ("one_cycle_lr: expected div_factor", lambda x: _schedule(optim.OneCycleLR, max_lr=1.0, total_steps=2, div_factor=x)),
    ("reduce_lr_on_plateau: expected factor", lambda x: _schedule(optim.ReduceLROnPlateau, factor=x)),
    ("reduce_lr_on_plateau: expected threshold", lambda x: _schedule(optim.ReduceLROnPlateau, threshold=x)),
    ("reduce_lr_on_plateau: expected min_lr", lambda x: _schedule(optim.ReduceLROnPlateau, min_lr=x)),
    ("reduce_lr_on_plateau: expected metric", lambda x: _schedule(optim.ReduceLROnPlateau).step(x)),
    (r"lr_scheduler: expected factor\(0\)", lambda x: _schedule(optim.LambdaLR, lr_lambda=lambda _: x)),
    ("batch_norm: expected eps", lambda x: nn.BatchNorm1d(4, eps=x)),
    ("layer_norm: expected eps", lambda x: nn.LayerNorm(4, eps=x)),
    ("leaky_relu: expected negative_slope", nn.LeakyReLU),
    ("elu: expected alpha", nn.ELU),
    ("huber_loss: expected delta", lambda x: nn.HuberLoss(delta=x)),
]


@pytest.mark.parametrize(("start", "make"), NUMBERS, ids=[start for start, _ in NUMBERS])
def test_what_is_no_number_is_named(start: str, make: Callable[[Any], Any]) -> None:
    for value in ("a", None, [0.5], True, np.bool_(True)):
        with pytest.raises(TypeError, match=f"^{start} as a number, got {type(value).__name__}$"):
            make(value)


PARAMETERS: list[tuple[str, Callable[[Any], Any]]] = [
    ("sgd", optim.SGD),
    ("adam", lambda p: optim.Adam([{"params": p}])),
    ("clip_grad_norm", lambda p: optim.clip_grad_norm_(p, 1.0)),
    ("clip_grad_value", lambda p: optim.clip_grad_value_(p, 1.0)),
    ("parameters_to_vector", nn.utils.parameters_to_vector),
    ("vector_to_parameters", lambda p: nn.utils.vector_to_parameters(treadle.ones(4), p)),
]


@pytest.mark.parametrize(("op", "take"), PARAMETERS, ids=[op for op, _ in PARAMETERS])
def test_what_are_no_parameters_is_named(op: str, take: Callable[[Any], Any]) -> None:
    for value, got in ((None, "NoneType"), (3, "int"), (["a"], "str"), ({"weight": treadle.ones(2)}, "str")):
        with pytest.raises(TypeError, match=f"^{op}: expected parameters, got {got}$"):
            take(value)
    for model in (nn.Linear(2, 2), nn.Sequential(nn.ReLU())):  # a container is iterable
        with pytest.raises(TypeError, match=rf"got {type(model).__name__}; give it those of the model, model\.parameters\(\)$"):
            take(model)


def test_a_gradient_that_was_never_checked_is_not_right() -> None:
    class Wrong(treadle.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, gradient: Any) -> Any:
            return gradient

    x = treadle.ones(2, dtype="float64").requires_grad_()
    for trials in (0, 1):
        with pytest.raises(ValueError, match=r"^gradcheck: expected"):
            treadle.autograd.gradcheck(Wrong.apply, x, trials=trials)
