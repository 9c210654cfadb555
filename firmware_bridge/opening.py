"""From a port's name and a hand's row to a running loop in C++."""

from __future__ import annotations

from dataclasses import dataclass

from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.hands import HandSpec, OptionValue

_SLCAN = "slcan:"
_SLCAN_BAUD = 115200  # USB adapters ignore it


@dataclass(frozen=True)
class Connection:
    """What every hand has to be opened."""

    port: str
    baud: int
    device_id: int
    rate_hz: float
    reply_timeout_s: float
    realtime_priority: int


def open_loop(spec: HandSpec, to: Connection, options: dict[str, OptionValue], limits: _bridge.Limits,
              safety: _bridge.Safety) -> _bridge.Loop:
    """Connects and starts. Raises ValueError, OSError, _bridge.NoReply, _bridge.WrongHand."""
    if spec.wire == "dynamixel":
        return _bridge.open_leap(
            port=to.port, baud=to.baud, rate_hz=to.rate_hz, reply_timeout_s=to.reply_timeout_s,
            current_ma=int(options["current_ma"] or 0), p_gain=int(options["p_gain"] or 0),
            d_gain=int(options["d_gain"] or 0), fast_read=bool(options["fast_read"]), limits=limits, safety=safety,
            realtime_priority=to.realtime_priority,
        )
    wire, port, baud = _where(spec.wire, to.port, to.baud)
    return _bridge.open_inspire(
        wire=wire, port=port, baud=baud, device_id=to.device_id, rate_hz=to.rate_hz,
        reply_timeout_s=to.reply_timeout_s, speed=int(options["speed"] or 0), force_g=int(options["force_g"] or 0),
        trust_family=options["family"] == "A", high_byte_first=options.get("byte_order") == "high_first",
        echoes=bool(options.get("echoes", False)), limits=limits, safety=safety,
        realtime_priority=to.realtime_priority,
    )


def _where(wire: str, port: str, baud: int) -> tuple[str, str, int]:
    """(wire, what to open, baud or TCP port). `host[:port]` for TCP; `can0` or `slcan:/dev/ttyACM0` for CAN."""
    if wire == "tcp":
        host, colon, number = port.rpartition(":")
        if not colon:
            return wire, port, baud
        if not host or not number.isdigit() or not 0 < int(number) < 65536:
            raise ValueError(f"port: expected HOST or HOST:NUMBER, got {port!r}")
        return wire, host, int(number)
    if wire == "can" and port.startswith(_SLCAN):
        return "slcan", port.removeprefix(_SLCAN), _SLCAN_BAUD
    return wire, port, baud
