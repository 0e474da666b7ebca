"""`treadle.summary` counts right and leaves the model as it is; modules and histories show themselves in notebooks."""

from __future__ import annotations

import math
import sys
import threading
from xml.etree import ElementTree

import numpy as np
import pytest

import treadle
from treadle import models, nn
from treadle.training import History


class Attention(nn.Module):
    """Two inputs, a layer used twice, a layer never used, and operations of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.shared = nn.Linear(4, 4, bias=False)
        self.spare = nn.Linear(2, 2)

    def forward(self, index, x):
        return (self.shared(self.table(index)) @ self.shared(x).T).softmax()


def layers(model: nn.Module, shape: object) -> dict[str, object]:
    return {layer.name: layer for layer in treadle.summary(model, shape, repeats=1).layers}


# counts -------------------------------------------------------------------------


def test_shapes_parameters_and_operations_of_each_layer() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Residual(nn.Linear(5, 5, bias=False)), nn.Softmax())
    found = treadle.summary(model, (3, 6))
    assert [(layer.name, layer.kind, layer.output_shape, layer.parameters, layer.flops, layer.calls) for layer in found.layers] == [
        ("", "Sequential", (3, 5), 0, 0, 1),
        ("0", "Linear", (3, 5), 35, 3 * 5 * 12, 1),
        ("1", "BatchNorm1d", (3, 5), 10, 30, 1),
        ("2", "ReLU", (3, 5), 0, 15, 1),
        ("3", "Residual", (3, 5), 0, 15, 1),
        ("3.fn", "Linear", (3, 5), 25, 3 * 5 * 9, 1),
        ("4", "Softmax", (3, 5), 0, 75, 1),
    ]
    assert found.parameters == found.trainable == sum(p.size for p in model.parameters()) == 70
    assert found.flops == 180 + 30 + 15 + 15 + 135 + 75
    assert found.seconds == sum(layer.seconds for layer in found.layers) > 0


def test_operations_of_a_linear_are_those_of_the_product() -> None:
    """Against a count by hand: out values, each in multiplications, in − 1 additions and one for the bias."""
    for bias in (True, False):
        (layer,) = treadle.summary(nn.Linear(7, 3, bias=bias), (np.int64(2), 5, 7)).layers
        assert layer.flops == (2 * 5 * 3) * (7 + 6 + bias)


def test_several_inputs_shared_and_unused_layers() -> None:
    found = layers(Attention(), [treadle.tensor([1, 2, 3]), (2, 4)])
    assert found[""].output_shape == (3, 2)
    assert found[""].flops is None
    assert found["shared"].calls == 2
    assert found["shared"].flops == 3 * 4 * 7 + 2 * 4 * 7
    assert found["table"].flops == 0
    assert (found["spare"].calls, found["spare"].output_shape, found["spare"].parameters) == (0, None, 6)


def test_a_subclass_counts_by_the_forward_it_has() -> None:
    class Same(nn.Linear):
        """Another name."""

    class Other(nn.Linear):
        """Another forward."""

        def forward(self, x):
            return x * 2

    assert layers(Same(4, 2), (3, 4))[""].flops == 3 * 2 * 8
    assert layers(Other(4, 2), (3, 4))[""].flops is None


def test_shared_parameters_count_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    model[0].requires_grad_(False)
    found = treadle.summary(model, (2, 4))
    assert (found.parameters, found.trainable) == (24, 4)
    assert "4 parameters are trained, 20 are frozen" in str(found)


def test_float64_models_run_in_float64() -> None:
    class Check(nn.Module):
        def __init__(self) -> None:
            self.linear = nn.Linear(2, 2, dtype="float64")
            self.seen = []

        def forward(self, x):
            assert x.dtype == "float64"
            return self.linear(x)

    assert layers(Check(), (1, 2))[""].output_shape == (1, 2)


# the model stays as it is ------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_mode_statistics_gradients_types_and_chance_stay(training: bool) -> None:
    class Noise(nn.Module):
        """Draws whatever the mode."""

        def forward(self, x):
            return x + treadle.randn(*x.shape)

    class Closed(nn.Module):
        """Its function is not copied: it closes over this very module's norm, and counts the calls in buffers."""

        def __init__(self) -> None:
            self.norm, self.calls, self.again = nn.BatchNorm1d(3), nn.Buffer(treadle.zeros(())), nn.Buffer(treadle.zeros(()))
            self.function = lambda x: self.norm(x) + self.count()

        def count(self):
            self.again = self.again + 1
            return self.calls.copy_(self.calls + 1).detach()

        def forward(self, x):
            return self.function(x)

    model = nn.Sequential(nn.Linear(4, 3), Closed(), Noise(), nn.Dropout(0.5)).train(training)
    model(treadle.randn(8, 4)).sum().backward()
    values = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    gradients = [p.grad.numpy().copy() for p in model.parameters()]
    kinds, chance = [type(module) for module in model.modules()], treadle.default_generator().get_state()
    treadle.summary(model, (1, 4))
    assert [module.training for module in model.modules()] == [training] * 6
    assert [type(module) for module in model.modules()] == kinds
    assert treadle.default_generator().get_state() == chance
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), values[name])
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        np.testing.assert_array_equal(parameter.grad.numpy(), gradient)


