"""The Ability Hand's frames byte by byte, their stuffing, and the parsers against anything a wire can do."""

import math
import struct
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beingh0_edge.errors import PacketError
from beingh0_edge.firmware_bridge import _bridge, codec

HAND = codec("ability_hand")
ZERO = [0] * 6

REQUESTS = [
    (HAND.position(ZERO), "7E 50 10" + " 00" * 12 + " A0 7E"),
    (HAND.position([30, 30, 30, 30, 30, -30]), "7E 50 10 99 19 99 19 99 19 99 19 99 19 67 E6 D9 7E"),
    (HAND.read_only(), "7E 50 A0 10 7E"),
    (HAND.exit_api(), "7E 50 7C 34 7E"),
    (HAND.position(counts=[0x7D, 0x7E, 0, 0, 0, 0]), "7E 50 10 7D 5D 00 7D 5E" + " 00" * 9 + " A5 7E"),
    (HAND.duty(ZERO, reply_variant=3), "7E 50 42" + " 00" * 12 + " 6E 7E"),
    (HAND.grip(1, 0xFF), "7E 50 1D 01 FF 93 7E"),
    (HAND.position(counts=[0x7D, 0x7E, 0, 0, 0, 0], stuffing=False), "50 10 7D 00 7E" + " 00" * 9 + " A5"),
]


def checked(body: bytes) -> bytes:
    return body + bytes([-sum(body) & 0xFF])


def stuffed(raw: bytes) -> bytes:
    inside = b"".join(b"\x7d" + bytes([b ^ 0x20]) if b in (0x7D, 0x7E) else bytes([b]) for b in raw)
    return b"\x7e" + inside + b"\x7e"


def reply(header, pairs, rest, status=0):
    """A reply as the interface document lays it out, without stuffing."""
    return checked(bytes([header]) + struct.pack("<12h", *pairs) + rest + bytes([status]))


PAIRS = [100, -1, 200, -2, 300, -3, 400, -4, 500, -5, -600, 6]
TOUCH = list(range(0, 4096, 137))
# Two values share three bytes: the low byte of the first, a nibble of each, the high byte of the second.
TOUCH_BYTES = b"".join(
    bytes([a & 0xFF, a >> 8 | (b & 0xF) << 4, b >> 4]) for a, b in zip(TOUCH[::2], TOUCH[1::2], strict=True))
SPEEDS = [4, -8, 12, 0, 0, 32767]


@pytest.mark.parametrize(("frame", "expected"), REQUESTS)
def test_requests_match_the_worked_examples_byte_for_byte(frame, expected):
    assert frame.hex(" ").upper() == expected


def test_every_control_mode_asks_for_every_reply_variant():
    for build, digit in ((HAND.position, 1), (HAND.velocity, 2), (HAND.current, 3), (HAND.duty, 4)):
        for variant in (1, 2, 3):
            frame = build(counts=[1, 2, 3, 4, 5, 6], reply_variant=variant, device_id=0x11, stuffing=False)
            assert frame == checked(bytes([0x11, digit << 4 | variant - 1]) + struct.pack("<6h", *range(1, 7)))
    assert HAND.read_only(reply_variant=3, stuffing=False) == checked(b"\x50\xa2")
    assert HAND.thumb_upsampling(True, stuffing=False) == checked(b"\x50\xc2")
    assert HAND.thumb_upsampling(False, stuffing=False) == checked(b"\x50\xc3")
    assert HAND.read_register(61, stuffing=False) == checked(b"\x50\xda" + struct.pack("<i", 61))
    assert HAND.write_register(63, -2, stuffing=False) == checked(b"\x50\xde" + struct.pack("<ii", 63, -2))


def test_units_become_counts_with_the_fraction_cut_off():
    def counts(frame):
        return struct.unpack("<6h", frame[2:-1])

    assert counts(HAND.position([150, -150, 45, 60, -60, 0], stuffing=False)) == (
        32767, -32767, 9830, 13106, -13106, 0)
    assert counts(HAND.velocity([1500, -1500, 1, 0, 0, 0], stuffing=False))[:3] == (16383, -16383, 10)
    assert counts(HAND.current([1, -1, 2.5, 0, 0, 0], stuffing=False))[:3] == (620, -620, 1551)
    assert counts(HAND.current([1] * 6, counts_per_ampere=1000, stuffing=False)) == (1000,) * 6
    assert counts(HAND.duty([100, -100, 50, 0, 0, 0], stuffing=False))[:3] == (3546, -3546, 1773)


