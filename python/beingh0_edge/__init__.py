"""Run Being-H0 models on the robot: a picture and a sentence in, hand motion out.

    policy = Policy.load("nano")
    for chunk in policy.stream(Observation(image_rgb, "pick up the red can"), hands="right"):
        ...  # one MotionChunk per hand and second, as soon as it is decoded

The names below load when first used, so that the import itself is quick. Nothing here imports torch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# ONNX Runtime from 1.32 on reports its use to its maker unless told not to, and reads this when it loads.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "Bundle": "bundle", "HandModel": "hand_model", "HandMotion": "types", "HandTrajectory": "types",
    "Motion": "motion", "MotionChunk": "types", "MotionTokenizer": "motion_tokenizer", "Observation": "types",
    "Policy": "policy", "Timings": "types",
}
_MODULES = ("bundle", "errors", "policy", "preprocess", "prompt", "tokens", "types")

__all__ = [  # spelled out: type checkers read it
    "Bundle", "HandModel", "HandMotion", "HandTrajectory", "Motion", "MotionChunk", "MotionTokenizer",
    "Observation", "Policy", "Timings", "__version__", "bundle", "errors", "policy", "preprocess", "prompt",
    "tokens", "types",
]

if TYPE_CHECKING:  # the same names once more, for type checkers and editors
    from . import bundle, errors, policy, preprocess, prompt, tokens, types
    from .bundle import Bundle
    from .hand_model import HandModel
    from .motion import Motion
    from .motion_tokenizer import MotionTokenizer
    from .policy import Policy
    from .types import HandMotion, HandTrajectory, MotionChunk, Observation, Timings

    __version__: str


def __getattr__(name: str) -> Any:
    from importlib import import_module, metadata

    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name == "__version__":
        try:
            return metadata.version("beingh0-edge")
        except metadata.PackageNotFoundError:  # running from a source tree that was never installed
            return "0+source"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
