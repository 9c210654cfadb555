"""What only one family of hands does: ids per side, units, registers not to be touched, a watchdog of its own."""

import numpy as np
import pytest
from bridge_bench import move, open_armed, simulated, wait_for

from beingh0_edge.errors import HandError, TransportTimeout
from beingh0_edge.firmware_bridge import Bridge, codec, hand_spec, start_simulator
from beingh0_edge.firmware_bridge.simulators.ability import AbilityHand
from beingh0_edge.firmware_bridge.simulators.brainco import Revo2
from beingh0_edge.firmware_bridge.simulators.linkerhand import LinkerHand
from beingh0_edge.firmware_bridge.simulators.modbus import ModbusRtu, Refused
from beingh0_edge.firmware_bridge.simulators.rohand import RoHand
from beingh0_edge.firmware_bridge.simulators.slcan import Frame, SlcanAdapter, parse


def partly_closed(name, seconds=0.3):
    spec = hand_spec(name)
    return move(spec.joint_names, 0.25 * spec.upper_rad, seconds)


def requests(trace):
    """Everything the bridge put on the wire, one piece per read of the simulated hand."""
    return [bytes.fromhex(line.split()[1]) for line in trace.read_text().splitlines()]


# -- LinkerHand

def test_a_left_linkerhand_has_another_can_id():
    simulator = simulated("linkerhand_o6", side="left")
    with pytest.raises(TransportTimeout, match="no answer from the hand under CAN id 39"):
        Bridge.open("linkerhand_o6", port=simulator.port, reply_timeout_s=0.01)
    with open_armed("linkerhand_o6", simulator.port, side="left") as hand:
        hand.follow(partly_closed("linkerhand_o6"), blocking=True)


def test_a_linkerhand_that_does_not_say_what_it_is_needs_somebody_to_vouch():
    simulator = simulated("linkerhand_l10", silent_version=1)
    with pytest.raises(HandError, match="model_check=False"):
        Bridge.open("linkerhand_l10", port=simulator.port, reply_timeout_s=0.01)
    with open_armed("linkerhand_l10", simulator.port, model_check=False) as hand:
        assert hand.state.state == "active"


def test_joints_that_an_l20_does_not_have_keep_what_they_report():
    spec = hand_spec("linkerhand_l20")
    assert len(spec.joints) == 16
    with open_armed("linkerhand_l20", simulated("linkerhand_l20", pose=",".join(["0.2"] * 20)).port) as hand:
        hand.follow(move(spec.joint_names, 0.25 * spec.upper_rad, 0.5), blocking=True)
        wait_for(lambda: np.abs(hand.state.q_rad - 0.25 * spec.upper_rad).max() < 0.03, "arrival")


def test_a_controller_off_the_bus_is_opened_again():
    simulator = simulated("linkerhand_o6")
    with open_armed("linkerhand_o6", simulator.port) as hand:
        simulator.command("set bus_off=1")
        with pytest.raises(HandError):  # TransportError, unless this thread sleeps until the port is back
            hand.follow(partly_closed("linkerhand_o6", 3.0), blocking=True)
        wait_for(lambda: hand.state.state == "idle", "the bridge to reconnect")
        assert "disconnected" in hand.log.state
        assert "link_lost" in hand.log.reason
        hand.arm()


def test_the_simulated_linkerhand_takes_only_whole_frames():
    hand = LinkerHand("l7")
    whole = Frame(0x27, b"\x01" + bytes(7))
    assert [reply.data[:1] for reply in hand.frame(whole, 0.0)] == [b"\x01"]
    for frame in (Frame(0x28, b"\x01"), Frame(0x27, b"\x01" + bytes(6)), Frame(0x27, b""), Frame(0x27, b"\x04"),
                  Frame(0x27, b"\x01", extended=True)):
        assert hand.frame(frame, 0.1) == []
    ten = LinkerHand("l10")
    assert ten.frame(Frame(0x27, b"\x11" + bytes(6)), 0.0) == []  # taken without an answer
    ten.joints.advance(2.0)
    assert ten.joints.position[:6] == pytest.approx([1.0] * 6)


# -- ROHand

def test_a_rohand_gets_no_target_twice_and_nothing_that_wears_or_resets_it(tmp_path):
    trace = tmp_path / "trace"
    with start_simulator(f"sim:rohand?trace={trace}") as simulator, \
            Bridge.open("rohand", port=simulator.port) as hand:
        hand.arm()
        hand.follow(partly_closed("rohand"), blocking=True)
        begin = len(requests(trace))
        cycle = hand.state.cycle
        wait_for(lambda: hand.state.cycle >= cycle + 60, "a second")
        targets = [frame for frame in requests(trace)[begin:] if frame[1] == 0x10]
        assert 5 <= len(targets) <= 20  # ten a second, not sixty
    written = {int.from_bytes(frame[2:4], "big") for frame in requests(trace) if frame[1] in (0x06, 0x10)}
    assert written == {1095, 1125, 1135}


def test_a_rohand_of_generation_2_is_driven_too_and_an_uncalibrated_one_says_so():
    with open_armed("rohand", simulated("rohand", generation=2).port) as hand:
        hand.follow(partly_closed("rohand"), blocking=True)
    with pytest.raises(HandError, match="it reports: needs calibration"):
        Bridge.open("rohand", port=simulated("rohand", state=2).port)


