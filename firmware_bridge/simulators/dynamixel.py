"""A simulated LEAP hand: sixteen XC330 servos on one line, written from the maker's manual.

Frames must be stuffed; EEPROM is locked while torque is on; an overloaded or overheated servo shuts down until it
is rebooted; the bus watchdog stops a servo that hears nothing.

Options: stuck (servo ids), overload (servo ids), hot (servo ids), missing (servo ids), old (1: no fast sync read),
model (number), object (ticks at which closing joints meet something), pushed (id:ticks, where a joint is).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from beingh0_edge.firmware_bridge.simulators.serial_line import SerialDevice
from beingh0_edge.firmware_bridge.simulators.server import Answers

SERVOS = 16
_HEAD = b"\xff\xff\xfd\x00"
_PING, _READ, _WRITE, _REBOOT = 0x01, 0x02, 0x03, 0x08
_STATUS, _SYNC_READ, _SYNC_WRITE, _FAST_SYNC_READ, _BULK_READ = 0x55, 0x82, 0x83, 0x8A, 0x92
_BROADCAST = 0xFE
_RESULT_FAIL, _INSTRUCTION, _CRC, _RANGE, _LENGTH, _ACCESS = 1, 2, 3, 4, 5, 7
_ALERT = 0x80

_TABLE_BYTES = 256
_EEPROM_END = 64
_READ_ONLY = frozenset([*range(0, 7), 70, *range(122, 150)])
_REBOOT_S = 0.4
_RETURN_DELAY_UNIT_S = 2e-6
_WATCHDOG_UNIT_S = 0.020

_MODEL, _FIRMWARE = 1240, 52
_TOP_SPEED_TICKS_S = 5000.0
_CURRENT_PER_TICK_MA = 2.0  # against something stiff
_OVERLOADED_S = 1.0
_OVERHEATED_ERROR, _OVERLOAD_ERROR = 0x04, 0x20
_SHUTDOWN_C = 70.0


def _crc_table() -> list[int]:
    table = []
    for i in range(256):
        crc = i << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x8005 if crc & 0x8000 else crc << 1) & 0xFFFF
        table.append(crc)
    return table


_CRC_TABLE = _crc_table()


def crc16(data: bytes, crc: int = 0) -> int:
    for byte in data:
        crc = (crc << 8 ^ _CRC_TABLE[crc >> 8 ^ byte]) & 0xFFFF
    return crc


def _stuffed(content: bytes) -> bytes:
    return content.replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")


def _frame(device_id: int, content: bytes) -> bytes:
    body = _stuffed(content)
    frame = _HEAD + bytes([device_id]) + struct.pack("<H", len(body) + 2) + body
    return frame + struct.pack("<H", crc16(frame))


class _Servo:
    """One control table and the joint behind it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.ticks = 2048.0
        self.temperature_c = 30.0
        self.stuck = self.overload = self.heated = False
        self.obstacle: float | None = None
        self.rebooting_until_s = -1.0
        self.table = bytearray(_TABLE_BYTES)
        self.eeprom = bytearray(_EEPROM_END)
        struct.pack_into("<H", self.eeprom, 0, _MODEL)
        self.eeprom[6] = _FIRMWARE
        self.eeprom[7] = number
        self.eeprom[8] = 1
        self.eeprom[9] = 250
        self.eeprom[11] = 3
        self.eeprom[31] = int(_SHUTDOWN_C)
        struct.pack_into("<H", self.eeprom, 38, 2352)
        struct.pack_into("<ii", self.eeprom, 48, 4095, 0)
        self.eeprom[63] = 0x34
        self.start()

    def be(self, model: int) -> None:
        """Another kind of servo."""
        struct.pack_into("<H", self.eeprom, 0, model)
        self.table[0:2] = self.eeprom[0:2]

    def start(self) -> None:
        """Power on, or after a reboot: RAM at its defaults."""
        self.table[:] = bytes(_TABLE_BYTES)
        self.table[:_EEPROM_END] = self.eeprom
        self.table[68] = 2
        struct.pack_into("<HHH", self.table, 80, 1800, 0, 400)
        struct.pack_into("<h", self.table, 102, 2352)
        struct.pack_into("<i", self.table, 116, round(self.ticks))
        self.straining_s = 0.0
        self.heard_s: float | None = None
        self.publish(0.0, 0.0)

    def publish(self, speed_ticks_s: float, current_ma: float) -> None:
        velocity = round(speed_ticks_s * 60 / 4096 / 0.229)
        struct.pack_into("<hii", self.table, 126, round(current_ma), velocity, round(self.ticks))
        self.table[146] = min(255, round(self.temperature_c))

    @property
    def torque(self) -> bool:
        return self.table[64] == 1

    @property
    def error(self) -> int:
        return _ALERT if self.table[70] else 0

    def write(self, address: int, data: bytes) -> int:
        """Writes registers; returns the error number, 0 if it was done."""
        end = address + len(data)
        if end > 147 or not data:
            return _RANGE
        if any(a in _READ_ONLY for a in range(address, end)):
            return _ACCESS
        if address < _EEPROM_END and self.torque:
            return _ACCESS
        if self.table[98] == 0xFF and end > 100 and address < 120:
            return _RANGE  # tripped watchdog: goals are read only until 0 is written to it
        if address <= 64 < end and data[64 - address] and self.table[70]:
            return _RESULT_FAIL
        if address == 116 and len(data) == 4 and not 0 <= struct.unpack("<i", data)[0] <= 4095 \
                and self.table[11] == 3:
            return _RANGE
        if address <= 102 and end >= 104:
            wanted = struct.unpack_from("<h", data, 102 - address)[0]
            if abs(wanted) > struct.unpack_from("<H", self.table, 38)[0]:
                return _RANGE
        self.table[address:end] = data
        if address < _EEPROM_END:
            self.eeprom[address:min(end, _EEPROM_END)] = data[: _EEPROM_END - address]
        return 0

    def advance(self, now_s: float, step: float) -> None:
        if now_s < self.rebooting_until_s:
            return
        if self.rebooting_until_s >= 0:
            self.rebooting_until_s = -1.0
            self.start()
        watchdog = self.table[98]
        if 0 < watchdog < 0x80 and self.heard_s is not None and now_s - self.heard_s > watchdog * _WATCHDOG_UNIT_S:
            self.table[98] = 0xFF
            struct.pack_into("<i", self.table, 116, round(self.ticks))
        goal = struct.unpack_from("<i", self.table, 116)[0]
        limit = abs(struct.unpack_from("<h", self.table, 102)[0])
        speed = current = 0.0
        if self.torque and not self.table[70]:
            gap = goal - self.ticks
            move = max(-_TOP_SPEED_TICKS_S * step, min(_TOP_SPEED_TICKS_S * step, gap * min(1.0, 25 * step)))
            reached = self.ticks + move
            if self.stuck:
                reached = self.ticks
            elif self.obstacle is not None and move > 0 and reached > self.obstacle:
                reached = max(self.ticks, self.obstacle)
            held = abs(reached - self.ticks) < abs(move) / 2 and abs(gap) > 20
            speed = (reached - self.ticks) / step
            self.ticks = reached
            pressing = min(limit, abs(gap) * _CURRENT_PER_TICK_MA)
            current = (pressing if held else min(limit, 40.0)) * (1 if gap > 0 else -1) if abs(gap) > 1 else 0.0
            self.straining_s = self.straining_s + step if held and self.overload else 0.0
            if self.straining_s > _OVERLOADED_S:
                self._shut_down(_OVERLOAD_ERROR)
        self.temperature_c += step * (40.0 * self.heated + 2.0 * (current / 1000) ** 2
                                      - (self.temperature_c - 30.0) / 60.0)
        if self.temperature_c > _SHUTDOWN_C:
            self._shut_down(_OVERHEATED_ERROR)
        self.publish(speed, current)

    def _shut_down(self, bit: int) -> None:
        self.table[70] |= bit
        self.table[64] = 0


