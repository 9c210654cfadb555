"""Allegro messages byte by byte, V4 and V5."""

import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beingh0_edge.errors import PacketError
from beingh0_edge.firmware_bridge import codec
from beingh0_edge.firmware_bridge.codec_allegro import RemoteFrame

V4, V5 = codec("allegro_v4"), codec("allegro_v5")
RADIANS = 1e-4  # the worked example gives four digits

MESSAGES = [  # frame, wire id, data, the same as text of the serial line CAN protocol
    (V5.servo_on(), 0x100, "", "t1000"),
    (V5.servo_off(), 0x104, "", "t1040"),
    (V5.set_report_periods(3, 0, 0), 0x204, "03 00 00 00 00 00", "t2046030000000000"),
    (V5.request_finger_pose(1), 0x080, "", "r0800"),
    (V5.request_info(), 0x200, "", "r2000"),
    (V5.set_torque(1, milliamps=[0, 50, 50, 50]), 0x180, "00 00 32 00 32 00 32 00", "t18080000320032003200"),
    # What follows from the table.
    (V4.servo_on(), 0x100, "", "t1000"),
    (V4.set_torque(4, pwm=[-1, 1200, -1200, 0]), 0x18C, "FF FF B0 04 50 FB 00 00", "t18C8FFFFB00450FB0000"),
    (V4.set_torque("thumb", pwm=[0, 0, 0, 0]), 0x18C, "00 00 00 00 00 00 00 00", "t18C80000000000000000"),
    (V4.set_joint_pose("middle", counts=[1, -2, 0, 0]), 0x384, "01 00 FE FF 00 00 00 00", "t38480100FEFF00000000"),
    (V5.set_torque("ring", milliamps=[-240, 240, 0, 1]), 0x188, "10 FF F0 00 00 00 01 00", "t188810FFF00000000100"),
    (V5.request_finger_pose("thumb"), 0x08C, "", "r08C0"),
    (V5.request_temperature(4), 0x0EC, "", "r0EC0"),
    (V5.request_serial(), 0x220, "", "r2200"),
    (V5.pick(), 0x044, "", "t0440"),
    (V5.place(), 0x048, "", "t0480"),
    (V5.start_self_calibration(), 0x224, "", "t2240"),
    (V5.servo_off(device_id=3), 0x107, "", "t1070"),
    (V5.set_report_periods(2, 10, 1000, device_id=1), 0x205, "02 00 0A 00 E8 03", "t205602000A00E803"),
]


def slcan(frame):
    can_id, data = frame
    kind = "r" if isinstance(frame, RemoteFrame) else "t"
    return f"{kind}{can_id:03X}{len(data)}{data.hex().upper()}"


@pytest.mark.parametrize(("frame", "can_id", "data", "text"), MESSAGES)
def test_messages_match_the_worked_examples_byte_for_byte(frame, can_id, data, text):
    assert frame == (can_id, bytes.fromhex(data))
    assert slcan(frame) == text


def test_a_pose_is_read_in_counts_and_radians():
    reply = V5.parse((0x080, bytes.fromhex("00 00 64 00 C8 00 2C 01")))
    assert (reply.message, reply.finger, reply.values) == ("finger_pose", 1, (0, 100, 200, 300))
    assert reply.positions_rad == pytest.approx([0, 0.1536, 0.3072, 0.4608], abs=RADIANS)
    old = V4.parse(0x08C, struct.pack("<4h", 1, -1, 32767, -32768))
    assert (old.finger, old.values) == (4, (1, -1, 32767, -32768))
    assert old.positions_rad[3] == pytest.approx(-math.radians(333.3 / 2))


def test_fingertip_pressures_are_read():
    reply = V5.parse((0x3C0, bytes.fromhex("0C 00 00 00 FA 00 00 00")))
    assert (reply.message, reply.finger, reply.values) == ("fingertip_pressure", 1, (12, 250))
    ring = V5.parse((0x3C8, struct.pack("<2i", -3, 70000)))
    assert (ring.finger, ring.values) == (3, (-3, 70000))
    assert V5.parse((0x140, bytes(8))).finger == 1  # older firmware
    assert V5.parse((0x148, bytes(8))).finger == 3


def test_an_error_report_is_read():
    reply = V5.parse((0x3B8, bytes.fromhex("05 20")))
    assert (reply.message, reply.values, reply.finger) == ("error", (5, 0x20), None)


def test_temperatures_differ_between_versions():
    data = bytes([30, 31, 32, 33])
    assert V5.parse((0x0E4, data)).values == (30, 31, 32, 33)
    old = V4.parse((0x0E4, struct.pack("<i", -7)))
    assert (old.message, old.finger, old.values) == ("temperature", 2, (-7,))


