"""A simulated Inspire RH56 (map A), written from the manual: registers, motion, force, heat, error rules.

Options: device_id, latency_s, object (fingers meet something at this angle register value), stuck (joint
name), hot (joint name), pose (six comma-separated register values to start with), map (B: a hand of
another family, which knows nothing at map A's addresses).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

JOINTS = ("little", "ring", "middle", "index", "thumb_bend", "thumb_rotation")

_FULL_STROKE_S = 0.8        # at SPEED_SET 1000
_SPEED_UP_S = 0.05
_LATENCY_S = 0.066          # from command to motion
_AMBIENT_C = 30.0
_TOO_HOT_C = 85.0
_COOL_AGAIN_C = 70.0
_HEAT_C_PER_A2S = 1.5
_COOLING_S = 120.0
_FREE_AIR_FORCE_G = 210     # what the sensors read before FORCE_CLB
_FORCE_PER_COUNT_G = 12.0   # closing against something stiff
_STALL_S = 0.5

_STALL, _HOT = 0x01, 0x02
_OPENING, _CLOSING, _REACHED, _FORCE_REACHED, _STALLED, _FAULTED = 0, 1, 2, 3, 6, 7

# address -> (bytes, writable); everything else is a gap
_MAP: dict[int, tuple[int, bool]] = {
    1000: (1, True), 1002: (1, True), 1004: (1, True), 1005: (1, True), 1006: (1, True), 1008: (1, True),
    1009: (1, True), 1020: (12, True), 1032: (12, True), 1044: (12, True), 1472: (2, False), 1474: (12, True),
    1486: (12, True), 1498: (12, True), 1522: (12, True), 1534: (12, False), 1546: (12, False),
    1582: (12, False), 1594: (12, False), 1606: (6, False), 1612: (6, False), 1618: (6, False),
}
_WRITABLE = frozenset(a + i for a, (n, writable) in _MAP.items() if writable for i in range(n))
_OPTIONS = ("device_id", "latency_s", "object", "stuck", "hot", "pose", "map")


class InspireRh56:
    """Registers and joints, whatever the wire; time passes only as `now_s` says."""

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        self._memory = bytearray(6000)
        self._now_s: float | None = None
        self._latency_s = _LATENCY_S
        self._foreign = False
        self._obstacle: float | None = None
        self._stuck: set[int] = set()
        self._heated: set[int] = set()
        self._angle = [1000.0] * 6
        self._speed = [0.0] * 6
        self._force_g = [0.0] * 6
        self._force_zeroed = False
        self._temperature_c = [_AMBIENT_C] * 6
        self._current_a = [0.05] * 6
        self._pushing_s = [0.0] * 6
        self._error = [0] * 6
        self._status = [_REACHED] * 6
        self._target = [1000] * 6
        self._coming: list[tuple[float, list[int]]] = []
        self._memory[1000] = 1
        for address, number in ((1020, 1500), (1032, 1000), (1044, 500), (1498, 500), (1522, 1000)):
            struct.pack_into("<6h", self._memory, address, *[number] * 6)
        struct.pack_into("<h", self._memory, 1472, 24000)
        for name, value in (options or {}).items():
            self.set(name, value)
        struct.pack_into("<6h", self._memory, 1486, *self._target)
        self._publish()

    def set(self, name: str, value: str) -> None:
        """Changes an option. Raises ValueError naming the known ones."""
        try:
            if name == "device_id":
                self._memory[1000] = int(value)
            elif name == "latency_s":
                self._latency_s = float(value)
            elif name == "object":
                self._obstacle = None if value in ("", "none") else float(value)
            elif name == "stuck":
                self._stuck = {JOINTS.index(j) for j in value.split(",") if j}
            elif name == "hot":
                self._heated = {JOINTS.index(j) for j in value.split(",") if j}
            elif name == "pose":
                pose = [int(v) for v in value.split(",")]
                if len(pose) != 6 or min(pose) < 0 or max(pose) > 1000:
                    raise ValueError("expected six values from 0 to 1000")
                self._angle = [float(v) for v in pose]
                self._target = pose
            elif name == "map":
                if value not in ("A", "B"):
                    raise ValueError("expected A or B")
                self._foreign = value == "B"
            else:
                raise ValueError(f"unknown option; known: {', '.join(_OPTIONS)}")
        except ValueError as error:
            raise ValueError(f"sim:inspire_rh56: {name}={value}: {error}") from None

    # -- registers

    @property
    def device_id(self) -> int:
        return self._memory[1000]

    def read(self, address: int, count: int, now_s: float) -> bytes | None:
        """`count` bytes from `address` on, None past the end of the memory."""
        self.advance(now_s)
        if count < 1 or address + count > len(self._memory):
            return None
        return bytes(count) if self._foreign else bytes(self._memory[address: address + count])

    def write(self, address: int, payload: bytes, now_s: float) -> bool:
        """Writes bytes; False if a register there cannot be written."""
        self.advance(now_s)
        if not payload or any(address + i not in _WRITABLE for i in range(len(payload))):
            return False
        if address == 1004 and payload[0] == 1:
            self._error = [bits & _HOT for bits in self._error]  # heat clears itself
            self._pushing_s = [0.0] * 6
        elif address == 1009 and payload[0] == 1:
            self._force_zeroed = True
        self._memory[address: address + len(payload)] = payload
        if 1486 <= address < 1498:
            words = struct.unpack_from("<6h", self._memory, 1486)
            previous = self._coming[-1][1] if self._coming else self._target
            wanted = [previous[j] if word == -1 else max(0, min(1000, word)) for j, word in enumerate(words)]
            self._coming.append((now_s + self._latency_s, wanted))
        self._publish()
        return True

    # -- the hand

    def advance(self, now_s: float) -> None:
        """Lets the joints move until `now_s`."""
        if self._now_s is None:
            self._now_s = now_s
        while self._now_s < now_s - 1e-9:
            step = min(0.005, now_s - self._now_s)
            self._now_s += step
            while self._coming and self._coming[0][0] <= self._now_s:
                self._target = self._coming.pop(0)[1]
            for joint in range(6):
                self._move(joint, step)
        self._publish()

    def _move(self, joint: int, step: float) -> None:
        speed_set = struct.unpack_from("<6h", self._memory, 1522)[joint]
        force_set = struct.unpack_from("<6h", self._memory, 1498)[joint]
        top = speed_set / 1000 * 1000 / _FULL_STROKE_S
        gap = self._target[joint] - self._angle[joint]
        working = not self._error[joint]
        wanted = max(-top, min(top, gap / step)) if working else 0.0
        change = top / _SPEED_UP_S * step + 1e-12
        braking = abs(wanted) < abs(self._speed[joint])
        limit = abs(self._speed[joint]) if braking else change
        self._speed[joint] += max(-max(limit, change), min(max(limit, change), wanted - self._speed[joint]))
        goal = self._angle[joint] + self._speed[joint] * step

        blocked = joint in self._stuck and abs(gap) > 1.0
        force = 0.0
        if joint in self._stuck:
            goal = self._angle[joint]
        # An object is between fingers and palm; the thumb's rotation passes it by.
        if self._obstacle is not None and joint != 5 and goal < self._obstacle:
            force = (self._obstacle - self._target[joint]) * _FORCE_PER_COUNT_G
            goal = max(goal, min(self._angle[joint], self._obstacle)) if force > 0 else goal
        force_reached = force >= force_set > 0
        self._force_g[joint] = min(force, float(force_set))
        if goal == self._angle[joint]:
            self._speed[joint] = 0.0
        moving = abs(goal - self._angle[joint]) > 0.05
        self._angle[joint] = max(0.0, min(1000.0, goal))

        self._pushing_s[joint] = self._pushing_s[joint] + step if blocked and working else 0.0
        if self._pushing_s[joint] > _STALL_S:
            self._error[joint] |= _STALL
        self._current_a[joint] = 0.9 if (blocked or force_reached) and working else 0.35 if moving else 0.05
        heat = 40.0 if joint in self._heated else 0.0
        self._temperature_c[joint] += step * (
            _HEAT_C_PER_A2S * self._current_a[joint] ** 2 + heat
            - (self._temperature_c[joint] - _AMBIENT_C) / _COOLING_S
        )
        self._temperature_c[joint] = min(100.0, self._temperature_c[joint])
        if self._temperature_c[joint] > _TOO_HOT_C:
            self._error[joint] |= _HOT
        elif self._temperature_c[joint] < _COOL_AGAIN_C:
            self._error[joint] &= ~_HOT
        self._status[joint] = (
            _STALLED if self._error[joint] & _STALL
            else _FAULTED if self._error[joint]
            else _FORCE_REACHED if force_reached
            else (_OPENING if self._speed[joint] > 0 else _CLOSING) if moving
            else _REACHED
        )

    def _publish(self) -> None:
        angles = [round(a) for a in self._angle]
        bias = 0 if self._force_zeroed else _FREE_AIR_FORCE_G
        struct.pack_into("<6h", self._memory, 1534, *[2000 - 2 * a for a in angles])
        struct.pack_into("<6h", self._memory, 1546, *angles)
        struct.pack_into("<6h", self._memory, 1582, *[round(f) + bias for f in self._force_g])
        struct.pack_into("<6h", self._memory, 1594, *[round(1000 * c) for c in self._current_a])
        self._memory[1606:1612] = bytes(self._error)
        self._memory[1612:1618] = bytes(self._status)
        self._memory[1618:1624] = bytes(round(t) for t in self._temperature_c)
