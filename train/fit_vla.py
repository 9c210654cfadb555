"""Trains the vision-language-action model on pictures, instructions and motion ids (physical instruction tuning).

Two stages with the same steps:
  language  visual tokens are written from the truth (`SceneDescription`): no picture, no ViT, so steps are cheap
  joint     visual tokens come from the pictures, and the language model learns what the ViT makes of them; ViT and
            projector stay as they are

Four kinds of steps:
  prompt  no motion ids: find the named object; costs a third
  group   the first latent group of the wrist, 32 ids: nearly all that the words decide is in there
  wrist   the 64 wrist ids of the first second: where the hand goes
  full    whole answers with fingers, several seconds, both hands, markers and the end token
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from beingh0_edge.train.aids import Aids, level_weights, weighted_cross_entropy
from beingh0_edge.train.description import SceneDescription
from beingh0_edge.train.fit import Fit, FitRecipe
from beingh0_edge.train.fit_vision import augment, normalise
from beingh0_edge.train.half import half_products
from beingh0_edge.train.model import BeingVLA
from beingh0_edge.train.vla_data import IGNORE, Batch, Mode, VlaData


@dataclass(frozen=True)
class VlaRecipe(FitRecipe):
    """Budget in pictures (each with all its tasks), odds of the step kinds, weights of the losses."""

    prompt_phase: float = 0.1           # share of the budget that is prompt-only, at the start
    later_prompt: float = 0.1           # odds of prompt steps afterwards
    later_full: float = 0.15            # odds of full steps afterwards
    later_wrist: float = 0.25           # odds of wrist steps afterwards; the rest are group steps
    seconds_odds: tuple[float, ...] = (0.5, 0.3, 0.2)
    full_tokens: int = 2560             # token budget of a full batch, so that long answers use fewer pictures
    code_weight: float = 4.0
    position_weight: float = 0.1        # 1 in the prompt phase
    start_weight: float = 0.1
    latent_weight: float = 6.0          # a mean over many numbers: its gradient is small
    rest_weight: float = 1.0
    jitter_m: float = 0.008             # language stage: what the tokens tell about places is wrong by this much
    token_noise: float = 0.05           # language stage: noise on every number of a token


def forward(model: BeingVLA, batch: Batch, visual: Tensor, image_token: int) -> Tensor:
    """Hidden states of the branches, float[B, K, L, H], given visual tokens float[B, C, H]."""
    prefix = model.language.embed(batch.prefix_ids)
    at = (batch.prefix_ids == image_token).nonzero()[:, 0]
    if len(at) != visual.shape[1]:
        raise ValueError(f"prompt: expected {visual.shape[1]} image tokens, got {len(at)}")
    prefix = prefix[None].expand(len(visual), -1, -1).float()
    prefix = prefix.index_copy(1, at, visual.float())
    _, hidden = model.language(prefix, model.language.embed(batch.branch_ids).float())
    if hidden is None:
        raise ValueError("a batch without branches")
    return hidden


class VlaFit(Fit):
    """Either stage: the joint one or the one that is not `from_pictures`."""

    def __init__(self, model: BeingVLA, aids: Aids, data: VlaData, description: SceneDescription, recipe: VlaRecipe,
                 image_token: int, state_path: Path, device: str = "cpu", *, from_pictures: bool = True) -> None:
        self.name = "joint" if from_pictures else "language"
        super().__init__(model, (aids,), recipe, state_path, device, lambda name: "_language_model" in name)
        self.vla_model, self.vla, self.aids, self.data, self.description = model, recipe, aids, data, description
        self.image_token, self.from_pictures = image_token, from_pictures
        self.weights = level_weights(aids.codes, data.vocabulary.block_ids).to(device)

    def visual_tokens(self, batch: Batch) -> Tensor:
        """Visual tokens for an evaluation: of the pictures, or of the undisturbed truth."""
        if self.from_pictures:
            return self.vla_model.visual_tokens(normalise(batch.pixels))
        return self.description.tokens(self.description.target(batch))

    def _pick(self, rng: np.random.Generator) -> tuple[Mode, int, int]:
        """(kind of step, seconds, pictures) for this step."""
        r = self.vla
        if self.done < r.prompt_phase * r.pictures:
            return "prompt", 1, r.batch_pictures
        u = rng.random()
        if u < r.later_prompt:
            return "prompt", 1, r.batch_pictures
        if u < r.later_prompt + r.later_wrist:
            return "wrist", 1, r.batch_pictures
        if u < 1 - r.later_full:
            return "group", 1, r.batch_pictures
        seconds = 1 + int(rng.choice(len(r.seconds_odds), p=r.seconds_odds))
        tokens = seconds * (self.data.vocabulary.block_ids + 2) * self.data.tasks_per_scene
        return "full", seconds, max(1, min(r.batch_pictures, r.full_tokens // tokens))

    def losses(self, batch: Batch, mode: Mode, visual: Tensor) -> dict[str, Tensor]:
        """All losses of one batch that the language side answers for, unweighted."""
        model, aids, v = self.vla_model, self.aids, self.data.vocabulary
        hidden = forward(model, batch, visual, self.image_token)
        b, k, length, h = hidden.shape
        flat = hidden.reshape(b * k, length, h)
        rows = torch.arange(b * k, device=hidden.device)
        mot = flat[rows, batch.mot_at.reshape(-1)]
        xyz, start = batch.target_pos.reshape(b * k, 3).float(), batch.start.reshape(b * k, 9).float()
        out = {"position": aids.position.loss(mot, xyz), "start": aids.start_loss(mot, start)}
        if mode == "prompt":
            return out
        at = batch.slot_at.reshape(b * k, -1)
        target, slot = batch.slot_target.reshape(b * k, -1), batch.slot_index.reshape(b * k, -1)
        picked = flat.gather(1, at[..., None].expand(-1, -1, h))
        keep = target != IGNORE
        head: Tensor = model.language.lm_head.weight
        if mode != "full":  # only motion vocabulary competes: the text rows are trained in full steps
            head, shift = head[v.mot : v.end_mot + 1], v.mot
        else:
            shift = 0
        logits = (picked[keep] @ head.t().to(picked.dtype)).float()
        kept, slots = target[keep], slot[keep]
        motion = slots >= 0
        first, codes = v.motion_id_0 - shift, aids.codes.codebooks.shape[0] * aids.codes.codebooks.shape[2]
        goal = F.one_hot(kept - shift, logits.shape[1]).float()
        goal[motion] = 0
        goal[motion, first : first + codes] = aids.codes.odds(kept[motion] - v.motion_id_0, slots[motion])
        out["tokens"] = weighted_cross_entropy(logits, goal, self.weights[slots])
        out["code"] = aids.code_loss(logits[motion][:, first : first + codes], kept[motion] - v.motion_id_0,
                                     slots[motion])
        # Hidden states in front of the wrist cells of the first block.
        count = v.wrist_ids if mode == "full" else v.given_ids(mode)
        cells = batch.mot_at.reshape(-1, 1) + torch.arange(0, count, aids.EVERY, device=hidden.device)
        before = flat.gather(1, cells[..., None].expand(-1, -1, h))
        ids = batch.branch_ids.reshape(b * k, length)
        wrist = ids.gather(1, batch.mot_at.reshape(-1, 1) + 1 + torch.arange(count, device=ids.device))
        out["latent"] = aids.latent_losses(mot, before, wrist - v.motion_id_0)
        if mode != "full":
            out["rest"] = aids.rest_loss(picked, wrist - v.motion_id_0)
        cells_of = (-1, before.shape[1], -1)
        out["position_on_ids"] = aids.position_on_ids.loss(before, xyz[:, None].expand(cells_of))
        out["start_on_ids"] = aids.start_on_ids.loss(before, start[:, None, :3].expand(cells_of))
        return out

    def train_step(self) -> tuple[str, dict[str, float]]:
        r = self.vla
        rng = np.random.default_rng([r.seed, 3 if self.from_pictures else 2, self.step])
        mode, seconds, pictures = self._pick(rng)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        rows = rng.integers(0, len(self.data), pictures)
        batch = self.data.batch(rows.tolist(), mode, seconds, generator=generator).to(self.device)
        with half_products(self.device):
            if self.from_pictures:
                with torch.no_grad():
                    visual = self.vla_model.visual_tokens(augment(normalise(batch.pixels), generator))
            else:
                visual = self.description.tokens(self.description.target(batch, r.jitter_m, generator))
                visual = visual + r.token_noise * torch.randn(visual.shape, generator=generator).to(self.device)
            parts = self.losses(batch, mode, visual)
        binding = self.done < r.prompt_phase * r.pictures
        weight = {"position": 1.0 if binding else r.position_weight, "tokens": 1.0, "code": r.code_weight,
                  "latent": r.latent_weight, "rest": r.rest_weight, "position_on_ids": r.position_weight,
                  "start": r.start_weight, "start_on_ids": r.start_weight}
        self.update(torch.stack([weight[name] * value for name, value in parts.items()]).sum(), mode)
        self.step += 1
        self.done += pictures
        return mode, {name: float(value.detach()) for name, value in parts.items()}
