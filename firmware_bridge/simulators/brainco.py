"""A simulated BrainCo Revo2, written from what its maker's library sends and understands.

Registers over Modbus RTU and inside CAN-FD frames; on CAN 2.0 commands 1 (positions), 5 and 8 (positions and states,
asked for with one zero byte), 9 and 10 (parameters). Position 0 is open, 1000 closed.

Options: device_id, side, revo1=1 (an older hand: none of these registers), physical=1 (positions in physical units),
and those of `joints`.
"""

from __future__ import annotations

from collections.abc import Mapping

from beingh0_edge.firmware_bridge.simulators import modbus
from beingh0_edge.firmware_bridge.simulators.joints import OPTIONS, Joints
from beingh0_edge.firmware_bridge.simulators.slcan import Frame, Node

_JOINTS = ("thumb_flexion", "thumb_rotation", "index", "middle", "ring", "little")
_IDLE, _RUNNING, _STALL = 0, 1, 2
_MEDIUM_RIGHT, _MEDIUM_LEFT = 1, 2
_FD_SIZES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64)

# First register and how many: what may be written.
_SINGLES = {901: False, 937: True, 1000: True, 1064: True, 1065: True, 1066: True, 1068: True, 1069: True}
_BLOCKS = {930: 7, 1010: 12, 1022: 12, 1034: 6, 1040: 6, 1046: 6, 1052: 3, 1055: 3, 1058: 2, 1060: 2, 1062: 2, 1070: 3}


class Revo2:
    functions = frozenset({modbus.READ_HOLDING, modbus.READ_INPUT, modbus.WRITE_ONE, modbus.WRITE_MANY})

    def __init__(self, options: Mapping[str, str] | None = None, device_id: int = 0x7F) -> None:
        self._id = device_id
        self._words = {901: _MEDIUM_RIGHT, 937: 0, **{930 + i: 500 for i in range(7)}}
        self.revo1 = False
        self.joints = Joints(_JOINTS, full_stroke_s=0.7, latency_s=0.02)
        for name, value in (options or {}).items():
            self.set(name, value)

    @property
    def device_id(self) -> int:
        return self._id

    def set(self, name: str, value: str) -> None:
        """Changes an option. Raises ValueError naming the known ones."""
        try:
            if name == "device_id":
                self._id = int(value, 0)
            elif name == "side":
                self._words[901] = {"right": _MEDIUM_RIGHT, "left": _MEDIUM_LEFT}[value]
            elif name == "revo1":
                self.revo1 = value not in ("", "0")
            elif name == "physical":
                self._words[937] = int(value or 0)
            elif name in OPTIONS:
                self.joints.set(name, value)
            else:
                raise ValueError(f"unknown option; known: device_id, side, revo1, physical, {', '.join(OPTIONS)}")
        except (KeyError, ValueError) as error:
            raise ValueError(f"sim:brainco_revo2: {name}={value}: {error}") from None

    def read(self, function: int, address: int, count: int, now_s: float) -> list[int]:
        self.joints.advance(now_s)
        if self.revo1:
            raise modbus.Refused(modbus.ILLEGAL_ADDRESS)
        if function == modbus.READ_INPUT:
            if not address >= 2000 or address + count > 2024:
                raise modbus.Refused(modbus.ILLEGAL_ADDRESS)
            return self._status()[address - 2000: address - 2000 + count]
        if not all(a in self._words for a in range(address, address + count)):
            raise modbus.Refused(modbus.ILLEGAL_ADDRESS)
        return [self._words[a] for a in range(address, address + count)]

    def write(self, address: int, words: list[int], now_s: float) -> None:
        self.joints.advance(now_s)
        whole = len(words) == 1 and _SINGLES.get(address, False)
        if self.revo1 or not (whole or _BLOCKS.get(address) == len(words)):
            raise modbus.Refused(modbus.ILLEGAL_ADDRESS)
        if address == 1022:
            if any(p > 1000 for p in words[::2]) or not all(1 <= s <= 1000 for s in words[1::2]):
                raise modbus.Refused(modbus.ILLEGAL_VALUE)
            self.joints.speed_share = [s / 1000 for s in words[1::2]]
            self.move([p / 1000 for p in words[::2]], now_s)
        elif address == 1010:
            if any(p > 1000 for p in words[::2]) or not all(1 <= d <= 2000 for d in words[1::2]):
                raise modbus.Refused(modbus.ILLEGAL_VALUE)
            self.move([p / 1000 for p in words[::2]], now_s)
        elif address == 1070:  # percents, the earlier finger in the low byte
            percents = [byte for word in words for byte in (word & 0xFF, word >> 8)]
            if any(p > 100 for p in percents):
                raise modbus.Refused(modbus.ILLEGAL_VALUE)
            self.move([p / 100 for p in percents], now_s)
        elif address in (1052, 1055):
            finger, position, _ = words
            if finger > 5 or position > 1000:
                raise modbus.Refused(modbus.ILLEGAL_VALUE)
            targets: list[float | None] = [None] * 6
            targets[finger] = position / 1000
            self.move(targets, now_s)
        else:
            for i, word in enumerate(words):
                self._words[address + i] = word

    def move(self, targets: list[float] | list[float | None], now_s: float) -> None:
        self.joints.command(targets, now_s)

    def unit_mode(self, value: int | None = None) -> int:
        if value is not None:
            self._words[937] = value
        return self._words[937]

    def _status(self) -> list[int]:
        scale = 1000 if self._words[937] == 0 else 9000  # physical units: hundredths of a degree, say
        return [
            *(round(scale * p) for p in self.joints.position),
            *(round(1000 * s) & 0xFFFF for s in self.joints.speed),
            *(round(1000 * c) for c in self.joints.current_a),
            *self.states(),
        ]

    def states(self) -> list[int]:
        return [_STALL if stalled else _RUNNING if moving else _IDLE
                for stalled, moving in zip(self.joints.stalled, self.joints.moving, strict=True)]


