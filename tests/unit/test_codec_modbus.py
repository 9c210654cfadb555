"""Modbus RTU and TCP, and the Inspire hands on them, byte by byte and under damage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beingh0_edge.errors import HandFault, PacketError
from beingh0_edge.firmware_bridge import _bridge, codec

FUZZ = settings(max_examples=100, deadline=None)

INSPIRE_READ_ANGLES = "01 03 06 0A 00 06 E5 42"
INSPIRE_READ_ANGLES_REPLY = "01 03 0C 03 E8 03 E8 03 E8 03 E8 03 E8 00 00 7C 93"
INSPIRE_WRITE_ANGLES = "01 10 05 CE 00 06 0C 01 F4 01 F4 FF FF 00 00 01 F4 01 F4 41 51"
INSPIRE_WRITE_ANGLES_REPLY = "01 10 05 CE 00 06 21 38"
INSPIRE_INDEX_600 = "01 06 05 D4 02 58 C9 A4"


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def slow_crc(data: bytes) -> bytes:
    """CRC-16/MODBUS bit by bit, as the standard words it."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
    return crc.to_bytes(2, "little")


def rtu(*body: int) -> bytes:
    return bytes(body) + slow_crc(bytes(body))


# ---- worked examples ----


def test_inspire_reads_six_angles_over_rtu():
    hand = codec("inspire_rh56_modbus")
    assert hand.read(1546, 6) == raw(INSPIRE_READ_ANGLES)
    reply = hand.parse(raw(INSPIRE_READ_ANGLES_REPLY))
    assert (reply.device_id, reply.kind, reply.function, reply.address, reply.count) == (
        1,
        "read",
        3,
        None,
        6,
    )
    assert reply.values.tolist() == [1000, 1000, 1000, 1000, 1000, 0]
    assert hand.parse(raw(INSPIRE_READ_ANGLES_REPLY), raw(INSPIRE_READ_ANGLES)).address == 1546


def test_inspire_writes_six_angles_over_rtu():
    hand = codec("inspire_rh56_modbus")
    assert hand.write(1486, [500, 500, -1, 0, 500, 500]) == raw(INSPIRE_WRITE_ANGLES)
    assert hand.write(1486, raw("01F401F4FFFF000001F401F4")) == raw(INSPIRE_WRITE_ANGLES)
    reply = hand.parse(raw(INSPIRE_WRITE_ANGLES_REPLY))
    assert (reply.kind, reply.function, reply.address, reply.count) == ("write", 16, 1486, 6)


def test_inspire_moves_one_finger_over_rtu():
    hand = codec("inspire_rh56_modbus")
    assert hand.write(1492, [600]) == raw(INSPIRE_INDEX_600)
    reply = hand.parse(raw(INSPIRE_INDEX_600))
    assert (reply.kind, reply.address, reply.values.tolist()) == ("write", 1492, [600])


def test_inspire_over_tcp():
    hand = codec("inspire_rh56_tcp")
    assert hand.read(1546, 6) == raw("00 01 00 00 00 06 01 03 06 0A 00 06")
    reply = hand.parse(raw("00 01 00 00 00 0F 01 03 0C" + "03 E8" * 6))
    assert (reply.transaction, reply.values.tolist()) == (1, [1000] * 6)
    clear = raw("00 02 00 00 00 06 FF 06 03 EC 00 01")
    assert hand.write(1004, [1], device_id=0xFF, transaction=2) == clear
    assert hand.parse(clear).address == 1004


def test_an_exception_is_a_sound_reply_whose_values_cannot_be_used():
    reply = codec("inspire_rh56_modbus").parse(raw("01 90 03 0C 01"))
    assert (reply.kind, reply.function, reply.exception) == ("exception", 16, 3)
    assert reply.exception_name == "illegal data value"
    with pytest.raises(HandFault, match="illegal data value") as refused:
        _ = reply.values
    assert refused.value.code == 3


# ---- meaning ----


