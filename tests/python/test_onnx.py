"""`treadle.onnx`: what onnxruntime computes from an exported file is what treadle computes in evaluation mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import treadle
import treadle.onnx
from treadle import models, nn

# A layer, the shape it is exported with, and a batch that it is run on.
Case = tuple[nn.Module, tuple[int | None, ...], tuple[int, ...]]
LAYERS: list[Case] = [
    (nn.ELU(1.5), (None, 4), (3, 4)),
    (nn.GELU(), (None, 4), (3, 4)),
    (nn.LeakyReLU(0.2), (None, 4), (3, 4)),
    (nn.ReLU(), (None, 4), (3, 4)),
    (nn.SiLU(), (None, 4), (3, 4)),
    (nn.Sigmoid(), (None, 4), (3, 4)),
    (nn.Softplus(), (None, 4), (3, 4)),
    (nn.Tanh(), (None, 4), (3, 4)),
    (nn.Softmax(), (None, 4, 5), (3, 4, 5)),
    (nn.Softmax(1), (None, 4, 5), (3, 4, 5)),
    (nn.LogSoftmax(), (None, 4, 5), (3, 4, 5)),
    (nn.LogSoftmax(1), (None, 4, 5), (3, 4, 5)),
    (nn.Linear(4, 6), (None, 4), (3, 4)),
    (nn.Linear(4, 6, bias=False), (None, None, 4), (3, 5, 4)),
    (nn.Linear(4, 6), (4,), (4,)),
    (nn.Embedding(7, 3, padding_idx=0), (None, None), (3, 5)),
    (nn.Identity(), (None, 4), (3, 4)),
    (nn.Dropout(0.9), (None, 4), (3, 4)),
    (nn.Flatten(), (None, 2, 3, 4), (5, 2, 3, 4)),
    (nn.Flatten(2), (None, 2, 3, 4), (5, 2, 3, 4)),
    (nn.Flatten(0, 1), (None, 2, 3, 4), (5, 2, 3, 4)),
    (nn.Flatten(-3, -2), (None, 2, 3, 4), (5, 2, 3, 4)),
    (nn.Flatten(0), (None, 2), (5, 2)),
    (nn.BatchNorm1d(4), (None, 4), (3, 4)),
    (nn.BatchNorm1d(4, eps=0.1, affine=False), (None, 4, 5), (3, 4, 5)),
    (nn.BatchNorm1d(4, track_running_stats=False), (None, 4), (3, 4)),
    (nn.BatchNorm1d(4, affine=False, track_running_stats=False), (None, 4, 5), (3, 4, 5)),
    (nn.BatchNorm2d(4), (None, 4, 5, 6), (3, 4, 5, 6)),
    (nn.BatchNorm2d(4, track_running_stats=False), (None, 4, 5, 6), (3, 4, 5, 6)),
    (nn.InstanceNorm1d(4), (None, 4, 5), (3, 4, 5)),
    (nn.InstanceNorm1d(4, affine=True, eps=0.1), (None, 4, None), (3, 4, 5)),
    (nn.InstanceNorm1d(4, track_running_stats=True), (None, 4, 5), (3, 4, 5)),
    (nn.GroupNorm(2, 8), (None, 8), (3, 8)),  # a group of two values may have next to no variance
    (nn.GroupNorm(2, 4, eps=0.1), (None, 4, 5, 6), (3, 4, 5, 6)),
    (nn.GroupNorm(4, 4, affine=False), (None, 4, 5), (3, 4, 5)),
    (nn.LayerNorm(4), (None, 4), (3, 4)),
    (nn.LayerNorm((4, 5), eps=0.1, bias=False), (None, 4, 5), (3, 4, 5)),
    (nn.LayerNorm(4, elementwise_affine=False), (None, 4), (3, 4)),
    (nn.LayerNorm1d(4), (None, 4), (3, 4)),
    (nn.RMSNorm(4), (None, 4), (3, 4)),
    (nn.RMSNorm((4, 5), eps=0.1), (None, 4, 5), (3, 4, 5)),
    (nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)), (None, 4), (3, 4)),
    (nn.Residual(nn.Linear(4, 4)), (None, 4), (3, 4)),
    (models.MLP(4, (6, 5), 2, drop_prob=0.5), (None, 4), (3, 4)),
    (models.MLPResNet(4, 6, 2, 3), (None, 4), (3, 4)),
    (models.MLPResNet(4, 6, 2, 3, norm=nn.LayerNorm1d), (None, 4), (3, 4)),
]
# Losses are for training, and the others have no forward.
REFUSED = {
    nn.BCEWithLogitsLoss: nn.BCEWithLogitsLoss(),
    nn.CrossEntropyLoss: nn.CrossEntropyLoss(),
    nn.HuberLoss: nn.HuberLoss(),
    nn.L1Loss: nn.L1Loss(),
    nn.MSELoss: nn.MSELoss(),
    nn.NLLLoss: nn.NLLLoss(),
    nn.SoftmaxLoss: nn.SoftmaxLoss(),
    nn.Module: nn.Module(),
    nn.ModuleDict: nn.ModuleDict(),
    nn.ModuleList: nn.ModuleList(),
}


def draw(model: nn.Module, *shape: int) -> treadle.Tensor:
    return treadle.randint(0, 7, shape) if isinstance(model, nn.Embedding) else treadle.randn(*shape) * 2 + 1


def disturb(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Parameters and running statistics become others than those a layer starts with."""
    for parameter in model.parameters():
        parameter.copy_(treadle.randn(parameter.shape))
    with treadle.no_grad():
        for _ in range(3):
            model(draw(model, *shape))


