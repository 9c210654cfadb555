"""How fast and how punctual the bridge is, against simulated hands paced to the speed of their wire.

    python benchmarks/bridge.py                                   # everything, about five minutes
    python benchmarks/bridge.py --seconds 600 --json bridge.json  # ten minutes for each row of lateness

rates      cycles per second, asked for the highest, against what the bytes on the wire allow; and what the default
           schedule of an Inspire hand reads per second
lateness   how late the kernel woke the 100 Hz loop, and deadlines missed, whatever the reason: idle; with a thread that
           holds the interpreter for 100 ms at a time; with --load processes that compute besides; and with the bundled
           model answering pictures in this process besides (where llama.cpp is installed)
latency    follow() to the first byte that carries it, in this process and through a bridge process;
           e-stop to the last byte that changes a target: called here, and from outside at a process that holds its
           interpreter for ever, or that was killed
reconnect  hang-up to state disconnected, port back to state idle
cpu        share of one core that the loop's thread takes
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from beingh0_edge.firmware_bridge import Bridge, RunningSimulator, estop_shared, hand_spec, start_simulator
from beingh0_edge.firmware_bridge.sharing import open_page
from beingh0_edge.types import HandTrajectory, Observation

HAND = "inspire_rh56"
SPEC = hand_spec(HAND)
PERIOD_S = 1 / SPEC.rate_hz
WRITE, READ = 0x12, 0x11
ANGLE_SET = 1486
REGISTERS = {1546: "angle", 1582: "force", 1594: "current", 1606: "error and status", 1618: "temperature"}
# hand, baud, bytes of one cycle on the wire (write and its reply, read and its reply), cycles asked for
CYCLES = [
    (HAND, 115200, 58, 198.0),
    (HAND, 57600, 58, 99.0),
    ("leap", 4_000_000, 94 + 30 + 232, 500.0),
    ("leap", 1_000_000, 94 + 30 + 232, 250.0),
]
PARTS = ("rates", "schedule", "lateness", "latency", "reconnect")


def wave(names: tuple[str, ...], upper: np.ndarray, seconds: float) -> HandTrajectory:
    """Slow sines on all joints, starting and ending open."""
    t = np.arange(0.0, seconds, 0.1)
    q = 0.3 * (1 - np.cos(2 * np.pi * t / 4.0))[:, None] * upper
    return HandTrajectory(t, q, names)


def spread(values: list[float]) -> dict[str, float]:
    ordered = np.sort(values)
    return {"p50": round(statistics.median(values), 2), "p99": round(float(np.quantile(ordered, 0.99)), 2),
            "max": round(max(values), 2), "n": len(values)}


# -- rates

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


def requests(trace: Path) -> list[tuple[float, int, int, bytes]]:
    """(when, command, address, data) of every frame that an Inspire hand received."""
    rows = []
    for line in trace.read_text().splitlines():
        when, text = line.split()
        frame = bytes.fromhex(text)
        if len(frame) >= 8:
            rows.append((float(when), frame[4], frame[5] | frame[6] << 8, frame[7:-1]))
    return rows


def measure_schedule(seconds: float) -> list[dict[str, object]]:
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace"
        with start_simulator(f"sim:{HAND}?trace={trace}") as simulator, Bridge.open(HAND, port=simulator.port) as hand:
            hand.arm()
            hand.follow(wave(SPEC.joint_names, SPEC.upper_rad, seconds + 2.0))
            begin = time.monotonic()
            time.sleep(seconds)
            end = time.monotonic()
        rows = [row for row in requests(trace) if begin <= row[0] < end]
    counts = Counter((command, address) for _, command, address, _ in rows)
    table: list[dict[str, object]] = [
        {"what": "write angle targets", "per_second": round(counts[(WRITE, ANGLE_SET)] / (end - begin), 1)}]
    return table + [{"what": f"read {name}", "per_second": round(counts[(READ, address)] / (end - begin), 1)}
                    for address, name in REGISTERS.items()]


# -- lateness

def burn() -> None:
    a = np.random.default_rng(0).standard_normal((256, 256))
    while True:
        a = np.tanh(a @ a.T / 256)


def hold_interpreter(until: threading.Event) -> None:
    usleep = ctypes.PyDLL(None).usleep  # keeps the GIL while it sleeps
    while not until.is_set():
        usleep(100_000)
        time.sleep(0.001)


def infer(until: threading.Event, answered: list[int]) -> None:
    """The bundled model, over and over."""
    from beingh0_edge import Policy

    policy = Policy.load("nano")
    picture = np.full((240, 320, 3), 128, np.uint8)
    while not until.is_set():
        policy.generate(Observation(picture, "pick up the red can"), 1, "right")
        answered[0] += 1


def thread_cpu_s(thread: int) -> float:
    """Processor time of one thread of this process, by the scheduler's own account."""
    return int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[0]) * 1e-9