def test_what_the_hand_says_about_itself_is_read():
    info = V4.parse((0x200, struct.pack("<HHBBB", 0x0401, 0x8002, 1, 45, 0b011))).info
    assert info == (0x0401, 0x8002, 1, 45, 3)
    assert (info.hardware, info.type, info.temperature_c, info.status) == (0x0401, 1, 45, 3)
    assert V5.parse((0x220, b"5TBR0017")).serial == "5TBR0017"
    assert V5.parse((0x0C0, struct.pack("<3h", -1, 2, -3))).values == (-1, 2, -3)
    done = V5.parse((0x248, b""))
    assert (done.message, done.values) == ("self_calibration_done", ())


def test_asking_a_reply_for_what_it_is_not_is_refused():
    pose = V5.parse((0x080, bytes(8)))
    for ask in (lambda: pose.info, lambda: pose.serial, lambda: V5.parse((0x200, bytes(7))).positions_rad,
                lambda: V5.parse((0x220, b"\xff" * 8)).serial):
        with pytest.raises(PacketError, match="expected"):
            ask()


@pytest.mark.parametrize("call", [
    lambda: V5.set_torque(1, milliamps=[241, 0, 0, 0]), lambda: V5.set_torque(1, milliamps=[0, 0, 0, -241]),
    lambda: V4.set_torque(1, pwm=[1201, 0, 0, 0]), lambda: V4.set_torque(0, pwm=[0] * 4),
    lambda: V4.set_torque(5, pwm=[0] * 4), lambda: V4.set_torque("pinky", pwm=[0] * 4),
    lambda: V4.set_torque(1, pwm=[0] * 3), lambda: V4.set_joint_pose(1, counts=[32768, 0, 0, 0]),
    lambda: V5.servo_on(device_id=4), lambda: V5.set_report_periods(-1), lambda: V5.set_report_periods(40000),
])
def test_arguments_that_do_not_fit_are_refused(call):
    with pytest.raises(ValueError, match="expected"):
        call()


def test_a_fraction_of_a_milliampere_is_refused_rather_than_cut():
    with pytest.raises(TypeError):
        V5.set_torque(1, milliamps=[0.5, 0, 0, 0])


@pytest.mark.parametrize(("hand", "can_id", "data"), [
    (V5, 0x080, bytes(7)), (V5, 0x080, bytes(9)), (V5, 0x080, b""), (V5, 0x3B8, bytes(1)), (V5, 0x248, bytes(1)),
    (V5, 0x100, b""), (V5, 0x180, bytes(8)), (V5, 0x3C4, bytes(8)), (V5, 0x090, bytes(8)), (V5, 0x7FF, bytes(8)),
    (V5, 0x880, bytes(8)), (V4, 0x3C0, bytes(8)), (V4, 0x3B8, bytes(2)), (V4, 0x248, b""), (V4, 0x200, bytes(8)),
])
def test_frames_the_hand_does_not_send_are_damage(hand, can_id, data):
    with pytest.raises(PacketError):
        hand.parse((can_id, data))


def test_requests_heard_back_are_no_replies():
    for frame in (V5.request_info(), V5.request_finger_pose(1), V5.servo_on(), V5.set_torque(1, milliamps=[0] * 4)):
        with pytest.raises(PacketError):
            V5.parse(frame)


def test_a_reply_of_another_device_is_damage():
    assert V5.parse((0x082, bytes(8))).device_id == 2
    assert V5.parse((0x082, bytes(8)), device_id=2).finger == 1
    with pytest.raises(PacketError, match="device_id"):
        V5.parse((0x082, bytes(8)), device_id=0)


@settings(deadline=None)
@given(hand=st.sampled_from([V4, V5]), can_id=st.integers(0, 0x1FFFFFFF) | st.integers(0, 0x7FF),
       data=st.binary(max_size=9))
def test_any_frame_is_either_a_message_of_the_table_or_damage(hand, can_id, data):
    sizes = {**dict.fromkeys(range(0x20, 0x24), 8), 0x30: 6, **dict.fromkeys(range(0x38, 0x3C), 4), 0x80: 7, 0x88: 8}
    if hand is V5:
        sizes.update({0x50: 8, 0x52: 8, 0xF0: 8, 0xF2: 8, 0xEE: 2, 0x92: 0})
    if can_id <= 0x7FF and sizes.get(can_id >> 2) == len(data):
        assert hand.parse((can_id, data)).device_id == can_id & 3
    else:
        with pytest.raises(PacketError):
            hand.parse((can_id, data))


@settings(deadline=None)
@given(finger=st.integers(1, 4), milliamps=st.lists(st.integers(-240, 240), min_size=4, max_size=4))
def test_torques_travel_as_little_endian_words(finger, milliamps):
    assert V5.set_torque(finger, milliamps) == (4 * (0x5F + finger), struct.pack("<4h", *milliamps))
