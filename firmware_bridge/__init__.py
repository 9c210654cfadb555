"""Drives a real or simulated hand: fixed-rate loop, limits, watchdogs and codecs in C++; no model needed.

The names load when first used: a simulated hand's process then starts in milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

_HOMES = {
    "CODECS": "codecs", "HANDS": "hands", "Bridge": "bridge", "HandLog": "state", "HandSpec": "hands",
    "HandState": "state", "Joint": "hands", "RegisterReply": "codecs", "RunningSimulator": "simulators",
    "Safety": "safety", "SharedHand": "sharing", "available_ports": "ports", "codec": "codecs",
    "estop_shared": "sharing", "hand_spec": "hands", "shared_names": "sharing", "start_simulator": "simulators",
}

__all__ = [  # spelled out: type checkers read it
    "CODECS", "HANDS", "Bridge", "HandLog", "HandSpec", "HandState", "Joint", "RegisterReply",
    "RunningSimulator", "Safety", "SharedHand", "available_ports", "codec", "estop_shared", "hand_spec",
    "shared_names", "start_simulator",
]

if TYPE_CHECKING:  # the same names once more, for type checkers and editors
    from beingh0_edge.firmware_bridge.bridge import Bridge
    from beingh0_edge.firmware_bridge.codecs import CODECS, RegisterReply, codec
    from beingh0_edge.firmware_bridge.hands import HANDS, HandSpec, Joint, hand_spec
    from beingh0_edge.firmware_bridge.ports import available_ports
    from beingh0_edge.firmware_bridge.safety import Safety
    from beingh0_edge.firmware_bridge.sharing import SharedHand, estop_shared, shared_names
    from beingh0_edge.firmware_bridge.simulators import RunningSimulator, start_simulator
    from beingh0_edge.firmware_bridge.state import HandLog, HandState


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
