"""How well a bundle follows picture and words, on held-out scenes and through the whole deployed path.

A photo from a camera of its own goes through preprocessing, model, motion tokenizer and hand model. No torch.

Every scene has three objects of different kinds and colours, and one task per object: the same picture and the
same start, so only the words decide. What is measured, at the end of the first second:

nearest   the hand ends nearest to where the named object's own motion ends (for a pick: the object's centre)
shuffled  the same picture with the words for another object, still judged against the first
reach     the hand ends within 4 cm of that place
mpjpe     mean error of 21 joints over the second, camera frame, against the task's true motion; the baseline
          answers every scene with the mean motion of the training scenes

"The hand" is its grasp point, for pressing and pointing the tip of the index finger; two hands are judged by
the middle between them, and reach only if both do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from beingh0_edge.policy import Policy
from beingh0_edge.train import procedural
from beingh0_edge.train.metrics import mpjpe_mm, pa_mpjpe_mm, wilson_interval, wrist_relative_mpjpe_mm
from beingh0_edge.train.procedural import Motion, Scene, Split, Task
from beingh0_edge.types import Observation, Side, sides_of

Array = npt.NDArray[np.float64]

REACH_M = 0.04
SEED = 1  # training and its probes use seed 0, so these scenes were never looked at before
BASELINE_SCENES = 300
FRAMES = procedural.FPS  # of the first second
INDEX_TIP = 8
TOUCHES = ("press", "point")


@dataclass(frozen=True)
class Row:
    """One row of the table: what the hands were asked to do."""

    verb: str
    hands: str


MAIN = Row("pick", "right")
ROWS = (MAIN, Row("pick", "left"), Row("pick", "both"), Row("place", "right"), Row("push", "right"),
        Row("press", "right"), Row("point", "right"))


@dataclass(frozen=True)
class Rate:
    """A share of the scenes with its 95 % Wilson interval."""

    rate: float
    low: float
    high: float

    @classmethod
    def of(cls, hits: npt.NDArray[np.bool_]) -> Rate:
        return cls(float(hits.mean()), *wilson_interval(int(hits.sum()), len(hits)))


@dataclass(frozen=True)
class Result:
    """A measured row. Errors are means over scenes; mpjpe_sem_mm is the standard error of that mean."""

    verb: str
    hands: str
    scenes: int
    nearest: Rate
    shuffled: Rate
    reach: Rate
    end_error_median_mm: float
    mpjpe_mm: float
    mpjpe_sem_mm: float
    wrist_relative_mpjpe_mm: float
    pa_mpjpe_mm: float
    baseline_mpjpe_mm: float
    mpjpe_ratio: float

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Result:
        """From the JSON that `beingh0 eval nano` writes."""
        rates = {name: Rate(**facts[name]) for name in ("nearest", "shuffled", "reach")}
        return cls(**{**facts, **rates})


@dataclass(frozen=True)
class Episode:
    """One scene: the picture, a task per object, and which of them is asked for."""

    observation: Observation
    target: int
    other_words: str
    true_ends_m: Array      # float64[3, hands, 3], per task, camera frame
    true_joints_m: Array    # float64[hands, 15, 21, 3]


def scenes_with(row: Row, split: Split, seed: int) -> Iterator[tuple[Scene, tuple[Task, Task, Task]]]:
    """Scenes in which exactly the hands of `row` are seen and its verb is possible (placing needs a plate)."""
    index = 0
    while True:
        scene = procedural.make_scene(split, seed, index, visible=row.hands)
        tasks = procedural.make_tasks(scene, verb=row.verb, hands=row.hands)
        if tasks[0].verb == row.verb:
            yield scene, tasks
        index += 1


def joints_cam_m(scene: Scene, motion: Motion) -> Array:
    """21 keypoints of the first second in the camera frame, float64[15, 21, 3]."""
    rotation, position = procedural.to_camera(scene, motion)
    pose = np.concatenate([np.zeros((FRAMES, 3)), motion.theta_rad[:FRAMES]], axis=1)
    local = procedural.model(motion.side).forward(pose, scene.betas).joints
    joints: Array = local @ rotation[:FRAMES].transpose(0, 2, 1) + position[:FRAMES, None]
    return joints


def end_point(row: Row, side: Side, cam_from_wrist: npt.NDArray[np.floating], joints_m: Array) -> Array:
    """The point that is judged, float64[3], from the last wrist pose and keypoints."""
    if row.verb in TOUCHES:
        tip: Array = joints_m[-1, INDEX_TIP].astype(np.float64)
        return tip
    grasp: Array = cam_from_wrist[:3, :3] @ procedural.grasp_point_m(side) + cam_from_wrist[:3, 3]
    return grasp


def true_end(row: Row, scene: Scene, motion: Motion) -> Array:
    rotation, position = procedural.to_camera(scene, motion)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation[FRAMES - 1], position[FRAMES - 1]
    return end_point(row, motion.side, pose, joints_cam_m(scene, motion))


def episode(row: Row, scene: Scene, tasks: tuple[Task, Task, Task], target: int) -> Episode:
    sides = sides_of(row.hands)
    motions = [procedural.motions(scene, task) for task in tasks]
    photo = procedural.render_photo(scene, [procedural.start_pose(hand) for hand in scene.hands])
    camera = scene.raw_camera
    return Episode(
        Observation(photo, tasks[target].text, (camera.fx, camera.fy, camera.cx, camera.cy)), target,
        tasks[(target + 1) % 3].text,
        np.array([[true_end(row, scene, of_task[side]) for side in sides] for of_task in motions]),
        np.array([joints_cam_m(scene, motions[target][side]) for side in sides]))


def mean_motion(row: Row, scenes: int = BASELINE_SCENES) -> Array:
    """The mean of the training scenes' true motions, float64[hands, 15, 21, 3], camera frame."""
    total = np.zeros((len(sides_of(row.hands)), FRAMES, 21, 3))
    for _, (scene, tasks) in zip(range(scenes), scenes_with(row, Split.TRAIN, 0), strict=False):
        for task in tasks:
            motions = procedural.motions(scene, task)
            total += np.array([joints_cam_m(scene, motions[side]) for side in sides_of(row.hands)])
    mean: Array = total / (3 * scenes)
    return mean


