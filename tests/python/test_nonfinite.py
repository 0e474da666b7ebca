"""Numbers that go wrong during `fit`: what is raised, skipped and kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_training import Setting, rows

import treadle
from treadle import Tensor, nn, optim
from treadle.data import DataLoader
from treadle.training import History, fit, load_checkpoint


def spoilt(bad: set[int], by: float = math.nan) -> Any:
    """A loss that is not finite in some training steps, counted from 1; the gradients of the rest are as usual."""
    loss, step = nn.CrossEntropyLoss(), 0

    def spoil(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal step
        step += outputs.requires_grad
        return loss(outputs, targets) * (by if outputs.requires_grad and step in bad else 1.0)

    return spoil


def test_raise_names_the_epoch_and_keeps_the_good_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    with pytest.raises(
        FloatingPointError, match="fit: expected a finite loss, got nan in epoch 2; scale the inputs or lower the learning rate"
    ):
        Setting().fit(4, checkpoint=path, loss=spoilt({15}))
    assert load_checkpoint(path)["epoch"] == 1


def test_bad_weights_never_reach_a_checkpoint(tmp_path: Path) -> None:
    path, setting = tmp_path / "run.safetensors", Setting()

    def ruin(history: History, _: nn.Module) -> None:
        if len(history) == 2:
            setting.optimizer.param_groups[0]["lr"] = 1e300

    with pytest.raises(FloatingPointError, match=r"fit: expected finite weights, got others in '.*' in epoch 3; scale"):
        setting.fit(4, checkpoint=path, checkpoint_every=1, callbacks=[ruin], scheduler=None)
    state = load_checkpoint(path)
    assert (state["epoch"], state["within"]["batch"]) == (2, 0)
    assert all(np.isfinite(t.numpy()).all() for t in state["model"].values())


@pytest.mark.parametrize("by", [math.nan, math.inf])
def test_skip_leaves_everything_as_it_was_before_the_batch(by: float) -> None:
    batches = [(x, y) for x, y in DataLoader(rows(), 16)]

    def run(batches: list[Any], **options: Any) -> bytes:
        setting = Setting()
        drop = nn.Dropout(0.4, generator=treadle.Generator(8))
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), drop, nn.Linear(8, 2))
        adam = optim.Adam(model.parameters(), lr=0.01)
        fit(model, batches, optimizer=adam, epochs=1, progress=False, **({"loss": nn.CrossEntropyLoss()} | options))
        del setting
        return b"".join(t.numpy().tobytes() for t in model.state_dict().values())

    with pytest.warns(RuntimeWarning, match="fit: skipped 2 of 10 batches of epoch 1: loss or gradients were not finite"):
        skipped = run(batches, loss=spoilt({3, 7}, by), on_nonfinite="skip")
    assert skipped == run([b for i, b in enumerate(batches, 1) if i not in (3, 7)])


class Counted(nn.Module):
    """Running means whose buffers are assigned anew, one of them made by the first batch, and noise."""

    def __init__(self) -> None:
        self.calls, self.mean, self.generator = nn.Buffer(treadle.zeros(1)), None, treadle.Generator(4)

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        mean = x.detach().mean(0)
        self.mean = nn.Buffer(mean) if self.mean is None else self.mean * 0.9 + mean * 0.1
        return x + self.mean + treadle.randn(*x.shape, generator=self.generator)


class Noisy(nn.Module):
    """A loss of such outputs."""

    def __init__(self) -> None:
        self.counted, self.entropy = Counted(), nn.CrossEntropyLoss()

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.entropy(self.counted(outputs), targets)


@pytest.mark.parametrize("how", ["skip", "stop"])
@pytest.mark.parametrize("closed", [False, True])
def test_what_a_model_and_a_loss_assign_and_draw_is_put_back(how: str, closed: bool) -> None:
    batches = [(x, y) for x, y in DataLoader(rows(), 16)]
    bad = (treadle.full(batches[0][0].shape, math.nan), batches[0][1])

    def run(batches: list[Any]) -> list[bytes]:
        treadle.manual_seed(0)
        model, loss = nn.Sequential(Counted(), nn.Linear(6, 2)), Noisy()
        given = (lambda outputs, targets: loss(outputs, targets)) if closed else loss
        sgd = optim.SGD(model.parameters(), lr=0.1)
        fit(model, batches, loss=given, optimizer=sgd, epochs=1, progress=False, on_nonfinite=how)
        draws = [treadle.randn(2, generator=module.generator) for module in (model[0], loss.counted)]
        held = [*model.state_dict().values(), *loss.state_dict().values(), *draws]
        return [tensor.numpy().tobytes() for tensor in held]

    with pytest.warns(RuntimeWarning, match="not finite"):
        spoilt = run([bad, *batches, bad] if how == "skip" else [*batches[:3], bad, *batches[3:]])
    assert spoilt == run(batches if how == "skip" else batches[:3])


def test_parameters_that_a_callback_adds_are_clipped_and_looked_at() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    before, sgd = model[0].weight.numpy().copy(), optim.SGD(model[1].parameters(), lr=1.0)

    def unfreeze(history: History, _: nn.Module) -> None:
        if len(history) == 1:
            sgd.add_param_group({"params": model[0].requires_grad_().parameters()})
        if len(history) == 3:
            sgd.param_groups[1]["lr"] = 1e300

    moved: list[float] = []
    callbacks: Any = [unfreeze, lambda history, _: moved.append(np.abs(model[0].weight.numpy() - before).max())]
    options: Any = {"loss": nn.CrossEntropyLoss(), "optimizer": sgd, "epochs": 4, "progress": False, "callbacks": callbacks}
    with pytest.raises(FloatingPointError, match=r"expected finite weights, got others in '0.weight', '0.bias' in epoch 4"):
        fit(model, DataLoader(rows(20), 20), clip_norm=1e-3, **options)
    assert moved[0] == 0.0 < moved[1] <= 1e-3 * 1.001


def test_an_epoch_of_nothing_but_skipped_batches_is_an_error_that_says_so() -> None:
    with pytest.raises(FloatingPointError, match="expected a batch with a finite loss and gradients in epoch 1, got none in 10"):
        Setting().fit(1, loss=spoilt(set(range(1, 11))), on_nonfinite="skip", progress=True)


def test_skip_sees_gradients_of_a_finite_loss() -> None:
    weight = nn.Parameter(treadle.zeros(3))
    model = nn.Module()
    model.weight = weight
    model.forward = lambda x: x * weight  # type: ignore[method-assign]
    sgd = optim.SGD(model.parameters(), lr=0.1)
    batches = [(treadle.ones(2, 3), treadle.ones(2)), (treadle.zeros(2, 3), treadle.zeros(2))]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        # The root's slope at 0 is infinite, 0 times that is NaN.
        return outputs.sum() if float(targets.sum()) else outputs.sqrt().sum()

    with pytest.warns(RuntimeWarning, match="skipped 1 of 2 batches"):
        fit(model, batches, loss=loss, optimizer=sgd, epochs=1, progress=False, on_nonfinite="skip", metrics={})
    assert weight.tolist() == pytest.approx([-0.2] * 3)


def test_stop_ends_the_run_with_the_last_good_weights(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    setting = Setting()
    with pytest.warns(RuntimeWarning, match="fit: stopped before a loss or gradient that is not finite in epoch 2, batch 5"):
        history = setting.fit(4, checkpoint=path, loss=spoilt({15}), on_nonfinite="stop")
    assert len(history) == 1
    assert all(np.isfinite(t.numpy()).all() for t in setting.model.state_dict().values())


def test_a_callback_sees_every_epoch_and_may_end_the_run() -> None:
    seen: list[int] = []

    def look(history: History, model: nn.Module) -> bool:
        assert isinstance(model, nn.Module)
        seen.append(len(history))
        return len(history) == 3

    assert len(Setting().fit(4, callbacks=[look])) == 3
    assert seen == [1, 2, 3]


def test_only_true_from_a_callback_ends_the_run() -> None:
    answers = [None, 1.0, "yes", np.ones(3), np.ones(()), Tensor([1.0, 2.0]), Tensor([True]), np.array(False), Tensor(1.0)]
    assert len(Setting().fit(9, scheduler=None, callbacks=[lambda history, _: answers[len(history) - 1], lambda *_: False])) == 9
    for true in (True, np.True_, np.array(True), Tensor(True)):
        assert len(Setting().fit(9, scheduler=None, callbacks=[lambda *_, true=true: true, lambda *_: False])) == 1
