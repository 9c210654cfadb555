"""A robot hand as kinematics and nothing else: joints, hinges, four points per finger.

The compact file (docs/hands.md) is json; files that come with the package lie in assets/robots. URDF and MJCF files
become one by `robot_import.py`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beingh0_edge import _kernels
from beingh0_edge.errors import RobotFileError
from beingh0_edge.types import SIDES, Side

DoubleArray = npt.NDArray[np.float64]

FINGERS = ("thumb", "index", "middle", "ring", "little")
FORMAT = "beingh0_edge robot hand 1"
_ROBOTS = Path(__file__).parent / "assets" / "robots"
_LARGEST_M = 2.0  # a coordinate beyond this is not metres
_NOTES = ("description", "frame", "provenance", "license")


def known_robots() -> list[str]:
    """Names of the hands whose kinematics are in the package."""
    return sorted({path.stem.rsplit("_", 1)[0] for path in _ROBOTS.glob("*.json")})


@dataclass(frozen=True, eq=False)
class RobotHand:
    """Kinematics of a robot hand (metres, radians, palm frame).

    joint_names    driven joints in the order of every q_rad; lower_rad, upper_rad, open_rad: float64[J]
    natural_rad    float64[2, J], lowest and highest angle of a human-like pose, within the limits: a finger that can
                   bend backwards reaches most points in two ways, and only one of them is a hand's
    link_names     hinges, parent before child; parents int32[L] (-1: palm); origins_m, axes: float64[L, 3]
    link_joints    int32[L]; the angle of a hinge is multipliers * q[joint] + offsets_rad
    fingers        name -> four (link index or -1 for the palm, point float64[3]), base to tip, thumb first
    radius_m       name -> half the thickness of the finger; fingers without one do not collide
    notes          description, frame, provenance, license, as in the file

    Link frames are parallel to the palm frame when every hinge is at 0, so no rotations are stored.
    """

    name: str
    side: Side
    joint_names: tuple[str, ...]
    lower_rad: DoubleArray
    upper_rad: DoubleArray
    open_rad: DoubleArray
    natural_rad: DoubleArray
    link_names: tuple[str, ...]
    parents: npt.NDArray[np.int32]
    origins_m: DoubleArray
    axes: DoubleArray
    link_joints: npt.NDArray[np.int32]
    multipliers: DoubleArray
    offsets_rad: DoubleArray
    fingers: dict[str, list[tuple[int, DoubleArray]]]
    radius_m: dict[str, float] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, robot: str | os.PathLike[str], side: Side) -> RobotHand:
        """A hand of the package by name, or a compact file (a path, or a name that ends in .json).

        Raises ValueError for an unknown name or side, RobotFileError for a file that does not hold or is of the other
        side.
        """
        if side not in SIDES:
            raise ValueError(f"side: expected 'left' or 'right', got {side!r}")
        if isinstance(robot, str) and not robot.endswith(".json"):
            if robot not in known_robots():
                raise ValueError(f"unknown robot {robot!r}; known: {', '.join(known_robots())}, "
                                 "or a compact file (.json), see `beingh0 hand import`")
            path = _ROBOTS / f"{robot}_{side}.json"
        else:
            path = Path(robot)
        try:
            text = path.read_text()
        except OSError as error:
            raise RobotFileError(f"{path}: {error.strerror}", str(path)) from error
        try:
            description = json.loads(text)
        except json.JSONDecodeError as error:
            raise RobotFileError(f"{path}: not json ({error})", str(path)) from error
        hand = cls.from_json(description, str(path))
        if hand.side != side:
            raise RobotFileError(f"{path}: a {hand.side} hand, expected a {side} one", str(path))
        return hand

    @classmethod
    def from_json(cls, description: object, where: str = "description") -> RobotHand:
        """Checks everything. Raises RobotFileError that names the place."""
        return _Reader(where).read(description)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads; axes to 6 digits, all else as it is."""
        def point(link: int, at: DoubleArray) -> dict[str, Any]:
            return {"link": "palm" if link < 0 else self.link_names[link], "point_m": at.tolist()}

        joints = [{"name": name, "lower_rad": float(low), "upper_rad": float(high)}
                  | ({"open_rad": float(opened)} if opened else {})
                  | ({"natural_rad": natural.tolist()} if natural.tolist() != [low, high] else {})
                  for name, low, high, opened, natural in zip(self.joint_names, self.lower_rad, self.upper_rad,
                                                              self.open_rad, self.natural_rad.T, strict=True)]
        links = [{"name": name, "parent": "palm" if self.parents[i] < 0 else self.link_names[self.parents[i]],
                  "origin_m": self.origins_m[i].tolist(), "axis": (self.axes[i].round(6) + 0.0).tolist(),
                  "joint": self.joint_names[self.link_joints[i]], "multiplier": float(self.multipliers[i]),
                  "offset_rad": float(self.offsets_rad[i])} for i, name in enumerate(self.link_names)]
        return ({"format": FORMAT, "name": self.name, "side": self.side} | self.notes
                | {"joints": joints, "links": links,
                   "fingers": {finger: [point(*p) for p in points] for finger, points in self.fingers.items()}}
                | ({"radius_m": self.radius_m} if self.radius_m else {}))

    def to_text(self) -> str:
        """The compact file: one joint, link and finger per line."""
        lines = []
        for key, value in self.to_json().items():
            if key in ("joints", "links"):
                rows = ",\n".join(f"  {json.dumps(row)}" for row in value)
                lines.append(f' "{key}": [\n{rows}\n ]')
            elif key == "fingers":
                rows = ",\n".join(f'  "{name}": {json.dumps(points)}' for name, points in value.items())
                lines.append(f' "{key}": {{\n{rows}\n }}')
            elif key == "provenance":
                rows = ",\n".join(f"  {json.dumps(row)}" for row in value)
                lines.append(f' "{key}": [\n{rows}\n ]')
            else:
                lines.append(f' "{key}": {json.dumps(value)}')
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def points_m(self, q_rad: DoubleArray) -> dict[str, DoubleArray]:
        """Forward kinematics of one pose: finger -> float64[4, 3], palm frame. q_rad: float64[J]. Raises ValueError."""
        places = self.place([point for points in self.fingers.values() for point in points], q_rad[None])[0]
        return dict(zip(self.fingers, places.reshape(-1, 4, 3), strict=True))

    def place(self, points: Sequence[tuple[int, DoubleArray]], q_rad: DoubleArray) -> DoubleArray:
        """Points (link index or -1 for the palm, float64[3]), at most 64, of poses float64[N, J]: float64[N, P, 3]."""
        return _kernels.hand_points(
            q_rad, parents=self.parents, origins=self.origins_m, axes=self.axes,
            link_joints=self.link_joints, multipliers=self.multipliers, offsets=self.offsets_rad,
            point_links=np.array([link for link, _ in points], dtype=np.int32),
            points=np.array([at for _, at in points]))

    def palm_axes(self) -> DoubleArray:
        """float64[3, 3], columns in the palm frame: to the fingers, across to the thumb, out of the back of the hand.

        From the open hand, so it does not matter how the file's palm frame lies.
        """
        return palm_axes(self.points_m(self.open_rad), self.side)

    def closing_m(self) -> float:
        """How far the long fingers' tips move out of the palm when they close half way, mean, metres.

        Below 0 the description cannot be right: it is of the other hand, or opens where it should close.
        """
        back, opened = self.palm_axes()[:, 2], self.points_m(self.open_rad)
        far = np.where(self.upper_rad - self.open_rad >= self.open_rad - self.lower_rad, self.upper_rad, self.lower_rad)
        closed = self.points_m(0.5 * (self.open_rad + far))
        return float(np.mean([(opened[f][3] - closed[f][3]) @ back for f in self.fingers if f != "thumb"]))


