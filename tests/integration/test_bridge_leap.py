"""The bridge against a simulated LEAP hand: sixteen servos with their own rules about torque, errors and silence."""

import time

import bridge_bench as bench
import numpy as np
import pytest
from bridge_bench import PATIENCE_S, move, wait_for

from beingh0_edge.errors import HandFault, LimitError, TransportTimeout
from beingh0_edge.firmware_bridge import Bridge, Safety, codec, hand_spec
from beingh0_edge.firmware_bridge.simulators.dynamixel import LeapHand, crc16

SPEC = hand_spec("leap")
SIM = "sim:leap"
PARTLY_CLOSED = 0.3 * SPEC.upper_rad
TICK_RAD = 2 * np.pi / 4096


def close_to(pose, seconds=0.3):
    return move(SPEC.joint_names, pose, seconds)


def open_armed(port=None, **options):
    return bench.open_armed("leap", port, **options)


def simulated(**options):
    return bench.simulated("leap", **options)


def test_the_hand_follows_and_reports():
    with open_armed() as hand:
        hand.follow(close_to(PARTLY_CLOSED), blocking=True)
        wait_for(lambda: np.abs(hand.state.q_rad - PARTLY_CLOSED).max() < 3 * TICK_RAD, "arrival")
        wait_for(lambda: hand.state.temperature_c.min() > 20, "temperatures")
        assert hand.state.counts["refused"] == 0


def test_servos_that_do_not_know_the_joint_answer_are_asked_one_by_one():
    with open_armed(simulated(old=1).port) as hand:
        hand.follow(close_to(PARTLY_CLOSED), blocking=True)
        wait_for(lambda: np.abs(hand.state.q_rad - PARTLY_CLOSED).max() < 3 * TICK_RAD, "arrival")


def test_torque_comes_on_only_with_arm_and_after_the_goal():
    simulator = simulated()
    with Bridge.open("leap", port=simulator.port) as hand:
        wait_for(lambda: hand.state.cycle > 20, "cycles")
        assert set(hand.log.written) == {"nothing"}
        hand.arm()
        log = hand.log
        first = log.written.index("done")
        assert log.q_cmd_rad[first] == pytest.approx(log.q_rad[first])


def test_a_hand_bent_far_out_of_its_range_is_not_armed():
    # A torque-free joint can be pushed anywhere.
    with Bridge.open("leap", port=simulated(pushed="3:4048").port) as bent:
        with pytest.raises(LimitError, match=r"index_dip outside the joint's range; move it by hand"):
            bent.arm()
        assert set(bent.log.written) == {"nothing"}


def test_an_overloaded_servo_is_a_fault_that_a_reset_reboots():
    simulator = simulated()
    with open_armed(simulator.port) as hand:
        simulator.command("set overload=6")
        hand.follow(close_to(PARTLY_CLOSED, seconds=0.5))
        wait_for(lambda: hand.state.state == "fault", "the overload")
        with pytest.raises(HandFault, match="middle_pip: overload"):
            hand.arm()
        simulator.command("set overload=")
        hand.reset()
        wait_for(lambda: hand.state.state == "idle", "the servo to come back")
        hand.arm()
        hand.follow(close_to(PARTLY_CLOSED), blocking=True)
        wait_for(lambda: np.abs(hand.state.q_rad - PARTLY_CLOSED).max() < 3 * TICK_RAD, "arrival")


def test_a_hot_servo_is_a_fault():
    simulator = simulated()
    with open_armed(simulator.port) as hand:
        simulator.command("set hot=13")
        wait_for(lambda: hand.state.state == "fault", "the temperature")
        assert hand.state.reason in ("over_temperature", "hand_error")


def test_the_goal_current_bounds_the_push():
    with open_armed(simulated(object=2300).port, current_ma=120) as hand:
        hand.follow(close_to(0.8 * SPEC.upper_rad, seconds=0.5), blocking=True)
        wait_for(lambda: np.abs(hand.state.current_a).max() > 0.1, "contact")
        assert np.abs(hand.state.current_a).max() <= 0.12 + 1e-6
        assert hand.state.state in ("active", "hold")


