"""The numpy reading of the networks against the recorded official outputs, and bundles against it."""

from pathlib import Path

import numpy as np
import pytest
import tiny_bundle

from beingh0_edge.quantize import build_bundle, compare, reference
from beingh0_edge.quantize.checkpoint import Checkpoint

DATA = Path(__file__).parents[1] / "golden" / "data" / "vla"
GOLDEN = np.load(DATA / "golden.npz")
ATOL = 2e-5  # float32 in another summation order


def test_the_reference_gives_the_recorded_outputs() -> None:
    checkpoint = Checkpoint(DATA / "checkpoint")
    pixels, ids = GOLDEN["pixel_values"][0], GOLDEN["fwd_input_ids"][0]
    visual = reference.visual_embeddings(checkpoint, pixels)
    np.testing.assert_allclose(visual, GOLDEN["vit_embeds"][0], atol=ATOL, rtol=ATOL)
    states = reference.hidden_states(checkpoint, ids, visual, image_token=123)
    np.testing.assert_allclose(states, GOLDEN["fwd_last_hidden"][0], atol=ATOL, rtol=ATOL)
    scores = reference.logits(checkpoint, states, np.arange(208, dtype=np.int32))
    np.testing.assert_allclose(scores, GOLDEN["fwd_logits"][0], atol=1e-4, rtol=0)


def test_an_exact_bundle_compares_equal_and_a_coarse_one_does_not(tiny_checkpoint: Path, tmp_path: Path) -> None:
    exact = compare(tiny_checkpoint, build_bundle(tiny_checkpoint, tmp_path / "exact", quant="F32", vision="fp32"),
                    threads=1)
    assert exact.logits_max_abs < 1e-4
    assert exact.vision_max_abs < 1e-4
    assert exact.agreement == 1
    assert exact.kl < 1e-8
    coarse = compare(tiny_checkpoint, build_bundle(tiny_checkpoint, tmp_path / "coarse", quant="Q4_0"), threads=1)
    assert coarse.kl > 100 * exact.kl
    assert coarse.agreement < 1
    assert 0.9 < coarse.logits_cosine < 0.9999


def test_another_models_bundle_is_exposed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    other = tiny_bundle.make_checkpoint(tmp_path / "other", seed=1)
    comparison = compare(tiny_checkpoint, build_bundle(other, tmp_path / "bundle"), threads=1)
    assert abs(comparison.logits_cosine) < 0.5
    assert abs(comparison.vision_cosine) < 0.5


def test_given_frames_are_used_and_progress_is_told(tiny_checkpoint: Path, tmp_path: Path) -> None:
    bundle = build_bundle(tiny_checkpoint, tmp_path / "bundle", quant="F32", vision="fp32")
    steps: list[tuple[int, int, str]] = []
    frames = [np.zeros((3, 56, 56), np.float32)] * 3
    comparison = compare(tiny_checkpoint, bundle, frames=frames, threads=1,
                         progress=lambda *step: steps.append(step))
    assert comparison.samples == 3
    assert steps == [(i, 3, "comparing") for i in (1, 2, 3)]


@pytest.mark.parametrize("value", [-6.0, -1.0, -0.1, 0.0, 0.3, 2.0, 8.0])
def test_gelu_is_the_exact_one(value: float) -> None:
    from math import erf, sqrt

    expected = 0.5 * value * (1 + erf(value / sqrt(2)))
    assert abs(float(reference.gelu(np.array([value], np.float32))[0]) - expected) < 1e-6
