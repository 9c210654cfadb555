"""From 21 keypoints of a human hand to the joint angles of a robot hand.

Every fingertip is followed relative to its own knuckle: an open human hand maps exactly onto the open robot
hand, and each finger's reach is scaled by the ratio of the two fingers' lengths. Where thumb and finger come
together the gap between them takes over, smoothly, and is kept as it is in metres, so that a pinch closes.
The angles minimise

    sum_fingers huber(|tip - target|) + w(gap) |tip - thumb tip - gap|^2 / 2   +   s |q - q_before|^2 / 2

within the joint limits, starting from the frame before (csrc/retarget.hpp; docs/hands.md has the figures).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beingh0_edge import _kernels
from beingh0_edge.errors import RetargetError
from beingh0_edge.hand_model import HandModel
from beingh0_edge.types import SIDES, FloatArray, HandTrajectory, MotionChunk, Side

DoubleArray = npt.NDArray[np.float64]

_ASSETS = Path(__file__).parent / "assets"
_FORMAT = "beingh0_edge robot hand 1"

HUBER_M = 0.02  # tip errors beyond this count linearly
SMOOTHNESS_M2 = 1e-4  # s; a fingertip of the Inspire hand moves 0.08 m / rad, so it weighs 6e-3
PINCH_WEIGHT = 5.0  # w where thumb and finger are closer than PINCH_NEAR_M
PINCH_NEAR_M = 0.020
PINCH_FAR_M = 0.060  # w is 0 from here on; in a fist the tips stay 0.055 m apart

# Keypoints by finger: base and tip, and the rigid part of the hand (wrist, thumb root, four knuckles).
_FINGERS = {"thumb": (1, 4), "index": (5, 8), "middle": (9, 12), "ring": (13, 16), "little": (17, 20)}
_PALM = [0, 1, 5, 9, 13, 17]
_MAX_WRIST_OFFSET_M = 0.005
_MAX_SIZE_RATIO = 2.0
_MAX_PALM_ERROR = 0.3  # of the wrist-to-knuckle distance; shapes of real hands stay below 0.15


def known_robots() -> list[str]:
    """Names that `Retargeter.load` understands."""
    return sorted({path.stem.rsplit("_", 1)[0] for path in (_ASSETS / "robots").glob("*.json")})


@dataclass(frozen=True, eq=False)
class RobotHand:
    """Kinematics of a robot hand, as read from assets/robots (metres, radians, palm frame).

    fingers: name -> four (link index or -1 for the palm, point float64[3]), base to tip.
    """

    name: str
    side: Side
    joint_names: tuple[str, ...]
    lower_rad: DoubleArray
    upper_rad: DoubleArray
    parents: npt.NDArray[np.int32]
    origins_m: DoubleArray
    axes: DoubleArray
    link_joints: npt.NDArray[np.int32]
    multipliers: DoubleArray
    offsets_rad: DoubleArray
    fingers: dict[str, list[tuple[int, DoubleArray]]]

    @classmethod
    def load(cls, name: str, side: Side) -> RobotHand:
        """Raises ValueError for an unknown robot or side, with the known ones."""
        if side not in SIDES:
            raise ValueError(f"side: expected 'left' or 'right', got {side!r}")
        if name not in known_robots():
            raise ValueError(f"unknown robot {name!r}; known: {', '.join(known_robots())}")
        description: dict[str, Any] = json.loads((_ASSETS / "robots" / f"{name}_{side}.json").read_text())
        if description.get("format") != _FORMAT:
            raise ValueError(f"{name}_{side}.json: expected format {_FORMAT!r}, "
                             f"got {description.get('format')!r}")
        joints, links = description["joints"], description["links"]
        joint_index = {joint["name"]: i for i, joint in enumerate(joints)}
        link_index = {"palm": -1} | {link["name"]: i for i, link in enumerate(links)}
        axes = np.array([link["axis"] for link in links], dtype=np.float64)
        return cls(
            name=name,
            side=side,
            joint_names=tuple(joint_index),
            lower_rad=np.array([joint["lower_rad"] for joint in joints], dtype=np.float64),
            upper_rad=np.array([joint["upper_rad"] for joint in joints], dtype=np.float64),
            parents=np.array([link_index[link["parent"]] for link in links], dtype=np.int32),
            origins_m=np.array([link["origin_m"] for link in links], dtype=np.float64),
            axes=axes / np.linalg.norm(axes, axis=1, keepdims=True),
            link_joints=np.array([joint_index[link["joint"]] for link in links], dtype=np.int32),
            multipliers=np.array([link["multiplier"] for link in links], dtype=np.float64),
            offsets_rad=np.array([link["offset_rad"] for link in links], dtype=np.float64),
            fingers={finger: [(link_index[point["link"]], np.array(point["point_m"], dtype=np.float64))
                              for point in points]
                     for finger, points in description["fingers"].items()},
        )


def open_hand(side: Side) -> FloatArray:
    """Keypoints of the shipped synthetic hand held open and flat: float32[21, 3], metres, wrist frame."""
    model = HandModel.load(_ASSETS / "hands" / f"synthetic_{side}.npz", side=side)
    joints: FloatArray = model.forward(np.zeros((1, 48), dtype=np.float32)).joints[0]
    return joints


class Retargeter:
    """Follows one human hand with one robot hand; remembers the last angles between calls.

    joint_names: the robot's joints in the order of every `q_rad`; lower_rad, upper_rad: float64[J].
    finger_scale: robot over human finger length, per finger, from the open hand.
    """

    def __init__(self, robot: RobotHand, open_keypoints_wrist_m: FloatArray) -> None:
        self.robot = robot
        self.joint_names = robot.joint_names
        self.lower_rad = robot.lower_rad
        self.upper_rad = robot.upper_rad
        self._open = np.asarray(open_keypoints_wrist_m, dtype=np.float64)
        if self._open.shape != (21, 3) or not np.isfinite(self._open).all():
            raise ValueError("open_keypoints_wrist_m: expected finite float32[21, 3], "
                             f"got {self._open.dtype}{[*self._open.shape]}")
        fingers = list(robot.fingers)
        self._order = [(finger, k) for finger in fingers for k in (3, 0, 1, 2)]
        self._order.sort(key=lambda point: point[1] != 3)  # the solver wants the tips first
        no_map = np.tile(np.eye(3), (len(fingers), 1, 1))
        plain = self._solver(np.zeros((len(fingers), 3)), no_map, np.eye(3))
        points = self._by_finger(plain.points(self.lower_rad[None])[0])
        human_axes = _palm_axes(_human_fingers(self._open), robot.side)
        self.palm_from_wrist = _palm_axes(points, robot.side) @ human_axes.T
        bases, maps, self.finger_scale = [], [], {}
        for finger in fingers:
            base, tip = _FINGERS[finger]
            human = self.palm_from_wrist @ (self._open[tip] - self._open[base])
            wanted = points[finger][3] - points[finger][0]
            scale = float(np.linalg.norm(wanted) / np.linalg.norm(human))
            bases.append(points[finger][0])
            maps.append(scale * _shortest_turn(human, wanted) @ self.palm_from_wrist)
            self.finger_scale[finger] = scale
        self._kernel = self._solver(np.array(bases), np.array(maps), self.palm_from_wrist)
        self.reset()

    @classmethod
    def load(cls, robot: str, side: Side = "right", *,
             open_keypoints_wrist_m: FloatArray | None = None) -> Retargeter:
        """The retargeter for a robot by name, e.g. "inspire_rh56".

        open_keypoints_wrist_m: float32[21, 3], the human hand held open and flat, from which frame and scale
        are calibrated; by default the shipped synthetic hand. Raises ValueError for an unknown robot or side.
        """
        description = RobotHand.load(robot, side)
        return cls(description, open_hand(side) if open_keypoints_wrist_m is None else open_keypoints_wrist_m)

    def reset(self) -> None:
        """Forget the last angles: the next frame starts from the open hand."""
        self._q_rad = self.lower_rad.copy()

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
        self._check_frame(keypoints_wrist_m)
        q_rad: DoubleArray = self._kernel.solve(np.ascontiguousarray(keypoints_wrist_m), self._q_rad)[0]
        self._q_rad = q_rad[-1].copy()
        return q_rad

    def trajectory(self, chunks: MotionChunk | Sequence[MotionChunk]) -> HandTrajectory:
        """One chunk, or consecutive chunks of this side, as joint targets over time.

        Time starts at the first frame of the first chunk. Raises ValueError when a chunk is of the other
        side, or does not begin where the one before ends; RetargetError as `retarget`.
        """
        sequence = [chunks] if isinstance(chunks, MotionChunk) else list(chunks)
        if not sequence:
            raise ValueError("chunks: expected at least one, got none")
        times: list[DoubleArray] = []
        end_s = 0.0
        for index, chunk in enumerate(sequence):
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
        points = self._kernel.points(np.ascontiguousarray(angles.reshape(-1, angles.shape[-1])))
        place = [self._order.index((finger, k)) for finger in self.robot.fingers for k in range(4)]
        origin = np.zeros((len(points), 1, 3))
        return np.concatenate([origin, points[:, place]], axis=1).reshape(*angles.shape[:-1], -1, 3)

    def _by_finger(self, points: DoubleArray) -> dict[str, DoubleArray]:
        return {finger: np.array([points[self._order.index((finger, k))] for k in range(4)])
                for finger in self.robot.fingers}

    def _solver(self, bases: DoubleArray, maps: DoubleArray,
                palm_from_wrist: DoubleArray) -> _kernels.RetargetSolver:
        robot, fingers = self.robot, list(self.robot.fingers)
        points = [robot.fingers[finger][k] for finger, k in self._order]
        return _kernels.RetargetSolver(
            parents=robot.parents, origins=robot.origins_m, axes=robot.axes, link_joints=robot.link_joints,
            multipliers=robot.multipliers, offsets=robot.offsets_rad,
            point_links=np.array([link for link, _ in points], dtype=np.int32),
            points=np.array([point for _, point in points]), tips=len(fingers),
            lower=robot.lower_rad, upper=robot.upper_rad,
            human_tips=np.array([_FINGERS[finger][1] for finger in fingers], dtype=np.int32),
            human_bases=np.array([_FINGERS[finger][0] for finger in fingers], dtype=np.int32),
            bases=bases, maps=maps, thumb=fingers.index("thumb") if "thumb" in fingers else -1,
            palm_from_wrist=palm_from_wrist, huber_m=HUBER_M, smoothness_m2=SMOOTHNESS_M2,
            pinch_weight=PINCH_WEIGHT, pinch_near_m=PINCH_NEAR_M, pinch_far_m=PINCH_FAR_M)

    def _check_frame(self, keypoints: FloatArray) -> None:
        """Refuse keypoints that are not this hand in metres in the wrist frame, saying what they look
        like.
        """
        finite = np.isfinite(keypoints).all(axis=(1, 2))
        if not finite.all():
            frame = int(np.argmin(finite))
            raise RetargetError(f"frame {frame}: keypoints are not finite", frame=frame)
        wrist = np.linalg.norm(keypoints[:, 0], axis=1)
        if wrist.max() > _MAX_WRIST_OFFSET_M:
            frame = int(np.argmax(wrist > _MAX_WRIST_OFFSET_M))
            raise RetargetError(
                f"frame {frame}: the wrist is {wrist[frame]:.3g} m from the origin, expected the wrist "
                "frame; camera coordinates?", frame=frame)
        palm, reference = keypoints[:, _PALM].astype(np.float64), self._open[_PALM]
        size = np.linalg.norm(reference[3])
        ratio = np.linalg.norm(palm[:, 3], axis=1) / size
        wrong = (ratio > _MAX_SIZE_RATIO) | (ratio < 1.0 / _MAX_SIZE_RATIO)
        if wrong.any():
            frame = int(np.argmax(wrong))
            unit = "; millimetres?" if 300.0 < ratio[frame] < 3000.0 else ""
            raise RetargetError(f"frame {frame}: from wrist to middle knuckle {ratio[frame] * size:.3g} m, "
                                f"expected about {size:.3f} m{unit}", frame=frame)
        reach = np.linalg.norm(keypoints, axis=2)
        limit = _MAX_SIZE_RATIO * np.linalg.norm(self._open, axis=1).max()
        if reach.max() > limit:
            frame, index = np.argwhere(reach > limit)[0].tolist()
            raise RetargetError(f"frame {frame}: keypoint {index} is {reach[frame, index]:.3g} m "
                                f"from the wrist, expected at most {limit:.3f} m", frame=frame)
        error = np.linalg.norm(palm / ratio[:, None, None] - reference, axis=2).max(axis=1) / size
        if error.max() > _MAX_PALM_ERROR:
            frame = int(np.argmax(error > _MAX_PALM_ERROR))
            raise RetargetError(f"frame {frame}: {self._diagnosis(palm[frame] / ratio[frame])}", frame=frame)

    def _diagnosis(self, palm: DoubleArray) -> str:
        """Why a palm (float64[6, 3], right size, wrist at the origin) does not lie where this hand's does."""
        reference = self._open[_PALM]
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


