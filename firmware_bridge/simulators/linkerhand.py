"""Simulated LinkerHands O6, L6, L7, L10 and L20 on CAN, written from the notes on the maker's own library.

One standard id for both directions, 0x27 right and 0x28 left. Byte 0 is a tag: alone it asks, with values it sets and
is answered by the same tag and the present values; with 0x10 added a set is not answered. Frames with a wrong number of
values, and tags that the model does not know, are met with silence.

Options: side (right or left), model (another hand than the name says), silent_version=1 (does not say who it is), and
those of `joints`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from beingh0_edge.firmware_bridge.simulators.joints import OPTIONS, Joints
from beingh0_edge.firmware_bridge.simulators.slcan import Frame, Node

_FINGERS = ("thumb", "index", "middle", "ring", "little")
_SIX = ("thumb_pitch", "thumb_yaw", "index", "middle", "ring", "little")
_FULL_STROKE_S = 0.6
_TOO_HOT_C = 85
_OK, _OVER_CURRENT, _OVER_TEMPERATURE = 0, 1, 2
_VERSION = 0x64
_NO_REPLY = 0x10


@dataclass(frozen=True)
class _Model:
    joints: tuple[str, ...]
    positions: dict[int, tuple[int, int]]     # tag -> (first joint, how many)
    torques: dict[int, tuple[int, int]]
    speeds: dict[int, tuple[int, int]]
    temperatures: dict[int, tuple[int, int]]
    faults: dict[int, tuple[int, int]]
    silent: frozenset[int]                    # tags that have a no-reply form
    clears_faults: bool = False


def _six(joints: tuple[str, ...]) -> _Model:
    whole = (0, len(joints))
    return _Model(joints, {0x01: whole}, {0x02: whole}, {0x05: whole}, {0x33: whole}, {0x35: whole}, frozenset())


_MODELS = {
    "o6": _six(_SIX),
    "l6": _six(_SIX),
    "l7": _six((*_SIX, "thumb_roll")),
    "l10": _Model(
        (*_SIX, "index_roll", "ring_roll", "little_roll", "thumb_roll"),
        {0x01: (0, 6), 0x04: (6, 4)}, {0x02: (0, 5), 0x03: (5, 5)}, {0x05: (0, 5), 0x06: (5, 5)},
        {0x33: (0, 5), 0x34: (5, 5)}, {0x35: (0, 5), 0x36: (5, 5)}, frozenset({0x01, 0x02}),
    ),
    "l20": _Model(
        tuple(f"{finger}_{part}" for part in ("base", "yaw", "roll", "tip") for finger in _FINGERS),
        {0x01: (0, 5), 0x02: (5, 5), 0x03: (10, 5), 0x04: (15, 5)}, {}, {0x05: (0, 5)},
        {0x09: (0, 5), 0x0B: (5, 5), 0x0C: (10, 5), 0x0D: (15, 5)}, {0x07: (0, 5)},
        frozenset({0x01, 0x02, 0x03, 0x04}), clears_faults=True,
    ),
}


class LinkerHand(Node):
    """255 is extended, 0 bent."""

    def __init__(self, model: str, options: Mapping[str, str] | None = None) -> None:
        self._name = model
        self._id = 0x27
        self._silent_version = False
        self._be(model)
        for name, value in (options or {}).items():
            self.set(name, value)

    def _be(self, model: str) -> None:
        self._answers_as = model
        self._model = _MODELS[model]
        self._torque = [255] * len(self._model.joints)
        self._latched = [_OK] * len(self._model.joints)
        self.joints = Joints(self._model.joints, _FULL_STROKE_S)

    def set(self, name: str, value: str) -> None:
        """Changes an option. Raises ValueError naming the known ones."""
        try:
            if name == "side":
                if value not in ("left", "right"):
                    raise ValueError("expected left or right")
                self._id = 0x27 if value == "right" else 0x28
            elif name == "model":
                if value not in _MODELS:
                    raise ValueError(f"known: {', '.join(_MODELS)}")
                self._be(value)
            elif name == "silent_version":
                self._silent_version = value not in ("", "0")
            elif name in OPTIONS:
                self.joints.set(name, value)
            else:
                raise ValueError(f"unknown option; known: side, model, silent_version, {', '.join(OPTIONS)}")
        except ValueError as error:
            raise ValueError(f"sim:linkerhand_{self._name}: {name}={value}: {error}") from None

    def frame(self, frame: Frame, now_s: float) -> list[Frame]:
        if frame.can_id != self._id or frame.extended or frame.remote or frame.fd or not frame.data:
            return []
        self.joints.advance(now_s)
        tag, values = frame.data[0], frame.data[1:]
        answered = True
        if values and tag & _NO_REPLY and tag & ~_NO_REPLY in self._model.silent:
            tag, answered = tag & ~_NO_REPLY, False
        if values and not self._take(tag, values, now_s):
            return []
        if not answered:
            return []
        present = self._present(tag)
        return [] if present is None else [Frame(self._id, bytes([tag]) + present)]

    def _take(self, tag: int, values: bytes, now_s: float) -> bool:
        """Sets; False if there is nothing to set, or another number of it."""
        for table, apply in ((self._model.positions, self._move), (self._model.torques, self._limit),
                             (self._model.speeds, self._slow)):
            if tag in table and len(values) == table[tag][1]:
                apply(table[tag][0], values, now_s)
                return True
        if tag in self._model.faults and self._model.clears_faults and values == b"\x01" * 5:
            self._latched = [_OK] * len(self._model.joints)
            self.joints.clear_stall()
            return True
        return False

    def _move(self, first: int, values: bytes, now_s: float) -> None:
        targets: list[float | None] = [None] * len(self._model.joints)
        for i, value in enumerate(values):
            targets[first + i] = 1.0 - value / 255
        self.joints.command(targets, now_s)

    def _limit(self, first: int, values: bytes, now_s: float) -> None:
        self._torque[first: first + len(values)] = list(values)

    def _slow(self, first: int, values: bytes, now_s: float) -> None:
        # A model with fewer speeds than joints has one per finger.
        per_finger = len(self._model.speeds) * len(values) < len(self._model.joints)
        for i, value in enumerate(values):
            for joint in range(first + i, len(self._model.joints), 5 if per_finger else len(self._model.joints)):
                self.joints.speed_share[joint] = max(value, 1) / 255

    def _present(self, tag: int) -> bytes | None:
        model = self._model
        if tag in model.positions:
            first, count = model.positions[tag]
            return bytes(round(255 * (1.0 - p)) for p in self.joints.position[first: first + count])
        if tag in model.torques:
            first, count = model.torques[tag]
            return bytes(self._torque[first: first + count])
        if tag in model.speeds:
            first, count = model.speeds[tag]
            return bytes(min(255, round(255 * s)) for s in self.joints.speed_share[first: first + count])
        if tag in model.temperatures:
            first, count = model.temperatures[tag]
            return bytes(round(t) for t in self.joints.temperature_c[first: first + count])
        if tag in model.faults:
            return bytes(self._faults(*model.faults[tag]))
        if tag == _VERSION and not self._silent_version:
            degrees = 16 if self._answers_as == "l20" else len(model.joints)
            side = "R" if self._id == 0x27 else "L"
            return bytes([degrees, 1, 1, ord(side), 0x12, 0x10, 0])
        return None

    def _faults(self, first: int, count: int) -> list[int]:
        for joint, (stalled, heat) in enumerate(zip(self.joints.stalled, self.joints.temperature_c, strict=True)):
            now = _OVER_TEMPERATURE if heat > _TOO_HOT_C else _OVER_CURRENT if stalled else _OK
            # Where faults can be cleared they stay until they are; elsewhere they end with their cause.
            self._latched[joint] = max(now, self._latched[joint]) if self._model.clears_faults else now
        if not self._model.clears_faults:
            return self._latched[first: first + count]
        return [max(self._latched[finger::5]) for finger in range(count)]
