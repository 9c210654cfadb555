"""Draws the picture that `beingh0 demo` asks about, and the facts that judge the answer.

The scene comes from the held-out stream, with a seed that neither training, its probes nor the evaluation use. It
was chosen among thirty because the model answers it well; `beingh0 eval nano` tells how often it does.
Run: python -m beingh0_edge.train.demo_scene OUT_DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from PIL import Image

from beingh0_edge.files import staged, write_json
from beingh0_edge.train import procedural
from beingh0_edge.train.procedural import Split
from beingh0_edge.types import Side

SEED, INDEX, TARGET = 2, 29, 2
SIDE: Side = "right"


def write(out: Path) -> dict[str, Any]:
    """Writes scene.png and scene.json into `out`; returns the facts."""
    scene = procedural.make_scene(Split.HELD_OUT, SEED, INDEX, visible=SIDE)
    task = procedural.make_tasks(scene, verb="pick", hands=SIDE)[TARGET]
    camera = scene.raw_camera
    things = [{"name": thing.name, "position_cam_m": scene.to_camera(thing.centre_m).round(5).tolist()}
              for thing in scene.objects]
    facts = {
        "made_by": "beingh0_edge.train.demo_scene: drawn, not a photo of anybody or anything",
        "split": scene.split.name, "seed": SEED, "index": INDEX,
        "instruction": task.text, "side": SIDE, "seconds": 1,
        "intrinsics_px": [round(value, 4) for value in (camera.fx, camera.fy, camera.cx, camera.cy)],
        "grasp_point_wrist_m": procedural.grasp_point_m(SIDE).round(6).tolist(),
        "target": things[TARGET],
        "others": [thing for i, thing in enumerate(things) if i != TARGET],
    }
    photo = procedural.render_photo(scene, [procedural.start_pose(hand) for hand in scene.hands])
    with staged(out) as stage:
        Image.fromarray(photo).save(stage / "scene.png", optimize=True)
        write_json(stage / "scene.json", facts)
    return facts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    print(write(parser.parse_args().out))
