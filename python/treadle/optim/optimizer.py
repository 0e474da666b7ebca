"""`Optimizer`: parameter groups, state, and one call into the core per step, so that no signal leaves it half done."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, SupportsFloat

import numpy as np

from treadle import _core
from treadle._core import Tensor
from treadle.checks import listed, tensors

__all__ = ["Optimizer"]

Group = dict[str, Any]

# Options that mean the same in every optimizer that has them.
_NOT_NEGATIVE = ("lr", "weight_decay", "momentum", "eps")
_FLAGS = ("maximize", "nesterov", "centered")


def is_number(value: Any, low: float = 0.0, below: float = math.inf) -> bool:
    """Whether a value is a finite number in [low, below); True and False are none."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        number = float(value)
    except OverflowError:  # an integer beyond every float
        return False
    return math.isfinite(number) and low <= number < below


def _plain(value: Any) -> Any:
    """An option with Python's own numbers: a float16 would stay one through a schedule, and files take no others."""
    if isinstance(value, Tensor | np.ndarray):
        value = value.tolist()
    if isinstance(value, tuple | list):
        items = [_plain(item) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, SupportsFloat) else value


class Optimizer:
    """Base class of optimizers.

    Args:
        params: Parameters, or groups: dicts with a list "params" and options that differ from the defaults.
        defaults: Options of groups that do not say otherwise.

    Raises:
        ValueError: No parameters, one given twice, or an option out of range.
        TypeError: Something that is not a Tensor.

    Subclasses name their slots (tensors kept per parameter) in `slots` and define `_check` and `_update`.

    Example:
        >>> optimizer = optim.AdamW([{"params": weights}, {"params": biases, "weight_decay": 0.0}], lr=1e-3)
        >>> loss.backward()
        >>> optimizer.step()
        >>> optimizer.zero_grad()
    """

    slots: tuple[str, ...] = ()
    schedules: int = 0
    """How many schedules were made for this optimizer; the last one sets its rates."""

    def __init__(self, params: Iterable[Any], defaults: Group) -> None:
        self.defaults = defaults
        """Options of groups that do not say otherwise."""
        self.param_groups: list[Group] = []
        """The groups: dicts of "params", their options, which may be changed between steps, "state" and "steps".
        What else is put into them stays there, and is no part of `state_dict()`."""
        given = listed(self._name(), params)
        if not given:
            raise ValueError(f"{self._name()}: expected at least one parameter, got none")
        for group in given if isinstance(given[0], dict) else [{"params": given}]:
            self.add_param_group(group)

    def _name(self) -> str:
        return type(self).__name__.lower()

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Adds parameters with options of their own.

        Raises:
            ValueError: A parameter that is in a group already, or an option out of range.
            TypeError: Something that is not a Tensor, or a group that is not a dict.
        """
        if not isinstance(group, Mapping):
            raise TypeError(f"{self._name()}: expected parameter groups as dicts, got {type(group).__name__}")
        if "params" not in group:
            raise ValueError(f"{self._name()}: expected a group with 'params', got {sorted(group)}")
        params = tensors(self._name(), group["params"])
        for p in params:
            if not p.is_leaf:
                raise ValueError(f"{self._name()}: expected leaves of the graph, got the output of {p.grad_fn}")
        known = {id(p) for g in self.param_groups for p in g["params"]}
        if len({id(p) for p in params} | known) != len(params) + len(known):
            raise ValueError(f"{self._name()}: expected every parameter once, got one twice")
        full: Group = {**self.defaults, **group, "params": params}
        unknown = full.keys() - self.defaults.keys() - {"params"}
        if unknown:
            raise ValueError(f"{self._name()}: expected options among {sorted(self.defaults)}, got {sorted(unknown)}")
        full |= self._options(full)
        self._check(full)
        full["state"] = {slot: [None] * len(params) for slot in self.slots}
        full["steps"] = [0] * len(params)
        self.param_groups.append(full)

    def _options(self, group: Mapping[str, Any]) -> Group:
        """The options of a group, as `_plain` has them."""
        if missing := self.defaults.keys() - group.keys():
            raise ValueError(f"{self._name()}: expected groups with {sorted(self.defaults)}, got one without {sorted(missing)}")
        return {name: _plain(group[name]) for name in self.defaults}

    def _check(self, group: Group) -> None:
        """Checks the options of a group."""
        for option in filter(group.__contains__, _NOT_NEGATIVE):
            self._expect(group, option, is_number(group[option]), "a finite number of at least 0")
        for option in filter(group.__contains__, _FLAGS):
            self._expect(group, option, isinstance(group[option], bool | np.bool_), "True or False")

    def _expect(self, group: Group, option: str, holds: bool, what: str) -> None:
        if not holds:
            raise ValueError(f"{self._name()}: expected {option} as {what}, got {group[option]!r}")

    def _update(self, groups: Sequence[Group]) -> None:
        """One step of all groups, in one call of the core, which checks them all before it changes one."""
        raise TypeError(f"optimizer: expected {type(self).__name__} to define _update, got a class without it")

    def step(self) -> None:
        """Changes every parameter that has a gradient.

        Raises:
            ValueError: A parameter that got another shape than its state has, or an option that was set to what it cannot be;
                nothing was changed.
        """
        try:
            self._update(self.param_groups)
        except (KeyError, TypeError, ValueError):
            for group in self.param_groups:
                self._check(self._options(group))
            raise

    def zero_grad(self) -> None:
        """Clears the gradients of all parameters."""
        for group in self.param_groups:
            _core.clear_gradients(group["params"])

    reset_grad = zero_grad
    """`zero_grad` under the name of course material."""

    def state_dict(self) -> dict[str, Any]:
        """A snapshot: {"groups": [options with "steps" and tensors by slot]}; parameters are known by position."""
        return {"groups": [self._snapshot(group) for group in self.param_groups]}

    def _snapshot(self, group: Group) -> Group:
        state = {slot: [None if t is None else t.detach() for t in held] for slot, held in group["state"].items()}
        return {**self._options(group), "steps": list(group["steps"]), "state": state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a snapshot.

        Raises:
            TypeError: A state that is no dict.
            ValueError: Other groups, parameters or slots than this optimizer has; nothing was changed.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"{self._name()}: expected a state_dict, got {type(state).__name__}")
        groups = state.get("groups")
        if not isinstance(groups, list) or len(groups) != len(self.param_groups):
            got = f"{len(groups)}" if isinstance(groups, list) else f"entries {sorted(state)}"
            raise ValueError(f"{self._name()}: expected 'groups' of {len(self.param_groups)} parameter groups, got {got}")
        for own, new in zip(self.param_groups, groups, strict=True):
            self._check_state(own, new)
            self._check(self._options(new))
        for own, new in zip(self.param_groups, groups, strict=True):
            held = {slot: [None if t is None else t.detach() for t in new["state"][slot]] for slot in self.slots}
            own.update({**self._options(new), "steps": list(new["steps"]), "state": held})

    def _check_state(self, own: Group, new: Any) -> None:
        names = {*self.defaults, "steps", "state"}
        if not isinstance(new, Mapping) or set(new) != names:
            got = sorted(new) if isinstance(new, Mapping) else type(new).__name__
            raise ValueError(f"{self._name()}: expected a group with {sorted(names)}, got {got}")
        if not isinstance(new["state"], Mapping) or not isinstance(new["steps"], list):
            got = f"{type(new['state']).__name__} and {type(new['steps']).__name__}"
            raise ValueError(f"{self._name()}: expected state as a dict and steps as a list, got {got}")
        if set(new["state"]) != set(self.slots) or len(new["steps"]) != len(own["params"]):
            got = f"{sorted(new['state'])} for {len(new['steps'])} parameters"
            raise ValueError(f"{self._name()}: expected state {sorted(self.slots)} for {len(own['params'])} parameters, got {got}")
        if any(type(n) is not int or n < 0 for n in new["steps"]):
            raise ValueError(f"{self._name()}: expected steps of at least 0, got {new['steps']}")
        for slot, held in new["state"].items():
            self._check_slot(slot, own["params"], held)

    def _check_slot(self, slot: str, params: Sequence[Tensor], tensors: Any) -> None:
        if not isinstance(tensors, list) or len(tensors) != len(params):
            got = len(tensors) if isinstance(tensors, list) else type(tensors).__name__
            raise ValueError(f"{self._name()}: expected {len(params)} tensors in {slot}, got {got}")
        for p, t in zip(params, tensors, strict=True):
            if t is None:
                continue
            if not isinstance(t, Tensor):
                raise ValueError(f"{self._name()}: expected tensors in {slot}, got {type(t).__name__}")
            if t.shape != p.shape or t.dtype != p.dtype:
                got = f"{t.dtype.name} of shape {t.shape}"
                raise ValueError(f"{self._name()}: expected {slot} as {p.dtype.name} of shape {p.shape}, got {got}")

    def __repr__(self) -> str:
        def line(group: Group) -> str:
            options = ", ".join(f"{name}={group[name]}" for name in self.defaults)
            return f"  {len(group['params'])} parameters: {options}"

        return "\n".join([f"{type(self).__name__}(", *map(line, self.param_groups), ")"])
