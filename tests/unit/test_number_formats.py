"""The benchmark of number formats: what it keeps, goes on from, and says."""

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

import benchmark_module
import numpy as np
import pytest

from beingh0_edge import Policy
from beingh0_edge.cli.samples import samples_for
from beingh0_edge.train import procedural

MM = 1e-3  # decoded motion is float32


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return benchmark_module.load("number_formats")


@pytest.fixture
def checkpoint(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The tiny one, with the camera of the drawn world."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    edge = json.loads((folder / "edge.json").read_text())
    (folder / "edge.json").write_text(json.dumps(edge | {"camera": asdict(procedural.CANONICAL_CAMERA)}))
    return folder


def run(benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, checkpoint: Path, *arguments: str) -> dict[str, Any]:
    target = checkpoint.parent / "formats.json"
    monkeypatch.setattr(sys, "argv", ["number_formats.py", str(checkpoint), "--json", str(target), "--kl-scenes", "3",
                                      "--questions", "1", *arguments])
    monkeypatch.setattr(benchmark, "PIECE", 2)
    assert benchmark.main() == 0
    return json.loads(target.read_text())


def test_the_figures_are_those_of_the_bundles_and_more_scenes_cost_only_themselves(
        benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    few = run(benchmark, monkeypatch, checkpoint, "--scenes", "3", "--only", "Q4_0:fp16")
    work = checkpoint.parent / "formats.work"
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*.npz")}
    facts = run(benchmark, monkeypatch, checkpoint, "--scenes", "5", "--only", "Q4_0:fp16")
    assert [row["scenes"] for row in few["rows"] + facts["rows"]] == [3, 3, 5, 5]
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())
    assert len(list(work.rglob("*.npz"))) > len(before)

    exact, small = (Policy.load(work / "bundles" / name, threads=1) for name in ("F32-fp32", "Q4_0-fp16"))
    samples, _ = samples_for(exact.bundle, 5)
    layout = exact.bundle.manifest.layout()
    same, apart, true = [], [], []
    for sample in samples:
        a, b = (layout.blocks(policy.backbone.generate_ids(sample.input_ids, sample.pixels), 1)[0]
                for policy in (exact, small))
        joints = [policy.decode_block(ids, "right").keypoints_cam_m for policy, ids in ((exact, a), (small, b))]
        same.append((a == b).mean())
        apart.append(np.linalg.norm(joints[0] - joints[1], axis=-1).mean() * 1000)
        true.append([np.linalg.norm(j - sample.true_joints_cam_m, axis=-1).mean() * 1000 for j in joints])
    original, row = facts["rows"]
    assert 0 < np.mean(same) < 1
    assert row["same_ids"]["mean"] == pytest.approx(np.mean(same))
    assert row["apart_mm"] == pytest.approx(np.mean(apart), abs=MM)
    assert [original["true_mm"], row["true_mm"]] == pytest.approx(list(np.mean(true, 0)), abs=MM)
    assert row["change"]["mean"] == pytest.approx(row["true_mm"] / original["true_mm"] - 1)
    assert row["change"]["low"] <= row["change"]["mean"] <= row["change"]["high"]

    next((work / "answers").glob("Q4_0*")).unlink()  # as if interrupted before it
    assert run(benchmark, monkeypatch, checkpoint, "--scenes", "5", "--only", "Q4_0:fp16") == facts


def test_a_folder_of_another_checkpoint_is_refused(benchmark: ModuleType, checkpoint: Path) -> None:
    settings = {"kl_scenes": 3, "questions": 1, "budget": 0.25}
    benchmark.Work(checkpoint.parent / "work", checkpoint, settings)
    with pytest.raises(ValueError, match="of another checkpoint or other settings"):
        benchmark.Work(checkpoint.parent / "work", checkpoint, settings | {"kl_scenes": 4})


@pytest.mark.parametrize(("low", "high", "said"), [
    (-0.004, 0.006, "holds"), (-0.02, 0.005, "not settled by these scenes"), (0.011, 0.02, "does not hold"),
    (-0.03, -0.012, "does not hold"), (-0.02, 0.02, "not settled by these scenes")])
def test_a_claim_is_judged_by_its_interval(benchmark: ModuleType, low: float, high: float, said: str) -> None:
    assert benchmark.verdict(benchmark.Share((low + high) / 2, low, high), 0.01) == said
