"""The language model as ONNX: embeddings and a key-value cache in, logits, hidden states and new cache out.

Names follow the habits of exported decoders: inputs_embeds, attention_mask, position_ids, past_key_values.{i}.key,
logits, present.{i}.key. docs/onnx.md lists every axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from beingh0_edge.tokens import Vocabulary
from beingh0_edge.types import FloatArray

from .checkpoint import EMBEDDING, HEAD, LANGUAGE, Checkpoint, Progress
from .onnx_graph import INT4_BLOCK, Axes, Graph

if TYPE_CHECKING:
    import onnx

Precision = Literal["fp32", "fp16", "int4"]
_MASKED = -1e30  # added to scores; not minus infinity, so that a row without any key stays finite


@dataclass(frozen=True)
class Lengths:
    """How many tokens a graph takes. None: any number, told by the inputs.

    sequence  new tokens per call     past  tokens in the cache; 0 leaves the cache inputs out
    """

    sequence: int | None = None
    past: int | None = None

    @property
    def static(self) -> bool:
        return self.sequence is not None


class LanguageGraph:
    """One graph; several may share a weight file by sharing `weights`, in which the first one leaves its tensors."""

    def __init__(self, checkpoint: Checkpoint, vocabulary: Vocabulary, precision: Precision, lengths: Lengths,
                 graph: Graph, progress: Progress | None = None) -> None:
        self.checkpoint, self.vocabulary, self._precision = checkpoint, vocabulary, precision
        self.lengths, self._g, self._progress = lengths, graph, progress
        self._c = checkpoint.config.language

    def build(self) -> onnx.ModelProto:
        c, g = self._c, self._g
        self._positions()
        x, caches = "inputs_embeds", []
        for i in range(c.layers):
            layer = f"{LANGUAGE}model.layers.{i}."
            attention, key, value = self._attention(self._norm(x, layer + "input_layernorm"), i)
            x = g.op("Add", [x, attention])
            x = g.op("Add", [x, self._mlp(self._norm(x, layer + "post_attention_layernorm"), layer + "mlp.")])
            caches += [key, value]
            if self._progress:
                self._progress(i + 1, c.layers, f"onnx layer {i}")
        states = self._norm(x, LANGUAGE + "model.norm", "hidden_states")
        g.op("MatMul", [states, self._head()], "logits")
        inputs, outputs = self.signature()
        return g.model("language", inputs, outputs)

    def signature(self) -> tuple[list[tuple[str, Any, Axes]], list[tuple[str, Any, Axes]]]:
        """(inputs, outputs): name, numpy type, axes."""
        c, n = self._c, self.lengths
        batch: int | str = 1 if n.static else "batch"
        sequence: int | str = "sequence" if n.sequence is None else n.sequence
        past: int | str = "past" if n.past is None else n.past
        total: int | str = "past + sequence" if n.sequence is None or n.past is None else n.sequence + n.past
        inputs: list[tuple[str, Any, Axes]] = [
            ("inputs_embeds", np.float32, [batch, sequence, c.hidden]),
            ("attention_mask", np.int64, [batch, total]), ("position_ids", np.int64, [batch, sequence])]
        outputs: list[tuple[str, Any, Axes]] = [
            ("logits", np.float32, [batch, sequence, self.vocabulary.size]),
            ("hidden_states", np.float32, [batch, sequence, c.hidden])]
        for i in range(c.layers):
            for kind in ("key", "value"):
                if n.past != 0:
                    inputs.append((f"past_key_values.{i}.{kind}", np.float32, [batch, c.kv_heads, past, c.head_dim]))
                length = sequence if n.static else total
                outputs.append((self._new(i, kind), np.float32, [batch, c.kv_heads, length, c.head_dim]))
        return inputs, outputs

    def _new(self, layer: int, kind: str) -> str:
        """A static graph gives only the new rows: the caller keeps a cache of fixed length and writes them into it."""
        return f"{'new' if self.lengths.static else 'present'}.{layer}.{kind}"

    def _positions(self) -> None:
        """Values that all layers share: cosines and sines of the positions, and which key each query may see."""
        c, g, n = self._c, self._g, self.lengths
        inverse = (c.rope_theta ** (-np.arange(0, c.head_dim, 2) / c.head_dim)).astype(np.float32)
        places = g.op("Unsqueeze", [g.op("Cast", ["position_ids"], to=1), g.numbers(1, 3)])  # [B, 1, T, 1]
        angle = g.op("Mul", [places, g.constant("inverse_frequencies", inverse)])
        self._cos, self._sin = g.op("Cos", [angle]), g.op("Sin", [angle])
        present = g.op("Cast", [g.op("Unsqueeze", ["attention_mask", g.numbers(1, 2, 3)])], to=9)  # [B, 1, 1, 1, S]
        if n.sequence == 1:
            allowed = present
        elif n.sequence is not None and n.past is not None:
            rows, columns = np.arange(n.sequence)[:, None] + n.past, np.arange(n.sequence + n.past)
            allowed = g.op("And", [present, g.constant("causal", columns <= rows)])
        else:
            total = g.op("Gather", [g.op("Shape", ["attention_mask"]), g.constant("last", np.array(1, np.int64))])
            length = g.op("Gather", [g.op("Shape", ["position_ids"]), g.constant("last", np.array(1, np.int64))])
            zero, one = (g.constant(name, np.array(v, np.int64)) for name, v in (("zero_i", 0), ("one_i", 1)))
            keys = g.op("Range", [zero, total, one])
            queries = g.op("Add", [g.op("Range", [zero, length, one]), g.op("Sub", [total, length])])
            causal = g.op("LessOrEqual", [keys, g.op("Unsqueeze", [queries, g.numbers(1)])])
            allowed = g.op("And", [present, causal])
        self._mask = g.op("Where", [allowed, g.number(0.0), g.number(_MASKED)])

    def _attention(self, x: str, i: int) -> tuple[str, str, str]:
        c, g, prefix = self._c, self._g, f"{LANGUAGE}model.layers.{i}.self_attn."
        group = c.heads // c.kv_heads
        q = self._rotated(self._linear(x, prefix + "q_proj", bias=True), c.heads)
        k = self._rotated(self._linear(x, prefix + "k_proj", bias=True), c.kv_heads)
        v = self._split_heads(self._linear(x, prefix + "v_proj", bias=True), c.kv_heads)
        new = (k, v)
        if self.lengths.past != 0:
            k, v = (g.op("Concat", [f"past_key_values.{i}.{kind}", t], axis=2)
                    for kind, t in (("key", k), ("value", v)))
        for kind, whole, rows in (("key", k, new[0]), ("value", v, new[1])):
            g.op("Identity", [rows if self.lengths.static else whole], self._new(i, kind))
        q = g.op("Mul", [g.reshape(q, 0, c.kv_heads, group, -1, c.head_dim), g.number(c.head_dim**-0.5)])
        k, v = (g.op("Unsqueeze", [t, g.numbers(2)]) for t in (k, v))  # one for a whole group of query heads
        scores = g.op("MatMul", [q, g.op("Transpose", [k], perm=[0, 1, 2, 4, 3])])
        weights = g.op("Softmax", [g.op("Add", [scores, self._mask])], axis=-1)
        y = g.op("Transpose", [g.op("MatMul", [weights, v])], perm=[0, 3, 1, 2, 4])
        y = g.reshape(y, 0, 0, c.heads * c.head_dim)
        return self._linear(y, prefix + "o_proj"), *new

    def _split_heads(self, x: str, heads: int) -> str:
        """[B, T, heads * d] -> [B, heads, T, d]"""
        split = self._g.reshape(x, 0, 0, heads, self._c.head_dim)
        return self._g.op("Transpose", [split], perm=[0, 2, 1, 3])

    def _rotated(self, x: str, heads: int) -> str:
        g, half = self._g, self._c.head_dim // 2
        x = self._split_heads(x, heads)
        a, b = g.ops("Split", [x, g.numbers(half, half)], [f"{x}_low", f"{x}_high"], axis=-1)

        def product(t: str, factor: str) -> str:
            return g.op("Mul", [t, factor])

        low = g.op("Sub", [product(a, self._cos), product(b, self._sin)])
        high = g.op("Add", [product(b, self._cos), product(a, self._sin)])
        return g.op("Concat", [low, high], axis=-1)

    def _mlp(self, x: str, prefix: str) -> str:
        g = self._g
        gated = g.op("Mul", [g.silu(self._linear(x, prefix + "gate_proj")), self._linear(x, prefix + "up_proj")])
        return self._linear(gated, prefix + "down_proj")

    def _norm(self, x: str, name: str, out: str | None = None) -> str:
        weight = self._g.constant(f"{name}.weight", self.checkpoint.tensor(f"{name}.weight"))
        y = self._g.rms_norm(x, weight, self._c.eps)
        return self._g.op("Identity", [y], out) if out else y

    def _linear(self, x: str, name: str, bias: bool = False) -> str:
        y = self._g.op("MatMul", [x, self._matrix(f"{name}.weight", self.checkpoint.tensor(f"{name}.weight"))])
        if not bias:
            return y
        return self._g.op("Add", [y, self._g.constant(f"{name}.bias", self.checkpoint.tensor(f"{name}.bias"))])

    def _matrix(self, name: str, value: FloatArray) -> str:
        if self._precision == "fp32":
            return self._g.constant(name, value.T)
        if self._precision == "int4" and value.shape[1] % INT4_BLOCK == 0:
            return self._g.int4(name, value.T)
        return self._g.half(name, value.T)

    def _head(self) -> str:
        """The rows of the vocabulary; in half precision where the rest is int4, as it decides between neighbours."""
        name = EMBEDDING if self.checkpoint.tied else HEAD
        ids = self.vocabulary.ids()
        runs = np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1)
        value = np.concatenate([self.checkpoint.rows(name, int(run[0]), int(run[-1]) + 1) for run in runs]).T
        return self._g.constant("head", value) if self._precision == "fp32" else self._g.half("head", value)


def write_language(checkpoint: Checkpoint, folder: Path, vocabulary: Vocabulary, precision: Precision,
                   static: tuple[int, int] | None, progress: Progress | None = None) -> dict[str, LanguageGraph]:
    """Writes language.onnx, or with `static` (prompt tokens, cache length) language_prefill and language_decode.

    Their weights lie in one language.onnx.data. Returns file name -> graph.
    """
    import onnx

    data = folder / "language.onnx.data"
    wanted = {"language.onnx": Lengths()} if static is None else {
        "language_prefill.onnx": Lengths(static[0], 0), "language_decode.onnx": Lengths(1, static[1])}
    written: dict[str, LanguageGraph] = {}
    shared: Graph | None = None
    for name, lengths in wanted.items():
        graph = Graph(data, int4=precision == "int4") if shared is None else shared.sibling()
        written[name] = LanguageGraph(checkpoint, vocabulary, precision, lengths, graph, progress)
        onnx.save_model(written[name].build(), str(folder / name))
        shared = graph
    return written