def measure_lateness(kind: str, seconds: float, load: int) -> dict[str, object]:
    workers: list[Any] = [multiprocessing.get_context("spawn").Process(target=burn, daemon=True)
               for _ in range(load if kind in ("load", "inference") else 0)]
    until, answered = threading.Event(), [0]
    threads: list[Any] = [threading.Thread(target=hold_interpreter, args=(until,))] if kind != "idle" else []
    if kind == "inference":
        threads.append(threading.Thread(target=infer, args=(until, answered)))
    with Bridge.open(HAND, port=f"sim:{HAND}") as hand:
        for worker in [*workers, *threads]:
            worker.start()
        thread = int(hand._loop.snapshot()["thread"])
        hand.arm()
        begin, cpu = time.monotonic(), thread_cpu_s(thread)
        start = hand.state
        limits = True
        while (left := begin + seconds - time.monotonic()) > 0:
            hand.arm()
            hand.follow(wave(SPEC.joint_names, SPEC.upper_rad, 60.0))
            time.sleep(min(left, 55.0))
            log = hand.log
            speed = np.abs(np.diff(log.q_cmd_rad, axis=0)) * SPEC.rate_hz
            limits &= bool((speed <= SPEC.max_speed_rad_s * 1.0001).all())
        elapsed, cpu = time.monotonic() - begin, thread_cpu_s(thread) - cpu
        state = hand.state
        until.set()
        for worker in threads:
            worker.join()
    for process in workers:
        process.terminate()
        process.join()
    row: dict[str, object] = {
        "kind": kind, "seconds": round(elapsed, 1), "cycles": state.cycle - start.cycle,
        "missed": state.missed_deadlines - start.missed_deadlines, "p50_ms": round(state.late_p50_ms, 3),
        "p99_ms": round(state.late_p99_ms, 3), "p999_ms": round(state.late_p999_ms, 3),
        "max_ms": round(state.late_max_ms, 3), "timeouts": state.counts["timeout"], "within_limits": limits,
        "loop_cpu": round(cpu / elapsed, 4), "realtime": state.realtime}
    return row | {"answers": answered[0]}


# -- latency

def first_byte_ms(hand: Bridge, trace: Path, asked: float) -> float:
    """From `asked` to the first frame of the cycle in which the command first changed."""
    log = hand.log.after(asked - 0.05)
    changed = np.flatnonzero(np.diff(log.q_cmd_rad, axis=0).any(axis=1)) + 1
    cycle = next(i for i in changed if log.t_s[i] + PERIOD_S >= asked)
    return 1e3 * (next(when for when, command, address, _ in requests(trace)[-200:]
                       if command == WRITE and address == ANGLE_SET and when >= max(asked, log.t_s[cycle])) - asked)


def measure_follow(hand: Bridge, trace: Path, repeats: int) -> dict[str, float]:
    found = []
    for i in range(repeats):
        hand.arm()
        time.sleep(0.05 + 0.00137 * (i % 17))  # at every phase of the cycle
        pose = hand.state.q_cmd_rad
        goal = np.where(pose > 0.25 * SPEC.upper_rad, 0.0, 0.5 * SPEC.upper_rad)
        target = HandTrajectory(np.array([0.0, 0.4]), np.stack([pose, goal]), SPEC.joint_names)
        asked = time.monotonic()
        hand.follow(target)
        time.sleep(0.06)
        found.append(first_byte_ms(hand, trace, asked))
        hand.wait()
    return spread(found)


def last_change_ms(trace: Path, stopped: float) -> float:
    """From `stopped` to the last frame with another target than the frame before."""
    targets = [(when, data) for when, command, address, data in requests(trace)
               if command == WRITE and address == ANGLE_SET and when > stopped - 0.1]
    last = max((when for (_, a), (when, b) in pairwise(targets) if a != b), default=stopped)
    return 1e3 * max(0.0, last - stopped)


POLICY = f"""
import ctypes, sys, time
import numpy as np
from beingh0_edge.firmware_bridge import Bridge, hand_spec
from beingh0_edge.types import HandTrajectory
spec = hand_spec({HAND!r})
hand = Bridge.open({HAND!r}, sys.argv[1], share='benchmark')
hand.arm()
hand.follow(HandTrajectory(np.array([0.0, 5.0]), np.array([0 * spec.upper_rad, spec.upper_rad]), spec.joint_names))
print('moving', flush=True)
ctypes.PyDLL(None).sleep(1000)  # the interpreter is never given back
"""


def measure_estop_outside(simulator: RunningSimulator, trace: Path, how: str) -> float:
    simulator.command("reset")
    with subprocess.Popen([sys.executable, "-c", POLICY, simulator.port], stdout=subprocess.PIPE, text=True) as policy:
        try:
            assert policy.stdout is not None
            policy.stdout.readline()
            page = open_page("benchmark")
            while page.snapshot()["q_rad"][0] < 0.1:
                time.sleep(0.005)
            if how == "killed":
                policy.kill()
                policy.wait()
            stopped = time.monotonic()
            estop_shared("benchmark")
            done = time.monotonic()
            time.sleep(0.2)
        finally:
            policy.kill()
    return last_change_ms(trace, stopped) if how != "killed" else 1e3 * (done - stopped)


