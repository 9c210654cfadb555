"""How fast and how punctual the bridge is, against paced simulated hands.

    python benchmarks/bridge.py                      # about two minutes
    python benchmarks/bridge.py --seconds 600 --load 2 --json bridge.json

rates      cycles per second, asked for the highest, against what the bytes on the wire allow
lateness   how late the kernel woke the 100 Hz loop, and deadlines missed because of slow replies: idle, with a thread
           that holds the interpreter for 100 ms at a time, and with --load processes that compute besides
latency    follow() to the first changed target on the wire; estop() to the last changed target on the wire
reconnect  port back to state idle
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import platform
import resource
import statistics
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from beingh0_edge.firmware_bridge import Bridge, hand_spec, start_simulator
from beingh0_edge.types import HandTrajectory

ANGLE_SET = bytes.fromhex("12ce05")  # command and address of the write in an Inspire frame
# hand, baud, bytes of one cycle on the wire (write and its reply, read and its reply), cycles asked for
CYCLES = [
    ("inspire_rh56", 115200, 58, 198.0),
    ("inspire_rh56", 57600, 58, 99.0),
    ("leap", 4_000_000, 94 + 30 + 232, 500.0),
    ("leap", 1_000_000, 94 + 30 + 232, 250.0),
]


def wave(names: tuple[str, ...], upper: np.ndarray, seconds: float) -> HandTrajectory:
    """Slow sines on all joints, starting and ending open."""
    t = np.arange(0.0, seconds, 0.1)
    q = 0.3 * (1 - np.cos(2 * np.pi * t / 4.0))[:, None] * upper
    return HandTrajectory(t, q, names)


def measure_rate(name: str, baud: int, cycle_bytes: int, asked_hz: float, seconds: float) -> dict[str, object]:
    limit_hz = baud / 10 / cycle_bytes
    rate = min(asked_hz, 0.995 * limit_hz)
    with Bridge.open(name, port=f"sim:{name}?baud={baud}", baud=baud, rate_hz=rate) as hand:
        hand.arm()
        hand.follow(wave(hand.spec.joint_names, hand.spec.upper_rad, seconds + 2.0))
        start = hand.state
        time.sleep(seconds)
        end = hand.state
    reached = (end.cycle - start.cycle) / (end.t_s - start.t_s)
    return {"hand": name, "baud": baud, "wire_limit_hz": round(limit_hz, 1), "asked_hz": round(rate, 1),
            "reached_hz": round(reached, 1), "of_asked": round(reached / rate, 3),
            "of_limit": round(reached / limit_hz, 3), "missed": end.missed_deadlines - start.missed_deadlines,
            "errors": sum(end.counts[k] for k in ("timeout", "checksum", "truncated"))}


def burn() -> None:
    a = np.random.default_rng(0).standard_normal((256, 256))
    while True:
        a = np.tanh(a @ a.T / 256)


def hold_interpreter(until: threading.Event) -> None:
    usleep = ctypes.PyDLL(None).usleep  # keeps the GIL while it sleeps
    while not until.is_set():
        usleep(100_000)
        time.sleep(0.001)


def measure_lateness(kind: str, seconds: float, load: int) -> dict[str, object]:
    workers = [multiprocessing.get_context("spawn").Process(target=burn, daemon=True)
               for _ in range(load if kind == "load" else 0)]
    until = threading.Event()
    thread = threading.Thread(target=hold_interpreter, args=(until,)) if kind != "idle" else None
    with Bridge.open("inspire_rh56", port="sim:inspire_rh56") as hand:
        for worker in workers:
            worker.start()
        hand.arm()
        hand.follow(wave(hand.spec.joint_names, hand.spec.upper_rad, min(seconds, 590.0)))
        if thread:
            thread.start()
        before = resource.getrusage(resource.RUSAGE_SELF)
        begin = time.monotonic()
        time.sleep(seconds)
        used = resource.getrusage(resource.RUSAGE_SELF)
        elapsed = time.monotonic() - begin
        until.set()
        if thread:
            thread.join()
        state = hand.state
    for worker in workers:
        worker.terminate()
        worker.join()
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return {"kind": kind, "seconds": round(elapsed, 1), "cycles": state.cycle, "missed": state.missed_deadlines,
            "p50_ms": state.late_p50_ms, "p99_ms": state.late_p99_ms, "p999_ms": state.late_p999_ms,
            "max_ms": round(state.late_max_ms, 3), "process_cpu": round(cpu / elapsed, 4),
            "realtime": state.realtime}


def targets(trace: Path) -> list[tuple[float, bytes]]:
    """When which target was on the wire."""
    rows = []
    for line in trace.read_text().splitlines():
        when, text = line.split()
        frame = bytes.fromhex(text)
        if frame[4:7] == ANGLE_SET:
            rows.append((float(when), frame[7:19]))
    return rows


def measure_latency(repeats: int) -> dict[str, object]:
    spec = hand_spec("inspire_rh56")
    follow_ms, estop_ms, reconnect_ms = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        with start_simulator(f"sim:inspire_rh56?trace={trace}") as simulator, \
                Bridge.open("inspire_rh56", port=simulator.port) as hand:
            for i in range(repeats):
                hand.arm()
                time.sleep(0.05 + 0.0007 * i)  # at every phase of the cycle
                asked = time.monotonic()
                hand.follow(HandTrajectory(np.array([0.0, 0.5]), np.stack([hand.state.q_cmd_rad, 0.5 * spec.upper_rad]),
                                           spec.joint_names))
                time.sleep(0.2)
                stopped = time.monotonic()
                hand.estop()
                time.sleep(0.1)
                rows = targets(trace)
                before = [target for when, target in rows if when < asked][-1]
                follow_ms.append(1e3 * (next(w for w, target in rows if w >= asked and target != before) - asked))
                after = [(when, target) for when, target in rows if when > stopped - 0.05]
                last = max(when for (_, a), (when, b) in pairwise(after) if a != b)
                estop_ms.append(1e3 * max(0.0, last - stopped))
                hand.reset()
                hand.arm()
                hand.follow(HandTrajectory(np.array([0.0, 0.3]), np.stack([hand.state.q_cmd_rad, 0 * spec.upper_rad]),
                                           spec.joint_names), blocking=True)
            for _ in range(min(repeats, 10)):
                simulator.command("unplug")
                while hand.state.state != "disconnected":
                    time.sleep(0.001)
                simulator.command("replug")
                back = time.monotonic()
                while hand.state.state != "idle":
                    time.sleep(0.001)
                reconnect_ms.append(1e3 * (time.monotonic() - back))

    def spread(values: list[float]) -> dict[str, float]:
        return {"p50": round(statistics.median(values), 2), "max": round(max(values), 2)}

    return {"follow_to_first_byte_ms": spread(follow_ms), "estop_to_last_motion_byte_ms": spread(estop_ms),
            "reconnect_ms": spread(reconnect_ms), "repeats": repeats}


def show(title: str, rows: list[dict[str, object]]) -> None:
    print(f"\n{title}")
    widths = {key: max(len(key), *(len(str(row[key])) for row in rows)) for key in rows[0]}
    print("  ".join(key.rjust(width) for key, width in widths.items()))
    for row in rows:
        print("  ".join(str(row[key]).rjust(width) for key, width in widths.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement of lateness")
    parser.add_argument("--load", type=int, default=os.cpu_count() or 1, help="processes that compute")
    parser.add_argument("--repeats", type=int, default=30, help="of each latency")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    machine = {"machine": platform.processor() or platform.machine(), "kernel": platform.release(),
               "cores": os.cpu_count(), "other_load": round(os.getloadavg()[0], 2)}
    print("  ".join(f"{key} {value}" for key, value in machine.items()))
    rates = [measure_rate(*row, seconds=5.0) for row in CYCLES]
    show("rates", rates)
    lateness = [measure_lateness(kind, arguments.seconds, arguments.load) for kind in ("idle", "interpreter", "load")]
    show("lateness of the 100 Hz loop", lateness)
    latency = measure_latency(arguments.repeats)
    show("latency", [{"what": key, **value} for key, value in latency.items() if isinstance(value, dict)])
    if arguments.json:
        arguments.json.write_text(json.dumps({**machine, "rates": rates, "lateness": lateness, "latency": latency},
                                             indent=1) + "\n")


if __name__ == "__main__":
    main()
