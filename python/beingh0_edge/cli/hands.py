"""`beingh0 hand`: the robot hands this version drives."""

from __future__ import annotations

from ..firmware_bridge import HANDS
from .tables import table


def listing() -> str:
    """A table: name, joints, wire, cycle rate and title of every hand the bridge knows."""
    return table([("name", "joints", "wire", "cycle", "hand"), *(
        (spec.name, str(len(spec.joints)), spec.wire, f"{spec.rate_hz:g} Hz", spec.title)
        for spec in HANDS.values())])
