"""Dynamixel protocol 2.0 byte by byte, its byte stuffing, and its parsers against anything a wire can do."""

import re
import struct
import sys
import types

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beingh0_edge.errors import PacketError
from beingh0_edge.firmware_bridge import _bridge, codec

LEAP = codec("leap")

# Worked examples of the protocol's manual, then frames of the vendor's C++ library.
REQUESTS = [
    (LEAP.ping(1), "FF FF FD 00 01 03 00 01 19 4E"),
    (LEAP.ping(254), "FF FF FD 00 FE 03 00 01 31 42"),
    (LEAP.read(132, 4, device_id=1), "FF FF FD 00 01 07 00 02 84 00 04 00 1D 15"),
    (LEAP.write(116, 512, device_id=1), "FF FF FD 00 01 09 00 03 74 00 00 02 00 00 CA 89"),
    (LEAP.write(116, [512], device_id=1), "FF FF FD 00 01 09 00 03 74 00 00 02 00 00 CA 89"),
    (LEAP.write(116, b"\x00\x02\x00\x00", device_id=1), "FF FF FD 00 01 09 00 03 74 00 00 02 00 00 CA 89"),
    (LEAP.reg_write(104, 200, device_id=1), "FF FF FD 00 01 09 00 04 68 00 C8 00 00 00 AE 8E"),
    (LEAP.action(1), "FF FF FD 00 01 03 00 05 02 CE"),
    (LEAP.reboot(1), "FF FF FD 00 01 03 00 08 2F 4E"),
    (LEAP.sync_read(132, 4, [1, 2]), "FF FF FD 00 FE 09 00 82 84 00 04 00 01 02 CE FA"),
    (LEAP.fast_sync_read(132, 4, [3, 7, 4]), "FF FF FD 00 FE 0A 00 8A 84 00 04 00 03 07 04 20 F2"),
    (LEAP.fast_sync_read(580, 4, [1, 2]), "FF FF FD 00 FE 09 00 8A 44 02 04 00 01 02 72 F2"),
    (LEAP.sync_write(116, {1: 150, 2: 170}),
     "FF FF FD 00 FE 11 00 83 74 00 04 00 01 96 00 00 00 02 AA 00 00 00 82 87"),
    (LEAP.bulk_read([(1, 144, 2), (2, 146, 1)]),
     "FF FF FD 00 FE 0D 00 92 01 90 00 02 00 02 92 00 01 00 1A 05"),
    (LEAP.bulk_write([(1, 32, 160), (2, 31, 80)]),
     "FF FF FD 00 FE 10 00 93 01 20 00 02 00 A0 00 02 1F 00 01 00 50 B7 68"),
    (LEAP.write(11, 5, device_id=0), "FF FF FD 00 00 06 00 03 0B 00 05 4F 62"),
    (LEAP.write(64, 1, device_id=0), "FF FF FD 00 00 06 00 03 40 00 01 C8 E7"),
    (LEAP.write(9, 0, device_id=0), "FF FF FD 00 00 06 00 03 09 00 00 7A E2"),
    (LEAP.write(116, 0xFFFDFFFF, device_id=1), "FF FF FD 00 01 0A 00 03 74 00 FF FF FD FD FF 23 E5"),
    (LEAP.write(116, -131073, device_id=1), "FF FF FD 00 01 0A 00 03 74 00 FF FF FD FD FF 23 E5"),
]

STATUSES = [  # frame, id, error byte, data
    ("FF FF FD 00 01 07 00 55 00 06 04 26 65 5D", 1, 0, b"\x06\x04\x26"),
    ("FF FF FD 00 02 07 00 55 00 06 04 26 6F 6D", 2, 0, b"\x06\x04\x26"),
    ("FF FF FD 00 01 08 00 55 00 A6 00 00 00 8C C0", 1, 0, b"\xa6\x00\x00\x00"),
    ("FF FF FD 00 02 08 00 55 00 1F 08 00 00 BA BE", 2, 0, b"\x1f\x08\x00\x00"),
    ("FF FF FD 00 01 04 00 55 00 A1 0C", 1, 0, b""),
    ("FF FF FD 00 01 06 00 55 00 77 00 C3 69", 1, 0, b"\x77\x00"),
    ("FF FF FD 00 02 05 00 55 00 24 8B A9", 2, 0, b"\x24"),
    ("FF FF FD 00 00 04 00 55 00 DA 8C", 0, 0, b""),
    ("FF FF FD 00 00 04 00 55 80 D9 0F", 0, 0x80, b""),
]

