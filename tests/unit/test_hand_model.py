"""HandModel: what it accepts, what it says about bad files and arguments."""

import logging
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from test_mano import ARRAYS, HAND

from beingh0_edge import HandModel, rotations
from beingh0_edge.errors import BundleError

ASSETS = Path(__file__).parents[2] / "python" / "beingh0_edge" / "assets" / "hands"
TOLERANCE_M = 1e-6  # float32 with coordinates below 0.5 m


def save(path: Path, **changes: object) -> Path:
    np.savez(path, **{name: value for name, value in (ARRAYS | changes).items() if value is not None})  # type: ignore[arg-type]
    return path


def test_a_file_gives_the_same_hand_as_its_arrays(tmp_path: Path) -> None:
    pose = np.random.default_rng(0).normal(0, 0.5, (2, 3, 48))
    loaded = HandModel.load(save(tmp_path / "hand.npz")).forward(pose, vertices=True)
    direct = HAND.forward(pose, vertices=True)
    assert loaded.joints.shape == (2, 3, 21, 3)
    assert np.array_equal(loaded.joints, direct.joints)
    assert np.array_equal(loaded.vertices, direct.vertices)  # type: ignore[arg-type]


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_shipped_hands_load(side: str) -> None:
    hand = HandModel.load(ASSETS / f"synthetic_{side}.npz", side=side)  # type: ignore[arg-type]
    assert np.isfinite(hand.forward(np.zeros(48)).joints).all()
    assert hand.faces.shape == (1538, 3)
    assert hand.faces.dtype == np.int32


def test_without_vertices_there_are_none() -> None:
    assert HAND.forward(np.zeros(48)).vertices is None


def test_left_and_right_middle_tips_differ_as_in_manotorch() -> None:
    left = HandModel(ARRAYS, "left").forward(np.zeros(48), vertices=True, center=False)
    right = HAND.forward(np.zeros(48), vertices=True, center=False)
    assert left.vertices is not None
    assert right.vertices is not None
    assert np.allclose(left.joints[12], left.vertices[445], atol=TOLERANCE_M)
    assert np.allclose(right.joints[12], right.vertices[444], atol=TOLERANCE_M)


def test_pca_and_mean_pose_are_the_axis_angles_they_stand_for() -> None:
    rng = np.random.default_rng(1)
    wrist, coefficients = rng.normal(0, 1, 3), rng.normal(0, 1, 6)
    fingers = coefficients @ ARRAYS["hands_components"][:6] + ARRAYS["hands_mean"]
    short = HAND.forward(np.concatenate([wrist, coefficients]), pca_components=6, flat_hand_mean=False)
    full = HAND.forward(np.concatenate([wrist, fingers]))
    assert np.abs(short.joints - full.joints).max() < TOLERANCE_M


def test_betas_and_trans_broadcast_over_leading_axes() -> None:
    rng = np.random.default_rng(2)
    pose, betas, trans = rng.normal(0, 0.5, (4, 2, 48)), rng.normal(0, 1, (4, 1, 10)), rng.normal(0, 1, 3)
    points = HAND.forward(pose, betas, trans)
    one = HAND.forward(pose[3, 1], betas[3, 0], trans)
    assert np.abs(points.joints[3, 1] - one.joints).max() < TOLERANCE_M
    assert np.abs(points.joints[:, :, 0] - trans).max() < TOLERANCE_M


def test_wrist_and_finger_matrices_give_the_same_joints() -> None:
    pose = np.random.default_rng(3).normal(0, 0.5, (5, 16, 3))
    matrices = rotations.axis_angle_to_matrix(pose)
    joints = HAND.joints_from_rotmats(matrices[:, 0], matrices[:, 1:])
    assert np.abs(joints - HAND.forward(pose.reshape(5, 48)).joints).max() < TOLERANCE_M


def test_no_frames_give_no_points() -> None:
    points = HAND.forward(np.zeros((0, 48)), vertices=True)
    assert points.joints.shape == (0, 21, 3)
    assert points.vertices is not None
    assert points.vertices.shape == (0, 778, 3)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("large", [np.full(48, 1e30), np.r_[1e30, np.zeros(47)]])
@pytest.mark.parametrize("wanted", [{}, {"vertices": True}, {"jacobian": True}])
def test_a_pose_too_large_to_compute_with_is_refused_and_the_next_one_is_not(
        threads: int, large: np.ndarray, wanted: dict[str, bool]) -> None:
    hand, poses = HandModel(ARRAYS, "right", threads=threads), np.zeros((100, 48))
    good = hand.forward(poses, **wanted)  # type: ignore[arg-type]
    poses[70] = large
    with pytest.raises(ValueError, match=rf"^pose, betas, trans: expected a hand that is finite, .* up to "
                                         rf"{re.escape(f'{large[0]:g}')}, 0 and 0$"):
        hand.forward(poses, **wanted)  # type: ignore[arg-type]
    again = hand.forward(np.zeros((100, 48)), **wanted)  # type: ignore[arg-type]
    assert np.array_equal(again.joints, good.joints)


