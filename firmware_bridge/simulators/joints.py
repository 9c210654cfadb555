"""Motors with a position loop of their own, as most hands have them: lag, speed, force, stall and heat.

Positions are fractions: 0 open, 1 closed. Times are what `advance` is told.

Options: stuck (joint names, comma separated: they cannot move), hot (joint names: their motors heat up), object (the
fraction closed at which joints meet something stiff), pose (one fraction per joint, where they are), latency_s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

OPTIONS = ("stuck", "hot", "object", "pose", "latency_s")

_AMBIENT_C = 30.0
_HOT_C_PER_S = 40.0
_HEAT_C_PER_A2S = 1.5
_COOLING_S = 120.0
_IDLE_A, _MOVING_A, _PUSHING_A = 0.05, 0.35, 0.9
_SPEED_UP_S = 0.05
_STALL_S = 0.4
_STEP_S = 0.005
_ARRIVED = 0.002


class Joints:
    """Reads: position, speed (fractions per second), current_a, temperature_c, stalled, moving."""

    def __init__(self, names: Sequence[str], full_stroke_s: float, latency_s: float = 0.02,
                 options: Mapping[str, str] | None = None) -> None:
        count = len(names)
        self.names = tuple(names)
        self._top_speed = 1.0 / full_stroke_s
        self._latency_s = latency_s
        self._stuck: set[int] = set()
        self._heated: set[int] = set()
        self._object: float | None = None
        self._now_s: float | None = None
        self._pushing_s = [0.0] * count
        self._coming: list[tuple[float, list[float | None]]] = []
        self.target = [0.0] * count
        self.position = [0.0] * count
        self.speed = [0.0] * count
        self.speed_share = [1.0] * count  # of the top speed
        self.current_a = [_IDLE_A] * count
        self.temperature_c = [_AMBIENT_C] * count
        self.pressing = [False] * count  # against something
        self.stalled = [False] * count
        self.moving = [False] * count
        for name, value in (options or {}).items():
            self.set(name, value)

    def set(self, name: str, value: str) -> None:
        """Changes an option. Raises ValueError."""
        if name in ("stuck", "hot"):
            wanted = [v for v in value.split(",") if v]
            if unknown := set(wanted) - set(self.names):
                raise ValueError(f"unknown joint {', '.join(sorted(unknown))}; known: {', '.join(self.names)}")
            chosen = {self.names.index(v) for v in wanted}
            if name == "stuck":
                self._stuck = chosen
            else:
                self._heated = chosen
        elif name == "object":
            self._object = None if value in ("", "none") else float(value)
        elif name == "latency_s":
            self._latency_s = float(value)
        elif name == "pose":
            pose = [float(v) for v in value.split(",")]
            if len(pose) != len(self.names) or not all(0.0 <= p <= 1.0 for p in pose):
                raise ValueError(f"expected {len(self.names)} fractions from 0 to 1")
            self.position, self.target = list(pose), list(pose)
        else:
            raise ValueError(f"unknown option; known: {', '.join(OPTIONS)}")

    def command(self, targets: Sequence[float | None], now_s: float) -> None:
        """New targets, None for joints that keep theirs; they act after the latency."""
        self.advance(now_s)
        self._coming.append((now_s + self._latency_s, [None if t is None else min(1.0, max(0.0, t)) for t in targets]))

    def clear_stall(self) -> None:
        self.stalled = [False] * len(self.names)
        self._pushing_s = [0.0] * len(self.names)

    def advance(self, now_s: float) -> None:
        """Lets the joints move until `now_s`."""
        if self._now_s is None:
            self._now_s = now_s
        while self._now_s < now_s - 1e-9:
            step = min(_STEP_S, now_s - self._now_s)
            self._now_s += step
            while self._coming and self._coming[0][0] <= self._now_s:
                for joint, target in enumerate(self._coming.pop(0)[1]):
                    self.target[joint] = self.target[joint] if target is None else target
            for joint in range(len(self.names)):
                self._move(joint, step)

    def _move(self, joint: int, step: float) -> None:
        top = self._top_speed * self.speed_share[joint]
        gap = self.target[joint] - self.position[joint]
        wanted = max(-top, min(top, gap / step))
        change = top / _SPEED_UP_S * step + 1e-12
        slower = abs(wanted) < abs(self.speed[joint])
        limit = max(change, abs(self.speed[joint])) if slower else change
        speed = self.speed[joint] + max(-limit, min(limit, wanted - self.speed[joint]))
        goal = self.position[joint] + speed * step
        if joint in self._stuck:
            goal = self.position[joint]
        elif self._object is not None and speed > 0 and goal > self._object:
            goal = max(self.position[joint], self._object)
        self.pressing[joint] = abs(gap) > _ARRIVED and abs(goal - self.position[joint]) < abs(speed * step) / 2
        self.speed[joint] = 0.0 if self.pressing[joint] else speed
        self.moving[joint] = abs(goal - self.position[joint]) > 1e-5
        self.position[joint] = min(1.0, max(0.0, goal))
        self._pushing_s[joint] = self._pushing_s[joint] + step if self.pressing[joint] else 0.0
        self.stalled[joint] = self._pushing_s[joint] > _STALL_S
        self.current_a[joint] = (_PUSHING_A if self.pressing[joint] else _MOVING_A if self.moving[joint] else _IDLE_A)
        heating = _HEAT_C_PER_A2S * self.current_a[joint] ** 2 + (_HOT_C_PER_S if joint in self._heated else 0.0)
        cooling = (self.temperature_c[joint] - _AMBIENT_C) / _COOLING_S
        self.temperature_c[joint] = min(110.0, self.temperature_c[joint] + step * (heating - cooling))
