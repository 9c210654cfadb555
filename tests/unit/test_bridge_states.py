"""The state machine on a virtual clock: nothing moves before arm, e-stop wins, faults latch."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from beingh0_edge.firmware_bridge import Safety, _bridge

PERIOD_S = 0.01
LOWER = np.array([0.0, 0.0])
UPPER = np.array([1.5, 0.6])
SPEED = np.array([1.8, 0.75])
ACCEL = np.array([18.0, 7.5])
JERK = ACCEL / 0.04
LIMITS = _bridge.Limits(LOWER, UPPER, SPEED, ACCEL, JERK)
ROUNDING = 1e-9  # of sums over a few hundred steps in double

HOLD_AFTER_S, FREEZE_AFTER_S, STALE_S = 0.15, 2.0, 0.1


class World:
    """A controller, a hand that obeys with a lag, and a clock."""

    def __init__(self, pose=(0.2, 0.1), **safety):
        self.controller = _bridge.Controller(LIMITS, Safety(**safety).native(), PERIOD_S)
        self.pose = np.array(pose, dtype=float)
        self.t_s = 100.0
        self.sent = []  # (time, (state, reason), pose sent or None)
        self.released_s = []  # when the hand was told to take its torque off

    def cycle(self, feedback=True, transaction=True, releases=True):
        self.t_s += PERIOD_S
        c = self.controller
        if feedback:
            c.on_feedback(self.t_s, self.pose)
            c.on_health(self.t_s, 0)
        c.on_transaction(self.t_s, transaction)
        command = c.tick(self.t_s)
        if isinstance(command, str):
            self.released_s.append(self.t_s)
            if releases:
                c.on_released()
            command = None
        if command is not None:
            if transaction:
                c.on_write_accepted()
            self.pose = self.pose + 0.3 * (command - self.pose)
        self.sent.append((self.t_s, self.state, command))
        return command

    def run(self, seconds, **kw):
        return [self.cycle(**kw) for _ in range(round(seconds / PERIOD_S))]

    def until_idle(self):
        self.controller.link_up(self.t_s)
        self.cycle()
        self.cycle()
        assert self.controller.state == "idle"
        return self

    def armed(self):
        self.until_idle()
        assert self.controller.arm(self.t_s) == "accepted"
        return self

    def follow(self, t_s, q_rad, elapsed_s=0.0):
        prepared = _bridge.prepare(np.asarray(t_s, float), np.asarray(q_rad, float), LIMITS)
        return self.controller.follow(self.t_s, prepared, elapsed_s)

    @property
    def state(self):
        return self.controller.state, self.controller.reason


RAMP = ([0.0, 0.5, 1.0], [[0.2, 0.1], [0.6, 0.2], [0.9, 0.3]])


def test_nothing_is_sent_before_arm():
    world = World().until_idle()
    assert world.run(1.0) == [None] * 100
    assert world.follow(*RAMP) == "not_armed"
    assert world.run(0.2) == [None] * 20


def test_arming_sends_the_measured_pose_and_nothing_else():
    world = World().armed()
    for command in world.run(0.1):
        assert command == pytest.approx([0.2, 0.1])


def test_arming_needs_a_fresh_pose():
    world = World()
    assert world.controller.arm(world.t_s) == "not_connected"
    world.controller.link_up(world.t_s)
    assert world.controller.arm(world.t_s) == "no_fresh_feedback"
    world.until_idle()
    world.run(STALE_S + 2 * PERIOD_S, feedback=False)
    assert world.controller.arm(world.t_s) == "no_fresh_feedback"


def test_arming_needs_the_error_bits_to_have_been_read_since_the_link_came_up():
    world = World()
    world.controller.link_up(world.t_s)
    for _ in range(5):
        world.t_s += PERIOD_S
        world.controller.on_feedback(world.t_s, world.pose)
        world.controller.tick(world.t_s)
    assert world.controller.state == "connected"
    assert world.controller.arm(world.t_s) == "no_fresh_feedback"


def test_a_trajectory_is_followed_to_its_end_and_the_pose_held():
    world = World().armed()
    assert world.follow(*RAMP) == "accepted"
    world.run(1.6)
    assert world.sent[-1][2] == pytest.approx([0.9, 0.3], abs=1e-6)
    assert world.controller.settled(world.t_s)


@pytest.mark.parametrize("step", [0.02, 0.05, -0.05])
def test_a_trajectory_that_ends_in_motion_comes_to_rest_on_its_last_point_and_never_beyond(step):
    world = World(pose=(0.5, 0.3)).armed()
    t = np.arange(1, 16) / 15
    q = np.stack([0.5 + step * np.arange(15) / 1.5, np.full(15, 0.3)], axis=1)
    assert world.follow(t, q) == "accepted"
    sent = np.array(world.run(2.9))[:, 0]
    np.testing.assert_allclose(sent[-20:], q[-1, 0], atol=1e-6)
    assert np.max((sent - q[-1, 0]) * np.sign(step)) < 1e-6


@settings(max_examples=80, deadline=None)
@given(
    steps=st.lists(st.tuples(st.floats(0.002, 0.4), st.floats(0.0, 1.0)), min_size=1, max_size=10),
    first=st.floats(0.0, 0.5),
    end=st.tuples(st.floats(0.0, 1.5), st.floats(0.0, 0.6)),
)
@example(steps=[(0.03125, 0.0), (0.015625, 1.0), (0.25, 0.0)], first=0.0, end=(0.0, 0.0))  # begins on a cliff
def test_a_command_never_passes_the_end_of_a_trajectory_that_leads_there_however_fast_it_is(steps, first, end):
    start, end = np.array([0.6, 0.3]), np.array(end)
    world = World(pose=start, freeze_after_s=20.0).armed()
    t = np.cumsum([step for step, _ in steps])
    way = np.cumsum([0.0, *[share for _, share in steps[1:]]])
    way = first + (1 - first) * (way / way[-1] if way[-1] > 0 else np.ones(len(steps)))
    assert world.follow(t, start + way[:, None] * (end - start)) == "accepted"
    sent = np.array(world.run(float(t[-1]) + 3.0))
    end = start + way[-1] * (end - start)
    assert sent[-1] == pytest.approx(end, abs=1e-6)
    assert (sent >= np.minimum(start, end) - ROUNDING).all()
    assert (sent <= np.maximum(start, end) + ROUNDING).all()


def test_a_joint_far_outside_its_range_is_not_armed():
    world = World(pose=(0.2, 0.9)).until_idle()
    assert world.controller.arm(world.t_s) == "outside_range"
    assert world.run(0.1) == [None] * 10


def test_torque_is_released_only_when_asked_for():
    assert World().armed().run(10.0)[-1] is not None
    world = World(release_after_s=3.0).armed()
    world.run(2.5)
    assert world.state == ("hold", "command_frozen")
    assert world.released_s == []
    world.run(1.0)
    assert world.state == ("idle", "released")
    assert len(world.released_s) == 1
    assert world.run(0.1) == [None] * 10
    assert world.follow(*RAMP) == "not_armed"


def test_a_stopped_hand_is_released_after_a_while_too():
    world = World(release_after_s=3.0).armed()
    world.follow(*RAMP)
    world.run(0.3)
    world.controller.stop(world.t_s)
    world.run(2.9)
    assert world.state == ("hold", "stop_requested")
    world.run(0.2)
    assert world.state == ("idle", "released")


def test_a_release_is_repeated_until_the_hand_took_it():
    world = World(release_after_s=0.5, freeze_after_s=0.3).armed()
    world.run(0.7, releases=False)
    assert world.controller.state == "idle"
    tries = len(world.released_s)
    assert tries > 5
    world.cycle()
    world.run(0.2)
    assert len(world.released_s) == tries + 1


@pytest.mark.parametrize("cause", ["fault", "estop", "stale"])
def test_a_torque_driven_hand_is_let_go_at_once(cause):
    world = World(release_on_fault=True).armed()
    world.follow(*RAMP)
    world.run(0.4)
    if cause == "fault":
        world.controller.on_health(world.t_s, 1)
    elif cause == "estop":
        world.controller.estop(world.t_s)
    if cause == "stale":
        world.run(STALE_S + 2 * PERIOD_S, feedback=False)
        assert world.state == ("idle", "feedback_stale")
    else:
        assert world.cycle() is None
        assert world.controller.state == cause
    assert len(world.released_s) == 1
    assert world.run(0.3, feedback=cause != "stale") == [None] * 30


def test_a_stopped_torque_driven_hand_is_let_go_when_its_pose_is_lost():
    world = World(release_on_fault=True).armed()
    world.run(0.1)
    world.controller.stop(world.t_s)
    assert world.run(0.2)[-1] is not None
    world.run(STALE_S + 2 * PERIOD_S, feedback=False)
    assert world.state == ("idle", "feedback_stale")
    assert len(world.released_s) == 1


def test_closing_lets_a_torque_driven_hand_go_and_lets_others_hold():
    for torque in (False, True):
        world = World(release_on_fault=torque).armed()
        world.run(0.1)
        world.controller.retire(world.t_s)
        world.run(0.1)
        assert (len(world.released_s) == 1) == torque
        assert world.controller.state == ("idle" if torque else "hold")


def test_a_hand_outside_its_range_is_led_back_slowly():
    world = World(pose=(-0.05, 0.1)).armed()
    assert world.cycle() == pytest.approx([0.0, 0.1])


def test_a_new_trajectory_is_blended_in_without_a_jump():
    world = World().armed()
    world.follow(*RAMP)
    world.run(0.4)
    world.follow([0.0, 1.0], [[1.4, 0.5], [0.1, 0.0]])
    world.run(1.5)
    sent = np.array([pose for _, _, pose in world.sent if pose is not None])
    speed = np.diff(sent, axis=0) / PERIOD_S
    assert (np.abs(speed) <= SPEED + ROUNDING / PERIOD_S).all()
    change = np.diff(speed, axis=0) / PERIOD_S
    assert (np.abs(change) <= ACCEL + ROUNDING / PERIOD_S**2).all()
    assert (np.abs(np.diff(change, axis=0)) / PERIOD_S <= JERK + ROUNDING / PERIOD_S**3).all()


@pytest.mark.parametrize("skipped", [0, 1, 3])
def test_skipped_cycles_neither_overshoot_nor_end_early(skipped):
    world = World().armed()
    t = np.linspace(0.0, 0.3, 16)
    q = 0.2 + 0.25 * (1 - np.cos(np.pi * t / 0.3))[:, None] * np.array([1.0, 0.3])
    q[:, 1] -= 0.1
    world.follow(t, q)
    for _ in range(200):
        world.cycle()
        if world.controller.settled(world.t_s):
            break
        world.t_s += skipped * PERIOD_S  # less than what makes the pose stale
    sent = np.array([pose for _, _, pose in world.sent if pose is not None])
    assert world.sent[-1][2] == pytest.approx(q[-1], abs=1e-4)
    assert (sent <= q[-1] + 1e-3).all()


def test_the_ladder_of_a_stale_command_is_hold_then_freeze_then_rearm():
    world = World().armed()
    world.follow(*RAMP)
    seen = {}
    for _ in range(500):
        world.cycle()
        seen.setdefault(world.state, world.t_s)
    assert list(seen) == [("active", "none"), ("hold", "command_stale"), ("hold", "command_frozen")]
    holding, frozen = seen[("hold", "command_stale")], seen[("hold", "command_frozen")]
    assert frozen - holding == pytest.approx(FREEZE_AFTER_S - HOLD_AFTER_S, abs=2 * PERIOD_S)
    assert world.follow(*RAMP) == "needs_rearm"
    assert world.controller.arm(world.t_s) == "accepted"
    assert world.follow(*RAMP) == "accepted"


def test_a_hold_ends_by_itself_only_for_a_trajectory_that_starts_near():
    world = World(resume_within_rad=0.3).armed()
    world.run(0.3)
    assert world.state == ("hold", "command_stale")
    assert world.follow([0.0, 1.0], [[0.9, 0.1], [1.0, 0.1]]) == "needs_rearm"
    assert world.follow([0.0, 1.0], [[0.4, 0.1], [1.0, 0.1]]) == "accepted"
    assert world.state == ("active", "none")


def test_while_holding_the_commanded_pose_is_repeated():
    world = World().armed()
    world.run(0.3)
    assert all(command is not None for command in world.run(0.5))


def assert_smooth(commands):
    commands = np.array(commands)
    speed = np.diff(commands, axis=0) / PERIOD_S
    change = np.diff(speed, axis=0) / PERIOD_S
    assert (np.abs(speed) <= SPEED + ROUNDING / PERIOD_S).all()
    assert (np.abs(change) <= ACCEL + ROUNDING / PERIOD_S**2).all()
    assert (np.abs(np.diff(change, axis=0)) / PERIOD_S <= JERK + ROUNDING / PERIOD_S**3).all()


def test_losing_the_pose_brakes_the_command_and_holds_it():
    world = World().armed()
    world.follow(*RAMP)
    started = world.run(0.5)
    commands = world.run(0.6, feedback=False)
    assert world.state == ("hold", "feedback_stale")
    assert_smooth(started + commands)
    moved = np.abs(commands[-1] - started[-1])
    assert (moved <= SPEED * (STALE_S + 2 * PERIOD_S + 0.1)).all()
    assert np.ptp(commands[-20:], axis=0) == pytest.approx([0, 0], abs=1e-12)
    assert world.follow(*RAMP) == "no_fresh_feedback"


def test_a_pose_without_error_reports_is_not_trusted_for_long():
    world = World().armed()
    world.follow([0.0, 5.0], [[0.2, 0.1], [1.4, 0.5]])
    world.run(0.5)
    for _ in range(120):
        world.t_s += PERIOD_S
        world.controller.on_feedback(world.t_s, world.pose)
        world.controller.tick(world.t_s)
    assert world.state == ("hold", "feedback_stale")


def test_consecutive_transaction_errors_are_a_fault_and_fewer_are_not():
    world = World(error_rate=0.5).armed()
    world.run(0.2)
    for _ in range(4):
        world.cycle(transaction=False)
    assert world.controller.state != "fault"
    world.cycle()
    for _ in range(5):
        world.cycle(transaction=False)
    assert world.state == ("fault", "transaction_errors")


def test_a_fault_without_a_fresh_pose_brakes_the_command_before_it_falls_silent():
    world = World(consecutive_errors=14, error_rate=0.5).armed()
    world.follow(*RAMP)
    started = world.run(0.5)
    failing = [world.cycle(feedback=False, transaction=False) for _ in range(14)]
    assert world.state == ("fault", "transaction_errors")
    assert not np.array_equal(failing[-1], failing[-2])  # still braking
    sent = failing + world.run(0.6, feedback=False)
    assert sent[-1] is None
    assert_smooth(started + [pose for pose in sent if pose is not None])


def test_a_high_error_rate_is_a_fault_even_without_a_row_of_them():
    world = World().armed()
    for i in range(100):
        world.cycle(transaction=i % 3 != 0)
    assert world.state == ("fault", "error_rate")


def test_what_the_hand_reports_is_a_fault():
    for report, reason in (
        (lambda c, t: c.on_health(t, 1), "hand_error"),
        (lambda c, t: c.on_temperature(t, 75.0), "over_temperature"),
        (lambda c, t: c.on_current(t, -2.5), "over_current"),
    ):
        world = World().armed()
        world.follow(*RAMP)
        world.run(0.3)
        report(world.controller, world.t_s)
        assert world.state == ("fault", reason)


def test_ignored_error_bits_are_no_fault():
    world = World(ignored_error_bits=1).armed()
    world.controller.on_health(world.t_s, 1)
    assert world.controller.state == "active"
    world.controller.on_health(world.t_s, 3)
    assert world.controller.state == "fault"


def stop_it(world, how):
    if how == "estop":
        world.controller.estop(world.t_s)
    elif how == "stop":
        world.controller.stop(world.t_s)
    else:
        world.controller.on_health(world.t_s, 1)


@pytest.mark.parametrize("how", ["stop", "estop", "fault"])
def test_a_stop_makes_the_measured_pose_the_target(how):
    world = World().armed()
    world.follow(*RAMP)
    world.run(0.5)
    world.controller.on_feedback(world.t_s, world.pose)
    stop_it(world, how)
    measured = world.pose.copy()
    assert world.controller.tick(world.t_s) == pytest.approx(measured)


@pytest.mark.parametrize("how", ["estop", "fault"])
def test_a_latched_stop_is_repeated_until_acknowledged_and_then_the_bridge_is_silent(how):
    world = World().armed()
    world.run(0.1)
    stop_it(world, how)
    commands = world.run(0.3)
    assert [c is not None for c in commands] == [True] * 3 + [False] * 27


@pytest.mark.parametrize("how", ["estop", "fault"])
def test_a_latched_stop_leaves_only_by_reset_and_then_arm(how):
    world = World().armed()
    stop_it(world, how)
    world.run(0.2)
    assert world.controller.arm(world.t_s) == "latched"
    assert world.follow(*RAMP) == "latched"
    assert world.controller.reset(world.t_s) == "accepted"
    assert world.controller.arm(world.t_s) == "no_fresh_feedback"  # the old error bits do not count
    world.run(0.5)
    assert world.controller.state == "idle"
    assert world.run(0.1) == [None] * 10
    assert world.follow(*RAMP) == "not_armed"
    assert world.controller.arm(world.t_s) == "accepted"


def test_after_a_stop_an_old_trajectory_never_comes_back():
    world = World().armed()
    world.follow(*RAMP)
    world.run(0.5)
    world.controller.stop(world.t_s)
    world.run(0.2)
    stopped_at = world.sent[-1][2]
    world.controller.arm(world.t_s)
    assert np.array(world.run(0.1)) == pytest.approx(np.tile(stopped_at, (10, 1)), abs=1e-3)


def test_an_unplugged_hand_comes_back_idle():
    world = World().armed()
    world.follow(*RAMP)
    world.run(0.3)
    world.controller.link_down(world.t_s)
    assert world.state == ("disconnected", "link_lost")
    assert world.run(0.3) == [None] * 30
    assert world.follow(*RAMP) == "not_connected"
    world.until_idle()
    assert world.follow(*RAMP) == "not_armed"


def test_an_estop_survives_unplugging():
    world = World().armed()
    world.controller.estop(world.t_s)
    world.controller.link_down(world.t_s)
    world.controller.link_up(world.t_s)
    world.run(0.2)
    assert world.controller.state == "estop"


# -- anything in any order

POSES = st.tuples(st.floats(0, 1.5), st.floats(0, 0.6))
EVENTS = st.one_of(
    st.tuples(st.just("run"), st.integers(1, 40)),
    st.tuples(st.just("arm"), st.none()),
    st.tuples(st.just("follow"), st.tuples(st.lists(POSES, min_size=1, max_size=4), st.floats(0.02, 0.6))),
    st.tuples(st.just("stop"), st.none()),
    st.tuples(st.just("estop"), st.none()),
    st.tuples(st.just("reset"), st.none()),
    st.tuples(st.just("error"), st.integers(0, 1)),
    st.tuples(st.just("bad"), st.integers(1, 7)),
    st.tuples(st.just("mute"), st.integers(1, 25)),
    st.tuples(st.just("unplug"), st.none()),
    st.tuples(st.just("plug"), st.none()),
    st.tuples(st.just("push"), POSES),
)


def apply(world, kind, value):
    c = world.controller
    if kind == "run":
        world.run(value * PERIOD_S)
    elif kind == "arm":
        c.arm(world.t_s)
    elif kind == "follow":
        points, step = value
        world.follow(step * (1 + np.arange(len(points))), points)
    elif kind == "stop":
        c.stop(world.t_s)
    elif kind == "estop":
        c.estop(world.t_s)
    elif kind == "reset":
        c.reset(world.t_s)
    elif kind == "error":
        c.on_health(world.t_s, value)
    elif kind == "bad":
        for _ in range(value):
            world.cycle(transaction=False)
    elif kind == "mute":
        world.run(value * PERIOD_S, feedback=False)
    elif kind == "unplug":
        c.link_down(world.t_s)
    elif kind == "plug":
        c.link_up(world.t_s)
    elif kind == "push":
        world.pose = np.array(value)


@settings(max_examples=120, deadline=None)
@given(st.lists(EVENTS, min_size=5, max_size=60))
def test_no_sequence_of_events_breaks_the_promises(events):
    world = World()
    world.controller.link_up(world.t_s)
    may_move = False  # armed since the last latch, stop or loss
    segment, segments = 0, []
    for kind, value in events:
        before = len(world.sent)
        state_before = world.controller.state
        was_armed = may_move
        apply(world, kind, value)
        if kind == "arm" and world.controller.state == "active":
            may_move = True
        if world.controller.state in ("disconnected", "connected", "idle"):
            may_move = False
        if kind == "estop":
            assert world.controller.state == "estop"
        if state_before in ("estop", "fault"):
            assert kind in ("reset", "estop") or world.controller.state == state_before
        for _, (state, _reason), pose in world.sent[before:]:
            if pose is None:
                continue
            assert np.isfinite(pose).all()
            assert (pose >= LOWER - ROUNDING).all()
            assert (pose <= UPPER + ROUNDING).all()
            assert was_armed or state in ("fault", "estop")
            assert state in ("active", "hold", "fault", "estop")
        if kind not in ("run", "follow", "bad"):
            segment += 1
        segments += [segment] * (len(world.sent) - len(segments))
    # Within a stretch without arm, stop or fault, speed and acceleration hold, whatever was followed.
    driven = ("active", "none"), ("hold", "command_stale")
    for k in set(segments):
        poses = np.array([pose for (_, state, pose), own in zip(world.sent, segments, strict=True)
                          if own == k and state in driven and pose is not None]).reshape(-1, 2)
        speed = np.diff(poses, axis=0) / PERIOD_S
        assert (np.abs(speed) <= SPEED + ROUNDING / PERIOD_S).all()
        assert (np.abs(np.diff(speed, axis=0)) / PERIOD_S <= ACCEL + ROUNDING / PERIOD_S**2).all()
