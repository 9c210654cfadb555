"""Muon: momentum whose update is orthogonalised by a Newton-Schulz iteration (Jordan et al. 2024), for matrices.

Used because it moved the nano model off the language prior where AdamW did not. Matrices of equal shape are iterated
together; the iteration runs in bfloat16 where that is fast, which it tolerates by design.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from beingh0_edge.train.half import half_is_fast

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # quintic tuned for a steep slope at zero, Jordan et al.


@torch.no_grad()
def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """float[N, rows, cols] -> same shape, singular values pushed to about one."""
    a, b, c = _COEFFICIENTS
    x = g.to(torch.bfloat16 if half_is_fast(g.device.type) else torch.float32)
    transposed = x.shape[-2] > x.shape[-1]
    if transposed:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if transposed else x).to(g.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised; decoupled weight decay. Every parameter must be a matrix."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.02, momentum: float = 0.95,
                 weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.ndim != 2:
                    raise ValueError(f"Muon: expected matrices, got shape {tuple(p.shape)}")
                state = self.state[p]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(p)
                buffer = state["momentum_buffer"]
                buffer.lerp_(p.grad, 1 - group["momentum"])
                by_shape[tuple(p.shape)].append((p, p.grad.lerp(buffer, group["momentum"])))
            for shape, pairs in by_shape.items():
                scale = max(1.0, shape[0] / shape[1]) ** 0.5
                updates = orthogonalise(torch.stack([update for _, update in pairs]))
                for (p, _), update in zip(pairs, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update, alpha=-group["lr"] * scale)