class Revo2CanFd(Node):
    """The RTU frame inside an extended CAN-FD frame: id = slave << 16 | master << 8 | its length, padded with zeros."""

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        self._hand = Revo2(options)

    def set(self, name: str, value: str) -> None:
        self._hand.set(name, value)

    def frame(self, frame: Frame, now_s: float) -> list[Frame]:
        slave, length = frame.can_id >> 16, frame.can_id & 0xFF
        padding = frame.data[length:]
        if not (frame.extended and frame.fd) or slave != self._hand.device_id or any(padding) or \
                length > len(frame.data):
            return []
        reply = modbus.rtu_answer(self._hand, frame.data[:length], now_s)
        if reply is None or len(reply) > 64:
            return []
        size = next(size for size in _FD_SIZES if size >= len(reply))
        identifier = frame.can_id & ~0xFF | len(reply)
        return [Frame(identifier, reply.ljust(size, b"\0"), extended=True, fd=True)]


class Revo2Can(Node):
    """Standard id = slave << 7 | command << 3 | finger (6: all); percents, and no answer to what sets something."""

    _POSITION, _ASK_POSITIONS, _ASK_STATES, _SET, _GET = 1, 5, 8, 9, 10
    _ALL = 6
    _UNIT_MODE = 0x0D

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        self._hand = Revo2(options, device_id=1)

    def set(self, name: str, value: str) -> None:
        self._hand.set(name, value)

    def frame(self, frame: Frame, now_s: float) -> list[Frame]:
        slave, command, finger = frame.can_id >> 7, frame.can_id >> 3 & 15, frame.can_id & 7
        if frame.extended or frame.remote or frame.fd or slave != self._hand.device_id:
            return []
        self._hand.joints.advance(now_s)
        data = self._answer(command, finger, frame.data, now_s)
        return [] if data is None else [Frame(frame.can_id, data)]

    def _answer(self, command: int, finger: int, data: bytes, now_s: float) -> bytes | None:
        joints = self._hand.joints
        if command == self._POSITION and finger == self._ALL and len(data) == 8 and data[:2] == b"\0\0":
            if all(percent <= 100 for percent in data[2:]):
                self._hand.move([percent / 100 for percent in data[2:]], now_s)
            return None
        if finger == self._ALL and data == b"\0":
            if command == self._ASK_POSITIONS:
                return b"\0\0" + bytes(round(100 * p) for p in joints.position)
            if command == self._ASK_STATES:
                return b"\0\0" + bytes(self._hand.states())
        if len(data) == 8 and data[0] == self._UNIT_MODE and not self._hand.revo1:
            if command == self._SET:
                self._hand.unit_mode(data[1])
                return data
            if command == self._GET:
                return bytes([self._UNIT_MODE, self._hand.unit_mode()]) + bytes(6)
        return None
