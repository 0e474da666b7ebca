"""The checkpoints of one run: the newest under the name given, older ones beside it.

Invariants: at every moment, also inside a write, there is a whole checkpoint to resume from; an older one is replaced or taken away
only if it says that it is of the run whose newest has the name given, and its number follows on those of the run.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import count
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from treadle.checks import at_least
from treadle.serialization import SerializationError, naming
from treadle.training.checkpoint import load_checkpoint, run_of, write_checkpoint

__all__ = ["Checkpoints"]


class Checkpoints:
    """`run.safetensors`, the one before it in `run.1.safetensors`, and so on: of a new run, unless `newest` loads one to go on.

    Args:
        path: The name of the newest; a link is followed.
        keep_last: How many to keep.
        on_error: Whether a checkpoint that cannot be written ends the run ("raise") or is left out ("warn").

    Raises:
        ValueError: keep_last below 1, another on_error, or a path where there is something that is no file.
    """

    def __init__(self, path: str | PathLike[str], keep_last: int = 2, on_error: Literal["raise", "warn"] = "raise") -> None:
        if on_error not in ("raise", "warn"):
            raise ValueError(f"fit: expected on_checkpoint_error 'raise' or 'warn', got {on_error!r}")
        self.path = Path(os.path.realpath(path) if os.path.islink(path) else path)
        if self.path.exists() and not self.path.is_file():
            raise ValueError(f"fit: expected the checkpoint as a file, got {path}, which is there and is none")
        self.keep_last, self.on_error = at_least("fit", "keep_last", keep_last, 1), on_error
        self._new = self.path.with_name(f".{self.path.name}.new")
        self._run = os.urandom(8).hex()
        # The run whose files may go: at first an earlier one, of which a kill may have left the newest under its first name.
        self._owner = run_of(self.path if self.path.exists() else self._new)
        self._goes_on = False  # whether the newest is to be kept as an older one

    def files(self) -> Iterator[Path]:
        """What there is, newest first."""
        aged = {age: file for file in self.path.parent.glob("*") if (age := self._age(file))}
        return (file for file in (self.path, *(aged[age] for age in sorted(aged))) if file.exists())

    def expect_free(self) -> None:
        """Refuses files of others under the names of the run's checkpoints; where a run goes on, one may be damaged.

        Raises:
            ValueError: There is one.
        """
        for file in filter(Path.exists, map(self._aged, range(self.keep_last))):
            if not self._is_ours(file) and (self._owner != self._run or run_of(file) is not None):
                got = "a file that is none; save it under another name"
                what = "a checkpoint" if file == self.path else "an older checkpoint"
                raise ValueError(f"fit: expected {file} to be free for {what}, got {got}")

    def _is_ours(self, file: Path) -> bool:
        return bool(self._owner) and run_of(file) == self._owner

    def write(self, state: Mapping[str, Any]) -> None:
        """Adds a checkpoint and takes away those beyond `keep_last`; the first of a new run takes the place of an earlier one's.

        Raises:
            ValueError: A name that checkpoints will have is taken by another file; nothing was changed.
            OSError: It cannot be written, and that is to end the run; those before it stay.
        """
        self.expect_free()
        try:
            with naming(self.path):
                write_checkpoint(self._new, state, self._run)
            if self._owner != self._run:
                self.take_away(1)
            for age in range(self.keep_last - 1, 0, -1) if self._goes_on else ():
                if self._aged(age - 1).exists():
                    os.replace(self._aged(age - 1), self._aged(age))
            os.replace(self._new, self.path)
            self._owner, self._goes_on = self._run, True
            self.take_away(self.keep_last)
        except OSError as error:
            with suppress(OSError):
                self._new.unlink()
            if self.on_error == "raise":
                raise
            warnings.warn(
                f"fit: the checkpoint could not be written, the one before it stays: {error}", RuntimeWarning, stacklevel=2
            )

    def take_away(self, age: int) -> None:
        """Removes the checkpoints from an age on, the oldest first."""
        older: list[Path] = []
        for number in count(age):
            file = self._aged(number)
            if self._is_ours(file):
                older.insert(0, file)
            elif number >= self.keep_last:
                break
        for file in older:
            file.unlink()

    def newest(self) -> dict[str, Any]:
        """The newest that is whole; a RuntimeWarning says which were passed over, and why.

        Raises:
            ValueError: A name that older checkpoints will have is taken by another file.
            FileNotFoundError: There is none.
            SerializationError: None is whole.
        """
        refused: list[str] = []
        for file in self.files():
            try:
                state, run = load_checkpoint(file), run_of(file)
                if not run or (self._owner and run != self._owner):
                    what = "of its run" if run else "that fit wrote"
                    raise SerializationError(f"fit: expected a checkpoint {what}, got another in {file}")
            except SerializationError as error:
                refused.append(str(error))
                continue
            self._owner = self._run = run
            self._goes_on = file == self.path
            self.expect_free()
            if not self._goes_on:
                why = "; ".join(refused) or f"there is no {self.path}"
                warnings.warn(f"fit: resumed from {file}, an older checkpoint: {why}", RuntimeWarning, stacklevel=2)
            return state
        if refused:
            raise SerializationError(f"fit: expected a whole checkpoint, got {'; '.join(refused)}")
        raise FileNotFoundError(2, "No such file or directory", str(self.path))

    def _aged(self, age: int) -> Path:
        return self.path.with_name(f"{self.path.stem}.{age}{self.path.suffix}") if age else self.path

    def _age(self, file: Path) -> int:
        """The number in the name of an older checkpoint; 0: it is none."""
        middle = file.name.removeprefix(f"{self.path.stem}.").removesuffix(self.path.suffix)
        age = int(middle) if middle.isascii() and middle.isdigit() else 0
        return age if file == self._aged(age) else 0
