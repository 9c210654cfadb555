"""Retargeting: limits, meaning of the angles, continuity, exact Jacobian, both sides, and refusal of wrong
frames.
"""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy_reference as reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import beingh0_edge
from beingh0_edge import HandModel, HandMotion, MotionChunk, _kernels
from beingh0_edge import retarget as module
from beingh0_edge.errors import RetargetError
from beingh0_edge.retarget import Retargeter
from beingh0_edge.types import SIDES, Side

ASSETS = Path(beingh0_edge.__file__).parent / "assets"
JOINT_NAMES = ("little", "ring", "middle", "index", "thumb_bend", "thumb_rotation")  # as its registers
TIPS = [4, 8, 12, 16, 20]
ROTATION = 1e-14  # float64; an angle of 10 rad is scaled and measured again by the reference, to 2e-15
JACOBIAN_M = 1e-8  # central differences with a step of 1e-6 rad on coordinates of 0.2 m, float64
SETTLED_RAD = 2e-3  # the smoothness term leaves this much after SETTLE frames of the same pose
SETTLE = 12
MIRROR_RAD = 1e-5  # float32 keypoints of the two sides differ in their last bit
PINCH_M = 0.006  # the gap that may remain, or be too small, where the human closes it
OVERLAP_M = 0.0015  # the margin of 2 mm is soft; 1.44 mm was measured (Ability, positions), as docs/hands.md says
MAX_STEP_RAD = 0.15  # per frame, for a human who takes 30 frames from pose to pose; 0.121 was measured


def theta_by_name(side: Side) -> dict[str, np.ndarray]:
    with np.load(ASSETS / "hands" / f"synthetic_{side}.npz", allow_pickle=False) as file:
        return dict(zip([str(name) for name in file["pose_names"]], file["poses_rad"], strict=True))


MODELS = {side: HandModel.load(ASSETS / "hands" / f"synthetic_{side}.npz", side=side) for side in SIDES}
POSES = {side: theta_by_name(side) for side in SIDES}


def keypoints(theta_rad: np.ndarray, side: Side = "right", betas: np.ndarray | None = None,
              tips: str = "manotorch") -> np.ndarray:
    """float32[T, 21, 3] of finger poses float[T, 45], wrist at rest."""
    theta = np.atleast_2d(theta_rad)
    pose = np.concatenate([np.zeros((len(theta), 3)), theta], axis=1).astype(np.float32)
    return MODELS[side].forward(pose, betas, tips=tips).joints


def blend(*names: str, frames: int = 30, side: Side = "right") -> np.ndarray:
    """Keypoints of a motion through named poses, `frames` from each to the next."""
    poses = [POSES[side][name] for name in names]
    share = np.linspace(0.0, 1.0, frames, endpoint=False)[:, None]
    share = share**2 * (3 - 2 * share)
    parts = [(1 - share) * a + share * b for a, b in pairwise(poses)]
    return keypoints(np.concatenate([*parts, poses[-1][None]]), side)


def settled(retargeter: Retargeter, frame: np.ndarray) -> np.ndarray:
    """Angles after the same frame has been shown for a while, from the open hand."""
    retargeter.reset()
    return retargeter.retarget(np.repeat(frame.reshape(1, 21, 3), SETTLE, axis=0))[-1]


def closure(retargeter: Retargeter, q_rad: np.ndarray) -> dict[str, float]:
    share = (q_rad - retargeter.lower_rad) / (retargeter.upper_rad - retargeter.lower_rad)
    return dict(zip(retargeter.joint_names, share, strict=True))


def chunk(points: np.ndarray, start_s: float, side: Side = "right", dt_s: float = 1 / 15) -> MotionChunk:
    frames = len(points)
    motion = HandMotion(side=side, cam_from_wrist=np.tile(np.eye(4, dtype=np.float32), (frames, 1, 1)),
                        finger_rotvec_rad=np.zeros((frames, 15, 3), np.float32),
                        betas=np.zeros(10, np.float32), dt_s=dt_s)
    return MotionChunk(motion=motion, keypoints_wrist_m=points, start_s=start_s, ids=np.zeros(128, np.int32))


@pytest.fixture(params=["right", "left"])
def side(request: pytest.FixtureRequest) -> Side:
    return request.param


@pytest.fixture
def hand() -> Retargeter:
    return Retargeter.load("inspire_rh56", side="right")


def test_joints_come_by_name_little_finger_first(hand: Retargeter) -> None:
    assert hand.joint_names == JOINT_NAMES
    assert hand.lower_rad.shape == hand.upper_rad.shape == (6,)
    assert (hand.lower_rad == 0.0).all(), "0 rad is open"
    assert (hand.upper_rad > hand.lower_rad).all()


