"""A bridge in a process of its own: the server around a hand, and the client that looks like a loop of this process.

State, log and e-stop go through shared memory; the requests that need an answer (arm, follow, stop, reset) through a
Unix socket: four bytes of length, a JSON header, then the arrays it announces. One client at a time drives; all may
look, stop and e-stop. When the driving client goes, however it goes, the hand stops.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from beingh0_edge.errors import TransportError
from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.sharing import SharedHand, open_page, runtime_folder
from beingh0_edge.firmware_bridge.state import Array

PREFIX = "bridge:"
TAKEN = "taken"  # beside the loop's own verdicts: another client drives
_ANSWER_TIMEOUT_S = 3.0  # the loop's own is 2 s
_CLIENT_TIMEOUT_S = 0.25  # for a message that began: one that stops in its middle must not keep the others waiting
_DEAD_S = 0.5  # a loop that published nothing for this long does not run
_MOST_HEADER = 4096
_MOST_POINTS = 100_000
_LENGTH = struct.Struct("!I")


def socket_path(name: str) -> Path:
    return runtime_folder() / f"{name}.sock"


def _send(connection: socket.socket, header: dict[str, Any], payload: bytes = b"") -> None:
    text = json.dumps(header).encode()
    connection.sendall(_LENGTH.pack(len(text)) + text + payload)


def _receive_exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise ConnectionError("the other end is gone")
        parts += part
    return bytes(parts)


def _receive(connection: socket.socket) -> dict[str, Any]:
    (size,) = _LENGTH.unpack(_receive_exactly(connection, _LENGTH.size))
    if size > _MOST_HEADER:
        raise ConnectionError(f"a header of {size} bytes; expected at most {_MOST_HEADER}")
    header = json.loads(_receive_exactly(connection, size))
    if not isinstance(header, dict):
        raise ConnectionError("expected a JSON object")
    return header


class RemoteLoop:
    """The loop of another process, with the methods `Bridge` uses of `_bridge.Loop`."""

    def __init__(self, name: str) -> None:
        """Raises TransportError if no such bridge serves."""
        self.about = SharedHand.load(name)
        self._page = open_page(name)
        self._lock = threading.Lock()
        self._socket: socket.socket | None = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_ANSWER_TIMEOUT_S)
        try:
            self._socket.connect(str(socket_path(name)))
        except OSError as error:
            self._socket.close()
            raise TransportError(f"the bridge {name!r} takes no clients ({error.strerror})") from None

    @property
    def running(self) -> bool:
        return self._socket is not None

    def arm(self) -> tuple[bool, str]:
        return self._ask({"ask": "arm"})

    def follow(self, trajectory: _bridge.PreparedTrajectory, elapsed_s: float) -> tuple[bool, str]:
        t_s, q_rad = trajectory.points()
        return self._ask({"ask": "follow", "elapsed_s": elapsed_s, "points": len(t_s)}, t_s.tobytes() + q_rad.tobytes())

    def stop(self, refused: bool = False) -> tuple[bool, str]:
        return self._ask({"ask": "stop", "refused": refused})

    def reset(self) -> tuple[bool, str]:
        return self._ask({"ask": "reset"})

    def calibrate(self) -> tuple[bool, str]:
        return self._ask({"ask": "calibrate"})

    def estop(self) -> None:
        self._page.estop()

    def snapshot(self) -> dict[str, Any]:
        snapshot = self._page.snapshot()
        if _bridge.monotonic_s() - snapshot["t_s"] > _DEAD_S:  # the page stays when its loop is gone
            snapshot["state"], snapshot["reason"] = "disconnected", "link_lost"
        return snapshot

    def recent(self, count: int) -> dict[str, Any]:
        return self._page.recent(count)

    def close(self) -> None:
        with self._lock:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _ask(self, header: dict[str, Any], payload: bytes = b"") -> tuple[bool, str]:
        with self._lock:
            if self._socket is None:
                return False, ""
            try:
                _send(self._socket, header, payload)
                answer = _receive(self._socket)
            except TimeoutError:
                self._hang_up()  # a late answer must not be taken for that of the next request
                raise TransportError(f"the bridge process {self.about.process} does not answer; its hand can still be "
                                     "stopped by estop()") from None
            except (OSError, ValueError):
                self._hang_up()
                raise TransportError(f"the bridge process {self.about.process} is gone") from None
        return bool(answer["answered"]), str(answer["verdict"])


class Server:
    """Serves one shared hand to clients. `run` returns after `stop`, which may be called from a signal handler."""

    def __init__(self, loop: _bridge.Loop, limits: _bridge.Limits, name: str, report: Callable[[str], None]) -> None:
        self._loop = loop
        self._limits = limits
        self._report = report
        self._driver: socket.socket | None = None
        self._path = socket_path(name)
        self._path.unlink(missing_ok=True)  # ours: the name's lock is held
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._path))
        os.chmod(self._path, 0o600)
        self._listener.listen(8)
        self._wake_read, self._wake_write = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)

    def stop(self) -> None:
        os.write(self._wake_write, b"x")

    def run(self) -> None:
        """One thread for all clients: a request takes at most a cycle, and a bad client is cut off."""
        if self._loop.snapshot()["realtime"]:  # a command must not wait for a processor either
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
        try:
            state = ""
            while True:
                events = self._selector.select(timeout=0.2)
                for key, _ in events:
                    if key.fileobj is self._listener:
                        self._accept()
                    elif key.fd == self._wake_read:
                        return
                    elif isinstance(key.fileobj, socket.socket):
                        self._serve(key.fileobj)
                snapshot = self._loop.snapshot()
                if (now := f"{snapshot['state']} ({snapshot['reason']})") != state:
                    state = now
                    self._report(state)
        finally:
            for key in list(self._selector.get_map().values()):
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.close()
            self._selector.close()
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        client.settimeout(_CLIENT_TIMEOUT_S)
        self._selector.register(client, selectors.EVENT_READ)

    def _drop(self, client: socket.socket, why: str) -> None:
        self._selector.unregister(client)
        client.close()
        if client is self._driver:
            self._driver = None
            self._loop.stop()
            self._report(f"the driving client is gone ({why}); the hand was stopped")

    def _serve(self, client: socket.socket) -> None:
        try:
            header = _receive(client)
            answered, verdict = self._answer(client, header)
            _send(client, {"answered": answered, "verdict": verdict})
        except (OSError, ValueError, TypeError, KeyError) as error:
            self._drop(client, str(error))

    def _answer(self, client: socket.socket, header: dict[str, Any]) -> tuple[bool, str]:
        ask = header["ask"]
        if ask == "stop":
            return self._loop.stop(refused=bool(header["refused"]))
        if ask == "follow":
            t_s, q_rad = self._points(client, int(header["points"]))
        if ask in ("arm", "follow", "reset", "calibrate") and self._driver not in (None, client):
            return True, TAKEN
        if ask == "arm":
            answer = self._loop.arm()
            if answer == (True, "accepted"):
                self._driver = client
            return answer
        if ask == "reset":
            return self._loop.reset()
        if ask == "calibrate":
            return self._loop.calibrate()
        if ask == "follow":
            try:
                prepared = _bridge.prepare(t_s, q_rad, self._limits)
            except ValueError:
                self._loop.stop(refused=True)
                raise
            elapsed_s = float(header["elapsed_s"])
            if not 0.0 <= elapsed_s <= prepared.end_s:
                self._loop.stop(refused=True)
                raise ValueError(f"elapsed_s: expected 0 to {prepared.end_s:g}, got {elapsed_s!r}")
            return self._loop.follow(prepared, elapsed_s)
        raise ValueError(f"unknown request {ask!r}")

    def _points(self, client: socket.socket, count: int) -> tuple[Array, Array]:
        if not 0 < count <= _MOST_POINTS:
            raise ValueError(f"a trajectory of {count} points; expected 1 to {_MOST_POINTS}")
        joints = self._limits.joints
        values = np.frombuffer(_receive_exactly(client, 8 * count * (1 + joints)))
        return values[:count].copy(), values[count:].reshape(count, joints).copy()