def palm_axes(fingers: Mapping[str, DoubleArray], side: Side) -> DoubleArray:
    """Columns: finger direction, across the palm to the thumb, out of the back of the hand; right-handed on the right.

    fingers: name -> float[4, 3], base to tip, of an open hand; at least two long ones.
    """
    long = [name for name in FINGERS[1:] if name in fingers]
    directions = [fingers[name][3] - fingers[name][0] for name in long]
    forward = np.sum([d / np.linalg.norm(d) for d in directions], axis=0)
    forward /= np.linalg.norm(forward)
    across = fingers[long[0]][0] - fingers[long[-1]][0]
    back = np.cross(forward, across) * (1.0 if side == "right" else -1.0)
    back /= np.linalg.norm(back)
    return np.stack([forward, np.cross(back, forward), back], axis=1)


class _Reader:
    """Reads a compact description, naming the place of whatever does not hold."""

    def __init__(self, where: str) -> None:
        self.where = where

    def fail(self, what: str) -> RobotFileError:
        return RobotFileError(f"{self.where}: {what}", self.where)

    def read(self, description: object) -> RobotHand:
        if not isinstance(description, dict) or description.get("format") != FORMAT:
            got = description.get("format") if isinstance(description, dict) else type(description).__name__
            raise self.fail(f"expected format {FORMAT!r}, got {got!r}")
        known = {"format", "name", "side", "joints", "links", "fingers", "radius_m", *_NOTES}
        if strange := sorted(set(description) - known):
            raise self.fail(f"unknown keys {', '.join(strange)}; known: {', '.join(sorted(known))}")
        name, side = self.text(description, "name", "name"), description.get("side")
        if side not in SIDES:
            raise self.fail(f"side: expected 'left' or 'right', got {side!r}")
        joints = self.rows(description, "joints", 1, 32)
        links = self.rows(description, "links", 1, 64)
        joint_index = self.index(joints, "joints")
        link_index = {"palm": -1} | self.index(links, "links")
        limits, natural = np.empty((3, len(joints))), np.empty((2, len(joints)))
        for i, joint in enumerate(joints):
            where = f"joint {joint['name']!r}"
            limits[:, i] = [self.number(joint, "lower_rad", where), self.number(joint, "upper_rad", where),
                            self.number(joint, "open_rad", where, 0.0)]
            low, high, opened = limits[:, i]
            if not low < high:
                raise self.fail(f"{where}: expected lower_rad below upper_rad, got {low:g} and {high:g}")
            if not low <= opened <= high:
                raise self.fail(f"{where}: open_rad {opened:g} is outside its limits {low:g} to {high:g}")
            natural[:, i] = low, high
            if "natural_rad" in joint:
                given = joint["natural_rad"]
                if not isinstance(given, list) or len(given) != 2:
                    raise self.fail(f"{where}: natural_rad: expected two numbers, got {given!r}")
                natural[:, i] = [self.number({"natural_rad": value}, "natural_rad", where) for value in given]
                if not low <= natural[0, i] <= opened <= natural[1, i] <= high or natural[0, i] == natural[1, i]:
                    raise self.fail(f"{where}: natural_rad {given} must lie within the limits {low:g} to {high:g} and "
                                    f"hold the open angle {opened:g}")
        parents, origins, axes, driven, multipliers, offsets = [], [], [], [], [], []
        for i, link in enumerate(links):
            where = f"link {link['name']!r}"
            parent = self.choice(link, "parent", where, link_index)
            if parent >= i:
                raise self.fail(f"{where}: its parent {link['parent']!r} must come before it")
            axis = self.vector(link, "axis", where)
            length = float(np.linalg.norm(axis))
            if abs(length - 1.0) > 0.01:
                raise self.fail(f"{where}: axis: expected length 1, got {length:.3g}")
            parents.append(parent)
            origins.append(self.metres(link, "origin_m", where))
            axes.append(axis / length)
            driven.append(self.choice(link, "joint", where, joint_index))
            multipliers.append(self.number(link, "multiplier", where))
            offsets.append(self.number(link, "offset_rad", where))
        fingers = self.fingers(description, link_index)
        radius = description.get("radius_m", {})
        if not isinstance(radius, dict) or not set(radius) <= set(fingers):
            raise self.fail(f"radius_m: expected numbers by finger ({', '.join(fingers)}), got {radius!r}")
        radii = {finger: self.number(radius, finger, "radius_m") for finger in radius}
        for finger, value in radii.items():
            if not 0.0 < value < 0.05:
                raise self.fail(f"radius_m: {finger}: expected 0 to 0.05 m, got {value:g}")
        hand = RobotHand(
            name=name, side=side, joint_names=tuple(joint_index), lower_rad=limits[0], upper_rad=limits[1],
            open_rad=limits[2], natural_rad=natural, link_names=tuple(link["name"] for link in links),
            parents=np.array(parents, dtype=np.int32), origins_m=np.array(origins), axes=np.array(axes),
            link_joints=np.array(driven, dtype=np.int32), multipliers=np.array(multipliers),
            offsets_rad=np.array(offsets), fingers=fingers, radius_m=radii,
            notes={key: description[key] for key in _NOTES if key in description})
        self.check_shape(hand)
        return hand

    def check_shape(self, hand: RobotHand) -> None:
        """That it is a hand, open where it says so, and of the side it says."""
        with np.errstate(all="ignore"):
            turns = hand.multipliers * np.stack([hand.lower_rad, hand.upper_rad])[:, hand.link_joints]
            strange = ~np.isfinite(turns + hand.offsets_rad).all(axis=0)
        if strange.any():
            raise self.fail(f"link {hand.link_names[int(strange.argmax())]!r}: its angle at the limits is not finite")
        opened = hand.points_m(hand.open_rad)
        for finger, points in opened.items():
            if float(np.linalg.norm(points[3] - points[0])) < 0.005:
                raise self.fail(f"finger {finger!r}: tip and base are closer than 5 mm when open")
        long = [finger for finger in hand.fingers if finger != "thumb"]
        if float(np.linalg.norm(opened[long[0]][0] - opened[long[-1]][0])) < 0.005:
            raise self.fail(f"fingers {long[0]!r} and {long[-1]!r} have the same base: across the palm is where?")
        with np.errstate(all="ignore"):
            axes = hand.palm_axes()
        if not np.isfinite(axes).all():
            raise self.fail("the open fingers point along the knuckles: no palm can be found")
        closing = hand.closing_m()
        if closing < 0.0:
            other = SIDES[1 - SIDES.index(hand.side)]
            raise self.fail(
                f"closing the fingers moves their tips {1000 * -closing:.0f} mm out of the back of a {hand.side} hand. "
                f"Is it a {other} one, are index and {long[-1]} exchanged, or is it not open at its open angles?")

    def rows(self, description: dict[str, Any], key: str, low: int, high: int) -> list[dict[str, Any]]:
        rows = description.get(key)
        if not isinstance(rows, list) or not low <= len(rows) <= high or not all(isinstance(r, dict) for r in rows):
            got = f"{len(rows)}" if isinstance(rows, list) else type(rows).__name__
            raise self.fail(f"{key}: expected a list of {low} to {high} objects, got {got}")
        return rows

    def index(self, rows: list[dict[str, Any]], key: str) -> dict[str, int]:
        names = [self.text(row, "name", key) for row in rows]
        for name in names:
            if names.count(name) > 1 or name == "palm":
                raise self.fail(f"{key}: the name {name!r} must be there once, and not be 'palm'")
        return {name: i for i, name in enumerate(names)}

    def fingers(self, description: dict[str, Any], links: dict[str, int]) -> dict[str, list[tuple[int, DoubleArray]]]:
        given = description.get("fingers")
        if not isinstance(given, dict) or not set(given) <= set(FINGERS):
            raise self.fail(f"fingers: expected some of {', '.join(FINGERS)}, got "
                            f"{', '.join(map(str, given)) if isinstance(given, dict) else type(given).__name__}")
        if len([finger for finger in given if finger != "thumb"]) < 2:
            raise self.fail("fingers: expected at least two besides the thumb: they say where the palm is")
        fingers: dict[str, list[tuple[int, DoubleArray]]] = {}
        for finger in FINGERS:
            if finger not in given:
                continue
            points = given[finger]
            if not isinstance(points, list) or len(points) != 4 or not all(isinstance(p, dict) for p in points):
                raise self.fail(f"finger {finger!r}: expected four points, base to tip")
            fingers[finger] = [(self.choice(p, "link", f"finger {finger!r}", links),
                                self.metres(p, "point_m", f"finger {finger!r}")) for p in points]
        return fingers

    def text(self, row: Mapping[str, Any], key: str, where: str) -> str:
        value = row.get(key)
        if not isinstance(value, str) or not value:
            raise self.fail(f"{where}: {key}: expected text, got {value!r}")
        return value

    def number(self, row: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
        value = row.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.fail(f"{where}: {key}: expected a finite number, got {value!r}")
        return float(value)

    def vector(self, row: Mapping[str, Any], key: str, where: str) -> DoubleArray:
        value = row.get(key)
        if not isinstance(value, list) or len(value) != 3:
            raise self.fail(f"{where}: {key}: expected three numbers, got {value!r}")
        return np.array([self.number({key: v}, key, where) for v in value])

    def metres(self, row: Mapping[str, Any], key: str, where: str) -> DoubleArray:
        value = self.vector(row, key, where)
        if np.abs(value).max() > _LARGEST_M:
            raise self.fail(f"{where}: {key}: {np.abs(value).max():g} m is not part of a hand; millimetres?")
        return value

    def choice(self, row: Mapping[str, Any], key: str, where: str, known: Mapping[str, int]) -> int:
        value = row.get(key)
        if not isinstance(value, str) or value not in known:
            raise self.fail(f"{where}: unknown {key} {value!r}; known: {', '.join(known)}")
        return known[value]
