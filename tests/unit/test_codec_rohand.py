"""ROHand over Modbus RTU and in its own 55 AA protocol, byte by byte and under damage."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beingh0_edge.errors import PacketError
from beingh0_edge.firmware_bridge import codec

FUZZ = settings(max_examples=100, deadline=None)

CUSTOM_SET = "55 AA 02 01 50 12" + "10 27 FF" * 6 + "41"


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


# ---- worked examples ----


def test_closing_four_fingers():
    hand = codec("rohand")
    request = raw("02 10 04 70 00 04 08 FF FF FF FF FF FF FF FF FB 04")
    assert hand.write(1136, [65535] * 4) == request
    reply = hand.parse(raw("02 10 04 70 00 04 C1 12"), request)
    assert (reply.device_id, reply.kind, reply.address, reply.count) == (2, "write", 1136, 4)


def test_opening_all_fingers():
    hand = codec("rohand")
    assert hand.write(1135, [0] * 6) == raw("02 10 04 6F 00 06 0C" + "00" * 12 + "61 8E")
    assert hand.parse(raw("02 10 04 6F 00 06 71 15")).count == 6


def test_bending_the_index_by_an_angle():
    hand = codec("rohand")
    frame = raw("02 06 04 84 27 75 12 F7")
    assert hand.write(1156, [10101]) == frame
    assert hand.parse(frame, frame).values.tolist() == [10101]


def test_reading_positions():
    hand = codec("rohand")
    assert hand.read(1145, 6) == raw("02 03 04 79 00 06 15 12")
    reply = hand.parse(raw("02 03 0C 00 00 00 00 00 00 FF FF 00 00 80 00 B1 AA"))
    assert reply.values.tolist() == [0, 0, 0, 65535, 0, 32768]


def test_reading_that_the_thumb_is_stuck():
    hand = codec("rohand")
    assert hand.read(1085, 1) == raw("02 03 04 3D 00 01 14 C5")
    assert hand.parse(raw("02 03 02 00 05 3C 47")).values.tolist() == [5]


def test_a_published_custom_set_over_serial():
    hand = codec("rohand_serial")
    assert hand.message(0x50, raw("10 27 FF") * 6) == raw(CUSTOM_SET)
    reply = hand.parse(raw("55 AA 01 02 50 00 53"))
    assert (reply.device_id, reply.master_id, reply.command, reply.data, reply.error) == (2, 1, 0x50, b"", 0)


def test_a_published_error_over_serial():
    reply = codec("rohand_serial").parse(raw("55 AA 01 02 D0 01 01 D3"))
    assert (reply.command, reply.error, reply.data) == (0x50, 1, b"")


# ---- meaning and arguments ----


def test_negative_angles_are_two_s_complement():
    hand = codec("rohand")
    assert hand.write(1155, [-1])[4:6] == b"\xff\xff"
    assert hand.parse(hand.write(1155, [-100])).as_int16.tolist() == [-100]


@pytest.mark.parametrize(
    ("address", "value", "message"),
    [
        (1135, -1, "expected 0 to 65535, got -1"),
        (1135, 65536, "expected 0 to 65535, got 65536"),
        (1155, 32768, "expected -32768 to 32767, got 32768"),
        (1014, 1, "firmware update"),
    ],
)
def test_values_out_of_range_are_refused(address, value, message):
    with pytest.raises(ValueError, match=message):
        codec("rohand").write(address, [value])


def test_the_firmware_update_is_refused_in_the_middle_of_a_block_too():
    hand = codec("rohand")
    with pytest.raises(ValueError, match="firmware update"):
        hand.write(1012, raw("0000 0000 0001"))
    assert hand.write(1014, [0])[2:6] == raw("03 F6 00 00")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.message(128), "command: expected 0 to 127, got 128"),
        (lambda c: c.message(1, bytes(256)), "expected 0 to 255, got 256"),
        (lambda c: c.message(1, device_id=256), "device_id: expected 0 to 255, got 256"),
        (lambda c: c.can_frames(b"\x55\xaa"), "at least 7 bytes, got 2"),
    ],
)
def test_serial_arguments_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(codec("rohand_serial"))


def test_over_can_the_message_travels_in_pieces_under_the_hand_s_id():
    hand = codec("rohand_serial")
    frames = hand.can_frames(raw(CUSTOM_SET))
    assert [(can_id, len(data)) for can_id, data in frames] == [(2, 8), (2, 8), (2, 8), (2, 1)]
    assert b"".join(data for _, data in frames) == raw(CUSTOM_SET)


# ---- damage ----


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("55 AA 01 02 50 00", "expected at least 7 bytes, got 6"),
        ("55 AB 01 02 50 00 53", "head 55 AA, got 55 AB"),
        ("55 AA 01 02 50 00 54", "lrc: expected 53, got 54"),
        ("55 AA 01 02 50 01 52", "size byte: expected 0, got 1"),
        ("55 AA 01 02 D0 00 D3", "one code byte"),
    ],
)
def test_damaged_serial_replies_are_refused(frame, message):
    with pytest.raises(PacketError, match=message):
        codec("rohand_serial").parse(raw(frame))


@FUZZ
@given(st.integers(0, 127), st.binary(max_size=255), st.integers(0, 255), st.data())
def test_serial_messages_come_back_and_every_single_flipped_bit_is_found(command, data, device_id, draw):
    hand = codec("rohand_serial")
    frame = hand.message(command, data, device_id)
    back = hand.parse(frame)
    assert (back.master_id, back.device_id, back.command, back.data) == (device_id, 1, command, data)
    bit = draw.draw(st.integers(0, 8 * len(frame) - 1))
    damaged = bytearray(frame)
    damaged[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PacketError):
        hand.parse(bytes(damaged))


@FUZZ
@given(st.binary(max_size=270))
def test_garbage_is_parsed_or_refused_but_never_crashes(junk):
    for frame in (junk, b"\x55\xaa" + junk):
        try:
            codec("rohand_serial").parse(frame)
        except PacketError:
            continue
