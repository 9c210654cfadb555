"""Links and joints of a URDF file.

What would change the motion of a finger and is not understood is refused, by name.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

import numpy as np

from ._kernels import rotation_about
from .robot_tree import Coupling, Hinge, LinkNode, Step, Tree, numbers, placed, unit


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
