"""Builds the synthetic hand: a MANO-shaped hand model made from formulas alone, free to ship.

It has MANO's numbers (778 vertices, 1538 faces, 16 joints, 10 shape and 135 pose blend shapes), MANO's joint tree and
MANO's axes, but none of MANO's data: the surface is a smooth union of tapered capsules of adult proportions, the
blend shapes follow from the skeleton. Nothing measured on people went into it, so no claim about people comes out.

Right hand, rest pose, metres: fingers along -x, palm facing -y, thumb towards +z. The left hand is its mirror image.
Run: python -m beingh0_edge.train.synthetic_hand OUT_DIR   (about 10 seconds; needs scikit-image and scipy)
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beingh0_edge.train.remesh import Faces, Points, gradient, remesh

BUILDER_VERSION = 1
LABEL = "synthetic, not MANO"
LICENSE = "Apache-2.0"
VERTICES, FACES, JOINTS, WRIST_LOOP = 778, 1538, 16, 16
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
FINGERS = ("index", "middle", "little", "ring", "thumb")  # order of MANO's joints 1..15
WRIST_M = np.array([0.095, 0.006, 0.006])  # as in MANO, the wrist is not the origin
VOXEL_M = 0.0026
WRIST_CUT_MM = -14.0  # the mesh ends this far behind the wrist joint

# Points are (f, t, p) millimetres from the wrist: towards the fingers, towards the thumb, out of the palm.
# Per finger: the three joints and the tip; radii there.
SKELETON_MM: dict[str, list[tuple[float, float, float]]] = {
    "index": [(90, 25, -1), (133, 28.5, 0.5), (158, 30, 3), (179, 31, 6)],
    "middle": [(93, 2, -2.5), (139, 2.5, -1), (168, 2.5, 1.5), (191, 2, 5)],
    "ring": [(88, -19, -1), (130, -22.5, 0.5), (157, -25, 3), (179, -27, 6.5)],
    "little": [(79, -37.5, 2), (112, -43.5, 3.5), (132, -47, 5.5), (151, -50, 8.5)],
    "thumb": [(23, 24, 9), (55, 50, 19), (77, 74, 26.5), (96, 95, 31.5)],
}
RADII_MM = {
    "index": (9.8, 8.8, 7.7, 6.3),
    "middle": (10.0, 9.0, 7.9, 6.5),
    "ring": (9.4, 8.4, 7.4, 6.1),
    "little": (8.3, 7.4, 6.5, 5.4),
    "thumb": (14.5, 11.5, 10.2, 7.6),
}
# Tip vertices of the two conventions in use, on every hand near the end of the finger.
TIPS_MANOTORCH = {"thumb": 745, "index": 317, "middle": 444, "ring": 556, "little": 673}
TIPS_SMPLX = {"thumb": 744, "index": 320, "middle": 443, "ring": 554, "little": 671}
MIDDLE_TIP_MANOTORCH_LEFT = 445
