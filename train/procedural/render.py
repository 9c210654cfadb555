"""Pictures of a scene: the user's photo, and what the model sees after the warp into its camera."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from beingh0_edge import _kernels
from beingh0_edge.preprocess import Camera
from beingh0_edge.train.procedural.hands import HandPose, hand_mesh
from beingh0_edge.train.procedural.meshes import joined, thing_mesh
from beingh0_edge.train.procedural.world import CANONICAL_CAMERA, Array, Scene

Image = npt.NDArray[np.uint8]

SHADOW = 0.45  # how much light a shadow takes
GRAIN = 0.008  # noise of the sensor, of full scale


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
    sx, sy = 2 * width / camera.width, 2 * height / camera.height  # things are drawn at twice the size and averaged
    k = (camera.fx * sx, camera.fy * sy, camera.cx * sx, camera.cy * sy)
    table = np.empty((height, width, 3), np.float32)
    _draw_table(scene, table, (k[0] / 2, k[1] / 2, k[2] / 2, k[3] / 2))

    plate = () if scene.plate is None else (scene.plate,)
    meshes = joined([thing_mesh(t) for t in (*plate, *scene.objects)] + [hand_mesh(scene, p) for p in poses])
    shadow = np.zeros((2 * height, 2 * width), np.uint8)
    ground = meshes.vertices - meshes.vertices[:, 2:] / scene.light_dir[2] * scene.light_dir
    _kernels.raster_coverage(shadow, _f32(scene.to_camera(ground)), meshes.faces, k)
    shadow = _kernels.raster_soften(shadow, max(3, round(0.012 * k[0] / 0.55) | 1) // 2)

    colour, depth = np.zeros((*shadow.shape, 3), np.float32), np.zeros(shadow.shape, np.float32)
    lambert = np.clip(meshes.normals @ scene.light_dir, 0, None)[:, None]
    shade = meshes.albedo * (scene.ambient + (1 - scene.ambient) * lambert)
    _kernels.raster_triangles(colour, depth, _f32(scene.to_camera(meshes.vertices)), _f32(shade), meshes.faces, k)
    grain = np.random.default_rng(scene.style_seed).standard_normal(table.shape, np.float32)
    grain *= np.float32(GRAIN)
    return _kernels.raster_compose(table, shadow, SHADOW, colour, depth, grain)


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
