"""Pictures of a motion: the hands drawn over the photo they were predicted from, as a strip and as a video."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..motion import Motion
from ..overlay import HAND_RGB, Mesh, draw_meshes
from ..policy import Policy
from ..preprocess import MIN_SIDE_PX, Camera, ImageArray
from ..types import Observation
from .video import write_video

TILES = 3  # moments of the motion beside the photo itself
VIDEO_SIDE_PX, TILE_HEIGHT_PX, TILE_WIDTH_PX, GAP_PX = 960, 400, 1600, 4


def draw_motion(folder: Path, policy: Policy, observation: Observation, motion: Motion) -> None:
    """Writes overlay.png (the photo, then moments of the motion) and overlay.mp4 (all of it) into `folder`."""
    photo, camera = _view(policy, observation)
    frames = hand_frames(photo, camera, policy, motion)
    write_video(folder / "overlay.mp4", frames, 1 / motion.dt_s)
    moments = np.linspace(0, len(frames), TILES + 1).round().astype(int)[1:] - 1
    labelled = [(photo, "")] + [(frames[i], f"{(i + 1) * motion.dt_s:.2f} s") for i in moments]
    write_png(folder / "overlay.png", _strip(labelled))


def hand_frames(photo: ImageArray, camera: Camera, policy: Policy, motion: Motion) -> list[ImageArray]:
    """The photo with the hands of every frame, each uint8[H, W, 3]."""
    meshes: list[list[Mesh]] = []
    for side in motion.sides:
        hand = policy.hands[side]
        chunks = [chunk.motion for chunk in motion.of(side)]
        fingers = np.concatenate([m.finger_rotvec_rad for m in chunks]).reshape(-1, 45)
        pose = np.concatenate([np.zeros((len(fingers), 3), np.float32), fingers], axis=1)
        wrist = np.concatenate([m.cam_from_wrist for m in chunks])
        vertices = hand.forward(pose, chunks[0].betas, vertices=True).vertices
        if vertices is None:
            raise RuntimeError("the hand model returned no mesh")
        placed = vertices @ wrist[:, :3, :3].transpose(0, 2, 1) + wrist[:, None, :3, 3]
        meshes.append([Mesh(v, hand.faces, HAND_RGB[side]) for v in placed])
    intrinsics = camera.fx, camera.fy, camera.cx, camera.cy
    return [draw_meshes(photo, together, intrinsics) for together in zip(*meshes, strict=True)]


def write_png(path: Path, rgb: ImageArray) -> None:
    Image.fromarray(rgb).save(path, optimize=True)


def _view(policy: Policy, observation: Observation) -> tuple[ImageArray, Camera]:
    """The photo at a size fit for a video, and its camera at that size."""
    photo = observation.image_rgb
    height, width = photo.shape[:2]
    if observation.intrinsics_px is None:
        camera = policy.bundle.manifest.preprocess.default_raw_camera.resized(width, height)
    else:
        camera = Camera(*observation.intrinsics_px, width=width, height=height)
    scale = min(1.0, VIDEO_SIDE_PX / max(width, height))
    size = _even(width * scale), _even(height * scale)
    if size != (width, height):
        photo = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.uint8)
    return photo, camera.resized(*size)


def _even(side: float) -> int:
    """A side that a video can have; the short one of a narrow photo does not shrink to nothing."""
    return max(MIN_SIDE_PX, round(side) // 2 * 2)


def _strip(tiles: list[tuple[ImageArray, str]]) -> ImageArray:
    """The pictures side by side, each with its label in a corner."""
    height, width = tiles[0][0].shape[:2]
    scale = min(TILE_HEIGHT_PX / height, TILE_WIDTH_PX / width)
    size = round(width * scale), round(height * scale)
    sheet = Image.new("RGB", (len(tiles) * (size[0] + GAP_PX) - GAP_PX, size[1]), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for i, (picture, label) in enumerate(tiles):
        left = i * (size[0] + GAP_PX)
        sheet.paste(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS), (left, 0))
        draw.text((left + 10, 8), label, "white", font, stroke_width=2, stroke_fill="black")
    return np.asarray(sheet, np.uint8)
