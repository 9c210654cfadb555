"""The vision graph against a plain torch reading of the format notes, for every switch a config can set."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundle
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

from beingh0_edge.quantize.checkpoint import PROJECTOR, VISION, Checkpoint
from beingh0_edge.quantize.write_onnx import resize_positions, write_vision
from beingh0_edge.vision_onnx import VisionTower

ATOL = 2e-5  # float32 in another summation order; the outputs are of order one
HALF_ATOL = 5e-3  # weights rounded to 11 bits, over two layers and a projector


def checkpoint_with(folder: Path, change: Callable[[dict[str, Any]], object]) -> Checkpoint:
    config = tiny_bundle.make_config(200)
    change(config["vlm_config"])
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tiny_bundle.make_weights(folder, seed=3), str(folder / "model.safetensors"))
    return Checkpoint(folder)


def reference(checkpoint: Checkpoint, pixels: torch.Tensor) -> torch.Tensor:
    """float32[1, 3, S, S] -> float32[1, tokens, hidden]"""
    config = checkpoint.config
    c = config.vision

    def w(name: str) -> torch.Tensor:
        return torch.from_numpy(checkpoint.tensor(name))

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        if c.rms_norm:
            return F.rms_norm(x, (c.hidden,), w(name + ".weight"), c.eps)
        return F.layer_norm(x, (c.hidden,), w(name + ".weight"), w(name + ".bias"), c.eps)

    prefix = VISION + "embeddings."
    x = F.conv2d(pixels, w(prefix + "patch_embedding.weight"), w(prefix + "patch_embedding.bias"), stride=c.patch)
    x = torch.cat([w(prefix + "class_embedding"), x.flatten(2).transpose(1, 2)], 1)
    table = w(prefix + "position_embedding")
    side = c.table_size // c.patch
    patches = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    patches = F.interpolate(patches, size=(config.grid, config.grid), mode="bicubic", align_corners=False)
    x = x + torch.cat([table[:, :1], patches.flatten(2).transpose(1, 2)], 1)
    for i in range(c.layers):
        layer = f"{VISION}encoder.layers.{i}."
        y = norm(x, layer + "norm1")
        qkv = F.linear(y, w(layer + "attn.qkv.weight"), w(layer + "attn.qkv.bias") if c.qkv_bias else None)
        q, k, v = qkv.reshape(1, -1, 3, c.heads, c.head_dim).permute(2, 0, 3, 1, 4)
        if c.qk_norm:
            def wide(t: torch.Tensor, name: str) -> torch.Tensor:
                flat = t.transpose(1, 2).flatten(2)
                return F.rms_norm(flat, (c.hidden,), w(name), c.eps).view(1, -1, c.heads, c.head_dim).transpose(1, 2)

            q, k = wide(q, layer + "attn.q_norm.weight"), wide(k, layer + "attn.k_norm.weight")
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + w(layer + "ls1") * F.linear(y, w(layer + "attn.proj.weight"), w(layer + "attn.proj.bias"))
        y = F.gelu(F.linear(norm(x, layer + "norm2"), w(layer + "mlp.fc1.weight"), w(layer + "mlp.fc1.bias")))
        x = x + w(layer + "ls2") * F.linear(y, w(layer + "mlp.fc2.weight"), w(layer + "mlp.fc2.bias"))
    grid = x[:, 1:].reshape(config.grid, config.grid, c.hidden)
    s = config.shuffle
    tokens = [torch.cat([grid[s * i + a, s * j + b] for a in range(s) for b in range(s)])
              for i in range(config.grid // s) for j in range(config.grid // s)]
    y = torch.stack(tokens)
    y = F.layer_norm(y, (y.shape[-1],), w(PROJECTOR + "0.weight"), w(PROJECTOR + "0.bias"), 1e-5)
    y = F.gelu(F.linear(y, w(PROJECTOR + "1.weight"), w(PROJECTOR + "1.bias")))
    return F.linear(y, w(PROJECTOR + "3.weight"), w(PROJECTOR + "3.bias"))[None]


CASES: dict[str, Callable[[dict[str, Any]], object]] = {
    "plain": lambda vlm: None,
    "qk_norm": lambda vlm: vlm["vision_config"].update(qk_normalization=True),
    "rms_norm": lambda vlm: vlm["vision_config"].update(norm_type="rms_norm"),
    "no_qkv_bias": lambda vlm: vlm["vision_config"].update(qkv_bias=False),
    "earlier_layer": lambda vlm: vlm.update(select_layer=-2),
    "larger_picture": lambda vlm: vlm.update(force_image_size=84),
    "smaller_picture": lambda vlm: vlm.update(force_image_size=28),
    "no_shuffle": lambda vlm: vlm.update(downsample_ratio=1.0),
    "quarter": lambda vlm: vlm.update(downsample_ratio=0.25),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_graph_computes_what_the_notes_say(tmp_path: Path, case: str, precision: str) -> None:
    checkpoint = checkpoint_with(tmp_path / "checkpoint", CASES[case])
    spec = write_vision(checkpoint, tmp_path / "vision.onnx", precision)  # type: ignore[arg-type]
    size = checkpoint.config.image_size
    pixels = np.random.default_rng(0).normal(size=(1, 3, size, size)).astype(np.float32)
    tower = VisionTower(tmp_path / "vision.onnx", spec, checkpoint.config.language.hidden, threads=1)
    expected = reference(checkpoint, torch.from_numpy(pixels))[0].numpy()
    assert expected.std() > 0.1
    np.testing.assert_allclose(tower.embed(pixels), expected, rtol=0, atol=ATOL if precision == "fp32" else HALF_ATOL)


@pytest.mark.parametrize(("trained", "grid"), [(4, 4), (4, 7), (8, 3), (32, 16), (6, 32)])
def test_position_tables_are_resized_like_torch(trained: int, grid: int) -> None:
    table = np.random.default_rng(0).normal(size=(1, 1 + trained**2, 5)).astype(np.float32)
    patches = torch.from_numpy(table[:, 1:]).reshape(1, trained, trained, 5).permute(0, 3, 1, 2)
    expected = F.interpolate(patches, size=(grid, grid), mode="bicubic", align_corners=False)
    resized = resize_positions(table, grid)
    np.testing.assert_array_equal(resized[:, 0], table[:, 0])
    np.testing.assert_allclose(resized[0, 1:], expected[0].flatten(1).T.numpy(), atol=2e-6)


def test_weights_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    checkpoint = checkpoint_with(tmp_path / "checkpoint", lambda vlm: None)
    weights = {name: checkpoint.tensor(name) for name in checkpoint.names()}
    weights[PROJECTOR + "1.weight"][0, 0] = 1e6
    save_file(weights, str(tmp_path / "checkpoint" / "model.safetensors"))
    with pytest.raises(ValueError, match=r"mlp1\.1\.weight: values beyond the range of fp16"):
        write_vision(Checkpoint(tmp_path / "checkpoint"), tmp_path / "vision.onnx", "fp16")