@pytest.mark.parametrize(
    ("byte_order", "expected"),
    [
        ("low_first", [0x22, 0x11, 0x44, 0x33, 0x66, 0x55]),
        ("high_first", [0x11, 0x22, 0x33, 0x44, 0x55, 0x66]),
    ],
)
def test_byte_registers_come_in_either_order(byte_order, expected):
    hand = codec("inspire_rh56_modbus")
    reply = hand.parse(rtu(1, 3, 6, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66), hand.read(1618, 3))
    assert hand.per_finger(reply, byte_order).tolist() == expected


def test_byte_registers_take_the_low_byte_first_unless_told_otherwise():
    hand = codec("inspire_rh56_tcp")
    reply = hand.parse(raw("0001 0000 0009 01 03 06 1122 3344 5566"))
    assert hand.per_finger(reply).tolist() == hand.per_finger(reply, "low_first").tolist()


def test_byte_registers_may_come_as_one_word_per_finger():
    hand = codec("inspire_rh56_modbus")
    reply = hand.parse(rtu(1, 3, 12, 0, 30, 0, 31, 0, 32, 0, 33, 0, 34, 0, 35))
    assert hand.per_finger(reply, "word_per_finger").tolist() == [30, 31, 32, 33, 34, 35]
    with pytest.raises(ValueError, match="expected 3 registers read, got 6"):
        hand.per_finger(reply)
    wide = hand.parse(rtu(1, 3, 12, 1, 30, 0, 31, 0, 32, 0, 33, 0, 34, 0, 35))
    with pytest.raises(PacketError, match="got 286"):
        hand.per_finger(wide, "word_per_finger")
    with pytest.raises(ValueError, match="'big'"):
        hand.per_finger(reply, "big")


def test_inspire_values_are_signed_and_plain_modbus_values_are_not():
    frame = rtu(1, 3, 2, 0xFF, 0xF8)
    assert codec("inspire_rh56_modbus").parse(frame).values.tolist() == [-8]
    assert codec("modbus_rtu").parse(frame).values.tolist() == [65528]
    assert codec("modbus_rtu").parse(frame).as_int16.tolist() == [-8]


def test_input_registers_are_read_by_function_four():
    assert codec("modbus_rtu").read(0, 1, 17, function=4) == rtu(17, 4, 0, 0, 0, 1)


def test_one_register_can_be_written_by_function_sixteen():
    assert codec("modbus_rtu").write(0x0102, [0x0304], function=16) == rtu(1, 16, 1, 2, 0, 1, 2, 3, 4)


# ---- arguments ----


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.read(0, 0), "expected 1 to 125, got 0"),
        (lambda c: c.read(0, 126), "expected 1 to 125, got 126"),
        (lambda c: c.read(-1, 1), "expected 0 to 65535, got -1"),
        (lambda c: c.read(65535, 2), "expected at most 1 registers from address 65535 on, got 2"),
        (lambda c: c.read(0, 1, 0), "expected 1 to 247, got 0"),
        (lambda c: c.read(0, 1, 248), "expected 1 to 247, got 248"),
        (lambda c: c.read(0, 1, function=6), "expected 3 or 4, got 6"),
        (lambda c: c.write(0, []), "expected 1 to 123 registers, got 0"),
        (lambda c: c.write(0, [0] * 124), "expected 1 to 123 registers, got 124"),
        (lambda c: c.write(0, [65536]), "expected -32768 to 65535, got 65536"),
        (lambda c: c.write(0, [0, -32769]), r"values\[1\] \(register 1\).*got -32769"),
        (lambda c: c.write(0, b"\x01"), "whole registers of 2 bytes, got 1"),
        (lambda c: c.write(0, [1, 2], function=6), "function 6 writes 1 register, got 2"),
        (lambda c: c.write(0, [1], function=3), "expected 6 or 16, got 3"),
    ],
)
def test_arguments_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(codec("modbus_rtu"))


def test_inspire_registers_take_signed_words_only():
    with pytest.raises(ValueError, match="expected -32768 to 32767, got 40000"):
        codec("inspire_rh56_modbus").write(1486, [40000])


def test_inspire_knows_no_input_registers():
    with pytest.raises(ValueError, match="this device knows 3, 6, 16, got 4"):
        codec("inspire_rh56_tcp").read(1546, 6, function=4)


def test_transaction_numbers_are_sixteen_bits():
    with pytest.raises(ValueError, match="expected 0 to 65535, got 65536"):
        codec("modbus_tcp").read(0, 1, transaction=65536)


