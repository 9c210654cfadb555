"""Writes the language model as GGUF (architecture qwen2), tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beingh0_edge.bundle import EmbeddingsSpec, LanguageSpec
from beingh0_edge.errors import BundleError
from beingh0_edge.prompt import SYSTEM_MESSAGES
from beingh0_edge.tokens import Vocabulary
from beingh0_edge.types import FloatArray, IntArray

from .checkpoint import EMBEDDING, HEAD, LANGUAGE, Checkpoint, Progress
from .quant_types import TYPE_IDS, encode, row_bytes, tensor_type, uses_importance

_ROWS_AT_ONCE = 4096
# The chat template in llama.cpp's terms (Jinja), with the model's own system message where none is given.
_CHAT = ("{% if messages[0]['role'] != 'system' %}<|im_start|>system\nSYSTEM<|im_end|>\n{% endif %}"
         "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
         "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
_LAYER_NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}


def language_spec(checkpoint: Checkpoint, file: str, vocabulary: Vocabulary, quant: str) -> LanguageSpec:
    """What the manifest says about the language model."""
    c = checkpoint.config.language
    return LanguageSpec(
        file=file, layout="trimmed" if vocabulary.trimmed else "full", quant=quant, rows=vocabulary.size,
        hidden=c.hidden, layers=c.layers, heads=c.heads, kv_heads=c.kv_heads, head_dim=c.head_dim, mlp=c.mlp,
        context=c.context, rms_norm_eps=c.eps, rope_theta=c.rope_theta, tied=checkpoint.tied)


class Encoder:
    """Tensors of a language model in llama.cpp's formats."""

    def __init__(self, checkpoint: Checkpoint, vocabulary: Vocabulary,
                 importance: Mapping[str, FloatArray] | None = None) -> None:
        self._source, self._vocabulary, self._importance = checkpoint, vocabulary, importance or {}

    def __call__(self, name: str, shape: tuple[int, ...], kind: str) -> npt.NDArray[np.uint8]:
        """uint8[rows, bytes of a row]; vectors are one row."""
        data = np.empty((shape[0] if len(shape) == 2 else 1, row_bytes(kind, shape[-1])), np.uint8)
        weights, at = self._importance.get(name) if uses_importance(kind) else None, 0
        for part in _source_rows(self._source, name, self._vocabulary):
            data[at : at + len(part)] = encode(part, kind, weights)
            at += len(part)
        return data


def write_gguf(checkpoint: Checkpoint, path: Path, vocabulary: Vocabulary, quant: str, *,
               tokenizer: Path | None = None, overrides: Mapping[str, str] | None = None,
               importance: Mapping[str, FloatArray] | None = None, encoder: Encoder | None = None,
               progress: Progress | None = None) -> LanguageSpec:
    """Writes the language model and returns what the manifest says about it.

    vocabulary  the rows to keep; a full one takes its text tokens from `tokenizer` (tokenizer.json) if given
    overrides   see quant_types.tensor_type
    importance  GGUF name -> float32[width], see quant_types.encode
    encoder     what makes the bytes; default: one with this importance
    """
    import gguf

    spec = language_spec(checkpoint, path.name, vocabulary, quant)
    writer = gguf.GGUFWriter(path, "qwen2")
    try:
        writer.add_vocab_size(spec.rows)
        writer.add_context_length(spec.context)
        writer.add_embedding_length(spec.hidden)
        writer.add_block_count(spec.layers)
        writer.add_feed_forward_length(spec.mlp)
        writer.add_head_count(spec.heads)
        writer.add_head_count_kv(spec.kv_heads)
        writer.add_key_length(spec.head_dim)
        writer.add_value_length(spec.head_dim)
        writer.add_layer_norm_rms_eps(spec.rms_norm_eps)
        writer.add_rope_freq_base(spec.rope_theta)
        writer.add_rope_dimension_count(spec.head_dim)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        if tokenizer is not None and not vocabulary.trimmed:
            _add_tokenizer(writer, tokenizer, spec.rows, vocabulary.layout.eos)
            writer.add_chat_template(_CHAT.replace("SYSTEM", SYSTEM_MESSAGES[checkpoint.config.template]))
        else:
            writer.add_tokenizer_model("no_vocab")
        shapes = spec.tensor_shapes()
        types = {name: tensor_type(name, shape, quant, spec.layers, overrides) for name, shape in shapes.items()}
        for name, shape in shapes.items():
            size = (*shape[:-1], row_bytes(types[name], shape[-1]))
            writer.add_tensor_info(name, size, np.dtype(np.uint8), int(np.prod(size)),
                                   gguf.GGMLQuantizationType(TYPE_IDS[types[name]]))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        encoder = encoder or Encoder(checkpoint, vocabulary, importance)
        total, done = sum(4 * int(np.prod(shape)) for shape in shapes.values()), 0
        for name, shape in shapes.items():
            writer.write_tensor_data(encoder(name, shape, types[name]))
            done += 4 * int(np.prod(shape))
            if progress:
                progress(done, total, f"language model {name} -> {types[name]}")
    finally:
        writer.close()
    return spec


