"""Errors of hand motion against the recorded reference values, and their own laws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beingh0_edge.train.metrics import (
    mpjpe_mm,
    pa_mpjpe_mm,
    resampled_means,
    wilson_interval,
    wrist_relative_mpjpe_mm,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "data" / "metrics" / "golden.npz"
RECORDED_RTOL = 1e-6  # recorded in float32: half a unit in the last place of about 60 is 3e-8 of it
EXACT_MM = 1e-6  # float64 throughout; what is left is rounding
SHIFT_M = np.array([0.003, 0.004, 0])  # 5 mm


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.mark.parametrize(("metric", "recorded"), [
    (mpjpe_mm, "mpjpe_mm"),
    (wrist_relative_mpjpe_mm, "mpjpe_wrist_relative_mm"),
    (pa_mpjpe_mm, "pa_mpjpe_mm"),
])
def test_metrics_agree_with_the_recorded_reference(golden, metric, recorded):
    assert metric(golden["joints_pred"], golden["joints_gt"]) == pytest.approx(
        float(golden[recorded]), rel=RECORDED_RTOL)


def test_the_wrist_itself_is_left_out_of_the_wrist_relative_error(golden):
    # The per-frame record averages over all 21 joints, the wrist's zero included.
    per_frame = [wrist_relative_mpjpe_mm(p, t) * 20 / 21
                 for p, t in zip(golden["joints_pred"], golden["joints_gt"], strict=True)]
    assert per_frame == pytest.approx(golden["mpjpe_root_aligned_per_frame_units"] * 1000, rel=RECORDED_RTOL)


def _rotation(rng: np.random.Generator) -> np.ndarray:
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def test_procrustes_removes_any_rotation_scale_and_shift():
    rng = np.random.default_rng(1)
    true = rng.normal(size=(5, 21, 3)) * 0.1
    moved = 1.7 * true @ _rotation(rng).T + rng.normal(size=3)
    assert mpjpe_mm(moved, true) > 100
    assert pa_mpjpe_mm(moved, true) < EXACT_MM


def test_procrustes_does_not_mirror_a_left_hand_into_a_right_one():
    true = np.random.default_rng(2).normal(size=(5, 21, 3)) * 0.1
    assert pa_mpjpe_mm(true * [-1, 1, 1], true) > 10


def test_a_shift_counts_in_full_and_vanishes_relative_to_the_wrist():
    true = np.random.default_rng(3).normal(size=(4, 21, 3))
    assert mpjpe_mm(true + SHIFT_M, true) == pytest.approx(5)
    assert wrist_relative_mpjpe_mm(true + SHIFT_M, true) < EXACT_MM


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"got \[4, 21, 3\] and \[1, 21, 3\]"):
        mpjpe_mm(np.zeros((4, 21, 3)), np.zeros((1, 21, 3)))


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_rate_and_stays_between_0_and_1(counts):
    hits, trials = counts
    low, high = wilson_interval(hits, trials)
    assert 0 <= low <= hits / trials <= high <= 1


def test_the_interval_agrees_with_a_published_example():
    # Newcombe 1998, table I, method 3: 81 of 263 gives 0.2553 to 0.3662.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_no_trials_have_no_interval():
    with pytest.raises(ValueError, match="0 of 0"):
        wilson_interval(0, 0)


def test_the_bootstrap_agrees_with_the_normal_interval_of_a_mean():
    values = np.random.default_rng(4).normal(3, 2, (400, 1))
    means = resampled_means(values)
    assert means.shape == (5000, 1)
    low, high = np.percentile(means, [2.5, 97.5])
    half = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.1 * half)


def test_the_bootstrap_keeps_scenes_in_pairs():
    """A model that is off by 5 % more in every scene is so in every draw, however much the scenes differ."""
    before = np.random.default_rng(5).exponential(50, 30)
    means = resampled_means(np.stack([before, 1.05 * before], 1), resamples=100)
    np.testing.assert_allclose(means[:, 1] / means[:, 0], 1.05)


@pytest.mark.parametrize("values", [np.zeros((0, 2)), np.zeros(3), np.array([[1.0], [np.nan]])])
def test_the_bootstrap_needs_finite_scenes(values: np.ndarray):
    with pytest.raises(ValueError, match="expected finite values"):
        resampled_means(values)
