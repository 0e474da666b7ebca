"""Modules: what the walker finds, copies, modes and element types."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import NamedTuple

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle._core import Tensor
from treadle.nn.mode import evaluating


class Nested(nn.Module):
    """Members in every kind of place."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(treadle.ones(2))
        self.count = nn.Buffer(treadle.zeros((), dtype="int64"))
        self.pair = (nn.Linear(2, 3), nn.Parameter(treadle.ones(1)))
        self.table = {"a": nn.Linear(3, 2, bias=False), "deep": [nn.BatchNorm1d(2)]}
        self.plain = treadle.ones(5)
        self.name = "not a member"


class Tied(nn.Module):
    """One Linear under two names and one Parameter under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(2, 2)
        self.b = self.a
        self.c = nn.Linear(2, 2)
        self.c.weight = self.a.weight


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Residual(nn.Linear(3, 3)), nn.Linear(3, 2))


# The walker --------------------------------------------------------------


def test_walker_goes_through_tuples_lists_and_dicts():
    assert [name for name, _ in Nested().named_parameters()] == [
        "weight",
        "pair.0.weight",
        "pair.0.bias",
        "pair.1",
        "table.a.weight",
        "table.deep.0.weight",
        "table.deep.0.bias",
    ]


def test_buffers_are_not_parameters():
    names = [name for name, _ in Nested().named_buffers()]
    assert names == ["count", "table.deep.0.running_mean", "table.deep.0.running_var", "table.deep.0.num_batches_tracked"]
    assert len(Nested().buffers()) == 4
    assert all(isinstance(b, nn.Buffer) and not b.requires_grad for b in Nested().buffers())


def test_modules_and_children():
    m = Nested()
    assert [name for name, _ in m.named_modules()] == ["", "pair.0", "table.a", "table.deep.0"]
    assert list(m.children()) == [m.pair[0], m.table["a"], m.table["deep"][0]]
    assert next(m.modules()) is m


def test_shared_members_appear_once_but_keep_all_names_in_state_dict():
    m = Tied()
    assert [name for name, _ in m.named_parameters()] == ["a.weight", "a.bias", "c.bias"]
    assert len(list(m.modules())) == 3
    assert sorted(m.state_dict()) == ["a.bias", "a.weight", "b.bias", "b.weight", "c.bias", "c.weight"]


def of_itself():
    m = nn.Linear(2, 2)
    m.me = m
    return m


def of_two():
    m = nn.Linear(2, 2)
    m.other = nn.Identity()
    m.other.back = [m]
    return m


def of_a_list():
    m = nn.Linear(2, 2)
    m.held = [m.weight]
    m.held.append(m.held)
    return m


@pytest.mark.parametrize(
    ("made", "inside"),
    [
        (of_itself, "(\n  (me): ...\n)"),
        (of_two, "(\n  (other): Identity(\n    (back.0): ...\n  )\n)"),
        (of_a_list, "(in_features=2, out_features=2, bias=True)"),
    ],
)
def test_what_holds_itself_is_gone_through_once(made, inside, tmp_path):
    m = made()
    shown = inside.replace("(\n", "(in_features=2, out_features=2, bias=True\n", 1)
    assert repr(m) == f"Linear{shown}"
    assert m._repr_html_().count("<b>Linear</b>") == 1
    assert len(m.parameters()) == 2
    treadle.save(tmp_path / "m.safetensors", m)
    assert m.load_state_dict(treadle.load(tmp_path / "m.safetensors")) == ([], [])
    assert {"bias", "weight"} <= m.state_dict().keys() <= {"bias", "weight", "held.0"}
    assert [x.training for x in m.eval().modules()] == [False] * len(list(m.modules()))
    assert m.double().weight.dtype == treadle.float64
    assert treadle.summary(m, (3, 2)).layers[0].output_shape == (3, 2)
    assert len(copy.deepcopy(m).parameters()) == 2


def test_module_without_super_init_or_forward():
    class Bare(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(2, 2)

    assert Bare().training
    assert len(Bare().eval().parameters()) == 2
    with pytest.raises(TypeError, match="module: expected Bare to define forward"):
        Bare()(treadle.ones(1, 2))


@pytest.mark.parametrize(
    ("args", "kwargs", "message"), [((5,), {}, "takes 1 positional"), ((), {"inplace": True}, "argument 'inplace'")]
)
def test_a_module_without_init_takes_no_arguments(args, kwargs, message):
    class Bare(nn.Module):
        pass

    for kind in (Bare, nn.ReLU, nn.Module):
        assert not inspect.signature(kind).parameters
        with pytest.raises(TypeError, match=message):
            kind(*args, **kwargs)


def test_what_was_assigned_before_super_init_stays():
    class Early(nn.Module):
        def __init__(self):
            self.linear = nn.Linear(2, 2)
            super().__init__()

    assert [name for name, _ in Early().named_parameters()] == ["linear.weight", "linear.bias"]


class Frozen(nn.Module):
    """A norm whose statistics stay, in PyTorch's way."""

    def __init__(self, norm: nn.BatchNorm1d) -> None:
        super().__init__()
        self.norm, self.head = norm, nn.Sequential(nn.Dropout())

    def train(self, mode: bool = True):
        super().train(mode)
        self.norm.eval()
        self.head.train(mode)
        return self


