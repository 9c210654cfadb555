"""The words of the package: what goes in, what comes out, what a hand is. Arrays that come out are the caller's.

Frames: `a_from_b` maps coordinates in b to coordinates in a. Camera: x right, y down, z forward.
Units: metres, radians, seconds; milliseconds only in `Timings`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Side = Literal["left", "right"]
Hands = Literal["left", "right", "both"]
SIDES: tuple[Side, Side] = ("left", "right")

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


def sides_of(hands: str) -> tuple[Side, ...]:
    """The sides in the order the model writes them (left before right). Raises ValueError."""
    if hands == "both":
        return SIDES
    if hands == "left":
        return ("left",)
    if hands == "right":
        return ("right",)
    raise ValueError(f"hands: expected 'left', 'right' or 'both', got {hands!r}")


@dataclass(frozen=True, eq=False)
class Observation:
    """What the policy sees.

    image_rgb      uint8[H, W, 3]
    instruction    what to do, e.g. "pick up the red can"
    intrinsics_px  (fx, fy, cx, cy) in pixels of image_rgb; None means the bundle's default camera
    """

    image_rgb: npt.NDArray[np.uint8]
    instruction: str
    intrinsics_px: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, eq=False)
class HandMotion:
    """Motion of one hand over T frames.

    cam_from_wrist     float32[T, 4, 4], metres; the wrist joint is the origin of the wrist frame
    finger_rotvec_rad  float32[T, 15, 3], MANO order (index, middle, little, ring, thumb; three joints each)
    betas              float32[10], MANO shape
    dt_s               time between frames
    """

    side: Side
    cam_from_wrist: FloatArray
    finger_rotvec_rad: FloatArray
    betas: FloatArray
    dt_s: float


@dataclass(frozen=True)
class Timings:
    """Milliseconds spent per stage for one chunk; stages that ran once per request are on the first chunk."""

    preprocess_ms: float = 0.0
    vision_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    motion_ms: float = 0.0
    kinematics_ms: float = 0.0

    @property
    def total_ms(self) -> float:
        """The sum of all stages."""
        return (self.preprocess_ms + self.vision_ms + self.prefill_ms + self.decode_ms
                + self.motion_ms + self.kinematics_ms)


@dataclass(frozen=True, eq=False)
class MotionChunk:
    """One hand over one second, yielded as soon as it is decoded.

    ids               int32[ids_per_block], the N of <motion_id_N>
    keypoints_wrist_m float32[T, 21, 3], metres, wrist frame; wrist, thumb x4, index x4, middle x4, ring x4, little x4
    start_s           when the chunk begins, seconds after the observation
    """

    motion: HandMotion
    keypoints_wrist_m: FloatArray
    start_s: float
    ids: IntArray
    timings: Timings = field(default_factory=Timings)

    @property
    def side(self) -> Side:
        """Which hand moves."""
        return self.motion.side

    @property
    def dt_s(self) -> float:
        """Seconds between frames."""
        return self.motion.dt_s

    @property
    def keypoints_cam_m(self) -> FloatArray:
        """float32[T, 21, 3], metres, camera frame."""
        rotation = self.motion.cam_from_wrist[:, :3, :3]
        origin = self.motion.cam_from_wrist[:, None, :3, 3]
        keypoints: FloatArray = np.einsum("tij,tkj->tki", rotation, self.keypoints_wrist_m).astype(np.float32) + origin
        return keypoints


@dataclass(frozen=True, eq=False)
class HandTrajectory:
    """Joint targets of a robot hand over time: what retargeting makes and the bridge follows.

    t_s          float64[T], strictly increasing, seconds after the trajectory's own start
    q_rad        float64[T, J]
    joint_names  J names; the bridge maps by name, never by position
    """

    t_s: npt.NDArray[np.float64]
    q_rad: npt.NDArray[np.float64]
    joint_names: tuple[str, ...]
