"""What the bridge knows about a hand: one look, and the remembered cycles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HandState:
    """One look at the hand and the bridge. Joint arrays are in the order of `joint_names`.

    t_s             time of the cycle on the monotonic clock
    missed_deadlines  cycles that should have begun while the one before was still running
    state           disconnected, connected, idle, active, hold, fault or estop
    reason          why it is in hold, fault, estop or disconnected, else "none"
    q_rad           float64[J], measured; q_age_s says how old
    q_cmd_rad       float64[J], commanded after all limits
    force_g         float64[J], gram-force at the fingertip as the hand reports it, with the sensor's bias
    error_bits      uint32[J], the hand's own; HandSpec.error_bits names them
    status          uint8[J], the vendor's motion status
    counts          what happened on the wire, by kind
    late_*_ms       how late the kernel woke the loop, since the bridge was opened
    realtime        the loop runs under SCHED_FIFO; memory_locked, low_latency likewise say what was granted
    """

    t_s: float
    cycle: int
    missed_deadlines: int
    state: str
    reason: str
    settled: bool
    joint_names: tuple[str, ...]
    q_rad: Array
    q_age_s: float
    q_cmd_rad: Array
    force_g: Array
    current_a: Array
    temperature_c: Array
    error_bits: npt.NDArray[np.uint32]
    status: npt.NDArray[np.uint8]
    counts: Mapping[str, int]
    late_p50_ms: float
    late_p99_ms: float
    late_p999_ms: float
    late_max_ms: float
    realtime: bool
    memory_locked: bool
    low_latency: bool

    @staticmethod
    def of(snapshot: Mapping[str, Any], joint_names: tuple[str, ...], now_s: float) -> HandState:
        """From what the loop published."""
        fields = dict(snapshot)
        q_age_s = now_s - fields.pop("measured_t_s")
        fields.pop("stop_delivered")
        return HandState(joint_names=joint_names, q_age_s=q_age_s, **fields)


@dataclass(frozen=True, eq=False)
class HandLog:
    """The cycles the bridge remembers (the last 8192), oldest first.

    t_s float64[N] monotonic; late_ms float64[N]; q_rad, q_cmd_rad, force_g float64[N, J]; state, reason, read
    and written: N words each (read and written are the outcomes of the cycle's transactions).
    """

    joint_names: tuple[str, ...]
    t_s: Array
    late_ms: Array
    q_rad: Array
    q_cmd_rad: Array
    force_g: Array
    state: tuple[str, ...]
    reason: tuple[str, ...]
    read: tuple[str, ...]
    written: tuple[str, ...]

    @staticmethod
    def of(recent: Mapping[str, Any], joint_names: tuple[str, ...]) -> HandLog:
        """From what the loop remembers."""
        return HandLog(
            joint_names=joint_names, t_s=recent["t_s"], late_ms=recent["late_ms"], q_rad=recent["q_rad"],
            q_cmd_rad=recent["q_cmd_rad"], force_g=recent["force_g"], state=tuple(recent["state"]),
            reason=tuple(recent["reason"]), read=tuple(recent["read"]), written=tuple(recent["written"]),
        )
