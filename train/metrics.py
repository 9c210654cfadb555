"""Errors of predicted hand motion, as the Being-H0 papers define them, and intervals for rates and means."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]


def _pair(predicted_m: Array, true_m: Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    predicted, true = np.asarray(predicted_m, np.float64), np.asarray(true_m, np.float64)
    if predicted.shape != true.shape or predicted.ndim < 2 or predicted.shape[-1] != 3 or not predicted.size:
        raise ValueError(f"joints: expected two arrays [..., J, 3] of one shape, got {list(predicted.shape)} "
                         f"and {list(true.shape)}")
    return predicted, true


def mpjpe_mm(predicted_m: Array, true_m: Array) -> float:
    """Mean distance of all joints, millimetres, from [..., J, 3] in metres of one frame of reference."""
    predicted, true = _pair(predicted_m, true_m)
    return float(np.linalg.norm(predicted - true, axis=-1).mean() * 1000)


def wrist_relative_mpjpe_mm(predicted_m: Array, true_m: Array) -> float:
    """The same after moving both wrists (joint 0) to the origin, over the other joints only."""
    predicted, true = _pair(predicted_m, true_m)
    return mpjpe_mm(predicted[..., 1:, :] - predicted[..., :1, :], true[..., 1:, :] - true[..., :1, :])


def pa_mpjpe_mm(predicted_m: Array, true_m: Array) -> float:
    """The same after the best rotation, scale and shift of every frame (Procrustes; no reflection)."""
    predicted, true = _pair(predicted_m, true_m)
    centre = true.mean(-2, keepdims=True)
    p, t = predicted - predicted.mean(-2, keepdims=True), true - centre
    u, singular, vt = np.linalg.svd(np.swapaxes(p, -1, -2) @ t)
    sign = np.ones_like(singular)
    sign[..., -1] = np.sign(np.linalg.det(u @ vt))
    spread = (p * p).sum((-1, -2))
    scale = (singular * sign).sum(-1) / np.where(spread > 0, spread, 1)
    aligned = scale[..., None, None] * (p @ (u * sign[..., None, :]) @ vt) + centre
    return mpjpe_mm(aligned, true)


def wilson_interval(hits: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % Wilson score interval of a rate (for z = 1.96). Raises ValueError for no trials."""
    if not 0 <= hits <= trials or trials < 1:
        raise ValueError(f"expected 0 <= hits <= trials and a trial, got {hits} of {trials}")
    rate, square = hits / trials, z * z / trials
    centre = (rate + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(rate * (1 - rate) / trials + square / (4 * trials))
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == trials else centre + half)


def resampled_means(values: Array, resamples: int = 5000, seed: int = 0) -> npt.NDArray[np.float64]:
    """Means over scenes drawn with replacement: float[scenes, K] -> float64[resamples, K] (the bootstrap).

    All columns see the same scenes, so figures of two models on one scene stay a pair. Percentiles 2.5 and 97.5 of
    whatever is computed from the rows are its 95 % interval. Raises ValueError for no scenes or values not finite.
    """
    columns = np.asarray(values, np.float64)
    if columns.ndim != 2 or not columns.size or not np.isfinite(columns).all():
        raise ValueError(f"expected finite values [scenes, K], got {list(columns.shape)}")
    random, scenes = np.random.default_rng(seed), len(columns)
    return np.stack([columns[random.integers(0, scenes, scenes)].mean(0) for _ in range(resamples)])