JOINT_ANSWERS = [  # of the manual: frame, (id, position) of each part
    ("FF FF FD 00 FE 19 00 55 00 03 A6 00 00 00 84 08 00 07 1F 08 00 00 16 CA 00 04 FF 03 00 00 D1 9E",
     [(3, 166), (7, 2079), (4, 1023)]),
    ("FF FF FD 00 FE 11 00 55 00 01 D0 07 00 00 0C 83 00 02 09 00 00 00 11 40", [(1, 2000), (2, 9)]),
]


def slow_crc(data: bytes) -> bytes:
    """Bit by bit, as the polynomial says."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1) ^ 0x8005 if crc & 0x8000 else crc << 1
        crc &= 0xFFFF
    return struct.pack("<H", crc)


def status(device_id: int, data: bytes, error: int = 0) -> bytes:
    """A servo's answer, written from the manual."""
    body = (bytes([0x55, error]) + data).replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")
    head = b"\xff\xff\xfd\x00" + struct.pack("<BH", device_id, len(body) + 2)
    return head + body + slow_crc(head + body)


def joint_answer(parts: dict[int, bytes]) -> bytes:
    """What servos say together: each adds error, id, data and the crc of everything so far."""
    size = sum(4 + len(data) for data in parts.values())
    frame = b"\xff\xff\xfd\x00\xfe" + struct.pack("<H", 1 + size) + b"\x55"
    for device_id, data in parts.items():
        frame += bytes([0, device_id]) + data
        frame += slow_crc(frame)
    return frame


@pytest.mark.parametrize(("frame", "expected"), REQUESTS)
def test_requests_match_the_worked_examples_byte_for_byte(frame, expected):
    assert frame.hex(" ").upper() == expected


@pytest.mark.parametrize(("frame", "device_id", "error", "data"), STATUSES)
def test_statuses_of_the_worked_examples_are_understood(frame, device_id, error, data):
    reply = codec("dynamixel").parse(bytes.fromhex(frame))
    assert (reply.device_id, reply.error, reply.data, reply.parts) == (device_id, error, data, ())
    assert reply.alert == (error == 0x80)
    assert reply.error_name == "none"


@pytest.mark.parametrize("count", [None, 4])
@pytest.mark.parametrize(("frame", "positions"), JOINT_ANSWERS)
def test_a_joint_answer_is_split_into_the_servos_parts(frame, positions, count):
    reply = LEAP.parse(bytes.fromhex(frame), count)
    assert reply.device_id == 254
    assert [(part.device_id, part.signed) for part in reply.parts] == positions
    assert [part.error for part in reply.parts] == [0] * len(positions)


def test_a_joint_answer_that_proves_no_split_is_split_only_by_its_count():
    frame = joint_answer({5: b"\x01\x02\x03\x04"})
    assert LEAP.parse(frame).parts == ()
    assert [(p.device_id, p.unsigned) for p in LEAP.parse(frame, 4).parts] == [(5, 0x04030201)]
    with pytest.raises(PacketError, match="parts of 3"):
        LEAP.parse(frame, 3)
    with pytest.raises(PacketError, match="each once"):
        LEAP.parse(joint_answer({5: b"\x00\x00\x00\x00\x00\x05\x00\x00"}), 2)


def test_the_error_byte_is_decoded():
    names = {1: "result fail", 2: "instruction", 3: "crc", 4: "data range", 5: "data length", 6: "data limit",
             7: "access"}
    for number, name in names.items():
        reply = LEAP.parse(status(3, b"", 0x80 | number))
        assert (reply.alert, reply.error_number, reply.error_name) == (True, number, name)
    assert LEAP.parse(status(3, b"", 9)).error_name == "unknown error 9"


def test_numbers_in_a_status_are_little_endian():
    reply = LEAP.parse(status(1, b"\xfe\xff\xff\xff"))
    assert (reply.signed, reply.unsigned) == (-2, 0xFFFFFFFE)


