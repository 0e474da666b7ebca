"""The checkpoints of one run: the newest under the name given, older ones beside it.

Invariant: at every moment, also inside a write, there is a whole checkpoint to resume from.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from treadle.serialization import SerializationError
from treadle.training.checkpoint import load_checkpoint, save_checkpoint

__all__ = ["Checkpoints"]


class Checkpoints:
    """`run.safetensors`, the one before it in `run.1.safetensors`, and so on.

    Args:
        path: The name of the newest.
        keep_last: How many to keep.
        on_error: Whether a checkpoint that cannot be written ends the run ("raise") or is left out ("warn").

    Raises:
        ValueError: keep_last below 1, or another on_error.
    """

    def __init__(self, path: str | PathLike[str], keep_last: int = 2, on_error: Literal["raise", "warn"] = "raise") -> None:
        if keep_last < 1:
            raise ValueError(f"fit: expected keep_last of at least 1, got {keep_last}")
        if on_error not in ("raise", "warn"):
            raise ValueError(f"fit: expected on_checkpoint_error 'raise' or 'warn', got {on_error!r}")
        self.path, self.keep_last, self.on_error = Path(path), keep_last, on_error

    def files(self) -> Iterator[Path]:
        """What there is, newest first."""
        aged = {age: file for file in self.path.parent.glob("*") if (age := self._age(file))}
        return (file for file in (self.path, *(aged[age] for age in sorted(aged))) if file.exists())

    def clear(self) -> None:
        """Takes away what an earlier run left."""
        for file in list(self.files()):
            file.unlink()

    def write(self, state: Mapping[str, Any]) -> None:
        """Adds a checkpoint and takes away the oldest beyond `keep_last`.

        Raises:
            OSError: It cannot be written, and that is to end the run; those before it stay.
        """
        new = self.path.with_name(f".{self.path.name}.new")
        try:
            save_checkpoint(new, state)
            for age in range(self.keep_last - 1, 0, -1):
                if self._aged(age - 1).exists():
                    os.replace(self._aged(age - 1), self._aged(age))
            os.replace(new, self.path)
        except OSError as error:
            new.unlink(missing_ok=True)
            if self.on_error == "raise":
                raise
            warnings.warn(
                f"fit: the checkpoint could not be written, the one before it stays: {error}", RuntimeWarning, stacklevel=2
            )

    def newest(self) -> dict[str, Any]:
        """The newest that is whole; a RuntimeWarning says which were passed over, and why.

        Raises:
            FileNotFoundError: There is none.
            SerializationError: None is whole.
        """
        refused: list[str] = []
        for file in self.files():
            try:
                state = load_checkpoint(file)
            except SerializationError as error:
                refused.append(str(error))
                continue
            if refused or file != self.path:
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