def test_matrices_betas_and_trans_too_large_together_are_refused() -> None:
    largest = np.full(3, np.finfo(np.float32).max)
    with pytest.raises(ValueError, match=r"of values up to 0, 3\.40282e\+38 and 3\.40282e\+38$"):
        HAND.forward(np.zeros(48), np.full(10, largest[0]), largest, center=False)
    with pytest.raises(ValueError, match=r"of values up to 1e\+20, 0 and 0$"):
        HAND.forward_rotmats(np.full((16, 3, 3), 1e20))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: HAND.forward(np.zeros(45)), r"pose: expected float\[\.\.\., 48\], got float64\[45\]"),
    (lambda: HAND.forward(np.zeros((2, 9)), pca_components=7), r"pose: expected float\[\.\.\., 10\]"),
    (lambda: HAND.forward(np.zeros(3), pca_components=0), "pca_components: expected 1 to 45, got 0"),
    (lambda: HAND.forward(np.full(48, np.nan)), "pose: expected finite values, got 48 that are not"),
    (lambda: HAND.forward(np.full(48, 1e300)), "pose: expected finite values, got 48 that are not"),
    (lambda: HAND.forward(np.zeros(48), trans=np.array([0, np.inf, 0])), "trans: expected finite values"),
    (lambda: HAND.forward(np.zeros((2, 48)), np.zeros((3, 10))), r"betas: expected \[10\] or \[2, 10\], got \[3, 10\]"),
    (lambda: HAND.forward(np.zeros(48), tips="mano"), "tips: expected one of manotorch, smplx, got 'mano'"),
    (lambda: HAND.forward(np.array(["a"] * 48)), "pose: expected float"),
    (lambda: HandModel(ARRAYS, "both"), "side: expected 'left' or 'right', got 'both'")])  # type: ignore[arg-type]
def test_wrong_arguments_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


@pytest.mark.parametrize(("changes", "message"), [
    ({"posedirs": None}, "posedirs: missing"),
    ({"weights": np.zeros((778, 15))}, r"weights: expected \[778, 16\], got \[778, 15\]"),
    ({"f": np.full((1538, 3), 778)}, r"f: expected vertices in \[0, 778\)"),
    ({"hands_mean": np.full(45, np.nan)}, "hands_mean: holds values that are not finite"),
    ({"v_template": np.zeros((778, 3), dtype="U1")}, "v_template: expected numbers"),
    ({"v_template": ARRAYS["v_template"] * 1000}, "expected a hand in metres"),
    ({"weights": ARRAYS["weights"] * 2}, "expected rows that sum to 1"),
    ({"kintree_table": np.zeros((2, 16))}, "kintree_table: expected parents")])
def test_a_bad_file_is_named_with_what_is_wrong(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = save(tmp_path / "hand.npz", **changes)
    with pytest.raises(BundleError, match=message) as caught:
        HandModel.load(path)
    assert str(path) in str(caught.value)


def test_everything_wrong_is_listed_at_once(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"f: missing; hands_mean: missing"):
        HandModel.load(save(tmp_path / "hand.npz", f=None, hands_mean=None))


def test_missing_truncated_and_foreign_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such file"):
        HandModel.load(tmp_path / "nowhere.npz")
    whole = save(tmp_path / "hand.npz").read_bytes()
    for content in (whole[:1000], whole[:-1000], b"", b"not a zip"):
        path = tmp_path / "broken.npz"
        path.write_bytes(content)
        with pytest.raises(BundleError, match=r"broken\.npz"):
            HandModel.load(path)


def test_pickled_objects_in_an_npz_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "hand.npz", f=np.array([{"a": 1}], dtype=object))
    with pytest.raises(BundleError, match="without pickled objects"):
        HandModel.load(path)


def test_a_file_that_says_it_is_the_other_hand_is_refused(tmp_path: Path) -> None:
    left = save(tmp_path / "LEFT.NPZ.npz", side="left").rename(tmp_path / "LEFT.NPZ")
    assert HandModel.load(left, "left").side == "left"
    with pytest.raises(BundleError, match=r"LEFT\.NPZ: expected a right hand, got a left one"):
        HandModel.load(left)


def test_shape_directions_beyond_ten_are_not_used(tmp_path: Path) -> None:
    more = np.concatenate([ARRAYS["shapedirs"], np.ones((778, 3, 5))], -1)
    hand = HandModel.load(save(tmp_path / "hand.npz", shapedirs=more))
    points = hand.forward(np.zeros(48), np.ones(10))
    assert np.array_equal(points.joints, HAND.forward(np.zeros(48), np.ones(10)).joints)


def test_a_plain_pickle_of_arrays_loads(tmp_path: Path) -> None:
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(pickle.dumps(ARRAYS, protocol=2))
    assert np.array_equal(HandModel.load(path).forward(np.ones(48)).joints, HAND.forward(np.ones(48)).joints)


@pytest.mark.parametrize(("sign", "warns"), [(-1, False), (1, True)])
def test_an_unmirrored_left_shape_basis_is_reported(
        tmp_path: Path, caplog: pytest.LogCaptureFixture, sign: int, warns: bool) -> None:
    dirs = ARRAYS["shapedirs"] * np.array([sign, 1, 1])[:, None]
    right = save(tmp_path / "right.npz")
    left = save(tmp_path / "left.npz", shapedirs=dirs, v_template=ARRAYS["v_template"] * [-1, 1, 1])
    with caplog.at_level(logging.WARNING):
        hands = HandModel.load_pair(left, right)
    assert ("x sign" in caplog.text) == warns
    assert np.array_equal(hands["left"].shape_dirs, dirs.astype(np.float32))  # never changed
