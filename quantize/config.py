"""config.json of a checkpoint, whatever its style, as one geometry.

Understood: the published BeingVLA style (`vlm_config`), the older one with the same fields at top level, and
Hugging Face's native InternVL (`text_config`). Every number comes from the file; a field that would change
the computation in a way this package does not implement is an error, never ignored.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from beingh0_edge.errors import BundleError
from beingh0_edge.prompt import SYSTEM_MESSAGES


@dataclass(frozen=True)
class VisionConfig:
    """InternViT. `layers` counts those the model uses, `stored_layers` those in the file."""

    table_size: int
    patch: int
    hidden: int
    mlp: int
    layers: int
    stored_layers: int
    heads: int
    eps: float
    qkv_bias: bool
    qk_norm: bool
    rms_norm: bool

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads

    @property
    def table_positions(self) -> int:
        """Rows of the position table: one per patch and the class token."""
        return (self.table_size // self.patch) ** 2 + 1


@dataclass(frozen=True)
class LanguageConfig:
    """Qwen2."""

    vocabulary: int
    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    rope_theta: float
    context: int
    tied: bool
    eos: int | None


@dataclass(frozen=True)
class RobotConfig:
    proprio_dim: int
    action_dim: int
    chunk_length: int
    gen_action_type: Literal["action_token", "prop_hidden", "last_hidden"]
    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    statistics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    vision: VisionConfig
    language: LanguageConfig
    robot: RobotConfig | None
    image_size: int
    shuffle: int
    template: str
    lora_rank: dict[str, int]
    motion_args: list[dict[str, Any]]

    @property
    def grid(self) -> int:
        """Patches along one side of the picture."""
        return self.image_size // self.vision.patch

    @property
    def image_tokens(self) -> int:
        return (self.grid // self.shuffle) ** 2


def read_config(path: Path) -> ModelConfig:
    """Raises BundleError naming the field that is missing or not supported."""
    if not path.is_file():
        raise BundleError(f"{path}: missing; a checkpoint folder needs it", str(path))
    try:
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict):
            raise ValueError("expected an object")
        return _model(data)
    except KeyError as error:
        raise BundleError(f"{path}: the field {error} is missing", str(path)) from error
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path}: {error}", str(path)) from error


def _model(data: dict[str, Any]) -> ModelConfig:
    vlm = data.get("vlm_config") or data
    native = "text_config" in vlm
    vision = vlm["vision_config"]
    language = vlm["text_config"] if native else vlm["llm_config"]
    size = _square(vlm.get("force_image_size") or vision["image_size"], "force_image_size")
    patch = _square(vision["patch_size"], "patch_size")
    ratio = float(vlm.get("downsample_ratio", 0.5))
    shuffle = round(1 / ratio)
    if abs(shuffle * ratio - 1) > 1e-6 or size % (patch * shuffle):
        raise ValueError(
            f"downsample_ratio {ratio} does not divide the {size} px picture of {patch} px patches"
        )
    # v1 leaves rows and columns of the visual tokens swapped; no published model uses it.
    _expect(vlm, "ps_version", ("v2",), "v2")
    select = int(vlm.get("vision_feature_layer" if native else "select_layer", -1))
    stored = int(vision["num_hidden_layers"])
    used = select if select >= 0 else stored + 1 + select
    if not 0 <= used <= stored:
        raise ValueError(f"select_layer {select} does not exist in a tower of {stored} layers")
    template = vlm.get("template", "internvl2_5")
    if template not in SYSTEM_MESSAGES:
        raise ValueError(f"unknown template {template!r}; known: {', '.join(SYSTEM_MESSAGES)}")
    tied = any(where.get("tie_word_embeddings") for where in (language, vlm, data))
    return ModelConfig(
        vision=_vision(vision, patch, used, native),
        language=_language(language, tied),
        robot=_robot(data),
        image_size=size,
        shuffle=shuffle,
        template=template,
        lora_rank={
            "language": int(vlm.get("use_llm_lora") or 0),
            "vision": int(vlm.get("use_backbone_lora") or 0),
        },
        motion_args=_motion_args(data.get("motion_config")),
    )


def _vision(c: dict[str, Any], patch: int, layers: int, native: bool) -> VisionConfig:
    _expect(c, "hidden_act", ("gelu",), "gelu")
    _expect(c, "num_channels", (3,), 3)
    norm = _expect(c, "norm_type", ("layer_norm", "rms_norm"), "layer_norm")
    hidden, heads = int(c["hidden_size"]), int(c["num_attention_heads"])
    if hidden % heads:
        raise ValueError(f"vision hidden_size {hidden} is not a multiple of its {heads} heads")
    return VisionConfig(
        table_size=_square(c["image_size"], "vision image_size"),
        patch=patch,
        hidden=hidden,
        mlp=int(c["intermediate_size"]),
        layers=layers,
        stored_layers=int(c["num_hidden_layers"]),
        heads=heads,
        eps=float(c.get("layer_norm_eps", 1e-6)),
        qkv_bias=bool(c.get("attention_bias", False) if native else c.get("qkv_bias", True)),
        qk_norm=bool(c.get("use_qk_norm", False) if native else c.get("qk_normalization", False)),
        rms_norm=norm == "rms_norm",
    )


def _language(c: dict[str, Any], tied: bool) -> LanguageConfig:
    _expect(c, "model_type", ("qwen2",), "qwen2")
    _expect(c, "hidden_act", ("silu",), "silu")
    if c.get("use_sliding_window"):
        raise ValueError("use_sliding_window is true; only full attention is supported")
    hidden, heads = int(c["hidden_size"]), int(c["num_attention_heads"])
    head_dim = int(c.get("head_dim") or hidden // heads)
    if head_dim * heads != hidden or head_dim % 2:
        raise ValueError(f"head_dim: Qwen2 has hidden_size {hidden} over {heads} heads in even parts, got {head_dim}")
    rope = c.get("rope_parameters") or {}
    # rope_scaling is ignored on purpose: the published stack ignores it for Qwen2, and the dynamic kind that
    # InternVL3 configs carry acts only beyond the context length.
    theta = c.get("rope_theta", rope.get("rope_theta"))
    if theta is None:
        raise KeyError("rope_theta")
    eos = c.get("eos_token_id")
    return LanguageConfig(
        vocabulary=int(c["vocab_size"]), hidden=hidden, mlp=int(c["intermediate_size"]),
        layers=int(c["num_hidden_layers"]), heads=heads, kv_heads=int(c.get("num_key_value_heads") or heads),
        head_dim=head_dim, eps=float(c["rms_norm_eps"]), rope_theta=float(theta),
        context=int(c.get("max_position_embeddings", 4096)),
        tied=tied, eos=eos if isinstance(eos, int) else None)


def _robot(data: dict[str, Any]) -> RobotConfig | None:
    if not data.get("enable_robot_alignment"):
        return None
    kind = _expect(data, "gen_action_type", ("action_token", "prop_hidden", "last_hidden"), "prop_hidden")
    state, action = int(data.get("proprio_dim", 13)), int(data.get("action_dim", 13))
    statistics = data.get("norm_stats") or {}
    if not isinstance(statistics, dict):
        raise ValueError(f"norm_stats: expected an object, got {statistics!r}")
    json.dumps(statistics, allow_nan=False)
    return RobotConfig(state, action, int(data.get("action_chunk_length", 16)), kind,
                       _names(data, "state_names", state), _names(data, "action_names", action), statistics)


def _names(data: dict[str, Any], key: str, count: int) -> tuple[str, ...]:
    """What the numbers of a state or an action are called; () if the file does not tell."""
    names = data.get(key) or []
    if not isinstance(names, list) or (names and len(names) != count) or not all(isinstance(n, str) for n in names):
        raise ValueError(f"{key}: expected {count} texts, got {names!r}")
    return tuple(names)


def _motion_args(value: Any) -> list[dict[str, Any]]:
    """The motion_args of each part; the published files hold one object or a list, {} meaning none."""
    values = value if isinstance(value, list) else [value] if value else []
    if not all(isinstance(part, dict) for part in values):
        raise ValueError(f"motion_config: expected objects, got {value!r}")
    return values


def _square(value: Any, name: str) -> int:
    if isinstance(value, list):
        if len(value) != 2 or value[0] != value[1]:
            raise ValueError(f"{name}: expected a square, got {value}")
        value = value[0]
    return int(value)


def _expect(c: dict[str, Any], key: str, known: tuple[Any, ...], default: Any) -> Any:
    value = c.get(key, default)
    if value not in known:
        raise ValueError(f"{key}: expected {' or '.join(map(repr, known))}, got {value!r}")
    return value
