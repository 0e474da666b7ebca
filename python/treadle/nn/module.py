"""`Module`: the base class of layers and models.

A module is an ordinary object: `Parameter`, `Buffer` and `Module` attributes are found where they are, also inside lists,
tuples and dicts. Nothing has to be registered, and no plain value takes the place of a parameter or buffer unsaid.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, Self, cast

from treadle import _core, checks, notebook
from treadle._core import Tensor
from treadle.nn import calls, state
from treadle.nn.calls import P, R_co
from treadle.nn.mode import set_mode
from treadle.nn.parameter import Member
from treadle.nn.tree import Tree

__all__ = ["Module"]

_NOTHING: Any = object()


class _Setting(threading.local):
    """The modules whose `train` is under way in this thread, by identity: one that is below itself is not asked again."""

    modules: frozenset[int] = frozenset()


_setting = _Setting()


class Module(Tree):
    """Base class of all layers and models: subclasses assign parameters and submodules and define `forward`.

    `super().__init__()` may be left out; with it attributes are found faster under Python 3.11 and 3.12.

    Raises:
        TypeError: It is called and no `forward` is defined.

    Example:
        >>> class Model(nn.Module):
        ...     def __init__(self):
        ...         self.linear = nn.Linear(8, 2)
        ...
        ...     def forward(self, x):
        ...         return self.linear(x).relu()
    """

    training: bool = True
    """Whether the module is in training mode; `train` and `eval` set it."""

    def __init__(self) -> None:
        # Instances of a class share the names of their attributes, and once `__dict__` was asked for, Python 3.11 and 3.12 look
        # each up anew, which takes two to three times as long: a batch norm reads eleven. In a dictionary of their own they do not.
        object.__setattr__(self, "__dict__", {**self.__dict__})

    if not TYPE_CHECKING:

        def __setattr__(self, name, value):
            held = self.__dict__.get(name)
            if isinstance(held, Member):
                value = state.successor(name, held, value)
            super().__setattr__(name, value)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Computes the output; defined by subclasses."""
        raise TypeError(f"module: expected {type(self).__name__} to define forward, got a class without it")

    if TYPE_CHECKING:

        def __call__(self: calls.Forward[P, R_co], *args: P.args, **kwargs: P.kwargs) -> R_co:
            """What `forward` makes of the arguments."""

    else:

        def __call__(self, x=_NOTHING, /, *args, **kwargs):
            if calls.named is not None:
                return calls.named(self, self.forward, args if x is _NOTHING else (x, *args), kwargs)
            # One argument is the usual case: passed on as it is, it costs half the time of a packed list of arguments.
            if x is _NOTHING:
                return self.forward(**kwargs)
            return self.forward(x, *args, **kwargs) if args or kwargs else self.forward(x)

    def state_dict(self) -> dict[str, Tensor]:
        """A snapshot of all parameters and buffers by name: later training does not change it.

        Those below are found where they are; a module below that defines `state_dict` or `load_state_dict` itself is not asked.
        """
        return {name: tensor.detach() for name, tensor in state.members(self).items()}

    def load_state_dict(self, values: Mapping[str, Any], strict: bool = True) -> tuple[list[str], list[str]]:
        """Copies values into the parameters and buffers, after checking all of them.

        Args:
            values: Tensors or arrays by name, as `state_dict()` gives them; they are cast to the module's element types.
            strict: Whether missing and unexpected names are an error; `num_batches_tracked` may always be missing.

        Returns:
            The missing and the unexpected names, sorted.

        Raises:
            TypeError: Values that are no dict.
            ValueError: Names (if strict) or shapes that do not fit; all differences are listed and nothing was changed.

        Example:
            >>> model.load_state_dict(treadle.load("model.safetensors"))
        """
        return state.load(self, values, strict)

    def train(self, mode: bool = True) -> Self:
        """Sets training mode here and below, and returns the module.

        Modules below that define `train` themselves are asked to, after the others, and decide for what is below them. `fit` calls
        it; `evaluate` and `predict` change flags alone, for a while.

        Raises:
            ValueError: A mode other than True and False.
        """
        mode = checks.flag("train", "mode", mode)
        above = _setting.modules
        _setting.modules = above | {id(self)}
        seen, found, asked = set(_setting.modules), [cast("Module", self)], list[Module]()
        try:
            for module in found:
                set_mode(module, mode)
                new = {id(child): child for child in module.children() if id(child) not in seen}
                seen.update(new)
                for child in new.values():
                    own = "train" in vars(child) or type(child).train is not Module.train
                    (asked if own else found).append(child)
            for child in asked:
                child.train(mode)
        finally:
            _setting.modules = above
        return self

    def eval(self) -> Self:
        """`train(False)`."""
        return self.train(False)

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Calls `function` on every module, children first, and returns the module."""
        for module in reversed(list(self.modules())):
            function(module)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Freezes (False) or unfreezes all parameters, and returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        """Clears the gradients of all parameters."""
        _core.clear_gradients(self.parameters())

    reset_grad = zero_grad
    """`zero_grad` under the name of course material."""

    def astype(self, dtype: Any) -> Self:
        """Makes float parameters and buffers anew as float32 or float64; optimizers are built afterwards."""
        found, done = checks.floating("astype", dtype), dict[int, Any]()
        return self.apply(lambda module: state.cast(vars(module), found, done))

    def to(self, target: Any) -> Self:
        """`astype` for an element type; None and "cpu" change nothing."""
        if target is None or (isinstance(target, str) and target not in ("float32", "float64")):
            checks.cpu("to", target)
            return self
        return self.astype(target)

    def float(self) -> Self:
        """`astype("float32")`."""
        return self.astype("float32")

    def double(self) -> Self:
        """`astype("float64")`."""
        return self.astype("float64")

    def extra_repr(self) -> str:
        """What `repr` shows between the parentheses of a module without children."""
        return ""

    @recursive_repr()
    def __repr__(self) -> str:
        lines = [f"  ({name}): " + repr(child).replace("\n", "\n  ") for name, child in self.named_children()]
        inside = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({inside})"
        return "\n".join([f"{type(self).__name__}({inside}", *lines, ")"])

    def _repr_html_(self) -> str:
        return notebook.tree(self)