def test_the_leap_hand_speaks_to_all_sixteen_servos():
    ticks = list(range(2048, 2064))
    expected = b"\x74\x00\x04\x00" + b"".join(struct.pack("<Bi", i, tick) for i, tick in enumerate(ticks))
    assert LEAP.goal_position(ticks)[8:-2] == expected
    currents = b"\x66\x00\x02\x00" + b"".join(struct.pack("<Bh", i, 350) for i in range(16))
    assert LEAP.goal_current([350] * 16)[8:-2] == currents
    assert LEAP.torque_enable(True)[8:-2] == b"\x40\x00\x01\x00" + b"".join(bytes([i, 1]) for i in range(16))
    assert LEAP.operating_mode()[8:-2] == b"\x0b\x00\x01\x00" + b"".join(bytes([i, 5]) for i in range(16))
    assert LEAP.read_state()[7:-2] == b"\x8a\x7e\x00\x0a\x00" + bytes(range(16))
    for refused in ([2048] * 15, [2048] * 17, [4096] + [0] * 15, [-1] + [0] * 15):
        with pytest.raises(ValueError, match="ticks"):
            LEAP.goal_position(refused)
    with pytest.raises(ValueError, match="milliamps"):
        LEAP.goal_current([2353] * 16)
    with pytest.raises(ValueError, match="mode"):
        LEAP.operating_mode(2)


@pytest.mark.parametrize("call", [
    lambda: LEAP.ping(253), lambda: LEAP.ping(255), lambda: LEAP.ping(-1),
    lambda: LEAP.read(132, 4, device_id=254),  # nobody answers a broadcast read
    lambda: LEAP.read(132, 0, device_id=1), lambda: LEAP.read(65536, 4, device_id=1),
    lambda: LEAP.write(116, b"", device_id=1), lambda: LEAP.write(116, 1 << 32, device_id=1),
    lambda: LEAP.write(64, 256, device_id=1), lambda: LEAP.write(64, -129, device_id=1),
    lambda: LEAP.write(117, 1, device_id=1),  # the middle of a register
    lambda: LEAP.write(132, 1, device_id=1),  # read only
    lambda: LEAP.write(116, bytes(1024), device_id=1),
    lambda: LEAP.sync_read(132, 4, []), lambda: LEAP.sync_read(132, 4, [1, 1]),
    lambda: LEAP.fast_sync_read(132, 4, [254]), lambda: LEAP.sync_write(116, {}),
    lambda: LEAP.sync_write(116, {1: b"\x00", 2: b"\x00\x00"}), lambda: LEAP.sync_write(64, {253: 1}),
    lambda: LEAP.bulk_read([]), lambda: LEAP.bulk_read([(1, 0, 1), (1, 2, 1)]),
    lambda: LEAP.bulk_write([(1, 64, b"")]),
])
def test_arguments_that_do_not_fit_the_frame_are_refused(call):
    with pytest.raises(ValueError, match=r"expected|read only|X series|fit"):
        call()


def test_any_single_changed_byte_of_a_status_is_noticed():
    frame = bytes.fromhex(JOINT_ANSWERS[0][0])
    for at in range(len(frame)):
        for change in range(1, 256):
            with pytest.raises(PacketError):
                LEAP.parse(frame[:at] + bytes([frame[at] ^ change]) + frame[at + 1:])


@pytest.mark.parametrize("size", range(31))
def test_a_status_cut_short_is_damage(size):
    with pytest.raises(PacketError):
        LEAP.parse(bytes.fromhex(JOINT_ANSWERS[0][0])[:size])


def test_an_instruction_is_no_status():
    with pytest.raises(PacketError, match="expected 55"):
        LEAP.parse(LEAP.write(116, 512, device_id=1))


def test_a_header_among_the_parameters_without_stuffing_is_damage():
    body = b"\xff\xff\xfd\x00\x01\x07\x00\x55\x00\xff\xff\xfd"
    with pytest.raises(PacketError, match="stuffing"):
        LEAP.parse(body + slow_crc(body))


stuffable = st.lists(st.sampled_from([0x00, 0xFD, 0xFE, 0xFF]), min_size=1, max_size=20).map(bytes)
searched = settings(deadline=None, max_examples=100)


