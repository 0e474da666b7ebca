"""The command `treadle`: what it leaves, what it says, and how it fails."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from tests.python.command import FILES, QUICK, column
from treadle.cli import train
from treadle.cli.main import main


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder in the format of MNIST: bright left or bright right halves."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "idx"
    folder.mkdir()
    for part, n in (("train", 200), ("t10k", 50)):
        labels = rng.integers(0, 2, n)
        pixels = rng.integers(0, 80, (n, 4, 6))
        pixels[labels == 0, :, :3] += 150
        pixels[labels == 1, :, 3:] += 150
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(pixels)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return folder


# what it leaves ---------------------------------------------------------------


def test_train_and_predict_digits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["train", *QUICK, "--epochs", "8", "--out", str(run)]) == 0
    said = capsys.readouterr()
    assert {path.name for path in run.iterdir()} == FILES
    assert said.err.count("epoch ") == 8
    assert "test accuracy 9" in said.out
    assert "8 epochs in " in said.out
    accuracy = float(column(run / "history.csv", "valid_accuracy")[-1])
    assert accuracy > 0.9
    for picture in ("curves.png", "confusion.png"):
        assert (run / picture).read_bytes().startswith(b"\x89PNG")

    assert main(["predict", "--model", str(run), "--data", "digits"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"accuracy {accuracy:.2%} ({round(accuracy * 359)} of 359)"
    right = np.equal(column(run / "predictions.csv", "prediction"), column(run / "predictions.csv", "answer"))
    assert right.mean() == pytest.approx(accuracy)
    assert main(["predict", "--model", str(run), "--data", "digits", "--part", "all", "--out", "-", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "row,prediction,probability,answer"
    assert len(lines) == 1798


@pytest.mark.usefixtures("no_pictures")
def test_the_description_names_no_machine(tmp_path: Path) -> None:
    assert main(["train", *QUICK, "--quiet", "--threads", "1", "--out", str(tmp_path / "run")]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["options"]["data"] == "digits"
    assert config["options"]["lr"] > 0
    assert config["data"]["classes"] == list("0123456789")
    assert config["model"] == {"dim": 64, "hidden_dim": 16, "num_blocks": 1, "num_classes": 10, "drop_prob": 0.1}
    assert str(tmp_path) not in (tmp_path / "run" / "config.json").read_text()


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("schedule", ["none", "cosine", "step", "onecycle"])
def test_every_optimizer_with_every_schedule(tmp_path: Path, optimizer: str, schedule: str) -> None:
    out = tmp_path / "run"
    assert main(["train", *QUICK, "--quiet", "--optimizer", optimizer, "--schedule", schedule, "--out", str(out)]) == 0
    losses = [float(loss) for loss in column(out / "history.csv", "train_loss")]
    assert losses[-1] < losses[0]
    rates = [float(rate) for rate in column(out / "history.csv", "lr")]
    assert (len(set(rates)) == 1) == (schedule == "none")


def test_a_weight_decay_of_its_own(tmp_path: Path) -> None:
    assert main(["train", *QUICK, "--quiet", "--weight-decay", "0.25", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "config.json").read_text())["options"]["weight_decay"] == 0.25


def test_a_table_with_classes(tmp_path: Path, flowers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    options = ["--data", str(flowers), "--target", "kind", "--batch-size", "16", "--epochs", "15", "--out", str(run)]
    assert main(["train", *options, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    config = json.loads((run / "config.json").read_text())
    assert config["data"]["classes"] == ["a", "b", "c"]
    assert main(["predict", "--model", str(run), "--data", str(flowers)]) == 0
    assert float(capsys.readouterr().out.split()[1].rstrip("%")) > 90.0
    assert column(run / "predictions.csv", "row") == [str(row) for row in range(120)]

    unlabelled = tmp_path / "new.csv"
    unlabelled.write_text("width,length,colour\n5.0,100.0,blue\n3.0,120.0,blue\n")
    assert main(["predict", "--model", str(run), "--data", str(unlabelled), "--out", str(tmp_path / "new-answers.csv")]) == 0
    assert "accuracy" not in capsys.readouterr().out
    assert column(tmp_path / "new-answers.csv", "prediction") == ["a", "c"]
    assert (tmp_path / "new-answers.csv").read_text().startswith("row,prediction,probability\n")


def test_a_table_with_a_number_to_predict(tmp_path: Path, flowers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    options = ["--data", str(flowers), "--target", "length", "--batch-size", "16", "--epochs", "20", "--out", str(run)]
    assert main(["train", *options]) == 0
    assert "test R² 0.9" in capsys.readouterr().out
    assert not (run / "confusion.png").exists()
    assert main(["predict", "--model", str(run), "--data", str(flowers), "--part", "test"]) == 0
    assert "R² 0.9" in capsys.readouterr().out
    answers = np.array(column(run / "predictions.csv", "answer"), float)
    predictions = np.array(column(run / "predictions.csv", "prediction"), float)
    assert np.abs(answers - predictions).mean() < 4.0
    assert 95.0 < answers.min() < answers.max() < 125.0


def test_odd_class_names_make_no_noise_and_no_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["日本", "$\\frac$", "x" * 300]
    table, run = tmp_path / "odd.csv", tmp_path / "run"
    table.write_text("a,y\n" + "".join(f"{i},{names[i % 3]}\n" for i in range(60)))
    assert main(["train", *QUICK, "--data", str(table), "--target", "y", "--quiet", "--batch-size", "16", "--out", str(run)]) == 0
    assert capsys.readouterr() == ("", "")
    assert (run / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_a_target_that_varies_in_no_part_makes_no_noise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, run = tmp_path / "constant.csv", tmp_path / "run"
    table.write_text("a,y\n1,.5\n2,.5\n3,.5\n4,.5\n5,.7\n")
    assert main(["train", *QUICK, "--data", str(table), "--target", "y", "--quiet", "--seed", "4", "--out", str(run)]) == 0
    assert capsys.readouterr() == ("", "")
    assert set(column(run / "history.csv", "train_r2") + column(run / "history.csv", "valid_r2")) == {"nan"}


@pytest.mark.usefixtures("no_pictures")
def test_large_numbers_that_differ_by_little_are_told_apart(tmp_path: Path) -> None:
    rng, lines = np.random.default_rng(0), ["time,zero,later"]
    for second in rng.integers(0, 100, 200):
        lines.append(f"{1_700_000_000 + second},0.1,{1_700_000_100.25 + second}")
    table, run = tmp_path / "times.csv", tmp_path / "run"
    table.write_text("\n".join(lines) + "\n")
    assert main(["train", "--data", str(table), "--target", "later", "--quiet", "--out", str(run)]) == 0
    assert float(column(run / "history.csv", "valid_r2")[-1]) > 0.9
    assert main(["predict", "--model", str(run), "--data", str(table), "--quiet"]) == 0
    assert column(run / "predictions.csv", "answer") == [line.split(",")[2] for line in lines[1:]]
    predictions = np.array(column(run / "predictions.csv", "prediction"), float)
    assert len(np.unique(predictions)) == len({line.split(",")[0] for line in lines[1:]})
    assert json.loads((run / "config.json").read_text())["data"]["std"][1] == 1.0


def test_a_folder_of_idx_files(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    options = ["--epochs", "8", "--batch-size", "16", "--blocks", "1", "--data", str(images)]
    assert main(["train", *options, "--out", str(run)]) == 0
    assert "test accuracy 100.00% (50 of 50)" in capsys.readouterr().out
    assert main(["predict", "--model", str(run), "--data", str(images), "--part", "all"]) == 0
    assert "accuracy 100.00% (250 of 250)" in capsys.readouterr().out
    known = column(run / "predictions.csv", "prediction")
    (images / "t10k-labels-idx1-ubyte").unlink()
    for part, rows in (("test", known[200:]), ("all", known)):
        assert main(["predict", "--model", str(run), "--data", str(images), "--part", part]) == 0
        assert capsys.readouterr().out == f"{len(rows)} predictions in {run / 'predictions.csv'}\n"
        assert column(run / "predictions.csv", "prediction") == rows


@pytest.mark.usefixtures("no_pictures")
def test_stdout_may_be_of_ascii_or_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,y,k\n" + "".join(f"{i},{i}.5,{'né'[i % 2]}\n" for i in range(60)), encoding="utf-8")

    def said(*arguments: str) -> bytes:
        with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as out, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            assert main([*arguments, "--data", str(table)]) == 0
            assert out.errors == "strict"
            out.flush()
            return out.buffer.getvalue()

    for target, report in (("y", b"R? "), ("k", b"accuracy ")):
        run = str(tmp_path / target)
        assert said("train", *QUICK, "--batch-size", "16", "--target", target, "--out", run).startswith(b"test " + report)
        assert said("predict", "--model", run).startswith(report)
    assert "é," in said("predict", "--model", run, "--out", "-").decode("utf-8")

    monkeypatch.setattr(sys, "stdout", None)
    capsys.readouterr()
    assert main(["predict", "--model", run, "--data", str(table)]) == 0
    assert main(["predict", "--model", run, "--data", str(table), "--out", "-"]) == 2
    assert capsys.readouterr().err == "treadle: error: --out -: expected a stdout to write to, got a closed one\n"


# how it fails -----------------------------------------------------------------


def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def test_without_matplotlib_it_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without_pictures(monkeypatch)
    assert main(["train", *QUICK, "--quiet", "--out", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().err == "treadle: no pictures (plot: expected matplotlib, got none; pip install treadle[plot])\n"
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES - {"curves.png", "confusion.png"}


def test_a_new_run_takes_away_what_an_old_one_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    assert main(["train", *QUICK, "--quiet", "--out", str(run)]) == 0
    (run / "notes.txt").write_text("mine")
    without_pictures(monkeypatch)
    assert main(["train", *QUICK, "--quiet", "--out", str(run)]) == 0
    assert {path.name for path in run.iterdir()} == FILES - {"curves.png", "confusion.png"} | {"notes.txt"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: {train,predict,info}"),
        (["fly"], "argument {train,predict,info}: invalid choice: 'fly'"),
        (["train", "--fast"], "unrecognized arguments: --fast"),
        (["train", "--epochs", "0"], "argument --epochs: expected a whole number of at least 1, got '0'"),
        (["train", "--epochs", "many"], "argument --epochs: expected a whole number of at least 1, got 'many'"),
        (["train", "--batch-size", "1"], "argument --batch-size: expected a whole number of at least 2, got '1'"),
        (["train", "--lr", "nan"], "argument --lr: expected a number above 0, got 'nan'"),
        (["train", "--lr", "-1"], "argument --lr: expected a number above 0, got '-1'"),
        (["train", "--dropout", "1"], "argument --dropout: expected a number of at least 0 and below 1, got '1'"),
        (["train", "--optimizer", "adagrad"], "argument --optimizer: invalid choice: 'adagrad'"),
        (["train", "--threads", "100000"], "set_num_threads: expected a number in [1, 1024], got 100000"),
        (
            ["train", "--threads", "99999999999999999999"],
            "argument --threads: expected a whole number of at most 9223372036854775807",
        ),
        (["train", "--hidden", "100000000000"], "expected no more elements than memory can address, got ("),
        (["train", "--data", "nowhere"], "nowhere: expected 'digits', a folder of IDX files or a CSV file, got nothing there"),
        (["train", "--data", "empty"], "expected train-images-idx3-ubyte or train-images-idx3-ubyte.gz in empty"),
        (["train", "--data", "flowers.csv"], "flowers.csv: expected the column to predict as --target, got none"),
        (["train", "--data", "flowers.csv", "--target", "size"], "expected a column 'size' in flowers.csv"),
        (["train", "--data", "holes.csv", "--target", "y"], "expected no missing values, got 1, the first in line 3, column 'x'"),
        (["train", "--data", "short.csv", "--target", "y"], "short.csv: expected at least 2 rows to train on and 1 to test"),
        (["train", "--data", "only.csv", "--target", "y"], "only.csv: expected columns besides 'y', got none"),
        (["train", "--data", "same.csv", "--target", "y"], "expected at least 2 different values in column 'y', got only 'yes'"),
        (["train", "--data", "same.csv", "--target", "z"], "expected at least 2 different values in column 'z', got only 0.5"),
        (["train", "--data", "binary.csv", "--target", "y"], "expected CSV text in UTF-8"),
        (["train", "--out", "flowers.csv"], "flowers.csv: file exists"),
        (["train", "--resume", "--out", "empty"], "empty: expected a folder that `treadle train` made, got no config.json"),
        (["predict", "--data", "digits"], "the following arguments are required: --model"),
        (["predict", "--model", "empty", "--data", "digits"], "expected a folder that `treadle train` made, got no config.json"),
        (["predict", "--model", "run", "--data", "flowers.csv"], "expected digits data as the model was trained on, got csv"),
        (["predict", "--model", "run", "--data", "idx"], "idx: expected images of 64 pixels, got 24"),
        (["predict", "--model", "run", "--data", "digits", "--out", "none/p.csv"], "error: none/p.csv: no such file"),
        (
            ["predict", "--model", "run", "--data", "holes.csv", "--out", "./holes.csv"],
            "holes.csv: expected the data outside of what",
        ),
        (["train", "--data", "digits", "--target", "y"], "digits: expected no --target, as images have labels, got 'y'"),
        (["predict", "--model", "damaged", "--data", "digits"], "expected JSON, got"),
        (["predict", "--model", "other", "--data", "digits"], "expected options, data and model, got another file"),
        (["predict", "--model", "cut", "--data", "digits"], "expected a header within"),
    ],
)
def test_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    flowers: Path,
    images: Path,
    finished: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(flowers.parent)
    for name in ("empty", "damaged", "other", "cut"):
        Path(name).mkdir()
    Path("run").symlink_to(finished)
    Path("damaged/config.json").write_text("{")
    Path("other/config.json").write_text("[]")
    Path("cut/config.json").write_bytes((finished / "config.json").read_bytes())
    Path("cut/model.safetensors").write_bytes((finished / "model.safetensors").read_bytes()[:100])
    Path("holes.csv").write_text("x,y\n1,2\n,3\n")
    Path("short.csv").write_text("x,y\n1,2\n2,3\n")
    Path("only.csv").write_text("y\n" + "1\n2\n" * 10)
    Path("same.csv").write_text("x,y,z\n" + "1,yes,.5\n2,yes,.5\n" * 10)
    Path("binary.csv").write_bytes(b"\xff\xfe\x00")
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("treadle: error: ")
    assert said.err.count("\n") == 1
    assert message in said.err


@pytest.mark.usefixtures("no_pictures")
def test_a_run_that_diverges_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--optimizer", "sgd", "--schedule", "none", "--lr", "1e30", "--blocks", "0", "--quiet"]
    assert main(["train", *QUICK, *options, "--out", str(tmp_path / "run")]) == 1
    assert "treadle: error: fit: expected a finite loss, got" in capsys.readouterr().err


def test_ctrl_c_while_data_is_read_exits_with_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "prepare", interrupted)
    assert main(["train", "--out", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err == "treadle: interrupted\n"


def test_help_version_and_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"treadle {treadle.__version__}\n"
    assert main(["train", "--help"]) == 0
    assert "(default: digits)" in capsys.readouterr().out
    assert main(["info"]) == 0
    facts = capsys.readouterr().out
    for name in ("treadle", "cpu features in use", "threads", "pool live bytes"):
        assert f"\n{name} " in f"\n{facts}"
