"""Frames of the published preprocessing, recorded with the official code."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from beingh0_edge import preprocess

DATA = Path(__file__).parent / "data" / "image_preprocessing"
META = json.loads((DATA / "meta.json").read_text())
GOLDEN = np.load(DATA / "golden.npz")


def frame_of(case: str) -> np.ndarray:
    image = GOLDEN["image_rgb_uint8"]
    if case == "default":
        return preprocess.motion_frame(image)
    # The recorded intrinsics belong to the 3840x2160 resize; a user gives those of the photo itself.
    sx, sy = image.shape[1] / 3840, image.shape[0] / 2160
    m = META[case]
    return preprocess.motion_frame(image, (m["fx"] * sx, m["fy"] * sy, m["cx"] * sx, m["cy"] * sy))


@pytest.mark.parametrize("case", ["default", "custom"])
def test_motion_frame_has_the_official_pixels(case: str) -> None:
    frame = frame_of(case)
    np.testing.assert_array_equal(frame, GOLDEN[f"{case}_frame_448"])
    assert hashlib.sha256(frame.tobytes()).hexdigest() == META[case]["sha256_frame"]


@pytest.mark.parametrize("case", ["default", "custom"])
def test_normalised_motion_frame_has_the_official_floats(case: str) -> None:
    pixels = preprocess.normalize(frame_of(case))
    np.testing.assert_array_equal(pixels[None, :, ::14, ::14], GOLDEN[f"{case}_pixel_values_sample"])
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == META[case]["sha256_pixel_values_f32"]


def test_robot_frame_has_the_official_pixels() -> None:
    frame = preprocess.robot_frame(GOLDEN["image_rgb_uint8"])
    np.testing.assert_array_equal(frame, GOLDEN["robot_frame_448"])
    np.testing.assert_array_equal(
        preprocess.normalize(frame)[None, :, ::14, ::14], GOLDEN["robot_pixel_values_sample"])
