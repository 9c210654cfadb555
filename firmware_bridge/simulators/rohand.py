"""A simulated ROHand, written from the maker's register tables.

Registers are base + finger in the order of `_JOINTS`. Position 0 is open, 65535 closed.

Options: device_id, generation (1 or 2), state (a code of register 1006: everything else is refused until it is 0), map
(anything: another device, with zeros at these registers), and those of `joints`.
"""

from __future__ import annotations

from collections.abc import Mapping

from beingh0_edge.firmware_bridge.simulators import modbus
from beingh0_edge.firmware_bridge.simulators.joints import OPTIONS, Joints

_JOINTS = ("thumb_bend", "index", "middle", "ring", "little", "thumb_rotation")
_FULL = 65535
_OPENING, _CLOSING, _REACHED, _OVER_CURRENT, _FORCE_REACHED, _STUCK = range(6)
_FORCES = 5
_PUSH_MN = 6000

# First register and how many of what can be written; speeds and limits are volatile.
_WRITABLE = {1095: 6, 1115: 5, 1125: 6, 1135: 6, 1155: 6, 1045: 6, 1055: 6, 1065: 6, 1075: 6, 1005: 1, 1013: 1}
_READABLE = {1000: 7, 1045: 6, 1055: 6, 1065: 6, 1075: 6, 1085: 6, 1095: 6, 1105: 6, 1115: 5, 1120: 5, 1125: 6, 1135: 6,
             1145: 6, 1155: 6, 1165: 6}


def _inside(table: Mapping[int, int], address: int, count: int) -> bool:
    return any(first <= address and address + count <= first + size for first, size in table.items())


class RoHand:
    functions = frozenset({modbus.READ_HOLDING, modbus.WRITE_ONE, modbus.WRITE_MANY})

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        self._words = {1000: 0x0102, 1001: 0x0300, 1003: 0x0100, 1005: 2}
        self.joints = Joints(_JOINTS, full_stroke_s=1.0, latency_s=0.03)
        for first, number in ((1095, 1178), (1115, 15000), (1125, _FULL)):
            for i in range(_WRITABLE[first]):
                self._words[first + i] = number
        for name, value in (options or {}).items():
            self.set(name, value)

    @property
    def device_id(self) -> int:
        return self._words[1005]

    def set(self, name: str, value: str) -> None:
        """Changes an option. Raises ValueError naming the known ones."""
        try:
            if name == "device_id":
                self._words[1005] = int(value)
            elif name == "generation":
                if value not in ("1", "2"):
                    raise ValueError("expected 1 or 2")
                self._words[1000] = 0x0102 if value == "1" else 0x0200
            elif name == "state":
                self._words[1006] = int(value or 0)
            elif name == "map":
                self._words = {address: 0 for address in self._words} | {1005: self._words[1005]}
            elif name in OPTIONS:
                self.joints.set(name, value)
            else:
                raise ValueError(f"unknown option; known: device_id, generation, state, map, {', '.join(OPTIONS)}")
        except ValueError as error:
            raise ValueError(f"sim:rohand: {name}={value}: {error}") from None

    def read(self, function: int, address: int, count: int, now_s: float) -> list[int]:
        self.joints.advance(now_s)
        if not _inside(_READABLE, address, count):
            raise modbus.Refused(modbus.ILLEGAL_ADDRESS)
        if self._words.get(1006, 0) and address != 1006:
            raise modbus.Refused(modbus.DEVICE_FAILURE)
        return [self._word(a) for a in range(address, address + count)]

    def write(self, address: int, words: list[int], now_s: float) -> None:
        self.joints.advance(now_s)
        if not _inside(_WRITABLE, address, len(words)):
            raise modbus.Refused(modbus.ILLEGAL_ADDRESS)
        if self._words.get(1006, 0):
            raise modbus.Refused(modbus.DEVICE_FAILURE)
        for i, word in enumerate(words):
            self._words[address + i] = word
        if 1125 <= address < 1131:
            for joint in range(6):
                self.joints.speed_share[joint] = self._words[1125 + joint] / _FULL
        if 1135 <= address < 1141:
            targets: list[float | None] = [None] * 6
            for i, word in enumerate(words):
                targets[address - 1135 + i] = word / _FULL
            self.joints.command(targets, now_s)

    def _word(self, address: int) -> int:
        if 1085 <= address < 1091:
            return self._status(address - 1085)
        if 1105 <= address < 1111:
            return round(1000 * self.joints.current_a[address - 1105])
        if 1120 <= address < 1120 + _FORCES:
            return _PUSH_MN if self.joints.pressing[address - 1120] else 40
        if 1145 <= address < 1151:
            return round(_FULL * self.joints.position[address - 1145])
        return self._words.get(address, 0)

    def _status(self, joint: int) -> int:
        if self.joints.stalled[joint]:
            return _STUCK
        if self.joints.moving[joint]:
            return _CLOSING if self.joints.speed[joint] > 0 else _OPENING
        return _REACHED
