"""Rotation conversions: properties, and agreement with plain numpy in float64."""

import numpy as np
import numpy_reference as reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from beingh0_edge import _kernels, rotations

pytestmark = pytest.mark.usefixtures("isa")

# float32 arithmetic on numbers of order one: a few roundings of 6e-8 each.
MATRIX_TOLERANCE = 1e-6
# Of a result that is computed in double and rounded once, times its size.
ROUNDING = 2.0**-24
# What an entry of a matrix loses with every radian of an angle of several turns, as documented.
PER_RADIAN = 2e-7
LARGEST_ANGLE = 1e5

finite = st.floats(-10, 10, width=32)
vectors = npst.arrays(np.float32, (4, 3), elements=finite)
angles = st.one_of(st.floats(0, np.pi), st.floats(0, 1e-3), st.floats(0, 1e-3).map(lambda gap: np.pi - gap))


def turned(axes: np.ndarray, angles: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(axes, axis=1, keepdims=True)
    return (np.where(length > 1e-3, axes / np.maximum(length, 1e-3), [1, 0, 0]) * angles[:, None]).astype(np.float32)


axes = npst.arrays(np.float64, (8, 3), elements=st.floats(-1, 1))
turns = st.builds(turned, axes, npst.arrays(np.float64, 8, elements=angles))  # 0 to pi, both ends often

FROM_TURN = {"axis_angle": lambda turn: turn, "quaternion": reference.axis_angle_to_quaternion,
             "matrix": reference.axis_angle_to_matrix}


def apart(a: np.ndarray, b: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Largest difference per rotation; about half a turn may go either way round."""
    difference = np.abs(a - b).reshape(len(turn), -1).max(1)
    if a.ndim == 3:
        return difference
    return np.where(np.linalg.norm(turn, axis=1) > np.pi - 2e-6, np.minimum(difference, np.abs(a + b).max(1)),
                    difference)


@pytest.mark.parametrize(("name", "tolerance"), [
    ("axis_angle_to_matrix", MATRIX_TOLERANCE), ("axis_angle_to_quaternion", ROUNDING),
    ("quaternion_to_matrix", ROUNDING), ("quaternion_to_axis_angle", np.pi * ROUNDING),
    # of a matrix that rounding has left not quite a rotation the two methods make different ones
    ("matrix_to_quaternion", MATRIX_TOLERANCE), ("matrix_to_axis_angle", MATRIX_TOLERANCE)])
@settings(max_examples=25)
@given(turn=turns)
def test_conversions_agree_with_numpy_near_0_and_pi_too(name: str, tolerance: float, turn: np.ndarray) -> None:
    value = FROM_TURN[name.split("_to_")[0]](turn).astype(np.float32)
    ours, exact = getattr(rotations, name)(value), getattr(reference, name)(value)
    assert apart(ours, exact, turn).max() <= tolerance
    if name.endswith("quaternion"):
        assert (ours[:, 0] >= 0).all()
        assert np.abs(np.linalg.norm(ours, axis=1) - 1).max() < MATRIX_TOLERANCE
    if name.endswith("axis_angle"):
        assert np.linalg.norm(ours, axis=1).max() < np.pi + MATRIX_TOLERANCE


@pytest.mark.parametrize(("first", "second"), [
    (a, b) for a in FROM_TURN for b in FROM_TURN if a != b])
@settings(max_examples=25)
@given(turn=turns)
def test_there_and_back_is_the_same_rotation(first: str, second: str, turn: np.ndarray) -> None:
    value = FROM_TURN[first](turn).astype(np.float32)
    there = getattr(rotations, f"{first}_to_{second}")(value)
    error = apart(getattr(rotations, f"{second}_to_{first}")(there), value, turn)
    # a small axis-angle keeps all its digits; numbers that float32 holds with fewer do not count
    size = np.clip(np.linalg.norm(turn, axis=1), 1e-30, 1) if first == "axis_angle" else 1
    assert (error / size).max() < MATRIX_TOLERANCE


@given(vectors)
def test_matrices_of_axis_angles_are_rotations(axis_angle: np.ndarray) -> None:
    m = rotations.axis_angle_to_matrix(axis_angle)
    assert np.abs(m @ m.swapaxes(-1, -2) - np.eye(3)).max() < MATRIX_TOLERANCE
    assert np.abs(np.linalg.det(m) - 1).max() < MATRIX_TOLERANCE


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
@settings(max_examples=25)
@given(turn=turns)
def test_6d_is_two_columns_and_comes_back(layout: rotations.Rot6dLayout, turn: np.ndarray) -> None:
    m = reference.axis_angle_to_matrix(turn).astype(np.float32)
    rot6d = rotations.matrix_to_rot6d(m, layout)
    assert np.array_equal(rot6d, reference.matrix_to_rot6d(m, layout == "interleaved"))
    assert np.abs(rotations.rot6d_to_matrix(rot6d, layout) - m).max() < MATRIX_TOLERANCE


@settings(max_examples=25)
@given(axes, npst.arrays(np.float64, 8, elements=st.floats(0, np.log10(LARGEST_ANGLE)).map(lambda power: 10**power)))
def test_many_turns_cost_digits_as_documented(axes: np.ndarray, angles: np.ndarray) -> None:
    axis_angle = turned(axes, angles)
    exact = reference.axis_angle_to_matrix(axis_angle)
    error = np.abs(rotations.axis_angle_to_matrix(axis_angle) - exact).max((1, 2))
    assert (error < MATRIX_TOLERANCE + PER_RADIAN * angles).all()
    by_quaternion = rotations.quaternion_to_matrix(rotations.axis_angle_to_quaternion(axis_angle))
    assert np.abs(by_quaternion - exact).max() < MATRIX_TOLERANCE


def test_the_documented_loss_is_not_exaggerated() -> None:
    rng = np.random.default_rng(4)
    axis_angle = turned(rng.standard_normal((20000, 3)), np.geomspace(100, LARGEST_ANGLE, 20000))
    error = np.abs(rotations.axis_angle_to_matrix(axis_angle) - reference.axis_angle_to_matrix(axis_angle)).max((1, 2))
    share = error / np.linalg.norm(axis_angle, axis=1)
    assert PER_RADIAN / 4 < share.max() < PER_RADIAN


@pytest.mark.parametrize("axis", np.vstack([np.eye(3), -np.eye(3), [[0.6, 0.8, 0], [0.36, 0.48, -0.8]]]))
def test_half_turns_are_recovered_up_to_sign(axis: np.ndarray) -> None:
    m = (2 * np.outer(axis, axis) - np.eye(3)).astype(np.float32)
    back = rotations.matrix_to_axis_angle(m)
    assert abs(np.linalg.norm(back) - np.pi) < MATRIX_TOLERANCE
    assert min(np.abs(back - np.pi * axis).max(), np.abs(back + np.pi * axis).max()) < 1e-5


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
