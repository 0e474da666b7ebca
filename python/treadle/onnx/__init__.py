"""Export of models to ONNX files, which other runtimes and languages can run.

Needs the package onnx: `pip install treadle[onnx]`.
"""

try:
    import onnx  # noqa: F401
except ImportError as error:
    raise ImportError("treadle.onnx: expected the package onnx, got none; pip install treadle[onnx]") from error

from treadle.onnx import _layers  # noqa: F401  (it registers what it defines)
from treadle.onnx._graph import Graph, export, register

__all__ = ["Graph", "export", "register"]
