"""How fast and how punctual the bridge is, against simulated hands paced to the speed of their wire.

    python benchmarks/bridge.py                          # everything, about five minutes
    python benchmarks/bridge.py --seconds 600 --write    # ten minutes for each row of lateness; docs/bridge_results.md
    python benchmarks/bridge.py --only rates --write     # measures that part again and keeps the others of the page

rates      cycles per second, asked for the highest, and poses read, against what the wire or the hand's own rhythm
           allows and against a bare client that asks the same simulated hand back to back
schedule   what the default schedule of an Inspire hand reads per second
lateness   how late the kernel woke the 100 Hz loop, and cycles that ran into the next one, whatever the reason: idle;
           with a thread that holds the interpreter for 100 ms at a time; with --load processes that compute besides;
           and with the bundled model answering pictures in this process besides (where llama.cpp is installed).
           Beside each runs a bare loop that only sleeps, at the same rate and priority: what the machine does to that
           is not ours
latency    follow() to the first byte that carries it, in this process and through a bridge process;
           e-stop to the last byte that changes a target: called here, called while the hand is silent (to the stop
           itself), and from outside at a process that holds its
           interpreter for ever, or that was killed. Where that is allowed follow() is called at a real-time priority:
           what other programs of the machine take does not count
reconnect  hang-up to state disconnected, port back to state idle
loop_cpu   share of one core that the loop's thread takes
"""

from __future__ import annotations

import argparse
import contextlib
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
import tty
from collections import Counter
from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from beingh0_edge.files import write_json
from beingh0_edge.firmware_bridge import Bridge, RunningSimulator, codec, estop_shared, hand_spec, start_simulator
from beingh0_edge.firmware_bridge.hands import HandSpec
from beingh0_edge.firmware_bridge.sharing import open_page
from beingh0_edge.types import HandTrajectory, Observation

HAND = "inspire_rh56"
SPEC = hand_spec(HAND)
PERIOD_S = 1 / SPEC.rate_hz
WRITE, READ = 0x12, 0x11
ANGLE_SET = 1486
REGISTERS = {1546: "angle", 1582: "force", 1594: "current", 1606: "error and status", 1618: "temperature"}
PRIORITY = 70  # of the loop and of the bare loop beside it
ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "docs" / "results" / "bridge.json", ROOT / "docs" / "bridge_results.md"
BARE_LOOP = Path(__file__).with_name("bare_loop.cpp")

# hand, baud, what bounds a cycle, cycles per second that allows, cycles asked for
CYCLES = [
    (HAND, 115200, "58 bytes", 115200 / 580, 198.0),
    (HAND, 57600, "58 bytes", 57600 / 580, 99.0),
    ("leap", 4_000_000, "500 Hz, the most we ask", 500.0, 500.0),
    ("leap", 1_000_000, "356 bytes", 1_000_000 / 3560, 280.0),
    ("allegro_v4", 1_000_000, "a pose every 3 ms", 1000 / 3, 333.0),
    ("allegro_v5", 1_000_000, "a pose every 3 ms", 1000 / 3, 333.0),
    ("allegro_v5", 1_000_000, "a pose every 2 ms", 500.0, 500.0),
]
PARTS = ("rates", "schedule", "lateness", "latency", "reconnect")


def wave(spec: HandSpec, seconds: float) -> HandTrajectory:
    """Slow sines on all joints, starting and ending open."""
    t = np.arange(0.0, seconds, 0.1)
    share = 0.3 * (1 - np.cos(2 * np.pi * t / 4.0))[:, None]
    return HandTrajectory(t, spec.lower_rad + share * (spec.upper_rad - spec.lower_rad), spec.joint_names)


def spread(values: list[float]) -> dict[str, float]:
    ordered = np.sort(values)
    return {"p50": round(statistics.median(values), 2), "p99": round(float(np.quantile(ordered, 0.99)), 2),
            "max": round(max(values), 2), "n": len(values)}


# -- rates

def exchanges(name: str) -> list[tuple[bytes, int]]:
    """The requests of one cycle and the bytes that answer each; none for hands that speak by themselves."""
    frames: Any
    if name == HAND:
        frames = codec(HAND)
        return [(bytes(frames.write(ANGLE_SET, [500] * 6, device_id=1)), 9),
                (bytes(frames.read(1546, 12, device_id=1)), 20)]
    if name == "leap":
        frames, ids = codec("dynamixel"), list(range(16))
        return [(bytes(frames.sync_write(116, {i: (2048).to_bytes(4, "little") for i in ids})), 0),
                (bytes(frames.fast_sync_read(126, 10, ids)), 8 + 16 * 14)]
    return []