def test_a_failing_model_stays_too() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(5, 2))
    with pytest.raises(ValueError, match="linear"):
        treadle.summary(model, (2, 4))
    assert [type(module) for module in model.modules()] == [nn.Sequential, nn.Linear, nn.Linear]
    assert model.training


def test_a_model_that_fails_says_what_it_was_given() -> None:
    with pytest.raises(TypeError, match="expected an int64 index, got float32") as caught:
        treadle.summary(nn.Embedding(10, 4), (3, 5))
    assert caught.value.__notes__ == [
        "summary: the model was given float32 of shape (3, 5); a Tensor as input_shape is given as it is"
    ]


def test_models_that_only_call_their_layers_have_no_operations_of_their_own() -> None:
    found = treadle.summary(models.MLPResNet(4, 6, 2, 3), (5, 4))
    assert all(layer.flops is not None for layer in found.layers)
    assert "not counted" not in str(found)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3, (1, 2)), TypeError, "summary: expected a module, got int"),
        ((nn.ReLU(), (0, 2)), ValueError, r"summary: expected input_shape as a tuple of sizes of at least 1, got \(0, 2\)"),
        ((nn.ReLU(), (True, 2)), ValueError, r"summary: expected input_shape as a tuple of sizes of at least 1, got \(True, 2\)"),
        ((nn.ReLU(), "ab"), ValueError, "summary: expected input_shape as a tuple of sizes of at least 1, got 'ab'"),
        ((nn.ReLU(), (1, 2), 0), ValueError, "summary: expected repeats of at least 1, got 0"),
    ],
)
def test_bad_calls(arguments: tuple[object, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        treadle.summary(*arguments)


def test_a_model_that_cannot_be_copied_is_named() -> None:
    model = nn.Linear(2, 2)
    vars(model)["lock"] = threading.Lock()
    with pytest.raises(TypeError, match=r"^summary: expected a model that copy\.deepcopy copies, got Linear \(.*lock.*\)$"):
        treadle.summary(model, (1, 2))


# what is shown -----------------------------------------------------------------


def test_the_table_lines_up_and_says_what_is_not_counted() -> None:
    assert str(treadle.summary(Attention(), [treadle.tensor([1]), (1, 4)])).isascii()  # as stdout may be
    lines = str(treadle.summary(Attention(), [treadle.tensor([1, 2, 3]), (2, 4)])).splitlines()
    assert lines[0].split() == ["layer", "output", "shape", "parameters", "FLOPs", "time"]
    table = [line for line in lines if not line.startswith("FLOPs")]
    assert len({len(line) for line in table}) == 1
    assert any(line.startswith("  shared: Linear (2 calls)") for line in lines)
    assert any(line.startswith("  spare: Linear") and line.endswith("not called") for line in lines)
    assert lines[-1] == "FLOPs written in the forward of Attention itself are not counted"
    assert repr(treadle.summary(nn.ReLU(), (1, 2))).startswith("layer")


def test_modules_in_lists_and_dicts_keep_their_names() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            self.e = [nn.Linear(4, 4), nn.Sequential(nn.Residual(nn.ReLU()))]
            self.d = {"k": nn.Tanh()}
            self.last = nn.Linear(4, 2)

        def forward(self, x: treadle.Tensor) -> treadle.Tensor:
            return self.last(self.d["k"](self.e[1](self.e[0](x))))

    names = [row[0] for row in treadle.summary(Model(), (2, 4))._rows()]
    assert names == [
        "Model", "  e.0: Linear", "  e.1: Sequential", "    0: Residual", "      fn: ReLU", "  d.k: Tanh", "  last: Linear", "total"
    ]  # fmt: skip


def parsed(html: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<body>{html}</body>")


def test_the_table_in_html_has_the_same_cells() -> None:
    found = treadle.summary(models.MLP(4, (3,), 2), (5, 4))
    rows = [[cell.text or "" for cell in row] for row in parsed(found._repr_html_()).iter("tr")]
    assert len(rows) == len(found.layers) + 2
    assert rows[2][:3] == ["layers: Sequential", "(5, 2)", "0"]
    assert rows[-1][:3] == ["total", "", "29"]


def test_modules_unfold_in_html() -> None:
    class Strange(nn.Module):
        def extra_repr(self) -> str:
            return "<script>"

    model = nn.Sequential(nn.Linear(4, 3), nn.Residual(nn.Linear(3, 3)), Strange())
    body = parsed(model._repr_html_())
    assert [b.text for b in body.iter("b")] == ["Sequential", "Linear", "Residual", "Linear", "Strange"]
    assert "<b>Strange</b>(&lt;script&gt;)" in model._repr_html_()
    assert "27 parameters" in "".join(body.find("details/summary").itertext())
    (outer,) = body.findall("details")
    assert "open" not in outer.find(".//details").attrib


def history() -> History:
    return History([{"epoch": n, "train_loss": 1.0 / n, "valid_loss": None, "lr": 0.1} for n in (1, 2, 3)])


def test_a_history_in_html() -> None:
    rows = [[cell.text for cell in row] for row in parsed(history()._repr_html_()).iter("tr")]
    assert rows[0] == ["epoch", "train_loss", "valid_loss", "lr"]
    assert rows[2] == ["2", "0.5", "–", "0.1"]
    assert History()._repr_html_() == "<p>History(0 epochs)</p>"


def test_a_history_draws_its_curves() -> None:
    figure = history().plot()
    (axes,) = figure.axes
    (line,) = axes.lines  # no curve where there are no values
    assert line.get_xdata().tolist() == [1, 2, 3]
    np.testing.assert_allclose(line.get_ydata(), [1, 1 / 2, 1 / 3])
    assert figure._repr_png_().startswith(b"\x89PNG")
    # A loss that is nowhere a number, and a name that is no formula.
    odd = History(
        [{"epoch": n, "train_loss": math.nan, "train_$\\frac$": 1.0, "valid_loss": None, "valid_$\\frac$": None} for n in (1, 2)]
    ).plot()
    assert odd._repr_png_().startswith(b"\x89PNG")
    assert [len(axes.lines) for axes in odd.axes] == [0, 1]
    with pytest.raises(ValueError, match="plot: expected at least one epoch, got none"):
        History().plot()


def test_drawing_without_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"plot: expected matplotlib, got none; pip install treadle\[plot\]"):
        history().plot()
