"""edge.json: what our own training knows of its model and config.json has no place for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beingh0_edge.bundle import PreprocessSpec, from_json
from beingh0_edge.errors import BundleError
from beingh0_edge.files import read_json
from beingh0_edge.preprocess import OFFICIAL_CAMERA, OFFICIAL_RAW_CAMERA, Camera

OFFICIAL_MAX_SECONDS = 10


@dataclass(frozen=True)
class Edge:
    """betas: side -> 10 numbers. image_size is for people; config.json decides."""

    name: str | None = None
    licence: str = "as the checkpoint it was made from"
    camera: Camera = OFFICIAL_CAMERA
    default_raw_camera: Camera | None = None
    image_size: int | None = None
    max_seconds: int = OFFICIAL_MAX_SECONDS
    betas: dict[str, tuple[float, ...]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_seconds < 1:
            raise ValueError(f"max_seconds: expected at least 1, got {self.max_seconds}")
        if bad := [side for side, shape in self.betas.items() if side not in ("left", "right") or len(shape) != 10]:
            raise ValueError(f"betas: expected 10 numbers each for 'left' and 'right', got {bad[0]!r} with "
                             f"{len(self.betas[bad[0]])}")

    def cameras(self) -> PreprocessSpec:
        """The camera that pictures are brought to, and the one assumed for pictures that come without."""
        assumed = OFFICIAL_RAW_CAMERA if self.camera == OFFICIAL_CAMERA else self.camera
        return PreprocessSpec(self.camera, self.default_raw_camera or assumed)


def read_edge(path: Path) -> Edge:
    """What the file says; the published model's facts where it says nothing, or does not exist. Raises BundleError."""
    if not path.is_file():
        return Edge()
    try:
        return from_json(Edge, read_json(path))
    except ValueError as error:
        raise BundleError(f"{path}: {error}", str(path)) from error
