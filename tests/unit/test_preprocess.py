"""Pictures: what is refused, and how the camera moves them. Official pixels are pinned by the goldens."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from beingh0_edge import preprocess
from beingh0_edge.preprocess import Camera

CAMERA = Camera(430, 430, 224, 224, 448, 448)
GREY_LEVELS = 3  # bilinear warp against direct area averaging of a smooth picture


def smooth(width: int, height: int) -> np.ndarray:
    """A smooth colour picture, defined in relative coordinates so that it looks the same at any size."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    waves = [np.sin(5 * x + c) * np.cos(4 * y - c) for c in range(3)]
    return np.round(127.5 + 120 * np.stack(waves, -1)).astype(np.uint8)


@pytest.mark.parametrize(("picture", "error", "message"), [
    (np.zeros((64, 64), np.uint8), ValueError, "a grey picture"),
    (np.zeros((64, 64, 1), np.uint8), ValueError, "a grey picture"),
    (np.zeros((64, 64, 4), np.uint8), ValueError, "a picture with alpha"),
    (np.zeros((64, 64, 3), np.float32), TypeError, r"float32\[64, 64, 3\]"),
    (np.zeros((64, 64, 3), np.int64), TypeError, "int64"),
    (np.zeros((0, 64, 3), np.uint8), ValueError, "got 64x0"),
    (np.zeros((8, 64, 3), np.uint8), ValueError, "got 64x8"),
    (np.zeros((16, 20000, 3), np.uint8), ValueError, "got 20000x16"),
    (np.broadcast_to(np.uint8(0), (9000, 9000, 3)), ValueError, "64 megapixels"),
    ([[[0, 0, 0]]], TypeError, "list"), (None, TypeError, "NoneType")])
@pytest.mark.parametrize("frame", [preprocess.motion_frame, preprocess.robot_frame], ids=["motion", "robot"])
def test_anything_but_a_sane_colour_picture_is_refused(frame, picture, error, message) -> None:
    with pytest.raises(error, match=message):
        frame(picture)


@pytest.mark.parametrize(
    "intrinsics", [(0, 1, 1, 1), (1, -1, 1, 1), (np.nan, 1, 1, 1), (1, 1, np.inf, 1), (1, 1), 5, "wide", np.eye(3),
                   (0.8, 0.8, 0.5, 0.5), (1e300, 1e300, 1, 1)]
)
def test_impossible_intrinsics_are_refused(intrinsics) -> None:
    with pytest.raises(ValueError, match="intrinsics"):
        preprocess.motion_frame(smooth(64, 48), intrinsics)


@pytest.mark.parametrize("camera", [preprocess.OFFICIAL_CAMERA, CAMERA], ids=["official", "own"])
def test_intrinsics_that_show_nothing_of_the_photo_are_refused(camera: Camera) -> None:
    with pytest.raises(ValueError, match="the model's camera sees nothing of a 64x48 photo"):
        preprocess.motion_frame(smooth(64, 48), (60.0, 60.0, 9000.0, 24.0), camera=camera)


def test_a_picture_from_the_models_own_camera_is_only_reduced() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (448, 448, 3), np.uint8)
    frame = preprocess.motion_frame(picture, camera=CAMERA, size=168, default_raw_camera=CAMERA)
    np.testing.assert_array_equal(frame, cv2.resize(picture, (168, 168), interpolation=cv2.INTER_AREA))
    same = preprocess.motion_frame(picture, (430, 430, 224, 224), camera=CAMERA, size=168)
    np.testing.assert_array_equal(same, frame)


@pytest.mark.parametrize("scale", [0.5, 2, 3.7])
def test_the_same_scene_at_another_resolution_gives_the_same_frame(scale: float) -> None:
    def frame(side: int) -> np.ndarray:
        f, c = CAMERA.fx * side / 448, CAMERA.cx * side / 448
        return preprocess.motion_frame(smooth(side, side), (f, f, c, c), camera=CAMERA, size=168)

    difference = np.abs(frame(448).astype(int) - frame(round(448 * scale)))
    assert difference[2:-2, 2:-2].max() <= GREY_LEVELS  # the border row meets black outside the photo


@pytest.mark.parametrize(("camera", "size"), [(preprocess.OFFICIAL_CAMERA, 448), (CAMERA, 448)],
                         ids=["official", "own"])
def test_a_point_lands_where_the_two_cameras_say(camera: Camera, size: int) -> None:
    width, height, intrinsics = 1280, 960, (1200.0, 1100.0, 600.0, 500.0)
    point_cam = np.array([0.03, -0.05, 1.0])
    u = intrinsics[0] * point_cam[0] + intrinsics[2]
    v = intrinsics[1] * point_cam[1] + intrinsics[3]
    picture = np.zeros((height, width, 3), np.uint8)
    cv2.circle(picture, (round(u), round(v)), 12, (255, 255, 255), -1)
    frame = preprocess.motion_frame(picture, intrinsics, camera=camera, size=size)
    rows, columns = np.nonzero(frame[..., 0] > 127)
    expected_x = (camera.fx * point_cam[0] + camera.cx) * size / camera.width
    expected_y = (camera.fy * point_cam[1] + camera.cy) * size / camera.height
    # Half a pixel from rounding the disc's centre, half from the official corner-based matrices.
    assert abs(columns.mean() + 0.5 - expected_x) < 1
    assert abs(rows.mean() + 0.5 - expected_y) < 1


def test_what_the_photo_does_not_show_is_black() -> None:
    narrow = np.full((480, 640, 3), 255, np.uint8)
    frame = preprocess.motion_frame(narrow, (2000.0, 2000.0, 320.0, 240.0), camera=CAMERA, size=168)
    assert frame[84, 84].min() == 255
    assert frame[2].max() == 0


def test_normalize_refuses_other_types() -> None:
    with pytest.raises(TypeError, match="float64"):
        preprocess.normalize(np.zeros((4, 4, 3)))  # type: ignore[arg-type]


def test_normalize_gives_contiguous_channels_first_floats() -> None:
    out = preprocess.normalize(np.full((4, 6, 3), 255, np.uint8))
    assert out.shape == (3, 4, 6)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    np.testing.assert_allclose(
        out[:, 0, 0], (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], rtol=1e-6
    )


def test_a_picture_file_is_read_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    Image.fromarray(smooth(64, 32)).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    assert preprocess.read_image(tmp_path / "photo.jpg").shape == (64, 32, 3)


def test_bad_picture_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        preprocess.read_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"text\.png: not a whole picture"):
        preprocess.read_image(tmp_path / "text.png")
    Image.fromarray(smooth(64, 64)).save(tmp_path / "whole.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"half\.png: not a whole picture"):
        preprocess.read_image(tmp_path / "half.png")
    for mode in ("L", "RGBA", "P", "I;16"):
        Image.new(mode, (64, 64)).save(tmp_path / "odd.png")
        with pytest.raises(ValueError, match="expected an RGB picture, got mode"):
            preprocess.read_image(tmp_path / "odd.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    with pytest.raises(ValueError, match=r"dot\.png: .*expected sides of 16 .* got 1x1"):
        preprocess.read_image(tmp_path / "dot.png")
    Image.new("1", (12000, 9000)).save(tmp_path / "large.png")  # Pillow only warns about it
    with pytest.raises(ValueError, match=r"large\.png"):
        preprocess.read_image(tmp_path / "large.png")
    Image.new("RGB", (20000, 16)).save(tmp_path / "huge.png")
    with pytest.raises(ValueError, match="got 20000x16"):
        preprocess.read_image(tmp_path / "huge.png")
