"""The command line: arguments, errors and exit codes.

Invariant: what a user got wrong is one line on stderr and exit code 2; a traceback is always a bug of ours.
"""

from __future__ import annotations

import argparse
import importlib
import io
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from treadle._core import __version__
from treadle.cli.options import DEFAULTS, LEAST, OPTIMIZERS, SCHEDULES

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage."""
        self.exit(2, f"treadle: error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: The arguments after the command's name; None: those of the process.

    Returns:
        The exit code: 0, 1 when training diverged, 2 for bad arguments or data, 130 after Ctrl-C.

    Example:
        >>> main(["train", "--data", "digits", "--out", "run"])
        0
    """
    try:
        options = _parser().parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        command: Callable[[argparse.Namespace], int] = importlib.import_module(f"treadle.cli.{options.command}").run
        with _printable(), warnings.catch_warnings():
            warnings.simplefilter("always", RuntimeWarning)
            warnings.showwarning = _say
            return command(options)
    except BrokenPipeError:  # the reader of our output has gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("treadle: interrupted", file=sys.stderr)
        return 130
    except (OSError, ValueError, FloatingPointError, MemoryError) as error:
        print(f"treadle: error: {_one_line(error)}", file=sys.stderr)
        return 1 if isinstance(error, FloatingPointError) else 2


@contextmanager
def _printable() -> Iterator[None]:
    """A character that stdout cannot encode is a question mark, rather than an error after all the work."""
    out = sys.stdout
    if not isinstance(out, io.TextIOWrapper):  # closed, or a stream of the calling program's
        yield
        return
    errors = out.errors
    out.reconfigure(errors="replace")
    try:
        yield
    finally:
        out.reconfigure(errors=errors)


def _say(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as one line."""
    print(f"treadle: {' '.join(str(message).split())}", file=sys.stderr)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror.lower()}"
    return " ".join(str(error).split())


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="treadle", description="Deep learning for models that fit on a CPU.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"treadle {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="{train,predict,info}")
    _add_train(commands.add_parser("train", help="train a residual MLP", allow_abbrev=False))
    _add_predict(commands.add_parser("predict", help="use a trained model", allow_abbrev=False))
    commands.add_parser("info", help="show version, CPU features, threads and memory", allow_abbrev=False)
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    """Options without defaults: `train` must know which were typed, to let `--resume` take the others from the run."""
    parser.argument_default = argparse.SUPPRESS
    parser.description = "Trains a residual MLP with batch normalization and leaves model, history and pictures in a folder."

    def add(name: str, kind: Callable[[str], object], text: str) -> None:
        default = DEFAULTS[name.removeprefix("--").replace("-", "_")]
        parser.add_argument(name, type=kind, help=text if default is None else f"{text} (default: {default})")

    add("--data", _path, "'digits', a folder of MNIST-format IDX files, or a CSV file")
    add("--target", str, "the column of the CSV to predict")
    add("--epochs", _whole(LEAST["epochs"]), "how often to go through the data")
    add("--batch-size", _whole(LEAST["batch_size"]), "rows per step")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, help=f"(default: {DEFAULTS['optimizer']})")
    add("--lr", _real(0.0, exclusive=True), "the learning rate, with a schedule its peak (default: by optimizer)")
    parser.add_argument("--schedule", choices=SCHEDULES, help=f"(default: {DEFAULTS['schedule']})")
    add("--weight-decay", _real(0.0), "weight decay (default: 0.01 for adamw, otherwise 0)")
    add("--hidden", _whole(LEAST["hidden"]), "width of the network")
    add("--blocks", _whole(LEAST["blocks"]), "number of residual blocks")
    add("--dropout", _real(0.0, 1.0), "dropout probability")
    add("--seed", _whole(LEAST["seed"], 2**64 - 1), "seed of weights, dropout, shuffling and the held-out fifth")
    add("--threads", _whole(1), "threads to use; the result does not depend on it (default: all)")
    add("--out", _path, "folder for the results; an earlier run in it stays until this one's first epoch has ended")
    parser.add_argument("--resume", action="store_true", help="continue the run in the folder --out, on the same data")
    parser.add_argument("--quiet", action="store_true", help="no progress and no report")


def _add_predict(parser: argparse.ArgumentParser) -> None:
    parser.description = "Applies a trained model; prints how good it is where the answers are known."
    parser.add_argument("--model", type=_path, required=True, help="folder of a finished run")
    parser.add_argument(
        "--data", type=_path, required=True, help="'digits', a folder of IDX files, or a CSV file; answers may be missing"
    )
    parser.add_argument(
        "--part",
        choices=("test", "train", "all"),
        help="which rows; 'test' of digits and CSV: the fifth the run held out (default: test for digits and IDX, all for CSV)",
    )
    parser.add_argument("--out", type=_path, help="where to write, '-' for stdout (default: predictions.csv in the model's folder)")
    parser.add_argument("--threads", type=_whole(1), help="threads to use (default: all)")
    parser.add_argument("--quiet", action="store_true", help="no report")


def _path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got ''")
    return text


def _whole(least: int, most: int = 2**63 - 1) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            bound = f"at most {most}" if value > most else f"at least {least}"
            raise argparse.ArgumentTypeError(f"expected a whole number of {bound}, got {text!r}")
        return value

    return parse


def _real(least: float, below: float = math.inf, exclusive: bool = False) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (least < value < below or (value == least and not exclusive)):
            bounds = f"{'above' if exclusive else 'of at least'} {least:g}" + (f" and below {below:g}" if below < math.inf else "")
            raise argparse.ArgumentTypeError(f"expected a number {bounds}, got {text!r}")
        return value

    return parse
