"""Inspire hands over CAN, also through the USB-CAN stick sold with them, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from beingh0_edge.errors import PacketError
from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.codec_checks import (
    INSPIRE_BYTE_REGISTERS,
    CanFrame,
    as_bytes,
    as_list,
    can_frame,
    inspire_values,
    is_bytes,
    whole,
)

MOST_BYTES = 8  # of one frame
_MOST_ADDRESS = 4095

# POS_SET and ANGLE_SET: the registers where -1 is documented as "leave this joint alone".
_HOLD_FIRST, _HOLD_END = 1474, 1498


@dataclass(frozen=True)
class InspireCanReply:
    """A sound reply: registers read, or a write acknowledged (no data, or one byte whose meaning is open)."""

    device_id: int
    kind: str  # "read" or "write"
    address: int
    data: bytes
    wrist: bool = False

    @property
    def values(self) -> npt.NDArray[np.int16]:
        """int16[n]: a number per register, be it a byte or a word. Raises ValueError if `data` are both."""
        return inspire_values(self.address, self.data)


class InspireCanCodec:
    """Inspire RH56 on register map A over CAN 2.0B, 1 Mbit/s: `rw << 26 | address << 14 | hand id`, 29 bits.

    Addresses are byte addresses as in the manual's map (0 to 4095: the field has 12 bits, so most tactile
    blocks are out of reach), counts are bytes, words are little endian. One frame moves up to 8 bytes: a
    longer request is a list of frames, each answered on its own, six joints being 8 + 4 bytes. The CAN
    supplement's own parameter numbers (250, 4008, 4016, 4020) contradict each other; the map's addresses are
    meant here.
    """

    name = "inspire_rh56_can"
    EXTENDED = True
    BITRATE = 1_000_000
    BYTE_REGISTERS = INSPIRE_BYTE_REGISTERS

    def read(
        self, address: int, count: int, device_id: int = 1, *, wrist: bool = False
    ) -> CanFrame | list[CanFrame]:
        """Asks for `count` bytes: (CAN id, data), or a list of them for more than 8. Raises ValueError."""
        count = whole("count", count, 1, _MOST_ADDRESS + 1)
        device_id, spans = _device_id(device_id), _spans(address, count)
        return _one_or_all([_bridge.inspire_can_read(wrist, device_id, at, size) for at, size in spans])

    def write(
        self, address: int, values: bytes | int | Sequence[int], device_id: int = 1, *, wrist: bool = False
    ) -> CanFrame | list[CanFrame]:
        """Writes bytes as they are, or integers: one byte for a byte register, else int16.

        Returns (CAN id, data), or a list of them for more than 8 bytes. Raises ValueError.
        """
        if is_bytes(values):
            payload = bytes(values)
        elif address in self.BYTE_REGISTERS:
            payload = as_bytes("values", as_list(values))
        else:
            payload = b"".join(
                whole(f"values[{i}]", value, -0x8000, 0x7FFF).to_bytes(2, "little", signed=True)
                for i, value in enumerate(as_list(values))
            )
        device_id, spans = _device_id(device_id), _spans(address, len(payload))
        frames = []
        for at, size in spans:
            frames.append(_bridge.inspire_can_write(wrist, device_id, at, payload[:size]))
            payload = payload[size:]
        return _one_or_all(frames)

    def parse(
        self, frame: CanFrame | int, data: bytes | None = None, *, request: CanFrame | None = None
    ) -> InspireCanReply:
        """One reply, given as (CAN id, data) or as two arguments; with `request` it must be the answer to
        that.

        A write may be acknowledged with no byte or with one: manuals disagree, both pass. Raises PacketError.
        """
        can_id, payload = can_frame(frame, data)
        try:
            write, wrist, device_id, address, got = _bridge.inspire_can_parse(can_id, payload)
        except ValueError as error:
            raise PacketError(f"{self.name}: {error}", self.name) from None
        if request is not None:
            if can_id != request[0]:
                raise PacketError(
                    f"{self.name}: CAN id: expected {request[0]:08X}, got {can_id:08X}", self.name
                )
            if not write and len(got) != request[1][0]:
                raise PacketError(f"{self.name}: expected {request[1][0]} bytes, got {len(got)}", self.name)
        return InspireCanReply(device_id, "write" if write else "read", address, got, wrist)

    def to_stick(self, frame: CanFrame, *, fill_writes: bool = True) -> bytes:
        """The frame as the USB-CAN stick wants it on its serial line (115200 baud).

        The stick's documented captures fill every write up to 8 bytes with FF, and the hand stores all eight.
        That is harmless only where FF FF means "leave this joint alone", so shorter writes elsewhere raise
        ValueError unless fill_writes is False: then the frame keeps its length, filled with 00, as the
        captured replies do it.
        """
        can_id, data = can_frame(frame, None)
        whole("CAN id", can_id, 0, 0x1FFFFFFF)
        whole("number of data bytes", len(data), 0, MOST_BYTES)
        if not (can_id >> 26 & 1 and fill_writes) or len(data) == MOST_BYTES:
            return _bridge.inspire_stick_wrap(can_id, data, 0x00)
        address = can_id >> 14 & _MOST_ADDRESS
        if len(data) % 2 or not _HOLD_FIRST <= address <= _HOLD_END - MOST_BYTES:
            raise ValueError(
                f"{len(data)} bytes for address {address}: filling up to 8 with FF would write into other "
                f"registers; write 8 bytes at once or pass fill_writes=False"
            )
        return _bridge.inspire_stick_wrap(can_id, data + b"\xff" * (MOST_BYTES - len(data)), 0xFF)

    def from_stick(self, frame: bytes) -> CanFrame:
        """(CAN id, data) of one whole frame from the USB-CAN stick. Raises PacketError."""
        try:
            return _bridge.inspire_stick_unwrap(as_bytes("frame", frame))
        except ValueError as error:
            raise PacketError(f"{self.name}: stick: {error}", self.name) from None


def _device_id(value: int) -> int:
    return whole("device_id", value, 1, 254)


def _spans(address: int, count: int) -> list[tuple[int, int]]:
    address = whole("address", address, 0, _MOST_ADDRESS)
    if not 1 <= count <= _MOST_ADDRESS + 1 - address:
        raise ValueError(
            f"expected 1 to {_MOST_ADDRESS + 1 - address} bytes from address {address} on, got {count}"
        )
    return [(at, min(MOST_BYTES, address + count - at)) for at in range(address, address + count, MOST_BYTES)]


def _one_or_all(frames: list[CanFrame]) -> CanFrame | list[CanFrame]:
    return frames[0] if len(frames) == 1 else frames
