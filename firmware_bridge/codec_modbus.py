"""Modbus RTU and TCP as pure functions, and the Inspire hands that speak them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from beingh0_edge.errors import HandFault, PacketError
from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.codec_checks import as_bytes, as_list, is_bytes, whole

READ_HOLDING, READ_INPUT, WRITE_ONE, WRITE_MANY = 0x03, 0x04, 0x06, 0x10
MOST_READ_REGISTERS, MOST_WRITTEN_REGISTERS = 125, 123

EXCEPTION_NAMES: Mapping[int, str] = MappingProxyType(
    {
        1: "illegal function",
        2: "illegal data address",
        3: "illegal data value",
        4: "device failure",
        5: "acknowledged, still busy",
        6: "device busy",
        8: "memory parity error",
        10: "gateway path unavailable",
        11: "gateway target does not answer",
    }
)

Contents = bytes | int | Sequence[int]
ByteOrder = Literal["low_first", "high_first", "word_per_finger"]


@dataclass(frozen=True)
class ModbusReply:
    """A sound Modbus reply: registers read, a write acknowledged, or the device's refusal."""

    device_id: int
    kind: str  # "read", "write" or "exception"
    function: int  # 3, 4, 6 or 16; of an exception: the function refused
    address: int | None  # a read reply does not carry it: None unless the request was given to `parse`
    count: int  # registers read or written; 0 in an exception
    data: bytes  # registers read, or the one written by function 6: big endian as they came
    exception: int = 0  # the code; 0: none
    transaction: int = 0  # Modbus TCP
    signed: bool = False  # how `values` reads the registers of this protocol

    @property
    def exception_name(self) -> str:
        """What the device objects to; "none" if nothing."""
        return "none" if not self.exception else EXCEPTION_NAMES.get(self.exception, f"code {self.exception}")

    @property
    def values(self) -> npt.NDArray[np.int16] | npt.NDArray[np.uint16]:
        """int16[n] or uint16[n] by `signed`: the registers. Raises HandFault if this is an exception."""
        return self.as_int16 if self.signed else self.as_uint16

    @property
    def as_int16(self) -> npt.NDArray[np.int16]:
        """int16[n]. Raises HandFault if this is an exception."""
        return self._registers().astype(np.uint16).view(np.int16)

    @property
    def as_uint16(self) -> npt.NDArray[np.uint16]:
        """uint16[n]. Raises HandFault if this is an exception."""
        return self._registers().astype(np.uint16)

    def _registers(self) -> npt.NDArray[np.uint16]:
        if self.exception:
            raise HandFault(
                f"device {self.device_id} refused function {self.function:02X}: {self.exception_name}",
                code=self.exception,
            )
        return np.frombuffer(self.data, dtype=">u2")


