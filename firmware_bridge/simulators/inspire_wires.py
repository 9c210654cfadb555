"""How a simulated Inspire hand talks: the private RS-485 frame, Modbus RTU and TCP, CAN through slcan text."""

from __future__ import annotations

import struct

from beingh0_edge.firmware_bridge.simulators.inspire_rh56 import InspireRh56

Answers = list[tuple[bytes, bytes, float]]  # (request, reply, seconds until the reply may start)

_FRAME_GAP_S = 0.010  # a pause inside a frame: the rest is not coming
_SAVE_S = 1.0         # until the second answer to SAVE


class _Wire:
    """Collects bytes and forgets half a request after a pause."""

    def __init__(self, hand: InspireRh56) -> None:
        self._hand = hand
        self._incoming = b""
        self._heard_s = 0.0

    def set(self, name: str, value: str) -> None:
        self._hand.set(name, value)

    def receive(self, data: bytes, now_s: float) -> Answers:
        """Takes bytes from the wire; returns (request, reply, seconds until the reply may start)."""
        if self._incoming and now_s - self._heard_s > _FRAME_GAP_S:
            self._incoming = b""
        self._heard_s = now_s
        self._incoming += data
        return self._requests(now_s)

    def _requests(self, now_s: float) -> Answers:
        raise NotImplementedError


class PrivateFrame(_Wire):
    """`EB 90 id len cmd address payload sum`."""

    _REQUEST, _REPLY = b"\xeb\x90", b"\x90\xeb"
    _READ, _WRITE = 0x11, 0x12

    def _requests(self, now_s: float) -> Answers:
        answers: Answers = []
        while True:
            start = self._incoming.find(self._REQUEST)
            if start < 0:
                self._incoming = self._incoming[-1:] if self._incoming.endswith(b"\xeb") else b""
                return answers
            self._incoming = self._incoming[start:]
            if len(self._incoming) < 4 or len(self._incoming) < self._incoming[3] + 5:
                return answers
            size = self._incoming[3] + 5
            frame, rest = self._incoming[:size], self._incoming[size:]
            if self._incoming[3] < 4 or sum(frame[2:-1]) & 0xFF != frame[-1]:
                self._incoming = self._incoming[1:]
                continue
            self._incoming = rest
            for pause_s, reply in self._answer(frame, now_s):
                answers.append((frame, reply, pause_s))

    def with_wrong_id(self, reply: bytes) -> bytes:
        """The same reply as another device would send it."""
        body = bytes([reply[2] % 254 + 1]) + reply[3:-1]
        return self._REPLY + body + bytes([sum(body) & 0xFF])

    def _answer(self, frame: bytes, now_s: float) -> list[tuple[float, bytes]]:
        device_id, command = frame[2], frame[4]
        address = frame[5] | frame[6] << 8
        payload = frame[7:-1]
        if device_id != self._hand.device_id:
            return []

        def reply(data: bytes) -> bytes:
            body = bytes([device_id, len(data) + 3, command, address & 0xFF, address >> 8]) + data
            return self._REPLY + body + bytes([sum(body) & 0xFF])

        if command == self._READ and len(payload) == 1:
            found = self._hand.read(address, payload[0], now_s)
            return [] if found is None else [(0.0, reply(found))]
        if command == self._WRITE and self._hand.write(address, payload, now_s):
            answers = [(0.0, reply(b"\x01"))]
            if address == 1005:
                answers.append((_SAVE_S, reply(b"\x00")))
            return answers
        return []


def _crc16(data: bytes) -> bytes:
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc.to_bytes(2, "little")


_ILLEGAL_FUNCTION, _ILLEGAL_ADDRESS, _ILLEGAL_VALUE = 1, 2, 3
_BYTE_REGISTERS = frozenset({1000, 1002, 1004, 1005, 1006, 1008, 1009})


def _modbus_answer(hand: InspireRh56, pdu: bytes, now_s: float) -> bytes:
    """The answer of functions 03, 06 and 10 (hex); a register number is a byte address, values are big endian."""
    function = pdu[0]

    def refuse(code: int) -> bytes:
        return bytes([function | 0x80, code])

    if function == 0x03 and len(pdu) == 5:
        address, count = struct.unpack(">HH", pdu[1:])
        if not 1 <= count <= 125:
            return refuse(_ILLEGAL_VALUE)
        found = hand.read(address, 2 * count, now_s)
        if found is None:
            return refuse(_ILLEGAL_ADDRESS)
        swapped = struct.pack(f">{count}H", *struct.unpack(f"<{count}H", found))
        return bytes([function, 2 * count]) + swapped
    if function == 0x06 and len(pdu) == 5:
        address, value = struct.unpack(">HH", pdu[1:])
        if address in _BYTE_REGISTERS:
            if value > 0xFF:
                return refuse(_ILLEGAL_VALUE)
            written = hand.write(address, bytes([value]), now_s)
        else:
            written = hand.write(address, struct.pack("<H", value), now_s)
        return pdu if written else refuse(_ILLEGAL_ADDRESS)
    if function == 0x10 and len(pdu) >= 6:
        address, count, size = struct.unpack(">HHB", pdu[1:6])
        if size != 2 * count or len(pdu) != 6 + size or not 1 <= count <= 123:
            return refuse(_ILLEGAL_VALUE)
        words = struct.unpack(f">{count}H", pdu[6:])
        if not hand.write(address, struct.pack(f"<{count}H", *words), now_s):
            return refuse(_ILLEGAL_ADDRESS)
        return pdu[:5]
    return refuse(_ILLEGAL_FUNCTION)


