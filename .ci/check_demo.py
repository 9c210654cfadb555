"""Checks what `beingh0 demo` wrote: that every file is there, whole, and says what a working demo must say.

python .ci/check_demo.py FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np

FILES = {  # name -> smallest plausible size in bytes
    "input.png": 20_000, "motion.npz": 2_000, "motion.json": 1_000, "overlay.png": 20_000,
    "overlay.mp4": 20_000, "joints.png": 20_000, "hand.npz": 5_000, "report.json": 500,
}
GRASP_M = 0.08  # twice the distance that counts as reached: engines on other processors round differently
FOLLOWED_RAD = 0.035  # 2 degrees: the simulated hand counts 1000 steps and stops within a few of them
TRACKED_RAD = 0.1  # 6 degrees: what the motors' own ramps leave once the hand's delay is taken out
DELAY_S = 0.2  # the maker's hand reacts after about 0.07 s
LEAST_RATE_HZ = 50.0  # of 100; a busy machine may lose cycles, and the log must still show the motion
LEAST_MOVEMENT_RAD = 0.3  # a hand that closes at all


def check(folder: Path) -> None:
    for name, least in FILES.items():
        path = folder / name
        assert path.is_file(), f"{name} is missing"
        assert path.stat().st_size >= least, f"{name}: {path.stat().st_size} bytes, expected at least {least}"
    leftovers = {path.name for path in folder.iterdir()} - set(FILES)
    assert not leftovers, f"unexpected files: {leftovers}"

    report = json.loads((folder / "report.json").read_text())
    motion = json.loads((folder / "motion.json").read_text())
    seconds = len(motion["chunks"])
    assert motion["instruction"] == report["scene"]["instruction"]
    grasp = report["grasp"]
    assert grasp["to_target_m"] < GRASP_M, grasp
    assert grasp["to_target_m"] < min(grasp["to_others_m"].values()), "closes nearer to another object"

    with np.load(folder / "motion.npz", allow_pickle=False) as arrays:
        side = motion["hands"][0]
        keypoints = arrays[f"{side}_keypoints_cam_m"]
        assert keypoints.shape == (15 * seconds, 21, 3), keypoints.shape
        assert np.isfinite(keypoints).all()
        depth_m = keypoints[..., 2]
        assert ((depth_m > 0.1) & (depth_m < 2)).all(), "the hand is not before the camera"

    tracking = report["tracking"]
    assert tracking["final_rad"] < FOLLOWED_RAD, tracking
    assert tracking["rms_delayed_rad"] < TRACKED_RAD, tracking
    assert tracking["delay_s"] < DELAY_S, tracking
    assert tracking["rate_hz"] > LEAST_RATE_HZ, tracking
    assert tracking["failed_transactions"] == 0, tracking
    with np.load(folder / "hand.npz", allow_pickle=False) as arrays:
        moved = np.ptp(arrays["q_rad"], axis=0)
        assert moved.max() > LEAST_MOVEMENT_RAD, f"the hand hardly moved: {moved}"

    photo, strip = cv2.imread(str(folder / "input.png")), cv2.imread(str(folder / "overlay.png"))
    assert photo.std() > 10, "the input picture is nearly uniform"
    assert strip.shape[1] > strip.shape[0], strip.shape
    video = cv2.VideoCapture(str(folder / "overlay.mp4"))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1].astype(np.float32))
    assert len(frames) == 15 * seconds, f"{len(frames)} frames in the video"
    change = max(float(np.abs(frames[0] - frame).max(axis=2).mean()) for frame in frames[1:])
    assert change > 0.5, f"nothing moves in the video (mean change {change:.2f})"
    print(f"demo output is complete: {len(FILES)} files, {len(frames)} video frames, grasp "
          f"{100 * grasp['to_target_m']:.1f} cm from the target, the hand rests "
          f"{np.degrees(tracking['final_rad']):.1f} degrees from it")


if __name__ == "__main__":
    check(Path(sys.argv[1]))
