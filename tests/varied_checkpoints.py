"""Tiny checkpoints of many geometries and styles, and the same networks in torch (transformers) to compare with.

The goldens record one geometry; whoever converts a checkpoint must read every number from its files. Weights are
random; motion tokenizers come from the torch reference of the motion tokenizer's tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from test_motion_tokenizer import Reference, write

from beingh0_edge.types import FloatArray, IntArray

VISION, LANGUAGE, PROJECTOR = "vlm_adapter._vision_model.", "vlm_adapter._language_model.", "vlm_adapter.mlp1."
TEXT_IDS = 90


@dataclass(frozen=True)
class Variant:
    """What a checkpoint looks like. parts: changes of each tokenizer part's motion_args; style: how it is stored."""

    hidden: int = 48
    mlp: int = 80
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int | None = None
    rope_theta: float = 1e6
    rms_eps: float = 1e-6
    tied: bool = False
    vit_hidden: int = 32
    vit_mlp: int = 48
    vit_layers: int = 2
    vit_heads: int = 2
    vit_eps: float = 1e-6
    patch: int = 14
    image: int = 56
    shuffle: int = 2
    trained_image: int | None = None
    qkv_bias: bool = True
    qk_norm: bool = False
    rms_vit: bool = False
    select_layer: int = -1
    noop: bool = True
    motion_first: bool = False
    lora: int = 0
    template: str = "internvl2_5"
    robot: str | None = None
    chunk: int = 4
    old_config: bool = False
    style: str = "single"
    names: str = "beingvla"
    dtype: torch.dtype = torch.float32
    parts: tuple[dict[str, Any], ...] = ({"use_part": "wrist"}, {"use_part": "finger"})


VARIANTS = {
    "plain": Variant(),
    "odd widths, one key-value head, old config": Variant(
        hidden=60, mlp=100, layers=3, heads=6, kv_heads=1, vit_hidden=36, vit_mlp=70, vit_heads=3, vit_layers=1,
        image=84, template="being_h0", old_config=True, noop=False, rope_theta=1e4, rms_eps=1e-5,
        parts=({"use_part": "wrist", "norm": "LN", "activate": "silu", "nb_code": 7, "shared_codebook": True},
               {"use_part": "finger", "norm": "LN", "activate": "silu", "nb_code": 9, "shared_codebook": True,
                "num_quantizers": 2})),
    "tied head, every head its own keys, shards": Variant(
        hidden=40, mlp=64, heads=4, kv_heads=4, tied=True, style="shards", vit_eps=1e-5,
        parts=({"use_part": "wrist", "window_size": 16, "down_t": 2, "num_quant_groups": 3, "depth": 1},
               {"use_part": "finger", "window_size": 16, "down_t": 2, "num_quant_groups": 4, "depth": 3})),
    "rms norm and normalised queries in the tower, DeepSpeed, bin": Variant(
        vit_hidden=64, vit_heads=4, qk_norm=True, rms_vit=True, qkv_bias=False, names="deepspeed", style="bin",
        parts=({"use_part": "wrist", "norm": "GN", "activate": "gelu", "num_conv_layers": 2},
               {"use_part": "finger", "norm": "BN", "nb_code": 5, "num_quantizers": 4})),
    "larger picture than trained, raw names, bfloat16": Variant(
        image=112, trained_image=84, names="raw", dtype=torch.bfloat16, hidden=64, heads=8, kv_heads=2, layers=1,
        parts=({"use_part": None, "quantizer_name": "residualvq", "nb_code": 6},)),
    "earlier tower layer, other patches, sharded bin": Variant(
        patch=8, image=48, select_layer=-2, vit_layers=3, style="bin shards", dtype=torch.float16, template="being_h0",
        parts=({"use_part": "wrist", "window_size": 15, "down_t": 2, "nb_code": 4},
               {"use_part": "finger", "window_size": 15, "down_t": 2, "nb_code": 8})),
    "head_dim told, a picture token per patch, motion ids first": Variant(
        heads=3, kv_heads=1, head_dim=16, shuffle=1, image=42, motion_first=True),
    "4 by 4 patches per token, Hugging Face's names": Variant(
        shuffle=4, image=112, names="native", heads=6, kv_heads=3, select_layer=1, style="shards"),
    "LoRA in both networks, motion ids first, no no-op": Variant(
        lora=3, motion_first=True, noop=False, robot="action_token", tied=True),
    "LoRA over raw names": Variant(lora=4, names="raw", dtype=torch.bfloat16),
    "a wrist alone": Variant(parts=({"use_part": "wrist", "num_quantizers": 1, "num_quant_groups": 1},)),
    "robot, an action per token": Variant(robot="action_token", chunk=3, hidden=56, heads=7, kv_heads=7),
    "robot, last hidden": Variant(robot="last_hidden", chunk=5, heads=2, kv_heads=1, tied=True),
    "robot, proprioception's hidden": Variant(robot="prop_hidden", chunk=2, layers=4, rope_theta=5e5),
}


