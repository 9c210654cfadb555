"""Trains the picture side alone: ViT and projector learn to write what is in the picture into the visual tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from beingh0_edge.preprocess import IMAGE_MEAN, IMAGE_STD
from beingh0_edge.train.description import SceneDescription
from beingh0_edge.train.fit import Fit, FitRecipe
from beingh0_edge.train.half import half_products
from beingh0_edge.train.model import BeingVLA
from beingh0_edge.train.vla_data import VlaData


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


class VisionFit(Fit):
    """The stage. Only ViT and projector are trained."""

    name = "vision"

    def __init__(self, model: BeingVLA, data: VlaData, description: SceneDescription, recipe: FitRecipe,
                 state_path: Path, device: str = "cpu") -> None:
        super().__init__(model, (), recipe, state_path, device, lambda name: "_language_model" not in name)
        self.vla_model, self.data, self.description = model, data, description

    def train_step(self) -> tuple[str, dict[str, float]]:
        r = self.recipe
        rng = np.random.default_rng([r.seed, 1, self.step])
        batch = self.data.scenes(rng.integers(0, len(self.data), r.batch_pictures)).to(self.device)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        pixels = augment(normalise(batch.pixels), generator)
        with half_products(self.device):
            visual = self.vla_model.visual_tokens(pixels)
            loss = self.description.loss(visual, self.description.target(batch))
        self.update(loss, "pictures")
        self.step += 1
        self.done += r.batch_pictures
        return "pictures", {"description": float(loss.detach())}

    @torch.no_grad()
    def figures(self, data: VlaData, scenes: int = 256, batch: int = 64) -> dict[str, float]:
        """How well the tokens describe the first `scenes` pictures of `data`."""
        targets, tokens = [], []
        for start in range(0, min(scenes, len(data)), batch):
            part = data.scenes(np.arange(start, min(start + batch, scenes, len(data)))).to(self.device)
            tokens.append(self.vla_model.visual_tokens(normalise(part.pixels)))
            targets.append(self.description.target(part))
        visual, target = torch.cat(tokens), torch.cat(targets)
        return {"loss": float(self.description.loss(visual, target)), **self.description.figures(visual, target)}
