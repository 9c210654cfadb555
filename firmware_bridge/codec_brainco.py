"""BrainCo's Revo2 as pure functions: Modbus RTU, CAN 2.0 and CAN-FD. Everything here has one source, the
maker.

Fingers are 0 thumb (flexion), 1 thumb aux (rotation), 2 index, 3 middle, 4 ring, 5 little. Positions are per
mille, 0 open, 1000 closed; speeds, currents and PWM -1000 to 1000, positive closing. Where the wire carries
whole percents only, values must be multiples of 10 (the maker's SDK rounds them down in silence).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from beingh0_edge.errors import PacketError
from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.codec_checks import CanFrame, as_bytes, can_frame, whole, wholes
from beingh0_edge.firmware_bridge.codec_modbus import (
    READ_HOLDING,
    READ_INPUT,
    Contents,
    ModbusReply,
    ModbusRtuCodec,
)

FINGERS = 6
LEFT_DEVICE_ID, RIGHT_DEVICE_ID = 0x7E, 0x7F

MOTOR_STATES: Mapping[int, str] = MappingProxyType(
    {0: "idle", 1: "running", 2: "stall", 3: "turbo", 255: "unknown"}
)

_STATUS = 2000
_POSITION, _SPEED, _CURRENT, _PWM, _STATUS_REQUEST, _WRITE_PARAMETER, _READ_PARAMETER = 1, 2, 3, 4, 5, 9, 10
_ALL_FINGERS = 6
_UNIT_MODE = 0x0D


@dataclass(frozen=True)
class BraincoStatus:
    """What the 24 registers from 2000 on say, by finger. There is no error register: a stall shows as state
    2."""

    positions: npt.NDArray[np.int16]  # int16[6]
    speeds: npt.NDArray[np.int16]  # int16[6]
    currents: npt.NDArray[np.int16]  # int16[6]
    states: npt.NDArray[np.int16]  # int16[6], see MOTOR_STATES


class BraincoCodec(ModbusRtuCodec):
    """Revo2 over Modbus RTU, 460800 8N1, slave 7E (left) or 7F (right, the default here).

    `read` uses function 4 for the input registers (2000 to 3999 and from 4100 on) and 3 for the others. The
    numbers mean other things on a Revo1 (1034: speeds here, "calibrate now" there): identify the hand first.
    Registers that enter firmware update or hold factory key and serial number are refused by `write`.
    """

    name = "brainco_revo2"
    DEVICE_ID = RIGHT_DEVICE_ID
    SIGNED = True

    def read_function(self, address: int) -> int:
        """4 for the input registers, else 3."""
        return READ_INPUT if 2000 <= address < 4000 or address >= 4100 else READ_HOLDING

    def check_write(self, address: int, payload: bytes) -> None:
        """Raises ValueError for 900 (firmware update), 910 to 919 (factory key), 920 to 929 (serial
        number)."""
        end = address + len(payload) // 2
        if address <= 900 < end or (address < 930 and end > 910):
            raise ValueError(
                f"registers {address} to {end - 1}: 900 and 910 to 929 are never written (firmware "
                f"update, factory key, serial number)"
            )

    def positions(self, values: Sequence[int], device_id: int | None = None) -> bytes:
        """Six positions, multiples of 10: one byte each (register 1070)."""
        return self.write(1070, _swap_pairs(bytes(_percents("values", values, 0))), device_id)

    def positions_with_durations(
        self, values: Sequence[int], durations_ms: Sequence[int], device_id: int | None = None
    ) -> bytes:
        """Six positions, each to be reached in 1 to 2000 ms (register 1010)."""
        return self.write(
            1010,
            _interleave(
                _per_mille("values", values, 0), wholes("durations_ms", durations_ms, FINGERS, 1, 2000)
            ),
            device_id,
        )

    def positions_with_speeds(
        self, values: Sequence[int], speeds: Sequence[int], device_id: int | None = None
    ) -> bytes:
        """Six positions, each with a speed of 1 to 1000 (register 1022)."""
        return self.write(
            1022, _interleave(_per_mille("values", values, 0), _per_mille("speeds", speeds, 1)), device_id
        )

    def finger_position_with_duration(
        self, finger: int, value: int, duration_ms: int, device_id: int | None = None
    ) -> bytes:
        """One finger's position, to be reached in 1 to 2000 ms (register 1052)."""
        return self.write(
            1052,
            [_finger(finger), whole("value", value, 0, 1000), whole("duration_ms", duration_ms, 1, 2000)],
            device_id,
        )

    def finger_position_with_speed(
        self, finger: int, value: int, speed: int, device_id: int | None = None
    ) -> bytes:
        """One finger's position with a speed of 1 to 1000 (register 1055)."""
        return self.write(
            1055, [_finger(finger), whole("value", value, 0, 1000), whole("speed", speed, 1, 1000)], device_id
        )

    def speeds(self, values: Sequence[int], device_id: int | None = None) -> bytes:
        """Six speeds (register 1034)."""
        return self.write(1034, _per_mille("values", values, -1000), device_id)

    def currents(self, values: Sequence[int], device_id: int | None = None) -> bytes:
        """Six currents (register 1040)."""
        return self.write(1040, _per_mille("values", values, -1000), device_id)

    def pwms(self, values: Sequence[int], device_id: int | None = None) -> bytes:
        """Six PWM values (register 1046)."""
        return self.write(1046, _per_mille("values", values, -1000), device_id)

    def read_status(self, device_id: int | None = None) -> bytes:
        """Asks for positions, speeds, currents and motor states: see `status`."""
        return self.read(_STATUS, 4 * FINGERS, device_id)

    def status(self, reply: ModbusReply) -> BraincoStatus:
        """The reply to `read_status`, sorted. Raises ValueError if it is another, HandFault if an
        exception."""
        words = reply.as_int16
        if reply.function != READ_INPUT or words.size != 4 * FINGERS or reply.address not in (None, _STATUS):
            raise ValueError(
                f"reply: expected 24 input registers from 2000 on, got {words.size} by function "
                f"{reply.function}"
            )
        return BraincoStatus(*words.reshape(4, FINGERS))