def test_train_asks_modules_below_that_define_it():
    norm = nn.BatchNorm1d(2)
    frozen = Frozen(norm)
    m = nn.Sequential(nn.Linear(2, 2), frozen, nn.Residual(norm))  # the norm is shared
    asked = []
    m[0].train = lambda mode: asked.append(mode)
    for mode in (True, False, True):
        assert m.train(mode) is m
        assert [m.training, m[2].training, frozen.training, frozen.head[0].training] == [mode] * 4
        assert not norm.training
    assert asked == [True, False, True]
    modes = [module.training for module in m.modules()]
    with evaluating(m):
        assert not any(module.training for module in m.modules())
    assert [module.training for module in m.modules()] == modes


def test_train_ends_where_modules_hold_each_other_and_takes_each_once():
    first, second = Frozen(nn.BatchNorm1d(2)), Frozen(nn.BatchNorm1d(2))
    first.other, second.other = second, first
    assert not any(module.training for module in first.eval().modules())
    assert first.train().training
    assert second.training
    layers = [nn.Module(), nn.Module()]
    for _ in range(60):  # 2^30 ways down
        layers.append(nn.Module())
        layers[-1].below = layers[-3:-1]
    assert not any(module.training for module in layers[-1].eval().modules())


# Copies ----------------------------------------------------------------------


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies_of_modules(twin):
    m = nn.Sequential(model(), nn.Dropout(0.5, generator=treadle.Generator(3)), Tied())
    m[0](treadle.randn(8, 4)).sum().backward()
    m.eval()
    m[0][0].bias.requires_grad_(False)
    other = twin(m)
    assert repr(other) == repr(m)
    assert not other[0].training
    assert other[2].c.weight is other[2].a.weight
    assert len(other.parameters()) == len(m.parameters())
    for (name, a), (same, b) in zip(m.state_dict().items(), other.state_dict().items(), strict=True):
        assert (name, a.dtype) == (same, b.dtype)
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert [p.requires_grad for p in other.parameters()] == [p.requires_grad for p in m.parameters()]
    assert all(p.grad is None for p in other.parameters())
    other[0][0].weight.copy_(treadle.zeros(3, 4))
    assert np.any(m[0][0].weight.numpy())


@pytest.mark.parametrize("kind", [nn.Parameter, nn.Buffer])
def test_copies_of_members(kind):
    p = kind(treadle.tensor([1.0, 2.0], dtype="float64"))
    p.scales, p.whole = [0.5], nn.Sequential()
    p.whole.part = p
    for twin in (copy.copy(p), copy.deepcopy(p), pickle.loads(pickle.dumps(p))):
        assert type(twin) is kind
        assert twin.scales == [0.5]
        assert twin.whole.part is (p if twin.whole is p.whole else twin)
        assert twin is not p
        assert (twin.dtype, twin.requires_grad, twin.tolist()) == (p.dtype, p.requires_grad, [1.0, 2.0])
        twin.copy_(treadle.zeros(2))
        assert p.tolist() == [1.0, 2.0]


def test_casting_keeps_attributes_of_parameters():
    linear = nn.Linear(2, 2)
    linear.weight.scale = 0.5
    assert linear.double().weight.scale == 0.5


