"""What the bridge knows about a hand: one look, and the remembered cycles."""

from __future__ import annotations

import os
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
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
        fields.pop("thread")
        return HandState(joint_names=joint_names, q_age_s=q_age_s, **fields)


@dataclass(frozen=True, eq=False)
class HandLog:
    """The cycles the bridge remembers (the last 8192), oldest first.

    t_s float64[N] monotonic; late_ms float64[N]; q_rad, q_cmd_rad, force_g, current_a float64[N, J]; state, reason,
    read and written: N words each (read and written are the outcomes of the cycle's transactions).
    """

    joint_names: tuple[str, ...]
    t_s: Array
    late_ms: Array
    q_rad: Array
    q_cmd_rad: Array
    force_g: Array
    current_a: Array
    state: tuple[str, ...]
    reason: tuple[str, ...]
    read: tuple[str, ...]
    written: tuple[str, ...]

    @staticmethod
    def of(recent: Mapping[str, Any], joint_names: tuple[str, ...]) -> HandLog:
        """From what the loop remembers."""
        return HandLog(
            joint_names=joint_names, t_s=recent["t_s"], late_ms=recent["late_ms"], q_rad=recent["q_rad"],
            q_cmd_rad=recent["q_cmd_rad"], force_g=recent["force_g"], current_a=recent["current_a"],
            state=tuple(recent["state"]), reason=tuple(recent["reason"]), read=tuple(recent["read"]),
            written=tuple(recent["written"]),
        )

    def after(self, t_s: float) -> HandLog:
        """The cycles after a moment of the monotonic clock."""
        begin = int(np.searchsorted(self.t_s, t_s, side="right"))
        later: dict[str, Any] = {name: getattr(self, name)[begin:] for name in _PER_CYCLE}
        return HandLog(self.joint_names, **later)

    @staticmethod
    def joined(parts: Sequence[HandLog]) -> HandLog:
        """Logs of one hand, one after the other."""
        whole: dict[str, Any] = {
            name: tuple(word for part in parts for word in getattr(part, name)) if name in _WORDS
            else np.concatenate([getattr(part, name) for part in parts]) for name in _PER_CYCLE}
        return HandLog(parts[0].joint_names, **whole)

    def save(self, path: str | Path, hand: str, side: str) -> None:
        """Writes a .npz that `load` and numpy read; whole or not at all."""
        path = Path(path)
        columns: dict[str, Any] = {name: np.array(getattr(self, name)) for name in _PER_CYCLE}
        fresh = path.with_name(f".{path.name}.partial")
        with open(fresh, "wb") as file:
            np.savez_compressed(file, hand=np.array(hand), side=np.array(side), joint_names=np.array(self.joint_names),
                                **columns)
        os.replace(fresh, path)

    @staticmethod
    def load(path: str | Path) -> tuple[HandLog, str, str]:
        """(log, hand, side) of a saved log. Raises ValueError if the file is no such log, OSError."""
        with open(path, "rb") as stream:
            try:
                with np.lib.npyio.NpzFile(stream, allow_pickle=False) as file:
                    found = {name: file[name] for name in ("hand", "side", "joint_names", *_PER_CYCLE)}
            except _DAMAGE as error:
                raise ValueError(f"{path}: not a log of a hand ({error})") from None
        names = tuple(str(name) for name in found["joint_names"].ravel())
        cycles = found["t_s"].size
        for name in _PER_CYCLE:
            column, word = found[name], name in _WORDS
            wanted = (cycles,) if word or name in ("t_s", "late_ms") else (cycles, len(names))
            if column.shape != wanted:
                raise ValueError(f"{path}: {name}: expected shape {list(wanted)}, got {list(column.shape)}")
            if column.dtype.kind != ("U" if word else "f"):
                raise ValueError(f"{path}: {name}: expected {'text' if word else 'floats'}, got {column.dtype}")
        columns: dict[str, Any] = {
            name: tuple(str(word) for word in found[name]) if name in _WORDS else found[name] for name in _PER_CYCLE}
        return HandLog(names, **columns), str(found["hand"]), str(found["side"])


_PER_CYCLE = tuple(field.name for field in fields(HandLog) if field.name != "joint_names")
_WORDS = ("state", "reason", "read", "written")
# What reading a damaged archive may raise.
_DAMAGE = (KeyError, ValueError, OSError, EOFError, RuntimeError, tokenize.TokenError, zipfile.BadZipFile, zlib.error)
