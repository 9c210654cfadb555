"""How much memory converting an 8B checkpoint takes: a synthetic one of that geometry, converted under /usr/bin/time.

    python benchmarks/convert_memory.py --folder SCRATCH [--quant Q8_0] [--layout full] [--vision fp16] [--layers 28]

The weights are bfloat16 noise in shards of 4 GB, 16 GB in all, written once. Needs GNU time (Debian: apt install time)
and about 28 GB of free disk. Prints the largest resident set, which must stay under 6 GB, and the seconds.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from beingh0_edge.quantize.checkpoint import expected_shapes
from beingh0_edge.quantize.config import read_config

LIMIT_BYTES = 6e9
SHARD_BYTES = 4 << 30
VOCABULARY, MOTION_IDS = 159_872, 8192
EOS, IMG_CONTEXT, MOT = 151_645, 151_667, 151_670


def config(layers: int) -> dict[str, object]:
    """InternVL3-8B's published geometry with the vocabulary of Being-H0."""
    return {"model_type": "beingvla", "enable_robot_alignment": False, "vlm_config": {
        "vision_config": {
            "image_size": 448, "patch_size": 14, "hidden_size": 1024, "intermediate_size": 4096,
            "num_hidden_layers": 24, "num_attention_heads": 16, "layer_norm_eps": 1e-6, "qkv_bias": True,
            "qk_normalization": False, "norm_type": "layer_norm", "hidden_act": "gelu"},
        "llm_config": {
            "model_type": "qwen2", "vocab_size": VOCABULARY, "hidden_size": 3584, "intermediate_size": 18944,
            "num_hidden_layers": layers, "num_attention_heads": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-6,
            "rope_theta": 1e6, "max_position_embeddings": 32768, "tie_word_embeddings": False, "hidden_act": "silu"},
        "downsample_ratio": 0.5, "ps_version": "v2", "template": "being_h0", "select_layer": -1,
        "force_image_size": 448}}


def write_checkpoint(folder: Path, layers: int) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config(layers)))
    (folder / "ids.json").write_text(json.dumps({
        "token_ids": {"<|im_end|>": EOS, "<IMG_CONTEXT>": IMG_CONTEXT, "<mot>": MOT, "<MOT_NOOP>": MOT + MOTION_IDS + 1,
                      "</mot>": MOT + MOTION_IDS + 2},
        "motion_id_0": MOT + 1, "num_motion_ids": MOTION_IDS, "eos_token_id": EOS}))
    noise = np.random.default_rng(0).normal(0, 0.02, 8 << 20).astype(np.float32)
    block = (noise.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in expected_shapes(read_config(folder / "config.json"), False).items():
        if sum(2 * math.prod(s) for s in shards[-1].values()) > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = shape
    places = {}
    for i, shard in enumerate(shards):
        file = f"model-{i + 1:05}-of-{len(shards):05}.safetensors"
        header, at = {}, 0
        for name, shape in shard.items():
            size = 2 * math.prod(shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
            at += size
            places[name] = file
        text = json.dumps(header).encode()
        with (folder / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for left in range(at, 0, -len(block)):
                out.write(block[:left])
        print(f"{i + 1}/{len(shards)} {file}: {at / 1e9:.1f} GB", flush=True)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--folder", type=Path, required=True)
    options.add_argument("--quant", default="Q8_0")
    options.add_argument("--layout", default="full")
    options.add_argument("--vision", default="fp16")
    options.add_argument("--layers", type=int, default=28)
    options.add_argument("--keep", action="store_true", help="keep the checkpoint for another run")
    given = options.parse_args()
    checkpoint, bundle = given.folder / "checkpoint", given.folder / "bundle"
    if not checkpoint.is_dir():
        write_checkpoint(checkpoint, given.layers)
    size = sum(path.stat().st_size for path in checkpoint.iterdir())
    command = ["/usr/bin/time", "-v", sys.executable, "-m", "beingh0_edge", "convert", str(checkpoint), "--out",
               str(bundle), "--quant", given.quant, "--layout", given.layout, "--vision", given.vision, "--report", "0"]
    done = subprocess.run(command, capture_output=True, text=True)
    shutil.rmtree(bundle, ignore_errors=True)
    if not given.keep:
        shutil.rmtree(checkpoint)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return done.returncode
    peak = 1024 * int(re.search(r"Maximum resident set size \(kbytes\): (\d+)", done.stderr)[1])  # type: ignore[index]
    wall = re.search(r"Elapsed .*: (\S+)", done.stderr)[1]  # type: ignore[index]
    cpu = sum(float(re.search(rf"{what} time \(seconds\): (\S+)", done.stderr)[1])  # type: ignore[index]
              for what in ("User", "System"))
    print(f"{size / 1e9:.1f} GB checkpoint to {given.layout} {given.quant}, vision {given.vision}: "
          f"{peak / 1e9:.2f} GB resident at most, {wall} wall, {cpu:.0f} s of processor")
    print(done.stdout.strip())
    return 0 if peak < LIMIT_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())
