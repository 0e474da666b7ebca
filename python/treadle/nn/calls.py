"""How modules are called. Invariant: while `named` is None, a call is `forward` and one look at this variable, no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


class Forward(Protocol[P, R_co]):
    """For type checkers: a call takes what `forward` takes and gives what it gives."""

    def forward(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Computes the output."""


#: `named(module, forward, args, kwargs)` in place of `forward(*args, **kwargs)`, while anomalies are looked for. A variable
#: rather than another `Module.__call__`: to change a class makes the interpreter forget what it had learned of all subclasses.
named: Callable[[Any, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any] | None = None
