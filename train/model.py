"""The Being-H0 network in torch: InternViT, pixel shuffle, projector, Qwen2 - with the official tensor names.

`BeingVLA(config).state_dict()` has exactly the keys of a published checkpoint (docs: format notes in docs/bundle.md),
so what training saves is what `beingh0_edge.quantize` reads, for the nano model and for the 1B model alike.
One addition serves training: `LanguageModel.forward` takes several continuations ("branches") of one shared prefix,
so that a picture with three instructions costs one vision pass and one prefix.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class VisionConfig:
    image_size: int
    patch_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    layer_norm_eps: float = 1e-6
    num_channels: int = 3
    qkv_bias: bool = True
    qk_normalization: bool = False
    norm_type: str = "layer_norm"
    hidden_act: str = "gelu"

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True)
class LanguageConfig:
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    max_position_embeddings: int = 4096
    tie_word_embeddings: bool = False
    eos_token_id: int | None = None

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class VLAConfig:
    vision: VisionConfig
    language: LanguageConfig
    template: str = "being_h0"
    downsample_ratio: float = 0.5
    motion_config: list[dict[str, Any]] = field(default_factory=list)

    @property
    def num_image_token(self) -> int:
        return int(self.vision.num_patches * self.downsample_ratio**2)

    def to_official(self) -> dict[str, Any]:
        """The `config.json` of a published checkpoint."""
        vision = asdict(self.vision) | {
            "architectures": ["InternVisionModel"], "model_type": "intern_vit_6b",
            "drop_path_rate": 0.0, "dropout": 0.0, "attention_dropout": 0.0,
        }
        language = asdict(self.language) | {
            "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
            "use_sliding_window": False, "attention_dropout": 0.0,
        }
        return {
            "architectures": ["BeingVLAModel"], "model_type": "beingvla", "torch_dtype": "float32",
            "vlm_type": "internvl", "motion_type": "mano",
            "vlm_config": {
                "vision_config": vision, "llm_config": language, "downsample_ratio": self.downsample_ratio,
                "ps_version": "v2", "template": self.template, "select_layer": -1,
                "force_image_size": self.vision.image_size, "use_backbone_lora": 0, "use_llm_lora": 0,
                "use_thumbnail": False, "dynamic_image_size": False,
                "min_dynamic_patch": 1, "max_dynamic_patch": 12,
            },
            "motion_config": self.motion_config,
            "enable_robot_alignment": False,
        }

    @classmethod
    def from_official(cls, config: dict[str, Any]) -> VLAConfig:
        """Inverse of `to_official`; unknown keys are ignored, missing ones raise KeyError."""
        vlm = config["vlm_config"]

        def pick(kind: Any, values: dict[str, Any]) -> Any:
            return kind(**{k: values[k] for k in kind.__dataclass_fields__ if k in values})

        return cls(pick(VisionConfig, vlm["vision_config"]), pick(LanguageConfig, vlm["llm_config"]),
                   vlm.get("template", "internvl2_5"), vlm["downsample_ratio"], config.get("motion_config", []))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention, [N, heads, T, d]. On a CPU two batched products beat the fused kernel's backward pass."""
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1).to(v.dtype) @ v


# ---------------------------------------------------------------------------------------------- vision


