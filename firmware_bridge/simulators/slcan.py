"""A CAN bus with one device on it, behind an adapter that speaks slcan text: `t`, `T`, `r`, `R`, for CAN-FD `b`, `B`.

Options of every hand on CAN: bus_off=1 (the controller has left the bus: nothing passes until the channel is closed and
opened again).
"""

from __future__ import annotations

import abc
import random
from dataclasses import dataclass

from beingh0_edge.firmware_bridge.simulators.server import Answers, Device

_FD_SIZES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64)
_FD_DATA_BITRATE_RATIO = 5  # 5 Mbit/s against 1
_MOST_LINE = 200


@dataclass(frozen=True)
class Frame:
    can_id: int
    data: bytes = b""
    extended: bool = False
    remote: bool = False
    fd: bool = False

    def text(self) -> bytes:
        kind = "b" if self.fd else "r" if self.remote else "t"
        head = f"{kind.upper()}{self.can_id:08X}" if self.extended else f"{kind}{self.can_id:03X}"
        return (head + f"{_FD_SIZES.index(len(self.data)):X}" + self.data.hex().upper()).encode() + b"\r"


def parse(line: bytes) -> Frame | None:
    """A line without its CR; None if it is no frame."""
    kind = line[:1].lower()
    if kind not in (b"t", b"r", b"b", b"d"):
        return None
    extended = line[:1] != kind
    digits = 8 if extended else 3
    try:
        identifier = int(line[1: 1 + digits], 16)
        size = _FD_SIZES[int(line[1 + digits: 2 + digits], 16)]
        data = bytes.fromhex(line[2 + digits:].decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        return None
    fd, remote = kind in (b"b", b"d"), kind == b"r"
    highest = 0x1FFFFFFF if extended else 0x7FF
    if len(data) != (0 if remote else size) or (size > 8 and not fd) or identifier > highest:
        return None
    return Frame(identifier, data, extended, remote, fd)


def bits(line: bytes) -> float:
    """Worst-case bits of a frame on the bus with stuffing and interframe space; 0 for what stays in the adapter."""
    frame = parse(line)
    if frame is None:
        return 0.0
    size = len(frame.data)
    if frame.fd:  # arbitration at the slow rate; data, their length and a CRC of 21 bits at the fast one
        return (70.0 if frame.extended else 45.0) + 1.2 * (8 * size + 30) / _FD_DATA_BITRATE_RATIO
    return (80.0 if frame.extended else 55.0) + 10.0 * size


class Node(abc.ABC):
    """A device on the bus."""

    @abc.abstractmethod
    def frame(self, frame: Frame, now_s: float) -> list[Frame]:
        """Hears a frame of somebody else; returns its answers."""

    @abc.abstractmethod
    def set(self, name: str, value: str) -> None:
        """Changes an option while running. Raises ValueError."""

    def due_s(self) -> float | None:
        return None

    def speak(self, now_s: float) -> list[Frame]:
        return []


class SlcanAdapter(Device):
    """Text lines to frames and back. Lines it does not understand, and frames while closed, are answered by BEL."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._incoming = b""
        self._open = False
        self._bus_off = False

    def set(self, name: str, value: str) -> None:
        if name == "bus_off":
            self._bus_off = value not in ("", "0")
        else:
            self._node.set(name, value)

    def receive(self, data: bytes, now_s: float) -> Answers:
        self._incoming = (self._incoming + data)[-64 * _MOST_LINE:]
        answers: Answers = []
        while b"\r" in self._incoming:
            line, self._incoming = self._incoming.split(b"\r", 1)
            answers.append((line + b"\r", self._line(line, now_s), 0.0))
        return answers

    def due_s(self) -> float | None:
        return self._node.due_s() if self._open else None

    def speak(self, now_s: float) -> bytes:
        frames = self._node.speak(now_s)
        return b"" if self._bus_off else b"".join(frame.text() for frame in frames)

    def wire_s(self, data: bytes, baud: int) -> float:
        return sum(bits(line) for line in data.split(b"\r")) / baud if baud else 0.0

    def damaged(self, reply: bytes, chance: random.Random) -> bytes:
        """CAN repeats what arrives damaged; what can still be garbled is the adapter's text."""
        at = chance.randrange(len(reply))
        return reply[:at] + b"?" + reply[at + 1:]

    def with_wrong_id(self, reply: bytes) -> bytes:
        """The frames of a reply with the id of another node."""
        lines = []
        for line in reply.split(b"\r")[:-1]:
            frame = parse(line)
            lines.append(line + b"\r" if frame is None
                         else Frame(frame.can_id ^ 0x155, frame.data, frame.extended, frame.remote, frame.fd).text())
        return b"".join(lines)

    def _line(self, line: bytes, now_s: float) -> bytes:
        kind = line[:1]
        if kind in (b"", b"C", b"S", b"Y", b"O"):
            self._open = kind == b"O" or (self._open and kind != b"C")
            self._bus_off = self._bus_off and kind != b"O"
            return b"\r"
        frame = parse(line)
        if frame is None or not self._open or self._bus_off:
            return b"\a"
        taken = b"Z\r" if frame.extended else b"z\r"
        return taken + b"".join(reply.text() for reply in self._node.frame(frame, now_s))
