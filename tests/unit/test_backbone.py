"""The language model and vision tower behind one bundle: choices, limits and errors. Numbers are in the
goldens.
"""

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from beingh0_edge import Bundle
from beingh0_edge.backbone import Backbone, Chooser, Sampling
from beingh0_edge.backbone_gguf import LlamaEngine, _signals_after, usable_threads
from beingh0_edge.errors import BackendError, BundleError, TokenError
from beingh0_edge.tokens import SlotRules


@pytest.fixture(scope="module")
def backbone(tiny: Bundle) -> Iterator[Backbone]:
    loaded = Backbone(tiny, threads=1)
    yield loaded
    loaded.close()


def test_a_signal_during_a_call_into_llama_cpp_is_not_lost() -> None:
    passed = []

    def load() -> None:
        with _signals_after():
            signal.raise_signal(signal.SIGINT)  # in a log callback of llama.cpp it would be printed and forgotten
            passed.append("the call")

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    try:
        with pytest.raises(KeyboardInterrupt):
            load()
        assert passed == ["the call"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def prompt_of(backbone: Backbone, length: int = 12) -> np.ndarray:
    """Any text with the visual places in it."""
    ids = np.arange(3, 3 + length)
    ids[2 : 2 + backbone._image_tokens] = backbone._tokens.img_context
    return ids


def pixels_of(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, 56, 56)).astype(np.float32)


def test_slots_give_whole_blocks_whatever_the_weights_say(backbone: Backbone) -> None:
    layout = backbone.vocabulary.layout
    for seed, greedy in ((0, True), (1, False), (2, False)):
        ids = backbone.generate_ids(prompt_of(backbone), pixels_of(), max_blocks=3,
                                    sampling=Sampling(greedy, temperature=5.0, seed=seed))
        assert layout.blocks(ids, 3).shape == (3, layout.ids_per_block)
        assert (ids[0], ids[-1]) == (layout.mot, layout.eos)


def test_greedy_and_seeded_answers_repeat(backbone: Backbone) -> None:
    def ids(**options: object) -> np.ndarray:
        return backbone.generate_ids(prompt_of(backbone), pixels_of(), sampling=Sampling(**options))  # type: ignore

    np.testing.assert_array_equal(ids(greedy=True), ids(greedy=True, seed=5))
    np.testing.assert_array_equal(ids(greedy=False, seed=5), ids(greedy=False, seed=5))
    assert (ids(greedy=False, seed=5) != ids(greedy=False, seed=6)).any()


def test_streamed_ids_are_the_argmax_of_the_full_logits(backbone: Backbone) -> None:
    """Prefill, forced tokens and single steps together see the same sequence as one long prompt."""
    layout, vocabulary = backbone.vocabulary.layout, backbone.vocabulary
    prompt = prompt_of(backbone)
    ids = backbone.generate_ids(prompt, pixels_of(), max_blocks=2)
    logits = backbone.logits(np.concatenate([prompt, ids]), pixels_of())
    for i, slot in enumerate(layout.slots):
        first, last = vocabulary.motion_0 + slot.first, vocabulary.motion_0 + slot.last
        chosen = vocabulary.row(int(ids[1 + i]))
        scores = logits[len(prompt) + i, first : last + 1]
        # The table has half precision, the model's own rows 8 bits: near ties may go either way.
        assert scores.max() - scores[chosen - first] < 0.05


def test_a_long_prompt_is_read_in_pieces_with_the_same_result(backbone: Backbone) -> None:
    embeddings = np.random.default_rng(0).normal(size=(700, 64)).astype(np.float32)
    whole = backbone.engine.logits(embeddings)
    assert whole.shape == (700, backbone.vocabulary.size)
    np.testing.assert_allclose(backbone.engine.prefill(embeddings), whole[-1], atol=1e-5, rtol=0)
    np.testing.assert_allclose(backbone.engine.logits(embeddings[:600])[-1], whole[599], atol=1e-5, rtol=0)


def test_hidden_states_and_logits_take_turns(backbone: Backbone) -> None:
    embeddings = backbone.prompt(prompt_of(backbone), pixels_of())
    before = backbone.engine.logits(embeddings)
    assert backbone.hidden(embeddings).shape == (12, 64)
    np.testing.assert_array_equal(backbone.engine.logits(embeddings), before)


def test_a_new_request_ends_the_one_before(backbone: Backbone) -> None:
    embeddings = backbone.prompt(prompt_of(backbone), pixels_of())
    first = backbone.generate(embeddings, SlotRules(backbone.vocabulary, 1), Sampling())
    for _ in range(5):
        next(first)
    backbone.logits(prompt_of(backbone), pixels_of())
    with pytest.raises(BackendError, match="another request"):
        list(first)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "input_ids: expected int"),
        ([[1, 2], [3, 4]], r"\[2, 2\]"),
        ([1.5], "float64"),
        ([-1], "got -1 to -1"),
        ([10**6], "expected 0 to"),
        ([1, 2], "0 <IMG_CONTEXT> places for 4 embeddings"),
    ],
)
def test_prompts_that_cannot_be_are_refused(backbone: Backbone, ids: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        backbone.logits(ids, pixels_of())


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((3, 55, 56), np.float32),
        np.zeros((56, 56, 3), np.float32),
        np.full((3, 56, 56), np.nan, np.float32),
        np.zeros((0, 3, 56, 56), np.float32),
    ],
)
def test_pixels_that_cannot_be_are_refused(backbone: Backbone, pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="pixel_values"):
        backbone.logits(prompt_of(backbone), pixels)


