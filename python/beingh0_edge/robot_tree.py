"""What URDF and MJCF files of robots become before one hand is taken out of them, and the XML reading both share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from .errors import RobotFileError
from .robot_hand import DoubleArray

_LARGEST_FILE = 16 * 2**20
_DEEPEST = 200  # elements inside each other


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
