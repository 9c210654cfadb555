"""Hands drawn over a photo with the rasteriser: where the model thinks the hand will be.

Everything is in the photo's camera frame (x right, y down, z forward, metres) and goes through the photo's exact
pinhole, so the drawing lies where a hand at that place would be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from beingh0_edge import _kernels
from beingh0_edge.preprocess import Camera, ImageArray, Intrinsics, check_image
from beingh0_edge.types import FloatArray, IntArray

HAND_RGB = {"left": (0.30, 0.62, 0.95), "right": (0.98, 0.58, 0.22)}
NEAR_M = 0.02          # parts of a mesh nearer to the camera are cut off
_SAMPLES = 3           # per axis and pixel, for smooth outlines
_AMBIENT = 0.45
_LIGHT = np.array([-0.35, -0.75, -0.56])  # from above, a little left, from behind the camera
_PIXELS_AT_ONCE = 4_000_000               # samples; beyond it outlines are drawn with fewer per pixel


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh to draw. vertices_cam_m float[V, 3], faces int32[F, 3], colour RGB in 0..1."""

    vertices_cam_m: npt.NDArray[np.floating]
    faces: IntArray
    colour: tuple[float, float, float] = HAND_RGB["right"]


@dataclass(frozen=True, eq=False)
class Layer:
    """Meshes seen by the camera.

    colour    float32[H, W, 3], RGB in 0..1, meaningful where coverage > 0
    coverage  float32[H, W], share of the pixel that is covered
    depth_m   float32[H, W], distance along z of the nearest surface, inf where there is none
    """

    colour: FloatArray
    coverage: FloatArray
    depth_m: FloatArray


def draw_meshes(image_rgb: ImageArray, meshes: Sequence[Mesh], intrinsics_px: Intrinsics,
                alpha: float = 0.85) -> ImageArray:
    """The photo with the meshes over it, uint8[H, W, 3]; nearer meshes hide farther ones.

    intrinsics_px  (fx, fy, cx, cy) in pixels of `image_rgb`
    alpha          opacity, 0 to 1
    Raises TypeError or ValueError for a picture, mesh, intrinsics or opacity that make no sense.
    """
    image = check_image(image_rgb)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected 0 to 1, got {alpha}")
    out = image.copy()
    part = render(meshes, intrinsics_px, image.shape[1], image.shape[0])
    if part is None:
        return out
    (top, left), layer = part
    height, width = layer.coverage.shape
    spot = out[top:top + height, left:left + width]
    weight = (alpha * layer.coverage)[..., None]
    spot[:] = (spot * (1 - weight) + 255 * weight * layer.colour + 0.5).astype(np.uint8)
    return out


def draw_hand(image_rgb: ImageArray, vertices_cam_m: npt.NDArray[np.floating], faces: IntArray,
              intrinsics_px: Intrinsics, colour: tuple[float, float, float] = HAND_RGB["right"],
              alpha: float = 0.85) -> ImageArray:
    """`draw_meshes` for one hand: vertices float[778, 3] in the photo's camera frame, faces of its HandModel."""
    return draw_meshes(image_rgb, [Mesh(vertices_cam_m, faces, colour)], intrinsics_px, alpha)


