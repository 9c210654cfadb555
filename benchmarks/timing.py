"""Timing of several contenders side by side, and what the machine itself can do."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

PROBE = Path(__file__).parent / "probe.cpp"


@dataclass(frozen=True)
class Timing:
    """Microseconds per call."""

    best: float
    median: float
    p99: float


def one_thread() -> None:
    """Must run before numpy, torch or ONNX Runtime is imported."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[name] = "1"


def race(contenders: dict[str, Callable[[], object]], seconds: float) -> dict[str, Timing]:
    """Each contender in turn, again and again, until about `seconds` each have been computed.

    Counts the time this thread computes, so that other work on the core does not count; all contenders have one thread.
    Short calls are timed by the batch, about 100 us long.
    """
    inner: dict[str, int] = {}
    for name, call in contenders.items():
        call()
        call()
        start = time.thread_time()
        call()
        inner[name] = max(1, min(1000, int(1e-4 / max(time.thread_time() - start, 1e-7))))
    spent = dict.fromkeys(contenders, 0.0)
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    while waiting := [name for name in contenders if spent[name] < seconds]:
        for name in waiting:
            call, count = contenders[name], inner[name]
            start = time.thread_time()
            for _ in range(count):
                call()
            took = time.thread_time() - start
            spent[name] += took
            taken[name].append(took / count * 1e6)
    return {name: Timing(min(values), statistics.median(values), sorted(values)[int(0.99 * (len(values) - 1))])
            for name, values in taken.items()}


@dataclass(frozen=True)
class Machine:
    cpu: str
    fma_gflops: float
    pair_gflops: float | None  # multiply-adds of 16-bit pairs, None without AVX-512 VNNI
    read_gb_s: dict[int, float]  # by bytes read again and again

    def text(self) -> str:
        pairs = f", {self.pair_gflops:.0f} of 16-bit pairs" if self.pair_gflops else ""
        reads = ", ".join(f"{rate:.0f} GB/s of {size / 1e6:.2g} MB" for size, rate in self.read_gb_s.items())
        return f"{self.cpu}; one core: {self.fma_gflops:.0f} GFLOP/s float32{pairs}; reads {reads}"


def probe(sizes: Sequence[int]) -> Machine:
    """Compiles and runs probe.cpp for this machine."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "probe")
        subprocess.run([os.environ.get("CXX", "c++"), "-O3", "-march=native", "-funroll-loops", str(PROBE), "-o",
                        program], check=True)
        found = json.loads(subprocess.run([program, *map(str, sizes)], check=True, capture_output=True,
                                          text=True).stdout)
    return Machine(cpu_name(), found["fma_gflops"], found.get("pair_gflops"),
                   {int(size): rate for size, rate in found["read_gb_s"].items()})


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines[:30] if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    return f"{facts.get('model name', platform.machine())} (family {facts.get('cpu family')}, " \
           f"model {facts.get('model')})"
