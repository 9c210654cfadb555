"""`Bridge`: a hand that follows trajectories within its limits and stops first when something is wrong."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable, Mapping
from numbers import Real
from types import TracebackType
from typing import Any

import numpy as np

from beingh0_edge.errors import HandError, HandFault, LimitError, TransportError, TransportTimeout
from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.codec_checks import whole
from beingh0_edge.firmware_bridge.hands import Connection, HandSpec, OptionValue, check_side, hand_spec
from beingh0_edge.firmware_bridge.ports import explain_open_failure, stable_name
from beingh0_edge.firmware_bridge.remote import PREFIX, TAKEN, RemoteLoop, Server
from beingh0_edge.firmware_bridge.safety import Safety
from beingh0_edge.firmware_bridge.sharing import Registration
from beingh0_edge.firmware_bridge.simulators import RunningSimulator, is_simulated, parse_spec, start_simulator
from beingh0_edge.firmware_bridge.state import Array, HandLog, HandState
from beingh0_edge.types import HandTrajectory, Side

_log = logging.getLogger(__name__)

_RECENT_CYCLES = 50
_WHOLE_LOG = 1 << 20
_USUAL_SHARE = 0.9  # of what a line has room for, unless more is asked for: answers take their time


class Bridge:
    """A connected hand. Opening it moves nothing; only `arm` allows motion, only `follow` causes it.

        with Bridge.open("inspire_rh56", port="/dev/ttyUSB0", side="right") as hand:
            hand.arm()
            hand.follow(trajectory, blocking=True)

    Leaving the block stops the hand and closes the port. All methods may be called from any thread.
    """

    def __init__(self, spec: HandSpec, side: Side, port: str, loop: _bridge.Loop | RemoteLoop, limits: _bridge.Limits,
                 simulator: RunningSimulator | None, registration: Registration | None = None) -> None:
        self.spec = spec
        self.side = side
        self.port = port
        self._loop = loop
        self._limits = limits
        self._simulator = simulator
        self._registration = registration
        # Also when the user forgets the with block: stop and close when this object or the interpreter goes.
        self._finalizer = weakref.finalize(self, _close, loop, simulator, registration)

    @classmethod
    def open(cls, name: str, port: str, *, side: str = "right", rate_hz: float | None = None,
             device_id: int | None = None, baud: int | None = None, safety: Safety | None = None,
             reply_timeout_s: float = 0.030, realtime_priority: int = 70, share: str | None = None,
             **options: OptionValue) -> Bridge:
        """Connects to a hand, checks that it is the hand, sets its own limits, starts the loop.

        name               a hand of `HANDS`
        port               a serial port; `HOST[:NUMBER]` for hands on a network; `can0` or `slcan:/dev/ttyACM0`
                           for hands on CAN; `sim:NAME[?options]` for a simulated hand; or `bridge:NAME` for a hand
                           that `beingh0 bridge` drives in a process of its own. A serial port that has a stable name
                           (/dev/serial/by-id) is opened by that, so that it is found again after unplugging
        rate_hz            cycles per second; if None the hand's default, or what a slower line has room for
        safety             when to stop by itself; the hand's own `HANDS[name].safety` if None
        realtime_priority  SCHED_FIFO priority of the loop, 0 for none
        share              a name under which other processes see the hand and can stop it, also when this one hangs or
                           was killed: `beingh0 hand estop NAME`, `estop_shared`
        options            the hand's own, see `HANDS[name].options`; for Inspire hands speed, force_g (SPEED_SET and
                           FORCE_SET, written once and read back) and family
        A hand of `bridge:NAME` has the settings with which that was started, and others are refused.

        Raises: ValueError, TypeError, TransportError (port missing, taken, lost), TransportTimeout (no answer),
                HandError (another kind of hand).
        """
        spec = hand_spec(name)
        which = check_side(side)
        chosen = spec.checked_options(options)
        address = spec.device_id_of(which) if device_id is None else device_id
        address = whole("device_id", address, *spec.device_ids)
        line_rate = whole("baud", spec.baud if baud is None else baud, 1200, 4_000_000)
        highest = spec.highest_rate_at_hz(line_rate)
        if highest < spec.lowest_rate_hz:
            raise ValueError(f"baud: {name} needs {spec.lowest_rate_hz:g} cycles a second, {line_rate} baud have room "
                             f"for {highest:.3g}")
        rate = min(spec.rate_hz, _USUAL_SHARE * highest) if rate_hz is None else _real("rate_hz", rate_hz)
        if not spec.lowest_rate_hz <= rate <= highest:
            where = f" at {line_rate} baud" if spec.cycle_bytes else ""
            raise ValueError(f"rate_hz: expected {spec.lowest_rate_hz:g} to {highest:.4g} for {name}{where}, "
                             f"got {rate!r}")
        if not 0.001 <= _real("reply_timeout_s", reply_timeout_s) <= 0.5:
            raise ValueError(f"reply_timeout_s: expected 0.001 to 0.5, got {reply_timeout_s!r}")
        realtime_priority = whole("realtime_priority", realtime_priority, 0, 99)
        if safety is not None and not isinstance(safety, Safety):
            raise TypeError(f"safety: expected a Safety, got {type(safety).__name__}")
        if not isinstance(port, str) or not port:
            raise ValueError(f"port: expected the name of a port, got {port!r}")

        limits = _bridge.Limits(spec.lower_rad, spec.upper_rad, spec.max_speed_rad_s, spec.max_accel_rad_s2,
                                spec.max_jerk_rad_s3)
        if port.startswith(PREFIX):
            set_there = {"rate_hz": rate_hz, "device_id": device_id, "baud": baud, "safety": safety, "share": share,
                         **options}
            if given := [key for key, value in set_there.items() if value is not None]:
                raise ValueError(f"{', '.join(given)}: expected to be set where {port} was started, not here")
            return cls._of_process(spec, which, port, limits)
        if is_simulated(port) and (simulated := parse_spec(port).name) != name:
            raise HandError(f"{port} is a simulated {simulated}; expected sim:{name}", name)
        registration = None if share is None else Registration(share)
        simulator = None
        try:
            simulator = start_simulator(port) if is_simulated(port) else None
            place = stable_name(port) if simulator is None else simulator.port
            to = Connection(place, which, line_rate, address, rate, reply_timeout_s, limits)
            loop = _bridge.start_loop(spec.driver(to, chosen), limits, (safety or spec.safety).native(), rate,
                                      realtime_priority, "" if registration is None else str(registration.fresh_page))
            if registration is not None:
                registration.publish({
                    "hand": name, "side": which, "port": place, "baud": line_rate, "device_id": address,
                    "rate_hz": rate, "reply_timeout_s": reply_timeout_s, "options": dict(chosen)})
        except BaseException as error:
            if simulator is not None:
                simulator.close()
            if registration is not None:
                registration.close()
            if isinstance(error, _bridge.NoReply):
                raise TransportTimeout(f"{error} (asked for id {address}, {line_rate} baud)"
                                       if spec.wire in ("rs485", "modbus") else str(error), name) from None
            if isinstance(error, _bridge.WrongHand):
                raise HandError(str(error), name) from None
            if isinstance(error, OSError) and not isinstance(error, TransportError):
                raise TransportError(explain_open_failure(spec, port, error), name) from None
            raise
        hand = cls(spec, which, port, loop, limits, simulator, registration)
        snapshot = loop.snapshot()
        if realtime_priority and not snapshot["realtime"]:
            _log.warning("%s on %s: no real-time priority (allow it with 'rtprio 99' in limits.conf); cycles "
                         "may be late under load", name, port)
        _log.info("%s on %s: connected, %g Hz", name, port, rate)
        hand._wait_until_talking()
        return hand

    @classmethod
    def _of_process(cls, spec: HandSpec, side: Side, port: str, limits: _bridge.Limits) -> Bridge:
        loop = RemoteLoop(port.removeprefix(PREFIX))
        try:
            loop.about.check(spec.name, side, port)
        except HandError:
            loop.close()
            raise
        return cls(spec, side, port, loop, limits, None)

    def serve(self, report: Callable[[str], None]) -> Server:
        """Lets other processes drive this hand as `bridge:NAME`; it must have been opened with `share`."""
        if self._registration is None or not isinstance(self._loop, _bridge.Loop):
            raise ValueError("serve: expected a hand of this process, opened with share=NAME")
        return Server(self._loop, self._limits, self._registration.name, report)

    # -- commands

    def arm(self) -> None:
        """Allows motion. Needs a fresh pose and no error of the hand; moves nothing by itself.

        Raises HandError (HandFault, TransportError) saying what is in the way.
        """
        self._check(self._loop.arm(), "arm")

    def follow(self, trajectory: HandTrajectory, *, blocking: bool = False, elapsed_s: float = 0.0) -> None:
        """Follows a trajectory from now on, blended in from the commanded pose; replaces the one before.

        trajectory  every joint of the hand by name, in any order; values within the joints' ranges
        elapsed_s   how much of the trajectory already lies in the past, say the time it took to compute
        blocking    return when it has been played and the command stands still

        A trajectory that is not fit to be followed stops the hand first and raises second.
        Raises: ValueError, TypeError (joints, shapes), LimitError (values, times), HandError (state).
        """
        try:
            t_s, q_rad = self._ordered(trajectory)
            if not 0.0 <= _real("elapsed_s", elapsed_s) < np.inf:
                raise ValueError(f"elapsed_s: expected a number from 0 on, got {elapsed_s!r}")
            if t_s.size and elapsed_s > 0.0 and elapsed_s >= t_s[-1]:
                raise LimitError(f"stale trajectory: it ends {t_s[-1]:.3f} s after its start, "
                                 f"{elapsed_s:.3f} s have passed", self.spec.name)
            try:
                prepared = _bridge.prepare(t_s, q_rad, self._limits)
            except ValueError as error:
                raise LimitError(f"{self.spec.name}: {error}", self.spec.name) from None
        except (ValueError, TypeError, LimitError) as error:
            self._loop.stop(refused=True)
            if isinstance(error, LimitError):
                error.recent = self.recent()
            raise
        self._check(self._loop.follow(prepared, float(elapsed_s)), "follow")
        if blocking:
            self.wait()

    def wait(self, timeout_s: float | None = None) -> None:
        """Returns when the followed trajectory has been played and the command stands still.

        Raises: HandError (HandFault, TransportError) if the hand stopped on the way; TimeoutError.
        """
        give_up = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self._check((True, "accepted" if self._loop.running else ""), "wait")
            snapshot = self._loop.snapshot()
            state, reason = snapshot["state"], snapshot["reason"]
            if state in ("fault", "estop", "disconnected", "connected", "idle") or (
                state == "hold" and reason not in ("command_stale", "command_frozen")
            ):
                raise self._state_error(snapshot, "wait")
            if snapshot["settled"]:
                return
            if give_up is not None and time.monotonic() > give_up:
                raise TimeoutError(f"{self.spec.name}: still moving after {timeout_s} s")
            time.sleep(0.002)

    def stop(self) -> None:
        """Stops: the measured pose becomes the target, state hold. Moving again needs `arm`."""
        self._check(self._loop.stop(), "stop")

    def estop(self) -> None:
        """Stops as soon as the line is free and latches: nothing moves until `reset` and `arm`. Never raises."""
        self._loop.estop()
        give_up = time.monotonic() + 0.5
        while self._loop.running and self._loop.snapshot()["state"] != "estop" and time.monotonic() < give_up:
            time.sleep(0.001)

    def reset(self) -> None:
        """Leaves fault or estop, clears the hand's errors where it allows that; waits until it reports again.

        Raises HandFault if the hand still reports an error.
        """
        self._check(self._loop.reset(), "reset")
        self._wait_until_talking()
        snapshot = self._loop.snapshot()
        if snapshot["state"] == "fault":
            raise self._state_error(snapshot, "reset")

    def calibrate(self) -> None:
        """Starts what `spec.calibration` says (for an Inspire hand: zeroes its force sensors); returns at once.

        Raises ValueError if there is nothing to calibrate, HandError if the hand is not idle.
        """
        if not self.spec.calibration:
            raise ValueError(f"{self.spec.name}: there is nothing to calibrate")
        self._check(self._loop.calibrate(), "calibrate")

    def close(self) -> None:
        """Stops the hand, ends the loop, closes the port. May be called twice."""
        self._finalizer()

    # -- looking

    @property
    def state(self) -> HandState:
        """The newest snapshot; never waits for the hand."""
        return HandState.of(self._loop.snapshot(), self.spec.joint_names, _bridge.monotonic_s())

    @property
    def log(self) -> HandLog:
        """The remembered cycles as arrays, for plots and post-mortems."""
        return HandLog.of(self._loop.recent(_WHOLE_LOG), self.spec.joint_names)

    def recent(self, cycles: int = _RECENT_CYCLES) -> list[dict[str, Any]]:
        """The last cycles as dictionaries, oldest first; every HandError carries them."""
        r = self._loop.recent(cycles)
        return [
            {"t_s": float(r["t_s"][i]), "late_ms": float(r["late_ms"][i]), "state": r["state"][i],
             "reason": r["reason"][i], "read": r["read"][i], "written": r["written"][i],
             "q_rad": r["q_rad"][i].tolist(), "q_cmd_rad": r["q_cmd_rad"][i].tolist()}
            for i in range(len(r["state"]))
        ]

    def __enter__(self) -> Bridge:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Bridge {self.spec.name} {self.side} on {self.port}: {self._loop.snapshot()['state']}>"

    # -- inside

    def _ordered(self, trajectory: HandTrajectory) -> tuple[Array, Array]:
        """Times and angles as float64, columns in the order of the wire."""
        if not isinstance(trajectory, HandTrajectory):
            raise TypeError(f"trajectory: expected a HandTrajectory, got {type(trajectory).__name__}")
        names = tuple(trajectory.joint_names)
        wanted = self.spec.joint_names
        if sorted(map(str, names)) != sorted(wanted):
            raise ValueError(f"joint_names: expected {', '.join(wanted)} in any order, "
                             f"got {', '.join(map(str, names))}")
        t_s = np.ascontiguousarray(_numbers("t_s", trajectory.t_s))
        q_rad = _numbers("q_rad", trajectory.q_rad)
        if t_s.ndim != 1 or q_rad.shape != (t_s.size, len(wanted)):
            raise ValueError(f"trajectory: expected t_s float64[T] and q_rad float64[T, {len(wanted)}], "
                             f"got {list(t_s.shape)} and {list(q_rad.shape)}")
        return t_s, np.ascontiguousarray(q_rad[:, [names.index(name) for name in wanted]])

    def _check(self, answer: tuple[bool, str], what: str) -> None:
        answered, verdict = answer
        if answered and verdict == "accepted":
            return
        if not self._loop.running:
            raise TransportError(f"{self.spec.name}: the bridge on {self.port} is closed", self.spec.name)
        if not answered:
            raise TransportTimeout(f"{self.spec.name}: the bridge did not answer {what} in time",
                                   self.spec.name, self.recent())
        raise self._state_error(self._loop.snapshot(), what, verdict)

    def _state_error(self, snapshot: dict[str, Any], what: str, verdict: str = "") -> HandError:
        name, recent = self.spec.name, self.recent()
        state, reason = snapshot["state"], snapshot["reason"]
        if state == "disconnected" or verdict == "not_connected":
            return TransportError(f"{name}: {what}: the port {self.port} was lost; the bridge reopens it as "
                                  "soon as it is back, then arm() again", name, recent)
        if verdict == "nothing_to_reset":
            return HandError(f"{name}: reset: nothing to reset, the state is {state}", name, recent)
        if verdict == "no_fresh_feedback" or reason == "feedback_stale":
            return TransportTimeout(f"{name}: {what}: the hand has not reported its pose for "
                                    f"{_bridge.monotonic_s() - snapshot['measured_t_s']:.2f} s", name, recent)
        if reason in ("transaction_errors", "error_rate"):
            return TransportTimeout(f"{name}: {what}: fault, too many failed transactions "
                                    f"({_nonzero(snapshot['counts'])}); reset() and arm()", name, recent)
        if verdict == "hand_reports_error" or (state == "fault" and reason != "conversion_range"):
            bits = snapshot["error_bits"]
            code = int(np.bitwise_or.reduce(bits)) if reason == "hand_error" else 0
            return HandFault(f"{name}: {what}: fault, {self._describe_fault(snapshot)}; reset() and arm()",
                             name, recent, code)
        if state == "estop":
            return HandError(f"{name}: {what}: e-stop is latched; reset() and arm()", name, recent)
        if verdict == TAKEN:
            return HandError(f"{name}: {what}: another process drives this hand", name, recent)
        if verdict == "outside_range":
            far = [joint for joint, q, low, high in zip(self.spec.joint_names, snapshot["q_rad"], self.spec.lower_rad,
                                                        self.spec.upper_rad, strict=True) if not low <= q <= high]
            return LimitError(f"{name}: {what}: {', '.join(far)} outside the joint's range; move it by hand", name,
                              recent)
        if verdict == "needs_rearm":
            return HandError(f"{name}: {what}: the hand holds ({reason}) and the pause or the way to the new "
                             "trajectory is too long to go on by itself; arm() first", name, recent)
        if verdict == "not_idle":
            return HandError(f"{name}: {what}: the hand is {state}; expected idle, before arm()", name, recent)
        if verdict == "not_armed":
            return HandError(f"{name}: {what}: the hand is {state}; arm() first", name, recent)
        return HandError(f"{name}: {what}: the hand is in {state} ({reason})", name, recent)

    def _describe_fault(self, snapshot: dict[str, Any]) -> str:
        if snapshot["reason"] != "hand_error":
            return str(snapshot["reason"]).replace("_", " ")
        found = []
        for joint, bits in zip(self.spec.joint_names, snapshot["error_bits"], strict=True):
            words = [text for bit, text in self.spec.error_bits.items() if int(bits) >> bit & 1]
            if words:
                found.append(f"{joint}: {', '.join(words)}")
        return "; ".join(found) or "the hand reports an error"

    def _wait_until_talking(self) -> None:
        """Until the hand has reported its pose and its errors once, or will not."""
        give_up = time.monotonic() + 2.0
        while self._loop.snapshot()["state"] in ("connected", "disconnected") and time.monotonic() < give_up:
            time.sleep(0.002)


def _close(loop: _bridge.Loop | RemoteLoop, simulator: RunningSimulator | None,
           registration: Registration | None) -> None:
    loop.close()
    if registration is not None:
        registration.close()
    if simulator is not None:
        simulator.close()


def _real(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    return float(value)


def _numbers(name: str, values: object) -> Array:
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}: expected numbers, got an array of {array.dtype}")
    return array.astype(np.float64)


def _nonzero(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count}" for kind, count in counts.items() if count)
