"""Rotation conversions: axis-angle (radians), 3x3 matrix, quaternion (w first) and 6D.

All take any float array with leading axes and give a new float32 array. Stable near 0 and pi; values that are not
finite come out as such.

6D is the first two columns of the matrix (Zhou et al. 2019). Layout "interleaved" writes them row by row,
(r00 r01 r10 r11 r20 r21), as Being-H0 does; "columns" writes one column after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from beingh0_edge import _kernels
from beingh0_edge.arrays import ArrayLike, as_array
from beingh0_edge.types import FloatArray

Rot6dLayout = Literal["interleaved", "columns"]


def axis_angle_to_matrix(axis_angle: ArrayLike) -> FloatArray:
    """[..., 3] -> [..., 3, 3]; entries within 1e-6 for an angle up to pi.

    The angle is taken in float32, so that every radian of further turns costs up to 2e-7 (2e-5 at 100 rad, 2e-4 at
    1000). Above 1e5 rad less and less of it is right, and in the end it holds NaN. Where angles are that large, go by
    axis_angle_to_quaternion, which computes in double and loses nothing.
    """
    return _convert(_kernels.axis_angle_to_matrix, "axis_angle", axis_angle, (3,))


def axis_angle_to_quaternion(axis_angle: ArrayLike) -> FloatArray:
    """[..., 3] -> [..., 4], unit length, w >= 0"""
    return _convert(_kernels.axis_angle_to_quaternion, "axis_angle", axis_angle, (3,))


def matrix_to_axis_angle(matrix: ArrayLike) -> FloatArray:
    """[..., 3, 3] -> [..., 3], angle in [0, pi]"""
    return _convert(_kernels.matrix_to_axis_angle, "matrix", matrix, (3, 3))


def matrix_to_quaternion(matrix: ArrayLike) -> FloatArray:
    """[..., 3, 3] -> [..., 4], unit length, w >= 0"""
    return _convert(_kernels.matrix_to_quaternion, "matrix", matrix, (3, 3))


def quaternion_to_matrix(quaternion: ArrayLike) -> FloatArray:
    """[..., 4] of any length but 0 -> [..., 3, 3]"""
    return _convert(_kernels.quaternion_to_matrix, "quaternion", quaternion, (4,))


def quaternion_to_axis_angle(quaternion: ArrayLike) -> FloatArray:
    """[..., 4] of any length but 0 -> [..., 3], angle in [0, pi]"""
    return _convert(_kernels.quaternion_to_axis_angle, "quaternion", quaternion, (4,))


def rot6d_to_matrix(rot6d: ArrayLike, layout: Rot6dLayout = "interleaved") -> FloatArray:
    """[..., 6] -> [..., 3, 3]: Gram-Schmidt on the two columns, the third completes a right-handed frame."""
    interleaved = _interleaved(layout)
    return _convert(lambda x: _kernels.rot6d_to_matrix(x, interleaved), "rot6d", rot6d, (6,))


def matrix_to_rot6d(matrix: ArrayLike, layout: Rot6dLayout = "interleaved") -> FloatArray:
    """[..., 3, 3] -> [..., 6]"""
    interleaved = _interleaved(layout)
    return _convert(lambda x: _kernels.matrix_to_rot6d(x, interleaved), "matrix", matrix, (3, 3))


def _interleaved(layout: str) -> bool:
    if layout not in ("interleaved", "columns"):
        raise ValueError(f"layout: expected 'interleaved' or 'columns', got {layout!r}")
    return layout == "interleaved"


def _convert(kernel: Callable[[FloatArray], FloatArray], name: str, value: ArrayLike,
             tail: tuple[int, ...]) -> FloatArray:
    array = as_array(value)
    batch = array.shape[: max(array.ndim - len(tail), 0)]
    if array.dtype.kind not in "fiu" or array.shape != batch + tail:
        raise ValueError(f"{name}: expected float[..., {', '.join(map(str, tail))}], "
                         f"got {array.dtype}{list(array.shape)}")
    out = kernel(np.ascontiguousarray(array, np.float32).reshape(-1, *tail))
    return out.reshape(batch + out.shape[1:])
