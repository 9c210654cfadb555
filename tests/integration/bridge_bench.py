"""What the bridge's tests share: simulated hands that stay for the whole session, smooth moves, patience."""

import atexit
import time

import numpy as np

from beingh0_edge.firmware_bridge import Bridge, RunningSimulator, Safety, start_simulator
from beingh0_edge.types import HandTrajectory

PATIENCE_S = 20.0  # far beyond anything expected; only bounds a hang
# Of a noisy wire on a busy machine.
TOLERANT = Safety(consecutive_errors=20, error_rate=0.5, feedback_stale_s=0.5, hold_after_s=1.0)

_running: dict[str, RunningSimulator] = {}


def simulated(name: str, **options: object) -> RunningSimulator:
    """The session's simulated hand of this name, as new, with options set. Starting a process each time would take
    longer than the tests."""
    if name not in _running:
        _running[name] = start_simulator(f"sim:{name}")
        atexit.register(_running[name].close)
    _running[name].command("reset")
    for option, value in options.items():
        _running[name].command(f"set {option}={value}")
    return _running[name]


def open_armed(name: str, port: str | None = None, **options: object) -> Bridge:
    hand = Bridge.open(name, port or simulated(name).port, **options)
    try:
        hand.arm()
    except BaseException:
        hand.close()
        raise
    return hand


def move(names: tuple[str, ...], pose: np.ndarray, seconds: float = 0.3) -> HandTrajectory:
    """A smooth move from open to `pose`."""
    t = np.linspace(0.0, seconds, 16)
    q = 0.5 * (1 - np.cos(np.pi * t / seconds))[:, None] * np.asarray(pose)
    return HandTrajectory(t, q, names)


def wait_for(condition, what: str) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up, f"timed out waiting for {what}"
        time.sleep(0.005)
