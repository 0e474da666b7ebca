"""The folder of `treadle train`: what a run may write over, and what it goes on from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.python.command import FILES, QUICK, contents
from treadle.cli import train
from treadle.cli.main import main


def changed(text: str, column: str) -> str:
    """A file of flowers where a column has other values."""
    rows = [line.split(",") for line in text.splitlines()]
    at = rows[0].index(column)
    for row in rows[1:]:
        row[at] = {"a": "b", "b": "a", "c": "a"}.get(
            row[at], row[at] + "0" if row[at].isalpha() else f"{float(row[at]) * 1000:.3f}"
        )
    return "".join(",".join(row) + "\n" for row in rows)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("column", ["length", "kind", "colour"])
def test_resume_refuses_other_data_and_leaves_the_folder_as_it_was(
    tmp_path: Path, flowers: Path, column: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run, text = tmp_path / "run", flowers.read_text()
    assert (
        main(["train", *QUICK, "--quiet", "--schedule", "none", "--data", str(flowers), "--target", "kind", "--out", str(run)]) == 0
    )
    before = contents(run)
    flowers.write_text(changed(text, column))
    for more in ([], ["--epochs", "5"]):
        assert main(["train", "--resume", "--quiet", *more, "--out", str(run)]) == 2
        said = capsys.readouterr().err
        assert said == (
            f"treadle: error: resume: expected the data this run began with, got {flowers}, which is not; "
            "restore it, or train anew\n"
        )
        assert contents(run) == before
    flowers.write_text(text)
    assert main(["train", "--resume", "--quiet", "--out", str(run)]) == 0
    assert contents(run)["model.safetensors"] == before["model.safetensors"]
    assert contents(run)["config.json"] == before["config.json"]

    config = json.loads(before["config.json"])
    del config["data"]["sha256"]
    (run / "config.json").write_text(json.dumps(config))
    assert main(["train", "--resume", "--quiet", "--out", str(run)]) == 2
    assert "resume: expected a run that knows its data by a digest, got " in capsys.readouterr().err
    assert main(["predict", "--model", str(run), "--data", str(flowers), "--quiet"]) == 0


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("names", "data", "out", "message"),
    [
        (
            ["history.csv"],
            "digits",
            ".",
            "expected nothing to write over but an earlier run, got history.csv without a run",
        ),
        (["config.json"], "digits", ".", "got config.json without a run (config.json: expected JSON"),
        (["checkpoint.safetensors", "predictions.csv"], "digits", ".", "got predictions.csv, checkpoint.safetensors without a run"),
        (["history.csv"], "history.csv", ".", "expected the data outside of what is written, got history.csv; choose another"),
        (["run/predictions.csv"], "run/predictions.csv", "run", "got run/predictions.csv; choose another --out"),
        (
            ["run/checkpoint.1.safetensors"],
            "digits",
            "run",
            "expected run/checkpoint.1.safetensors to be free for an older checkpoint",
        ),
        ([], "digits", "", "argument --out: expected a path, got ''"),
    ],
)
def test_train_writes_over_nothing_but_an_earlier_run(
    names: list[str],
    data: str,
    out: str,
    message: str,
    tmp_path: Path,
    flowers: Path,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, "run")
    for name in names:
        Path(name).write_bytes(flowers.read_bytes())
    before = [contents(folder) for folder in (tmp_path, tmp_path / "run")]
    target = ["--target", "kind"] if data.endswith(".csv") else []
    assert main(["train", *QUICK, "--quiet", "--data", data, *target, "--out", out]) == 2
    assert message in capsys.readouterr().err
    assert [contents(folder) for folder in (tmp_path, tmp_path / "run")] == before


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "checkpoint.1.safetensors", "confusion.png", "link.csv"])
def test_predict_writes_over_no_other_file_of_the_run(
    name: str, tmp_path: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "confusion.png").unlink()  # not there, but a name of the run's
    (run / "link.csv").symlink_to(run / "history.csv")
    before = contents(run)
    assert main(["predict", "--model", str(run), "--data", "digits", "--quiet", "--out", str(run / "." / name)]) == 2
    wanted = f"{run / name}: expected a file that is none of the run in {run}; choose another --out"
    assert wanted in capsys.readouterr().err
    assert contents(run) == before
    for free in ("predictions.csv", "mine.csv"):
        assert main(["predict", "--model", str(run), "--data", "digits", "--quiet", "--out", str(run / free)]) == 0


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("stop", "code", "said"),
    [
        (FloatingPointError("nan"), 1, "error: "),
        (KeyboardInterrupt(), 130, "interrupted; the run before is still in run\n"),
        (OSError(28, "No space left on device", "aside"), 2, "error: run: no space left on device\n"),
    ],
)
def test_a_run_that_ends_in_its_first_epoch_leaves_the_earlier_one(
    stop: BaseException,
    code: int,
    said: str,
    tmp_path: Path,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    run, other = Path("run"), Path("other")
    shutil.copytree(finished, run)
    assert main(["predict", "--model", str(run), "--data", "digits", "--quiet"]) == 0
    before, fit = contents(run), train.fit

    def failing(model: Any, *data: Any, **options: Any) -> Any:
        def loss(*_: Any) -> Any:
            raise stop

        return fit(model, *data, **(options | {"loss": loss}))

    monkeypatch.setattr(train, "fit", failing)
    assert main(["train", *QUICK, "--quiet", "--seed", "1", "--out", str(run)]) == code
    assert capsys.readouterr().err.startswith(f"treadle: {said}")
    assert contents(run) == before
    assert not list(run.glob(".treadle-*"))

    (run / ".treadle-run-killed" / "inner").mkdir(parents=True)  # as of a process that was killed in its first epoch
    monkeypatch.setattr(train, "fit", fit)
    for out in (run, other):  # over another run or into a new folder: the same
        assert main(["train", *QUICK, "--seed", "1", "--out", str(out)]) == 0
        lines = capsys.readouterr().err.splitlines()
        assert [line[:9] for line in lines if line.startswith("epoch")] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert {path.name for path in run.iterdir()} == FILES - {"curves.png", "confusion.png"}
    for name in ("model.safetensors", "config.json"):
        assert contents(run)[name] == contents(other)[name]


def change(run: Path, section: str, changes: dict[str, Any] | None) -> None:
    """Edits the config of a run: None takes a section's place, ... takes an entry away."""
    config = json.loads((run / "config.json").read_text())
    entries = config[section] | (changes or {})
    config[section] = {name: value for name, value in entries.items() if value is not ...} if changes else None
    (run / "config.json").write_text(json.dumps(config))


