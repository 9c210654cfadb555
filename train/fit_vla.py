"""Trains the vision-language-action model on pictures, instructions and motion ids (physical instruction tuning).

Four kinds of steps (nano-notes in the model card tell what each is worth):
  prompt  no motion ids: find the named object; costs a third, so binding words to places is learned here first
  group   the first latent group of the wrist, 32 ids: nearly all that the words decide is in there
  wrist   the 64 wrist ids of the first second: where the hand goes
  full    whole answers with fingers, several seconds, both hands, markers and the end token
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from beingh0_edge.preprocess import IMAGE_MEAN, IMAGE_STD
from beingh0_edge.train.aids import Aids, level_weights, weighted_cross_entropy
from beingh0_edge.train.model import BeingVLA
from beingh0_edge.train.muon import Muon
from beingh0_edge.train.progress import Progress, cosine, save_atomic
from beingh0_edge.train.vla_data import IGNORE, Batch, Mode, VlaData

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VlaRecipe:
    """Budget in pictures (each with all its tasks). `phases`: share of the budget and odds of the step kinds."""

    pictures: int = 160_000
    batch_pictures: int = 16
    muon_lr: float = 0.02
    adam_lr: float = 1.5e-3
    weight_decay: float = 0.01
    prompt_phase: float = 0.4          # share of the picture budget that is prompt-only
    later_prompt: float = 0.15          # odds of prompt steps afterwards
    later_full: float = 0.12            # odds of full steps afterwards
    later_wrist: float = 0.35           # odds of wrist steps afterwards; the rest are group steps
    seconds_odds: tuple[float, ...] = (0.5, 0.3, 0.2)
    full_tokens: int = 8192             # token budget of a full batch, so that long answers use fewer pictures
    ema: float = 0.998
    code_weight: float = 1.0
    position_weight: float = 0.6
    latent_weight: float = 0.5
    grid_weight: float = 0.3
    seed: int = 0


def normalise(pixels: Tensor) -> Tensor:
    """uint8[B, S, S, 3] -> float[B, 3, S, S], ImageNet statistics."""
    x = pixels.permute(0, 3, 1, 2).float() / 255
    mean = torch.tensor(IMAGE_MEAN, device=x.device)[:, None, None]
    return (x - mean) / torch.tensor(IMAGE_STD, device=x.device)[:, None, None]


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Light photometric noise on normalised pixels: gain, offset, and a blur on half of the pictures."""
    n = len(x)
    gain = 1 + 0.15 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    offset = 0.3 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    mix = (0.7 * torch.rand(n, 1, 1, 1, generator=generator) * (torch.rand(n, 1, 1, 1, generator=generator) < 0.5))
    mix, gain, offset = mix.to(x.device), gain.to(x.device), offset.to(x.device)
    return (x + mix * (blurred - x)) * gain + offset


def forward(model: BeingVLA, batch: Batch, pixels: Tensor, image_token: int) -> tuple[Tensor, Tensor, Tensor]:
    """-> (visual tokens [B, C, H], branch hidden states [B, K, L, H], prefix hidden)."""
    visual = model.visual_tokens(pixels)
    prefix = model.language.embed(batch.prefix_ids)
    at = (batch.prefix_ids == image_token).nonzero()[:, 0]
    if len(at) != visual.shape[1]:
        raise ValueError(f"prompt: expected {visual.shape[1]} image tokens, got {len(at)}")
    prefix = prefix[None].expand(len(visual), -1, -1).float()
    prefix = prefix.index_copy(1, at, visual)
    hidden_prefix, hidden = model.language(prefix, model.language.embed(batch.branch_ids).float())
    return visual, hidden, hidden_prefix