@contextlib.contextmanager
def early() -> Iterator[None]:
    """This thread before all ordinary ones, where that is allowed."""
    before, parameter = os.sched_getscheduler(0), os.sched_getparam(0)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    try:
        yield
    finally:
        os.sched_setscheduler(0, before, parameter)


def bare_client_hz(name: str, baud: int, seconds: float) -> float | None:
    """Cycles per second of a client that does nothing but ask: what the simulated hand and this machine allow."""
    if not (cycle := exchanges(name)):
        return None
    with start_simulator(f"sim:{name}?baud={baud}") as simulator, early():
        port = os.open(simulator.port, os.O_RDWR | os.O_NOCTTY)
        tty.setraw(port)
        begin, cycles = time.monotonic(), 0
        while time.monotonic() < begin + seconds:
            for request, size in cycle:
                os.write(port, request)
                while size > 0:
                    size -= len(os.read(port, 4096))
            cycles += 1
        os.close(port)
        return cycles / (time.monotonic() - begin)


def measure_rate(name: str, baud: int, bound: str, limit_hz: float, asked_hz: float,
                 seconds: float) -> dict[str, object]:
    rate = min(asked_hz, limit_hz)
    before = bare_client_hz(name, baud, seconds / 2)
    with Bridge.open(name, port=f"sim:{name}?baud={baud}", baud=baud, rate_hz=rate) as hand:
        hand.arm()
        hand.follow(wave(hand.spec, seconds + 2.0))
        start = hand.state
        time.sleep(seconds)
        end = hand.state
        read = hand._loop.recent(end.cycle - start.cycle)["read"]
    after = bare_client_hz(name, baud, seconds / 2)
    bare = None if before is None or after is None else 0.5 * (before + after)
    elapsed_s = end.t_s - start.t_s
    reached = (end.cycle - start.cycle) / elapsed_s
    return {"hand": name, "baud": baud, "bound by": bound, "limit_hz": round(limit_hz, 1), "asked_hz": round(rate, 1),
            "reached_hz": round(reached, 1), "poses_hz": round(list(read).count("done") / elapsed_s, 1),
            "bare_client_hz": "" if bare is None else round(bare, 1), "of_limit": round(reached / limit_hz, 3),
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
            hand.follow(wave(SPEC, seconds + 2.0))
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


@contextlib.contextmanager
def bare_loop(program: Path, found: dict[str, object]) -> Iterator[None]:
    """Runs beside what is measured; `found` is filled at the end."""
    process = subprocess.Popen([str(program), str(SPEC.rate_hz), str(PRIORITY)], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        said, _ = process.communicate()
        found.update(json.loads(said))


def measure_lateness(kind: str, seconds: float, load: int, program: Path) -> list[dict[str, object]]:
    workers: list[Any] = [multiprocessing.get_context("spawn").Process(target=burn, daemon=True)
               for _ in range(load if kind in ("load", "inference") else 0)]
    until, answered = threading.Event(), [0]
    threads: list[Any] = [threading.Thread(target=hold_interpreter, args=(until,))] if kind != "idle" else []
    if kind == "inference":
        threads.append(threading.Thread(target=infer, args=(until, answered)))
    bare: dict[str, object] = {}
    with Bridge.open(HAND, port=f"sim:{HAND}", realtime_priority=PRIORITY) as hand, bare_loop(program, bare):
        for worker in [*workers, *threads]:
            worker.start()
        thread = int(hand._loop.snapshot()["thread"])
        hand.arm()
        begin, cpu = time.monotonic(), thread_cpu_s(thread)
        start = hand.state
        limits = True
        while (left := begin + seconds - time.monotonic()) > 0:
            hand.arm()
            hand.follow(wave(SPEC, 60.0))
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
    ours = {"who": "bridge", "cycles": state.cycle - start.cycle, "p50_ms": round(state.late_p50_ms, 3),
            "p99_ms": round(state.late_p99_ms, 3), "p999_ms": round(state.late_p999_ms, 3),
            "max_ms": round(state.late_max_ms, 3), "ran_over": state.missed_deadlines - start.missed_deadlines,
            "timeouts": state.counts["timeout"], "within_limits": limits, "loop_cpu": round(cpu / elapsed, 4),
            "answers": answered[0], "realtime": state.realtime}
    common = {"kind": kind, "seconds": round(elapsed)}
    theirs = {"who": "bare loop", **{key: bare.get(key, "") for key in ours if key != "who"}}
    ratio = {key: round(float(ours[key]) / max(float(bare[key]), 1e-3), 2)  # type: ignore[arg-type]
             for key in ("p50_ms", "p99_ms", "p999_ms", "max_ms")}
    return [common | ours, common | theirs, common | {"who": "ratio"} | {key: ratio.get(key, "") for key in ours
                                                                          if key != "who"}]


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
        with early():
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


def measure_silent(hand: Bridge, simulator: RunningSimulator, trace: Path, repeats: int) -> dict[str, float]:
    """From estop() to the first target after it, while the hand does not answer."""
    found = []
    for i in range(min(repeats, 50)):
        hand.arm()
        target = np.stack([hand.state.q_cmd_rad, (0.5 if i % 2 else 0.1) * SPEC.upper_rad])
        hand.follow(HandTrajectory(np.array([0.0, 0.5]), target, SPEC.joint_names))
        time.sleep(0.2)
        simulator.command("fault drop")
        time.sleep(0.04 + 0.00317 * (i % 11))
        stopped = time.monotonic()
        hand.estop()
        time.sleep(0.1)
        found.append(1e3 * (next(when for when, command, address, _ in requests(trace)
                                 if command == WRITE and address == ANGLE_SET and when >= stopped) - stopped))
        simulator.command("fault ")
        while hand.state.q_age_s > PERIOD_S:
            time.sleep(0.01)
        hand.reset()
    return spread(found)


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
                rows.append({"ms": "estop() to the stop, the hand silent",
                             **measure_silent(hand, simulator, trace, repeats)})
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


TITLES = {
    "rates": "Asked for the most",
    "schedule": "The default schedule of an Inspire hand at 100 Hz",
    "lateness": "Lateness of the 100 Hz loop, beside a loop that only sleeps",
    "latency": "From a command or an e-stop to the wire",
    "reconnect": "A pulled cable",
}


def page(result: dict[str, Any]) -> str:
    """The figures as a page of the documentation."""
    lines = ["# The bridge: how fast, how punctual", "",
             "Written by `python benchmarks/bridge.py --write`, against simulated hands that take as long as their "
             "wire would. What each figure is says the head of that file.", ""]
    for part, title in TITLES.items():
        if part not in result:
            continue
        rows, machine = result[part]["rows"], result[part]["machine"]
        lines += [f"## {title}", "", "; ".join(f"{key} {value}" for key, value in machine.items()) + ".", "",
                  "| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
        lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows] + [""]
    return "\n".join(lines)


def machine() -> dict[str, object]:
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]
    return {"measured": date.today().isoformat(), "processor": names[0] if names else platform.machine(),
            "kernel": platform.release(), "cores": os.cpu_count(), "of which used": len(os.sched_getaffinity(0)),
            "load when it began": round(os.getloadavg()[0], 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement of lateness")
    parser.add_argument("--load", type=int, default=os.cpu_count() or 1, help="processes that compute")
    parser.add_argument("--repeats", type=int, default=100, help="of each latency")
    parser.add_argument("--only", choices=PARTS, nargs="*", default=list(PARTS))
    parser.add_argument("--kinds", choices=("idle", "interpreter", "load", "inference"), nargs="*",
                        default=["idle", "interpreter", "load", "inference"], help="rows of lateness")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} and {RESULTS.name} as well")
    arguments = parser.parse_args()
    result: dict[str, Any] = json.loads(RESULTS.read_text()) if arguments.write and RESULTS.exists() else {}

    def add(part: str, rows: list[dict[str, object]], began: dict[str, object]) -> None:
        show(TITLES[part], rows)
        result[part] = {"machine": began, "rows": rows}
        if arguments.write:
            write_json(RESULTS, result)
            PAGE.write_text(page(result))

    began = machine()
    print("  ".join(f"{key} {value}" for key, value in began.items()), flush=True)
    if "rates" in arguments.only:
        add("rates", [measure_rate(*row, seconds=5.0) for row in CYCLES], machine())
    if "schedule" in arguments.only:
        add("schedule", measure_schedule(10.0), machine())
    if "lateness" in arguments.only:
        began, rows = machine(), []
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "bare_loop"
            subprocess.run(["c++", "-std=c++17", "-O2", str(BARE_LOOP), "-o", str(program)], check=True)
            for kind in arguments.kinds:
                try:
                    rows += measure_lateness(kind, arguments.seconds, arguments.load, program)
                except ImportError as error:
                    print(f"no row '{kind}': {error}")
        add("lateness", rows, began)
    if "latency" in arguments.only:
        add("latency", measure_latency(arguments.repeats), machine())
    if "reconnect" in arguments.only:
        add("reconnect", measure_reconnect(min(arguments.repeats, 20)), machine())


if __name__ == "__main__":
    main()
