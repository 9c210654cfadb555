"""The simulated Inspire hand alone, on a virtual clock: strict on the wire, plausible in motion."""

import struct

import pytest

from beingh0_edge.firmware_bridge.simulators.faults import Faults
from beingh0_edge.firmware_bridge.simulators.inspire_rh56 import InspireRh56
from beingh0_edge.firmware_bridge.simulators.inspire_wires import PrivateFrame
from beingh0_edge.firmware_bridge.simulators.launch import parse_spec

# Frames as the manual prints them; the driver's encoder is not used here.
READ_ANGLES = bytes.fromhex("EB 90 01 04 11 0A 06 0C 32")
OPEN = bytes.fromhex("EB 90 01 0F 12 CE 05 E8 03 E8 03 E8 03 E8 03 E8 03 E8 03 77")
CLOSE = bytes.fromhex("EB 90 01 0F 12 CE 05 00 00 00 00 00 00 00 00 00 00 00 00 F5")
WRITE_OK = bytes.fromhex("90 EB 01 04 12 CE 05 01 EB")


def replies(hand, data, now_s=0.0):
    return [reply for _, reply, _ in hand.receive(data, now_s)]


def angles(hand, now_s):
    (reply,) = replies(hand, READ_ANGLES, now_s)
    return list(struct.unpack("<6h", reply[7:-1]))


def test_a_request_is_answered_as_the_manual_prints_it():
    hand = PrivateFrame(InspireRh56())
    assert replies(hand, OPEN) == [WRITE_OK]
    (reply,) = replies(hand, READ_ANGLES)
    assert reply == bytes.fromhex("90 EB 01 0F 11 0A 06 E8 03 E8 03 E8 03 E8 03 E8 03 E8 03") + reply[-1:]
    assert sum(reply[2:-1]) & 0xFF == reply[-1]


@pytest.mark.parametrize(
    "frame",
    [
        "EB 90 01 04 11 0A 06 0C 33",  # wrong sum
        "EB 90 02 04 11 0A 06 0C 33",  # another id
        "90 EB 01 04 11 0A 06 0C 32",  # a reply's head
        "EB 90 01 05 11 0A 06 0C 00 33",  # a read with two payload bytes
        "EB 90 01 04 13 0A 06 0C 34",  # no such command
        "EB 90 01 04 12 0A 06 0C 33",  # a write to the measured angles
    ],
)
def test_anything_but_a_sound_request_is_met_with_silence(frame):
    assert replies(PrivateFrame(InspireRh56()), bytes.fromhex(frame)) == []


def test_a_request_may_come_in_pieces_but_not_after_a_pause():
    hand = PrivateFrame(InspireRh56())
    assert replies(hand, READ_ANGLES[:4], 0.0) == []
    assert len(replies(hand, READ_ANGLES[4:], 0.001)) == 1
    assert replies(hand, READ_ANGLES[:4], 1.0) == []
    assert replies(hand, READ_ANGLES[4:], 1.1) == []


def test_motion_starts_after_the_latency_and_takes_the_full_stroke_time():
    hand = PrivateFrame(InspireRh56())
    replies(hand, CLOSE, 0.0)
    assert angles(hand, 0.060) == [1000] * 6
    assert all(0 < a < 1000 for a in angles(hand, 0.4))
    assert angles(hand, 1.2) == [0] * 6


def test_speed_set_slows_the_motion_down():
    hand = PrivateFrame(InspireRh56())
    half_speed = bytes([1, 15, 0x12, 0xF2, 0x05]) + struct.pack("<6h", *[500] * 6)
    replies(hand, b"\xeb\x90" + half_speed + bytes([sum(half_speed) & 0xFF]))
    replies(hand, CLOSE, 0.0)
    assert angles(hand, 1.2)[0] > 200


def test_minus_one_leaves_a_finger_alone():
    hand = PrivateFrame(InspireRh56())
    body = bytes([1, 15, 0x12, 0xCE, 0x05]) + struct.pack("<6h", 0, -1, -1, -1, -1, 500)
    replies(hand, b"\xeb\x90" + body + bytes([sum(body) & 0xFF]))
    assert angles(hand, 2.0) == [0, 1000, 1000, 1000, 1000, 500]


def test_a_stuck_finger_stalls_until_the_error_is_cleared():
    hand = PrivateFrame(InspireRh56({"stuck": "index"}))
    replies(hand, CLOSE, 0.0)
    hand._hand.advance(2.0)
    read_errors = bytes.fromhex("EB 90 01 04 11 46 06 06 68")
    assert replies(hand, read_errors, 2.0)[0][7:-1] == bytes([0, 0, 0, 1, 0, 0])
    assert angles(hand, 2.0) == [0, 0, 0, 1000, 0, 0]
    hand.set("stuck", "")
    replies(hand, bytes.fromhex("EB 90 01 04 12 EC 03 01 07"), 2.0)
    assert replies(hand, read_errors, 2.0)[0][7:-1] == bytes(6)
    assert angles(hand, 4.0)[3] == 0


def test_save_is_answered_twice():
    hand = PrivateFrame(InspireRh56())
    answers = hand.receive(bytes.fromhex("EB 90 01 04 12 ED 03 01 08"), 0.0)
    assert [reply.hex(" ").upper() for _, reply, _ in answers] == [
        "90 EB 01 04 12 ED 03 01 08",
        "90 EB 01 04 12 ED 03 00 07",
    ]
    assert answers[1][2] == pytest.approx(1.0)


def test_a_hot_finger_reports_it_and_clears_it_when_cool():
    hand = PrivateFrame(InspireRh56({"hot": "middle"}))
    hand._hand.advance(0.0)
    hand._hand.advance(5.0)
    read_errors = bytes.fromhex("EB 90 01 04 11 46 06 06 68")
    assert replies(hand, read_errors, 5.0)[0][7:-1] == bytes([0, 0, 2, 0, 0, 0])
    hand.set("hot", "")
    replies(hand, bytes.fromhex("EB 90 01 04 12 EC 03 01 07"), 5.0)
    assert replies(hand, read_errors, 5.1)[0][7:-1] == bytes([0, 0, 2, 0, 0, 0])  # clearing does not cool
    assert replies(hand, read_errors, 80.0)[0][7:-1] == bytes(6)


def test_faults_and_specs_are_read_strictly():
    assert Faults.parse("drop:0.25,delay:1:0.2").active["delay"].value == 0.2
    spec = parse_spec("sim:inspire_rh56?fault=echo&seed=3&baud=57600&device_id=7")
    assert (spec.seed, spec.baud, dict(spec.options)) == (3, 57600, {"device_id": "7"})
    for bad in ("drop:x", "drop:-1", "drop:1:2:3", "nope"):
        with pytest.raises(ValueError, match="fault"):
            Faults.parse(bad)
    for bad in ("seed=x", "pose=1,2", "stuck=toe"):
        with pytest.raises(ValueError, match="sim:inspire_rh56"):
            parse_spec(f"sim:inspire_rh56?{bad}")
    with pytest.raises(ValueError, match="unknown simulated hand"):
        parse_spec("sim:x")