def run(path: Path, x: treadle.Tensor) -> np.ndarray:
    """What onnxruntime makes of an input, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (y,) = session.run(["output"], {"input": x.numpy()})
    return np.asarray(y)


def test_every_class_is_exported_or_refused() -> None:
    shipped = {cls for module in (nn, models) for name in module.__all__ if isinstance(cls := getattr(module, name), type)}
    covered = {type(layer) for layer, _, _ in LAYERS}
    assert not covered & set(REFUSED)
    assert covered | set(REFUSED) == {cls for cls in shipped if issubclass(cls, nn.Module)}


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: f"{type(case[0]).__name__}{case[1]}")
def test_a_layer_computes_the_same_in_onnxruntime(tmp_path: Path, case: Case) -> None:
    layer, shape, batch = case
    disturb(layer, batch)
    before = {name: tensor.tolist() for name, tensor in layer.state_dict().items()}
    path = tmp_path / "layer.onnx"
    treadle.onnx.export(layer.train(), path, shape, "int64" if isinstance(layer, nn.Embedding) else "float32")
    onnx.checker.check_model(path, full_check=True)
    assert all(module.training for module in layer.modules())
    assert {name: tensor.tolist() for name, tensor in layer.state_dict().items()} == before
    layer.eval()
    rows = [batch[0]] if shape[0] is not None else [batch[0], 2 * batch[0] + 1, 1, 0]
    own = isinstance(layer, nn.BatchNorm1d) and layer.running_mean is None
    if own:
        rows.remove(1)  # one row has no statistics of its own
    if own or isinstance(layer, nn.GroupNorm):
        rows.remove(0)
    batches = [(n, *batch[1:]) for n in rows]
    for sizes in batches:
        x = draw(layer, *sizes)
        want = layer(x).detach().numpy()
        got = run(path, x)
        assert got.shape == want.shape
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


ACTIVATIONS = [layer for layer, *_ in LAYERS if type(layer).__module__ == "treadle.nn.activation"]


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=repr)
def test_an_activation_computes_the_same_far_from_zero(tmp_path: Path, layer: nn.Module) -> None:
    x = treadle.tensor(
        np.concatenate([np.linspace(-100, 100, 400), [0.0, -0.0, 1e-20, -1e-20, 1e-3]]).astype("float32").reshape(1, 9, 45)
    )
    treadle.onnx.export(layer, tmp_path / "layer.onnx", (None, 9, 45))
    np.testing.assert_allclose(run(tmp_path / "layer.onnx", x), layer(x).numpy(), rtol=1e-5, atol=1e-5)


NORMS = [case for case in LAYERS if type(case[0]).__module__ in ("treadle.nn.norm", "treadle.nn.spatial_norm")]


@pytest.mark.parametrize("case", NORMS, ids=lambda case: f"{type(case[0]).__name__}{case[1]}")
def test_a_norm_computes_the_same_far_from_zero(tmp_path: Path, case: Case) -> None:
    layer, shape, batch = case
    x = treadle.randn(4 * batch[0], *batch[1:]) + 1e4
    with treadle.no_grad():
        for _ in range(100):  # the running statistics, if any, become those of x
            layer.train()(x)
    want = layer.eval()(x).detach().numpy()
    treadle.onnx.export(layer, tmp_path / "layer.onnx", shape)
    np.testing.assert_allclose(run(tmp_path / "layer.onnx", x), want, rtol=1e-5, atol=1e-5)


def test_the_file_says_its_sizes_and_names_weights_as_the_state_dict(tmp_path: Path) -> None:
    model, path = models.MLP(4, (6,), 2), tmp_path / "model.onnx"
    treadle.onnx.export(model, path, (None, np.int64(4)))
    proto = onnx.load(path)
    (given,), (result,) = proto.graph.input, proto.graph.output
    for value, name, features in ((given, "input", 4), (result, "output", 2)):
        first, second = value.type.tensor_type.shape.dim
        assert (value.name, first.dim_param, second.dim_value) == (name, "batch", features)
    names = {initializer.name for initializer in proto.graph.initializer if not initializer.name.startswith("/")}
    assert names == {name for name in model.state_dict() if not name.endswith("num_batches_tracked")}
    assert (proto.opset_import[0].version, proto.producer_name, proto.producer_version) == (17, "treadle", treadle.__version__)


class Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input, self.output = nn.Parameter([7.0]), nn.Parameter([2.0])

    def forward(self, x: treadle.Tensor) -> treadle.Tensor:
        return x + self.input * self.output


def test_a_parameter_may_be_called_input_or_output(tmp_path: Path) -> None:
    @treadle.onnx.register(Shifted)
    def _(graph: Any, model: Shifted, x: str) -> str:
        return graph.node("Add", x, graph.node("Mul", graph.weight(model.input), graph.weight(model.output)))

    treadle.onnx.export(Shifted(), tmp_path / "model.onnx", (2, 1))
    assert run(tmp_path / "model.onnx", treadle.zeros(2, 1)).tolist() == [[14.0], [14.0]]


def test_shared_weights_are_written_once(tmp_path: Path) -> None:
    linear = nn.Linear(4, 4)
    model, path = nn.Sequential(linear, nn.Tanh(), linear), tmp_path / "model.onnx"
    treadle.onnx.export(model, path, (None, 4))
    assert sorted(initializer.name for initializer in onnx.load(path).graph.initializer) == ["0.bias", "0.weight"]
    x = treadle.randn(3, 4)
    np.testing.assert_allclose(run(path, x), model(x).detach().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("module", REFUSED.values(), ids=lambda module: type(module).__name__)
def test_losses_and_lists_are_refused_by_name(tmp_path: Path, module: nn.Module) -> None:
    with pytest.raises(TypeError, match=f"^onnx.export: expected an exporter for {type(module).__name__}, got none; register one"):
        treadle.onnx.export(module, tmp_path / "x.onnx", (None, 4))
    assert list(tmp_path.iterdir()) == []


class Doubled(nn.Module):
    """A model of one's own."""

    def __init__(self) -> None:
        self.linear = nn.Linear(4, 4)

    def forward(self, x: treadle.Tensor) -> treadle.Tensor:
        return self.linear(x).relu() * 2


