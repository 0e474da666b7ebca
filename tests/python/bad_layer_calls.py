"""Bad calls of layers, losses, initialisers and optimizers, which `test_bad_calls.py` makes, and the tensors it makes them of."""

from __future__ import annotations

from typing import Any

import numpy as np

import treadle
from treadle import init, nn, optim
from treadle.nn import functional as F
from treadle.optim import lr_scheduler

T = treadle.tensor
X = treadle.ones(3, 4)
V = treadle.ones(4)
N = T([1, 2, 3])
LEAF = treadle.ones(3, requires_grad=True)
Row = tuple[str, Any, type[Exception], str]


def _optimizer(**options: Any) -> Any:
    return optim.SGD([treadle.ones(2, requires_grad=True)], **options)


LAYERS: list[Row] = [
    ("Linear size", lambda: nn.Linear(0, 3), ValueError, "in_features of at least 1, got 0"),
    ("Linear float size", lambda: nn.Linear(2.5, 3), TypeError, "in_features as an int, got float"),
    ("Linear device", lambda: nn.Linear(2, 3, device="cuda"), ValueError, "cuda"),
    ("Linear dtype", lambda: nn.Linear(2, 3, dtype="int64"), (TypeError, ValueError), "int64"),
    ("Linear array", lambda: nn.Linear(4, 3)(np.zeros((2, 4), np.float32)), TypeError, "linear: expected a Tensor, got ndarray"),
    ("Linear features", lambda: nn.Linear(5, 3)(X), ValueError, r"got \(3, 4\)"),
    ("ReLU array", lambda: nn.ReLU()(np.ones(2)), TypeError, "^relu: expected a Tensor, got ndarray"),
    ("Softmax list", lambda: nn.Softmax()([1.0]), TypeError, "^softmax: expected a Tensor, got list"),
    ("Embedding range", lambda: nn.Embedding(5, 2)(T([5])), IndexError, "5"),
    ("Embedding floats", lambda: nn.Embedding(5, 2)(V), TypeError, "float32"),
    ("Embedding padding", lambda: nn.Embedding(5, 2, padding_idx=7), ValueError, "7"),
    ("BatchNorm dim", lambda: nn.BatchNorm1d(0), ValueError, "dim of at least 1, got 0"),
    ("BatchNorm eps", lambda: nn.BatchNorm1d(4, eps=0), ValueError, "eps above 0, got 0"),
    ("BatchNorm momentum", lambda: nn.BatchNorm1d(4, momentum=1.5), ValueError, r"momentum in \[0, 1\], got 1.5"),
    (
        "BatchNorm one row",
        lambda: nn.BatchNorm1d(8)(treadle.ones(1, 8)),
        ValueError,
        r"more than one value per channel, got shape \(1, 8\)",
    ),
    (
        "BatchNorm channels",
        lambda: nn.BatchNorm1d(4)(treadle.ones(8, 5)),
        ValueError,
        r"expected 4 channels, got 5 in shape \(8, 5\)",
    ),
    ("BatchNorm not affine", lambda: nn.BatchNorm1d(4, affine=False)(treadle.ones(8, 5)), ValueError, "expected 4 channels, got 5"),
    ("BatchNorm 1-d", lambda: nn.BatchNorm1d(4)(V), ValueError, r"\(N, C\) or \(N, C, L\), got \(4,\)"),
    ("BatchNorm 4-d", lambda: nn.BatchNorm1d(4)(treadle.ones(2, 4, 2, 2)), ValueError, r"got \(2, 4, 2, 2\)"),
    ("BatchNorm integers", lambda: nn.BatchNorm1d(2)(T([[1, 2], [3, 4]])), TypeError, "got int64"),
    ("BatchNorm array", lambda: nn.BatchNorm1d(4)(np.zeros((3, 4), np.float32)), TypeError, "got ndarray"),
    (
        "BatchNorm mask",
        lambda: nn.BatchNorm1d(4)(X, mask=T([True])),
        ValueError,
        r"bool mask of shape \(3,\), got bool of shape \(1,\)",
    ),
    ("BatchNorm2d", lambda: nn.BatchNorm2d(4)(X), ValueError, r"\(N, C, H, W\), got \(3, 4\)"),
    ("InstanceNorm mask", lambda: nn.InstanceNorm1d(4)(X, [1]), ValueError, "no mask, got list"),
    ("InstanceNorm", lambda: nn.InstanceNorm1d(4)(X), ValueError, r"\(N, 4, L\), got \(3, 4\)"),
    ("batch_norm activation", lambda: F.batch_norm(X, training=True, activation="tanh"), ValueError, "'tanh'"),
    ("LayerNorm shape", lambda: nn.LayerNorm(5)(X), ValueError, r"\(5,\).*\(3, 4\)|\(3, 4\).*\(5,\)"),
    ("LayerNorm integers", lambda: F.layer_norm(N, (3,)), TypeError, "int64"),
    ("GroupNorm groups", lambda: nn.GroupNorm(3, 4), ValueError, "3.*4"),
    ("GroupNorm channels", lambda: nn.GroupNorm(2, 4)(treadle.ones(2, 6)), ValueError, "4.*6|6.*4"),
    ("Dropout p", lambda: nn.Dropout(1.5), ValueError, r"p in \[0, 1\], got 1.5"),
    ("Dropout integers", lambda: F.dropout(N), TypeError, "int64"),
    ("Sequential", lambda: nn.Sequential(nn.ReLU(), 3), TypeError, "int"),
    ("ModuleList", lambda: nn.ModuleList([abs]), TypeError, "builtin_function"),
    ("Residual", lambda: nn.Residual(abs), TypeError, "expected a module, got builtin_function"),
    ("ModuleList of one", lambda: nn.ModuleList(nn.ReLU()), TypeError, "^ModuleList: expected a list of modules, got ReLU$"),
    (
        "ModuleDict list",
        lambda: nn.ModuleDict([nn.ReLU()]),
        TypeError,
        "^ModuleDict: expected a dict of modules by name, got list$",
    ),
    ("no forward", lambda: nn.Module()(X), TypeError, "forward"),
    ("load missing", lambda: nn.Linear(2, 2).load_state_dict({}), ValueError, "missing.*bias.*weight"),
    ("load list", lambda: nn.Linear(2, 2).load_state_dict([1]), TypeError, "a dict of tensors by name, got list"),  # type: ignore
    ("train", lambda: nn.Linear(2, 2).train("no"), ValueError, "mode as True or False, got 'no'"),  # type: ignore[arg-type]
    ("train none", lambda: nn.Linear(2, 2).train(None), ValueError, "mode as True or False, got None"),  # type: ignore[arg-type]
    ("load shape", lambda: nn.Linear(2, 2).load_state_dict({"weight": X, "bias": treadle.ones(2)}), ValueError, r"\(3, 4\)"),
    ("MLPResNet", lambda: treadle.models.MLPResNet(4, hidden_dim=1), ValueError, "hidden_dim.*1"),
    ("fuse", lambda: nn.utils.fuse_linear_bn(nn.Linear(2, 3), nn.BatchNorm1d(4)), ValueError, "3.*4"),
    ("fuse others", lambda: nn.utils.fuse_linear_bn(nn.Linear(2, 3), nn.ReLU()), TypeError, "a BatchNorm1d, got Linear and ReLU$"),
    ("vector", lambda: nn.utils.vector_to_parameters(V, [X.clone()]), ValueError, r"\(12,\), got \(4,\)"),
]

