"""Wonik Allegro Hand V4 and V5 over CAN as pure functions.

Sixteen joints in four fingers: index, middle, ring, thumb; within a finger spread, MCP, PIP, DIP, in the thumb CMC 1,
CMC 2, MP, IP. The hand takes torques only and keeps the last one until it gets another or its servos are switched
off: whoever drives it must close the position loop, and end with zero torque and servo_off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Literal, NamedTuple

from beingh0_edge.errors import PacketError
from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.codec_checks import CanFrame, can_frame, whole, wholes

FINGERS = ("index", "middle", "ring", "thumb")
Finger = Literal[1, 2, 3, 4, "index", "middle", "ring", "thumb"]

ERROR_BITS: Mapping[int, str] = MappingProxyType(
    {0: "input voltage", 2: "overheating", 4: "electrical shock or low power", 5: "overload"})
STATUS_BITS: Mapping[int, str] = MappingProxyType(
    {0: "servo on", 1: "over-temperature", 2: "internal communication"})  # V4

# V4: the vendor's bounds of PWM in a finger, spread to tip, within the 1200 that a hand on 12 V takes at all.
V4_FINGER_PWM = (375, 675, 450, 285)
V4_THUMB_PWM = (525, 405, 270, 270)

_MESSAGES: Mapping[int, str] = MappingProxyType({
    0x20: "finger_pose", 0x30: "imu", 0x38: "temperature", 0x50: "fingertip_pressure", 0x80: "info",
    0x88: "serial", 0x92: "self_calibration_done", 0xEE: "error", 0xF0: "fingertip_pressure",
})


class RemoteFrame(tuple[int, bytes]):
    """A request without data, (CAN id, b""), that travels as a remote frame (RTR)."""

    __slots__ = ()

    def __new__(cls, frame: CanFrame) -> RemoteFrame:
        return super().__new__(cls, frame)


class AllegroInfo(NamedTuple):
    """What a hand says about itself; type, temperature and status are meaningful on V4."""

    hardware: int
    firmware: int
    type: int  # V4: 0 right, 1 left
    temperature_c: int
    status: int  # V4: STATUS_BITS


@dataclass(frozen=True)
class AllegroReply:
    """A sound frame from the hand.

    message: finger_pose (values: counts of four joints), imu (three raw numbers), temperature (V5: degrees C of four
    joints; V4: one number), fingertip_pressure (Pa of `finger` and the next one), info, serial (characters), error
    (motor, ERROR_BITS), self_calibration_done.
    """

    device_id: int
    message: str
    finger: int | None  # 1 index to 4 thumb
    values: tuple[int, ...]
    degrees_per_count: float

    @property
    def positions_rad(self) -> tuple[float, ...]:
        """Of a finger_pose. Raises PacketError if it is none."""
        self._must_be("finger_pose")
        return tuple(math.radians(count * self.degrees_per_count) for count in self.values)

    @property
    def info(self) -> AllegroInfo:
        """Raises PacketError if this is no info."""
        self._must_be("info")
        return AllegroInfo(*self.values)

    @property
    def serial(self) -> str:
        """Eight characters; on V5 the third is the hardware type A or B, the fourth R or L. Raises PacketError."""
        self._must_be("serial")
        try:
            return bytes(self.values).decode("ascii")
        except UnicodeDecodeError:
            got = bytes(self.values).hex(" ")
            raise PacketError(f"allegro: serial: expected ASCII, got {got}", "allegro") from None

    def _must_be(self, message: str) -> None:
        if self.message != message:
            raise PacketError(f"allegro: expected {message}, got {self.message}", "allegro")


class _AllegroCodec:
    """What V4 and V5 share: (CAN id, data), the id being message * 4 + device_id (0 unless configured)."""

    VERSION: ClassVar[int]
    DEGREES_PER_COUNT: ClassVar[float]
    name: ClassVar[str]

    def servo_on(self, *, device_id: int = 0) -> CanFrame:
        return _bridge.allegro_plain(_device(device_id), 0x40)

    def servo_off(self, *, device_id: int = 0) -> CanFrame:
        return _bridge.allegro_plain(_device(device_id), 0x41)

    def set_report_periods(self, position_ms: int = 3, imu_ms: int = 0, temperature_ms: int = 0, *,
                           device_id: int = 0) -> CanFrame:
        """How often the hand reports by itself while servos are on; 0 turns a report off."""
        periods = (whole("position_ms", position_ms, 0, 0x7FFF), whole("imu_ms", imu_ms, 0, 0x7FFF),
                   whole("temperature_ms", temperature_ms, 0, 0x7FFF))
        return _bridge.allegro_periods(_device(device_id), *periods)

    def request_info(self, *, device_id: int = 0) -> RemoteFrame:
        """Often left unanswered."""
        return _request(0x80, device_id)

    def request_serial(self, *, device_id: int = 0) -> RemoteFrame:
        return _request(0x88, device_id)

    def request_finger_pose(self, finger: Finger, *, device_id: int = 0) -> RemoteFrame:
        """Asks for one finger: 1 to 4 or its name."""
        return _request(0x20 + _finger(finger), device_id)

    def request_temperature(self, finger: Finger, *, device_id: int = 0) -> RemoteFrame:
        """Asks for one finger: 1 to 4 or its name."""
        return _request(0x38 + _finger(finger), device_id)

    def parse(self, frame: CanFrame | int, data: bytes | None = None, *, device_id: int | None = None) -> AllegroReply:
        """A frame from the hand, given as (CAN id, data) or as two arguments; `device_id`: the one it must have.

        CAN guards the bytes itself: what is checked is that this version sends the message, and its length. Raises
        PacketError.
        """
        can_id, payload = can_frame(frame, data)
        try:
            if isinstance(frame, RemoteFrame):
                raise ValueError(f"CAN id {can_id:03X}: a remote frame is a request")
            device, message, finger, values = _bridge.allegro_parse(self.VERSION, can_id, payload)
        except ValueError as problem:
            raise PacketError(f"{self.name}: {problem}", self.name) from None
        if device_id is not None and device != device_id:
            raise PacketError(f"{self.name}: device_id: expected {device_id}, got {device}", self.name)
        return AllegroReply(device, _MESSAGES[message], finger + 1 if finger >= 0 else None, values,
                            self.DEGREES_PER_COUNT)


class AllegroV4Codec(_AllegroCodec):
    """Allegro Hand V4: torques are PWM, a pose count is 333.3 / 65536 degrees."""

    name = "allegro_v4"
    VERSION = 4
    DEGREES_PER_COUNT = 333.3 / 65536
    MOST_PWM = 1200  # on 12 V
    PWM_PER_NM = 1200  # on 12 V; V3 on 8 V: 800

    def set_torque(self, finger: Finger, pwm: Sequence[int], *, device_id: int = 0) -> CanFrame:
        """Torques of one finger (1 to 4 or its name): four PWM values, -1200 to 1200.

        The vendor bounds each joint further: V4_FINGER_PWM, V4_THUMB_PWM.
        """
        values = wholes("pwm", pwm, 4, -self.MOST_PWM, self.MOST_PWM)
        return _bridge.allegro_finger(_device(device_id), 0x60, _finger(finger), values)

    def set_joint_pose(self, finger: Finger, counts: Sequence[int], *, device_id: int = 0) -> CanFrame:
        """A pose of one finger, in counts; in the V4 sources, no part of V5."""
        values = wholes("counts", counts, 4, -0x8000, 0x7FFF)
        return _bridge.allegro_finger(_device(device_id), 0xE0, _finger(finger), values)


class AllegroV5Codec(_AllegroCodec):
    """Allegro Hand V5: torques are motor currents in mA, a pose count is 0.088 degrees."""

    name = "allegro_v5"
    VERSION = 5
    DEGREES_PER_COUNT = 0.088
    MOST_MILLIAMPS = 240

    def set_torque(self, finger: Finger, milliamps: Sequence[int], *, device_id: int = 0) -> CanFrame:
        """Torques of one finger (1 to 4 or its name): four motor currents, -240 to 240 mA.

        Joints 1, 5 and 9 of a type B ("Plus") hand turn the same current into twice the torque.
        """
        values = wholes("milliamps", milliamps, 4, -self.MOST_MILLIAMPS, self.MOST_MILLIAMPS)
        return _bridge.allegro_finger(_device(device_id), 0x60, _finger(finger), values)

    def pick(self, *, device_id: int = 0) -> CanFrame:
        """The hand's own grasp: it moves."""
        return _bridge.allegro_plain(_device(device_id), 0x11)

    def place(self, *, device_id: int = 0) -> CanFrame:
        """The hand's own release: it moves."""
        return _bridge.allegro_plain(_device(device_id), 0x12)

    def start_self_calibration(self, *, device_id: int = 0) -> CanFrame:
        """The hand moves, then sends self_calibration_done."""
        return _bridge.allegro_plain(_device(device_id), 0x89)


def _device(device_id: int) -> int:
    return whole("device_id", device_id, 0, 3)


def _finger(finger: Finger) -> int:
    if isinstance(finger, str):
        if finger not in FINGERS:
            raise ValueError(f"finger: expected 1 to 4 or one of {', '.join(FINGERS)}, got {finger!r}")
        return FINGERS.index(finger)
    return whole("finger", finger, 1, 4) - 1


def _request(message: int, device_id: int) -> RemoteFrame:
    return RemoteFrame(_bridge.allegro_request(_device(device_id), message))
