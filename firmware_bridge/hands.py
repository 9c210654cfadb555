"""The hands the bridge drives: one row per hand, all its numbers in one place, with their source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from beingh0_edge.types import SIDES, Side


@dataclass(frozen=True)
class Joint:
    """One driven joint. 0 rad is open; the angle grows while closing.

    The limits bound what is ever commanded; speed and acceleration are those of the commanded pose.
    """

    name: str
    lower_rad: float
    upper_rad: float
    max_speed_rad_s: float
    max_accel_rad_s2: float


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


@dataclass(frozen=True)
class HandSpec:
    """A hand on one of its wires, as data. Joint order is the order of the wire.

    baud       of the serial line; the TCP port of a hand on a network; 0 where neither matters
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
    source: str

    def checked_options(self, given: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
        """All options with their values. Raises TypeError for an unknown one, ValueError for a bad value."""
        for name in given:
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise TypeError(f"unknown option {name!r} of {self.name}; known: {known}")
        return {name: option.check(name, given.get(name, option.default)) for name, option in self.options.items()}

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


def _inspire_joint(name: str, upper_rad: float) -> Joint:
    # The slower published full stroke: 0.8 s at SPEED_SET 1000 (DFX). That speed is reached within 0.1 s.
    speed = upper_rad / 0.8
    return Joint(name, 0.0, upper_rad, speed, speed / 0.1)


INSPIRE_RH56 = HandSpec(
    name="inspire_rh56",
    title="Inspire RH56 DFX, DFQ, BFX, DFTP, R1 (register map A)",
    wire="rs485",
    # Register order. Ranges: what each driven joint of robosuite's RH56 model turns from register 1000 to 0; the
    # retargeter's robot file has the same numbers and a test compares them.
    joints=(
        _inspire_joint("little", 1.62),
        _inspire_joint("ring", 1.62),
        _inspire_joint("middle", 1.62),
        _inspire_joint("index", 1.62),
        _inspire_joint("thumb_bend", 0.68),
        _inspire_joint("thumb_rotation", 1.3),
    ),
    baud=115200,
    device_id=1,
    rate_hz=100.0,
    highest_rate_hz=198.0,  # 58 bytes per cycle at 115200 baud take 5.03 ms
    error_bits=MappingProxyType(
        {0: "stall", 1: "over-temperature", 2: "over-current", 3: "motor abnormal", 4: "communication"}
    ),
    options=MappingProxyType({
        "speed": Option(1000, "SPEED_SET of all fingers; 1000 is a full stroke in 0.6 to 0.8 s", (1, 1000)),
        "force_g": Option(500, "FORCE_SET of all fingers: closing stops there", (1, 1000)),
        "family": Option(None, "'A' vouches for register map A when the hand is not recognised", choices=(None, "A")),
    }),
    source="RH56DFTP user manual V1.0.0, RH56 R1 manual V1.0.0, and drivers that agree with them",
)

_MODBUS_OPTIONS = {
    **INSPIRE_RH56.options,
    "byte_order": Option("low_first", "which byte of a word of ERROR, STATUS and TEMP is the earlier finger; sources "
                         "disagree", choices=("low_first", "high_first")),
}

INSPIRE_RH56_MODBUS = replace(
    INSPIRE_RH56, name="inspire_rh56_modbus", title="Inspire RH56 (map A) over Modbus RTU", wire="modbus",
    rate_hz=50.0, highest_rate_hz=115.0,  # 54 bytes and two silences of 1.75 ms per cycle
    options=MappingProxyType({**_MODBUS_OPTIONS, "echoes": Option(
        False, "the adapter repeats what is sent", choices=(False, True))}),
)
INSPIRE_RH56_TCP = replace(
    INSPIRE_RH56, name="inspire_rh56_tcp", title="Inspire RH56 DFTP, R1 over Modbus TCP", wire="tcp", baud=6000,
    highest_rate_hz=200.0, options=MappingProxyType(_MODBUS_OPTIONS),
)
INSPIRE_RH56_CAN = replace(
    INSPIRE_RH56, name="inspire_rh56_can", title="Inspire RH56 (map A) over CAN (SocketCAN or slcan)", wire="can",
    highest_rate_hz=400.0,
)



def _leap_joint(name: str, lower_rad: float, upper_rad: float) -> Joint:
    # Half of what an unloaded XC330 does, reached within 0.1 s.
    return Joint(name, lower_rad, upper_rad, 4.0, 40.0)


LEAP = HandSpec(
    name="leap",
    title="LEAP Hand, 16 Dynamixel XC330 or XL330 servos",
    wire="dynamixel",
    # Servo ids 0 to 15. 0 rad is the flat open hand (tick 2048 of every servo); side joints swing both ways.
    joints=(
        *(
            _leap_joint(f"{finger}_{joint}", lower, upper)
            for finger in ("index", "middle", "ring")
            for joint, lower, upper in (
                ("side", -1.047, 1.047), ("forward", -0.314, 2.23), ("pip", -0.506, 1.885), ("dip", -0.366, 2.042)
            )
        ),
        _leap_joint("thumb_side", -0.349, 2.094),
        _leap_joint("thumb_forward", -0.47, 2.443),
        _leap_joint("thumb_pip", -1.20, 1.90),
        _leap_joint("thumb_dip", -1.34, 1.88),
    ),
    baud=4_000_000,
    device_id=1,  # not used: the servos have ids 0 to 15
    rate_hz=100.0,
    highest_rate_hz=500.0,
    error_bits=MappingProxyType({
        0: "voltage", 2: "overheating", 3: "encoder", 4: "electrical shock", 5: "overload", 8: "bus watchdog"
    }),
    options=MappingProxyType({
        "current_ma": Option(350, "goal current of all joints: how hard they may push", (10, 1000)),
        "p_gain": Option(600, "position P gain (side joints get three quarters)", (1, 5000)),
        "d_gain": Option(200, "position D gain (side joints get three quarters)", (0, 5000)),
        "fast_read": Option(True, "ask for one joint answer; older firmware is noticed and asked one by one",
                            choices=(True, False)),
    }),
    source="ROBOTIS e-manual (protocol 2.0, XC330-M288), LEAP_Hand_API; joint limits from the latter",
)

HANDS: Mapping[str, HandSpec] = MappingProxyType({
    spec.name: spec for spec in (INSPIRE_RH56, INSPIRE_RH56_MODBUS, INSPIRE_RH56_TCP, INSPIRE_RH56_CAN, LEAP)
})


def hand_spec(name: str) -> HandSpec:
    """The description of a hand. Raises ValueError naming the known ones."""
    if name not in HANDS:
        raise ValueError(f"unknown hand {name!r}; known: {', '.join(sorted(HANDS))}")
    return HANDS[name]


def check_side(side: str) -> Side:
    """`side` if it is one. Raises ValueError."""
    for known in SIDES:
        if side == known:
            return known
    raise ValueError(f"side: expected 'left' or 'right', got {side!r}")