class Louder(nn.Linear):
    """A layer with another forward than the one it derives from."""

    def forward(self, x: treadle.Tensor) -> treadle.Tensor:
        return super().forward(x) * 2


class Twice(nn.Linear):
    """A layer that is called in another way than the one it derives from."""

    def __call__(self, x: treadle.Tensor) -> treadle.Tensor:  # type: ignore[override]
        return super().__call__(super().__call__(x))


class Narrow(nn.Linear):
    """A layer with the forward it derives from."""

    def __init__(self) -> None:
        super().__init__(4, 1)


def test_a_forward_that_nobody_described_is_refused_by_place(tmp_path: Path) -> None:
    model, path = nn.Sequential(nn.Linear(4, 4), nn.Residual(Louder(4, 4))), tmp_path / "x.onnx"
    with pytest.raises(
        TypeError, match=r"expected an exporter for Louder at '1.fn', got none; register one with treadle.onnx.regis"
    ):
        treadle.onnx.export(model, path, (None, 4))
    assert not path.exists()
    assert all(module.training for module in model.modules())
    changed = nn.Sequential(nn.ReLU())
    changed[0].forward = lambda x: x * 2  # type: ignore[method-assign]
    for replaced, message in [
        (changed, "ReLU at '0', got a forward of the instance's; write a class with it and register one"),
        (nn.Sequential(Twice(4, 4)), "Twice at '0', got none; register one"),
    ]:
        with pytest.raises(TypeError, match=f"expected an exporter for {message}"):
            treadle.onnx.export(replaced, path, (None, 4))
    assert not path.exists()
    treadle.onnx.export(Narrow(), path, (None, 4))
    assert path.exists()


