"""Inspire's private frame byte by byte, and its stream parser against anything a wire can do."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beingh0_edge.errors import PacketError
from beingh0_edge.firmware_bridge import _bridge, codec

ANGLE_SET, FORCE_SET, SPEED_SET, ANGLE_ACT, FORCE_ACT, ERROR = 1486, 1498, 1522, 1546, 1582, 1606

# Worked examples: the published ones first, then those that follow from the manual's rules.
REQUESTS = [
    (("read", 1546, 12, 1), "EB 90 01 04 11 0A 06 0C 32"),
    (("write", 1486, [100, 100, 100, 100, 2000, 0], 1),
     "EB 90 01 0F 12 CE 05 64 00 64 00 64 00 64 00 D0 07 00 00 5C"),
    (("write", 1486, [1000] * 6, 1), "EB 90 01 0F 12 CE 05 E8 03 E8 03 E8 03 E8 03 E8 03 E8 03 77"),
    (("write", 1486, [0] * 6, 1), "EB 90 01 0F 12 CE 05 00 00 00 00 00 00 00 00 00 00 00 00 F5"),
    (("write", 1522, [1000] * 6, 1), "EB 90 01 0F 12 F2 05 E8 03 E8 03 E8 03 E8 03 E8 03 E8 03 9B"),
    (("write", 1498, [500] * 6, 1), "EB 90 01 0F 12 DA 05 F4 01 F4 01 F4 01 F4 01 F4 01 F4 01 BF"),
    (("write", 1004, [1], 1), "EB 90 01 04 12 EC 03 01 07"),
    (("write", 1004, b"\x01", 1), "EB 90 01 04 12 EC 03 01 07"),
    (("write", 1005, [1], 1), "EB 90 01 04 12 ED 03 01 08"),
    (("read", 1582, 12, 1), "EB 90 01 04 11 2E 06 0C 56"),
    (("read", 1606, 6, 2), "EB 90 02 04 11 46 06 06 69"),
    (("write", 1000, [2], 1), "EB 90 01 04 12 E8 03 02 04"),
]

REPLIES = [
    ("90 EB 01 0F 11 0A 06 64 00 64 00 64 00 64 00 D0 07 00 00 98",
     (1, "read", 1546, [100, 100, 100, 100, 2000, 0])),
    ("90 EB 01 04 12 CE 05 01 EB", (1, "write", 1486, b"\x01")),
    ("90 EB 01 04 12 F2 05 01 0F", (1, "write", 1522, b"\x01")),
    ("90 EB 01 04 12 DA 05 01 F7", (1, "write", 1498, b"\x01")),
    ("90 EB 01 04 12 EC 03 01 07", (1, "write", 1004, b"\x01")),
    ("90 EB 01 04 12 ED 03 01 08", (1, "write", 1005, b"\x01")),
    ("90 EB 01 04 12 ED 03 00 07", (1, "write", 1005, b"\x00")),
    ("90 EB 01 0F 11 2E 06 00 00 00 00 00 00 78 00 F8 FF 00 00 C4", (1, "read", 1582, [0, 0, 0, 120, -8, 0])),
    ("90 EB 02 09 11 46 06 00 00 00 06 00 00 6E", (2, "read", 1606, b"\x00\x00\x00\x06\x00\x00")),
]


@pytest.mark.parametrize(("call", "expected"), REQUESTS)
def test_requests_match_the_worked_examples_byte_for_byte(call, expected):
    kind, address, what, device_id = call
    frame = getattr(codec("inspire_rh56"), kind)(address, what, device_id=device_id)
    assert frame.hex(" ").upper() == expected


@pytest.mark.parametrize(("frame", "expected"), REPLIES)
def test_replies_of_the_worked_examples_are_understood(frame, expected):
    reply = codec("inspire_rh56").parse(bytes.fromhex(frame))
    device_id, kind, address, content = expected
    assert (reply.device_id, reply.kind, reply.address) == (device_id, kind, address)
    if isinstance(content, bytes):
        assert reply.data == content
    else:
        assert reply.values.tolist() == content


def test_any_single_changed_byte_of_a_reply_is_noticed():
    frame = bytes.fromhex(REPLIES[0][0])
    for at in range(len(frame)):
        for change in range(1, 256):
            damaged = frame[:at] + bytes([frame[at] ^ change]) + frame[at + 1:]
            with pytest.raises(PacketError):
                codec("inspire_rh56").parse(damaged)


@pytest.mark.parametrize("size", range(20))
def test_a_reply_cut_short_is_damage(size):
    with pytest.raises(PacketError):
        codec("inspire_rh56").parse(bytes.fromhex(REPLIES[0][0])[:size])


def test_arguments_that_do_not_fit_the_frame_are_refused():
    inspire = codec("inspire_rh56")
    for call in (
        lambda: inspire.read(1546, 0),
        lambda: inspire.read(1546, 253),
        lambda: inspire.read(70000, 12),
        lambda: inspire.read(1546, 12, device_id=0),
        lambda: inspire.write(1486, [40000]),
        lambda: inspire.write(1004, [256]),
        lambda: inspire.write(1486, [1.5]),
        lambda: inspire.write(1486, []),
        lambda: inspire.write(1486, b"\x00" * 253),
    ):
        with pytest.raises(ValueError, match="expected"):
            call()


def test_an_unknown_codec_names_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown codec 'inspire_rh65'; known: .*inspire_rh56"):
        codec("inspire_rh65")


# -- the stream

ANGLES = bytes.fromhex(REPLIES[0][0])
REQUEST = bytes.fromhex(REQUESTS[0][1])


def take_angles(stream):
    return stream.take(1, 0x11, ANGLE_ACT, 12)


def feed_in_pieces(stream, data, cuts):
    """Feeds `data` cut at `cuts`; returns the replies found on the way."""
    found = []
    edges = [0, *sorted({c for c in cuts if 0 < c < len(data)}), len(data)]
    for start, end in pairwise(edges):
        stream.feed(data[start:end])
        while (reply := take_angles(stream)) is not None:
            found.append(reply)
    return found


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=20), st.lists(st.integers(0, 80), max_size=12))
def test_the_expected_reply_is_found_in_any_noise_and_any_split(noise, tail, cuts):
    stream = _bridge.InspireReplyStream()
    found = feed_in_pieces(stream, noise + ANGLES + tail, cuts)
    assert ANGLES[7:-1] in found


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(ANGLES) - 1), st.integers(1, 255), st.lists(st.integers(0, 60), max_size=8))
def test_a_damaged_reply_is_never_delivered_and_the_next_sound_one_is(at, change, cuts):
    damaged = ANGLES[:at] + bytes([ANGLES[at] ^ change]) + ANGLES[at + 1:]
    stream = _bridge.InspireReplyStream()
    assert feed_in_pieces(stream, damaged + ANGLES, cuts) == [ANGLES[7:-1]]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=3000))
def test_arbitrary_bytes_neither_crash_nor_pile_up(data):
    stream = _bridge.InspireReplyStream()
    feed_in_pieces(stream, data, range(0, len(data), 97))
    stream.feed(ANGLES)
    assert take_angles(stream) == ANGLES[7:-1]


def test_an_echo_of_the_request_is_skipped_and_counted():
    stream = _bridge.InspireReplyStream()
    stream.feed(REQUEST + ANGLES)
    assert take_angles(stream) == ANGLES[7:-1]
    assert stream.counts["echo"] == 1
    assert stream.counts["garbage"] == 0


@pytest.mark.parametrize(
    "foreign",
    [
        "90 EB 02 0F 11 0A 06 64 00 64 00 64 00 64 00 D0 07 00 00 99",  # another id
        "90 EB 01 0F 11 2E 06 00 00 00 00 00 00 78 00 F8 FF 00 00 C4",  # another address
        "90 EB 01 04 12 CE 05 01 EB",  # an acknowledgement
    ],
)
def test_sound_replies_to_something_else_are_counted_and_skipped(foreign):
    stream = _bridge.InspireReplyStream()
    stream.feed(bytes.fromhex(foreign) + ANGLES)
    assert take_angles(stream) == ANGLES[7:-1]
    assert stream.counts["foreign"] == 1


def test_each_kind_of_damage_has_its_own_count():
    stream = _bridge.InspireReplyStream()
    stream.feed(b"\x00\x11" + ANGLES[:-1] + bytes([ANGLES[-1] ^ 1]) + b"\x90\xeb\x01\x02" + ANGLES)
    assert take_angles(stream) == ANGLES[7:-1]
    counts = stream.counts
    assert counts["checksum"] == 1
    assert counts["length"] == 1
    assert counts["garbage"] >= 2
    assert counts["replies"] == 1


def test_a_head_in_the_noise_with_a_huge_length_does_not_hide_the_reply_behind_it():
    stream = _bridge.InspireReplyStream()
    stream.feed(b"\x90\xeb\x01\xff" + ANGLES)
    assert take_angles(stream) == ANGLES[7:-1]
    assert stream.counts["truncated"] == 1


def test_arguments_may_be_numpys_and_one_number_needs_no_list():
    inspire, dynamixel, rtu, can = (codec(name) for name in ("inspire_rh56", "dynamixel", "inspire_rh56_modbus",
                                                             "inspire_rh56_can"))
    angles = [500, 500, -1, 0, 500, 500]
    for hand in (inspire, rtu, can):
        assert hand.write(np.int64(1486), np.array(angles), device_id=np.uint8(1)) == hand.write(1486, angles)
        assert hand.write(1492, 600) == hand.write(1492, [600])
        assert hand.write(1004, 1) == hand.write(1004, [1])
    goal = dynamixel.write(116, 512)
    assert dynamixel.write(116, np.int32(512)) == dynamixel.write(116, np.array([512])) == goal
    pairs = [(np.int64(1), np.int64(150)), (2, 170)]
    assert dynamixel.sync_write(116, pairs) == dynamixel.sync_write(116, {1: 150, 2: 170})


def test_a_reply_may_come_as_any_bytes_but_not_as_a_number_or_a_text():
    reply = bytes.fromhex("90EB0209114606000000060000 6E")
    for form in (list(reply), np.frombuffer(reply, np.uint8), np.array(list(reply)), memoryview(reply)):
        assert codec("inspire_rh56").parse(form).data == reply[7:-1]
    for name in ("inspire_rh56", "modbus_rtu", "dynamixel", "ability_hand", "slcan", "rohand_serial"):
        for wrong in (8, "90EB", None):
            with pytest.raises(TypeError, match="expected bytes, got"):
                codec(name).parse(wrong)


def test_registers_of_one_byte_are_read_as_bytes():
    inspire = codec("inspire_rh56")
    reply = inspire.parse(bytes.fromhex("90EB0209114606000000060000 6E"))
    assert reply.values.tolist() == [0, 0, 0, 6, 0, 0]  # ERROR: a byte per finger
    assert codec("inspire_rh56_can").parse(1606 << 14 | 1, reply.data).values.tolist() == [0, 0, 0, 6, 0, 0]
    # The action sequences' save and run stand side by side: a word for one would overwrite the other.
    assert inspire.write(2321, [1]) == bytes.fromhex("EB9001041211090132")
    # CURRENT and ERROR in one reading: words and bytes.
    both = bytes([0x90, 0xEB, 1, 3 + 24, 0x11, 0x3A, 0x06, *range(24)])
    with pytest.raises(ValueError, match="words and single bytes"):
        _ = inspire.parse(both + bytes([sum(both[2:]) & 0xFF])).values
