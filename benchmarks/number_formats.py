"""What every number format costs: bundles of one checkpoint on many drawn scenes, against its float32 bundle.

    python benchmarks/number_formats.py CHECKPOINT --json docs/results/nano_formats.json --docs docs/convert.md

For models of the drawn world (`beingh0 train nano` writes such checkpoints into RUN/checkpoint). Every bundle answers
the same held-out scenes greedily; its joints are compared with the true motion, scene by scene with what the float32
bundle did.

Everything on the way is kept in --work and reused: the bundles, the scenes (drawn once, each picture encoded once per
vision format), and the answers, in pieces of 50 scenes. The same command goes on where it was interrupted; with more
--scenes it only answers the new ones. --only makes the table of some rows, e.g. with many scenes:

    python benchmarks/number_formats.py CHECKPOINT --scenes 4000 --only Q8_0:fp16,Q4_MIX:fp16 --json more.json

--docs replaces the table between the two marks in that file.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beingh0_edge import Bundle, Policy
from beingh0_edge.backbone import Sampling
from beingh0_edge.bundle import sha256_of
from beingh0_edge.cli.convert import Meter
from beingh0_edge.cli.samples import TUNING_SEED, calibration_frames, drawn_samples, samples_for
from beingh0_edge.files import write_json
from beingh0_edge.quantize import build_bundle
from beingh0_edge.quantize.checkpoint import Checkpoint
from beingh0_edge.quantize.importance import load_importance, save_importance
from beingh0_edge.quantize.measure import Sample, slot_errors
from beingh0_edge.quantize.quant_types import SEARCHED, uses_importance
from beingh0_edge.quantize.report import bytes_per_token
from beingh0_edge.quantize.tune import Tuned, tune
from beingh0_edge.tokens import SlotRules
from beingh0_edge.train.metrics import resampled_means
from beingh0_edge.vision_onnx import VisionTower

Key = tuple[str, str]
"""(type of the language model, format of the vision tower)"""
Array = npt.NDArray[Any]
ORIGINAL: Key = ("F32", "fp32")
ROWS: tuple[Key, ...] = (
    ORIGINAL, ("F16", "fp16"), ("BF16", "fp16"), ("Q8_0", "fp16"), ("Q6_K", "fp16"), ("Q5_K_M", "fp16"),
    ("Q4_K_M", "fp16"), ("Q4_MIX", "fp16"), ("IQ4_NL", "fp16"), ("Q4_0", "fp16"), ("Q8_0", "fp32"),
    ("Q8_0", "int8_dynamic"), ("Q8_0", "int8"))
CLAIMS = {("Q8_0", "fp16"): 0.01, ("Q4_MIX", "fp16"): 0.05}
"""Row -> the change of MPJPE that it should stay below."""
MARKS = ("<!-- number formats: printed by benchmarks/number_formats.py -->", "<!-- end of number formats -->")
PIECE = 50  # scenes that are answered, and kept, at a time


@dataclass(frozen=True)
class Share:
    """A mean over the scenes with its 95 % interval by the bootstrap over scenes."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """One bundle.

    agreement  share of ids where the likeliest is the original's, along the original's answer; kl: the divergence there
    same_ids   share of ids that are equal in both greedy answers, place by place
    apart_mm   mean distance of 21 joints between both answers; true_mm: to the true motion
    change     of true_mm against the float32 bundle's on the same scenes, as a share of it
    """

    quant: str
    vision: str
    scenes: int
    megabytes: float
    megabytes_per_id: float
    agreement: Share
    kl: float
    same_ids: Share
    apart_mm: float
    true_mm: float
    change: Share


class Work:
    """The folder of everything that is kept."""

    def __init__(self, folder: Path, checkpoint: Path, settings: dict[str, Any]) -> None:
        """Raises ValueError if the folder belongs to another checkpoint or other settings."""
        self.folder, self.checkpoint, self.settings = folder, checkpoint, settings
        facts = {"checkpoint": sha256_of(checkpoint / "model.safetensors"), **settings}
        listing = folder / "settings.json"
        if listing.is_file() and json.loads(listing.read_text()) != facts:
            raise ValueError(f"{folder}: of another checkpoint or other settings; give another --work")
        for name in ("bundles", "scenes", "visual", "answers"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        write_json(listing, facts)

    def bundle_path(self, key: Key) -> Path:
        return self.folder / "bundles" / "-".join(key)

    def bundle(self, key: Key) -> Bundle:
        return Bundle.open(self.bundle_path(key))

    def scenes_path(self, piece: int) -> Path:
        return self.folder / "scenes" / f"{piece:04}.npz"

    def visual_path(self, vision: str, piece: int) -> Path:
        return self.folder / "visual" / f"{vision}-{piece:04}.npz"

    def answers_path(self, key: Key, piece: int) -> Path:
        return self.folder / "answers" / f"{'-'.join(key)}-{piece:04}.npz"

    def scenes(self, piece: int, vision: str) -> tuple[list[Array], Array, Array]:
        """(prompt ids of each scene, visual embeddings float32[scenes, tokens, hidden], true joints in metres)"""
        kept = read(self.scenes_path(piece))
        prompts = np.split(kept["ids"], np.cumsum(kept["lengths"])[:-1])
        return prompts, read(self.visual_path(vision, piece))["visual"], kept["truth_m"]


def read(path: Path) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as kept:
        return dict(kept)


def keep(path: Path, **values: Array) -> None:
    temporary = path.with_suffix(".partial")
    with temporary.open("wb") as file:
        np.savez(file, **values)  # type: ignore[arg-type]
    temporary.replace(path)


# ------------------------------------------------------------------------------------------ bundles and scenes


def build(work: Work, keys: Sequence[Key], questions: int, budget: float, meter: Meter) -> None:
    """Whatever bundle is not there yet. Types below 8 bits get importance, searched ones their overrides."""
    given: dict[str, Any] = {"calibration": calibration_frames, "progress": meter}
    exact = None
    for key in keys:
        path, (quant, vision) = work.bundle_path(key), key
        if path.is_dir():
            continue
        tuned = None
        if quant in SEARCHED or uses_importance(quant):
            exact = exact or work.bundle(ORIGINAL)
            tuned = _tuned(work, exact, quant, questions, budget, meter)
        build_bundle(work.checkpoint, path, quant=quant, vision=vision,  # type: ignore[arg-type]
                     importance=tuned.importance if tuned else None, overrides=tuned.overrides if tuned else None,
                     provenance=tuned.provenance() if tuned else None, **given)


def _tuned(work: Work, exact: Bundle, quant: str, questions: int, budget: float, meter: Meter) -> Tuned:
    kept = work.folder / "imatrix.gguf"
    if quant not in SEARCHED and kept.is_file():
        return Tuned(load_importance(kept))
    samples, what = samples_for(exact, questions, TUNING_SEED)
    tuned = tune(Checkpoint(work.checkpoint), exact, samples, what, quant=quant if quant in SEARCHED else "Q8_0",
                 budget=budget, threads=1, progress=meter)
    save_importance(tuned.importance, kept)
    return tuned


def draw(work: Work, visions: Sequence[Key], pieces: int, meter: Meter) -> None:
    """Scenes, and their visual embeddings in each vision format; visions: one row of each format."""
    towers: list[tuple[str, VisionTower]] = []
    for key in visions:
        bundle = work.bundle(key)
        m = bundle.manifest
        towers.append((key[1], VisionTower(bundle.path(m.vision.file), m.vision, m.language.hidden, threads=1)))
    wanted = {piece: [pair for pair in towers if not work.visual_path(pair[0], piece).is_file()]
              for piece in range(pieces)}
    wanted = {piece: lacking for piece, lacking in wanted.items() if lacking or not work.scenes_path(piece).is_file()}
    exact, at = work.bundle(ORIGINAL), -1
    scenes: Iterator[Sample] = iter(())
    for done, (piece, lacking) in enumerate(wanted.items()):
        if at != piece:
            scenes = drawn_samples(exact, first=piece * PIECE)
        at = piece + 1
        samples: list[Sample] = []
        for sample in islice(scenes, PIECE):
            samples.append(sample)
            meter(done * PIECE + len(samples), len(wanted) * PIECE, "drawing scenes")
        for name, tower in lacking:
            keep(work.visual_path(name, piece), visual=np.stack([tower.embed(sample.pixels) for sample in samples]))
        truth = [sample.true_joints_cam_m for sample in samples]
        if any(joints is None for joints in truth):
            raise ValueError(f"{work.checkpoint}: not a model of the drawn world, its camera is another")
        keep(work.scenes_path(piece), ids=np.concatenate([sample.input_ids for sample in samples]),
             lengths=np.array([len(sample.input_ids) for sample in samples]), truth_m=np.stack(truth))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------ answers


@cache
def _policy(path: Path) -> Policy:
    """One at a time: a process answers row after row."""
    return Policy.load(path, threads=1)


def answer(work: Work, key: Key, piece: int) -> None:
    """One bundle's answers to one piece of the scenes, and how they compare; the original's must be there."""
    if _policy.cache_info().currsize > 1:
        _policy.cache_clear()
    policy, done = _policy(work.bundle_path(key)), work.answers_path(key, piece)
    m = policy.bundle.manifest
    layout, backbone = m.layout(), policy.backbone
    prompts, visual, truth_m = work.scenes(piece, key[1])
    judged = np.clip(work.settings["kl_scenes"] - piece * PIECE, 0, len(prompts))  # scenes with teacher forcing
    original = None if key == ORIGINAL else read(work.answers_path(ORIGINAL, piece))
    ids, joints, scores = [], [], []
    for i, prompt in enumerate(prompts):
        embedded = backbone.embed(prompt, visual[i])
        steps = list(backbone.generate(embedded, SlotRules(backbone.vocabulary, 1), Sampling()))
        ids.append(layout.blocks(np.array(steps), 1)[0])
        joints.append(policy.decode_block(ids[-1], "right").keypoints_cam_m)
        if i < judged:
            along = ids[-1] if original is None else original["ids"][i]
            whole = np.concatenate([prompt, [layout.mot], layout.motion_id_0 + along]).astype(np.int32)
            logits = backbone.engine.logits(backbone.embed(whole, visual[i]))
            scores.append(logits[len(prompt) : len(prompt) + len(layout.slots)])
    got = {"ids": np.stack(ids), "true_mm": _off_mm(np.stack(joints), truth_m)}
    if original is None:
        keep(done, **got, joints_m=np.stack(joints), scores=np.array(scores, np.float32))
        return
    compared = [slot_errors(exact, mine, layout.slots, backbone.vocabulary.motion_0)
                for exact, mine in zip(original["scores"], scores, strict=True)]
    keep(done, **got, apart_mm=_off_mm(np.stack(joints), original["joints_m"]),
         agreement=np.array([np.mean(same) for same, _ in compared]), kl=np.array([np.mean(kl) for _, kl in compared]))


def _off_mm(joints_m: Array, others_m: Array) -> Array:
    """Per scene, float[scenes, frames, 21, 3] each -> float64[scenes]."""
    return np.asarray(np.linalg.norm(joints_m.astype(np.float64) - others_m, axis=-1).mean((1, 2)) * 1000)


def answer_all(work: Work, keys: Sequence[Key], pieces: int, workers: int, meter: Meter) -> None:
    """The original first, as the others are compared with it."""
    tasks = [(key, piece) for key in keys for piece in range(pieces) if not work.answers_path(key, piece).is_file()]
    done = 0
    for first in (True, False):
        for key, _ in _run(partial(answer, work), [task for task in tasks if (task[0] == ORIGINAL) == first], workers):
            done += 1
            meter(done * PIECE, len(tasks) * PIECE, f"answering scenes, {'-'.join(key)}")


def _run(call: Callable[[Key, int], None], tasks: Sequence[tuple[Key, int]],
         workers: int) -> Iterator[tuple[Key, int]]:
    if workers == 1:
        for task in tasks:
            call(*task)
            yield task
        return
    with ProcessPoolExecutor(workers, get_context("spawn"), signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        futures = {pool.submit(call, *task): task for task in tasks}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


# ------------------------------------------------------------------------------------------ the table


def measured(work: Work, key: Key, scenes: int) -> Row:
    """The figures of one row on the first `scenes` scenes."""
    bundle, pieces = work.bundle(key), -(-scenes // PIECE)
    size = sum(entry.size for entry in bundle.manifest.files) / 1e6, bytes_per_token(bundle) / 1e6

    def column(name: str, of: Key = key) -> Array:
        return np.concatenate([read(work.answers_path(of, piece))[name] for piece in range(pieces)])[:scenes]

    before, after = column("true_mm", ORIGINAL), column("true_mm")
    if key == ORIGINAL:
        one = Share(1.0, 1.0, 1.0)
        return Row(*key, scenes, *size, one, 0.0, one, 0.0, float(before.mean()), Share(0.0, 0.0, 0.0))
    equal = (column("ids") == column("ids", ORIGINAL)).mean(1)
    drawn = resampled_means(np.stack([before, after], 1))
    agreement = column("agreement")
    return Row(*key, scenes, *size, share(agreement), float(column("kl").mean()), share(equal),
               float(column("apart_mm").mean()), float(after.mean()),
               _share(after.mean() / before.mean() - 1, drawn[:, 1] / drawn[:, 0] - 1))


def share(values: Array) -> Share:
    return _share(values.mean(), resampled_means(values[:, None])[:, 0])


def _share(mean: float, drawn: Array) -> Share:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Share(float(mean), float(low), float(high))


def verdict(change: Share, limit: float) -> str:
    """What the interval says of `change` being smaller than `limit` in size."""
    if -limit < change.low and change.high < limit:
        return "holds"
    return "does not hold" if change.low >= limit or change.high <= -limit else "not settled by these scenes"


def markdown(facts: dict[str, Any]) -> str:
    found = [Row(**{**row, **{name: Share(**row[name]) for name in ("agreement", "same_ids", "change")}})
             for row in facts["rows"]]
    rows: list[tuple[str, ...]] = [("language", "vision", "MB", "MB per id", "next id, %", "KL", "ids equal, %",
                                    "mm apart", "mm to the truth", "change, %")]
    rows += [(r.quant, r.vision, f"{r.megabytes:.1f}", f"{r.megabytes_per_id:.2f}", _interval(r.agreement),
              f"{r.kl:.1e}", _interval(r.same_ids), f"{r.apart_mm:.1f}", f"{r.true_mm:.1f}",
              _interval(r.change, "+")) for r in found]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (w + 1) + (":" if i > 1 else "-") for i, w in enumerate(widths)) + "|"
    what = (f"{facts['scenes']} held-out scenes, right-hand picks of one second; *next id* and *KL* on "
            f"{min(facts['scenes'], facts['kl_scenes'])} of them. {facts['machine']}. Checkpoint: `model.safetensors`, "
            f"SHA-256 `{facts['checkpoint'][:16]}`...")
    claims = [f"- {r.quant} changes the distance to the truth by less than {CLAIMS[r.quant, r.vision]:.0%}: "
              f"{verdict(r.change, CLAIMS[r.quant, r.vision])} ({_interval(r.change, '+')} %)."
              for r in found if (r.quant, r.vision) in CLAIMS]
    return "\n".join([what, "", lines[0], rule, *lines[1:], *([""] if claims else []), *claims])


def _interval(s: Share, sign: str = "") -> str:
    if s.low == s.high:
        return f"{100 * s.mean:{sign}.1f}"
    return f"{100 * s.mean:{sign}.1f} ({100 * s.low:{sign}.1f} to {100 * s.high:{sign}.1f})"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--kl-scenes", type=int, default=100)
    parser.add_argument("--questions", type=int, default=32, help="importance and search are measured on so many")
    parser.add_argument("--budget", type=float, default=0.25)
    parser.add_argument("--only", help="QUANT:VISION, joined by commas (default: all)")
    parser.add_argument("--workers", type=int, default=1, help="processes that answer, one thread each")
    parser.add_argument("--work", type=Path, help="what is kept on the way (default: formats.work beside --json)")
    parser.add_argument("--json", type=Path, default=Path("formats.json"))
    parser.add_argument("--docs", type=Path)
    parser.add_argument("--clean", action="store_true", help="remove --work at the end")
    given = parser.parse_args()
    for name in ("scenes", "kl_scenes", "questions", "workers"):
        if getattr(given, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: expected a whole number from 1 on, got {getattr(given, name)}")
    known = {":".join(key): key for key in ROWS}
    wanted = given.only.split(",") if given.only else list(known)
    if strange := [text for text in wanted if text not in known]:
        parser.error(f"--only: unknown {', '.join(strange)}; known: {', '.join(known)}")
    given.rows = [key for text, key in known.items() if text in wanted or key == ORIGINAL]
    if given.docs and any(given.docs.read_text().count(mark) != 1 for mark in MARKS):
        parser.error(f"{given.docs}: expected the marks {MARKS[0]} and {MARKS[1]} once each")
    return given


def main() -> int:
    given = options()
    logging.getLogger("gguf").setLevel(logging.WARNING)
    settings = {"kl_scenes": given.kl_scenes, "questions": given.questions, "budget": given.budget}
    meter, keys, pieces = Meter(), given.rows, -(-given.scenes // PIECE)
    try:
        work = Work(given.work or given.json.parent / "formats.work", given.checkpoint, settings)
        build(work, keys, given.questions, given.budget, meter)
        draw(work, list({key[1]: key for key in keys}.values()), pieces, meter)
        answer_all(work, keys, pieces, given.workers, meter)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130
    meter.close()
    facts: dict[str, Any] = json.loads((work.folder / "settings.json").read_text()) | {
        "scenes": given.scenes, "machine": f"{platform.machine()}, one thread per answer",
        "rows": [asdict(measured(work, key, given.scenes)) for key in keys]}
    for key in keys:
        if key[0] in SEARCHED:
            provenance = work.bundle(key).manifest.provenance
            facts["search"] = {"overrides": provenance.get("overrides", {}), "trials": provenance.get("search", [])}
    write_json(given.json, facts)
    text = markdown(facts)
    print(text)
    if given.docs:
        page = given.docs.read_text()
        head, tail = page.split(MARKS[0])[0], page.split(MARKS[1])[1]
        given.docs.write_text(f"{head}{MARKS[0]}\n{text}\n{MARKS[1]}{tail}")
    if given.clean:
        shutil.rmtree(work.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