def test_values_that_are_no_integers_are_refused():
    with pytest.raises(TypeError):
        codec("modbus_rtu").write(0, [0.5])


# ---- damage ----


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("", "expected at least 5 bytes, got 0"),
        ("01 03 02 00 00 00 00", "CRC: expected 44B8, got 0000"),
        (rtu(1, 3, 3, 0, 0, 0).hex(), "byte count: expected an even number up to 250, got 3"),
        (rtu(1, 3, 4, 0, 0).hex(), "byte count: expected 2, got 4"),
        (rtu(1, 3, 0).hex(), "byte count"),
        (rtu(1, 7, 1).hex(), "function: expected 03, 04, 06 or 10 hex, got 07"),
        (rtu(1, 0x83, 0).hex(), "exception code"),
        (rtu(1, 6, 0, 0, 0).hex(), "expected a PDU of 5 bytes, got 4"),
        (rtu(1, 16, 0, 0, 0, 0).hex(), "registers written: expected 1 to 123, got 0"),
        (rtu(0, 3, 2, 0, 0).hex(), "device id: expected 1 to 255, got 0"),
    ],
)
def test_damaged_rtu_replies_are_refused(frame, message):
    with pytest.raises(PacketError, match=message):
        codec("modbus_rtu").parse(raw(frame))


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("00 01 00 01 00 05 01 03 02 00 00", "protocol number: expected 0, got 1"),
        ("00 01 00 00 00 06 01 03 02 00 00", "length field: expected 5, got 6"),
        ("00 01 00 00 00 05 01 03 04 00 00", "byte count: expected 2, got 4"),
        ("00 01 00 00", "expected at least 9 bytes, got 4"),
    ],
)
def test_damaged_tcp_replies_are_refused(frame, message):
    with pytest.raises(PacketError, match=message):
        codec("modbus_tcp").parse(raw(frame))


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (rtu(2, 3, 2, 0, 0), "device id: expected 1, got 2"),
        (rtu(1, 4, 2, 0, 0), "function: expected 03, got 04"),
        (rtu(1, 3, 4, 0, 0, 0, 0), "registers: expected 1, got 2"),
    ],
)
def test_replies_to_another_request_are_refused(reply, message):
    line = codec("modbus_rtu")
    with pytest.raises(PacketError, match=message):
        line.parse(reply, line.read(5, 1))


def test_a_late_tcp_reply_is_told_by_its_transaction():
    line = codec("modbus_tcp")
    with pytest.raises(PacketError, match="transaction: expected 8, got 7"):
        line.parse(raw("00 07 00 00 00 05 01 03 02 00 00"), line.read(5, 1, transaction=8))


def test_a_write_must_be_acknowledged_with_its_own_address_and_value():
    line = codec("modbus_rtu")
    request = line.write(5, [7])
    assert line.parse(request, request).values.tolist() == [7]
    with pytest.raises(PacketError, match="value written: expected 7, got 8"):
        line.parse(line.write(5, [8]), request)
    with pytest.raises(PacketError, match="address: expected 5, got 6"):
        line.parse(line.write(6, [7]), request)


def test_something_that_is_no_request_cannot_be_answered():
    with pytest.raises(ValueError, match="request"):
        codec("modbus_rtu").parse(rtu(1, 3, 2, 0, 0), rtu(1, 3, 2, 0, 0))


SOUND_REPLIES = st.one_of(
    st.binary(min_size=1, max_size=125).map(lambda half: rtu(1, 3, 2 * len(half), *half, *half)),
    st.binary(min_size=4, max_size=4).map(lambda body: rtu(9, 6, *body)),
    st.integers(1, 255).map(lambda code: rtu(3, 0x90, code)),
)