def test_a_model_of_ones_own_is_exported_by_what_is_registered(tmp_path: Path) -> None:
    @treadle.onnx.register(Doubled)
    def doubled(graph: treadle.onnx.Graph, model: Doubled, x: str) -> str:
        return graph.node("Mul", graph.node("Relu", graph.module(model.linear, x)), graph.constant(2.0))

    model, path = nn.Sequential(Doubled(), nn.Linear(4, 2)), tmp_path / "x.onnx"
    treadle.onnx.export(model, path, (None, 4))
    x = treadle.randn(3, 4)
    np.testing.assert_allclose(run(path, x), model(x).detach().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((nn.Linear(4, 2), (None, 5)), ValueError, r"expected a shape and dtype that the model takes, got \(None, 5\) of float32"),
        ((nn.Sequential(nn.Flatten(), nn.Linear(5, 2)), (None, 2, 3)), ValueError, r"expected a shape .*, got \(None, 2, 3\)"),
        ((nn.Linear(4, 2), (None, 4), "int64"), ValueError, r"expected a shape and dtype .*, got \(None, 4\) of int64"),
        ((nn.Linear(4, 2), (None, 4), "float64"), ValueError, "expected dtype 'float32' or 'int64', got 'float64'"),
        ((nn.Linear(4, 2), (None, 0)), ValueError, r"expected input_shape of sizes above 0 or None, got \(None, 0\)"),
        ((nn.Linear(4, 2), (-1, 4)), ValueError, r"expected .* or None, got \(-1, 4\); None stands for an axis that may vary"),
        ((nn.Linear(4, 2), ("batch", 4)), ValueError, r"expected .* or None, got \('batch', 4\); None stands for an axis"),
        ((nn.Linear(4, 2), 4), ValueError, "expected input_shape of sizes above 0 or None, got 4"),
        ((nn.Linear(4, 2), (None, 4.0)), ValueError, "expected input_shape of sizes above 0 or None"),
        (
            (nn.Linear(4, 2).double(), (None, 4)),
            ValueError,
            r"expected float32 parameters, got float64 in 'weight'; call model.float",
        ),
        ((treadle.zeros(2), (None, 4)), TypeError, "expected a Module, got Tensor"),
    ],
)
def test_wrong_arguments_are_named_and_nothing_is_written(tmp_path: Path, arguments: Any, error: type, message: str) -> None:
    model, *rest = arguments
    with pytest.raises(error, match=f"^onnx.export: {message}"):
        treadle.onnx.export(model, tmp_path / "x.onnx", *rest)
    assert list(tmp_path.iterdir()) == []


def test_a_weight_of_another_model_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"^onnx.export: expected a parameter or buffer of the model, got another tensor of shape \(4,\)"
    ):
        treadle.onnx.Graph(nn.Linear(4, 2)).weight(treadle.zeros(4))


def test_only_module_classes_are_registered() -> None:
    with pytest.raises(TypeError, match=r"^onnx.register: expected Module classes, got <class 'int'>"):
        treadle.onnx.register(int)  # type: ignore[type-var]


def test_without_the_package_onnx_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.startswith("treadle.onnx")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"^treadle.onnx: expected the package onnx, got none; pip install treadle\[onnx\]"):
        import treadle.onnx as again  # noqa: F401