def test_blocks_and_rules_are_checked(backbone: Backbone) -> None:
    for blocks in (0, -1, True):
        with pytest.raises(ValueError, match="max_blocks"):
            backbone.generate_ids(prompt_of(backbone), pixels_of(), max_blocks=blocks)
    with pytest.raises(ValueError, match="'official' or 'slots', got 'free'"):
        backbone.generate_ids(prompt_of(backbone), pixels_of(), rules="free")


def test_more_than_the_context_is_refused_before_it_runs(tiny: Bundle) -> None:
    small = Backbone(tiny, threads=1, context=64)
    with pytest.raises(ValueError, match="context of 64 tokens"):
        small.generate_ids(prompt_of(small), pixels_of())
    with pytest.raises(ValueError, match="context of 64 tokens"):
        small.engine.prefill(np.zeros((65, 64), np.float32))
    small.close()


def test_a_closed_model_says_so_and_closes_twice(tiny: Bundle) -> None:
    closed = Backbone(tiny, threads=1)
    closed.close()
    closed.close()
    with pytest.raises(BackendError, match="closed"):
        closed.logits(prompt_of(closed), pixels_of())


def test_llama_refuses_a_truncated_file_by_name(tiny: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "language.gguf"
    data = (tiny.root / "language.gguf").read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(BundleError, match=r"language\.gguf: llama\.cpp refuses it: .*not within the file bounds"):
        LlamaEngine(path, tiny.manifest.language, threads=1)


def test_a_vision_model_of_another_size_is_refused(tiny: Bundle, tmp_path: Path) -> None:
    from dataclasses import replace

    from beingh0_edge.vision_onnx import VisionTower

    spec = replace(tiny.manifest.vision, image_size=84)
    with pytest.raises(BundleError, match=r"expected inputs and outputs .*84"):
        VisionTower(tiny.root / "vision.onnx", spec, 64, threads=1)
    broken = Path(shutil.copy(tiny.root / "tokenizer.json", tmp_path / "vision.onnx"))
    with pytest.raises(BundleError, match=r"vision\.onnx: ONNX Runtime refuses it"):
        VisionTower(broken, tiny.manifest.vision, 64, threads=1)


def test_one_core_stays_free_by_default() -> None:
    import os

    assert usable_threads(None) == max(1, len(os.sched_getaffinity(0)) - 1)
    with pytest.raises(ValueError, match="threads"):
        LlamaEngine(Path("x"), None, threads=0)  # type: ignore[arg-type]
    for wrong in (0, -1, 1.5, "2", True):
        with pytest.raises(ValueError, match=f"threads: expected a whole number from 1 on, got {wrong!r}"):
            usable_threads(wrong)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------- sampling


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"temperature": float("nan")}, {"top_k": 0}, {"top_k": 1.5},
                                     {"temperature": "hot"}, {"seed": -1}, {"seed": "x"}, {"seed": 1.5},
                                     {"top_p": 0.0}, {"top_p": 1.1}])
def test_impossible_sampling_settings_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Sampling(greedy=False, **options)  # type: ignore[arg-type]


def draws(sampling: Sampling, logits: np.ndarray, allowed: object, count: int = 4000) -> np.ndarray:
    chooser = Chooser(sampling)
    return np.bincount([chooser.choose(logits, allowed) for _ in range(count)], minlength=len(logits)) / count


def test_samples_follow_the_softmax_of_the_allowed_rows() -> None:
    logits = np.array([5, 1, 2, 0.5, 9], np.float32)
    frequency = draws(Sampling(False, temperature=2.0, seed=0), logits, slice(1, 4))
    expected = np.exp(logits[1:4] / 2) / np.exp(logits[1:4] / 2).sum()
    assert frequency[[0, 4]].sum() == 0
    np.testing.assert_allclose(frequency[1:4], expected, atol=0.03)  # four standard errors of 4000 draws


def test_top_k_and_top_p_cut_the_tail() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    everything = np.ones(4, bool)
    assert (draws(Sampling(False, top_k=2, seed=0), logits, everything) > 0).tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert (draws(Sampling(False, top_p=0.7, seed=0), logits, everything) > 0).tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert (draws(Sampling(False, top_p=0.4, seed=0), logits, everything) > 0).tolist() == [
        True,
        False,
        False,
        False,
    ]


def test_logits_that_are_not_finite_stop_everything() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(BackendError, match="not finite"):
            Chooser(Sampling()).choose(np.array([0, bad, 1], np.float32), slice(0, 3))
    with pytest.raises(TokenError, match="allow no token"):
        Chooser(Sampling()).choose(np.zeros(3, np.float32), np.zeros(3, bool))
