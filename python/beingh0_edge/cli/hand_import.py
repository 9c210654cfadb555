"""`beingh0 hand import`: a URDF or MJCF file becomes a compact description, with a picture to look at."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..files import staged
from ..robot_hand import RobotHand
from ..robot_import import ImportOptions, import_hand
from ..types import SIDES, Side

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_FACTOR = re.compile(rf"({_NUMBER})([-+]{_NUMBER})?")


def pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE texts as a dictionary. Raises ValueError."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name or not value or name in found:
            raise ValueError(f"--{option}: expected NAME=VALUE, each name once, got {text!r}")
        found[name] = value
    return found


def number(option: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--{option}: expected a number, got {text!r}") from None


def coupling(text: str) -> tuple[str, float, float]:
    """"index*1.1+0.05" as joint, multiplier, offset; the joint alone follows one to one."""
    joint, star, factor = text.partition("*")
    match = _FACTOR.fullmatch(factor) if star else None
    if not joint or (star and match is None):
        raise ValueError(f"--couple: expected JOINT=DRIVER, JOINT=DRIVER*1.1 or JOINT=DRIVER*1.1+0.05, got {text!r}")
    return (joint, float(match[1]), float(match[2] or 0.0)) if match else (joint, 1.0, 0.0)


def bounds(text: str) -> tuple[float, float]:
    words = text.split(":")
    if len(words) != 2:
        raise ValueError(f"--natural: expected JOINT=LOW:HIGH in radians, got {text!r}")
    return number("natural", words[0]), number("natural", words[1])


def run_import(file: Path, out: Path, name: str | None, side: str, tips: Sequence[str], base: str | None,
               couple: Sequence[str], fix: Sequence[str], rename: Sequence[str], opened: Sequence[str],
               natural: Sequence[str], radius: Sequence[str], license_text: str) -> str:
    """Writes `out` and a picture beside it; returns what was found."""
    if out.suffix != ".json":
        raise ValueError(f"--out: expected a file that ends in .json, got {out}")
    known: dict[str, Side] = {known: known for known in SIDES}
    if side not in known:
        raise ValueError(f"--side: expected left or right, got {side!r}")
    options = ImportOptions(
        tips=pairs("tip", tips), name=name or file.stem, side=known[side], base=base,
        couple={joint: coupling(text) for joint, text in pairs("couple", couple).items()},
        fix={joint: number("fix", text) for joint, text in pairs("fix", fix).items()},
        rename=pairs("rename", rename),
        open={joint: number("open", text) for joint, text in pairs("open", opened).items()},
        natural={joint: bounds(text) for joint, text in pairs("natural", natural).items()},
        radius_m={finger: number("radius", text) for finger, text in pairs("radius", radius).items()},
        license=license_text)
    hand = import_hand(file, options)
    from .plots import plot_hand

    with staged(out.parent) as stage:
        (stage / out.name).write_text(hand.to_text())
        plot_hand(stage / out.with_suffix(".png").name, hand)
    return summary(hand, out)


def summary(hand: RobotHand, out: Path) -> str:
    lines = [f"{hand.name}, {hand.side}: {len(hand.joint_names)} joints move {len(hand.link_names)} hinges"]
    opened = hand.points_m(hand.open_rad)
    for finger, points in hand.fingers.items():
        link, chain = points[3][0], []
        while link >= 0:
            chain.append(hand.joint_names[hand.link_joints[link]])
            link = int(hand.parents[link])
        length = float(np.linalg.norm(opened[finger][3] - opened[finger][0]))
        lines.append(f"  {finger}: {1000 * length:.0f} mm, moved by {', '.join(dict.fromkeys(reversed(chain)))}")
    lines += [f"  note: {note}" for note in hand.notes.get("provenance", [])[1:]]
    without = [finger for finger in hand.fingers if finger not in hand.radius_m]
    if without:
        lines.append(f"  no radius for {', '.join(without)}: may pass through other fingers (--radius)")
    lines += [f"written: {out}, {out.with_suffix('.png')} (is this the hand, open and closed?)",
              f"use: Retargeter.load({str(out)!r}, side={hand.side!r})"]
    return "\n".join(lines)
