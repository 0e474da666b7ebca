"""Side by side with PyTorch for correctness: state_dicts both ways, their files, arrays through DLPack (also with JAX), and 100
training steps with equal weights.

    python -m benches.peers.interchange

Ends with an error if a file or an array comes out different, evaluation outputs differ by more than 2e-6, or weights, gradients or
running statistics by more than 1e-4 relative after the steps.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import torch

import treadle
from benches.peers import torch_work, treadle_work
from treadle import nn, optim


def difference(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """Largest difference of any tensor, relative to its largest element."""
    return max(float(np.abs(ours[k] - v).max() / max(np.abs(v).max(), 1e-3)) for k, v in theirs.items())


def values(module: nn.Module | torch.nn.Module) -> dict[str, np.ndarray]:
    """The state_dict as arrays."""
    return {name: np.asarray(tensor.detach().numpy(), np.float64) for name, tensor in module.state_dict().items()}


def files_differ(module: torch.nn.Module) -> bool:
    """Whether a file that PyTorch wrote gives us other tensors than it gives PyTorch."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        torch.save(module.state_dict(), path)
        ours, theirs = treadle.load(path), torch.load(path)
    return ours.keys() != theirs.keys() or any(not np.array_equal(ours[k].numpy(), v.numpy()) for k, v in theirs.items())


def arrays_differ() -> list[str]:
    """Ways between libraries that lose a value or a type; layouts are transposed ones."""
    wrong = []
    for dtype in ("float32", "int64", "uint8", "bool", "float64"):
        want = np.arange(6).reshape(2, 3).astype(dtype).T
        tensor = treadle.tensor(want)
        ways = {
            "torch.from_dlpack": torch.from_dlpack(tensor).numpy(),
            "treadle.tensor of PyTorch's": treadle.tensor(torch.from_numpy(want)).numpy(),
        }
        # JAX has no 64-bit types unless it is told to.
        if dtype not in ("int64", "float64"):
            ways["jax.numpy.from_dlpack"] = np.asarray(jax.numpy.from_dlpack(treadle.tensor(np.ascontiguousarray(want))))
            ways["treadle.tensor of JAX's"] = treadle.tensor(jax.numpy.asarray(want)).numpy()
        wrong += [f"{way} of {dtype}" for way, got in ways.items() if got.dtype != want.dtype or not np.array_equal(got, want)]
    return wrong


def main() -> int:
    """Compares, prints what it found, and returns 1 if it is too much."""
    rng = np.random.default_rng(0)
    theirs = torch_work.mlp(20, 64, True, 2)
    ours = treadle_work.mlp(20, 64, True, 2)
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.unbiased = True
    ours.load_state_dict({name: tensor.numpy() for name, tensor in theirs.state_dict().items()})
    a, b = optim.SGD(ours.parameters(), lr=0.05, momentum=0.9), torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9)
    gradients = 0.0
    for _ in range(100):
        x, y = rng.standard_normal((32, 20)).astype(np.float32), rng.integers(0, 10, 32)
        a.zero_grad()
        b.zero_grad()
        nn.functional.cross_entropy(ours(treadle.tensor(x)), treadle.tensor(y)).backward()
        torch.nn.functional.cross_entropy(theirs(torch.from_numpy(x)), torch.from_numpy(y)).backward()
        pairs = list(zip(ours.parameters(), theirs.parameters(), strict=True))
        # The bias of a Linear before a BatchNorm1d has gradient zero: what both compute there is rounding.
        scale = max(float(q.grad.abs().max()) for _, q in pairs)
        for p, q in pairs:
            assert p.grad is not None
            gradients = max(gradients, float(np.abs(p.grad.numpy() - q.grad.numpy()).max()) / scale)
        a.step()
        b.step()
    states = difference(values(ours), values(theirs))
    back = torch_work.mlp(20, 64, True, 2)
    back.load_state_dict({name: torch.tensor(t.numpy()) for name, t in ours.state_dict().items()})
    x = rng.standard_normal((50, 20)).astype(np.float32)
    outputs = float(np.abs(ours.eval()(treadle.tensor(x)).numpy() - back.eval()(torch.from_numpy(x)).detach().numpy()).max())
    print(f"100 steps: gradients differ by {gradients:.1e}, weights and running statistics by {states:.1e} (relative)")
    print(f"evaluation after loading our state_dict in PyTorch differs by {outputs:.1e}")
    files, arrays = files_differ(theirs), arrays_differ()
    print(f"files of PyTorch read {'wrongly' if files else 'exactly'}")
    print(f"arrays through DLPack that differ: {', '.join(arrays) or 'none'}")
    return int(files or bool(arrays) or gradients > 1e-4 or states > 1e-4 or outputs > 2e-6)


if __name__ == "__main__":
    sys.exit(main())