def test_parameter_is_a_new_leaf():
    base = treadle.ones(2, requires_grad=True)
    p = nn.Parameter(base * 3)
    assert p.is_leaf
    assert p.requires_grad
    assert not nn.Parameter(base, False).requires_grad
    assert nn.Parameter([1.0], dtype="float64").dtype == "float64"
    assert repr(p) == "Parameter([3., 3.], requires_grad=True)"
    assert type(p + 1) is Tensor
    with pytest.raises(TypeError, match="expected float32 or float64, got int64"):
        nn.Parameter([1, 2])


# Modes, gradients, element types ---------------------------------------------


def test_a_call_passes_its_arguments_on_as_they_are():
    class Echo(nn.Module):
        def forward(self, *args, **kwargs):
            return args, kwargs

    echo = Echo()
    assert echo() == ((), {})
    assert echo(1) == ((1,), {})
    assert echo(None) == ((None,), {})
    assert echo(1, 2, x=3) == ((1, 2), {"x": 3})
    assert echo(1, x=3) == ((1,), {"x": 3})
    assert echo(x=4, y=5) == ((), {"x": 4, "y": 5})


def test_train_eval_apply_return_the_module():
    m = model()
    assert m.eval() is m
    assert not any(part.training for part in m.modules())
    assert m.train(np.bool_(True)) is m  # type: ignore[arg-type]
    assert all(part.training is True for part in m.modules())
    seen: list[nn.Module] = []
    assert m.apply(seen.append) is m
    assert seen[-1] is m
    assert len(seen) == len(list(m.modules()))


def test_zero_grad_passes_over_what_needs_no_gradient():
    m = nn.Linear(2, 2)
    m.bias.requires_grad_(False)
    m(treadle.ones(1, 2)).sum().backward()
    m.zero_grad()
    assert m.weight.grad is None
    assert m.bias.grad is None


def test_zero_grad_and_requires_grad():
    m = nn.Linear(2, 2)
    for clear in (m.zero_grad, m.reset_grad):
        m(treadle.ones(1, 2)).sum().backward()
        assert m.weight.grad is not None
        clear()
        assert m.weight.grad is None
    assert m.requires_grad_(False) is m
    assert not any(p.requires_grad for p in m.parameters())


def test_casting_reaches_every_float_member_and_keeps_sharing():
    m = nn.Sequential(Nested(), Tied())
    m[0].weight.requires_grad_(False)
    assert m.double() is m
    assert {str(p.dtype) for p in m.parameters()} == {str(treadle.float64)}
    assert m[0].count.dtype == "int64"
    assert m[0].table["deep"][0].running_mean.dtype == "float64"
    assert not m[0].weight.requires_grad
    assert m[1].c.weight is m[1].a.weight
    assert m[0].pair[0](treadle.ones(1, 2, dtype="float64")).dtype == "float64"
    assert m.float()[0].weight.dtype == "float32"
    assert m.astype(np.float64)[0].weight.dtype == "float64"
    assert m.to("float32")[0].weight.dtype == "float32"
    assert m.to("cpu") is m
    assert m.double().to(None)[0].weight.dtype == "float64"


def test_casting_changes_lists_and_dicts_in_place():
    m = Nested()
    m.listed = [nn.Parameter(treadle.ones(2))]
    listed, table = m.listed, m.table
    m.double()
    assert m.listed is listed
    assert m.table is table
    assert listed[0].dtype == "float64"


def test_casting_reaches_members_of_named_tuples():
    class Pair(NamedTuple):
        first: nn.Parameter
        second: str

    module = nn.Module()
    module.pair = Pair(nn.Parameter([1.0]), "kept")
    module.double()
    assert isinstance(module.pair, Pair)
    assert module.pair.first.dtype == "float64"
    assert module.pair.second == "kept"


def test_two_members_of_one_name_are_an_error():
    module = nn.Module()
    module.layers = {1: nn.Linear(2, 2), "1": nn.Linear(2, 2)}
    with pytest.raises(ValueError, match=r"expected one parameter or buffer of each name, got two named 'layers\.1\.weight'"):
        module.state_dict()
    module.layers["1"] = module.layers[1]
    assert sorted(module.state_dict()) == ["layers.1.bias", "layers.1.weight"]


def test_casting_to_what_cannot_be_learned():
    m = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="astype: expected dtype float32 or float64, got int64"):
        m.astype("int64")
    with pytest.raises(ValueError, match=r'to: expected device None or "cpu" \(treadle runs on the CPU\), got \'cuda\''):
        m.to("cuda")
    assert m.weight.dtype == "float32"
