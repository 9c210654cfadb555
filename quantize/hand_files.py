"""Hand models as a bundle keeps them: .npz with MANO's keys, from the packaged synthetic hands or the
user's MANO files.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import beingh0_edge
from beingh0_edge import hand_model, safe_pickle
from beingh0_edge.bundle import HandModelSpec
from beingh0_edge.errors import BundleError
from beingh0_edge.hand_model import HandModel, left_basis_is_unmirrored
from beingh0_edge.types import SIDES, Side

log = logging.getLogger(__name__)

# The shape of the two hands in the published inference script.
OFFICIAL_BETAS = {
    "left": (1.1270238, -0.25079092, -2.2111652, 4.350904, -2.3538678, 3.7198792, 0.80536413, 0.9086072,
             -0.41488478, 1.8571062),
    "right": (0.50233305, -1.332463, -5.994158, -1.2552336, 2.1817644, -5.384019, -2.189624, 2.3371675,
              -4.9490705, -2.3550193),
}
SYNTHETIC_LABEL = "synthetic, not MANO"
UNMIRRORED = "its shape basis is not mirrored, used as it is"
MANO_LABEL = "MANO, under its owners' licence: not to be passed on"


def write_hands(hands: Mapping[str, str | Path] | None, betas: Mapping[str, Any],
                work: Path) -> dict[str, HandModelSpec]:
    """Writes hands/<side>.npz and returns what the manifest says about them.

    hands  side -> .npz or MANO pickle; None takes the packaged synthetic hands
    betas  side -> 10 numbers; default: zeros for a synthetic hand, the published ones for any other
    """
    if hands is None:
        assets = Path(beingh0_edge.__file__).parent / "assets" / "hands"
        hands = {side: assets / f"synthetic_{side}.npz" for side in SIDES}
    written: dict[str, HandModelSpec] = {}
    for side, given in hands.items():
        if side not in SIDES:
            raise ValueError(f"hands: expected 'left' and 'right', got {side!r}")
        path = Path(given)
        if not path.is_file():
            raise BundleError(f"{path}: no such hand model", str(path))
        (work / "hands").mkdir(exist_ok=True)
        target = work / "hands" / f"{side}.npz"
        if path.suffix == ".npz":
            label = _label(path)
            shutil.copyfile(path, target)
        else:
            label = MANO_LABEL
            arrays: dict[str, Any] = safe_pickle.load_mano(path, hand_model.SHAPES)
            np.savez_compressed(target, **arrays)
        _try_out(target, side, path)
        shape = betas.get(side, (0.0,) * 10 if label == SYNTHETIC_LABEL else OFFICIAL_BETAS[side])
        written[side] = HandModelSpec(f"hands/{side}.npz", tuple(float(b) for b in shape), label)
    if len(written) == 2 and left_basis_is_unmirrored(*(HandModel.load(work / written[side].file, side)
                                                        for side in SIDES)):
        log.warning("%s: shapedirs has the x sign of the right hand, so betas deform this left hand wrongly; it is "
                    "used as it is", hands["left"])
        written["left"] = replace(written["left"], label=f"{written['left'].label}; {UNMIRRORED}")
    return written


def _try_out(target: Path, side: Side, given: Path) -> None:
    """Loads the written hand as the runtime will. Raises its error with the name of the file that was read."""
    try:
        HandModel.load(target, side)
    except BundleError as error:
        raise BundleError(str(error).replace(str(target), str(given)), str(given)) from error


def _label(path: Path) -> str:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as model:
            return str(model["label"]) if "label" in model else f"from {path.name}"
    except (ValueError, KeyError, *safe_pickle.ZIP_ERRORS) as error:
        raise BundleError(f"{path}: not a hand model .npz ({error})", str(path)) from error