LOSSES: list[Row] = [
    ("cross_entropy range", lambda: F.cross_entropy(X, T([0, 1, 9])), IndexError, r"\[0, 4\), got 9 at position 2"),
    ("cross_entropy rows", lambda: F.cross_entropy(X, T([0, 1])), ValueError, r"\(3,\), got \(2,\)"),
    ("cross_entropy floats", lambda: F.cross_entropy(X, treadle.ones(3)), (TypeError, ValueError), "float32|\\(3,\\)"),
    ("cross_entropy 1-d", lambda: F.cross_entropy(V, T([0])), ValueError, r"\(4,\)"),
    ("cross_entropy smoothing", lambda: nn.CrossEntropyLoss(label_smoothing=2.0), ValueError, "2.0"),
    ("cross_entropy weight", lambda: F.cross_entropy(X, T([0, 1, 2]), treadle.ones(3)), ValueError, r"\(4,\), got .*\(3,\)"),
    ("reduction", lambda: F.mse_loss(X, X, "median"), ValueError, "median"),
    ("reduction of a layer", lambda: nn.L1Loss("median"), ValueError, "median"),
    ("mse shapes", lambda: F.mse_loss(X, treadle.ones(3, 1)), ValueError, r"\(3, 4\).*\(3, 1\)"),
    ("mse array", lambda: F.mse_loss(np.ones((3, 4)), X), TypeError, "got ndarray"),
    ("huber delta", lambda: nn.HuberLoss(delta=0), ValueError, "above 0, got 0"),
    ("bce shapes", lambda: F.binary_cross_entropy_with_logits(X, V[:2]), ValueError, r"\(2,\)"),
    ("nll range", lambda: F.nll_loss(X, T([0, 1, -5])), IndexError, "-5"),
]

