"""Writes scenes as arrays for training: pictures, instructions and mano162 motion features in the camera frame.

Layout of a data set folder (M = 3 N tasks, a scene's three in a row):
  images            uint8[N, size, size, 3]     canonical pictures
  objects_kind, objects_colour int8[N, 3]       indices into KINDS, COLOURS
  objects_pos_cam_m float32[N, 3, 3]            centres, camera frame
  visible           int8[N]                     index into VISIBLE
  scene_index       int32[M]                    row of the picture
  hands             int8[M]                     0 left, 1 right, 2 both
  verb, target      int8[M]
  target_pos_cam_m  float32[M, 3]
  present           bool[M, 2, 3]               which (side, second) holds a motion; side 0 is left
  wrist             float32[M, 2, 3, 15, 9]     rot6D of cam_from_wrist, then wrist position (m)
  finger            float16[M, 2, 3, 15, 150]   15 finger rotations as rot6D, then 20 joints minus the wrist joint,
                                                camera axes (m)
  text.jsonl        one {"text": ...} per task
Absent motion is NaN.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beingh0_edge import _kernels
from beingh0_edge.preprocess import Camera
from beingh0_edge.train.procedural.motion import (
    FPS,
    SECONDS,
    VERBS,
    Task,
    joints_in_hand,
    motions,
    start_pose,
    to_camera,
)
from beingh0_edge.train.procedural.render import render_canonical
from beingh0_edge.train.procedural.tasks import make_tasks
from beingh0_edge.train.procedural.world import (
    CANONICAL_CAMERA,
    COLOURS,
    KINDS,
    VISIBLE,
    Scene,
    Split,
    make_scene,
)
from beingh0_edge.types import SIDES

log = logging.getLogger(__name__)

SHARD = 500
HANDS = ("left", "right", "both")


def features(
    scene: Scene, task: Task
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """(wrist float32[2, 3, 15, 9], finger float32[2, 3, 15, 150], present bool[2, 3]) of one task."""
    wrist = np.full((2, SECONDS, FPS, 9), np.nan, np.float32)
    finger = np.full((2, SECONDS, FPS, 150), np.nan, np.float32)
    present = np.zeros((2, SECONDS), bool)
    for side, motion in motions(scene, task).items():
        i = SIDES.index(side)
        rotation, position = to_camera(scene, motion)
        frames = len(rotation)
        wrist[i] = np.concatenate([_rot6d(rotation), position.astype(np.float32)], -1).reshape(SECONDS, FPS, 9)
        aa = np.ascontiguousarray(motion.theta_rad.reshape(-1, 3), np.float32)
        turns = _kernels.axis_angle_to_matrix(aa)
        joints = joints_in_hand(side, motion.theta_rad, scene.betas) @ rotation.transpose(0, 2, 1).astype(np.float32)
        offsets = (joints[:, 1:] - joints[:, :1]).reshape(frames, 60)
        finger[i] = np.concatenate([_rot6d(turns).reshape(frames, 90), offsets], -1).reshape(SECONDS, FPS, 150)
        present[i] = True
    return wrist, finger, present


def _rot6d(rotation: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """First two columns, row by row, as mano162 stores them."""
    return np.ascontiguousarray(rotation[..., :2].reshape(*rotation.shape[:-2], 6), np.float32)


def _columns(n: int, size: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    m = 3 * n
    return {
        "images": ((n, size, size, 3), np.uint8),
        "objects_kind": ((n, 3), np.int8), "objects_colour": ((n, 3), np.int8),
        "objects_pos_cam_m": ((n, 3, 3), np.float32), "visible": ((n,), np.int8), "scene_index": ((m,), np.int32),
        "hands": ((m,), np.int8), "verb": ((m,), np.int8), "target": ((m,), np.int8),
        "target_pos_cam_m": ((m, 3), np.float32), "present": ((m, 2, SECONDS), np.bool_),
        "wrist": ((m, 2, SECONDS, FPS, 9), np.float32), "finger": ((m, 2, SECONDS, FPS, 150), np.float16),
    }


def _write_rows(folder: Path, split: Split, seed: int, start: int, stop: int, size: int, camera: Camera,
                picks_only: bool) -> None:
    """Fills rows [start, stop) of the arrays and writes their sentences; runs in a worker."""
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in _columns(0, size)}
    lines = []
    for i in range(start, stop):
        scene = make_scene(split, seed, i, visible="right" if picks_only else None)
        tasks = make_tasks(scene, verb="pick" if picks_only else None)
        poses = [start_pose(h) for h in scene.hands]
        arrays["images"][i] = render_canonical(scene, poses, size, camera)
        arrays["objects_kind"][i] = [KINDS.index(t.kind) for t in scene.objects]
        arrays["objects_colour"][i] = [t.colour for t in scene.objects]
        centres = scene.to_camera(np.stack([t.centre_m for t in scene.objects]))
        arrays["objects_pos_cam_m"][i] = centres
        arrays["visible"][i] = VISIBLE.index(scene.visible)
        for task in tasks:
            row = 3 * i + task.target
            wrist, finger, present = features(scene, task)
            row_values = {
                "scene_index": i, "hands": HANDS.index(task.hands), "verb": VERBS.index(task.verb),
                "target": task.target, "target_pos_cam_m": centres[task.target],
                "wrist": wrist, "finger": finger, "present": present,
            }
            for name, value in row_values.items():
                arrays[name][row] = value
            lines.append(json.dumps({"text": task.text}))
    for array in arrays.values():
        array.flush()
    temporary = folder / f"text_{start:07d}.tmp"
    temporary.write_text("\n".join(lines) + "\n")
    temporary.replace(folder / f"text_{start:07d}.jsonl")  # marks the shard as done


def write_dataset(out_dir: Path, scenes: int, seed: int, workers: int = 2, *, size: int = 168,
                  camera: Camera = CANONICAL_CAMERA, split: Split = Split.TRAIN, picks_only: bool = False) -> Path:
    """Generates `scenes` scenes into `out_dir`; resumes where an interrupted call stopped.

    `picks_only` makes the main evaluation scenes: right hand, pick. With more than one worker, a script that calls
    this needs the usual `if __name__ == "__main__":` of multiprocessing. Raises ValueError if the folder holds another
    data set or other files, which are never touched.
    """
    for name, number in (("scenes", scenes), ("workers", workers), ("size", size)):
        if number < 1:
            raise ValueError(f"{name}: expected a whole number from 1 on, got {number}")
    recipe = {"scenes": scenes, "seed": seed, "size": size, "camera": asdict(camera), "split": split.name,
              "picks_only": picks_only, "kinds": list(KINDS), "colours": list(COLOURS)}
    done = out_dir / "dataset.json"
    if done.exists():
        if json.loads(done.read_text()) != recipe:
            raise ValueError(f"{out_dir}: holds another data set ({done.name} differs); choose an empty folder")
        return out_dir
    work = out_dir.with_name(out_dir.name + ".partial")
    plan = work / "recipe.json"
    if plan.exists() and json.loads(plan.read_text()) != recipe:
        raise ValueError(f"{work}: holds another unfinished data set; remove it or use its recipe")
    if not plan.exists():
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        for name, (shape, dtype) in _columns(scenes, size).items():
            np.lib.format.open_memmap(work / f"{name}.npy", mode="w+", dtype=dtype, shape=shape).flush()
        plan.write_text(json.dumps(recipe))
    starts = [s for s in range(0, scenes, SHARD) if not (work / f"text_{s:07d}.jsonl").exists()]
    began, finished = time.monotonic(), 0
    with ProcessPoolExecutor(max(1, workers)) as pool:
        futures = [pool.submit(_write_rows, work, split, seed, s, min(s + SHARD, scenes), size, camera, picks_only)
                   for s in starts]
        try:
            for future in as_completed(futures):
                future.result()
                finished += 1
                rate = finished * SHARD / (time.monotonic() - began)
                left = (len(starts) - finished) * SHARD / rate
                log.info("scenes %d/%d  %.0f/s  %s left", scenes - (len(starts) - finished) * SHARD, scenes, rate,
                         time.strftime("%H:%M:%S", time.gmtime(left)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    with (work / "text.jsonl").open("w") as out:
        for s in range(0, scenes, SHARD):
            part = work / f"text_{s:07d}.jsonl"
            out.write(part.read_text())
    for part in work.glob("text_*.jsonl"):
        part.unlink()
    plan.unlink()
    (work / "dataset.json").write_text(json.dumps(recipe))
    shutil.rmtree(out_dir, ignore_errors=True)
    os.replace(work, out_dir)
    return out_dir
