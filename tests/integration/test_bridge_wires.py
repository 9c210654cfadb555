"""The same hand behind its other wires: Modbus RTU, Modbus TCP, CAN through an slcan adapter."""

import numpy as np
import pytest
from bridge_bench import PATIENCE_S, TOLERANT, move, open_armed, simulated, wait_for

from beingh0_edge.errors import HandFault, TransportError, TransportTimeout
from beingh0_edge.firmware_bridge import Bridge, hand_spec

WIRES = ("inspire_rh56_modbus", "inspire_rh56_tcp", "inspire_rh56_can")
SPEC = hand_spec("inspire_rh56")
PARTLY_CLOSED = 0.25 * SPEC.upper_rad
REGISTER_STEP_RAD = 1.62e-3


def close_to(pose, seconds=0.3):
    return move(SPEC.joint_names, pose, seconds)


@pytest.mark.parametrize("name", WIRES)
def test_the_hand_follows_and_reports_on_every_wire(name):
    with open_armed(name) as hand:
        hand.follow(close_to(PARTLY_CLOSED), blocking=True)
        wait_for(lambda: np.abs(hand.state.q_rad - PARTLY_CLOSED).max() < 2 * REGISTER_STEP_RAD, "arrival")
        wait_for(lambda: hand.state.temperature_c.min() > 20, "temperatures")
        wait_for(lambda: hand.state.force_g.min() > 100, "forces")
        wait_for(lambda: hand.state.current_a.min() > 0, "currents")
        wait_for(lambda: (hand.state.status == 2).all(), "the status")
        counts = hand.state.counts
        assert counts["checksum"] == counts["refused"] == counts["implausible"] == 0


# What of a stall, a pulled cable and noise holds on CAN: test_bridge_contract.py.
NOISE = {
    "inspire_rh56_modbus": ("drop:0.1", "corrupt:0.1", "split:0.3", "wrong_id:0.1"),
    "inspire_rh56_tcp": ("drop:0.1", "split:0.3", "wrong_id:0.1"),  # TCP never delivers a flipped bit
}


@pytest.mark.parametrize("name", NOISE)
def test_a_stall_can_be_reset_and_an_unplugged_hand_comes_back(name):
    simulator = simulated(name)
    with open_armed(name, simulator.port) as hand:
        simulator.command("set stuck=middle")
        hand.follow(close_to(PARTLY_CLOSED, seconds=2.0))
        with pytest.raises(HandFault, match="middle: stall"):
            hand.wait(PATIENCE_S)
        simulator.command("set stuck=")
        hand.reset()
        hand.arm()
        simulator.command("unplug")
        with pytest.raises(TransportError, match="lost"):
            hand.follow(close_to(PARTLY_CLOSED, seconds=2.0), blocking=True)
        simulator.command("replug")
        wait_for(lambda: hand.state.state == "idle", "the bridge to reconnect")
        hand.arm()
        hand.follow(close_to(PARTLY_CLOSED), blocking=True)


@pytest.mark.parametrize("name", NOISE)
def test_a_noisy_wire_only_costs_cycles(name):
    simulator = simulated(name)
    with open_armed(name, simulator.port, safety=TOLERANT) as hand:
        for fault in NOISE[name]:
            simulator.command(f"fault {fault}")
            hand.arm()
            hand.follow(close_to(PARTLY_CLOSED), blocking=True)
            assert hand.state.q_cmd_rad == pytest.approx(PARTLY_CLOSED, abs=REGISTER_STEP_RAD)


@pytest.mark.parametrize("name", ["inspire_rh56_modbus", "inspire_rh56_can"])
def test_another_id_does_not_answer(name):
    with pytest.raises(TransportTimeout, match="no answer"):
        Bridge.open(name, port=simulated(name, device_id=3).port)


def test_what_cannot_be_reached_says_so():
    for name, port, words in (
        ("inspire_rh56_tcp", "127.0.0.1:1", "127.0.0.1:1: Connection refused; a simulated hand: sim:inspire_rh56_tcp$"),
        ("inspire_rh56_can", "can7", "can7: (no such CAN interface|this kernel has no CAN)"),
        ("inspire_rh56_can", "slcan:/dev/ttyACM99", "ttyACM99 does not exist"),
    ):
        with pytest.raises(TransportError, match=words):
            Bridge.open(name, port=port)
    with pytest.raises(ValueError, match="HOST:NUMBER"):
        Bridge.open("inspire_rh56_tcp", port="192.168.11.210:x")


def test_options_belong_to_the_hand_and_are_checked():
    with pytest.raises(TypeError, match="unknown option 'byte_order' of inspire_rh56; known: speed, force_g, family"):
        Bridge.open("inspire_rh56", port="sim:inspire_rh56", byte_order="low_first")
    with pytest.raises(ValueError, match="byte_order: expected 'low_first' or 'high_first', got 'middle'"):
        Bridge.open("inspire_rh56_modbus", port="sim:inspire_rh56_modbus", byte_order="middle")
