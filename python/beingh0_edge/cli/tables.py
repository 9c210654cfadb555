"""Text tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields

from ..motion import Motion
from ..types import Timings

STAGES = tuple(field.name.removesuffix("_ms") for field in fields(Timings))


def table(rows: Iterable[Sequence[str]]) -> str:
    """The rows as left-aligned columns, two spaces apart."""
    cells = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                     for row in cells)


def timing_table(motion: Motion) -> str:
    """Milliseconds per stage of every chunk, in the order they were made."""
    rows: list[Sequence[str]] = [("hand", "second", *STAGES, "total")]
    for chunk in motion.chunks:
        spent = [getattr(chunk.timings, f"{stage}_ms") for stage in STAGES]
        rows.append((chunk.side, f"{chunk.start_s:g}", *(f"{ms:.1f}" for ms in (*spent, sum(spent)))))
    return table(rows)
