"""PSYONIC Ability Hand over UART or RS-485 (extended API) as pure functions.

Joints are index, middle, ring, pinky, thumb flexor, thumb rotator; 0 degrees is open, closing is positive except for
the thumb rotator, which closes towards negative angles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from beingh0_edge.errors import PacketError
from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.codec_checks import as_bytes, whole, wholes

JOINTS = 6
COUNTS_PER_DEGREE = 32767 / 150
COUNTS_PER_DEGREE_PER_S = 32767 / 3000
COUNTS_PER_AMPERE = 620.606  # depends on the hardware; the hand tells its own over Bluetooth
DUTY_COUNTS = 3546  # of 100 percent
_MOST = 32767

TouchOrder = Literal["low_nibble_first", "high_nibble_first"]


@dataclass(frozen=True)
class AbilityReply:
    """A sound reply. Variant 1 has currents and touch, 2 velocities and touch, 3 currents and velocities."""

    header: int
    variant: int
    position_counts: tuple[int, ...]
    current_counts: tuple[int, ...] | None
    velocity_counts: tuple[int, ...] | None
    touch: tuple[int, ...] | None  # 30 values of 12 bits, six per finger
    status: int

    @property
    def position_deg(self) -> tuple[float, ...]:
        return tuple(count / COUNTS_PER_DEGREE for count in self.position_counts)

    def current_a(self, counts_per_ampere: float = COUNTS_PER_AMPERE) -> tuple[float, ...] | None:
        return self.current_counts and tuple(count / counts_per_ampere for count in self.current_counts)

    def rotor_velocity_rad_s(self, scale: Literal["icd", "sdk"] = "icd") -> tuple[float, ...] | None:
        """Of the motors' rotors. The interface document says counts / 4; the vendor's libraries scale otherwise."""
        factor = {"icd": 0.25, "sdk": math.radians(1 / COUNTS_PER_DEGREE_PER_S / 4)}[scale]
        return self.velocity_counts and tuple(count * factor for count in self.velocity_counts)

    @property
    def limited(self) -> tuple[bool, ...]:
        """Motors that are limited or stalled, in joint order."""
        return tuple(bool(self.status >> joint & 1) for joint in range(JOINTS))


class AbilityHandCodec:
    """`address header payload check`, sent as `7E ... 7E` with byte stuffing unless `stuffing` is off.

    Joint commands take six values, in units or as `counts` as they travel, and ask for reply variant 1, 2 or 3.
    Units become counts by cutting off the fraction, as the vendor's libraries do. Whatever is not finite or out of
    range raises ValueError.

    The hand leaves the API after 300 ms without a valid frame, and may then move on its own.
    """

    name = "ability_hand"

    def position(self, degrees: Sequence[float] | None = None, *, counts: Sequence[int] | None = None,
                 reply_variant: int = 1, device_id: int = 0x50, stuffing: bool = True) -> bytes:
        """Position targets, -150 to 150 degrees or -32767 to 32767 counts."""
        values = _counts("degrees", degrees, counts, COUNTS_PER_DEGREE, 150.0, _MOST)
        return _joints(0x10, values, reply_variant, device_id, stuffing)

    def velocity(self, degrees_per_s: Sequence[float] | None = None, *, counts: Sequence[int] | None = None,
                 reply_variant: int = 1, device_id: int = 0x50, stuffing: bool = True) -> bytes:
        """Velocity targets, -3000 to 3000 degrees per second or -32767 to 32767 counts."""
        values = _counts("degrees_per_s", degrees_per_s, counts, COUNTS_PER_DEGREE_PER_S, 3000.0, _MOST)
        return _joints(0x20, values, reply_variant, device_id, stuffing)

    def current(self, amperes: Sequence[float] | None = None, *, counts: Sequence[int] | None = None,
                counts_per_ampere: float = COUNTS_PER_AMPERE, reply_variant: int = 1, device_id: int = 0x50,
                stuffing: bool = True) -> bytes:
        """Current (torque) targets, as far as they fit -32767 to 32767 counts."""
        if not (math.isfinite(counts_per_ampere) and counts_per_ampere > 0):
            raise ValueError(f"counts_per_ampere: expected a positive number, got {counts_per_ampere}")
        values = _counts("amperes", amperes, counts, counts_per_ampere, _MOST / counts_per_ampere, _MOST)
        return _joints(0x30, values, reply_variant, device_id, stuffing)

    def duty(self, percent: Sequence[float] | None = None, *, counts: Sequence[int] | None = None,
             reply_variant: int = 1, device_id: int = 0x50, stuffing: bool = True) -> bytes:
        """Motor voltage, -100 to 100 percent or -3546 to 3546 counts."""
        values = _counts("percent", percent, counts, DUTY_COUNTS / 100, 100.0, DUTY_COUNTS)
        return _joints(0x40, values, reply_variant, device_id, stuffing)

    def read_only(self, *, reply_variant: int = 1, device_id: int = 0x50, stuffing: bool = True) -> bytes:
        """Asks for a reply without commanding anything."""
        return _bytes(0xA0 + _variant(reply_variant), b"", device_id, stuffing)

    def thumb_upsampling(self, enabled: bool, *, device_id: int = 0x50, stuffing: bool = True) -> bytes:
        """Turns the interpolation of thumb rotator targets on or off."""
        return _bytes(0xC2 if enabled else 0xC3, b"", device_id, stuffing)

    def exit_api(self, *, device_id: int = 0x50, stuffing: bool = True) -> bytes:
        """Leaves the API mode."""
        return _bytes(0x7C, b"", device_id, stuffing)

    def grip(self, grip: int, speed: int = 0xFF, *, device_id: int = 0x50, stuffing: bool = True) -> bytes:
        """Closes into a stored grip at a speed of 0 to 255."""
        payload = bytes([whole("grip", grip, 0, 255), whole("speed", speed, 0, 255)])
        return _bytes(0x1D, payload, device_id, stuffing)

    def write_register(self, address: int, value: int, *, device_id: int = 0x50, stuffing: bool = True) -> bytes:
        """Writes an int32 register of the hand."""
        return _bytes(0xDE, _int32("address", address) + _int32("value", value), device_id, stuffing)

    def read_register(self, address: int, *, device_id: int = 0x50, stuffing: bool = True) -> bytes:
        """Asks for an int32 register of the hand."""
        return _bytes(0xDA, _int32("address", address), device_id, stuffing)

    def parse(self, frame: bytes, *, stuffing: bool = True,
              touch_order: TouchOrder = "low_nibble_first") -> AbilityReply:
        """One whole reply to a joint command or `read_only`. Raises PacketError saying what is damaged.

        `touch_order` says which half of a byte that two touch values share belongs to the earlier one; the vendor's
        libraries and the text of its interface document disagree.
        """
        if touch_order not in ("low_nibble_first", "high_nibble_first"):
            raise ValueError(f"touch_order: expected low_nibble_first or high_nibble_first, got {touch_order!r}")
        try:
            high_first = touch_order == "high_nibble_first"
            return AbilityReply(*_bridge.ability_parse(as_bytes("frame", frame), stuffing, high_first))
        except ValueError as problem:
            raise PacketError(f"{self.name}: {problem}", self.name) from None


def _counts(name: str, values: Sequence[float] | None, counts: Sequence[int] | None, counts_per_unit: float,
            most: float, most_counts: int) -> tuple[int, ...]:
    if values is None:
        if counts is None:
            raise ValueError(f"expected {name} or counts, got neither")
        return wholes("counts", counts, JOINTS, -most_counts, most_counts)
    if counts is not None:
        raise ValueError(f"expected {name} or counts, got both")
    if len(values) != JOINTS:
        raise ValueError(f"{name}: expected {JOINTS} values, got {len(values)}")
    for i, value in enumerate(values):
        if not -most <= value <= most:  # NaN is not either
            raise ValueError(f"{name}[{i}]: expected {-most:g} to {most:g}, got {value}")
    return tuple(int(value * counts_per_unit) for value in values)


def _variant(reply_variant: int) -> int:
    return whole("reply_variant", reply_variant, 1, 3) - 1


def _joints(header: int, counts: tuple[int, ...], reply_variant: int, device_id: int, stuffing: bool) -> bytes:
    device_id = whole("device_id", device_id, 0, 255)
    return _bridge.ability_encode_joints(device_id, header + _variant(reply_variant), counts, stuffing)


def _bytes(header: int, payload: bytes, device_id: int, stuffing: bool) -> bytes:
    return _bridge.ability_encode(whole("device_id", device_id, 0, 255), header, payload, stuffing)


def _int32(name: str, value: int) -> bytes:
    return whole(name, value, -(1 << 31), (1 << 31) - 1).to_bytes(4, "little", signed=True)
