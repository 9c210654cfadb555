"""Our retargeting and dex-retargeting 0.5.0, side by side: same robots, frames, scale, trajectory and machine.

    python -m pip install ".[bench]"
    python benchmarks/retargeting.py                       # some minutes; --frames 150 --repeats 1 for a look
    python benchmarks/retargeting.py --write               # also docs/retargeting_results.md, its pictures and json

Robots are our descriptions; dex-retargeting gets them as URDF, written here. The human is the synthetic hand: 600
frames through its named poses with 0.5 mm of noise. Its wrist frame and the scale come from our calibration for both.
dex-retargeting runs with the parameters of its own configurations, its low-pass filter off.

Without dex-retargeting only our rows are measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import beingh0_edge
from beingh0_edge import HandModel
from beingh0_edge.files import write_json
from beingh0_edge.retarget import HUBER_M, Retargeter
from beingh0_edge.robot_hand import RobotHand

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "retargeting_results.md"
COLUMNS = """\
- **error**: fingertip against scaled human fingertip, both from the wrist.
- **pinch gap error**: robot gap against human gap of thumb and index, over the frames where the human gap is below
  25 mm; behind it the robot gap itself, because DexPilot aims at 0 there.
- **2nd difference**: mean of |q[t+1] - 2 q[t] + q[t-1]|. Most of it is the noise of the input.
- **beyond limits**: joint values outside the limits, and the farthest.
- **us**: computing time of one call per frame from Python; per frame the quickest of the repeats, then 50 % and 99 % of
  the frames. All methods take turns, on one thread.

*ours, vectors* has the objective and the scale of dex-retargeting's vector mode, and 0.6 of its weight of smoothing,
which weighs less there because it is left out of the value that is minimised. On the Shadow hand error and 2nd
difference of both are then alike (with all of the weight ours is smoother and 0.2 mm worse); on LEAP and Allegro ours
errs less and has the larger 2nd difference. *pinch* adds the pinch term and our smoothing, *margin* keeps fingers 2 mm
apart. *ours, fingers* is what `Retargeter.load` does by itself: it follows other targets (each finger from its own
knuckle), so its error in this column says nothing.