def write_embeddings(checkpoint: Checkpoint, path: Path, exact: bool) -> EmbeddingsSpec:
    """Writes the embedding of every vocabulary id as .npy, a slice at a time; float16 unless `exact`."""
    dtype = np.dtype(np.float32 if exact else np.float16)
    rows, hidden = checkpoint.shape(EMBEDDING)
    with path.open("wb") as file:
        header = {"descr": dtype.str, "fortran_order": False, "shape": (rows, hidden)}
        np.lib.format.write_array_header_1_0(file, header)
        for first in range(0, rows, _ROWS_AT_ONCE):
            part = checkpoint.rows(EMBEDDING, first, min(first + _ROWS_AT_ONCE, rows))
            with np.errstate(over="ignore"):
                part = part.astype(dtype)
            if not np.isfinite(part).all():
                raise BundleError(f"{EMBEDDING}: values beyond the range of {dtype}", str(path))
            file.write(part.tobytes())
    return EmbeddingsSpec(path.name, rows, hidden, "float32" if exact else "float16")


def _source_rows(checkpoint: Checkpoint, name: str, vocabulary: Vocabulary) -> Iterator[FloatArray]:
    """The tensor as slices of float32[rows, width]; vectors are one row."""
    if name in ("token_embd.weight", "output.weight"):
        source = EMBEDDING if name == "token_embd.weight" else HEAD
        for first, last in _runs(vocabulary.ids()):
            for start in range(first, last, _ROWS_AT_ONCE):
                yield checkpoint.rows(source, start, min(start + _ROWS_AT_ONCE, last))
        return
    if name == "output_norm.weight":
        source = LANGUAGE + "model.norm.weight"
    else:
        _, layer, part, kind = name.split(".")
        source = f"{LANGUAGE}model.layers.{layer}.{_LAYER_NAMES[part]}.{kind}"
    value = checkpoint.tensor(source)
    yield value.reshape(-1, value.shape[-1])


def _runs(ids: IntArray) -> Iterator[tuple[int, int]]:
    """[first, last) of every run of consecutive ids."""
    breaks = np.flatnonzero(np.diff(ids) != 1) + 1
    for run in np.split(ids, breaks):
        yield int(run[0]), int(run[-1]) + 1


def _add_tokenizer(writer: Any, path: Path, rows: int, eos: int) -> None:
    """The text tokenizer in llama.cpp's terms, so that any of its tools can use a full-layout file."""
    import gguf

    data = json.loads(path.read_bytes())
    model = data["model"]
    if model.get("type") != "BPE":
        raise BundleError(
            f"{path}: expected a byte-level BPE tokenizer, got {model.get('type')!r}", str(path)
        )
    tokens = [f"[UNUSED{i}]" for i in range(rows)]
    kinds = [int(gguf.TokenType.UNUSED)] * rows
    for token, i in model["vocab"].items():
        tokens[i], kinds[i] = token, int(gguf.TokenType.NORMAL)
    for added in data.get("added_tokens", []):
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], kinds[added["id"]] = added["content"], int(kind)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(eos)
    writer.add_add_bos_token(False)
