"""Layers of one's own: a gated linear unit, and a layer of binary weights whose gradient is chosen by hand.

    python examples/custom_layer.py [--quick]

A layer is a class with parameters and a `forward`; derivatives follow from the operations in it. Where another gradient than the
true one is wanted, an `autograd.Function` says which. The first is checked against finite differences, then both train on the
hand-written digits beside a plain network.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

import treadle
from treadle import init, nn, optim
from treadle.data import DataLoader, Digits, random_split
from treadle.training import evaluate, fit


class GatedLinear(nn.Module):
    """y = (x W + b) · sigmoid(x V + c): one half of a product opens and closes the other.

    Source: Dauphin et al. 2017, "Language modeling with gated convolutional networks".
    """

    def __init__(self, in_features: int, out_features: int, dtype: str = "float32") -> None:
        super().__init__()
        self.out_features = out_features
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(init.rand(in_features, 2 * out_features, low=-bound, high=bound, dtype=dtype))
        self.bias = nn.Parameter(treadle.zeros(2 * out_features, dtype=dtype))

    def forward(self, x: treadle.Tensor) -> treadle.Tensor:
        """(N, in_features) → (N, out_features)."""
        both = x @ self.weight + self.bias
        return both[:, : self.out_features] * both[:, self.out_features :].sigmoid()

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.out_features}"


class Binary(treadle.autograd.Function):
    """w ↦ ±a with one a per row, the mean of |w|; backward takes it for w itself, a straight-through estimator.

    The sign's own derivative is zero wherever it exists, so nothing would be learned.

    Sources: Rastegari et al. 2016, "XNOR-Net"; Bengio et al. 2013, "Estimating or propagating gradients through stochastic
    neurons".
    """

    @staticmethod
    def forward(ctx: treadle.autograd.Context, weight: treadle.Tensor) -> treadle.Tensor:
        return weight.sign() * weight.abs().mean(axis=1, keepdims=True)

    @staticmethod
    def backward(ctx: treadle.autograd.Context, grad_output: treadle.Tensor) -> treadle.Tensor:
        return grad_output


class BinaryLinear(nn.Linear):
    """A Linear whose weights are ±a with one a per output, for a product that needs additions only."""

    def forward(self, x: treadle.Tensor) -> treadle.Tensor:
        """(N, in_features) → (N, out_features)."""
        return nn.functional.linear(x, Binary.apply(self.weight), self.bias)


def largest_gradient_error() -> float:
    """The gradient of a GatedLinear's weights against central differences, in float64."""
    layer, x = GatedLinear(5, 3, dtype="float64"), treadle.randn(4, 5, dtype="float64")
    layer(x).square().sum().backward()
    start, step, errors = layer.weight.numpy().copy(), 1e-6, []
    for place in np.ndindex(*start.shape):
        ends = []
        for side in (step, -step):
            moved = start.copy()
            moved[place] += side
            layer.weight.copy_(moved)
            ends.append(layer(x).square().sum().item())
        errors.append(abs((ends[0] - ends[1]) / (2 * step) - layer.weight.grad[place].item()))
    return max(errors)


def accuracy(hidden: nn.Module, epochs: int, seed: int) -> float:
    """Trains a network around a hidden layer of 100 outputs; the accuracy on a fifth that was held out."""
    train, test = random_split(Digits(), [0.8, 0.2], treadle.Generator(seed))
    model = nn.Sequential(hidden, nn.BatchNorm1d(100), nn.ReLU(), nn.Linear(100, 10))
    batches = DataLoader(train, 32, shuffle=True, drop_last=True)
    adam = optim.Adam(model.parameters(), lr=1e-3)
    fit(model, batches, loss=nn.CrossEntropyLoss(), optimizer=adam, epochs=epochs, progress=False)
    return evaluate(model, DataLoader(test, 512), loss=nn.CrossEntropyLoss())["accuracy"]


def main(arguments: list[str] | None = None) -> dict[str, float]:
    """Checks a gradient, then prints the accuracy of each layer."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="3 epochs instead of 30")
    options = parser.parse_args(arguments)
    treadle.manual_seed(options.seed)
    print(f"GatedLinear: gradient within {largest_gradient_error():.1e} of finite differences")
    found = {}
    for kind in (nn.Linear, GatedLinear, BinaryLinear):
        found[kind.__name__] = accuracy(kind(64, 100), 3 if options.quick else 30, options.seed)
        print(f"{kind.__name__:>12}: test accuracy {found[kind.__name__]:.2%}")
    return found


if __name__ == "__main__":
    main()
