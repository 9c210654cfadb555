"""LinkerHand O6, L6, L7, L10 and L20 over CAN, O6 and L10 also over Modbus RTU, as pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

from beingh0_edge.errors import PacketError
from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.codec_checks import CanFrame, can_frame, whole, wholes
from beingh0_edge.firmware_bridge.codec_modbus import (
    READ_HOLDING,
    READ_INPUT,
    WRITE_MANY,
    Contents,
    ModbusRtuCodec,
)

RIGHT, LEFT = 0x27, 0x28

FAULT_NAMES: Mapping[int, str] = MappingProxyType(
    {0: "none", 1: "over-current", 2: "over-temperature", 3: "encoder", 4: "over- or under-voltage"})

Model = Literal["o6", "l6", "l7", "l10", "l20"]
Finger = Literal["thumb", "index", "middle", "ring", "little"]
_FINGERS: tuple[Finger, ...] = ("thumb", "index", "middle", "ring", "little")

# Numbers of the enumerations in C++.
_MODELS: tuple[Model, ...] = ("o6", "l6", "l7", "l10", "l20")
_QUANTITIES = (
    "positions", "torque_limits", "speeds", "accelerations", "currents", "temperatures", "faults", "device_id",
    "normal_force", "tangential_force", "force_direction", "proximity", "version", "serial", "hardware_version",
    "software_version", "tactile_type", *(f"tactile_{finger}" for finger in _FINGERS),
)

_SIX = ("thumb_pitch", "thumb_yaw", "index_pitch", "middle_pitch", "ring_pitch", "little_pitch")
JOINTS: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "o6": _SIX,
    "l6": _SIX,
    "l7": (*_SIX, "thumb_roll"),
    "l10": (*_SIX, "index_roll", "ring_roll", "little_roll", "thumb_roll"),
    "l20": tuple(f"{finger}_{part}" for part in ("base_pitch", "yaw", "roll", "tip") for finger in _FINGERS),
})


class LinkerVersion(NamedTuple):
    """What a hand says about itself."""

    joints: int
    mechanical: int
    number: int
    side: str  # "left" or "right"
    software: str
    hardware: str
    flag: int


@dataclass(frozen=True)
class LinkerReply:
    """Values of a hand: the answer to a query, or to a set (the two look alike)."""

    device_id: int
    tag: int
    message: str  # what the values are, as in the method that asks for them: read_<message>
    values: tuple[int, ...]  # 0 to 255
    first_joint: int  # which joint the first value belongs to

    @property
    def version(self) -> LinkerVersion:
        """Of a "version" message. Raises PacketError if it is none."""
        if self.message != "version" or len(self.values) != 7 or self.values[3] not in b"LR":
            raise PacketError(f"linkerhand: expected a version of 7 values with L or R, got {self.message} "
                              f"{bytes(self.values).hex(' ')}", "linkerhand")
        joints, mechanical, number, side, software, hardware, flag = self.values
        return LinkerVersion(joints, mechanical, number, "left" if side == ord("L") else "right",
                             f"{software >> 4}.{software & 15}", f"{hardware >> 4}.{hardware & 15}", flag)

    @property
    def tactile_row(self) -> tuple[int, tuple[int, ...]]:
        """(row, its cells) of a "tactile_<finger>" message of a matrix. Raises PacketError if it is none."""
        if not self.message.startswith("tactile_") or len(self.values) not in (5, 7) or self.values[0] % 16:
            raise PacketError(f"linkerhand: expected 16 * row and 4 or 6 cells, got {self.message} "
                              f"{bytes(self.values).hex(' ')}", "linkerhand")
        return self.values[0] // 16, self.values[1:]


class LinkerHandCodec:
    """One model over CAN 2.0A, 1 Mbit/s: (CAN id, tag and values).

    Values are 0 to 255, one for each joint of `joints`; positions are 0 bent or inwards, 255 extended or away from
    the palm. The right hand has id 0x27, the left one 0x28, and a hand answers on its own id: an answer looks like
    a command to the same hand. A quantity that takes several frames is a list of them. A message that the model
    does not have, and values that do not fit, raise ValueError.
    """

    def __init__(self, model: Model) -> None:
        self._model = _MODELS.index(model)
        self.model = model
        self.name = f"linkerhand_{model}"
        self.joints = JOINTS[model]

    def set_positions(self, values: Sequence[int], *, device_id: int = RIGHT, reply: bool = True,
                      pitch_first: bool = False) -> CanFrame | list[CanFrame]:
        """Moves all joints.

        L10 and L20 take several frames: in the order of the vendor's library the base pitch goes after roll and tips
        (tag 04 before 01 on L10); `pitch_first` sends it before them, as an independent driver does. `reply` off
        uses the no-reply form of the tags, which is documented for L20 only.
        """
        frames = self._set("positions", values, device_id, reply)
        if pitch_first and isinstance(frames, list):
            frames.sort(key=lambda frame: frame[1][0])
        return frames

    def set_torque_limits(self, values: Sequence[int], *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        """Bounds the torque of all joints (not on L20)."""
        return self._set("torque_limits", values, device_id)

    def set_speeds(self, values: Sequence[int], *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        """Sets the speed of all joints; on L20 of its five fingers."""
        return self._set("speeds", values, device_id)

    def set_accelerations(self, values: Sequence[int], *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        """Sets the acceleration of all joints (O6 and L6)."""
        return self._set("accelerations", values, device_id)

    def read_positions(self, *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        return self._query("positions", device_id)

    def read_torque_limits(self, *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        return self._query("torque_limits", device_id)

    def read_speeds(self, *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        return self._query("speeds", device_id)

    def read_accelerations(self, *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        return self._query("accelerations", device_id)

    def read_currents(self, *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        return self._query("currents", device_id)

    def read_temperatures(self, *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        return self._query("temperatures", device_id)

    def read_faults(self, *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        """The answer's values are FAULT_NAMES."""
        return self._query("faults", device_id)

    def read_normal_force(self, *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        return self._query("normal_force", device_id)

    def read_tangential_force(self, *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        return self._query("tangential_force", device_id)

    def read_force_direction(self, *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        return self._query("force_direction", device_id)

    def read_proximity(self, *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        return self._query("proximity", device_id)

    def read_version(self, *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        """The answer's `version` tells which hand this is."""
        return self._query("version", device_id)

    def read_serial(self, *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        """The hand answers with four frames: the number of the chunk, then characters."""
        return self._query("serial", device_id)

    def read_hardware_version(self, *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        return self._query("hardware_version", device_id)

    def read_software_version(self, *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        return self._query("software_version", device_id)

    def read_tactile_type(self, *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        return self._query("tactile_type", device_id)

    def read_tactile(self, finger: Finger, *, cells: Literal["6x12", "4x10"] | None = None,
                     device_id: int = RIGHT) -> CanFrame:
        """Asks for the touch of a finger: one number, or its matrix, which comes as a frame per row."""
        if finger not in _FINGERS:
            raise ValueError(f"finger: expected one of {', '.join(_FINGERS)}, got {finger!r}")
        sizes = {None: b"", "6x12": b"\xc6", "4x10": b"\xa4"}
        if cells not in sizes:
            raise ValueError(f"cells: expected '6x12', '4x10' or None, got {cells!r}")
        return self.message(0xB1 + _FINGERS.index(finger), tuple(sizes[cells]), device_id=device_id)

    def message(self, tag: int, values: Sequence[int] = (), *, device_id: int = RIGHT) -> CanFrame:
        """One frame of any tag: a query without values (up to 7), otherwise a set."""
        payload = bytes(wholes("values", values, len(values), 0, 255))
        return _bridge.linkerhand_message(_id(device_id), whole("tag", tag, 0, 255), payload)

    def parse(self, frame: CanFrame | int, data: bytes | None = None, *, device_id: int | None = None) -> LinkerReply:
        """An answer, given as (CAN id, data) or as two arguments; `device_id` is the id it must have, if given.

        CAN guards the bytes itself: what is checked is that the tag exists on this model and has its number of values.
        Raises PacketError.
        """
        can_id, payload = can_frame(frame, data)
        if device_id is not None and can_id != device_id:
            raise PacketError(f"{self.name}: CAN id: expected {device_id:03X}, got {can_id:03X}", self.name)
        try:
            quantity, tag, first, values = _bridge.linkerhand_parse(self._model, can_id, payload)
        except ValueError as problem:
            raise PacketError(f"{self.name}: {problem}", self.name) from None
        return LinkerReply(can_id, tag, _QUANTITIES[quantity], tuple(values), first)

    def _set(
        self, message: str, values: Sequence[int], device_id: int, reply: bool = True
    ) -> CanFrame | list[CanFrame]:
        quantity = _QUANTITIES.index(message)
        count = _bridge.linkerhand_values(self._model, quantity)
        payload = bytes(wholes("values", values, count, 0, 255)) if count else b""
        frames = _bridge.linkerhand_set(self._model, quantity, _id(device_id), payload, reply)
        return self._one_or_all(f"no way to set {message}" if reply else f"no no-reply form of {message}", frames)

    def _query(self, message: str, device_id: int) -> CanFrame | list[CanFrame]:
        frames = _bridge.linkerhand_query(self._model, _QUANTITIES.index(message), _id(device_id))
        return self._one_or_all(f"no {message}", frames)

    def _one_or_all(self, lack: str, frames: list[CanFrame]) -> CanFrame | list[CanFrame]:
        if not frames:
            raise ValueError(f"{self.name} has {lack}")
        return frames[0] if len(frames) == 1 else frames


class LinkerHandL20Codec(LinkerHandCodec):
    """The L20: its joints also go by kind, five fingers at a time from thumb to little."""

    def __init__(self) -> None:
        super().__init__("l20")

    def set_base_pitches(self, values: Sequence[int], *, device_id: int = RIGHT, reply: bool = True) -> CanFrame:
        return self._five(0x01, values, device_id, reply)

    def set_yaws(self, values: Sequence[int], *, device_id: int = RIGHT, reply: bool = True) -> CanFrame:
        return self._five(0x02, values, device_id, reply)

    def set_thumb_roll(self, value: int, *, device_id: int = RIGHT, reply: bool = True) -> CanFrame:
        """Only the thumb rolls: the other four values are 0, as the vendor's library sends them."""
        return self._five(0x03, (value, 0, 0, 0, 0), device_id, reply)

    def set_tips(self, values: Sequence[int], *, device_id: int = RIGHT, reply: bool = True) -> CanFrame:
        return self._five(0x04, values, device_id, reply)

    def set_currents(self, values: Sequence[int], *, device_id: int = RIGHT) -> CanFrame | list[CanFrame]:
        """Bounds the current of the five fingers."""
        return self._set("currents", values, device_id)

    def clear_faults(self, *, device_id: int = RIGHT) -> CanFrame:
        return self.message(0x07, (1, 1, 1, 1, 1), device_id=device_id)

    def set_device_id(self, new_device_id: int, *, device_id: int = RIGHT) -> CanFrame:
        """Gives the hand another CAN id."""
        return self.message(0xC3, (whole("new_device_id", new_device_id, 1, 255),), device_id=device_id)

    def save(self, *, device_id: int = RIGHT) -> CanFrame:
        """Writes the parameters to flash."""
        return self.message(0xCF, device_id=device_id)

    def _five(self, tag: int, values: Sequence[int], device_id: int, reply: bool) -> CanFrame:
        checked = wholes("values", values, 5, 0, 255)
        return self.message(tag if reply else tag | 0x10, checked, device_id=device_id)


class LinkerHandRs485Codec(ModbusRtuCodec):
    """LinkerHand over Modbus RTU, 115200 8N1, slave 0x27 right or 0x28 left; functions 03, 04 and 16 (decimal).

    Holding registers from 0 on: position, torque limit and speed of all joints, 0 to 255 each. Input registers tell
    the present ones and more; they are what `read` asks for unless `function` says 3.
    """

    DEVICE_ID = RIGHT
    FUNCTIONS = (READ_HOLDING, READ_INPUT, WRITE_MANY)

    def read_function(self, address: int) -> int:
        return READ_INPUT

    def value_range(self, register: int) -> tuple[int, int]:
        return 0, 255

    def write(self, address: int, values: Contents, device_id: int | None = None, *,
              function: int | None = WRITE_MANY) -> bytes:
        """The request that writes registers from `address` on, always by function 16. Raises ValueError."""
        return super().write(address, values, device_id, function=function)


class LinkerHandO6Rs485Codec(LinkerHandRs485Codec):
    """O6: positions at 0, torque limits at 6, speeds at 12; input also temperatures 18, faults 24, identity 30."""

    name = "linkerhand_o6_rs485"


class LinkerHandL10Rs485Codec(LinkerHandRs485Codec):
    """L10: positions at 0, torque limits at 10, speeds at 20; input also temperatures 40, faults 50, identity 158.

    Touch: write the finger to holding register 70, then read 96 input registers from 72 on.
    """

    name = "linkerhand_l10_rs485"


def _id(device_id: int) -> int:
    return whole("device_id", device_id, 0, 0x7FF)