class VlaTrainer:
    """Model, heads, optimisers, average and position in the run; everything that a checkpoint holds."""

    def __init__(self, model: BeingVLA, aids: Aids, data: VlaData, recipe: VlaRecipe, image_token: int,
                 state_path: Path, device: str = "cpu") -> None:
        self.model, self.aids, self.data, self.recipe = model.to(device), aids.to(device), data, recipe
        self.image_token, self.state_path, self.device = image_token, state_path, device
        matrices: list[Tensor] = []
        rest: list[Tensor] = []
        for name, p in model.named_parameters():
            inner = "layers." in name or "mlp1." in name
            (matrices if inner and p.ndim == 2 else rest).append(p)
        self.muon = Muon(matrices, lr=recipe.muon_lr, weight_decay=recipe.weight_decay)
        self.adam = torch.optim.AdamW([*rest, *aids.parameters()], lr=recipe.adam_lr, betas=(0.9, 0.98),
                                      weight_decay=0.0)
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.weights = level_weights(aids.codes, data.vocabulary.block_ids).to(device)
        self.done, self.step, self.seconds_spent = 0, 0, 0.0
        self.history: list[dict[str, Any]] = []
        if state_path.exists():
            self._restore(torch.load(state_path, weights_only=True, map_location=device))

    # ------------------------------------------------------------------------------- checkpoints

    def save(self) -> None:
        save_atomic({
            "model": self.model.state_dict(), "aids": self.aids.state_dict(), "average": self.average,
            "muon": self.muon.state_dict(), "adam": self.adam.state_dict(), "done": self.done, "step": self.step,
            "seconds_spent": self.seconds_spent, "history": json.dumps(self.history),
        }, self.state_path)

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.aids.load_state_dict(state["aids"])
        self.average = state["average"]
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.done, self.step = int(state["done"]), int(state["step"])
        self.seconds_spent, self.history = float(state["seconds_spent"]), json.loads(state["history"])
        log.info("resumed at %d pictures, step %d", self.done, self.step)

    # -------------------------------------------------------------------------------------- steps

    def _pick(self, rng: np.random.Generator) -> tuple[Mode, int, int]:
        """(kind of step, seconds, pictures) for this step."""
        r = self.recipe
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

    def losses(self, batch: Batch, mode: Mode, pixels: Tensor) -> dict[str, Tensor]:
        """All losses of one batch, unweighted."""
        model, aids, v = self.model, self.aids, self.data.vocabulary
        visual, hidden, _ = forward(model, batch, pixels, self.image_token)
        b, k, length, h = hidden.shape
        flat = hidden.reshape(b * k, length, h)
        rows = torch.arange(b * k, device=hidden.device)
        mot = flat[rows, batch.mot_at.reshape(-1)]
        xyz = batch.target_pos.reshape(b * k, 3).float()
        out = {"position": aids.position_loss(mot, xyz, aids.position), "grid": aids.grid_loss(visual, batch)}
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
        out["tokens"] = weighted_cross_entropy(logits, kept - shift, self.weights[slots])
        motion = slots >= 0
        first = v.motion_id_0 - shift
        codes = aids.codes.codebooks.shape[0] * aids.codes.codebooks.shape[2]
        out["code"] = aids.code_loss(logits[motion][:, first : first + codes], kept[motion] - v.motion_id_0,
                                     slots[motion])
        # Hidden states in front of the wrist cells of the first block.
        count = v.wrist_ids if mode == "full" else v.given_ids(mode)
        cells = batch.mot_at.reshape(-1, 1) + torch.arange(0, count, aids.EVERY, device=hidden.device)
        before = flat.gather(1, cells[..., None].expand(-1, -1, h))
        ids = batch.branch_ids.reshape(b * k, length)
        wrist = ids.gather(1, batch.mot_at.reshape(-1, 1) + 1 + torch.arange(count, device=ids.device))
        out["latent"] = aids.latent_losses(mot, before, wrist - v.motion_id_0)
        out["position_on_ids"] = aids.position_loss(before, xyz[:, None].expand(-1, before.shape[1], -1),
                                                    aids.position_on_ids)
        return out

    def train_step(self) -> tuple[Mode, dict[str, float]]:
        r = self.recipe
        rng = np.random.default_rng([r.seed, self.step])
        mode, seconds, pictures = self._pick(rng)
        scenes = rng.integers(0, len(self.data), pictures)
        batch = self.data.batch(scenes.tolist(), mode, seconds)
        batch = Batch(*(getattr(batch, f).to(self.device) for f in Batch.__dataclass_fields__))
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        pixels = augment(normalise(batch.pixels), generator)
        factor = cosine(self.done / r.pictures)
        for optimizer, lr in ((self.muon, r.muon_lr), (self.adam, r.adam_lr)):
            for group in optimizer.param_groups:
                group["lr"] = lr * factor
        with torch.autocast(self.device.split(":")[0], dtype=torch.bfloat16):
            parts = self.losses(batch, mode, pixels)
        binding = self.done < r.prompt_phase * r.pictures
        weight = {"position": 1.0 if binding else r.position_weight, "grid": r.grid_weight, "tokens": 1.0,
                  "code": r.code_weight, "latent": r.latent_weight, "position_on_ids": r.position_weight}
        loss = torch.stack([weight[name] * value for name, value in parts.items()]).sum()
        for optimizer in (self.muon, self.adam):
            optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if not bool(torch.isfinite(norm)):
            raise FloatingPointError(f"step {self.step} ({mode}): gradient norm {float(norm)}, losses "
                                     + ", ".join(f"{k} {float(x):.3g}" for k, x in parts.items()))
        self.muon.step()
        self.adam.step()
        ema = min(r.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1 - ema)
        self.step += 1
        self.done += pictures
        return mode, {name: float(value.detach()) for name, value in parts.items()}

    def run(self, evaluate: Callable[[BeingVLA], dict[str, float]] | None = None, *, evaluate_every_s: float = 300,
            save_every_s: float = 60) -> None:
        """Trains to the end of the budget. Ctrl-C saves and re-raises; calling again resumes."""
        progress = Progress("vla pictures", self.recipe.pictures, self.done, every_s=20)
        recent: dict[str, float] = {}
        last_save = last_eval = mark = time.monotonic()
        try:
            while self.done < self.recipe.pictures:
                mode, parts = self.train_step()
                for name, value in parts.items():
                    key = f"{mode}.{name}"
                    recent[key] = 0.95 * recent.get(key, value) + 0.05 * value
                now = time.monotonic()
                self.seconds_spent += now - mark
                mark = now
                progress(self.done, **recent)
                finished = self.done >= self.recipe.pictures
                if evaluate is not None and (finished or now - last_eval > evaluate_every_s):
                    self._evaluate(evaluate)
                    last_eval = mark = time.monotonic()
                if finished or now - last_save > save_every_s:
                    self.save()
                    last_save = now
        except KeyboardInterrupt:
            self.save()
            log.warning("interrupted at %d pictures; the state is saved and the same command resumes", self.done)
            raise

    def _evaluate(self, evaluate: Callable[[BeingVLA], dict[str, float]]) -> None:
        current = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.average)
        self.model.eval()
        figures = evaluate(self.model)
        self.model.load_state_dict(current)
        self.model.train()
        self.history.append({"pictures": self.done, "step": self.step, "seconds": round(self.seconds_spent, 1),
                             **figures})
        log.info("evaluation at %d pictures, %.0f s: %s", self.done, self.seconds_spent,
                 "  ".join(f"{k} {v:.3f}" for k, v in figures.items()))


