"""CAN over a serial line in the text form of Lawicel adapters ("slcan") as pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from beingh0_edge.errors import PacketError
from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.codec_checks import as_bytes, whole

BITRATE_COMMANDS: Mapping[int, bytes] = MappingProxyType(
    {
        10_000: b"S0\r",
        20_000: b"S1\r",
        50_000: b"S2\r",
        100_000: b"S3\r",
        125_000: b"S4\r",
        250_000: b"S5\r",
        500_000: b"S6\r",
        800_000: b"S7\r",
        1_000_000: b"S8\r",
    }
)

FD_BITRATES = (2_000_000, 5_000_000)
FD_SIZES = (*range(9), 12, 16, 20, 24, 32, 48, 64)

_ANSWERS = {b"V": "version", b"N": "serial_number", b"F": "status"}
_HEX_DIGITS = frozenset(b"0123456789ABCDEFabcdef")


@dataclass(frozen=True)
class SlcanLine:
    """One line from the adapter.

    `kind` is "frame", "sent" (z or Z: the adapter took our frame), "ok" (an empty line), "error" (BEL: it refused), or
    "version", "serial_number" and "status" with the digits in `text`.
    """

    kind: str
    text: str = ""
    can_id: int = 0
    data: bytes = b""
    extended: bool = False
    remote: bool = False
    fd: bool = False
    size: int = 0  # of the data, or asked for by a remote frame
    timestamp_ms: int | None = None  # 0 to 59999, from adapters that append it


class SlcanCodec:
    """Lines of ASCII ending in CR: `t` and 3 or `T` and 8 hex digits of id, one of size, then the data.

    Usual start: close (in case it was open), bitrate, open; the adapter answers each with CR, or BEL for no.
    """

    name = "slcan"

    def open(self, *, listen_only: bool = False) -> bytes:
        """Opens the channel; with listen_only the adapter never sends, nor acknowledges frames on the bus."""
        return b"L\r" if listen_only else b"O\r"

    def close(self) -> bytes:
        """Closes the channel."""
        return b"C\r"

    def bitrate(self, bits_per_s: int) -> bytes:
        """Sets the bit rate of the closed channel, one of BITRATE_COMMANDS. Raises ValueError."""
        if bits_per_s not in BITRATE_COMMANDS:
            rates = ", ".join(map(str, BITRATE_COMMANDS))
            raise ValueError(f"bits_per_s: expected one of {rates}, got {bits_per_s}")
        return BITRATE_COMMANDS[bits_per_s]

    def data_bitrate(self, bits_per_s: int) -> bytes:
        """Sets the faster bit rate of CAN-FD data, one of FD_BITRATES, as CANable adapters do. Raises ValueError."""
        if bits_per_s not in FD_BITRATES:
            raise ValueError(f"bits_per_s: expected one of {', '.join(map(str, FD_BITRATES))}, got {bits_per_s}")
        return b"Y%d\r" % (bits_per_s // 1_000_000)

    def version(self) -> bytes:
        """Asks for hardware and firmware version."""
        return b"V\r"

    def serial_number(self) -> bytes:
        """Asks for the adapter's serial number."""
        return b"N\r"

    def status(self) -> bytes:
        """Asks for the status flags of the open channel."""
        return b"F\r"

    def data_frame(self, can_id: int, data: bytes, *, extended: bool = False) -> bytes:
        """Sends 0 to 8 bytes; id up to 7FF, or 1FFFFFFF if extended. Raises ValueError."""
        payload = as_bytes("data", data)
        size = whole("number of data bytes", len(payload), 0, 8)
        return _bridge.slcan_encode(_can_id(can_id, extended), extended, False, False, size, payload)

    def fd_frame(self, can_id: int, data: bytes, *, extended: bool = False) -> bytes:
        """Sends a CAN-FD frame of 0 to 8, 12, 16, 20, 24, 32, 48 or 64 bytes. Raises ValueError."""
        payload = as_bytes("data", data)
        if len(payload) not in FD_SIZES:
            sizes = ", ".join(map(str, FD_SIZES))
            raise ValueError(f"number of data bytes: expected one of {sizes}, got {len(payload)}")
        return _bridge.slcan_encode(_can_id(can_id, extended), extended, False, True, len(payload), payload)

    def remote_frame(self, can_id: int, count: int, *, extended: bool = False) -> bytes:
        """Asks for `count` (0 to 8) bytes with a remote frame. Raises ValueError."""
        return _bridge.slcan_encode(
            _can_id(can_id, extended), extended, True, False, whole("count", count, 0, 8), b""
        )

    def parse(self, line: bytes) -> SlcanLine:
        """One line with its CR, or the single BEL. Raises PacketError saying what is damaged."""
        line = as_bytes("line", line)
        if line == b"\a":
            return SlcanLine("error")
        if line[-1:] != b"\r":
            raise self._damage("expected CR or BEL at the end", line)
        body = line[:-1]
        if body == b"":
            return SlcanLine("ok")
        if body in (b"z", b"Z"):
            return SlcanLine("sent")
        letter, rest = body[:1], body[1:]
        if letter in _ANSWERS:
            # Makers differ in how long version and serial number are; flags are always two hex digits.
            flags = letter != b"F" or (len(rest) == 2 and _HEX_DIGITS.issuperset(rest))
            if not (flags and rest.isalnum()):
                raise self._damage(f"expected a {_ANSWERS[letter]}", line)
            return SlcanLine(_ANSWERS[letter], rest.decode("ascii"))
        frame = _bridge.slcan_decode(body)
        if frame is None:
            raise self._damage("expected a frame or an answer", line)
        can_id, extended, remote, fd, size, data = frame
        stamp = rest[(8 if extended else 3) + 1 + 2 * len(data) :]
        if not _HEX_DIGITS.issuperset(stamp):
            raise self._damage("expected four hex digits of time", line)
        timestamp_ms = int(stamp, 16) if stamp else None
        return SlcanLine("frame", "", can_id, data, extended, remote, fd, size, timestamp_ms)

    def _damage(self, expected: str, line: bytes) -> PacketError:
        return PacketError(f"{self.name}: {expected}, got {line!r}", self.name)


def _can_id(can_id: int, extended: bool) -> int:
    return whole("can_id", can_id, 0, 0x1FFFFFFF if extended else 0x7FF)
