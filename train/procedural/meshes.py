"""Triangle meshes of what stands on the table, and how meshes are joined for drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from beingh0_edge.train.procedural.world import Array, Thing

Faces = npt.NDArray[np.int32]

_AROUND = 20  # segments of a turned object


@dataclass(frozen=True, eq=False)
class Mesh:
    """vertices, unit normals, albedo (RGB in 0..1): float64[V, 3], world; faces int32[F, 3]."""

    vertices: Array
    normals: Array
    faces: Faces
    albedo: Array


def joined(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh of all."""
    starts = np.cumsum([0] + [len(m.vertices) for m in meshes[:-1]], dtype=np.int32)
    faces = np.concatenate([m.faces + start for m, start in zip(meshes, starts, strict=True)])
    return Mesh(np.concatenate([m.vertices for m in meshes]), np.concatenate([m.normals for m in meshes]), faces,
                np.concatenate([m.albedo for m in meshes]))


@lru_cache(maxsize=16)
def _turned(profile: tuple[tuple[float, float], ...]) -> tuple[Array, Array, Faces]:
    """A solid of revolution from (radius, z) pairs, bottom to top; corners between segments stay sharp."""
    angle = np.linspace(0, 2 * np.pi, _AROUND, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    vertices, normals, faces, at = [], [], [], 0
    for (r0, z0), (r1, z1) in pairwise(profile):
        slope = np.array([z1 - z0, r0 - r1])
        slope = slope / max(float(np.linalg.norm(slope)), 1e-9)
        for r, z in ((r0, z0), (r1, z1)):
            vertices.append(np.c_[r * circle, np.full(_AROUND, z)])
            normals.append(np.c_[slope[0] * circle, np.full(_AROUND, slope[1])])
        i = np.arange(_AROUND)
        j = (i + 1) % _AROUND
        faces += [np.stack([at + i, at + j, at + _AROUND + i], -1),
                  np.stack([at + j, at + _AROUND + j, at + _AROUND + i], -1)]
        at += 2 * _AROUND
    return np.concatenate(vertices), np.concatenate(normals), np.concatenate(faces).astype(np.int32)


def _sphere() -> tuple[tuple[float, float], ...]:
    angle = np.linspace(-np.pi / 2, np.pi / 2, 9)
    return tuple((float(np.cos(a)), float(1 + np.sin(a))) for a in angle)


# Profiles in units of (radius, height); a ball's are both in radii.
_PROFILES: dict[str, tuple[tuple[float, float], ...]] = {
    "can": ((0, 0), (0.92, 0), (1, 0.03), (1, 0.95), (0.9, 1), (0.86, 0.97), (0, 0.97)),
    "bottle": ((0, 0), (0.95, 0), (1, 0.03), (1, 0.52), (0.8, 0.64), (0.38, 0.76), (0.34, 0.94), (0.42, 0.94),
               (0.42, 1), (0, 1)),
    "plate": ((0, 0), (0.6, 0), (1, 0.9), (0.97, 1), (0.62, 0.35), (0, 0.3)),
    "ball": _sphere(),
}


@lru_cache(maxsize=1)
def _cube() -> tuple[Array, Array, Faces]:
    vertices: list[Array] = []
    normals: list[Array] = []
    faces: list[list[int]] = []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            u, v = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
            n = sign * np.eye(3)[axis]
            at = len(vertices)
            vertices += [n + a * u + b * v for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            normals += [n] * 4
            faces += [[at, at + 1, at + 2], [at, at + 2, at + 3]]
    return np.array(vertices), np.array(normals), np.array(faces, np.int32)


def thing_mesh(thing: Thing) -> Mesh:
    """An object or a plate where it stands."""
    r, h = thing.radius_m, thing.height_m
    if thing.kind == "box":
        v, n, f = _cube()
        v = (v + np.array([0, 0, 1])) * np.array([r, r, h / 2])
    elif thing.kind == "ball":
        v, n, f = _turned(_PROFILES["ball"])
        v = v * r
        n = (v - np.array([0, 0, r])) / r
    else:
        v, n, f = _turned(_PROFILES[thing.kind])
        v = v * np.array([r, r, h])
        n = n * np.array([h / r, h / r, 1.0])  # normals of the unit profile, corrected for the stretched one
        n = n / np.linalg.norm(n, axis=1, keepdims=True)
    c, s = np.cos(thing.yaw_rad), np.sin(thing.yaw_rad)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    v = v @ turn.T + np.array([*thing.xy_m, 0])
    return Mesh(v, n @ turn.T, f, np.broadcast_to(np.array(thing.shade), v.shape))
