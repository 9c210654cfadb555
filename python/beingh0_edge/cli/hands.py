"""`beingh0 hand`: the robot hands this version drives."""

from __future__ import annotations

from ..firmware_bridge import HANDS
from .tables import table


def listing() -> str:
    """A table: name, joints, wire and speed of every hand the bridge knows."""
    return table([("name", "joints", "wire", "baud", "cycle"), *(
        (spec.name, str(len(spec.joints)), spec.wire, str(spec.baud), f"{spec.rate_hz:g} Hz")
        for spec in HANDS.values())])