def test_torque_is_released_when_asked_for_and_only_then():
    patient = Safety(freeze_after_s=0.2)
    with open_armed(safety=patient) as hand:
        wait_for(lambda: hand.state.reason == "command_frozen", "the freeze")
        time.sleep(0.5)
        assert hand.state.state == "hold"
    generous = Safety(freeze_after_s=0.2, release_after_s=0.4)
    simulator = simulated()
    with open_armed(simulator.port, safety=generous) as hand:
        wait_for(lambda: hand.state.reason == "released", "the release")
        assert hand.state.state == "idle"
        wait_for(lambda: hand.log.written[-1] == "nothing", "silence")
        hand.arm()
        assert hand.state.state == "active"


def test_a_missing_servo_is_named():
    with pytest.raises(TransportTimeout, match="no answer from servos 4, 5"):
        Bridge.open("leap", port=simulated(missing="4,5").port, reply_timeout_s=0.01)


def test_a_servo_lost_on_the_way_stops_the_hand():
    simulator = simulated()
    with open_armed(simulator.port, reply_timeout_s=0.01) as hand:
        hand.follow(close_to(PARTLY_CLOSED, seconds=3.0))
        simulator.command("set missing=9")
        with pytest.raises(TransportTimeout):
            hand.wait(PATIENCE_S)


# -- the simulated servos alone

LEAP = codec("leap")


def ask(hand, frame, now_s):
    return b"".join(reply for _, reply, _ in hand.receive(frame, now_s))


def test_eeprom_is_locked_while_torque_is_on():
    hand = LeapHand()
    ask(hand, LEAP.torque_enable(True), 0.0)
    assert LEAP.parse(ask(hand, LEAP.write(11, [5], device_id=2), 0.01)).error == 7
    ask(hand, LEAP.torque_enable(False), 0.02)
    assert LEAP.parse(ask(hand, LEAP.write(11, [5], device_id=2), 0.03)).error == 0


def test_an_unstuffed_head_inside_a_frame_is_not_understood():
    hand = LeapHand()
    stuffed = LEAP.write(116, b"\xff\xff\xfd\xff", device_id=1)
    body = stuffed[:-2].replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")
    plain = body[:5] + (len(body) - 7 + 2).to_bytes(2, "little") + body[7:]
    assert ask(hand, plain + crc16(plain).to_bytes(2, "little"), 0.0) == b""
    assert LEAP.parse(ask(hand, stuffed, 0.1)).device_id == 1


def test_a_servo_that_hears_nothing_stops_until_its_watchdog_is_cleared():
    hand = LeapHand()
    ask(hand, LEAP.torque_enable(True), 0.0)
    ask(hand, LEAP.sync_write(98, dict.fromkeys(range(16), 10)), 0.0)
    ask(hand, LEAP.goal_position([3000] * 16), 0.0)
    hand.advance(1.0)
    assert hand.servos[0].ticks < 2950
    assert LEAP.parse(ask(hand, LEAP.read(98, 1, device_id=0), 1.0)).data == b"\xff"
    stopped = hand.servos[0].ticks
    ask(hand, LEAP.goal_position([3000] * 16), 1.05)
    hand.advance(1.2)
    assert hand.servos[0].ticks == pytest.approx(stopped, abs=1)
    ask(hand, LEAP.sync_write(98, dict.fromkeys(range(16), 0)), 1.25)
    ask(hand, LEAP.goal_position([3000] * 16), 1.3)
    hand.advance(3.0)
    assert hand.servos[0].ticks == pytest.approx(3000, abs=2)


def test_the_published_ping_gets_its_published_shape_of_answer():
    reply = ask(LeapHand(), bytes.fromhex("FF FF FD 00 01 03 00 01 19 4E"), 0.0)
    assert reply[:11] == bytes.fromhex("FF FF FD 00 01 07 00 55 00 D8 04")
    assert LEAP.parse(reply).device_id == 1


def test_a_joint_answer_that_comes_late_is_not_taken_apart_as_that_of_another_reading():
    simulator = simulated()
    with open_armed(simulator.port, safety=bench.TOLERANT) as hand:
        simulator.command("fault delay:0.3:0.036")  # a little later than the bridge waits, and the silence after that
        wait_for(lambda: hand.state.counts["foreign"] > 3, "late answers")
        assert hand.state.counts["refused"] == hand.state.counts["implausible"] == 0
