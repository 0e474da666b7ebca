"""What a run trains beside its model: the tensors of a loss that has some, and others that the optimizer holds.

Invariant: together with the model's they are all that a step changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from treadle._core import Tensor
from treadle.nn import Module
from treadle.nn.state import members
from treadle.optim import Optimizer

__all__ = ["Beside"]


class Beside:
    """The tensors by name; those of the optimizer that neither model nor loss knows are called by their place in it.

    Args:
        model: The model, whose tensors are not among these.
        loss: The loss; only a Module has tensors.
        optimizer: What else it holds.
    """

    def __init__(self, model: Module, loss: Any, optimizer: Optimizer) -> None:
        of_loss = members(loss) if isinstance(loss, Module) else {}
        held = [tensor for group in optimizer.param_groups for tensor in group["params"]]
        named = {f"loss.{name}": t for name, t in of_loss.items()} | {f"optimizer.{place}": t for place, t in enumerate(held)}
        known = {id(tensor) for tensor in members(model).values()}
        self._tensors: dict[str, Tensor] = {}
        for name, tensor in named.items():
            if id(tensor) not in known:
                known.add(id(tensor))
                self._tensors[name] = tensor

    def state_dict(self) -> dict[str, Tensor]:
        """A snapshot."""
        return {name: tensor.detach() for name, tensor in self._tensors.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continues from a snapshot.

        Raises:
            ValueError: It has other names or shapes; nothing was changed.
        """
        own, new = ({name: t.shape for name, t in tensors.items()} for tensors in (self._tensors, state))
        if own != new:
            raise ValueError(f"fit: expected a loss with the tensors {new} as in the checkpoint, got {own}")
        for name, tensor in self._tensors.items():
            tensor.copy_(state[name])
