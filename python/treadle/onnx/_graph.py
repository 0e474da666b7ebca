"""The ONNX graph while it is built, and which function writes which module into it.

Invariant: a module is exported by the function of the class whose `forward` it runs, or not at all: a subclass with a forward of
its own computes something that nobody has described in ONNX, and so does an instance with one, or a class with its own `__call__`.
Source: the operators' specification, https://onnx.ai/onnx/operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

import treadle
from treadle import nn
from treadle._core import Tensor
from treadle.checks import is_size
from treadle.nn.mode import evaluating
from treadle.serialization import write_atomic

__all__ = ["Exporter", "Graph", "export", "register"]

# The first with LayerNormalization, and the file version that goes with it: what old runtimes can read.
_OPSET, _IR_VERSION = 17, 8
_DTYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


class Graph:
    """Nodes and weights of an ONNX graph, in order; a value in it is the name of what it comes from.

    Functions given to `register` get one and call its methods.
    """

    def __init__(self, model: nn.Module) -> None:
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self._names: dict[int, str] = {}
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            self._names[id(tensor)] = f"/{name}" if name in ("input", "output") else name
        self._paths = {id(module): name for name, module in model.named_modules()}

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node of the standard operators.

        Args:
            operator: Its name, such as "Relu".
            *inputs: Values it takes.
            **attributes: As the operator defines them.

        Returns:
            Its (first) output.
        """
        # No attribute has a slash in its name, so that no weight has this one.
        output = f"/{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def weight(self, tensor: Tensor) -> str:
        """A parameter or buffer of the model as a value, under its name in the state_dict; a shared one is written once.

        The names "input" and "output" are those of the whole graph: such a parameter is written as "/input" or "/output".

        Args:
            tensor: A parameter or buffer of the exported model.

        Raises:
            ValueError: Another tensor, which `constant` takes.
        """
        name = self._names.get(id(tensor))
        if name is None:
            raise ValueError(
                f"onnx.export: expected a parameter or buffer of the model, got another tensor of shape {tensor.shape}"
            )
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(tensor.numpy(), name)
        return name

    def constant(self, values: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """An array as a value.

        Args:
            values: Anything that NumPy makes an array of.
            dtype: Its element type in the file.
        """
        name = f"/constant_{len(self.initializers)}"
        self.initializers[name] = numpy_helper.from_array(np.asarray(values, dtype), name)
        return name

    def module(self, module: nn.Module, x: str) -> str:
        """Adds what a module computes in evaluation mode.

        Args:
            module: One of the exported model.
            x: Its input.

        Returns:
            Its output.

        Raises:
            TypeError: No function is registered for the class whose forward the module runs, or it runs that of no class.
        """
        kind, own = type(module), "forward" in vars(module)
        for cls in kind.__mro__:
            if cls in _EXPORTERS and not own and kind.forward is cls.forward and kind.__call__ is cls.__call__:
                return _EXPORTERS[cls](self, module, x)
        place = self._paths.get(id(module), "")
        where = f"{kind.__name__} at {place!r}" if place else kind.__name__
        what = "a forward of the instance's; write a class with it and" if own else "none;"
        raise TypeError(f"onnx.export: expected an exporter for {where}, got {what} register one with treadle.onnx.register")


Exporter = Callable[[Graph, Any, str], str]
E = TypeVar("E", bound=Exporter)
_EXPORTERS: dict[type[Any], Exporter] = {}


def register(*classes: type[nn.Module]) -> Callable[[E], E]:
    """Says how modules of a class are exported: decorates a function of graph, module and input that gives the output.

    Args:
        *classes: Module classes; their subclasses are exported alike if they keep the forward.

    Raises:
        TypeError: Something that is not a Module class.

    Example:
        >>> @treadle.onnx.register(Model)
        ... def _(graph, model, x):
        ...     return graph.node("Relu", graph.module(model.linear, x))
    """
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise TypeError(f"onnx.register: expected Module classes, got {cls!r}")

    def keep(exporter: E) -> E:
        _EXPORTERS.update(dict.fromkeys(classes, exporter))
        return exporter

    return keep


def export(model: nn.Module, path: str | PathLike[str], input_shape: Sequence[int | None], dtype: str = "float32") -> None:
    """Writes what a model computes in evaluation mode to an ONNX file (opset 17), atomically.

    The file has one input named "input" and one output named "output". The model's own mode and statistics stay as they are.

    Args:
        model: Made of treadle's layers, and of classes known through `register`; in float32.
        path: The file to write.
        input_shape: Sizes of the input's axes; None for one that may vary, such as the batch, which may be empty too, but for
            GroupNorm and norms by statistics of the batch.
        dtype: Element type of the input, "float32", or "int64" for a model that begins with an Embedding.

    Raises:
        TypeError: Something other than a Module; a module without an exporter (losses have none).
        ValueError: A shape or dtype that the model does not take, or parameters in float64.
        OSError: The file cannot be written.

    Example:
        >>> treadle.onnx.export(model, "model.onnx", (None, 64))
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"onnx.export: expected a Module, got {type(model).__name__}")
    sizes = tuple(input_shape) if isinstance(input_shape, Sequence) else None
    if sizes is None or not all(n is None or is_size(n) for n in sizes):
        how = "None stands for an axis that may vary, such as the batch: (None, 64)"
        raise ValueError(f"onnx.export: expected input_shape of sizes above 0 or None, got {input_shape!r}; {how}")
    if dtype not in _DTYPES:
        raise ValueError(f"onnx.export: expected dtype 'float32' or 'int64', got {dtype!r}")
    for name, tensor in model.named_parameters():
        if tensor.dtype != "float32":
            raise ValueError(f"onnx.export: expected float32 parameters, got {tensor.dtype.name} in {name!r}; call model.float()")
    graph = Graph(model)
    with evaluating(model):
        graph.node("Identity", graph.module(model, "input"))
    graph.nodes[-1].output[0] = "output"
    write_atomic(path, _proto(graph, sizes, dtype).SerializeToString())


def _proto(graph: Graph, sizes: tuple[int | None, ...], dtype: str) -> Any:
    """The checked file: ONNX's own inference says whether the shapes fit, and what the output's is."""
    axes = [("batch" if axis == 0 else f"axis_{axis}") if n is None else int(n) for axis, n in enumerate(sizes)]
    given = helper.make_tensor_value_info("input", _DTYPES[dtype], axes)
    result = helper.make_tensor_value_info("output", TensorProto.FLOAT, None)
    body = helper.make_graph(graph.nodes, "treadle", [given], [result], list(graph.initializers.values()))
    about = {"producer_name": "treadle", "producer_version": treadle.__version__, "ir_version": _IR_VERSION}
    proto = helper.make_model(body, opset_imports=[helper.make_opsetid("", _OPSET)], **about)
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
        proto.graph.output[0].CopyFrom(inferred.graph.output[0])
        onnx.checker.check_model(proto)
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise ValueError(
            f"onnx.export: expected a shape and dtype that the model takes, got {sizes} of {dtype} ({error})"
        ) from None
    return proto
