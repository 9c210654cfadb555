"""From 21 keypoints of a human hand to the joint angles of a robot hand.

Three ways to say what a fingertip should do:

    fingers    relative to its own knuckle, each finger scaled by the ratio of lengths: an open human hand maps exactly
               onto the open robot hand (the default)
    vectors    relative to the wrist, one scale for all
    positions  the same place in space, with the wrist held where the human's is

Where thumb and finger come together the gap between them takes over, smoothly, and is kept as it is in metres, so
that a pinch closes. The angles minimise

    sum_fingers huber(|tip - target|) + w(gap) |tip - thumb tip - gap|^2 / 2
        + c sum_pairs max(0, wanted - distance)^2 / 2 + s |q - q_before|^2 / 2

within the joint limits, starting from the frame before (csrc/retarget.hpp; docs/hands.md has the figures). Pairs are
parts of different fingers, which keep the distance of their two radii and a margin. That is a cost, not a limit: where
the human pushes two fingers into each other the margin gives, and they may overlap by a millimetre or so.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from beingh0_edge import _kernels
from beingh0_edge.errors import RetargetError
from beingh0_edge.hand_model import HandModel
from beingh0_edge.robot_hand import DoubleArray, RobotHand, known_robots, palm_axes
from beingh0_edge.types import SIDES, FloatArray, HandTrajectory, MotionChunk, Side

__all__ = ["DoubleArray", "Objective", "Retargeter", "RobotHand", "known_robots", "open_hand"]

Objective = Literal["fingers", "vectors", "positions"]

_ASSETS = Path(__file__).parent / "assets"

HUBER_M = 0.02  # tip errors beyond this count linearly
SMOOTHNESS_M2 = 2e-3  # s; a fingertip moves about 0.08 m / rad, so it weighs 6e-3: a third of a frame of lag
PINCH_WEIGHT = 3.0  # w where thumb and finger are closer than PINCH_NEAR_M
PINCH_NEAR_M = 0.020
PINCH_FAR_M = 0.060  # w is 0 from here on; in a fist the tips stay 0.055 m apart
PAIR_WEIGHT = 40.0  # c; a fingertip pulls with at most HUBER_M, so two overlap by about 2 * 0.5 mm

# Keypoints by finger: base and tip, and the rigid part of the hand (wrist, thumb root, four knuckles).
_FINGERS = {"thumb": (1, 4), "index": (5, 8), "middle": (9, 12), "ring": (13, 16), "little": (17, 20)}
_PALM = [0, 1, 5, 9, 13, 17]
_MAX_WRIST_OFFSET_M = 0.005
_MAX_SIZE_RATIO = 2.0
_MAX_PALM_ERROR = 0.3  # of the wrist-to-knuckle distance; shapes of real hands stay below 0.15


def open_hand(side: Side) -> FloatArray:
    """Keypoints of the shipped synthetic hand held open and flat: float32[21, 3], metres, wrist frame."""
    return _open_hand(side).copy()


@functools.lru_cache
def _open_hand(side: Side) -> FloatArray:
    model = HandModel.load(_ASSETS / "hands" / f"synthetic_{side}.npz", side=side)
    joints: FloatArray = model.forward(np.zeros((1, 48), dtype=np.float32)).joints[0]
    return joints


class Retargeter:
    """Follows one human hand with one robot hand; remembers the last angles between calls.

    joint_names      the robot's joints in the order of every `q_rad`; lower_rad, upper_rad: float64[J]
    palm_from_wrist  float64[3, 3], the human wrist frame in the robot's palm frame, from the two open hands
    finger_scale     robot over human finger length, per finger, from the open hands
    scale            of the vectors from the wrist ("vectors"); 1 otherwise
    wrist_m          float64[3], where the human wrist is in the palm frame ("vectors", "positions")
    """

    def __init__(self, robot: RobotHand, open_keypoints_wrist_m: FloatArray, *, objective: Objective = "fingers",
                 scale: float | None = None, palm_from_wrist: DoubleArray | None = None,
                 pinch_weight: float = PINCH_WEIGHT, smoothness_m2: float = SMOOTHNESS_M2,
                 collision_margin_m: float | None = 0.002) -> None:
        """See `load` for the arguments."""
        if objective not in get_args(Objective):
            raise ValueError(f"objective: expected {', '.join(get_args(Objective))}, got {objective!r}")
        self.robot = robot
        self.joint_names = robot.joint_names
        self.lower_rad = robot.lower_rad
        self.upper_rad = robot.upper_rad
        self._weights = {"smoothness_m2": float(smoothness_m2), "pinch_weight": float(pinch_weight)}
        self._open = np.asarray(open_keypoints_wrist_m, dtype=np.float64)
        if self._open.shape != (21, 3) or not np.isfinite(self._open).all():
            raise ValueError("open_keypoints_wrist_m: expected finite float32[21, 3], "
                             f"got {self._open.dtype}{[*self._open.shape]}")
        self._palm = self._open[_PALM]
        self._max_reach_m = _MAX_SIZE_RATIO * float(np.linalg.norm(self._open, axis=1).max())
        self._order = [(finger, k) for finger in robot.fingers for k in range(4)]
        self._order.sort(key=lambda point: point[1] != 3)  # the solver wants the tips first
        opened = robot.points_m(robot.open_rad)
        self.palm_from_wrist = palm_axes(opened, robot.side) @ palm_axes(_human_fingers(self._open), robot.side).T
        wrist_m = None
        if palm_from_wrist is not None:
            if objective == "fingers":
                raise ValueError("palm_from_wrist: only for the objectives vectors and positions")
            self.palm_from_wrist, wrist_m = _checked_pose(palm_from_wrist)
        self.finger_scale = {
            finger: float(np.linalg.norm(points[3] - points[0])
                          / np.linalg.norm(self._open[_FINGERS[finger][1]] - self._open[_FINGERS[finger][0]]))
            for finger, points in opened.items()}
        self.scale = self._scale(objective, scale, opened)
        self.wrist_m = self._wrist(opened) if wrist_m is None else wrist_m
        pairs = self._pairs(opened, collision_margin_m)
        self._kernel = self._solver(*self._targets(objective, opened), *pairs)
        self.reset()

    @classmethod
    def load(cls, robot: str | os.PathLike[str], side: Side = "right", *,
             open_keypoints_wrist_m: FloatArray | None = None, objective: Objective = "fingers",
             scale: float | None = None, palm_from_wrist: DoubleArray | None = None,
             pinch_weight: float = PINCH_WEIGHT, smoothness_m2: float = SMOOTHNESS_M2,
             collision_margin_m: float | None = 0.002) -> Retargeter:
        """The retargeter for a robot by name, e.g. "inspire_rh56", or for a compact file (.json).

        open_keypoints_wrist_m  float32[21, 3], the human hand held open and flat, from which frames and scales are
                                calibrated; by default the shipped synthetic hand
        objective               what a fingertip follows, see the top of this file
        scale                   robot over human size for "vectors"; by default that of the open hands
        palm_from_wrist         float64[4, 4], where the human wrist is in the robot's palm frame, for "vectors" (its
                                rotation, and where the vectors begin) and "positions"; by default the open hands agree
        pinch_weight            of a closed gap between thumb and finger; a fingertip has weight 1; 0 switches it off
        collision_margin_m      distance that fingers keep besides their radii, softly: of the default 2 mm up to 3.4 mm
                                went missing (1.4 mm of overlap), with 5 mm none overlapped (docs/hands.md); None: they
                                may pass through each other
        Raises ValueError for an unknown robot or side or a wrong argument, RobotFileError for a wrong file.
        """
        description = RobotHand.load(robot, side)
        return cls(description, open_hand(side) if open_keypoints_wrist_m is None else open_keypoints_wrist_m,
                   objective=objective, scale=scale, palm_from_wrist=palm_from_wrist, pinch_weight=pinch_weight,
                   smoothness_m2=smoothness_m2, collision_margin_m=collision_margin_m)

    def reset(self) -> None:
        """Forget the last angles: the next frame starts from the open hand."""
        self._q_rad = self.robot.open_rad.copy()

    def retarget(self, keypoints_wrist_m: FloatArray) -> DoubleArray:
        """Joint angles for consecutive frames, continuing from the last call.

        keypoints_wrist_m: float32[T, 21, 3], metres, wrist frame. Returns float64[T, J], within the limits.
        Raises RetargetError, with the frame, for keypoints that are not finite, not in the wrist frame, not
        in metres or of the other hand; ValueError or TypeError for a wrong array. Nothing is remembered of a
        refused call.
        """
        if not isinstance(keypoints_wrist_m, np.ndarray):
            raise TypeError("keypoints_wrist_m: expected float32[T, 21, 3], "
                            f"got {type(keypoints_wrist_m).__name__}")
        if (keypoints_wrist_m.dtype != np.float32 or keypoints_wrist_m.ndim != 3
                or keypoints_wrist_m.shape[1:] != (21, 3)):
            raise ValueError(f"keypoints_wrist_m: expected float32[T, 21, 3], "
                             f"got {keypoints_wrist_m.dtype}{[*keypoints_wrist_m.shape]}")
        if len(keypoints_wrist_m) == 0:
            return np.empty((0, len(self.joint_names)))
        keypoints = np.ascontiguousarray(keypoints_wrist_m)
        strange = _kernels.first_strange_frame(
            keypoints, self._palm, max_wrist_m=_MAX_WRIST_OFFSET_M, max_size_ratio=_MAX_SIZE_RATIO,
            max_reach_m=self._max_reach_m, max_palm_error=_MAX_PALM_ERROR)
        if strange >= 0:
            raise self._refusal(keypoints[strange], strange)
        q_rad: DoubleArray = self._kernel.solve(keypoints, self._q_rad)[0]
        self._q_rad = q_rad[-1].copy()
        return q_rad

    def trajectory(self, chunks: MotionChunk | Sequence[MotionChunk]) -> HandTrajectory:
        """One chunk, or consecutive chunks of this side, as joint targets over time.

        Time starts at the first frame of the first chunk. Raises ValueError when a chunk is of the other
        side, or does not begin where the one before ends; RetargetError as `retarget`.
        """
        sequence = list(chunks) if isinstance(chunks, Iterable) else [chunks]
        if not sequence:
            raise ValueError("chunks: expected at least one, got none")
        times: list[DoubleArray] = []
        end_s = 0.0
        for index, chunk in enumerate(sequence):
            if not isinstance(chunk, MotionChunk):
                raise TypeError(f"chunk {index}: expected a MotionChunk, got {type(chunk).__name__}")
            if chunk.side != self.robot.side:
                raise ValueError(f"chunk {index}: expected the {self.robot.side} hand, "
                                 f"got the {chunk.side} one")
            start_s = chunk.start_s - sequence[0].start_s
            if abs(start_s - end_s) > 0.5 * chunk.dt_s:
                raise ValueError(f"chunk {index}: expected to begin {end_s:.3f} s after the first, "
                                 f"got {start_s:.3f} s; chunks must be consecutive")
            end_s = start_s + chunk.dt_s * len(chunk.keypoints_wrist_m)
            times.append(start_s + chunk.dt_s * np.arange(len(chunk.keypoints_wrist_m), dtype=np.float64))
        q_rad = self.retarget(np.concatenate([chunk.keypoints_wrist_m for chunk in sequence]))
        return HandTrajectory(t_s=np.concatenate(times), q_rad=q_rad, joint_names=self.joint_names)

    def keypoints(self, q_rad: DoubleArray) -> DoubleArray:
        """Forward kinematics of the robot, for drawing and tests.

        q_rad: float64[..., J]. Returns float64[..., 1 + 4 F, 3], metres, palm frame: the palm's origin, then
        four points per finger, base to tip, thumb first; 21 points for five fingers. Raises ValueError.
        """
        angles = np.asarray(q_rad, dtype=np.float64)
        if angles.ndim == 0 or angles.shape[-1] != len(self.joint_names):
            raise ValueError(f"q_rad: expected [..., {len(self.joint_names)}], got {[*angles.shape]}")
        points = [(-1, np.zeros(3)), *(point for four in self.robot.fingers.values() for point in four)]
        poses = np.ascontiguousarray(angles.reshape(-1, angles.shape[-1]))
        return self.robot.place(points, poses).reshape(*angles.shape[:-1], -1, 3)

    def clearance_m(self, q_rad: DoubleArray) -> float:
        """Least distance between the surfaces of two fingers at float64[J], metres; below 0 they overlap.

        Only what `collision_margin_m` watches: infinite where that is None or no radius is known.
        """
        if not len(self._apart_m):
            return float("inf")
        return float((self._kernel.pair_distances(np.asarray(q_rad, dtype=np.float64)) - self._apart_m).min())

    def _wrist(self, opened: dict[str, DoubleArray]) -> DoubleArray:
        """Where the human wrist is in the palm frame when the knuckles of both open hands coincide, scaled."""
        long = [finger for finger in opened if finger != "thumb"]
        knuckles = np.mean([opened[finger][0] for finger in long], axis=0)
        human = np.mean([self._open[_FINGERS[finger][0]] - self._open[0] for finger in long], axis=0)
        wrist_m: DoubleArray = knuckles - self.scale * self.palm_from_wrist @ human
        return wrist_m

    def _scale(self, objective: Objective, scale: float | None, opened: dict[str, DoubleArray]) -> float:
        if scale is not None:
            if objective != "vectors":
                raise ValueError("scale: only for the objective vectors")
            if not 0.1 <= scale <= 10.0:
                raise ValueError(f"scale: expected 0.1 to 10, got {scale!r}")
            return float(scale)
        if objective != "vectors":
            return 1.0
        return float(np.mean([self.finger_scale[finger] for finger in opened if finger != "thumb"]))

    def _targets(self, objective: Objective,
                 opened: dict[str, DoubleArray]) -> tuple[DoubleArray, DoubleArray, list[int]]:
        """Per finger: base, map and human base keypoint of  target = base + map (human tip - human base)."""
        if objective != "fingers":
            count = len(opened)
            return (np.tile(self.wrist_m, (count, 1)), np.tile(self.scale * self.palm_from_wrist, (count, 1, 1)),
                    [0] * count)
        bases, maps, origins = [], [], []
        for finger, points in opened.items():
            base, tip = _FINGERS[finger]
            human = self.palm_from_wrist @ (self._open[tip] - self._open[base])
            turn = _shortest_turn(human, points[3] - points[0])
            bases.append(points[0])
            maps.append(self.finger_scale[finger] * turn @ self.palm_from_wrist)
            origins.append(base)
        return np.array(bases), np.array(maps), origins

    def _pairs(self, opened: dict[str, DoubleArray],
               margin_m: float | None) -> tuple[list[tuple[int, DoubleArray]], npt.NDArray[np.int32], DoubleArray]:
        """More points for the solver, and pairs of segments that keep a distance.

        A finger is three rods of its radius between its points; the last one ends a radius before the tip, which lies
        on the surface. Watched are the thumb's outer two against all rods of the fingers, and the outer two of
        neighbours. Nothing is asked for that the open hand does not keep.
        """
        robot = self.robot
        self._apart_m = np.empty(0)
        if margin_m is not None and not -0.01 <= margin_m <= 0.05:
            raise ValueError(f"collision_margin_m: expected -0.01 to 0.05 or None, got {margin_m!r}")
        ends: list[tuple[int, DoubleArray]] = []
        rods: dict[str, list[tuple[int, int, DoubleArray, DoubleArray]]] = {}
        for finger in robot.fingers:
            if finger not in robot.radius_m:
                continue
            radius = robot.radius_m[finger]
            link, tip = robot.fingers[finger][3]
            places = list(opened[finger])
            share = min(radius / float(np.linalg.norm(places[3] - places[2])), 0.9)
            pad = places[3] + share * (places[2] - places[3])
            ends.append((link, tip + self._in_link(link, pad - places[3])))
            numbers = [self._order.index((finger, k)) for k in range(3)] + [len(self._order) + len(ends) - 1]
            places[3] = pad
            rods[finger] = [(numbers[k], numbers[k + 1], places[k], places[k + 1]) for k in range(3)]
        pairs, wanted = [], []
        fingers = [finger for finger in robot.fingers if finger in rods] if margin_m is not None else []
        for i, one in enumerate(fingers):
            for two in fingers[i + 1:] if one == "thumb" else fingers[i + 1:i + 2]:
                for a in rods[one][1:]:
                    for b in rods[two] if one == "thumb" else rods[two][1:]:
                        pairs.append([a[0], a[1], b[0], b[1]])
                        wanted.append(robot.radius_m[one] + robot.radius_m[two])
        if not pairs:
            return [], np.empty((0, 4), dtype=np.int32), np.empty(0)
        self._apart_m = np.array(wanted)
        index = np.array(pairs, dtype=np.int32)
        nowhere = (np.zeros((len(opened), 3)), np.tile(np.eye(3), (len(opened), 1, 1)), [0] * len(opened))
        plain = self._solver(*nowhere, ends, index, self._apart_m)
        keep = np.minimum(self._apart_m + float(margin_m or 0.0), plain.pair_distances(robot.open_rad))
        return ends, index, np.maximum(keep, 1e-4)

    def _in_link(self, link: int, vector: DoubleArray) -> DoubleArray:
        """A vector in the palm frame of the open hand, in the frame of a link."""
        frame = self.robot.place([(link, at) for at in (np.zeros(3), *np.eye(3))], self.robot.open_rad[None])[0]
        inside: DoubleArray = (frame[1:] - frame[0]) @ vector
        return inside

    def _solver(self, bases: DoubleArray, maps: DoubleArray, human_bases: list[int],
                ends: list[tuple[int, DoubleArray]], pairs: npt.NDArray[np.int32],
                pair_distances: DoubleArray) -> _kernels.RetargetSolver:
        robot, fingers = self.robot, list(self.robot.fingers)
        points = [robot.fingers[finger][k] for finger, k in self._order] + ends
        return _kernels.RetargetSolver(
            parents=robot.parents, origins=robot.origins_m, axes=robot.axes, link_joints=robot.link_joints,
            multipliers=robot.multipliers, offsets=robot.offsets_rad,
            point_links=np.array([link for link, _ in points], dtype=np.int32),
            points=np.array([point for _, point in points]), tips=len(fingers),
            lower=np.ascontiguousarray(robot.natural_rad[0]), upper=np.ascontiguousarray(robot.natural_rad[1]),
            human_tips=np.array([_FINGERS[finger][1] for finger in fingers], dtype=np.int32),
            human_bases=np.array(human_bases, dtype=np.int32),
            bases=bases, maps=maps, thumb=fingers.index("thumb") if "thumb" in fingers else -1,
            palm_from_wrist=np.ascontiguousarray(self.palm_from_wrist), huber_m=HUBER_M, pinch_near_m=PINCH_NEAR_M,
            pinch_far_m=PINCH_FAR_M, pairs=pairs, pair_distances=pair_distances, pair_weight=PAIR_WEIGHT,
            **self._weights)

    def _refusal(self, keypoints: FloatArray, frame: int) -> RetargetError:
        """Why float32[21, 3] is not this hand in metres in the wrist frame, saying what it looks like."""
        return RetargetError(f"frame {frame}: {self._reason(keypoints.astype(np.float64))}", frame=frame)

    def _reason(self, keypoints: DoubleArray) -> str:
        if not np.isfinite(keypoints).all():
            return "keypoints are not finite"
        wrist = float(np.linalg.norm(keypoints[0]))
        if wrist > _MAX_WRIST_OFFSET_M:
            return f"the wrist is {wrist:.3g} m from the origin, expected the wrist frame; camera coordinates?"
        palm, size = keypoints[_PALM], float(np.linalg.norm(self._palm[3]))
        ratio = float(np.linalg.norm(palm[3])) / size
        if not 1.0 / _MAX_SIZE_RATIO <= ratio <= _MAX_SIZE_RATIO:
            unit = "; millimetres?" if 300.0 < ratio < 3000.0 else ""
            return f"from wrist to middle knuckle {ratio * size:.3g} m, expected about {size:.3f} m{unit}"
        reach = np.linalg.norm(keypoints, axis=1)
        if reach.max() > self._max_reach_m:
            index = int(np.argmax(reach > self._max_reach_m))
            return (f"keypoint {index} is {reach[index]:.3g} m from the wrist, expected at most "
                    f"{self._max_reach_m:.3f} m")
        return self._diagnosis(palm / ratio)

    def _diagnosis(self, palm: DoubleArray) -> str:
        """Why a palm (float64[6, 3], right size, wrist at the origin) does not lie where this hand's does."""
        reference = self._palm
        left, _, right = np.linalg.svd(reference.T @ palm)
        best = right.T @ left.T  # takes the reference onto the palm; a reflection when its determinant is -1
        side, other = self.robot.side, SIDES[1 - SIDES.index(self.robot.side)]
        error = np.linalg.norm(palm - reference @ best.T, axis=1).max() / np.linalg.norm(reference[3])
        if error > _MAX_PALM_ERROR:
            return (f"wrist, thumb root and knuckles do not form a hand (off by {100 * error:.0f} % of its "
                    "size); expected wrist, thumb x4, index x4, middle x4, ring x4, little x4")
        if np.linalg.det(best) < 0:
            return f"the keypoints are mirrored: a {other} hand, expected a {side} one"
        angle = np.degrees(np.arccos(np.clip((np.trace(best) - 1.0) / 2.0, -1.0, 1.0)))
        return (f"the hand is turned by {angle:.0f} degrees against the wrist frame; "
                "camera coordinates? (wrist rotation must be taken out)")