class BraincoCanFdCodec:
    """Revo2 over CAN-FD (1 Mbit/s, data 5 Mbit/s): the Modbus RTU frame inside an extended frame.

    id = slave << 16 | master << 8 | length of the RTU frame, which is filled with zeros up to a legal CAN-FD
    length. Requests and replies must fit 64 bytes: at most 29 registers read or 27 written at once.
    """

    name = "brainco_revo2_canfd"
    EXTENDED = True
    BITRATE, DATA_BITRATE = 1_000_000, 5_000_000
    MOST_READ_REGISTERS, MOST_WRITTEN_REGISTERS = 29, 27

    def __init__(self) -> None:
        self.rtu = BraincoCodec()

    def read(
        self,
        address: int,
        count: int,
        device_id: int | None = None,
        *,
        function: int | None = None,
        master_id: int = 1,
    ) -> CanFrame:
        """(CAN id, data) asking for `count` registers (1 to 29). Raises ValueError."""
        count = whole("count", count, 1, self.MOST_READ_REGISTERS)
        return self.wrap(self.rtu.read(address, count, device_id, function=function), master_id=master_id)

    def write(
        self,
        address: int,
        values: Contents,
        device_id: int | None = None,
        *,
        function: int | None = None,
        master_id: int = 1,
    ) -> CanFrame:
        """(CAN id, data) writing 1 to 27 registers. Raises ValueError."""
        request = self.rtu.write(address, values, device_id, function=function)
        if len(request) > 64:
            raise ValueError(
                f"values: expected 1 to {self.MOST_WRITTEN_REGISTERS} registers, got "
                f"{(len(request) - 9) // 2}"
            )
        return self.wrap(request, master_id=master_id)

    def wrap(self, request: bytes, *, master_id: int = 1) -> CanFrame:
        """(CAN id, data) of any RTU request, such as those of codec("brainco_revo2"). Raises ValueError."""
        return _bridge.brainco_canfd_wrap(whole("master_id", master_id, 0, 255), as_bytes("request", request))

    def parse(
        self, frame: CanFrame | int, data: bytes | None = None, *, request: CanFrame | None = None
    ) -> ModbusReply:
        """One reply, given as (CAN id, data) or as two arguments; with `request` it must be the answer to
        that.

        Which of the ids a reply's CAN id starts with is not documented: only its length is used. Raises
        PacketError.
        """
        can_id, payload = can_frame(frame, data)
        try:
            rtu = _bridge.brainco_canfd_unwrap(can_id, payload)
        except ValueError as error:
            raise PacketError(f"{self.name}: {error}", self.name) from None
        return self.rtu.parse(rtu, None if request is None else _bridge.brainco_canfd_unwrap(*request))


@dataclass(frozen=True)
class BraincoCanMessage:
    """A CAN 2.0 frame, its id taken apart; what the data of replies mean is not documented."""

    device_id: int
    command: int
    finger: int  # 6: all
    data: bytes


