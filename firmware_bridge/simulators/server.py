"""A simulated device that takes as long as the wire would, with faults on request; on a pseudo-terminal or TCP."""

from __future__ import annotations

import abc
import contextlib
import ctypes
import os
import pty
import random
import select
import sys
import tempfile
import time
import tty
from typing import Protocol

from beingh0_edge.firmware_bridge.simulators.faults import Faults

_PR_SET_TIMERSLACK = 29
_BITS_PER_BYTE = 10  # start, eight data, stop
_AT_ONCE_S = 0.001
_PASSINGS = 20


def _keep_time() -> None:
    """A real hand does not share our processor: sleep precisely and run early, where that is allowed."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


Answers = list[tuple[bytes, bytes, float]]  # (request, reply, seconds until the reply may start)


class Device(abc.ABC):
    """Speaks the protocol; time is what it is told."""

    @abc.abstractmethod
    def receive(self, data: bytes, now_s: float) -> Answers:
        """Takes bytes from the wire; returns what the device says to them."""

    @abc.abstractmethod
    def with_wrong_id(self, reply: bytes) -> bytes:
        """The same reply as another device would send it."""

    @abc.abstractmethod
    def set(self, name: str, value: str) -> None:
        """Changes an option while running. Raises ValueError."""

    def due_s(self) -> float | None:
        """When it will speak without being asked; None: never."""
        return None

    def speak(self, now_s: float) -> bytes:
        """What it says without being asked, once that is due."""
        return b""

    def wire_s(self, data: bytes, baud: int) -> float:
        """How long these bytes occupy the wire."""
        return len(data) * _BITS_PER_BYTE / baud if baud else 0.0

    def damaged(self, reply: bytes, chance: random.Random) -> bytes:
        """The reply after something happened to it on the wire: one bit is changed."""
        at = chance.randrange(len(reply))
        return reply[:at] + bytes([reply[at] ^ (1 << chance.randrange(8))]) + reply[at + 1:]


class Wiring(Protocol):
    def device(self) -> Device:
        """A new one, as at the start."""

    @property
    def faults(self) -> Faults: ...
    @property
    def seed(self) -> int: ...
    @property
    def baud(self) -> int: ...
    @property
    def trace(self) -> str: ...


class Server(abc.ABC):
    """Serves one device until stdin ends; obeys lines on stdin."""

    port: str

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._device = wiring.device()
        self._faults = wiring.faults
        self._chance = random.Random(wiring.seed)
        self._line_free_s = 0.0
        self._delivered_s = self._late_s = 0.0
        self._typed = b""
        self._trace = open(wiring.trace, "w", buffering=1) if wiring.trace else None  # noqa: SIM115  (until the end)

    @abc.abstractmethod
    def plug(self) -> None:
        """Appears, after `unplug` under the same name."""

    @abc.abstractmethod
    def unplug(self) -> None:
        """As when a cable is pulled: clients see a hang-up, the name is gone."""

    @abc.abstractmethod
    def close(self) -> None: ...

    @abc.abstractmethod
    def watched(self) -> list[int]:
        """Descriptors to wait for."""

    @abc.abstractmethod
    def serve(self, ready: int) -> None:
        """One of them is readable."""

    @abc.abstractmethod
    def deliver(self, data: bytes) -> None:
        """Bytes to the client, now."""

    def run(self) -> None:
        """Serves until stdin ends."""
        _keep_time()
        while True:
            due_s = self._device.due_s()
            wait_s = None if due_s is None else max(0.0, due_s - time.monotonic())
            readable, _, _ = select.select([0, *self.watched()], [], [], wait_s)
            if 0 in readable:
                if not self._obey():
                    return
                continue  # what was watched may be gone now
            for ready in readable:
                self.serve(ready)
            now_s = time.monotonic()
            if due_s is not None and now_s >= due_s:
                said = self._device.speak(now_s)
                if said:
                    self._line_free_s = max(now_s, self._line_free_s)
                    self._answer(b"", said, 0.0)

    def handle(self, data: bytes, now_s: float) -> None:
        """Bytes from the client."""
        if self._trace is not None:
            self._trace.write(f"{now_s:.6f} {data.hex()}\n")
        # This machine woke us late for the last reply, which a hand's own clock is not; who answers it at once has been
        # kept waiting by that, and gets the time back.
        heard_s = now_s - self._late_s if now_s - self._delivered_s < _AT_ONCE_S else now_s
        self._late_s = 0.0
        self._line_free_s = max(heard_s, self._line_free_s) + self._wire_s(data)
        for request, reply, pause_s in self._device.receive(data, now_s):
            self._answer(request, reply, pause_s)

    def _obey(self) -> bool:
        chunk = os.read(0, 4096)
        if not chunk:
            return False
        self._typed += chunk
        while b"\n" in self._typed:
            line, self._typed = self._typed.split(b"\n", 1)
            try:
                self._command(line.decode())
                answer = "ok"
            except ValueError as error:
                answer = f"error: {error}"
            sys.stdout.write(answer + "\n")
            sys.stdout.flush()
        return True

    def _command(self, line: str) -> None:
        verb, _, rest = line.strip().partition(" ")
        if verb == "fault":
            self._faults = Faults.parse(rest)
        elif verb == "unplug":
            self.unplug()
        elif verb == "replug":
            self.plug()
        elif verb == "reset":
            self._device = self._wiring.device()
            self._faults = self._wiring.faults
            self.plug()
        elif verb == "set" and "=" in rest:
            name, _, value = rest.partition("=")
            self._device.set(name, value)
        else:
            raise ValueError(f"unknown command {line!r}; known: fault, unplug, replug, reset, set NAME=VALUE")

    def _answer(self, request: bytes, reply: bytes, pause_s: float) -> None:
        def strikes(name: str) -> float | None:
            fault = self._faults.strike(name, self._chance)
            return None if fault is None else fault.value

        start = self._line_free_s + pause_s
        if strikes("drop") is not None:
            self._line_free_s = start
            return
        if strikes("wrong_id") is not None:
            reply = self._device.with_wrong_id(reply)
        if strikes("corrupt") is not None:
            reply = self._device.damaged(reply, self._chance)
        if strikes("truncate") is not None and len(reply) > 1:
            reply = reply[: self._chance.randrange(1, len(reply))]
        if strikes("duplicate") is not None:
            reply = reply + reply
        if (count := strikes("garbage")) is not None:
            reply = self._chance.randbytes(int(count)) + reply
        if strikes("echo") is not None:
            reply = request + reply
        if (late := strikes("delay")) is not None:
            start += late
        gap = strikes("split")
        first = len(reply) if gap is None else self._chance.randrange(1, max(2, len(reply)))
        self._send(reply[:first], start)
        if gap is not None:
            self._send(reply[first:], self._line_free_s + gap)

    def _wire_s(self, data: bytes) -> float:
        return self._device.wire_s(data, self._wiring.baud)

    def _send(self, data: bytes, start_s: float) -> None:
        """Adapters deliver whole packets, so the bytes appear when the last of them has passed the wire."""
        if not data:
            return
        self._line_free_s = start_s + self._wire_s(data)
        wait = self._line_free_s - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        self._delivered_s = time.monotonic()
        self._late_s = max(0.0, self._delivered_s - self._line_free_s)
        self.deliver(data)


class PtyServer(Server):
    def __init__(self, wiring: Wiring) -> None:
        super().__init__(wiring)
        self._folder = tempfile.TemporaryDirectory(prefix="beingh0-sim-")
        self.port = os.path.join(self._folder.name, "port")
        self._master = -1
        self._slave = -1
        self._passing_s = 0.0
        self.plug()

    def plug(self) -> None:
        if self._master >= 0:
            return
        self._master, self._slave = pty.openpty()  # a closing client is no hang-up while we hold the slave
        tty.setraw(self._slave)
        self._passing_s = min(self._time_of_passing_s() for _ in range(_PASSINGS))
        fresh = self.port + ".new"
        os.symlink(os.ttyname(self._slave), fresh)
        os.replace(fresh, self.port)

    def _time_of_passing_s(self) -> float:
        """From a byte written by a client to its being here: a wire has it at once, a pseudo-terminal has not."""
        begin_s = time.monotonic()
        os.write(self._slave, b"x")
        os.read(self._master, 1)
        return time.monotonic() - begin_s

    def unplug(self) -> None:
        if self._master < 0:
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.port)
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = -1

    def close(self) -> None:
        self.unplug()
        self._folder.cleanup()

    def watched(self) -> list[int]:
        return [] if self._master < 0 else [self._master]

    def serve(self, ready: int) -> None:
        now = time.monotonic() - self._passing_s
        with contextlib.suppress(OSError):
            self.handle(os.read(ready, 4096), now)

    def deliver(self, data: bytes) -> None:
        if self._master >= 0:
            with contextlib.suppress(OSError):
                os.write(self._master, data)
