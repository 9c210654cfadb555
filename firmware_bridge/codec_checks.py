"""Argument checks the codecs share: a wrong argument is a ValueError that says what was got and expected."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

# Registers of an Inspire hand that hold one byte; all others are 16-bit words. ERROR, STATUS and TEMP have one byte per
# finger, and the action sequences' index, save and run lie side by side.
INSPIRE_BYTE_REGISTERS = frozenset({1000, 1002, 1004, 1005, 1006, 1008, 1009, *range(1606, 1624), *range(1700, 1704),
                                    2320, 2321, 2322})


def inspire_values(address: int, data: bytes) -> npt.NDArray[np.int16]:
    """int16[n]: what `data` from `address` on hold, a byte or a little-endian word each.

    Raises ValueError if they are both, or no whole words.
    """
    single = [address + i in INSPIRE_BYTE_REGISTERS for i in range(len(data))]
    if all(single):
        return np.frombuffer(data, dtype=np.uint8).astype(np.int16)
    if any(single):
        raise ValueError(f"{len(data)} bytes from {address} on are words and single bytes: take them from `data`")
    if len(data) % 2:
        raise ValueError(f"{len(data)} bytes are not whole 16-bit words")
    return np.frombuffer(data, dtype="<i2").astype(np.int16)


def is_bytes(values: object) -> TypeGuard[bytes | bytearray | memoryview]:
    return isinstance(values, (bytes, bytearray, memoryview))


def as_bytes(name: str, data: object) -> bytes:
    """Bytes of anything that holds some: also of a sequence or array of integers 0 to 255, one byte each.

    Raises TypeError for what holds none, such as a number or a text.
    """
    if is_bytes(data):
        return bytes(data)
    if isinstance(data, str) or not isinstance(data, Iterable):
        raise TypeError(f"{name}: expected bytes, got {type(data).__name__}")
    numbers = tuple(data)
    return bytes(wholes(name, numbers, len(numbers), 0, 255))


def as_list(values: int | Iterable[int]) -> list[int]:
    """Integers to write: one alone is a list of one."""
    return list(values) if isinstance(values, Iterable) else [values]


def whole(name: str, value: int, lowest: int, highest: int) -> int:
    """`value` as an int in [lowest, highest]. Raises ValueError; TypeError if it is no integer."""
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name}: expected an integer, got {value!r}")
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
    if isinstance(frame, (tuple, list)):
        if data is not None:
            raise TypeError("expected (CAN id, data) or CAN id and data, got both")
        can_id, data = frame
    else:
        can_id = frame
    if data is None:
        raise TypeError("expected (CAN id, data) or CAN id and data, got the id alone")
    return whole("CAN id", can_id, 0, 0xFFFFFFFF), as_bytes("data", data)