def test_the_simulated_rohand_refuses_what_the_real_one_does():
    hand = RoHand()
    for address, words in ((1145, [0]), (1014, [1]), (1135, [0] * 7), (1000, [0])):
        with pytest.raises(Refused):
            hand.write(address, words, 0.0)
    close = codec("rohand").write(1135, [65535] * 6)
    line = ModbusRtu(hand)
    assert len(line.receive(close, 0.0)) == 1
    assert line.receive(close[:-1] + b"\0", 1.0) == []
    hand.joints.advance(3.0)
    assert hand.read(3, 1145, 6, 3.0) == [65535] * 6
    assert hand.read(3, 1085, 6, 3.0) == [2] * 6


# -- BrainCo Revo2

@pytest.mark.parametrize("name", ["brainco_revo2", "brainco_revo2_canfd", "brainco_revo2_can"])
def test_a_revo2_in_physical_units_is_brought_back_to_per_mille(name):
    with open_armed(name, simulated(name, physical=1).port) as hand:
        hand.follow(partly_closed(name), blocking=True)
        target = 0.25 * hand_spec(name).upper_rad
        wait_for(lambda: np.abs(hand.state.q_rad - target).max() < 0.03, "arrival")


def test_a_revo2_of_the_other_side_is_refused_unless_somebody_vouches():
    simulator = simulated("brainco_revo2", side="left")
    with pytest.raises(HandError, match="it is a left hand"):
        Bridge.open("brainco_revo2", port=simulator.port)
    with open_armed("brainco_revo2", simulator.port, family="revo2") as hand:
        assert hand.state.state == "active"


def test_the_simulated_revo2_checks_ranges_and_knows_its_registers():
    hand = Revo2()
    for address, words in ((1022, [1001, 500] * 6), (1022, [500, 0] * 6), (1022, [500, 500]), (900, [1]), (1009, [1]),
                           (2000, [0])):
        with pytest.raises(Refused):
            hand.write(address, words, 0.0)
    hand.write(1070, [0x6400, 0x6464, 0x6464], 0.0)  # percents, the earlier finger in the low byte
    hand.joints.advance(2.0)
    assert hand.read(4, 2000, 6, 2.0) == [0, 1000, 1000, 1000, 1000, 1000]


# -- Ability Hand

def test_an_idle_ability_hand_is_kept_in_the_api():
    pose = "0.4,0.4,0.4,0.4,0.4,0.4"
    with Bridge.open("ability_hand", port=simulated("ability_hand", pose=pose).port) as hand:
        before = hand.state.q_rad
        cycle = hand.state.cycle
        wait_for(lambda: hand.state.cycle > cycle + 100, "a second")
        assert hand.state.q_rad == pytest.approx(before, abs=1e-3)
        assert set(hand.log.written) == {"nothing"}


def test_the_simulated_ability_hand_goes_its_own_way_after_300_ms_of_silence():
    hand = AbilityHand()
    ability = codec("ability_hand")
    close = ability.position([60, 60, 60, 60, 30, -60], reply_variant=3)
    for step in range(40):
        assert len(hand.receive(close, 0.05 * step)) == 1
    assert hand.joints.position[0] == pytest.approx(0.5, abs=0.01)
    hand.advance(2.2)
    assert hand.joints.position[0] == pytest.approx(0.5, abs=0.01)
    hand.advance(4.0)
    assert hand.joints.position == pytest.approx([0.0] * 6, abs=0.01)


def test_the_simulated_ability_hand_answers_only_sound_frames_for_itself():
    hand = AbilityHand()
    sound = codec("ability_hand").read_only(reply_variant=3)
    assert len(hand.receive(sound, 0.0)) == 1
    for frame in (sound[:-2] + bytes([sound[-2] ^ 1]) + sound[-1:],
                  codec("ability_hand").read_only(reply_variant=3, device_id=0x51), b"\x7e\x7e", b"\x7e\x50\x7e"):
        assert hand.receive(frame, 1.0) == []


# -- adapters

def test_an_adapter_refuses_frames_while_closed_and_lines_that_are_none():
    adapter = SlcanAdapter(LinkerHand("o6"))
    ask = b"t027101\r"
    assert adapter.receive(ask, 0.0)[0][1] == b"\a"
    for command in (b"C\r", b"S8\r", b"O\r"):
        assert adapter.receive(command, 0.0)[0][1] == b"\r"
    assert adapter.receive(ask, 0.0)[0][1] == b"z\rt027701FFFFFFFFFFFF\r"
    for line in (b"t027201\r", b"t02710G\r", b"t8001AA\r", b"x\r", b"T0000002710\r"):
        assert adapter.receive(line, 0.0)[0][1] == b"\a", line
    assert adapter.receive(b"t0271", 0.0) == []
    assert len(adapter.receive(b"01\rt027101\r", 0.0)) == 2


def test_fd_frames_of_the_codec_are_what_an_adapter_reads():
    slcan = codec("slcan")
    for size in (0, 8, 12, 48, 64):
        data = bytes(range(size))
        line = slcan.fd_frame(0x7F0100 | size, data, extended=True)
        assert parse(line[:-1]) == Frame(0x7F0100 | size, data, extended=True, fd=True)
        read = slcan.parse(line)
        assert (read.can_id, read.data, read.fd, read.extended) == (0x7F0100 | size, data, True, True)
    with pytest.raises(ValueError, match="number of data bytes"):
        slcan.fd_frame(1, bytes(9))
    assert slcan.data_bitrate(5_000_000) == b"Y5\r"
