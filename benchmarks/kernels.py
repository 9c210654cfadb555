"""Our kernels and their peers side by side in one run: first checked equal, then timed, beside the machine's bound.

    python -m pip install ".[bench]"
    python benchmarks/kernels.py                # some minutes; prints the tables
    python benchmarks/kernels.py --write        # also docs/kernels.md, its picture and json
    python benchmarks/kernels.py --no-compile   # without torch.compile, which compiles for minutes

Everything runs on one thread and is timed by the time that thread computes (see timing.py). A bound is bytes that must
be read over the bandwidth measured for that many bytes, or multiply-adds over the measured peak, whichever is longer.
Retargeting has its own: benchmarks/retargeting.py.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from timing import Machine, Timing, one_thread, probe, race

one_thread()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from peers import mano_numpy, mano_torch, nano_motions, smplx_mano, tokenizer_onnx, tokenizer_vq  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import beingh0_edge  # noqa: E402
from beingh0_edge import HandModel, MotionTokenizer, _kernels, features, rotations  # noqa: E402
from beingh0_edge.files import write_json  # noqa: E402
from beingh0_edge.train.grq import MotionArgs, MotionVQ  # noqa: E402

ROOT = Path(__file__).parents[1]
ASSETS = Path(beingh0_edge.__file__).parent / "assets"
HAND = ASSETS / "hands" / "synthetic_right.npz"
STORAGES = ("float32", "bfloat16", "int8")
MANO_BATCHES = (1, 15, 64, 1024)
# Bytes a mesh must read, float32: pose blends, template, skin weights as stored; joints are negligible.
MESH_BYTES = {name: 135 * 2334 * size + 2334 * 4 + 50_000 for name, size in
              zip(STORAGES, (4, 2, 1), strict=True)}
MESH_FLOPS = 2 * 135 * 2334 + 778 * (4 * 24 + 21)  # pose blends; at most 4 weights of 12 numbers, then 3x4 times point
TOLERANCE_M, TOLERANCE_RELATIVE = 2e-6, 1e-5


@dataclass
class Row:
    what: str
    who: str
    batch: int
    timing: Timing
    bound_us: float | None = None
    note: str = ""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seconds", type=float, default=0.4, help="computing time of each contender")
    arguments.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    arguments.add_argument("--write", action="store_true", help="docs/kernels.md, docs/images/kernels.png and "
                                                                "docs/results/kernels.json")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    decoder_bytes = {name: official(name, Path(tempfile.mkdtemp()))[2] for name in STORAGES}
    machine = probe(sorted({MESH_BYTES[name] for name in STORAGES} | set(decoder_bytes.values())))
    print(f"{machine.text()}; {_kernels.isa()} path\n")
    rows = [*binding(options.seconds), *mano(machine, options), *tokenizer(machine, options)]
    errors = mesh_errors() | token_errors()
    text = report(machine, rows, errors)
    print(text)
    if options.write:
        (ROOT / "docs" / "kernels.md").write_text(text)
        plot(rows, ROOT / "docs" / "images" / "kernels.png")
        write_json(ROOT / "docs" / "results" / "kernels.json",
                   {"machine": {**asdict(machine), "read_gb_s": {str(k): v for k, v in machine.read_gb_s.items()}},
                    "isa": _kernels.isa(), "rows": [asdict(row) for row in rows], "errors": errors})


def bound_us(machine: Machine, size: int, flops: float, pairs: bool = False) -> float:
    peak = machine.pair_gflops if pairs and machine.pair_gflops else machine.fma_gflops
    return max(size / machine.read_gb_s[size] * 1e-3, flops / peak * 1e-3)


# ---- binding ----

def binding(seconds: float) -> list[Row]:
    """A call that does nothing but cross from Python to C++ and back, checks included."""
    hand = HandModel.load(HAND)
    none, betas = np.zeros((0, 16, 3), np.float32), np.zeros(10, np.float32)
    out = np.zeros((0, 21, 3), np.float32)
    timing = race({"": lambda: hand._kernel.forward(none, betas, None, "axis_angle", False, True, 0, out)}, seconds)
    return [Row("binding: a forward of no hands", "beingh0", 0, timing[""])]


# ---- MANO ----

def mano(machine: Machine, options: argparse.Namespace) -> list[Row]:
    arrays = {name: value for name, value in np.load(HAND).items() if value.dtype.kind in "fiu"}
    peers = [smplx_mano(HAND), mano_numpy(arrays), mano_torch(arrays)]
    hands = {name: HandModel.load(HAND, pose_blends=name) for name in STORAGES}  # type: ignore[arg-type]
    return [row for batch in MANO_BATCHES for row in mano_batch(batch, machine, options, peers, hands)]


def mano_batch(batch: int, machine: Machine, options: argparse.Namespace, peers: list[Any],
               hands: dict[str, HandModel]) -> list[Row]:
    pose = np.random.default_rng(batch).normal(0, 0.4, (batch, 48)).astype(np.float32)
    tensor = torch.from_numpy(pose)
    outs = {name: hand.forward(pose, vertices=True, jacobian=True) for name, hand in hands.items()}
    exact, hand = outs["float32"], hands["float32"]
    smplx, in_numpy, in_torch = peers
    calls: dict[str, Callable[[], Any]] = {"numpy": lambda: in_numpy(pose), "torch": lambda: in_torch(tensor)}
    if smplx is not None:
        calls["smplx"] = lambda: smplx(tensor)
    for name, call in calls.items():  # compare first
        error = np.abs(np.asarray(call()) - mano_frame(exact.vertices, hand)).max()
        assert error < TOLERANCE_M, f"{name}, batch {batch}: {error} m"
    if options.compile:
        compiled = torch.compile(in_torch, dynamic=False)
        calls["torch.compile"] = lambda: compiled(tensor)
    flat, betas, joints = pose.reshape(-1, 16, 3), np.zeros(10, np.float32), exact.joints
    matrices = rotations.axis_angle_to_matrix(flat)
    rot6d = rotations.matrix_to_rot6d(matrices)

    def kernel(rotated: np.ndarray, kind: str, jacobian: np.ndarray | None = None) -> Callable[[], None]:
        return lambda: hand._kernel.forward(rotated, betas, None, kind, False, True, 0, joints, None, jacobian)

    calls |= {
        "beingh0 joints": lambda: hand.forward(pose, out=exact),
        "beingh0 joints, kernel": kernel(flat, "axis_angle"),
        "beingh0 joints, kernel, 6D": kernel(rot6d, "rot6d_interleaved"),
        "beingh0 joints, kernel, matrices": kernel(matrices, "matrix"),
        "beingh0 joints, kernel, and Jacobian": kernel(flat, "axis_angle", exact.jacobian)}
    for name in STORAGES:
        calls[f"beingh0 mesh, {name}"] = partial(hands[name].forward, pose, vertices=True, out=outs[name])
    rows = []
    for name, timing in race(calls, options.seconds).items():
        storage = name.split(", ")[-1]
        limit = bound_us(machine, MESH_BYTES[storage], MESH_FLOPS * batch, storage != "float32") \
            if name.startswith("beingh0 mesh") else None
        rows.append(Row("MANO", name, batch, timing, limit))
    return rows


def mano_frame(vertices: np.ndarray | None, hand: HandModel) -> np.ndarray:
    """Our mesh as the peers place it: not wrist-centred."""
    assert vertices is not None
    wrist = hand.forward(np.zeros(48), center=False).joints[0]
    return vertices + wrist


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


def decoder_flops(models: list[MotionVQ]) -> float:
    """Multiply-adds that do not meet the zero padding, an upsampled frame counted once, times two."""
    total = 0.0
    for model in models:
        frames = model.args.positions
        for module in model.decoder.modules():
            if isinstance(module, torch.nn.Upsample):
                frames *= 2
            if isinstance(module, torch.nn.Conv1d):
                reach = [module.dilation[0] * tap - int(module.padding[0]) for tap in range(module.kernel_size[0])]
                taken = sum(max(0, frames - abs(offset)) for offset in reach)
                total += 2 * taken * module.in_channels * module.out_channels
    return total


def tokenizer(machine: Machine, options: argparse.Namespace) -> list[Row]:
    folder = Path(tempfile.mkdtemp())
    ours = {name: official(name, folder / name) for name in STORAGES}
    onnx = tokenizer_onnx(ours["float32"][1])
    return [row for batch in (1, 16) for row in tokenizer_batch(batch, machine, options, ours, onnx)]


def tokenizer_batch(batch: int, machine: Machine, options: argparse.Namespace,
                    ours: dict[str, tuple[MotionTokenizer, list[MotionVQ], int]], onnx: Callable[..., Any],
                    ) -> list[Row]:
    exact_tokenizer, models, _ = ours["float32"]
    rng = np.random.default_rng(batch)
    ids = np.concatenate([rng.integers(512 * i, 512 * (i + 1), (batch, 64)) for i in (0, 1)], 1).astype(np.int32)
    parts = [torch.from_numpy(ids[:, :64].astype(np.int64)), torch.from_numpy(ids[:, 64:].astype(np.int64) - 512)]
    exact = exact_tokenizer.decode(ids)
    calls: dict[str, Callable[[], Any]] = {
        "torch": lambda: np.concatenate([m.decode(i) for m, i in zip(models, parts, strict=True)], -1),
        "ONNX Runtime": lambda: onnx(parts)}
    for name, call in calls.items():  # compare first
        error = np.abs(call() - exact).max() / np.abs(exact).max()
        assert error < TOLERANCE_RELATIVE, f"{name}: {error}"
    if options.compile:
        compiled = [torch.compile(model.decode, dynamic=False) for model in models]
        calls["torch.compile"] = lambda: [m(i) for m, i in zip(compiled, parts, strict=True)]
    calls |= {f"beingh0 {name}": partial(ours[name][0].decode, ids) for name in STORAGES}
    rows = []
    for name, timing in race(calls, options.seconds).items():
        storage = name.split()[-1]
        limit = bound_us(machine, ours[storage][2], decoder_flops(models) * batch, storage != "float32") \
            if storage in STORAGES else None
        rows.append(Row("GRQ decode", name, batch, timing, limit))

    motion = [torch.from_numpy(exact[..., :9].copy()), torch.from_numpy(exact[..., 9:].copy())]
    calls = {"torch": lambda: [m.encode(x) for m, x in zip(models, motion, strict=True)],
             "beingh0 float32": partial(exact_tokenizer.encode, *(m.numpy() for m in motion))}
    theirs = np.concatenate([ids.numpy() + 512 * i for i, ids in enumerate(calls["torch"]())], 1)
    same = float((theirs == calls["beingh0 float32"]()).mean())
    rows += [Row("GRQ encode", name, batch, timing, note=f"{same:.2%} of ids equal")
             for name, timing in race(calls, options.seconds).items()]

    peer = tokenizer_vq(models[1])
    if peer is not None:
        latent = exact_tokenizer.dequantize(ids, "finger")
        assert np.abs(np.asarray(peer(parts[1])) - latent).max() < TOLERANCE_RELATIVE * np.abs(latent).max()
        calls = {"vector-quantize-pytorch": partial(peer, parts[1]),
                 "beingh0": partial(exact_tokenizer.dequantize, ids, "finger")}
        rows += [Row("GRQ dequantise alone, finger", name, batch, timing)
                 for name, timing in race(calls, options.seconds).items()]
    return rows


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

def report(machine: Machine, rows: list[Row], errors: dict[str, float]) -> str:
    lines = [
        "# Kernels: how fast, how exact", "",
        "Written by `python benchmarks/kernels.py --write`; retargeting has its own, `benchmarks/retargeting.py`.", "",
        f"{machine.text()}; {_kernels.isa()} path of {', '.join(_kernels.available_isas())}.", "",
        "One thread. Times are microseconds of computing time of that thread per call, all contenders of a table in "
        "turns; *bound* is what the machine needs to read the weights once, or to multiply, whichever is longer. "
        "Results are compared first (2e-6 m, 1e-5 relative) and timed second. *kernel* is the compiled function, the "
        "other rows the public Python methods.", ""]
    for what in dict.fromkeys(row.what for row in rows):
        here = [row for row in rows if row.what == what]
        lines += [f"## {what}", "", "| batch | who | best | median | p99 | bound | best / bound | |",
                  "|---|---|---|---|---|---|---|---|"]
        for row in here:
            limit = "" if row.bound_us is None else f"{row.bound_us:.1f}"
            ratio = "" if row.bound_us is None else f"{row.timing.best / row.bound_us:.2f}"
            lines.append(f"| {row.batch} | {row.who} | {row.timing.best:.2f} | {row.timing.median:.2f} | "
                         f"{row.timing.p99:.2f} | {limit} | {ratio} | {row.note} |")
        lines.append("")
    lines += ["## Ratios (best against best)", ""]
    lines += [f"- {text}" for text in ratios(rows)]
    lines += ["", "## What smaller numbers cost", ""]
    lines += [f"- {name}: {value:.4g}" for name, value in errors.items()]
    return "\n".join(lines) + "\n\n![Times against bounds](images/kernels.png)\n"


def ratios(rows: list[Row]) -> list[str]:
    def best(who: str, batch: int, what: str = "") -> float | None:
        found = [row.timing.best for row in rows if (row.who, row.batch) == (who, batch) and what in row.what]
        return found[0] if found else None

    pairs = [(f"MANO {name}, batch {batch}", ("smplx", batch, "MANO"), (f"beingh0 {ours}", batch, "MANO"))
             for batch in MANO_BATCHES for name, ours in
             (("joints", "joints, kernel"), ("joints through HandModel", "joints"), ("mesh", "mesh, float32"))]
    for batch in (1, 16):
        what, mine = "GRQ decode", ("beingh0 float32", batch, "GRQ decode")
        pairs += [(f"{what} float32, batch {batch}", (who, batch, what), mine)
                  for who in ("torch", "torch.compile", "ONNX Runtime")]
        pairs += [(f"{what} {name}, batch {batch}", mine, (f"beingh0 {name}", batch, what)) for name in STORAGES[1:]]
        what = "GRQ encode"
        pairs.append((f"{what}, batch {batch}", ("torch", batch, what), ("beingh0 float32", batch, what)))
    lines = []
    for text, theirs, ours in pairs:
        slow, fast = best(*theirs), best(*ours)
        if slow and fast:
            lines.append(f"{text}: {slow / fast:.1f}x faster than {theirs[0]}")
    return lines


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
            axis.text(row.timing.best, i, f" {row.timing.best:.3g}", va="center", fontsize=8)
            if row.bound_us:
                axis.plot([row.bound_us] * 2, [i - 0.4, i + 0.4], color="#c1121f")
        axis.set_xscale("log")
        axis.set_xlabel("us (red: bound of the machine)")
        axis.set_title(title)
        axis.margins(x=0.15)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    main()
