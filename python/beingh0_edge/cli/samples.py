"""Questions that bundles are measured with: drawn scenes where text can be read, else random ids."""

from __future__ import annotations

import numpy as np

from ..bundle import Bundle
from ..preprocess import motion_frame, normalize
from ..prompt import TextTokenizer, motion_prompt
from ..quantize.measure import Sample
from ..quantize.verify import random_samples
from ..train import evaluate_nano, procedural

SEED = 3  # neither training (0), the evaluation (1) nor the demo (2)


def samples_for(bundle: Bundle, count: int) -> tuple[list[Sample], str]:
    """(questions, what they are). The true motion is known to models of the drawn world, told by their camera."""
    m = bundle.manifest
    if m.tokenizer is None:
        return random_samples(bundle, count), "noise and random ids, as the bundle has no text tokenizer"
    tokenizer, p = TextTokenizer(bundle.path(m.tokenizer)), m.preprocess
    known = (p.camera == procedural.CANONICAL_CAMERA and m.motion is not None
             and m.motion.frames == evaluate_nano.FRAMES)
    samples = []
    row = evaluate_nano.MAIN
    scenes = evaluate_nano.scenes_with(row, procedural.Split.HELD_OUT, SEED)
    for i, (scene, tasks) in zip(range(count), scenes, strict=False):
        case = evaluate_nano.episode(row, scene, tasks, target=i % 3)
        seen = case.observation
        frame = motion_frame(seen.image_rgb, seen.intrinsics_px, camera=p.camera, size=m.vision.image_size,
                             default_raw_camera=p.default_raw_camera)
        text = motion_prompt(seen.instruction, 1, row.hands, template=m.template, image_tokens=m.vision.tokens)
        truth = case.true_joints_m[0].astype(np.float32) if known else None
        samples.append(Sample(tokenizer.encode(text), normalize(frame), "right", truth))
    return samples, f"drawn scenes that no training saw (held-out split, seed {SEED})"
