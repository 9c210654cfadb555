"""Questions that bundles are measured with: drawn scenes where text can be read, else random ids."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from ..bundle import Bundle, PreprocessSpec
from ..preprocess import motion_frame, normalize
from ..prompt import TextTokenizer, motion_prompt
from ..quantize.measure import Sample
from ..quantize.verify import random_samples
from ..train import evaluate_nano, procedural
from ..types import FloatArray

SEED = 3  # neither training (0), the evaluation (1) nor the demo (2)
TUNING_SEED = 4
CALIBRATION_FRAMES = 16


def samples_for(bundle: Bundle, count: int, seed: int = SEED) -> tuple[list[Sample], str]:
    """(questions, what they are). The true motion is known to models of the drawn world, told by their camera.

    seed  SEED for reports; TUNING_SEED for what is tuned on, which then comes from training's split
    """
    if bundle.manifest.tokenizer is None:
        return random_samples(bundle, count, seed), "noise and random ids, as the bundle has no text tokenizer"
    samples = list(islice(drawn_samples(bundle, seed), count))
    what = ("of training's split (" if _split(seed) == procedural.Split.TRAIN
            else "that no training saw (held-out split, ")
    return samples, f"drawn scenes {what}seed {seed})"


def drawn_samples(bundle: Bundle, seed: int = SEED, first: int = 0) -> Iterator[Sample]:
    """Scene after scene, from number `first` on, each drawn when it is asked for. The bundle must read text."""
    m = bundle.manifest
    if m.tokenizer is None:
        raise ValueError(f"{bundle.root}: has no text tokenizer, so it cannot be asked about scenes")
    tokenizer, p, size = TextTokenizer(bundle.path(m.tokenizer)), m.preprocess, m.vision.image_size
    known = (p.camera == procedural.CANONICAL_CAMERA and m.motion is not None
             and m.motion.frames == evaluate_nano.FRAMES)
    for case in _episodes(_split(seed), seed, first):
        text = motion_prompt(case.observation.instruction, 1, evaluate_nano.MAIN.hands, template=m.template,
                             image_tokens=m.vision.tokens)
        truth = case.true_joints_m[0].astype(np.float32) if known else None
        yield Sample(tokenizer.encode(text), _pixels(case, p, size), "right", truth)


def calibration_frames(preprocess: PreprocessSpec, size: int) -> list[FloatArray]:
    """Drawn pictures as a model with these cameras and picture size sees them, of training's split."""
    cases = islice(_episodes(procedural.Split.TRAIN, SEED), CALIBRATION_FRAMES)
    return [_pixels(case, preprocess, size) for case in cases]


def _split(seed: int) -> procedural.Split:
    return procedural.Split.TRAIN if seed == TUNING_SEED else procedural.Split.HELD_OUT


def _episodes(split: procedural.Split, seed: int, first: int = 0) -> Iterator[evaluate_nano.Episode]:
    scenes = islice(evaluate_nano.scenes_with(evaluate_nano.MAIN, split, seed), first, None)
    for i, (scene, tasks) in enumerate(scenes, first):
        yield evaluate_nano.episode(evaluate_nano.MAIN, scene, tasks, target=i % 3)


def _pixels(case: evaluate_nano.Episode, p: PreprocessSpec, size: int) -> FloatArray:
    seen = case.observation
    return normalize(motion_frame(seen.image_rgb, seen.intrinsics_px, camera=p.camera, size=size,
                                  default_raw_camera=p.default_raw_camera))
