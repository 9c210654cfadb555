"""edge.json: what our own training knows of its model and config.json has no place for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from beingh0_edge.bundle import PreprocessSpec
from beingh0_edge.errors import BundleError
from beingh0_edge.preprocess import OFFICIAL_CAMERA, OFFICIAL_RAW_CAMERA, Camera


def read_edge(path: Path) -> dict[str, Any]:
    """camera, max_seconds, betas, provenance and the like. {} if there is no such file."""
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict):
            raise ValueError("expected an object")
        return data
    except ValueError as error:
        raise BundleError(f"{path}: {error}", str(path)) from error


def cameras(edge: dict[str, Any]) -> PreprocessSpec:
    """The camera that pictures are brought to, and the one assumed for pictures that come without."""
    camera = _camera(edge["camera"]) if "camera" in edge else OFFICIAL_CAMERA
    raw_camera = OFFICIAL_RAW_CAMERA if camera == OFFICIAL_CAMERA else camera
    if "default_raw_camera" in edge:
        raw_camera = _camera(edge["default_raw_camera"])
    return PreprocessSpec(camera, raw_camera)


def _camera(data: dict[str, Any]) -> Camera:
    try:
        return Camera(float(data["fx"]), float(data["fy"]), float(data["cx"]), float(data["cy"]),
                      int(data["width"]), int(data["height"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"edge.json: not a camera: {data!r} ({error!r})") from error
