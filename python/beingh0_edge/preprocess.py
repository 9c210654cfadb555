"""From a photo to the model's pixels, exactly as in training.

Motion models see the scene through one virtual camera: the photo is warped to it with its intrinsics and
squashed to a square. The published models use `OFFICIAL_CAMERA`; a bundle may state its own. Robot models see
the photo resized.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from .types import FloatArray

ImageArray = npt.NDArray[np.uint8]
Intrinsics = tuple[float, float, float, float]

MIN_SIDE_PX, MAX_SIDE_PX = 16, 16384
MAX_PIXELS = 64_000_000
_KINDS = {"1": "black and white", "L": "grey", "LA": "grey with alpha", "P": "palette", "RGBA": "colour with alpha",
          "CMYK": "printing colours", "I;16": "grey of 16 bits"}


@dataclass(frozen=True)
class Camera:
    """Pinhole intrinsics in pixels, and the picture size they belong to."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        if not np.isfinite([self.fx, self.fy, self.cx, self.cy]).all() or min(self.fx, self.fy) <= 0:
            raise ValueError(f"camera: expected finite fx, fy > 0 and finite cx, cy, got {self}")
        if min(self.width, self.height) < 1:
            raise ValueError(f"camera: expected a picture size, got {self.width}x{self.height}")

    def matrix(self) -> npt.NDArray[np.float32]:
        """float32[3, 3]"""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float32)

    def resized(self, width: int, height: int) -> Camera:
        """The same camera for a picture resized to width x height (each axis by itself)."""
        sx, sy = width / self.width, height / self.height
        return Camera(self.fx * sx, self.fy * sy, self.cx * sx, self.cy * sy, width, height)


OFFICIAL_CAMERA = Camera(736.6339, 736.6339, 960.0, 540.0, 1920, 1080)
OFFICIAL_RAW_CAMERA = Camera(2304.0, 1942.0, 1729.0, 971.0, 3840, 2160)
OFFICIAL_SIZE = 448

IMAGE_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGE_STD = np.array([0.229, 0.224, 0.225], np.float32)


def check_image(rgb: ImageArray) -> ImageArray:
    """The picture, contiguous. Raises TypeError or ValueError unless it is uint8[H, W, 3] of a sane size."""
    if not isinstance(rgb, np.ndarray):
        raise TypeError(f"image_rgb: expected a numpy array uint8[H, W, 3], got {type(rgb).__name__}")
    got = f"{rgb.dtype}{list(rgb.shape)}"
    if rgb.dtype != np.uint8:
        raise TypeError(f"image_rgb: expected uint8[H, W, 3] (values 0 to 255), got {got}")
    if rgb.ndim != 3 or rgb.shape[2] != 3:
        kind = {2: " (a grey picture)"}.get(rgb.ndim, "")
        if rgb.ndim == 3:
            kind = {1: " (a grey picture)", 4: " (a picture with alpha)"}.get(rgb.shape[2], "")
        raise ValueError(f"image_rgb: expected uint8[H, W, 3], got {got}{kind}")
    height, width = rgb.shape[:2]
    if min(height, width) < MIN_SIDE_PX or max(height, width) > MAX_SIDE_PX or height * width > MAX_PIXELS:
        raise ValueError(f"image_rgb: expected sides of {MIN_SIDE_PX} to {MAX_SIDE_PX} px and at most "
                         f"{MAX_PIXELS // 1_000_000} megapixels, got {width}x{height}")
    return np.ascontiguousarray(rgb)


