"""Progress lines, cosine schedules and atomic checkpoints shared by the training loops."""

from __future__ import annotations

import logging
import math
import os
import time
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


def cosine(progress: float, *, warmup: float = 0.02, floor: float = 0.02) -> float:
    """Learning-rate factor at `progress` in [0, 1]: linear warm-up, then a cosine down to `floor`."""
    if progress < warmup:
        return progress / warmup
    x = min(1.0, (progress - warmup) / (1 - warmup))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * x))


def save_atomic(value: Any, path: Path) -> None:
    """torch.save to a temporary name, then rename: an interrupted save leaves the old file whole."""
    import torch  # here, so that progress can be shown where torch is not installed

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(path.suffix + ".tmp")
    torch.save(value, temporary)
    os.replace(temporary, path)


class Progress:
    """Logs step/total, rate and time left at most once per `every_s` seconds."""

    def __init__(self, name: str, total: int, done: int = 0, every_s: float = 10.0) -> None:
        self.name, self.total, self.start_done, self.every_s = name, total, done, every_s
        self.started = self.last = time.monotonic()

    def __call__(self, done: int, **figures: float) -> None:
        now = time.monotonic()
        if now - self.last < self.every_s and done < self.total:
            return
        self.last = now
        rate = (done - self.start_done) / max(now - self.started, 1e-9)
        left = (self.total - done) / max(rate, 1e-9)
        text = "  ".join(f"{k} {v:.4g}" for k, v in figures.items())
        log.info("%s %d/%d  %.1f/s  %s left  %s", self.name, done, self.total, rate,
                 time.strftime("%H:%M:%S", time.gmtime(left)), text)
