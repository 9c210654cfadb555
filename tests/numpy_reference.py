"""Plain numpy, float64 versions of the kernels, written from the formulas; what the kernels are compared with."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
KEYPOINTS = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)


def axis_angle_to_matrix(axis_angle: Array) -> Array:
    """Rodrigues' formula."""
    v = np.asarray(axis_angle, np.float64)
    angle = np.linalg.norm(v, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(v, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*v.shape[:-1], 3, 3)
    # np.sinc(t) is sin(pi t) / (pi t) and 1 at 0
    first, second = np.sinc(angle / np.pi), 0.5 * np.sinc(0.5 * angle / np.pi) ** 2
    return np.eye(3) + first * cross + second * cross @ cross


def quaternion_to_matrix(quaternion: Array) -> Array:
    """Columns are the rotated axes: v' = v + 2 w (u x v) + 2 u x (u x v)."""
    q = np.asarray(quaternion, np.float64)
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    w, u = q[..., :1, None], q[..., None, 1:]
    axes = np.broadcast_to(np.eye(3), (*q.shape[:-1], 3, 3))
    once = np.cross(u, axes)
    return np.swapaxes(axes + 2 * w * once + 2 * np.cross(u, once), -1, -2)


def rot6d_to_matrix(rot6d: Array, interleaved: bool) -> Array:
    d = np.asarray(rot6d, np.float64)
    a, b = (d[..., 0::2], d[..., 1::2]) if interleaved else (d[..., :3], d[..., 3:])
    x = a / np.linalg.norm(a, axis=-1, keepdims=True)
    y = b - (x * b).sum(-1, keepdims=True) * x
    y = y / np.linalg.norm(y, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], -1)


def hand(arrays: dict[str, Array], rotations: Array, betas: Array, tips: tuple[int, ...]) -> tuple[Array, Array]:
    """One hand: matrices [16, 3, 3], betas [10] -> keypoints [21, 3], mesh [778, 3], neither centred nor moved."""
    a = {name: np.asarray(value, np.float64) for name, value in arrays.items()}
    shaped = a["v_template"] + a["shapedirs"] @ betas
    joints = a["J_regressor"] @ shaped
    rest = shaped + a["posedirs"] @ (rotations[1:] - np.eye(3)).reshape(135)
    world = np.tile(np.eye(4), (16, 1, 1))
    for j, parent in enumerate(PARENTS):
        local = np.eye(4)
        local[:3, :3] = rotations[j]
        local[:3, 3] = joints[j] - (joints[parent] if parent >= 0 else 0)
        world[j] = world[parent] @ local if parent >= 0 else local
    posed_joints = world[:, :3, 3].copy()
    world[:, :3, 3] -= np.einsum("jab,jb->ja", world[:, :3, :3], joints)
    blended = np.einsum("vj,jab->vab", a["weights"], world)
    mesh = np.einsum("vab,vb->va", blended[:, :3, :3], rest) + blended[:, :3, 3]
    return np.concatenate([posed_joints, mesh[list(tips)]])[list(KEYPOINTS)], mesh
