"""`beingh0 eval nano`: the table of train/evaluate_nano.py, with progress, as text and as JSON."""

from __future__ import annotations

import logging
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from ..bundle import MANIFEST, sha256_of
from ..files import check_file_target, write_json
from ..policy import Policy
from ..train import evaluate_nano
from ..train.progress import Progress


def measure_row(row: evaluate_nano.Row, bundle: str, episodes: int) -> evaluate_nano.Result:
    """One row of the table, with progress."""
    progress = Progress(f"{row.verb}, {row.hands}:", episodes)
    return evaluate_nano.measure(Policy.load(bundle), row, episodes, progress)


def run_evaluation(bundle: str, episodes: int, target: Path | None, main_only: bool, workers: int = 1) -> str:
    """Measures the bundle; the table as text. Raises ValueError, BundleError, BackendError.

    `workers`: rows that are measured at the same time, each in a process of its own; the figures are the same.
    """
    for name, number in (("episodes", episodes), ("workers", workers)):
        if number < 1:
            raise ValueError(f"{name}: expected a whole number from 1 on, got {number}")
    if target is not None:
        check_file_target(target)
    policy = Policy.load(bundle)
    started = time.time()
    rows = evaluate_nano.ROWS[: 1 if main_only else None]
    measure = partial(measure_row, bundle=bundle, episodes=episodes)
    if workers == 1:
        results = [measure(row) for row in rows]
    else:
        level = logging.getLogger().getEffectiveLevel()
        with ProcessPoolExecutor(min(workers, len(rows)), mp_context=get_context("spawn"),
                                 initializer=partial(logging.basicConfig, level=level, format="%(message)s")) as pool:
            results = list(pool.map(measure, rows))
    if target is not None:
        root = policy.bundle.root
        write_json(target, {
            "bundle": policy.bundle.manifest.name, "manifest_sha256": sha256_of(root / MANIFEST),
            "episodes": episodes, "seed": evaluate_nano.SEED, "seconds": round(time.time() - started, 1),
            "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
            "main": asdict(results[0]), "rows": [asdict(result) for result in results]})
    return evaluate_nano.markdown(results)