def expect_refused(run: Path, data: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither is a run resumed nor a model used; the error is one line, and the folder is as it was."""
    before = contents(run)
    for command in (["train", "--resume", "--out", str(run)], ["predict", "--model", str(run), "--data", data]):
        assert main([*command, "--quiet"]) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"treadle: error: {run / 'config.json'}: {message}")
        assert said.count("\n") == 1
        assert contents(run) == before


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("data", {"classes": ...}, "expected data.classes, got only kind, dim, scale, offset"),
        ("data", {"scale": "1"}, "expected data.scale as int or float, got '1'"),
        ("options", {"seed": ...}, "expected options.seed"),
        ("options", {"seed": True}, "expected options.seed as int, got True"),
        ("options", {"batch_size": "32"}, "expected options.batch_size as int, got '32'"),
        ("options", {"batch_size": 0}, "expected options.batch_size of at least 2, got 0"),
        (
            "options",
            {"optimizer": "adagrad"},
            "expected options.optimizer as 'sgd' or 'adam' or 'adamw' or 'rmsprop', got 'adagrad'",
        ),
        (
            "options",
            {"schedule": "linear"},
            "expected options.schedule as 'none' or 'cosine' or 'step' or 'onecycle', got 'linear'",
        ),
        ("options", {"schedule": ...}, "expected options.schedule, got only data, "),
        ("options", {"out": "elsewhere"}, "expected options of data, target, "),
        ("data", {"kind": "png"}, "expected data.kind as 'digits' or 'idx' or 'csv', got 'png'"),
        ("data", {"classes": []}, "expected data.classes as 10 strings, got []"),
        ("data", {"classes": list(range(10))}, "expected data.classes as 10 strings, got [0, 1, 2"),
        ("model", None, "expected model as an object, got None"),
        ("model", {"hidden_dim": "100"}, "expected model.hidden_dim as int, got '100'"),
        ("model", {"extra": 1}, "expected model of dim, hidden_dim, num_blocks, num_classes, drop_prob, got"),
    ],
)
def test_a_changed_config_is_one_line(
    section: str, changes: Any, message: str, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    change(run, section, changes)
    expect_refused(run, "digits", message, capsys)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": ["a", 0, 0, 0]}, "expected data.mean as 4 numbers, got ['a', 0, 0, 0]"),
        ({"std": [1.0]}, "expected data.std as 4 numbers, got [1.0]"),
        ({"schema": {"columns": 5}}, "expected data.schema as of a table, got another (read_csv: "),
        (
            {"schema": {"columns": [], "target": "kind", "classes": list("abc")}},
            "expected a schema of 4 features and classes ['a', ",
        ),
        ({"schema": {"columns": [], "target": 5, "classes": None}}, "expected data.schema as of a table, got another (read_csv: "),
    ],
)
def test_a_changed_config_of_a_table_is_one_line(
    changes: Any, message: str, flowers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", *QUICK, "--quiet", "--data", str(flowers), "--target", "kind", "--out", str(run)]) == 0
    change(run, "data", changes)
    expect_refused(run, str(flowers), message, capsys)