A difference that remains: on LEAP our methods stay within `natural_rad` (fingers do not bend backwards), while
dex-retargeting has the whole range.
"""
HANDS = ("inspire_rh56", "ability_hand", "leap", "allegro_v4", "shadow_hand")
PEER_SCALE = {"inspire_rh56": 1.15, "ability_hand": 1.0, "leap": 1.6, "allegro_v4": 1.6, "shadow_hand": 1.2}
TIPS = {"thumb": 4, "index": 8, "middle": 12, "ring": 16, "little": 20}
PEER_SMOOTHNESS = 4e-3  # norm_delta of its vector configurations
SMOOTHNESS_SHARE = 0.6  # of that in ours, see COLUMNS
PINCHED_M = 0.025
SETTLE = 20  # frames of the open hand at the start, not judged
POSES = ("open", "fist", "pinch", "relaxed", "point", "grasp", "pinch", "open", "pre_grasp", "pinch", "fist", "open")


def trajectory(frames: int = 600, noise_m: float = 0.0005, seed: int = 0) -> np.ndarray:
    """float32[SETTLE + frames, 21, 3]: the synthetic right hand through its named poses, wrist frame."""
    path = Path(beingh0_edge.__file__).parent / "assets" / "hands" / "synthetic_right.npz"
    with np.load(path, allow_pickle=False) as file:
        poses = dict(zip([str(n) for n in file["pose_names"]], file["poses_rad"].astype(np.float64), strict=True))
    steps = len(POSES) - 1
    theta = []
    for i, (a, b) in enumerate(pairwise(POSES)):
        count = frames * (i + 1) // steps - frames * i // steps
        share = (np.arange(count) / count)[:, None]
        theta.append(poses[a] + (share**2 * (3 - 2 * share)) * (poses[b] - poses[a]))
    pose = np.concatenate([np.repeat(poses[POSES[0]][None], SETTLE, axis=0), *theta])
    pose = np.concatenate([np.zeros((len(pose), 3)), pose], axis=1).astype(np.float32)
    points = HandModel.load(path, side="right").forward(pose).joints
    noise = np.random.default_rng(seed).normal(0.0, noise_m, points.shape)
    noise[:, [0, 1, 5, 9, 13, 17]] = 0.0  # the wrist is the origin, the palm is rigid
    return (points + noise).astype(np.float32)


def write_urdf(robot: RobotHand, wrist_m: np.ndarray, path: Path) -> dict[str, tuple[str, float, float]]:
    """Our description as URDF with links palm, wrist and <finger>_tip.

    Returns joint -> (URDF joint that leads, multiplier, offset): angle of that = multiplier * q + offset.
    """
    lines = ['<robot name="hand">', '<link name="palm"/>', '<link name="wrist"/>']
    leaders: dict[int, int] = {}
    for i, joint in enumerate(robot.link_joints):
        leaders.setdefault(int(joint), i)

    def row(values: np.ndarray) -> str:
        return " ".join(repr(float(value)) for value in values)

    def joint(name: str, kind: str, parent: str, child: str, origin: np.ndarray, inside: str = "") -> None:
        lines.append(f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
                     f'<origin xyz="{row(origin)}" rpy="0 0 0"/>{inside}</joint>')

    for i, name in enumerate(robot.link_names):
        lines.append(f'<link name="{name}_link"/>')
        driven = int(robot.link_joints[i])
        m, o = robot.multipliers[i], robot.offsets_rad[i]
        low, high = sorted((m * robot.lower_rad[driven] + o, m * robot.upper_rad[driven] + o))
        inside = (f'<axis xyz="{row(robot.axes[i])}"/><limit lower="{float(low)!r}" upper="{float(high)!r}" '
                  'effort="1" velocity="1"/>')
        if leaders[driven] != i:
            lead = leaders[driven]
            ratio = m / robot.multipliers[lead]
            inside += (f'<mimic joint="{robot.link_names[lead]}_hinge" multiplier="{float(ratio)!r}" '
                       f'offset="{float(o - ratio * robot.offsets_rad[lead])!r}"/>')
        parent = "palm" if robot.parents[i] < 0 else f"{robot.link_names[robot.parents[i]]}_link"
        joint(f"{name}_hinge", "revolute", parent, f"{name}_link", robot.origins_m[i], inside)
    joint("wrist_joint", "fixed", "palm", "wrist", wrist_m)
    for finger, points in robot.fingers.items():
        link, at = points[3]
        lines.append(f'<link name="{finger}_tip"/>')
        joint(f"{finger}_tip_joint", "fixed", "palm" if link < 0 else f"{robot.link_names[link]}_link",
              f"{finger}_tip", at)
    path.write_text("\n".join([*lines, "</robot>"]))
    return {robot.joint_names[j]: (f"{robot.link_names[i]}_hinge", float(robot.multipliers[i]),
                                   float(robot.offsets_rad[i])) for j, i in leaders.items()}


Step = Callable[[int], np.ndarray]  # frame number -> q float64[J]; starts again at frame 0


def our_method(retargeter: Retargeter, human: np.ndarray) -> Step:
    frames = [np.ascontiguousarray(frame[None]) for frame in human]

    def step(t: int) -> np.ndarray:
        if t == 0:
            retargeter.reset()
        return retargeter.retarget(frames[t])[0]

    return step


def peer_method(mode: str, retargeter: Retargeter, human: np.ndarray, folder: Path) -> Step:
    """dex-retargeting on the same robot; `human` is turned into the robot's palm frame beforehand."""
    from dex_retargeting.retargeting_config import RetargetingConfig

    robot = retargeter.robot
    leaders = write_urdf(robot, retargeter.wrist_m, folder / "hand.urdf")
    fingers = list(robot.fingers)
    tips = [f"{finger}_tip" for finger in fingers]
    common: dict[str, Any] = {
        "type": mode, "urdf_path": str(folder / "hand.urdf"), "scaling_factor": retargeter.scale, "low_pass_alpha": -1,
        "target_joint_names": [leaders[name][0] for name in robot.joint_names]}
    if mode == "vector":
        human_indices = np.array([[0] * len(tips), [TIPS[finger] for finger in fingers]])
        config = RetargetingConfig(**common, target_origin_link_names=["wrist"] * len(tips),
                                   target_task_link_names=tips, target_link_human_indices=human_indices)
    else:
        config = RetargetingConfig(**common, wrist_link_name="wrist", finger_tip_link_names=tips)
    peer = config.build()
    multiplier = np.array([leaders[name][1] for name in robot.joint_names])
    offset = np.array([leaders[name][2] for name in robot.joint_names])
    columns = [peer.joint_names.index(leaders[name][0]) for name in robot.joint_names]
    start = (multiplier * robot.open_rad + offset).astype(np.float32)
    points = human.astype(np.float64) @ retargeter.palm_from_wrist.T
    origin, task = peer.optimizer.target_link_human_indices
    wanted = (points[:, task] - points[:, origin]).astype(np.float32)
    targets = peer.optimizer.target_joint_names
    order = [list(targets).index(leaders[name][0]) for name in robot.joint_names]

    def step(t: int) -> np.ndarray:
        if t == 0:
            peer.last_qpos = peer.last_qpos.copy()
            peer.last_qpos[order] = start
            if mode == "dexpilot":
                peer.optimizer.projected[:] = False
        return (peer.retarget(wanted[t])[columns] - offset) / multiplier

    return step


