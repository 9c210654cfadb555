"""OYMotion's ROHand as pure functions: Modbus RTU, and the maker's own 55 AA protocol for serial and CAN."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from beingh0_edge.errors import PacketError
from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.codec_checks import CanFrame, as_bytes, whole
from beingh0_edge.firmware_bridge.codec_modbus import READ_HOLDING, WRITE_MANY, WRITE_ONE, ModbusRtuCodec

# Register 1006, to be read after exception 4 ("device failure").
SUB_ERROR_NAMES: Mapping[int, str] = MappingProxyType(
    {
        1: "initialising",
        2: "needs calibration",
        3: "invalid value",
        4: "stuck",
        5: "failed",
        6: "save failed",
    }
)

_RESET = 1014
_ANGLES_FIRST, _ANGLES_END = 1155, 1175  # targets and actual values, hundredths of a degree


class RohandCodec(ModbusRtuCodec):
    """ROHand over Modbus RTU, 115200 8N1, node 2 unless changed; functions 03, 06 and 10.

    A register is base + finger: 0 thumb bend, 1 index, 2 middle, 3 ring, 4 little, 5 thumb rotation. Position
    targets stand at 1135, positions at 1145: 0 (open) to 65535 (closed). Angles (targets 1155, actual 1165)
    are int16 in hundredths of a degree: read them as `reply.as_int16`; `reply.values` is uint16. Many other
    registers wear the flash with every write. Generations 1 and 2 (register 1000) differ: 1115 limits force
    on 1, on 2 it starts force control. A value other than 0 in 1014 would enter firmware update and raises
    ValueError.
    """

    name = "rohand"
    DEVICE_ID = 2
    FUNCTIONS = (READ_HOLDING, WRITE_ONE, WRITE_MANY)

    def value_range(self, register: int) -> tuple[int, int]:
        """int16 for angles, uint16 for all others."""
        return (-0x8000, 0x7FFF) if _ANGLES_FIRST <= register < _ANGLES_END else (0, 0xFFFF)

    def check_write(self, address: int, payload: bytes) -> None:
        """Raises ValueError for the write that enters firmware update."""
        at = 2 * (_RESET - address)
        if 0 <= at < len(payload) and payload[at : at + 2] != b"\x00\x00":
            raise ValueError(
                f"register 1014: expected 0, got {payload[at : at + 2].hex()} (enters firmware update)"
            )


@dataclass(frozen=True)
class RohandSerialReply:
    """A sound reply of the 55 AA protocol; `error` is the hand's code, 0 if it did as it was told."""

    device_id: int
    master_id: int
    command: int
    data: bytes
    error: int = 0


class RohandSerialCodec:
    """ROHand's `55 AA | to | from | command | size | data | lrc`, over a serial line or in pieces over CAN.

    lrc is the XOR of everything after 55 AA. Commands 00 to 25 (hex) get, 40 resets, 42 sets the id, those
    from 50 on set several things at once; their contents are the caller's.
    """

    name = "rohand_serial"
    EXTENDED = False
    BITRATE = 1_000_000

    def message(self, command: int, data: bytes = b"", device_id: int = 2, *, master_id: int = 1) -> bytes:
        """One command (0 to 127) with 0 to 255 bytes. Raises ValueError."""
        payload = as_bytes("data", data)
        whole("number of data bytes", len(payload), 0, 255)
        return _bridge.rohand_serial_message(
            whole("device_id", device_id, 0, 255),
            whole("master_id", master_id, 0, 255),
            whole("command", command, 0, 127),
            payload,
        )

    def can_frames(self, message: bytes) -> list[CanFrame]:
        """The same bytes for the CAN bus: pieces of up to 8 with the hand's id as standard CAN id."""
        if len(message) < 7:
            raise ValueError(f"message: expected at least 7 bytes, got {len(message)}")
        return [(message[2], bytes(message[at : at + 8])) for at in range(0, len(message), 8)]

    def parse(self, frame: bytes) -> RohandSerialReply:
        """One whole reply (from CAN: the pieces joined). Raises PacketError saying what is damaged."""
        try:
            master_id, device_id, command, error, data = _bridge.rohand_serial_parse(as_bytes("frame", frame))
        except ValueError as problem:
            raise PacketError(f"{self.name}: {problem}", self.name) from None
        return RohandSerialReply(device_id, master_id, command, data, error)