def render(meshes: Sequence[Mesh], intrinsics_px: Intrinsics, width: int,
           height: int) -> tuple[tuple[int, int], Layer] | None:
    """The smallest part of a width x height picture that holds the meshes: ((top, left), layer).

    None if nothing is in view. Raises ValueError for shapes, indices or numbers that make no sense.
    """
    fx, fy, cx, cy = intrinsics_px
    Camera(fx, fy, cx, cy, width, height)
    arrays = [_checked(mesh) for mesh in meshes]
    box = _bounds([v for v, _ in arrays], intrinsics_px, width, height)
    if box is None:
        return None
    left, top, right, bottom = box
    w, h = right - left, bottom - top
    samples = _SAMPLES
    while samples > 1 and w * h * samples * samples > _PIXELS_AT_ONCE:
        samples -= 1
    k = (fx * samples, fy * samples, (cx - left) * samples, (cy - top) * samples)
    colour = np.zeros((h * samples, w * samples, 3), np.float32)
    inverse_depth = np.zeros((h * samples, w * samples), np.float32)
    for mesh, (vertices, faces) in zip(meshes, arrays, strict=True):
        lambert = np.clip(vertex_normals(vertices, faces) @ _LIGHT, 0, None)[:, None]
        shade = np.asarray(mesh.colour) * (_AMBIENT + (1 - _AMBIENT) * lambert)
        _kernels.raster_triangles(colour, inverse_depth, vertices, shade.astype(np.float32), faces, k, NEAR_M)
    covered = (inverse_depth > 0).astype(np.float32)
    share = cv2.resize(covered, (w, h), interpolation=cv2.INTER_AREA)
    mean = cv2.resize(colour, (w, h), interpolation=cv2.INTER_AREA) / np.maximum(share, 1e-6)[..., None]
    nearest = inverse_depth.reshape(h, samples, w, samples).max((1, 3))
    depth = np.divide(1, nearest, out=np.full_like(nearest, np.inf), where=nearest > 0)
    return (top, left), Layer(np.clip(mean, 0, 1), share, depth)


def vertex_normals(vertices: npt.NDArray[np.floating], faces: IntArray) -> npt.NDArray[np.float64]:
    """Unit normals, each the mean of its faces' weighted by area, float64[V, 3]; zero for a vertex without faces."""
    a, b, c = (np.asarray(vertices, np.float64)[faces[:, i]] for i in range(3))
    n = np.cross(b - a, c - a)
    corner = faces.ravel()
    total = np.stack([np.bincount(corner, np.repeat(n[:, axis], 3), len(vertices)) for axis in range(3)], -1)
    return np.asarray(total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12))


def _checked(mesh: Mesh) -> tuple[FloatArray, IntArray]:
    vertices, faces = np.asarray(mesh.vertices_cam_m), np.asarray(mesh.faces)
    if vertices.dtype.kind != "f" or vertices.ndim != 2 or vertices.shape[1] != 3:
        raise ValueError(f"vertices_cam_m: expected float[V, 3], got {vertices.dtype}{list(vertices.shape)}")
    if not np.isfinite(vertices).all():
        raise ValueError("vertices_cam_m: expected finite values")
    if faces.dtype.kind not in "iu" or faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"faces: expected int[F, 3], got {faces.dtype}{list(faces.shape)}")
    if faces.size and (faces.min() < 0 or faces.max() >= len(vertices)):
        raise ValueError(f"faces: expected indices in [0, {len(vertices)}), got {faces.min()} to {faces.max()}")
    return np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.int32)


def _bounds(meshes: Sequence[FloatArray], intrinsics_px: Intrinsics, width: int,
            height: int) -> tuple[int, int, int, int] | None:
    """(left, top, right, bottom) in whole pixels of everything in view, or None."""
    points = np.concatenate([np.zeros((0, 3), np.float32), *meshes]).astype(np.float64)
    if not (points[:, 2] >= NEAR_M).any():
        return None
    fx, fy, cx, cy = intrinsics_px
    if (points[:, 2] < NEAR_M).any():  # a mesh around the camera: what it covers is not bounded by its vertices
        return 0, 0, width, height
    u, v = fx * points[:, 0] / points[:, 2] + cx, fy * points[:, 1] / points[:, 2] + cy
    left, right = (int(np.clip(np.floor(x), 0, width)) for x in (u.min(), u.max() + 1))
    top, bottom = (int(np.clip(np.floor(x), 0, height)) for x in (v.min(), v.max() + 1))
    return (left, top, right, bottom) if left < right and top < bottom else None
