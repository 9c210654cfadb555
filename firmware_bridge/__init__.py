"""Drives a real or simulated hand: fixed-rate loop, limits, watchdogs and codecs in C++; no model needed."""

from beingh0_edge.firmware_bridge.bridge import Bridge
from beingh0_edge.firmware_bridge.codecs import CODECS, RegisterReply, codec
from beingh0_edge.firmware_bridge.hands import HANDS, HandSpec, Joint, hand_spec
from beingh0_edge.firmware_bridge.ports import available_ports
from beingh0_edge.firmware_bridge.safety import Safety
from beingh0_edge.firmware_bridge.simulators import RunningSimulator, start_simulator
from beingh0_edge.firmware_bridge.state import HandLog, HandState

__all__ = [
    "CODECS",
    "HANDS",
    "Bridge",
    "HandLog",
    "HandSpec",
    "HandState",
    "Joint",
    "RegisterReply",
    "RunningSimulator",
    "Safety",
    "available_ports",
    "codec",
    "hand_spec",
    "start_simulator",
]