@dataclass(frozen=True)
class Row:
    hand: str
    method: str
    scale_from: str  # "auto": our calibration, "peer": the configurations of dex-retargeting
    scale: float
    error_mean_mm: float
    error_p95_mm: float
    gap_error_mm: float
    gap_mm: float
    second_difference_rad: float
    violations: int
    violation_rad: float
    us_p50: float
    us_p99: float
    failures: int


def judge(hand: str, method: str, scale_from: str, retargeter: Retargeter, human: np.ndarray, q: np.ndarray,
          us: np.ndarray, failures: int) -> Row:
    fingers = list(retargeter.robot.fingers)
    reached = retargeter.keypoints(q)[:, [4 + 4 * i for i in range(len(fingers))]]
    points = human.astype(np.float64) @ retargeter.palm_from_wrist.T
    wanted = retargeter.wrist_m + retargeter.scale * points[:, [TIPS[f] for f in fingers]]
    error = 1000 * np.linalg.norm(reached - wanted, axis=2)[SETTLE:]
    human_gap = np.linalg.norm(human[:, 4].astype(np.float64) - human[:, 8], axis=1)
    robot_gap = np.linalg.norm(reached[:, 0] - reached[:, 1], axis=1)
    pinched = human_gap < PINCHED_M
    pinched[:SETTLE] = False
    beyond = np.maximum(retargeter.lower_rad - q, q - retargeter.upper_rad)
    return Row(
        hand, method, scale_from, round(retargeter.scale, 3),
        error_mean_mm=float(error.mean()), error_p95_mm=float(np.percentile(error, 95)),
        gap_error_mm=float(1000 * np.abs(robot_gap - human_gap)[pinched].mean()),
        gap_mm=float(1000 * robot_gap[pinched].mean()),
        second_difference_rad=float(np.abs(np.diff(q[SETTLE:], n=2, axis=0)).mean()),
        violations=int((beyond > 1e-9).sum()), violation_rad=float(max(beyond.max(), 0.0)),
        us_p50=float(np.percentile(us[SETTLE:], 50)), us_p99=float(np.percentile(us[SETTLE:], 99)), failures=failures)


def run(step: Step, frames: int) -> tuple[np.ndarray, np.ndarray, int]:
    """All frames once: q float64[T, J], microseconds float64[T], failures (dex-retargeting raises or prints)."""
    q, us, failures = [], np.empty(frames), 0
    for t in range(frames):
        start = time.thread_time_ns()
        try:
            q.append(step(t))
        except RuntimeError:  # its solver gave up; it keeps the frame before
            failures += 1
            q.append(q[-1])
        us[t] = (time.thread_time_ns() - start) / 1000
    return np.array(q), us, failures


def measure(hand: str, human: np.ndarray, scale: float | None, repeats: int) -> tuple[list[Row], dict[str, np.ndarray]]:
    """All methods on one hand, interleaved. Also the q of each method."""
    fingers = len(Retargeter.load(hand).robot.fingers)
    # Its mean over fingers, divided by its Huber width.
    smoothness_m2 = SMOOTHNESS_SHARE * 2 * PEER_SMOOTHNESS * HUBER_M * fingers
    load = Retargeter.load
    ours = {
        "ours, vectors": load(hand, objective="vectors", scale=scale, pinch_weight=0.0, smoothness_m2=smoothness_m2,
                              collision_margin_m=None),
        "ours, vectors + pinch": load(hand, objective="vectors", scale=scale, collision_margin_m=None),
        "ours, vectors + pinch + margin": load(hand, objective="vectors", scale=scale),
        "ours, fingers + pinch + margin": load(hand),
    }
    judged = ours["ours, vectors"]
    with tempfile.TemporaryDirectory() as folder:
        methods = {}
        if importlib.util.find_spec("dex_retargeting"):
            import torch

            torch.set_num_threads(1)
            for mode in ("vector", "dexpilot"):
                methods[f"dex-retargeting {mode}"] = peer_method(mode, judged, human, Path(folder))
        methods |= {name: our_method(retargeter, human) for name, retargeter in ours.items()}
        results: dict[str, tuple[np.ndarray, np.ndarray, int]] = {}
        for _ in range(repeats):
            for name, step in methods.items():
                q, us, failures = run(step, len(human))
                if name in results:
                    us = np.minimum(us, results[name][1])
                results[name] = (q, us, failures)
    rows = [judge(hand, name, "auto" if scale is None else "peer", judged, human, *results[name]) for name in methods]
    return rows, {name: result[0] for name, result in results.items()}


