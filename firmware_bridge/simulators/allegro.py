"""Simulated Allegro Hands V4 and V5 on CAN, written from the maker's drivers and the V5 manual.

Standard id = message << 2 | device id, values little endian. The hand knows torques only: PWM on V4, milliamperes on
V5. It keeps the last torques until it gets others or its servos are switched off, and while they are on reports the
pose of each finger at the period it was told.

Options: side, version_told=0 (answers neither info nor serial, as many do), plays (v4 or v5: the other kind answers),
hardware (A or B, V5), stuck (joint numbers), hot (joint numbers).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from beingh0_edge.firmware_bridge.simulators.slcan import Frame, Node

_SERVO_ON, _SERVO_OFF, _TORQUE, _INFO, _PERIODS, _SERIAL = 0x40, 0x41, 0x60, 0x80, 0x81, 0x88
_POSE, _TEMPERATURE, _ERROR = 0x20, 0x38, 0xEE
_JOINTS = 16
_INERTIA_KG_M2 = 1.4e-3     # with the rotor's, seen through the gear
_VISCOUS_NM_S = 0.012
_FRICTION_NM = 0.004
_STEP_S = 0.001
_RAD_PER_COUNT = {"v4": 333.3 / 65536 * 0.017453292519943295, "v5": 0.088 * 0.017453292519943295}
_NM_PER_UNIT = {"v4": 1 / 1200, "v5": 1 / 1430}
_OVERLOAD_S = 1.0
_OVERLOAD_NM = 0.05
_OVERHEATING, _OVERLOAD = 2, 5
_AMBIENT_C = 30.0
_TOO_HOT_C = 85.0
_LOW = (-0.5, -0.25, -0.25, -0.25) * 3 + (0.0, -0.15, -0.2, -0.2)
_HIGH = (0.5, 1.95, 1.8, 1.85) * 3 + (1.85, 1.9, 1.85, 1.85)
_START = (0.0,) * 12 + (0.3, 0.0, 0.0, 0.0)


class Allegro(Node):
    def __init__(self, version: str, options: Mapping[str, str] | None = None) -> None:
        self._name = f"allegro_{version}"
        self._version = version
        self._left = False
        self._tells = True
        self._hardware = "A"
        self._servos = False
        self._period_s = self._temperature_s = 0.0
        self._due_s: float | None = None
        self._temperature_due_s = 0.0
        self._now_s: float | None = None
        self._stuck: set[int] = set()
        self._heated: set[int] = set()
        self._errors: set[tuple[int, int]] = set()
        self._straining_s = [0.0] * _JOINTS
        self._torque = [0] * _JOINTS
        self.q_rad = list(_START)
        self.v_rad_s = [0.0] * _JOINTS
        self.temperature_c = [_AMBIENT_C] * _JOINTS
        for name, value in (options or {}).items():
            self.set(name, value)

    def set(self, name: str, value: str) -> None:
        """Changes an option. Raises ValueError naming the known ones."""
        try:
            if name in ("stuck", "hot"):
                chosen = {int(v) for v in value.split(",") if v}
                if not chosen <= set(range(_JOINTS)):
                    raise ValueError("expected joint numbers from 0 to 15")
                self._stuck = chosen if name == "stuck" else self._stuck
                self._heated = chosen if name == "hot" else self._heated
            elif name == "side":
                self._left = {"left": True, "right": False}[value]
            elif name == "version_told":
                self._tells = value != "0"
            elif name == "plays":
                if value not in _RAD_PER_COUNT:
                    raise ValueError("expected v4 or v5")
                self._version = value
            elif name == "hardware":
                if value not in ("A", "B"):
                    raise ValueError("expected A or B")
                self._hardware = value
            else:
                raise ValueError("unknown option; known: hardware, hot, plays, side, stuck, version_told")
        except (KeyError, ValueError) as error:
            raise ValueError(f"sim:{self._name}: {name}={value}: {error}") from None

    # -- the bus

    def frame(self, frame: Frame, now_s: float) -> list[Frame]:
        if frame.extended or frame.fd or frame.can_id & 3:
            return []
        self.advance(now_s)
        message = frame.can_id >> 2
        if frame.remote:
            return self._asked(message)
        if message in (_SERVO_ON, _SERVO_OFF) and not frame.data:
            self._servos = message == _SERVO_ON
            if not self._servos:
                self._torque = [0] * _JOINTS
                self._errors.clear()
                self._straining_s = [0.0] * _JOINTS
            self._due_s = now_s + self._period_s if self._servos and self._period_s else None
        elif message == _PERIODS and len(frame.data) == 6:
            position_ms, _, temperature_ms = struct.unpack("<3h", frame.data)
            self._period_s, self._temperature_s = position_ms / 1000, temperature_ms / 1000
            self._due_s = now_s + self._period_s if self._servos and self._period_s else None
        elif _TORQUE <= message < _TORQUE + 4 and len(frame.data) == 8:
            first = 4 * (message - _TORQUE)
            self._torque[first: first + 4] = struct.unpack("<4h", frame.data)
        return []

    def _asked(self, message: int) -> list[Frame]:
        if _POSE <= message < _POSE + 4:
            return [self._pose(message - _POSE)]
        if message == _INFO and self._tells:
            if self._version == "v4":
                hot = max(self.temperature_c)
                last = bytes([int(self._left), round(hot), int(self._servos) | (2 if hot > _TOO_HOT_C else 0)])
            else:
                last = bytes([0, 0, 1])
            return [Frame(_INFO << 2, struct.pack("<HH", 0x0400, 0x0103) + last)]
        if message == _SERIAL and self._tells:
            text = f"V5{self._hardware}{'L' if self._left else 'R'}0042" if self._version == "v5" else "SAH04042"
            return [Frame(_SERIAL << 2, text.encode())]
        return []

    def _pose(self, finger: int) -> Frame:
        counts = [round(q / _RAD_PER_COUNT[self._version]) for q in self.q_rad[4 * finger: 4 * finger + 4]]
        return Frame((_POSE + finger) << 2, struct.pack("<4h", *counts))

    def due_s(self) -> float | None:
        return self._due_s

    def speak(self, now_s: float) -> list[Frame]:
        if self._due_s is None:
            return []
        self.advance(now_s)
        self._due_s += self._period_s
        if self._due_s < now_s:  # the machine that simulates us was busy: a hand's own clock does not make up for that
            self._due_s = now_s + self._period_s
        frames = [self._pose(finger) for finger in range(4)]
        if self._temperature_s and now_s >= self._temperature_due_s:
            self._temperature_due_s = now_s + self._temperature_s
            for finger in range(4):
                hot = [round(t) for t in self.temperature_c[4 * finger: 4 * finger + 4]]
                data = bytes(hot) if self._version == "v5" else struct.pack("<i", max(hot))
                frames.append(Frame((_TEMPERATURE + finger) << 2, data))
            if self._version == "v5":
                frames += [Frame(_ERROR << 2, bytes([joint, 1 << bit])) for joint, bit in sorted(self._errors)]
        return frames

    # -- the fingers

    def advance(self, now_s: float) -> None:
        """Lets the joints move until `now_s`; there is no gravity in here."""
        if self._now_s is None:
            self._now_s = now_s
        scale = _NM_PER_UNIT[self._version]
        while self._now_s < now_s - 1e-9:
            step = min(_STEP_S, now_s - self._now_s)
            self._now_s += step
            for joint in range(_JOINTS):
                gear = 2.0 if self._version == "v5" and self._hardware == "B" and joint in (1, 5, 9) else 1.0
                self._move(joint, scale * gear * self._torque[joint] if self._servos else 0.0, step)

    def _move(self, joint: int, torque_nm: float, step: float) -> None:
        v = self.v_rad_s[joint] + step / _INERTIA_KG_M2 * (torque_nm - _VISCOUS_NM_S * self.v_rad_s[joint])
        slowing = _FRICTION_NM * step / _INERTIA_KG_M2
        v = max(0.0, v - slowing) if v > 0 else min(0.0, v + slowing)
        if joint in self._stuck:
            v = 0.0
        q = self.q_rad[joint] + v * step
        if not _LOW[joint] <= q <= _HIGH[joint]:
            q, v = min(max(q, _LOW[joint]), _HIGH[joint]), 0.0
        self.q_rad[joint], self.v_rad_s[joint] = q, v
        strained = joint in self._stuck and abs(torque_nm) > _OVERLOAD_NM
        self._straining_s[joint] = self._straining_s[joint] + step if strained else 0.0
        if self._straining_s[joint] > _OVERLOAD_S:
            self._errors.add((joint, _OVERLOAD))
        heating = 40.0 if joint in self._heated else 0.0
        cooling = (self.temperature_c[joint] - _AMBIENT_C) / 60.0
        heat_c = self.temperature_c[joint] + step * (heating + 20.0 * torque_nm ** 2 - cooling)
        self.temperature_c[joint] = min(110.0, heat_c)
        if self.temperature_c[joint] > _TOO_HOT_C:
            self._errors.add((joint, _OVERHEATING))