@searched
@given(data=stuffable, device_id=st.integers(0, 252))
def test_byte_stuffing_hides_every_header_and_comes_off_again(data, device_id):
    written = LEAP.write(0x0403, data, device_id=device_id)
    inside = written[4:-2]
    assert re.search(rb"\xff\xff\xfd(?!\xfd)", inside, re.DOTALL) is None
    expected = (b"\x03\x03\x04" + data).replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")
    assert written[7:-2] == expected
    assert struct.unpack("<H", written[5:7])[0] == len(expected) + 2
    assert written[-2:] == slow_crc(written[:-2])
    assert LEAP.parse(status(device_id, data)).data == data


@searched
@given(data=st.dictionaries(st.integers(0, 252), st.binary(min_size=10, max_size=10),
                            min_size=2, max_size=16))
def test_a_joint_answer_is_not_unstuffed(data):
    parts = LEAP.parse(joint_answer(data), 10).parts
    assert {part.device_id: part.data for part in parts} == data
    assert LEAP.parse(joint_answer(data)).parts == parts


@searched
@given(frame=st.binary(max_size=60))
def test_garbage_is_damage(frame):
    with pytest.raises(PacketError):
        LEAP.parse(frame)


pieces = st.one_of(
    st.builds(lambda i, d: ("status", status(i, d), (i, 0, d)), st.integers(0, 252),
              st.one_of(st.binary(max_size=12), stuffable)),
    st.builds(lambda i, d: ("echo", LEAP.write(116, d, device_id=i), None), st.integers(0, 252), stuffable),
    st.binary(max_size=8).map(lambda b: ("garbage", b.replace(b"\xff", b"\x00"), None)),
)


@searched
@given(stream=st.lists(pieces, max_size=8), cuts=st.randoms())
def test_the_stream_finds_every_status_however_it_is_split(stream, cuts):
    wire = b"".join(piece for _, piece, _ in stream)
    parser = _bridge.DynamixelStatusStream()
    found = []
    while wire:
        size = cuts.randint(1, 20)
        parser.feed(wire[:size])
        wire = wire[size:]
        while (reply := parser.take()) is not None:
            found.append(reply)
    assert found == [expected for _, _, expected in stream if expected is not None]
    assert parser.counts["echo"] == sum(kind == "echo" for kind, _, _ in stream)
    assert parser.counts["garbage"] == sum(len(piece) for kind, piece, _ in stream if kind == "garbage")


@searched
@given(data=st.data())
def test_a_status_behind_damage_is_still_found(data):
    damaged = bytearray(status(7, data.draw(st.binary(min_size=1, max_size=12))))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    parser = _bridge.DynamixelStatusStream()
    parser.feed(bytes(damaged[:data.draw(st.integers(0, len(damaged)))]) + status(9, b"\x01\x02\x03\x04"))
    assert parser.take() == (9, 0, b"\x01\x02\x03\x04")


def test_noise_and_half_frames_are_counted():
    parser = _bridge.DynamixelStatusStream()
    good = status(1, b"\x11")
    parser.feed(b"\x00\x01" + good[:-1] + b"\x00" + good)
    assert parser.take() == (1, 0, b"\x11")
    assert parser.counts["checksum"] == 1
    parser.feed(good[:9])
    assert parser.take() is None
    parser.clear()
    assert parser.counts["truncated"] == 1
    parser.feed(b"\xff\xff\xfd\x00\xfd\x08\x00" + b"\xff\xff\xfd\x00\x01\x00\xf0" + good)
    assert parser.take() == (1, 0, b"\x11")
    assert parser.counts["length"] == 2
    assert parser.counts["replies"] == 2


def test_more_than_the_buffer_holds_keeps_the_newest():
    parser = _bridge.DynamixelStatusStream()
    parser.feed(bytes(5000) + status(4, b"\x44"))
    assert parser.take() == (4, 0, b"\x44")
    assert parser.take() is None
    assert parser.counts["garbage"] == 5000


@searched
@given(chunks=st.lists(
    st.lists(st.sampled_from([0xFF, 0xFD, 0x00, 0x01, 0x55, 0xFE]), max_size=60).map(bytes), max_size=5))