def _palm_axes(fingers: dict[str, DoubleArray], side: Side) -> DoubleArray:
    """Columns: finger direction, across the palm, out of the back of the hand; from an open hand, right-
    handed.
    """
    long = [name for name in ("index", "middle", "ring", "little") if name in fingers]
    directions = [fingers[name][3] - fingers[name][0] for name in long]
    forward = np.sum([d / np.linalg.norm(d) for d in directions], axis=0)
    forward /= np.linalg.norm(forward)
    across = fingers[long[0]][0] - fingers[long[-1]][0]  # towards the thumb
    back = np.cross(forward, across) * (1.0 if side == "right" else -1.0)
    back /= np.linalg.norm(back)
    return np.stack([forward, np.cross(back, forward), back], axis=1)


def _shortest_turn(start: DoubleArray, end: DoubleArray) -> DoubleArray:
    """The rotation float64[3, 3] that takes one direction to another by the smallest angle (below 180
    degrees).
    """
    a, b = start / np.linalg.norm(start), end / np.linalg.norm(end)
    cross = np.cross(a, b)
    skew = np.array([[0.0, -cross[2], cross[1]], [cross[2], 0.0, -cross[0]], [-cross[1], cross[0], 0.0]])
    turn: DoubleArray = np.eye(3) + skew + skew @ skew / (1.0 + a @ b)
    return turn
