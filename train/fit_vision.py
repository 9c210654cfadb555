"""Trains the picture side alone: ViT and projector learn to write what is in the picture into the visual tokens.

How far away everything is follows from how large it looks and how large such things are, so distances are the hard
part: tokens found directions to 7 mm where depths were 30 mm off, all of a scene together. Two heads help, dropped
after training: halfway through the ViT the patch of an object's centre tells how large the object looks, and in the layer
after that the class token tells where the table is; the last layers can then tell every token.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beingh0_edge.preprocess import IMAGE_MEAN, IMAGE_STD
from beingh0_edge.train.description import SceneDescription
from beingh0_edge.train.fit import Fit, FitRecipe
from beingh0_edge.train.model import BeingVLA
from beingh0_edge.train.vla_data import Scenes, VlaData


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


class SizeHeads(nn.Module):
    """Training-only heads of the ViT, and their losses."""

    PLATE_M = (0.075, 0.014)  # radius and height of the plate, as drawn

    def __init__(self, width: int, layers: int, description: SceneDescription) -> None:
        super().__init__()
        self.half, self.after = max(0, layers // 2 - 1), max(0, layers - 2)  # layers whose outputs are read
        self.size, self.table = nn.Linear(width, 2), nn.Linear(width, 4)
        self.description = description

    def loss(self, taps: list[Tensor], scenes: Scenes) -> dict[str, Tensor]:
        """`size`: apparent radius and height, in units of a twentieth of the focal length; `table`: its normal and the
        camera's distance from it, in decimetres."""
        there = torch.cat([scenes.plate_colour[:, None] >= 0,
                           torch.ones_like(scenes.objects_kind, dtype=torch.bool)], 1)
        xyz = torch.cat([scenes.plate_pos[:, None], scenes.objects_pos], 1)
        xyz = torch.where(there[..., None], xyz, 1.0)
        plate = torch.tensor(self.PLATE_M, device=xyz.device).expand(len(xyz), 1, 2)
        looks = 20 * torch.cat([plate, scenes.objects_size], 1) / xyz[..., 2:]
        row, column, inside = self.description.patch(xyz)
        patches = taps[self.half][:, 1:]
        at = (row * 2 * self.description.grid + column)[..., None].expand(-1, -1, patches.shape[-1])
        said = self.size(patches.gather(1, at)).float()
        normal = scenes.cam_from_world[:, :, 2]
        distance = -(normal * scenes.cam_from_world[:, :, 3]).sum(1, keepdim=True)
        table = self.table(taps[self.after][:, 0]).float()
        keep = there & inside
        return {"size": F.smooth_l1_loss(said[keep], looks[keep], beta=0.05),
                "table": F.smooth_l1_loss(table, 10 * torch.cat([normal, distance], 1), beta=0.1)}


class VisionFit(Fit):
    """The stage. Only ViT and projector are trained."""

    name = "vision"

    def __init__(self, model: BeingVLA, data: VlaData, description: SceneDescription, sizes: SizeHeads,
                 recipe: FitRecipe, state_path: Path, device: str = "cpu") -> None:
        super().__init__(model, (sizes,), recipe, state_path, device, lambda name: "_language_model" not in name)
        self.vla_model, self.data, self.description, self.sizes = model, data, description, sizes

    def train_step(self) -> tuple[str, dict[str, float]]:
        r = self.recipe
        rng = np.random.default_rng([r.seed, 1, self.step])
        batch = self.data.scenes(rng.integers(0, len(self.data), r.batch_pictures)).to(self.device)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        pixels = augment(normalise(batch.pixels), generator)
        with torch.autocast(self.device.split(":")[0], dtype=torch.bfloat16):
            taps: list[Tensor] = []
            visual = self.vla_model.visual_tokens(pixels, taps)
            parts = {"description": self.description.loss(visual, self.description.target(batch)),
                     **self.sizes.loss(taps, batch)}
        self.update(torch.stack(list(parts.values())).sum(), "pictures")
        self.step += 1
        self.done += r.batch_pictures
        return "pictures", {name: float(value.detach()) for name, value in parts.items()}

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
