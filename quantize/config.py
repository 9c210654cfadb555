"""config.json of a checkpoint, whatever its style, as one geometry.

Understood: the published BeingVLA style (`vlm_config`), the older one with the same fields at top level, and
Hugging Face's native InternVL (`text_config`). Every number comes from the file; a field that would change
the computation in a way this package does not implement is an error, never ignored.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from beingh0_edge.errors import BundleError
from beingh0_edge.files import read_json
from beingh0_edge.prompt import SYSTEM_MESSAGES

# Beyond any model: a damaged number must not cost hours before it is found to be one.
_LARGEST, _MOST_LAYERS, _LONGEST_CHUNK = 1 << 24, 1000, 10_000


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
        return _model(read_json(path))
    except KeyError as error:
        raise BundleError(f"{path}: the field {error} is missing", str(path)) from error
    except ValueError as error:
        raise BundleError(f"{path}: {error}", str(path)) from error


def _model(data: dict[str, Any]) -> ModelConfig:
    vlm = _section(data, "vlm_config") if data.get("vlm_config") else data
    native = "text_config" in vlm
    vision = _section(vlm, "vision_config")
    language = _section(vlm, "text_config" if native else "llm_config")
    patch = _square(vision, "patch_size")
    size = _square(vlm if vlm.get("force_image_size") else vision, "force_image_size", "image_size")
    ratio = _real(vlm, "downsample_ratio", 0.5)
    shuffle = round(1 / ratio)
    if abs(shuffle * ratio - 1) > 1e-6 or size % (patch * shuffle):
        raise ValueError(
            f"downsample_ratio {ratio} does not divide the {size} px picture of {patch} px patches"
        )
    # v1 leaves rows and columns of the visual tokens swapped; no published model uses it.
    _expect(vlm, "ps_version", ("v2",), "v2")
    select = _whole(vlm, "vision_feature_layer" if native else "select_layer", -1, lowest=-_MOST_LAYERS)
    stored = _whole(vision, "num_hidden_layers", largest=_MOST_LAYERS)
    used = select if select >= 0 else stored + 1 + select
    if not 0 <= used <= stored:
        raise ValueError(f"select_layer {select} does not exist in a tower of {stored} layers")
    if native:
        _expect(vlm, "vision_feature_select_strategy", ("default",), "default")
        _expect(vlm, "projector_hidden_act", ("gelu",), "gelu")
    template = vlm.get("template", "internvl2_5")
    if template not in tuple(SYSTEM_MESSAGES):
        raise ValueError(f"unknown template {template!r}; known: {', '.join(SYSTEM_MESSAGES)}")
    tied = any(_flag(where, "tie_word_embeddings", False) for where in (language, vlm, data))
    return ModelConfig(
        vision=_vision(vision, patch, used, native),
        language=_language(language, tied),
        robot=_robot(data),
        image_size=size,
        shuffle=shuffle,
        template=template,
        lora_rank={part: 0 if vlm.get(key) is False else _whole(vlm, key, 0, lowest=0)
                   for part, key in (("language", "use_llm_lora"), ("vision", "use_backbone_lora"))},
        motion_args=_motion_args(data.get("motion_config")),
    )


def _vision(c: dict[str, Any], patch: int, layers: int, native: bool) -> VisionConfig:
    _expect(c, "hidden_act", ("gelu",), "gelu")
    _expect(c, "num_channels", (3,), 3)
    norm = _expect(c, "norm_type", ("layer_norm", "rms_norm"), "layer_norm")
    hidden, heads = _whole(c, "hidden_size"), _whole(c, "num_attention_heads")
    if hidden % heads:
        raise ValueError(f"vision hidden_size {hidden} is not a multiple of its {heads} heads")
    return VisionConfig(
        table_size=_square(c, "image_size"),
        patch=patch,
        hidden=hidden,
        mlp=_whole(c, "intermediate_size"),
        layers=layers,
        stored_layers=_whole(c, "num_hidden_layers"),
        heads=heads,
        eps=_real(c, "layer_norm_eps", 1e-6),
        qkv_bias=_flag(c, "attention_bias", False) if native else _flag(c, "qkv_bias", True),
        qk_norm=_flag(c, "use_qk_norm" if native else "qk_normalization", False),
        rms_norm=norm == "rms_norm",
    )


def _language(c: dict[str, Any], tied: bool) -> LanguageConfig:
    _expect(c, "model_type", ("qwen2",), "qwen2")
    _expect(c, "hidden_act", ("silu",), "silu")
    if _flag(c, "use_sliding_window", False):
        raise ValueError("use_sliding_window is true; only full attention is supported")
    hidden, heads = _whole(c, "hidden_size"), _whole(c, "num_attention_heads")
    kv_heads = _whole(c, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise ValueError(f"num_attention_heads: expected a multiple of {kv_heads} num_key_value_heads, got {heads}")
    head_dim = _whole(c, "head_dim", hidden // heads)
    if head_dim * heads != hidden or head_dim % 2:
        raise ValueError(f"head_dim: Qwen2 has hidden_size {hidden} over {heads} heads in even parts, got {head_dim}")
    # rope_scaling is ignored on purpose: the published stack ignores it for Qwen2, and the dynamic kind that
    # InternVL3 configs carry acts only beyond the context length.
    rope = _section(c, "rope_parameters") if c.get("rope_parameters") else {}
    _expect(rope, "rope_type", ("default", "dynamic"), "default")
    return LanguageConfig(
        vocabulary=_whole(c, "vocab_size"), hidden=hidden, mlp=_whole(c, "intermediate_size"),
        layers=_whole(c, "num_hidden_layers", largest=_MOST_LAYERS), heads=heads, kv_heads=kv_heads,
        head_dim=head_dim, eps=_real(c, "rms_norm_eps"),
        rope_theta=_real(rope if "rope_theta" in rope else c, "rope_theta"),
        context=_whole(c, "max_position_embeddings", 4096), tied=tied)


def _robot(data: dict[str, Any]) -> RobotConfig | None:
    if not _flag(data, "enable_robot_alignment", False):
        return None
    kind = _expect(data, "gen_action_type", ("action_token", "prop_hidden", "last_hidden"), "prop_hidden")
    state, action = _whole(data, "proprio_dim", 13), _whole(data, "action_dim", 13)
    statistics = _section(data, "norm_stats") if data.get("norm_stats") else {}
    try:
        json.dumps(statistics, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"norm_stats: {error}") from error
    return RobotConfig(state, action, _whole(data, "action_chunk_length", 16, largest=_LONGEST_CHUNK), kind,
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


def _section(c: dict[str, Any], key: str) -> dict[str, Any]:
    if not isinstance(value := c[key], dict):
        raise ValueError(f"{key}: expected an object, got {value!r}")
    return value


def _value(c: dict[str, Any], key: str, default: Any) -> Any:
    """null is as good as no such field. Raises KeyError if there is no default either."""
    value = c.get(key)
    if value is None and default is None:
        raise KeyError(key)
    return default if value is None else value


def _whole(c: dict[str, Any], key: str, default: int | None = None, *, lowest: int = 1,
           largest: int = _LARGEST) -> int:
    value = _value(c, key, default)
    if type(value) is not int or not lowest <= value <= largest:
        raise ValueError(f"{key}: expected a whole number from {lowest} to {largest}, got {value!r}")
    return value


def _real(c: dict[str, Any], key: str, default: float | None = None) -> float:
    value = _value(c, key, default)
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise ValueError(f"{key}: expected a number above 0, got {value!r}")
    return float(value)


def _flag(c: dict[str, Any], key: str, default: bool) -> bool:
    value = _value(c, key, default)
    if type(value) is not bool:
        raise ValueError(f"{key}: expected true or false, got {value!r}")
    return value


def _square(c: dict[str, Any], *keys: str) -> int:
    """The first of the fields that is there: one length, or twice the same."""
    key = next((key for key in keys if c.get(key) is not None), keys[-1])
    value = _value(c, key, None)
    if isinstance(value, list):
        if len(value) != 2 or value[0] != value[1]:
            raise ValueError(f"{key}: expected a square, got {value}")
        value = value[0]
    return _whole({key: value}, key)


def _expect(c: dict[str, Any], key: str, known: tuple[Any, ...], default: Any) -> Any:
    value = c.get(key, default)
    if value not in known:
        raise ValueError(f"{key}: expected {' or '.join(map(repr, known))}, got {value!r}")
    return value
