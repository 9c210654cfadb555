"""A procedural world to learn from: pictures of tables, hands and objects, instructions, and hand motion.

Synthetic by construction and free to use; needs numpy and the C++ kernels, no torch.
"""

from beingh0_edge.train.procedural.dataset import features, write_dataset
from beingh0_edge.train.procedural.hands import HandPose, grasp_point_m, model
from beingh0_edge.train.procedural.motion import (
    DIRECTIONS,
    FPS,
    SECONDS,
    VERBS,
    Motion,
    Task,
    motions,
    start_pose,
    to_camera,
)
from beingh0_edge.train.procedural.render import render_canonical, render_photo
from beingh0_edge.train.procedural.tasks import make_tasks
from beingh0_edge.train.procedural.world import (
    CANONICAL_CAMERA,
    COLOURS,
    KINDS,
    VISIBLE,
    Scene,
    Split,
    Thing,
    describe,
    make_scene,
    project,
)

__all__ = [
    "CANONICAL_CAMERA", "COLOURS", "DIRECTIONS", "FPS", "KINDS", "SECONDS", "VERBS", "VISIBLE", "HandPose", "Motion",
    "Scene", "Split", "Task", "Thing", "describe", "features", "grasp_point_m", "make_scene", "make_tasks", "model",
    "motions", "project", "render_canonical", "render_photo", "start_pose", "to_camera", "write_dataset",
]
