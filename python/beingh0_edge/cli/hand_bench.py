"""`beingh0 hand ...` and `beingh0 bridge`: a hand on the bench, without a model."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import HandError, LimitError, TransportError, TransportTimeout
from ..files import check_file_target
from ..firmware_bridge import (
    HANDS,
    Bridge,
    HandLog,
    HandState,
    available_ports,
    estop_shared,
    hand_spec,
    shared_names,
)
from ..firmware_bridge._bridge import SharedPage
from ..firmware_bridge.hands import OptionValue
from ..firmware_bridge.sharing import SharedHand, open_page
from ..types import HandTrajectory
from .plots import plot_tracking
from .tables import table

Array = npt.NDArray[np.float64]

_SHARED = "bridge:"
_SETTLE_S = 0.3       # a hand is behind its command by less than this
_GENTLE = 0.25        # of the joint's speed, at most, when no time is asked for
_PEAK = np.pi / 2     # of a cosine ramp's speed over its mean
_OUTSIDE_RAD = 0.05   # sensors read a little past their ends; a recording may, too
_POLL_S = 0.5
_LONGEST_WAIT_S = 120.0
_PLOTS = (".png", ".jpg", ".pdf", ".svg")
_FRAME_S = 0.1


@dataclass(frozen=True)
class Where:
    """Which hand, and how to reach it; None is the hand's own default."""

    hand: str
    port: str
    side: str = "right"
    rate_hz: float | None = None
    baud: int | None = None
    device_id: int | None = None
    options: tuple[str, ...] = ()

    def open(self, share: str | None = None) -> Bridge:
        chosen: dict[str, Any] = dict(_option(self.hand, text) for text in self.options)
        return Bridge.open(self.hand, self.port, side=self.side, rate_hz=self.rate_hz, baud=self.baud,
                           device_id=self.device_id, share=share, **chosen)


