"""What the number formats of the vision tower cost: time, error, and where nano's hand ends.

    python benchmarks/vision_formats.py --json docs/results/vision_formats.json --docs docs/convert.md

Two towers: that of a bundle (by default the packaged nano; its weights as stored are the float32 original), and one of
the published size with random weights, of which only the times mean something. Each format runs as in a bundle, one
thread, all in turn again and again; the time is what the thread computed, so other work on the core counts less.

Errors are of the visual embeddings against float32, on held-out drawn pictures and on pictures that no calibration saw.
The end effect: the bundle's language model answers the same scenes greedily, seeing through one tower after the other.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from timing import cpu_name, one_thread, race

one_thread()

import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from onnx import numpy_helper  # noqa: E402

from beingh0_edge import Bundle, Policy  # noqa: E402
from beingh0_edge.backbone import Sampling  # noqa: E402
from beingh0_edge.bundle import PreprocessSpec, VisionSpec, sha256_of  # noqa: E402
from beingh0_edge.cli.convert import Meter  # noqa: E402
from beingh0_edge.cli.samples import calibration_frames, samples_for  # noqa: E402
from beingh0_edge.files import write_json  # noqa: E402
from beingh0_edge.preprocess import IMAGE_MEAN, IMAGE_STD, OFFICIAL_CAMERA, OFFICIAL_RAW_CAMERA  # noqa: E402
from beingh0_edge.quantize.config import ModelConfig, read_config  # noqa: E402
from beingh0_edge.quantize.int8_vision import quantize  # noqa: E402
from beingh0_edge.quantize.measure import Errors, Sample  # noqa: E402
from beingh0_edge.quantize.tensor_names import PROJECTOR, VISION, expected_shapes  # noqa: E402
from beingh0_edge.quantize.write_onnx import VISION_PRECISIONS, write_vision  # noqa: E402
from beingh0_edge.tokens import SlotRules  # noqa: E402
from beingh0_edge.train.metrics import resampled_means  # noqa: E402
from beingh0_edge.types import FloatArray  # noqa: E402
from beingh0_edge.vision_onnx import VisionTower  # noqa: E402

MARKS = ("<!-- vision formats: printed by benchmarks/vision_formats.py -->", "<!-- end of vision formats -->")
OFFICIAL_FRAMES = 2  # drawn pictures that the large tower's "int8" is calibrated on
SHOWN = 10  # pictures for the errors of the bundle's tower
Array = npt.NDArray[Any]


def _inverted(x: Array) -> Array:
    return 1 - x


def _dark(x: Array) -> Array:
    return 0.3 * x


def _bright(x: Array) -> Array:
    return np.minimum(1.8 * x, 1)


def _noise(x: Array) -> Array:
    return np.random.default_rng(0).random(x.shape)


OTHERS: dict[str, Callable[[Array], Array]] = {"inverted": _inverted, "dark": _dark, "bright": _bright, "noise": _noise}
"""Pictures (0 to 1) that calibration on drawn ones does not cover."""


@dataclass(frozen=True)
class Figures:
    """One format of one tower. cosines: kind of pictures -> of all embeddings with the float32 tower's.

    apart_mm, change   of the bundle's answers, None where nothing answers: mean distance of the joints from those with
                       the float32 tower; change of their distance to the truth, [mean, low, high] of its 95 % interval
    """

    megabytes: float
    load_s: float
    best_ms: float
    median_ms: float
    mean_error: float
    cosines: dict[str, float]
    same_ids: float | None = None
    apart_mm: float | None = None
    change: list[float] | None = None


# ------------------------------------------------------------------------------------------ towers


def bundle_towers(bundle: Bundle, folder: Path) -> dict[str, Path]:
    """The bundle's tower in every format. Raises ValueError if it is stored in 8 bits."""
    m = bundle.manifest
    if m.vision.precision not in ("fp32", "fp16"):
        raise ValueError(f"{bundle.root}: its vision tower is {m.vision.precision}; expected fp32 or fp16")
    exact = folder / "fp32.onnx"
    onnx.save_model(_unpacked(onnx.load(str(bundle.path(m.vision.file)))), str(exact))
    files = {"fp32": exact, "fp16": bundle.path(m.vision.file), "int8": folder / "int8.onnx",
             "int8_dynamic": folder / "int8_dynamic.onnx"}
    quantize(exact, files["int8"], calibration_frames(m.preprocess, m.vision.image_size))
    quantize(exact, files["int8_dynamic"])
    return files


