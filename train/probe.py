"""Quick evaluation while training: greedy wrist ids on held-out pictures, where the hand goes, and the controls.

The full table of the shipped bundle comes from `beingh0 eval nano`, which runs the deployed path; this one runs in
torch, on canonical pictures, in seconds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from beingh0_edge import rotations
from beingh0_edge.train.fit_vla import VlaFit
from beingh0_edge.train.grq import MotionVQ
from beingh0_edge.train.model import BeingVLA, LanguageModel, _rotate
from beingh0_edge.train.vla_data import Batch, VlaData

REACH_M = 0.04


class Cache:
    """Keys and values of N sequences, one growing tensor pair per layer; left-aligned with a validity mask."""

    def __init__(self, layers: int) -> None:
        self.k: list[Tensor | None] = [None] * layers
        self.v: list[Tensor | None] = [None] * layers


def step(language: LanguageModel, x: Tensor, positions: Tensor, mask: Tensor, cache: Cache) -> Tensor:
    """One cached pass. x float[N, T, H], positions int64[N, T], mask bool[N, T, total] -> hidden float[N, T, H]."""
    c = language.config
    n, t, _ = x.shape
    inv = c.rope_theta ** (-torch.arange(0, c.head_dim, 2, device=x.device).float() / c.head_dim)
    angle = torch.cat([positions[..., None].float() * inv] * 2, -1)[:, :, None]
    cos, sin = angle.cos(), angle.sin()
    repeat = c.num_attention_heads // c.num_key_value_heads
    for i, layer in enumerate(language.model.layers):  # type: ignore[arg-type,union-attr]
        y, att = layer.input_layernorm(x), layer.self_attn
        q = _rotate(att.q_proj(y).view(n, t, -1, c.head_dim), cos, sin).transpose(1, 2)
        k = _rotate(att.k_proj(y).view(n, t, -1, c.head_dim), cos, sin).transpose(1, 2)
        v = att.v_proj(y).view(n, t, -1, c.head_dim).transpose(1, 2)
        old_k, old_v = cache.k[i], cache.v[i]
        if old_k is not None and old_v is not None:
            k, v = torch.cat([old_k, k], 2), torch.cat([old_v, v], 2)
        cache.k[i], cache.v[i] = k, v
        out = F.scaled_dot_product_attention(q, k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1),
                                             attn_mask=mask[:, None])
        x = x + att.o_proj(out.transpose(1, 2).reshape(n, t, -1))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    hidden: Tensor = language.model.norm(x)  # type: ignore[operator]
    return hidden


@torch.no_grad()
def greedy_wrist(model: BeingVLA, data: VlaData, scenes: list[int], image_token: int,
                 visual_tokens: Callable[[Batch], Tensor],
                 texts: list[list[str]] | None = None) -> tuple[Tensor, Tensor]:
    """Greedy wrist codes int64[N, wrist_ids] of every task of `scenes`, and the `<mot>` hidden states [N, H]."""
    v, language = data.vocabulary, model.language
    device = language.lm_head.weight.device
    batch = data.batch(scenes, "prompt", 1, texts).to(str(device))
    visual = visual_tokens(batch).float()
    k, prefix_ids = data.tasks_per_scene, batch.prefix_ids
    prefix = language.embed(prefix_ids)[None].expand(len(scenes), -1, -1).clone()
    prefix[:, prefix_ids == image_token] = visual
    p, length = prefix.shape[1], batch.branch_ids.shape[2]
    n = len(scenes) * k
    x = torch.cat([prefix.repeat_interleave(k, 0), language.embed(batch.branch_ids).view(n, length, -1)], 1)
    last = p + batch.mot_at.view(-1)  # index of <mot>; what follows it in the row is padding
    index = torch.arange(p + length, device=device)
    causal = index[None, :] <= index[:, None]
    valid = index[None] <= last[:, None]
    cache = Cache(language.config.num_hidden_layers)
    hidden = step(language, x, index[None].expand(n, -1), causal[None] & valid[:, None], cache)
    mot = state = hidden[torch.arange(n, device=device), last]
    head = language.lm_head.weight[v.motion_id_0 : v.motion_id_0 + v.wrist_codes]
    codes = []
    for i in range(v.wrist_ids):
        code = (state @ head.t()).argmax(-1)
        codes.append(code)
        valid = torch.cat([valid, torch.ones(n, 1, dtype=torch.bool, device=device)], 1)
        state = step(language, language.embed(code + v.motion_id_0)[:, None], (last + 1 + i)[:, None],
                     valid[:, None], cache)[:, 0]
    return torch.stack(codes, 1), mot


def grasp_points(vq: MotionVQ, codes: Tensor, offset_m: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Grasp point in the camera frame at the last frame, float32[N, 3], metres."""
    wrist = vq.decode(codes.cpu())[:, -1].numpy()
    return (rotations.rot6d_to_matrix(wrist[:, :6]) @ np.asarray(offset_m) + wrist[:, 6:9]).astype(np.float32)


def make_probe(fit: VlaFit, data: VlaData, vq: MotionVQ, grasp_offset_m: npt.NDArray[np.floating],
               scenes: int = 96, batch: int = 32) -> Callable[[], dict[str, float]]:
    """Figures on the first `scenes` pictures of held-out right-hand picks: nearest, shuffled, reach, errors.

    nearest    the object nearest to the grasp point is the named one
    shuffled   the words name the next object, judged against the original: below chance for a model that listens
    """
    k = data.tasks_per_scene

    def run() -> dict[str, float]:
        points, rotated, mots = [], [], []
        for start in range(0, min(scenes, len(data)), batch):
            group = list(range(start, min(start + batch, scenes, len(data))))
            codes, mot = greedy_wrist(fit.vla_model, data, group, fit.image_token, fit.visual_tokens)
            points.append(grasp_points(vq, codes, grasp_offset_m))
            mots.append(mot)
            wrong = [[data.texts[s * k + (j + 1) % k] for j in range(k)] for s in group]
            codes, _ = greedy_wrist(fit.vla_model, data, group, fit.image_token, fit.visual_tokens, wrong)
            rotated.append(grasp_points(vq, codes, grasp_offset_m))
        used = np.arange(min(scenes, len(data)))
        objects = np.repeat(data.objects_pos[used], k, 0)
        samples = (used[:, None] * k + np.arange(k)).reshape(-1)
        target = data.target_pos[samples]
        named = np.linalg.norm(objects - target[:, None], axis=-1).argmin(1)

        def nearest(xyz: npt.NDArray[np.float32]) -> float:
            return float((np.linalg.norm(objects - xyz[:, None], axis=-1).argmin(1) == named).mean())

        xyz = np.concatenate(points)
        distance = np.linalg.norm(xyz - target, axis=1)
        with torch.no_grad():
            head, begin = (place.read(torch.cat(mots)).cpu().numpy() for place in (fit.aids.position, fit.aids.start))
        palm = data.hands_start[used, np.array([data.sides(int(s) * k)[0] for s in used]), :3].repeat(k, 0)
        return {"nearest": nearest(xyz), "shuffled": nearest(np.concatenate(rotated)),
                "reach": float((distance < REACH_M).mean()), "median_mm": float(np.median(distance)) * 1000,
                "head_nearest": nearest(head.astype(np.float32)),
                "head_median_mm": float(np.median(np.linalg.norm(head - target, axis=1))) * 1000,
                "start_median_mm": float(np.median(np.linalg.norm(begin - palm, axis=1))) * 1000}

    return run


