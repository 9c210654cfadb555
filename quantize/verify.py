"""Compares a bundle with the checkpoint it was made from, part by part, against float32 numpy.

Samples are frames and instructions given by the caller, or random ones; the language model is compared
teacher-forced over a random but well-formed answer, so every slot of a block is visited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from beingh0_edge.backbone import Backbone
from beingh0_edge.bundle import Bundle
from beingh0_edge.prompt import TextTokenizer, motion_prompt
from beingh0_edge.tokens import Slot
from beingh0_edge.types import FloatArray, IntArray

from . import reference
from .checkpoint import Checkpoint, Progress

INSTRUCTIONS = ("pick up the red can", "push the blue box to the left", "put the bottle on the plate")


@dataclass(frozen=True)
class Comparison:
    """Errors over all samples. `agreement`: share of motion slots where the likeliest id is the same; kl
    in nats.
    """

    samples: int
    vision_max_abs: float
    vision_cosine: float
    logits_max_abs: float
    logits_cosine: float
    agreement: float
    kl: float


def compare(checkpoint_dir: str | Path, bundle: Bundle, *, samples: int = 2, seed: int = 0,
            frames: Sequence[FloatArray] | None = None, threads: int | None = None,
            progress: Progress | None = None) -> Comparison:
    """frames: normalised pictures float32[3, S, S] to use instead of noise, one per sample."""
    checkpoint, backbone = Checkpoint(Path(checkpoint_dir)), Backbone(bundle, threads=threads)
    layout, vocabulary = bundle.manifest.layout(), backbone.vocabulary
    size, random = bundle.manifest.vision.image_size, np.random.default_rng(seed)
    image_token = bundle.manifest.tokens.img_context
    vision: list[tuple[FloatArray, FloatArray]] = []
    scores: list[tuple[FloatArray, FloatArray]] = []
    for i in range(len(frames) if frames is not None else samples):
        pixels = frames[i] if frames is not None else random.normal(size=(3, size, size)).astype(np.float32)
        prompt = _prompt(bundle, INSTRUCTIONS[i % len(INSTRUCTIONS)], random)
        answer = [layout.motion_id_0 + int(random.integers(s.first, s.last + 1)) for s in layout.slots]
        ids = np.concatenate([prompt, [layout.mot], answer]).astype(np.int32)
        exact = reference.visual_embeddings(checkpoint, pixels)
        vision.append((exact, backbone.vision.embed(pixels)))
        states = reference.hidden_states(checkpoint, ids, exact, image_token)
        after = slice(len(prompt), len(prompt) + len(layout.slots))
        scores.append((reference.logits(checkpoint, states, vocabulary.ids())[after],
                       backbone.logits(ids, pixels)[after]))
        if progress:
            progress(i + 1, len(frames) if frames is not None else samples, "comparing")
    backbone.close()
    same, kl = _slot_errors(scores, layout.slots, vocabulary.motion_0)
    return Comparison(len(vision), _max_abs(vision), _cosine(vision), _max_abs(scores), _cosine(scores), same, kl)


def _prompt(bundle: Bundle, instruction: str, random: np.random.Generator) -> IntArray:
    m = bundle.manifest
    if m.tokenizer is None:  # a bundle of ids: any text with the visual places in it
        ids = random.integers(0, min(m.tokens.mot, m.tokens.img_context), 16 + m.vision.tokens).astype(np.int32)
        ids[8 : 8 + m.vision.tokens] = m.tokens.img_context
        return ids
    text = motion_prompt(instruction, 1, "right", template=m.template, image_tokens=m.vision.tokens)
    return TextTokenizer(bundle.path(m.tokenizer)).encode(text)


def _slot_errors(scores: list[tuple[FloatArray, FloatArray]], slots: Sequence[Slot],
                 first: int) -> tuple[float, float]:
    """(agreement, mean KL divergence) within each slot's range."""
    same, kl = [], []
    for exact, got in scores:
        for i, slot in enumerate(slots):
            window = slice(first + slot.first, first + slot.last + 1)
            p, q = (_log_softmax(values[i, window].astype(np.float64)) for values in (exact, got))
            same.append(p.argmax() == q.argmax())
            kl.append((np.exp(p) * (p - q)).sum())
    return float(np.mean(same)), float(np.mean(kl))


def _log_softmax(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = x - x.max()
    out: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return out


def _max_abs(pairs: list[tuple[FloatArray, FloatArray]]) -> float:
    return float(max(np.abs(a - b).max() for a, b in pairs))


def _cosine(pairs: list[tuple[FloatArray, FloatArray]]) -> float:
    a, b = (np.concatenate([pair[i].ravel() for pair in pairs]).astype(np.float64) for i in (0, 1))
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
