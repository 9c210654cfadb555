"""`beingh0 hand`: the robot hands this version drives."""

from __future__ import annotations

from ..firmware_bridge import HANDS


def listing() -> str:
    """A table: name, joints, wire and speed of every hand the bridge knows."""
    rows = [("name", "joints", "wire", "baud", "cycle")]
    rows += [(spec.name, str(len(spec.joints)), spec.wire, str(spec.baud), f"{spec.rate_hz:g} Hz")
             for spec in HANDS.values()]
    return table(rows)


def table(rows: list[tuple[str, ...]]) -> str:
    """Left-aligned columns, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in rows)
