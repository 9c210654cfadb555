"""The motion tokenizer as ONNX: ids to features, and features to ids. All parts of a hand in one graph each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from beingh0_edge.tokenizer_folder import TokenizerFolder, TokenizerPart
from beingh0_edge.types import FloatArray

from .onnx_graph import Axes, Graph

if TYPE_CHECKING:
    import onnx

_LAYER_EPS, _GROUP_EPS, _NORM_GROUPS = 1e-5, 1e-6, 32
_STD_EPS = 1e-6  # added when normalising, not when undoing it (upstream)

Signature = tuple[list[tuple[str, Any, Axes]], list[tuple[str, Any, Axes]]]


class _Network:
    """One direction of one part, as the tokenizer folder tells its layers; x is [batch, channels, length]."""

    def __init__(self, graph: Graph, x: str, encoder: bool, name: str) -> None:
        self._g, self.x, self._wanted, self._name = graph, x, encoder, name
        self._count = 0

    def _weights(self, *values: FloatArray) -> list[str]:
        names = []
        for value in values:
            self._count += 1
            names.append(self._g.constant(f"{self._name}.{self._count}", value))
        return names

    def add_conv(self, *, encoder: bool, weight: FloatArray, bias: FloatArray, stride: int, upsample: bool,
                 relu: bool) -> None:
        if encoder is not self._wanted:
            return
        if upsample:
            doubled = self._g.constant("twice_as_long", np.array([1, 1, 2], np.float32))
            self.x = self._g.op("Resize", [self.x, "", doubled], mode="nearest",
                                coordinate_transformation_mode="asymmetric", nearest_mode="floor")
        size = weight.shape[-1]
        self.x = self._conv(weight, bias, size, stride, pad=1 if size > 1 else 0)
        if relu:
            self.x = self._g.op("Relu", [self.x])

    def add_residual(self, *, encoder: bool, dilation: int, weight1: FloatArray, bias1: FloatArray,
                     weight2: FloatArray, bias2: FloatArray, activation: str, norm: str,
                     scale1: FloatArray | None = None, shift1: FloatArray | None = None,
                     scale2: FloatArray | None = None, shift2: FloatArray | None = None) -> None:
        if encoder is not self._wanted:
            return
        before = self.x
        for scale, shift, weight, bias, step in ((scale1, shift1, weight1, bias1, dilation),
                                                 (scale2, shift2, weight2, bias2, 1)):
            if scale is not None and shift is not None:
                self._norm(norm, scale, shift)
            self._activation(activation)
            self.x = self._conv(weight, bias, weight.shape[-1], 1, pad=step if weight.shape[-1] == 3 else 0, step=step)
        self.x = self._g.op("Add", [before, self.x])

    def _conv(self, weight: FloatArray, bias: FloatArray, size: int, stride: int, pad: int, step: int = 1) -> str:
        return self._g.op("Conv", [self.x, *self._weights(weight, bias)], kernel_shape=[size], strides=[stride],
                          pads=[pad, pad], dilations=[step])

    def _norm(self, kind: str, scale: FloatArray, shift: FloatArray) -> None:
        g = self._g
        if kind == "layer":  # over the channels
            rows = g.op("Transpose", [self.x], perm=[0, 2, 1])
            rows = g.op("LayerNormalization", [rows, *self._weights(scale, shift)], axis=-1, epsilon=_LAYER_EPS)
            self.x = g.op("Transpose", [rows], perm=[0, 2, 1])
            return
        if kind == "group":  # instance norm over the channels of a group, written out as reshapes
            groups = g.reshape(self.x, 0, _NORM_GROUPS, -1)
            ones, zeros = (g.constant(f"{what}_{_NORM_GROUPS}", np.full(_NORM_GROUPS, value, np.float32))
                           for what, value in (("ones", 1), ("zeros", 0)))
            flat = g.op("InstanceNormalization", [groups, ones, zeros], epsilon=_GROUP_EPS)
            self.x = g.op("Reshape", [flat, g.op("Shape", [self.x])])
        columns = self._weights(scale[:, None], shift[:, None])
        self.x = g.op("Add", [g.op("Mul", [self.x, columns[0]]), columns[1]])

    def _activation(self, name: str) -> None:
        if name == "relu":
            self.x = self._g.op("Relu", [self.x])
        else:
            self.x = self._g.silu(self.x) if name == "silu" else self._g.gelu(self.x)


def decoder_graph(folders: Sequence[Path], batch: int | str) -> tuple[onnx.ModelProto, Signature]:
    """motion_ids int64[batch, ids of a block] -> features float32[batch, window, dims], de-normalised.

    An id counts by its place, as upstream: modulo the codebook unless the layers share one.
    """
    g, outs, parts = Graph(), [], _parts(folders)
    for source, part, books in parts:
        count, codes = part.ids_per_block, books.shape[1] * books.shape[2]
        ids = g.op("Slice", ["motion_ids", g.numbers(part.start), g.numbers(part.start + count), g.numbers(1)])
        local = g.op("Sub", [ids, g.numbers(part.offset)])
        if not part.shared_codebook:  # the row of layer q's book: q * nb_code + id modulo nb_code
            local = g.op("Mod", [local, g.numbers(part.nb_code)])
            layer = np.tile(np.arange(part.quantizers) * part.nb_code, part.groups * part.positions)
            local = g.op("Add", [local, g.constant(f"{part.name}.layers", layer.astype(np.int64))])
        group = np.repeat(np.arange(part.groups) * codes, part.positions * part.quantizers)
        rows = g.op("Add", [local, g.constant(f"{part.name}.groups", group.astype(np.int64))])
        table = g.constant(f"{part.name}.codebooks", books.reshape(part.groups * codes, -1))
        picked = g.reshape(g.op("Gather", [table, rows]), -1, part.groups, part.positions, part.quantizers,
                           part.code_dim // part.groups)
        summed = g.op("ReduceSum", [picked, g.numbers(3)], keepdims=0)  # [B, groups, positions, width]
        latent = g.reshape(g.op("Transpose", [summed], perm=[0, 1, 3, 2]), -1, part.code_dim, part.positions)
        network = _Network(g, latent, False, f"{part.name}.decoder")
        source.networks(part, network)
        frames = g.op("Transpose", [network.x], perm=[0, 2, 1])
        frames = g.op("Slice", [frames, g.numbers(0), g.numbers(part.window), g.numbers(1)])
        mean, std = (g.constant(f"{part.name}.{what}", value)
                     for what, value in zip(("mean", "std"), source.statistics(part), strict=True))
        outs.append(g.op("Add", [g.op("Mul", [frames, std]), mean]))
    g.op("Concat", outs, "features", axis=2)
    first = parts[0][1]
    signature: Signature = (
        [("motion_ids", np.int64, [batch, sum(part.ids_per_block for _, part, _ in parts)])],
        [("features", np.float32, [batch, first.window, sum(part.dims for _, part, _ in parts)])])
    return g.model("motion decoder", *signature), signature


def encoder_graph(folders: Sequence[Path], batch: int | str) -> tuple[onnx.ModelProto, Signature]:
    """features float32[batch, window, dims] -> motion_ids int64[batch, ids of a block], the N of <motion_id_N>."""
    g, outs, parts, column = Graph(), [], _parts(folders), 0
    for source, part, books in parts:
        x = g.op("Slice", ["features", g.numbers(column), g.numbers(column + part.dims), g.numbers(2)])
        column += part.dims
        mean, std = source.statistics(part)
        x = g.op("Div", [g.op("Sub", [x, g.constant(f"{part.name}.mean", mean)]),
                         g.constant(f"{part.name}.std", std + np.float32(_STD_EPS))])
        x = g.op("Pad", [x, g.numbers(0, 0, 0, 0, part.padding, 0), g.number(0.0)])  # after normalising (upstream)
        network = _Network(g, g.op("Transpose", [x], perm=[0, 2, 1]), True, f"{part.name}.encoder")
        source.networks(part, network)
        latent = g.op("Transpose", [network.x], perm=[0, 2, 1])  # [B, positions, code_dim]
        width, groups = part.code_dim // part.groups, []
        for group in range(part.groups):
            residual = g.op("Slice", [latent, g.numbers(group * width), g.numbers((group + 1) * width), g.numbers(2)])
            ids = []
            for layer in range(part.quantizers):
                kept = 0 if part.shared_codebook else layer
                name = f"{part.name}.codebook.{group}.{kept}"
                book = g.constant(name, books[group, kept])
                # |x - c|^2 without |x|^2, which all rows share; the first of equal ones wins
                square = g.constant(f"{name}.squares", (books[group, kept] ** 2).sum(-1))
                product = g.op("MatMul", [residual, g.constant(f"{name}.transposed", -2 * books[group, kept].T)])
                code = g.op("ArgMin", [g.op("Add", [product, square])], axis=2, keepdims=0)
                residual = g.op("Sub", [residual, g.op("Gather", [book, code])])
                shift = part.offset + (0 if part.shared_codebook else layer * part.nb_code)
                ids.append(g.op("Unsqueeze", [g.op("Add", [code, g.numbers(shift)]), g.numbers(2)]))
            groups.append(g.reshape(g.op("Concat", ids, axis=2), 0, -1))
        outs.append(g.op("Concat", groups, axis=1))
    g.op("Concat", outs, "motion_ids", axis=1)
    signature: Signature = (
        [("features", np.float32, [batch, parts[0][1].window, column])],
        [("motion_ids", np.int64, [batch, sum(part.ids_per_block for _, part, _ in parts)])])
    return g.model("motion encoder", *signature), signature


def _parts(folders: Sequence[Path]) -> list[tuple[TokenizerFolder, TokenizerPart, FloatArray]]:
    """Source, geometry and codebooks float32[groups, 1 or quantizers, codes, width] of each part, in id order."""
    parts: list[tuple[TokenizerFolder, TokenizerPart, FloatArray]] = []
    for folder in folders:
        source = TokenizerFolder(folder)
        part = source.geometry(offset=sum(p.num_ids for _, p, _ in parts),
                               start=sum(p.ids_per_block for _, p, _ in parts))
        parts.append((source, part, source.codebooks(part)))
    return parts
