"""Dynamixel protocol 2.0 as pure functions, and the LEAP hand, which is sixteen such servos on one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from beingh0_edge.errors import PacketError
from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.codec_checks import as_bytes, as_list, is_bytes, whole, wholes

BROADCAST_ID = 254
MOST_FRAME_BYTES = 1024
_PING, _ACTION, _REBOOT = 0x01, 0x05, 0x08

ERROR_NAMES: Mapping[int, str] = MappingProxyType({
    0: "none", 1: "result fail", 2: "instruction", 3: "crc",
    4: "data range", 5: "data length", 6: "data limit", 7: "access",
})
HARDWARE_ERROR_BITS: Mapping[int, str] = MappingProxyType(
    {0: "input voltage", 2: "overheating", 3: "encoder", 4: "electrical shock", 5: "overload"})

# Control table of the X series (XC330-M288 and its kin): address -> (name, bytes).
REGISTERS: Mapping[int, tuple[str, int]] = MappingProxyType({
    0: ("model_number", 2), 6: ("firmware_version", 1), 7: ("id", 1), 8: ("baud_code", 1),
    9: ("return_delay", 1), 10: ("drive_mode", 1), 11: ("operating_mode", 1), 12: ("shadow_id", 1),
    20: ("homing_offset", 4), 31: ("temperature_limit", 1), 32: ("max_voltage_limit", 2),
    34: ("min_voltage_limit", 2), 36: ("pwm_limit", 2), 38: ("current_limit", 2), 44: ("velocity_limit", 4),
    48: ("max_position_limit", 4), 52: ("min_position_limit", 4), 60: ("startup_configuration", 1),
    63: ("shutdown", 1), 64: ("torque_enable", 1), 68: ("status_return_level", 1),
    70: ("hardware_error_status", 1), 80: ("position_d_gain", 2), 82: ("position_i_gain", 2),
    84: ("position_p_gain", 2), 98: ("bus_watchdog", 1), 100: ("goal_pwm", 2), 102: ("goal_current", 2),
    104: ("goal_velocity", 4), 108: ("profile_acceleration", 4), 112: ("profile_velocity", 4),
    116: ("goal_position", 4), 120: ("realtime_tick", 2), 122: ("moving", 1), 126: ("present_current", 2),
    128: ("present_velocity", 4), 132: ("present_position", 4), 144: ("present_input_voltage", 2),
    146: ("present_temperature", 1),
})
READ_ONLY = frozenset({0, 6, 70, 120, 122, 126, 128, 132, 144, 146})

Contents = int | bytes | Sequence[int]


@dataclass(frozen=True)
class StatusReply:
    """A sound status of one servo, or the joint answer (device_id 254) to a fast read, a part per servo."""

    device_id: int
    error: int  # the error byte as it came
    data: bytes
    parts: tuple[StatusReply, ...] = ()

    @property
    def alert(self) -> bool:
        """The servo has a hardware error: read register 70, see HARDWARE_ERROR_BITS."""
        return bool(self.error & 0x80)

    @property
    def error_number(self) -> int:
        return self.error & 0x7F

    @property
    def error_name(self) -> str:
        """What went wrong with the request; "none" if nothing did."""
        return ERROR_NAMES.get(self.error_number, f"unknown error {self.error_number}")

    @property
    def signed(self) -> int:
        """The data as one little-endian two's complement integer."""
        return int.from_bytes(self.data, "little", signed=True)

    @property
    def unsigned(self) -> int:
        """The data as one little-endian integer."""
        return int.from_bytes(self.data, "little")


