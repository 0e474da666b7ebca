"""The run that is killed: every source of state, a checkpoint after every second step. Usage: run.py FOLDER"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import treadle
from treadle import nn, optim
from treadle.data import DataLoader, TensorDataset
from treadle.models import MLPResNet
from treadle.training import EarlyStopping, fit

EPOCHS = 6


def rows(n: int, seed: int) -> TensorDataset:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 12)).astype(np.float32)
    return TensorDataset(treadle.tensor(x), treadle.tensor((x[:, 0] > x[:, 1]).astype(np.int64)))


def main(folder: Path) -> None:
    treadle.manual_seed(1)
    treadle.set_num_threads(1)
    model = MLPResNet(12, hidden_dim=48, num_blocks=2, num_classes=2, drop_prob=0.2)
    train = DataLoader(rows(640, 0), 16, shuffle=True, generator=treadle.Generator(2))
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    path = folder / "run.safetensors"
    fit(
        model,
        train,
        DataLoader(rows(64, 1), 32),
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        epochs=EPOCHS,
        scheduler=optim.OneCycleLR(optimizer, max_lr=0.05, total_steps=EPOCHS * len(train)),
        early_stopping=EarlyStopping(patience=EPOCHS),
        checkpoint=path,
        checkpoint_every=2,
        keep_last=3,
        resume=(folder / "begun").exists(),
        progress=False,
        callbacks=[lambda history, _: history.to_csv(folder / "history.csv")],
    )
    treadle.save(folder / "final.safetensors", model)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
