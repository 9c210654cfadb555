"""Timing of several contenders side by side, and what the machine itself can do."""

from __future__ import annotations

import ctypes
import math
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path

PROBE = Path(__file__).parent / "probe.cpp"


@dataclass(frozen=True)
class Timing:
    """Microseconds per call; `rounds` are those of each round, in turn with the other contenders'."""

    best: float
    median: float
    p99: float
    rounds: tuple[float, ...]

    def over(self, other: Timing) -> float:
        """How many times longer than another contender of the same race: the median of the ratios within a round.

        What disturbs the machine for longer than a round disturbs both.
        """
        return statistics.median(mine / theirs for mine, theirs in zip(self.rounds, other.rounds, strict=False))

    def plus(self, other: Timing) -> Timing:
        return Timing(self.best + other.best, self.median + other.median, self.p99 + other.p99,
                      tuple(mine + theirs for mine, theirs in zip(self.rounds, other.rounds, strict=False)))

    def times(self, factor: float) -> Timing:
        return Timing(self.best * factor, self.median * factor, self.p99 * factor,
                      tuple(value * factor for value in self.rounds))


def one_thread() -> None:
    """Must run before numpy, torch or ONNX Runtime is imported."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = "1"


def race(contenders: dict[str, Callable[[], object]], seconds: float, turn_s: float = 3e-4) -> dict[str, Timing]:
    """Each contender in turn, again and again, until about `seconds` each have been computed.

    Counts the time this thread computes, so that other work on the core does not count; all contenders have one thread.
    Short calls are timed by the batch, `turn_s` long, after one that is not counted: what they keep in the caches is
    there, as it is when they are called often. Such a turn is taken again, up to _TRIES times, if just before or after
    it the core worked for somebody else as well (a hyperthread beside, another guest).
    """
    inner: dict[str, int] = {}
    for name, call in contenders.items():
        call()
        call()
        start = time.thread_time()
        call()
        inner[name] = max(1, min(10000, int(turn_s / max(time.thread_time() - start, 1e-7))))
    core = _Core()
    spent = dict.fromkeys(contenders, 0.0)
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    while waiting := [name for name in contenders if spent[name] < seconds]:
        for name in waiting:
            call, count = contenders[name], inner[name]
            for _ in range(_TRIES if count > 1 and turn_s <= _SHORT_S else 1):
                if count > 1:
                    for _ in range(count):
                        call()
                alone = core.alone()
                start = time.thread_time()
                for _ in range(count):
                    call()
                took = time.thread_time() - start
                if alone and core.alone():
                    break
            spent[name] += took
            taken[name].append(took / count * 1e6)
    return {name: Timing(min(values), statistics.median(values), sorted(values)[math.ceil(0.99 * len(values)) - 1],
                         tuple(values)) for name, values in taken.items()}


_TRIES, _SHORT_S = 20, 1e-3  # what is longer than that is disturbed within, whatever goes before


class _Core:
    """Tells whether the core works for us alone: a loop that never leaves the innermost cache is as fast as ever."""

    _STEPS, _SLACK = 500, 1.2

    def __init__(self) -> None:
        self._best = min(self._loop() for _ in range(2000))

    def alone(self) -> bool:
        self._loop()
        took = self._loop()
        self._best = min(self._best, took)
        return took < self._SLACK * self._best

    def _loop(self) -> float:
        start = time.thread_time()
        for _ in range(self._STEPS):
            pass
        return time.thread_time() - start


_PRODUCTS = {"fma": "float32", "pairs": "16-bit pairs", "quads": "8-bit quads"}


class Probe:
    """What one core of this machine can do, as contenders of a race: bounds are measured beside what they bound.

    Compiles probe.cpp for this machine.
    """

    _STEPS, _READ_BYTES = 30000, 1_000_000
    _READS = ((0, 1), (0, 4), (16384, 1))  # bytes that are asked for ahead, places side by side: the best counts

    def __init__(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "probe.so"
            subprocess.run([os.environ.get("CXX", "c++"), "-O3", "-march=native", "-funroll-loops", "-shared", "-fPIC",
                            str(PROBE), "-o", str(path)], check=True)
            self._library = ctypes.CDLL(str(path))
        self._library.probe_memory.restype = ctypes.c_void_p
        for name in _PRODUCTS:
            getattr(self._library, f"probe_{name}").restype = ctypes.c_double
        self._memory: dict[int, ctypes.c_void_p] = {}
        self._flops = {name: self._multiply(name)() for name in _PRODUCTS}

    def contenders(self, sizes: Sequence[int]) -> dict[str, Callable[[], object]]:
        """To be raced beside what `bounds` is asked about: multiplying, and reading as many bytes as `sizes` names."""
        found = {name: self._multiply(name) for name, flops in self._flops.items() if flops}
        for size in sizes:
            block = ctypes.c_size_t(size // 1024 * 1024)
            if size not in self._memory:
                self._memory[size] = ctypes.c_void_p(self._library.probe_memory(block))
            for ahead, streams in self._READS:
                found[f"read {size} {ahead} {streams}"] = partial(self._library.probe_read, self._memory[size], block,
                                                                  self._reads(size), ahead, streams)
        return found

    def bounds(self, timings: dict[str, Timing], size: int, flops: dict[str, float]) -> tuple[Timing, Timing]:
        """How long the machine reads `size` bytes, and how long it multiplies: flops of fma, pairs, quads.

        What it has no instruction for it multiplies as float32.
        """
        parts = [timings[kind].times(count / self._flops[kind]) for kind, count in
                 ((name if self._flops[name] else "fma", count) for name, count in flops.items())]
        return self._reading(timings, size).times(1 / self._reads(size)), reduce(Timing.plus, parts)

    def text(self, timings: dict[str, Timing]) -> str:
        parts = [f"{self._flops[name] / timings[name].median * 1e-3:.0f} GFLOP/s of {kind}" for name, kind in
                 _PRODUCTS.items() if name in timings]
        for size in dict.fromkeys(int(name.split()[1]) for name in timings if name.startswith("read")):
            took = self._reading(timings, size).median
            parts.append(f"reads {size / 1e6:.2g} MB at {size * self._reads(size) / took * 1e-3:.0f} GB/s")
        return ", ".join(parts)

    def _reading(self, timings: dict[str, Timing], size: int) -> Timing:
        return min((timings[f"read {size} {ahead} {streams}"] for ahead, streams in self._READS),
                   key=lambda timing: timing.median)

    def _reads(self, size: int) -> int:
        return -(-self._READ_BYTES // size)

    def _multiply(self, name: str) -> Callable[[], float]:
        return partial(getattr(self._library, f"probe_{name}"), self._STEPS)


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines[:30] if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    return f"{facts.get('model name', platform.machine())} (family {facts.get('cpu family')}, " \
           f"model {facts.get('model')})"
