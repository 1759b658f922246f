"""An ONNX graph that grows operator by operator, in the words of the specification: https://onnx.ai/onnx/operators."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from seremo_jax.core.artefacts import ArtefactError

OPSET, IR_VERSION = 17, 8
"""The oldest opset that has all operators used here (LayerNormalization came last), and its version of the format."""
_MOST_BYTES = 2**31 - 1
"""What a protocol buffer may hold."""


def libraries() -> tuple[Any, Any]:
    """The modules `onnx` and `onnxruntime`.

    Raises:
      ArtefactError: One is not installed; the message names the extra that brings both.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ArtefactError(f"ONNX files need onnx and onnxruntime: pip install 'seremo_jax[onnx]' ({error})") from None
    return onnx, onnxruntime


class Graph:
    """A graph under construction. Values go by their names, and arrays and numbers become constants of the graph.

    A Python integer is an int64, a Python float a float32, as operators want them.

    Raises:
      ArtefactError: The extra `onnx` is not installed.
    """

    def __init__(self) -> None:
        self._onnx, _ = libraries()
        self._nodes: list[Any] = []
        self._constants: dict[tuple, Any] = {}
        self._shared: dict[tuple, Any] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []

    def __call__(self, operator: str, *inputs: Any, num_outputs: int = 1, **attributes: Any) -> Any:
        """Adds an operator.

        Args:
          operator: Its name.
          *inputs: Names, arrays or numbers.
          num_outputs: Outputs that it has.
          **attributes: Its attributes.

        Returns:
          The name of its output, or a tuple of them where there are several. An operator that is there already, with
          the same inputs, is not added again.
        """
        names = tuple(map(self._name, inputs))
        key = (operator, names, num_outputs, repr(sorted(attributes.items())))
        if key not in self._shared:
            outputs = [f"{operator}_{len(self._nodes)}_{i}" for i in range(num_outputs)]
            self._nodes.append(self._onnx.helper.make_node(operator, names, outputs, **attributes))
            self._shared[key] = outputs[0] if num_outputs == 1 else tuple(outputs)
        return self._shared[key]

    def cast(self, value: Any, dtype: str) -> str:
        """A value in another dtype, `float32`, `float64`, `float16`, `int64` or `int32`."""
        return self("Cast", value, to=self._kind(dtype))

    def size(self, value: str, axis: int) -> str:
        """Length of an axis that is known only when the graph runs, an int64 scalar."""
        return self("Gather", self("Shape", value), axis, axis=0)

    def positions(self, value: str, axis: int) -> str:
        """0, 1, ... up to the length of an axis, int32."""
        return self.cast(self("Range", 0, self.size(value, axis), 1), "int32")

    def is_within(self, value: str, axis: int, lengths: str) -> str:
        """[B, n] whether a position of an axis of length n lies below the length of each row, [B] int32."""
        return self("Less", self.positions(value, axis), self.spread(lengths, 1))

    def spread(self, value: Any, *axes: int) -> str:
        """A value with further axes of length 1, which then stand at these places."""
        return self("Unsqueeze", value, np.array(axes))

    def stack(self, values: Sequence[str]) -> str:
        """Values of one shape along a new first axis."""
        return self("Concat", *(self.spread(value, 0) for value in values), axis=0)

    def span(self, value: Any, stop: Any, *, start: int = 0, axis: int = 1, step: int = 1) -> str:
        """`value[start:stop:step]` along an axis; `stop` is an int64 scalar."""
        stop = self("Reshape", stop, np.array([1]))
        return self("Slice", value, np.array([start]), stop, np.array([axis]), np.array([step]))

    def total(self, values: str, axis: int) -> str:
        """The sum along an axis, which is gone then."""
        return self("ReduceSum", values, np.array([axis]), keepdims=0)

    def affine(self, x: str, w: np.ndarray, b: np.ndarray) -> str:
        """`x @ w + b`."""
        return self("Add", self("MatMul", x, w), b)

    def activated(self, x: str, name: str) -> str:
        """An activation by the name that settings and published configs give it.

        Raises:
          ArtefactError: It has no form here.
        """
        if name == "gelu":  # with the normal distribution itself
            share = self("Add", self("Erf", self("Mul", x, 0.5**0.5)), 1.0)
            return self("Mul", self("Mul", x, 0.5), share)
        require_form("the activation", name, ("none", "gelu", "relu", "tanh"))
        return x if name == "none" else self(name.capitalize(), x)

    def input(self, name: str, dtype: str, shape: Sequence[int | str]) -> str:
        """Adds an input of the graph; axes with a name are of any length."""
        self._inputs.append(self._onnx.helper.make_tensor_value_info(name, self._kind(dtype), shape))
        return name

    def output(self, name: str, value: str, shape: Sequence[int | str]) -> None:
        """Makes a float32 value an output of the graph."""
        self._nodes.append(self._onnx.helper.make_node("Identity", [value], [name]))
        self._outputs.append(self._onnx.helper.make_tensor_value_info(name, self._kind("float32"), shape))

    def operators(self) -> list[str]:
        """Names of the operators in the graph, each once."""
        return sorted({node.op_type for node in self._nodes})

    def content(self, name: str, metadata: Mapping[str, str]) -> bytes:
        """The finished model, checked against the specification.

        Args:
          name: Name of the graph.
          metadata: Its `metadata_props`.

        Raises:
          ArtefactError: It is larger than an ONNX file can be.
        """
        onnx = self._onnx
        num_bytes = sum(len(tensor.raw_data) for tensor in self._constants.values())
        if num_bytes > _MOST_BYTES:
            raise ArtefactError(f"{name}: {num_bytes} bytes of weights, but an ONNX file holds {_MOST_BYTES} at most")
        graph = onnx.helper.make_graph(self._nodes, name, self._inputs, self._outputs, list(self._constants.values()))
        opsets = [onnx.helper.make_opsetid("", OPSET)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="seremo_jax")
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()

    def _kind(self, dtype: str) -> int:
        return self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def _name(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        array = np.asarray(value, np.float32 if type(value) is float else None, order="C")
        key = (array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._constants:
            self._constants[key] = self._onnx.numpy_helper.from_array(array, f"constant_{len(self._constants)}")
        return self._constants[key].name


def require_form(what: str, name: str, known: Sequence[str]) -> None:
    """Refuses what cannot be written as ONNX.

    Args:
      what: Which setting it is, e.g. `model.pooling`.
      name: Its value.
      known: Values that can.

    Raises:
      ArtefactError: `name` is none of them.
    """
    if name not in known:
        raise ArtefactError(f"{what} {name!r} has no form in ONNX here; {', '.join(known)} have")
