"""Which tensors a model has, by published name and shape, and what other checkpoints call them."""

from __future__ import annotations

import re

from beingh0_edge.bundle import RobotSpec

from .config import ModelConfig, RobotConfig

VISION = "vlm_adapter._vision_model."
LANGUAGE = "vlm_adapter._language_model."
PROJECTOR = "vlm_adapter.mlp1."
MOTION = "motion_adapter."
EMBEDDING = LANGUAGE + "model.embed_tokens.weight"
HEAD = LANGUAGE + "lm_head.weight"


def expected_shapes(config: ModelConfig, tied: bool) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a model of this geometry has (published names)."""
    v, c = config.vision, config.language
    shapes: dict[str, tuple[int, ...]] = {
        VISION + "embeddings.class_embedding": (1, 1, v.hidden),
        VISION + "embeddings.position_embedding": (1, v.table_positions, v.hidden),
        VISION + "embeddings.patch_embedding.weight": (v.hidden, 3, v.patch, v.patch),
        VISION + "embeddings.patch_embedding.bias": (v.hidden,),
    }
    for i in range(v.stored_layers):
        layer = f"{VISION}encoder.layers.{i}."
        for norm in ("norm1", "norm2"):
            shapes[f"{layer}{norm}.weight"] = (v.hidden,)
            if not v.rms_norm:
                shapes[f"{layer}{norm}.bias"] = (v.hidden,)
        shapes[layer + "attn.qkv.weight"] = (3 * v.hidden, v.hidden)
        if v.qkv_bias:
            shapes[layer + "attn.qkv.bias"] = (3 * v.hidden,)
        if v.qk_norm:
            shapes |= {layer + "attn.q_norm.weight": (v.hidden,), layer + "attn.k_norm.weight": (v.hidden,)}
        shapes |= {
            layer + "attn.proj.weight": (v.hidden, v.hidden), layer + "attn.proj.bias": (v.hidden,),
            layer + "mlp.fc1.weight": (v.mlp, v.hidden), layer + "mlp.fc1.bias": (v.mlp,),
            layer + "mlp.fc2.weight": (v.hidden, v.mlp), layer + "mlp.fc2.bias": (v.hidden,),
            layer + "ls1": (v.hidden,), layer + "ls2": (v.hidden,),
        }
    wide = v.hidden * config.shuffle**2
    shapes |= {
        PROJECTOR + "0.weight": (wide,), PROJECTOR + "0.bias": (wide,),
        PROJECTOR + "1.weight": (c.hidden, wide), PROJECTOR + "1.bias": (c.hidden,),
        PROJECTOR + "3.weight": (c.hidden, c.hidden), PROJECTOR + "3.bias": (c.hidden,),
        EMBEDDING: (c.vocabulary, c.hidden), LANGUAGE + "model.norm.weight": (c.hidden,),
    }
    if not tied:
        shapes[HEAD] = (c.vocabulary, c.hidden)
    q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim
    for i in range(c.layers):
        layer = f"{LANGUAGE}model.layers.{i}."
        shapes |= {
            layer + "self_attn.q_proj.weight": (q, c.hidden),
            layer + "self_attn.q_proj.bias": (q,),
            layer + "self_attn.k_proj.weight": (kv, c.hidden),
            layer + "self_attn.k_proj.bias": (kv,),
            layer + "self_attn.v_proj.weight": (kv, c.hidden),
            layer + "self_attn.v_proj.bias": (kv,),
            layer + "self_attn.o_proj.weight": (c.hidden, q),
            layer + "mlp.gate_proj.weight": (c.mlp, c.hidden),
            layer + "mlp.up_proj.weight": (c.mlp, c.hidden),
            layer + "mlp.down_proj.weight": (c.hidden, c.mlp),
            layer + "input_layernorm.weight": (c.hidden,),
            layer + "post_attention_layernorm.weight": (c.hidden,),
        }
    if config.robot:
        shapes |= robot_spec(config.robot).tensor_shapes(c.hidden)
    return shapes


def robot_spec(robot: RobotConfig) -> RobotSpec:
    return RobotSpec("robot.safetensors", robot.proprio_dim, robot.action_dim, robot.chunk_length,
                     robot.gen_action_type, robot.state_names, robot.action_names, robot.statistics)


_NATIVE = [
    (re.compile(pattern), target)
    for pattern, target in (
        (r"^(?:model\.)?vision_tower\.embeddings\.cls_token$", VISION + "embeddings.class_embedding"),
        (
            r"^(?:model\.)?vision_tower\.embeddings\.position_embeddings$",
            VISION + "embeddings.position_embedding",
        ),
        (
            r"^(?:model\.)?vision_tower\.embeddings\.patch_embeddings\.projection\.",
            VISION + "embeddings.patch_embedding.",
        ),
        (
            r"^(?:model\.)?vision_tower\.encoder\.layer\.(\d+)\.attention\.projection_layer\.",
            VISION + r"encoder.layers.\1.attn.proj.",
        ),
        (
            r"^(?:model\.)?vision_tower\.encoder\.layer\.(\d+)\.attention\.",
            VISION + r"encoder.layers.\1.attn.",
        ),
        (
            r"^(?:model\.)?vision_tower\.encoder\.layer\.(\d+)\.layernorm_before\.",
            VISION + r"encoder.layers.\1.norm1.",
        ),
        (
            r"^(?:model\.)?vision_tower\.encoder\.layer\.(\d+)\.layernorm_after\.",
            VISION + r"encoder.layers.\1.norm2.",
        ),
        (r"^(?:model\.)?vision_tower\.encoder\.layer\.(\d+)\.lambda_", VISION + r"encoder.layers.\1.ls"),
        (r"^(?:model\.)?vision_tower\.encoder\.layer\.(\d+)\.", VISION + r"encoder.layers.\1."),
        (r"^(?:model\.)?multi_modal_projector\.layer_norm\.", PROJECTOR + "0."),
        (r"^(?:model\.)?multi_modal_projector\.linear_1\.", PROJECTOR + "1."),
        (r"^(?:model\.)?multi_modal_projector\.linear_2\.", PROJECTOR + "3."),
        (r"^(?:model\.)?language_model\.lm_head\.|^lm_head\.", LANGUAGE + "lm_head."),
        (r"^(?:model\.)?language_model\.(?:model\.)?", LANGUAGE + "model."),
    )
]
_RAW = (("vision_model.", VISION), ("language_model.", LANGUAGE), ("mlp1.", PROJECTOR))
_QKV = re.compile(r"\.attn\.([qkv])_proj\.")
_LORA = re.compile(r"\.lora_([AB])(?:\.default)?\.weight$")


def official_name(raw: str, native: bool = False) -> tuple[str, int, str]:
    """(published name, piece of it, "A" or "B" for half of a LoRA pair) of a tensor in a file.

    Undone: the DeepSpeed prefix `module.`, raw InternVL names, Hugging Face's native InternVL names
    (`native`; its q, k, v become pieces 0, 1, 2 of one qkv), and the wrappers that PEFT inserts for LoRA.
    """
    name, piece, lora = raw.removeprefix("module."), 0, ""
    name = (
        name.replace(".base_model.model.", ".").replace(".base_layer.", ".").removeprefix("base_model.model.")
    )
    if half := _LORA.search(name):
        lora, name = half.group(1), name[: half.start()] + ".weight"
    if native:
        for pattern, target in _NATIVE:
            name, hits = pattern.subn(target, name)
            if hits:
                break
        if part := _QKV.search(name):
            piece = "qkv".index(part.group(1))
            name = name.replace(part.group(0), ".attn.qkv.")
    else:
        for old, new in _RAW:
            if name.startswith(old):
                name = new + name.removeprefix(old)
    return name, piece, lora