def measure_latency(repeats: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BEINGH0_RUNTIME_DIR"] = str(Path(folder) / "run")
        trace = Path(folder) / "trace"
        with start_simulator(f"sim:{HAND}?trace={trace}") as simulator:
            with Bridge.open(HAND, port=simulator.port) as hand:
                rows.append({"ms": "follow() to first byte", **measure_follow(hand, trace, repeats)})
                found = []
                for _ in range(min(repeats, 50)):
                    hand.arm()
                    target = np.stack([hand.state.q_cmd_rad, 0.5 * SPEC.upper_rad])
                    hand.follow(HandTrajectory(np.array([0.0, 0.5]), target, SPEC.joint_names))
                    time.sleep(0.2)
                    stopped = time.monotonic()
                    hand.estop()
                    time.sleep(0.1)
                    found.append(last_change_ms(trace, stopped))
                    hand.reset()
                    hand.arm()
                    target = np.stack([hand.state.q_cmd_rad, 0 * SPEC.upper_rad])
                    hand.follow(HandTrajectory(np.array([0.0, 0.3]), target, SPEC.joint_names), blocking=True)
                rows.append({"ms": "estop() to last change", **spread(found)})
            with subprocess.Popen(
                    [sys.executable, "-m", "beingh0_edge", "bridge", HAND, "--port", simulator.port, "--as", "served"],
                    stdout=subprocess.PIPE, text=True) as server:
                assert server.stdout is not None
                server.stdout.readline()
                with Bridge.open(HAND, "bridge:served") as hand:
                    rows.append({"ms": "the same through beingh0 bridge", **measure_follow(hand, trace, repeats)})
                server.terminate()
            for how, name in (("hangs", "e-stop from outside to last change, interpreter held for ever"),
                              ("killed", "e-stop from outside after kill -9, until the hand was stopped")):
                values = [measure_estop_outside(simulator, trace, how) for _ in range(min(repeats, 10))]
                rows.append({"ms": name, **spread(values)})
    return rows


def measure_reconnect(repeats: int) -> list[dict[str, object]]:
    lost_ms, back_ms = [], []
    with start_simulator(f"sim:{HAND}") as simulator, Bridge.open(HAND, port=simulator.port) as hand:
        for _ in range(repeats):
            begin = time.monotonic()
            simulator.command("unplug")
            while hand.state.state != "disconnected":
                time.sleep(0.0005)
            lost_ms.append(1e3 * (time.monotonic() - begin))
            simulator.command("replug")
            begin = time.monotonic()
            while hand.state.state != "idle":
                time.sleep(0.001)
            back_ms.append(1e3 * (time.monotonic() - begin))
    return [{"ms": "unplugged to disconnected", **spread(lost_ms)}, {"ms": "port back to idle", **spread(back_ms)}]


def show(title: str, rows: list[dict[str, object]]) -> None:
    print(f"\n{title}")
    widths = {key: max(len(key), *(len(str(row[key])) for row in rows)) for key in rows[0]}
    print("  ".join(key.rjust(width) for key, width in widths.items()))
    for row in rows:
        print("  ".join(str(row[key]).rjust(width) for key, width in widths.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement of lateness")
    parser.add_argument("--load", type=int, default=os.cpu_count() or 1, help="processes that compute")
    parser.add_argument("--repeats", type=int, default=100, help="of each latency")
    parser.add_argument("--only", choices=PARTS, nargs="*", default=list(PARTS))
    parser.add_argument("--kinds", choices=("idle", "interpreter", "load", "inference"), nargs="*",
                        default=["idle", "interpreter", "load", "inference"], help="rows of lateness")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    result: dict[str, object] = {
        "machine": platform.processor() or platform.machine(), "kernel": platform.release(), "cores": os.cpu_count(),
        "allowed_cores": sorted(os.sched_getaffinity(0)), "load_at_start": round(os.getloadavg()[0], 2)}
    print("  ".join(f"{key} {value}" for key, value in result.items()), flush=True)

    def add(part: str, title: str, rows: list[dict[str, object]]) -> None:
        show(title, rows)
        result[part] = rows
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=1) + "\n")

    if "rates" in arguments.only:
        add("rates", "rates", [measure_rate(*row, seconds=5.0) for row in CYCLES])
    if "schedule" in arguments.only:
        add("schedule", "default schedule at 100 Hz", measure_schedule(10.0))
    if "lateness" in arguments.only:
        rows = []
        for kind in arguments.kinds:
            try:
                rows.append(measure_lateness(kind, arguments.seconds, arguments.load))
            except ImportError as error:
                print(f"no row '{kind}': {error}")
        add("lateness", "lateness of the 100 Hz loop", rows)
    if "latency" in arguments.only:
        add("latency", "latency", measure_latency(arguments.repeats))
    if "reconnect" in arguments.only:
        add("reconnect", "reconnect", measure_reconnect(min(arguments.repeats, 20)))


if __name__ == "__main__":
    main()
