"""Hand kinematics recorded with smplx, manotorch and the official inference wrapper."""

from pathlib import Path

import numpy as np
import pytest

from beingh0_edge import HandModel, rotations

GOLDEN = dict(np.load(Path(__file__).parent / "data" / "mano" / "golden.npz"))
# Metres; all sides compute in float32 with coordinates below 1 m.
TOLERANCE_M = 2e-6
CASES = [(side, flat, pca) for side in ("right", "left") for flat in (0, 1) for pca in (0, 1)]


def pose_of(side: str, pca: int) -> np.ndarray:
    fingers = GOLDEN[f"{side}_{'pca_coeffs' if pca else 'hand_pose'}"]
    return np.concatenate([GOLDEN[f"{side}_global_orient"], fingers], -1)


def error_m(actual: np.ndarray | None, name: str) -> float:
    assert actual is not None
    assert actual.shape == GOLDEN[name].shape
    return float(np.abs(actual - GOLDEN[name]).max())


@pytest.mark.parametrize(("side", "flat", "pca"), CASES)
def test_classic_mesh_is_that_of_smplx(side: str, flat: int, pca: int, golden_hands: dict[str, HandModel]) -> None:
    points = golden_hands[side].forward(
        pose_of(side, pca), GOLDEN[f"{side}_betas"], GOLDEN[f"{side}_transl"], center=False, tips="smplx",
        vertices=True, flat_hand_mean=bool(flat), pca_components=12 if pca else None)
    assert error_m(points.vertices, f"smplx_{side}_flat{flat}_pca{pca}_vertices") < TOLERANCE_M
    assert points.vertices is not None
    # smplx's own tips: thumb, index, middle, ring, little
    assert np.abs(points.joints[:, [4, 8, 12, 16, 20]] - points.vertices[:, [744, 320, 443, 554, 671]]).max() < 1e-6
    mano_order = [0, 5, 6, 7, 9, 10, 11, 17, 18, 19, 13, 14, 15, 1, 2, 3]
    assert error_m(points.joints[:, mano_order], f"smplx_{side}_flat{flat}_pca{pca}_joints16") < TOLERANCE_M


@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize(("side", "flat", "pca"), CASES)
def test_keypoints_are_those_of_manotorch(
        side: str, flat: int, pca: int, center: bool, golden_hands: dict[str, HandModel]) -> None:
    points = golden_hands[side].forward(
        pose_of(side, pca), GOLDEN[f"{side}_betas"], center=center, vertices=True, flat_hand_mean=bool(flat),
        pca_components=12 if pca else None)
    prefix = f"manotorch_{side}_flat{flat}_pca{pca}{'_center0' if center else ''}"
    assert error_m(points.joints, f"{prefix}_joints21") < TOLERANCE_M
    assert points.vertices is not None
    assert error_m(points.vertices[:, ::5], f"{prefix}_vertices_stride5") < TOLERANCE_M


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("relative", [0, 1])
def test_the_official_wrapper_is_reproduced(side: str, relative: int, golden_hands: dict[str, HandModel]) -> None:
    prefix = f"wrapper_rel{relative}_{side}"
    fingers = rotations.axis_angle_to_matrix(GOLDEN[f"{prefix}_theta"].reshape(-1, 15, 3))
    pose = np.concatenate([GOLDEN[f"{prefix}_rot"][:, None], fingers], 1)
    points = golden_hands[side].forward_rotmats(
        pose, GOLDEN[f"{prefix}_beta"], GOLDEN[f"{prefix}_trans"], center=bool(relative), vertices=True)
    assert error_m(points.joints, f"{prefix}_joints21") < TOLERANCE_M
    assert points.vertices is not None
    assert error_m(points.vertices[:, ::5], f"{prefix}_vertices_stride5") < TOLERANCE_M


@pytest.mark.parametrize("side", ["left", "right"])
def test_wrist_centred_translation_is_the_wrist_position(side: str, golden_hands: dict[str, HandModel]) -> None:
    trans = GOLDEN[f"wrapper_rel1_{side}_trans"]
    points = golden_hands[side].forward(np.zeros((len(trans), 48)), GOLDEN[f"wrapper_rel1_{side}_beta"], trans)
    assert np.abs(points.joints[:, 0] - trans).max() < 1e-7
