"""CAN frames as text for Lawicel adapters, character by character and under damage."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beingh0_edge.errors import PacketError
from beingh0_edge.firmware_bridge import codec

FUZZ = settings(max_examples=100, deadline=None)


def test_commands_are_single_letters_and_a_return():
    line = codec("slcan")
    assert (line.open(), line.open(listen_only=True), line.close()) == (b"O\r", b"L\r", b"C\r")
    assert (line.bitrate(1_000_000), line.bitrate(500_000)) == (b"S8\r", b"S6\r")
    assert (line.version(), line.serial_number(), line.status()) == (b"V\r", b"N\r", b"F\r")


def test_frames_of_both_id_lengths():
    line = codec("slcan")
    assert line.data_frame(0x027, b"") == b"t0270\r"
    assert line.data_frame(0x027, b"\x01\xfe") == b"t027201FE\r"
    assert line.data_frame(0x05738001, bytes.fromhex("F401"), extended=True) == b"T057380012F401\r"
    assert line.remote_frame(0x7FF, 8) == b"r7FF8\r"
    assert line.remote_frame(1, 0, extended=True) == b"R000000010\r"


def test_an_inspire_hand_can_be_driven_through_an_adapter():
    can_id, data = codec("inspire_rh56_can").write(1492, [600])
    assert codec("slcan").data_frame(can_id, data, extended=True) == b"T0575000125802\r"
    reply = codec("slcan").parse(b"T05750001101\r")
    assert codec("inspire_rh56_can").parse(reply.can_id, reply.data).address == 1492


@pytest.mark.parametrize(
    ("line", "kind", "text"),
    [
        (b"\r", "ok", ""),
        (b"\a", "error", ""),
        (b"z\r", "sent", ""),
        (b"Z\r", "sent", ""),
        (b"V1013\r", "version", "1013"),
        (b"NA123\r", "serial_number", "A123"),
        (b"F80\r", "status", "80"),
    ],
)
def test_answers_are_told_apart(line, kind, text):
    parsed = codec("slcan").parse(line)
    assert (parsed.kind, parsed.text) == (kind, text)


def test_some_adapters_append_the_time():
    parsed = codec("slcan").parse(b"t1002aAbB04D2\r")
    assert (parsed.can_id, parsed.data, parsed.timestamp_ms) == (0x100, b"\xaa\xbb", 1234)
    assert codec("slcan").parse(b"t1002AABB\r").timestamp_ms is None


@pytest.mark.parametrize(
    "line",
    [
        b"", b"t0270", b"t02\r", b"t8000\r", b"t0279\r", b"t02720102030\r", b"t02720\r", b"t0G70\r", b"T200000000\r",
        b"t0271G0\r", b"t02711012x4\r", b"F8\r", b"V\r", b"F8G\r", b"x\r", b"\a\a", b"zz\r", b"\xff\r",
    ],
)  # fmt: skip
def test_damaged_lines_are_refused(line):
    with pytest.raises(PacketError, match="slcan: expected"):
        codec("slcan").parse(line)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.bitrate(300_000), "expected one of 10000, .*1000000, got 300000"),
        (lambda c: c.data_frame(0x800, b""), "can_id: expected 0 to 2047, got 2048"),
        (lambda c: c.data_frame(1 << 29, b"", extended=True), "got 536870912"),
        (lambda c: c.data_frame(1, bytes(9)), "expected 0 to 8, got 9"),
        (lambda c: c.remote_frame(1, 9), "count: expected 0 to 8, got 9"),
    ],
)
def test_arguments_out_of_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(codec("slcan"))


@FUZZ
@given(st.booleans(), st.integers(0, 0x1FFFFFFF), st.binary(max_size=8))
def test_every_frame_comes_back(extended, can_id, data):
    can_id &= 0x1FFFFFFF if extended else 0x7FF
    back = codec("slcan").parse(codec("slcan").data_frame(can_id, data, extended=extended))
    assert (back.kind, back.can_id, back.data, back.extended, back.remote) == (
        "frame",
        can_id,
        data,
        extended,
        False,
    )
    asked = codec("slcan").parse(codec("slcan").remote_frame(can_id, len(data), extended=extended))
    assert (asked.can_id, asked.data, asked.size, asked.remote) == (can_id, b"", len(data), True)


@FUZZ
@given(st.binary(max_size=40), st.sampled_from([b"", b"t", b"T", b"r", b"R", b"V", b"F"]))
def test_garbage_is_parsed_or_refused_but_never_crashes(junk, head):
    for line in (junk, head + junk + b"\r", head + junk.hex().encode() + b"\r"):
        try:
            codec("slcan").parse(line)
        except PacketError:
            continue