def test_header_like_noise_never_becomes_a_status_with_a_wrong_crc(chunks):
    parser = _bridge.DynamixelStatusStream()
    for chunk in chunks:
        parser.feed(chunk)
        while (reply := parser.take()) is not None:
            device_id, error, data = reply
            whole = b"".join(chunks)
            raw = status(device_id, data, error)
            assert device_id == 254 or raw in whole


class _Wire:
    """A port for the vendor's Python client: remembers what is sent, answers from a script."""

    is_using = False

    def __init__(self, reply=b""):
        self.sent, self.reply = b"", reply

    def clearPort(self): ...
    def setPacketTimeout(self, _length): ...
    def setPacketTimeoutMillis(self, _ms): ...
    def isPacketTimeout(self): return not self.reply
    def getBaudRate(self): return 4_000_000

    def writePort(self, packet):
        self.sent += bytes(packet)
        return len(packet)

    def readPort(self, size):
        out, self.reply = self.reply[:size], self.reply[size:]
        return list(out)


@pytest.fixture
def sdk(monkeypatch):
    if "serial" not in sys.modules:  # the client imports it for its own port, which is not used here
        monkeypatch.setitem(sys.modules, "serial", types.ModuleType("serial"))
    return pytest.importorskip("dynamixel_sdk")


def test_the_vendors_client_sends_the_same_frames(sdk):
    handler = sdk.PacketHandler(2.0)
    for send, frame in [
        (lambda w: handler.ping(w, 3), LEAP.ping(3)),
        (lambda w: handler.reboot(w, 3), LEAP.reboot(3)),
        (lambda w: handler.action(w, 3), LEAP.action(3)),
        (lambda w: handler.readTx(w, 3, 126, 10), LEAP.read(126, 10, device_id=3)),
        (lambda w: handler.write4ByteTxOnly(w, 3, 116, 3000), LEAP.write(116, 3000, device_id=3)),
        (lambda w: handler.regWriteTxOnly(w, 3, 116, 4, [1, 2, 3, 4]),
         LEAP.reg_write(116, b"\x01\x02\x03\x04", device_id=3)),
        (lambda w: handler.syncReadTx(w, 126, 10, list(range(16)), 16, False),
         LEAP.sync_read(126, 10, range(16))),
        (lambda w: handler.syncReadTx(w, 126, 10, list(range(16)), 16, True), LEAP.read_state()),
        (lambda w: handler.syncWriteTxOnly(w, 102, 2, [1, 94, 1, 2, 0, 2], 6),
         LEAP.sync_write(102, {1: 350, 2: 512})),
        (lambda w: handler.bulkReadTx(w, [1, 144, 0, 2, 0, 2, 146, 0, 1, 0], 10, True),
         LEAP.bulk_read([(1, 144, 2), (2, 146, 1)], fast=True)),
        (lambda w: handler.bulkWriteTxOnly(w, [1, 32, 0, 2, 0, 160, 0, 2, 31, 0, 1, 0, 80], 13),
         LEAP.bulk_write([(1, 32, 160), (2, 31, 80)])),
    ]:
        wire = _Wire()
        send(wire)
        assert wire.sent.hex(" ") == frame.hex(" ")


def test_the_vendors_client_reads_what_our_parser_reads(sdk):
    handler = sdk.PacketHandler(2.0)
    for data in (b"\x01\x02\x03\x04", b"\x00\xff\xff\xfd", b"\xff\xff\xfd\x05"):
        got, result, error = handler.readRx(_Wire(status(3, data)), 3, 4)
        assert (bytes(got), result, error) == (data, sdk.COMM_SUCCESS, 0)
        assert LEAP.parse(status(3, data)).data == data
    parts = {i: bytes([i, 0xFF, 0xFF, 0xFD]) for i in range(16)}
    raw, result, _ = handler.fastSyncReadRx(_Wire(joint_answer(parts)), 254, 8 * 16)
    assert result == sdk.COMM_SUCCESS
    assert [bytes(raw[i * 8 + 2:i * 8 + 6]) for i in range(16)] == list(parts.values())
    assert [part.data for part in LEAP.parse(joint_answer(parts), 4).parts] == list(parts.values())