class _Embeddings(nn.Module):
    def __init__(self, c: VisionConfig) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(1, 1, c.hidden_size) * 0.02)
        self.patch_embedding = nn.Conv2d(c.num_channels, c.hidden_size, c.patch_size, c.patch_size)
        self.position_embedding = nn.Parameter(torch.randn(1, c.num_patches + 1, c.hidden_size) * 0.02)

    def forward(self, pixels: Tensor) -> Tensor:
        # A convolution whose stride is its kernel is one matrix product over unfolded patches.
        w = self.patch_embedding.weight
        n, c, h, s = pixels.shape[0], pixels.shape[1], pixels.shape[2], w.shape[-1]
        patches = pixels.view(n, c, h // s, s, h // s, s).permute(0, 2, 4, 1, 3, 5).reshape(n, -1, c * s * s)
        x = F.linear(patches, w.flatten(1), self.patch_embedding.bias)
        x = torch.cat([self.class_embedding.expand(n, -1, -1).to(x.dtype), x], dim=1)
        return x + self.position_embedding


class _Attention(nn.Module):
    def __init__(self, c: VisionConfig) -> None:
        super().__init__()
        self.heads = c.num_attention_heads
        self.qkv = nn.Linear(c.hidden_size, 3 * c.hidden_size, bias=c.qkv_bias)
        self.proj = nn.Linear(c.hidden_size, c.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        return self.proj(attend(q, k, v).transpose(1, 2).reshape(n, t, d))


class _Mlp(nn.Module):
    def __init__(self, c: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(c.hidden_size, c.intermediate_size)
        self.fc2 = nn.Linear(c.intermediate_size, c.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _VisionLayer(nn.Module):
    def __init__(self, c: VisionConfig, layer_scale: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
        self.norm2 = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
        self.attn, self.mlp = _Attention(c), _Mlp(c)
        self.ls1 = nn.Parameter(torch.full((c.hidden_size,), layer_scale))
        self.ls2 = nn.Parameter(torch.full((c.hidden_size,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1 * self.attn(self.norm1(x))
        return x + self.ls2 * self.mlp(self.norm2(x))


class VisionModel(nn.Module):
    """InternViT. pixels float[N, 3, S, S] (ImageNet-normalised) -> float[N, 1 + patches, C], no final norm."""

    def __init__(self, c: VisionConfig, layer_scale: float = 1.0) -> None:
        super().__init__()
        if c.norm_type != "layer_norm" or c.qk_normalization:
            raise ValueError("training supports norm_type 'layer_norm' without qk normalisation, got "
                             f"{c.norm_type!r}, qk_normalization={c.qk_normalization}")
        self.embeddings = _Embeddings(c)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(_VisionLayer(c, layer_scale) for _ in range(c.num_hidden_layers))

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.embeddings(pixels)
        for layer in self.encoder.layers:  # type: ignore[union-attr]
            x = layer(x)
        return x


def pixel_shuffle(x: Tensor) -> Tensor:
    """float[N, rows*cols, C] of a square grid -> float[N, rows*cols/4, 4C], `ps_version` v2 (row, column order)."""
    n, t, c = x.shape
    side = round(t**0.5)
    x = x.view(n, side // 2, 2, side // 2, 2, c).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(n, t // 4, 4 * c)


# -------------------------------------------------------------------------------------------- language


class _RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, self.eps)


class _SelfAttention(nn.Module):
    def __init__(self, c: LanguageConfig) -> None:
        super().__init__()
        self.q_proj = nn.Linear(c.hidden_size, c.num_attention_heads * c.head_dim)
        self.k_proj = nn.Linear(c.hidden_size, c.num_key_value_heads * c.head_dim)
        self.v_proj = nn.Linear(c.hidden_size, c.num_key_value_heads * c.head_dim)
        self.o_proj = nn.Linear(c.num_attention_heads * c.head_dim, c.hidden_size, bias=False)


class _SwiGlu(nn.Module):
    def __init__(self, c: LanguageConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class _DecoderLayer(nn.Module):
    def __init__(self, c: LanguageConfig) -> None:
        super().__init__()
        self.self_attn, self.mlp = _SelfAttention(c), _SwiGlu(c)
        self.input_layernorm = _RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = _RMSNorm(c.hidden_size, c.rms_norm_eps)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, half-split. x float[tokens..., heads, d]; cos, sin float[tokens..., 1, d]."""
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


class LanguageModel(nn.Module):
    """Qwen2 decoder with the official names (`model.*`, `lm_head`)."""

    def __init__(self, c: LanguageConfig) -> None:
        super().__init__()
        self.config = c
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.model.layers = nn.ModuleList(_DecoderLayer(c) for _ in range(c.num_hidden_layers))
        self.model.norm = _RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.lm_head = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        if c.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def embed(self, ids: Tensor) -> Tensor:
        out: Tensor = self.model.embed_tokens(ids)  # type: ignore[operator]
        return out

    def _rope(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        d = self.config.head_dim
        inv = self.config.rope_theta ** (-torch.arange(0, d, 2, device=positions.device).float() / d)
        angle = torch.cat([positions[:, None].float() * inv] * 2, dim=-1)[:, None, :]
        return angle.cos(), angle.sin()

    def forward(self, prefix: Tensor, branches: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Hidden states after the final norm.

        prefix    float[B, P, H] input embeddings
        branches  float[B, K, L, H] or None: K continuations, each seeing the prefix and itself only
        Returns (float[B, P, H], float[B, K, L, H] or None).
        """
        c = self.config
        b, p, h = prefix.shape
        k, length = (branches.shape[1], branches.shape[2]) if branches is not None else (0, 0)
        device = prefix.device
        positions = torch.cat([torch.arange(p, device=device).repeat(b),
                               (p + torch.arange(length, device=device)).repeat(b * k)])
        cos, sin = self._rope(positions)
        x = prefix.reshape(b * p, h)
        mask = None
        mask_p = torch.ones(p, p, dtype=torch.bool, device=device).tril()
        if branches is not None:
            x = torch.cat([x, branches.reshape(b * k * length, h)])
            mask = torch.ones(length, p + length, dtype=torch.bool, device=device).tril(diagonal=p)
        repeat = c.num_attention_heads // c.num_key_value_heads
        for layer in self.model.layers:  # type: ignore[union-attr]
            n = layer.input_layernorm(x)
            att = layer.self_attn
            q = _rotate(att.q_proj(n).view(-1, c.num_attention_heads, c.head_dim), cos, sin)
            key = _rotate(att.k_proj(n).view(-1, c.num_key_value_heads, c.head_dim), cos, sin)
            v = att.v_proj(n).view(-1, c.num_key_value_heads, c.head_dim)
            q, key = q.to(v.dtype), key.to(v.dtype)
            key, v = key.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)

            def split(t: Tensor) -> tuple[Tensor, Tensor]:
                heads, d = t.shape[1], t.shape[2]
                return (t[: b * p].view(b, p, heads, d).transpose(1, 2),
                        t[b * p :].view(b * k, length, heads, d).transpose(1, 2))

            (qp, qb), (kp, kb), (vp, vb) = split(q), split(key), split(v)
            out = attend(qp, kp, vp, mask_p).transpose(1, 2).reshape(b * p, -1)
            if branches is not None:
                kb = torch.cat([kp.repeat_interleave(k, 0), kb], dim=2)
                vb = torch.cat([vp.repeat_interleave(k, 0), vb], dim=2)
                out_b = attend(qb, kb, vb, mask)
                out = torch.cat([out, out_b.transpose(1, 2).reshape(b * k * length, -1)])
            x = x + att.o_proj(out)
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        x = self.model.norm(x)  # type: ignore[operator]
        hidden_branch = x[b * p :].view(b, k, length, h) if branches is not None else None
        return x[: b * p].view(b, p, h), hidden_branch


# ----------------------------------------------------------------------------------------------- whole


class BeingVLA(nn.Module):
    """Vision, projector and language model under the official key prefix `vlm_adapter.`"""

    def __init__(self, config: VLAConfig, layer_scale: float = 1.0) -> None:
        super().__init__()
        self.config = config
        vit, llm = config.vision.hidden_size, config.language.hidden_size
        self.vlm_adapter = nn.Module()
        self.vlm_adapter._vision_model = VisionModel(config.vision, layer_scale)
        self.vlm_adapter._language_model = LanguageModel(config.language)
        self.vlm_adapter.mlp1 = nn.Sequential(
            nn.LayerNorm(4 * vit), nn.Linear(4 * vit, llm), nn.GELU(), nn.Linear(llm, llm))

    @property
    def language(self) -> LanguageModel:
        return self.vlm_adapter._language_model  # type: ignore[return-value]

    def visual_tokens(self, pixels: Tensor) -> Tensor:
        """float[N, 3, S, S] -> float[N, num_image_token, H]."""
        grid = self.vlm_adapter._vision_model(pixels)[:, 1:]  # type: ignore[operator]
        out: Tensor = self.vlm_adapter.mlp1(pixel_shuffle(grid))  # type: ignore[operator]
        return out.float()
