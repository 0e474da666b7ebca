"""Exact resumption of what lies beside the model and its batches: losses, validation, metrics and callbacks."""

from __future__ import annotations

import collections
import copy
import functools
import io
import os
import re
import shutil
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from resume_cases import ENTROPY, KINDS, Case, Sums
from test_training import rows

import treadle
from treadle import Generator, nn, optim
from treadle.data import DataLoader
from treadle.serialization import SerializationError, load_metadata
from treadle.training import Accuracy, fit, load_checkpoint
from treadle.training.checkpoint import run_of, write_checkpoint
from treadle.training.kept import Kept
from treadle.training.saved import Checkpoints


@pytest.mark.parametrize("kind", KINDS)
def test_every_checkpoint_leads_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    copies: list[Path] = []
    write = Checkpoints.write

    def copied(self: Checkpoints, state: Any) -> None:
        write(self, state)
        copies.append(tmp_path / f"{len(copies)}.copy")
        shutil.copy(self.path, copies[-1])

    path = tmp_path / "run.safetensors"
    monkeypatch.setattr(Checkpoints, "write", copied)
    whole = Case(kind).fit(checkpoint=path, checkpoint_every=1)
    monkeypatch.undo()
    epochs = len(whole[1])
    assert (len(copies), epochs) == (1 + 4 * epochs, 2 if kind == "stopping_callback" else 3)
    for copied_file in copies:
        shutil.copy(copied_file, path)
        case = Case(kind)
        treadle.manual_seed(9)
        assert case.fit(checkpoint=path, resume=True) == whole, copied_file


