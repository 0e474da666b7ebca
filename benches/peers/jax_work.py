"""The work in JAX, compiled with jit and waited for."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benches.peers.inputs import normal

Work = Callable[[], Any]
Params = list[dict[str, Any]]


def threads(n: int | None) -> None:
    """Threads are set by NPROC before the process starts."""


def tensor(shape: tuple[int, ...], seed: int = 0) -> jax.Array:
    """Normally distributed float32, the same in every library."""
    return jnp.asarray(normal(shape, seed))


def waited(f: Callable[..., Any], *args: Any) -> Work:
    """`f` compiled, called with `args` and waited for."""
    compiled = jax.jit(f)
    return lambda: jax.block_until_ready(compiled(*args))


def _init(d: int, h: int, norm: bool, depth: int) -> Params:
    sizes = [d] + [h] * depth + [10]
    layers: Params = []
    for i, (n, m) in enumerate(itertools.pairwise(sizes)):
        layer = {"w": tensor((n, m), i) / n**0.5, "b": jnp.zeros(m)}
        if norm and i < depth:
            layer |= {"g": jnp.ones(m), "s": jnp.zeros(m)}
        layers.append(layer)
    return layers


def _norm(x: jax.Array, g: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    axes = tuple(i for i in range(x.ndim) if i != 1)
    mean = x.mean(axes, keepdims=True)
    var = x.var(axes, keepdims=True)
    shape = [1, -1] + [1] * (x.ndim - 2)
    return (x - mean) / jnp.sqrt(var + 1e-5) * g.reshape(shape) + s.reshape(shape), mean.ravel(), var.ravel()


def _moved(running: Any, fresh: Any) -> Any:
    return jax.tree.map(lambda r, f: 0.9 * r + 0.1 * f, running, fresh)


def _loss(params: Params, x: jax.Array, y: jax.Array) -> tuple[jax.Array, list[Any]]:
    statistics = []
    for layer in params[:-1]:
        x = x @ layer["w"] + layer["b"]
        if "g" in layer:
            x, mean, var = _norm(x, layer["g"], layer["s"])
            statistics.append((mean, var))
        x = jax.nn.relu(x)
    logp = jax.nn.log_softmax(x @ params[-1]["w"] + params[-1]["b"])
    return -jnp.take_along_axis(logp, y[:, None], 1).mean(), statistics


def _adam(params: Any, grads: Any, m: Any, v: Any, t: Any) -> tuple[Any, Any, Any, Any]:
    """Parameters, moments and count after an update."""
    t = t + 1
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, grads)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, grads)
    c1, c2 = 1 - 0.9**t, 1 - 0.999**t
    return jax.tree.map(lambda p, m, v: p - 1e-3 * (m / c1) / (jnp.sqrt(v / c2) + 1e-8), params, m, v), m, v, t


def step(h: int, batch: int, d: int, optimizer: str, norm: bool, depth: int = 2, variant: str = "") -> Work:
    """One training step, state donated."""
    params = _init(d, h, norm, depth)
    zeros = jax.tree.map(jnp.zeros_like, params)
    running = [(jnp.zeros(h), jnp.ones(h)) for _ in range(depth if norm else 0)]
    x, y = tensor((batch, d)), jnp.arange(batch) % 10

    def update(state: Any) -> Any:
        params, m, v, t, running = state
        grads, statistics = jax.grad(_loss, has_aux=True)(params, x, y)
        running = _moved(running, statistics)
        if optimizer == "sgd":
            return jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads), m, v, t, running
        return (*_adam(params, grads, m, v, t), running)

    compiled = jax.jit(update, donate_argnums=0)
    state = [(params, zeros, jax.tree.map(jnp.zeros_like, params), jnp.float32(0), running)]

    def work() -> None:
        state[0] = jax.block_until_ready(compiled(state[0]))

    return work


def inference(h: int, d: int, batch: int) -> Work:
    """A forward in evaluation."""
    params, x = _init(d, h, True, 2), tensor((batch, d))
    running = [(jnp.zeros(h), jnp.ones(h)) for _ in range(2)]

    def forward(params: Params, running: Any, x: jax.Array) -> jax.Array:
        for layer, (mean, var) in zip(params[:-1], running, strict=True):
            x = x @ layer["w"] + layer["b"]
            x = jax.nn.relu((x - mean) / jnp.sqrt(var + 1e-5) * layer["g"] + layer["s"])
        return x @ params[-1]["w"] + params[-1]["b"]

    return waited(forward, params, running, x)


def batch_norm(shape: tuple[int, ...], mode: str) -> Work:
    """A layer forward in training or evaluation, or forward and backward."""
    c = shape[1]
    x, dy, g, s = tensor(tuple(shape)), tensor(tuple(shape), 1), jnp.ones(c), jnp.zeros(c)
    running = (jnp.zeros(c), jnp.ones(c))

    def train(x: jax.Array, g: jax.Array, s: jax.Array, running: Any) -> Any:
        y, mean, var = _norm(x, g, s)
        return y, _moved(running, (mean, var))

    def backward(x: jax.Array, g: jax.Array, s: jax.Array, running: Any) -> Any:
        y, pull, moved = jax.vjp(lambda x, g, s: train(x, g, s, running), x, g, s, has_aux=True)
        return y, pull(dy), moved

    def evaluate(x: jax.Array, g: jax.Array, s: jax.Array, running: Any) -> Any:
        along = [1, -1] + [1] * (x.ndim - 2)
        scale = g / jnp.sqrt(running[1] + 1e-5)
        return (x - running[0].reshape(along)) * scale.reshape(along) + s.reshape(along)

    return waited({"train": train, "backward": backward, "eval": evaluate}[mode], x, g, s, running)


def sibling(kind: str, shape: tuple[int, ...]) -> Work:
    """Forward and backward of another normalising layer."""
    if kind == "BatchNorm2d":
        return batch_norm(shape, "backward")
    shape, c = tuple(shape), shape[1]
    x, dy, width = tensor(shape), tensor(shape, 1), shape[-1]
    channels = (1, c) + (1,) * (len(shape) - 2)

    def normal(x: jax.Array, axes: Any) -> jax.Array:
        return (x - x.mean(axes, keepdims=True)) / jnp.sqrt(x.var(axes, keepdims=True) + 1e-5)

    def grouped(x: jax.Array) -> jax.Array:
        return normal(x.reshape(shape[0], 4, -1), -1).reshape(shape)

    layers: dict[str, Callable[..., jax.Array]] = {
        "LayerNorm": lambda x, g, s: normal(x, -1) * g + s,
        "GroupNorm": lambda x, g, s: grouped(x) * g.reshape(channels) + s.reshape(channels),
        "InstanceNorm1d": lambda x, g, s: normal(x, -1) * g.reshape(channels) + s.reshape(channels),
        "RMSNorm": lambda x, g, s: x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * g,
    }
    n = width if kind in ("LayerNorm", "RMSNorm") else c

    def both(x: jax.Array, g: jax.Array, s: jax.Array) -> Any:
        y, pull = jax.vjp(layers[kind], x, g, s)
        return y, pull(dy)

    return waited(both, x, jnp.ones(n), jnp.zeros(n))


def array(kind: str, size: int) -> Work:
    """One operation on `size` elements; rows of 100 where there are rows."""
    rows = max(size // 100, 1)
    x = tensor((rows, 100)) if kind in ("sum columns", "softmax", "layer norm", "cross entropy") else tensor((size,))
    y, labels = tensor((size,), 1) if x.ndim == 1 else x, jnp.arange(rows) % 100

    def normalised(x: jax.Array, w: jax.Array, b: jax.Array) -> jax.Array:
        return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5) * w + b

    if kind == "layer norm":
        return waited(normalised, x, jnp.ones(100), jnp.ones(100))
    functions: dict[str, Callable[[Any], Any]] = {
        "add": lambda x: x + y,
        "exp": jnp.exp,
        "tanh": jnp.tanh,
        "gelu": lambda x: jax.nn.gelu(x, approximate=False),
        "chain": lambda x: jnp.square(jax.nn.relu(x * 2 + y) - 1),
        "sum": jnp.sum,
        "sum columns": lambda x: x.sum(0),
        "softmax": jax.nn.softmax,
        "cross entropy": lambda x: -jnp.take_along_axis(jax.nn.log_softmax(x), labels[:, None], 1).mean(),
    }
    return waited(functions[kind], x)


def matmul(kind: str, m: int, k: int, n: int) -> Work:
    """A product; t marks a factor that lies transposed in memory."""
    a, b = tensor((k, m) if kind[0] == "t" else (m, k)), tensor((n, k) if kind[1] == "t" else (k, n))
    return waited(lambda a, b: (a.T if kind[0] == "t" else a) @ (b.T if kind[1] == "t" else b), a, b)


def _residual_loss(params: Params, x: jax.Array, y: jax.Array, key: Any) -> tuple[jax.Array, list[Any]]:
    """Of the main job's network: linear, three residual blocks of two linear layers with batch norm, linear."""
    statistics = []

    def normed(x: jax.Array, layer: dict[str, Any]) -> jax.Array:
        y, mean, var = _norm(x @ layer["w"] + layer["b"], layer["g"], layer["s"])
        statistics.append((mean, var))
        return y

    h = jax.nn.relu(x @ params[0]["w"] + params[0]["b"])
    for i in (1, 3, 5):
        key, drawn = jax.random.split(key)
        inner = jax.nn.relu(normed(h, params[i]))
        inner = jnp.where(jax.random.bernoulli(drawn, 0.9, inner.shape), inner / 0.9, 0.0)
        h = jax.nn.relu(h + normed(inner, params[i + 1]))
    logp = jax.nn.log_softmax(h @ params[-1]["w"] + params[-1]["b"])
    return -jnp.take_along_axis(logp, y[:, None], 1).mean(), statistics


