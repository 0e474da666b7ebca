"""Layers, losses and models against NumPy in float64, and what they say when they are used wrongly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import models, nn, ops
from treadle.nn import functional


def draw(*shape: int) -> np.ndarray:
    return treadle.randn(*shape).numpy().copy()


def close(got: Any, expected: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(got), np.asarray(expected), rtol=tolerance, atol=tolerance)


def check_gradient(layer: nn.Module, x: np.ndarray) -> None:
    """The gradients of x and every parameter, in one random direction, against central differences in float64."""
    layer.double()
    leaves = [treadle.tensor(x.astype("float64"), requires_grad=True), *layer.parameters()]
    y = layer(leaves[0])
    cotangent = treadle.randn(y.shape, dtype="float64").numpy()
    y.backward(treadle.tensor(cotangent))
    along = [treadle.randn(leaf.shape, dtype="float64").numpy() for leaf in leaves]
    start = [leaf.numpy().copy() for leaf in leaves]

    def value(step: float) -> float:
        for leaf, value, direction in zip(leaves, start, along, strict=True):
            leaf.copy_(value + step * direction)
        return float((layer(leaves[0]).detach().numpy() * cotangent).sum())

    expected = (value(1e-5) - value(-1e-5)) / 2e-5
    got = sum(float((leaf.grad.numpy() * d).sum()) for leaf, d in zip(leaves, along, strict=True))
    assert abs(got) > 1e-3
    assert got == pytest.approx(expected, rel=1e-6)


# Linear, Embedding, Flatten -----------------------------------------------------


def test_linear_is_x_wt_plus_b_and_starts_within_its_bound() -> None:
    layer, x = nn.Linear(50, 40), draw(3, 7, 50)
    close(layer(treadle.tensor(x)).detach(), x @ layer.weight.numpy().T + layer.bias.numpy())
    bound = 1 / math.sqrt(50)
    for p in layer.parameters():
        assert bound * 0.8 < np.abs(p.numpy()).max() <= bound
    assert nn.Linear(2, 3, bias=False).bias is None
    a, b = (nn.Linear(3, 3, generator=treadle.Generator(5)) for _ in range(2))
    assert a.weight.tolist() == b.weight.tolist()
    with pytest.raises(ValueError, match="linear: expected out_features of at least 1, got 0"):
        nn.Linear(3, 0)
    with pytest.raises(ValueError, match=r"linear: expected \(..., 50\), got \(2, 49\)"):
        layer(treadle.ones(2, 49))


def test_embedding_takes_rows_and_leaves_the_padding_row_alone() -> None:
    layer = nn.Embedding(5, 3, padding_idx=-1)
    index = treadle.tensor([[0, 4], [2, 0]])
    y = layer(index)
    np.testing.assert_array_equal(y.detach().numpy(), layer.weight.numpy()[index.numpy()])
    y.sum().backward()
    assert layer.weight.tolist()[4] == [0, 0, 0]
    assert layer.weight.grad.tolist() == [[2] * 3, [0] * 3, [1] * 3, [0] * 3, [0] * 3]
    assert repr(layer) == "Embedding(5, 3, padding_idx=-1)"
    with pytest.raises(IndexError):
        layer(treadle.tensor([5]))
    with pytest.raises(ValueError, match="embedding: expected padding_idx within 5 rows, got 5"):
        nn.Embedding(5, 3, padding_idx=5)


def test_flatten_and_identity() -> None:
    x = treadle.zeros(2, 3, 4, 5)
    assert nn.Flatten()(x).shape == (2, 60)
    assert nn.Flatten(0, 1)(x).shape == (6, 4, 5)
    assert nn.Identity()(x) is x


# Normalisation ---------------------------------------------------------------------


def test_layer_norms_against_numpy() -> None:
    x = 3 * draw(6, 4, 8) + 2
    wide = x.astype("float64")

    def norm(axes: tuple[int, ...]) -> np.ndarray:
        return (wide - wide.mean(axes, keepdims=True)) / np.sqrt(wide.var(axes, keepdims=True) + 1e-5)

    t = treadle.tensor(x)
    close(nn.LayerNorm(8)(t).detach(), norm((2,)), 2e-6)
    close(nn.LayerNorm((4, 8))(t).detach(), norm((1, 2)), 2e-6)
    close(nn.LayerNorm1d(8)(t).detach(), norm((2,)), 2e-6)
    close(nn.RMSNorm(8)(t).detach(), wide / np.sqrt((wide**2).mean(2, keepdims=True) + 1e-6), 2e-6)
    grouped = wide.reshape(6, 2, 2 * 8)
    expected = (grouped - grouped.mean(2, keepdims=True)) / np.sqrt(grouped.var(2, keepdims=True) + 1e-5)
    close(nn.GroupNorm(2, 4)(t).detach(), expected.reshape(x.shape), 2e-6)
    assert nn.LayerNorm(8, bias=False).bias is None
    assert nn.LayerNorm(8, elementwise_affine=False).parameters() == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.LayerNorm(0), "layer_norm: expected normalized_shape of at least 1, got 0"),
        (lambda: nn.RMSNorm(4, eps=0), "rms_norm: expected eps above 0, got 0"),
        (lambda: nn.GroupNorm(3, 4), "group_norm: expected a multiple of 3 groups, got 4 channels"),
        (lambda: nn.Dropout(1.5), "dropout: expected p in [0, 1], got 1.5"),
        (lambda: nn.HuberLoss(delta=0), "huber_loss: expected delta above 0, got 0"),
        (lambda: nn.MSELoss("average"), "loss: expected reduction 'mean', 'sum' or 'none', got 'average'"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=2), "cross_entropy: expected label_smoothing in [0, 1], got 2"),
        (lambda: nn.LayerNorm(4)(treadle.ones(2, 3)), "layer_norm: expected trailing shape (4,), got shape (2, 3)"),
        (
            lambda: nn.GroupNorm(2, 4, affine=False)(treadle.ones(2, 6)),
            "group_norm: expected 4 channels, got 6 in shape (2, 6)",
        ),
        (
            lambda: models.MLPResNet(4, hidden_dim=1),
            "mlp_resnet: expected hidden_dim of at least 2, got 1",
        ),
        (
            lambda: nn.utils.vector_to_parameters(treadle.ones(5), nn.Linear(2, 2).parameters()),
            "vector_to_parameters: expected shape (6,), got (5,)",
        ),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        make()
    assert str(caught.value) == message


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 3),
    "batch_norm": lambda: nn.BatchNorm1d(4),
    "batch_norm relu": lambda: nn.Sequential(nn.BatchNorm1d(4), nn.ReLU()),
    "layer_norm": lambda: nn.LayerNorm(4),
    "rms_norm": lambda: nn.RMSNorm(4),
    "group_norm": lambda: nn.GroupNorm(2, 4),
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "elu": lambda: nn.ELU(1.5),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "softmax": nn.Softmax,
    "log_softmax": lambda: nn.LogSoftmax(0),
    "residual": lambda: nn.Residual(nn.Linear(4, 4)),
    "flatten": nn.Flatten,
    "identity": nn.Identity,
    "dropout": lambda: nn.Dropout(0.0),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name: str) -> None:
    # Groups of two values alone would curve too much for differences.
    check_gradient(LAYERS[name](), draw(6, 4, 5) if name == "group_norm" else draw(6, 4))


@pytest.mark.parametrize("name", [*LAYERS, "embedding"])
def test_only_tensors_are_taken(name: str) -> None:
    layer = LAYERS[name]() if name in LAYERS else nn.Embedding(4, 2)
    for mode in (True, False):
        with pytest.raises(TypeError, match=r"ndarray"):
            layer.train(mode)(np.zeros((8, 4), "float32"))


# Activations, dropout -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.ReLU(), lambda x: np.maximum(x, 0)),
        (nn.LeakyReLU(0.2), lambda x: np.where(x > 0, x, 0.2 * x)),
        (nn.ELU(1.5), lambda x: np.where(x > 0, x, 1.5 * np.expm1(x))),
        (nn.GELU(), lambda x: x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))),
        (nn.SiLU(), lambda x: x / (1 + np.exp(-x))),
        (nn.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
        (nn.Tanh(), np.tanh),
        (nn.Softplus(), lambda x: np.log1p(np.exp(x))),
        (nn.Softmax(0), lambda x: np.exp(x) / np.exp(x).sum(0)),
        (nn.LogSoftmax(), lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))),
    ],
    ids=repr,
)
def test_activations(layer: nn.Module, expected: Any) -> None:
    x = 3 * draw(9, 5)
    close(layer(treadle.tensor(x)), expected(x.astype("float64")), 1e-6)


def test_dropout_keeps_the_mean_and_repeats_with_its_generator() -> None:
    x = treadle.ones(200, 100)
    layer = nn.Dropout(0.25, generator=treadle.Generator(1))
    y = layer(x).numpy()
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert y.mean() == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(nn.Dropout(0.25, generator=treadle.Generator(1))(x).numpy(), y)
    assert layer(x).tolist() != y.tolist()
    np.testing.assert_array_equal(layer.eval()(x).numpy(), x.numpy())
    assert not np.any(nn.Dropout(1.0)(x).numpy())


# Losses ---------------------------------------------------------------------------------


def log_softmax(x: np.ndarray) -> np.ndarray:
    wide = x.astype("float64")
    return wide - np.log(np.exp(wide).sum(-1, keepdims=True))


def test_cross_entropy_options() -> None:
    x, y, w = draw(6, 4), np.array([0, 3, 1, 1, 2, 0]), np.array([1.0, 2.0, 0.5, 3.0], "float32")
    logits, target, logp = treadle.tensor(x), treadle.tensor(y), log_softmax(x)
    each = -logp[np.arange(6), y]
    close(nn.CrossEntropyLoss()(logits, target), each.mean())
    close(nn.SoftmaxLoss(reduction="sum")(logits, target), each.sum())
    close(nn.CrossEntropyLoss(reduction="none")(logits, target), each)
    close(nn.CrossEntropyLoss(treadle.tensor(w))(logits, target), (each * w[y]).sum() / w[y].sum())
    close(nn.CrossEntropyLoss(ignore_index=1)(logits, target), each[y != 1].mean())
    close(nn.CrossEntropyLoss(label_smoothing=0.2)(logits, target), (0.8 * each - 0.2 * logp.mean(1)).mean())
    close(nn.CrossEntropyLoss()(logits, treadle.tensor(np.eye(4, dtype="float32")[y])), each.mean())
    close(nn.NLLLoss(treadle.tensor(w))(treadle.tensor(logp), target), (each * w[y]).sum() / w[y].sum())
    assert list(nn.CrossEntropyLoss(treadle.tensor(w)).state_dict()) == ["weight"]
    with pytest.raises(IndexError, match="got 4"):
        nn.CrossEntropyLoss()(logits, treadle.tensor([0, 1, 2, 3, 4, 0]))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_regression_losses(reduction: str) -> None:
    x, y = 2 * draw(5, 3), draw(5, 3)
    reduce = {"mean": np.mean, "sum": np.sum, "none": np.asarray}[reduction]
    a, b, d = treadle.tensor(x), treadle.tensor(y), (x - y).astype("float64")
    close(nn.MSELoss(reduction)(a, b), reduce(d**2))
    close(nn.L1Loss(reduction)(a, b), reduce(np.abs(d)))
    huber = np.where(np.abs(d) < 0.7, d**2 / 2, 0.7 * (np.abs(d) - 0.35))
    close(nn.HuberLoss(reduction, delta=0.7)(a, b), reduce(huber))
    p, w, pos = 1 / (1 + np.exp(-x.astype("float64"))), draw(5, 3) ** 2, draw(3) ** 2
    t = (y > 0).astype("float32")
    bce = -w * (pos * t * np.log(p) + (1 - t) * np.log(1 - p))
    loss = nn.BCEWithLogitsLoss(treadle.tensor(w), reduction, treadle.tensor(pos))
    close(loss(a, treadle.tensor(t)), reduce(bce))


# Functional, utils, ops, models ------------------------------------------------------------


def test_functional_gives_what_layers_give() -> None:
    x, y = treadle.tensor(draw(6, 4)), treadle.tensor([0, 1, 2, 3, 0, 1])
    bn, ln, gn, rms = nn.BatchNorm1d(4), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.RMSNorm(4)
    mean, var = treadle.zeros(4), treadle.ones(4)
    pairs = [
        (functional.batch_norm(x, mean, var, training=True), bn(x)),
        (functional.layer_norm(x, (4,)), ln(x)),
        (functional.group_norm(x, 2), gn(x)),
        (functional.rms_norm(x, (4,)), rms(x)),
        (functional.embedding(y, x), ops.take(x, y)),
        (functional.dropout(x, 0.5, training=False), x),
        (functional.cross_entropy(x, y, ignore_index=0, label_smoothing=0.1), nn.CrossEntropyLoss(None, "mean", 0.1, 0)(x, y)),
        (functional.nll_loss(x, y, reduction="sum"), nn.NLLLoss(reduction="sum")(x, y)),
        (functional.mse_loss(x, x + 1, "sum"), nn.MSELoss("sum")(x, x + 1)),
        (functional.l1_loss(x, x + 1), nn.L1Loss()(x, x + 1)),
        (functional.huber_loss(x, x + 3, delta=2.0), nn.HuberLoss(delta=2.0)(x, x + 3)),
        (functional.binary_cross_entropy_with_logits(x, x * 0), nn.BCEWithLogitsLoss()(x, x * 0)),
    ]
    for got, expected in pairs:
        np.testing.assert_array_equal(got.detach().numpy(), expected.detach().numpy())
    np.testing.assert_array_equal(mean.numpy(), bn.running_mean.numpy())


@pytest.mark.parametrize(
    "loss", [functional.mse_loss, functional.l1_loss, functional.huber_loss, functional.binary_cross_entropy_with_logits]
)
def test_targets_may_be_arrays_or_lists(loss: Any) -> None:
    x, y = treadle.tensor(draw(3, 2), requires_grad=True), draw(3, 2)
    for target in (y, y.tolist()):
        np.testing.assert_array_equal(loss(x, target).detach().numpy(), loss(x, treadle.tensor(y)).detach().numpy())
    with pytest.raises(TypeError, match="expected a Tensor, got ndarray"):
        loss(y, x)


def test_parameters_as_one_vector() -> None:
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    vector = nn.utils.parameters_to_vector(source.parameters())
    nn.utils.vector_to_parameters(vector, target.parameters())
    assert vector.shape == (8,)
    assert target.weight.tolist() == source.weight.tolist()
    assert target.bias.is_leaf


def test_names_of_course_material() -> None:
    a, b = draw(2, 3, 4), draw(2, 3, 4)
    x, y = treadle.tensor(a), treadle.tensor(b)
    for got, expected in [
        (ops.add(x, y), a + b),
        (ops.add_scalar(x, 2), a + 2),
        (ops.multiply(x, y), a * b),
        (ops.mul_scalar(x, 3), a * 3),
        (ops.divide(x, y), a / b),
        (ops.divide_scalar(x, 4), a / 4),
        (ops.power(x, x * 0 + 2), a**2),
        (ops.power_scalar(x, 3), a**3),
        (ops.negate(x), -a),
        (ops.transpose(x), a.swapaxes(-1, -2)),
        (ops.transpose(x, (0, 2)), a.swapaxes(0, 2)),
        (ops.transpose(x, axes=(0, 1)), a.swapaxes(0, 1)),
        (ops.reshape(x, (6, -1)), a.reshape(6, -1)),
        (ops.broadcast_to(ops.reshape(x[0, 0], (1, -1)), (5, 4)), np.broadcast_to(a[0, 0], (5, 4))),
        (ops.summation(x), a.sum()),
        (ops.summation(x, axes=(0, 2)), a.sum((0, 2))),
        (ops.matmul(x, ops.transpose(y)), a @ b.swapaxes(1, 2)),
        (ops.logsumexp(x, axes=1), np.log(np.exp(a).sum(1))),
        (ops.logsumexp(x), np.log(np.exp(a).sum())),
        (ops.logsoftmax(x), log_softmax(a)),
        (ops.stack([x, y], 1), np.stack([a, b], 1)),
        (ops.split(x, 2, 2)[1], np.split(a, 2, 2)[1]),
        (ops.flip(x, (0, 1)), np.flip(a, (0, 1))),
    ]:
        close(got, expected)
    assert all(hasattr(ops, name) for name in ops.__all__)


def test_models_train() -> None:
    assert models.MLP(5, (8, 6), 3, drop_prob=0.1)(treadle.tensor(draw(4, 5))).shape == (4, 3)
    model = models.MLPResNet(5, hidden_dim=16, num_blocks=2, num_classes=3, norm=nn.LayerNorm1d, drop_prob=0.0)
    x = treadle.tensor(draw(64, 5))
    y = x[:, :3].argmax(1)
    loss, values = nn.SoftmaxLoss(), []
    for _ in range(100):
        model.reset_grad()
        value = loss(model(x), y)
        value.backward()
        for p in model.parameters():
            p.copy_(p.detach() - 0.05 * p.grad)
        values.append(value.item())
    assert values[-1] < 0.9 * values[0]
    assert [type(m).__name__ for m in model.layers] == ["Linear", "ReLU", "Sequential", "Sequential", "Linear"]
    inner = ["Linear", "LayerNorm1d", "ReLU", "Dropout", "Linear", "LayerNorm1d"]
    assert [type(m).__name__ for m in model.layers[2][0].fn] == inner


def test_losses_show_what_is_not_at_its_default():
    weight = treadle.ones(3)
    shown = {
        nn.CrossEntropyLoss(): "CrossEntropyLoss(reduction='mean')",
        nn.CrossEntropyLoss(
            label_smoothing=0.1, ignore_index=3
        ): "CrossEntropyLoss(reduction='mean', label_smoothing=0.1, ignore_index=3)",
        nn.SoftmaxLoss(weight, "sum"): "SoftmaxLoss(reduction='sum', weight of shape (3,))",
        nn.HuberLoss(delta=0.3): "HuberLoss(reduction='mean', delta=0.3)",
        nn.BCEWithLogitsLoss(pos_weight=weight): "BCEWithLogitsLoss(reduction='mean', pos_weight of shape (3,))",
    }
    assert [repr(loss) for loss in shown] == list(shown.values())
