"""LinkerHand messages byte by byte, over CAN and Modbus RTU, model by model."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beingh0_edge.errors import PacketError
from beingh0_edge.firmware_bridge import codec

O6, L6, L7, L10, L20 = (codec(f"linkerhand_{model}") for model in ("o6", "l6", "l7", "l10", "l20"))
MODELS = [O6, L6, L7, L10, L20]

MESSAGES = [
    (O6.set_positions([255] * 6), [(0x27, "01 FF FF FF FF FF FF")]),
    (O6.set_positions([0x64, 0xB4, 0, 0, 0, 0]), [(0x27, "01 64 B4 00 00 00 00")]),
    (O6.set_speeds([180] * 6), [(0x27, "05 B4 B4 B4 B4 B4 B4")]),
    (O6.set_torque_limits([180] * 6), [(0x27, "02 B4 B4 B4 B4 B4 B4")]),
    (L10.set_positions([255, 128, 255, 255, 255, 255, 128, 128, 128, 128]),
     [(0x27, "04 80 80 80 80"), (0x27, "01 FF 80 FF FF FF FF")]),
    (O6.read_version(), [(0x27, "64")]),
    (O6.read_faults(device_id=0x28), [(0x28, "35")]),
    # What follows from the table.
    (L10.set_positions(list(range(10)), pitch_first=True), [(0x27, "01 00 01 02 03 04 05"), (0x27, "04 06 07 08 09")]),
    (L10.set_torque_limits(list(range(10))), [(0x27, "02 00 01 02 03 04"), (0x27, "03 05 06 07 08 09")]),
    (L10.set_torque_limits(list(range(10)), device_id=0x28),
     [(0x28, "02 00 01 02 03 04"), (0x28, "03 05 06 07 08 09")]),
    (L10.set_speeds(list(range(10))), [(0x27, "05 00 01 02 03 04"), (0x27, "06 05 06 07 08 09")]),
    (L10.read_positions(), [(0x27, "04"), (0x27, "01")]),
    (L10.read_temperatures(), [(0x27, "33"), (0x27, "34")]),
    (L10.read_faults(), [(0x27, "35"), (0x27, "36")]),
    (L7.set_positions([1, 2, 3, 4, 5, 6, 7]), [(0x27, "01 01 02 03 04 05 06 07")]),
    (L7.read_temperatures(), [(0x27, "33")]),
    (L6.set_accelerations([9] * 6), [(0x27, "07 09 09 09 09 09 09")]),
    (L6.read_currents(), [(0x27, "36")]),
    (L20.set_positions(list(range(20))), [(0x27, "03 0A 0B 0C 0D 0E"), (0x27, "04 0F 10 11 12 13"),
                                          (0x27, "01 00 01 02 03 04"), (0x27, "02 05 06 07 08 09")]),
    (L20.set_positions(list(range(20)), reply=False), [(0x27, "13 0A 0B 0C 0D 0E"), (0x27, "14 0F 10 11 12 13"),
                                                       (0x27, "11 00 01 02 03 04"), (0x27, "12 05 06 07 08 09")]),
    (L20.set_base_pitches([1, 2, 3, 4, 5]), [(0x27, "01 01 02 03 04 05")]),
    (L20.set_yaws([1, 2, 3, 4, 5], reply=False), [(0x27, "12 01 02 03 04 05")]),
    (L20.set_thumb_roll(77), [(0x27, "03 4D 00 00 00 00")]),
    (L20.set_tips([1, 2, 3, 4, 5]), [(0x27, "04 01 02 03 04 05")]),
    (L20.set_speeds([1, 2, 3, 4, 5]), [(0x27, "05 01 02 03 04 05")]),
    (L20.set_currents([1, 2, 3, 4, 5]), [(0x27, "06 01 02 03 04 05")]),
    (L20.read_faults(), [(0x27, "07")]),
    (L20.clear_faults(), [(0x27, "07 01 01 01 01 01")]),
    (L20.read_temperatures(), [(0x27, "09"), (0x27, "0B"), (0x27, "0C"), (0x27, "0D")]),
    (L20.set_device_id(0x29), [(0x27, "C3 29")]),
    (L20.save(), [(0x27, "CF")]),
    (O6.read_normal_force(), [(0x27, "20")]),
    (O6.read_tangential_force(), [(0x27, "21")]),
    (O6.read_force_direction(), [(0x27, "22")]),
    (O6.read_proximity(), [(0x27, "23")]),
    (O6.read_serial(), [(0x27, "C0")]),
    (O6.read_hardware_version(), [(0x27, "C1")]),
    (O6.read_software_version(), [(0x27, "C2")]),
    (O6.read_tactile_type(), [(0x27, "B0")]),
    (O6.read_tactile("thumb"), [(0x27, "B1")]),
    (O6.read_tactile("little", cells="4x10"), [(0x27, "B5 A4")]),
    (L10.read_tactile("index", cells="6x12"), [(0x27, "B2 C6")]),
    (O6.message(0x12, [1, 2]), [(0x27, "12 01 02")]),
]


@pytest.mark.parametrize(("got", "expected"), MESSAGES)
def test_messages_match_the_worked_examples_byte_for_byte(got, expected):
    frames = [got] if isinstance(got, tuple) else got
    assert [(can_id, data.hex(" ").upper()) for can_id, data in frames] == expected


def test_a_query_of_one_frame_is_a_frame_and_of_several_a_list():
    assert O6.read_positions() == (0x27, b"\x01")
    assert L10.read_positions() == [(0x27, b"\x04"), (0x27, b"\x01")]


@pytest.mark.parametrize("call", [
    lambda: O6.set_positions([255] * 5), lambda: O6.set_positions([255] * 7), lambda: O6.set_positions([256] + [0] * 5),
    lambda: O6.set_positions([-1] + [0] * 5), lambda: O6.set_positions([0] * 6, device_id=0x800),
    lambda: L20.set_positions([0] * 16), lambda: L20.set_thumb_roll(256), lambda: L20.set_tips([0] * 6),
    lambda: L20.set_device_id(0), lambda: O6.message(0x100), lambda: O6.message(1, [0] * 8),
    lambda: O6.read_tactile("pinky"), lambda: O6.read_tactile("thumb", cells="5x5"),
    lambda: codec("linkerhand_o6_rs485").write(0, [256]),
    lambda: codec("linkerhand_o6_rs485").write(0, [1], function=6),
])
def test_arguments_that_do_not_fit_are_refused(call):
    with pytest.raises(ValueError, match=r"expect|at most|knows"):
        call()


@pytest.mark.parametrize("call", [
    lambda: L10.set_accelerations([0] * 10), lambda: L10.read_accelerations(), lambda: L7.read_currents(),
    lambda: L20.set_torque_limits([]), lambda: L20.read_torque_limits(),
    lambda: O6.set_positions([0] * 6, reply=False), lambda: L10.set_positions([0] * 10, reply=False),
])
def test_messages_a_model_does_not_have_are_refused(call):
    with pytest.raises(ValueError, match=r"linkerhand_[lo]\d+ has no"):
        call()


def test_answers_carry_values_and_the_joint_they_start_at():
    reply = O6.parse((0x27, bytes.fromhex("01 FF 80 00 01 02 03")))
    assert (reply.device_id, reply.message, reply.values, reply.first_joint) == (
        0x27, "positions", (255, 128, 0, 1, 2, 3), 0)
    assert O6.parse(0x28, bytes.fromhex("35 00 01 02 03 04 00")).message == "faults"
    assert O6.parse(0x28, bytes.fromhex("36 00 01 02 03 04 00")).message == "currents"
    upper = L10.parse((0x27, bytes.fromhex("04 0A 0B 0C 0D")), device_id=0x27)
    assert (upper.message, upper.values, upper.first_joint) == ("positions", (10, 11, 12, 13), 6)
    assert L10.joints[upper.first_joint:] == ("index_roll", "ring_roll", "little_roll", "thumb_roll")
    assert (L10.parse((0x27, bytes.fromhex("36 00 01 02 03 04"))).message) == "faults"
    assert (L20.parse((0x27, bytes.fromhex("07 00 01 02 03 04"))).message) == "faults"
    assert (L6.parse((0x27, bytes.fromhex("07 00 01 02 03 04 05"))).message) == "accelerations"
    assert L20.parse((0x27, bytes.fromhex("0C 1E 1F 20 21 22"))).first_joint == 10


def test_every_model_names_as_many_joints_as_it_takes_positions():
    for hand in MODELS:
        frames = hand.set_positions([0] * len(hand.joints))
        assert sum(len(data) - 1 for _, data in ([frames] if isinstance(frames, tuple) else frames)) == len(hand.joints)


def test_the_version_of_a_hand_is_decoded():
    version = L10.parse((0x27, bytes([0x64, 10, 6, 3, ord("R"), 0x25, 0x13, 1]))).version
    assert version == (10, 6, 3, "right", "2.5", "1.3", 1)
    assert L10.parse((0x28, bytes([0x64, 10, 6, 3, ord("L"), 0x25, 0x13, 1]))).version.side == "left"
    for other in (b"\x64\x0a\x06\x03\x00\x25\x13\x01", b"\x64\x0a", b"\x33\x00\x00\x00\x00\x00"):
        with pytest.raises(PacketError, match="version"):
            _ = L10.parse((0x27, other)).version


def test_a_row_of_a_touch_matrix_is_decoded():
    assert O6.parse((0x27, bytes.fromhex("B1 90 01 02 03 04"))).tactile_row == (9, (1, 2, 3, 4))
    assert L10.parse((0x27, bytes.fromhex("B5 B0 01 02 03 04 05 06"))).tactile_row == (11, (1, 2, 3, 4, 5, 6))
    for other in ("B1 91 01 02 03 04", "B1 00 01", "20 00 01 02 03 04"):
        with pytest.raises(PacketError, match="row"):
            _ = O6.parse((0x27, bytes.fromhex(other))).tactile_row


@pytest.mark.parametrize("data", [
    "", "01", "01 FF", "01 FF FF FF FF FF FF FF", "04 00 00 00 00", "99 00", "11 00 00 00 00 00 00",
    "01 00 00 00 00 00 00 00 00",
])
def test_frames_that_are_no_answer_of_this_model_are_damage(data):
    with pytest.raises(PacketError):
        O6.parse((0x27, bytes.fromhex(data)))


def test_an_answer_of_another_hand_is_damage():
    frame = (0x28, bytes.fromhex("01 FF FF FF FF FF FF"))
    assert O6.parse(frame).device_id == 0x28
    with pytest.raises(PacketError, match="CAN id"):
        O6.parse(frame, device_id=0x27)
    with pytest.raises(PacketError, match="CAN id"):
        O6.parse((0x827, frame[1]))


@settings(deadline=None)
@given(hand=st.sampled_from(MODELS), can_id=st.integers(0, 0x1FFFFFFF), data=st.binary(max_size=12))
def test_any_frame_is_either_understood_as_it_stands_or_damage(hand, can_id, data):
    try:
        reply = hand.parse((can_id, data))
    except PacketError:
        return
    assert (reply.device_id, bytes([reply.tag, *reply.values])) == (can_id, data)
    assert can_id <= 0x7FF


@settings(deadline=None)
@given(hand=st.sampled_from(MODELS), data=st.data())
def test_positions_come_back_as_they_were_set(hand, data):
    values = data.draw(st.lists(st.integers(0, 255), min_size=len(hand.joints), max_size=len(hand.joints)))
    frames = hand.set_positions(values)
    joints = {}
    for frame in [frames] if isinstance(frames, tuple) else frames:
        reply = hand.parse(frame)
        assert reply.message == "positions"
        joints.update(enumerate(reply.values, reply.first_joint))
    assert [joints[i] for i in range(len(values))] == values


def test_modbus_frames_match_the_worked_examples_byte_for_byte():
    hand = codec("linkerhand_o6_rs485")
    request = hand.read(0, 6)
    assert request.hex(" ").upper() == "27 04 00 00 00 06 77 0E"
    reply = hand.parse(bytes.fromhex("27 04 0C 00 FF 00 FF 00 FF 00 FF 00 FF 00 FF 2E 25"), request)
    assert reply.values.tolist() == [255] * 6
    assert hand.write(0, [255, 255, 0, 0, 0, 0]).hex(" ").upper() == (
        "27 10 00 00 00 06 0C 00 FF 00 FF 00 00 00 00 00 00 00 00 7F 7B")


def test_the_left_hand_and_one_register_go_over_modbus_as_well():
    hand = codec("linkerhand_l10_rs485")
    assert hand.read(40, 10, device_id=0x28)[:6].hex(" ") == "28 04 00 28 00 0a"
    assert hand.read(0, 10, function=3)[:6].hex(" ") == "27 03 00 00 00 0a"
    assert hand.write(70, [1])[:-2].hex(" ") == "27 10 00 46 00 01 02 00 01"
