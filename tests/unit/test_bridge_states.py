"""The state machine on a virtual clock: nothing moves before arm, e-stop wins, faults latch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beingh0_edge.firmware_bridge import Safety, _bridge

PERIOD_S = 0.01
LOWER = np.array([0.0, 0.0])
UPPER = np.array([1.5, 0.6])
SPEED = np.array([1.8, 0.75])
ACCEL = np.array([18.0, 7.5])
LIMITS = _bridge.Limits(LOWER, UPPER, SPEED, ACCEL)
ROUNDING = 1e-9  # of sums over a few hundred steps in double

HOLD_AFTER_S, FREEZE_AFTER_S, STALE_S = 0.15, 2.0, 0.1


class World:
    """A controller, a hand that obeys with a lag, and a clock."""

    def __init__(self, pose=(0.2, 0.1), **safety):
        self.controller = _bridge.Controller(LIMITS, Safety(**safety).native(), PERIOD_S)
        self.pose = np.array(pose, dtype=float)
        self.t_s = 100.0
        self.sent = []  # (time, (state, reason), pose sent or None)

    def cycle(self, feedback=True, transaction=True):
        self.t_s += PERIOD_S
        c = self.controller
        if feedback:
            c.on_feedback(self.t_s, self.pose)
            c.on_health(self.t_s, 0)
        c.on_transaction(self.t_s, transaction)
        command = c.tick(self.t_s)
        if command is not None:
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
    # The curve still moves at its last point, so the hand slows down behind it.
    assert world.sent[-1][2] == pytest.approx([0.9, 0.3], abs=0.03)
    assert world.controller.settled(world.t_s)


@pytest.mark.parametrize("step", [0.05, -0.05])
def test_a_trajectory_that_ends_in_full_motion_comes_to_rest_on_its_last_point(step):
    world = World(pose=(0.5, 0.3)).armed()
    t = np.arange(1, 16) / 15
    q = np.stack([0.5 + step * np.arange(15) / 1.5, np.full(15, 0.3)], axis=1)
    assert world.follow(t, q) == "accepted"
    sent = np.array(world.run(2.9))[:, 0]
    np.testing.assert_allclose(sent[-20:], q[-1, 0], atol=1e-6)
    beyond = np.max((sent - q[-1, 0]) * np.sign(step))
    last_speed = abs(step) / 1.5 * 15
    # The tail's own way past: 4/27 of speed times duration, eight speeds over the acceleration; the limiter trails it.
    assert beyond < 1.2 * 8 * last_speed**2 / ACCEL[0] * 4 / 27


def test_a_joint_far_outside_its_range_is_not_armed():
    world = World(pose=(0.2, 0.9)).until_idle()
    assert world.controller.arm(world.t_s) == "outside_range"
    assert world.run(0.1) == [None] * 10


def test_torque_is_released_only_when_asked_for():
    assert World().armed().run(10.0)[-1] is not None
    world = World(release_after_s=3.0).armed()
    world.run(2.5)
    assert world.state == ("hold", "command_frozen")
    world.run(1.0)
    assert world.state == ("idle", "released")
    assert world.run(0.1) == [None] * 10
    assert world.follow(*RAMP) == "not_armed"


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
    assert (np.abs(np.diff(speed, axis=0)) / PERIOD_S <= ACCEL + ROUNDING / PERIOD_S**2).all()


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


def test_losing_the_pose_freezes_the_last_command():
    world = World().armed()
    world.follow(*RAMP)
    world.run(0.5)
    before = world.sent[-1][2]
    commands = world.run(0.5, feedback=False)
    assert world.state == ("hold", "feedback_stale")
    moved = np.abs(commands[-1] - before)
    assert (moved <= SPEED * (STALE_S + 2 * PERIOD_S)).all()
    assert np.ptp(commands[-20:], axis=0) == pytest.approx([0, 0])
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