def _human_fingers(keypoints: DoubleArray) -> dict[str, DoubleArray]:
    return {finger: keypoints[base:tip + 1] for finger, (base, tip) in _FINGERS.items()}


def _checked_pose(pose: DoubleArray) -> tuple[DoubleArray, DoubleArray]:
    """Rotation float64[3, 3] and place float64[3] of a float64[4, 4]. Raises ValueError."""
    given = np.asarray(pose, dtype=np.float64)
    if given.shape != (4, 4) or not np.isfinite(given).all():
        raise ValueError(f"palm_from_wrist: expected finite float64[4, 4], got {given.dtype}{[*given.shape]}")
    rotation = given[:3, :3]
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-6 or np.linalg.det(rotation) < 0:
        raise ValueError("palm_from_wrist: its upper left 3x3 is not a rotation")
    return rotation, given[:3, 3]


def _shortest_turn(start: DoubleArray, end: DoubleArray) -> DoubleArray:
    """The rotation float64[3, 3] that takes one direction to another by the smallest angle (below 180
    degrees).
    """
    a, b = start / np.linalg.norm(start), end / np.linalg.norm(end)
    cross = np.cross(a, b)
    skew = np.array([[0.0, -cross[2], cross[1]], [cross[2], 0.0, -cross[0]], [-cross[1], cross[0], 0.0]])
    turn: DoubleArray = np.eye(3) + skew + skew @ skew / (1.0 + a @ b)
    return turn
