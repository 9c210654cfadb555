"""Inspire hands over CAN and through their USB-CAN stick, byte by byte and under damage."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beingh0_edge.errors import PacketError
from beingh0_edge.firmware_bridge import codec

FUZZ = settings(max_examples=100, deadline=None)

STICK_WRITE = "AA AA 01 80 73 05 F4 01 FF FF FF FF FF FF 08 00 01 00 F1 55 55"
STICK_WRITE_REPLY = "AA AA 01 80 73 05 08 00 00 00 00 00 00 00 01 00 01 00 03 55 55"
STICK_READ = "AA AA 01 00 84 01 02 00 00 00 00 00 00 00 01 00 01 00 8A 55 55"
STICK_READ_REPLY = "AA AA 01 00 84 01 C9 03 00 00 00 00 00 00 02 00 01 00 A5 55 55 55"


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


# ---- worked examples ----


def test_reading_the_index_angle():
    hand = codec("inspire_rh56_can")
    request = hand.read(1552, 2)
    assert request == (0x01840001, b"\x02")
    reply = hand.parse((0x01840001, raw("F4 01")), request=request)
    assert (reply.device_id, reply.kind, reply.address, reply.wrist) == (1, "read", 1552, False)
    assert reply.values.tolist() == [500]


@pytest.mark.parametrize("acknowledgement", [b"", b"\x01", b"\x02"])
def test_writing_the_index_angle_is_acknowledged_with_or_without_a_byte(acknowledgement):
    hand = codec("inspire_rh56_can")
    request = hand.write(1492, [600])
    assert request == (0x05750001, raw("58 02"))
    reply = hand.parse(0x05750001, acknowledgement, request=request)
    assert (reply.kind, reply.address, reply.data) == ("write", 1492, acknowledgement)


def test_a_captured_write_through_the_stick():
    hand = codec("inspire_rh56_can")
    assert hand.to_stick(hand.write(1486, [500])) == raw(STICK_WRITE)
    reply = hand.parse(hand.from_stick(raw(STICK_WRITE_REPLY)))
    assert (reply.kind, reply.address, reply.data) == ("write", 1486, b"\x08")


def test_a_captured_read_through_the_stick():
    hand = codec("inspire_rh56_can")
    assert hand.to_stick(hand.read(1552, 2)) == raw(STICK_READ)
    assert hand.parse(hand.from_stick(raw(STICK_READ_REPLY))).values.tolist() == [969]


# ---- layout ----


def test_six_joints_take_two_frames():
    hand = codec("inspire_rh56_can")
    assert hand.read(1546, 12) == [(1546 << 14 | 1, b"\x08"), (1554 << 14 | 1, b"\x04")]
    assert hand.write(1486, [1000, 500, -1, 0, 1, 2], device_id=7) == [
        (1 << 26 | 1486 << 14 | 7, raw("E803 F401 FFFF 0000")),
        (1 << 26 | 1494 << 14 | 7, raw("0100 0200")),
    ]


def test_the_wrist_has_codes_of_its_own():
    hand = codec("inspire_rh56_can")
    assert hand.read(100, 2, wrist=True) == (4 << 26 | 100 << 14 | 1, b"\x02")
    assert hand.write(100, [3], wrist=True) == (5 << 26 | 100 << 14 | 1, b"\x03\x00")
    assert hand.parse((5 << 26 | 100 << 14 | 1, b"")).wrist


def test_byte_registers_travel_as_bytes():
    assert codec("inspire_rh56_can").write(1004, [1]) == (1 << 26 | 1004 << 14 | 1, b"\x01")


# ---- arguments ----


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.read(4096, 1), "expected 0 to 4095, got 4096"),
        (lambda c: c.read(4090, 8), "expected 1 to 6 bytes from address 4090 on, got 8"),
        (lambda c: c.read(1546, 0), "expected 1 to 4096, got 0"),
        (lambda c: c.read(1546, 2, 0), "expected 1 to 254, got 0"),
        (lambda c: c.read(1546, 2, 255), "expected 1 to 254, got 255"),
        (lambda c: c.write(1486, []), "got 0"),
        (lambda c: c.write(1486, [32768]), "expected -32768 to 32767, got 32768"),
        (lambda c: c.write(1004, [256]), "expected 0 to 255, got 256"),
        (lambda c: c.to_stick((1, b"123456789")), "expected 0 to 8, got 9"),
    ],
)
def test_arguments_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(codec("inspire_rh56_can"))


@pytest.mark.parametrize(("address", "values"), [(1004, [1]), (1496, [500]), (1498, [500]), (1486, b"\x01")])
def test_the_stick_must_not_fill_into_registers_without_a_hold_value(address, values):
    hand = codec("inspire_rh56_can")
    frame = hand.write(address, values)
    with pytest.raises(ValueError, match=f"address {address}"):
        hand.to_stick(frame)
    assert hand.from_stick(hand.to_stick(frame, fill_writes=False)) == frame


# ---- damage ----


@pytest.mark.parametrize(
    ("can_id", "data", "message"),
    [
        (1546 << 14 | 1, b"", "expected 1 to 8 bytes, got 0"),
        (1546 << 14 | 1, b"123456789", "expected 1 to 8 bytes, got 9"),
        (1 << 26 | 1486 << 14 | 1, b"\x01\x02", "expected 0 or 1 bytes, got 2"),
        (2 << 26 | 1, b"\x01", "expected 0, 1, 4 or 5, got 2"),
        (1 << 29, b"\x01", "expected 29 bits"),
    ],
)
def test_frames_that_are_no_replies_are_refused(can_id, data, message):
    with pytest.raises(PacketError, match=message):
        codec("inspire_rh56_can").parse(can_id, data)


def test_a_reply_to_another_request_is_refused():
    hand = codec("inspire_rh56_can")
    request = hand.read(1552, 2)
    with pytest.raises(PacketError, match="expected 01840001, got 01848001"):
        hand.parse(0x01848001, b"\x01\x02", request=request)
    with pytest.raises(PacketError, match="expected 2 bytes, got 1"):
        hand.parse(0x01840001, b"\x01", request=request)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("", "expected 21 to 38 bytes, got 0"),
        (STICK_READ.replace("8A 55 55", "8B 55 55"), "checksum: expected 8A, got 8B"),
        (STICK_READ.replace("AA AA", "AA AB"), "head"),
        (STICK_READ.replace("55 55", "55 54"), "tail"),
        (STICK_READ_REPLY.replace("A5 55 55 55", "55 55 55"), "without A5"),
        (STICK_READ_REPLY.replace("A5 55 55 55", "A5 00 55 55"), "after A5"),
        (STICK_READ.replace("01 00 01 00 8A", "09 00 01 00 92"), "length: expected 0 to 8, got 9"),
        (STICK_READ.replace("01 00 01 00 8A", "01 00 00 00 89"), "extended data frame"),
    ],
)
def test_damaged_stick_frames_are_refused(frame, message):
    with pytest.raises(PacketError, match=message):
        codec("inspire_rh56_can").from_stick(raw(frame))


@FUZZ
@given(st.integers(0, 0x1FFFFFFF), st.binary(max_size=8))
def test_every_frame_comes_back_from_the_stick(can_id, data):
    hand = codec("inspire_rh56_can")
    wrapped = hand.to_stick((can_id, data), fill_writes=False)
    assert hand.from_stick(wrapped) == (can_id, data)
    body = wrapped[2:-2].replace(b"\xa5\x55", b"").replace(b"\xa5\xaa", b"").replace(b"\xa5\xa5", b"")
    assert not set(body) & {0x55, 0xAA, 0xA5}


@FUZZ
@given(st.integers(0, 0x1FFFFFFF), st.binary(max_size=8), st.data())
def test_every_single_flipped_bit_of_a_stick_frame_is_found(can_id, data, draw):
    hand = codec("inspire_rh56_can")
    wrapped = bytearray(hand.to_stick((can_id, data), fill_writes=False))
    bit = draw.draw(st.integers(0, 8 * len(wrapped) - 1))
    wrapped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(PacketError):
        hand.from_stick(bytes(wrapped))


@FUZZ
@given(st.binary(max_size=60), st.integers(0, 0xFFFFFFFF), st.binary(max_size=70))
def test_garbage_is_parsed_or_refused_but_never_crashes(junk, can_id, data):
    hand = codec("inspire_rh56_can")
    for call in (
        lambda: hand.from_stick(junk),
        lambda: hand.from_stick(b"\xaa\xaa" + junk + b"\x55\x55"),
        lambda: hand.parse(can_id, data),
    ):
        try:
            call()
        except PacketError:
            continue
