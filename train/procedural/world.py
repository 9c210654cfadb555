"""A table with objects of named kinds and colours, an egocentric camera, and where the hands start.

World frame: x right, y away from the person, z up, metres; the table is z = 0. Everything is a function of
(split, seed, index).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import dist
from typing import Any

import numpy as np
import numpy.typing as npt

from beingh0_edge.preprocess import Camera
from beingh0_edge.types import Side, sides_of

Array = npt.NDArray[np.float64]

KINDS = ("box", "can", "ball", "bottle")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
COLOUR_RGB = np.array([[0.80, 0.10, 0.10], [0.10, 0.55, 0.17], [0.12, 0.25, 0.78], [0.92, 0.78, 0.10],
                       [0.50, 0.16, 0.62], [0.93, 0.45, 0.06], [0.92, 0.92, 0.90], [0.08, 0.08, 0.09]])

# What the nano model sees: a square pinhole wide enough for the workspace. The raw photo is warped into it.
CANONICAL_CAMERA = Camera(430.0, 430.0, 224.0, 224.0, 448, 448)

VISIBLE = ("right", "left", "both")
VISIBLE_ODDS = (0.6, 0.2, 0.2)
PLATE_RADIUS_M = 0.075
OBJECT_GAP_M = 0.10   # centre to centre
HAND_GAP_M = 0.09     # from a hand's start (palm) to an object's centre on the table
MARGIN_PX = 14        # every object lies at least this far inside the canonical picture (448 px)


class Split(IntEnum):
    """Disjoint streams of scenes."""

    TRAIN = 0
    HELD_OUT = 1


@dataclass(frozen=True)
class Thing:
    """An object on the table, or a plate."""

    kind: str
    colour: int
    xy_m: tuple[float, float]
    radius_m: float
    height_m: float
    yaw_rad: float
    shade: tuple[float, float, float]  # RGB in 0..1 as drawn

    @property
    def centre_m(self) -> Array:
        return np.array([*self.xy_m, self.height_m / 2])

    @property
    def name(self) -> str:
        return f"{COLOURS[self.colour]} {self.kind}"


@dataclass(frozen=True)
class HandStart:
    """Where a hand rests at first: its palm (the grasp point) in the world, and small deviations of its posture."""

    side: Side
    palm_m: Array
    yaw_rad: float
    pitch_rad: float
    roll_rad: float
    curl: float


@dataclass(frozen=True)
class Table:
    texture: int
    colour_a: tuple[float, float, float]
    colour_b: tuple[float, float, float]
    scale_per_m: float
    yaw_rad: float
    seed: int


@dataclass(frozen=True)
class Scene:
    """One picture's worth of world. `cam_from_world` is float64[4, 4]."""

    split: Split
    seed: int
    index: int
    objects: tuple[Thing, Thing, Thing]
    plate: Thing | None
    hands: tuple[HandStart, ...]
    betas: Array
    skin: tuple[float, float, float]
    sleeve: tuple[float, float, float]
    table: Table
    light_dir: Array         # towards the light, world, unit
    ambient: float
    cam_from_world: Array
    raw_camera: Camera       # of the user's photo
    style_seed: int

    @property
    def visible(self) -> str:
        return "both" if len(self.hands) == 2 else self.hands[0].side

    def to_camera(self, points_m: npt.ArrayLike) -> Array:
        """World to camera frame, float64[..., 3]."""
        p = np.asarray(points_m, np.float64)
        return p @ self.cam_from_world[:3, :3].T + self.cam_from_world[:3, 3]


def project(camera: Camera, points_cam_m: Array) -> Array:
    """float64[..., 2] pixels of points in the camera frame."""
    p = np.asarray(points_cam_m, np.float64)
    return np.stack([camera.fx * p[..., 0] / p[..., 2] + camera.cx, camera.fy * p[..., 1] / p[..., 2] + camera.cy], -1)


def rng_of(split: Split, seed: int, index: int, stream: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([int(split), seed, index, stream])))


_SIZES: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {  # (radius or half side), height
    "box": ((0.026, 0.032), (0.05, 0.065)),
    "can": ((0.030, 0.034), (0.10, 0.12)),
    "ball": ((0.033, 0.039), (0.0, 0.0)),
    "bottle": ((0.028, 0.033), (0.17, 0.20)),
}


