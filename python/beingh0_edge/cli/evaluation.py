"""`beingh0 eval nano`: the table of train/evaluate_nano.py, with progress, as text and as JSON."""

from __future__ import annotations

import platform
import time
from dataclasses import asdict
from pathlib import Path

from ..bundle import MANIFEST, sha256_of
from ..files import check_file_target, write_json
from ..policy import Policy
from ..train import evaluate_nano
from ..train.progress import Progress


def run_evaluation(bundle: str, episodes: int, target: Path | None, main_only: bool) -> str:
    """Measures the bundle; the table as text. Raises ValueError, BundleError, BackendError."""
    if episodes < 1:
        raise ValueError(f"episodes: expected a whole number from 1 on, got {episodes}")
    if target is not None:
        check_file_target(target)
    policy = Policy.load(bundle)
    started = time.time()
    results = []
    for row in evaluate_nano.ROWS[: 1 if main_only else None]:
        progress = Progress(f"{row.verb}, {row.hands}:", episodes)
        results.append(evaluate_nano.measure(policy, row, episodes, progress))
    if target is not None:
        root = policy.bundle.root
        write_json(target, {
            "bundle": policy.bundle.manifest.name, "manifest_sha256": sha256_of(root / MANIFEST),
            "episodes": episodes, "seed": evaluate_nano.SEED, "seconds": round(time.time() - started, 1),
            "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
            "main": asdict(results[0]), "rows": [asdict(result) for result in results]})
    return evaluate_nano.markdown(results)
