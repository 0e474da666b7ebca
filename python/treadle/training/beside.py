"""What a run changes: its generators, the tensors and modes of its modules, and what its optimizer holds beside them.

Invariant: tensors are looked up when they are asked for, because the buffer that an attribute holds may be another by then.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from treadle._core import Tensor
from treadle.nn import Module
from treadle.nn.mode import set_mode
from treadle.nn.state import Snapshot, members
from treadle.optim import Optimizer
from treadle.training.reach import Reach

__all__ = ["Before", "Held"]


class Before:
    """Generators, and the tensors of modules, to be put back."""

    def __init__(self, reach: Reach) -> None:
        self._tensors = Snapshot(*reach.modules.values())
        self._states = [(generator, generator.get_state()) for generator in reach.generators.values()]

    def restore(self) -> None:
        """Puts all of it back."""
        self._tensors.restore()
        for generator, state in self._states:
            generator.set_state(state)


class Held:
    """Generators, parameters and buffers, which of those require gradients, and which modules that have some are in training mode.

    Args:
        reach: The generators and modules.
        optimizer: What it alone holds is called by its place there.
    """

    def __init__(self, reach: Reach, optimizer: Optimizer) -> None:
        self.generators, self._optimizer = reach.generators, optimizer
        self.modules = {name: module for name, module in reach.modules.items() if name == "model" or members(module)}

    def states(self) -> dict[str, Any]:
        """Where the generators are."""
        return {name: tuple(generator.get_state()) for name, generator in self.generators.items()}

    def set_states(self, states: Mapping[str, Any]) -> None:
        """Puts the generators there."""
        for name, generator in self.generators.items():
            generator.set_state(states[name])

    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        """By the module's name; what belongs to several is the first one's."""
        found = {name: members(module) for name, module in self.modules.items()}
        held = (tensor for group in self._optimizer.param_groups for tensor in group["params"])
        found["optimizer"] = {str(place): tensor for place, tensor in enumerate(held)}
        known: set[int] = set()
        for name, own in found.items():
            found[name] = {part: tensor for part, tensor in own.items() if id(tensor) not in known}
            known |= set(map(id, own.values()))
        return found

    def _below(self) -> dict[str, dict[str, Module]]:
        return {name: dict(module.named_modules()) for name, module in self.modules.items()}

    def ids(self) -> set[int]:
        """All of these objects, but for modules that metrics hold, whose other attributes are theirs."""
        modules = [module for name, own in self._below().items() if not name.startswith("metrics.") for module in own.values()]
        tensors = [tensor for own in self._tensors().values() for tensor in own.values()]
        return set(map(id, [*self.generators.values(), *modules, *tensors]))

    def state_dict(self) -> dict[str, Any]:
        """A snapshot; the tensors of the model are apart, as its own `state_dict` has them."""
        tensors = self._tensors()
        values = {name: {part: tensor.detach() for part, tensor in own.items()} for name, own in tensors.items()}
        return {
            "generators": self.states(),
            "model": values.pop("model"),
            "beside": values,
            "requires_grad": {name: {part: tensor.requires_grad for part, tensor in own.items()} for name, own in tensors.items()},
            "modules": {name: {part: module.training for part, module in own.items()} for name, own in self._below().items()},
        }

    def leave_out(self, state: Mapping[str, Any]) -> None:
        """Leaves out from now on what a snapshot does not have, such as the copy of a model that a callback made since.

        Raises:
            ValueError: It has more.
        """
        for what, found in (("generators", self.generators), ("modules", self.modules)):
            wanted: Mapping[str, Any] = state[what]
            if wanted.keys() - found.keys():
                raise ValueError(f"fit: expected {what} {sorted(wanted)} as in the checkpoint, got {sorted(found)}")
            more = sorted(found.keys() - wanted.keys())
            if more:
                got = f"{', '.join(more)} as well, which stay as they are"
                warnings.warn(f"fit: expected {what} as in the checkpoint, got {got}", RuntimeWarning, stacklevel=4)
            for name in more:
                del found[name]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a snapshot.

        Raises:
            ValueError: It has other tensors; nothing was changed.
        """
        values, tensors = {"model": state["model"]} | state["beside"], self._tensors()
        for name, own in tensors.items():
            here, there = ({part: tensor.shape for part, tensor in held.items()} for held in (own, values[name]))
            if here != there:
                raise ValueError(f"fit: expected {name} with the tensors {there} as in the checkpoint, got {here}")
        for name, own in tensors.items():
            for part, tensor in own.items():
                tensor.copy_(values[name][part])
                if tensor.requires_grad != state["requires_grad"][name][part]:
                    tensor.requires_grad_(not tensor.requires_grad)
        for name, below in self._below().items():
            for part, module in below.items():
                if module.training != state["modules"][name].get(part, module.training):
                    set_mode(module, not module.training)
        self.set_states(state["generators"])
