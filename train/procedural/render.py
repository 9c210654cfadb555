"""Pictures of a scene: the user's photo, and what the model sees after the warp into its camera."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from beingh0_edge import _kernels
from beingh0_edge.preprocess import Camera
from beingh0_edge.train.procedural.hands import HandPose, hand_mesh
from beingh0_edge.train.procedural.world import CANONICAL_CAMERA, Array, Scene, Thing

Image = npt.NDArray[np.uint8]
Faces = npt.NDArray[np.int32]

SHADOW = 0.45       # how much light a shadow takes
SUPERSAMPLE = 2     # pictures are drawn at twice the size and averaged
_AROUND = 20        # segments of a turned object


def render_photo(scene: Scene, poses: list[HandPose]) -> Image:
    """The user's photo through the scene's raw camera, uint8[height, width, 3]."""
    return _render(scene, poses, scene.raw_camera, scene.raw_camera.width, scene.raw_camera.height)


def render_canonical(scene: Scene, poses: list[HandPose], size: int, camera: Camera = CANONICAL_CAMERA) -> Image:
    """What preprocessing makes of the photo, uint8[size, size, 3]: drawn directly, black outside the photo."""
    image = _render(scene, poses, camera, size, size)
    x = (np.arange(size) + 0.5) * camera.width / size
    y = (np.arange(size) + 0.5) * camera.height / size
    raw = scene.raw_camera
    u = (x - camera.cx) / camera.fx * raw.fx + raw.cx
    v = (y - camera.cy) / camera.fy * raw.fy + raw.cy
    image[~((v >= 0) & (v <= raw.height))] = 0
    image[:, ~((u >= 0) & (u <= raw.width))] = 0
    return image


def _render(scene: Scene, poses: list[HandPose], camera: Camera, width: int, height: int) -> Image:
    sx, sy = SUPERSAMPLE * width / camera.width, SUPERSAMPLE * height / camera.height
    k = (camera.fx * sx, camera.fy * sy, camera.cx * sx, camera.cy * sy)
    # The table is drawn at picture size and enlarged: its texture is soft, and it is most of the pixels.
    table = np.empty((height, width, 3), np.float32)
    _draw_table(scene, table, (k[0] / SUPERSAMPLE, k[1] / SUPERSAMPLE, k[2] / SUPERSAMPLE, k[3] / SUPERSAMPLE))
    colour = cv2.resize(table, (SUPERSAMPLE * width, SUPERSAMPLE * height), interpolation=cv2.INTER_LINEAR)

    meshes = [_thing_mesh(t) for t in ((scene.plate,) if scene.plate else ()) + scene.objects]
    lit = [(v, n, f, np.broadcast_to(np.array(t.shade), v.shape)) for (v, n, f), t in
           zip(meshes, ((scene.plate,) if scene.plate else ()) + scene.objects, strict=True)]
    lit += [mesh for pose in poses for mesh in hand_mesh(scene, pose)]

    shadow = np.zeros(colour.shape[:2], np.uint8)
    for vertices, _, faces, _ in lit:
        ground = vertices - vertices[:, 2:] / scene.light_dir[2] * scene.light_dir
        _kernels.raster_coverage(shadow, _f32(scene.to_camera(ground)), faces, k)
    blur = max(3, round(0.012 * k[0] / 0.55) | 1)
    soft = cv2.blur(shadow.astype(np.float32), (blur, blur))
    colour *= cv2.merge([1 - SHADOW * soft] * 3)

    depth = np.zeros(colour.shape[:2], np.float32)
    for vertices, normals, faces, albedo in lit:
        lambert = np.clip(normals @ scene.light_dir, 0, None)[:, None]
        shade = albedo * (scene.ambient + (1 - scene.ambient) * lambert)
        _kernels.raster_triangles(colour, depth, _f32(scene.to_camera(vertices)), _f32(shade), faces, k)
    small = cv2.resize(colour, (width, height), interpolation=cv2.INTER_AREA)
    small += 0.008 * np.random.default_rng(scene.style_seed).standard_normal(small.shape, np.float32)
    out: Image = (np.clip(small, 0, 1) * 255 + 0.5).astype(np.uint8)
    return out


def _f32(a: Array) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(a, np.float32)


def _draw_table(scene: Scene, colour: npt.NDArray[np.float32], k: tuple[float, float, float, float]) -> None:
    t, rotation = scene.table, scene.cam_from_world[:3, :3]
    c, s = np.cos(t.yaw_rad), np.sin(t.yaw_rad)
    light = scene.ambient + (1 - scene.ambient) * scene.light_dir[2]

    def three(v: npt.ArrayLike) -> tuple[float, float, float]:
        a = np.asarray(v, float)
        return float(a[0]), float(a[1]), float(a[2])

    _kernels.raster_plane(
        colour, k, three(scene.to_camera(np.zeros(3))), three(rotation @ [c, s, 0]), three(rotation @ [-s, c, 0]),
        three(rotation @ [0, 0, 1]), three(light * np.array(t.colour_a)), three(light * np.array(t.colour_b)),
        (0.4, 0.42, 0.45), t.scale_per_m, t.texture, t.seed)


# ------------------------------------------------------------------------------------------- object meshes


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


def _thing_mesh(thing: Thing) -> tuple[Array, Array, Faces]:
    if thing.kind == "box":
        v, n, f = _cube()
        scale = np.array([thing.radius_m, thing.radius_m, thing.height_m / 2])
        v = (v + np.array([0, 0, 1])) * scale
    else:
        v, n, f = _turned(_PROFILES[thing.kind])
        v = v * np.array([thing.radius_m, thing.radius_m, thing.radius_m if thing.kind == "ball" else thing.height_m])
        # Normals are those of the unit profile: correct them for the stretched one.
        stretch = thing.height_m / thing.radius_m if thing.kind != "ball" else 1.0
        n = n * np.array([stretch, stretch, 1.0])
        n = n / np.linalg.norm(n, axis=1, keepdims=True)
        if thing.kind == "ball":
            n = (v - np.array([0, 0, thing.radius_m])) / thing.radius_m
    c, s = np.cos(thing.yaw_rad), np.sin(thing.yaw_rad)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return v @ turn.T + np.array([*thing.xy_m, 0]), n @ turn.T, f