class LeapHand(SerialDevice):
    """The line with its servos: bytes and time in, bytes out."""

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._now_s: float | None = None
        self._fast = True
        self._missing: set[int] = set()
        self.servos = [_Servo(i) for i in range(SERVOS)]
        for name, value in (options or {}).items():
            self.set(name, value)

    def set(self, name: str, value: str) -> None:
        """Changes an option. Raises ValueError naming the known ones."""
        try:
            if name in ("stuck", "overload", "hot", "missing"):
                chosen = {int(v) for v in value.split(",") if v}
                if not chosen <= set(range(SERVOS)):
                    raise ValueError("expected servo ids from 0 to 15")
                for servo in self.servos:
                    servo.stuck = servo.number in chosen if name == "stuck" else servo.stuck
                    servo.heated = servo.number in chosen if name == "hot" else servo.heated
                    if name == "overload":
                        servo.overload = servo.number in chosen
                        servo.stuck = servo.overload
                if name == "missing":
                    self._missing = chosen
            elif name == "pushed":
                for item in filter(None, value.split(",")):
                    number, ticks = item.split(":")
                    self.servos[int(number)].ticks = float(ticks)
                    self.servos[int(number)].start()
            elif name == "object":
                for servo in self.servos:
                    servo.obstacle = None if value in ("", "none") else float(value)
            elif name == "model":
                for servo in self.servos:
                    servo.be(int(value))
            elif name == "old":
                self._fast = value in ("", "0")
            else:
                raise ValueError("unknown option; known: hot, missing, model, object, old, overload, pushed, stuck")
        except ValueError as error:
            raise ValueError(f"sim:leap: {name}={value}: {error}") from None

    # -- the wire

    def _requests(self, now_s: float) -> Answers:
        answers: Answers = []
        while True:
            start = self._incoming.find(_HEAD)
            if start < 0:
                self._incoming = self._incoming[-3:]
                return answers
            self._incoming = self._incoming[start:]
            if len(self._incoming) < 7:
                return answers
            size = 7 + struct.unpack("<H", self._incoming[5:7])[0]
            if size < 10 or size > 1024:
                self._incoming = self._incoming[1:]
                continue
            if len(self._incoming) < size:
                return answers
            frame, self._incoming = self._incoming[:size], self._incoming[size:]
            body = frame[7:-2]
            if crc16(frame[:-2]) != struct.unpack("<H", frame[-2:])[0]:
                continue
            content = body.replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")
            if _stuffed(content) != body:
                continue  # a bare FF FF FD inside: servos lose the frame
            self.advance(now_s)
            for servo in self.servos:
                servo.heard_s = now_s
            pause_s, reply = self._answer(frame[4], content)
            if reply:
                answers.append((frame, reply, pause_s))

    def with_wrong_id(self, reply: bytes) -> bytes:
        """The same reply as another device would send it."""
        wrong = reply[:4] + bytes([(reply[4] + 40) % 253]) + reply[5:-2]
        return wrong + struct.pack("<H", crc16(wrong))

    def advance(self, now_s: float) -> None:
        """Lets the joints move until `now_s`."""
        if self._now_s is None:
            self._now_s = now_s
        while self._now_s < now_s - 1e-9:
            step = min(0.010, now_s - self._now_s)
            self._now_s += step
            for servo in self.servos:
                servo.advance(self._now_s, step)

    def _awake(self, device_id: int) -> _Servo | None:
        if device_id >= SERVOS or device_id in self._missing:
            return None
        servo = self.servos[device_id]
        return servo if (self._now_s or 0.0) >= servo.rebooting_until_s else None

    def _status(self, servo: _Servo, error: int, data: bytes = b"") -> bytes:
        return _frame(servo.number, bytes([_STATUS, error | servo.error]) + data)

    def _delay(self, servo: _Servo) -> float:
        return servo.table[9] * _RETURN_DELAY_UNIT_S

    def _answer(self, device_id: int, content: bytes) -> tuple[float, bytes]:
        instruction, parameters = content[0], content[1:]
        if instruction in (_SYNC_READ, _FAST_SYNC_READ, _BULK_READ):
            return self._many(instruction, parameters)
        if instruction == _SYNC_WRITE and device_id == _BROADCAST and len(parameters) >= 5:
            address, count = struct.unpack("<HH", parameters[:4])
            if count and (len(parameters) - 4) % (count + 1) == 0:
                for at in range(4, len(parameters), count + 1):
                    servo = self._awake(parameters[at])
                    if servo is not None:
                        servo.write(address, parameters[at + 1: at + 1 + count])
            return 0.0, b""
        targets = range(SERVOS) if device_id == _BROADCAST else (device_id,)
        pause_s, reply = 0.0, b""
        for number in targets:
            servo = self._awake(number)
            if servo is None:
                continue
            one = self._single(servo, instruction, parameters)
            if device_id != _BROADCAST or instruction == _PING:
                pause_s += self._delay(servo)
                reply += one
        return pause_s, reply

    def _single(self, servo: _Servo, instruction: int, parameters: bytes) -> bytes:
        if instruction == _PING:
            return self._status(servo, 0, bytes(servo.table[0:2]) + bytes([_FIRMWARE]))
        if instruction == _READ:
            if len(parameters) != 4:
                return self._status(servo, _LENGTH)
            address, count = struct.unpack("<HH", parameters)
            if count == 0 or address + count > _TABLE_BYTES:
                return self._status(servo, _RANGE)
            return self._status(servo, 0, bytes(servo.table[address: address + count]))
        if instruction == _WRITE:
            if len(parameters) < 3:
                return self._status(servo, _LENGTH)
            return self._status(servo, servo.write(struct.unpack("<H", parameters[:2])[0], parameters[2:]))
        if instruction == _REBOOT:
            servo.rebooting_until_s = (self._now_s or 0.0) + _REBOOT_S
            reply = self._status(servo, 0)
            servo.table[70] = 0
            return reply
        return self._status(servo, _INSTRUCTION)

    def _many(self, instruction: int, parameters: bytes) -> tuple[float, bytes]:
        if instruction == _BULK_READ:
            if not parameters or len(parameters) % 5:
                return 0.0, b""
            wanted = [struct.unpack("<BHH", parameters[at: at + 5]) for at in range(0, len(parameters), 5)]
        else:
            if len(parameters) < 5:
                return 0.0, b""
            address, count = struct.unpack("<HH", parameters[:4])
            wanted = [(number, address, count) for number in parameters[4:]]
        if instruction == _FAST_SYNC_READ:
            return self._joint(wanted) if self._fast else (0.0, b"")
        pause_s, reply = 0.0, b""
        for number, address, count in wanted:
            servo = self._awake(number)
            if servo is None:
                break  # those behind wait for this one's answer, in vain
            pause_s += self._delay(servo)
            reply += self._status(servo, 0, bytes(servo.table[address: address + count]))
        return pause_s, reply

    def _joint(self, wanted: list[tuple[int, int, int]]) -> tuple[float, bytes]:
        """One status for all; each share ends with the crc of everything before it."""
        length = 1 + sum(count + 4 for _, _, count in wanted)
        frame = _HEAD + bytes([_BROADCAST]) + struct.pack("<H", length) + bytes([_STATUS])
        crc = crc16(frame)
        pause_s = 0.0
        for number, address, count in wanted:
            servo = self._awake(number)
            if servo is None:
                return pause_s, frame  # the rest of the frame never comes
            pause_s = max(pause_s, self._delay(servo))
            part = bytes([servo.error, number]) + bytes(servo.table[address: address + count])
            crc = crc16(part, crc)
            closing = struct.pack("<H", crc)
            crc = crc16(closing, crc)
            frame += part + closing
        return pause_s, frame