@dataclass
class Made:
    """A checkpoint on disk, its tokenizer folders, and its networks in torch."""

    folder: Path
    tokenizer_folders: list[Path]
    variant: Variant
    weights: dict[str, torch.Tensor]
    config: dict[str, Any]
    ids: dict[str, Any]
    motion: list[Reference] = field(default_factory=list)

    def prompt(self, random: np.random.Generator) -> IntArray:
        ids = random.integers(0, TEXT_IDS, self.ids["num_image_token"] + 9) + self.first_text
        ids[4 : 4 + self.ids["num_image_token"]] = self.token("<IMG_CONTEXT>")
        return ids.astype(np.int32)

    def token(self, text: str) -> int:
        return int(self.ids["token_ids"][text])

    @property
    def first_text(self) -> int:
        return self.ids["vocab_size"] - TEXT_IDS if self.variant.motion_first else 0

    def robot_prompt(self, random: np.random.Generator) -> IntArray:
        first = self.ids["action_chunk_0"]
        tail = [self.token("<PROP_CONTEXT>"), *range(first, first + self.variant.chunk)]
        return np.concatenate([self.prompt(random), tail]).astype(np.int32)

    def pixels(self, random: np.random.Generator) -> FloatArray:
        size = self.variant.image
        return random.normal(size=(3, size, size)).astype(np.float32)

    # ---- the networks

    @torch.no_grad()
    def visual(self, pixels: FloatArray) -> torch.Tensor:
        """float[tokens, hidden]"""
        from transformers import InternVLVisionConfig, InternVLVisionModel

        v = self.variant
        size = v.trained_image or v.image
        config = InternVLVisionConfig(
            hidden_size=v.vit_hidden, intermediate_size=v.vit_mlp, num_hidden_layers=v.vit_layers,
            num_attention_heads=v.vit_heads, layer_norm_eps=v.vit_eps, image_size=[size, size],
            patch_size=[v.patch, v.patch], attention_bias=v.qkv_bias, use_qk_norm=v.qk_norm,
            norm_type="rms_norm" if v.rms_vit else "layer_norm", use_mean_pooling=True)
        model = InternVLVisionModel(config).eval()
        state = {}
        for name, value in self.weights.items():
            if name.startswith(VISION):
                state |= dict(_transformers_tower(name.removeprefix(VISION), value))
        model.load_state_dict(state)
        states = model(torch.from_numpy(pixels)[None], output_hidden_states=True).hidden_states
        x = states[v.select_layer][0, 1:]
        side, s = v.image // v.patch, v.shuffle
        # Pixel shuffle by 2, output token (I, J): input (2I, 2J), (2I, 2J+1), (2I+1, 2J), (2I+1, 2J+1).
        grid = x.view(side, side, -1)
        x = torch.cat([grid[i::s, j::s] for i in range(s) for j in range(s)], -1).reshape((side // s) ** 2, -1)
        w = {name.removeprefix(PROJECTOR): value for name, value in self.weights.items() if name.startswith(PROJECTOR)}
        x = torch.nn.functional.layer_norm(x, x.shape[-1:], w["0.weight"], w["0.bias"], 1e-5)
        x = torch.nn.functional.gelu(x @ w["1.weight"].T + w["1.bias"])
        return x @ w["3.weight"].T + w["3.bias"]

    def language(self) -> torch.nn.Module:
        from transformers import Qwen2Config, Qwen2ForCausalLM

        v = self.variant
        config = Qwen2Config(
            vocab_size=self.ids["vocab_size"], hidden_size=v.hidden, intermediate_size=v.mlp,
            num_hidden_layers=v.layers, num_attention_heads=v.heads, num_key_value_heads=v.kv_heads,
            rms_norm_eps=v.rms_eps, tie_word_embeddings=v.tied, max_position_embeddings=2048,
            rope_parameters={"rope_type": "default", "rope_theta": v.rope_theta}, attn_implementation="eager")
        model = Qwen2ForCausalLM(config).eval()
        state = {name.removeprefix(LANGUAGE): value for name, value in self.weights.items()
                 if name.startswith(LANGUAGE)}
        if v.tied:
            state["lm_head.weight"] = state["model.embed_tokens.weight"]
        model.load_state_dict(state)
        return model

    @torch.no_grad()
    def run(self, ids: IntArray, pixels: FloatArray,
            proprio: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
        """(logits float32[T, vocabulary], states after the final norm float32[T, hidden])"""
        model = self.language()
        x = model.get_input_embeddings()(torch.from_numpy(ids.astype(np.int64)))
        x[torch.from_numpy(ids == self.token("<IMG_CONTEXT>"))] = self.visual(pixels)
        if proprio is not None:
            x[torch.from_numpy(ids == self.token("<PROP_CONTEXT>"))] = self.two_layers(
                "proprio_encoder", torch.from_numpy(proprio))
        states = model.model(inputs_embeds=x[None]).last_hidden_state
        return model.lm_head(states)[0].numpy(), states[0].numpy()

    def two_layers(self, name: str, x: torch.Tensor) -> torch.Tensor:
        w = self.weights
        x = torch.relu(x @ w[f"{name}.0.weight"].T + w[f"{name}.0.bias"])
        return x @ w[f"{name}.2.weight"].T + w[f"{name}.2.bias"]


def make(folder: Path, v: Variant, seed: int = 0) -> Made:
    """Writes the checkpoint at folder/checkpoint and the tokenizer folders beside it."""
    motion, folders, offset = [], [], 0
    for i, changes in enumerate(v.parts):
        folders.append(folder / f"part{i}")
        motion.append(write(folders[-1], seed + i, **changes))
        args = motion[-1].args
        offset += args["nb_code"] * (1 if args["shared_codebook"] else args["num_quantizers"])
    side = v.image // v.patch // v.shuffle
    ids = _ids(v, offset) | {"num_image_token": side * side}
    config = _config(v, ids, [reference.args for reference in motion])
    weights = _weights(v, ids["vocab_size"], torch.Generator().manual_seed(seed))
    target = folder / "checkpoint"
    target.mkdir(parents=True)
    (target / "ids.json").write_text(json.dumps(ids))
    (target / "config.json").write_text(json.dumps(config))
    stored: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        stored |= {new: part.to(v.dtype).contiguous() for new, part in _renamed(name, value, v)}
    exact = {name: value.to(v.dtype).float() for name, value in weights.items()}
    if v.lora:
        _add_lora(v, stored, exact)
    store(target, stored, v.style)
    return Made(target, folders, v, exact, config, ids, motion)


def store(folder: Path, tensors: dict[str, torch.Tensor], style: str) -> None:
    if style == "single":
        save_file(tensors, folder / "model.safetensors")
    elif style == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save: Callable[..., Any] = torch.save if style == "bin shards" else save_file
        name = "pytorch_model{}.bin" if style == "bin shards" else "model{}.safetensors"
        shards: list[dict[str, torch.Tensor]] = [{}, {}, {}]
        for i, (key, value) in enumerate(tensors.items()):
            shards[i % 3][key] = value
        files = [name.format(f"-0000{i + 1}-of-00003") for i in range(3)]
        for file, shard in zip(files, shards, strict=True):
            save(shard, folder / file)
        weight_map = {key: file for file, shard in zip(files, shards, strict=True) for key in shard}
        (folder / (name.format("") + ".index.json")).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _ids(v: Variant, count: int) -> dict[str, Any]:
    """Motion ids behind the text, as published, or before it; ids.json's content."""
    names = {"eos": ["<|im_end|>"], "image": ["<img>", "</img>", "<IMG_CONTEXT>"], "text": [""] * TEXT_IDS,
             "motion": ["<mot>", "<motion_id_0>", *[""] * (count - 1), *(["<MOT_NOOP>"] if v.noop else []), "</mot>"],
             "robot": ["<PROP_CONTEXT>", "<ACTION_CHUNK_0>", *[""] * (v.chunk - 1)], "spare": [""] * 3}
    order = ("spare", "motion", "robot", "image", "eos", "text") if v.motion_first else (
        "text", "eos", "image", "motion", "robot", "spare")
    row = [name for part in order for name in names[part]]
    at = {name: i for i, name in enumerate(row) if name}
    return {"motion_id_0": at.pop("<motion_id_0>"), "action_chunk_0": at.pop("<ACTION_CHUNK_0>"), "token_ids": at,
            "num_motion_ids": count, "eos_token_id": at["<|im_end|>"], "vocab_size": len(row)}


def _renamed(name: str, value: torch.Tensor, v: Variant) -> list[tuple[str, torch.Tensor]]:
    """What a tensor is called, in one or more pieces, in the variant's files."""
    if v.names == "deepspeed":
        return [("module." + name, value)]
    if v.names == "native":
        if name.startswith(VISION):
            return [(f"model.vision_tower.{new}", part) for new, part in
                    _transformers_tower(name.removeprefix(VISION), value)]
        for official, new in ((LANGUAGE + "lm_head.", "lm_head."), (LANGUAGE + "model.", "model.language_model."),
                              (PROJECTOR + "0.", "model.multi_modal_projector.layer_norm."),
                              (PROJECTOR + "1.", "model.multi_modal_projector.linear_1."),
                              (PROJECTOR + "3.", "model.multi_modal_projector.linear_2.")):
            if name.startswith(official):
                return [(new + name.removeprefix(official), value)]
    if v.names == "raw":
        for official, raw in ((VISION, "vision_model."), (LANGUAGE, "language_model."), (PROJECTOR, "mlp1.")):
            if name.startswith(official):
                return [(raw + name.removeprefix(official), value)]
    return [(name, value)]


def _add_lora(v: Variant, stored: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> None:
    """Wraps every linear layer of both networks as PEFT does, alpha 2r; `exact` becomes what the pairs add up to."""
    random = torch.Generator().manual_seed(7)
    for name in list(stored):
        for network in (VISION, LANGUAGE):
            if name.startswith(network):
                wrapped = name.replace(network, network + "base_model.model.")
                value = stored.pop(name)
                if not name.endswith(("proj.weight", "qkv.weight", "fc1.weight", "fc2.weight")):
                    if name.removesuffix(".bias") + ".weight" in exact and name.endswith(
                            ("proj.bias", "qkv.bias", "fc1.bias", "fc2.bias")):
                        wrapped = wrapped.removesuffix("bias") + "base_layer.bias"
                    stored[wrapped] = value
                    continue
                stem, (rows, columns) = wrapped.removesuffix(".weight"), value.shape
                down = torch.randn(v.lora, columns, generator=random).to(v.dtype)
                up = (0.1 * torch.randn(rows, v.lora, generator=random)).to(v.dtype)
                stored |= {f"{stem}.base_layer.weight": value, f"{stem}.lora_A.default.weight": down,
                           f"{stem}.lora_B.default.weight": up}
                exact[name] = exact[name] + 2 * up.float() @ down.float()


def _config(v: Variant, ids: dict[str, Any], motion: list[dict[str, Any]]) -> dict[str, Any]:
    size = v.trained_image or v.image
    vlm: dict[str, Any] = {
        "vision_config": {
            "image_size": size, "patch_size": v.patch, "hidden_size": v.vit_hidden, "intermediate_size": v.vit_mlp,
            "num_hidden_layers": v.vit_layers, "num_attention_heads": v.vit_heads, "layer_norm_eps": v.vit_eps,
            "qkv_bias": v.qkv_bias, "qk_normalization": v.qk_norm, "hidden_act": "gelu",
            "norm_type": "rms_norm" if v.rms_vit else "layer_norm"},
        "llm_config": {
            "model_type": "qwen2", "vocab_size": ids["vocab_size"], "hidden_size": v.hidden,
            "intermediate_size": v.mlp, "num_hidden_layers": v.layers, "num_attention_heads": v.heads,
            "num_key_value_heads": v.kv_heads, "rms_norm_eps": v.rms_eps, "rope_theta": v.rope_theta,
            "max_position_embeddings": 2048, "tie_word_embeddings": v.tied, "hidden_act": "silu",
            "rope_scaling": {"factor": 2.0, "type": "dynamic"}},
        "downsample_ratio": 1 / v.shuffle, "ps_version": "v2", "template": v.template,
        "select_layer": v.select_layer, "force_image_size": v.image, "use_backbone_lora": v.lora,
        "use_llm_lora": v.lora}
    if v.head_dim:
        vlm["llm_config"]["head_dim"] = v.head_dim
    if v.names == "native":
        _make_native(vlm)
    top = {"model_type": "beingvla", "vlm_type": "internvl", "motion_type": "mano", "motion_config": motion,
           "enable_robot_alignment": v.robot is not None, "proprio_dim": 5, "action_dim": 3,
           "action_chunk_length": v.chunk, "gen_action_type": v.robot or "prop_hidden"}
    return top | vlm if v.old_config else top | {"vlm_config": vlm}


def _make_native(vlm: dict[str, Any]) -> None:
    """transformers' names of the same numbers."""
    vision, text = vlm["vision_config"], vlm.pop("llm_config")
    vision |= {"image_size": [vision["image_size"]] * 2, "patch_size": [vision["patch_size"]] * 2,
               "attention_bias": vision.pop("qkv_bias"), "use_qk_norm": vision.pop("qk_normalization")}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": text.pop("rope_theta")}
    del text["rope_scaling"]
    vlm |= {"text_config": text, "vision_feature_layer": vlm.pop("select_layer"),
            "vision_feature_select_strategy": "default", "projector_hidden_act": "gelu"}


def _weights(v: Variant, vocabulary: int, random: torch.Generator) -> dict[str, torch.Tensor]:
    """Shapes written out from the format's key list, independently of the reader."""
    def dense(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random) / shape[-1] ** 0.5

    def near(value: float, n: int) -> torch.Tensor:
        return value + 0.1 * torch.randn(n, generator=random)

    c, d, wide = v.vit_hidden, v.hidden, v.shuffle**2 * v.vit_hidden
    head_dim = d // v.heads
    positions = ((v.trained_image or v.image) // v.patch) ** 2 + 1
    w = {f"{VISION}embeddings.class_embedding": dense(1, 1, c),
         f"{VISION}embeddings.position_embedding": dense(1, positions, c),
         f"{VISION}embeddings.patch_embedding.weight": 0.1 * dense(c, 3, v.patch, v.patch),
         f"{VISION}embeddings.patch_embedding.bias": near(0, c)}
    for i in range(v.vit_layers):
        p = f"{VISION}encoder.layers.{i}."
        w |= {f"{p}attn.qkv.weight": dense(3 * c, c), f"{p}attn.proj.weight": dense(c, c),
              f"{p}attn.proj.bias": near(0, c),
              f"{p}mlp.fc1.weight": dense(v.vit_mlp, c), f"{p}mlp.fc1.bias": near(0, v.vit_mlp),
              f"{p}mlp.fc2.weight": dense(c, v.vit_mlp), f"{p}mlp.fc2.bias": near(0, c),
              f"{p}ls1": near(0.5, c), f"{p}ls2": near(0.5, c)}
        for norm in ("norm1", "norm2"):
            w |= {f"{p}{norm}.weight": near(1, c)} | ({} if v.rms_vit else {f"{p}{norm}.bias": near(0, c)})
        if v.qkv_bias:
            w[f"{p}attn.qkv.bias"] = near(0, 3 * c)
        if v.qk_norm:
            w |= {f"{p}attn.q_norm.weight": near(1, c), f"{p}attn.k_norm.weight": near(1, c)}
    w |= {f"{PROJECTOR}0.weight": near(1, wide), f"{PROJECTOR}0.bias": near(0, wide),
          f"{PROJECTOR}1.weight": dense(d, wide), f"{PROJECTOR}1.bias": near(0, d),
          f"{PROJECTOR}3.weight": dense(d, d), f"{PROJECTOR}3.bias": near(0, d),
          f"{LANGUAGE}model.embed_tokens.weight": torch.randn(vocabulary, d, generator=random),
          f"{LANGUAGE}model.norm.weight": near(1, d)}
    if not v.tied:
        w[f"{LANGUAGE}lm_head.weight"] = dense(vocabulary, d)
    for i in range(v.layers):
        p = f"{LANGUAGE}model.layers.{i}."
        for name, rows in (("q", v.heads * head_dim), ("k", v.kv_heads * head_dim), ("v", v.kv_heads * head_dim)):
            w |= {f"{p}self_attn.{name}_proj.weight": dense(rows, d), f"{p}self_attn.{name}_proj.bias": near(0, rows)}
        w |= {f"{p}self_attn.o_proj.weight": dense(d, v.heads * head_dim), f"{p}mlp.gate_proj.weight": dense(v.mlp, d),
              f"{p}mlp.up_proj.weight": dense(v.mlp, d), f"{p}mlp.down_proj.weight": dense(d, v.mlp),
              f"{p}input_layernorm.weight": near(1, d), f"{p}post_attention_layernorm.weight": near(1, d)}
    if v.robot:
        out = 3 * (1 if v.robot == "action_token" else v.chunk)
        for name, (first, last) in (("proprio_encoder", (5, d)), ("action_decoder", (d, out))):
            w |= {f"{name}.0.weight": dense(d // 2, first), f"{name}.0.bias": near(0, d // 2),
                  f"{name}.2.weight": dense(last, d // 2), f"{name}.2.bias": near(0, last)}
    return w


def _transformers_tower(name: str, value: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
    if name.startswith("embeddings."):
        for old, new in (("class_embedding", "cls_token"), ("position_embedding", "position_embeddings"),
                         ("patch_embedding.", "patch_embeddings.projection.")):
            name = name.replace(old, new) if old in name else name
        return [(name, value)]
    _, _, layer, module = name.split(".", 3)
    prefix = f"encoder.layer.{layer}."
    if module.startswith("attn.qkv."):
        kind = module.rsplit(".", 1)[1]
        return [(f"{prefix}attention.{p}_proj.{kind}", part) for p, part in zip("qkv", value.chunk(3), strict=True)]
    for old, new in (("norm1", "layernorm_before"), ("norm2", "layernorm_after"),
                     ("attn.proj", "attention.projection_layer"), ("attn.", "attention."),
                     ("ls1", "lambda_1"), ("ls2", "lambda_2")):
        if module.startswith(old):
            return [(prefix + new + module.removeprefix(old), value)]
    return [(prefix + module, value)]
