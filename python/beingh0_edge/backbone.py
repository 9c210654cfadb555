"""Picture and prompt ids -> motion ids, or hidden states.

Prompts enter as embeddings (a table row per id, visual embeddings in the <IMG_CONTEXT> places), generated ids
as rows of the language model's own vocabulary. What may come next is decided by tokens.SlotRules or
tokens.OfficialRules.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .backbone_gguf import LlamaEngine, usable_threads
from .bundle import Bundle
from .errors import BackendError, TokenError
from .tokens import OfficialRules, Rules, SlotRules, Vocabulary
from .types import FloatArray, IntArray
from .vision_onnx import VisionTower

log = logging.getLogger(__name__)

OFFICIAL_MAX_NEW_TOKENS = 3096
_MOST_ROWS = 16
_WHOLE, _NUMBER = (int, np.integer), (int, float, np.integer, np.floating)
Ids = Sequence[int] | npt.NDArray[np.integer]


@dataclass(frozen=True)
class Sampling:
    """How a row is chosen among the allowed ones. Greedy ignores the rest; the published code samples with
    these.

    seed None draws another motion every time.
    """

    greedy: bool = True
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.temperature, _NUMBER) and 0 < self.temperature < np.inf):
            raise ValueError(f"temperature: expected a number above 0, got {self.temperature!r}")
        if not (isinstance(self.top_k, _WHOLE) and self.top_k >= 1):
            raise ValueError(f"top_k: expected a whole number from 1 on, got {self.top_k!r}")
        if not (isinstance(self.top_p, _NUMBER) and 0 < self.top_p <= 1):
            raise ValueError(f"top_p: expected a number in (0, 1], got {self.top_p!r}")
        if self.seed is not None and not (isinstance(self.seed, _WHOLE) and self.seed >= 0):
            raise ValueError(f"seed: expected a whole number from 0 on or None, got {self.seed!r}")

    def chooser(self) -> Chooser:
        return Chooser(self)


class Chooser:
    """The state of one request's sampling."""

    def __init__(self, sampling: Sampling) -> None:
        self._s = sampling
        self._random = np.random.default_rng(sampling.seed)

    def choose(self, logits: FloatArray, allowed: slice | npt.NDArray[np.bool_]) -> int:
        """The next row. Raises TokenError if none is allowed, BackendError if its logit is not finite."""
        if isinstance(allowed, slice):
            first, scores = allowed.start, logits[allowed]
        else:
            first, scores = 0, np.where(allowed, logits, np.float32(-np.inf))
        pick = int(scores.argmax())  # a NaN wins, and is caught below
        if not np.isfinite(scores[pick]):
            if scores[pick] == -np.inf:
                raise TokenError("the rules allow no token here")
            raise BackendError("the language model gave logits that are not finite", "llama.cpp")
        return int(first) + (pick if self._s.greedy else self._sample(scores))

    def _sample(self, scores: FloatArray) -> int:
        s = self._s
        scaled = scores.astype(np.float64) / s.temperature
        if s.top_k < len(scaled):
            scaled[scaled < np.partition(scaled, -s.top_k)[-s.top_k]] = -np.inf
        order = np.argsort(-scaled, kind="stable")
        weights = np.exp(scaled[order] - scaled[order[0]])
        sums = np.cumsum(weights / weights.sum())
        kept = int(np.searchsorted(sums, s.top_p)) + 1 if s.top_p < 1 else len(sums)
        draw = self._random.random() * sums[min(kept, len(sums)) - 1]
        return int(order[min(int(np.searchsorted(sums, draw, side="right")), len(sums) - 1)])