class BraincoCanCodec:
    """Revo2 over CAN 2.0, 1 Mbit/s: standard id = slave * 128 + command * 8 + finger (6: all).

    Everything travels in percents: values must be multiples of 10, durations multiples of 10 ms up to 1000
    (the maker's SDK shortens longer ones in silence). Positions with speeds do not exist here.
    """

    name = "brainco_revo2_can"
    EXTENDED = False
    BITRATE = 1_000_000

    def positions(self, values: Sequence[int], device_id: int = 1) -> CanFrame:
        """Six positions."""
        return self._all(_POSITION, values, 0, device_id)

    def speeds(self, values: Sequence[int], device_id: int = 1) -> CanFrame:
        """Six speeds."""
        return self._all(_SPEED, values, -1000, device_id)

    def currents(self, values: Sequence[int], device_id: int = 1) -> CanFrame:
        """Six currents."""
        return self._all(_CURRENT, values, -1000, device_id)

    def pwms(self, values: Sequence[int], device_id: int = 1) -> CanFrame:
        """Six PWM values."""
        return self._all(_PWM, values, -1000, device_id)

    def positions_with_durations(
        self, values: Sequence[int], durations_ms: Sequence[int], device_id: int = 1
    ) -> list[CanFrame]:
        """Six positions, each to be reached in 10 to 1000 ms: two frames."""
        steps = [
            _tenth(f"durations_ms[{i}]", value, 10)
            for i, value in enumerate(wholes("durations_ms", durations_ms, FINGERS, 10, 1000))
        ]
        return list(_bridge.brainco_can_timed(_slave(device_id), _percents("values", values, 0), steps))

    def finger_position(self, finger: int, value: int, device_id: int = 1) -> CanFrame:
        """One finger's position."""
        return self._one(_POSITION, finger, value, 0, device_id)

    def finger_speed(self, finger: int, value: int, device_id: int = 1) -> CanFrame:
        """One finger's speed."""
        return self._one(_SPEED, finger, value, -1000, device_id)

    def finger_current(self, finger: int, value: int, device_id: int = 1) -> CanFrame:
        """One finger's current."""
        return self._one(_CURRENT, finger, value, -1000, device_id)

    def finger_pwm(self, finger: int, value: int, device_id: int = 1) -> CanFrame:
        """One finger's PWM."""
        return self._one(_PWM, finger, value, -1000, device_id)

    def finger_position_with_duration(
        self, finger: int, value: int, duration_ms: int, device_id: int = 1
    ) -> CanFrame:
        """One finger's position, to be reached in 10 to 1000 ms."""
        return _bridge.brainco_can_one_timed(
            _slave(device_id),
            _finger(finger),
            _tenth("value", value, 0),
            _tenth("duration_ms", duration_ms, 10),
        )

    def status_request(self, device_id: int = 1) -> CanFrame:
        """Asks for the state of all fingers."""
        return self.message(_STATUS_REQUEST, b"\x00", device_id)

    def unit_mode(self, physical: bool, device_id: int = 1) -> CanFrame:
        """Makes positions physical units, or per mille again."""
        return self.message(_WRITE_PARAMETER, bytes([_UNIT_MODE, int(physical), 0, 0, 0, 0, 0, 0]), device_id)

    def read_unit_mode(self, device_id: int = 1) -> CanFrame:
        """Asks for the unit mode."""
        return self.message(_READ_PARAMETER, bytes([_UNIT_MODE, 0, 0, 0, 0, 0, 0, 0]), device_id)

    def message(
        self, command: int, data: bytes, device_id: int = 1, *, finger: int = _ALL_FINGERS
    ) -> CanFrame:
        """Any command (0 to 15) with up to 8 bytes as they are. Raises ValueError."""
        payload = as_bytes("data", data)
        whole("number of data bytes", len(payload), 0, 8)
        return _bridge.brainco_can_message(
            _slave(device_id),
            whole("command", command, 0, 15),
            whole("finger", finger, 0, _ALL_FINGERS),
            payload,
        )

    def parse(self, frame: CanFrame | int, data: bytes | None = None) -> BraincoCanMessage:
        """One frame, given as (CAN id, data) or as two arguments. Raises PacketError."""
        can_id, payload = can_frame(frame, data)
        if can_id > 0x7FF or can_id & 7 > _ALL_FINGERS or len(payload) > 8:
            raise PacketError(
                f"{self.name}: expected a standard id with finger 0 to 6 and at most 8 bytes, got "
                f"{can_id:X} with {len(payload)}",
                self.name,
            )
        return BraincoCanMessage(can_id >> 7, can_id >> 3 & 15, can_id & 7, payload)

    def _all(self, command: int, values: Sequence[int], lowest: int, device_id: int) -> CanFrame:
        return _bridge.brainco_can_all(_slave(device_id), command, _percents("values", values, lowest))

    def _one(self, command: int, finger: int, value: int, lowest: int, device_id: int) -> CanFrame:
        return _bridge.brainco_can_one(
            _slave(device_id), command, _finger(finger), _tenth("value", value, lowest)
        )


def _slave(device_id: int) -> int:
    return whole("device_id", device_id, 1, 15)


def _finger(finger: int) -> int:
    return whole("finger", finger, 0, FINGERS - 1)


def _per_mille(name: str, values: Sequence[int], lowest: int) -> tuple[int, ...]:
    return wholes(name, values, FINGERS, lowest, 1000)


def _percents(name: str, values: Sequence[int], lowest: int) -> list[int]:
    return [_tenth(f"{name}[{i}]", value, lowest) for i, value in enumerate(_per_mille(name, values, lowest))]


def _tenth(name: str, value: int, lowest: int) -> int:
    number = whole(name, value, lowest, 1000)
    if number % 10:
        raise ValueError(f"{name}: expected a multiple of 10, got {number}")
    return number // 10


def _interleave(first: Sequence[int], second: Sequence[int]) -> list[int]:
    return [value for pair in zip(first, second, strict=True) for value in pair]


def _swap_pairs(data: bytes) -> bytes:
    """Register 1070 and on hold the earlier finger in the low byte, which goes out second."""
    return bytes(data[i ^ 1] for i in range(len(data)))