class ModbusRtu(_Wire):
    """`id function fields crc`; a request is what stands between two silences."""

    def _requests(self, now_s: float) -> Answers:
        frame = self._incoming
        if len(frame) < 8:
            return []
        expected = 9 + frame[6] if frame[1] == 0x10 else 8
        if len(frame) < expected:
            return []
        self._incoming = b""
        if len(frame) != expected or _crc16(frame[:-2]) != frame[-2:] or frame[0] != self._hand.device_id:
            return []
        reply = frame[:1] + _modbus_answer(self._hand, frame[1:-2], now_s)
        return [(frame, reply + _crc16(reply), 0.0)]

    def with_wrong_id(self, reply: bytes) -> bytes:
        body = bytes([reply[0] % 247 + 1]) + reply[1:-2]
        return body + _crc16(body)


class ModbusTcp(_Wire):
    """`transaction 0000 length unit function fields`; the unit is ignored."""

    def _requests(self, now_s: float) -> Answers:
        answers: Answers = []
        while len(self._incoming) >= 7:
            transaction, protocol, length = struct.unpack(">HHH", self._incoming[:6])
            if protocol != 0 or not 2 <= length <= 254:
                self._incoming = b""
                break
            if len(self._incoming) < 6 + length:
                break
            frame, self._incoming = self._incoming[: 6 + length], self._incoming[6 + length:]
            pdu = _modbus_answer(self._hand, frame[7:], now_s)
            head = struct.pack(">HHHB", transaction, 0, len(pdu) + 1, frame[6])
            answers.append((frame, head + pdu, 0.0))
        return answers

    def with_wrong_id(self, reply: bytes) -> bytes:
        """TCP tells answers apart by the transaction."""
        return struct.pack(">H", struct.unpack(">H", reply[:2])[0] + 7 & 0xFFFF) + reply[2:]


class Slcan(_Wire):
    """The hand on a CAN bus behind an adapter that speaks slcan: one text line per frame.

    id = write << 26 | address << 14 | hand id; a read asks for up to 8 bytes, a write carries up to 8.
    """

    def __init__(self, hand: InspireRh56) -> None:
        super().__init__(hand)
        self._open = False

    def _requests(self, now_s: float) -> Answers:
        answers: Answers = []
        while b"\r" in self._incoming:
            line, self._incoming = self._incoming.split(b"\r", 1)
            answers.append((line + b"\r", self._line(line, now_s), 0.0))
        return [answer for answer in answers if answer[1]]

    def with_wrong_id(self, reply: bytes) -> bytes:
        return reply[:-1].replace(b"T0", b"T1", 1) + reply[-1:]

    def _line(self, line: bytes, now_s: float) -> bytes:
        kind = line[:1]
        if kind in (b"", b"C", b"S", b"O"):
            self._open = kind == b"O" or (self._open and kind != b"C")
            return b"\r"
        if kind != b"T" or not self._open:
            return b"\a"
        try:
            identifier, size = int(line[1:9], 16), int(line[9:10])
            data = bytes.fromhex(line[10:].decode("ascii"))
        except ValueError:
            return b"\a"
        if len(data) != size or size > 8:
            return b"\a"
        answer = self._frame(identifier, data, now_s)
        if answer is None:
            return b"Z\r"
        return b"Z\r" + line[:9] + b"%d" % len(answer) + answer.hex().upper().encode() + b"\r"

    def _frame(self, identifier: int, data: bytes, now_s: float) -> bytes | None:
        operation, address, device_id = identifier >> 26, identifier >> 14 & 0xFFF, identifier & 0x3FFF
        if device_id != self._hand.device_id:
            return None
        if operation == 0 and len(data) == 1 and data[0] <= 8:
            return self._hand.read(address, data[0], now_s)
        if operation == 1 and self._hand.write(address, data, now_s):
            return b"\x01"
        return None
