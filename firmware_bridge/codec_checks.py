"""Argument checks the codecs share: a wrong argument is a ValueError that says what was got and expected."""

from __future__ import annotations

import operator
from collections.abc import Iterable

# Registers of an Inspire hand that hold one byte; all others are 16-bit words.
INSPIRE_BYTE_REGISTERS = frozenset({1000, 1002, 1004, 1005, 1006, 1008, 1009, 1700, 1701, 1702, 1703})


def whole(name: str, value: int, lowest: int, highest: int) -> int:
    """`value` as an int in [lowest, highest]. Raises ValueError; TypeError if it is no integer."""
    if isinstance(value, bool):
        raise TypeError(f"{name}: expected an integer, got {value}")
    number = operator.index(value)
    if not lowest <= number <= highest:
        raise ValueError(f"{name}: expected {lowest} to {highest}, got {number}")
    return number


def wholes(name: str, values: Iterable[int], count: int, lowest: int, highest: int) -> tuple[int, ...]:
    """Exactly `count` integers in [lowest, highest]. Raises ValueError or TypeError."""
    numbers = tuple(whole(f"{name}[{i}]", value, lowest, highest) for i, value in enumerate(values))
    if len(numbers) != count:
        raise ValueError(f"{name}: expected {count} values, got {len(numbers)}")
    return numbers


CanFrame = tuple[int, bytes]  # CAN id without flag bits, data


def can_frame(frame: CanFrame | int, data: bytes | None) -> CanFrame:
    """A received frame given as (id, data) or as two arguments. Raises ValueError or TypeError."""
    if isinstance(frame, tuple):
        if data is not None:
            raise TypeError("expected (CAN id, data) or CAN id and data, got both")
        can_id, data = frame
    else:
        can_id = frame
    if data is None:
        raise TypeError("expected (CAN id, data) or CAN id and data, got the id alone")
    return whole("CAN id", can_id, 0, 0xFFFFFFFF), bytes(data)
