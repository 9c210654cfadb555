"""The motion tokenizer in torch: encoder, grouped residual quantizer, decoder - official tensor names.

Training side only; at run time `beingh0_edge.MotionTokenizer` decodes with the C++ kernels. Facts: an encoder and a
decoder of 1-D convolutions around a quantizer that splits the latent channels into groups, each quantised by several
residual layers. Codebooks learn by exponential moving average (van den Oord et al. 2017), rows nobody uses are
replaced by latents of the current batch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class MotionArgs:
    """The keys of `motion_args.json` that describe a model."""

    motion_feat: str = "mano162"
    use_part: str = "wrist"
    fps: int = 15
    window_size: int = 15
    down_t: int = 2
    stride_t: int = 2
    width: int = 128
    depth: int = 2
    dilation_growth_rate: int = 3
    code_dim: int = 64
    output_emb_width: int = 64
    activate: str = "relu"
    norm: str | None = None
    num_conv_layers: int = 1
    quantizer_name: str = "group_residualvq"
    nb_code: int = 512
    num_quantizers: int = 8
    num_quant_groups: int = 2
    shared_codebook: bool = True

    @property
    def padding(self) -> int:
        """Zero frames appended before encoding; a whole unit when the window is a multiple of the unit (upstream)."""
        unit = 2**self.down_t
        return unit - self.window_size % unit

    @property
    def positions(self) -> int:
        return (self.window_size + self.padding) // 2**self.down_t

    @property
    def ids_per_block(self) -> int:
        return self.num_quant_groups * self.positions * self.num_quantizers

    def to_official(self) -> dict[str, Any]:
        return asdict(self) | {"unit_length": 2**self.down_t, "seq_len": self.window_size,
                               "motion_unit_length": self.ids_per_block, "recons_loss": "l1_smooth",
                               "commit_weight": 0.02, "vel_weight": 0.5, "nb_joints": 21}


class _ResBlock(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.relu(self.conv1(F.relu(x))))
        return out


class _ResNet(nn.Module):
    def __init__(self, a: MotionArgs) -> None:
        super().__init__()
        # Dilations descend in both directions, as upstream.
        dilations = [a.dilation_growth_rate**d for d in reversed(range(a.depth))]
        self.model = nn.Sequential(*(_ResBlock(a.width, d) for d in dilations))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


def _encoder(a: MotionArgs, dims: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv1d(dims, a.width, 3, padding=1), nn.ReLU()]
    for _ in range(a.down_t):
        layers.append(nn.Sequential(nn.Conv1d(a.width, a.width, 4, stride=2, padding=1), _ResNet(a)))
    return nn.Sequential(*layers, nn.Conv1d(a.width, a.code_dim, 3, padding=1))


def _decoder(a: MotionArgs, dims: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv1d(a.code_dim, a.width, 3, padding=1), nn.ReLU()]
    for _ in range(a.down_t):
        layers.append(nn.Sequential(_ResNet(a), nn.Upsample(scale_factor=2, mode="nearest"),
                                    nn.Conv1d(a.width, a.width, 3, padding=1)))
    return nn.Sequential(*layers, nn.Conv1d(a.width, a.width, 3, padding=1), nn.ReLU(),
                         nn.Conv1d(a.width, dims, 3, padding=1))


class _Group(nn.Module):
    """Residual quantizer of one channel group with one codebook shared by its layers."""

    def __init__(self, a: MotionArgs) -> None:
        super().__init__()
        dim = a.code_dim // a.num_quant_groups
        self.quantizers, self.rows = a.num_quantizers, a.nb_code
        self.register_buffer("embed", torch.randn(a.nb_code, dim) * 0.1)
        self.register_buffer("cluster_size", torch.ones(a.nb_code))
        self.register_buffer("embed_sum", self.embed.clone())
        self.embed: Tensor
        self.cluster_size: Tensor
        self.embed_sum: Tensor

    def forward(self, x: Tensor, levels: int) -> tuple[Tensor, Tensor, Tensor]:
        """x float[N, dim] -> (sum of rows [N, dim], commitment loss, ids int64[N, levels])."""
        residual, total, ids, commit = x, torch.zeros_like(x), [], x.new_zeros(())
        inputs = []
        for _ in range(levels):
            detached = residual.detach()
            index = (self.embed.square().sum(1) - 2 * detached @ self.embed.t()).argmin(1)
            row = self.embed[index]
            commit = commit + F.mse_loss(residual, row)
            inputs.append((detached, index))
            total, residual = total + row, residual - row
            ids.append(index)
        if self.training:
            self._update(inputs)
        return total, commit / levels, torch.stack(ids, 1)

    @torch.no_grad()
    def _update(self, inputs: list[tuple[Tensor, Tensor]], decay: float = 0.95) -> None:
        x, index = torch.cat([i[0] for i in inputs]), torch.cat([i[1] for i in inputs])
        count = torch.zeros_like(self.cluster_size).index_add_(0, index, torch.ones_like(x[:, 0]))
        total = torch.zeros_like(self.embed).index_add_(0, index, x)
        self.cluster_size.lerp_(count, 1 - decay)
        self.embed_sum.lerp_(total, 1 - decay)
        self.embed.copy_(self.embed_sum / self.cluster_size.clamp_min(1e-3)[:, None])
        dead = self.cluster_size < 0.5
        n = int(dead.sum())
        if n:
            picks = x[torch.randint(len(x), (n,), device=x.device)]
            self.embed[dead] = picks
            self.embed_sum[dead], self.cluster_size[dead] = picks, 1.0


class MotionVQ(nn.Module):
    """One part's tokenizer. Features are normalised inside; statistics are buffers."""

    def __init__(self, args: MotionArgs, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        if not args.shared_codebook or args.norm is not None or args.num_conv_layers != 1:
            raise ValueError("training supports shared codebooks, no norm and one conv layer, got "
                             f"shared_codebook={args.shared_codebook}, norm={args.norm!r}, "
                             f"num_conv_layers={args.num_conv_layers}")
        self.args = args
        dims = len(mean)
        self.encoder, self.decoder = _encoder(args, dims), _decoder(args, dims)
        self.groups = nn.ModuleList(_Group(args) for _ in range(args.num_quant_groups))
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())
        self.mean: Tensor
        self.std: Tensor

    def codebooks(self) -> Tensor:
        """float[G, K, D]"""
        return torch.stack([group.get_buffer("embed") for group in self.groups])

    @torch.no_grad()
    def silence(self) -> None:
        """Makes the least used row of each group zero, so that an id can say nothing."""
        for group in self.groups:
            embed, used = group.get_buffer("embed"), group.get_buffer("cluster_size")
            embed[int(used.argmin())] = 0

    def silent_rows(self) -> list[int]:
        """The zero row of each group; ValueError if there is none."""
        norms = self.codebooks().norm(dim=-1)
        if not bool((norms.min(1).values == 0).all()):
            raise ValueError("motion tokenizer: expected a row of zeros in every codebook, found none")
        return [int(row) for row in norms.argmin(1)]

    def latent(self, features: Tensor) -> Tensor:
        """float[N, window, D] -> float[N, positions, code_dim], before quantisation."""
        x = (features - self.mean) / (self.std + 1e-6)
        x = F.pad(x, (0, 0, 0, self.args.padding))
        out: Tensor = self.encoder(x.transpose(1, 2)).transpose(1, 2)
        return out

    def decode_latent(self, z: Tensor) -> Tensor:
        """float[N, positions, code_dim] -> normalised features float[N, window, D]."""
        x: Tensor = self.decoder(z.transpose(1, 2)).transpose(1, 2)
        return x[:, : self.args.window_size]

    def quantise(self, z: Tensor, levels: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """-> (quantised latent, commitment loss, ids int64[N, G, positions, levels])."""
        levels = levels or self.args.num_quantizers
        n, t, _ = z.shape
        parts, losses, ids = [], [], []
        for group, channels in zip(self.groups, z.chunk(self.args.num_quant_groups, -1), strict=True):
            q, loss, index = group(channels.reshape(n * t, -1), levels)
            parts.append(q.view(n, t, -1))
            losses.append(loss)
            ids.append(index.view(n, t, levels))
        return torch.cat(parts, -1), torch.stack(losses).mean(), torch.stack(ids, 1)

    def forward(self, features: Tensor, levels: int | None = None, *, groups: int | None = None,
                half: bool = False) -> tuple[Tensor, Tensor]:
        """Straight-through reconstruction (normalised) and commitment loss.

        `levels`, `groups`: reconstruct from so many of the first ones; `half`: convolutions in bfloat16.
        """
        def cast() -> torch.autocast:
            return torch.autocast(features.device.type, dtype=torch.bfloat16, enabled=half)

        with cast():
            z = self.latent(features)
        z = z.float()
        q, commit, _ = self.quantise(z, levels)
        given = z + (q - z).detach()
        if groups is not None:
            kept = groups * z.shape[-1] // self.args.num_quant_groups
            given = F.pad(given[..., :kept], (0, z.shape[-1] - kept))
        with cast():
            out = self.decode_latent(given)
        return out.float(), commit

    @torch.no_grad()
    def encode(self, features: Tensor) -> Tensor:
        """float[N, window, D] -> int64[N, ids] of this part, group slowest, quantizer fastest, without part offset."""
        return self.quantise(self.latent(features))[2].flatten(1)

    @torch.no_grad()
    def decode(self, ids: Tensor, levels: int | None = None) -> Tensor:
        """int64[N, ids] -> features float[N, window, D]."""
        a = self.args
        ids = ids.view(-1, a.num_quant_groups, a.positions, a.num_quantizers)[..., :levels]
        z = torch.cat([book[ids[:, g]].sum(2) for g, book in enumerate(self.codebooks())], -1)
        return self.decode_latent(z) * self.std + self.mean

    def official_state_dict(self) -> dict[str, Tensor]:
        """Tensors with the names of a published tokenizer folder."""
        out = {f"model.encoder.model.{k}": v for k, v in self.encoder.state_dict().items()}
        out |= {f"model.decoder.model.{k}": v for k, v in self.decoder.state_dict().items()}
        for g, group in enumerate(self.groups):
            for q in range(self.args.num_quantizers):
                p = f"model.quantizer.rvqs.{g}.layers.{q}._codebook."
                for name, buffer in (("embed", "embed"), ("embed_avg", "embed_sum"), ("cluster_size", "cluster_size")):
                    out[p + name] = group.get_buffer(buffer)[None]
                out[p + "initted"] = torch.ones(1)
        return {k: v.detach().clone().contiguous() for k, v in out.items()}
