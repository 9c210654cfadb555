"""Trains one part of the motion tokenizer (wrist or finger) on windows of motion features."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from beingh0_edge.train.grq import MotionArgs, MotionVQ
from beingh0_edge.train.half import half_is_fast
from beingh0_edge.train.progress import Progress, cosine, save_atomic

log = logging.getLogger(__name__)

# mano162, full vector: theta 90, rotation 6, translation 3, joints 63 (the wrist joint is in neither part).
FULL_WIDTH = 162
PART_DIMS = {"wrist": list(range(90, 99)), "finger": [*range(90), *range(102, 162)]}
STD_FLOOR = 1e-3  # a constant feature is kept, not blown up
AT_ONCE = 256  # windows encoded together; 4096 leave the caches and take 1.8 times as long on one core


@dataclass(frozen=True)
class TokenizerRecipe:
    steps: int = 1400
    batch: int = 512
    lr: float = 2e-3
    commit_weight: float = 0.02
    velocity_weight: float = 0.5
    first_group_odds: float = 0.0  # of steps that reconstruct from the first group alone
    half_until: float = 0.8  # share of the steps with bfloat16 convolutions where they are fast; the rest settle
    seed: int = 0


def fit_part(args: MotionArgs, windows: npt.NDArray[np.floating[Any]], recipe: TokenizerRecipe,
             state_path: Path) -> MotionVQ:
    """Trains on `windows` [N, window, D]; resumes from `state_path` if it exists and writes it as it goes.

    Random quantizer dropout in half of the steps makes every prefix of the residual layers a usable code. Steps with
    the first group alone gather in it what matters most; without them every group carries a share of everything,
    and all of them must be right.
    """
    x = torch.from_numpy(np.ascontiguousarray(windows))
    sample = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(recipe.seed))[:50_000]].float()
    mean, std = sample.mean((0, 1)), sample.std((0, 1)).clamp_min(STD_FLOOR)
    torch.manual_seed(recipe.seed)
    model = MotionVQ(args, mean, std)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=1e-4, betas=(0.9, 0.98))
    step = 0
    if state_path.exists():
        state = torch.load(state_path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = int(state["step"])
    progress = Progress(f"tokenizer {args.use_part}", recipe.steps, step)
    model.train()
    half_until = recipe.half_until * recipe.steps if half_is_fast(x.device.type) else 0
    while step < recipe.steps:
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        batch = x[torch.randint(len(x), (recipe.batch,), generator=generator)].float()
        levels = args.num_quantizers
        if step % 2:
            levels = int(torch.randint(1, levels + 1, (1,), generator=generator))
        alone = float(torch.rand((), generator=generator)) < recipe.first_group_odds
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * cosine(step / recipe.steps)
        target = (batch - model.mean) / (model.std + 1e-6)
        out, commit = model(batch, levels, groups=1 if alone else None, half=step < half_until)
        reconstruction = F.smooth_l1_loss(out, target, beta=0.2)
        velocity = F.smooth_l1_loss(out.diff(dim=1), target.diff(dim=1), beta=0.2)
        loss = reconstruction + recipe.velocity_weight * velocity + recipe.commit_weight * commit
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 500 == 0 or step == recipe.steps:
            save_atomic({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, state_path)
        progress(step, loss=loss.item(), reconstruction=reconstruction.item())
    model.silence()
    return model.eval()


def write_folder(model: MotionVQ, folder: Path) -> None:
    """Writes the official folder: motion_args.json, motion_meta.json, meta_mask.json and the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    dims = PART_DIMS[model.args.use_part]
    mean, std = np.zeros(FULL_WIDTH), np.ones(FULL_WIDTH)
    mean[dims], std[dims] = model.mean.numpy(), model.std.numpy()
    mask = np.zeros(FULL_WIDTH, bool)
    mask[dims] = True
    files: dict[str, Any] = {
        "motion_args.json": model.args.to_official(),
        "motion_meta.json": {"mean": mean.tolist(), "std": std.tolist()},
        "meta_mask.json": {"meta_mask": mask.tolist()},
    }
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value, indent=1))
    save_file(model.official_state_dict(), folder / "net_best_mpjpe.safetensors")


@torch.no_grad()
def encode_all(model: MotionVQ, windows: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int16]:
    """Ids of every window, int16[N, ids] without the part offset."""
    model.eval()
    out = np.empty((len(windows), model.args.ids_per_block), np.int16)
    for start in range(0, len(windows), AT_ONCE):
        part: Tensor = torch.from_numpy(np.ascontiguousarray(windows[start : start + AT_ONCE])).float()
        out[start : start + AT_ONCE] = model.encode(part).numpy()
    return out


@torch.no_grad()
def latent_all(model: MotionVQ, windows: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float16]:
    """Latents of every window before quantisation, float16[N, positions * code_dim]."""
    model.eval()
    out = np.empty((len(windows), model.args.positions * model.args.code_dim), np.float16)
    for start in range(0, len(windows), AT_ONCE):
        part: Tensor = torch.from_numpy(np.ascontiguousarray(windows[start : start + AT_ONCE])).float()
        out[start : start + AT_ONCE] = model.latent(part).flatten(1).numpy()
    return out