@pytest.mark.parametrize("call", [
    lambda: HAND.position([0] * 5), lambda: HAND.position([0] * 7), lambda: HAND.position([150.1] + [0] * 5),
    lambda: HAND.position([math.nan] + [0] * 5), lambda: HAND.position([0] * 5 + [-math.inf]),
    lambda: HAND.position(), lambda: HAND.position(ZERO, counts=ZERO),
    lambda: HAND.position(counts=[-32768] + [0] * 5), lambda: HAND.position(counts=[0] * 5),
    lambda: HAND.velocity([3001] + [0] * 5), lambda: HAND.current([53] + [0] * 5),
    lambda: HAND.current(ZERO, counts_per_ampere=0), lambda: HAND.duty([101] + [0] * 5),
    lambda: HAND.duty(counts=[3547] + [0] * 5), lambda: HAND.position(ZERO, reply_variant=0),
    lambda: HAND.position(ZERO, reply_variant=4), lambda: HAND.position(ZERO, device_id=256),
    lambda: HAND.grip(256), lambda: HAND.grip(1, -1), lambda: HAND.write_register(1, 1 << 31),
    lambda: HAND.parse(b"", touch_order="middle"),
])
def test_arguments_that_do_not_fit_are_refused(call):
    with pytest.raises(ValueError, match="expected"):
        call()


@pytest.mark.parametrize("stuffing", [True, False])
def test_all_reply_variants_are_understood(stuffing):
    wrap = stuffed if stuffing else bytes
    first = HAND.parse(wrap(reply(0x10, PAIRS, TOUCH_BYTES, 0b100001)), stuffing=stuffing)
    assert (first.header, first.variant) == (0x10, 1)
    assert first.position_counts == (100, 200, 300, 400, 500, -600)
    assert first.current_counts == (-1, -2, -3, -4, -5, 6)
    assert first.velocity_counts is None
    assert first.touch == tuple(TOUCH)
    assert first.limited == (True, False, False, False, False, True)
    second = HAND.parse(wrap(reply(0xA1, PAIRS, TOUCH_BYTES)), stuffing=stuffing)
    assert second.velocity_counts == (-1, -2, -3, -4, -5, 6)
    assert (second.variant, second.current_counts) == (2, None)
    third = HAND.parse(wrap(reply(0x22, PAIRS, struct.pack("<6h", *SPEEDS))), stuffing=stuffing)
    assert third.velocity_counts == tuple(SPEEDS)
    assert third.current_counts == first.current_counts
    assert (third.variant, third.touch) == (3, None)


def test_counts_of_a_reply_become_units():
    got = HAND.parse(reply(0x12, [32767, 620, *PAIRS[2:]], struct.pack("<6h", *SPEEDS)), stuffing=False)
    assert got.position_deg[0] == 150
    assert got.current_a()[0] == 620 / 620.606
    assert got.current_a(counts_per_ampere=1240)[0] == 0.5
    assert got.rotor_velocity_rad_s()[0] == 1
    assert got.rotor_velocity_rad_s("sdk")[0] == pytest.approx(math.radians(4 * 3000 / 32767 / 4))
    touch_only = HAND.parse(reply(0x10, PAIRS, TOUCH_BYTES), stuffing=False)
    assert touch_only.rotor_velocity_rad_s() is None
    assert HAND.parse(reply(0x11, PAIRS, TOUCH_BYTES), stuffing=False).current_a() is None


def test_the_disputed_touch_order_is_an_argument():
    raw = reply(0x10, PAIRS, bytes([0x12, 0x34, 0x56]) + bytes(42))
    assert HAND.parse(raw, stuffing=False).touch[:2] == (0x412, 0x563)
    assert HAND.parse(raw, stuffing=False, touch_order="high_nibble_first").touch[:2] == (0x123, 0x456)


