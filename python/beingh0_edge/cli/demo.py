"""`beingh0 demo`: the bundled model reads a bundled picture and a simulated hand does what it says."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import HandError
from ..files import staged, write_json
from ..firmware_bridge import Bridge, HandLog, HandState
from ..motion import Motion
from ..policy import Policy
from ..preprocess import read_image
from ..retarget import Retargeter
from ..types import HandTrajectory, Observation, Side
from .pictures import draw_motion, write_png
from .plots import plot_tracking
from .tables import STAGES, table

HAND = "inspire_rh56"
SETTLE_S = 0.3  # after the motion: the hand lags behind its command by less than this
LONGEST_DELAY_S = 0.3
_SCENE = Path(__file__).parents[1] / "assets" / "demo"


@dataclass(frozen=True)
class DemoScene:
    """A held-out scene with its question, and the answer for the report (the model does not see it).

    target_cam_m  where the named object is, camera frame; others_cam_m: the other objects
    """

    observation: Observation
    side: Side
    seconds: int
    target_cam_m: npt.NDArray[np.float64]
    others_cam_m: dict[str, npt.NDArray[np.float64]]
    facts: dict[str, Any]

    @classmethod
    def load(cls, folder: Path = _SCENE) -> DemoScene:
        facts = json.loads((folder / "scene.json").read_text())
        fx, fy, cx, cy = facts["intrinsics_px"]
        observation = Observation(read_image(folder / "scene.png"), facts["instruction"], (fx, fy, cx, cy))
        return cls(observation, facts["side"], facts["seconds"], np.array(facts["target"]["position_cam_m"]),
                   {other["name"]: np.array(other["position_cam_m"]) for other in facts["others"]}, facts)


@dataclass(frozen=True)
class Tracking:
    """How the hand followed, over all joints, radians.

    rms_rad          measured against commanded, as it happened
    delay_s          the shift of the command that explains the measurement best
    rms_delayed_rad  measured against the command that much earlier
    final_rad        largest difference of any joint between the last target and where the hand came to rest
    """

    rms_rad: float
    delay_s: float
    rms_delayed_rad: float
    final_rad: float
    cycles: int
    rate_hz: float
    missed_deadlines: int
    failed_transactions: int


def run_demo(out: Path, bundle: str) -> str:
    """Fills `out`; returns a short table. Any stage that fails raises, and `out` stays as it was."""
    marks = [("start", time.perf_counter())]

    def mark(stage: str) -> None:
        marks.append((stage, time.perf_counter()))

    with staged(out) as stage:
        scene = DemoScene.load()
        policy = Policy.load(bundle)
        mark("load the bundle")
        motion = policy.generate(scene.observation, scene.seconds, scene.side)
        mark("picture to motion")
        retargeter = Retargeter.load(HAND, scene.side)
        trajectory = retargeter.trajectory(motion.of(scene.side))
        mark("retarget")
        log, state, start_s = play(trajectory, scene.side)
        tracking = track(trajectory, log, state, start_s)
        mark("drive the hand")
        write_png(stage / "input.png", scene.observation.image_rgb)
        motion.save(stage)
        draw_motion(stage, policy, scene.observation, motion)
        mark("draw the motion")
        plot_tracking(stage / "joints.png", trajectory, log, start_s,
                      f"{HAND}, simulated, driven over a pseudo-terminal: {scene.observation.instruction!r}",
                      "target (retargeted motion)")
        np.savez_compressed(
            stage / "hand.npz", joint_names=np.array(log.joint_names), target_t_s=trajectory.t_s,
            target_q_rad=trajectory.q_rad, target_joint_names=np.array(trajectory.joint_names),
            t_s=log.t_s - start_s, q_cmd_rad=log.q_cmd_rad, q_rad=log.q_rad)
        mark("plot and save")
        report = {
            "scene": scene.facts,
            "bundle": bundle,
            "ids": sum(chunk.ids.size for chunk in motion.chunks),
            "grasp": grasp(scene, motion),
            "generation_ms": {name: sum(getattr(c.timings, f"{name}_ms") for c in motion.chunks)
                              for name in STAGES},
            "stages_s": {name: end - begin
                         for (_, begin), (name, end) in itertools.pairwise(marks)},
            "tracking": asdict(tracking),
            "bridge": {"late_p50_ms": state.late_p50_ms, "late_p99_ms": state.late_p99_ms,
                       "late_max_ms": state.late_max_ms, "realtime": state.realtime},
        }
        write_json(stage / "report.json", report)
    return summary(report, out)


def play(trajectory: HandTrajectory, side: Side) -> tuple[HandLog, HandState, float]:
    """Follows a trajectory with the simulated hand: its log, its last state, and when the motion began."""
    with Bridge.open(HAND, port=f"sim:{HAND}", side=side) as hand:
        hand.arm()
        start_s = time.monotonic()
        hand.follow(trajectory, blocking=True)
        time.sleep(SETTLE_S)
        log, state = hand.log, hand.state
    if state.state not in ("active", "hold"):
        raise HandError(f"{HAND}: the motion ended in {state.state} ({state.reason})", HAND)
    return log, state, start_s


def track(trajectory: HandTrajectory, log: HandLog, state: HandState, start_s: float) -> Tracking:
    """Compares what the hand did with what was asked, from the start of the motion on."""
    columns = [trajectory.joint_names.index(name) for name in log.joint_names]
    time_s = log.t_s - start_s
    moving = time_s >= 0
    time_s, measured, commanded = time_s[moving], log.q_rad[moving], log.q_cmd_rad[moving]

    def rms_after(delay_s: float) -> float:
        earlier = np.stack([np.interp(time_s - delay_s, time_s, column) for column in commanded.T], axis=1)
        return float(np.sqrt(np.mean((measured - earlier) ** 2)))

    delays = np.arange(0, LONGEST_DELAY_S, 0.005)
    best = min(delays, key=rms_after)
    failed = sum(count for kind, count in state.counts.items() if kind != "transactions")
    return Tracking(
        rms_rad=rms_after(0.0), delay_s=float(best), rms_delayed_rad=rms_after(float(best)),
        final_rad=float(np.abs(measured[-1] - trajectory.q_rad[-1, columns]).max()),
        cycles=len(time_s), rate_hz=float((len(time_s) - 1) / (time_s[-1] - time_s[0])),
        missed_deadlines=state.missed_deadlines, failed_transactions=failed)


def grasp(scene: DemoScene, motion: Motion) -> dict[str, Any]:
    """Where the hand closes: its grasp point at the end, and how far that is from the objects."""
    last = motion.of(scene.side)[-1].motion.cam_from_wrist[-1].astype(np.float64)
    point = last[:3, :3] @ np.array(scene.facts["grasp_point_wrist_m"]) + last[:3, 3]
    return {
        "point_cam_m": point.tolist(),
        "to_target_m": float(np.linalg.norm(point - scene.target_cam_m)),
        "to_others_m": {name: float(np.linalg.norm(point - at)) for name, at in scene.others_cam_m.items()},
    }


def summary(report: dict[str, Any], out: Path) -> str:
    """The report as a short table."""
    scene, tracking, bridge = report["scene"], report["tracking"], report["bridge"]
    closes, spent_ms = report["grasp"], report["generation_ms"]
    others = ", ".join(f"{name} {100 * away:.1f} cm" for name, away in closes["to_others_m"].items())
    stages = ", ".join(f"{name} {ms:.1f}" for name, ms in spent_ms.items())
    lags = (f"{_degrees(tracking['rms_rad'])} rms, {_degrees(tracking['rms_delayed_rad'])} once its delay of "
            f"{1000 * tracking['delay_s']:.0f} ms is taken out")
    return table([
        ("instruction", repr(scene["instruction"])),
        ("closes", f"{100 * closes['to_target_m']:.1f} cm from the {scene['target']['name']} ({others})"),
        ("model", f"{report['ids']} motion ids in {sum(spent_ms.values()):.0f} ms ({stages})"),
        ("hand lags", lags),
        ("hand rests", f"{_degrees(tracking['final_rad'])} from the last target, at the worst joint"),
        ("bridge", f"{tracking['cycles']} cycles at {tracking['rate_hz']:.1f} Hz, "
                   f"{bridge['late_p99_ms']:.2f} ms late (p99), {tracking['missed_deadlines']} missed, "
                   f"{tracking['failed_transactions']} failed transactions"),
        ("seconds", ", ".join(f"{name} {spent:.2f}" for name, spent in report["stages_s"].items())),
        ("written", f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}"),
    ])


def _degrees(angle_rad: float) -> str:
    return f"{np.degrees(angle_rad):.1f} deg"