INIT: list[Row] = [
    ("xavier fans", lambda: init.xavier_uniform(0, 3), ValueError, "fan_in of at least 1, got 0"),
    ("kaiming nonlinearity", lambda: init.kaiming_uniform(3, 3, nonlinearity="cubic"), ValueError, "cubic"),
    ("orthogonal dims", lambda: init.orthogonal((3,)), ValueError, r"\(3,\)"),
    ("init device", lambda: init.ones(3, device="tpu"), ValueError, "tpu"),
]

OPTIM: list[Row] = [
    ("none", lambda: optim.SGD([]), ValueError, "at least one parameter, got none"),
    ("not tensors", lambda: optim.SGD([3]), TypeError, "got int"),
    ("not a leaf", lambda: optim.SGD([LEAF * 2]), ValueError, "got the output of mul"),
    ("twice", lambda: optim.SGD([LEAF, LEAF]), ValueError, "every parameter once"),
    ("lr", lambda: _optimizer(lr=-1), ValueError, "lr as a finite number of at least 0, got -1"),
    ("lr nan", lambda: _optimizer(lr=float("nan")), ValueError, "nan"),
    ("momentum", lambda: _optimizer(momentum=-0.1), ValueError, "-0.1"),
    ("nesterov", lambda: _optimizer(nesterov=True), ValueError, "momentum 0.0"),
    ("weight decay", lambda: _optimizer(weight_decay=-1), ValueError, "-1"),
    ("betas", lambda: optim.Adam([LEAF], betas=(0.9, 1.0)), ValueError, "1.0"),
    ("alpha", lambda: optim.RMSprop([LEAF], alpha=1.0), ValueError, "1.0"),
    ("unknown option", lambda: optim.SGD([{"params": [LEAF], "speed": 2}]), ValueError, "speed"),
    ("load list of groups", lambda: _optimizer().load_state_dict([1]), TypeError, "sgd: expected a state_dict, got list"),
    ("load groups", lambda: _optimizer().load_state_dict({"groups": []}), ValueError, "1 parameter groups, got 0"),
    ("step size", lambda: lr_scheduler.StepLR(_optimizer(), 0), ValueError, "at least 1, got 0"),
    ("cosine", lambda: lr_scheduler.CosineAnnealingLR(_optimizer(), 0), ValueError, "got 0"),
    ("linear", lambda: lr_scheduler.LinearLR(_optimizer(), start_factor=0), ValueError, "0"),
    ("plateau mode", lambda: lr_scheduler.ReduceLROnPlateau(_optimizer(), "median"), ValueError, "median"),
    ("one cycle", lambda: lr_scheduler.OneCycleLR(_optimizer(), 0.1, 0), ValueError, "got 0"),
    ("clip norm", lambda: optim.clip_grad_norm_([LEAF], -1.0), ValueError, "-1"),
    ("clip value", lambda: optim.clip_grad_value_([LEAF], -1.0), ValueError, "-1"),
    ("threads", lambda: treadle.set_num_threads(0), ValueError, r"\[1, 1024\], got 0"),
]
