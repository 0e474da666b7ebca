"""No code of Python runs while a lock of the core is held: it might want what is locked, and wait for ever."""

from __future__ import annotations

import subprocess
import sys

import pytest

SETTING = """
import math, weakref
import numpy as np
import treadle
from treadle import nn, optim
from treadle.nn import functional, utils

def owned():
    \"\"\"A tensor in memory of NumPy's, whose end looks at the tensor that it was put into.\"\"\"
    memory = np.full(4, 9, "float32")
    weakref.finalize(memory, lambda: print("looked", t.shape, t.grad is None)).atexit = False
    return treadle.from_dlpack(memory)

class Prying(nn.Module):
    \"\"\"A layer that looks at what it works on when it is asked for its name.\"\"\"
    def forward(self):
        compute()
    def named_modules(self, *args):
        print("looked", look())
        return super().named_modules(*args)

t = treadle.full((4,), -1.0, requires_grad=True)
g = treadle.Generator(0)
"""
FOREIGN_MEMORY = {
    "assignment": "t = owned(); t[0] = 1.0",
    "optimizer": "t = owned().requires_grad_(); t.sum().backward(); optim.SGD([t], lr=0.1).step()",
    "batch norm": "t = owned(); functional.batch_norm(treadle.rand(8, 4), t, treadle.ones(4), training=True)",
    "clipping": "t.grad = owned(); utils.clip_grad_norm_([t], 1.0)",
    "backward": "t.grad = owned(); t.sum().backward()",
}
# What is computed, and what is looked at meanwhile.
ANOMALIES = {
    "operation": ("t.log()", "t.shape"),
    "assignment": ("u.__setitem__(treadle.tensor([0]), math.nan)", "u.shape"),
    "generator": ("functional.dropout(treadle.full((4,), math.inf), generator=g)", "g.get_state()"),
}


def looks(code: str) -> None:
    """Runs `code` in a fresh interpreter, where something must have been looked at."""
    done = subprocess.run([sys.executable, "-c", SETTING + code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("looked"), done.stdout


@pytest.mark.parametrize("name", FOREIGN_MEMORY)
def test_memory_of_others_is_let_go_after_the_lock(name: str) -> None:
    looks(FOREIGN_MEMORY[name])


@pytest.mark.parametrize("name", ANOMALIES)
def test_a_layer_is_asked_for_its_name_after_the_lock(name: str) -> None:
    compute, look = ANOMALIES[name]
    looks(f"""
u = treadle.ones(4)
compute, look = lambda: {compute}, lambda: {look}
try:
    with treadle.detect_anomaly():
        Prying()()
except FloatingPointError as error:
    assert "in Prying" in str(error), error
""")
