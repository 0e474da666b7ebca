"""Initial values: shapes, element types, distributions, repeatability and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import Tensor, init

SIZED: dict[str, Callable[..., Tensor]] = {
    "rand": init.rand,
    "randn": init.randn,
    "randb": init.randb,
    "ones": init.ones,
    "zeros": init.zeros,
    "constant": init.constant,
}
FANS: dict[str, Callable[..., Tensor]] = {
    "xavier_uniform": init.xavier_uniform,
    "xavier_normal": init.xavier_normal,
    "kaiming_uniform": init.kaiming_uniform,
    "kaiming_normal": init.kaiming_normal,
}
EVERY: dict[str, Callable[..., Tensor]] = {
    **{name: lambda f=f, **options: f(4, 3, **options) for name, f in {**SIZED, **FANS}.items()},
    "orthogonal": lambda **options: init.orthogonal((4, 3), **options),
    "one_hot": lambda **options: init.one_hot(3, treadle.tensor([0, 2, 1, 1]), **options),
}


@pytest.mark.parametrize("name", SIZED)
def test_sizes_in_every_form(name: str) -> None:
    make = SIZED[name]
    for sizes in ((2, 3), ((2, 3),), ([2, 3],), (np.int64(2), 3), (treadle.zeros(2, 3).shape,)):
        assert make(*sizes).shape == (2, 3)
    assert make(5).shape == make(5, device=None).shape == make(5, device="cpu").shape == (5,)
    assert make(()).shape == ()
    assert make(0, 3).shape == (0, 3)


@pytest.mark.parametrize("name", EVERY)
def test_every_initialiser_takes_the_same_keywords(name: str) -> None:
    make = EVERY[name]
    plain = make()
    assert (plain.shape, plain.dtype, plain.requires_grad) == ((4, 3), "float32", False)
    leaf = make(dtype="float64", requires_grad=True, device="cpu", generator=treadle.Generator(3))
    assert (leaf.dtype, leaf.requires_grad, leaf.is_leaf) == ("float64", True, True)
    with pytest.raises(ValueError, match=r'device: expected None or "cpu" \(treadle runs on the CPU\), got \'cuda\''):
        make(device="cuda")


@pytest.mark.parametrize("name", EVERY)
def test_the_same_generator_gives_the_same_bits_and_leaves_the_default_alone(name: str) -> None:
    before = treadle.default_generator().get_state()
    a, b = (EVERY[name](generator=treadle.Generator(9)).numpy() for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert treadle.default_generator().get_state() == before


def test_constants() -> None:
    assert init.ones(2).tolist() == [1, 1]
    assert init.zeros(2).tolist() == [0, 0]
    assert init.constant(2, c=0.5).tolist() == [0.5, 0.5]
    assert init.ones(2, dtype="int64").dtype == "int64"
    assert init.one_hot(3, [2, 0]).tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(IndexError, match=r"one_hot: expected indices in \[0, 3\), got 5"):
        init.one_hot(3, [5])


def spread(values: Tensor, std: float, bound: float = math.inf) -> None:
    """Mean 0 and the standard deviation within 2 %, nothing beyond the bound."""
    x = values.numpy().astype("float64")
    assert abs(x.mean()) < 0.02 * std
    assert x.std() == pytest.approx(std, rel=0.02)
    assert np.abs(x).max() <= bound * (1 + 1e-6)


def test_distributions() -> None:
    g: dict[str, Any] = {"generator": treadle.Generator(0)}
    fans, many = (300, 200), (400, 500)
    for values, bound in (
        (init.rand(many, low=-2, high=2, **g), 2),
        (init.xavier_uniform(*fans, shape=many, gain=1.5, **g), 1.5 * math.sqrt(6 / 500)),
        (init.kaiming_uniform(*fans, shape=many, **g), math.sqrt(6 / 300)),
        (init.kaiming_uniform(*fans, shape=many, nonlinearity="linear", **g), math.sqrt(3 / 300)),
    ):
        spread(values, bound / math.sqrt(3), bound)
        assert np.abs(values.numpy()).max() > 0.99 * bound
    for values, std in (
        (init.randn(many, std=3, **g), 3),
        (init.xavier_normal(*fans, shape=many, gain=2, **g), 2 * math.sqrt(2 / 500)),
        (init.kaiming_normal(*fans, shape=many, **g), math.sqrt(2 / 300)),
        (init.kaiming_normal(*fans, shape=many, nonlinearity="tanh", **g), 5 / 3 / math.sqrt(300)),
    ):
        spread(values, std)
        assert np.abs(values.numpy()).max() > 3 * std
    assert init.randn(many, mean=5, **g).numpy().mean() == pytest.approx(5, abs=0.02)
    assert init.randb(many, p=0.3, **g).numpy().mean() == pytest.approx(0.3, abs=0.01)
    assert set(np.unique(init.randb(50, **g).numpy())) == {0, 1}


def test_fans_set_the_shape_unless_one_is_given() -> None:
    for make in FANS.values():
        assert make(3, 5).shape == (3, 5)
        assert make(3, 5, (5, 3)).shape == make(3, 5, shape=[5, 3]).shape == (5, 3)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (3, 2, 2), (1, 1)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    q = init.orthogonal(shape, 2.0, dtype="float64", generator=treadle.Generator(4))
    assert q.shape == shape
    flat = q.numpy().reshape(shape[0], -1) / 2
    small = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
    np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: init.orthogonal((3,)), "orthogonal: expected at least 2 sizes of at least 1, got shape (3,)"),
        (lambda: init.orthogonal((3, 0)), "orthogonal: expected at least 2 sizes of at least 1, got shape (3, 0)"),
        (lambda: init.xavier_normal(0, 3), "xavier_normal: expected fan_in of at least 1, got 0"),
        (
            lambda: init.kaiming_normal(3, 3, nonlinearity="maxout"),
            "kaiming_normal: expected a nonlinearity among ['linear', 'relu', 'selu', 'sigmoid', 'tanh'], got 'maxout'",
        ),
    ],
)
def test_what_is_refused(make: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        make()
    assert str(caught.value) == message
    with pytest.raises(TypeError):
        init.xavier_uniform(3, 3, mode="fan_in")
    with pytest.raises(TypeError, match="orthogonal: expected dtype float32 or float64, got int64"):
        init.orthogonal((2, 2), dtype="int64")