class DynamixelCodec:
    """Dynamixel protocol 2.0: `FF FF FD 00 id length instruction parameters crc`, with byte stuffing.

    Register contents are bytes as they are, an integer as wide as its register (-1 and 0xFFFFFFFF are the
    same four bytes), or integers for consecutive registers. Integers need addresses of REGISTERS that can be
    written. Everything that does not fit raises ValueError.
    """

    name = "dynamixel"

    def ping(self, device_id: int = 1) -> bytes:
        """Asks one servo (1 is the factory's id), or all of them (254), for model number and firmware version."""
        return _bridge.dynamixel_plain(_addressed(device_id), _PING)

    def read(self, address: int, count: int, device_id: int = 1) -> bytes:
        """Asks one servo for `count` bytes from `address` on."""
        return _bridge.dynamixel_read(_servo(device_id), _address(address), _count(count))

    def write(self, address: int, values: Contents, device_id: int = 1) -> bytes:
        """Writes registers from `address` on, of one servo or of all (254, unanswered)."""
        payload = _payload(_address(address), values)
        return _bridge.dynamixel_write(_addressed(device_id), address, payload, False)

    def reg_write(self, address: int, values: Contents, device_id: int) -> bytes:
        """As `write`, but the servo waits for `action`."""
        payload = _payload(_address(address), values)
        return _bridge.dynamixel_write(_addressed(device_id), address, payload, True)

    def action(self, device_id: int = BROADCAST_ID) -> bytes:
        """Carries out what `reg_write` prepared."""
        return _bridge.dynamixel_plain(_addressed(device_id), _ACTION)

    def reboot(self, device_id: int) -> bytes:
        """Restarts a servo: the way out of a latched shutdown. Its RAM registers fall back to defaults."""
        return _bridge.dynamixel_plain(_addressed(device_id), _REBOOT)

    def sync_read(self, address: int, count: int, device_ids: Sequence[int]) -> bytes:
        """Asks several servos for the same registers; each answers with its own status, in this order."""
        return _bridge.dynamixel_sync_read(_address(address), _count(count), _servos(device_ids), False)

    def fast_sync_read(self, address: int, count: int, device_ids: Sequence[int]) -> bytes:
        """As `sync_read`, but the servos join their answers into one status with id 254."""
        return _bridge.dynamixel_sync_read(_address(address), _count(count), _servos(device_ids), True)

    def sync_write(self, address: int, values: Mapping[int, Contents] | Sequence[tuple[int, Contents]]) -> bytes:
        """Writes the same registers of several servos at once: {device id: contents}, or such pairs. Nobody answers."""
        pairs = list(values.items() if isinstance(values, Mapping) else values)
        ids = _servos([device_id for device_id, _ in pairs])
        payloads = [_payload(_address(address), contents) for _, contents in pairs]
        lengths = sorted({len(payload) for payload in payloads})
        if len(lengths) > 1:
            raise ValueError(f"values: expected the same number of bytes for each id, got {lengths}")
        return _bridge.dynamixel_sync_write(address, ids, b"".join(payloads))

    def bulk_read(self, reads: Sequence[tuple[int, int, int]], *, fast: bool = False) -> bytes:
        """Asks several servos for registers of their own each: (device id, address, count)."""
        _servos([device_id for device_id, _, _ in reads])
        checked = [(device_id, _address(address), _count(count)) for device_id, address, count in reads]
        return _bridge.dynamixel_bulk_read(checked, fast)

    def bulk_write(self, writes: Sequence[tuple[int, int, Contents]]) -> bytes:
        """Writes registers of its own for each servo: (device id, address, contents)."""
        _servos([device_id for device_id, _, _ in writes])
        return _bridge.dynamixel_bulk_write(
            [(device_id, address, _payload(_address(address), values))
             for device_id, address, values in writes])

    def parse(self, frame: bytes, count: int | None = None) -> StatusReply:
        """One whole status.

        The joint answer to a fast sync read (id 254) is split into `parts` of `count` data bytes each.
        Without `count` it is split only if the crc after each part proves the split, which takes two servos
        or more; otherwise `parts` is empty. Raises PacketError saying what is damaged.
        """
        frame = as_bytes("frame", frame)
        try:
            device_id, error, data = _bridge.dynamixel_parse(frame)
        except ValueError as problem:
            raise PacketError(f"{self.name}: {problem}", self.name) from None
        if device_id != BROADCAST_ID:
            return StatusReply(device_id, error, data)
        shares = len(data) + 2  # the last crc has been taken off
        if count is None:
            possible = range(shares // 5, 1, -1)
            servos = next((n for n in possible if _bridge.dynamixel_inner_crcs_hold(frame, n)), 0)
            if servos == 0:
                return StatusReply(device_id, error, data)
            count = shares // servos - 4
        elif shares % (_count(count) + 4):
            raise PacketError(
                f"{self.name}: joint answer: expected parts of {count} + 4 bytes, got {shares} bytes",
                self.name)
        parts = tuple(StatusReply(data[at + 1], data[at], data[at + 2:at + 2 + count])
                      for at in range(0, shares, count + 4))
        ids = [part.device_id for part in parts]
        if max(ids) > 252 or len(set(ids)) < len(ids):
            raise PacketError(f"{self.name}: joint answer: expected ids, each once, got {ids}", self.name)
        return StatusReply(device_id, error, data, parts)


class LeapCodec(DynamixelCodec):
    """The LEAP hand: servos 0 to 15, index, middle, ring, thumb; within a finger side, forward, PIP, DIP.

    4096 ticks are a turn, the flat open hand is tick 2048 on every joint and closing counts up.
    """

    name = "leap"
    SERVOS = tuple(range(16))
    CURRENT_BASED_POSITION = 5
    MOST_CURRENT_MILLIAMPS = 2352

    def operating_mode(self, mode: int = CURRENT_BASED_POSITION) -> bytes:
        """Sets the mode of all joints; servos refuse it (access error) while torque is on.

        0 current, 1 velocity, 3 position, 4 extended position, 5 current-based position, 16 PWM.
        """
        if mode not in (0, 1, 3, 4, 5, 16):
            raise ValueError(f"mode: expected 0, 1, 3, 4, 5 or 16, got {mode}")
        return self.sync_write(11, dict.fromkeys(self.SERVOS, mode))

    def torque_enable(self, enabled: bool) -> bytes:
        """Turns torque of all joints on or off."""
        return self.sync_write(64, dict.fromkeys(self.SERVOS, int(enabled)))

    def goal_position(self, ticks: Sequence[int]) -> bytes:
        """Sets the goals of all joints: 16 ticks, 0 to 4095."""
        return self.sync_write(116, dict(enumerate(wholes("ticks", ticks, 16, 0, 4095))))

    def goal_current(self, milliamps: Sequence[int]) -> bytes:
        """Bounds the current of all joints in current-based position mode: 16 values, 0 to 2352 mA."""
        checked = wholes("milliamps", milliamps, 16, 0, self.MOST_CURRENT_MILLIAMPS)
        return self.sync_write(102, dict(enumerate(checked)))

    def read_state(self) -> bytes:
        """Asks all joints for present current, velocity and position; parse the answer with count=10.

        Each part is int16 in mA, int32 in 0.229 rpm and int32 in ticks.
        """
        return self.fast_sync_read(126, 10, self.SERVOS)


def _address(value: int) -> int:
    return whole("address", value, 0, 0xFFFF)


def _count(value: int) -> int:
    return whole("count", value, 1, MOST_FRAME_BYTES)


def _servo(value: int) -> int:
    return whole("device_id", value, 0, 252)


def _addressed(value: int) -> int:
    return value if value == BROADCAST_ID else whole("device_id (or 254 for all)", value, 0, 252)


def _servos(device_ids: Sequence[int]) -> bytes:
    ids = [_servo(device_id) for device_id in device_ids]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"device_ids: expected ids, each once, got {ids}")
    return bytes(ids)


def _payload(address: int, values: Contents) -> bytes:
    if is_bytes(values):
        payload = bytes(values)
    else:
        payload = b""
        for value in as_list(values):
            register = address + len(payload)
            if register not in REGISTERS:
                raise ValueError(f"register {register} is not in the X series table: write bytes instead")
            name, width = REGISTERS[register]
            if register in READ_ONLY:
                raise ValueError(f"register {register} ({name}) is read only")
            bits = 8 * width
            number = whole(f"register {register} ({name})", value, -(1 << bits - 1), (1 << bits) - 1)
            payload += (number % (1 << bits)).to_bytes(width, "little")
    if not payload:
        raise ValueError("values: expected at least one byte, got none")
    return payload