def test_the_open_hand_is_at_the_lower_limits(side: Side) -> None:
    retargeter = Retargeter.load("inspire_rh56", side=side)
    np.testing.assert_allclose(settled(retargeter, keypoints(POSES[side]["open"], side)), 0.0, atol=1e-6)


def test_a_fist_closes_every_finger_and_turns_the_thumb_in(side: Side) -> None:
    retargeter = Retargeter.load("inspire_rh56", side=side)
    share = closure(retargeter, settled(retargeter, keypoints(POSES[side]["fist"], side)))
    assert min(share[finger] for finger in ("little", "ring", "middle", "index")) > 0.9
    assert share["thumb_rotation"] > 0.9


def test_pointing_leaves_the_index_finger_open(side: Side) -> None:
    retargeter = Retargeter.load("inspire_rh56", side=side)
    share = closure(retargeter, settled(retargeter, keypoints(POSES[side]["point"], side)))
    assert share["index"] < 0.02
    assert min(share[finger] for finger in ("little", "ring", "middle")) > 0.85


@pytest.mark.parametrize(("finger", "joints"), [
    ("index", [0, 1, 2]), ("middle", [3, 4, 5]), ("little", [6, 7, 8]), ("ring", [9, 10, 11])])
def test_bending_one_finger_moves_its_joint_alone(hand: Retargeter, finger: str, joints: list[int]) -> None:
    with np.load(ASSETS / "hands" / "synthetic_right.npz") as file:
        axes = file["flexion_axes"]
    theta = np.zeros((15, 3))
    theta[joints] = np.radians(45) * axes[joints]
    share = closure(hand, settled(hand, keypoints(theta.ravel())))
    assert share.pop(finger) > 0.3
    assert max(share.values()) < 0.02


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.2, 0.6, 1.5, 4.0]))
def test_limits_are_never_violated(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    poses = rng.normal(0.0, spread, (20, 45))
    betas = rng.uniform(-2.0, 2.0, 10).astype(np.float32)
    retargeter = Retargeter.load("inspire_rh56")
    q = retargeter.retarget(keypoints(poses, betas=betas))
    assert np.isfinite(q).all()
    assert (q >= retargeter.lower_rad).all()
    assert (q <= retargeter.upper_rad).all()


def test_a_pinch_closes_the_gap_between_thumb_and_index(side: Side) -> None:
    retargeter = Retargeter.load("inspire_rh56", side=side)
    human = blend("open", "pinch", "relaxed", side=side)
    gap = np.linalg.norm(human[:, 4] - human[:, 8], axis=1)
    robot = retargeter.keypoints(retargeter.retarget(human))
    robot_gap = np.linalg.norm(robot[:, 4] - robot[:, 8], axis=1)
    closed = gap < 0.025
    assert closed.sum() >= 5
    assert np.abs(robot_gap - gap)[closed].max() < PINCH_M


def test_without_the_pinch_term_the_gap_stays_open() -> None:
    retargeter = Retargeter.load("inspire_rh56", pinch_weight=0.0)
    robot = retargeter.keypoints(settled(retargeter, keypoints(POSES["right"]["pinch"])))
    assert np.linalg.norm(robot[4] - robot[8]) > 0.025


def test_the_width_of_a_grasp_is_kept(hand: Retargeter) -> None:
    human = keypoints(POSES["right"]["grasp"])[0]
    robot = hand.keypoints(settled(hand, human))
    assert abs(np.linalg.norm(robot[4] - robot[8]) - np.linalg.norm(human[4] - human[8])) < PINCH_M


def test_a_smooth_hand_gives_smooth_angles(hand: Retargeter) -> None:
    q = hand.retarget(blend("open", "fist", "pinch", "grasp", "open"))
    assert np.abs(np.diff(q, axis=0)).max() < MAX_STEP_RAD


def test_the_warm_start_carries_over_between_calls(hand: Retargeter) -> None:
    human = blend("open", "grasp", "fist")
    together = hand.retarget(human)
    hand.reset()
    pieces = np.concatenate([hand.retarget(part) for part in (human[:17], human[17:18], human[18:])])
    np.testing.assert_array_equal(pieces, together)


def test_reset_starts_from_the_open_hand_again(hand: Retargeter) -> None:
    frame = keypoints(POSES["right"]["grasp"])
    first = hand.retarget(frame)
    assert not np.array_equal(hand.retarget(frame), first)
    hand.reset()
    np.testing.assert_array_equal(hand.retarget(frame), first)


def test_no_frames_give_no_angles(hand: Retargeter) -> None:
    assert hand.retarget(np.empty((0, 21, 3), np.float32)).shape == (0, 6)


def test_a_mirrored_left_hand_gives_the_same_angles() -> None:
    # smplx's tip ids: manotorch's middle tip is another vertex on the left, a few millimetres away.
    right_open, left_open = (keypoints(np.zeros(45), s, tips="smplx")[0] for s in ("right", "left"))
    right = Retargeter.load("inspire_rh56", "right", open_keypoints_wrist_m=right_open)
    left = Retargeter.load("inspire_rh56", "left", open_keypoints_wrist_m=left_open)
    for name in POSES["right"]:
        q_right = settled(right, keypoints(POSES["right"][name], "right", tips="smplx"))
        q_left = settled(left, keypoints(POSES["left"][name], "left", tips="smplx"))
        np.testing.assert_allclose(q_left, q_right, atol=MIRROR_RAD, err_msg=name)


def test_forward_kinematics_of_the_two_sides_are_mirror_images() -> None:
    q = np.random.default_rng(0).uniform(0.0, 0.6, (5, 6))
    right, left = (Retargeter.load("inspire_rh56", s).keypoints(q) for s in ("right", "left"))
    np.testing.assert_allclose(left, right * [1, -1, 1], atol=1e-12)


def test_keypoints_have_the_order_of_a_human_hand(hand: Retargeter) -> None:
    points = hand.keypoints(np.zeros(6))
    assert points.shape == (21, 3)
    np.testing.assert_array_equal(points[0], 0.0)
    assert (points[5:, 0] > 0.1).all(), "the fingers lie ahead of the wrist"
    assert points[5, 1] > points[9, 1] > points[13, 1] > points[17, 1], "index is on the thumb's side"
    closed = hand.keypoints(hand.upper_rad)
    assert (closed[TIPS[1:], 2] < points[TIPS[1:], 2]).all(), "fingers close towards the palm"


def test_coupled_hinges_reach_their_stops_together(hand: Retargeter) -> None:
    description = json.loads((ASSETS / "robots" / "inspire_rh56_right.json").read_text())
    upper = {joint["name"]: joint["upper_rad"] for joint in description["joints"]}
    travel = {link["name"]: link["multiplier"] * upper[link["joint"]] for link in description["links"]}
    assert travel["index_distal"] == pytest.approx(1.82, abs=2e-3)
    assert travel["thumb_distal"] == pytest.approx(0.77, abs=2e-3)


@pytest.mark.parametrize("name", ["relaxed", "pre_grasp", "grasp", "pinch", "point", "fist"])
def test_no_nearby_angles_are_better(hand: Retargeter, name: str) -> None:
    human = keypoints(POSES["right"][name])
    previous = np.full(6, 0.3)
    q = hand._kernel.solve(human, previous)[0][0]
    best = hand._kernel.objective(human[0].astype(float), previous, q)
    rng = np.random.default_rng(4)
    for size in (1e-3, 1e-2, 1e-1):
        for _ in range(50):
            other = np.clip(q + rng.normal(0.0, size, 6), hand.lower_rad, hand.upper_rad)
            assert hand._kernel.objective(human[0].astype(float), previous, other) >= best - 1e-12


def test_holding_still_settles(hand: Retargeter) -> None:
    frame = keypoints(POSES["right"]["grasp"])
    q = hand.retarget(np.repeat(frame, 2 * SETTLE, axis=0))
    np.testing.assert_allclose(q[SETTLE], q[-1], atol=SETTLED_RAD)


def test_finger_lengths_of_the_human_do_not_open_or_close_the_robot() -> None:
    betas = np.zeros(10, np.float32)
    betas[[0, 1]] = 2.0  # a large hand with long fingers
    opened = keypoints(np.zeros(45), betas=betas)[0]
    retargeter = Retargeter.load("inspire_rh56", open_keypoints_wrist_m=opened)
    np.testing.assert_allclose(settled(retargeter, opened), 0.0, atol=1e-6)


def test_a_chunk_becomes_a_trajectory(hand: Retargeter) -> None:
    human = blend("open", "grasp", frames=14)
    trajectory = hand.trajectory(chunk(human, start_s=2.0))
    assert trajectory.joint_names == JOINT_NAMES
    assert trajectory.q_rad.dtype == trajectory.t_s.dtype == np.float64
    np.testing.assert_allclose(trajectory.t_s, np.arange(15) / 15, atol=1e-12)
    hand.reset()
    np.testing.assert_array_equal(trajectory.q_rad, hand.retarget(human))


def test_consecutive_chunks_join_without_a_seam(hand: Retargeter) -> None:
    human = blend("open", "grasp", "fist", frames=15)[:30]
    trajectory = hand.trajectory([chunk(human[:15], 0.0), chunk(human[15:], 1.0)])
    np.testing.assert_allclose(np.diff(trajectory.t_s), 1 / 15, atol=1e-12)
    hand.reset()
    np.testing.assert_array_equal(trajectory.q_rad, hand.retarget(human))


def test_chunks_that_do_not_follow_each_other_are_refused(hand: Retargeter) -> None:
    human = blend("open", "grasp", frames=14)
    with pytest.raises(ValueError, match=r"chunk 1: expected to begin 1\.000 s .* got 2\.000 s"):
        hand.trajectory([chunk(human, 0.0), chunk(human, 2.0)])
    with pytest.raises(ValueError, match="expected the right hand, got the left one"):
        hand.trajectory(chunk(keypoints(POSES["left"]["open"], "left"), 0.0, side="left"))
    with pytest.raises(ValueError, match="at least one"):
        hand.trajectory([])


def test_what_is_no_chunk_is_named(hand: Retargeter) -> None:
    human = blend("open", "grasp", frames=14)
    for wrong, said in ((None, "chunk 0: expected a MotionChunk, got NoneType"),
                        (human, "chunk 0: expected a MotionChunk, got ndarray"),
                        ([chunk(human, 0.0), human], "chunk 1: expected a MotionChunk, got ndarray")):
        with pytest.raises(TypeError, match=said):
            hand.trajectory(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_frame_that_is_not_finite_is_named_and_nothing_is_remembered(hand: Retargeter, bad: float) -> None:
    human = blend("open", "grasp", frames=10)
    expected = hand.retarget(human)
    hand.reset()
    broken = human.copy()
    broken[7, 20, 2] = bad
    with pytest.raises(RetargetError, match="frame 7: keypoints are not finite") as caught:
        hand.retarget(broken)
    assert caught.value.frame == 7
    np.testing.assert_array_equal(hand.retarget(human), expected)


def test_camera_coordinates_are_refused(hand: Retargeter) -> None:
    with pytest.raises(RetargetError, match=r"frame 0: the wrist is 0\.5 m from the origin.*camera"):
        hand.retarget(keypoints(np.zeros(45)) + np.float32([0.0, 0.0, 0.5]))


def test_a_turned_wrist_is_refused(hand: Retargeter) -> None:
    pose = np.zeros((1, 48), np.float32)
    pose[0, 2] = np.pi / 2
    with pytest.raises(RetargetError, match="turned by 90 degrees against the wrist frame"):
        hand.retarget(MODELS["right"].forward(pose).joints)


def test_the_other_hand_is_refused(side: Side) -> None:
    other: Side = "left" if side == "right" else "right"
    with pytest.raises(RetargetError, match=f"mirrored: a {other} hand, expected a {side} one"):
        Retargeter.load("inspire_rh56", side).retarget(keypoints(POSES[other]["grasp"], other))


@pytest.mark.parametrize(("factor", "message"), [
    (1000.0, "millimetres"), (3.0, "expected about"), (0.3, "expected about")])
def test_other_units_and_sizes_are_refused(hand: Retargeter, factor: float, message: str) -> None:
    with pytest.raises(RetargetError, match=message):
        hand.retarget(keypoints(np.zeros(45)) * np.float32(factor))


def test_a_fingertip_far_from_the_hand_is_refused(hand: Retargeter) -> None:
    human = blend("open", "grasp", frames=5)
    human[3, 12, 0] = -7.0
    with pytest.raises(RetargetError, match=r"frame 3: keypoint 12 is 7 m from the wrist") as caught:
        hand.retarget(human)
    assert caught.value.frame == 3


def test_another_keypoint_order_is_refused(hand: Retargeter) -> None:
    order = [0, *range(17, 21), *range(5, 17), *range(1, 5)]  # thumb last
    with pytest.raises(RetargetError, match=r"do not form a hand|mirrored|turned"):
        hand.retarget(keypoints(np.zeros(45))[:, order])


def test_wrong_arrays_are_refused(hand: Retargeter) -> None:
    human = keypoints(np.zeros(45))
    with pytest.raises(ValueError, match=r"expected float32\[T, 21, 3\], got float64\[1, 21, 3\]"):
        hand.retarget(human.astype(np.float64))
    with pytest.raises(ValueError, match=r"got float32\[1, 16, 3\]"):
        hand.retarget(human[:, :16])
    with pytest.raises(TypeError, match="got list"):
        hand.retarget(human.tolist())
    with pytest.raises(ValueError, match=r"q_rad: expected \[\.\.\., 6\], got \[5\]"):
        hand.keypoints(np.zeros(5))


def test_unknown_robots_and_sides_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"unknown robot 'inspire_rh65'; known: .*inspire_rh56"):
        Retargeter.load("inspire_rh65")
    with pytest.raises(ValueError, match="side: expected 'left' or 'right', got 'both'"):
        Retargeter.load("inspire_rh56", "both")  # type: ignore[arg-type]


def test_the_kernel_checks_its_own_input(hand: Retargeter) -> None:
    human, start = keypoints(np.zeros(45)), np.zeros(6)
    with pytest.raises(ValueError, match="outside its limits"):
        hand._kernel.solve(human, start - 0.1)
    with pytest.raises(ValueError, match="not finite"):
        hand._kernel.solve(human * np.float32(np.nan), start)
    with pytest.raises(ValueError, match=r"expected float64\[6\], got float64\[5\]"):
        hand._kernel.solve(human, np.zeros(5))
    with pytest.raises(TypeError):
        _kernels.RetargetSolver()


@pytest.mark.parametrize(("arguments", "message"), [
    ({"q_rad": np.zeros(6)}, r"q_rad: expected float64\[N, N\], got float64\[6\]"),
    ({"q_rad": np.zeros((1, 6), np.float32)}, r"q_rad: expected float64\[N, N\], got float32\[1, 6\]"),
    ({"q_rad": np.zeros((6, 1)).T[:, ::2]}, "not C-contiguous"),
    ({"q_rad": np.full((1, 6), np.nan)}, "q_rad: expected finite values, got 6 that are not"),
    ({"q_rad": np.zeros((1, 5))}, "link [0-9]*: unknown joint 5"),
    ({"q_rad": np.zeros((1, 33))}, "joints: expected 1 to 32, got 33"),
    ({"point_links": np.array([99], np.int32)}, "point 0: unknown link"),
    ({"point_links": np.array([0], np.int64)}, r"point_links: expected int32\[1\], got int64\[1\]"),
    ({"points": np.zeros((2, 3))}, r"points: expected float64\[1, 3\], got float64\[2, 3\]"),
    ({"point_links": np.empty(0, np.int32), "points": np.empty((0, 3))}, "points: expected 1 to 64, got 0"),
    ({"axes": np.zeros((12, 3))}, "link 0: the axis must have length 1, got 0"),
])
def test_what_cannot_be_placed_is_named(hand: Retargeter, arguments: dict[str, Any], message: str) -> None:
    robot = hand.robot
    good = {"q_rad": np.zeros((1, 6)), "parents": robot.parents, "origins": robot.origins_m, "axes": robot.axes,
            "link_joints": robot.link_joints, "multipliers": robot.multipliers, "offsets": robot.offsets_rad,
            "point_links": np.array([0], np.int32), "points": np.zeros((1, 3))}
    assert _kernels.hand_points(**good).shape == (1, 1, 3)
    assert _kernels.hand_points(**good | {"q_rad": np.empty((0, 6))}).shape == (0, 1, 3)
    with pytest.raises(ValueError, match=message):
        _kernels.hand_points(**good | arguments)


@settings(max_examples=100, deadline=None)
@given(axis=st.lists(st.floats(-1.0, 1.0), min_size=3, max_size=3).filter(lambda v: np.linalg.norm(v) > 1e-3),
       angle=st.floats(-10.0, 10.0))
def test_a_rotation_about_an_axis_equals_the_numpy_reference(axis: list[float], angle: float) -> None:
    unit = np.array(axis) / np.linalg.norm(axis)
    expected = reference.axis_angle_to_matrix(angle * unit)
    np.testing.assert_allclose(_kernels.rotation_about(unit, angle), expected, atol=ROTATION)


@pytest.mark.parametrize(("axis", "angle", "message"), [
    (np.array([0.0, 0.0, 2.0]), 1.0, "axis must have length 1, got 2"),
    (np.array([0.0, 0.0, np.nan]), 1.0, "axis: expected finite values, got 1 that are not"),
    (np.array([0, 0, 1]), 1.0, r"axis: expected float64\[3\], got int64\[3\]"),
    (np.array([0.0, 0.0, 1.0]), np.inf, "angle_rad: expected a finite number, got inf"),
])
def test_an_axis_or_angle_that_is_none_is_named(axis: np.ndarray, angle: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _kernels.rotation_about(axis, angle)


def test_a_hand_with_fewer_fingers_is_followed(hand: Retargeter) -> None:
    fingers = {name: points for name, points in hand.robot.fingers.items() if name != "little"}
    four = Retargeter(replace(hand.robot, fingers=fingers), module.open_hand("right"))
    assert four.keypoints(np.zeros(6)).shape == (17, 3)
    share = closure(four, settled(four, keypoints(POSES["right"]["fist"])))
    assert min(share[finger] for finger in ("ring", "middle", "index")) > 0.9
    assert share["little"] == 0.0, "nothing drives it"


# ---- every hand, every objective ----

ROBOTS = module.known_robots()
OBJECTIVES = ["fingers", "vectors", "positions"]
EXACT_M = 1e-12  # float64 in another order, on coordinates of 0.3 m
OBJECTIVE = 1e-9  # relative; float64 in another order, a pair's missing millimetre comes of distances of 0.1 m
GRADIENT = 1e-6  # relative to the gradient's size; central differences with a step of 1e-6 rad
EQUIVARIANCE_RAD = 2e-4  # float32 keypoints, turned: their last bit times the solver's stopping rule


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("robot", ROBOTS)
def test_every_hand_follows_within_its_limits(robot: str, objective: module.Objective, side: Side) -> None:
    retargeter = Retargeter.load(robot, side, objective=objective)
    q = retargeter.retarget(blend("open", "fist", "pinch", "point", "open", frames=12, side=side))
    assert np.isfinite(q).all()
    assert (q >= retargeter.robot.natural_rad[0]).all()
    assert (q <= retargeter.robot.natural_rad[1]).all()
    assert np.abs(np.diff(q, axis=0)).max() > 0.05, "it moves"


@pytest.mark.parametrize("robot", ROBOTS)
def test_every_hand_closes_a_pinch(robot: str, side: Side) -> None:
    retargeter = Retargeter.load(robot, side)
    human = keypoints(POSES[side]["pinch"], side)[0]
    robot_points = retargeter.keypoints(settled(retargeter, human))
    assert np.linalg.norm(human[4] - human[8]) < 0.025
    assert abs(np.linalg.norm(robot_points[4] - robot_points[8]) - np.linalg.norm(human[4] - human[8])) < PINCH_M


@pytest.mark.parametrize("robot", ROBOTS)
def test_an_open_human_hand_opens_every_hand(robot: str, side: Side) -> None:
    retargeter = Retargeter.load(robot, side, collision_margin_m=None)
    reached = retargeter.keypoints(settled(retargeter, module.open_hand(side)))
    opened = retargeter.keypoints(retargeter.robot.open_rad)
    np.testing.assert_allclose(reached, opened, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(robot=st.sampled_from(ROBOTS), objective=st.sampled_from(OBJECTIVES), seed=st.integers(0, 2**32 - 1),
       pose=st.sampled_from(["grasp", "pinch", "fist", "open"]))
def test_the_gradient_equals_finite_differences(robot: str, objective: module.Objective, seed: int, pose: str) -> None:
    retargeter = Retargeter.load(robot, objective=objective)
    low, high = retargeter.robot.natural_rad
    human = keypoints(POSES["right"][pose])[0].astype(float)
    rng = np.random.default_rng(seed)
    previous, q = rng.uniform(low, high, (2, len(low)))
    gradient = retargeter._kernel.gradient(human, previous, q)
    for joint in range(len(q)):
        step = np.zeros(len(q))
        step[joint] = 1e-6
        difference = (retargeter._kernel.objective(human, previous, q + step)
                      - retargeter._kernel.objective(human, previous, q - step)) / 2e-6
        assert abs(gradient[joint] - difference) < GRADIENT * max(1.0, float(np.abs(gradient).max()))


@settings(max_examples=20, deadline=None)
@given(robot=st.sampled_from(ROBOTS), objective=st.sampled_from(OBJECTIVES), seed=st.integers(0, 2**32 - 1))
def test_turning_the_human_frame_changes_nothing(robot: str, objective: module.Objective, seed: int) -> None:
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    human, opened = blend("open", "grasp", "pinch", frames=6), module.open_hand("right")
    straight = Retargeter.load(robot, objective=objective).retarget(human)
    turned = Retargeter.load(robot, objective=objective,
                             open_keypoints_wrist_m=(opened @ turn.T).astype(np.float32))
    np.testing.assert_allclose(turned.retarget((human @ turn.T).astype(np.float32)), straight, atol=EQUIVARIANCE_RAD)


def test_positions_put_the_tips_where_the_human_has_them() -> None:
    """The robot is as far from its wrist as the human, wherever that wrist is said to be."""
    retargeter = Retargeter.load("shadow_hand", objective="positions", pinch_weight=0.0)
    human = keypoints(POSES["right"]["relaxed"])[0].astype(float)
    wanted = retargeter.wrist_m + human[TIPS] @ retargeter.palm_from_wrist.T
    reached = retargeter.keypoints(settled(retargeter, human.astype(np.float32)))[TIPS]
    assert np.linalg.norm(reached - wanted, axis=1).mean() < 0.012
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = retargeter.palm_from_wrist, retargeter.wrist_m
    again = Retargeter.load("shadow_hand", objective="positions", pinch_weight=0.0, palm_from_wrist=pose)
    np.testing.assert_array_equal(settled(again, human.astype(np.float32)),
                                  settled(retargeter, human.astype(np.float32)))


def test_vectors_scale_with_the_hand() -> None:
    scale = Retargeter.load("allegro_v4", objective="vectors").scale
    assert 1.2 < scale < 1.4, "an Allegro finger is longer than a human one"


@pytest.mark.parametrize("robot", ROBOTS)
def test_forward_kinematics_equal_the_numpy_reference(robot: str, side: Side) -> None:
    retargeter = Retargeter.load(robot, side)
    hand = retargeter.robot
    for q in np.random.default_rng(1).uniform(hand.lower_rad, hand.upper_rad, (5, len(hand.joint_names))):
        expected = reference.robot_fingers(hand, q)
        points = hand.points_m(q)
        assert [*points] == [*expected]
        for finger in points:
            np.testing.assert_allclose(points[finger], expected[finger], atol=EXACT_M)
        np.testing.assert_array_equal(retargeter.keypoints(q), np.concatenate([np.zeros((1, 3)), *points.values()]))


def kernel_points(retargeter: Retargeter, q: np.ndarray) -> np.ndarray:
    """The numpy reference's, in the order of the kernel: fingertips, other points, ends of rods."""
    points = reference.robot_fingers(retargeter.robot, q)
    rods = reference.robot_rods(retargeter.robot, q)
    return np.array([*(points[finger][k] for finger, k in retargeter._order), *(four[3] for four in rods.values())])


@pytest.mark.parametrize("robot", ROBOTS)
def test_the_jacobian_equals_finite_differences(robot: str, side: Side) -> None:
    retargeter = Retargeter.load(robot, side)
    hand = retargeter.robot
    for q in np.random.default_rng(2).uniform(hand.lower_rad, hand.upper_rad, (2, len(hand.joint_names))):
        jacobian = retargeter._kernel.jacobian(q)
        for joint, step in enumerate(1e-6 * np.eye(len(q))):
            difference = (kernel_points(retargeter, q + step) - kernel_points(retargeter, q - step)) / 2e-6
            np.testing.assert_allclose(jacobian[:, :, joint], difference, atol=JACOBIAN_M)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("robot", ROBOTS)
def test_the_objective_equals_the_numpy_reference(robot: str, objective: module.Objective, side: Side) -> None:
    pose = np.eye(4)
    pose[:3, :3] = reference.axis_angle_to_matrix(np.array([0.2, -0.1, 0.3]))
    pose[:3, 3] = [0.01, -0.02, 0.03]
    variants: list[dict[str, Any]] = [{}, {"collision_margin_m": 0.02}, {"collision_margin_m": None},
                                      {"pinch_weight": 0.0, "smoothness_m2": 0.0}]
    variants += [{"palm_from_wrist": pose}] if objective != "fingers" else []
    variants += [{"scale": 1.6}] if objective == "vectors" else []
    rng, seen = np.random.default_rng(3), dict.fromkeys(("near", "far", "pinch", "pairs", "smoothness"), 0.0)
    for options in variants:
        retargeter = Retargeter.load(robot, side, objective=objective, **options)
        low, high = retargeter.robot.natural_rad
        for name in ("grasp", "pinch", "fist"):
            human = keypoints(POSES[side][name], side)[0].astype(float)
            previous, elsewhere = rng.uniform(low, high, (2, len(low)))
            for q in (elsewhere, settled(retargeter, human.astype(np.float32))):
                terms = reference.retarget_terms(
                    retargeter.robot, module.open_hand(side).astype(float), retargeter.palm_from_wrist, human,
                    previous, q, objective=objective, pinch_weight=options.get("pinch_weight", module.PINCH_WEIGHT),
                    smoothness=options.get("smoothness_m2", module.SMOOTHNESS_M2),
                    margin=options.get("collision_margin_m", 0.002), scale=options.get("scale"),
                    wrist=pose[:3, 3] if "palm_from_wrist" in options else None)
                value = retargeter._kernel.objective(human, previous, q)
                assert value == pytest.approx(sum(terms.values()), rel=OBJECTIVE), (options, name)
                seen = {term: seen[term] + terms[term] for term in seen}
    assert min(seen.values()) > 0.0, f"every term was there: {seen}"


@pytest.mark.parametrize("robot", ROBOTS)
def test_distances_between_fingers_equal_the_numpy_reference(robot: str, side: Side) -> None:
    retargeter = Retargeter.load(robot, side)
    low, high = retargeter.robot.natural_rad
    for q in np.random.default_rng(5).uniform(low, high, (6, len(low))):
        expected, radii = reference.rod_distances(retargeter.robot, q)
        np.testing.assert_allclose(retargeter._kernel.pair_distances(q), expected, atol=EXACT_M)
        assert retargeter.clearance_m(q) == pytest.approx(float((expected - radii).min()), abs=EXACT_M)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("robot", ROBOTS)
def test_fingers_keep_apart_where_they_would_overlap(robot: str, objective: module.Objective, side: Side) -> None:
    human = blend("open", "fist", "pinch", "grasp", "fist", frames=20, side=side)
    watch = Retargeter.load(robot, side, collision_margin_m=0.0)

    def clearance_m(retargeter: Retargeter) -> float:
        return min(watch.clearance_m(q) for q in retargeter.retarget(human))

    free = Retargeter.load(robot, side, objective=objective, collision_margin_m=None)
    assert clearance_m(free) < -0.002, "without the margin they overlap"
    assert clearance_m(Retargeter.load(robot, side, objective=objective)) > -OVERLAP_M
    assert clearance_m(Retargeter.load(robot, side, objective=objective, collision_margin_m=0.005)) > 0.0
    assert free.clearance_m(free.robot.open_rad) == np.inf


@pytest.mark.parametrize(("arguments", "message"), [
    ({"objective": "vector"}, "objective: expected fingers, vectors, positions, got 'vector'"),
    ({"scale": 1.2}, "scale: only for the objective vectors"),
    ({"objective": "vectors", "scale": 0.0}, r"scale: expected 0\.1 to 10, got 0\.0"),
    ({"palm_from_wrist": np.eye(4)}, "palm_from_wrist: only for the objectives vectors and positions"),
    ({"objective": "positions", "palm_from_wrist": np.eye(3)}, r"palm_from_wrist: expected finite float64\[4, 4\]"),
    ({"objective": "positions", "palm_from_wrist": 2 * np.eye(4)}, "not a rotation"),
    ({"collision_margin_m": 1.0}, "collision_margin_m: expected -0.01 to 0.05 or None, got 1.0"),
    ({"pinch_weight": -1.0}, "pinch_weight >= 0"),
    ({"smoothness_m2": float("nan")}, "smoothness_m2 >= 0"),
])
def test_wrong_arguments_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Retargeter.load("inspire_rh56", **arguments)  # type: ignore[arg-type]


INSPIRE = Retargeter.load("inspire_rh56")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), size=st.sampled_from([0.0, 1e-4, 0.02, 0.2]))
def test_only_hands_pass_the_quick_check_of_frames(seed: int, size: float) -> None:
    """The kernel's check and the one in words agree on what is a hand."""
    hand = INSPIRE
    hand.reset()
    rng = np.random.default_rng(seed)
    human = (module.open_hand("right") + rng.normal(0.0, size, (21, 3))).astype(np.float32)
    reference, points = hand._open, human.astype(float)
    palm = [0, 1, 5, 9, 13, 17]
    length = np.linalg.norm(reference[9])
    ratio = np.linalg.norm(points[9]) / length
    good = (np.linalg.norm(points[0]) <= 0.005 and 0.5 <= ratio <= 2.0
            and np.linalg.norm(points, axis=1).max() <= 2.0 * np.linalg.norm(reference, axis=1).max()
            and np.linalg.norm(points[palm] / ratio - reference[palm], axis=1).max() <= 0.3 * length)
    if good:
        assert hand.retarget(human[None]).shape == (1, 6)
    else:
        with pytest.raises(RetargetError, match="frame 0"):
            hand.retarget(human[None])
