"""Compares a bundle with the checkpoint it was made from, quickly: vision and logits against float32 numpy.

Samples are frames given by the caller, or noise; the language model is compared teacher-forced over a random but
well-formed answer, so every slot of a block is visited. report.py measures more, on real pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from beingh0_edge.backbone import Backbone
from beingh0_edge.bundle import Bundle
from beingh0_edge.prompt import TextTokenizer, motion_prompt
from beingh0_edge.types import FloatArray, IntArray

from . import reference
from .checkpoint import Checkpoint, Progress
from .measure import Errors, Pairs, Sample, slot_errors

INSTRUCTIONS = ("pick up the red can", "push the blue box to the left", "put the bottle on the plate")


@dataclass(frozen=True)
class Comparison:
    """Errors over all samples. `agreement`: share of motion slots where the likeliest id is the same; kl
    in nats.
    """

    samples: int
    vision_max_abs: float
    vision_cosine: float | None
    logits_max_abs: float
    logits_cosine: float | None
    agreement: float
    kl: float


def compare(checkpoint_dir: str | Path, bundle: Bundle, *, samples: int = 2, seed: int = 0,
            frames: Sequence[FloatArray] | None = None, threads: int | None = None,
            progress: Progress | None = None) -> Comparison:
    """frames: normalised pictures float32[3, S, S] to use instead of noise, one per sample."""
    checkpoint, backbone = Checkpoint(Path(checkpoint_dir)), Backbone(bundle, threads=threads)
    layout, vocabulary = bundle.manifest.layout(), backbone.vocabulary
    random = np.random.default_rng(seed)
    image_token = bundle.manifest.tokens.img_context
    vision: Pairs = []
    scores: Pairs = []
    same: list[bool] = []
    kl: list[float] = []
    questions = random_samples(bundle, samples if frames is None else len(frames), seed)
    for i, question in enumerate(questions):
        pixels, prompt = frames[i] if frames is not None else question.pixels, question.input_ids
        answer = [layout.motion_id_0 + int(random.integers(s.first, s.last + 1)) for s in layout.slots]
        ids = np.concatenate([prompt, [layout.mot], answer]).astype(np.int32)
        exact = reference.visual_embeddings(checkpoint, pixels)
        vision.append((exact, backbone.vision.embed(pixels)))
        states = reference.hidden_states(checkpoint, ids, exact, image_token)
        after = slice(len(prompt), len(prompt) + len(layout.slots))
        scores.append((reference.logits(checkpoint, states, vocabulary.ids())[after],
                       backbone.logits(ids, pixels)[after]))
        of_slots = slot_errors(*scores[-1], layout.slots, vocabulary.motion_0)
        same += of_slots[0]
        kl += of_slots[1]
        if progress:
            progress(i + 1, len(questions), "comparing")
    backbone.close()
    seen, said = Errors.of(vision), Errors.of(scores)
    return Comparison(len(vision), seen.max_abs, seen.cosine, said.max_abs, said.cosine, float(np.mean(same)),
                      float(np.mean(kl)))


def random_samples(bundle: Bundle, count: int, seed: int = 0) -> list[Sample]:
    """Noise for pictures; instructions if the bundle reads text, else random ids around the visual places."""
    random, size = np.random.default_rng(seed), bundle.manifest.vision.image_size
    return [Sample(_prompt(bundle, INSTRUCTIONS[i % len(INSTRUCTIONS)], random),
                   random.normal(size=(3, size, size)).astype(np.float32)) for i in range(count)]


def _prompt(bundle: Bundle, instruction: str, random: np.random.Generator) -> IntArray:
    m = bundle.manifest
    if m.tokenizer is None:
        ids = random.integers(0, min(m.tokens.mot, m.tokens.img_context), 16 + m.vision.tokens).astype(np.int32)
        ids[8 : 8 + m.vision.tokens] = m.tokens.img_context
        return ids
    text = motion_prompt(instruction, 1, "right", template=m.template, image_tokens=m.vision.tokens)
    return TextTokenizer(bundle.path(m.tokenizer)).encode(text)
