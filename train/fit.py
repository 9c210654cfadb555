"""What every training stage of the VLA shares: two optimisers, an average of the weights, a state on disk, a budget."""

from __future__ import annotations

import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from beingh0_edge.train.muon import Muon
from beingh0_edge.train.progress import Progress, cosine, save_atomic

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FitRecipe:
    """Budget in pictures, rates and averaging of one stage."""

    pictures: int
    batch_pictures: int = 16
    muon_lr: float = 0.02
    adam_lr: float = 1.5e-3
    weight_decay: float = 0.01
    ema: float = 0.998
    seed: int = 0


class Fit(ABC):
    """One stage. A subclass computes losses and counts pictures in `train_step`; everything that must survive an
    interruption is in `save`."""

    name = "stage"

    def __init__(self, model: nn.Module, heads: Iterable[nn.Module], recipe: FitRecipe, state_path: Path,
                 device: str, trained: Callable[[str], bool] = lambda name: True) -> None:
        self.model, self.heads = model.to(device), nn.ModuleList(heads).to(device)
        self.recipe, self.state_path, self.device = recipe, state_path, device
        matrices: list[Tensor] = []
        rest: list[Tensor] = []
        for name, p in model.named_parameters():
            if trained(name):
                inner = "layers." in name or "mlp1." in name
                (matrices if inner and p.ndim == 2 else rest).append(p)
        self.parameters = [*matrices, *rest]
        self.muon = Muon(matrices, lr=recipe.muon_lr, weight_decay=recipe.weight_decay)
        self.adam = torch.optim.AdamW([*rest, *self.heads.parameters()], lr=recipe.adam_lr, betas=(0.9, 0.98),
                                      weight_decay=0.0)
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items() if trained(k)}
        self.done, self.step, self.seconds_spent = 0, 0, 0.0
        self.history: list[dict[str, Any]] = []
        if state_path.exists():
            self._restore(torch.load(state_path, weights_only=True, map_location=device))

    # ------------------------------------------------------------------------------- checkpoints

    def save(self) -> None:
        save_atomic({
            "model": self.model.state_dict(), "heads": self.heads.state_dict(), "average": self.average,
            "muon": self.muon.state_dict(), "adam": self.adam.state_dict(), "done": self.done, "step": self.step,
            "seconds_spent": self.seconds_spent, "history": json.dumps(self.history),
        }, self.state_path)

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.average = state["average"]
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.done, self.step = int(state["done"]), int(state["step"])
        self.seconds_spent, self.history = float(state["seconds_spent"]), json.loads(state["history"])
        log.info("%s: resumed at %d pictures, step %d", self.name, self.done, self.step)

    # -------------------------------------------------------------------------------------- steps

    @abstractmethod
    def train_step(self) -> tuple[str, dict[str, float]]:
        """One step; -> (kind of step, unweighted losses). Advances `step` and `done`."""

    def update(self, loss: Tensor, what: str) -> None:
        """Backward pass, both optimisers, average. Raises FloatingPointError on a gradient that is not finite."""
        r = self.recipe
        factor = cosine(self.done / r.pictures)
        for optimizer, lr in ((self.muon, r.muon_lr), (self.adam, r.adam_lr)):
            for group in optimizer.param_groups:
                group["lr"] = lr * factor
        for optimizer in (self.muon, self.adam):
            optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        if not bool(torch.isfinite(norm)):
            raise FloatingPointError(f"{self.name}: step {self.step} ({what}): gradient norm {float(norm)}")
        self.muon.step()
        self.adam.step()
        ema = min(r.ema, (1 + self.step) / (10 + self.step))
        state = self.model.state_dict()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), [state[name] for name in self.average], 1 - ema)

    def run(self, evaluate: Callable[[], dict[str, float]] | None = None, *, evaluate_every_s: float = 300,
            save_every_s: float = 120) -> None:
        """Trains to the end of the budget. Ctrl-C saves and re-raises; calling again resumes.

        `evaluate` is called with the averaged weights in `self.model`.
        """
        progress = Progress(f"{self.name} pictures", self.recipe.pictures, self.done, every_s=20)
        recent: dict[str, float] = {}
        last_save = last_eval = mark = time.monotonic()
        try:
            while self.done < self.recipe.pictures:
                kind, parts = self.train_step()
                for name, value in parts.items():
                    key = f"{kind}.{name}"
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
                    last_save = mark = time.monotonic()
        except KeyboardInterrupt:
            self.save()
            log.warning("%s: interrupted at %d pictures; the state is saved and the same command resumes",
                        self.name, self.done)
            raise

    def _evaluate(self, evaluate: Callable[[], dict[str, float]]) -> None:
        current = {k: v.clone() for k, v in self.model.state_dict().items() if k in self.average}
        self.model.load_state_dict(self.average, strict=False)
        self.model.eval()
        figures = evaluate()
        self.model.load_state_dict(current, strict=False)
        self.model.train()
        self.history.append({"stage": self.name, "pictures": self.done, "step": self.step,
                             "seconds": round(self.seconds_spent, 1), **figures})
        log.info("%s: evaluation at %d pictures, %.0f s: %s", self.name, self.done, self.seconds_spent,
                 "  ".join(f"{k} {v:.3f}" for k, v in figures.items()))
