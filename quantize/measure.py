"""What a bundle computes, part by part, against its float32 original.

The original is the checkpoint in plain numpy (vision, text embeddings, logits), and for what takes a whole answer
(greedy ids, motion, robot actions) an exact bundle of it: F32 in llama.cpp with a float32 cache. Or another bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from beingh0_edge.bundle import Bundle
from beingh0_edge.policy import Policy
from beingh0_edge.prompt import TextTokenizer, robot_prompt
from beingh0_edge.tokens import Slot, Vocabulary
from beingh0_edge.types import FloatArray, IntArray, Side

from . import reference
from .checkpoint import EMBEDDING, Checkpoint, Progress

Pairs = list[tuple[FloatArray, FloatArray]]


@dataclass(frozen=True, eq=False)
class Sample:
    """A question: prompt ids int32[T], normalised pixels float32[3, S, S], and the one hand it asks for.

    true_joints_cam_m  float[frames, 21, 3], the right answer's keypoints, if there is one
    """

    input_ids: IntArray
    pixels: FloatArray
    side: Side = "right"
    true_joints_cam_m: npt.NDArray[np.floating] | None = None


@dataclass(frozen=True)
class Errors:
    """Of all values of one part over all samples; cosine is None where one side is all zero."""

    max_abs: float
    mean_abs: float
    cosine: float | None

    @classmethod
    def of(cls, pairs: Pairs) -> Errors:
        """pairs: (exact, got)"""
        a, b = (np.concatenate([pair[i].ravel() for pair in pairs]).astype(np.float64) for i in (0, 1))
        off, norm = np.abs(a - b), np.linalg.norm(a) * np.linalg.norm(b)
        return cls(float(off.max()), float(off.mean()), float(a @ b / norm) if norm else None)


@dataclass(frozen=True)
class Measured:
    """The figures of a report; None where the bundle has no such part or the samples no truth.

    agreement  share of motion slots where the likeliest id is the original's, along the original's greedy answer
    kl         mean divergence in these slots from the original's distribution, nats; kl_of_slots: per place of a block
    same_ids   share of greedy ids that are equal, place by place
    mpjpe_mm   mean distance of 21 joints between the motions of both greedy answers; mpjpe_worst_mm: worst sample
    true_mm    the same distance to the true motion: (original, bundle)
    apart_of_frames_mm  per sample and frame, the distance that mpjpe_mm is the mean of
    """

    samples: int
    parts: dict[str, Errors]
    agreement: float | None = None
    kl: float | None = None
    same_ids: float | None = None
    mpjpe_mm: float | None = None
    mpjpe_worst_mm: float | None = None
    true_mm: tuple[float, float] | None = None
    kl_of_slots: tuple[float, ...] = ()
    apart_of_frames_mm: tuple[tuple[float, ...], ...] = ()


@dataclass
class Original:
    """Where the exact values come from. Without a checkpoint, from the policy alone."""

    policy: Policy
    checkpoint: Checkpoint | None = None

    def visual(self, pixels: FloatArray) -> dict[str, FloatArray]:
        """Part -> values; the last one is what the language model reads."""
        if self.checkpoint is None:
            return {"vision and projector": self.policy.backbone.vision.embed(pixels)}
        tower = reference.tower(self.checkpoint, pixels)
        return {"vision tower": tower, "vision and projector": reference.projected(self.checkpoint, tower)}

    def text(self, ids: IntArray) -> FloatArray:
        if self.checkpoint is None:
            return self.policy.backbone.embed(ids)
        return np.stack([self.checkpoint.rows(EMBEDDING, int(i), int(i) + 1)[0] for i in ids])

    def scores(self, ids: IntArray, pixels: FloatArray, visual: FloatArray, wanted: IntArray) -> FloatArray:
        if self.checkpoint is None:
            return _columns(self.policy, ids, pixels, wanted)
        image = self.policy.bundle.manifest.tokens.img_context
        return reference.logits(self.checkpoint, reference.hidden_states(self.checkpoint, ids, visual, image), wanted)


@dataclass
class _Tally:
    parts: dict[str, Pairs] = field(default_factory=dict)
    same: list[bool] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    same_ids: list[float] = field(default_factory=list)
    apart: list[tuple[float, ...]] = field(default_factory=list)
    true: list[tuple[float, float]] = field(default_factory=list)

    def add(self, part: str, exact: FloatArray, got: FloatArray) -> None:
        self.parts.setdefault(part, []).append((exact, got))


def measure(original: Original, policy: Policy, samples: Sequence[Sample],
            progress: Progress | None = None) -> Measured:
    """Both must have the same ids and hands. Raises ValueError if the questions of one make no sense to the other."""
    if not samples:
        raise ValueError("samples: expected at least one")
    _check_comparable(original.policy, policy)
    tower = TowerProbe(policy.bundle) if original.checkpoint else None
    tally = _Tally()
    for i, sample in enumerate(samples):
        _one(original, policy, sample, tower, tally)
        if policy.robot is not None:
            _robot(original.policy, policy, sample, i, tally)
        if progress:
            progress(i + 1, len(samples), "measuring")

    def mean(values: Sequence[float]) -> float | None:
        return float(np.mean(values)) if values else None

    apart = [float(np.mean(frames)) for frames in tally.apart]
    true = np.mean(tally.true, axis=0) if tally.true else None
    slots = np.reshape(tally.kl, (len(samples), -1)).mean(axis=0) if tally.kl else ()
    return Measured(
        len(samples), {part: Errors.of(pairs) for part, pairs in tally.parts.items()}, mean(tally.same),
        mean(tally.kl), mean(tally.same_ids), mean(apart), max(apart, default=None),
        (float(true[0]), float(true[1])) if true is not None else None, tuple(map(float, slots)), tuple(tally.apart))


def _one(original: Original, policy: Policy, sample: Sample, tower: TowerProbe | None, tally: _Tally) -> None:
    layout, prompt, pixels = policy.bundle.manifest.layout(), sample.input_ids, sample.pixels
    exact = original.visual(pixels)
    visual = exact["vision and projector"]
    if tower is not None:
        tally.add("vision tower", exact["vision tower"], tower(pixels))
    tally.add("vision and projector", visual, policy.backbone.vision.embed(pixels))
    text = prompt[prompt != policy.bundle.manifest.tokens.img_context]
    tally.add("text embeddings", original.text(text), policy.backbone.embed(text))
    wanted = Vocabulary(layout).ids()
    if not layout.slots:
        scores = [scorer(prompt)[-1:] for scorer in _scorers(original, policy, pixels, visual, wanted)]
        tally.add("logits", *scores)
        return
    answers = [_greedy(one, sample) for one in (original.policy, policy)]
    ids = np.concatenate([prompt, [layout.mot], layout.motion_id_0 + answers[0]]).astype(np.int32)
    exact_scores, got = (scorer(ids)[len(prompt) : len(prompt) + len(layout.slots)]
                         for scorer in _scorers(original, policy, pixels, visual, wanted))
    tally.add("logits", exact_scores, got)
    same, kl = slot_errors(exact_scores, got, layout.slots, 1)  # column 0 is <mot>
    tally.same += same
    tally.kl += kl
    tally.same_ids.append(float((answers[0] == answers[1]).mean()))
    if original.policy.tokenizer is not None and policy.tokenizer is not None:
        tally.add("motion decoder", *(one.tokenizer.decode(answers[0]) for one in (original.policy, policy)
                                      if one.tokenizer is not None))
    whole = all(m.motion and m.motion.whole_hand() for m in (original.policy.bundle.manifest, policy.bundle.manifest))
    if whole and sample.side in original.policy.hands and sample.side in policy.hands:
        joints = [one.decode_block(ids, sample.side).keypoints_cam_m
                  for one, ids in zip((original.policy, policy), answers, strict=True)]
        tally.apart.append(tuple(map(float, _off_mm(*joints).mean(-1))))
        if sample.true_joints_cam_m is not None:
            truth = sample.true_joints_cam_m
            tally.true.append((_mpjpe_mm(joints[0], truth), _mpjpe_mm(joints[1], truth)))


def _scorers(original: Original, policy: Policy, pixels: FloatArray, visual: FloatArray,
             wanted: IntArray) -> tuple[Callable[[IntArray], FloatArray], Callable[[IntArray], FloatArray]]:
    return (lambda ids: original.scores(ids, pixels, visual, wanted),
            lambda ids: _columns(policy, ids, pixels, wanted))


def _columns(policy: Policy, ids: IntArray, pixels: FloatArray, wanted: IntArray) -> FloatArray:
    vocabulary = policy.backbone.vocabulary
    return policy.backbone.logits(ids, pixels)[:, [vocabulary.row(int(i)) for i in wanted]]


def _greedy(policy: Policy, sample: Sample) -> IntArray:
    """The N of the one block that the policy answers greedily."""
    ids = policy.backbone.generate_ids(sample.input_ids, sample.pixels, max_blocks=1, rules="slots")
    block: IntArray = policy.bundle.manifest.layout().blocks(ids, 1)[0]
    return block


def _robot(exact: Policy, policy: Policy, sample: Sample, seed: int, tally: _Tally) -> None:
    m = policy.bundle.manifest
    if m.robot is None or m.tokens.prop_context is None:
        return
    if m.tokenizer is not None:
        text = robot_prompt("pick up the red can", m.robot.chunk_length, m.vision.tokens)
        ids = TextTokenizer(policy.bundle.path(m.tokenizer)).encode(text)
    else:
        ids = np.array([*[m.tokens.img_context] * m.vision.tokens, m.tokens.prop_context, *m.tokens.action_chunks],
                       np.int32)
    proprio = np.random.default_rng(seed).normal(size=m.robot.proprio_dim).astype(np.float32)
    tally.add("robot actions", *(
        one.act_from_ids(ids, sample.pixels, proprio)
        for one in (exact, policy)))


def slot_errors(exact: FloatArray, got: FloatArray, slots: Sequence[Slot],
                first: int) -> tuple[list[bool], list[float]]:
    """Per slot: whether the likeliest id is the same, and the KL divergence, both within the slot's range.

    exact, got  float32[slots, columns]; column `first` is motion id 0
    """
    same, kl = [], []
    for i, slot in enumerate(slots):
        window = slice(first + slot.first, first + slot.last + 1)
        p, q = (_log_softmax(values[i, window].astype(np.float64)) for values in (exact, got))
        same.append(bool(p.argmax() == q.argmax()))
        kl.append(float((np.exp(p) * (p - q)).sum()))
    return same, kl


def _log_softmax(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = x - x.max()
    out: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return out


def _off_mm(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """float[frames, 21, 3] each, metres -> float64[frames, 21]"""
    off: npt.NDArray[np.float64] = np.linalg.norm(a.astype(np.float64) - b, axis=-1) * 1000
    return off


def _mpjpe_mm(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> float:
    return float(_off_mm(a, b).mean())


def _check_comparable(a: Policy, b: Policy) -> None:
    m, n = a.bundle.manifest, b.bundle.manifest
    facts = {"token ids": (m.layout(), n.layout()), "image tokens": (m.vision.tokens, n.vision.tokens),
             "image size": (m.vision.image_size, n.vision.image_size), "camera": (m.preprocess, n.preprocess),
             "hidden size": (m.language.hidden, n.language.hidden), "robot mode": (m.robot, n.robot)}
    for what, (one, other) in facts.items():
        if one != other:
            raise ValueError(f"{a.bundle.root} and {b.bundle.root} are no versions of one model: "
                             f"{what} {one} and {other}")


class TowerProbe:
    """The vision tower's own output, before pixel shuffle and projector."""

    def __init__(self, bundle: Bundle) -> None:
        import onnx
        import onnxruntime

        model = onnx.load(str(bundle.path(bundle.manifest.vision.file)))
        model.graph.output.append(onnx.helper.make_tensor_value_info("tower_output", onnx.TensorProto.FLOAT, None))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                                     providers=["CPUExecutionProvider"])

    def __call__(self, pixels: FloatArray) -> FloatArray:
        """float32[3, S, S] -> float32[1 + patches, vision hidden]"""
        out: FloatArray = self._session.run(["tower_output"], {"pixel_values": pixels[None]})[0][0]
        return out