class Backbone:
    """A bundle's vision tower and language model. One request at a time."""

    def __init__(self, bundle: Bundle, *, threads: int | None = None, context: int | None = None) -> None:
        m = bundle.manifest
        started = time.monotonic()
        threads = usable_threads(threads)
        self._tokens = m.tokens
        self._layout = m.layout()
        self.vocabulary = Vocabulary(self._layout, m.language.rows if m.language.layout == "full" else None)
        self.vision = VisionTower(bundle.path(m.vision.file), m.vision, m.language.hidden, threads=threads)
        self.engine = LlamaEngine(bundle.path(m.language.file), m.language, threads=threads, context=context)
        self._table = np.load(bundle.path(m.embeddings.file), mmap_mode="r", allow_pickle=False)
        self._image_tokens = m.vision.tokens
        self._request: object | None = None
        log.info("loaded %s (%s, %s): %d layers of %d, %d threads, %.2f s", m.name, m.language.layout,
                 m.language.quant, m.language.layers, m.language.hidden, threads, time.monotonic() - started)

    def embed(self, input_ids: Ids, visual: FloatArray | None = None,
              proprio: FloatArray | None = None) -> FloatArray:
        """Prompt ids -> float32[T, hidden].

        visual   float32[N, hidden] for the N <IMG_CONTEXT> places
        proprio  float32[hidden] for the one <PROP_CONTEXT> place
        Raises   ValueError if ids are outside the vocabulary or the places do not match.
        """
        ids = np.asarray(input_ids)
        if ids.ndim == 2 and len(ids) == 1:
            ids = ids[0]
        if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer) or len(ids) == 0:
            raise ValueError(f"input_ids: expected int[T], got {ids.dtype}{list(ids.shape)}")
        if ids.min() < 0 or ids.max() >= len(self._table):
            raise ValueError(
                f"input_ids: expected 0 to {len(self._table) - 1}, got {ids.min()} to {ids.max()}"
            )
        out = np.asarray(self._table[ids], np.float32)
        self._fill(out, ids == self._tokens.img_context, visual, "<IMG_CONTEXT>")
        one = None if proprio is None else proprio[None]
        if self._tokens.prop_context is not None:
            self._fill(out, ids == self._tokens.prop_context, one, "<PROP_CONTEXT>")
        return out

    @staticmethod
    def _fill(out: FloatArray, places: npt.NDArray[np.bool_], values: FloatArray | None, token: str) -> None:
        got = 0 if values is None else len(values)
        if int(places.sum()) != got:
            raise ValueError(f"input_ids: {int(places.sum())} {token} places for {got} embeddings")
        if values is not None:
            out[places] = values

    def prompt(self, input_ids: Ids, pixel_values: FloatArray | None = None) -> FloatArray:
        """Prompt ids and normalised pixels -> float32[T, hidden]."""
        return self.embed(input_ids, None if pixel_values is None else self.vision.embed(pixel_values))

    def logits(self, input_ids: Ids, pixel_values: FloatArray | None = None) -> FloatArray:
        """float32[T, vocabulary of the layout]: the scores of the next token after every prompt token.

        Column c stands for the id vocabulary.ids()[c].
        """
        self._request = None
        return self.engine.logits(self.prompt(input_ids, pixel_values))

    def hidden(self, embeddings: FloatArray) -> FloatArray:
        """float32[T, hidden] of prompt embeddings: the states after the final norm."""
        self._request = None
        return self.engine.hidden(embeddings)

    def generate_ids(
        self,
        input_ids: Ids,
        pixel_values: FloatArray | None = None,
        max_blocks: int = 1,
        greedy: bool = True,
        rules: str = "slots",
        *,
        block_length: int | None = None,
        allow_non_motion: bool = True,
        max_new_tokens: int | None = None,
        sampling: Sampling | None = None,
    ) -> IntArray:
        """The generated vocabulary ids, from `<mot>` to the end token, int32[n].

        rules "slots"     exactly max_blocks whole blocks, every id from its slot's range
        rules "official"  the published masks: max_blocks blocks of at most `block_length` ids (default twice
        the ids
                          of a hand, as published), text inside blocks unless allow_non_motion is off; cut
                          after max_new_tokens (default 3096)
        sampling          overrides `greedy`
        """
        if isinstance(max_blocks, bool) or max_blocks < 1:
            raise ValueError(f"max_blocks: expected at least 1, got {max_blocks}")
        if rules == "slots":
            grammar: Rules = SlotRules(self.vocabulary, max_blocks)
        elif rules == "official":
            length = 2 * self._layout.ids_per_block if block_length is None else block_length
            grammar = OfficialRules(self.vocabulary, max_blocks=max_blocks, min_blocks=max_blocks,
                                    block_length=length, allow_non_motion=allow_non_motion)
            max_new_tokens = OFFICIAL_MAX_NEW_TOKENS if max_new_tokens is None else max_new_tokens
        else:
            raise ValueError(f"rules: expected 'official' or 'slots', got {rules!r}")
        steps = self.generate(
            self.prompt(input_ids, pixel_values), grammar, sampling or Sampling(greedy=greedy)
        )
        ids: list[int] = []
        for token in steps:
            ids.append(token)
            if max_new_tokens is not None and len(ids) >= max_new_tokens:
                break
        return np.asarray(ids, np.int32)

    def generate(self, embeddings: FloatArray, rules: Rules, sampling: Sampling) -> Iterator[int]:
        """Yields vocabulary ids until the rules are done. Another request on this backbone ends this one.

        Where the rules leave one token it is taken without asking the model, and enters together with the
        next.
        """
        if isinstance(rules, SlotRules) and (needed := len(embeddings) + rules.left) > self.engine.context:
            raise ValueError(f"the request needs {needed} tokens, more than the context of "
                             f"{self.engine.context} tokens")
        request = self._request = object()
        chooser, ids = sampling.chooser(), self.vocabulary.ids()
        forced = self._take_forced(rules)
        if forced:
            embeddings = np.concatenate([embeddings, self.embed(ids[forced])])
        logits = self.engine.prefill(embeddings)
        yield from (int(ids[row]) for row in forced)
        while not rules.done():
            row = chooser.choose(logits, rules.allowed())
            rules.push(row)
            pending = [row, *self._take_forced(rules)]
            yield from (int(ids[row]) for row in pending)
            if rules.done():
                return
            if self._request is not request:
                raise BackendError("another request started on this policy; finish one before the next")
            while len(pending) > _MOST_ROWS:
                self.engine.advance(pending[:_MOST_ROWS])
                pending = pending[_MOST_ROWS:]
            logits = self.engine.advance(pending)

    @staticmethod
    def _take_forced(rules: Rules) -> list[int]:
        rows: list[int] = []
        while not rules.done():
            allowed = rules.allowed()
            if not isinstance(allowed, slice) or allowed.stop - allowed.start != 1:
                break
            rules.push(allowed.start)
            rows.append(allowed.start)
        return rows

    def close(self) -> None:
        """Frees the language model."""
        self._request = None
        self.engine.close()
