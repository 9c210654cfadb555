"""What a row of the table of hands holds, and what every hand is given to be opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.safety import Safety
from beingh0_edge.types import SIDES, Side


@dataclass(frozen=True)
class Joint:
    """One driven joint. 0 rad is open; the angle grows while closing.

    The limits bound what is ever commanded; speed, acceleration and jerk are those of the commanded pose.
    accel_ramp_s is the time in which the acceleration may go from nothing to its bound.
    """

    name: str
    lower_rad: float
    upper_rad: float
    max_speed_rad_s: float
    max_accel_rad_s2: float
    accel_ramp_s: float = 0.04

    @property
    def max_jerk_rad_s3(self) -> float:
        return self.max_accel_rad_s2 / self.accel_ramp_s


OptionValue = bool | int | float | str | None


@dataclass(frozen=True)
class Option:
    """An argument of `Bridge.open` that only this hand has: a number within bounds, or one of some choices."""

    default: OptionValue
    meaning: str
    bounds: tuple[float, float] | None = None
    choices: tuple[OptionValue, ...] = ()

    def check(self, name: str, value: OptionValue) -> OptionValue:
        """`value` if it is allowed. Raises ValueError."""
        if self.bounds is not None:
            low, high = self.bounds
            if isinstance(value, (bool, str)) or value is None or not low <= value <= high:
                raise ValueError(f"{name}: expected {low:g} to {high:g}, got {value!r}")
        elif not any(value is choice or (isinstance(value, str) and value == choice) for choice in self.choices):
            raise ValueError(f"{name}: expected {' or '.join(map(repr, self.choices))}, got {value!r}")
        return value


class Options(dict[str, OptionValue]):
    """Checked options of one hand, by name."""

    def whole(self, name: str) -> int:
        return int(self.number(name))

    def number(self, name: str) -> float:
        value = self[name]
        if isinstance(value, (str, bool)) or value is None:
            raise TypeError(f"{name}: expected a number, got {value!r}")
        return value

    def flag(self, name: str) -> bool:
        return self.get(name) is True


@dataclass(frozen=True)
class Connection:
    """What every hand has to be opened.

    port  a serial port, a CAN interface, `slcan:/dev/ttyACM0`, or `HOST[:NUMBER]`
    """

    port: str
    side: Side
    baud: int
    device_id: int
    rate_hz: float
    reply_timeout_s: float
    limits: _bridge.Limits


@dataclass(frozen=True)
class HandSpec:
    """A hand on one of its wires, as data. Joint order is the order of the wire.

    baud            of the serial line; the TCP port of a hand on a network; 0 where neither matters
    device_id       of a right hand; left_device_id: of a left one, where that differs
    device_ids      the lowest and highest a hand may have
    cycle_bytes     on a serial line, of a pose read and one written: what bounds the rate there; 0 elsewhere
    silences        that a cycle keeps besides, as Modbus RTU wants them
    driver          makes the driver that speaks to it; opens nothing yet
    error_bits      names of the bits in `HandState.error_bits`
    safe_stop       what the hand does on a stop, a fault and an e-stop
    calibration     what `Bridge.calibrate` does, and what the hand needs for it; empty: nothing
    safety          when the bridge stops this hand by itself, unless told otherwise
    """

    name: str
    title: str
    wire: str
    joints: tuple[Joint, ...]
    baud: int
    device_id: int
    rate_hz: float
    highest_rate_hz: float
    error_bits: Mapping[int, str]
    options: Mapping[str, Option]
    driver: Callable[[Connection, Options], _bridge.Driver]
    source: str
    left_device_id: int | None = None
    lowest_rate_hz: float = 10.0
    cycle_bytes: int = 0
    silences: int = 0
    device_ids: tuple[int, int] = (1, 254)
    safe_stop: str = "the measured pose becomes the target"
    calibration: str = ""
    safety: Safety = field(default_factory=Safety)

    def device_id_of(self, side: Side) -> int:
        """The id a hand of this side has unless it was changed."""
        return self.left_device_id if side == "left" and self.left_device_id is not None else self.device_id

    def highest_rate_at_hz(self, baud: int) -> float:
        """Cycles per second that a line of this speed has room for."""
        if not self.cycle_bytes:
            return self.highest_rate_hz
        byte_s = 10 / baud
        return min(self.highest_rate_hz, 1 / (self.cycle_bytes * byte_s + self.silences * max(0.00175, 4 * byte_s)))

    def checked_options(self, given: Mapping[str, OptionValue]) -> Options:
        """All options with their values. Raises TypeError for an unknown one, ValueError for a bad value."""
        for name in given:
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise TypeError(f"unknown option {name!r} of {self.name}; known: {known}")
        return Options({name: option.check(name, given.get(name, option.default))
                        for name, option in self.options.items()})

    @property
    def joint_names(self) -> tuple[str, ...]:
        return tuple(joint.name for joint in self.joints)

    @property
    def lower_rad(self) -> npt.NDArray[np.float64]:
        """float64[J]"""
        return np.array([joint.lower_rad for joint in self.joints])

    @property
    def upper_rad(self) -> npt.NDArray[np.float64]:
        """float64[J]"""
        return np.array([joint.upper_rad for joint in self.joints])

    @property
    def max_speed_rad_s(self) -> npt.NDArray[np.float64]:
        """float64[J]"""
        return np.array([joint.max_speed_rad_s for joint in self.joints])

    @property
    def max_accel_rad_s2(self) -> npt.NDArray[np.float64]:
        """float64[J]"""
        return np.array([joint.max_accel_rad_s2 for joint in self.joints])

    @property
    def max_jerk_rad_s3(self) -> npt.NDArray[np.float64]:
        """float64[J]"""
        return np.array([joint.max_jerk_rad_s3 for joint in self.joints])


def check_side(side: str) -> Side:
    """`side` if it is one. Raises ValueError."""
    for known in SIDES:
        if side == known:
            return known
    raise ValueError(f"side: expected 'left' or 'right', got {side!r}")


def tcp_place(port: str, default_number: int) -> tuple[str, int]:
    """(host, number) of `HOST` or `HOST:NUMBER`. Raises ValueError."""
    host, colon, number = port.rpartition(":")
    if not colon:
        return port, default_number
    if not host or not number.isdigit() or not 0 < int(number) < 65536:
        raise ValueError(f"port: expected HOST or HOST:NUMBER, got {port!r}")
    return host, int(number)
