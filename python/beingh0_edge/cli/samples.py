"""Questions that bundles are measured with: drawn scenes where text can be read, else random ids."""

from __future__ import annotations

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
    m = bundle.manifest
    if m.tokenizer is None:
        return random_samples(bundle, count, seed), "noise and random ids, as the bundle has no text tokenizer"
    tokenizer, p, size = TextTokenizer(bundle.path(m.tokenizer)), m.preprocess, m.vision.image_size
    known = (p.camera == procedural.CANONICAL_CAMERA and m.motion is not None
             and m.motion.frames == evaluate_nano.FRAMES)
    samples = []
    split = procedural.Split.TRAIN if seed == TUNING_SEED else procedural.Split.HELD_OUT
    for case in _episodes(split, seed, count):
        text = motion_prompt(case.observation.instruction, 1, evaluate_nano.MAIN.hands, template=m.template,
                             image_tokens=m.vision.tokens)
        truth = case.true_joints_m[0].astype(np.float32) if known else None
        samples.append(Sample(tokenizer.encode(text), _pixels(case, p, size), "right", truth))
    what = "of training's split" if split == procedural.Split.TRAIN else "that no training saw (held-out split"
    return samples, f"drawn scenes {what}{', ' if 'no' in what else ' ('}seed {seed})"


def calibration_frames(preprocess: PreprocessSpec, size: int) -> list[FloatArray]:
    """Drawn pictures as a model with these cameras and picture size sees them, of training's split."""
    return [_pixels(case, preprocess, size) for case in _episodes(procedural.Split.TRAIN, SEED, CALIBRATION_FRAMES)]


def _episodes(split: procedural.Split, seed: int, count: int) -> list[evaluate_nano.Episode]:
    scenes = evaluate_nano.scenes_with(evaluate_nano.MAIN, split, seed)
    return [evaluate_nano.episode(evaluate_nano.MAIN, scene, tasks, target=i % 3)
            for i, (scene, tasks) in zip(range(count), scenes, strict=False)]


def _pixels(case: evaluate_nano.Episode, p: PreprocessSpec, size: int) -> FloatArray:
    seen = case.observation
    return normalize(motion_frame(seen.image_rgb, seen.intrinsics_px, camera=p.camera, size=size,
                                  default_raw_camera=p.default_raw_camera))
