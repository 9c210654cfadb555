"""What hands do: verbs as smooth keys of posture, 15 frames a second, up to three seconds.

A motion is almost a function of the scene: where the hand starts, where the object stands, what kind it is. One
second is one phase: reach (and close), then carry or push, then finish. Positions are those of a point fixed in the
hand (the grasp point, or the index tip for pressing and pointing); the wrist follows from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from beingh0_edge.train.procedural.hands import (
    MIRROR,
    HandPose,
    grasp_point_m,
    index_tip_m,
    model,
    named_theta,
    orientation,
)
from beingh0_edge.train.procedural.world import Array, HandStart, Scene, Thing, rng_of
from beingh0_edge.types import SIDES, Side

FPS, SECONDS = 15, 3
FRAMES = FPS * SECONDS

VERBS = ("pick", "place", "push", "press", "point")
DIRECTIONS = {"to the left": (-1.0, 0.0), "to the right": (1.0, 0.0), "away": (0.0, 1.0), "closer": (0.0, -1.0)}
PUSH_M = 0.10
LIFT_M = 0.12

# How a kind is grasped: pitch and roll of a right hand (see `orientation`), and which posture closes on it.
_GRASP = {
    "box": (0.65, 1.15, 0.15), "can": (0.35, 0.45, 0.10), "ball": (0.65, 1.15, 0.05), "bottle": (0.25, 0.30, 0.15),
}


@dataclass(frozen=True)
class Task:
    """One instruction with everything needed to move: which hands, which object, which way."""

    verb: str
    hands: str
    target: int
    text: str
    direction: str | None = None


@dataclass(frozen=True, eq=False)
class Keys:
    """A motion by keys, right-hand terms. times_s float64[K]; the point fixed in the hand passes `points` (world)."""

    times_s: Sequence[float]
    points: Array                     # float64[K, 3]
    angles: Array                     # float64[K, 3] yaw, pitch, roll
    thetas: Array                     # float64[K, 45]
    lift_m: Array                     # float64[K] height of an arc between this key and the next
    tip: bool = False                 # the point is the index tip, not the grasp point


@dataclass(frozen=True, eq=False)
class Motion:
    """World-frame motion of one hand. rotation float64[T, 3, 3], wrist_m float64[T, 3], theta_rad float64[T, 45]."""

    side: Side
    rotation: Array
    wrist_m: Array
    theta_rad: Array

    def pose(self, frame: int) -> HandPose:
        return HandPose(self.side, self.rotation[frame], self.wrist_m[frame], self.theta_rad[frame])


def start_pose(start: HandStart) -> HandPose:
    """The posture at frame 0 of every task."""
    theta = start.curl * named_theta(start.side, "relaxed")
    rotation = orientation(start.side, start.yaw_rad, start.pitch_rad, start.roll_rad)
    return HandPose(start.side, rotation, start.palm_m - rotation @ grasp_point_m(start.side), theta)


def motions(scene: Scene, task: Task) -> dict[Side, Motion]:
    """The motion of every hand the task uses. Raises ValueError for a hand that is not in the picture."""
    out: dict[Side, Motion] = {}
    for side in SIDES:
        if task.hands in (side, "both"):
            start = next((h for h in scene.hands if h.side == side), None)
            if start is None:
                raise ValueError(f"task {task.text!r}: the {side} hand is not in the picture")
            out[side] = _interpolate(side, start, _keys(scene, task, side, start))
    return out


# -------------------------------------------------------------------------------------------------- verbs


def _to_right(side: Side, point: npt.ArrayLike) -> Array:
    """World point in the terms of a right hand."""
    p = np.asarray(point, np.float64)
    return p if side == "right" else p @ MIRROR


def _yaw_towards(start: Array, goal: Array) -> float:
    """Fingers follow the line from the shoulder to the goal, halfway."""
    shoulder = np.array([0.20, -0.55])
    d = goal[:2] - shoulder
    return float(0.15 + 0.8 * np.arctan2(-d[0], d[1]) + 0.15 * np.arctan2(-(goal[0] - start[0]), 0.3))


def _keys(scene: Scene, task: Task, side: Side, start: HandStart) -> Keys:
    thing = scene.objects[task.target]
    style = rng_of(scene.split, scene.style_seed, task.target, 7).normal(size=4)
    palm, centre = _to_right(side, start.palm_m), _to_right(side, thing.centre_m)
    first = (palm, np.array([start.yaw_rad, start.pitch_rad, start.roll_rad]),
             start.curl * named_theta(side, "relaxed"))
    if task.verb in ("pick", "place"):
        return _pick(scene, task, side, first, thing, centre, style)
    if task.verb == "push":
        return _push(task, side, first, thing, centre, style)
    return _touch(task, side, start, first, thing, centre, style)


def _pick(scene: Scene, task: Task, side: Side, first: tuple[Array, Array, Array], thing: Thing, centre: Array,
          style: Array) -> Keys:
    pitch, roll, squeeze = _GRASP[thing.kind]
    if task.hands == "both":  # from both sides, palms facing each other
        pitch, roll = 0.30, 0.10
        goal = centre + np.array([thing.radius_m + 0.012, 0, 0])
    else:
        goal = centre
    angles = np.array([_yaw_towards(first[0], goal), pitch + 0.03 * style[0], roll + 0.03 * style[1]])
    open_hand, grasp = named_theta(side, "pre_grasp"), named_theta(side, "grasp")
    if task.hands == "both":
        open_hand = grasp = 0.5 * named_theta(side, "relaxed")
    else:
        grasp = grasp + squeeze * (named_theta(side, "pinch") - grasp)
    up = np.array([0, 0, LIFT_M])
    if task.verb == "place":
        if scene.plate is None:
            raise ValueError(f"task {task.text!r}: there is no plate")
        over = _to_right(side, [*scene.plate.xy_m, thing.height_m / 2 + 0.02])
        after = np.array([0, -0.10, 0.08])
        turned = np.array([_yaw_towards(first[0], over), angles[1], angles[2]])
        return Keys([0, 0.87, 1.0, 2.0, 2.4, 2.65, 3.0],
                    np.stack([first[0], goal, goal, over + 0.4 * up, over, over, over + after]),
                    np.stack([first[1], angles, angles, turned, turned, turned, turned]),
                    np.stack([first[2], open_hand, grasp, grasp, grasp, open_hand, open_hand]),
                    np.array([0.045, 0, 0.07, 0, 0, 0, 0]))
    rest = goal + up + np.array([0.0, -0.02, 0.0])
    return Keys([0, 0.87, 1.0, 2.0, 3.0], np.stack([first[0], goal, goal, rest, rest]),
                np.stack([first[1], angles, angles, angles, angles]),
                np.stack([first[2], open_hand, grasp, grasp, grasp]), np.array([0.045, 0, 0, 0, 0]))


def _push(task: Task, side: Side, first: tuple[Array, Array, Array], thing: Thing, centre: Array,
          style: Array) -> Keys:
    if task.direction not in DIRECTIONS:
        raise ValueError(f"push: expected a direction of {', '.join(DIRECTIONS)}, got {task.direction!r}")
    way = _to_right(side, [*DIRECTIONS[task.direction], 0.0])
    low = np.array([centre[0], centre[1], min(centre[2], 0.05)])
    contact = low - way * (thing.radius_m + 0.02)
    yaw = _yaw_towards(first[0], contact)
    angles = np.array([yaw, 0.45, 0.25 if abs(way[0]) > 0.5 else 0.9]) + np.array([0, 0.03, 0.03]) * style[:3]
    flat = 0.4 * named_theta(side, "relaxed")
    end, back = contact + PUSH_M * way, contact + 0.3 * PUSH_M * way + np.array([0, -0.04, 0.07])
    return Keys([0, 1.0, 2.0, 3.0], np.stack([first[0], contact, end, back]),
                np.stack([first[1], angles, angles, angles]), np.stack([first[2], flat, flat, flat]),
                np.array([0.06, 0, 0, 0]))


def _touch(task: Task, side: Side, start: HandStart, first: tuple[Array, Array, Array], thing: Thing, centre: Array,
           style: Array) -> Keys:
    """Press the top with the index finger, or point at the object from a little way off."""
    point = named_theta(side, "point")
    top = np.array([centre[0], centre[1], thing.height_m])
    tip_start = first[0] + _to_right(side, orientation(side, *first[1]) @ (index_tip_m(side) - grasp_point_m(side)))
    yaw = _yaw_towards(first[0], top)
    if task.verb == "press":
        angles = np.array([yaw, 0.75, 1.35]) + np.array([0, 0.03, 0.03]) * style[:3]
        above, down = top + np.array([0, 0, 0.012]), top + np.array([0, 0, -0.004])
        back = top + np.array([0.01, -0.05, 0.08])
        points = np.stack([tip_start, above, down, back])
    else:
        angles = np.array([yaw, 0.40, 1.2]) + np.array([0, 0.03, 0.03]) * style[:3]
        away = first[0] - centre
        goal = centre + 0.10 * away / np.linalg.norm(away) + np.array([0, 0, 0.02])
        points = np.stack([tip_start, goal, goal, goal])
    return Keys([0, 1.0, 2.0, 3.0], points, np.stack([first[1], angles, angles, angles]),
                np.stack([first[2], point, point, point]), np.array([0.05, 0, 0, 0]), tip=True)


# ------------------------------------------------------------------------------------------ interpolation


def smooth(x: Array) -> Array:
    """Minimum-jerk blend from 0 to 1."""
    x = np.clip(x, 0, 1)
    out: Array = x**3 * (10 - 15 * x + 6 * x * x)
    return out


def _interpolate(side: Side, start: HandStart, keys: Keys) -> Motion:
    """Frames at (k + 1) / 15 s: frame 14 is the end of the first second. The start itself is the picture."""
    t = (np.arange(FRAMES) + 1) / FPS
    times = np.asarray(keys.times_s, np.float64)
    i = np.clip(np.searchsorted(times, t, side="left") - 1, 0, len(times) - 2)
    x = smooth((t - times[i]) / (times[i + 1] - times[i]))[:, None]
    points = keys.points[i] + x * (keys.points[i + 1] - keys.points[i])
    points[:, 2] += keys.lift_m[i] * (16 * x[:, 0] ** 2 * (1 - x[:, 0]) ** 2)
    angles = keys.angles[i] + x * (keys.angles[i + 1] - keys.angles[i])
    theta = keys.thetas[i] + x * (keys.thetas[i + 1] - keys.thetas[i])
    rotation = orientation(side, angles[:, 0], angles[:, 1], angles[:, 2])
    offset = index_tip_m(side) if keys.tip else grasp_point_m(side)
    wrist = _to_right(side, points) - rotation @ offset
    return Motion(side, rotation, wrist, theta)


def to_camera(scene: Scene, motion: Motion) -> tuple[Array, Array]:
    """(cam_from_hand rotations float64[T, 3, 3], wrist positions in the camera frame float64[T, 3])."""
    return scene.cam_from_world[:3, :3] @ motion.rotation, scene.to_camera(motion.wrist_m)


def joints_in_hand(side: Side, theta_rad: Array, betas: Array) -> npt.NDArray[np.float32]:
    """21 keypoints per frame in the hand's own frame (wrist at the origin), float32[T, 21, 3], metres."""
    pose = np.concatenate([np.zeros((len(theta_rad), 3)), theta_rad], -1)
    return np.asarray(model(side).forward(pose, betas).joints, np.float32)
