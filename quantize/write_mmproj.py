"""Vision tower and projector as an mmproj file, for llama.cpp's multimodal library (libmtmd).

With the full layout's language.gguf it lets llama.cpp's own tools see. Our runtime does not use it: there ONNX Runtime
is faster (docs/convert.md). Names and keys: llama.cpp, tools/mtmd/clip-impl.h; projector type "internvl".
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from beingh0_edge.errors import BundleError
from beingh0_edge.preprocess import IMAGE_MEAN, IMAGE_STD
from beingh0_edge.types import FloatArray

from .checkpoint import PROJECTOR, VISION, Checkpoint
from .quant_types import TYPE_IDS, encode, row_bytes, tensor_type
from .write_onnx import resize_positions

MMPROJ_TYPES = ("F32", "F16", "BF16", "Q8_0")
# The one geometry for which libmtmd normalises by RMS: InternViT-6B. It decides by these two numbers alone.
_RMS_GEOMETRY = (3200, 45)


def check_mmproj(checkpoint: Checkpoint, kind: str) -> None:
    """Raises ValueError for an unknown type, BundleError for a tower that libmtmd would compute wrongly."""
    if kind not in MMPROJ_TYPES:
        raise ValueError(f"mmproj: expected one of {', '.join(MMPROJ_TYPES)}, got {kind!r}")
    v = checkpoint.config.vision
    rms = (v.hidden, v.layers) == _RMS_GEOMETRY
    if v.rms_norm is not rms or (v.qk_norm and not rms):
        raise BundleError(f"{checkpoint.folder}: libmtmd computes a tower {v.hidden} wide of {v.layers} layers with "
                          f"{'RMS' if rms else 'layer'} norm and this one has {'RMS' if v.rms_norm else 'layer'} norm, "
                          f"normalised queries: {v.qk_norm}; no mmproj file is possible", str(checkpoint.folder))


def write_mmproj(checkpoint: Checkpoint, path: Path, kind: str) -> None:
    """kind: type of the matrices; vectors, the position table and the patch kernel of other types stay F32 or F16."""
    import gguf

    check_mmproj(checkpoint, kind)
    config, v = checkpoint.config, checkpoint.config.vision
    writer = gguf.GGUFWriter(path, "clip")
    try:
        writer.add_type("mmproj")
        writer.add_clip_has_vision_encoder(True)
        writer.add_clip_projector_type("internvl")
        writer.add_vision_projection_dim(config.language.hidden)
        writer.add_vision_image_size(config.image_size)
        writer.add_vision_patch_size(v.patch)
        writer.add_vision_embedding_length(v.hidden)
        writer.add_vision_feed_forward_length(v.mlp)
        writer.add_vision_block_count(v.layers)
        writer.add_vision_head_count(v.heads)
        writer.add_vision_attention_layernorm_eps(v.eps)
        writer.add_vision_image_mean([float(x) for x in IMAGE_MEAN])
        writer.add_vision_image_std([float(x) for x in IMAGE_STD])
        writer.add_vision_use_gelu(True)
        writer.add_vision_projector_scale_factor(config.shuffle)
        writer.add_uint32("clip.vision.preproc_min_tiles", 1)
        writer.add_uint32("clip.vision.preproc_max_tiles", 1)  # Being-H0 sees one tile
        tensors = []
        for name, value in _tensors(checkpoint):  # twice: llama.cpp's header comes before the values
            chosen = _type(name, value.shape, kind)
            size = (*value.shape[:-1], row_bytes(chosen, value.shape[-1]))
            writer.add_tensor_info(name, size, np.dtype(np.uint8), int(np.prod(size)),
                                   gguf.GGMLQuantizationType(TYPE_IDS[chosen]))
            tensors.append(chosen)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for (_, value), chosen in zip(_tensors(checkpoint), tensors, strict=True):
            writer.write_tensor_data(encode(value.reshape(-1, value.shape[-1]), chosen))
    finally:
        writer.close()


def _type(name: str, shape: tuple[int, ...], kind: str) -> str:
    if name == "v.position_embd.weight":
        return "F32"
    if name == "v.patch_embd.weight":  # a convolution takes no other types
        return "F32" if kind == "F32" else "F16"
    return tensor_type(name, shape, kind, 1)


def _tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, FloatArray]]:
    config, v, read = checkpoint.config, checkpoint.config.vision, checkpoint.tensor
    prefix = VISION + "embeddings."
    yield "v.class_embd", read(prefix + "class_embedding").reshape(-1)
    yield "v.patch_embd.weight", read(prefix + "patch_embedding.weight")
    yield "v.patch_embd.bias", read(prefix + "patch_embedding.bias")
    table = resize_positions(read(prefix + "position_embedding"), config.grid)[0]
    yield "v.position_embd.weight", np.concatenate([table[1:], table[:1]])  # libmtmd appends the class token at the end
    names = {"norm1": "ln1", "norm2": "ln2", "attn.proj": "attn_out", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down"}
    for i in range(v.layers):
        layer, block = f"{VISION}encoder.layers.{i}.", f"v.blk.{i}."
        for ours, theirs in names.items():
            for kind in ("weight", "bias"):
                if not (v.rms_norm and ours.startswith("norm") and kind == "bias"):
                    yield f"{block}{theirs}.{kind}", read(f"{layer}{ours}.{kind}")
        for kind in ("weight", "bias") if v.qkv_bias else ("weight",):
            for letter, part in zip("qkv", np.split(read(f"{layer}attn.qkv.{kind}"), 3), strict=True):
                yield f"{block}attn_{letter}.{kind}", part
        if v.qk_norm:
            for letter in "qk":
                yield f"{block}attn_{letter}_norm.weight", read(f"{layer}attn.{letter}_norm.weight")
        for branch in ("ls1", "ls2"):
            yield f"{block}{branch}.weight", read(layer + branch)
    for i in (0, 1, 3):
        for kind in ("weight", "bias"):
            yield f"mm.model.mlp.{i}.{kind}", read(f"{PROJECTOR}{i}.{kind}")
