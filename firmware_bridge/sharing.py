"""A hand that other processes can see and stop: its name, its page of memory, and the e-stop from outside."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import signal
import stat
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beingh0_edge.errors import HandError, TransportError, TransportTimeout
from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.hands import OptionValue

if TYPE_CHECKING:
    from beingh0_edge.firmware_bridge.bridge import Bridge

_LOOP_PATIENCE_S = 0.3   # a loop that lives takes an e-stop within one cycle
_DEATH_PATIENCE_S = 2.0  # from SIGKILL to the kernel's closing of the port
_OPEN_PATIENCE_S = 3.0


def runtime_folder() -> Path:
    """Where names are registered: $BEINGH0_RUNTIME_DIR, $XDG_RUNTIME_DIR/beingh0 or /tmp/beingh0-UID; made if missing.

    Raises TransportError if it belongs to somebody else.
    """
    chosen = os.environ.get("BEINGH0_RUNTIME_DIR")
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(chosen) if chosen else Path(base) / "beingh0" if base else Path(f"/tmp/beingh0-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise TransportError(f"{folder}: expected a folder of this user that nobody else can write to")
    return folder


def _check_name(name: str) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise ValueError(f"name: expected letters, digits, '-', '_' or '.', got {name!r}")
    return name


def _started_ticks(process: int) -> int:
    """When a process began, in the kernel's ticks: with its number it names one process for ever. 0 if it is gone."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return 0
    return int(text.rsplit(")", 1)[1].split()[19])


@dataclass(frozen=True)
class SharedHand:
    """How to reach a shared hand, and how to open its port when its process no longer answers."""

    hand: str
    side: str
    port: str
    baud: int
    device_id: int
    rate_hz: float
    reply_timeout_s: float
    options: dict[str, OptionValue]
    process: int
    started_ticks: int

    @staticmethod
    def load(name: str) -> SharedHand:
        """Raises TransportError if no hand of this name was shared."""
        path = runtime_folder() / f"{_check_name(name)}.json"
        try:
            return SharedHand(**json.loads(path.read_text()))
        except FileNotFoundError:
            known = ", ".join(shared_names()) or "none"
            raise TransportError(f"no bridge is called {name!r}; running: {known}") from None
        except (TypeError, ValueError) as error:
            raise TransportError(f"{path}: not written by this version of the bridge ({error})") from None

    def check(self, hand: str, side: str, port: str) -> None:
        """Raises HandError unless this is that hand; `port` is what the user calls it."""
        if (self.hand, self.side) != (hand, side):
            raise HandError(f"{port} drives a {self.side} {self.hand}, not a {side} {hand}", hand)


class Registration:
    """The right to a name, for as long as this process lives or until `close`."""

    def __init__(self, name: str) -> None:
        """Raises TransportError if a living process has the name."""
        folder = runtime_folder()
        self.name = _check_name(name)
        self.page = folder / f"{name}.page"
        self.fresh_page = folder / f"{name}.page.{os.getpid()}"
        self._info = folder / f"{name}.json"
        self._socket = folder / f"{name}.sock"  # a server's, which a signal may have ended before it removed it
        self._lock = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise TransportError(f"another process has a bridge called {name!r}") from None
        self.fresh_page.unlink(missing_ok=True)

    def publish(self, about: dict[str, Any]) -> None:
        """Makes the page and its description visible, whole, under the name."""
        process = os.getpid()
        shared = SharedHand(**about, process=process, started_ticks=_started_ticks(process))
        fresh = self._info.with_suffix(f".json.{process}")
        fresh.write_text(json.dumps(asdict(shared)))
        os.replace(fresh, self._info)
        os.replace(self.fresh_page, self.page)

    def close(self) -> None:
        if self._lock < 0:
            return
        for path in (self.fresh_page, self.page, self._info, self._socket):
            path.unlink(missing_ok=True)
        os.close(self._lock)
        self._lock = -1


def _is_held(name: str) -> bool:
    """Whether a living process has the name."""
    try:
        lock = os.open(runtime_folder() / f"{name}.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def shared_names() -> list[str]:
    """Names of the hands that living processes share."""
    return [path.stem for path in sorted(runtime_folder().glob("*.json")) if _is_held(path.stem)]


def open_page(name: str) -> _bridge.SharedPage:
    """What the loop of a shared hand shows, and its e-stop. Raises TransportError."""
    try:
        return _bridge.SharedPage(str(runtime_folder() / f"{_check_name(name)}.page"))
    except OSError as error:
        raise TransportError(f"no bridge is called {name!r} ({error.strerror})") from None


def estop_shared(name: str) -> str:
    """Stops a shared hand, whatever the processes around it are doing; says how it was reached.

    First by the loop's own e-stop word in shared memory: that needs nothing of the hand's process but its loop. If the
    loop does not run (the process is dead or stopped), what is left of the process is killed, and the hand is opened
    here and stopped. Raises TransportError or HandError if neither reached the hand.
    """
    about = SharedHand.load(name)
    with contextlib.suppress(TransportError, RuntimeError):
        if _estop_by_loop(open_page(name)):
            return "the loop took it"
    if _is_held(name):
        if about.started_ticks != 0 and _started_ticks(about.process) == about.started_ticks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(about.process, signal.SIGKILL)
        _wait(lambda: not _is_held(name), _DEATH_PATIENCE_S,
              f"process {about.process} holds {about.port}, does not answer, and cannot be ended")
    from beingh0_edge.firmware_bridge.bridge import Bridge

    with _open_when_free(Bridge, about) as hand:
        hand.estop()
        state = hand.state
        if state.state != "estop":
            raise HandError(f"{about.hand} on {about.port}: could not be stopped, it is {state.state}", about.hand)
    return f"the loop did not answer: process {about.process} is ended, and the hand was stopped on {about.port}"


def _estop_by_loop(page: _bridge.SharedPage) -> bool:
    page.estop()
    give_up = time.monotonic() + _LOOP_PATIENCE_S
    while time.monotonic() < give_up:
        if page.estop_taken and page.snapshot()["state"] == "estop":
            return True
        time.sleep(0.001)
    return False


def _open_when_free(bridge: type[Bridge], about: SharedHand) -> Bridge:
    settings: dict[str, Any] = {
        "side": about.side, "baud": about.baud, "device_id": about.device_id, "rate_hz": about.rate_hz,
        "reply_timeout_s": about.reply_timeout_s, **about.options}
    give_up = time.monotonic() + _OPEN_PATIENCE_S
    while True:
        try:
            return bridge.open(about.hand, about.port, **settings)
        except TransportError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.02)


def _wait(condition: Any, patience_s: float, complaint: str) -> None:
    give_up = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > give_up:
            raise TransportTimeout(complaint)
        time.sleep(0.005)
