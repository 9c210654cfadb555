"""The limiter and the trajectories: whatever is asked, the commanded pose keeps its bounds."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beingh0_edge.firmware_bridge import _bridge

ROUNDING = 1e-9  # of sums over a few hundred steps in double
DT_S = 0.01

LOWER = np.array([0.0, -0.5, 0.0])
UPPER = np.array([1.47, 0.7, 1.3])
SPEED = np.array([1.8, 0.6, 2.5])
ACCEL = np.array([18.0, 3.0, 40.0])
JERK = np.array([450.0, 75.0, 900.0])
AVERAGED = 9  # 2 * 40 / (900 * DT_S), rounded up
LEAD_S = 0.5 * (AVERAGED - 1) * DT_S


def make_limits():
    return _bridge.Limits(LOWER, UPPER, SPEED, ACCEL, JERK)


def run(start, targets):
    """Poses of the limiter along `targets`, one row per step."""
    limiter = _bridge.Limiter(make_limits(), DT_S)
    limiter.seed(np.asarray(start, dtype=float))
    previous = limiter.q_rad
    rows = [limiter.q_rad]
    for target in targets:
        target = np.asarray(target, dtype=float)
        rows.append(limiter.step(previous, target))
        previous = target
    return np.array(rows)


def assert_within_limits(poses):
    speed = np.diff(poses, axis=0) / DT_S
    rest = np.zeros((2, poses.shape[1]))
    change = np.diff(np.vstack([rest, speed]), axis=0) / DT_S
    assert (poses >= LOWER - ROUNDING).all()
    assert (poses <= UPPER + ROUNDING).all()
    assert (np.abs(speed) <= SPEED + ROUNDING / DT_S).all()
    assert (np.abs(change) <= ACCEL + ROUNDING / DT_S**2).all()
    assert (np.abs(np.diff(change, axis=0)) / DT_S <= JERK + ROUNDING / DT_S**3).all()


anywhere = st.tuples(*[st.floats(-5, 5) for _ in range(3)])


@settings(max_examples=150, deadline=None)
@given(start=anywhere, targets=st.lists(anywhere, min_size=1, max_size=150))
def test_no_target_sequence_breaks_position_speed_acceleration_or_jerk(start, targets):
    assert_within_limits(run(start, targets))


@settings(max_examples=60, deadline=None)
@given(start=anywhere, jumps=st.lists(st.tuples(anywhere, st.integers(1, 60)), min_size=1, max_size=8))
def test_held_jumps_keep_the_limits_too(start, jumps):
    assert_within_limits(run(start, [target for target, count in jumps for _ in range(count)]))


@settings(max_examples=60, deadline=None)
@given(
    start=st.tuples(*[st.floats(lo, hi) for lo, hi in zip(LOWER, UPPER, strict=True)]),
    goal=st.tuples(*[st.floats(lo, hi) for lo, hi in zip(LOWER, UPPER, strict=True)]),
)
@example(start=(0.0625, 0.0625, 0.0625), goal=(0.0, 0.0625, 0.0))  # the first joint must be able to stop at its range
def test_a_step_is_reached_exactly_along_a_straight_line_and_without_overshoot(start, goal):
    start, goal = np.array(start), np.array(goal)
    poses = run(start, [goal] * 600)
    assert np.abs(poses[-1] - goal).max() < 1e-9
    way = goal - start
    length = np.linalg.norm(way)
    if length > 1e-3:
        along = (poses - start) @ way / length**2
        off = poses - start - along[:, None] * way
        assert np.abs(off).max() < 1e-9
        assert along.max() < 1 + 1e-9
        assert (np.diff(along) > -1e-9).all()


def test_a_joint_held_back_by_its_range_does_not_hold_back_the_others():
    goal = np.array([UPPER[0] + 1.0, UPPER[1], 0.9])
    poses = run([UPPER[0], 0.0, 0.0], [goal] * 600)
    assert poses[-1] == pytest.approx([UPPER[0], UPPER[1], 0.9], abs=1e-9)


def test_a_target_within_the_limits_is_met_a_known_time_later():
    t = np.arange(0, 2, DT_S)
    wave = 0.3 + 0.05 * (1 - np.cos(2 * np.pi * t))[:, None] * np.ones(3)  # starts at rest
    poses = run(wave[0], wave)
    assert _bridge.Limiter(make_limits(), DT_S).lead_s == pytest.approx(LEAD_S)
    late = AVERAGED // 2
    # What averaging takes off a curve: acceleration times the square of the window, over 24.
    allowed = 0.05 * (2 * np.pi) ** 2 * (AVERAGED * DT_S) ** 2 / 24 + 1e-9
    assert np.abs(poses[1 + 2 * late:] - wave[late:-late]).max() < allowed


@settings(max_examples=100, deadline=None)
@given(start=anywhere, targets=st.lists(anywhere, min_size=1, max_size=40))
def test_braking_stops_within_the_limits_from_any_motion(start, targets):
    limiter = _bridge.Limiter(make_limits(), DT_S)
    limiter.seed(np.asarray(start, dtype=float))
    previous = limiter.q_rad
    poses = [limiter.q_rad]
    for target in targets:
        target = np.asarray(target, dtype=float)
        poses.append(limiter.step(previous, target))
        previous = target
    longest = SPEED / ACCEL / DT_S
    for _ in range(int(longest.max()) + 2 + AVERAGED):
        poses.append(limiter.brake())
    assert_within_limits(np.array(poses))
    assert limiter.stands
    assert limiter.brake() == pytest.approx(poses[-1], abs=1e-12)


def test_a_jerk_bound_that_needs_too_long_a_mean_is_refused():
    limits = _bridge.Limits(LOWER, UPPER, SPEED, ACCEL, JERK / 100)
    with pytest.raises(ValueError, match="dt_s: the jerk bounds need the mean of 889 poses"):
        _bridge.Limiter(limits, DT_S)
    with pytest.raises(ValueError, match="period_s: the jerk bounds need"):
        _bridge.Controller(limits, _bridge.Safety(), DT_S)


@settings(max_examples=200, deadline=None)
@given(distance=st.floats(0, 10), accel=st.floats(0.1, 200), dt=st.floats(1e-3, 0.1))
def test_the_stoppable_speed_stops_exactly_at_the_distance(distance, accel, dt):
    speed = _bridge.Limiter.stoppable_speed(distance, accel, dt)
    travelled = 0.0
    while speed > 0:
        travelled += speed * dt
        speed -= accel * dt
    assert travelled == pytest.approx(distance, abs=1e-9, rel=1e-9)


def test_a_target_too_fast_to_follow_is_caught_up_with_without_overshoot():
    t = np.arange(0, 2, DT_S)
    for seconds in (0.3, 0.5, 0.8):  # at 0.5 s the target is 20 % faster than joint 0 may be
        wave = 0.35 * (1 - np.cos(np.pi * np.minimum(t / seconds, 1.0)))[:, None] * np.array([1.0, 0.0, 0.0])
        poses = run([0.0, 0.0, 0.0], wave)
        assert poses[-1, 0] == pytest.approx(0.7, abs=1e-9)
        assert poses[:, 0].max() <= 0.7 + 1e-3, seconds


CAUGHT_UP_S = 0.3  # with half of speed and acceleration to spare; 0.06 s is the longest found


@settings(max_examples=40, deadline=None)
@given(data=st.data(), hit=st.integers(0, 2), up=st.booleans(), start=st.floats(0.0, 1.0), speed=st.floats(0.2, 3.0),
       at_s=st.floats(0.0, 0.5))
def test_a_target_that_runs_into_a_range_slows_the_others_only_for_that_moment(data, hit, up, start, speed, at_s):
    t = np.arange(0.0, 12.0, DT_S)
    targets = np.zeros((t.size, 3))
    for joint in range(3):
        span = UPPER[joint] - LOWER[joint]
        if joint == hit:  # at up to three times its speed to the end, where it stays
            way = (1 if up else -1) * speed * SPEED[joint] * np.maximum(0.0, t - at_s)
            targets[:, joint] = np.clip(LOWER[joint] + start * span + way, LOWER[joint], UPPER[joint])
        else:  # on and on, with half of speed and acceleration at most
            swing = data.draw(st.floats(0.1, 0.45)) * span
            share = data.draw(st.floats(0.1, 0.5))
            pace = min(share * SPEED[joint] / swing, np.sqrt(share * ACCEL[joint] / swing))
            targets[:, joint] = 0.5 * (LOWER[joint] + UPPER[joint]) - swing * np.cos(pace * t)
    poses = run(targets[0], targets)
    assert_within_limits(poses)
    late = AVERAGED // 2
    behind = np.abs(poses[1 + late:] - targets[:-late])
    # How long the joint that runs takes to its end, at its own speed and acceleration, is its own matter.
    running_s = 2.0 * SPEED[hit] / ACCEL[hit] + np.ptp(targets[:, hit]) / (min(speed, 1.0) * SPEED[hit])
    stands = int((at_s + running_s + CAUGHT_UP_S) / DT_S)
    # What averaging takes off a curve: acceleration times the square of the window, over 24.
    allowed = 0.5 * ACCEL * (AVERAGED * DT_S) ** 2 / 24 + 1e-9
    assert stands < len(behind) - 50
    assert (behind[stands:] <= allowed).all()


def test_limits_without_room_are_refused():
    good = np.array([1.0])
    for arguments in (
        (np.array([1.0]), np.array([1.0]), good, good, good),
        (np.array([0.0]), np.array([np.nan]), good, good, good),
        (np.array([0.0]), good, np.array([0.0]), good, good),
        (np.array([0.0]), good, good, np.array([-1.0]), good),
        (np.array([0.0]), good, good, good, np.array([0.0])),
        (np.array([0.0]), np.array([1.0, 2.0]), good, good, good),
    ):
        with pytest.raises(ValueError, match="expected"):
            _bridge.Limits(*arguments)


# -- trajectories


def prepare(t_s, q_rad):
    return _bridge.prepare(np.asarray(t_s, dtype=float), np.asarray(q_rad, dtype=float), make_limits())


GOOD = np.array([[0.1, 0.0, 0.2], [0.2, 0.1, 0.3], [0.1, 0.2, 0.4]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_angles_and_times_are_refused(bad):
    for row in range(3):
        q = GOOD.copy()
        q[row, 1] = bad
        with pytest.raises(ValueError, match="not finite"):
            prepare([0, 1, 2], q)
        t = np.array([0.0, 1.0, 2.0])
        t[row] = bad
        with pytest.raises(ValueError, match="t_s"):
            prepare(t, GOOD)


def test_times_must_increase_and_start_at_zero_or_later():
    for t in ([0, 1, 1], [0, 2, 1], [-0.1, 1, 2], [0, 1, 1e6]):
        with pytest.raises(ValueError, match="t_s"):
            prepare(t, GOOD)


def test_angles_outside_the_range_are_refused_not_clipped():
    q = GOOD.copy()
    q[2, 1] = UPPER[1] + 0.01
    with pytest.raises(ValueError, match=r"q_rad\[2\] = 0.71 rad: the joint's range is -0.5 to 0.7 rad"):
        prepare([0, 1, 2], q)


def test_an_empty_trajectory_and_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="no points"):
        prepare([], np.zeros((0, 3)))
    with pytest.raises(ValueError, match=r"expected float64\[3, 3\]"):
        prepare([0, 1, 2], GOOD[:2])
    with pytest.raises(ValueError, match=r"expected float64\[3, 3\]"):
        prepare([0, 1, 2], GOOD[:, :2])


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.floats(0.01, 0.5), min_size=2, max_size=12),
    data=st.data(),
)
def test_the_curve_passes_every_point_and_never_leaves_their_span(steps, data):
    t = np.cumsum(steps)
    rows = data.draw(
        st.lists(st.tuples(*[st.floats(lo, hi) for lo, hi in zip(LOWER, UPPER, strict=True)]),
                 min_size=len(t), max_size=len(t))
    )
    q = np.array(rows)
    still = t[-1] + np.array([1.0, 2.0])  # ends at rest, so that its clock is its own until then
    trajectory = prepare(np.append(t, still), np.vstack([q, q[-1:], q[-1:]]))
    for i, moment in enumerate(t):
        assert np.abs(trajectory.sample(moment, 3)[0] - q[i]).max() < 1e-9
    for i in range(len(t) - 1):
        for share in (0.1, 0.5, 0.9):
            value = trajectory.sample(t[i] + share * (t[i + 1] - t[i]), 3)[0]
            assert (value >= np.minimum(q[i], q[i + 1]) - 1e-9).all()
            assert (value <= np.maximum(q[i], q[i + 1]) + 1e-9).all()


def test_the_reported_velocity_is_the_slope_of_the_curve():
    trajectory = prepare([0, 0.5, 1.0], GOOD)
    h = 1e-6
    for t in np.linspace(0.05, 0.95, 19):
        ahead, behind = trajectory.sample(t + h, 3)[0], trajectory.sample(t - h, 3)[0]
        assert np.abs((ahead - behind) / (2 * h) - trajectory.sample(t, 3)[1]).max() < 1e-5


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.floats(0.03, 0.4), min_size=2, max_size=8),
    data=st.data(),
)
def test_a_trajectory_that_ends_in_motion_slows_down_along_its_path_and_rests_on_its_last_point(steps, data):
    t = np.cumsum(steps)
    q = np.array(data.draw(
        st.lists(st.tuples(*[st.floats(lo, hi) for lo, hi in zip(LOWER, UPPER, strict=True)]),
                 min_size=len(t), max_size=len(t))
    ))
    trajectory = prepare(t, q)
    brake_s = trajectory.brake_s
    assert 0.0 <= brake_s <= (2 * SPEED / ACCEL).max() + 1e-12
    moments = np.linspace(t[-1] - brake_s / 2, t[-1] + brake_s / 2 + 0.05, 80)
    poses, speeds = (np.array([trajectory.sample(m, 3)[i] for m in moments]) for i in (0, 1))
    # Never beyond what the points span, so never past the last one when the path leads straight to it.
    assert (poses >= q.min(axis=0) - 1e-9).all()
    assert (poses <= q.max(axis=0) + 1e-9).all()
    assert poses[-1] == pytest.approx(q[-1], abs=1e-12)
    assert speeds[-1] == pytest.approx(0.0, abs=1e-12)
    still = moments >= t[-1] + brake_s / 2
    assert np.abs(poses[still] - q[-1]).max() < 1e-9


def test_slowing_down_takes_half_of_the_acceleration_from_a_steady_motion():
    t = np.linspace(0.0, 1.0, 11)
    trajectory = prepare(t, np.outer(t, [1.0, 0.2, 0.5]))
    assert trajectory.brake_s == pytest.approx(max(2 * 1.0 / 18.0, 2 * 0.2 / 3.0, 2 * 0.5 / 40.0))
    moments = np.arange(0.7, 1.3, 0.001)
    speeds = np.array([trajectory.sample(m, 3)[1] for m in moments])
    assert (np.abs(np.diff(speeds, axis=0)) / 0.001 <= 0.5 * ACCEL + 1e-6).all()
