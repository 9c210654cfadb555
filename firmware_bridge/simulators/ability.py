"""A simulated PSYONIC Ability Hand, written from its interface document.

`7E address header payload check 7E`, 7E and 7D inside escaped as 7D and the byte with bit 5 flipped; all bytes of a
frame sum up to 0. What is damaged is not answered. After 300 ms without a sound frame the hand leaves the API and opens
by itself.

Options: mirrored=1 (the thumb turns the other way, as on no hand of this kind), and those of `joints`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from beingh0_edge.firmware_bridge.simulators.joints import OPTIONS, Joints
from beingh0_edge.firmware_bridge.simulators.serial_line import SerialDevice
from beingh0_edge.firmware_bridge.simulators.server import Answers

_JOINTS = ("index", "middle", "ring", "pinky", "thumb_flexor", "thumb_rotator")
_ROTATOR = 5
_ADDRESS = 0x50
_DELIMITER, _ESCAPE, _FLIP = 0x7E, 0x7D, 0x20
_POSITION, _READ_ONLY, _EXIT = 0x10, 0xA0, 0x7C
_COUNTS_PER_DEGREE = 32767 / 150
_COUNTS_PER_AMPERE = 620.606
_COUNTS_PER_ROTOR_RAD_S = 4
_GEAR = 649
_TRAVEL_DEG = 120.0
_API_TIMEOUT_S = 0.300
_TOUCH_BYTES = 45


def _framed(content: bytes) -> bytes:
    whole = content + bytes([-sum(content) & 0xFF])
    body = b"".join(bytes([_ESCAPE, b ^ _FLIP]) if b in (_DELIMITER, _ESCAPE) else bytes([b]) for b in whole)
    return bytes([_DELIMITER]) + body + bytes([_DELIMITER])


def _unframed(body: bytes) -> bytes | None:
    """Address, header and payload of what stood between two delimiters; None if it is damaged."""
    out = bytearray()
    escaped = False
    for byte in body:
        if byte == _ESCAPE and not escaped:
            escaped = True
            continue
        out.append(byte ^ _FLIP if escaped else byte)
        escaped = False
    if escaped or len(out) < 3 or sum(out) & 0xFF:
        return None
    return bytes(out[:-1])


class AbilityHand(SerialDevice):
    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._mirrored = False
        self._sound_s: float | None = None  # when the last sound frame came; None: not in the API
        self.joints = Joints(_JOINTS, full_stroke_s=0.6, latency_s=0.01)
        for name, value in (options or {}).items():
            self.set(name, value)

    def set(self, name: str, value: str) -> None:
        """Changes an option. Raises ValueError naming the known ones."""
        try:
            if name == "mirrored":
                self._mirrored = value not in ("", "0")
            elif name in OPTIONS:
                self.joints.set(name, value)
            else:
                raise ValueError(f"unknown option; known: mirrored, {', '.join(OPTIONS)}")
        except ValueError as error:
            raise ValueError(f"sim:ability_hand: {name}={value}: {error}") from None

    def with_wrong_id(self, reply: bytes) -> bytes:
        """Replies carry no address: another hand's differ in the header, which nobody here asked for."""
        content = _unframed(reply[1:-1])
        return reply if content is None else _framed(bytes([content[0] ^ 0x40]) + content[1:])

    def _requests(self, now_s: float) -> Answers:
        answers: Answers = []
        self.advance(now_s)
        while (start := self._incoming.find(_DELIMITER)) >= 0:
            end = self._incoming.find(_DELIMITER, start + 1)
            if end < 0:
                self._incoming = self._incoming[start:]
                break
            frame = self._incoming[start: end + 1]
            if len(frame) == 2:  # the end of one frame and the start of the next
                self._incoming = self._incoming[end:]
                continue
            content = _unframed(frame[1:-1])
            # A damaged frame's end may be the start of a sound one.
            self._incoming = self._incoming[end if content is None else end + 1:]
            if content is None or content[0] != _ADDRESS:
                continue
            reply = self._answer(content[1], content[2:], now_s)
            if reply is not None:
                answers.append((frame, reply, 0.0))
        return answers

    def advance(self, now_s: float) -> None:
        """Lets the joints move until `now_s`; the hand goes its own way once the API has timed out."""
        if self._sound_s is not None and now_s - self._sound_s > _API_TIMEOUT_S:
            self.joints.command([0.0] * len(_JOINTS), self._sound_s + _API_TIMEOUT_S)
            self._sound_s = None
        self.joints.advance(now_s)

    def _answer(self, header: int, payload: bytes, now_s: float) -> bytes | None:
        kind, variant = header & 0xF0, header & 0x0F
        if header == _EXIT and not payload:
            self._sound_s = None
            return None
        if variant > 2 or kind not in (_POSITION, _READ_ONLY) or len(payload) != (12 if kind == _POSITION else 0):
            return None
        self._sound_s = now_s
        if kind == _POSITION:
            counts = struct.unpack("<6h", payload)
            self.joints.command([self._sign(j) * c / _COUNTS_PER_DEGREE / _TRAVEL_DEG for j, c in enumerate(counts)],
                                now_s)
        return _framed(self._state(header))

    def _sign(self, joint: int) -> int:
        return -1 if joint == _ROTATOR and not self._mirrored else 1

    def _state(self, header: int) -> bytes:
        joints = self.joints
        positions = [round(self._sign(j) * _TRAVEL_DEG * p * _COUNTS_PER_DEGREE) for j, p in enumerate(joints.position)]
        currents = [round(c * _COUNTS_PER_AMPERE) for c in joints.current_a]
        rotors = [round(s * _TRAVEL_DEG * 0.01745 * _GEAR * _COUNTS_PER_ROTOR_RAD_S) for s in joints.speed]
        rotors = [max(-32767, min(32767, r)) for r in rotors]
        second = rotors if header & 0x0F == 1 else currents
        pairs = b"".join(struct.pack("<2h", p, s) for p, s in zip(positions, second, strict=True))
        rest = struct.pack("<6h", *rotors) if header & 0x0F == 2 else bytes(_TOUCH_BYTES)
        status = sum(1 << joint for joint, stalled in enumerate(joints.stalled) if stalled)
        return bytes([header]) + pairs + rest + bytes([status])