def _unpacked(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with float32 weights, without the casts that half-precision ones need."""
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    casts = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Cast"}
    kept = [node for node in graph.node if node.op_type != "Cast"]
    for node in kept:
        node.input[:] = [casts.get(name, name) for name in node.input]
    del graph.node[:]
    graph.node.extend(kept)
    onnx.checker.check_model(model)
    return model


class RandomTower:
    """As much of a checkpoint as write_vision reads: InternViT-300M at 448 pixels, projector to 896, random weights."""

    def __init__(self, folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({"model_type": "beingvla", "enable_robot_alignment": False, "vlm_config": {
            "vision_config": {
                "image_size": 448, "patch_size": 14, "hidden_size": 1024, "intermediate_size": 4096,
                "num_hidden_layers": 24, "num_attention_heads": 16, "layer_norm_eps": 1e-6, "qkv_bias": True,
                "qk_normalization": False, "norm_type": "layer_norm", "hidden_act": "gelu"},
            "llm_config": {
                "model_type": "qwen2", "vocab_size": 1000, "hidden_size": 896, "intermediate_size": 4864,
                "num_hidden_layers": 1, "num_attention_heads": 14, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
                "rope_theta": 1e6, "max_position_embeddings": 32768, "tie_word_embeddings": False,
                "hidden_act": "silu"},
            "downsample_ratio": 0.5, "ps_version": "v2", "template": "being_h0", "select_layer": -1,
            "force_image_size": 448}}))
        self.config: ModelConfig = read_config(path)
        shapes = expected_shapes(self.config, False)
        self._shapes = {name: shape for name, shape in shapes.items() if name.startswith((VISION, PROJECTOR))}

    def tensor(self, name: str) -> FloatArray:
        shape = self._shapes[name]
        random = np.random.default_rng(sum(name.encode()))
        if name.endswith(("norm1.weight", "norm2.weight", "mlp1.0.weight", "ls1", "ls2")):
            return np.ones(shape, np.float32)
        scale = 1 / np.sqrt(np.prod(shape[1:])) if name.endswith(".weight") else 0.02
        return random.normal(0, scale, shape).astype(np.float32)


# ------------------------------------------------------------------------------------------ figures


def compared(files: dict[str, Path], spec: VisionSpec, hidden: int, pictures: list[FloatArray], seconds: float,
             others: dict[str, Callable[[Array], Array]]) -> tuple[dict[str, Figures], dict[str, VisionTower]]:
    towers, loads = {}, {}
    for name, path in files.items():
        started = time.thread_time()
        towers[name] = VisionTower(path, spec, hidden, threads=1)
        loads[name] = time.thread_time() - started
    mean, std = IMAGE_MEAN[:, None, None], IMAGE_STD[:, None, None]
    kinds = {"drawn": pictures} | {name: [((change(x * std + mean) - mean) / std).astype(np.float32) for x in pictures]
                                   for name, change in others.items()}
    exact = {kind: [towers["fp32"].embed(x) for x in shown] for kind, shown in kinds.items()}
    errors = {name: {kind: Errors.of([(a, tower.embed(x)) for a, x in zip(exact[kind], shown, strict=True)])
                     for kind, shown in kinds.items()} for name, tower in towers.items()}
    calls: dict[str, Callable[[], object]] = {name: partial(tower.embed, pictures[0]) for name, tower in towers.items()}
    timings = race(calls, seconds)
    spread = float(np.std(np.concatenate(exact["drawn"])))
    return {name: Figures(files[name].stat().st_size / 1e6, loads[name], timings[name].best / 1e3,
                          timings[name].median / 1e3, errors[name]["drawn"].mean_abs / spread,
                          {kind: float(e.cosine or 0) for kind, e in errors[name].items()})
            for name in files}, towers


def answered(bundle: Bundle, towers: dict[str, VisionTower], samples: list[Sample],
             meter: Meter) -> dict[str, tuple[float, float, list[float]]]:
    """Format -> (ids equal, mm apart, change) of the greedy answers against those with the float32 tower."""
    policy = Policy.load(bundle, threads=1)
    layout, backbone = bundle.manifest.layout(), policy.backbone
    ids: dict[str, list[Array]] = {name: [] for name in towers}
    joints: dict[str, list[Array]] = {name: [] for name in towers}
    for i, sample in enumerate(samples):
        for name, tower in towers.items():
            embedded = backbone.embed(sample.input_ids, tower.embed(sample.pixels))
            steps = list(backbone.generate(embedded, SlotRules(backbone.vocabulary, 1), Sampling()))
            ids[name].append(layout.blocks(np.array(steps), 1)[0])
            joints[name].append(policy.decode_block(ids[name][-1], sample.side).keypoints_cam_m)
        meter(i + 1, len(samples), "answering scenes")
    policy.close()
    truth = np.stack([np.asarray(sample.true_joints_cam_m) for sample in samples])
    off = {name: _off_mm(np.stack(of), truth) for name, of in joints.items()}
    out = {}
    for name in towers:
        drawn = resampled_means(np.stack([off["fp32"], off[name]], 1))
        low, high = np.percentile(drawn[:, 1] / drawn[:, 0] - 1, [2.5, 97.5])
        out[name] = (float(np.mean(np.stack(ids[name]) == np.stack(ids["fp32"]))),
                     float(_off_mm(np.stack(joints[name]), np.stack(joints["fp32"])).mean()),
                     [float(off[name].mean() / off["fp32"].mean() - 1), float(low), float(high)])
    return out


def _off_mm(a_m: Array, b_m: Array) -> Array:
    return np.asarray(np.linalg.norm(a_m.astype(np.float64) - b_m, axis=-1).mean((1, 2)) * 1000)


def of_bundle(name: str, scenes: int, seconds: float, folder: Path, meter: Meter) -> dict[str, Any]:
    bundle = Bundle.open(name)
    m = bundle.manifest
    samples, what = samples_for(bundle, scenes)
    if any(sample.true_joints_cam_m is None for sample in samples):
        raise ValueError(f"{bundle.root}: not a model of the drawn world")
    figures, towers = compared(bundle_towers(bundle, folder), m.vision, m.language.hidden,
                               [sample.pixels for sample in samples[:SHOWN]], seconds, OTHERS)
    ends = answered(bundle, towers, samples, meter)
    return {"what": f"{m.name}, {m.vision.image_size} pixels", "scenes": scenes, "scenes_are": what,
            "sha256": sha256_of(bundle.path(m.vision.file)),
            "formats": {key: asdict(f) | dict(zip(("same_ids", "apart_mm", "change"), ends[key], strict=True))
                        for key, f in figures.items()}}


def of_official_size(seconds: float, folder: Path, meter: Meter) -> dict[str, Any]:
    source: Any = RandomTower(folder)
    frames = calibration_frames(PreprocessSpec(OFFICIAL_CAMERA, OFFICIAL_RAW_CAMERA), 448)[:OFFICIAL_FRAMES]
    files = {}
    for precision in VISION_PRECISIONS:
        files[precision] = folder / f"official_{precision}.onnx"
        spec = write_vision(source, files[precision], precision, meter, frames)
    figures, _ = compared(files, spec, source.config.language.hidden, frames[:1], seconds, {})
    return {"what": "published size (300M, 448 pixels), random weights",
            "formats": {key: asdict(f) for key, f in figures.items()}}


# ------------------------------------------------------------------------------------------ the page


def markdown(facts: dict[str, Any]) -> str:
    lines = [f"{facts['machine']}, one thread. *speed*: of the medians, against fp32. *error*: mean, as a share of the "
             "embeddings' spread. *cosine*: on held-out drawn pictures; *other*: the worst of inverted, dark and "
             "bright ones and noise.", ""]
    for tower in facts["towers"]:
        ends = "change" in next(iter(tower["formats"].values())) and "scenes" in tower
        head = ["format", "MB", "load, s", "best ms", "median ms", "speed", "error", "cosine", "other"]
        rows = [head + (["ids equal, %", "mm apart", "mm to the truth, change in %"] if ends else [])]
        exact = tower["formats"]["fp32"]["median_ms"]
        for name, f in tower["formats"].items():
            others = [cosine for kind, cosine in f["cosines"].items() if kind != "drawn"]
            row = [name, f"{f['megabytes']:.1f}", f"{f['load_s']:.2f}", f"{f['best_ms']:.1f}", f"{f['median_ms']:.1f}",
                   f"{exact / f['median_ms']:.2f}", f"{f['mean_error']:.1e}", f"{f['cosines']['drawn']:.6f}",
                   f"{min(others):.6f}" if others else ""]
            if ends:
                mean, low, high = (100 * x for x in f["change"])
                row += [f"{f['same_ids']:.1%}"[:-1], f"{f['apart_mm']:.1f}",
                        f"{mean:+.1f}" + (f" ({low:+.1f} to {high:+.1f})" if low != high else "")]
            rows.append(row)
        what = tower["what"] + (f"; {tower['scenes']} scenes" if ends else "")
        lines += [f"{what}:", "", "| " + " | ".join(rows[0]) + " |",
                  "|---" + "|---:" * (len(rows[0]) - 1) + "|", *("| " + " | ".join(row) + " |" for row in rows[1:]), ""]
    return "\n".join(lines[:-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="nano")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=5, help="of computing per format, for the bundle's tower")
    parser.add_argument("--official-seconds", type=float, default=15, help="for the large tower; 0 leaves it out")
    parser.add_argument("--json", type=Path, default=Path("vision_formats.json"))
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args()
    if given.docs and any(given.docs.read_text().count(mark) != 1 for mark in MARKS):
        parser.error(f"{given.docs}: expected the marks {MARKS[0]} and {MARKS[1]} once each")
    meter = Meter()
    towers: list[dict[str, Any]] = []
    facts = {"machine": f"{cpu_name()}, ONNX Runtime {onnxruntime.__version__}", "towers": towers}
    with TemporaryDirectory() as scratch:
        towers.append(of_bundle(given.bundle, given.scenes, given.seconds, Path(scratch), meter))
        write_json(given.json, facts)  # the large tower takes minutes more
        if given.official_seconds:
            towers.append(of_official_size(given.official_seconds, Path(scratch), meter))
            write_json(given.json, facts)
    meter.close()
    text = markdown(facts)
    print(text)
    if given.docs:
        page = given.docs.read_text()
        given.docs.write_text(f"{page.split(MARKS[0])[0]}{MARKS[0]}\n{text}\n{MARKS[1]}{page.split(MARKS[1])[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