def main_job() -> Work:
    """An epoch of the main job: batches gathered inside the compiled step, which is waited for at the end of the epoch."""
    pixels = jnp.asarray(np.random.default_rng(0).integers(0, 256, (60_000, 784), dtype=np.uint8))
    labels, sizes = jnp.arange(60_000) % 10, [(784, 100), *[(100, 50), (50, 100)] * 3, (100, 10)]
    norms = {"g": jnp.ones, "s": jnp.zeros}
    params = [
        {"w": tensor((n, m), i) / n**0.5, "b": jnp.zeros(m)} | ({k: f(m) for k, f in norms.items()} if 0 < i < 7 else {})
        for i, (n, m) in enumerate(sizes)
    ]
    running = [(jnp.zeros(m), jnp.ones(m)) for _, m in sizes[1:-1]]

    def update(state: Any, index: jax.Array) -> Any:
        params, m, v, t, running, key = state
        key, drawn = jax.random.split(key)
        x = pixels[index].astype(jnp.float32) / 255
        grads, statistics = jax.grad(_residual_loss, has_aux=True)(params, x, labels[index], drawn)
        return (*_adam(params, grads, m, v, t), _moved(running, statistics), key)

    compiled, rng = jax.jit(update, donate_argnums=0), np.random.default_rng(0)
    zeros = [jax.tree.map(jnp.zeros_like, params) for _ in range(2)]
    state = [(params, *zeros, jnp.float32(0), running, jax.random.key(0))]

    def work() -> None:
        for index in rng.permutation(60_000).reshape(600, 100):
            state[0] = compiled(state[0], index)
        jax.block_until_ready(state[0])

    return work
