"""The hands the bridge drives: one row per hand, all its numbers in one place, with their source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class HandSpec:
    """A hand as data. Joint order is the order of the wire."""

    name: str
    title: str
    wire: str
    joints: tuple[Joint, ...]
    baud: int
    device_id: int
    rate_hz: float
    highest_rate_hz: float
    error_bits: Mapping[int, str]
    source: str

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
    wire="RS-485, private frame",
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
    source="RH56DFTP user manual V1.0.0, RH56 R1 manual V1.0.0, and drivers that agree with them",
)

HANDS: Mapping[str, HandSpec] = MappingProxyType({spec.name: spec for spec in (INSPIRE_RH56,)})


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