def test_any_single_changed_byte_of_a_reply_is_noticed():
    for raw in (reply(0x10, PAIRS, TOUCH_BYTES), reply(0x12, PAIRS, bytes(12))):
        for at in range(len(raw)):
            for change in range(1, 256):
                with pytest.raises(PacketError):
                    HAND.parse(raw[:at] + bytes([raw[at] ^ change]) + raw[at + 1:], stuffing=False)


def test_broken_framing_is_damage():
    good = stuffed(reply(0x12, PAIRS, bytes(12)))
    HAND.parse(good)
    body = good[1:-1]
    for bad in (b"", b"\x7e", b"\x7e\x7e", body, good[:-1], good[1:], good + b"\x00", b"\x7e" + body + b"\x7d\x7e",
                b"\x7e" + body[:5] + b"\x7e" + body[5:] + b"\x7e", good + good, HAND.position(ZERO)):
        with pytest.raises(PacketError):
            HAND.parse(bad)


def test_a_header_of_another_variant_is_damage():
    for header, rest in ((0x12, TOUCH_BYTES), (0x13, TOUCH_BYTES), (0x10, bytes(12)), (0x11, bytes(12))):
        with pytest.raises(PacketError, match="header"):
            HAND.parse(reply(header, PAIRS, rest), stuffing=False)


@settings(deadline=None, max_examples=100)
@given(frame=st.one_of(st.binary(max_size=80), st.binary(min_size=38, max_size=38).map(checked),
                       st.binary(min_size=71, max_size=71).map(checked)))
def test_nothing_is_accepted_beyond_what_the_check_byte_allows(frame):
    variants = {39: (2,), 72: (0, 1)}.get(len(frame), ())
    sound = bool(frame) and sum(frame) % 256 == 0 and frame[0] & 0x0F in variants
    for wire, stuffing in ((frame, False), (stuffed(frame), True)):
        if sound:
            assert HAND.parse(wire, stuffing=stuffing).header == frame[0]
        else:
            with pytest.raises(PacketError):
                HAND.parse(wire, stuffing=stuffing)


int16 = st.integers(-32767, 32767)


@settings(deadline=None)
@given(counts=st.lists(st.one_of(int16, st.sampled_from([0x7D, 0x7E, 0x7E7D, 0x7D7E])), min_size=6, max_size=6),
       device_id=st.integers(0, 255))
def test_stuffing_hides_every_delimiter_and_comes_off_again(counts, device_id):
    plain = HAND.position(counts=counts, device_id=device_id, stuffing=False)
    assert plain == checked(bytes([device_id, 0x10]) + struct.pack("<6h", *counts))
    frame = HAND.position(counts=counts, device_id=device_id)
    assert frame == stuffed(plain)
    assert 0x7E not in frame[1:-1]


replies = st.one_of(
    st.builds(lambda pairs, touch, s: reply(0x10, pairs, touch, s), st.lists(int16, min_size=12, max_size=12),
              st.binary(min_size=45, max_size=45), st.integers(0, 63)),
    st.builds(lambda pairs, speeds: reply(0x12, pairs, speeds), st.lists(int16, min_size=12, max_size=12),
              st.binary(min_size=12, max_size=12)),
)
pieces = st.one_of(
    replies.map(lambda raw: ("reply", stuffed(raw), raw)),
    st.lists(int16, min_size=6, max_size=6).map(lambda c: ("foreign", HAND.position(counts=c), None)),
    st.binary(min_size=1, max_size=8).map(
        lambda b: ("foreign", stuffed(b.replace(b"\x7d", b"\x00").replace(b"\x7e", b"\x00")), None)),
)