def make_scene(split: Split, seed: int, index: int, *, visible: str | None = None) -> Scene:
    """The scene number `index`. `visible` fixes which hands are in the picture ("right", "left", "both")."""
    if visible is not None and visible not in VISIBLE:
        raise ValueError(f"visible: expected one of {', '.join(VISIBLE)}, got {visible!r}")
    rng = rng_of(split, seed, index)
    hands_seen = str(rng.choice(VISIBLE, p=VISIBLE_ODDS))
    hands_seen = visible or hands_seen
    for _ in range(1000):
        scene = _draw(rng, split, seed, index, hands_seen)
        if _fits(scene):
            return scene
    raise RuntimeError(f"scene {index} of seed {seed}: no layout fits the picture after 1000 draws")


def _draw(rng: np.random.Generator, split: Split, seed: int, index: int, visible: str) -> Scene:
    kinds = rng.permutation(len(KINDS))[:3]
    colours = rng.permutation(len(COLOURS))[:4]
    plate_there = rng.random() < 0.7
    places = _places(rng, 4 if plate_there else 3)
    shade = 0.06 * rng.normal(size=(4, 1)) + 0.03 * rng.normal(size=(4, 3))
    objects = []
    for i in range(3):
        kind = KINDS[kinds[i]]
        (r0, r1), (h0, h1) = _SIZES[kind]
        radius = float(rng.uniform(r0, r1))
        height = 2 * radius if kind == "ball" else float(rng.uniform(h0, h1))
        objects.append(_thing(kind, int(colours[i]), places[i], radius, height, rng.uniform(0, np.pi / 2), shade[i]))
    plate = None
    if plate_there:
        plate = _thing("plate", int(colours[3]), places[3], PLATE_RADIUS_M, 0.014, 0.0, shade[3])
    sides = sides_of(visible)
    hands = tuple(_hand_start(rng, side) for side in sides)

    eye = np.array([0.0, -0.34, 0.47]) + 0.03 * rng.normal(size=3)
    look = np.array([0.0, 0.03, 0.0]) + np.array([0.02, 0.02, 0.01]) * rng.normal(size=3)
    z = (look - eye) / np.linalg.norm(look - eye)
    x = np.cross(z, [0.0, 0.0, 1.0])
    x /= np.linalg.norm(x)
    roll = 0.04 * rng.normal()
    y = np.cross(z, x)
    x, y = np.cos(roll) * x + np.sin(roll) * y, np.cos(roll) * y - np.sin(roll) * x
    cam = np.eye(4)
    cam[:3, :3] = np.stack([x, y, z])
    cam[:3, 3] = -cam[:3, :3] @ eye

    width, height_px = [(640, 480), (1280, 720), (720, 720), (960, 540)][rng.integers(4)]
    f = float(rng.uniform(0.62, 0.95)) * width
    aspect = 1 + 0.01 * rng.normal()
    cx, cy = width / 2 + 0.02 * width * rng.normal(), height_px / 2 + 0.02 * height_px * rng.normal()
    raw = Camera(f, f * aspect, cx, cy, width, height_px)

    light = np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.6, 0.6), 1.0])
    tone = rng.random()  # one number walks from light to dark skin, with a little hue of its own
    skin = np.array([0.93, 0.76, 0.66]) * (1 - tone) + np.array([0.36, 0.22, 0.16]) * tone + 0.015 * rng.normal(size=3)
    betas = np.clip(rng.normal(size=10), -2, 2) * 0.6
    return Scene(
        split, seed, index, (objects[0], objects[1], objects[2]), plate, hands, betas, _rgb(skin),
        _rgb(rng.uniform(0.1, 0.8, 3)), _table(rng), light / np.linalg.norm(light), float(rng.uniform(0.45, 0.6)),
        cam, raw, int(rng.integers(2**31)))


def _rgb(value: npt.ArrayLike) -> tuple[float, float, float]:
    r, g, b = np.clip(np.asarray(value, float), 0.02, 1.0)
    return float(r), float(g), float(b)


