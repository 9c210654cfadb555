"""How a simulated Inspire hand talks: the private RS-485 frame, its registers over Modbus, and CAN."""

from __future__ import annotations

import struct

from beingh0_edge.firmware_bridge.simulators import modbus
from beingh0_edge.firmware_bridge.simulators.inspire_rh56 import InspireRh56
from beingh0_edge.firmware_bridge.simulators.serial_line import SerialDevice
from beingh0_edge.firmware_bridge.simulators.server import Answers
from beingh0_edge.firmware_bridge.simulators.slcan import Frame, Node

_SAVE_S = 1.0  # until the second answer to SAVE


class PrivateFrame(SerialDevice):
    """`EB 90 id len cmd address payload sum`."""

    _REQUEST, _REPLY = b"\xeb\x90", b"\x90\xeb"
    _READ, _WRITE = 0x11, 0x12

    def __init__(self, hand: InspireRh56) -> None:
        super().__init__()
        self._hand = hand

    def set(self, name: str, value: str) -> None:
        self._hand.set(name, value)

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


_BYTE_REGISTERS = frozenset({1000, 1002, 1004, 1005, 1006, 1008, 1009})


class InspireRegisters:
    """A register number is a byte address of the hand's little-endian memory."""

    functions = frozenset({modbus.READ_HOLDING, modbus.WRITE_ONE, modbus.WRITE_MANY})

    def __init__(self, hand: InspireRh56) -> None:
        self._hand = hand

    @property
    def device_id(self) -> int:
        return self._hand.device_id

    def set(self, name: str, value: str) -> None:
        self._hand.set(name, value)

    def read(self, function: int, address: int, count: int, now_s: float) -> list[int]:
        found = self._hand.read(address, 2 * count, now_s)
        if found is None:
            raise modbus.Refused(modbus.ILLEGAL_ADDRESS)
        return list(struct.unpack(f"<{count}H", found))

    def write(self, address: int, words: list[int], now_s: float) -> None:
        if address in _BYTE_REGISTERS and len(words) == 1:
            if words[0] > 0xFF:
                raise modbus.Refused(modbus.ILLEGAL_VALUE)
            payload = bytes(words)
        else:
            payload = struct.pack(f"<{len(words)}H", *words)
        if not self._hand.write(address, payload, now_s):
            raise modbus.Refused(modbus.ILLEGAL_ADDRESS)


class InspireNode(Node):
    """id = write << 26 | address << 14 | hand id; a read asks for up to 8 bytes, a write carries up to 8."""

    def __init__(self, hand: InspireRh56) -> None:
        self._hand = hand

    def set(self, name: str, value: str) -> None:
        self._hand.set(name, value)

    def frame(self, frame: Frame, now_s: float) -> list[Frame]:
        answer = self._answer(frame, now_s) if frame.extended and not (frame.remote or frame.fd) else None
        return [] if answer is None else [Frame(frame.can_id, answer, extended=True)]

    def _answer(self, frame: Frame, now_s: float) -> bytes | None:
        operation, address, device_id = frame.can_id >> 26, frame.can_id >> 14 & 0xFFF, frame.can_id & 0x3FFF
        if device_id != self._hand.device_id:
            return None
        if operation == 0 and len(frame.data) == 1 and frame.data[0] <= 8:
            return self._hand.read(address, frame.data[0], now_s)
        if operation == 1 and self._hand.write(address, frame.data, now_s):
            return b"\x01"
        return None
