"""The kinematics kernel itself: agreement with numpy, invariances, strict arguments, threads."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import numpy_reference as reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from beingh0_edge import _kernels, rotations
from beingh0_edge.hand_model import PARENTS, TIP_VERTICES, HandModel, HandPoints, Weights

# Metres; float32 with coordinates below 0.5 m, skinning sums up to 16 terms.
TOLERANCE_M = 1e-6
TIPS = ("manotorch", "smplx")


def random_hand(seed: int = 0) -> dict[str, np.ndarray]:
    """MANO's shapes with random contents; every vertex follows up to three joints."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((778, 16))
    for v in range(778):
        joints = rng.choice(16, rng.integers(1, 4), replace=False)
        weights[v, joints] = rng.dirichlet(np.ones(len(joints)))
    regressor = rng.random((16, 778)) * (rng.random((16, 778)) < 0.05)
    return {
        "v_template": rng.uniform(-0.1, 0.1, (778, 3)), "shapedirs": rng.normal(0, 0.003, (778, 3, 10)),
        "posedirs": rng.normal(0, 0.001, (778, 3, 135)), "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights, "kintree_table": np.array([[2**32 - 1, *PARENTS[1:]], range(16)]),
        "f": rng.integers(0, 778, (1538, 3)), "hands_components": rng.normal(0, 0.3, (45, 45)),
        "hands_mean": rng.normal(0, 0.2, 45)}


ARRAYS = random_hand()
HAND = HandModel(ARRAYS)
poses = npst.arrays(np.float32, (48,), elements=st.floats(-2, 2, width=32))


@cache
def hand_on(isa: str) -> HandModel:
    assert isa == _kernels.isa()  # whose kernels it gets
    return HandModel(ARRAYS)


def forward(pose: np.ndarray, betas: np.ndarray | None = None, tips: int = 0,
            hand: HandModel = HAND) -> tuple[np.ndarray, np.ndarray]:
    pose = np.asarray(pose, np.float32).reshape(-1, 16, 3)
    betas = np.zeros(10, np.float32) if betas is None else np.asarray(betas, np.float32)
    keypoints, mesh = np.empty((len(pose), 21, 3), np.float32), np.empty((len(pose), 778, 3), np.float32)
    hand._kernel.forward(pose, betas, None, "axis_angle", False, False, tips, keypoints, mesh)
    return keypoints, mesh


@pytest.mark.parametrize("tips", TIPS)
@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 20])
def test_keypoints_and_mesh_agree_with_numpy(isa: str, count: int, tips: str) -> None:
    rng = np.random.default_rng(count)
    pose, betas = rng.normal(0, 0.8, (count, 48)), rng.normal(0, 2, (count, 10))
    keypoints, mesh = forward(pose, betas, list(TIP_VERTICES).index(tips), hand_on(isa))
    for i in range(count):
        expected, expected_mesh = reference.hand(
            ARRAYS, reference.axis_angle_to_matrix(pose[i].reshape(16, 3)), betas[i], TIP_VERTICES[tips]["right"])
        assert np.abs(keypoints[i] - expected).max() < TOLERANCE_M
        assert np.abs(mesh[i] - expected_mesh).max() < TOLERANCE_M


def test_betas_for_all_and_per_hand_agree() -> None:
    rng = np.random.default_rng(2)
    pose, betas = rng.normal(0, 0.8, (5, 48)), rng.normal(0, 2, 10)
    shared, own = forward(pose, betas), forward(pose, np.tile(betas, (5, 1)))
    assert np.abs(shared[0] - own[0]).max() < TOLERANCE_M
    assert np.abs(shared[1] - own[1]).max() < TOLERANCE_M


def test_the_kept_shape_follows_the_betas() -> None:
    pose, betas = np.zeros(48), np.full(10, 2.0)
    before = forward(pose)[1]
    assert np.abs(forward(pose, betas)[1] - before).max() > 1e-3
    assert np.array_equal(forward(pose)[1], before)


@settings(max_examples=30)
@given(poses, npst.arrays(np.float32, 3, elements=st.floats(-3, 3, width=32)))
def test_turning_the_wrist_turns_the_whole_hand(pose: np.ndarray, turn: np.ndarray) -> None:
    extra = rotations.axis_angle_to_matrix(turn)
    matrices = rotations.axis_angle_to_matrix(pose.reshape(16, 3))
    before = HAND.forward_rotmats(matrices, vertices=True)
    matrices[0] = extra @ matrices[0]
    after = HAND.forward_rotmats(matrices, vertices=True)
    assert before.vertices is not None
    assert after.vertices is not None
    assert np.abs(after.joints - before.joints @ extra.T).max() < 2 * TOLERANCE_M
    assert np.abs(after.vertices - before.vertices @ extra.T).max() < 2 * TOLERANCE_M


