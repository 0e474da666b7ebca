"""What a run changes beside its model: the tensors of other modules, and those that the optimizer alone holds.

Invariant: tensors are looked up when they are asked for, because the buffer that an attribute holds may be another by then.
"""

from __future__ import annotations

from collections.abc import Mapping

from treadle._core import Tensor
from treadle.nn import Module
from treadle.nn.mode import set_mode
from treadle.nn.state import members
from treadle.optim import Optimizer

__all__ = ["Beside", "Flags"]


class Beside:
    """The tensors by name; those of the optimizer that no module has are called by their place in it.

    Args:
        model: The model, whose tensors are not among these.
        modules: The others, such as a loss, by name.
        optimizer: What else it holds.
    """

    def __init__(self, model: Module, modules: Mapping[str, Module], optimizer: Optimizer) -> None:
        self._model, self._modules, self._optimizer = model, modules, optimizer

    def _names(self) -> dict[str, Tensor]:
        """All of them, under every name."""
        held = [tensor for group in self._optimizer.param_groups for tensor in group["params"]]
        return _members(self._modules) | {f"optimizer.{place}": tensor for place, tensor in enumerate(held)}

    def _tensors(self) -> dict[str, Tensor]:
        """Each once, under its first name."""
        known = {id(tensor) for tensor in members(self._model).values()}
        found: dict[str, Tensor] = {}
        for name, tensor in self._names().items():
            if id(tensor) not in known:
                known.add(id(tensor))
                found[name] = tensor
        return found

    def state_dict(self) -> dict[str, Tensor]:
        """A snapshot."""
        return {name: tensor.detach() for name, tensor in self._tensors().items()}

    def completed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A snapshot of before, when only a loss and the optimizer were looked at, with what it lacks as it is."""
        every, names = self._names(), {id(tensor): name for name, tensor in self._tensors().items()}
        return self.state_dict() | {names.get(id(every.get(name)), name): value for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continues from a snapshot.

        Raises:
            ValueError: It has other names or shapes; nothing was changed.
        """
        tensors = self._tensors()
        own, new = ({name: t.shape for name, t in held.items()} for held in (tensors, state))
        if own != new:
            raise ValueError(f"fit: expected a loss and other parts with the tensors {new} as in the checkpoint, got {own}")
        for name, tensor in tensors.items():
            tensor.copy_(state[name])


class Flags:
    """Which modules of a run are in training mode, and which of their tensors require gradients, by name.

    Args:
        modules: The modules, by name.
    """

    def __init__(self, modules: Mapping[str, Module]) -> None:
        self._modules = modules

    def _below(self) -> dict[str, Module]:
        return {f"{name}.{part}": below for name, module in self._modules.items() for part, below in module.named_modules()}

    def state_dict(self) -> dict[str, dict[str, bool]]:
        """What there is."""
        training = {name: module.training for name, module in self._below().items()}
        return {"training": training, "requires_grad": {name: t.requires_grad for name, t in _members(self._modules).items()}}

    def load_state_dict(self, state: Mapping[str, Mapping[str, bool]]) -> None:
        """Sets them as they were, as far as the state says."""
        training, requires_grad = state.get("training", {}), state.get("requires_grad", {})
        for name, module in self._below().items():
            if module.training != training.get(name, module.training):
                set_mode(module, not module.training)
        for name, tensor in _members(self._modules).items():
            if tensor.requires_grad != requires_grad.get(name, tensor.requires_grad):
                tensor.requires_grad_(not tensor.requires_grad)


def _members(modules: Mapping[str, Module]) -> dict[str, Tensor]:
    return {f"{name}.{part}": tensor for name, module in modules.items() for part, tensor in members(module).items()}