class ModbusRtuCodec:
    """Modbus RTU: `id | function | big-endian fields | CRC lo hi`, functions 03, 04, 06 and 10 (hex).

    Addresses and counts are registers of 16 bits. Integers to write may be -32768 to 65535 (negative ones
    travel as two's complement); bytes go out as they are and must be whole registers.
    """

    name: ClassVar[str] = "modbus_rtu"
    DEVICE_ID: ClassVar[int] = 1  # the factory's
    DEVICE_IDS: ClassVar[tuple[int, int]] = (1, 247)
    FUNCTIONS: ClassVar[tuple[int, ...]] = (READ_HOLDING, READ_INPUT, WRITE_ONE, WRITE_MANY)
    SIGNED: ClassVar[bool] = False

    def read(
        self, address: int, count: int, device_id: int | None = None, *, function: int | None = None
    ) -> bytes:
        """The request for `count` registers (1 to 125) from `address` on. Raises ValueError.

        Args: function: 3 holding registers, 4 input registers; default `read_function(address)`.
        """
        return self._request(False, 0, device_id, self._read_function(address, function), address, count, b"")

    def write(
        self, address: int, values: Contents, device_id: int | None = None, *, function: int | None = None
    ) -> bytes:
        """The request that writes 1 to 123 registers from `address` on. Raises ValueError.

        Args: function: 6 (one register) or 16; default 6 for one register, 16 for more.
        """
        payload = self._payload(address, values)
        return self._request(
            False,
            0,
            device_id,
            _write_function(len(payload) // 2, function),
            address,
            len(payload) // 2,
            payload,
        )

    def parse(self, frame: bytes, request: bytes | None = None) -> ModbusReply:
        """One whole reply. With `request` it must also be the answer to it, and gets its address.

        Raises PacketError saying what is damaged or foreign. An exception reply is sound: see
        ModbusReply.exception.
        """
        return self._parse(False, frame, request)

    def read_function(self, address: int) -> int:
        """3 or 4: where this device keeps the registers at `address`."""
        return READ_HOLDING

    def value_range(self, register: int) -> tuple[int, int]:
        """The integers that `write` takes for a register; one of 16 bits is all that Modbus knows."""
        return -0x8000, 0xFFFF

    def check_write(self, address: int, payload: bytes) -> None:
        """Raises ValueError for a write this device must never get."""

    def _read_function(self, address: int, function: int | None) -> int:
        if function is None:
            return self.read_function(address)
        if function not in (READ_HOLDING, READ_INPUT):
            raise ValueError(f"function: expected 3 or 4, got {function}")
        return function

    def _payload(self, address: int, values: Contents) -> bytes:
        address = whole("address", address, 0, 0xFFFF)
        if is_bytes(values):
            payload = bytes(values)
            if len(payload) % 2:
                raise ValueError(f"values: expected whole registers of 2 bytes, got {len(payload)} bytes")
        else:
            payload = b"".join(
                (
                    whole(f"values[{i}] (register {address + i})", value, *self.value_range(address + i))
                    & 0xFFFF
                ).to_bytes(2, "big")
                for i, value in enumerate(as_list(values))
            )
        if not 1 <= len(payload) // 2 <= MOST_WRITTEN_REGISTERS:
            raise ValueError(
                f"values: expected 1 to {MOST_WRITTEN_REGISTERS} registers, got {len(payload) // 2}"
            )
        self.check_write(address, payload)
        return payload

    def _request(
        self,
        tcp: bool,
        transaction: int,
        device_id: int | None,
        function: int,
        address: int,
        count: int,
        payload: bytes,
    ) -> bytes:
        if function not in self.FUNCTIONS:
            raise ValueError(
                f"function: this device knows {', '.join(map(str, self.FUNCTIONS))}, got {function}"
            )
        device_id = self.DEVICE_ID if device_id is None else device_id
        device_id = whole("device_id", device_id, *self.DEVICE_IDS)
        address = whole("address", address, 0, 0xFFFF)
        count = whole("count", count, 1, MOST_READ_REGISTERS)
        if address + count > 0x10000:
            raise ValueError(
                f"count: expected at most {0x10000 - address} registers from address {address} on, "
                f"got {count}"
            )
        return _bridge.modbus_request(tcp, transaction, device_id, function, address, count, payload)

    def _parse(self, tcp: bool, frame: bytes, request: bytes | None) -> ModbusReply:
        got, asked = as_bytes("frame", frame), None if request is None else as_bytes("request", request)
        try:
            transaction, device_id, function, exception, address, count, data = _bridge.modbus_parse(tcp, got, asked)
        except ValueError as error:
            raise PacketError(f"{self.name}: {error}", self.name) from None
        except TypeError as error:
            raise ValueError(str(error)) from None
        reads = function in (READ_HOLDING, READ_INPUT)
        kind = "exception" if exception else "read" if reads else "write"
        known = request is not None or not (reads or exception)
        return ModbusReply(
            device_id,
            kind,
            function,
            address if known else None,
            count,
            data,
            exception,
            transaction,
            self.SIGNED,
        )


class ModbusTcpCodec(ModbusRtuCodec):
    """Modbus TCP: `transaction | 00 00 | length | unit | function | big-endian fields`; no checksum.

    As Modbus RTU, with a transaction number (0 to 65535) that the reply repeats; `device_id` is the unit.
    """

    name = "modbus_tcp"
    DEVICE_IDS = (0, 255)

    def read(
        self,
        address: int,
        count: int,
        device_id: int | None = None,
        *,
        function: int | None = None,
        transaction: int = 1,
    ) -> bytes:
        """The request for `count` registers (1 to 125) from `address` on. Raises ValueError."""
        return self._request(
            True,
            _transaction(transaction),
            device_id,
            self._read_function(address, function),
            address,
            count,
            b"",
        )

    def write(
        self,
        address: int,
        values: Contents,
        device_id: int | None = None,
        *,
        function: int | None = None,
        transaction: int = 1,
    ) -> bytes:
        """The request that writes 1 to 123 registers from `address` on. Raises ValueError."""
        payload = self._payload(address, values)
        return self._request(
            True,
            _transaction(transaction),
            device_id,
            _write_function(len(payload) // 2, function),
            address,
            len(payload) // 2,
            payload,
        )

    def parse(self, frame: bytes, request: bytes | None = None) -> ModbusReply:
        """One whole reply. With `request` it must also be the answer to it. Raises PacketError."""
        return self._parse(True, frame, request)


class _InspireRegisters:
    """What both wires to an Inspire hand with register map A share."""

    FUNCTIONS: ClassVar[tuple[int, ...]] = (READ_HOLDING, WRITE_ONE, WRITE_MANY)
    SIGNED: ClassVar[bool] = True

    def value_range(self, register: int) -> tuple[int, int]:
        """int16 everywhere; registers of one byte travel as one word."""
        return -0x8000, 0x7FFF

    def per_finger(self, reply: ModbusReply, byte_order: ByteOrder = "low_first") -> npt.NDArray[np.uint8]:
        """uint8[6], little to index, thumb bend, thumb rotation: a reply of ERROR, STATUS or TEMP.

        These are six bytes read as three words (1606, 1612, 1618), and sources disagree about which byte of a
        word is the earlier finger. "low_first" is the vendor's demo, "high_first" the DDS SDK used with
        Unitree robots; one client reads six words, one finger each: "word_per_finger". Find out once per
        hand: warm a finger, watch TEMP. Raises ValueError if the reply has another size, HandFault if it is
        an exception, PacketError if a word of "word_per_finger" exceeds a byte.
        """
        if byte_order not in ("low_first", "high_first", "word_per_finger"):
            raise ValueError(
                f"byte_order: expected low_first, high_first or word_per_finger, got {byte_order!r}"
            )
        words = reply.as_uint16
        expected = 6 if byte_order == "word_per_finger" else 3
        if reply.kind != "read" or words.size != expected:
            raise ValueError(f"reply: expected {expected} registers read, got {words.size} ({reply.kind})")
        if byte_order == "word_per_finger":
            if words.max() > 0xFF:
                raise PacketError(
                    f"one finger per word: expected 0 to 255, got {words.max()}", "inspire_rh56"
                )
            return words.astype(np.uint8)
        pairs = (words & 0xFF, words >> 8) if byte_order == "low_first" else (words >> 8, words & 0xFF)
        return np.stack(pairs, axis=1).astype(np.uint8).ravel()


class InspireModbusCodec(_InspireRegisters, ModbusRtuCodec):
    """Inspire RH56 (map A: DFX, DFQ, BFX, DFTP, R1) over Modbus RTU, functions 03, 06 and 10.

    The register number is the hand's byte address, a register covers two of them, values are big endian: six
    angles are `read(1546, 6)`, joint k of a group stands at base + 2 * k. Maps B and C give the same numbers
    other meanings (1005 saves on A and resets to factory on B): identify the hand before any write below
    1474.
    """

    name = "inspire_rh56_modbus"
    DEVICE_IDS = (1, 254)


class InspireTcpCodec(_InspireRegisters, ModbusTcpCodec):
    """Inspire RH56 DFTP and R1 over Modbus TCP (192.168.11.210, port 6000, not 502); registers as over RTU.

    The manual says that the unit is ignored and shows FF, the SDKs send 1: 1 is the default.
    """

    name = "inspire_rh56_tcp"


def _write_function(registers: int, function: int | None) -> int:
    if function is None:
        return WRITE_ONE if registers == 1 else WRITE_MANY
    if function not in (WRITE_ONE, WRITE_MANY):
        raise ValueError(f"function: expected 6 or 16, got {function}")
    if function == WRITE_ONE and registers != 1:
        raise ValueError(f"function 6 writes 1 register, got {registers}")
    return function


def _transaction(value: int) -> int:
    return whole("transaction", value, 0, 0xFFFF)
