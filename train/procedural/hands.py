"""The synthetic hand in the world: postures, where its grasp point is, its mesh with forearm and sleeve.

Postures are given for a right hand by the direction of its fingers and palm; a left hand is the mirror image of a
right one (world x and hand x negated), so one description serves both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from typing import Any

import numpy as np
import numpy.typing as npt

from beingh0_edge.hand_model import HandModel
from beingh0_edge.overlay import vertex_normals
from beingh0_edge.train.procedural.meshes import Mesh, joined
from beingh0_edge.train.procedural.world import Array, Scene
from beingh0_edge.types import Side

MIRROR = np.diag([-1.0, 1.0, 1.0])
# Hand axes at rest (right hand): fingers along -x, palm faces -y, thumb towards +z.
_REST = np.stack([np.array([0, -1, 0]), np.array([1, 0, 0]), np.array([0, 0, 1])], -1).astype(float)


@dataclass(frozen=True)
class HandPose:
    """One posture: world_from_hand rotation, wrist joint position, finger angles (axis-angle, MANO order)."""

    side: Side
    rotation: Array        # float64[3, 3]
    wrist_m: Array         # float64[3], world
    theta_rad: Array       # float64[45]


@lru_cache(maxsize=2)
def model(side: Side) -> HandModel:
    with as_file(files("beingh0_edge") / "assets" / "hands" / f"synthetic_{side}.npz") as path:
        return HandModel.load(path, side)


@lru_cache(maxsize=2)
def _extras(side: Side) -> dict[str, npt.NDArray[Any]]:
    with (as_file(files("beingh0_edge") / "assets" / "hands" / f"synthetic_{side}.npz") as path,
          np.load(path, allow_pickle=False) as arrays):
        return {k: arrays[k] for k in ("grasp_point_wrist_m", "poses_rad", "pose_names")}


def grasp_point_m(side: Side) -> Array:
    """The fixed grasp point in the wrist frame, float64[3], metres."""
    return np.asarray(_extras(side)["grasp_point_wrist_m"], np.float64)


def named_theta(side: Side, name: str) -> Array:
    """Finger angles of a named posture, float64[45]."""
    names = [str(n) for n in _extras(side)["pose_names"]]
    if name not in names:
        raise ValueError(f"unknown posture {name!r}; known: {', '.join(names)}")
    return np.asarray(_extras(side)["poses_rad"][names.index(name)], np.float64).reshape(45)


@lru_cache(maxsize=2)
def index_tip_m(side: Side) -> Array:
    """Index fingertip of the pointing hand in the wrist frame, float64[3]."""
    pose = np.concatenate([np.zeros(3), named_theta(side, "point")])
    return np.asarray(model(side).forward(pose).joints[8], np.float64)


def _turn(axis: int, angle: Array) -> Array:
    """Rotations about a world axis, float64[..., 3, 3]."""
    angle = np.asarray(angle, np.float64)
    c, s, o, i = np.cos(angle), np.sin(angle), np.zeros_like(angle), np.ones_like(angle)
    rows = {0: [[i, o, o], [o, c, -s], [o, s, c]], 1: [[c, o, s], [o, i, o], [-s, o, c]],
            2: [[c, -s, o], [s, c, o], [o, o, i]]}[axis]
    return np.stack([np.stack(r, -1) for r in rows], -2)


def orientation(side: Side, yaw: npt.ArrayLike, pitch: npt.ArrayLike, roll: npt.ArrayLike) -> Array:
    """World_from_hand rotations float64[..., 3, 3] from three angles of a right hand (mirrored for a left one).

    yaw    turns the fingers from straight away towards the other side (left for a right hand)
    pitch  tilts the fingers down
    roll   0: palm faces the other side, thumb up; pi/2: palm faces down
    """
    yaw, pitch, roll = (np.asarray(a, np.float64) for a in (yaw, pitch, roll))
    rotation: Array = _turn(2, yaw) @ _turn(0, -pitch) @ _turn(1, -roll) @ _REST
    return rotation if side == "right" else MIRROR @ rotation @ MIRROR


def hand_mesh(scene: Scene, pose: HandPose) -> Mesh:
    """Hand, forearm and sleeve in the world."""
    hand = model(pose.side)
    local = hand.forward(np.concatenate([np.zeros(3), pose.theta_rad]), scene.betas, vertices=True).vertices
    vertices = np.asarray(local, np.float64) @ pose.rotation.T + pose.wrist_m
    skin = np.broadcast_to(np.array(scene.skin), vertices.shape)
    return joined([Mesh(vertices, vertex_normals(vertices, hand.faces), hand.faces, skin), _forearm(scene, pose)])


_AROUND = 14  # segments of the forearm
_RINGS = np.array([  # distance behind the wrist, half width, half thickness (m); the last three are the sleeve's
    [0.004, 0.0275, 0.0185], [0.05, 0.029, 0.0215], [0.075, 0.031, 0.024],
    [0.075, 0.037, 0.031], [0.16, 0.043, 0.038], [0.34, 0.050, 0.046]])


@lru_cache(maxsize=1)
def _tube() -> tuple[Array, npt.NDArray[np.int32]]:
    """Forearm and sleeve in the frame of a right wrist: vertices less the middle of their ring, and faces."""
    angle = np.linspace(0, 2 * np.pi, _AROUND, endpoint=False)
    around = np.stack([np.zeros(_AROUND), np.sin(angle), np.cos(angle)], -1)
    offsets = (around * _RINGS[:, None, [0, 2, 1]]).reshape(-1, 3)
    i = np.arange(_AROUND)
    j = (i + 1) % _AROUND
    quads = np.concatenate([np.stack([i, j, _AROUND + i], -1), np.stack([j, _AROUND + j, _AROUND + i], -1)])
    faces = np.concatenate([quads + _AROUND * ring for ring in (0, 1, 3, 4)])
    return offsets, faces.astype(np.int32)


def _forearm(scene: Scene, pose: HandPose) -> Mesh:
    offsets, faces = _tube()
    turned = offsets @ pose.rotation.T
    back = pose.rotation[:, 0] if pose.side == "right" else -pose.rotation[:, 0]
    vertices = pose.wrist_m + np.repeat(_RINGS[:, :1] * back, _AROUND, 0) + turned
    normals = turned / np.linalg.norm(turned, axis=1, keepdims=True)
    return Mesh(vertices, normals, faces, np.repeat(np.array([scene.skin, scene.sleeve]), 3 * _AROUND, 0))