def table(rows: list[Row]) -> str:
    """Markdown of one hand; times faster than the vector mode of dex-retargeting in the same run."""
    lines = ["| method | error mean / 95 % mm | pinch gap error (gap) mm | 2nd difference rad | beyond limits | "
             "us 50 % / 99 % | times faster |",
             "|---|---|---|---|---|---|---|"]
    peer = next((row for row in rows if row.method == "dex-retargeting vector"), None)
    for row in rows:
        faster = f"{peer.us_p50 / row.us_p50:.0f}" if peer and row.method.startswith("ours") else ""
        limits = f"{row.violations} (by {row.violation_rad:.0e} rad)" if row.violations else "0"
        lines.append(
            f"| {row.method} | {row.error_mean_mm:.2f} / {row.error_p95_mm:.1f} | {row.gap_error_mm:.1f} "
            f"({row.gap_mm:.1f}) | {row.second_difference_rad:.4f} | {limits} | {row.us_p50:.1f} / {row.us_p99:.1f} | "
            f"{faster} |")
    return "\n".join(lines)


def targets(rows: list[Row]) -> list[str]:
    """The wanted figures of one hand, and whether they hold. Empty without dex-retargeting."""
    by = {row.method: row for row in rows}
    if "dex-retargeting vector" not in by:
        return []
    peer, ours, pinch = by["dex-retargeting vector"], by["ours, vectors"], by["ours, vectors + pinch"]
    joints = len(RobotHand.load(peer.hand, "right").joint_names)
    wanted = 100 if joints <= 8 else 40
    faster, jerk = peer.us_p50 / ours.us_p50, pinch.second_difference_rad / peer.second_difference_rad
    return [f"{'holds' if holds else 'does not hold'}: {what}" for holds, what in (
        (faster >= wanted, f"{faster:.0f} times faster than its vector mode (wanted {wanted})"),
        (ours.error_mean_mm <= peer.error_mean_mm + 0.005,
         f"vector error {ours.error_mean_mm:.2f} mm against {peer.error_mean_mm:.2f} mm (wanted equal or lower)"),
        (pinch.gap_error_mm <= 6.0, f"pinch gap error {pinch.gap_error_mm:.1f} mm (wanted 6 mm or less)"),
        (jerk <= 1.1,
         f"2nd difference with the pinch term {jerk:.2f} times that of its vector mode (wanted 1.1 or less)"),
    )]


def section(result: dict[str, Any]) -> str:
    """The part of a result page that this benchmark fills, from what `collect` returned."""
    rows = [Row(**row) for row in result["rows"]]
    parts = [f"Measured with `python benchmarks/retargeting.py --write` on {result['machine']}: {result['frames']} "
             f"frames of the synthetic hand through its named poses with 0.5 mm of noise, {result['repeats']} repeats. "
             f"{result['remark']}".rstrip(), "",
             "dex-retargeting 0.5.0 gets our descriptions as URDF, our wrist frame and our scale; its own parameters, "
             "its low-pass filter off.", "", COLUMNS]
    for scale in ("auto", "peer"):
        found = [row for row in rows if row.scale_from == scale]
        if not found:
            continue
        parts += ["## Scale from the open hands" if scale == "auto"
                  else "## Scale of dex-retargeting's own configurations", ""]
        for hand in dict.fromkeys(row.hand for row in found):
            of_hand = [row for row in found if row.hand == hand]
            joints = len(RobotHand.load(hand, "right").joint_names)
            parts += [f"### {hand}: {joints} joints, scale {of_hand[0].scale:.2f}", "", table(of_hand), ""]
            if lines := targets(of_hand):
                parts += [*(f"- {line}" for line in lines), ""]
    return "\n".join(parts)