def read_image(path: str | Path) -> ImageArray:
    """uint8[H, W, 3] from a picture file, turned upright by its EXIF orientation.

    Raises FileNotFoundError, or ValueError if it is not a whole RGB picture of a sane size.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no picture at {path}")
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS or max(picture.size) > MAX_SIDE_PX:
                raise ValueError(f"{path}: expected at most {MAX_PIXELS // 1_000_000} megapixels and "
                                 f"{MAX_SIDE_PX} px a side, got {picture.width}x{picture.height}")
            if picture.mode != "RGB":
                kind = _KINDS.get(picture.mode, "other colours")
                raise ValueError(f"{path}: expected an RGB picture, got mode {picture.mode} ({kind}); "
                                 "convert it to RGB first")
            rgb = np.asarray(ImageOps.exif_transpose(picture))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError,
            Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path}: not a whole picture ({error})") from error
    try:
        return check_image(rgb)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _raw_camera(rgb: ImageArray, intrinsics: Intrinsics | None, default: Camera) -> Camera:
    height, width = rgb.shape[:2]
    if intrinsics is None:
        return default.resized(width, height)
    try:
        fx, fy, cx, cy = (float(value) for value in intrinsics)
        camera = Camera(fx, fy, cx, cy, width, height)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"intrinsics: expected finite (fx, fy, cx, cy) with fx, fy > 0, got {intrinsics}") from None
    if min(fx, fy) < 1:  # shares of the picture's size, most likely
        raise ValueError(f"intrinsics: expected fx, fy in pixels of the photo, at least 1, got {intrinsics}")
    return camera


def _check_view(raw: Camera, camera: Camera) -> None:
    """Raises ValueError if the camera sees less than a pixel of the photo: a hand would move by a black picture."""
    for f, c, side, own_f, own_c, own_side in ((raw.fx, raw.cx, raw.width, camera.fx, camera.cx, camera.width),
                                               (raw.fy, raw.cy, raw.height, camera.fy, camera.cy, camera.height)):
        first = own_c - c * own_f / f
        if min(first + side * own_f / f, own_side) - max(first, 0.0) < 1:
            raise ValueError(f"intrinsics: with fx, fy, cx, cy = {raw.fx:g}, {raw.fy:g}, {raw.cx:g}, {raw.cy:g} the "
                             f"model's camera sees nothing of a {raw.width}x{raw.height} photo")


def motion_frame(rgb: ImageArray, intrinsics: Intrinsics | None = None, *, camera: Camera = OFFICIAL_CAMERA,
                 size: int = OFFICIAL_SIZE, default_raw_camera: Camera = OFFICIAL_RAW_CAMERA) -> ImageArray:
    """The photo through the model's camera, squashed to a square.

    rgb                 uint8[H, W, 3]
    intrinsics          (fx, fy, cx, cy) in pixels of `rgb`; None takes default_raw_camera, resized to the
                        photo
    camera, size        the model's camera and its picture side
    Returns uint8[size, size, 3]. Parts of the scene that the photo does not show are black.
    Raises  TypeError or ValueError for anything but a sane colour picture and intrinsics that show some of it.
    Source: with OFFICIAL_CAMERA and size 448 every step is the published one (resize to 3840x2160, bilinear
            warp with its corner-based matrices, bilinear squash). Any other camera was trained on antialiased
            renderings: there the photo is reduced by area averaging, and pixel centres are exact.
    """
    rgb = check_image(rgb)
    raw = _raw_camera(rgb, intrinsics, default_raw_camera)
    _check_view(raw, camera)
    if camera == OFFICIAL_CAMERA and size == OFFICIAL_SIZE:
        return _official_frame(rgb, raw)
    scale_x, scale_y = camera.fx / raw.fx, camera.fy / raw.fy
    if scale_x < 1 or scale_y < 1:
        width = max(1, round(raw.width * min(scale_x, 1.0)))
        height = max(1, round(raw.height * min(scale_y, 1.0)))
        rgb = _as_image(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA))
        raw = raw.resized(width, height)
    if raw != camera:
        # Camera numbers place pixel (0, 0) by its corner, OpenCV by its centre: hence the half pixels.
        sx, sy = camera.fx / raw.fx, camera.fy / raw.fy
        warp = np.array([[sx, 0, camera.cx - sx * raw.cx + 0.5 * sx - 0.5],
                         [0, sy, camera.cy - sy * raw.cy + 0.5 * sy - 0.5]], np.float64)
        rgb = _as_image(cv2.warpAffine(rgb, warp, (camera.width, camera.height), flags=cv2.INTER_LINEAR))
    shrinks = size <= min(camera.width, camera.height)
    return _as_image(cv2.resize(rgb, (size, size),
                                interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))


@lru_cache(maxsize=4)  # a robot's camera stays the same from picture to picture
def _official_maps(raw: Camera) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint16]]:
    """Where in the 3840x2160 photo each pixel of the 1920x1080 camera lies, in OpenCV's 1/32-pixel fixed
    point.

    The published code calls cv2.warpPerspective, which rounds to 1/32 pixel up to OpenCV 4 and no longer in
    5; with the rounding made explicit every version gives the published pixels.
    """
    to_camera = OFFICIAL_CAMERA.matrix() @ np.linalg.inv(raw.matrix())  # float32, as published
    from_camera = np.linalg.inv(to_camera.astype(np.float64))
    x = from_camera[0, 0] * np.arange(OFFICIAL_CAMERA.width) + from_camera[0, 2]
    y = from_camera[1, 1] * np.arange(OFFICIAL_CAMERA.height) + from_camera[1, 2]
    grid_x, grid_y = np.meshgrid(x.astype(np.float32), y.astype(np.float32))
    whole, fraction = cv2.convertMaps(grid_x, grid_y, cv2.CV_16SC2)
    return np.asarray(whole, np.int16), np.asarray(fraction, np.uint16)


def _official_frame(rgb: ImageArray, raw: Camera) -> ImageArray:
    wide = OFFICIAL_RAW_CAMERA.width, OFFICIAL_RAW_CAMERA.height
    frame = cv2.resize(rgb, wide, interpolation=cv2.INTER_LINEAR)
    frame = cv2.remap(frame, *_official_maps(raw.resized(*wide)), cv2.INTER_LINEAR)
    return _as_image(cv2.resize(frame, (OFFICIAL_SIZE, OFFICIAL_SIZE), interpolation=cv2.INTER_LINEAR))


def robot_frame(rgb: ImageArray, size: int = OFFICIAL_SIZE) -> ImageArray:
    """The photo for robot mode: uint8[size, size, 3], resized bicubically without any camera warp."""
    from PIL import Image

    resized = Image.fromarray(check_image(rgb)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(resized, np.uint8)


def normalize(frame: ImageArray) -> FloatArray:
    """uint8[S, S, 3] -> float32[3, S, S], scaled to 0..1 and normalised per colour (ImageNet statistics)."""
    if not isinstance(frame, np.ndarray) or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        got = f"{frame.dtype}{list(frame.shape)}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise TypeError(f"frame: expected uint8[S, S, 3], got {got}")
    scaled = (frame.astype(np.float32) / np.float32(255) - IMAGE_MEAN) / IMAGE_STD
    return np.ascontiguousarray(scaled.transpose(2, 0, 1))


def _as_image(array: object) -> ImageArray:
    return np.asarray(array, np.uint8)
