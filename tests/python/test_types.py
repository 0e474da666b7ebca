"""A user's program under `mypy --strict`: it passes, its expressions have the types that users expect, and wrong calls are found."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import treadle

PROGRAM = """
import numpy as np
import treadle
from treadle import Tensor, nn, optim, training
from treadle.data import DataLoader, TensorDataset
from treadle.sklearn import MLPClassifier, MLPRegressor, ModuleClassifier


class Gate(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(treadle.ones(dim))
        self.calls = nn.Buffer(treadle.zeros(()))

    def forward(self, x: Tensor, *, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        return x * self.weight, x.sigmoid() * scale


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.gate = Gate(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        kept, gate = self.gate(self.body(x), scale=0.5)
        return self.head(kept * gate)


def train(model: nn.Module, batches: DataLoader, epochs: int) -> float:
    loss, optimizer, total = nn.CrossEntropyLoss(), optim.Adam(model.parameters(), lr=1e-3), 0.0
    schedule = optim.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for inputs, targets in batches:
            value = loss(model(inputs), targets)
            optimizer.zero_grad()
            value.backward()
            optim.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += float(value)
        schedule.step()
    return total


def network(n_features: int, n_outputs: int) -> nn.Module:
    return nn.Linear(n_features, n_outputs)


@treadle.no_grad()
def infer(model: Model, x: Tensor) -> Tensor:
    return model.eval()(x).softmax(1)


model, x, y = Model(), treadle.randn(32, 4), treadle.randint(0, 3, (32,))
loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
train(model, loader, 2)
adam = optim.Adam(model.parameters())
history = training.fit(model, loader, loss=nn.CrossEntropyLoss(), optimizer=adam, epochs=1, progress=False)
rows, labels = x.numpy(), y.numpy()
classifier = MLPClassifier((8,), max_iter=2, random_state=0).fit(rows, labels)
regressor = MLPRegressor((8,), max_iter=2).fit(rows, rows[:, 0], np.ones(32))
wrapped = ModuleClassifier(network, max_iter=2).fit(rows, labels)
"""

#: What each expression is, in the program above.
EXPECTED = {
    "model(x)": "Tensor",
    "model.gate(x)": "tuple[Tensor, Tensor]",
    "model.double()": "Model",
    "model.to('cpu')": "Model",
    "model.eval()": "Model",
    "model.head.weight": "Parameter",
    "model.head.bias": "Parameter | None",
    "model.parameters()": "list[Parameter]",
    "model.state_dict()": "dict[str, Tensor]",
    "nn.MSELoss()(x, x)": "Tensor",
    "infer": "def (model: Model, x: Tensor) -> Tensor",
    "x + 1": "Tensor",
    "2.0 * x": "Tensor",
    "x * np.ones(4)": "Tensor",
    "x @ x.T": "Tensor",
    "x == 0": "Tensor",
    "x[0]": "Tensor",
    "x.shape": "tuple[int, ...]",
    "x.dtype": "DType",
    "x.grad": "Tensor | None",
    "x.numpy()": "ndarray[tuple[Any, ...], dtype[Any]]",
    "float(x.sum())": "float",
    "treadle.from_dlpack(np.ones(3))": "Tensor",
    "treadle.load('model.safetensors')": "dict[str, Tensor]",
    "history['train_loss']": "list[int | float | None]",
    "training.predict(model, x)": "ndarray[tuple[Any, ...], dtype[Any]]",
    "classifier": "MLPClassifier",
    "regressor.predict(rows)": "ndarray[tuple[Any, ...], dtype[Any]]",
    "wrapped.loss_curve_": "list[float]",
    "wrapped.module_": "Module",
}

#: Wrong calls, and what mypy calls them.
WRONG = {
    "model()": "call-arg",
    "model([1.0])": "arg-type",
    "model.gate(x, factor=2.0)": "call-arg",
    "nn.Linear(4)": "call-arg",
    "optim.Adam(model.parameters(), lr='fast')": "arg-type",
    "x.relu(3)": "call-arg",
    "optim.SGD(model, lr=0.1)": "arg-type",
}


def check(tmp_path: Path, program: str) -> tuple[int, list[str]]:
    """The exit status of `mypy --strict`, and its lines, without those about files other than the program."""
    file = tmp_path / "program.py"
    file.write_text(program, encoding="utf-8")
    package = Path(treadle.__file__).parent.parent
    path = {} if package.name == "site-packages" else {"MYPYPATH": str(package)}
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=", "--cache-dir", str(tmp_path)]
    done = subprocess.run([*command, str(file)], cwd=tmp_path, env=os.environ | path, capture_output=True, text=True, check=False)
    assert not done.stderr
    return done.returncode, done.stdout.splitlines()


def at_line(lines: list[str], kind: str) -> dict[int, str]:
    """Messages of a kind by line."""
    found = (re.match(rf"program\.py:(\d+): {kind}: (.*)", line) for line in lines)
    return {int(match[1]): match[2] for match in found if match}


def short(revealed: str) -> str:
    """A revealed type without the modules of its parts."""
    text = revealed.removeprefix('Revealed type is "').removesuffix('"')
    return re.sub(r"\b(?:[a-z_]\w*\.)+(?=\w)", "", text)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], int]:
    """The lines about the program followed by EXPECTED and WRONG, and how many lines the program has."""
    revealed = "\n".join(f"reveal_type({expression})" for expression in EXPECTED)
    _, lines = check(tmp_path_factory.mktemp("types"), PROGRAM + revealed + "\n" + "\n".join(WRONG) + "\n")
    return lines, PROGRAM.count("\n")


def test_a_program_passes(checked: tuple[list[str], int]) -> None:
    lines, length = checked
    assert {number: text for number, text in at_line(lines, "error").items() if number <= length} == {}


def test_expressions_have_the_types_that_users_expect(checked: tuple[list[str], int]) -> None:
    lines, length = checked
    revealed = at_line(lines, "note")
    got = {expression: short(revealed[length + 1 + k]) for k, expression in enumerate(EXPECTED)}
    assert got == EXPECTED


def test_wrong_calls_are_found(checked: tuple[list[str], int]) -> None:
    lines, length = checked
    errors = at_line(lines, "error")
    first = length + len(EXPECTED) + 1
    got = {call: errors.get(first + k, "").rpartition("[")[2].rstrip("]") for k, call in enumerate(WRONG)}
    assert got == WRONG


def test_the_program_runs() -> None:
    names: dict[str, Any] = {}
    exec(compile(PROGRAM, "program.py", "exec"), names)
    assert len(names["history"]) == 1
    assert names["infer"](names["model"], names["x"]).shape == (32, 3)