def write_page(result: dict[str, Any]) -> None:
    page = PAGE.with_suffix(".partial")
    page.write_text(f"# Retargeting, measured\n\n![Pinch gaps and reach](images/retargeting.png)\n\n{section(result)}")
    page.replace(PAGE)


def plot(path: Path, human: np.ndarray, curves: dict[str, dict[str, np.ndarray]]) -> None:
    """Gap between thumb and index, and reach of the index, of the human and of each method, over the frames."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.1 * len(curves)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(curves), 2, sharex=True, squeeze=False)
    frames = np.arange(len(human) - SETTLE)
    for (hand, found), (gap_panel, reach_panel) in zip(curves.items(), panels, strict=True):
        retargeter = Retargeter.load(hand, objective="vectors")
        gap = 1000 * np.linalg.norm(human[SETTLE:, 4].astype(np.float64) - human[SETTLE:, 8], axis=1)
        reach = 1000 * retargeter.scale * np.linalg.norm(human[SETTLE:, 8].astype(np.float64), axis=1)
        gap_panel.plot(frames, gap, color="black", linewidth=2.5, alpha=0.35, label="human (reach scaled)")
        reach_panel.plot(frames, reach, color="black", linewidth=2.5, alpha=0.35)
        for i, (name, q) in enumerate(found.items()):
            tips = retargeter.keypoints(q[SETTLE:])
            gap_panel.plot(frames, 1000 * np.linalg.norm(tips[:, 4] - tips[:, 8], axis=1), color=f"C{i}",
                           linewidth=1.0, label=name)
            reach_panel.plot(frames, 1000 * np.linalg.norm(tips[:, 8] - retargeter.wrist_m, axis=1), color=f"C{i}",
                             linewidth=1.0)
        gap_panel.axhline(1000 * PINCHED_M, color="#999999", linestyle=":", linewidth=0.8)
        gap_panel.set_ylabel(f"{hand}\nmm")
        for panel in (gap_panel, reach_panel):
            panel.grid(alpha=0.25)
    panels[0, 0].set_title("gap between thumb and index tip", fontsize=10)
    panels[0, 1].set_title("index tip from the wrist", fontsize=10)
    for panel in panels[-1]:
        panel.set_xlabel("frame")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=100)


def machine() -> str:
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.processor())
    return f"one core of {model}, one thread, Python {platform.python_version()}"


def collect(hands: list[str], frames: int, repeats: int, scales: tuple[str, ...],
            show: Callable[[str], None] = print) -> tuple[dict[str, Any], np.ndarray, dict[str, dict[str, np.ndarray]]]:
    """All measurements as json can hold them, the human motion, and by hand and method the q at our scale."""
    human = trajectory(frames)
    rows: list[Row] = []
    curves: dict[str, dict[str, np.ndarray]] = {}
    for scale in scales:
        for hand in hands:
            found, q = measure(hand, human, None if scale == "auto" else PEER_SCALE[hand], repeats)
            rows += found
            if scale == "auto":
                curves[hand] = {name: angles for name, angles in q.items() if "margin" not in name}
            show(f"\n{hand}, scale {found[0].scale:.2f}\n{table(found)}\n" + "\n".join(targets(found)))
    return ({"machine": machine(), "frames": frames, "repeats": repeats, "remark": "",
             "rows": [asdict(row) for row in rows]}, human, curves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hands", nargs="+", default=list(HANDS), metavar="HAND")
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--scale", choices=("auto", "peer", "both"), default="both",
                        help="ours from the open hands, that of dex-retargeting's configurations, or both")
    parser.add_argument("--write", action="store_true", help="the result page, its picture and json")
    parser.add_argument("--remark", default="", help="about the machine, for the page")
    arguments = parser.parse_args()
    scales = ("auto", "peer") if arguments.scale == "both" else (arguments.scale,)
    result, human, curves = collect(arguments.hands, arguments.frames, arguments.repeats, scales,
                                    lambda text: print(text, flush=True))
    result["remark"] = arguments.remark
    if arguments.write:
        write_json(ROOT / "docs" / "results" / "retargeting.json", result)
        write_page(result)
        if curves:
            plot(ROOT / "docs" / "images" / "retargeting.png", human,
                 {hand: curves[hand] for hand in ("inspire_rh56", "leap") if hand in curves} or curves)


if __name__ == "__main__":
    main()
