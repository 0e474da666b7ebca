"""Nothing is lost: checkpoints, resumption inside an epoch, kills, a full disk."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest
from test_training import Setting, rows, without_seconds

import treadle
from tests.crash.kills import kill_and_resume
from treadle import Tensor, nn, optim
from treadle.data import Compose, DataLoader, RandomCrop, RandomHorizontalFlip, TensorDataset
from treadle.serialization import SerializationError
from treadle.training import fit, load_checkpoint, save_checkpoint
from treadle.training.checkpoint import run_of
from treadle.training.saved import Checkpoints

STEPS = 10  # of an epoch of Setting


class Stop(Exception):
    """Ends a run as a crash would."""


def crash_after(steps: int) -> Any:
    """A loss that raises after so many training steps."""
    loss, done = nn.CrossEntropyLoss(), 0

    def crash(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal done
        done += outputs.requires_grad
        if done > steps:
            raise Stop
        return loss(outputs, targets)

    return crash


@pytest.mark.parametrize("steps", [1, 7, 9, 10, 11, 23, 39])
def test_a_run_resumed_inside_an_epoch_continues_bit_for_bit(tmp_path: Path, steps: int) -> None:
    whole = Setting()
    history = whole.fit(4)
    path = tmp_path / "run.safetensors"
    with pytest.raises(Stop):
        Setting().fit(4, checkpoint=path, checkpoint_every=1, loss=crash_after(steps))
    state = load_checkpoint(path)
    assert (state["epoch"], state["within"]["batch"]) in (divmod(steps, STEPS), (steps // STEPS - 1, STEPS))
    treadle.rand(7)
    second = Setting()
    resumed = second.fit(4, checkpoint=path, resume=True)
    assert without_seconds(resumed) == without_seconds(history)
    assert second.bits() == whole.bits()


def test_generators_of_dropout_and_of_the_default_loader_are_resumed(tmp_path: Path) -> None:
    def run(**options: Any) -> bytes:
        treadle.manual_seed(4)
        drop = nn.Dropout(0.4, generator=treadle.Generator(8))
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), drop, nn.Linear(8, 2))
        adam = optim.Adam(model.parameters(), lr=0.01)
        options = {"loss": nn.CrossEntropyLoss(), "progress": False} | options
        fit(model, DataLoader(rows(), 16, shuffle=True), optimizer=adam, epochs=3, **options)
        return b"".join(t.numpy().tobytes() for t in model.state_dict().values())

    path = tmp_path / "run.safetensors"
    whole = run()
    with pytest.raises(Stop):
        run(checkpoint=path, checkpoint_every=3, loss=crash_after(17))
    assert run(checkpoint=path, resume=True) == whole


AUGMENT = Compose([RandomCrop(2, generator=treadle.Generator(5)), RandomHorizontalFlip(generator=treadle.Generator(6))])


def transforms(kind: str) -> Any:
    """A transform that holds its generators in another way."""
    augment = Compose([RandomCrop(2, generator=treadle.Generator(5)), RandomHorizontalFlip(generator=treadle.Generator(6))])
    for part, seed in zip(AUGMENT.transforms, (5, 6), strict=True):
        part.generator = treadle.Generator(seed)  # type: ignore[attr-defined]

    def nested(x: Tensor, y: Tensor) -> Any:
        def inner(images: Tensor) -> Any:
            return AUGMENT(images)

        return inner(x), y

    def of_parts(parts: Any, x: Tensor, y: Tensor) -> Any:
        return parts[0](x), y

    return {
        "closure": lambda x, y: (augment(x), y),
        "global": nested,
        "partial": partial(of_parts, [augment]),
        "default": lambda x, y, by=augment: (by(x), y),
        "wrapped": wraps(nested)(lambda *batch: nested(*batch)),
    }[kind]


@pytest.mark.parametrize("kind", ["closure", "global", "partial", "default", "wrapped"])
def test_generators_of_transforms_are_resumed(tmp_path: Path, kind: str) -> None:
    def run(epochs: int, **options: Any) -> bytes:
        treadle.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
        images = TensorDataset(treadle.rand(32, 6, 6), treadle.arange(32) % 2)
        loader = DataLoader(images, 8, shuffle=True, transform=transforms(kind))
        sgd = optim.SGD(model.parameters(), lr=0.1)
        fit(model, loader, loss=nn.CrossEntropyLoss(), optimizer=sgd, epochs=epochs, progress=False, **options)
        return b"".join(t.numpy().tobytes() for t in model.state_dict().values())

    path = tmp_path / "run.safetensors"
    whole = run(2)
    run(1, checkpoint=path)
    assert run(2, checkpoint=path, resume=True) == whole


def test_a_checkpoint_of_another_optimizer_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    Setting().fit(1, checkpoint=path)
    other = Setting()
    other.optimizer = optim.SGD(other.model.parameters(), lr=0.01)
    other.scheduler = optim.OneCycleLR(other.optimizer, max_lr=0.01, total_steps=40)
    before = other.bits()
    with pytest.raises(ValueError, match="fit: expected optimizer Adam as in the checkpoint, got SGD"):
        other.fit(2, checkpoint=path, resume=True)
    assert other.bits() == before


# checkpoints ------------------------------------------------------------------


def test_a_checkpoint_with_any_other_bit_is_refused_or_equal(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    state = {"model": {"w": treadle.arange(6), "b": treadle.ones(3)}, "epoch": 3, "rate": 0.1}
    save_checkpoint(path, state)
    whole = path.read_bytes()
    refused = 0
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            found = load_checkpoint(path)
        except SerializationError:
            refused += 1
            continue
        # Space between the parts of the header may become another blank.
        assert (found["epoch"], found["rate"]) == (3, 0.1)
        assert found["model"]["w"].tolist() == list(range(6))
        assert found["model"]["b"].tolist() == [1.0] * 3
    assert refused >= 8 * (len(whole) - 8)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"w": treadle.arange(6), "epoch": 3})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(SerializationError, match="load"):
            load_checkpoint(path)


def test_the_last_checkpoints_are_kept_and_the_newest_whole_one_is_resumed(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    whole = Setting()
    whole.fit(4, checkpoint=path, keep_last=3)
    names = {file.name for file in tmp_path.iterdir()}
    assert names == {"run.safetensors", "run.1.safetensors", "run.2.safetensors"}
    assert [load_checkpoint(file)["epoch"] for file in Checkpoints(path).files()] == [4, 3, 2]
    path.write_bytes(path.read_bytes()[:100])
    older = tmp_path / "run.1.safetensors"
    flipped = bytearray(older.read_bytes())
    flipped[-5] ^= 4
    older.write_bytes(flipped)
    second = Setting()
    with pytest.warns(
        RuntimeWarning, match=r"resumed from .*run\.2\.safetensors, an older checkpoint: load: .*; .*expected the checksum"
    ):
        second.fit(4, checkpoint=path, resume=True)
    assert second.bits() == whole.bits()


def kept(folder: Path) -> dict[str, int]:
    """The epoch of each file that is a checkpoint."""
    return {file.name: load_checkpoint(file)["epoch"] for file in sorted(folder.iterdir()) if run_of(file)}


def test_a_new_run_takes_the_place_of_an_earlier_one_and_of_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    Setting().fit(4, checkpoint=path, keep_last=4)
    others = [tmp_path / f"run.{name}.safetensors" for name in (4, 7, 2024, "best")]
    for other in others:
        treadle.save(other, {"w": treadle.ones(2)})
    mine = tmp_path / "run.2.safetensors"
    Setting().fit(1, checkpoint=path, callbacks=[lambda history, _: save_checkpoint(mine, {"epochs": len(history)})])
    assert kept(tmp_path) == {"run.1.safetensors": 0, "run.safetensors": 1}
    assert load_checkpoint(mine) == {"epochs": 1}
    assert all(other.exists() for other in others)


@pytest.mark.parametrize(("name", "what"), [("run.safetensors", "a checkpoint"), ("run.1.safetensors", "an older checkpoint")])
def test_a_file_in_the_place_of_a_checkpoint_is_refused(name: str, what: str, tmp_path: Path) -> None:
    treadle.save(tmp_path / name, {"w": treadle.ones(2)})
    with pytest.raises(ValueError, match=f"^fit: expected .*{name} to be free for {what}, got a file that is none; save it"):
        Setting().fit(1, checkpoint=tmp_path / "run.safetensors")
    assert [(file.name, list(treadle.load(file))) for file in tmp_path.iterdir()] == [(name, ["w"])]


def test_a_file_that_comes_into_the_place_of_an_older_checkpoint_stays(tmp_path: Path) -> None:
    path, mine = tmp_path / "run.safetensors", tmp_path / "run.1.safetensors"

    def keep(history: Any, _: Any) -> None:
        if len(history) == 2:
            save_checkpoint(mine, {"mine": True})

    refused = r"expected .*run\.1\.safetensors to be free for an older checkpoint, got a file that is none; save it under another"
    for resume in (False, True):
        with pytest.raises(ValueError, match=refused):
            Setting().fit(4, checkpoint=path, callbacks=[keep], resume=resume)
        assert load_checkpoint(mine) == {"mine": True}
        assert kept(tmp_path) == {"run.safetensors": 1}
    whole, resumed = Setting(), Setting()
    whole.fit(4)
    resumed.fit(4, checkpoint=path, resume=True, keep_last=1)
    assert resumed.bits() == whole.bits()
    path.unlink()
    with pytest.raises(SerializationError, match=r"expected a checkpoint that fit wrote, got another in .*run\.1\.safetensors"):
        Setting().fit(4, checkpoint=path, resume=True, keep_last=1)


def test_a_new_run_that_cannot_save_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.safetensors"
    Setting().fit(2, checkpoint=path)
    before = kept(tmp_path)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        Setting().fit(1, checkpoint=path)
    assert kept(tmp_path) == before
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError) as caught:
        Setting().fit(1, checkpoint=tmp_path / "no" / "run.safetensors")
    assert caught.value.filename == str(tmp_path / "no" / "run.safetensors")


def test_a_damaged_checkpoint_never_takes_the_place_of_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.safetensors"
    Setting().fit(2, checkpoint=path)
    path.write_bytes(path.read_bytes()[:100])
    replace = os.replace

    def die(old: Any, new: Any) -> None:
        if Path(new) == path:
            raise Stop
        replace(old, new)

    monkeypatch.setattr("os.replace", die)
    with pytest.raises(Stop), pytest.warns(RuntimeWarning, match="an older checkpoint"):
        Setting().fit(3, checkpoint=path, resume=True)
    monkeypatch.undo()
    with pytest.warns(RuntimeWarning, match="an older checkpoint"):
        Setting().fit(3, checkpoint=path, resume=True)
    assert kept(tmp_path)["run.safetensors"] == 3


def test_resuming_with_a_smaller_keep_last_takes_away_what_is_beyond(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    Setting(epochs=5).fit(4, checkpoint=path, keep_last=5)
    Setting(epochs=5).fit(5, checkpoint=path, keep_last=2, resume=True)
    assert kept(tmp_path) == {"run.1.safetensors": 4, "run.safetensors": 5}


def test_a_checkpoint_follows_a_link_and_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "run.safetensors").symlink_to(tmp_path / "there" / "real.safetensors")
    Setting().fit(1, checkpoint=tmp_path / "run.safetensors")
    assert (tmp_path / "run.safetensors").is_symlink()
    assert kept(tmp_path / "there") == {"real.1.safetensors": 0, "real.safetensors": 1}
    with pytest.raises(ValueError, match="expected the checkpoint as a file"):
        Setting().fit(1, checkpoint=tmp_path / "there")


def test_no_whole_checkpoint_is_an_error_that_says_why(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    with pytest.raises(FileNotFoundError, match=r"run\.safetensors"):
        Setting().fit(2, checkpoint=path, resume=True)
    path.write_bytes(b"")
    with pytest.raises(SerializationError, match="fit: expected a whole checkpoint, got load: expected a header"):
        Setting().fit(2, checkpoint=path, resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checkpoint_every": 0, "checkpoint": "c"}, "checkpoint_every of at least 1, got 0"),
        ({"checkpoint_every": 5}, "a checkpoint to write every 5 steps, got None"),
        ({"keep_last": 0, "checkpoint": "c"}, "keep_last of at least 1, got 0"),
        ({"on_checkpoint_error": "cry", "checkpoint": "c"}, "on_checkpoint_error 'raise' or 'warn', got 'cry'"),
        ({"on_nonfinite": "cry"}, "on_nonfinite 'raise', 'skip' or 'stop', got 'cry'"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Setting().fit(2, **options)


# kills and interruptions ------------------------------------------------------


def test_twenty_kills_do_not_change_a_bit(tmp_path: Path) -> None:
    result = kill_and_resume(tmp_path, kills=20, seed=random.randrange(1 << 30))
    assert result.kills == 20
    assert result.equal == result.runs > 0


def test_ctrl_c_saves_the_step_it_met(tmp_path: Path) -> None:
    whole = Setting()
    whole.fit(4)
    path, loss, steps = tmp_path / "run.safetensors", nn.CrossEntropyLoss(), 0

    def press(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal steps
        steps += outputs.requires_grad
        if steps == 13:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(outputs, targets)

    with pytest.raises(KeyboardInterrupt):
        Setting().fit(4, checkpoint=path, loss=press)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    state = load_checkpoint(path)
    assert (state["epoch"], state["within"]["batch"]) == (1, 3)
    resumed = Setting()
    resumed.fit(4, checkpoint=path, resume=True)
    assert resumed.bits() == whole.bits()


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    def hang(*_: object) -> Tensor:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(30.0)
        raise AssertionError("nobody listened")

    with pytest.raises(KeyboardInterrupt):
        Setting().fit(4, checkpoint=tmp_path / "run.safetensors", loss=hang)


def test_a_run_in_another_thread_leaves_signals_alone(tmp_path: Path) -> None:
    kept = threading.Thread(target=lambda: Setting().fit(1, checkpoint=tmp_path / "run.safetensors"))
    kept.start()
    kept.join()
    assert (tmp_path / "run.safetensors").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


FULL = """
import resource, signal, sys, warnings
sys.path[:0] = {paths!r}
from test_training import Setting
from treadle.training import load_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def fill(history, model):
    if len(history) == 3:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    try:
        setting = Setting()
        history = setting.fit(4, checkpoint="run.safetensors", on_checkpoint_error=sys.argv[1], callbacks=[fill])
        print("went on to", len(history), [str(w.message) for w in said])
    except OSError as error:
        print("ended by", error.strerror)
print("epoch", load_checkpoint("run.safetensors")["epoch"])
"""


@pytest.mark.parametrize("how", ["raise", "warn"])
def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, how: str) -> None:
    code = FULL.format(paths=[str(Path(__file__).parent), *filter(None, sys.path)])
    done = subprocess.run([sys.executable, "-c", code, how], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert last == "epoch 2"
    if how == "raise":
        assert first == "ended by File too large"
    else:
        assert first.startswith("went on to 4")
        assert first.count("the checkpoint could not be written, the one before it stays") == 2
    assert {file.name for file in tmp_path.iterdir()} == {"run.safetensors", "run.1.safetensors"}
