"""URDF and MJCF files of robot hands to our compact description (`robot_hand.py`).

Only the kinematics are read: links, hinges, limits, couplings (mimic joints; joint equalities and fixed tendons), and
where the fingertips are. What would change the motion of a finger and is not understood is refused, by name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ._kernels import rotation_about
from .errors import RobotFileError
from .robot_hand import FINGERS, DoubleArray, RobotHand
from .robot_mjcf import read_mjcf
from .robot_tree import Coupling, Hinge, Tree, parse_xml, placed
from .robot_urdf import read_urdf
from .types import SIDES, Side

_SAME_PLACE_M = 1e-4
_OVERTRAVEL_RAD = 0.02  # of a coupled hinge past its own limits, from which on it is worth a note


@dataclass(frozen=True)
class ImportOptions:
    """What a file does not say.

    tips        finger -> link (URDF), body or site (MJCF), perhaps with a point in it: "name" or "name:x,y,z" (metres)
    name, side  of the result
    base        the link that becomes the palm; by default the last one that all fingers share
    couple      joint -> (driving joint, multiplier, offset_rad), for linkages the file does not have
    fix         joint -> angle at which it stays
    rename      joint -> its name in every trajectory, e.g. that of the bridge
    open        joint (new name) -> its angle in the open hand, where that is not 0
    natural     joint (new name) -> lowest and highest angle of a human-like pose, where the limits allow more
    radius_m    finger -> half its thickness, for the self-collision margin
    license     of the file's numbers
    """

    tips: Mapping[str, str]
    name: str
    side: Side = "right"
    base: str | None = None
    couple: Mapping[str, tuple[str, float, float]] = field(default_factory=dict)
    fix: Mapping[str, float] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)
    open: Mapping[str, float] = field(default_factory=dict)
    natural: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    radius_m: Mapping[str, float] = field(default_factory=dict)
    license: str = ""


def import_hand(path: str | os.PathLike[str], options: ImportOptions) -> RobotHand:
    """Reads a URDF or MJCF file. Raises RobotFileError for whatever does not hold or is not supported."""
    file = Path(path)
    root = parse_xml(file)
    if root.tag == "robot":
        tree = read_urdf(root, str(file))
    elif root.tag == "mujoco":
        tree = read_mjcf(root, file)
    else:
        raise RobotFileError(f"{file}: expected <robot> (URDF) or <mujoco> (MJCF), got <{root.tag}>", str(file))
    return compact(tree, options)


class _Compactor:
    def __init__(self, tree: Tree, options: ImportOptions) -> None:
        self.tree, self.options = tree, options
        self.hinges = tree.hinges()
        self.links: list[tuple[str, int, DoubleArray, DoubleArray, str, float, float]] = []
        self.places: list[DoubleArray] = []  # of each compact hinge, palm frame
        self.by_joint: dict[str, int] = {}

    def fail(self, what: str) -> RobotFileError:
        return self.tree.fail(what)

    def run(self) -> RobotHand:
        options = self.options
        self.check_names()
        tips = {finger: self.tip(finger, options.tips[finger]) for finger in FINGERS if finger in options.tips}
        base = self.base([link for link, _ in tips.values()])
        fingers = {finger: [(hinge, at.round(7) + 0.0) for hinge, at in self.finger(finger, base, link, point)]
                   for finger, (link, point) in tips.items()}
        joints = self.joints()
        place = {name: i for i, name in enumerate(joints)}
        limits = np.array([self.limits(name) for name in joints])
        names = tuple(self.options.rename.get(name, name) for name in joints)
        if len(set(names)) != len(names):
            raise self.fail(f"rename: two joints get the same name among {', '.join(names)}")
        for what, given in (("open", set(options.open)), ("natural", set(options.natural))):
            if strange := sorted(given - set(names)):
                raise self.fail(f"{what}: unknown joints {', '.join(strange)}; known: {', '.join(names)}")
        opened = np.array([options.open.get(name, 0.0) for name in names])
        for name, value, (low, high) in zip(names, opened, limits, strict=True):
            if not low <= value <= high:
                raise self.fail(f"joint {name!r} is open at {value:g} rad, which is outside its limits {low:g} to "
                                f"{high:g}; say where it is open with --open {name}=...")
        self.note_overtravel()
        notes: dict[str, object] = {"provenance": [f"Imported from {Path(self.tree.path).name}.", *self.tree.notes]}
        if options.license:
            notes["license"] = options.license
        hand = RobotHand(
            name=options.name, side=options.side, joint_names=names, lower_rad=limits[:, 0], upper_rad=limits[:, 1],
            open_rad=opened,
            natural_rad=np.array([options.natural.get(n, tuple(limits[i])) for i, n in enumerate(names)]).T,
            link_names=tuple(link[0] for link in self.links),
            parents=np.array([link[1] for link in self.links], dtype=np.int32),
            origins_m=np.array([link[2] for link in self.links]).round(7) + 0.0,
            axes=np.array([link[3] for link in self.links]).round(9) + 0.0,
            link_joints=np.array([place[link[4]] for link in self.links], dtype=np.int32),
            multipliers=np.array([link[5] for link in self.links]),
            offsets_rad=np.array([link[6] for link in self.links]), fingers=fingers,
            radius_m=dict(options.radius_m), notes=notes)
        return RobotHand.from_json(hand.to_json(), self.tree.path)

    def check_names(self) -> None:
        options = self.options
        if options.side not in SIDES:
            raise ValueError(f"side: expected 'left' or 'right', got {options.side!r}")
        if strange := sorted(set(options.tips) - set(FINGERS)):
            raise self.fail(f"tips: unknown fingers {', '.join(strange)}; known: {', '.join(FINGERS)}")
        known = set(self.hinges)
        for what, given in (("couple", set(options.couple)), ("fix", set(options.fix)),
                            ("rename", set(options.rename) - set(self.tree.virtual))):
            if strange := sorted(given - known):
                raise self.fail(f"{what}: unknown joints {', '.join(strange)}; known: {', '.join(sorted(known))}")

    def tip(self, finger: str, text: str) -> tuple[str, DoubleArray]:
        match = re.fullmatch(r"(.+?)(?::([^:]*))?", text)
        name, point = (match[1], match[2]) if match else (text, None)
        if text in self.tree.links:  # names may have colons
            name, point = text, None
        if name not in self.tree.links:
            parents = {link.parent for link in self.tree.links.values()}
            leaves = [link for link in self.tree.links if link not in parents]
            raise self.fail(f"tips: {finger}: unknown link {name!r}; links at the ends: {', '.join(leaves)}")
        if point is None:
            return name, np.zeros(3)
        try:
            at = np.array([float(word) for word in point.split(",")])
        except ValueError:
            at = np.empty(0)
        if at.shape != (3,) or not np.isfinite(at).all():
            raise self.fail(f"tips: {finger}: expected name:x,y,z in metres, got {text!r}")
        return name, at

    def chain(self, link: str) -> list[str]:
        """The link and what it hangs on, root first."""
        found: list[str] = []
        while link:
            if link in found:
                raise self.fail(f"link {link!r} hangs on itself")
            found.append(link)
            link = self.tree.links[link].parent
        return found[::-1]

    def base(self, tips: list[str]) -> str:
        chains = [self.chain(tip) for tip in tips]
        if not chains:
            raise self.fail(f"tips: none given; fingers: {', '.join(FINGERS)}")
        shared: list[str] = [links[0] for links in zip(*chains, strict=False) if len(set(links)) == 1]
        if self.options.base is not None:
            if self.options.base not in shared:
                raise self.fail(f"base: {self.options.base!r} does not carry all tips; these do: "
                                f"{', '.join(shared) or 'none'}")
            return self.options.base
        if not shared:
            raise self.fail("the tips have no link in common; expected one hand")
        if shared[-1] in tips:
            raise self.fail(f"tips: {shared[-1]!r} carries the others")
        return shared[-1]

    def finger(self, finger: str, base: str, tip: str, point: DoubleArray) -> list[tuple[int, DoubleArray]]:
        """Adds the hinges between base and tip; four points on them."""
        at, hinge = np.eye(4), -1
        centres: list[tuple[int, DoubleArray]] = []  # hinge centres, as (link, point in it)
        chain = self.chain(tip)
        for name in chain[chain.index(base) + 1:]:
            if name in self.tree.loops:
                raise self.fail(f"finger {finger!r}: {self.tree.loops[name]} closes a loop at {name!r}; loops are not "
                                "supported, give the coupling with --couple and remove it from the file")
            for step in self.tree.links[name].steps:
                at = at @ step.transform
                if step.unsupported:
                    raise self.fail(f"finger {finger!r}: {step.unsupported} is not supported; expected hinges")
                if step.hinge is None:
                    continue
                fixed = self.fixed(step.hinge.name)
                if fixed is not None:
                    at = at @ placed(rotation_about(step.hinge.axis, fixed - step.hinge.ref_rad), np.zeros(3))
                    continue
                hinge = self.hinge(step.hinge, at, hinge)
                centres.append((hinge, np.zeros(3)))
        if hinge < 0:
            raise self.fail(f"finger {finger!r}: nothing moves between {base!r} and {tip!r}")
        end = at @ [*point, 1.0]
        centres.append((hinge, end[:3] - self.places[hinge]))
        return self.four_points(finger, centres)

    def hinge(self, hinge: Hinge, at: DoubleArray, parent: int) -> int:
        if hinge.name in self.by_joint:
            return self.by_joint[hinge.name]
        driver, multiplier, offset = self.driver(hinge.name, ())
        origin = at[:3, 3] - (self.places[parent] if parent >= 0 else 0.0)
        self.links.append((hinge.name, parent, origin, at[:3, :3] @ hinge.axis, driver, multiplier,
                           offset - hinge.ref_rad))
        self.places.append(at[:3, 3].copy())
        self.by_joint[hinge.name] = len(self.links) - 1
        return self.by_joint[hinge.name]

    def coupling(self, name: str) -> Coupling | None:
        if name in self.options.couple:
            return Coupling(*self.options.couple[name])
        return self.tree.couplings.get(name)

    def fixed(self, name: str) -> float | None:
        """The angle of a joint that does not move."""
        if name in self.options.fix:
            return self.options.fix[name]
        coupling = self.coupling(name)
        return coupling.offset_rad if coupling is not None and coupling.multiplier == 0.0 else None

    def driver(self, name: str, seen: tuple[str, ...]) -> tuple[str, float, float]:
        """The driven joint that moves `name`: joint, multiplier, offset."""
        if name in seen:
            raise self.fail(f"joints follow each other in a circle: {' -> '.join((*seen, name))}")
        coupling = self.coupling(name)
        if coupling is None:
            if name in self.tree.undriven:
                raise self.fail(f"joint {name!r} has no motor in the file; couple it (--couple {name}=DRIVER*1.0) or "
                                f"fix it (--fix {name}=0)")
            return name, 1.0, 0.0
        if coupling.joint not in self.hinges and coupling.joint not in self.tree.virtual:
            raise self.fail(f"joint {name!r} follows {coupling.joint!r}, which is not in the file")
        if coupling.joint in self.tree.virtual:
            return coupling.joint, coupling.multiplier, coupling.offset_rad
        joint, multiplier, offset = self.driver(coupling.joint, (*seen, name))
        return joint, coupling.multiplier * multiplier, coupling.multiplier * offset + coupling.offset_rad

    def note_overtravel(self) -> None:
        """Says which coupled hinges would be driven past their own limits."""
        for name, _, _, _, driver, multiplier, offset in self.links:
            hinge = self.hinges[name]
            if name == driver or hinge.lower_rad is None or hinge.upper_rad is None:
                continue
            ends = sorted(multiplier * end + offset + hinge.ref_rad for end in self.limits(driver))
            if ends[0] < hinge.lower_rad - _OVERTRAVEL_RAD or ends[1] > hinge.upper_rad + _OVERTRAVEL_RAD:
                self.tree.notes.append(
                    f"{name}: following {driver} it reaches {ends[0]:.2f} to {ends[1]:.2f} rad, its own limits are "
                    f"{hinge.lower_rad:g} to {hinge.upper_rad:g}")

    def joints(self) -> list[str]:
        """Driven joints that move a finger, in the order of the file."""
        used = {link[4] for link in self.links}
        return [name for name in [*self.hinges, *self.tree.virtual] if name in used]

    def limits(self, name: str) -> tuple[float, float]:
        if name in self.tree.virtual:
            return self.tree.virtual[name]
        hinge = self.hinges[name]
        if hinge.lower_rad is None or hinge.upper_rad is None:
            raise self.fail(f"joint {name!r} has no limits; a driven joint needs them")
        if not hinge.lower_rad < hinge.upper_rad:
            raise self.fail(f"joint {name!r}: expected a lower limit below the upper one, got {hinge.lower_rad:g} and "
                            f"{hinge.upper_rad:g}; fix it if it does not move (--fix {name}={hinge.lower_rad:g})")
        return hinge.lower_rad, hinge.upper_rad

    def four_points(self, finger: str, centres: list[tuple[int, DoubleArray]]) -> list[tuple[int, DoubleArray]]:
        """Base, two between, tip: hinge centres that lie apart; the last part is divided if there are too few.

        With more than four a long finger begins at its knuckle, so the last four; a thumb at its root.
        """
        def where(entry: tuple[int, DoubleArray]) -> DoubleArray:
            return self.places[entry[0]] + entry[1]

        points: list[tuple[int, DoubleArray]] = []
        for entry in centres:
            if points and np.linalg.norm(where(entry) - where(points[-1])) < _SAME_PLACE_M:
                points[-1] = entry  # the later hinge moves with more of the finger
            else:
                points.append(entry)
        if finger != "thumb":
            del points[:-4]
        while len(points) > 4:  # drop the point that is closest to the one before it
            gaps = [float(np.linalg.norm(where(points[i]) - where(points[i - 1]))) for i in range(1, len(points) - 1)]
            del points[1 + int(np.argmin(gaps))]
        while len(points) < 4:
            link, tip = points[-1]
            start = where(points[-2]) - self.places[link]
            missing = 5 - len(points)
            points.insert(-1, (link, start + (tip - start) / missing))
        return points


def compact(tree: Tree, options: ImportOptions) -> RobotHand:
    """The compact description of one hand in a tree. Raises RobotFileError."""
    return _Compactor(tree, options).run()
