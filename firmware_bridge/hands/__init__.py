"""The hands the bridge drives: one row per hand, all its numbers in one place, with their source."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from beingh0_edge.firmware_bridge.hands import ability, allegro, brainco, inspire, leap, linkerhand, rohand
from beingh0_edge.firmware_bridge.hands.spec import (
    Connection,
    HandSpec,
    Joint,
    Option,
    Options,
    OptionValue,
    check_side,
)

__all__ = ["HANDS", "Connection", "HandSpec", "Joint", "Option", "OptionValue", "Options", "check_side", "hand_spec"]

_ROWS = (inspire, leap, linkerhand, rohand, brainco, ability, allegro)

HANDS: Mapping[str, HandSpec] = MappingProxyType({spec.name: spec for rows in _ROWS for spec in rows.HANDS})


def hand_spec(name: str) -> HandSpec:
    """The description of a hand. Raises ValueError naming the known ones."""
    if name not in HANDS:
        raise ValueError(f"unknown hand {name!r}; known: {', '.join(sorted(HANDS))}")
    return HANDS[name]