def _thing(kind: str, colour: int, xy: Array, radius: float, height: float, yaw: float, shade: Array) -> Thing:
    return Thing(kind, colour, (float(xy[0]), float(xy[1])), radius, height, float(yaw),
                 _rgb(COLOUR_RGB[colour] * (1 + shade)))


def _places(rng: np.random.Generator, count: int) -> Array:
    """Spots for the objects, and for the plate as the last of four, apart from each other."""
    while True:
        xy = np.stack([rng.uniform(-0.19, 0.19, count), rng.uniform(-0.09, 0.21, count)], -1)
        gap = np.linalg.norm(xy[:, None] - xy[None], axis=-1) + 9 * np.eye(count)
        need = np.full((count, count), OBJECT_GAP_M)
        if count == 4:
            need[3] = need[:, 3] = OBJECT_GAP_M + 0.035
        if (gap >= need).all():
            return xy


def _hand_start(rng: np.random.Generator, side: Side) -> HandStart:
    sign = 1.0 if side == "right" else -1.0
    palm = np.array([sign * rng.uniform(0.10, 0.16), rng.uniform(-0.10, -0.03), rng.uniform(0.05, 0.09)])
    yaw, pitch, roll = rng.normal(size=3) * np.array([0.15, 0.10, 0.15]) + np.array([0.15, 0.25, 0.9])
    return HandStart(side, palm, float(yaw), float(pitch), float(roll), float(rng.uniform(0.6, 1.1)))


def _table(rng: np.random.Generator) -> Table:
    texture = int(rng.integers(4))
    base = np.array([0.55, 0.47, 0.38]) if texture == 3 else rng.uniform(0.35, 0.75) * np.ones(3)
    base = base * rng.uniform(0.7, 1.15) + 0.06 * rng.normal(size=3)
    other = base * rng.uniform(0.65, 0.92) + 0.03 * rng.normal(size=3)
    scale = {0: 8.0, 1: rng.uniform(10, 25), 2: rng.uniform(6, 30), 3: rng.uniform(8, 18)}[texture]
    return Table(texture, _rgb(base), _rgb(other), float(scale), float(rng.uniform(0, np.pi)), int(rng.integers(2**31)))


_RING = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], -1)


def outline(thing: Thing) -> Array:
    """Points that bound a thing, world, float64[16, 3]."""
    points = np.zeros((2, 8, 3))
    points[:, :, :2] = np.array(thing.xy_m) + thing.radius_m * (2**0.5 if thing.kind == "box" else 1) * _RING
    points[1, :, 2] = thing.height_m
    return points.reshape(16, 3)


def _fits(scene: Scene) -> bool:
    for hand in scene.hands:
        palm = float(hand.palm_m[0]), float(hand.palm_m[1])
        if any(dist(thing.xy_m, palm) < HAND_GAP_M for thing in scene.objects):
            return False
    points = scene.to_camera(np.concatenate([outline(t) for t in scene.objects]))
    for camera, margin in ((CANONICAL_CAMERA, MARGIN_PX), (scene.raw_camera, 0)):
        uv = project(camera, points)
        if (uv < margin).any() or (uv > np.array([camera.width, camera.height]) - margin).any():
            return False
    # No object's centre hides behind a nearer one: compare directions from the eye.
    centres = scene.to_camera(np.stack([t.centre_m for t in scene.objects]))
    uv = project(CANONICAL_CAMERA, centres)
    gap = np.linalg.norm(uv[:, None] - uv[None], axis=-1) + 1e3 * np.eye(3)
    return bool(gap.min() > 34)


def describe(scene: Scene) -> dict[str, Any]:
    """Plain facts of a scene for a JSON file."""
    return {
        "split": scene.split.name, "seed": scene.seed, "index": scene.index, "visible": scene.visible,
        "objects": [{"name": t.name, "centre_cam_m": scene.to_camera(t.centre_m).round(5).tolist()}
                    for t in scene.objects],
        "plate": scene.plate.name if scene.plate else None,
        "intrinsics_px": [scene.raw_camera.fx, scene.raw_camera.fy, scene.raw_camera.cx, scene.raw_camera.cy],
        "width": scene.raw_camera.width, "height": scene.raw_camera.height,
    }