@FUZZ
@given(SOUND_REPLIES, st.data())
def test_every_single_flipped_bit_is_found(frame, data):
    bit = data.draw(st.integers(0, 8 * len(frame) - 1))
    damaged = bytearray(frame)
    damaged[bit // 8] ^= 1 << bit % 8
    codec("modbus_rtu").parse(frame)
    with pytest.raises(PacketError):
        codec("modbus_rtu").parse(bytes(damaged))


@FUZZ
@given(st.binary(max_size=300))
def test_garbage_is_parsed_or_refused_but_never_crashes(junk):
    for name in ("modbus_rtu", "modbus_tcp"):
        for frame in (junk, junk + slow_crc(junk)):
            try:
                reply = codec(name).parse(frame)
            except PacketError:
                continue
            assert reply.kind in ("read", "write", "exception")


@FUZZ
@given(
    st.integers(0, 65535), st.lists(st.integers(-32768, 65535), min_size=1, max_size=123), st.integers(1, 247)
)
def test_written_registers_can_be_found_in_the_request(address, values, device_id):
    if address + len(values) > 65536:
        values = values[: 65536 - address]
    request = codec("modbus_rtu").write(address, values, device_id, function=16)
    words = np.array([value & 0xFFFF for value in values], dtype=">u2").tobytes()
    assert request == rtu(device_id, 16, *address.to_bytes(2, "big"), 0, len(values), len(words), *words)
    over_tcp = codec("modbus_tcp").write(address, values, device_id, function=16, transaction=513)
    assert over_tcp[:2] == b"\x02\x01"
    assert over_tcp[6:] == request[:-2]


# ---- the stream ----


def stream(request: bytes, *, tcp: bool = False, echoes: bool = False) -> "_bridge.ModbusReplyStream":
    made = _bridge.ModbusReplyStream(tcp, echoes)
    made.expect(request)
    return made


def test_a_reply_is_found_behind_noise_an_echo_and_foreign_replies():
    request, reply = raw(INSPIRE_READ_ANGLES), raw(INSPIRE_READ_ANGLES_REPLY)
    bus = stream(request)
    bus.feed(b"\x00\xff" + request + rtu(2, 3, 2, 0, 9) + rtu(1, 3, 2, 0, 9) + reply)
    assert bus.take()[-1] == reply[3:-2]
    assert bus.take() is None
    counts = bus.counts
    assert (counts["replies"], counts["echo"], counts["foreign"], counts["garbage"]) == (1, 1, 2, 2)


def test_a_reply_behind_the_head_of_another_is_found():
    request, reply = raw(INSPIRE_READ_ANGLES), raw(INSPIRE_READ_ANGLES_REPLY)
    bus = stream(request)
    bus.feed(b"\x01\x03\x7c" + reply)
    assert bus.take()[-1] == reply[3:-2]
    assert bus.counts["truncated"] == 1


def test_a_damaged_reply_is_counted_and_not_taken():
    bus = stream(raw(INSPIRE_READ_ANGLES))
    damaged = bytearray(raw(INSPIRE_READ_ANGLES_REPLY))
    damaged[5] ^= 4
    bus.feed(bytes(damaged))
    assert bus.take() is None
    assert bus.counts["checksum"] == 1


def test_a_reply_that_came_before_its_request_is_never_taken():
    request, reply = raw(INSPIRE_READ_ANGLES), raw(INSPIRE_READ_ANGLES_REPLY)
    bus = stream(request)
    bus.feed(reply + reply)
    assert bus.take() is not None
    bus.expect(request)
    assert bus.take() is None
    assert bus.counts["foreign"] == 1


def test_an_adapter_that_echoes_does_not_acknowledge_for_the_hand():
    request = raw(INSPIRE_INDEX_600)
    bus = stream(request, echoes=True)
    bus.feed(b"\x07" + request)
    assert bus.take() is None
    bus.feed(request)
    assert bus.take() is not None
    assert (bus.counts["echo"], bus.counts["garbage"]) == (1, 1)


def test_the_echo_of_a_long_write_is_no_acknowledgement():
    request = raw(INSPIRE_WRITE_ANGLES)
    for echoes in (False, True):
        bus = stream(request, echoes=echoes)
        for byte in request:
            bus.feed(bytes([byte]))
            assert bus.take() is None
        bus.feed(raw(INSPIRE_WRITE_ANGLES_REPLY))
        assert bus.take() is not None
        assert bus.counts["echo"] == 1


def test_an_exception_answers_the_request_it_refuses():
    bus = stream(raw(INSPIRE_WRITE_ANGLES))
    bus.feed(raw("01 90 03 0C 01"))
    assert bus.take()[3] == 3


def test_tcp_replies_are_told_apart_by_transaction_even_when_split():
    line = codec("modbus_tcp")
    late, wanted = raw("0007 0000 0005 01 03 02 0000"), raw("0008 0000 0005 01 03 02 0102")
    bus = stream(line.read(5, 1, transaction=7), tcp=True)
    bus.feed(late[:5])
    assert bus.take() is None
    bus.expect(line.read(5, 1, transaction=8))
    bus.feed(late[5:] + wanted)
    assert bus.take()[-1] == b"\x01\x02"
    assert bus.counts["foreign"] == 1


def test_something_that_is_no_request_cannot_be_expected():
    with pytest.raises(ValueError, match="no request"):
        stream(raw(INSPIRE_READ_ANGLES_REPLY))


@FUZZ
@given(st.booleans(), st.binary(max_size=40), st.lists(st.integers(1, 9), max_size=40), st.booleans())
def test_any_split_of_noise_and_reply_gives_the_reply_or_nothing_else(tcp, noise, cuts, echo):
    line = codec("modbus_tcp" if tcp else "modbus_rtu")
    request = line.read(1546, 6)
    body = bytes(range(1, 13))
    reply = raw("0001 0000 000F 01 03 0C") + body if tcp else rtu(1, 3, 12, *body)
    bus = stream(request, tcp=tcp)
    left = noise + (request if echo and not tcp else b"") + reply
    got = None
    for cut in [*cuts, len(left)]:
        bus.feed(left[:cut])
        left = left[cut:]
        taken = bus.take()
        if taken is not None:
            assert got is None
            got = taken
    # Noise may look like the head of a longer frame only until the whole reply behind it has come.
    assert got is not None
    assert got[-1] == body


@FUZZ
@given(st.lists(st.binary(max_size=400), max_size=8), st.booleans(), st.booleans())
def test_noise_alone_never_becomes_a_reply(parts, tcp, echoes):
    line = codec("modbus_tcp" if tcp else "modbus_rtu")
    bus = stream(line.read(40000, 100, 201), tcp=tcp, echoes=echoes)
    for part in parts:
        bus.feed(part)
        assert bus.take() is None
    bus.clear()
    assert bus.take() is None


# ---- third-party clients ----


@FUZZ
@given(st.integers(0, 60000), st.lists(st.integers(0, 65535), min_size=2, max_size=50), st.integers(1, 247))
def test_pymodbus_frames_are_our_frames(address, values, device_id):
    pytest.importorskip("pymodbus", minversion="3.8")
    from pymodbus import framer
    from pymodbus.pdu import DecodePDU
    from pymodbus.pdu import register_message as pdu

    theirs = {"modbus_rtu": framer.FramerRTU, "modbus_tcp": framer.FramerSocket}
    for name, kind in theirs.items():
        ours, more = codec(name), {"transaction": 77} if name == "modbus_tcp" else {}
        write = {"address": address, "dev_id": device_id, "transaction_id": 77}
        read = {**write, "count": len(values)}
        for request, got in (
            (pdu.ReadHoldingRegistersRequest(**read), ours.read(address, len(values), device_id, **more)),
            (
                pdu.ReadInputRegistersRequest(**read),
                ours.read(address, len(values), device_id, function=4, **more),
            ),
            (
                pdu.WriteSingleRegisterRequest(registers=values[:1], **write),
                ours.write(address, values[:1], device_id, **more),
            ),
            (
                pdu.WriteMultipleRegistersRequest(registers=values, **write),
                ours.write(address, values, device_id, **more),
            ),
        ):
            assert kind(DecodePDU(is_server=False)).buildFrame(request) == got
        for reply in (
            pdu.ReadHoldingRegistersResponse(registers=values, dev_id=device_id, transaction_id=77),
            pdu.WriteMultipleRegistersResponse(count=len(values), **write),
        ):
            parsed = ours.parse(kind(DecodePDU(is_server=False)).buildFrame(reply))
            assert (parsed.device_id, parsed.count) == (device_id, len(values))
            assert parsed.values.tolist() == (values if parsed.kind == "read" else [])
