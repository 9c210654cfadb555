"""What makes a low-bit language model better: importance of its columns, and tensors that deserve more bits.

Both are measured, on questions with the original's own greedy answers. A tensor group deserves more bits if they lower
the divergence from the original along these answers (the figure `KL` of the report) most per byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatch
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from beingh0_edge.backbone_gguf import LlamaEngine
from beingh0_edge.bundle import Bundle, LanguageSpec
from beingh0_edge.policy import Policy
from beingh0_edge.tokens import Slot, Vocabulary
from beingh0_edge.types import FloatArray, IntArray

from .checkpoint import Checkpoint, Progress
from .importance import Importance, measure_importance
from .measure import Sample, slot_errors
from .quant_types import SEARCHED, row_bytes, tensor_type
from .write_gguf import Encoder, language_spec, write_gguf

DEFAULT_BUDGET = 0.25
_KINDS = ("attn_output", "attn_v", "attn_k", "attn_q", "ffn_down", "ffn_gate", "ffn_up")


@dataclass(frozen=True)
class Trial:
    """One choice of overrides: bytes read per id (the head and all layers), and the divergence it leaves, nats."""

    overrides: dict[str, str]
    bytes: int
    kl: float


@dataclass(frozen=True, eq=False)
class Tuned:
    """importance for the quantizer, overrides as build_bundle takes them, and what was tried on the way."""

    importance: Importance
    overrides: dict[str, str] = field(default_factory=dict)
    trials: tuple[Trial, ...] = ()

    def provenance(self) -> dict[str, Any]:
        facts: dict[str, Any] = {"importance": f"{self.importance.source}, {self.importance.sequences} questions"}
        return facts | ({"search": [asdict(trial) for trial in self.trials]} if self.trials else {})


@dataclass(frozen=True, eq=False)
class _Question:
    """A question with the original's answer: ids, pixels, the embedded whole, and the scores that count."""

    ids: IntArray
    pixels: FloatArray
    prompt: int
    embedded: FloatArray
    scores: FloatArray


def tune(checkpoint: Checkpoint, exact: Bundle, samples: Sequence[Sample], source: str, *, quant: str = "Q8_0",
         budget: float = DEFAULT_BUDGET, threads: int | None = None, progress: Progress | None = None) -> Tuned:
    """Measures importance, and for a quant of `SEARCHED` also searches overrides.

    exact   an F32 bundle of the checkpoint, trimmed layout: it answers the questions
    budget  how many more bytes than without overrides, as a share
    """
    if budget < 0:
        raise ValueError(f"budget: expected at least 0, got {budget}")
    policy = Policy.load(exact, threads=threads)
    try:
        questions = [_answered(policy, sample) for sample in samples]
        layout = exact.manifest.layout()
    finally:
        policy.close()
    importance = measure_importance(checkpoint, [(q.ids, q.pixels) for q in questions],
                                    exact.manifest.tokens.img_context, [q.prompt - 1 for q in questions], source,
                                    progress)
    if quant not in SEARCHED:
        return Tuned(importance)
    with TemporaryDirectory(prefix=".beingh0-", suffix=".search", dir=exact.root.parent) as scratch:
        search = _Search(checkpoint, Vocabulary(layout), quant, questions, layout.slots, importance.weights(),
                         Path(scratch), threads)
        best, trials = search.run(budget, progress)
    return Tuned(importance, best.overrides, tuple(trials))


def _answered(policy: Policy, sample: Sample) -> _Question:
    backbone, layout = policy.backbone, policy.bundle.manifest.layout()
    ids, prompt = sample.input_ids, len(sample.input_ids)
    if layout.slots:
        answer = backbone.generate_ids(ids, sample.pixels, max_blocks=1, rules="slots")
        ids = np.concatenate([ids, answer[: 1 + len(layout.slots)]]).astype(np.int32)
    embedded = backbone.prompt(ids, sample.pixels)
    scores = _counted(backbone.engine.logits(embedded), prompt, layout.slots)
    return _Question(ids, sample.pixels, prompt, embedded, scores)


def _counted(logits: FloatArray, prompt: int, slots: Sequence[Slot]) -> FloatArray:
    """The rows whose next id is a choice: all slots of the answer, or without motion the whole prompt."""
    return logits[prompt : prompt + len(slots)].copy() if slots else logits


