"""Motion features: the numbers per frame that a motion tokenizer encodes, and what they mean.

A feature set ("mano162") stores finger pose, wrist rotation and wrist position, some sets also shape and keypoints. A
tokenizer holds it whole or split into a wrist and a finger part. What a column means follows from set and part, never
from the vector's width: 99 numbers are (finger, wrist) in a whole mano99 and (wrist, finger) in a split one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from beingh0_edge import rotations
from beingh0_edge.types import FloatArray

ArrayLike = npt.NDArray[Any]

# mano36 and mano100 keep 30 of the 45 axis-angle components: per joint xyz, per finger three joints.
THETA_MASK = np.array([c == "1" for c in "111101001" "011101001" "111101001" "111101001" "111111001"])
THETA_MASK.flags.writeable = False

_ROT6D, _AXIS_ANGLE, _MASKED = "rot6d", "axis_angle", "masked axis_angle"
_THETA_WIDTH = {_ROT6D: 90, _AXIS_ANGLE: 45, _MASKED: 30}


class FeaturePart(Protocol):
    """What is known of a tokenizer part: its feature set, which part of it ("wrist", "finger", "whole"), its width."""

    @property
    def feature(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def dims(self) -> int: ...


@dataclass(frozen=True)
class _FeatureSet:
    form: str  # of the finger pose; the wrist rotation is 6D with "rot6d", else axis-angle
    betas: bool = False
    keypoints: bool = False


FEATURE_SETS = {
    "mano36": _FeatureSet(_MASKED), "mano51": _FeatureSet(_AXIS_ANGLE), "mano99": _FeatureSet(_ROT6D),
    "mano109": _FeatureSet(_ROT6D, betas=True), "mano100": _FeatureSet(_MASKED, keypoints=True),
    "mano114": _FeatureSet(_AXIS_ANGLE, keypoints=True), "mano162": _FeatureSet(_ROT6D, keypoints=True),
    "mano172": _FeatureSet(_ROT6D, betas=True, keypoints=True)}


class SplitFeatures(NamedTuple):
    """One hand's motion taken apart, float32.

    rotation   [..., 3, 3] wrist, camera from wrist
    trans_m    [..., 3] wrist position, metres
    theta_rad  [..., 15, 3] finger axis-angles in MANO order, angle in [0, pi] where the features store 6D
    joints_m   [..., 20 or 21, 3] auxiliary keypoints (20 without the wrist), or None where the features have none
    """

    rotation: FloatArray
    trans_m: FloatArray
    theta_rad: FloatArray
    joints_m: FloatArray | None


def columns(parts: Sequence[FeaturePart]) -> dict[str, slice]:
    """Where each quantity lies in the concatenated features: theta, rotation, trans, and betas, joints if present.

    Raises: ValueError for an unknown feature set, parts that do not make one whole hand, or another width.
    """
    names = tuple(part.name for part in parts)
    sets = {part.feature for part in parts}
    if names not in (("wrist", "finger"), ("finger", "wrist"), ("whole",)) or len(sets) != 1:
        raise ValueError("parts: expected wrist and finger, or whole, of one feature set, got "
                         + ", ".join(f"{part.name} of {part.feature}" for part in parts))
    found: dict[str, slice] = {}
    start = 0
    for part in parts:
        end = start + part.dims
        for quantity, width in _widths(part).items():
            found[quantity] = slice(start, start + width)
            start += width
        if start != end and not (part.feature == "mano100" and part.name == "whole" and start < end):
            raise ValueError(f"{part.name} part of {part.feature}: expected {start - end + part.dims} dims, "
                             f"got {part.dims}")
        start = end
    return found


def split_features(features: ArrayLike, parts: Sequence[FeaturePart]) -> SplitFeatures:
    """float[..., dims] -> wrist rotation and position, finger pose, auxiliary keypoints.

    Raises: ValueError if the width is not the parts' sum; see also `columns`.
    """
    where = columns(parts)
    array = _features(features, sum(part.dims for part in parts))
    form = FEATURE_SETS[parts[0].feature].form
    batch = array.shape[:-1]
    wrist, theta = array[..., where["rotation"]], array[..., where["theta"]]
    if form == _ROT6D:
        rotation = rotations.rot6d_to_matrix(wrist)
        matrices = rotations.rot6d_to_matrix(theta.reshape(*batch, 15, 6))
        fingers = rotations.matrix_to_axis_angle(matrices)
    else:
        rotation = rotations.axis_angle_to_matrix(wrist)
        fingers = np.zeros((*batch, 45), np.float32)
        fingers[..., THETA_MASK if form == _MASKED else slice(None)] = theta
        fingers = fingers.reshape(*batch, 15, 3)
    joints = array[..., where["joints"]].reshape(*batch, -1, 3) if "joints" in where else None
    return SplitFeatures(rotation, array[..., where["trans"]], fingers, joints)


def merge_features(rotation: ArrayLike, trans_m: ArrayLike, theta_rad: ArrayLike, parts: Sequence[FeaturePart], *,
                   betas: ArrayLike | None = None, joints_m: ArrayLike | None = None) -> FloatArray:
    """The reverse of `split_features`: float32[..., dims]. mano36 and mano100 drop the components they do not keep.

    betas [..., 10] and joints_m [..., 20, 3] (21 for a whole part) where the feature set has them.
    Raises: ValueError if one is missing or superfluous, or has another shape.
    """
    where = columns(parts)
    form = FEATURE_SETS[parts[0].feature].form
    rotation, theta = np.asarray(rotation, np.float32), np.asarray(theta_rad, np.float32)
    batch = rotation.shape[:-2]
    if form == _ROT6D:
        wrist = rotations.matrix_to_rot6d(rotation)
        matrices = rotations.axis_angle_to_matrix(theta.reshape(*batch, 15, 3))
        fingers = rotations.matrix_to_rot6d(matrices).reshape(*batch, 90)
    else:
        wrist = rotations.matrix_to_axis_angle(rotation)
        fingers = theta.reshape(*batch, 45)
        if form == _MASKED:
            fingers = fingers[..., THETA_MASK]
    given: dict[str, ArrayLike | None] = {"rotation": wrist, "trans": trans_m, "theta": fingers, "betas": betas,
                                          "joints": None if joints_m is None else
                                          np.asarray(joints_m).reshape(*batch, -1)}
    out = np.zeros((*batch, sum(part.dims for part in parts)), np.float32)
    for quantity, value in given.items():
        place = where.get(quantity)
        if (place is None) != (value is None):
            raise ValueError(f"{quantity}: {parts[0].feature} {'has none' if place is None else 'needs it'}")
        if place is not None and value is not None:
            expected = (*batch, place.stop - place.start)
            if np.shape(value) != expected:
                raise ValueError(f"{quantity}: expected float{list(expected)}, got shape {list(np.shape(value))}")
            out[..., place] = value
    return out


def part_dims(feature: str, name: str) -> int:
    """Width of a part of a feature set; a whole set is as wide as its name says."""
    match = re.fullmatch(r"mano(\d+)", feature)
    if feature not in FEATURE_SETS or match is None:
        raise ValueError(f"feature set: expected one of {', '.join(FEATURE_SETS)}, got {feature!r}")
    if name == "whole":
        return int(match[1])
    return sum(_quantities(FEATURE_SETS[feature], name).values())


def _widths(part: FeaturePart) -> dict[str, int]:
    part_dims(part.feature, part.name)  # raises for an unknown set
    widths = _quantities(FEATURE_SETS[part.feature], part.name)
    # The width in mano100's name does not add up; a whole part of it keeps what follows the pose without a meaning.
    if part.feature == "mano100" and part.name == "whole" and part.dims != sum(widths.values()):
        del widths["joints"]
    return widths


def _quantities(kind: _FeatureSet, name: str) -> dict[str, int]:
    wrist = {"rotation": 6 if kind.form == _ROT6D else 3, "trans": 3}
    theta = {"theta": _THETA_WIDTH[kind.form]}
    betas = {"betas": 10} if kind.betas else {}
    if name == "wrist":
        return wrist
    if name == "finger":
        return theta | betas | ({"joints": 60} if kind.keypoints else {})
    if name == "whole":
        return theta | wrist | betas | ({"joints": 63} if kind.keypoints else {})
    raise ValueError(f"part: expected wrist, finger or whole, got {name!r}")


def _features(value: ArrayLike, dims: int) -> FloatArray:
    array = np.asarray(value)
    if array.dtype.kind != "f" or array.ndim < 1 or array.shape[-1] != dims:
        raise ValueError(f"features: expected float[..., {dims}], got {array.dtype}{list(array.shape)}")
    return array.astype(np.float32, copy=False)
