"""A random checkpoint and bundle of the real architecture, made in about a second; nothing licensed in it.

The camera, hands and token layout are those of a small model of our own; the motion tokenizer is the recorded
tiny one.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from beingh0_edge import Bundle, prompt
from beingh0_edge.quantize import build_bundle
from beingh0_edge.quantize.checkpoint import expected_shapes
from beingh0_edge.quantize.config import read_config

MOTION = Path(__file__).parent / "golden" / "data" / "vla" / "motion_tokenizer"
MOTION_IDS = 64
IMAGE_SIZE = 56
CAMERA = {"fx": 90.0, "fy": 90.0, "cx": 56.0, "cy": 56.0, "width": 112, "height": 112}
MAX_SECONDS = 3


def make_tokenizer(path: Path, action_chunks: int = 0) -> Tokenizer:
    """Byte-level with two merges; the special pieces are one token each."""
    vocabulary = {token: i for i, token in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), "re", "red"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("r", "e"), ("re", "d")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>", prompt.IMG, prompt.IMG_END, prompt.IMG_CONTEXT, prompt.MOT,
               *map(prompt.motion_id, range(MOTION_IDS)), prompt.MOT_NOOP, prompt.MOT_END]
    if action_chunks:
        special += [prompt.PROP_CONTEXT, *map(prompt.action_chunk, range(action_chunks))]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(path))
    return tokenizer


def make_config(vocabulary: int, **changes: Any) -> dict[str, Any]:
    """config.json in the published style. `changes` go to the top level."""
    return {
        "model_type": "beingvla",
        "vlm_type": "internvl",
        "motion_type": "mano",
        "vlm_config": {
            "vision_config": {
                "image_size": IMAGE_SIZE,
                "patch_size": 14,
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "layer_norm_eps": 1e-6,
                "qkv_bias": True,
                "qk_normalization": False,
                "norm_type": "layer_norm",
                "hidden_act": "gelu",
                "num_channels": 3,
            },
            "llm_config": {
                "model_type": "qwen2",
                "vocab_size": vocabulary,
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "rms_norm_eps": 1e-6,
                "rope_theta": 1e6,
                "max_position_embeddings": 2048,
                "tie_word_embeddings": False,
                "hidden_act": "silu",
            },
            "downsample_ratio": 0.5,
            "ps_version": "v2",
            "template": "being_h0",
            "select_layer": -1,
            "force_image_size": IMAGE_SIZE,
            "use_backbone_lora": 0,
            "use_llm_lora": 0,
        },
        "enable_robot_alignment": False,
        **changes,
    }


def make_weights(folder: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Random tensors for the folder's config.json, with the published names."""
    config = read_config(folder / "config.json")
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in expected_shapes(config, config.language.tied).items():
        value = random.normal(0, 1 / np.sqrt(shape[-1]) if len(shape) > 1 else 0.02, shape)
        if name.endswith(("norm.weight", "layernorm.weight", "norm1.weight", "norm2.weight", "mlp1.0.weight",
                          "ls1", "ls2")):
            value += 1
        weights[name] = value.astype(np.float32)
    return weights


def make_checkpoint(folder: Path, *, robot: bool = False, seed: int = 0) -> Path:
    """A checkpoint folder as training writes it."""
    folder.mkdir(parents=True)
    chunk = 4 if robot else 0
    tokenizer = make_tokenizer(folder / "tokenizer.json", chunk)
    extra = (
        {
            "enable_robot_alignment": True,
            "gen_action_type": "action_token",
            "proprio_dim": 5,
            "action_dim": 3,
            "action_chunk_length": chunk,
        }
        if robot
        else {}
    )
    config = make_config(tokenizer.get_vocab_size(), **extra)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(make_weights(folder, seed), str(folder / "model.safetensors"))
    shutil.copytree(MOTION, folder / "motion")
    (folder / "edge.json").write_text(json.dumps({
        "name": "tiny", "camera": CAMERA, "image_size": IMAGE_SIZE, "max_seconds": MAX_SECONDS,
        "provenance": {"made_by": "tests/tiny_bundle.py"}}))
    return folder


def make_bundle(folder: Path, **options: Any) -> Bundle:
    """A bundle at `folder` from a fresh random checkpoint beside it."""
    checkpoint = make_checkpoint(folder.with_name(folder.name + "_checkpoint"))
    return build_bundle(checkpoint, folder, **options)