@settings(max_examples=30)
@given(poses, npst.arrays(np.float32, 3, elements=st.floats(-2, 2, width=32)))
def test_translation_moves_every_point_by_the_same(pose: np.ndarray, trans: np.ndarray) -> None:
    for center in (True, False):
        still, moved = HAND.forward(pose, center=center), HAND.forward(pose, trans=trans, center=center)
        assert np.abs(moved.joints - still.joints - trans).max() < TOLERANCE_M


@settings(max_examples=30)
@given(poses)
def test_bones_keep_their_length(pose: np.ndarray) -> None:
    chain = [(i, i + 1) for start in (1, 5, 9, 13, 17) for i in (start, start + 1)]  # within fingers, without tips
    joints, rest = HAND.forward(pose).joints, HAND.forward(np.zeros(48)).joints
    for a, b in chain:
        assert abs(np.linalg.norm(joints[a] - joints[b]) - np.linalg.norm(rest[a] - rest[b])) < TOLERANCE_M


def test_threads_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(3)
    pose = rng.normal(0, 0.8, (16, 48))
    betas = rng.normal(0, 2, (4, 10))
    expected = {i: forward(pose, betas[i])[1] for i in range(4)}
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: (i % 4, forward(pose, betas[i % 4])[1]), range(60)))
    assert all(np.array_equal(mesh, expected[i]) for i, mesh in results)


@pytest.mark.parametrize(("name", "wrong", "message"), [
    ("pose", np.zeros((1, 16, 3)), r"pose: expected float32\[N, 16, 3\], got float64\[1, 16, 3\]"),
    ("pose", np.zeros((1, 15, 3), np.float32), r"pose: expected float32\[N, 16, 3\], got float32\[1, 15, 3\]"),
    ("pose", np.zeros(193, np.uint8)[1:].view(np.float32).reshape(1, 16, 3), r"got float32\[1, 16, 3\] not aligned"),
    ("pose", np.zeros((2, 16, 3), np.float32)[:, ::-1], "not C-contiguous"),
    ("betas", np.zeros((2, 10), np.float32), r"betas: expected float32\[1, 10\], got float32\[2, 10\]"),
    ("trans", np.zeros((2, 3), np.float32), r"trans: expected float32\[1, 3\], got float32\[2, 3\]"),
    ("mean_pose", True, "mean_pose: expected False with rotations"),
    ("pose", np.full((1, 16, 3), np.nan, np.float32), "pose: expected finite values, got 48 that are not"),
    ("kind", "euler", "kind: expected axis_angle, matrix, rot6d_interleaved, rot6d_columns or pca, got euler"),
    ("kind", "matrix", r"pose: expected float32\[N, 16, 3, 3\], got float32\[1, 16, 3\]"),
    ("keypoints", np.zeros((2, 21, 3), np.float32), r"keypoints: expected float32\[1, 21, 3\], got float32\[2,"),
    ("vertices", np.zeros((1, 778, 3)), r"vertices: expected float32\[1, 778, 3\], got float64\[1, 778, 3\]"),
    ("jacobian", np.zeros((1, 21, 3, 3), np.float32), r"jacobian: expected float32\[1, 21, 3, 48\]"),
    ("tips", 2, "tips: expected 0 or 1, got 2")])
def test_the_kernel_says_what_it_expected_and_got(name: str, wrong: object, message: str) -> None:
    arguments = {"pose": np.zeros((1, 16, 3), np.float32), "betas": np.zeros(10, np.float32), "trans": None,
                 "kind": "axis_angle", "mean_pose": False, "center": True, "tips": 0,
                 "keypoints": np.zeros((1, 21, 3), np.float32)}
    if name == "mean_pose":
        arguments |= {"kind": "matrix", "pose": np.zeros((1, 16, 3, 3), np.float32)}
    with pytest.raises(ValueError, match=message):
        HAND._kernel.forward(**(arguments | {name: wrong}))  # type: ignore[arg-type]


@pytest.mark.parametrize(("parents", "tips", "message"), [
    ([-1, *range(15)], np.full((2, 5), 778), "tips: expected vertices in"),
    ([-1, 1, *range(14)], np.zeros((2, 5)), "parents: expected -1, then each in"),
    ([0, *range(15)], np.zeros((2, 5)), "parents: expected -1, then each in")])
