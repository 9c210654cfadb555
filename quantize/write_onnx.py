"""Writes vision tower, pixel shuffle and projector as one ONNX graph, node by node from the weights.

Input `pixel_values` float32[1, 3, S, S], output `visual_embeddings` float32[1, tokens, hidden]. Two inner
values keep fixed names for whoever compares: `tower_output` (with the class token) and `pixel_shuffled`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, get_args

import numpy as np

from beingh0_edge.bundle import VisionPrecision, VisionSpec
from beingh0_edge.types import FloatArray

from .checkpoint import PROJECTOR, VISION, Checkpoint, Progress
from .config import VisionConfig
from .int8_vision import quantize
from .onnx_graph import Graph

if TYPE_CHECKING:
    import onnx

PROJECTOR_EPS = 1e-5
VISION_PRECISIONS = get_args(VisionPrecision)
VISION_CHOICES = "'fp32', 'fp16', 'int8' or 'int8_dynamic'"


def write_vision(checkpoint: Checkpoint, path: Path, precision: VisionPrecision,
                 progress: Progress | None = None, frames: Sequence[FloatArray] = ()) -> VisionSpec:
    """Writes the graph. With "fp16" matrices are stored in half precision and computed in float32.

    frames  float32[3, S, S], normalised: what "int8" is calibrated on
    """
    import onnx

    if precision not in VISION_PRECISIONS:
        raise ValueError(f"vision: expected {VISION_CHOICES}, got {precision!r}")
    if precision == "int8" and not frames:
        raise ValueError("vision 'int8' needs pictures to calibrate on")
    c = checkpoint.config
    if precision in ("int8", "int8_dynamic"):
        _write_8_bit(checkpoint, path, frames if precision == "int8" else None, progress)
    else:
        model = _VisionGraph(checkpoint, Graph(), precision == "fp16", progress).build()
        onnx.checker.check_model(model)
        onnx.save_model(model, str(path))
    return VisionSpec(path.name, precision, c.image_size, c.image_tokens)


def _write_8_bit(checkpoint: Checkpoint, path: Path, frames: Sequence[FloatArray] | None,
                 progress: Progress | None) -> None:
    """By way of a file with the float32 graph, whose weights then need not be in memory."""
    import onnx

    with TemporaryDirectory(prefix=".beingh0-", suffix=".float32", dir=path.parent) as scratch:
        exact = Path(scratch) / "vision.onnx"
        graph = Graph(Path(scratch) / "vision.onnx.data")
        onnx.save_model(_VisionGraph(checkpoint, graph, False, progress).build(), str(exact))
        quantize(exact, path, frames)
        onnx.checker.check_model(str(path))


class _VisionGraph:
    def __init__(self, checkpoint: Checkpoint, graph: Graph, half: bool, progress: Progress | None) -> None:
        self._source, self._half, self._progress = checkpoint, half, progress
        self._c = checkpoint.config.vision
        self._g = graph
        self._op = self._g.op

    def build(self) -> onnx.ModelProto:
        config = self._source.config
        x = self._embeddings("pixel_values")
        for i in range(self._c.layers):
            x = self._layer(x, f"{VISION}encoder.layers.{i}.")
            if self._progress:
                self._progress(i + 1, self._c.layers, f"vision layer {i}")
        x = self._op("Identity", [x], out="tower_output")
        x = self._projector(self._pixel_shuffle(x))
        self._op("Identity", [x], out="visual_embeddings")
        size, hidden = config.image_size, config.language.hidden
        return self._g.model("vision", [("pixel_values", np.float32, [1, 3, size, size])],
                             [("visual_embeddings", np.float32, [1, config.image_tokens, hidden])])

    # ---- the network

    def _embeddings(self, pixels: str) -> str:
        c, grid = self._c, self._source.config.grid
        prefix = VISION + "embeddings."
        kernel = self._matrix(prefix + "patch_embedding.weight", transpose=False)
        bias = self._vector(prefix + "patch_embedding.bias")
        x = self._op("Conv", [pixels, kernel, bias], kernel_shape=[c.patch] * 2, strides=[c.patch] * 2)
        x = self._g.reshape(x, 1, c.hidden, grid * grid)
        x = self._op("Transpose", [x], perm=[0, 2, 1])
        x = self._op("Concat", [self._vector(prefix + "class_embedding"), x], axis=1)
        table = resize_positions(self._source.tensor(prefix + "position_embedding"), grid)
        return self._op("Add", [x, self._g.constant(prefix + "position_embedding", table)])

    def _layer(self, x: str, prefix: str) -> str:
        attention = self._attention(self._norm(x, prefix + "norm1"), prefix + "attn.")
        x = self._op("Add", [x, self._op("Mul", [attention, self._vector(prefix + "ls1")])])
        hidden = self._g.gelu(self._linear(self._norm(x, prefix + "norm2"), prefix + "mlp.fc1"))
        mlp = self._linear(hidden, prefix + "mlp.fc2")
        return self._op("Add", [x, self._op("Mul", [mlp, self._vector(prefix + "ls2")])])

    def _attention(self, x: str, prefix: str) -> str:
        c, tokens = self._c, self._source.config.grid**2 + 1
        qkv = self._linear(x, prefix + "qkv", bias=c.qkv_bias)
        q, k, v = self._g.ops("Split", [qkv, self._g.numbers(*[c.hidden] * 3)], [f"{prefix}{part}" for part in "qkv"],
                              axis=-1)
        if c.qk_norm:
            # Over the full width, before the heads are split.
            q = self._g.rms_norm(q, self._vector(prefix + "q_norm.weight"), c.eps)
            k = self._g.rms_norm(k, self._vector(prefix + "k_norm.weight"), c.eps)

        def heads(y: str, perm: list[int]) -> str:
            return self._op("Transpose", [self._g.reshape(y, 1, tokens, c.heads, c.head_dim)], perm=perm)

        q = self._op("Mul", [heads(q, [0, 2, 1, 3]), self._g.number(c.head_dim**-0.5)])
        scores = self._op("Softmax", [self._op("MatMul", [q, heads(k, [0, 2, 3, 1])])], axis=-1)
        y = self._op("MatMul", [scores, heads(v, [0, 2, 1, 3])])
        y = self._g.reshape(self._op("Transpose", [y], perm=[0, 2, 1, 3]), 1, tokens, c.hidden)
        return self._linear(y, prefix + "proj")

    def _pixel_shuffle(self, x: str) -> str:
        """Drops the class token and joins each square of tokens, row by row (`ps_version` v2)."""
        c, config = self._c, self._source.config
        s, side = config.shuffle, config.grid // config.shuffle
        one, end = self._g.numbers(1), self._g.numbers(np.iinfo(np.int64).max)
        x = self._op("Slice", [x, one, end, one])
        x = self._g.reshape(x, 1, side, s, side, s, c.hidden)
        x = self._op("Transpose", [x], perm=[0, 1, 3, 2, 4, 5])
        shape = self._g.numbers(1, side * side, s * s * c.hidden)
        return self._op("Reshape", [x, shape], out="pixel_shuffled")

    def _projector(self, x: str) -> str:
        x = self._layer_norm(x, PROJECTOR + "0", PROJECTOR_EPS)
        return self._linear(self._g.gelu(self._linear(x, PROJECTOR + "1")), PROJECTOR + "3")

    # ---- building blocks

    def _norm(self, x: str, prefix: str) -> str:
        if self._c.rms_norm:
            return self._g.rms_norm(x, self._vector(prefix + ".weight"), self._c.eps)
        return self._layer_norm(x, prefix, self._c.eps)

    def _layer_norm(self, x: str, prefix: str, eps: float) -> str:
        weights = [self._vector(prefix + ".weight"), self._vector(prefix + ".bias")]
        return self._op("LayerNormalization", [x, *weights], epsilon=eps, axis=-1)

    def _linear(self, x: str, prefix: str, bias: bool = True) -> str:
        x = self._op("MatMul", [x, self._matrix(prefix + ".weight")])
        return self._op("Add", [x, self._vector(prefix + ".bias")]) if bias else x

    def _vector(self, name: str) -> str:
        return self._g.constant(name, self._source.tensor(name))

    def _matrix(self, name: str, transpose: bool = True) -> str:
        value = self._source.tensor(name)
        value = value.T if transpose else value
        return self._g.half(name, value) if self._half else self._g.constant(name, value)


def resize_positions(table: FloatArray, grid: int) -> FloatArray:
    """The position table for a grid of patches: float32[1, 1 + grid * grid, C].

    The class token's row stays; the patch rows are resized bicubically, an identity at the trained size.
    Source: torch's bicubic interpolation (A = -0.75, align_corners false), which the published code calls.
    """
    trained = round((table.shape[1] - 1) ** 0.5)
    if trained == grid:
        return table
    weights = _bicubic(trained, grid)
    patches = table[0, 1:].reshape(trained, trained, -1).astype(np.float64)
    resized = np.einsum("ai,bj,ijc->abc", weights, weights, patches).reshape(1, grid * grid, -1)
    return np.concatenate([table[:, :1], resized.astype(np.float32)], axis=1)


def _bicubic(source: int, target: int) -> np.ndarray:
    """float64[target, source]: interpolation weights along one axis."""
    a = -0.75
    at = (np.arange(target) + 0.5) * source / target - 0.5
    first = np.floor(at).astype(int) - 1
    weights = np.zeros((target, source))
    for offset in range(4):
        distance = np.abs(at - (first + offset))
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = a * (((distance - 5) * distance + 8) * distance - 4)
        value = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
        np.add.at(weights, (np.arange(target), np.clip(first + offset, 0, source - 1)), value)
    return weights


__all__ = ["VisionConfig", "resize_positions", "write_vision"]
