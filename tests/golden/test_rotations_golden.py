"""Rotation conversions and feature splits recorded with the official code."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from beingh0_edge import features, rotations

GOLDEN = dict(np.load(Path(__file__).parent / "data" / "rotations" / "golden.npz"))
# Both sides compute in float32; inputs with nearly parallel 6D columns lose a digit.
TOLERANCE = 2e-6


def error(actual: np.ndarray, name: str) -> float:
    expected = GOLDEN[name]
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max())


def test_6d_to_matrix_is_the_official_one() -> None:
    assert error(rotations.rot6d_to_matrix(GOLDEN["rot6d_in"]), "rot6d_to_rotmat") < TOLERANCE
    assert error(rotations.matrix_to_rot6d(GOLDEN["rot6d_to_rotmat"]), "rotmat_to_rot6d") == 0


def test_three_rotations_are_converted_row_by_row() -> None:
    """Upstream lets the library choose the axis of a cross product, so a batch of three comes out wrong there."""
    ours = rotations.rot6d_to_matrix(GOLDEN["rot6d_batch3_in"])
    assert error(ours, "rot6d_batch3_rowwise") < TOLERANCE
    assert error(ours, "rot6d_batch3_official") > 0.1


def test_axis_angles_are_the_official_ones() -> None:
    from_6d = rotations.matrix_to_axis_angle(rotations.rot6d_to_matrix(GOLDEN["rot6d_in"]))
    assert error(from_6d, "rot6d_to_axis_angle") < TOLERANCE
    matrices = rotations.axis_angle_to_matrix(GOLDEN["axis_angle_in"])
    assert error(matrices, "axis_angle_to_rotmat") < TOLERANCE
    assert error(rotations.matrix_to_rot6d(matrices), "axis_angle_to_rot6d") < TOLERANCE
    assert error(rotations.matrix_to_axis_angle(GOLDEN["axis_angle_to_rotmat"]),
                 "rotmat_to_axis_angle_kornia") < TOLERANCE


def test_the_quaternion_variant_means_the_same_rotation() -> None:
    """It may give angles beyond pi, so matrices are compared."""
    ours = rotations.axis_angle_to_matrix(rotations.matrix_to_axis_angle(GOLDEN["axis_angle_to_rotmat"]))
    theirs = rotations.axis_angle_to_matrix(GOLDEN["rotmat_to_axis_angle_quat"])
    assert np.abs(ours - theirs).max() < TOLERANCE


def test_quaternions_are_the_official_ones_up_to_sign() -> None:
    ours, theirs = rotations.matrix_to_quaternion(GOLDEN["axis_angle_to_rotmat"]), GOLDEN["rotmat_to_quaternion_wxyz"]
    assert np.minimum(np.abs(ours - theirs).max(1), np.abs(ours + theirs).max(1)).max() < TOLERANCE
    assert error(rotations.quaternion_to_matrix(GOLDEN["quaternion_in_wxyz"]), "quaternion_to_rotmat") < TOLERANCE
    axis_angle = rotations.quaternion_to_axis_angle(GOLDEN["quaternion_in_wxyz"])
    assert np.abs(rotations.axis_angle_to_matrix(axis_angle)
                  - rotations.axis_angle_to_matrix(GOLDEN["quaternion_to_axis_angle"])).max() < TOLERANCE


@dataclass(frozen=True)
class Part:
    feature: str
    name: str

    @property
    def dims(self) -> int:
        return features.part_dims(self.feature, self.name)


def parts_of(feature: str, *names: str) -> list[Part]:
    return [Part(feature, name) for name in names]


# Widths whose official reading agrees with the part list. 96 and 54 are misread there or no feature set.
SPLITS = {159: parts_of("mano162", "wrist", "finger"), 111: parts_of("mano114", "wrist", "finger"),
          **{n: parts_of(f"mano{n}", "whole") for n in (162, 114, 109, 100, 99, 51, 36)}}


@pytest.mark.parametrize("width", SPLITS)
def test_features_split_as_officially(width: int) -> None:
    split = features.split_features(GOLDEN[f"v2m_{width}_in"], SPLITS[width])
    assert error(split.rotation, f"v2m_{width}_rot") < TOLERANCE
    assert error(split.trans_m, f"v2m_{width}_trans") == 0
    assert error(split.theta_rad.reshape(2, 3, 45), f"v2m_{width}_theta") < TOLERANCE


def test_betas_of_mano109_are_found() -> None:
    where = features.columns(SPLITS[109])["betas"]
    assert error(GOLDEN["v2m_109_in"][..., where], "v2m_109_beta") == 0


@pytest.mark.parametrize("feature", ["mano36", "mano51", "mano99", "mano100", "mano109", "mano114", "mano162"])
def test_motion_becomes_the_official_part_features(feature: str) -> None:
    kind = features.FEATURE_SETS[feature]
    merged = features.merge_features(
        GOLDEN["m2v_rot_in"], GOLDEN["m2v_trans_in"], GOLDEN["m2v_theta_in"], parts_of(feature, "wrist", "finger"),
        betas=GOLDEN["m2v_beta_in"] if kind.betas else None,
        joints_m=GOLDEN["m2v_joints_in"] if kind.keypoints else None)
    wrist = GOLDEN[f"m2v_{feature}_wrist"].shape[-1]
    assert error(merged[:, :wrist], f"m2v_{feature}_wrist") < TOLERANCE
    assert error(merged[:, wrist:], f"m2v_{feature}_finger") < TOLERANCE
