"""BrainCo Revo2 over Modbus RTU, CAN 2.0 and CAN-FD, byte by byte and under damage."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beingh0_edge.errors import PacketError
from beingh0_edge.firmware_bridge import codec

FUZZ = settings(max_examples=100, deadline=None)

POSITIONS = [100, 200, 300, 400, 500, 1000]
EXAMPLE_1 = "7F 10 04 2E 00 03 06 14 0A 28 1E 64 32 63 37"
EXAMPLE_6 = (
    "7F 04 30 00 00 00 64 00 C8 01 2C 01 90 01 F4 00 10 00 11 00 12 00 13 00 14 00 15 00 00 FF EC FF D8 FF C4 "
    "FF B0 FF 9C 00 00 00 01 00 02 00 00 00 01 00 02 13 BB"
)


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


# ---- worked examples: Modbus RTU ----


@pytest.mark.parametrize(
    ("request_of", "request_hex", "reply_hex", "address", "count"),
    [
        (lambda c: c.positions(POSITIONS), EXAMPLE_1, "7F 10 04 2E 00 03 EB 2F", 1070, 3),
        (
            lambda c: c.positions_with_speeds(POSITIONS, [11, 22, 33, 44, 55, 66]),
            "7F 10 03 FE 00 0C 18 00 64 00 0B 00 C8 00 16 01 2C 00 21 01 90 00 2C 01 F4 00 37 03 E8 00 42 51 38",
            "7F 10 03 FE 00 0C AB A6",
            1022,
            12,
        ),
        (
            lambda c: c.positions_with_durations(POSITIONS, [110, 220, 330, 440, 550, 660]),
            "7F 10 03 F2 00 0C 18 00 64 00 6E 00 C8 00 DC 01 2C 01 4A 01 90 01 B8 01 F4 02 26 03 E8 02 94 2F 63",
            "7F 10 03 F2 00 0C 6B A5",
            1010,
            12,
        ),
        (
            lambda c: c.finger_position_with_speed(2, 777, 321),
            "7F 10 04 1F 00 03 06 00 02 03 09 01 41 03 8D",
            "7F 10 04 1F 00 03 BA E0",
            1055,
            3,
        ),
        (
            lambda c: c.speeds([100, -100, 0, 50, -50, 1000]),
            "7F 10 04 0A 00 06 0C 00 64 FF 9C 00 00 00 32 FF CE 03 E8 B1 C6",
            "7F 10 04 0A 00 06 6B 27",
            1034,
            6,
        ),
    ],
)
def test_commands_captured_from_the_makers_sdk(request_of, request_hex, reply_hex, address, count):
    hand = codec("brainco_revo2")
    request = request_of(hand)
    assert request == raw(request_hex)
    reply = hand.parse(raw(reply_hex), request)
    assert (reply.device_id, reply.kind, reply.address, reply.count) == (0x7F, "write", address, count)


def test_the_status_block():
    hand = codec("brainco_revo2")
    request = hand.read_status()
    assert request == raw("7F 04 07 D0 00 18 FA 93") == hand.read(2000, 24, device_id=0x7F)
    status = hand.status(hand.parse(raw(EXAMPLE_6), request))
    assert status.positions.tolist() == [0, 100, 200, 300, 400, 500]
    assert status.speeds.tolist() == [16, 17, 18, 19, 20, 21]
    assert status.currents.tolist() == [0, -20, -40, -60, -80, -100]
    assert status.states.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("address", "value", "frame"),
    [
        (937, 1, "7F 06 03 A9 00 01 92 70"),
        (1069, 1, "7F 06 04 2D 00 01 D3 2D"),
        (932, 500, "7F 06 03 A4 01 F4 C2 64"),
    ],
)
def test_single_registers_are_echoed(address, value, frame):
    hand = codec("brainco_revo2")
    assert hand.write(address, [value]) == raw(frame)
    assert hand.parse(raw(frame), raw(frame)).values.tolist() == [value]


def test_a_revo1_takes_percents():
    hand = codec("brainco_revo2")
    request = raw("01 10 03 F2 00 06 0C 00 0A 00 14 00 1E 00 28 00 32 00 64 DF F9")
    assert hand.write(1010, [10, 20, 30, 40, 50, 100], device_id=1) == request
    assert hand.parse(raw("01 10 03 F2 00 06 E1 BC"), request).count == 6
    assert hand.write(1012, [77], device_id=1) == raw("01 06 03 F4 00 4D 08 49")


# ---- worked examples and captures: CAN ----


def test_the_first_example_over_can_fd():
    hand = codec("brainco_revo2_canfd")
    rtu = codec("brainco_revo2").positions(POSITIONS)
    frame = (0x7F010F, raw(EXAMPLE_1) + b"\x00")
    assert hand.wrap(rtu) == frame
    assert hand.write(1070, rtu[7:-2]) == frame
    reply = hand.parse(0x7F0108, raw("7F 10 04 2E 00 03 EB 2F"), request=frame)
    assert (reply.kind, reply.address, reply.count) == ("write", 1070, 3)


@pytest.mark.parametrize(
    ("frames_of", "expected"),
    [
        (lambda c: [c.positions(POSITIONS)], [(0x08E, "00 00 0A 14 1E 28 32 64")]),
        (
            lambda c: c.positions_with_durations(POSITIONS, [110, 220, 330, 440, 550, 660]),
            [(0x0E6, "12 00 0A 14 1E 28 32 64"), (0x0E6, "22 00 0B 16 21 2C 37 42")],
        ),
        (lambda c: [c.finger_position(2, 770)], [(0x08A, "00 00 4D 00 00 00 00 00")]),
        # From here on: frames emitted by the maker's SDK (bc-stark-sdk 2.0.8) for the same commands.
        (lambda c: [c.speeds([100, -100, 0, 50, -50, 1000])], [(0x096, "00 00 0A F6 00 05 FB 64")]),
        (lambda c: [c.currents([100, -100, 0, 50, -50, 1000])], [(0x09E, "00 00 0A F6 00 05 FB 64")]),
        (lambda c: [c.pwms([100, -100, 0, 50, -50, -1000])], [(0x0A6, "00 00 0A F6 00 05 FB 9C")]),
        (lambda c: [c.finger_speed(2, -320)], [(0x092, "00 00 E0 00 00 00 00 00")]),
        (lambda c: [c.finger_current(1, -320)], [(0x099, "00 00 E0 00 00 00 00 00")]),
        (lambda c: [c.finger_pwm(5, 320)], [(0x0A5, "00 00 20 00 00 00 00 00")]),
        (lambda c: [c.finger_position_with_duration(2, 770, 330)], [(0x0E2, "11 4D 21 00 00 00 00 00")]),
        (lambda c: [c.status_request()], [(0x0AE, "00")]),
        (lambda c: [c.unit_mode(True)], [(0x0CE, "0D 01 00 00 00 00 00 00")]),
        (lambda c: [c.read_unit_mode()], [(0x0D6, "0D 00 00 00 00 00 00 00")]),
    ],
)
def test_messages_over_can(frames_of, expected):
    assert frames_of(codec("brainco_revo2_can")) == [(can_id, raw(data)) for can_id, data in expected]


@pytest.mark.parametrize(
    ("request_of", "expected"),
    [
        (
            lambda c: c.currents([100, -100, 0, 50, -55, 1000]),
            "7f 10 04 10 00 06 0c 00 64 ff 9c 00 00 00 32 ff c9 03 e8 8b 6c",
        ),
        (
            lambda c: c.pwms([100, -100, 0, 50, -55, -1000]),
            "7f 10 04 16 00 06 0c 00 64 ff 9c 00 00 00 32 ff c9 fc 18 49 7a",
        ),
        (
            lambda c: c.finger_position_with_duration(2, 777, 330),
            "7f 10 04 1c 00 03 06 00 02 03 09 01 4a b2 45",
        ),
        (lambda c: c.write(1058, [2, -321]), "7f 10 04 22 00 02 04 00 02 fe bf 7c 97"),
        (lambda c: c.read(937, 1), "7f 03 03 a9 00 01 5e 70"),
    ],
)
def test_further_commands_emitted_by_the_makers_sdk(request_of, expected):
    assert request_of(codec("brainco_revo2")) == raw(expected)


# ---- meaning ----


@pytest.mark.parametrize(
    ("address", "function"),
    [(937, 3), (1999, 3), (2000, 4), (3019, 4), (4000, 3), (4014, 3), (4100, 4), (6001, 4)],
)
def test_input_registers_are_read_by_function_four(address, function):
    assert codec("brainco_revo2").read(address, 1)[1] == function
    assert codec("brainco_revo2").read(address, 1, function=3)[1] == 3


def test_a_can_message_is_taken_apart():
    message = codec("brainco_revo2_can").parse((0x08A, b"\x01"))
    assert (message.device_id, message.command, message.finger, message.data) == (1, 1, 2, b"\x01")


# ---- arguments ----


@pytest.mark.parametrize(
    ("name", "call", "message"),
    [
        (
            "brainco_revo2",
            lambda c: c.positions([105, 0, 0, 0, 0, 0]),
            r"values\[0\]: expected a multiple of 10",
        ),
        ("brainco_revo2", lambda c: c.positions([0] * 5), "expected 6 values, got 5"),
        ("brainco_revo2", lambda c: c.positions_with_speeds([0] * 6, [0] * 6), "expected 1 to 1000, got 0"),
        ("brainco_revo2", lambda c: c.positions_with_durations([0] * 6, [2001] * 6), "expected 1 to 2000"),
        ("brainco_revo2", lambda c: c.finger_position_with_speed(6, 0, 1), "finger: expected 0 to 5, got 6"),
        ("brainco_revo2", lambda c: c.speeds([-1001] * 6), "expected -1000 to 1000, got -1001"),
        ("brainco_revo2", lambda c: c.write(900, [1]), "firmware update"),
        ("brainco_revo2", lambda c: c.write(905, [0] * 6), "factory key"),
        ("brainco_revo2", lambda c: c.write(929, [0]), "serial number"),
        ("brainco_revo2_can", lambda c: c.positions([19] * 6), "expected a multiple of 10, got 19"),
        ("brainco_revo2_can", lambda c: c.positions([0] * 6, 16), "expected 1 to 15, got 16"),
        (
            "brainco_revo2_can",
            lambda c: c.positions_with_durations([0] * 6, [1010] * 6),
            "expected 10 to 1000",
        ),
        (
            "brainco_revo2_can",
            lambda c: c.finger_position_with_duration(0, 0, 15),
            "duration_ms.*multiple of 10",
        ),
        ("brainco_revo2_can", lambda c: c.message(1, bytes(9)), "expected 0 to 8, got 9"),
        ("brainco_revo2_canfd", lambda c: c.read(2000, 30), "expected 1 to 29, got 30"),
        ("brainco_revo2_canfd", lambda c: c.write(1010, [0] * 28), "expected 1 to 27 registers, got 28"),
        ("brainco_revo2_canfd", lambda c: c.read(2000, 1, master_id=256), "master_id: expected 0 to 255"),
    ],
)
def test_arguments_out_of_range_are_refused(name, call, message):
    with pytest.raises(ValueError, match=message):
        call(codec(name))


def test_a_reply_that_is_no_status_is_not_read_as_one():
    hand = codec("brainco_revo2")
    with pytest.raises(ValueError, match="expected 24 input registers"):
        hand.status(hand.parse(raw("7F 06 03 A9 00 01 92 70")))


# ---- damage ----


@pytest.mark.parametrize(
    ("can_id", "data", "message"),
    [
        (0x7F0108, "7F 10 04 2E 00 03 EB", "expected 8 bytes, got 7"),
        (0x7F0100, "", "length: expected 1 to 64, got 0"),
        (0x7F0107, "7F 06 03 A9 00 01 92", "CRC"),
        (0x7F010F, EXAMPLE_1 + "01", "padding byte 15: expected 00, got 01"),
        (0x17F0108, "7F 10 04 2E 00 03 EB 2F", "slave, master and length"),
    ],
)
def test_damaged_can_fd_frames_are_refused(can_id, data, message):
    with pytest.raises(PacketError, match=message):
        codec("brainco_revo2_canfd").parse(can_id, raw(data))


@pytest.mark.parametrize(("can_id", "data"), [(0x800, b""), (0x08F, b""), (0x08E, bytes(9))])
def test_frames_that_no_revo2_sends_over_can_are_refused(can_id, data):
    with pytest.raises(PacketError):
        codec("brainco_revo2_can").parse(can_id, data)


@FUZZ
@given(st.integers(0, 0x1FFFFFFF), st.binary(max_size=70))
def test_garbage_is_parsed_or_refused_but_never_crashes(can_id, junk):
    for name in ("brainco_revo2_can", "brainco_revo2_canfd"):
        for identifier in (can_id, can_id & 0xFFFF00 | len(junk), can_id & 0x7FF):
            try:
                codec(name).parse(identifier, junk)
            except PacketError:
                continue


@FUZZ
@given(st.lists(st.integers(-32768, 65535), min_size=1, max_size=27), st.integers(930, 60000), st.data())
def test_can_fd_carries_rtu_frames_and_every_single_flipped_bit_is_found(values, address, draw):
    hand = codec("brainco_revo2_canfd")
    can_id, data = hand.write(address, values, function=16)
    rtu = codec("brainco_revo2").write(address, values, function=16)
    assert data[: len(rtu)] == rtu
    assert can_id & 0xFF == len(rtu)
    assert len(data) in (*range(9), 12, 16, 20, 24, 32, 48, 64)
    reply_id, reply = hand.wrap(codec("brainco_revo2").write(address, values[:1], function=6))
    bit = draw.draw(st.integers(0, 8 * len(reply) - 1))
    damaged = bytearray(reply)
    damaged[bit // 8] ^= 1 << bit % 8
    assert hand.parse(reply_id, reply).kind == "write"
    with pytest.raises(PacketError):
        hand.parse(reply_id, bytes(damaged))
