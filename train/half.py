"""Whether bfloat16 pays: with instructions for it products take a half or a quarter of float32's time, without them
many times as long (AVX2 alone, torch 2.13: 16 to 110 times)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import cache

import torch

log = logging.getLogger(__name__)

_SIDE, _TRIES = 256, 3  # of the square matrices that are multiplied


@cache
def half_is_fast(device: str) -> bool:
    """Whether this machine multiplies in bfloat16 at least as fast as in float32, measured once; GPUs are asked."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    whole = torch.randn(_SIDE, _SIDE, generator=torch.Generator().manual_seed(0))
    half = whole.to(torch.bfloat16)
    ratio = _best_s(lambda: half @ half) / _best_s(lambda: whole @ whole)
    if ratio > 1:
        log.info("training in float32: bfloat16 takes %.1f times as long on this processor", ratio)
    return ratio <= 1


def _best_s(multiply: Callable[[], torch.Tensor]) -> float:
    multiply()
    took = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        multiply()
        took.append(time.perf_counter() - start)
    return min(took)


def half_products(device: str) -> torch.autocast:
    """The context of a training step's forward pass: bfloat16 where that is fast, else float32 throughout."""
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=half_is_fast(device))
