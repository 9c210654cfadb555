"""Hands that exist only in memory: the real protocol on a pseudo-terminal, in a process of their own.

`sim:inspire_rh56?fault=drop:0.05,echo&seed=3` is a port name like any other for `Bridge.open`.
"""

from beingh0_edge.firmware_bridge.simulators.launch import (
    SIMULATORS,
    RunningSimulator,
    is_simulated,
    parse_spec,
    start_simulator,
)

__all__ = ["SIMULATORS", "RunningSimulator", "is_simulated", "parse_spec", "start_simulator"]
