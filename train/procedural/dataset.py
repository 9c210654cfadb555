"""Writes scenes as arrays for training: pictures, instructions and mano162 motion features in the camera frame.

Layout of a data set folder (M = 3 N tasks, a scene's three in a row):
  images            uint8[N, size, size, 3]     canonical pictures
  objects_kind, objects_colour int8[N, 3]       indices into KINDS, COLOURS
  objects_pos_cam_m float32[N, 3, 3]            centres, camera frame
  objects_size_m    float32[N, 3, 2]            radius (half side of a box) and height
  plate_colour      int8[N]                     index into COLOURS, -1 where there is no plate
  plate_pos_cam_m   float32[N, 3]               its centre, camera frame; NaN where there is none
  hands_start       float32[N, 2, 10]           left, right: palm in the camera frame (m), rot6D of cam_from_wrist, curl
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
  dataset.json      the recipe
Absent motion is NaN.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beingh0_edge import _kernels
from beingh0_edge.preprocess import Camera
from beingh0_edge.rotations import matrix_to_rot6d
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
from beingh0_edge.train.progress import Progress
from beingh0_edge.types import SIDES

SHARD = 500
RECIPE = "dataset.json"  # what decides the data; in the folder of unfinished work too
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
        wrist[i] = np.concatenate([matrix_to_rot6d(rotation), position.astype(np.float32)], -1).reshape(SECONDS, FPS, 9)
        aa = np.ascontiguousarray(motion.theta_rad.reshape(-1, 3), np.float32)
        turns = _kernels.axis_angle_to_matrix(aa)
        joints = joints_in_hand(side, motion.theta_rad, scene.betas) @ rotation.transpose(0, 2, 1).astype(np.float32)
        offsets = (joints[:, 1:] - joints[:, :1]).reshape(frames, 60)
        finger[i] = np.concatenate([matrix_to_rot6d(turns).reshape(frames, 90), offsets], -1).reshape(SECONDS, FPS, 150)
        present[i] = True
    return wrist, finger, present


def scene_columns(scene: Scene) -> dict[str, Any]:
    """The columns that say what stands where in one scene."""
    hands = np.full((2, 10), np.nan, np.float32)
    for start in scene.hands:
        rotation = scene.cam_from_world[:3, :3] @ start_pose(start).rotation
        hands[SIDES.index(start.side)] = [*scene.to_camera(start.palm_m), *matrix_to_rot6d(rotation), start.curl]
    return {
        "objects_kind": [KINDS.index(t.kind) for t in scene.objects],
        "objects_colour": [t.colour for t in scene.objects],
        "objects_pos_cam_m": scene.to_camera(np.stack([t.centre_m for t in scene.objects])),
        "objects_size_m": [(t.radius_m, t.height_m) for t in scene.objects],
        "plate_colour": scene.plate.colour if scene.plate else -1,
        "plate_pos_cam_m": scene.to_camera(scene.plate.centre_m) if scene.plate else np.full(3, np.nan),
        "hands_start": hands, "visible": VISIBLE.index(scene.visible),
    }


def _columns(n: int, size: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    m = 3 * n
    return {
        "images": ((n, size, size, 3), np.uint8),
        "objects_kind": ((n, 3), np.int8), "objects_colour": ((n, 3), np.int8),
        "objects_pos_cam_m": ((n, 3, 3), np.float32), "objects_size_m": ((n, 3, 2), np.float32),
        "plate_colour": ((n,), np.int8), "plate_pos_cam_m": ((n, 3), np.float32),
        "hands_start": ((n, 2, 10), np.float32),
        "visible": ((n,), np.int8), "scene_index": ((m,), np.int32),
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
        layout = scene_columns(scene)
        for name, value in layout.items():
            arrays[name][i] = value
        for task in tasks:
            row = 3 * i + task.target
            wrist, finger, present = features(scene, task)
            row_values = {
                "scene_index": i, "hands": HANDS.index(task.hands), "verb": VERBS.index(task.verb),
                "target": task.target, "target_pos_cam_m": layout["objects_pos_cam_m"][task.target],
                "wrist": wrist, "finger": finger, "present": present,
            }
            for name, value in row_values.items():
                arrays[name][row] = value
            lines.append(json.dumps({"text": task.text}))
    for array in arrays.values():
        array.flush()
    temporary = folder / f"text_{start:07d}.tmp"
    temporary.write_text("\n".join(lines) + "\n")
    temporary.replace(_text_part(folder, start))  # marks the shard as done


def _text_part(folder: Path, start: int) -> Path:
    return folder / f"text_{start:07d}.jsonl"


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
    if (out_dir / RECIPE).exists():
        if json.loads((out_dir / RECIPE).read_text()) != recipe:
            raise ValueError(f"{out_dir}: holds another data set ({RECIPE} differs); choose an empty folder")
        return out_dir
    if out_dir.exists() and not (out_dir.is_dir() and next(out_dir.iterdir(), None) is None):
        raise ValueError(f"{out_dir}: holds other files; choose an empty folder")
    work = _prepare(out_dir.with_name(out_dir.name + ".partial"), recipe, _columns(scenes, size))
    starts = [s for s in range(0, scenes, SHARD) if not _text_part(work, s).exists()]
    done = scenes - sum(min(SHARD, scenes - s) for s in starts)
    progress = Progress("scenes", scenes, done)
    jobs = [(work, split, seed, s, min(s + SHARD, scenes), size, camera, picks_only) for s in starts]
    for rows in _run(jobs, workers):
        done += rows
        progress(done)
    with (work / "text.jsonl").open("w") as out:
        out.writelines(_text_part(work, s).read_text() for s in range(0, scenes, SHARD))
    for s in range(0, scenes, SHARD):
        _text_part(work, s).unlink()
    os.replace(work, out_dir)
    return out_dir


def _prepare(work: Path, recipe: dict[str, Any], columns: dict[str, tuple[tuple[int, ...], Any]]) -> Path:
    """The folder of unfinished work, with empty arrays unless an interrupted call left it."""
    if (work / RECIPE).exists():
        if json.loads((work / RECIPE).read_text()) != recipe:
            raise ValueError(f"{work}: holds another unfinished data set; remove it or use its recipe")
        return work
    work.mkdir(parents=True, exist_ok=True)
    strange = sorted({path.name for path in work.iterdir()} - {f"{name}.npy" for name in columns})
    if strange:
        raise ValueError(f"{work}: holds other files ({strange[0]}); move them away")
    for name, (shape, dtype) in columns.items():
        np.lib.format.open_memmap(work / f"{name}.npy", mode="w+", dtype=dtype, shape=shape).flush()
    temporary = work.with_name(work.name + ".json")
    temporary.write_text(json.dumps(recipe))
    temporary.replace(work / RECIPE)
    return work


def _run(jobs: list[tuple[Path, Split, int, int, int, int, Camera, bool]], workers: int) -> Iterator[int]:
    """Does the jobs and yields the number of scenes of each as it is done."""
    if workers == 1:
        for job in jobs:
            _write_rows(*job)
            yield job[4] - job[3]
        return
    # Fresh processes: a fork of one that has run torch can hang on its threads.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(_write_rows, *job): job for job in jobs}
        try:
            for future in as_completed(futures):
                future.result()
                yield futures[future][4] - futures[future][3]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
