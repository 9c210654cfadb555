"""The language model and vision tower in plain numpy float32, straight from a checkpoint: what a bundle is
checked against. Slow and simple; layers are read as they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from beingh0_edge.types import FloatArray, IntArray

from .checkpoint import EMBEDDING, HEAD, LANGUAGE, PROJECTOR, VISION, Checkpoint, Progress
from .write_onnx import PROJECTOR_EPS, resize_positions

Observe = Callable[[str, FloatArray], None]
"""Called with (GGUF name of a matrix, float32[T, width] that it is multiplied with)."""


def hidden_states(checkpoint: Checkpoint, input_ids: IntArray, visual: FloatArray | None,
                  image_token: int) -> FloatArray:
    """Prompt ids -> float32[T, hidden], after the final norm. `visual` fills the image_token places."""
    return all_hidden_states(checkpoint, [embedded(checkpoint, input_ids, visual, image_token)])[0]


def embedded(checkpoint: Checkpoint, input_ids: IntArray, visual: FloatArray | None, image_token: int) -> FloatArray:
    """float32[T, hidden]: what the first layer reads."""
    x = np.stack([checkpoint.rows(EMBEDDING, int(i), int(i) + 1)[0] for i in input_ids])
    if visual is not None:
        x[input_ids == image_token] = visual
    return x


def all_hidden_states(checkpoint: Checkpoint, sequences: Sequence[FloatArray], observe: Observe | None = None,
                      progress: Progress | None = None) -> list[FloatArray]:
    """Embedded sequences -> their states after the final norm. Every layer is read once for all of them."""
    c, states = checkpoint.config.language, list(sequences)
    for i in range(c.layers):
        w = {name: checkpoint.tensor(f"{LANGUAGE}model.layers.{i}.{name}") for name in _LAYER}
        states = [_layer(checkpoint, w, i, x, observe) for x in states]
        if progress:
            progress(i + 1, c.layers, f"observing layer {i}")
    norm = checkpoint.tensor(LANGUAGE + "model.norm.weight")
    return [rms_norm(x, norm, c.eps) for x in states]


_LAYER = (*(f"self_attn.{n}_proj.{kind}" for n in "qkv" for kind in ("weight", "bias")), "self_attn.o_proj.weight",
          "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight", "input_layernorm.weight",
          "post_attention_layernorm.weight")


def _layer(checkpoint: Checkpoint, w: Mapping[str, FloatArray], i: int, x: FloatArray,
           observe: Observe | None) -> FloatArray:
    c = checkpoint.config.language
    angle = np.arange(len(x))[:, None] * c.rope_theta ** (-np.arange(0, c.head_dim, 2) / c.head_dim)
    cos: FloatArray = np.tile(np.cos(angle), 2).astype(np.float32)[:, None]
    sin: FloatArray = np.tile(np.sin(angle), 2).astype(np.float32)[:, None]
    future = np.triu(np.full((len(x), len(x)), -np.inf, np.float32), 1)

    def product(t: FloatArray, name: str, gguf: str) -> FloatArray:
        if observe:
            observe(f"blk.{i}.{gguf}.weight", t)
        out: FloatArray = t @ w[f"{name}.weight"].T
        return out + w[f"{name}.bias"] if f"{name}.bias" in w else out

    def rotate(t: FloatArray) -> FloatArray:
        first, second = np.split(t, 2, axis=-1)
        crossed: FloatArray = np.concatenate([-second, first], -1)
        turned: FloatArray = t * cos + crossed * sin
        return turned

    y = rms_norm(x, w["input_layernorm.weight"], c.eps)
    q = rotate(product(y, "self_attn.q_proj", "attn_q").reshape(len(x), c.heads, c.head_dim))
    k = rotate(product(y, "self_attn.k_proj", "attn_k").reshape(len(x), c.kv_heads, c.head_dim))
    v = product(y, "self_attn.v_proj", "attn_v").reshape(len(x), c.kv_heads, c.head_dim)
    k, v = (np.repeat(t, c.heads // c.kv_heads, axis=1) for t in (k, v))
    x = x + product(attend(q, k, v, future), "self_attn.o_proj", "attn_output")
    y = rms_norm(x, w["post_attention_layernorm.weight"], c.eps)
    gate = product(y, "mlp.gate_proj", "ffn_gate")
    opened = gate / (1 + np.exp(-gate)) * product(y, "mlp.up_proj", "ffn_up")
    return x + product(opened, "mlp.down_proj", "ffn_down")


def logits(checkpoint: Checkpoint, states: FloatArray, ids: IntArray) -> FloatArray:
    """float32[T, len(ids)]: the scores of these vocabulary ids."""
    name = EMBEDDING if checkpoint.tied else HEAD
    head = np.concatenate([checkpoint.rows(name, int(run[0]), int(run[-1]) + 1)
                           for run in np.split(ids, np.flatnonzero(np.diff(ids) != 1) + 1)])
    scores: FloatArray = states @ head.T
    return scores


def visual_embeddings(checkpoint: Checkpoint, pixels: FloatArray) -> FloatArray:
    """float32[3, S, S], normalised -> float32[tokens, hidden]."""
    return projected(checkpoint, tower(checkpoint, pixels))


def tower(checkpoint: Checkpoint, pixels: FloatArray) -> FloatArray:
    """float32[3, S, S], normalised -> float32[1 + patches, vision hidden], the class token first."""
    config = checkpoint.config
    c, grid = config.vision, config.grid

    def w(name: str) -> FloatArray:
        return checkpoint.tensor(name)

    def norm(x: FloatArray, prefix: str) -> FloatArray:
        if c.rms_norm:
            return rms_norm(x, w(prefix + ".weight"), c.eps)
        return layer_norm(x, w(prefix + ".weight"), w(prefix + ".bias"), c.eps)

    def linear(x: FloatArray, prefix: str, bias: bool = True) -> FloatArray:
        out: FloatArray = x @ w(prefix + ".weight").T
        return out + w(prefix + ".bias") if bias else out

    prefix = VISION + "embeddings."
    patches = pixels.reshape(3, grid, c.patch, grid, c.patch).transpose(1, 3, 0, 2, 4).reshape(grid * grid, -1)
    x = patches @ w(prefix + "patch_embedding.weight").reshape(c.hidden, -1).T + w(prefix + "patch_embedding.bias")
    x = np.concatenate([w(prefix + "class_embedding")[0], x])
    x = np.asarray(x + resize_positions(w(prefix + "position_embedding"), grid)[0], np.float32)
    for i in range(c.layers):
        layer = f"{VISION}encoder.layers.{i}."
        q, k, v = np.split(linear(norm(x, layer + "norm1"), layer + "attn.qkv", c.qkv_bias), 3, axis=-1)
        if c.qk_norm:
            q, k = (rms_norm(t, w(f"{layer}attn.{n}_norm.weight"), c.eps) for t, n in ((q, "q"), (k, "k")))
        q, k, v = (t.reshape(len(x), c.heads, c.head_dim) for t in (q, k, v))
        x = x + w(layer + "ls1") * linear(attend(q, k, v), layer + "attn.proj")
        y = gelu(linear(norm(x, layer + "norm2"), layer + "mlp.fc1"))
        x = x + w(layer + "ls2") * linear(y, layer + "mlp.fc2")
    return x


def projected(checkpoint: Checkpoint, x: FloatArray) -> FloatArray:
    """What `tower` returns -> float32[tokens, hidden]: pixel shuffle and projector."""
    config = checkpoint.config
    c, grid, s = config.vision, config.grid, config.shuffle

    def w(name: str) -> FloatArray:
        return checkpoint.tensor(PROJECTOR + name)

    cells = x[1:].reshape(grid // s, s, grid // s, s, c.hidden).transpose(0, 2, 1, 3, 4).reshape(-1, s * s * c.hidden)
    y = layer_norm(cells, w("0.weight"), w("0.bias"), PROJECTOR_EPS)
    y = gelu(y @ w("1.weight").T + w("1.bias"))
    out: FloatArray = y @ w("3.weight").T + w("3.bias")
    return out


def attend(q: FloatArray, k: FloatArray, v: FloatArray, mask: FloatArray | None = None) -> FloatArray:
    """float32[T, heads, d] each -> float32[T, heads * d]"""
    scores = np.einsum("qhd,khd->hqk", q, k) / np.float32(q.shape[-1] ** 0.5)
    if mask is not None:
        scores = scores + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    out: FloatArray = np.einsum("hqk,khd->qhd", weights, v).reshape(len(q), -1)
    return out


def rms_norm(x: FloatArray, weight: FloatArray, eps: float) -> FloatArray:
    out: FloatArray = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(eps)) * weight
    return out


def layer_norm(x: FloatArray, weight: FloatArray, bias: FloatArray, eps: float) -> FloatArray:
    centred = x - x.mean(-1, keepdims=True)
    out: FloatArray = centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(eps)) * weight + bias
    return out


def gelu(x: FloatArray) -> FloatArray:
    """The exact (erf) form. Source of the erf: Abramowitz and Stegun 7.1.26, error below 1.5e-7."""
    z = np.abs(x) / np.sqrt(2)
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(x) * (1 - series * np.exp(-z * z))
    out: FloatArray = (0.5 * x * (1 + erf)).astype(np.float32)
    return out
