"""The torque hand: what is on its bus when it is driven, stopped, blind, and left alone."""

import struct

import numpy as np
import pytest
from bridge_bench import move, open_armed, simulated, wait_for

from beingh0_edge.errors import HandError, HandFault
from beingh0_edge.firmware_bridge import Bridge, hand_spec, start_simulator
from beingh0_edge.firmware_bridge.simulators.allegro import Allegro
from beingh0_edge.firmware_bridge.simulators.slcan import Frame

SPEC = hand_spec("allegro_v5")
PARTLY_CLOSED = 0.3 * SPEC.upper_rad
MILLIAMPS_PER_NM = 1430


def sent(trace):
    """(can id, data) of every frame the bridge put on the bus, oldest first."""
    text = b"".join(bytes.fromhex(line.split()[1]) for line in trace.read_text().splitlines())
    lines = [line for line in text.split(b"\r") if line[:1] == b"t"]
    return [(int(line[1:4], 16), bytes.fromhex(line[5:].decode())) for line in lines]


def torques(trace):
    """int[N, 16]: whole sets of torques, oldest first."""
    frames = [(can_id, data) for can_id, data in sent(trace) if 0x180 <= can_id <= 0x18C]
    sets = [frames[i: i + 4] for i in range(0, len(frames) - 3, 4)]
    assert all([can_id for can_id, _ in one] == [0x180, 0x184, 0x188, 0x18C] for one in sets)
    return np.array([[v for _, data in one for v in struct.unpack("<4h", data)] for one in sets])


@pytest.fixture
def traced(tmp_path):
    with start_simulator(f"sim:allegro_v5?trace={tmp_path / 'trace'}") as simulator:
        yield simulator, tmp_path / "trace"


def test_nothing_but_zeros_before_arm_and_servos_off_at_the_end(traced):
    simulator, trace = traced
    with Bridge.open("allegro_v5", port=simulator.port) as hand:
        wait_for(lambda: hand.state.cycle > 50, "cycles")
        assert not torques(trace).any()
    wait_for(lambda: sent(trace)[-1] == (0x104, b""), "servos off")  # the simulator may still have to write it down
    assert not torques(trace)[-1].any()


def test_a_fault_an_estop_and_a_lost_pose_end_in_zero_torque(traced):
    simulator, trace = traced
    with Bridge.open("allegro_v5", port=simulator.port) as hand:
        for end in ("estop", "silence"):
            hand.arm()
            hand.follow(move(SPEC.joint_names, PARTLY_CLOSED, seconds=2.0))
            wait_for(lambda: torques(trace)[-1].any(), "torque")
            if end == "estop":
                hand.estop()
            else:
                simulator.command("fault drop")
                wait_for(lambda: hand.state.state == "fault", "the fault")
                simulator.command("fault ")
            wait_for(lambda: not torques(trace)[-1].any(), "zero torque")
            quiet = len(torques(trace))
            wait_for(lambda: hand.state.q_age_s < 0.05, "poses")
            assert not torques(trace)[quiet:].any()
            hand.reset()


def test_the_torque_is_bounded_whatever_is_in_the_way(traced):
    simulator, trace = traced
    simulator.command("set stuck=1,2")
    with Bridge.open("allegro_v5", port=simulator.port, max_torque_nm=0.08) as hand:
        hand.arm()
        hand.follow(move(SPEC.joint_names, PARTLY_CLOSED, seconds=0.3), blocking=True)
        reached = np.abs(torques(trace))
        assert reached.max() == round(0.08 * MILLIAMPS_PER_NM)
        assert reached[-1, 1] == reached.max()


def test_the_other_gear_of_a_type_b_hand_gets_half_the_current(traced):
    simulator, trace = traced
    simulator.command("set hardware=B")
    simulator.command("set stuck=1,2")
    with Bridge.open("allegro_v5", port=simulator.port, max_torque_nm=0.08) as hand:
        hand.arm()
        hand.follow(move(SPEC.joint_names, PARTLY_CLOSED, seconds=0.3), blocking=True)
        last = np.abs(torques(trace))[-1]
        assert (last[1], last[2]) == (round(0.04 * MILLIAMPS_PER_NM), round(0.08 * MILLIAMPS_PER_NM))


def test_a_hand_that_does_not_tell_its_version_needs_somebody_to_vouch():
    port = simulated("allegro_v5", version_told=0).port
    with pytest.raises(HandError, match="version_check=False"):
        Bridge.open("allegro_v5", port=port, reply_timeout_s=0.02)
    with open_armed("allegro_v5", port, version_check=False) as hand:
        assert hand.state.state == "active"


@pytest.mark.parametrize("name", ["allegro_v4", "allegro_v5"])
def test_a_hand_of_the_other_side_is_refused(name):
    with pytest.raises(HandError, match="this is a left hand"):
        Bridge.open(name, port=simulated(name, side="left").port)


def test_a_hot_v4_says_so_only_when_asked_and_is_asked():
    simulator = simulated("allegro_v4")
    with open_armed("allegro_v4", simulator.port) as hand:
        simulator.command("set hot=9")
        wait_for(lambda: hand.state.state == "fault", "the fault")
        with pytest.raises(HandFault, match="over-temperature"):
            hand.arm()


def test_below_its_rate_the_position_loop_is_not_run():
    with pytest.raises(ValueError, match="rate_hz: expected 200 to 500"):
        Bridge.open("allegro_v5", port="sim:allegro_v5", rate_hz=100)


# -- the simulated hand alone

ON, OFF = Frame(0x100), Frame(0x104)


def push(finger, *values):
    return Frame(0x180 + 4 * finger, struct.pack("<4h", *values))


def test_the_last_torque_stays_until_another_comes_or_the_servos_go_off():
    hand = Allegro("v5")
    for frame in (ON, push(0, 0, 60, 0, 0)):
        assert hand.frame(frame, 0.0) == []
    hand.advance(0.2)
    moving = hand.v_rad_s[1]
    hand.advance(0.3)
    assert moving > 0.1
    assert hand.q_rad[1] > 0.1
    hand.frame(OFF, 0.3)
    hand.advance(2.0)
    assert hand.v_rad_s[1] == 0.0
    assert hand.speak(2.0) == []  # nor does it report


def test_poses_stream_at_the_period_they_were_asked_for():
    hand = Allegro("v4")
    hand.frame(Frame(0x204, struct.pack("<3h", 3, 0, 0)), 0.0)
    assert hand.due_s() is None
    hand.frame(ON, 0.0)
    assert hand.due_s() == pytest.approx(0.003)
    assert [frame.can_id for frame in hand.speak(0.003)] == [0x080, 0x084, 0x088, 0x08C]
    assert hand.due_s() == pytest.approx(0.006)


@pytest.mark.parametrize("frame", [
    Frame(0x180, b"\0" * 7), Frame(0x100, b"\1"), Frame(0x100, extended=True), Frame(0x101), Frame(0x380, b"\0" * 8),
])
def test_what_is_no_message_of_the_hand_changes_nothing(frame):
    hand = Allegro("v5")
    assert hand.frame(frame, 0.0) == []
    hand.frame(push(0, 200, 200, 200, 200), 0.0)  # servos are off
    hand.advance(0.5)
    assert hand.v_rad_s[1] == 0.0