def predict(policy: Policy, row: Row, observation: Observation) -> tuple[Array, Array]:
    """(end points float64[hands, 3], joints float64[hands, 15, 21, 3]) of the greedy answer."""
    ends, joints = [], []
    for chunk in policy.stream(observation, 1, row.hands, greedy=True):
        joints.append(chunk.keypoints_cam_m.astype(np.float64))
        ends.append(end_point(row, chunk.side, chunk.motion.cam_from_wrist[-1], joints[-1]))
    return np.array(ends), np.array(joints)


def is_nearest(ends_m: Array, case: Episode) -> bool:
    """Whether the hands end nearer to the named task's true end than to the other two."""
    away = np.linalg.norm(case.true_ends_m.mean(axis=1) - ends_m.mean(axis=0), axis=1)
    return int(away.argmin()) == case.target


def measure(policy: Policy, row: Row, episodes: int, progress: Callable[[int], None],
            baseline_scenes: int = BASELINE_SCENES) -> Result:
    """One row over `episodes` held-out scenes."""
    nearest, shuffled, reach = (np.zeros(episodes, bool) for _ in range(3))
    far, errors, relative, aligned, base = (np.zeros(episodes) for _ in range(5))
    baseline = mean_motion(row, baseline_scenes)
    for i, (scene, tasks) in zip(range(episodes), scenes_with(row, Split.HELD_OUT, SEED), strict=False):
        case = episode(row, scene, tasks, target=i % 3)
        ends, joints = predict(policy, row, case.observation)
        off = np.linalg.norm(ends - case.true_ends_m[case.target], axis=1)
        nearest[i], reach[i], far[i] = is_nearest(ends, case), (off < REACH_M).all(), off.max()
        errors[i], base[i] = mpjpe_mm(joints, case.true_joints_m), mpjpe_mm(baseline, case.true_joints_m)
        relative[i] = wrist_relative_mpjpe_mm(joints, case.true_joints_m)
        aligned[i] = pa_mpjpe_mm(joints, case.true_joints_m)
        seen = case.observation
        other, _ = predict(policy, row, Observation(seen.image_rgb, case.other_words, seen.intrinsics_px))
        shuffled[i] = is_nearest(other, case)
        progress(i + 1)
    spread = float(errors.std(ddof=1)) if episodes > 1 else 0.0
    return Result(
        row.verb, row.hands, episodes, Rate.of(nearest), Rate.of(shuffled), Rate.of(reach),
        float(np.median(far) * 1000), float(errors.mean()), spread / episodes**0.5, float(relative.mean()),
        float(aligned.mean()), float(base.mean()), float(errors.mean() / base.mean()))


def markdown(results: list[Result]) -> str:
    """The table for the README. Rates with their 95 % intervals, errors in millimetres."""
    head = ("task", "hands", "scenes", "nearest", "other words", "within 4 cm", "MPJPE", "baseline", "ratio")
    rows = [head, *((
        r.verb, r.hands, str(r.scenes), _percent(r.nearest), _percent(r.shuffled), _percent(r.reach),
        f"{r.mpjpe_mm:.1f} ± {1.96 * r.mpjpe_sem_mm:.1f}", f"{r.baseline_mpjpe_mm:.1f}", f"{r.mpjpe_ratio:.2f}")
        for r in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
             for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _percent(rate: Rate) -> str:
    return f"{100 * rate.rate:.1f} % ({100 * rate.low:.1f}-{100 * rate.high:.1f})"