def test_indices_outside_the_model_are_refused(parents: list[int], tips: np.ndarray, message: str) -> None:
    single = {name: ARRAYS[name].astype(np.float32) for name in ("v_template", "shapedirs", "posedirs", "weights")}
    with pytest.raises(ValueError, match=message):
        _kernels.HandModel(j_regressor=ARRAYS["J_regressor"].astype(np.float32),
                           parents=np.array(parents, np.int32), tips=tips.astype(np.int32), **single,
                           mean_pose=np.zeros(45, np.float32), components=np.zeros((45, 45), np.float32))


KINDS = ("axis_angle", "matrix", "rot6d_interleaved", "rot6d_columns")


def call(kind: str, pose: np.ndarray, hand: HandModel = HAND, **options: Any) -> HandPoints:
    if kind == "axis_angle":
        return hand.forward(pose.reshape(-1, 48), **options)
    matrices = rotations.axis_angle_to_matrix(pose.reshape(-1, 16, 3))
    if kind == "matrix":
        return hand.forward_rotmats(matrices, **options)
    layout = kind.removeprefix("rot6d_")
    return hand.forward_rot6d(rotations.matrix_to_rot6d(matrices, layout), layout=layout, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_pose_agrees_with_numpy_on_every_instruction_set(isa: str, kind: str) -> None:
    rng = np.random.default_rng(4)
    pose, betas = rng.normal(0, 0.8, (9, 48)), rng.normal(0, 2, 10)
    points = call(kind, pose, hand_on(isa), betas=betas, center=False, vertices=True)
    assert points.vertices is not None
    for i in range(len(pose)):
        matrices = reference.axis_angle_to_matrix(pose[i].reshape(16, 3))
        expected, mesh = reference.hand(ARRAYS, matrices, betas, TIP_VERTICES["manotorch"]["right"])
        assert np.abs(points.joints[i] - expected).max() < TOLERANCE_M
        assert np.abs(points.vertices[i] - mesh).max() < TOLERANCE_M


@given(npst.arrays(np.float32, (16, 6), elements=st.floats(-2, 2, width=32)))
def test_6d_of_any_length_is_made_a_rotation(rot6d: np.ndarray) -> None:
    matrices = rotations.rot6d_to_matrix(rot6d)
    joints = HAND.forward_rot6d(rot6d).joints
    assert np.abs(joints - HAND.forward_rotmats(matrices).joints).max() < TOLERANCE_M


# Metres per radian: a few roundings of float32 on levers of 0.1 m; central differences in float64 are nearer.
JACOBIAN_TOLERANCE = 1e-7
STEP = 1e-5
dense = npst.arrays(np.float64, 48, elements=st.floats(-1, 1), fill=st.nothing())  # otherwise mostly one number
any_size = st.builds(lambda pose, size: (size * pose).astype(np.float32), dense, st.sampled_from([2, 5e-3, 1e-4]))


def check_slope(points: HandPoints, keypoints: Callable[[np.ndarray], np.ndarray], at: np.ndarray,
                direction: np.ndarray, tolerance: float = JACOBIAN_TOLERANCE) -> None:
    """The Jacobian times a direction against the change of the keypoints on a small step that way."""
    assert points.jacobian is not None
    assert points.jacobian.shape == (*points.joints.shape, len(direction))
    slope = (keypoints(at + STEP * direction) - keypoints(at - STEP * direction)) / (2 * STEP)
    assert np.abs(points.jacobian @ direction - slope).max() < tolerance * max(1, np.linalg.norm(direction))


def keypoints_of(matrices: np.ndarray, tips: str = "manotorch") -> np.ndarray:
    return reference.hand(ARRAYS, matrices, np.ones(10), TIP_VERTICES[tips]["right"])[0]


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("tips", TIPS)
@settings(max_examples=25)
@given(pose=any_size, direction=dense)
def test_the_jacobian_is_the_slope_of_the_keypoints(tips: str, pose: np.ndarray, direction: np.ndarray) -> None:
    points = hand_on(_kernels.isa()).forward(pose, np.ones(10), jacobian=True, tips=tips)
    check_slope(points, lambda p: keypoints_of(reference.axis_angle_to_matrix(p.reshape(16, 3)), tips),
                pose.astype(np.float64), direction)


@pytest.mark.usefixtures("isa")
@settings(max_examples=25)
@given(any_size, dense)
def test_the_jacobian_by_pca_coefficients_counts_the_mean_pose(pose: np.ndarray, direction: np.ndarray) -> None:
    def keypoints(p: np.ndarray) -> np.ndarray:
        fingers = p[3:] @ ARRAYS["hands_components"][:7] + ARRAYS["hands_mean"]
        return keypoints_of(reference.axis_angle_to_matrix(np.concatenate([p[:3], fingers]).reshape(16, 3)))

    points = hand_on(_kernels.isa()).forward(
        pose[:10], np.ones(10), jacobian=True, pca_components=7, flat_hand_mean=False)
    check_slope(points, keypoints, pose[:10].astype(np.float64), direction[:10], 3 * JACOBIAN_TOLERANCE)  # sums of 45


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("kind", KINDS[1:])
@settings(max_examples=25)
@given(pose=any_size, direction=dense)
def test_the_jacobian_of_rotations_turns_each_joint_in_its_parents_frame(
        kind: str, pose: np.ndarray, direction: np.ndarray) -> None:
    matrices = reference.axis_angle_to_matrix(pose.reshape(16, 3))
    points = call(kind, pose, hand_on(_kernels.isa()), betas=np.ones(10), jacobian=True)
    single = HandPoints(points.joints[0], jacobian=points.jacobian[0])  # type: ignore[index]
    check_slope(single, lambda delta: keypoints_of(reference.axis_angle_to_matrix(delta.reshape(16, 3)) @ matrices),
                np.zeros(48), direction)


# Metres, root mean square over vertices whose 135 blend shapes of about 1 mm are all at work.
@pytest.mark.parametrize(("storage", "tolerance_m"), [("bfloat16", 5e-5), ("int8", 1e-4)])
@pytest.mark.parametrize("count", [1, 2, 11])
def test_smaller_pose_blends_move_the_mesh_little_and_the_joints_not_at_all(
        isa: str, storage: Weights, tolerance_m: float, count: int) -> None:
    pose = np.random.default_rng(8).normal(0, 0.5, (count, 48))
    exact, near = (hand.forward(pose, vertices=True) for hand in (hand_on(isa), HandModel(ARRAYS, pose_blends=storage)))
    assert exact.vertices is not None
    assert near.vertices is not None
    assert np.array_equal(exact.joints, near.joints)
    assert 0 < np.sqrt(((exact.vertices - near.vertices)**2).mean()) < tolerance_m


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_a_hand_is_the_same_bits_alone_and_among_others(isa: str, storage: Weights) -> None:
    hand = HandModel(ARRAYS, pose_blends=storage)
    rng = np.random.default_rng(12)
    # 32 and 13: in tiles of 4, of 3 or less; a chain of full lanes, of some, and of one hand
    pose, betas, trans = rng.normal(0, 0.5, (45, 48)), rng.normal(0, 1, (45, 10)), rng.normal(0, 1, (45, 3))
    together = hand.forward(pose, betas, trans, vertices=True, jacobian=True)
    assert together.vertices is not None
    assert together.jacobian is not None
    for i in (0, 7, 15, 16, 29, 31, 32, 40, 44):
        for among in (1, 2):  # alone, and beside its neighbour
            few = slice(max(i + 1 - among, 0), i + 1)
            alone = hand.forward(pose[few], betas[few], trans[few], vertices=True, jacobian=True)
            assert np.array_equal(alone.joints[-1], together.joints[i])
            assert alone.vertices is not None
            assert np.array_equal(alone.vertices[-1], together.vertices[i])
            assert alone.jacobian is not None
            assert np.array_equal(alone.jacobian[-1], together.jacobian[i])


def test_a_result_can_be_written_over() -> None:
    pose = np.random.default_rng(9).normal(0, 0.5, (2, 3, 48))
    old = HAND.forward(np.zeros((2, 3, 48)), vertices=True, jacobian=True)
    new, expected = HAND.forward(pose, vertices=True, jacobian=True, out=old), HAND.forward(pose, vertices=True)
    assert new.joints is old.joints
    assert new.vertices is old.vertices
    assert new.jacobian is old.jacobian
    assert np.array_equal(old.joints, expected.joints)
    for wrong in (HandPoints(np.zeros((6, 21, 3), np.float32)), HandPoints(np.zeros((2, 3, 21, 3))),
                  HandPoints(np.zeros((2, 3, 21, 6), np.float32)[..., ::2])):
        with pytest.raises(ValueError, match=r"out\.joints: expected writeable, C-contiguous float32\[2, 3, 21, 3\]"):
            HAND.forward(pose, out=wrong)


def test_more_threads_give_the_same_bits() -> None:
    pose = np.random.default_rng(10).normal(0, 0.5, (200, 48))
    betas = np.random.default_rng(11).normal(0, 1, (200, 10))
    one = HAND.forward(pose, betas, np.ones(3), vertices=True, jacobian=True)
    three = HandModel(ARRAYS, threads=3).forward(pose, betas, np.ones(3), vertices=True, jacobian=True)
    assert np.array_equal(one.joints, three.joints)
    assert np.array_equal(one.vertices, three.vertices)  # type: ignore[arg-type]
    assert np.array_equal(one.jacobian, three.jacobian)  # type: ignore[arg-type]
