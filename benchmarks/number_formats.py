"""What every number format costs: bundles of one checkpoint on many drawn scenes, against its float32 bundle.

    python benchmarks/number_formats.py CHECKPOINT --json docs/results/nano_formats.json --docs docs/convert.md

For models of the drawn world (`beingh0 train nano` writes such checkpoints into RUN/checkpoint). Every bundle answers
the same held-out scenes greedily; its joints are compared with the true motion, scene by scene with what the float32
bundle did. The JSON is written after every type and continued from there; --docs replaces the table between the two
marks in that file.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import platform
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from beingh0_edge import Bundle, Policy
from beingh0_edge.bundle import sha256_of
from beingh0_edge.cli.convert import Meter
from beingh0_edge.cli.samples import TUNING_SEED, calibration_frames, samples_for
from beingh0_edge.quantize import build_bundle
from beingh0_edge.quantize.checkpoint import Checkpoint
from beingh0_edge.quantize.measure import Sample, slot_errors
from beingh0_edge.quantize.quant_types import SEARCHED, uses_importance
from beingh0_edge.quantize.report import bytes_per_token
from beingh0_edge.quantize.tune import Tuned, tune

ROWS = [("F32", "fp32"), ("F16", "fp16"), ("BF16", "fp16"), ("Q8_0", "fp16"), ("Q6_K", "fp16"), ("Q5_K_M", "fp16"),
        ("Q4_K_M", "fp16"), ("Q4_MIX", "fp16"), ("IQ4_NL", "fp16"), ("Q4_0", "fp16"), ("Q8_0", "fp32"),
        ("Q8_0", "int8")]
MARKS = ("<!-- number formats: printed by benchmarks/number_formats.py -->", "<!-- end of number formats -->")
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Row:
    """One bundle. change_mm: mean over the scenes of (distance to the truth) minus the float32 bundle's, and the half
    width of its 95 % interval; change: the same as a share of the float32 bundle's distance.
    """

    quant: str
    vision: str
    megabytes: float
    megabytes_per_id: float
    agreement: float
    kl: float
    same_ids: float
    apart_mm: float
    true_mm: float
    change_mm: float
    change_mm_95: float
    change: float


@dataclass
class Answers:
    """Of one bundle: ids int32[scenes, ids], joints float32[scenes, frames, 21, 3] in metres."""

    ids: Array
    joints_m: Array

    def off_mm(self, joints_m: Array) -> Array:
        return np.asarray(np.linalg.norm(self.joints_m - joints_m, axis=-1).mean((1, 2)) * 1000)


def answers(policy: Policy, samples: list[Sample], what: str, meter: Meter) -> Answers:
    ids, joints = [], []
    layout = policy.bundle.manifest.layout()
    for i, sample in enumerate(samples):
        row = layout.blocks(policy.backbone.generate_ids(sample.input_ids, sample.pixels, max_blocks=1), 1)[0]
        ids.append(row)
        joints.append(policy.decode_block(row, sample.side).keypoints_cam_m)
        meter(i + 1, len(samples), f"{what} answering")
    return Answers(np.stack(ids), np.stack(joints))


def along(policy: Policy, samples: list[Sample], ids: Array) -> list[Array]:
    """Logits at every slot of the given answers."""
    layout, out = policy.bundle.manifest.layout(), []
    for sample, row in zip(samples, ids, strict=True):
        whole = np.concatenate([sample.input_ids, [layout.mot], layout.motion_id_0 + row]).astype(np.int32)
        first = len(sample.input_ids)
        out.append(policy.backbone.logits(whole, sample.pixels)[first : first + len(layout.slots)])
    return out


def measured(bundle: Bundle, original: Answers, exact: list[Array], samples: list[Sample], truth: Array,
             threads: int, meter: Meter) -> Row:
    m, policy = bundle.manifest, Policy.load(bundle, threads=threads)
    try:
        got = answers(policy, samples, f"{m.language.quant}-{m.vision.precision}", meter)
        scores = along(policy, samples[: len(exact)], original.ids[: len(exact)])
    finally:
        policy.close()
    same, kl = [], []
    for a, b in zip(exact, scores, strict=True):
        one = slot_errors(a, b, m.layout().slots, policy.backbone.vocabulary.motion_0)
        same += one[0]
        kl += one[1]
    before, after = original.off_mm(truth), got.off_mm(truth)
    change = after - before
    return Row(m.language.quant, m.vision.precision, sum(entry.size for entry in m.files) / 1e6,
               bytes_per_token(bundle) / 1e6, float(np.mean(same)), float(np.mean(kl)),
               float((got.ids == original.ids).mean()), float(got.off_mm(original.joints_m).mean()),
               float(after.mean()), float(change.mean()), 1.96 * float(change.std(ddof=1)) / math.sqrt(len(change)),
               float(change.mean() / before.mean()))


def markdown(facts: dict[str, Any]) -> str:
    rows: list[tuple[str, ...]] = [("language", "vision", "MB", "MB per id", "next id", "KL", "ids equal", "mm apart",
                                    "mm to the truth", "change")]
    for r in facts["rows"]:
        share = 100 * r["change_mm_95"] / (r["true_mm"] - r["change_mm"])
        rows.append((r["quant"], r["vision"], f"{r['megabytes']:.1f}", f"{r['megabytes_per_id']:.2f}",
                     f"{r['agreement']:.1%}", f"{r['kl']:.1e}", f"{r['same_ids']:.1%}", f"{r['apart_mm']:.1f}",
                     f"{r['true_mm']:.1f}", f"{r['change']:+.1%} ± {share:.1f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (w + 1) + (":" if i > 1 else "-") for i, w in enumerate(widths)) + "|"
    what = (f"{facts['scenes']} held-out scenes, right-hand picks of one second; *next id* and *KL* on "
            f"{facts['kl_scenes']} of them. Checkpoint: `model.safetensors`, SHA-256 `{facts['checkpoint'][:16]}`...")
    return "\n".join([what, "", lines[0], rule, *lines[1:]])


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("checkpoint", type=Path)
    options.add_argument("--scenes", type=int, default=1000)
    options.add_argument("--kl-scenes", type=int, default=100)
    options.add_argument("--questions", type=int, default=32, help="importance and search are measured on so many")
    options.add_argument("--budget", type=float, default=0.25)
    options.add_argument("--only", help="quant:vision, joined by commas (default: all)")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--json", type=Path, default=Path("formats.json"))
    options.add_argument("--docs", type=Path)
    given = options.parse_args()
    wanted = [tuple(text.split(":")) for text in given.only.split(",")] if given.only else ROWS
    facts: dict[str, Any] = {
        "checkpoint": sha256_of(given.checkpoint / "model.safetensors"), "scenes": given.scenes,
        "kl_scenes": given.kl_scenes, "questions": given.questions, "budget": given.budget,
        "machine": f"{platform.machine()}, {given.threads} thread", "rows": []}
    if given.json.is_file():
        old = json.loads(given.json.read_text())
        if {**old, "rows": [], "search": None} != {**facts, "search": None}:
            print(f"{given.json}: of another checkpoint or other settings; give another --json", file=sys.stderr)
            return 2
        facts = old
    meter = Meter()
    logging.getLogger("gguf").setLevel(logging.WARNING)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        exact = build_bundle(given.checkpoint, folder / "exact", quant="F32", vision="fp32", progress=meter)
        samples, source = samples_for(exact, given.scenes)
        if any(sample.true_joints_cam_m is None for sample in samples):
            print(f"{given.checkpoint}: not a model of the drawn world; {source}", file=sys.stderr)
            return 2
        truth = np.stack([sample.true_joints_cam_m for sample in samples])
        policy = Policy.load(exact, threads=given.threads)
        original = answers(policy, samples, "F32", meter)
        scores = along(policy, samples[: given.kl_scenes], original.ids[: given.kl_scenes])
        policy.close()
        tuned: dict[str, Tuned] = {}

        def tuned_for(quant: str) -> Tuned | None:
            if quant not in SEARCHED and not uses_importance(quant):
                return None
            key = quant if quant in SEARCHED else "importance"
            if key not in tuned:
                questions, what = samples_for(exact, given.questions, TUNING_SEED)
                tuned[key] = tune(Checkpoint(given.checkpoint), exact, questions, what, quant=key if quant in SEARCHED
                                  else "Q8_0", budget=given.budget, threads=given.threads, progress=meter)
            return tuned[key]

        for quant, vision in wanted:
            if any((row["quant"], row["vision"]) == (quant, vision) for row in facts["rows"]):
                continue
            found = tuned_for(quant)
            bundle = build_bundle(
                given.checkpoint, folder / "bundle", quant=quant, vision=vision, overwrite=True, progress=meter,
                importance=found.importance if found else None, overrides=found.overrides if found else None,
                calibration=calibration_frames)
            facts["rows"].append(asdict(measured(bundle, original, scores, samples, truth, given.threads, meter)))
            if found and found.trials:
                facts["search"] = {"overrides": found.overrides, "trials": [asdict(trial) for trial in found.trials]}
            given.json.write_text(json.dumps(facts, indent=1) + "\n")
    meter.close()
    text = markdown(facts)
    print(text)
    if given.docs:
        page = given.docs.read_text()
        if any(page.count(mark) != 1 for mark in MARKS):
            print(f"{given.docs}: expected the marks {MARKS[0]} and {MARKS[1]} once each", file=sys.stderr)
            return 2
        head, tail = page.split(MARKS[0])[0], page.split(MARKS[1])[1]
        given.docs.write_text(f"{head}{MARKS[0]}\n{text}\n{MARKS[1]}{tail}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
