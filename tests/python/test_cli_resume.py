"""The command `treadle`: the same bits at any number of threads, and after an interruption."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import treadle
from tests.python.command import CHECKPOINTS, QUICK, column
from treadle.cli import train
from treadle.cli.main import main


@pytest.mark.usefixtures("no_pictures")
def test_the_model_depends_on_the_seed_and_not_on_threads(tmp_path: Path) -> None:
    before = treadle.get_num_threads()
    models = {}
    try:
        for seed, threads in ((0, 1), (0, 3), (1, 1)):
            out = tmp_path / f"{seed}-{threads}"
            assert main(["train", *QUICK, "--quiet", "--seed", str(seed), "--threads", str(threads), "--out", str(out)]) == 0
            models[seed, threads] = (out / "model.safetensors").read_bytes()
    finally:
        treadle.set_num_threads(before)
    assert models[0, 1] == models[0, 3]
    assert models[0, 1] != models[1, 1]


@pytest.mark.usefixtures("no_pictures")
def test_an_interrupted_run_resumes_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(["train", *QUICK, "--quiet", "--out", str(whole)]) == 0

    fit: Callable[..., Any] = train.fit

    def interrupted(model: Any, batches: Any, valid: Any, **options: Any) -> Any:
        steps = iter(range(2 * len(batches) - 3))

        def loss(outputs: Any, targets: Any) -> Any:
            if model.training and next(steps, None) is None:
                raise KeyboardInterrupt
            return options["loss"](outputs, targets)

        return fit(model, batches, valid, **(options | {"loss": loss}))

    monkeypatch.setattr(train, "fit", interrupted)
    assert main(["train", *QUICK, "--quiet", "--out", str(broken)]) == 130
    assert capsys.readouterr().err == f"treadle: interrupted; go on with: treadle train --resume --out {broken}\n"
    assert not (broken / "model.safetensors").exists()
    assert main(["predict", "--model", str(broken), "--data", "digits"]) == 2
    assert "got an unfinished run; finish it with --resume" in capsys.readouterr().err

    monkeypatch.setattr(train, "fit", fit)
    assert main(["train", "--resume", "--quiet", "--threads", "1", "--out", str(broken)]) == 0
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert (broken / "config.json").read_bytes() == (whole / "config.json").read_bytes()


@pytest.mark.usefixtures("no_pictures")
def test_resume_goes_on_for_more_epochs_where_the_schedule_allows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long, short = tmp_path / "long", tmp_path / "short"
    quick = [*QUICK, "--quiet", "--schedule", "none"]
    assert main(["train", *quick, "--epochs", "5", "--out", str(long)]) == 0
    assert main(["train", *quick, "--out", str(short)]) == 0
    assert main(["train", "--resume", "--epochs", "5", "--quiet", "--out", str(short)]) == 0
    assert (short / "model.safetensors").read_bytes() == (long / "model.safetensors").read_bytes()
    assert column(short / "history.csv", "epoch") == list("12345")
    assert main(["train", "--resume", "--lr", "0.5", "--out", str(short)]) == 2
    assert "resume: expected --lr 0.005 as in " in capsys.readouterr().err
    assert main(["train", *QUICK, "--quiet", "--out", str(short)]) == 0
    assert main(["train", "--resume", "--epochs", "9", "--out", str(short)]) == 2
    assert "got 9; the onecycle schedule depends on it" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pictures")
def test_a_run_is_resumed_from_anywhere(
    tmp_path: Path, flowers: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    moved.mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["train", *QUICK, "--quiet", "--data", flowers.name, "--target", "kind", "--out", "run"]) == 0
    before = (run / "model.safetensors").read_bytes()
    monkeypatch.chdir(moved)
    for more in ([], ["--data", str(flowers)], ["--data", "../flowers.csv"]):
        assert main(["train", "--resume", "--quiet", *more, "--out", str(run)]) == 0
    flowers.rename(moved / "renamed.csv")
    assert main(["train", "--resume", "--quiet", "--data", "renamed.csv", "--out", str(run)]) == 0
    assert main(["train", "--resume", "--quiet", "--out", str(run)]) == 0
    assert (run / "model.safetensors").read_bytes() == before
    capsys.readouterr()
    assert main(["train", "--resume", "--data", "digits", "--out", str(run)]) == 2
    assert "resume: expected the data this run began with, got digits, which is not" in capsys.readouterr().err


def test_ctrl_c_in_a_process_of_its_own(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-m", "treadle", "train", "--epochs", "100000", "--quiet", "--out", str(run)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}) as process:
        deadline = time.monotonic() + 30.0
        while not (run / "checkpoint.1.safetensors").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.decode().splitlines()[-1].startswith("treadle: interrupted; go on with: treadle train --resume")
    assert {path.name for path in run.iterdir()} == CHECKPOINTS | {"config.json"}


def test_resume_passes_over_a_damaged_checkpoint_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert main(["train", *QUICK, "--quiet", "--out", str(whole)]) == 0
    assert main(["train", *QUICK, "--quiet", "--out", str(run)]) == 0
    newest = run / "checkpoint.safetensors"
    newest.write_bytes(newest.read_bytes()[:-10])
    (run / "model.safetensors").unlink()
    capsys.readouterr()
    assert main(["train", "--resume", "--quiet", "--out", str(run)]) == 0
    said = capsys.readouterr().err
    assert said.startswith("treadle: fit: resumed from ")
    assert "checkpoint.1.safetensors, an older checkpoint: load: expected" in said
    assert (run / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
