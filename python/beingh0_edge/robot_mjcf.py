"""Bodies, sites and joints of an MJCF file, with included files, default classes, equalities and fixed tendons.

What would change the motion of a finger and is not understood is refused, by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from ._kernels import rotation_about
from .robot_hand import DoubleArray
from .robot_tree import Coupling, Hinge, LinkNode, Step, Tree, numbers, parse_xml, placed, unit

_SLACK_RAD = 0.3  # a tendon that lets two joints differ by less couples them
_REFUSED = ("attach", "replicate", "composite", "flexcomp")  # they would add bodies that are not in the file

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
            quat = unit(self.tree, numbers(self.tree, element, key, 4), where)
            sine = float(np.linalg.norm(quat[1:]))
            return np.eye(3) if sine < 1e-9 else rotation_about(quat[1:] / sine, 2 * math.atan2(sine, quat[0]))
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
            if child.tag in _REFUSED:
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