def _option(hand: str, text: str) -> tuple[str, OptionValue]:
    """`force_g=300` as the hand's description wants it; unknown names and bad values are the bridge's to refuse."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--option: expected NAME=VALUE, got {text!r}")
    options = hand_spec(hand).options
    if name not in options:
        raise ValueError(f"--option: unknown option {name!r} of {hand}; known: {', '.join(options) or 'none'}")
    known = options[name]
    if known.bounds is None:
        words: dict[str, OptionValue] = {"true": True, "false": False, "none": None}
        return name, words.get(value.lower(), value)
    try:
        return name, int(value) if isinstance(known.default, int) else float(value)
    except ValueError:
        raise ValueError(f"--option {name}: expected a number, got {value!r}") from None


# -- looking

def probe(hand: str | None, ports: list[str], baud: int | None, device_id: int | None) -> str:
    """Asks every port for every hand (or for one), by reading what identifies it."""
    specs = [hand_spec(hand)] if hand else [spec for spec in HANDS.values() if spec.wire != "tcp"]
    places = ports or available_ports()
    if not places:
        raise ValueError("no serial port on this machine; give one with --port")
    rows, silent = [], []
    for port in places:
        for spec in specs:
            if (spec.wire == "can") != (port.startswith(("can", "slcan:", "vcan"))) and not port.startswith("sim:"):
                continue
            try:
                with Bridge.open(spec.name, port, baud=baud, device_id=device_id) as found:
                    rows.append((port, spec.name, _brief(found.state)))
                    break
            except TransportTimeout as error:
                silent.append(f"{port}: {spec.name}: {error}")
            except TransportError as error:  # the port itself: no other hand will be found on it
                silent.append(f"{port}: {error}")
                break
            except HandError as error:
                silent.append(f"{port}: {spec.name}: {error}")
    if not rows:
        raise TransportError("no hand answers\n" + "\n".join(silent))
    return table([("port", "hand", "state"), *rows])


def _brief(state: HandState) -> str:
    warm = f", {state.temperature_c.max():.0f} degC" if state.temperature_c.any() else ""
    errors = "" if not state.error_bits.any() else ", reports errors"
    pose = " ".join(f"{angle:.0f}" for angle in np.degrees(state.q_rad))
    return f"{state.state}, joints at {pose} deg{warm}{errors}"


def monitor(where: Where, seconds: float | None, write: Callable[[str], None]) -> None:
    """A live view until `seconds` have passed or Ctrl-C; of `bridge:NAME` without a word to the bridge."""
    _check_seconds(seconds)
    spec = hand_spec(where.hand)

    def show(look: Callable[[], HandState]) -> None:
        live = sys.stdout.isatty()
        end = None if seconds is None else time.monotonic() + seconds
        before = look()
        lines = 0
        while end is None or time.monotonic() < end:
            time.sleep(_FRAME_S if live else max(_FRAME_S, min(1.0, seconds or 1.0)))
            state = look()
            text = _frame(state, before, spec.error_bits)
            write((f"\x1b[{lines}F\x1b[J" if live and lines else "") + text)
            lines, before = text.count("\n") + 1, state

    if where.port.startswith(_SHARED):
        page = _page_of(where)
        show(lambda: HandState.of(page.snapshot(), spec.joint_names, time.monotonic()))
    else:
        with where.open() as hand:
            show(lambda: hand.state)


def _page_of(where: Where) -> SharedPage:
    """What a running bridge shows, if it drives that hand."""
    if (where.rate_hz, where.baud, where.device_id, where.options) != (None, None, None, ()):
        raise ValueError(f"--rate, --baud, --id, --option: expected to be set where {where.port} was started, not here")
    name = where.port.removeprefix(_SHARED)
    SharedHand.load(name).check(where.hand, where.side, where.port)
    return open_page(name)


def _frame(state: HandState, before: HandState, bit_names: Any) -> str:
    elapsed_s = state.t_s - before.t_s
    rate = (state.cycle - before.cycle) / elapsed_s if elapsed_s > 0 else 0.0
    failures = sum(count for kind, count in state.counts.items() if kind != "transactions")
    rows = [("joint", "angle", "command", "force", "current", "temp", "")]
    for i, name in enumerate(state.joint_names):
        words = [text for bit, text in bit_names.items() if int(state.error_bits[i]) >> bit & 1]
        rows.append((name, f"{np.degrees(state.q_rad[i]):7.1f} deg", f"{np.degrees(state.q_cmd_rad[i]):7.1f} deg",
                     f"{state.force_g[i]:6.0f} g", f"{state.current_a[i]:6.2f} A", f"{state.temperature_c[i]:4.0f} C",
                     ", ".join(words)))
    head = (f"{state.state} ({state.reason})  {rate:.1f} Hz  late p99 {state.late_p99_ms:.2f} ms, max "
            f"{state.late_max_ms:.2f} ms  missed {state.missed_deadlines}  failed {failures}  "
            f"pose {1000 * state.q_age_s:.0f} ms old{'' if state.realtime else '  no real-time priority'}")
    return head + "\n" + table(rows)


def record(where: Where, out: Path, seconds: float | None, write: Callable[[str], None]) -> str:
    """Writes the cycles of a hand to `out` until `seconds` have passed or Ctrl-C; a plot beside it."""
    if out.suffix != ".npz":
        raise ValueError(f"--out: expected a name that ends in .npz, got {out}")
    _check_seconds(seconds)
    check_file_target(out)
    names = hand_spec(where.hand).joint_names

    def collect(look: Callable[[], HandLog]) -> HandLog:
        began = last = time.monotonic()
        parts: list[HandLog] = []
        try:
            while seconds is None or time.monotonic() < began + seconds:
                left = _POLL_S if seconds is None else min(_POLL_S, began + seconds - time.monotonic())
                time.sleep(max(0.0, left))
                fresh = look().after(last)
                if len(fresh.t_s):
                    parts.append(fresh)
                    last = float(fresh.t_s[-1])
                write(f"{last - began:6.1f} s, {sum(len(part.t_s) for part in parts)} cycles")
        except KeyboardInterrupt:
            pass  # what was collected is kept
        if not parts:
            raise HandError(f"{where.hand}: no cycle in {time.monotonic() - began:.1f} s", where.hand)
        return HandLog.joined(parts)

    if where.port.startswith(_SHARED):
        page = _page_of(where)
        log = collect(lambda: HandLog.of(page.recent(1 << 20), names))
    else:
        with where.open() as hand:
            log = collect(lambda: hand.log)
    log.save(out, where.hand, where.side)
    picture = out.with_suffix(".png")
    plot_tracking(picture, None, log, float(log.t_s[0]), f"{where.hand} on {where.port}, recorded")
    return f"{len(log.t_s)} cycles over {log.t_s[-1] - log.t_s[0]:.1f} s in {out}, plot in {picture}"


def _check_seconds(seconds: float | None) -> None:
    if seconds is not None and not 0.0 < seconds < np.inf:
        raise ValueError(f"--seconds: expected more than 0, got {seconds!r}")


# -- moving

def go(where: Where, share_closed: float, seconds: float | None, plot: Path, log_file: Path | None) -> str:
    """All joints to a share of their way from open (0 rad, or their end) to closed."""
    if not 0.0 <= share_closed <= 1.0:
        raise ValueError(f"--amount: expected 0 to 1, got {share_closed!r}")
    spec = hand_spec(where.hand)
    opened = np.clip(0.0, spec.lower_rad, spec.upper_rad)
    goal = opened + share_closed * (spec.upper_rad - opened)
    return _move(where, lambda pose: goal, seconds, plot, log_file)


def jog(where: Where, joint: str, degrees: float, seconds: float | None, plot: Path, log_file: Path | None) -> str:
    """One joint by so many degrees from where it is."""
    spec = hand_spec(where.hand)
    if joint not in spec.joint_names:
        raise ValueError(f"joint: expected one of {', '.join(spec.joint_names)}, got {joint!r}")
    if not np.isfinite(degrees):
        raise ValueError(f"degrees: expected a number, got {degrees!r}")
    i = spec.joint_names.index(joint)

    def goal(pose: Array) -> Array:
        wanted = pose.copy()
        wanted[i] += np.radians(degrees)
        if not spec.lower_rad[i] <= wanted[i] <= spec.upper_rad[i]:
            raise LimitError(f"{joint} is at {np.degrees(pose[i]):.1f} deg; {degrees:+g} leaves its range, "
                             f"{np.degrees(spec.lower_rad[i]):.1f} to {np.degrees(spec.upper_rad[i]):.1f}", where.hand)
        return wanted

    return _move(where, goal, seconds, plot, log_file)


def replay(where: Where, recording: Path, speed: float, plot: Path, log_file: Path | None) -> str:
    """Follows the measured angles of a recording: first slowly to where they begin, then at `speed` times theirs."""
    log, hand, _ = HandLog.load(recording)
    spec = hand_spec(where.hand)
    if log.joint_names != spec.joint_names:
        raise ValueError(f"{recording} was recorded from {hand}, which has other joints than {where.hand}")
    if not 0.05 <= speed <= 2.0:
        raise ValueError(f"--speed: expected 0.05 to 2, got {speed!r}")
    keep = np.flatnonzero(np.r_[True, np.diff(log.q_rad, axis=0).any(axis=1)])  # a pose that was not read anew repeats
    q = log.q_rad[keep]
    beyond = np.maximum(spec.lower_rad - q, q - spec.upper_rad).max(axis=0)
    if (beyond > _OUTSIDE_RAD).any():
        j = int(beyond.argmax())
        raise LimitError(f"{recording}: {spec.joint_names[j]} leaves its range by {np.degrees(beyond[j]):.1f} deg",
                         where.hand)
    t = (log.t_s[keep] - log.t_s[keep[0]]) / speed
    trajectory = HandTrajectory(t, np.clip(q, spec.lower_rad, spec.upper_rad), spec.joint_names)
    return _move(where, lambda pose: trajectory.q_rad[0], None, plot, log_file, trajectory)


def _move(where: Where, goal_of: Callable[[Array], Array], seconds: float | None, plot: Path, log_file: Path | None,
          then: HandTrajectory | None = None) -> str:
    if seconds is not None and not 0.0 < seconds <= 60.0:
        raise ValueError(f"--seconds: expected more than 0 and up to 60, got {seconds!r}")
    if plot.suffix.lower() not in _PLOTS:
        raise ValueError(f"--plot: expected a name that ends in {', '.join(_PLOTS)}, got {plot}")
    for file in (plot, log_file):
        if file is not None:
            check_file_target(file)  # before the hand moves
    with where.open() as hand:
        hand.arm()
        pose = hand.state.q_cmd_rad
        goal = goal_of(pose)
        needed = float((_PEAK * np.abs(goal - pose) / hand.spec.max_speed_rad_s).max())
        lasts = max(needed, 0.2) if seconds is not None else max(needed / _GENTLE, 0.2)
        ramp = _ramp(pose, goal, max(lasts, seconds or 0.0), hand.spec.joint_names)
        start_s = time.monotonic()
        hand.follow(ramp, blocking=True)
        if then is not None:
            start_s = time.monotonic()
            hand.follow(then, blocking=True)
        time.sleep(_SETTLE_S)
        log, state = hand.log, hand.state
    target = ramp if then is None else then
    plot_tracking(plot, target, log.after(start_s - 0.2), start_s, f"{where.hand} on {where.port}")
    if log_file is not None:
        log.save(log_file, where.hand, where.side)
    rests = np.abs(state.q_rad - target.q_rad[-1])
    worst = int(rests.argmax())
    return (f"{where.hand}: {target.t_s[-1]:.2f} s of motion, ended in {state.state} ({state.reason}); "
            f"{state.joint_names[worst]} is farthest from its target, {np.degrees(rests[worst]):.1f} deg; plot in "
            f"{plot}" + (f", log in {log_file}" if log_file else ""))


def _ramp(start: Array, goal: Array, seconds: float, names: tuple[str, ...]) -> HandTrajectory:
    t = np.linspace(0.0, seconds, max(8, round(seconds * 30)))
    share = 0.5 * (1.0 - np.cos(np.pi * t / seconds))[:, None]
    return HandTrajectory(t, start + share * (goal - start), names)


def calibrate(where: Where, confirmed: bool, wait_s: float) -> str:
    """Starts the hand's own calibration and says what it changed."""
    spec = hand_spec(where.hand)
    if not spec.calibration:
        raise ValueError(f"{where.hand}: there is nothing to calibrate")
    if not 0.0 <= wait_s <= _LONGEST_WAIT_S:
        raise ValueError(f"--wait: expected 0 to {_LONGEST_WAIT_S:g}, got {wait_s!r}")
    if not confirmed:
        raise ValueError(f"this {spec.calibration}; if the hand is ready, add --yes")
    with where.open() as hand:
        time.sleep(_POLL_S)
        before = hand.state.force_g
        hand.calibrate()
        time.sleep(wait_s)
        after = hand.state.force_g
    return table([("joint", "force before", "force after"), *(
        (name, f"{a:.0f} g", f"{b:.0f} g") for name, a, b in zip(spec.joint_names, before, after, strict=True))])


# -- a process of its own, and its end

def serve(where: Where, name: str, write: Callable[[str], None]) -> None:
    """Drives the hand for clients that open it as bridge:NAME, until Ctrl-C or SIGTERM."""
    with where.open(share=name) as hand:
        server = hand.serve(lambda text: write(f"{name}: {text}"))
        write(f"{where.side} {where.hand} on {hand.port} is bridge:{name}; Ctrl-C stops the hand and ends")
        server.run()


def estop(names: list[str], all_of_them: bool) -> Iterator[str]:
    """Stops shared hands, each as fast as it can be reached; raises at the end if one could not be."""
    wanted = shared_names() if all_of_them else names
    if not wanted:
        raise ValueError("no bridge is running" if all_of_them else "expected the name of a bridge, or --all; running: "
                         + (", ".join(shared_names()) or "none"))
    failed = []
    for name in wanted:
        try:
            yield f"{name} ({SharedHand.load(name).hand}): e-stop; {estop_shared(name)}"
        except HandError as error:
            failed.append(f"{name}: {error}")
    if failed:
        raise HandError("not stopped: " + "; ".join(failed))
