"""Which ports this machine has, and what a failed open means."""

from __future__ import annotations

import errno
import glob
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beingh0_edge.firmware_bridge.hands import HandSpec

# Names that survive replugging come first.
_PATTERNS = (
    "/dev/serial/by-id/*",
    "/dev/ttyUSB*",
    "/dev/ttyACM*",
    "/dev/ttyTHS*",
    "/dev/ttyAMA*",
)


def available_ports() -> list[str]:
    """Serial ports on this machine, those with stable names first."""
    return [path for pattern in _PATTERNS for path in sorted(glob.glob(pattern))]


def stable_name(port: str, links: str = "/dev/serial/by-id") -> str:
    """The name under which a serial port is found again after it was unplugged: /dev/ttyUSB0 may come back as ttyUSB1.

    `port` itself where there is no such name. `slcan:` in front stays.
    """
    prefix, path = ("slcan:", port.removeprefix("slcan:")) if port.startswith("slcan:") else ("", port)
    for link in sorted(glob.glob(os.path.join(links, "*"))):
        if os.path.realpath(link) == os.path.realpath(path) and os.path.exists(path):
            return prefix + link
    return port


def explain_open_failure(spec: HandSpec, port: str, error: OSError) -> str:
    """One line for a person: what is wrong with `port` and what is possible instead."""
    port = port.removeprefix("slcan:")
    ports = available_ports()
    possible = f"a simulated hand: sim:{spec.name}"
    if spec.wire != "tcp":
        have = f"available: {', '.join(ports)}" if ports else "no serial port is available on this machine"
        possible = f"{have}; {possible}"
    if not port.startswith("/"):  # a network address or a CAN interface; the text says which and why
        return f"port {error.strerror}; {possible}"
    if error.errno == errno.ENOENT:
        return f"port {port} does not exist; {possible}"
    if error.errno == errno.EBUSY:
        return f"port {port} is in use by another process; {possible}"
    if error.errno == errno.EACCES:
        user = os.environ.get("USER", "your user")
        return f"no permission for port {port}: add {user} to the group that owns it (often 'dialout')"
    if error.errno in (errno.ENOTTY, errno.EISDIR):
        return f"{port} is not a serial port; {possible}"
    return f"port {error.strerror}; {possible}"