@settings(deadline=None, max_examples=60)
@given(stream=st.lists(pieces, max_size=6), cuts=st.randoms(), joined=st.booleans())
def test_the_stream_finds_every_reply_however_it_is_split(stream, cuts, joined):
    wire = b"".join(piece for _, piece, _ in stream)
    if joined:  # one delimiter may close a frame and open the next
        wire = wire.replace(b"\x7e\x7e", b"\x7e")
    parser = _bridge.AbilityReplyStream()
    found = []
    while wire:
        size = cuts.randint(1, 30)
        found += parser.feed(wire[:size])
        wire = wire[size:]
    expected = [raw for _, _, raw in stream if raw is not None]
    assert [got[0] for got in found] == [raw[0] for raw in expected]
    assert [struct.pack("<h", got[2][5]) for got in found] == [raw[21:23] for raw in expected]
    assert parser.counts["replies"] == len(expected)
    assert parser.counts["foreign"] == len(stream) - len(expected)


def test_noise_and_half_frames_are_counted():
    good = stuffed(reply(0x12, PAIRS, bytes(12)))
    bad = stuffed(reply(0x12, PAIRS, bytes(12))[:-1] + b"\x01")
    parser = _bridge.AbilityReplyStream()
    assert len(parser.feed(b"\x00" + bad + b"\x00" * 200 + good)) == 1
    seen = {kind: count for kind, count in parser.counts.items() if count}
    assert seen == {"replies": 1, "checksum": 1, "foreign": 2}
    assert parser.feed(good[:20]) == []
    parser.clear()
    assert parser.counts["foreign"] == 3
    assert len(parser.feed(b"\x7d" + good + good)) == 2  # an escape cut off by a delimiter spoils only its frame


@pytest.fixture
def vendor(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the package writes and imports a config.py where it stands
    (tmp_path / "config.py").write_text("write_log = False\nvelocity_warning = False\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return (pytest.importorskip("ah_wrapper.ah_api", exc_type=ImportError),
            pytest.importorskip("ah_wrapper.ah_parser", exc_type=ImportError))


def test_the_vendors_client_sends_the_same_frames(vendor):
    api, _ = vendor
    for degrees in ([0.0] * 6, [30.0] * 5 + [-30.0], [1.5, 17.3, 88.8, 120.0, 149.99, -77.7]):
        for variant in (1, 2, 3):
            assert HAND.position(degrees, reply_variant=variant) == bytes(api.create_pos_msg(variant - 1, degrees))
            speeds = [10 * d for d in degrees]
            assert HAND.velocity(speeds, reply_variant=variant) == bytes(api.create_vel_msg(variant - 1, speeds))
            amperes = [d / 50 for d in degrees]
            assert HAND.current(amperes, reply_variant=variant) == bytes(
                api.create_torque_msg(variant - 1, amperes))
            percent = [d / 2 for d in degrees]
            assert HAND.duty(percent, reply_variant=variant) == bytes(api.create_duty_msg(variant - 1, percent))
    assert HAND.grip(3, 100) == bytes(api.create_grip_msg(3, 100))
    assert HAND.exit_api() == bytes(api.create_misc_msg(0x7C))
    assert HAND.read_only(reply_variant=2) == bytes(api.create_misc_msg(0xA1))
    assert HAND.write_register(63, 0x3F) == bytes(api.create_write_reg_msg(63, 0x3F))
    assert HAND.read_register(125) == bytes(api.create_read_reg_msg(125))


def test_the_vendors_client_reads_what_our_parser_reads(vendor):
    _, parser = vendor
    for raw in (reply(0x10, PAIRS, TOUCH_BYTES, 5), reply(0x11, PAIRS, TOUCH_BYTES), reply(0x12, PAIRS, bytes(12))):
        theirs = parser.parse_packet(bytearray(raw))
        ours = HAND.parse(raw, stuffing=False)
        assert theirs.pos == pytest.approx(ours.position_deg)
        assert theirs.hot_cold == ours.status
        if ours.current_counts is not None:
            assert theirs.cur == pytest.approx(ours.current_a(620.606079))
        if ours.velocity_counts is not None:
            assert theirs.vel == pytest.approx([math.degrees(v) for v in ours.rotor_velocity_rad_s("sdk")])
        if ours.touch is not None:
            volts = [count * 3.3 / 4096 for count in ours.touch]
            newtons = [121591 / (33000 / v + 10000) + 0.878894 if v else 0 for v in volts]
            assert theirs.fsr == pytest.approx(newtons)
