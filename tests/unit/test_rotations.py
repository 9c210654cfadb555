"""Rotation conversions: properties, and agreement with plain numpy in float64."""

import numpy as np
import numpy_reference as reference
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from beingh0_edge import _kernels, rotations

# float32 arithmetic on numbers of order one: a few roundings of 6e-8 each.
MATRIX_TOLERANCE = 1e-6
# Axis-angle near pi is as uncertain as the matrix's smallest entries: sqrt(6e-8).
NEAR_PI_TOLERANCE = 1e-3

finite = st.floats(-10, 10, width=32)
vectors = npst.arrays(np.float32, (4, 3), elements=finite)


def random_vectors(count: int, seed: int = 0) -> np.ndarray:
    """Angles from 1e-6 to nearly pi in all directions, both ends included on purpose."""
    rng = np.random.default_rng(seed)
    axis = rng.standard_normal((count, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    angle = np.concatenate([[0.0, 1e-6, 1e-4, 3.14, 3.1415], rng.uniform(0, np.pi - 0.01, count - 5)])
    return (axis * angle[:, None]).astype(np.float32)


@given(vectors)
def test_matrices_of_axis_angles_are_rotations(axis_angle: np.ndarray) -> None:
    m = rotations.axis_angle_to_matrix(axis_angle)
    assert np.abs(m @ m.swapaxes(-1, -2) - np.eye(3)).max() < MATRIX_TOLERANCE
    assert np.abs(np.linalg.det(m) - 1).max() < MATRIX_TOLERANCE


@given(vectors)
def test_axis_angle_to_matrix_is_rodrigues_formula(axis_angle: np.ndarray) -> None:
    expected = reference.axis_angle_to_matrix(axis_angle)
    # angles up to 17 rad: the float32 angle itself is off by 1e-6
    assert np.abs(rotations.axis_angle_to_matrix(axis_angle) - expected).max() < 4 * MATRIX_TOLERANCE


@given(npst.arrays(np.float32, (5, 6), elements=finite), st.sampled_from(["interleaved", "columns"]))
def test_6d_gives_orthonormal_right_handed_frames(rot6d: np.ndarray, layout: rotations.Rot6dLayout) -> None:
    a, b = (rot6d[:, 0::2], rot6d[:, 1::2]) if layout == "interleaved" else (rot6d[:, :3], rot6d[:, 3:])
    independent = np.linalg.norm(np.cross(a, b), axis=1) > 1e-3 * np.maximum(1, (a**2).sum(1) + (b**2).sum(1))
    m = rotations.rot6d_to_matrix(rot6d, layout)[independent]
    assert np.isfinite(m).all()
    if len(m):
        assert np.abs(m.swapaxes(-1, -2) @ m - np.eye(3)).max() < MATRIX_TOLERANCE
        assert np.abs(np.linalg.det(m) - 1).max() < MATRIX_TOLERANCE


@pytest.mark.parametrize("layout", ["interleaved", "columns"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 64])
def test_6d_agrees_with_gram_schmidt_for_every_batch_size(layout: rotations.Rot6dLayout, count: int) -> None:
    rot6d = np.random.default_rng(count).standard_normal((count, 6)).astype(np.float32)
    expected = reference.rot6d_to_matrix(rot6d, layout == "interleaved")
    assert np.abs(rotations.rot6d_to_matrix(rot6d, layout) - expected).max() < MATRIX_TOLERANCE


def test_interleaved_6d_writes_the_first_two_columns_row_by_row() -> None:
    m = np.arange(9, dtype=np.float32).reshape(3, 3)
    assert rotations.matrix_to_rot6d(m).tolist() == [0, 1, 3, 4, 6, 7]
    assert rotations.matrix_to_rot6d(m, "columns").tolist() == [0, 3, 6, 1, 4, 7]


@pytest.mark.parametrize("layout", ["interleaved", "columns"])
def test_6d_and_matrix_are_inverse(layout: rotations.Rot6dLayout) -> None:
    m = rotations.axis_angle_to_matrix(random_vectors(200))
    assert np.abs(rotations.rot6d_to_matrix(rotations.matrix_to_rot6d(m, layout), layout) - m).max() < MATRIX_TOLERANCE


def test_axis_angle_comes_back_from_its_matrix() -> None:
    v = random_vectors(500)
    back = rotations.matrix_to_axis_angle(rotations.axis_angle_to_matrix(v))
    away = np.linalg.norm(v, axis=1) < 3.1
    assert np.abs(back - v)[away].max() < 2e-5  # 1e-6 / (pi - 3.1)
    assert np.abs(back - v)[~away].max() < NEAR_PI_TOLERANCE


def test_small_angles_keep_their_digits() -> None:
    v = np.array([[2e-4, 0, 0], [0, -1e-5, 3e-6], [1e-7, 1e-7, 1e-7]], np.float32)
    back = rotations.matrix_to_axis_angle(rotations.axis_angle_to_matrix(v))
    assert np.abs(back / np.where(v == 0, 1, v) - (v != 0)).max() < MATRIX_TOLERANCE


@pytest.mark.parametrize("axis", np.vstack([np.eye(3), -np.eye(3), [[0.6, 0.8, 0], [0.36, 0.48, -0.8]]]))
def test_half_turns_are_recovered_up_to_sign(axis: np.ndarray) -> None:
    m = (2 * np.outer(axis, axis) - np.eye(3)).astype(np.float32)
    back = rotations.matrix_to_axis_angle(m)
    assert abs(np.linalg.norm(back) - np.pi) < MATRIX_TOLERANCE
    assert min(np.abs(back - np.pi * axis).max(), np.abs(back + np.pi * axis).max()) < 1e-5


def test_quaternions_agree_with_numpy_and_with_axis_angles() -> None:
    v = random_vectors(300, seed=1)
    m = rotations.axis_angle_to_matrix(v)
    q = rotations.matrix_to_quaternion(m)
    assert (q[:, 0] >= 0).all()
    assert np.abs(np.linalg.norm(q, axis=1) - 1).max() < MATRIX_TOLERANCE
    assert np.abs(rotations.quaternion_to_matrix(q) - m).max() < MATRIX_TOLERANCE
    assert np.abs(reference.quaternion_to_matrix(q) - m).max() < MATRIX_TOLERANCE
    assert np.abs(rotations.axis_angle_to_quaternion(v) - q).max() < MATRIX_TOLERANCE
    assert np.abs(rotations.quaternion_to_axis_angle(rotations.axis_angle_to_quaternion(v)) - v).max() < 1e-5


def test_a_quaternions_length_and_sign_do_not_matter() -> None:
    q = np.random.default_rng(2).standard_normal((50, 4)).astype(np.float32)
    m = rotations.quaternion_to_matrix(q)
    assert np.abs(rotations.quaternion_to_matrix(-3 * q) - m).max() < MATRIX_TOLERANCE
    assert np.abs(rotations.quaternion_to_axis_angle(-3 * q) - rotations.quaternion_to_axis_angle(q)).max() < 1e-5


def test_leading_axes_and_dtypes_of_the_caller_are_accepted() -> None:
    v = np.random.default_rng(3).standard_normal((2, 0, 5, 3))
    assert rotations.axis_angle_to_matrix(v).shape == (2, 0, 5, 3, 3)
    assert rotations.axis_angle_to_matrix(np.zeros(3, np.int64)).dtype == np.float32


@pytest.mark.parametrize(("value", "got"), [(np.zeros((2, 4)), r"float64\[2, 4\]"), (np.zeros(()), r"float64\[\]"),
                                            (np.zeros(3, complex), r"complex128\[3\]")])
def test_another_shape_or_dtype_is_refused(value: np.ndarray, got: str) -> None:
    with pytest.raises(ValueError, match=rf"axis_angle: expected float\[\.\.\., 3\], got {got}"):
        rotations.axis_angle_to_matrix(value)


def test_the_kernel_never_converts_by_itself() -> None:
    with pytest.raises(ValueError, match=r"matrix: expected float32\[N, 3, 3\], got float64\[1, 3, 3\]"):
        _kernels.matrix_to_quaternion(np.eye(3)[None])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not C-contiguous"):
        _kernels.axis_angle_to_matrix(np.zeros((3, 4), np.float32).T[:, :3])


def test_an_unknown_layout_is_refused() -> None:
    with pytest.raises(ValueError, match="layout: expected 'interleaved' or 'columns', got 'rows'"):
        rotations.rot6d_to_matrix(np.zeros(6), "rows")  # type: ignore[arg-type]
