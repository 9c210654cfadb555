"""Video files, written by OpenCV and read back once, because a codec that fails there does so in silence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2

from ..errors import BackendError
from ..preprocess import ImageArray


def write_video(path: Path, frames: Sequence[ImageArray], fps: float) -> None:
    """MPEG-4 video (.mp4) of uint8[H, W, 3] RGB frames of one even size.

    Raises ValueError for frames that do not fit together, BackendError if the file does not hold all of them.
    """
    if not frames:
        raise ValueError(f"{path}: expected at least one frame")
    shape = frames[0].shape
    if any(frame.shape != shape for frame in frames) or shape[0] % 2 or shape[1] % 2:
        raise ValueError(f"{path}: expected frames of one even size, got {sorted({f.shape for f in frames})}")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (shape[1], shape[0]))
    if not writer.isOpened():
        raise BackendError(f"{path}: this build of OpenCV cannot write MPEG-4 video", "opencv")
    try:
        for frame in frames:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    finally:
        writer.release()
    written = count_frames(path)
    if written != len(frames):
        raise BackendError(f"{path}: wrote {len(frames)} frames, the file holds {written}", "opencv")


def count_frames(path: Path) -> int:
    """Frames that can really be decoded from a video file."""
    capture = cv2.VideoCapture(str(path))
    try:
        count = 0
        while capture.grab():
            count += 1
        return count
    finally:
        capture.release()
