"""The checkpoints of one run: the newest under the name given, older ones beside it.

Invariants: at every moment, also inside a write, there is a whole checkpoint to resume from; a file is replaced or taken away
only if it says that it is a checkpoint of `fit`, and its number follows on those of the run.
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
from treadle.training.checkpoint import is_checkpoint, load_checkpoint, save_checkpoint

__all__ = ["Checkpoints"]

# Of all that `save_checkpoint` writes only a run's state has it.
_SECTION = "within"


class Checkpoints:
    """`run.safetensors`, the one before it in `run.1.safetensors`, and so on.

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
        self._fresh = False
        self._spoilt = False  # whether what the name of the newest leads to is not worth keeping

    def files(self) -> Iterator[Path]:
        """What there is, newest first."""
        aged = {age: file for file in self.path.parent.glob("*") if (age := self._age(file))}
        return (file for file in (self.path, *(aged[age] for age in sorted(aged))) if file.exists())

    def begin(self) -> None:
        """From here on a new run is saved: its first checkpoint takes the place of all that an earlier one left.

        Raises:
            ValueError: A name that older checkpoints will have is taken by another file.
        """
        self._expect_free(damaged=False)
        self._fresh = self._spoilt = True

    def _expect_free(self, *, damaged: bool = True) -> None:
        """Refuses files of others under the names of older checkpoints; whether one that cannot be read may be a damaged one."""
        for file in map(self._aged, range(1, self.keep_last)):
            ours = is_checkpoint(file, _SECTION)
            if file.exists() and not (damaged if ours is None else ours):
                got = "a file that is none; save it under another name"
                raise ValueError(f"fit: expected {file} to be free for an older checkpoint, got {got}")

    def write(self, state: Mapping[str, Any]) -> None:
        """Adds a checkpoint and takes away those beyond `keep_last`.

        Raises:
            ValueError: A name that older checkpoints will have was taken by another file meanwhile; nothing was changed.
            OSError: It cannot be written, and that is to end the run; those before it stay.
        """
        self._expect_free()
        new = self.path.with_name(f".{self.path.name}.new")
        try:
            with naming(self.path):
                save_checkpoint(new, state)
            for age in () if self._spoilt else range(self.keep_last - 1, 0, -1):
                if self._aged(age - 1).exists():
                    os.replace(self._aged(age - 1), self._aged(age))
            os.replace(new, self.path)
            self.take_away(1 if self._fresh else self.keep_last)
            self._fresh = self._spoilt = False
        except OSError as error:
            with suppress(OSError):
                new.unlink()
            if self.on_error == "raise":
                raise
            warnings.warn(
                f"fit: the checkpoint could not be written, the one before it stays: {error}", RuntimeWarning, stacklevel=2
            )

    def take_away(self, age: int) -> None:
        """Removes the checkpoints from an age on."""
        for file in map(self._aged, count(age)):
            if not is_checkpoint(file, _SECTION):
                return
            file.unlink()

    def newest(self) -> dict[str, Any]:
        """The newest that is whole; a RuntimeWarning says which were passed over, and why.

        Raises:
            ValueError: A name that older checkpoints will have is taken by another file.
            FileNotFoundError: There is none.
            SerializationError: None is whole.
        """
        self._expect_free()
        refused: list[str] = []
        for file in self.files():
            try:
                state = load_checkpoint(file)
                if _SECTION not in state:
                    raise SerializationError(f"fit: expected a checkpoint that fit wrote, got another in {file}")
            except SerializationError as error:
                refused.append(str(error))
                continue
            self._spoilt = file != self.path
            if refused or self._spoilt:
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