class Pressed:
    """Batches, and Ctrl-C after the first of them."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        for place, batch in enumerate(self.loader):
            if place == 1:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch


class Unkept(Accuracy):
    """A measure whose state no checkpoint can hold."""

    def reset(self) -> None:
        super().reset()
        self.places = {1, 2}


@pytest.mark.parametrize("kind", [*KINDS, "unkept"])
def test_ctrl_c_in_validation_saves_what_was_before_it(tmp_path: Path, kind: str) -> None:
    def case(press: bool) -> Any:
        made = Case(kind.replace("unkept", "plain"))
        made.options |= {"metrics": {"accuracy": Unkept()}} if kind == "unkept" else {}
        made.valid = Pressed(made.valid) if press else made.valid  # type: ignore[assignment]
        return made

    whole = case(False).fit()
    path = tmp_path / "run.safetensors"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(KeyboardInterrupt):
            case(True).fit(checkpoint=path)
        again = case(False)
        if kind == "validation":  # a wrapper's generators have longer names
            state, run = load_checkpoint(path), run_of(path)
            for states in (state["generators"], state["within"]["begun"]):
                states |= {name.replace("valid.loader.", "valid."): states.pop(name) for name in list(states)}
            write_checkpoint(path, state, run or "")
        assert again.fit(checkpoint=path, resume=True) == whole
    assert load_checkpoint(path)["epoch"] == len(whole[1])
    lost = r"fit: no checkpoint is written inside an epoch: expected .*, got a set as metrics\['accuracy'\].places; give it state_dict and"
    assert len(said) == (2 if kind == "unkept" else 0), said
    assert all(re.match(lost, str(warning.message)) for warning in said)


class Held:
    """A measure whose update does as it is told."""

    def __init__(self, value: Any, change: Any) -> None:
        self.value, self.update = value, lambda: change(self)
        self.made: list[int] = []

    def reset(self) -> None:
        """Leaves all as it is."""


@pytest.mark.parametrize(
    ("value", "change", "got"),
    [
        (collections.deque(), lambda held: None, r"a deque as metrics\['held'\].value"),
        (collections.Counter(), lambda held: None, r"a Counter as metrics\['held'\].value"),
        (np.random.default_rng(0), lambda held: None, r"a Generator as metrics\['held'\].value"),
        (np.zeros(2, [("n", "i8")]), lambda held: None, r"an array of \[\('n', '<i8'\)\] as metrics\['held'\].value"),
        (0, lambda held: setattr(held, "value", [Sums()]), r"a Sums as metrics\['held'\].value\[0\]"),
        (io.StringIO(), lambda held: None, "a StringIO as"),
        (io.BytesIO(), lambda held: None, "a BytesIO as"),
        (memoryview(bytearray(3)), lambda held: None, "a memoryview as"),
        (Generator(1), lambda held: None, "a Generator as"),
        (len, lambda held: setattr(held, "value", lambda: 0), "a function as"),
        (0, lambda held: setattr(held, "value", functools.reduce(lambda inner, _: [inner], range(9999), [])), "too many to follow"),
        (0, lambda held: setattr(held, "value", [held.made, held.made]), r"a list that is in two, .* as .*value\[1\]"),
        (np.zeros(3), lambda held: setattr(held, "last", held.value[2:]), "a ndarray that is in two, or a view of another"),
    ],
)
def test_what_a_checkpoint_would_change_is_not_kept(value: Any, change: Any, got: str) -> None:
    held = Held(value, change)
    kept = Kept(set)

    def copied_after_an_update() -> None:
        kept.copy({"held": held})  # type: ignore[dict-item]
        held.update()
        kept.copy({"held": held})  # type: ignore[dict-item]

    with pytest.raises(TypeError, match=got):
        copied_after_an_update()


@pytest.mark.parametrize("how", ["raise", "warn"])
def test_a_disk_that_became_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    path = tmp_path / "run.safetensors"

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system", ".run.safetensors.new")

    def remount(history: Any, _: object) -> None:
        monkeypatch.setattr("treadle.training.saved.write_checkpoint", refuse)
        monkeypatch.setattr(Path, "unlink", refuse)

    case = Case("plain")
    if how == "raise":
        with pytest.raises(OSError, match="Read-only file system") as caught:
            case.fit(checkpoint=path, callbacks=[remount])
        assert caught.value.filename == str(path)
    else:
        with pytest.warns(RuntimeWarning, match=f"could not be written, the one before it stays: .*{path}"):
            assert len(case.fit(checkpoint=path, callbacks=[remount], on_checkpoint_error="warn")[1]) == 3
    monkeypatch.undo()
    assert load_checkpoint(path)["epoch"] == 0


def trained(path: Path, epochs: int, **options: Any) -> None:
    fit_one = nn.Linear(6, 2)
    fit(
        fit_one,
        DataLoader(rows(8), 4),
        loss=nn.CrossEntropyLoss(),
        optimizer=optim.SGD(fit_one.parameters(), lr=0.1),
        epochs=epochs,
        progress=False,
        checkpoint=path,
        **options,
    )


def test_checkpoints_of_other_runs_stay(tmp_path: Path) -> None:
    others = [tmp_path / f"run.{number}.safetensors" for number in (1, 2, 3)]
    for other in others:
        trained(other, 1, keep_last=1)
    before = [other.read_bytes() for other in others]
    trained(tmp_path / "run.safetensors", 3, keep_last=1)
    for resume in (False, True):
        with pytest.raises(ValueError, match=r"expected .*run\.1\.safetensors to be free for an older checkpoint"):
            trained(tmp_path / "run.safetensors", 4, resume=resume)
    (tmp_path / "run.safetensors").write_bytes((tmp_path / "run.safetensors").read_bytes()[:-1])
    with pytest.raises(SerializationError, match=r"got another in .*run\.3\.safetensors"):
        trained(tmp_path / "run.safetensors", 4, resume=True)
    assert [other.read_bytes() for other in others] == before
    assert load_checkpoint(others[0])["epoch"] == 1


def test_a_run_that_was_killed_as_files_were_renamed_gives_way_to_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, replace = tmp_path / "run.safetensors", os.replace

    def die(old: Any, new: Any) -> None:
        if Path(new) == path and (tmp_path / "run.1.safetensors").exists():
            raise KeyboardInterrupt
        replace(old, new)

    monkeypatch.setattr("os.replace", die)
    with pytest.raises(KeyboardInterrupt):
        trained(path, 2)
    monkeypatch.undo()
    assert not path.exists()
    trained(path, 1)
    assert [load_checkpoint(file)["epoch"] for file in Checkpoints(path).files()] == [1, 0]


class KeepBest:
    """A callback that copies the model."""

    best: Any = None

    def __call__(self, history: Any, model: Any) -> None:
        self.best = copy.deepcopy(model)


def test_what_a_callback_made_since_does_not_hinder_a_resume(tmp_path: Path) -> None:
    path, keep = tmp_path / "run.safetensors", KeepBest()
    trained(path, 2, callbacks=[keep])
    with pytest.warns(
        RuntimeWarning, match=r"fit: expected modules as in the checkpoint, got callbacks\.0\.best as well, which stay"
    ):
        trained(path, 3, callbacks=[keep], resume=True)
    trained(path, 4, callbacks=[KeepBest()], resume=True)  # as in a new process
    assert load_checkpoint(path)["epoch"] == 4
    loss = nn.BatchNorm1d(2)
    trained(path, 1, callbacks=[lambda history, model: loss and None])
    with pytest.raises(
        ValueError, match=r"expected modules \['callbacks\.0\.loss', 'model'\] as in the checkpoint, got \['model'\]"
    ):
        trained(path, 2, resume=True)


class Weighted(Accuracy):
    """A measure that holds the data, and the model."""

    def __init__(self, *held: Any) -> None:
        super().__init__()
        self.held = held


def test_what_the_run_has_anyway_is_not_in_the_state_of_its_metrics(tmp_path: Path) -> None:
    model, data = nn.Linear(6, 2), rows(5000)
    train, sizes = DataLoader(data, 2500), list[int]()
    loss = lambda outputs, targets: sizes.append(path.stat().st_size) or ENTROPY(outputs, targets)  # noqa: E731
    path, options = tmp_path / "run.safetensors", {"loss": loss, "epochs": 1, "progress": False}
    options |= {"metrics": {"accuracy": Weighted(data, train, model)}, "checkpoint": path, "checkpoint_every": 1}
    fit(model, train, optimizer=optim.SGD(model.parameters()), **options)
    assert 0 < max(sizes) < 5000


def test_a_checkpoint_holds_its_history_in_tensors(tmp_path: Path) -> None:
    path, sizes = tmp_path / "run.safetensors", []
    for epochs in (1, 9):
        trained(path, epochs)
        sizes.append(len(load_metadata(path)["state"]))
    assert sizes[1] < sizes[0] + 100
