"""URDF and MJCF files of robot hands to our compact description (`robot_hand.py`).

Only the kinematics are read: links, hinges, limits, couplings (mimic joints; joint equalities and fixed tendons), and
where the fingertips are. What would change the motion of a finger and is not understood is refused, by name.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from beingh0_edge.errors import RobotFileError
from beingh0_edge.robot_hand import FINGERS, DoubleArray, RobotHand, rotation_about
from beingh0_edge.types import SIDES, Side

_LARGEST_FILE = 16 * 2**20
_DEEPEST = 200  # elements inside each other
_SAME_PLACE_M = 1e-4
_OVERTRAVEL_RAD = 0.02  # of a coupled hinge past its own limits, from which on it is worth a note
_SLACK_RAD = 0.3  # a tendon that lets two joints differ by less couples them
_MJCF_REFUSED = ("attach", "replicate", "composite", "flexcomp")  # they would add bodies that are not in the file


@dataclass
class Hinge:
    """A joint that turns. lower_rad, upper_rad: None without a limit; ref_rad: its angle as the file is drawn."""

    name: str
    axis: DoubleArray
    lower_rad: float | None
    upper_rad: float | None
    ref_rad: float = 0.0


@dataclass
class Step:
    """One step from a link's parent to the link: a fixed transform float64[4, 4], then perhaps a joint."""

    transform: DoubleArray
    hinge: Hinge | None = None
    unsupported: str = ""  # a joint of another kind


@dataclass
class LinkNode:
    """A link, and how it hangs on its parent ("" for a root). A mark (MJCF's site) may have the name of a link."""

    name: str
    parent: str
    steps: list[Step]
    mark: bool = False


@dataclass
class Coupling:
    """angle of a joint = multiplier * angle of `joint` + offset_rad"""

    joint: str
    multiplier: float
    offset_rad: float = 0.0


@dataclass
class Tree:
    """What both kinds of files become.

    virtual   joints that exist only as a motor: name -> limits (an actuated tendon)
    undriven  joints that the file gives no motor; empty if it gives none to any
    loops     link -> what closes a loop there
    """

    path: str
    links: dict[str, LinkNode] = field(default_factory=dict)
    couplings: dict[str, Coupling] = field(default_factory=dict)
    virtual: dict[str, tuple[float, float]] = field(default_factory=dict)
    undriven: set[str] = field(default_factory=set)
    loops: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def fail(self, what: str) -> RobotFileError:
        return RobotFileError(f"{self.path}: {what}", self.path)

    def hinges(self) -> dict[str, Hinge]:
        return {step.hinge.name: step.hinge for link in self.links.values() for step in link.steps if step.hinge}


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


def parse_xml(path: Path) -> Element:
    """The root element. No document type and so no entities, at most 16 MiB, at most 200 levels."""
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise RobotFileError(f"{path}: {size} bytes, expected at most {_LARGEST_FILE}", str(path))
        data = path.read_bytes()
    except OSError as error:
        raise RobotFileError(f"{path}: {error.strerror}", str(path)) from error
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    depth = 0

    def refuse(*_: object) -> int:
        raise RobotFileError(f"{path}: line {parser.CurrentLineNumber}: a document type or entity, which a robot file "
                             "does not need, is refused", str(path))

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise RobotFileError(f"{path}: line {parser.CurrentLineNumber}: more than {_DEEPEST} elements inside each "
                                 "other", str(path))
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise RobotFileError(f"{path}: not XML ({error})", str(path)) from error
    root: Element = builder.close()
    return root


def numbers(tree: Tree, element: Element, key: str, count: int, default: Sequence[float] | None = None) -> DoubleArray:
    """An attribute of `count` finite numbers."""
    text = element.get(key)
    where = f"<{element.tag}> {element.get('name', '')}: {key}"
    if text is None:
        if default is None:
            raise tree.fail(f"{where}: missing")
        return np.array(default, dtype=np.float64)
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError:
        raise tree.fail(f"{where}: expected {count} numbers, got {text!r}") from None
    if len(values) != count or not np.isfinite(values).all():
        raise tree.fail(f"{where}: expected {count} finite numbers, got {text!r}")
    return values


