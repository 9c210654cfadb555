"""What a visual token should tell about the scene, as numbers: the meeting point of the two halves of training.

The picture side (ViT and projector) learns to write this description into its tokens; the language side learns
from tokens that are written from the truth, without any picture. The two do not wait for each other, and steps of
the language side cost no ViT. Afterwards the language side goes on with what the ViT makes of pictures; nothing of
this is in the shipped model.

A token covers 2 x 2 patches. For each patch it tells which thing, if any, has its centre there: whether, kind,
colour, place and size. For each side it tells whether that hand's palm is in the token's cell, where, turned how, and
how far the fingers are curled. The description lies along fixed orthonormal directions of the token.
"""

from __future__ import annotations

from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor

from beingh0_edge.train.vla_data import Scenes

Intrinsics = tuple[float, float, float, float]
Point = tuple[float, float, float]

FREQUENCIES = (1, 2, 4, 8)            # of the sines and cosines that spell a coordinate beside its value
PLACE = 3 * (1 + 2 * len(FREQUENCIES))
HAND = 1 + PLACE + 6 + 1              # present, palm, rot6D, curl
ABSENT_WEIGHT = 0.03                  # of the loss where there is nothing: about as many cells as things then count


class SceneDescription:
    """The layout, its targets for a batch, and its directions in a token of width `hidden`.

    intrinsics    fx, fy, cx, cy in pixels of the model's square input image
    low_m, high_m the range of object centres in the camera frame; a coordinate is -1 and 1 there
    """

    def __init__(self, hidden: int, grid: int, intrinsics: Intrinsics, image_size: int, low_m: Point, high_m: Point,
                 kinds: int, colours: int, device: str = "cpu") -> None:
        self.grid, self.image_size, self.intrinsics = grid, image_size, intrinsics
        self.kinds, self.colours = kinds + 1, colours  # the plate is one more kind
        self.thing = 1 + self.kinds + self.colours + PLACE + 2
        self.width = 4 * self.thing + 2 * HAND
        if self.width > hidden:
            raise ValueError(f"a token of {hidden} numbers cannot hold a description of {self.width}")
        self.low, self.high = torch.tensor(low_m, device=device), torch.tensor(high_m, device=device)
        random = torch.randn(hidden, self.width, generator=torch.Generator().manual_seed(0))
        self.directions = torch.linalg.qr(random)[0].t().contiguous().to(device)  # [width, hidden]

    # ------------------------------------------------------------------------------------- target

    def place(self, xyz_m: Tensor) -> Tensor:
        """float[..., 3] metres -> float[..., PLACE]"""
        x = (xyz_m - self.low) / (self.high - self.low) * 2 - 1
        waves = [f(0.5 * pi * k * x) for k in FREQUENCIES for f in (torch.sin, torch.cos)]
        return torch.cat([x, *waves], -1)

    def metres(self, place: Tensor) -> Tensor:
        """Inverse of `place` from its plain coordinates, float[..., 3]."""
        return self.low + (place[..., :3] + 1) / 2 * (self.high - self.low)

    def patch(self, xyz_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(row, column, inside the picture) of the patch that shows points float[..., 3]; the nearest if none does."""
        fx, fy, cx, cy = self.intrinsics
        side = 2 * self.grid
        u = (fx * xyz_m[..., 0] / xyz_m[..., 2] + cx) / self.image_size * side
        v = (fy * xyz_m[..., 1] / xyz_m[..., 2] + cy) / self.image_size * side
        inside = (u >= 0) & (u < side) & (v >= 0) & (v < side)
        return v.clamp(0, side - 1).long(), u.clamp(0, side - 1).long(), inside

    def _slot(self, xyz_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(cell, patch inside the cell 0..3, inside the picture) of points float[..., 3]."""
        row, column, inside = self.patch(xyz_m)
        return (row // 2) * self.grid + column // 2, (row % 2) * 2 + column % 2, inside

    def target(self, batch: Scenes, jitter_m: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
        """The description of every token, float[B, grid^2, width]; `jitter_m` displaces what is told, not where."""
        b, device = len(batch.objects_pos), batch.objects_pos.device

        def jitter(x: Tensor) -> Tensor:
            return x + jitter_m * torch.randn(x.shape, generator=generator).to(device) if jitter_m else x

        things = torch.zeros(b, self.grid**2 * 4, self.thing, device=device)
        rows = torch.arange(b, device=device)
        plate = torch.where(batch.plate_colour[:, None] >= 0, batch.plate_pos, torch.ones_like(batch.plate_pos))
        count = batch.objects_pos.shape[1]
        for i in (-1, *range(count)):  # the plate first: an object on the same patch replaces it
            if i < 0:
                xyz, kind, there = plate, torch.full((b,), self.kinds - 1, device=device), batch.plate_colour >= 0
                colour, size = batch.plate_colour.clamp_min(0), torch.zeros(b, 2, device=device)
            else:
                xyz, kind, colour = batch.objects_pos[:, i], batch.objects_kind[:, i], batch.objects_colour[:, i]
                size, there = batch.objects_size[:, i] * 10, torch.ones_like(kind, dtype=torch.bool)
            cell, patch, inside = self._slot(xyz)
            row = torch.cat([torch.ones(b, 1, device=device), F.one_hot(kind, self.kinds),
                             F.one_hot(colour, self.colours), self.place(jitter(xyz)), size], -1)
            keep = there & inside
            things[rows[keep], (cell * 4 + patch)[keep]] = row[keep]
        hands = torch.zeros(b, self.grid**2, 2, HAND, device=device)
        for side in (0, 1):
            start = batch.hands_start[:, side]
            keep = start[:, 0].isfinite()
            start = start[keep]
            cell, _, _ = self._slot(start[:, :3])  # a palm outside the picture is told by the nearest cell
            row = torch.cat([torch.ones(len(start), 1, device=device), self.place(jitter(start[:, :3])),
                             start[:, 3:]], -1)
            hands[rows[keep], cell, side] = row
        return torch.cat([things.view(b, self.grid**2, -1), hands.view(b, self.grid**2, -1)], -1)

    # ------------------------------------------------------------------------------------- tokens

    def tokens(self, target: Tensor) -> Tensor:
        """Tokens that say just this, float[B, cells, hidden]."""
        return target @ self.directions

    def split(self, described: Tensor) -> tuple[Tensor, Tensor]:
        """(things float[B, cells, 4, thing], hands float[B, cells, 2, HAND]) of a description."""
        things, hands = described.split([4 * self.thing, 2 * HAND], -1)
        return things.unflatten(-1, (4, self.thing)), hands.unflatten(-1, (2, HAND))

    def loss(self, visual: Tensor, target: Tensor) -> Tensor:
        """Mean squared error of what tokens float[B, cells, hidden] say: of all that is there, of the rest a little."""
        total, weights = visual.new_zeros(()), visual.new_zeros(())
        for said, true in zip(self.split(visual.float() @ self.directions.t()), self.split(target), strict=True):
            weight = torch.where(true[..., :1] > 0, 1.0, ABSENT_WEIGHT)
            total = total + (weight * (said - true).square()).sum()
            weights = weights + weight.sum() * true.shape[-1]
        return total / weights

    @torch.no_grad()
    def figures(self, visual: Tensor, target: Tensor) -> dict[str, float]:
        """How well tokens describe: median errors of places and of their depth alone (mm), shares of right kinds and
        colours where things are."""
        (said, hand), (true, true_hand) = self.split(visual.float() @ self.directions.t()), self.split(target)
        there, palm = true[..., 0] > 0, true_hand[..., 0] > 0
        k, c = 1 + self.kinds, 1 + self.kinds + self.colours

        def off_mm(a: Tensor, b: Tensor, at: int, first: int = 0) -> float:
            away = self.metres(a[..., at : at + 3]) - self.metres(b[..., at : at + 3])
            return float(away[..., first:].norm(dim=-1).median() * 1000)

        said, true, hand, true_hand = said[there], true[there], hand[palm], true_hand[palm]
        return {"object_mm": off_mm(said, true, c), "depth_mm": off_mm(said, true, c, first=2),
                "palm_mm": off_mm(hand, true_hand, 1),
                "kind": float((said[:, 1:k].argmax(-1) == true[:, 1:k].argmax(-1)).float().mean()),
                "colour": float((said[:, k:c].argmax(-1) == true[:, k:c].argmax(-1)).float().mean()),
                "seen": float((said[:, 0] > 0.5).float().mean())}
