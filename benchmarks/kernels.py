"""Our kernels and their peers side by side in one run: first checked equal, then timed, beside the machine's bound.

    python -m pip install ".[bench]"
    python benchmarks/kernels.py                # some minutes; prints the tables
    python benchmarks/kernels.py --write        # also docs/kernels.md, its picture and json
    python benchmarks/kernels.py --write kernels_avx2   # the same under another name, for another kind of processor
    python benchmarks/kernels.py --no-compile   # without torch.compile, which compiles for minutes

Everything runs on one thread and is timed by the time that thread computes (see timing.py). A bound is how long this
machine reads as many bytes again and again, from whichever cache or memory they then come, or multiplies as often,
whichever takes longer; it takes turns with what it bounds. Ratios are medians of the ratios within one round of turns.
Retargeting has its own: benchmarks/retargeting.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from timing import Probe, Timing, cpu_name, one_thread, race

one_thread()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from peers import mano_plain, manotorch_mano, nano_motions, smplx_mano, tokenizer_onnx, tokenizer_vq  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import beingh0_edge  # noqa: E402
from beingh0_edge import HandModel, MotionTokenizer, _kernels, features, rotations  # noqa: E402
from beingh0_edge.files import write_json  # noqa: E402
from beingh0_edge.hand_model import TIP_VERTICES, HandPoints  # noqa: E402
from beingh0_edge.train.grq import MotionArgs, MotionVQ  # noqa: E402

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
import numpy_reference  # noqa: E402

ASSETS = Path(beingh0_edge.__file__).parent / "assets"
HAND = ASSETS / "hands" / "synthetic_right.npz"
STORAGES = ("float32", "bfloat16", "int8")
MANO_BATCHES = (1, 15, 64, 1024)
# Bytes a mesh must read, float32: pose blends, template, skin weights as stored; joints are negligible.
MESH_BYTES = {name: 135 * 2334 * size + 2334 * 4 + 50_000 for name, size in
              zip(STORAGES, (4, 2, 1), strict=True)}
MESH_FLOPS = 2 * 135 * 2334 + 778 * (4 * 24 + 21)  # pose blends; at most 4 weights of 12 numbers, then 3x4 times point
# Keypoints: the tips' pose blends; 16 rotations, as many products of 3x4 matrices down the chain, the tips' skinning.
JOINT_BYTES = 135 * 15 * 4
JOINT_FLOPS = 2 * 135 * 15 + 16 * (45 + 63 + 18) + 5 * (4 * 24 + 21)
# Their instruction: beside bfloat16 weights there is one on some processors that have AVX-512, else it is float32's.
BF16 = "pairs" if _kernels.isa() == "avx512bf16" else "fma"
MESH_PRODUCT = {"float32": "fma", "bfloat16": BF16, "int8": "pairs"}
TOLERANCE_M, TOLERANCE_RELATIVE = 2e-6, 1e-5
# Of smaller numbers: a few times the largest error that is measured, to find what is wrong and not what is rounded.
MESH_TOLERANCE_M = {"float32": TOLERANCE_M, "bfloat16": 1e-4, "int8": 3e-4}
DECODE_TOLERANCE = {"float32": TOLERANCE_RELATIVE, "bfloat16": 2e-3, "int8": 2e-3}


@dataclass
class Row:
    what: str
    who: str
    batch: int
    timing: Timing
    bounds: tuple[Timing, Timing] | None = None  # of reading, of multiplying
    note: str = ""

    @property
    def bound(self) -> Timing | None:
        return self.bounds and max(self.bounds, key=lambda bound: bound.median)

    def plain(self) -> dict[str, Any]:
        found: dict[str, Any] = {"what": self.what, "who": self.who, "batch": self.batch, "best_us": self.timing.best,
                                 "median_us": self.timing.median, "p99_us": self.timing.p99, "note": self.note}
        if self.bounds is not None and self.bound is not None:
            found |= {"read_us": self.bounds[0].median, "multiply_us": self.bounds[1].median,
                      "over_bound": self.timing.over(self.bound),
                      "best_over_best": self.timing.best / self.bound.best}
        return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=0.4, help="computing time of each contender")
    arguments.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    arguments.add_argument("--write", nargs="?", const="kernels", metavar="NAME",
                           help="docs/NAME.md, docs/images/NAME.png and docs/results/NAME.json; kernels if not given")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    probe = Probe()
    rows, machine = binding(options.seconds), dict[str, str]()
    for make in (mano, tokenizer):
        found, text = make(probe, options)
        rows += found
        machine[found[0].what] = text
    errors = mesh_errors() | token_errors()
    goals = targets(rows, errors)
    name = options.write or "kernels"
    text = report(machine, rows, errors, goals) + f"\n\n![Times against bounds](images/{name}.png)\n"
    print(text)
    if options.write:
        (ROOT / "docs" / f"{name}.md").write_text(text)
        plot(rows, ROOT / "docs" / "images" / f"{name}.png")
        write_json(ROOT / "docs" / "results" / f"{name}.json",
                   {"cpu": cpu_name(), "machine": machine, "isa": _kernels.isa(), "rows": [row.plain() for row in rows],
                    "targets": [asdict(goal) for goal in goals], "errors": errors})


# ---- binding ----

def binding(seconds: float) -> list[Row]:
    """A call that does nothing but cross from Python to C++ and back, checks included."""
    hand = HandModel.load(HAND)
    none, betas = np.zeros((0, 16, 3), np.float32), np.zeros(10, np.float32)
    out = np.zeros((0, 21, 3), np.float32)
    timing = race({"": lambda: hand._kernel.forward(none, betas, None, "axis_angle", False, True, 0, out)},
                  max(seconds, 1.0))  # longer than what the host does for others at a time
    return [Row("binding: a forward of no hands", "beingh0", 0, timing[""])]


# ---- MANO ----

def mano(probe: Probe, options: argparse.Namespace) -> tuple[list[Row], str]:
    arrays = {name: value for name, value in np.load(HAND).items() if value.dtype.kind in "fiu"}
    peers = {"numpy": mano_plain(arrays, np), "torch": mano_plain(arrays, torch),
             "smplx": smplx_mano(HAND), "manotorch": manotorch_mano(arrays)}
    if options.compile:
        peers["torch.compile"] = torch.compile(peers["torch"], dynamic=False)
    hands = {name: HandModel.load(HAND, pose_blends=name) for name in STORAGES}  # type: ignore[arg-type]
    found = [mano_batch(batch, probe, options, {name: peer for name, peer in peers.items() if peer}, hands, arrays)
             for batch in MANO_BATCHES]
    return [row for rows, _ in found for row in rows], found[0][1]


def mano_batch(batch: int, probe: Probe, options: argparse.Namespace, peers: dict[str, Callable[[Any], Any]],
               hands: dict[str, HandModel], arrays: dict[str, np.ndarray]) -> tuple[list[Row], str]:
    rng = np.random.default_rng(batch)
    pose = rng.normal(0, 0.4, (batch, 48)).astype(np.float32)
    tensor, flat, betas = torch.from_numpy(pose), pose.reshape(-1, 16, 3), np.zeros(10, np.float32)
    matrices = rotations.axis_angle_to_matrix(flat)
    calls: dict[str, Callable[[], Any]] = {
        name: partial(peer, pose if name == "numpy" else tensor) for name, peer in peers.items()}
    outs: dict[str, HandPoints] = {}

    def method(name: str, storage: str = "float32", **asked: bool) -> None:
        out = outs[name] = hands[storage].forward(pose, **asked)  # type: ignore[arg-type]
        calls[name] = partial(hands[storage].forward, pose, **asked, out=out)  # type: ignore[arg-type]

    def kernel(name: str, rotated: np.ndarray, kind: str, storage: str = "float32", **asked: bool) -> None:
        out = outs[name] = hands[storage].forward(pose, **asked)  # type: ignore[arg-type]
        calls[name] = partial(hands[storage]._kernel.forward, rotated, betas, None, kind, False, True, 0, out.joints,
                              out.vertices, out.jacobian)

    method("beingh0 joints")
    kernel("beingh0 joints, kernel", flat, "axis_angle")
    kernel("beingh0 joints, kernel, 6D", rotations.matrix_to_rot6d(matrices), "rot6d_interleaved")
    kernel("beingh0 joints, kernel, matrices", matrices, "matrix")
    kernel("beingh0 joints, kernel, and Jacobian", flat, "axis_angle", jacobian=True)
    for name in STORAGES:
        method(f"beingh0 mesh, {name}", name, vertices=True)
        kernel(f"beingh0 mesh, {name}, kernel", flat, "axis_angle", name, vertices=True)
    compare(calls, outs, pose, arrays, rng.normal(size=48))
    calls |= probe.contenders([*MESH_BYTES.values(), JOINT_BYTES])
    timings = race(calls, options.seconds, max(3e-4, 1e-5 * batch))  # as long as a call: disturbed alike
    rows = []
    for name, timing in timings.items():
        if name.startswith("beingh0 mesh"):
            storage = name.split(", ")[1]
            limit = probe.bounds(timings, MESH_BYTES[storage], {MESH_PRODUCT[storage]: MESH_FLOPS * batch})
            rows.append(Row("MANO", name, batch, timing, limit))
        elif name.startswith("beingh0 joints, kernel") and "Jacobian" not in name:
            limit = probe.bounds(timings, JOINT_BYTES, {"fma": JOINT_FLOPS * batch})
            rows.append(Row("MANO", name, batch, timing, limit))
        elif not name.startswith(("read", "fma", "pairs", "quads")):
            rows.append(Row("MANO", name, batch, timing))
    return rows, probe.text(timings)


def compare(calls: dict[str, Callable[[], Any]], outs: dict[str, HandPoints], pose: np.ndarray,
            arrays: dict[str, np.ndarray], direction: np.ndarray) -> None:
    """Every contender with the float64 reference of the tests, Jacobians with its finite differences.

    They differentiate along one direction, in which all 48 numbers of a pose take part. The peers do not put the
    wrist at the origin.
    """
    arrays = {name: value.astype(np.float64) for name, value in arrays.items()}
    direction, step = direction / np.linalg.norm(direction), 1e-5

    def reference(angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        turns = numpy_reference.axis_angle_to_matrix(angles.reshape(-1, 16, 3))
        hands = [numpy_reference.hand(arrays, turn, np.zeros(10), TIP_VERTICES["manotorch"]["right"])
                 for turn in turns]
        return np.array([points for points, _ in hands]), np.array([mesh for _, mesh in hands])

    (points, mesh), ahead, behind = (reference(pose + sign * step * direction) for sign in (0, 1, -1))
    slope, wrist = (ahead[0] - behind[0]) / (2 * step), points[:, :1]

    def same(name: str, found: Any, expected: np.ndarray, tolerance: float = TOLERANCE_M) -> None:
        error = np.abs(np.asarray(found) - expected).max()
        assert error < tolerance, f"{name}, batch {len(pose)}: {error} m"

    for name, call in calls.items():
        if (out := outs.get(name)) is None:
            same(name, call(), mesh)
            continue
        for array in (out.joints, out.vertices, out.jacobian):
            if array is not None:
                array.fill(np.nan)
        call()
        same(name, out.joints, points - wrist)
        if out.vertices is not None:
            same(name, out.vertices, mesh - wrist, MESH_TOLERANCE_M[name.split(", ")[1]])
        if out.jacobian is not None:
            same(name, out.jacobian @ direction, slope)


# ---- tokenizer ----

def official(weights: str, folder: Path) -> tuple[MotionTokenizer, list[MotionVQ], int]:
    """Random weights of the published geometry: width 512, 2 groups, 8 quantizers, window 15, mano162 parts."""
    models = []
    for part, dims in (("wrist", 9), ("finger", 150)):
        torch.manual_seed(dims)
        args = MotionArgs(use_part=part, width=512, depth=3, code_dim=512, output_emb_width=512, nb_code=512)
        model = MotionVQ(args, torch.randn(dims), torch.rand(dims) + 0.5).eval()
        for group in model.groups:
            group.get_buffer("embed").normal_(0, 0.3)
        models.append(model)
        (folder / part).mkdir(parents=True)
        (folder / part / "motion_args.json").write_text(json.dumps(args.to_official()))
        (folder / part / "motion_meta.json").write_text(json.dumps(
            {"mean": model.mean.tolist(), "std": model.std.tolist()}))
        save_file(model.official_state_dict(), folder / part / "net_best_mpjpe.safetensors")
    ours = MotionTokenizer.load(folder / "wrist", folder / "finger", weights=weights)  # type: ignore[arg-type]
    return ours, models, sum(kernel.weight_bytes(encoder=False) for kernel in ours._kernels)


def flops(network: torch.nn.Module, frames: int) -> tuple[float, float]:
    """Twice the multiply-adds of residual blocks and of the other layers.

    Those that meet the zero padding do not count, those of a frame that is there twice count once.
    """
    total, copies = {True: 0.0, False: 0.0}, 1
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Upsample):
            copies = 2
        if isinstance(module, torch.nn.Conv1d):
            frames, stride = frames * copies, module.stride[0]
            reach = [module.dilation[0] * tap - int(module.padding[0]) for tap in range(module.kernel_size[0])]
            taken = {(offset, (t + offset) // copies) for offset in reach for t in range(0, frames, stride)
                     if 0 <= t + offset < frames}
            total[".model." in name] += 2 * len(taken) * module.in_channels * module.out_channels
            frames, copies = frames // stride, 1
    return total[True], total[False]


def products(storage: str, residual: float, rest: float) -> dict[str, float]:
    """Flops by the instruction that does them; of int8 the layers at both ends count as the others."""
    if storage == "int8":
        return {"quads": residual, "pairs": rest}
    return {BF16 if storage == "bfloat16" else "fma": residual + rest}


def search_flops(args: MotionArgs) -> float:
    return 2 * args.positions * args.num_quantizers * args.nb_code * args.code_dim


def tokenizer(probe: Probe, options: argparse.Namespace) -> tuple[list[Row], str]:
    with tempfile.TemporaryDirectory() as folder:
        ours = {name: official(name, Path(folder) / name) for name in STORAGES}
        onnx = tokenizer_onnx([Path(folder) / "float32" / part for part in ("wrist", "finger")])
    vq = [tokenizer_vq(model) for model in ours["float32"][1]]
    rows, text = [], ""
    for batch in (1, 16):
        rng = np.random.default_rng(batch)
        ids = np.concatenate([rng.integers(512 * i, 512 * (i + 1), (batch, 64)) for i in (0, 1)], 1).astype(np.int32)
        found, decoding = decode(ids, probe, options, ours, onnx[0])
        rows += found + encode(ids, probe, options, ours, onnx[1], [peer and peer[1] for peer in vq])
        rows += dequantise(ids, probe, options, ours["float32"][0], vq[1] and vq[1][0])
        text = text or decoding
    return rows, text


Ours = dict[str, tuple[MotionTokenizer, list[MotionVQ], int]]


def decode(ids: np.ndarray, probe: Probe, options: argparse.Namespace, ours: Ours,
           onnx: Callable[..., Any]) -> tuple[list[Row], str]:
    exact_tokenizer, models, _ = ours["float32"]
    parts = [torch.from_numpy(part.astype(np.int64)) for part in (ids[:, :64], ids[:, 64:] - 512)]
    exact, batch = exact_tokenizer.decode(ids), len(ids)
    calls: dict[str, Callable[[], Any]] = {
        "torch": lambda: np.concatenate([m.decode(i) for m, i in zip(models, parts, strict=True)], -1),
        "ONNX Runtime": partial(onnx, ids.astype(np.int64))}
    if options.compile:
        compiled = [torch.compile(model.decode, dynamic=False) for model in models]
        calls["torch.compile"] = lambda: np.concatenate([m(i) for m, i in zip(compiled, parts, strict=True)], -1)
    out = np.empty_like(exact)
    calls |= {f"beingh0 {name}": partial(ours[name][0].decode, ids, out=out) for name in STORAGES}
    for name, call in calls.items():  # compare first
        error = np.abs(call() - exact).max() / np.abs(exact).max()
        assert error < DECODE_TOLERANCE.get(name.split()[-1], TOLERANCE_RELATIVE), f"{name}: {error}"
    timings = race(calls | probe.contenders([size for _, _, size in ours.values()]), options.seconds, 2e-3 * batch)
    counts = np.array([flops(m.decoder, m.args.positions) for m in models]).sum(0) * batch
    rows = []
    for name in calls:
        storage = name.split()[-1]
        limit = probe.bounds(timings, ours[storage][2], products(storage, *counts)) if storage in STORAGES else None
        rows.append(Row("GRQ decode", name, batch, timings[name], limit))
    return rows, probe.text(timings)


def encode(ids: np.ndarray, probe: Probe, options: argparse.Namespace, ours: Ours, onnx: Callable[..., Any],
           vq: list[Callable[[torch.Tensor], torch.Tensor] | None]) -> list[Row]:
    """Of what these ids decode to."""
    exact_tokenizer, models, _ = ours["float32"]
    exact, batch = exact_tokenizer.decode(ids), len(ids)
    parts = [torch.from_numpy(part.copy()) for part in (exact[..., :9], exact[..., 9:])]

    def both(encoders: list[Callable[[torch.Tensor], torch.Tensor]]) -> Callable[[], np.ndarray]:
        return lambda: np.concatenate([encode(x).numpy() for encode, x in zip(encoders, parts, strict=True)], 1)

    peers: dict[str, Callable[[], np.ndarray]] = {
        "torch": both([model.encode for model in models]), "ONNX Runtime": partial(onnx, exact)}
    if options.compile:
        peers["torch.compile"] = both([torch.compile(model.encode, dynamic=False) for model in models])
    if with_vq := [encode for encode in vq if encode is not None]:
        peers["torch, vector-quantize-pytorch"] = both(with_vq)
    mine = {f"beingh0 {name}": partial(ours[name][0].encode, *(part.numpy() for part in parts)) for name in STORAGES}
    found = mine["beingh0 float32"]()
    # torch counts each part's ids from 0
    same = {name: float((call() % 512 == found % 512).mean()) for name, call in (peers | mine).items()}
    for name in same:  # two rows as near as rounding differ, and then those of the levels below
        assert same[name] > (0.9 if name in mine else 0.99), f"{name}: {same[name]:.2%} of ids equal"
    sizes = {name: sum(kernel.weight_bytes(encoder=True) + tokenizer.codebook(i).nbytes
                       for i, kernel in enumerate(tokenizer._kernels)) for name, (tokenizer, _, _) in ours.items()}
    timings = race(peers | mine | probe.contenders(list(sizes.values())), options.seconds, 2e-3 * batch)
    counts = np.array([flops(m.encoder, m.args.positions * 4) for m in models]).sum(0) * batch
    search = sum(search_flops(m.args) for m in models) * batch
    rows = []
    for name in peers | mine:
        storage, limit = name.split()[-1], None
        if storage in STORAGES:
            work = products(storage, *counts)
            limit = probe.bounds(timings, sizes[storage], work | {"fma": work.get("fma", 0.0) + search})
        rows.append(Row("GRQ encode", name, batch, timings[name], limit, f"{same[name]:.2%} of ids equal"))
    return rows


def dequantise(ids: np.ndarray, probe: Probe, options: argparse.Namespace, tokenizer: MotionTokenizer,
               peer: Callable[[torch.Tensor], torch.Tensor] | None) -> list[Row]:
    latent, part = tokenizer.dequantize(ids, "finger"), torch.from_numpy(ids[:, 64:].astype(np.int64) - 512)
    calls: dict[str, Callable[[], Any]] = {"beingh0": partial(tokenizer.dequantize, ids, "finger")}
    if peer is not None:
        assert np.abs(np.asarray(peer(part)) - latent).max() < TOLERANCE_RELATIVE * np.abs(latent).max()
        calls = {"vector-quantize-pytorch": partial(peer, part)} | calls
    row = tokenizer.codebook("finger").shape[-1] * 4  # bytes
    size = ids[:, 64:].size * row
    timings = race(calls | probe.contenders([size]), options.seconds)
    limits = {"beingh0": probe.bounds(timings, size, {"fma": size // 4})}
    return [Row("GRQ dequantise alone, finger", name, len(ids), timings[name], limits.get(name)) for name in calls]


# ---- what smaller numbers cost ----

def mesh_errors() -> dict[str, float]:
    """Vertex error of smaller pose blends over 2000 random poses, micrometres."""
    pose = np.random.default_rng(0).normal(0, 0.4, (2000, 48)).astype(np.float32)
    exact = HandModel.load(HAND).forward(pose, vertices=True).vertices
    found = {}
    for name in STORAGES[1:]:
        near = HandModel.load(HAND, pose_blends=name).forward(pose, vertices=True).vertices  # type: ignore[arg-type]
        assert exact is not None
        assert near is not None
        error = np.linalg.norm(near.astype(np.float64) - exact, axis=-1) * 1e6
        found[f"mesh {name} mean um"] = float(error.mean())
        found[f"mesh {name} max um"] = float(error.max())
    return found


def token_errors() -> dict[str, float]:
    """Joint error of smaller weights on motions nano really makes: encoded training motions, decoded both ways."""
    from beingh0_edge.bundle import Bundle

    bundle = Bundle.open("nano")
    exact, motions = MotionTokenizer.load(bundle.root), nano_motions()
    ids = exact.encode(*motions)
    hand = HandModel.load(HAND)

    def joints(tokenizer: MotionTokenizer) -> tuple[np.ndarray, np.ndarray]:
        motion = features.split_features(tokenizer.decode(ids).reshape(-1, tokenizer.dims), tokenizer.parts)
        pose = np.concatenate([rotations.matrix_to_axis_angle(motion.rotation)[:, None],
                               motion.theta_rad.reshape(-1, 15, 3)], 1)
        return hand.forward(pose.reshape(-1, 48)).joints, motion.trans_m

    shape, place = joints(exact)
    found: dict[str, float] = {"motions": float(len(ids))}
    for name in STORAGES[1:]:
        near = MotionTokenizer.load(bundle.root, weights=name)  # type: ignore[arg-type]
        near_shape, near_place = joints(near)
        local = np.linalg.norm(near_shape - shape, axis=-1) * 1e3
        whole = np.linalg.norm(near_shape + near_place[:, None] - shape - place[:, None], axis=-1) * 1e3
        found |= {f"tokens {name} wrist frame mean mm": float(local.mean()),
                  f"tokens {name} camera frame mean mm": float(whole.mean()),
                  f"tokens {name} camera frame p99 mm": float(np.quantile(whole, 0.99)),
                  f"tokens {name} ids equal": float((near.encode(*motions) == ids).mean())}
    return found


# ---- report ----

@dataclass(frozen=True)
class Goal:
    what: str
    wanted: str
    reached: str
    holds: bool


def targets(rows: list[Row], errors: dict[str, float]) -> list[Goal]:
    """What was asked of the kernels and what this run says."""
    at = {(row.what, row.who, row.batch): row for row in rows}
    goals: list[Goal] = []

    def at_least(what: str, wanted: float, reached: float | None, unit: str = "x") -> None:
        if reached is not None:
            goals.append(Goal(what, f">= {wanted:g}{unit}", f"{reached:.3g}{unit}", reached >= wanted))

    def at_most(what: str, wanted: float, reached: float, unit: str = "x") -> None:
        goals.append(Goal(what, f"<= {wanted:g}{unit}", f"{reached:.3g}{unit}", reached <= wanted))

    def faster(what: str, ours: str, theirs: str, batch: int) -> float | None:
        if (what, theirs, batch) not in at:
            return None
        return at[what, theirs, batch].timing.over(at[what, ours, batch].timing)

    def over_bound(what: str, ours: str, batch: int) -> float:
        row = at[what, ours, batch]
        assert row.bound is not None  # the worse of both readings
        return max(row.timing.over(row.bound), row.timing.best / row.bound.best)

    empty = at["binding: a forward of no hands", "beingh0", 0]
    at_most("binding, a forward of no hands", 1, empty.timing.median, " us")
    at_least("MANO joints, kernel, batch 1, against smplx", 300,
             faster("MANO", "beingh0 joints, kernel", "smplx", 1))
    if ratio := faster("MANO", "beingh0 joints, kernel", "smplx", 1):
        at_most("MANO joints, kernel, batch 1, where smplx takes 300 us", 1.5, 300 / ratio, " us")
    at_least("MANO mesh, float32, batch 1, against smplx", 18, faster("MANO", "beingh0 mesh, float32", "smplx", 1))
    at_most("MANO mesh, float32, kernel, batch 1, over its bound", 1.2,
            over_bound("MANO", "beingh0 mesh, float32, kernel", 1))
    at_most("MANO mesh, bfloat16, kernel, batch 1, over its bound", 1.3,
            over_bound("MANO", "beingh0 mesh, bfloat16, kernel", 1))
    at_least("MANO mesh, float32, batch 1024, against smplx", 10,
             faster("MANO", "beingh0 mesh, float32", "smplx", 1024))
    at_least("MANO mesh, float32, kernel, batch 1024, of the peak of multiply-adds", 80,
             100 / over_bound("MANO", "beingh0 mesh, float32, kernel", 1024), " %")
    decode = "GRQ decode"
    at_most("GRQ decode, float32, one hand-second, over its bound", 1.4, over_bound(decode, "beingh0 float32", 1))
    at_least("the same against ONNX Runtime", 2, faster(decode, "beingh0 float32", "ONNX Runtime", 1))
    at_least("the same against torch", 4, faster(decode, "beingh0 float32", "torch", 1))
    at_least("GRQ decode, bfloat16, against float32", 1.7, faster(decode, "beingh0 bfloat16", "beingh0 float32", 1))
    at_least("GRQ decode, int8, against float32", 2.5, faster(decode, "beingh0 int8", "beingh0 float32", 1))
    at_most("int8 tokens, mean error of a joint, wrist's frame", 0.1, errors["tokens int8 wrist frame mean mm"], " mm")
    return goals


WHY = (
    "What stands between these numbers and the bounds:", "",
    "- The bound of reading is the best of one stream, one that asks ahead, and four side by side, which read a third "
    "faster on a processor without AVX-512. Tiles read two to four places of the weights side by side and share in "
    "asking for those that come next, but they multiply as well: a float32 decode of one hand-second multiplies half "
    "as long as it reads, or longer.",
    "- The faster float32 reads, the less smaller weights gain on it: those of bfloat16 take as many multiply-adds as "
    "float32 where there is no instruction for them (AVX2), those of int8 half as many beside 16-bit rows and a third "
    "or a quarter beside the 7-bit rows of residual blocks.",
    "- Streaming 68 MB empties the caches of everything else: the Python around the next call starts cold.",
    "- Of a mesh the poses' rotations, the chain of joints and skinning come on top of the pose blends: about 3 us of "
    "a hand without AVX-512. At batch 1 they wait for each other, and smaller pose blends leave them as they are.",
    "- Keypoints of one hand are a chain of joints that wait for each other, far from what the multipliers could do.",
    "- smplx takes a few rounds only at batch 1024, and its time changes from run to run.",
    "- A turn is taken again if just before or after it the core worked for somebody else as well, which makes up to "
    "two of three turns worthless on a busy host. Calls of milliseconds are disturbed within, and so are the bounds "
    "beside them.",
    "- Weights are in huge pages where the system gives them (transparent_hugepage: madvise or always). In pages of "
    "4 KB an AVX-512 processor read 71 MB at 18 instead of 31 GB/s.")


def most_of_smaller_weights(rows: list[Row]) -> str:
    """What the bounds leave of the two ratios against float32."""
    decode = {row.who: row for row in rows if (row.what, row.batch) == ("GRQ decode", 1)}
    most = {name: decode["beingh0 float32"].timing.over(bound) for name in ("bfloat16", "int8")
            if (bound := decode[f"beingh0 {name}"].bound) is not None}
    return "A decode that took no longer than its bound would be " + " and ".join(
        f"{ratio:.3g} times ({name})" for name, ratio in most.items()) + " as fast as float32 is here."


def report(machine: dict[str, str], rows: list[Row], errors: dict[str, float], goals: list[Goal]) -> str:
    lines = [
        "# Kernels: how fast, how exact", "",
        "Written by `python benchmarks/kernels.py --write`; retargeting has its own, `benchmarks/retargeting.py`.", "",
        f"{cpu_name()}; {_kernels.isa()} path of {', '.join(_kernels.available_isas())}. "
        + " ".join(f"Beside {what}: one core does {text}." for what, text in machine.items())
        + f" Load average while this was measured: {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores.", "",
        "One thread. Times are microseconds of computing time of that thread per call, all contenders of a table in "
        "turns. The bound is how long the machine reads the weights once, or multiplies, whichever is longer, measured "
        "in the same turns. What fits into a cache is read again and again and comes from there: of this machine, a "
        "mesh's pose blends from L2 and what does not fit from L3, a tokenizer's weights from L3 and "
        "memory, in huge pages. Ratios are medians of the ratios within one round; of those over a bound the worse of "
        "that and best over best is held against the target. All results are compared first (hands with the "
        "tests' numpy, 2e-6 m and 2e-6 m per radian; features 1e-5 relative; ids; smaller weights more loosely) and "
        "timed second. *kernel* is the compiled function called from Python, the other rows the public Python methods.",
        "",
        "## Against the targets", "", "| what | wanted | reached | |", "|---|---|---|---|"]
    lines += [f"| {g.what} | {g.wanted} | {g.reached} | {'holds' if g.holds else '**misses**'} |" for g in goals]
    lines += ["", *WHY, f"- {most_of_smaller_weights(rows)}", ""]
    for what in dict.fromkeys(row.what for row in rows):
        here = [row for row in rows if row.what == what]
        lines += [f"## {what}", "", "| batch | who | best | median | p99 | reading | multiplying | over bound "
                  "| best over best | |", "|---|---|---|---|---|---|---|---|---|---|"]
        for row in here:
            limits = " | " if row.bounds is None else " | ".join(f"{bound.median:.1f}" for bound in row.bounds)
            ratio = " | " if row.bound is None else \
                f"{row.timing.over(row.bound):.2f} | {row.timing.best / row.bound.best:.2f}"
            lines.append(f"| {row.batch} | {row.who} | {row.timing.best:.2f} | {row.timing.median:.2f} | "
                         f"{row.timing.p99:.2f} | {limits} | {ratio} | {row.note} |")
        lines.append("")
    lines += ["## Ratios", ""]
    lines += [f"- {text}" for text in ratios(rows)]
    lines += ["", "## What smaller numbers cost", ""]
    lines += [f"- {name}: {value:.4g}" for name, value in errors.items()]
    return "\n".join(lines)


def ratios(rows: list[Row]) -> list[str]:
    at = {(row.who, row.batch, row.what): row.timing for row in rows}
    pairs = [(f"MANO {name}, batch {batch}", (who, batch, "MANO"), (f"beingh0 {ours}", batch, "MANO"))
             for batch in MANO_BATCHES for who in ("smplx", "manotorch", "torch.compile") for name, ours in
             (("joints", "joints, kernel"), ("joints through HandModel", "joints"), ("mesh", "mesh, float32"))]
    for batch in (1, 16):
        what = "GRQ decode"
        mine = ("beingh0 float32", batch, what)
        pairs += [(f"{what} float32, batch {batch}", (who, batch, what), mine)
                  for who in ("torch", "torch.compile", "ONNX Runtime")]
        pairs += [(f"{what} {name}, batch {batch}", mine, (f"beingh0 {name}", batch, what)) for name in STORAGES[1:]]
        what = "GRQ encode"
        mine = ("beingh0 float32", batch, what)
        pairs += [(f"{what} float32, batch {batch}", (who, batch, what), mine)
                  for who in ("torch", "torch.compile", "torch, vector-quantize-pytorch", "ONNX Runtime")]
        pairs += [(f"{what} {name}, batch {batch}", mine, (f"beingh0 {name}", batch, what)) for name in STORAGES[1:]]
    return [f"{text}: {at[theirs].over(at[ours]):.1f}x faster than {theirs[0]}"
            for text, theirs, ours in pairs if theirs in at]


def plot(rows: list[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = [("MANO joints and mesh, one hand", [r for r in rows if r.what == "MANO" and r.batch == 1]),
              ("MANO, 1024 hands", [r for r in rows if r.what == "MANO" and r.batch == 1024]),
              ("GRQ decode, one hand-second", [r for r in rows if r.what == "GRQ decode" and r.batch == 1])]
    figure, axes = plt.subplots(1, len(groups), figsize=(15, 4.5), constrained_layout=True)
    for axis, (title, chosen) in zip(axes, groups, strict=True):
        chosen = sorted(chosen, key=lambda r: -r.timing.best)
        ours = ["#2a6f97" if r.who.startswith("beingh0") else "#b0b0b0" for r in chosen]
        axis.barh([r.who for r in chosen], [r.timing.best for r in chosen], color=ours)
        for i, row in enumerate(chosen):
            axis.text(row.timing.best, i, f" {_short(row.timing.best)}", va="center", fontsize=8)
            if row.bound is not None:
                axis.plot([row.bound.best] * 2, [i - 0.4, i + 0.4], color="#c1121f")
        axis.set_xscale("log")
        axis.set_xlabel("us (red: bound of the machine)")
        axis.set_title(title)
        axis.margins(x=0.25)
    figure.savefig(path, dpi=110)


def _short(us: float) -> str:
    return f"{us:,.0f}" if us >= 100 else f"{us:.3g}"


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    main()
