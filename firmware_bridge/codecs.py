"""The wire protocols as pure functions: arguments in, bytes out; bytes in, reply out. No port, no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from beingh0_edge.errors import PacketError
from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.codec_ability import AbilityHandCodec
from beingh0_edge.firmware_bridge.codec_allegro import AllegroV4Codec, AllegroV5Codec
from beingh0_edge.firmware_bridge.codec_brainco import BraincoCanCodec, BraincoCanFdCodec, BraincoCodec
from beingh0_edge.firmware_bridge.codec_checks import (
    INSPIRE_BYTE_REGISTERS,
    as_bytes,
    as_list,
    inspire_values,
    is_bytes,
    whole,
)
from beingh0_edge.firmware_bridge.codec_dynamixel import DynamixelCodec, LeapCodec
from beingh0_edge.firmware_bridge.codec_inspire_can import InspireCanCodec
from beingh0_edge.firmware_bridge.codec_linkerhand import (
    LinkerHandCodec,
    LinkerHandL10Rs485Codec,
    LinkerHandL20Codec,
    LinkerHandO6Rs485Codec,
)
from beingh0_edge.firmware_bridge.codec_modbus import (
    InspireModbusCodec,
    InspireTcpCodec,
    ModbusRtuCodec,
    ModbusTcpCodec,
)
from beingh0_edge.firmware_bridge.codec_rohand import RohandCodec, RohandSerialCodec
from beingh0_edge.firmware_bridge.codec_slcan import SlcanCodec


@dataclass(frozen=True)
class RegisterReply:
    """A sound reply of a register protocol."""

    device_id: int
    kind: str  # "read" or "write"
    address: int
    data: bytes

    @property
    def values(self) -> npt.NDArray[np.int16]:
        """int16[n]: a number per register, be it a byte or a word; of a write the byte that acknowledges it.

        Raises ValueError if `data` are both.
        """
        if self.kind == "write":
            return np.frombuffer(self.data, dtype=np.uint8).astype(np.int16)
        return inspire_values(self.address, self.data)


class InspireRs485Codec:
    """Inspire's private RS-485 frame on register map A: `EB 90 id len cmd address payload sum`.

    Addresses are byte addresses, counts are bytes, 16-bit data are little endian.
    """

    BYTE_REGISTERS = INSPIRE_BYTE_REGISTERS

    def read(self, address: int, count: int, device_id: int = 1) -> bytes:
        """The request for `count` bytes from `address` on. Raises ValueError."""
        return _bridge.inspire_rs485_read(_device_id(device_id), _address(address), whole("count", count, 1, 252))

    def write(self, address: int, values: bytes | int | Sequence[int], device_id: int = 1) -> bytes:
        """The request that writes bytes as they are, or integers: one byte for a byte register, else int16.

        Raises ValueError for an integer that does not fit.
        """
        address = _address(address)
        if is_bytes(values):
            payload = bytes(values)
        elif address in self.BYTE_REGISTERS:
            payload = _pack(values, "<u1")
        else:
            payload = _pack(values, "<i2")
        if not 1 <= len(payload) <= 252:
            raise ValueError(f"values: expected 1 to 252 bytes, got {len(payload)}")
        return _bridge.inspire_rs485_write(_device_id(device_id), address, payload)

    def parse(self, frame: bytes) -> RegisterReply:
        """One whole reply. Raises PacketError saying what is damaged."""
        try:
            device_id, command, address, data = _bridge.inspire_rs485_parse(as_bytes("frame", frame))
        except ValueError as error:
            raise PacketError(f"inspire_rh56: {error}", "inspire_rh56") from None
        return RegisterReply(device_id, "read" if command == 0x11 else "write", address, data)


def _device_id(value: int) -> int:
    return whole("device_id", value, 1, 254)


def _address(value: int) -> int:
    return whole("address", value, 0, 0xFFFF)


def _pack(values: int | Sequence[int], dtype: str) -> bytes:
    wide = np.asarray(as_list(values))
    if wide.ndim != 1 or wide.dtype.kind not in "iu":
        raise ValueError(f"values: expected a flat sequence of integers, got {values!r}")
    info = np.iinfo(dtype)
    if wide.size and (wide.min() < info.min or wide.max() > info.max):
        raise ValueError(f"values: expected {info.min} to {info.max}, got {wide.min()} to {wide.max()}")
    return wide.astype(dtype).tobytes()


Codec = (
    InspireRs485Codec | InspireCanCodec | ModbusRtuCodec | RohandSerialCodec | DynamixelCodec
    | AbilityHandCodec | LinkerHandCodec | AllegroV4Codec | AllegroV5Codec
    | BraincoCanCodec | BraincoCanFdCodec | SlcanCodec
)

CODECS: Mapping[str, Callable[[], Codec]] = MappingProxyType({
    "inspire_rh56": InspireRs485Codec,
    "inspire_rh56_can": InspireCanCodec,
    "inspire_rh56_modbus": InspireModbusCodec,
    "inspire_rh56_tcp": InspireTcpCodec,
    "modbus_rtu": ModbusRtuCodec,
    "modbus_tcp": ModbusTcpCodec,
    "rohand": RohandCodec,
    "rohand_serial": RohandSerialCodec,
    "brainco_revo2": BraincoCodec,
    "brainco_revo2_can": BraincoCanCodec,
    "brainco_revo2_canfd": BraincoCanFdCodec,
    "slcan": SlcanCodec,
    "dynamixel": DynamixelCodec,
    "leap": LeapCodec,
    "ability_hand": AbilityHandCodec,
    "allegro_v4": AllegroV4Codec,
    "allegro_v5": AllegroV5Codec,
    "linkerhand_o6": partial(LinkerHandCodec, "o6"),
    "linkerhand_l6": partial(LinkerHandCodec, "l6"),
    "linkerhand_l7": partial(LinkerHandCodec, "l7"),
    "linkerhand_l10": partial(LinkerHandCodec, "l10"),
    "linkerhand_l20": LinkerHandL20Codec,
    "linkerhand_o6_rs485": LinkerHandO6Rs485Codec,
    "linkerhand_l10_rs485": LinkerHandL10Rs485Codec,
})


def codec(name: str) -> Codec:
    """The codec of a hand's wire protocol. Raises ValueError naming the known ones."""
    if name not in CODECS:
        raise ValueError(f"unknown codec {name!r}; known: {', '.join(sorted(CODECS))}")
    return CODECS[name]()
