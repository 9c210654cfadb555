"""Auxiliary losses that make grounding emerge in minutes instead of hours. None changes the shipped network: the
heads here are dropped after training.

position  the hidden state of `<mot>` (and of every eighth id) tells where the named object is: 3 x 24 soft bins
start     the same states tell where the palm of the hand that moves is at first, and `<mot>` how it is turned
latent    the hidden state in front of each latent cell tells that cell's quantised latent, and `<mot>` tells all
rest      the hidden state in front of each id tells what the ids of the cell so far have left of its latent
code      the expected code vector under the softmax against the true one: errors weighted by what they mean
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from beingh0_edge.train.description import Point


def left_before(rows: Tensor) -> Tensor:
    """What is left of a cell's latent before each of its levels, float[..., quantizers, D], as are its `rows`."""
    return rows.flip(-2).cumsum(-2).flip(-2)


@dataclass(frozen=True)
class CodeSpace:
    """Codebooks float[parts, G, K, D] of the motion tokenizer, the variance of its latents float[parts, G], what is
    left of them before each level, root mean square float[parts, G, quantizers], and `blur`: the odds of rows never get
    sharper than a variance of this share of the latents'."""

    codebooks: Tensor
    variance: Tensor
    residual: Tensor
    positions: int
    quantizers: int
    blur: float

    SHARPEST: ClassVar[float] = 0.03  # variance of odds as a share of what is left before the level

    @property
    def ids_per_part(self) -> int:
        return int(self.codebooks.shape[1]) * self.positions * self.quantizers

    def part_and_group(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Of slots int64[...] of a block."""
        return slots // self.ids_per_part, slots % self.ids_per_part // (self.positions * self.quantizers)

    @torch.no_grad()
    def odds(self, codes: Tensor, slots: Tensor) -> Tensor:
        """What is to be learned for motion ids int64[N] at `slots` int64[N] of their blocks, whole cells: odds of all
        rows, float[N, parts * K], by their distance to what the cell's ids from there on spell.

        The odds are blurred to about what a model can know. With the one true row as the target, the likeliest row
        where little is known is some common row, of full length in a random direction; with blurred odds it is the
        row nearest to what is expected: a short one where nothing is known. The row of zeros is meant as it is.
        """
        parts, groups, rows, dim = self.codebooks.shape
        cell, at = codes.view(-1, self.quantizers), slots.view(-1, self.quantizers)[:, 0]
        part, group = self.part_and_group(at)
        out = torch.zeros(*cell.shape, parts * rows, device=codes.device)
        for p in range(parts):
            for g in range(groups):
                pick = (part == p) & (group == g)
                book = self.codebooks[p, g]
                said = book[cell[pick] - p * rows]
                left = left_before(said)
                distance = (left.square().sum(-1, keepdim=True) + book.square().sum(-1) - 2 * left @ book.t())
                variance = self.residual[p, g].square() * dim * self.SHARPEST
                variance = variance.clamp_min(self.blur * float(self.variance[p, g]))
                told = (-distance / (2 * variance[:, None])).softmax(-1)
                silent = F.one_hot(cell[pick] - p * rows, rows).float()
                out[pick, :, p * rows : (p + 1) * rows] = torch.where(said.any(-1, keepdim=True), told, silent)
        return out.flatten(0, 1)


class Place(nn.Linear):
    """Reads a point from a hidden state: soft bins along each axis between two corners, metres, camera frame."""

    BINS = 24

    def __init__(self, hidden: int, low_m: Point, high_m: Point) -> None:
        super().__init__(hidden, 3 * self.BINS)
        self.register_buffer("low", torch.tensor(low_m))
        self.register_buffer("high", torch.tensor(high_m))
        self.low: Tensor
        self.high: Tensor

    def _soft_bins(self, xyz: Tensor) -> Tensor:
        """float[..., 3] -> float[..., 3, BINS], two neighbouring bins share the weight."""
        x = ((xyz - self.low) / (self.high - self.low)).clamp(0, 1) * (self.BINS - 1)
        bins = torch.arange(self.BINS, device=x.device)
        return (1 - (x[..., None] - bins).abs()).clamp_min(0)

    def loss(self, hidden: Tensor, xyz: Tensor) -> Tensor:
        logits = self(hidden).float().unflatten(-1, (3, self.BINS))
        return -(self._soft_bins(xyz) * logits.log_softmax(-1)).sum(-1).mean()

    def read(self, hidden: Tensor) -> Tensor:
        """Expected position in metres, float[..., 3]."""
        p = self(hidden).float().unflatten(-1, (3, self.BINS)).softmax(-1)
        x = (p * torch.arange(self.BINS, device=p.device)).sum(-1) / (self.BINS - 1)
        return self.low + x * (self.high - self.low)


class Aids(nn.Module):
    """The heads and their losses. `objects` and `palms` are the corners of the boxes that hold them."""

    EVERY = 8  # one latent cell is eight ids

    def __init__(self, hidden: int, objects: tuple[Point, Point], palms: tuple[Point, Point],
                 codes: CodeSpace) -> None:
        super().__init__()
        self.codes = codes
        self.position = Place(hidden, *objects)
        self.position_on_ids = Place(hidden, *objects)
        self.start = Place(hidden, *palms)
        self.start_on_ids = Place(hidden, *palms)
        self.turned = nn.Linear(hidden, 6)
        _, groups, _, dim = codes.codebooks.shape
        self.latent_all = nn.Linear(hidden, groups * codes.positions * dim)
        self.latent_cell = nn.Linear(hidden, groups * dim)
        self.rest = nn.Parameter(torch.zeros(groups, codes.quantizers, dim, hidden))

    def start_loss(self, hidden: Tensor, start: Tensor) -> Tensor:
        """hidden float[N, H] of `<mot>`; start float[N, 9]: palm (m) and rot6D of the hand whose ids follow."""
        palm, rotation = start.split([3, 6], -1)
        return self.start.loss(hidden, palm) + F.smooth_l1_loss(self.turned(hidden).float(), rotation, beta=0.2)

    # -------------------------------------------------------------------------------- code space

    def latent_losses(self, mot_hidden: Tensor, cell_hidden: Tensor, wrist_codes: Tensor) -> Tensor:
        """mot_hidden [N, H]; cell_hidden [N, cells, H] in front of each wrist cell; wrist_codes [N, ids].

        The ids may be the first groups only. A cell's latent is the sum of its rows over the quantizers.
        """
        c = self.codes
        groups = wrist_codes.shape[1] // (c.positions * c.quantizers)
        ids = wrist_codes.view(-1, groups, c.positions, c.quantizers)
        target = torch.stack([c.codebooks[0, g][ids[:, g]].sum(2) for g in range(groups)], 1)
        target = target / c.variance[0].max().sqrt()
        n, g, t, d = target.shape
        whole = self.latent_all(mot_hidden).float().view(n, -1, t, d)[:, :g]
        cells = self.latent_cell(cell_hidden).float().view(n, g, t, -1, d)
        own = torch.stack([cells[:, i, :, i] for i in range(g)], 1)
        return F.smooth_l1_loss(whole, target, beta=0.5) + F.smooth_l1_loss(own, target, beta=0.5)

    def rest_loss(self, hidden: Tensor, wrist_codes: Tensor) -> Tensor:
        """Before each id of a cell, what is left of its latent: hidden float[N, ids, H], wrist_codes [N, ids].

        In units of what is usually left there, groups weighted by the spread of their latents.
        """
        c = self.codes
        groups = wrist_codes.shape[1] // (c.positions * c.quantizers)
        ids = wrist_codes.view(-1, groups, c.positions, c.quantizers)
        rows = torch.stack([c.codebooks[0, g][ids[:, g]] for g in range(groups)], 1)
        left = left_before(rows) / c.residual[0, :groups, None, :, None]
        said = torch.einsum("ngtqh,gqdh->ngtqd", hidden.unflatten(1, ids.shape[1:]).float(), self.rest[:groups])
        spread = (c.variance[0, :groups] / c.variance[0].max()).sqrt()
        loss = F.smooth_l1_loss(said, left, beta=0.5, reduction="none").mean((0, 2, 3, 4))
        return (loss * spread).sum() / spread.sum()

    def code_loss(self, logits: Tensor, codes: Tensor, slots: Tensor) -> Tensor:
        """Squared error of the expected code vector, in units of the largest latent variance of a group of the part.

        logits float[N, parts*K] over motion ids; codes int64[N] motion ids; slots int64[N] index inside the block.
        """
        c = self.codes
        parts, groups, rows, _ = c.codebooks.shape
        part, group = c.part_and_group(slots)
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
                total = total + weight * error.sum() / (c.variance[p].max() * book.shape[1])
        return total / len(slots)


def code_features(codes: CodeSpace, part: int) -> Tensor:
    """What the rows of a part mean, float[K, features]: the codes of all groups at the scales of a coarse, a middle
    and a fine level, each fading out for codes far larger than the scale, and their squared lengths.

    Codes of the levels differ tenfold in length: at one scale alone the fine ones would be nearly alike. With the
    lengths, the nearest row to a latent is linear in the latent.
    """
    out = []
    for level in (0, 1, 3):
        x = codes.codebooks[part] / codes.residual[part, :, min(level, codes.quantizers - 1), None, None]
        length = x.square().mean(-1, keepdim=True)
        out += [*(x * torch.exp(-length / 8)), *(2 * torch.tanh(length / 2) * x.shape[-1] ** 0.5)]
    return torch.cat(out, -1)


def level_weights(codes: CodeSpace, block_ids: int, decay: float = 0.6, finger: float = 0.3,
                  least: float = 0.3) -> Tensor:
    """float[block_ids + 1]: decay^q per residual level, groups by the spread of their latents, fingers damped; the
    last entry (index -1) is for markers."""
    at = torch.arange(block_ids)
    part, group = codes.part_and_group(at)
    spread = (codes.variance / codes.variance.max(1, keepdim=True).values).sqrt().cpu()
    w = decay ** (at % codes.quantizers).float() * spread[part, group].clamp_min(least)
    w[codes.ids_per_part :] *= finger
    return torch.cat([w, torch.ones(1)])


def weighted_cross_entropy(logits: Tensor, odds: Tensor, weights: Tensor) -> Tensor:
    """Mean over the weights; logits and odds float[N, vocabulary]."""
    return (F.cross_entropy(logits, odds, reduction="none") * weights).sum() / weights.sum()


def position_range(xyz: npt.NDArray[np.floating]) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Bounds of the position bins: the data's range with 2 cm of margin."""
    low, high = xyz.min(0) - 0.02, xyz.max(0) + 0.02
    return (float(low[0]), float(low[1]), float(low[2])), (float(high[0]), float(high[1]), float(high[2]))
