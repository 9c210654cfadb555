"""Modbus RTU and TCP as a device answers them, written from the standard; the registers are somebody else's."""

from __future__ import annotations

import struct
from typing import Protocol

from beingh0_edge.firmware_bridge.simulators.serial_line import SerialDevice
from beingh0_edge.firmware_bridge.simulators.server import Answers

READ_HOLDING, READ_INPUT, WRITE_ONE, WRITE_MANY = 0x03, 0x04, 0x06, 0x10
ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE, DEVICE_FAILURE = 1, 2, 3, 4


class Refused(Exception):
    """The device answers with this exception code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Registers(Protocol):
    """16-bit registers; raises Refused."""

    functions: frozenset[int]

    @property
    def device_id(self) -> int: ...
    def read(self, function: int, address: int, count: int, now_s: float) -> list[int]: ...
    def write(self, address: int, words: list[int], now_s: float) -> None: ...
    def set(self, name: str, value: str) -> None: ...


def crc16(data: bytes) -> bytes:
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc.to_bytes(2, "little")


def answer(registers: Registers, pdu: bytes, now_s: float) -> bytes:
    """The answer to one function and its fields, all of them big endian."""
    function = pdu[0]
    try:
        if function not in registers.functions:
            raise Refused(ILLEGAL_FUNCTION)
        if function in (READ_HOLDING, READ_INPUT) and len(pdu) == 5:
            address, count = struct.unpack(">HH", pdu[1:])
            if not 1 <= count <= 125:
                raise Refused(ILLEGAL_VALUE)
            words = registers.read(function, address, count, now_s)
            return bytes([function, 2 * count]) + struct.pack(f">{count}H", *words)
        if function == WRITE_ONE and len(pdu) == 5:
            address, value = struct.unpack(">HH", pdu[1:])
            registers.write(address, [value], now_s)
            return pdu
        if function == WRITE_MANY and len(pdu) >= 6:
            address, count, size = struct.unpack(">HHB", pdu[1:6])
            if size != 2 * count or len(pdu) != 6 + size or not 1 <= count <= 123:
                raise Refused(ILLEGAL_VALUE)
            registers.write(address, list(struct.unpack(f">{count}H", pdu[6:])), now_s)
            return pdu[:5]
        raise Refused(ILLEGAL_VALUE)
    except Refused as refused:
        return bytes([function | 0x80, refused.code])


def rtu_answer(registers: Registers, frame: bytes, now_s: float) -> bytes | None:
    """The whole RTU answer to a whole RTU request; None: silence."""
    if len(frame) < 4 or crc16(frame[:-2]) != frame[-2:] or frame[0] != registers.device_id:
        return None
    reply = frame[:1] + answer(registers, frame[1:-2], now_s)
    return reply + crc16(reply)


class _ModbusDevice(SerialDevice):
    def __init__(self, registers: Registers) -> None:
        super().__init__()
        self._registers = registers

    def set(self, name: str, value: str) -> None:
        self._registers.set(name, value)


class ModbusRtu(_ModbusDevice):
    """`id function fields crc`; a request is what stands between two silences."""

    def _requests(self, now_s: float) -> Answers:
        frame = self._incoming
        if len(frame) < 8:
            return []
        expected = 9 + frame[6] if frame[1] == WRITE_MANY else 8
        if len(frame) < expected:
            return []
        self._incoming = b""
        reply = rtu_answer(self._registers, frame, now_s) if len(frame) == expected else None
        return [] if reply is None else [(frame, reply, 0.0)]

    def with_wrong_id(self, reply: bytes) -> bytes:
        body = bytes([reply[0] % 247 + 1]) + reply[1:-2]
        return body + crc16(body)


class ModbusTcp(_ModbusDevice):
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
            pdu = answer(self._registers, frame[7:], now_s)
            head = struct.pack(">HHHB", transaction, 0, len(pdu) + 1, frame[6])
            answers.append((frame, head + pdu, 0.0))
        return answers

    def with_wrong_id(self, reply: bytes) -> bytes:
        """TCP tells answers apart by the transaction."""
        return struct.pack(">H", struct.unpack(">H", reply[:2])[0] + 7 & 0xFFFF) + reply[2:]