def placed(rotation: DoubleArray, at: DoubleArray) -> DoubleArray:
    """float64[4, 4]"""
    transform = np.eye(4)
    transform[:3, :3] = rotation
    transform[:3, 3] = at
    return transform


def unit(tree: Tree, vector: DoubleArray, where: str) -> DoubleArray:
    length = float(np.linalg.norm(vector))
    if length < 1e-9:
        raise tree.fail(f"{where}: a direction of length 0")
    return vector / length


# ---- URDF ----


def read_urdf(root: Element, path: str) -> Tree:
    """Links and joints of a URDF file."""
    tree = Tree(path)
    for element in root.iter():
        if element.tag.startswith("xacro:") or any("${" in value for value in element.attrib.values()):
            raise tree.fail(f"<{element.tag}>: a xacro file; expand it first (`xacro file.xacro > file.urdf`)")
    for element in root.findall("link"):
        name = element.get("name", "")
        if not name or name in tree.links:
            raise tree.fail(f"<link>: expected a name of its own, got {name!r}")
        tree.links[name] = LinkNode(name, "", [])
    for element in root.findall("joint"):
        _urdf_joint(tree, element)
    return tree


def _urdf_joint(tree: Tree, element: Element) -> None:
    name, kind = element.get("name", ""), element.get("type", "")
    where = f"joint {name!r}"
    if not name:
        raise tree.fail("<joint>: without a name")
    ends = {}
    for role in ("parent", "child"):
        found = element.find(role)
        ends[role] = found.get("link", "") if found is not None else ""
        if ends[role] not in tree.links:
            raise tree.fail(f"{where}: unknown {role} link {ends[role]!r}")
    child = tree.links[ends["child"]]
    if child.parent:
        raise tree.fail(f"{where}: link {child.name!r} has two parents, {child.parent!r} and {ends['parent']!r}")
    origin = element.find("origin")
    transform = np.eye(4)
    if origin is not None:
        roll, pitch, yaw = numbers(tree, origin, "rpy", 3, (0, 0, 0))
        turn = (rotation_about(np.array([0.0, 0, 1]), yaw) @ rotation_about(np.array([0.0, 1, 0]), pitch)
                @ rotation_about(np.array([1.0, 0, 0]), roll))
        transform = placed(turn, numbers(tree, origin, "xyz", 3, (0, 0, 0)))
    child.parent = ends["parent"]
    if kind == "fixed":
        child.steps = [Step(transform)]
        return
    if kind not in ("revolute", "continuous"):
        child.steps = [Step(transform, unsupported=f"{where}: type {kind!r}")]
        return
    axis_element, limit = element.find("axis"), element.find("limit")
    axis = numbers(tree, axis_element, "xyz", 3) if axis_element is not None else np.array([1.0, 0, 0])
    lower = upper = None
    if kind == "revolute":
        if limit is None:
            raise tree.fail(f"{where}: a revolute joint needs a <limit>")
        lower, upper = (float(numbers(tree, limit, key, 1, (0,))[0]) for key in ("lower", "upper"))
    if name in tree.hinges():
        raise tree.fail(f"{where}: there twice")
    child.steps = [Step(transform, Hinge(name, unit(tree, axis, where), lower, upper))]
    mimic = element.find("mimic")
    if mimic is not None:
        tree.couplings[name] = Coupling(mimic.get("joint", ""), float(numbers(tree, mimic, "multiplier", 1, (1,))[0]),
                                        float(numbers(tree, mimic, "offset", 1, (0,))[0]))


# ---- MJCF ----

Defaults = dict[str, dict[str, dict[str, str]]]  # class -> element -> attributes


