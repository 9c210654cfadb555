"""Auxiliary losses that make grounding emerge in minutes instead of hours. None changes the shipped network: the
heads here are dropped after training.

position  the hidden state of `<mot>` (and of every eighth id) tells where the named object is: 3 x 24 soft bins
grid      each visual token tells which object, if any, has its centre in the token's cell, and how far it is
latent    the hidden state in front of each latent cell tells that cell's quantised latent, and `<mot>` tells all
code      the expected code vector under the softmax against the true one: errors weighted by what they mean
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beingh0_edge.train.vla_data import IGNORE, Batch


@dataclass(frozen=True)
class Scene:
    """What the heads need to know about the data. Camera intrinsics are those of the square model image."""

    kinds: int
    colours: int
    intrinsics: tuple[float, float, float, float]  # fx, fy, cx, cy in pixels of the model's input image
    image_size: int
    position_low_m: tuple[float, float, float]
    position_high_m: tuple[float, float, float]


@dataclass(frozen=True)
class CodeSpace:
    """Codebooks float[parts, G, K, D] of the motion tokenizer and the variance of its latents float[parts, G]."""

    codebooks: Tensor
    variance: Tensor
    positions: int
    quantizers: int

    @property
    def ids_per_part(self) -> int:
        return int(self.codebooks.shape[1]) * self.positions * self.quantizers


class Aids(nn.Module):
    """The heads and their losses."""

    BINS = 24
    EVERY = 8  # one latent cell is eight ids

    def __init__(self, hidden: int, scene: Scene, codes: CodeSpace) -> None:
        super().__init__()
        self.scene, self.codes = scene, codes
        self.position = nn.Linear(hidden, 3 * self.BINS)
        self.position_on_ids = nn.Linear(hidden, 3 * self.BINS)
        self.grid = nn.Linear(hidden, 1 + scene.kinds + scene.colours + 3)
        _, groups, _, dim = codes.codebooks.shape
        self.latent_all = nn.Linear(hidden, groups * codes.positions * dim)
        self.latent_cell = nn.Linear(hidden, groups * dim)
        self.register_buffer("low", torch.tensor(scene.position_low_m))
        self.register_buffer("high", torch.tensor(scene.position_high_m))
        self.low: Tensor
        self.high: Tensor

    # ------------------------------------------------------------------------------------ position

    def _soft_bins(self, xyz: Tensor) -> Tensor:
        """float[..., 3] -> float[..., 3, BINS], two neighbouring bins share the weight."""
        x = ((xyz - self.low) / (self.high - self.low)).clamp(0, 1) * (self.BINS - 1)
        bins = torch.arange(self.BINS, device=x.device)
        return (1 - (x[..., None] - bins).abs()).clamp_min(0)

    def position_loss(self, hidden: Tensor, xyz: Tensor, head: nn.Linear) -> Tensor:
        logits = head(hidden).float().unflatten(-1, (3, self.BINS))
        return -(self._soft_bins(xyz) * logits.log_softmax(-1)).sum(-1).mean()

    def read_position(self, hidden: Tensor) -> Tensor:
        """Expected position in metres, float[..., 3]."""
        p = self.position(hidden).float().unflatten(-1, (3, self.BINS)).softmax(-1)
        x = (p * torch.arange(self.BINS, device=p.device)).sum(-1) / (self.BINS - 1)
        return self.low + x * (self.high - self.low)

    # ---------------------------------------------------------------------------------------- grid

    def grid_loss(self, visual: Tensor, batch: Batch) -> Tensor:
        """visual float[B, cells, H], row-major square grid of tokens."""
        s = self.scene
        b, cells, _ = visual.shape
        side = round(cells**0.5)
        fx, fy, cx, cy = s.intrinsics
        pos = batch.objects_pos.float()
        u = (fx * pos[..., 0] / pos[..., 2] + cx) / s.image_size * side
        v = (fy * pos[..., 1] / pos[..., 2] + cy) / s.image_size * side
        inside = (u >= 0) & (u < side) & (v >= 0) & (v < side)
        cell = (v.clamp(0, side - 1e-4).long() * side + u.clamp(0, side - 1e-4).long())
        out = self.grid(visual).float()
        present = torch.zeros(b, cells, device=out.device).scatter_(1, cell, inside.float())
        loss = F.binary_cross_entropy_with_logits(out[..., 0], present)
        at = out.gather(1, cell[..., None].expand(-1, -1, out.shape[-1]))[inside]
        k, c = s.kinds, s.colours
        loss = loss + 0.5 * F.cross_entropy(at[:, 1 : 1 + k], batch.objects_kind[inside])
        loss = loss + 0.5 * F.cross_entropy(at[:, 1 + k : 1 + k + c], batch.objects_colour[inside])
        depth = (pos[..., 2] - self.low[2]) / (self.high[2] - self.low[2])
        geometry = torch.stack([u - u.floor(), v - v.floor(), depth], -1)[inside]
        return loss + F.smooth_l1_loss(at[:, 1 + k + c :], geometry, beta=0.1)

    # -------------------------------------------------------------------------------- code space

    def latent_losses(self, mot_hidden: Tensor, cell_hidden: Tensor, wrist_codes: Tensor) -> Tensor:
        """mot_hidden [N, H]; cell_hidden [N, cells, H] in front of each wrist cell; wrist_codes [N, ids].

        The ids may be the first groups only. A cell's latent is the sum of its rows over the quantizers.
        """
        c = self.codes
        groups = wrist_codes.shape[1] // (c.positions * c.quantizers)
        ids = wrist_codes.view(-1, groups, c.positions, c.quantizers)
        target = torch.stack([c.codebooks[0, g][ids[:, g]].sum(2) for g in range(groups)], 1)
        target = target / c.variance[0, :groups].sqrt()[None, :, None, None]
        n, g, t, d = target.shape
        whole = self.latent_all(mot_hidden).float().view(n, -1, t, d)[:, :g]
        cells = self.latent_cell(cell_hidden).float().view(n, g, t, -1, d)
        own = torch.stack([cells[:, i, :, i] for i in range(g)], 1)
        return F.smooth_l1_loss(whole, target, beta=0.5) + F.smooth_l1_loss(own, target, beta=0.5)

    def code_loss(self, logits: Tensor, codes: Tensor, slots: Tensor) -> Tensor:
        """Squared error of the expected code vector, in units of the latent variance.

        logits float[N, parts*K] over motion ids; codes int64[N] motion ids; slots int64[N] index inside the block.
        """
        c = self.codes
        parts, groups, rows, _ = c.codebooks.shape
        part = slots // c.ids_per_part
        group = (slots % c.ids_per_part) // (c.positions * c.quantizers)
        total = logits.new_zeros(())
        for p in range(parts):
            for g in range(groups):
                pick = (part == p) & (group == g)
                if not bool(pick.any()):
                    continue
                book = c.codebooks[p, g]
                expected = logits[pick, p * rows : (p + 1) * rows].softmax(-1) @ book
                error = (expected - book[codes[pick] - p * rows]).square().sum(-1)
                weight = 1.0 if p == 0 else 0.3
                total = total + weight * error.sum() / (c.variance[p, g] * book.shape[1])
        return total / len(slots)


def level_weights(codes: CodeSpace, block_ids: int, decay: float = 0.6, finger: float = 0.3) -> Tensor:
    """float[block_ids + 1]: decay^q per residual level, fingers damped; the last entry (index -1) is for markers."""
    q = torch.arange(block_ids) % codes.quantizers
    w = decay ** q.float()
    w[codes.ids_per_part :] *= finger
    return torch.cat([w, torch.ones(1)])


def weighted_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean over the weights; IGNORE targets must already be filtered out."""
    if bool((targets == IGNORE).any()):
        raise ValueError("weighted_cross_entropy: padded targets must be removed first")
    return (F.cross_entropy(logits, targets, reduction="none") * weights).sum() / weights.sum()


def position_range(xyz: npt.NDArray[np.floating]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Bounds of the position bins: the data's range with 2 cm of margin."""
    low, high = xyz.min(0) - 0.02, xyz.max(0) + 0.02
    return (float(low[0]), float(low[1]), float(low[2])), (float(high[0]), float(high[1]), float(high[2]))
