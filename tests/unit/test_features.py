"""Motion features: every set and part, by name and never by width."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beingh0_edge import features, rotations

# Axis-angles below 2.9 rad through 6D and back in float32.
TOLERANCE = 2e-5


@dataclass(frozen=True)
class Part:
    feature: str
    name: str
    dims: int


def parts_of(feature: str, *names: str) -> list[Part]:
    return [Part(feature, name, features.part_dims(feature, name)) for name in names]


def motion(seed: int, frames: int = 7) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((frames, 16, 3))
    vectors *= rng.uniform(0, 2.9, (frames, 16, 1)) / np.linalg.norm(vectors, axis=-1, keepdims=True)
    rotation = rotations.axis_angle_to_matrix(vectors[:, 0])
    return rotation, rng.normal(0, 0.3, (frames, 3)).astype(np.float32), vectors[:, 1:].astype(np.float32)


@pytest.mark.parametrize(("feature", "wrist", "finger"), [
    ("mano36", 6, 30), ("mano51", 6, 45), ("mano99", 9, 90), ("mano100", 6, 90), ("mano109", 9, 100),
    ("mano114", 6, 105), ("mano162", 9, 150), ("mano172", 9, 160)])
def test_parts_have_their_published_widths(feature: str, wrist: int, finger: int) -> None:
    assert [p.dims for p in parts_of(feature, "wrist", "finger", "whole")] == [wrist, finger, int(feature[4:])]


@settings(max_examples=40)
@given(st.sampled_from(sorted(features.FEATURE_SETS)), st.sampled_from([("wrist", "finger"), ("finger", "wrist"),
                                                                        ("whole",)]), st.integers(0, 1000))
def test_splitting_undoes_merging(feature: str, names: tuple[str, ...], seed: int) -> None:
    parts = parts_of(feature, *names)
    kind = features.FEATURE_SETS[feature]
    rotation, trans, theta = motion(seed)
    if "mask" in kind.form:
        theta = np.where(features.THETA_MASK.reshape(15, 3), theta, 0)
    rng = np.random.default_rng(seed)
    joints = None
    if "joints" in features.columns(parts):
        joints = rng.normal(0, 0.1, (7, 21 if names == ("whole",) else 20, 3)).astype(np.float32)
    betas = rng.normal(0, 1, (7, 10)) if kind.betas else None
    merged = features.merge_features(rotation, trans, theta, parts, betas=betas, joints_m=joints)
    split = features.split_features(merged, parts)
    assert np.abs(split.rotation - rotation).max() < TOLERANCE
    assert np.array_equal(split.trans_m, trans)
    assert np.abs(split.theta_rad - theta).max() < TOLERANCE
    assert (split.joints_m is None) == (joints is None)
    if joints is not None and split.joints_m is not None:
        assert np.array_equal(split.joints_m, joints)
    if betas is not None:
        assert np.array_equal(merged[:, features.columns(parts)["betas"]], betas.astype(np.float32))


def test_two_parts_of_width_99_are_not_read_as_a_whole_mano99() -> None:
    rotation, trans, theta = motion(1)
    split_parts, whole = parts_of("mano99", "wrist", "finger"), parts_of("mano99", "whole")
    merged = features.merge_features(rotation, trans, theta, split_parts)
    assert np.array_equal(features.split_features(merged, split_parts).trans_m, trans)
    assert not np.allclose(features.split_features(merged, whole).trans_m, trans)


def test_masked_components_come_back_as_zero() -> None:
    assert features.THETA_MASK.sum() == 30
    parts = parts_of("mano36", "wrist", "finger")
    split = features.split_features(np.ones((2, 36), np.float32), parts)
    assert np.array_equal(split.theta_rad.reshape(2, 45)[0] == 1, features.THETA_MASK)


@pytest.mark.parametrize(("parts", "message"), [
    ([Part("mano162", "finger", 150)], "expected wrist and finger, or whole"),
    ([Part("mano162", "wrist", 9), Part("mano99", "finger", 90)], "of one feature set, got wrist of mano162"),
    ([Part("mano163", "whole", 163)], "feature set: expected one of mano36"),
    ([Part("mano162", "wrist", 9), Part("mano162", "finger", 149)],
     "finger part of mano162: expected 150 dims, got 149"),
    ([], "expected wrist and finger, or whole")])
def test_parts_that_make_no_hand_are_refused(parts: list[Part], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        features.columns(parts)


def test_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"features: expected float\[\.\.\., 159\], got float32\[3, 162\]"):
        features.split_features(np.zeros((3, 162), np.float32), parts_of("mano162", "wrist", "finger"))


def test_missing_and_superfluous_quantities_are_named() -> None:
    rotation, trans, theta = motion(2)
    with pytest.raises(ValueError, match="joints: mano162 needs it"):
        features.merge_features(rotation, trans, theta, parts_of("mano162", "wrist", "finger"))
    with pytest.raises(ValueError, match="betas: mano99 has none"):
        features.merge_features(rotation, trans, theta, parts_of("mano99", "whole"), betas=np.zeros((7, 10)))
    with pytest.raises(ValueError, match=r"trans: expected float\[7, 3\], got shape \[6, 3\]"):
        features.merge_features(rotation, trans[1:], theta, parts_of("mano99", "whole"))