class _Mjcf:
    def __init__(self, root: Element, path: Path) -> None:
        self.tree = Tree(str(path))
        self.folder = path.resolve().parent
        self.expand(root, {path.resolve()})
        self.root = root
        self.degrees, self.euler, self.autolimits = True, "xyz", True
        for compiler in root.iter("compiler"):
            self.degrees = compiler.get("angle", "degree" if self.degrees else "radian") == "degree"
            self.euler = compiler.get("eulerseq", self.euler)
            self.autolimits = compiler.get("autolimits", "true" if self.autolimits else "false") == "true"
            if compiler.get("coordinate", "local") != "local":
                raise self.tree.fail("<compiler> coordinate: only local is supported")
        if len(self.euler) != 3 or set(self.euler.lower()) - set("xyz"):
            raise self.tree.fail(f"<compiler> eulerseq: expected three of x, y, z, got {self.euler!r}")
        self.defaults: Defaults = {"main": {}}
        for element in root.findall("default"):
            self.read_default(element, None)

    def expand(self, element: Element, above: set[Path]) -> None:
        """Puts included files in place; only files below the main file's folder."""
        position = 0
        while position < len(element):
            child = element[position]
            if child.tag != "include":
                self.expand(child, above)
                position += 1
                continue
            file = (self.folder / child.get("file", "")).resolve()
            if not file.is_relative_to(self.folder):
                raise self.tree.fail(f"<include> {child.get('file')!r}: outside the folder of the file")
            if file in above:
                raise self.tree.fail(f"<include> {child.get('file')!r}: includes itself")
            included = parse_xml(file)
            self.expand(included, above | {file})
            element[position:position + 1] = list(included)
            position += len(included)

    def read_default(self, element: Element, parent: str | None) -> None:
        name = element.get("class", "main" if parent is None else "")
        if not name:
            raise self.tree.fail("<default>: an inner default needs a class")
        above = self.defaults.get(name if parent is None else parent, {})
        merged = {tag: dict(values) for tag, values in above.items()}
        for child in element:
            if child.tag != "default":
                merged[child.tag] = merged.get(child.tag, {}) | dict(child.attrib)
        self.defaults[name] = merged
        for child in element:
            if child.tag == "default":
                self.read_default(child, name)

    def with_defaults(self, element: Element, inherited: str) -> Element:
        """The element with what its class says."""
        name = element.get("class", inherited)
        if name not in self.defaults:
            raise self.tree.fail(f"<{element.tag}> {element.get('name', '')}: unknown class {name!r}")
        return Element(element.tag, self.defaults[name].get(element.tag, {}) | dict(element.attrib))

    def angle(self, value: float) -> float:
        return math.radians(value) if self.degrees else value

    def rotation(self, element: Element) -> DoubleArray:
        """float64[3, 3] of quat, axisangle, euler, xyaxes or zaxis."""
        given = [key for key in ("quat", "axisangle", "euler", "xyaxes", "zaxis") if element.get(key) is not None]
        where = f"<{element.tag}> {element.get('name', '')}"
        if not given:
            return np.eye(3)
        if len(given) > 1:
            raise self.tree.fail(f"{where}: {' and '.join(given)}, expected one of them")
        key = given[0]
        if key == "quat":
            w, x, y, z = unit(self.tree, numbers(self.tree, element, key, 4), where)
            return np.array([[1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                             [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                             [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]])
        if key == "axisangle":
            values = numbers(self.tree, element, key, 4)
            return rotation_about(unit(self.tree, values[:3], where), self.angle(values[3]))
        if key == "euler":
            turn = np.eye(3)
            for letter, value in zip(self.euler, numbers(self.tree, element, key, 3), strict=True):
                single = rotation_about(np.eye(3)["xyz".index(letter.lower())], self.angle(value))
                turn = turn @ single if letter.islower() else single @ turn
            return turn
        if key == "xyaxes":
            values = numbers(self.tree, element, key, 6)
            x_axis = unit(self.tree, values[:3], where)
            y_axis = unit(self.tree, values[3:] - (values[3:] @ x_axis) * x_axis, where)
            return np.stack([x_axis, y_axis, np.cross(x_axis, y_axis)], axis=1)
        z_axis = unit(self.tree, numbers(self.tree, element, key, 3), where)
        side = np.cross([0.0, 0.0, 1.0], z_axis)
        sine = float(np.linalg.norm(side))
        if sine < 1e-9:
            return np.eye(3) if z_axis[2] > 0 else np.diag([1.0, -1.0, -1.0])
        return rotation_about(side / sine, math.atan2(sine, z_axis[2]))

    def transform(self, element: Element) -> DoubleArray:
        return placed(self.rotation(element), numbers(self.tree, element, "pos", 3, (0, 0, 0)))

    def read(self) -> Tree:
        for world in self.root.findall("worldbody"):
            self.bodies(world, "", np.eye(4), "main")
        hinges = self.tree.hinges()
        driven = self.actuators(hinges)
        self.equalities(hinges)
        self.tendons(hinges, driven)
        if driven:
            self.tree.undriven = {name for name in hinges if name not in driven}
        return self.tree

    def bodies(self, parent: Element, parent_name: str, above: DoubleArray, inherited: str) -> None:
        """Everything that hangs on one body; `above` is the transform of the frames in between."""
        for child in parent:
            if child.tag in _MJCF_REFUSED:
                raise self.tree.fail(f"<{child.tag}>: not supported; save the compiled model and import that")
            if child.tag == "frame":
                self.bodies(child, parent_name, above @ self.transform(child), child.get("childclass", inherited))
            elif child.tag == "body":
                self.body(child, parent_name, above, inherited)
            elif child.tag == "site" and child.get("name"):
                site = self.with_defaults(child, inherited)
                self.add(LinkNode(child.get("name", ""), parent_name, [Step(above @ self.transform(site))],
                                  mark=True))

    def add(self, link: LinkNode) -> None:
        there = self.tree.links.get(link.name)
        if there is not None and there.mark == link.mark:
            raise self.tree.fail(f"<{'site' if link.mark else 'body'}> {link.name!r}: there twice")
        if there is None or there.mark:  # a body goes before a site of its name
            self.tree.links[link.name] = link

    def body(self, element: Element, parent_name: str, above: DoubleArray, inherited: str) -> None:
        name = element.get("name") or f"body {len(self.tree.links)}"
        inherited = element.get("childclass", inherited)
        steps = [Step(above @ self.transform(element))]
        for child in element:
            if child.tag in ("joint", "freejoint"):
                steps += self.joint(child, inherited)
        self.add(LinkNode(name, parent_name, steps))
        self.bodies(element, name, np.eye(4), inherited)

    def joint(self, element: Element, inherited: str) -> list[Step]:
        joint = self.with_defaults(element, inherited)
        kind = "free" if element.tag == "freejoint" else joint.get("type", "hinge")
        name = joint.get("name") or f"joint {len(self.tree.links)}"
        if kind != "hinge":
            return [Step(np.eye(4), unsupported=f"joint {name!r}: type {kind!r}")]
        at = numbers(self.tree, joint, "pos", 3, (0, 0, 0))
        axis = unit(self.tree, numbers(self.tree, joint, "axis", 3, (0, 0, 1)), f"joint {name!r}")
        limited = joint.get("limited", "auto")
        if limited == "true" or (limited == "auto" and self.autolimits and joint.get("range") is not None):
            low, high = (self.angle(v) for v in numbers(self.tree, joint, "range", 2))
            limits: tuple[float | None, float | None] = (low, high)
        else:
            limits = (None, None)
        ref = self.angle(float(numbers(self.tree, joint, "ref", 1, (0,))[0]))
        there, back = np.eye(4), np.eye(4)
        there[:3, 3], back[:3, 3] = at, -at
        return [Step(there, Hinge(name, axis, *limits, ref_rad=ref)), Step(back)]

    def actuators(self, hinges: Mapping[str, Hinge]) -> set[str]:
        """Joints with a motor. A motor on a fixed tendon drives its joints together, as one joint named like it."""
        driven: set[str] = set()
        tendons = {t.get("name", ""): t for top in self.root.findall("tendon") for t in top.findall("fixed")}
        for top in self.root.findall("actuator"):
            for element in top:
                motor = self.with_defaults(element, "main")
                if (joint := motor.get("joint") or motor.get("jointinparent")) is not None:
                    driven.add(joint)
                elif (tendon := motor.get("tendon")) in tendons:
                    self.pull(tendon or "", tendons[tendon or ""], hinges, driven)
        return driven

    def terms(self, tendon: Element) -> list[tuple[str, float]]:
        return [(j.get("joint", ""), float(numbers(self.tree, j, "coef", 1)[0])) for j in tendon.findall("joint")]

    def pull(self, name: str, tendon: Element, hinges: Mapping[str, Hinge], driven: set[str]) -> None:
        terms = self.terms(tendon)
        if not all(joint in hinges for joint, _ in terms) or any(coef <= 0 for _, coef in terms):
            raise self.tree.fail(f"tendon {name!r}: a motor pulls it, so its joints must be hinges with coef above 0")
        drives = name if len(terms) > 1 else terms[0][0]
        driven.update(joint for joint, _ in terms)
        if len(terms) == 1:
            return
        total = sum(coef * coef for _, coef in terms)
        for joint, coef in terms:
            self.tree.couplings[joint] = Coupling(drives, coef / total)
        lowest, highest = -math.inf, math.inf
        for joint, coef in terms:
            low, high = hinges[joint].lower_rad, hinges[joint].upper_rad
            if low is None or high is None:
                raise self.tree.fail(f"tendon {name!r}: joint {joint!r} needs limits")
            lowest, highest = max(lowest, low * total / coef), min(highest, high * total / coef)
        self.tree.virtual[drives] = (lowest, highest)
        self.tree.notes.append(f"{drives}: one motor pulls {' and '.join(joint for joint, _ in terms)}; taken to share "
                               "the way evenly, which one goes first depends on what they touch")

    def equalities(self, hinges: Mapping[str, Hinge]) -> None:
        for top in self.root.findall("equality"):
            for element in top:
                kind = element.tag
                if self.with_defaults(element, "main").get("active", "true") == "false":
                    continue
                if kind == "joint":
                    self.equal_joints(element, hinges)
                elif kind in ("connect", "weld"):
                    for body in filter(None, (element.get("body1"), element.get("body2"))):
                        self.tree.loops[body] = f"<equality> {kind} {element.get('name', '')}"

    def equal_joints(self, element: Element, hinges: Mapping[str, Hinge]) -> None:
        joint, other = element.get("joint1", ""), element.get("joint2")
        where = f"<equality> joint {joint!r}"
        if joint not in hinges:
            return  # not a hinge; refused where it moves a finger
        poly = numbers(self.tree, element, "polycoef", len((element.get("polycoef") or "0 1 0 0 0").split()),
                       (0, 1, 0, 0, 0))
        poly = np.concatenate([poly, np.zeros(5)])[:5]
        if np.abs(poly[2:]).max() > 1e-9:
            raise self.tree.fail(f"{where}: a curved coupling (polycoef {element.get('polycoef')}); only a straight "
                                 "one is supported, give it with --couple")
        ref = hinges[joint].ref_rad
        if other is None:
            self.tree.couplings[joint] = Coupling("", 0.0, ref + poly[0])
        elif other not in hinges:
            raise self.tree.fail(f"{where}: follows {other!r}, which is not a hinge of the file")
        else:  # q1 - ref1 = p0 + p1 (q2 - ref2)
            self.tree.couplings[joint] = Coupling(other, poly[1], ref + poly[0] - poly[1] * hinges[other].ref_rad)

    def tendons(self, hinges: Mapping[str, Hinge], driven: set[str]) -> None:
        """A tight fixed tendon between a driven and an undriven joint couples them."""
        for top in self.root.findall("tendon"):
            for element in top.findall("fixed"):
                tendon = self.with_defaults(element, "main")
                terms = self.terms(element)
                if len(terms) != 2 or terms[0][1] * terms[1][1] >= 0 or tendon.get("range") is None:
                    continue
                (a, ca), (b, cb) = terms
                if a in driven and b not in driven:
                    a, ca, b, cb = b, cb, a, ca
                if a in driven or b not in driven or a not in hinges or b not in hinges or a in self.tree.couplings:
                    continue
                low, high = numbers(self.tree, tendon, "range", 2)
                if (high - low) / abs(ca) > _SLACK_RAD:
                    continue
                multiplier = -cb / ca
                self.tree.couplings[a] = Coupling(b, multiplier, 0.5 * (low + high) / ca)
                self.tree.notes.append(
                    f"{a}: has no motor and follows {b} by {multiplier:.3f}; its tendon lets it differ by "
                    f"{0.5 * (high - low) / abs(ca):.3f} rad")


def read_mjcf(root: Element, path: Path) -> Tree:
    """Bodies, sites and joints of an MJCF file, with included files and default classes."""
    return _Mjcf(root, path).read()


# ---- to the compact description ----


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