class _Search:
    def __init__(self, checkpoint: Checkpoint, vocabulary: Vocabulary, quant: str, questions: Sequence[_Question],
                 slots: Sequence[Slot], importance: Mapping[str, FloatArray], scratch: Path,
                 threads: int | None) -> None:
        self._checkpoint, self._vocabulary, self._quant = checkpoint, vocabulary, quant
        self._questions, self._slots, self._scratch, self._threads = questions, slots, scratch, threads
        self._encoder = _KeptEncoder(checkpoint, vocabulary, importance, scratch)
        self._spec: LanguageSpec = language_spec(checkpoint, "trial.gguf", vocabulary, quant)

    def run(self, budget: float, progress: Progress | None) -> tuple[Trial, list[Trial]]:
        groups = self._groups()
        base = self._try({})
        trials, ranked = [base], []
        for i, group in enumerate(groups):
            trial = self._try(group)
            trials.append(trial)
            if trial.kl < base.kl:
                ranked.append(((base.kl - trial.kl) / (trial.bytes - base.bytes), group))
            if progress:
                progress(i + 1, 2 * len(groups), "searching groups that deserve more bits")
        best = base
        for i, (_, group) in enumerate(sorted(ranked, key=lambda pair: -pair[0])):
            wanted = best.overrides | group
            if self._bytes(wanted) > (1 + budget) * base.bytes or self._bytes(wanted) == best.bytes:
                continue
            trial = self._try(wanted)
            trials.append(trial)
            if trial.kl < best.kl:
                best = trial
            if progress:
                progress(len(groups) + i + 1, 2 * len(groups), "searching their combination")
        return best, trials

    def _groups(self) -> list[dict[str, str]]:
        """Overrides to try one by one: the head, every kind of matrix, the first and the last layer."""
        head = "token_embd.weight" if self._checkpoint.tied else "output.weight"
        last = self._checkpoint.config.language.layers - 1
        patterns = [head, *(f"blk.*.{kind}.weight" for kind in _KINDS), "blk.0.*.weight", f"blk.{last}.*.weight"]
        groups = [{pattern: self._better(pattern)} for pattern in dict.fromkeys(patterns)]
        return [group for group in groups if self._bytes(group) > self._bytes({})]

    def _better(self, pattern: str) -> str:
        """Q6_K where the rows allow it, else Q8_0."""
        widths = [shape[-1] for name, shape in self._spec.tensor_shapes().items()
                  if len(shape) == 2 and fnmatch(name, pattern)]
        return "Q6_K" if all(width % 256 == 0 for width in widths) else "Q8_0"

    def _bytes(self, overrides: Mapping[str, str]) -> int:
        total = 0
        for name, shape in self._spec.tensor_shapes().items():
            if name != "token_embd.weight" or self._checkpoint.tied:
                kind = tensor_type(name, shape, self._quant, self._spec.layers, overrides)
                total += prod(shape[:-1]) * row_bytes(kind, shape[-1])
        return total

    def _try(self, overrides: dict[str, str]) -> Trial:
        path = self._scratch / self._spec.file
        spec = write_gguf(self._checkpoint, path, self._vocabulary, self._quant, overrides=overrides,
                          encoder=self._encoder)
        engine, kl = LlamaEngine(path, spec, threads=self._threads), []
        try:
            for q in self._questions:
                got = _counted(engine.logits(q.embedded), q.prompt, self._slots)
                kl += self._divergences(q.scores, got)
        finally:
            engine.close()
        return Trial(overrides, self._bytes(overrides), float(np.mean(kl)))

    def _divergences(self, exact: FloatArray, got: FloatArray) -> list[float]:
        if self._slots:
            return slot_errors(exact, got, self._slots, self._vocabulary.motion_0)[1]
        everything = [Slot("", 0, 0, 0, 0, exact.shape[1] - 1)] * len(exact)
        return slot_errors(exact, got, everything, 0)[1]


class _KeptEncoder(Encoder):
    """Keeps what it encoded as files: trials differ in a few tensors only."""

    def __init__(self, checkpoint: Checkpoint, vocabulary: Vocabulary, importance: Mapping[str, FloatArray],
                 folder: Path) -> None:
        super().__init__(checkpoint, vocabulary, importance)
        self._folder = folder

    def __call__(self, name: str, shape: tuple[int, ...], kind: str) -> npt.NDArray[np.uint8]:
        path = self._folder / f"{name}.{kind}.npy"
        if not path.is_file():
            np.save(path, super().__call__(name, shape, kind))
        kept: npt.NDArray[np.uint8] = np.load(path)
        return kept
