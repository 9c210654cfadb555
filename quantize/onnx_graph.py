"""An ONNX graph, node by node: names, weights, and the few blocks that several of our graphs are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from beingh0_edge.types import FloatArray

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 17, 8  # LayerNormalization came with opset 17; ONNX Runtime 1.17 reads this
INT4_OPSET, INT4_IR_VERSION = 21, 10  # blocks of 4-bit integers came with opset 21
INT4_BLOCK = 32
_ALIGNMENT = 64
_SMALLEST_OUTSIDE = 1024  # bytes; shapes and the like stay in the graph, where tools look for them

Axes = Sequence[int | str]


class Graph:
    """Grows by `op`; inputs and results are value names.

    data  where weights go: one file beside the graph that is written as they come, so that none stays in memory;
          None keeps them inside the graph, which then may not exceed 2 GB
    int4  whether there may be weights by `int4`, which needs a newer operator set
    """

    def __init__(self, data: Path | None = None, *, int4: bool = False) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._known: set[str] = set()
        self._outer: dict[str, onnx.TensorProto] = {}
        self._data = data
        self._int4 = int4
        if data is not None:
            data.write_bytes(b"")

    def sibling(self) -> Graph:
        """Another graph over the same weight file: a tensor of a name that is in the file already is not added."""
        other = Graph(int4=self._int4)
        other._data, other._outer = self._data, self._outer
        return other

    def op(self, kind: str, inputs: Sequence[str], out: str | None = None, **attributes: Any) -> str:
        return self.ops(kind, inputs, [out or f"{kind}_{len(self.nodes)}"], **attributes)[0]

    def ops(self, kind: str, inputs: Sequence[str], outs: Sequence[str], **attributes: Any) -> Sequence[str]:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, outs, name=f"node_{len(self.nodes)}", **attributes))
        return outs

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        """A tensor under a name; the same name again is the same tensor."""
        from onnx import numpy_helper

        if name not in self._known:
            self._known.add(name)
            tensor = numpy_helper.from_array(np.ascontiguousarray(value), name)
            self.weights.append(self._outside(tensor) if value.nbytes >= _SMALLEST_OUTSIDE else tensor)
        return name

    def numbers(self, *values: int) -> str:
        """int64[n]"""
        return self.constant("int_" + "_".join(map(str, values)), np.array(values, np.int64))

    def number(self, value: float) -> str:
        """float32[]"""
        return self.constant(f"float_{value!r}", np.array(value, np.float32))

    def streamed(self, name: str, shape: tuple[int, ...], kind: type[np.floating[Any]],
                 slices: Iterable[FloatArray]) -> str:
        """A large tensor in the weight file, written slice by slice along its first axis."""
        from onnx import TensorProto, helper

        if self._data is None:
            raise ValueError("a streamed tensor needs a weight file")
        tensor = TensorProto(name=name, dims=shape, data_type=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
        self._outer[name] = self._placed(tensor, (self._cast(name, part, kind).tobytes() for part in slices))
        self.weights.append(tensor)
        return name

    @staticmethod
    def _cast(name: str, value: FloatArray, kind: type[np.floating[Any]]) -> npt.NDArray[np.floating[Any]]:
        with np.errstate(over="ignore"):
            stored = value.astype(kind)
        if not np.isfinite(stored).all():
            raise ValueError(f"{name}: values beyond the range of fp16; use fp32")
        return stored

    def half(self, name: str, value: FloatArray) -> str:
        """Stored in half precision, computed with in float32."""
        return self.op("Cast", [self.constant(name, self._cast(name, value, np.float16))], to=1)

    def int4(self, name: str, value: FloatArray) -> str:
        """float32[inputs, outputs] in signed 4-bit blocks of 32 along the inputs, each with a float32 scale.

        Source: the rounding of llama.cpp's Q4_0, whose scale puts the largest value of a block at -8.
        """
        from onnx import TensorProto, helper

        rows, columns = value.shape
        blocks = value.reshape(rows // INT4_BLOCK, INT4_BLOCK, columns)
        largest = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)
        scale = largest / -8
        with np.errstate(divide="ignore", invalid="ignore"):
            codes = np.where(scale == 0, 0, np.clip(np.rint(blocks / scale), -8, 7)).astype(np.int8).reshape(-1)
        packed = (codes[0::2] & 0x0F) | ((codes[1::2] & 0x0F) << 4)
        if name not in self._known:
            self._known.add(name)
            tensor = helper.make_tensor(name, TensorProto.INT4, (rows, columns), packed.astype(np.uint8).tobytes(),
                                        raw=True)
            self.weights.append(self._outside(tensor))
        scales = self.constant(f"{name}.scale", scale[:, 0].astype(np.float32))
        return self.op("DequantizeLinear", [name, scales], axis=0, block_size=INT4_BLOCK)

    def _outside(self, tensor: onnx.TensorProto) -> onnx.TensorProto:
        if self._data is None:
            return tensor
        if tensor.name in self._outer:
            return self._outer[tensor.name]
        raw = tensor.raw_data
        tensor.ClearField("raw_data")
        self._outer[tensor.name] = self._placed(tensor, [raw])
        return tensor

    def _placed(self, tensor: onnx.TensorProto, pieces: Iterable[bytes]) -> onnx.TensorProto:
        """Appends the bytes to the weight file and says in the tensor where they lie."""
        from onnx import TensorProto

        if self._data is None:
            raise ValueError("no weight file")
        with self._data.open("ab") as file:
            file.write(b"\0" * (-file.tell() % _ALIGNMENT))
            start = file.tell()
            for piece in pieces:
                file.write(piece)
            length = file.tell() - start
        for key, value in (("location", self._data.name), ("offset", start), ("length", length)):
            tensor.external_data.add(key=key, value=str(value))
        tensor.data_location = TensorProto.EXTERNAL
        return tensor

    def model(self, name: str, inputs: Sequence[tuple[str, Any, Axes]],
              outputs: Sequence[tuple[str, Any, Axes]]) -> onnx.ModelProto:
        """(name, numpy type, axes) each; a text names an axis of any length."""
        from onnx import helper

        def info(value: tuple[str, Any, Axes]) -> onnx.ValueInfoProto:
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(value[1]))
            return helper.make_tensor_value_info(value[0], kind, value[2])

        return self.finished(name, [*map(info, inputs)], [*map(info, outputs)])

    def finished(self, name: str, inputs: Sequence[onnx.ValueInfoProto],
                 outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
        from onnx import helper

        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.weights)
        opset, ir = (INT4_OPSET, INT4_IR_VERSION) if self._int4 else (OPSET, IR_VERSION)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir,
                                 producer_name="beingh0-edge")

    # ---- blocks

    def reshape(self, x: str, *shape: int) -> str:
        return self.op("Reshape", [x, self.numbers(*shape)])

    def rms_norm(self, x: str, weight: str, eps: float) -> str:
        squares = self.op("Mul", [x, x])
        if self._int4:  # the axes became an input with opset 18
            mean = self.op("ReduceMean", [squares, self.numbers(-1)], keepdims=1)
        else:
            mean = self.op("ReduceMean", [squares], axes=[-1], keepdims=1)
        root = self.op("Sqrt", [self.op("Add", [mean, self.number(eps)])])
        return self.op("Mul", [self.op("Div", [x, root]), weight])

    def gelu(self, x: str) -> str:
        """The exact form."""
        gate = self.op("Add", [self.op("Erf", [self.op("Div", [x, self.number(2**0.5)])]), self.number(1.0)])
        return self.op("Mul", [self.op("Mul", [x, gate]), self.number(0.5)])

    def silu(self, x: str) -> str:
        return self.op("Mul", [x, self.op("Sigmoid", [x])])
