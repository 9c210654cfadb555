"""A whole motion: all chunks of one request, and how it is saved."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .types import SIDES, FloatArray, MotionChunk, Side

SCHEMA = "beingh0-edge motion 1"
ARRAYS = {  # what `arrays` holds for each side, in words
    "t_s": "float64[T], seconds after the picture was taken",
    "ids": "int32[blocks, ids per block], the N of every <motion_id_N>",
    "cam_from_wrist": "float32[T, 4, 4], metres: p_cam = cam_from_wrist @ p_wrist; camera x right, y down, z forward",
    "finger_rotvec_rad": "float32[T, 15, 3], axis-angle, radians; index, middle, little, ring, thumb, three each",
    "keypoints_wrist_m": "float32[T, 21, 3], metres, wrist frame; wrist, then thumb to little, four each, base to tip",
    "keypoints_cam_m": "float32[T, 21, 3], metres, camera frame; the same points",
    "betas": "float32[10], MANO shape",
}


@dataclass(frozen=True, eq=False)
class Motion:
    """Chunks in the order they were generated (second by second, left before right), and what was asked."""

    chunks: tuple[MotionChunk, ...]
    instruction: str
    bundle: str
    settings: dict[str, Any]

    @property
    def sides(self) -> tuple[Side, ...]:
        """The hands in it, left before right."""
        present = {chunk.side for chunk in self.chunks}
        return tuple(side for side in SIDES if side in present)

    @property
    def dt_s(self) -> float:
        """Seconds between frames."""
        return self.chunks[0].dt_s

    def of(self, side: Side) -> tuple[MotionChunk, ...]:
        """This hand's chunks, in time."""
        return tuple(chunk for chunk in self.chunks if chunk.side == side)

    def keypoints_cam_m(self, side: Side) -> FloatArray:
        """float32[T, 21, 3], all seconds of one hand, metres, camera frame. Raises ValueError for another hand."""
        if side not in self.sides:
            raise ValueError(f"side: this motion has {' and '.join(self.sides)}, got {side!r}")
        return np.concatenate([chunk.keypoints_cam_m for chunk in self.of(side)])

    def arrays(self) -> dict[str, np.ndarray]:
        """What `save` writes to the .npz: `ARRAYS` of each side; every name starts with its side."""
        out: dict[str, np.ndarray] = {}
        for side in self.sides:
            chunks = self.of(side)
            frames = sum(len(chunk.keypoints_wrist_m) for chunk in chunks)
            out |= {
                f"{side}_t_s": np.arange(frames) * self.dt_s,
                f"{side}_ids": np.stack([chunk.ids for chunk in chunks]),
                f"{side}_cam_from_wrist": np.concatenate([c.motion.cam_from_wrist for c in chunks]),
                f"{side}_finger_rotvec_rad": np.concatenate([c.motion.finger_rotvec_rad for c in chunks]),
                f"{side}_keypoints_wrist_m": np.concatenate([c.keypoints_wrist_m for c in chunks]),
                f"{side}_keypoints_cam_m": self.keypoints_cam_m(side),
                f"{side}_betas": chunks[0].motion.betas,
            }
        return out

    def facts(self) -> dict[str, Any]:
        """What `save` writes to the .json."""
        return {
            "schema": SCHEMA,
            "bundle": self.bundle,
            "instruction": self.instruction,
            "settings": self.settings,
            "dt_s": self.dt_s,
            "hands": list(self.sides),
            "arrays": {f"{side}_{name}": meaning for side in self.sides for name, meaning in ARRAYS.items()},
            "chunks": [
                {
                    "side": chunk.side,
                    "start_s": chunk.start_s,
                    "frames": len(chunk.keypoints_wrist_m),
                    "timings_ms": asdict(chunk.timings),
                    "ids": chunk.ids.tolist(),
                }
                for chunk in self.chunks
            ],
        }

    def save(self, folder: str | Path) -> tuple[Path, Path]:
        """Writes motion.npz and motion.json into the folder, each whole or not at all. Returns their
        paths.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        npz, facts = folder / "motion.npz", folder / "motion.json"
        temporary = folder / f".motion.{os.getpid()}.npz"
        try:
            np.savez_compressed(temporary, **self.arrays())  # type: ignore[arg-type]
            temporary.replace(npz)
            plain = json.dumps(self.facts(), indent=1, default=lambda number: number.item())  # numpy's, of settings
            temporary.write_text(plain + "\n", encoding="utf-8")
            temporary.replace(facts)
        finally:
            temporary.unlink(missing_ok=True)
        return npz, facts
