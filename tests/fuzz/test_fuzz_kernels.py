"""Random dtypes, shapes, strides and values at every function of the kernels.

Whatever comes in, a call ends in ValueError or TypeError or in a result; under the sanitizers (.ci/sanitize) it also
touches nothing but its own memory. Results of good calls are checked elsewhere.
"""

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beingh0_edge import _kernels
from beingh0_edge.hand_model import PARENTS

DTYPES = (np.float32, np.float32, np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_, np.complex64)
NUMBERS = (0.0, 1.0, -1.0, 0.3, 1e-30, 1e30, np.nan, np.inf, -np.inf, 2.0**31)


@st.composite
def arrays(draw: st.DrawFn, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Mostly what the kernel wants, else off in one way."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.sampled_from([0, 1, 2, 3, 9]))
    wanted = tuple(n if axis < 0 else axis for axis in shape)
    wrong = draw(st.sampled_from([None, None, None, "rank", "length", "dtype", "strides", "offset", "endian", "values",
                                  "frozen", "scalar"]))
    if wrong == "rank":
        wanted = wanted[1:] if draw(st.booleans()) else (1, *wanted)
    elif wrong == "length" and wanted:
        axis = draw(st.integers(0, len(wanted) - 1))
        wanted = (*wanted[:axis], max(0, wanted[axis] + draw(st.sampled_from([-1, 1, 7]))), *wanted[axis + 1:])
    elif wrong == "scalar":
        wanted = ()
    if wrong == "dtype":
        dtype = draw(st.sampled_from(DTYPES))
    size = int(np.prod(wanted, dtype=np.int64))
    array = (rng.integers(-3, 40, size) if np.dtype(dtype).kind in "iu" else rng.normal(0, 1, size)).astype(dtype)
    if wrong == "values" and size:
        with np.errstate(all="ignore"):
            array[rng.integers(size)] = np.array(draw(st.sampled_from(NUMBERS))).astype(dtype)
    array = array.reshape(wanted)
    if wrong == "strides":
        array = array[..., ::-1] if draw(st.booleans()) else np.asfortranarray(np.repeat(array, 2, 0)[::2]) \
            if array.ndim else array
    elif wrong == "offset":
        raw = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
        raw[...] = array
        array = raw
    elif wrong == "endian":
        array = array.astype(array.dtype.newbyteorder(">"))
    elif wrong == "frozen":
        array.flags.writeable = False
    return array


def attempt(call: Any, *arguments: Any, **named: Any) -> None:
    with contextlib.suppress(ValueError, TypeError):
        call(*arguments, **named)


def hand() -> _kernels.HandModel:
    rng = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.1, shape).astype(np.float32)

    return _kernels.HandModel(
        v_template=some(778, 3), shapedirs=some(778, 3, 10), posedirs=some(778, 3, 135), j_regressor=some(16, 778),
        weights=np.abs(some(778, 16)), components=some(45, 45), mean_pose=some(45),
        parents=np.array(PARENTS, np.int32), tips=np.arange(10, dtype=np.int32).reshape(2, 5), pose_blends="int8")


def part(storage: str) -> _kernels.GrqPart:
    rng = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.3, shape).astype(np.float32)

    made = _kernels.GrqPart(codebooks=some(2, 1, 8, 3), mean=some(5), std=np.ones(5, np.float32), quantizers=2,
                            window=3, frames=4, positions=2, id_offset=7, weights=storage)
    for encoder, shapes in ((True, ((9, 5, 3), (6, 9, 4))), (False, ((9, 6, 3), (5, 9, 3)))):
        for i, shape in enumerate(shapes):
            made.add_conv(encoder=encoder, weight=some(*shape), bias=some(shape[0]), stride=2 if shape[2] == 4 else 1,
                          upsample=not encoder and i == 1)
    made.finish()
    return made


HAND, PARTS = hand(), [part(storage) for storage in ("float32", "bfloat16", "int8")]
CONVERSIONS = {
    "axis_angle_to_matrix": (-1, 3), "axis_angle_to_quaternion": (-1, 3), "matrix_to_axis_angle": (-1, 3, 3),
    "matrix_to_quaternion": (-1, 3, 3), "quaternion_to_matrix": (-1, 4), "quaternion_to_axis_angle": (-1, 4)}


@pytest.mark.parametrize("name", CONVERSIONS)
@settings(max_examples=40)
@given(data=st.data())
def test_rotations(name: str, data: st.DataObject) -> None:
    attempt(getattr(_kernels, name), data.draw(arrays(CONVERSIONS[name])))


@settings(max_examples=60)
@given(st.data(), st.booleans())
def test_6d(data: st.DataObject, interleaved: bool) -> None:
    attempt(_kernels.rot6d_to_matrix, data.draw(arrays((-1, 6))), interleaved)
    attempt(_kernels.matrix_to_rot6d, data.draw(arrays((-1, 3, 3))), interleaved)


@settings(max_examples=150)
@given(st.data())
def test_hand_kinematics(data: st.DataObject) -> None:
    kind, shape = data.draw(st.sampled_from([
        ("axis_angle", (-1, 16, 3)), ("matrix", (-1, 16, 3, 3)), ("rot6d_interleaved", (-1, 16, 6)),
        ("rot6d_columns", (-1, 16, 6)), ("pca", (-1, 9)), ("pca", (-1, 60)), ("", (-1, 16, 3))]))
    pose = data.draw(arrays(shape))
    n = pose.shape[0] if pose.ndim else 1
    width = data.draw(st.sampled_from([48, 9]))
    attempt(HAND.forward, pose, data.draw(st.one_of(arrays((10,)), arrays((n, 10)))),
            data.draw(st.one_of(st.none(), arrays((n, 3)))), kind, data.draw(st.booleans()), data.draw(st.booleans()),
            data.draw(st.integers(-2, 3)), data.draw(arrays((n, 21, 3))),
            data.draw(st.one_of(st.none(), arrays((n, 778, 3)))),
            data.draw(st.one_of(st.none(), arrays((n, 21, 3, width)))))


@settings(max_examples=150)
@given(st.data(), st.sampled_from(PARTS), st.integers(-3, 12), st.integers(-3, 9))
def test_tokens(data: st.DataObject, made: _kernels.GrqPart, start: int, column: int) -> None:
    ids = data.draw(arrays((-1, 12), np.int32))
    if ids.dtype == np.int32 and ids.flags.writeable and data.draw(st.booleans()):
        ids %= 8
        ids += 7
    n = ids.shape[0] if ids.ndim else 1
    attempt(made.decode, ids, start, data.draw(arrays((n, 3, 7))), column)
    attempt(made.dequantize, ids, start)
    attempt(made.first_foreign_id, ids, start)
    features = data.draw(arrays((n, 3, 5)))
    attempt(made.encode, features, data.draw(arrays((n, 12), np.int32)), start)
    attempt(made.latent, features)


@settings(max_examples=100)
@given(st.data())
def test_building_a_part(data: st.DataObject) -> None:
    small = st.integers(-1, 5)
    try:
        made = _kernels.GrqPart(
            codebooks=data.draw(arrays((2, 1, 8, 3))), mean=data.draw(arrays((5,))), std=data.draw(arrays((5,))),
            quantizers=data.draw(st.sampled_from([1, 2, 0, -5])), window=data.draw(small), frames=4,
            positions=data.draw(small), id_offset=data.draw(st.sampled_from([0, 7, -1, 2**31 - 3])),
            weights=data.draw(st.sampled_from(["float32", "bfloat16", "int8", ""])))
    except (ValueError, TypeError):
        return
    for _ in range(data.draw(st.integers(0, 3))):
        encoder = data.draw(st.booleans())
        attempt(made.add_conv, encoder=encoder, weight=data.draw(arrays((6, 5, 3))), bias=data.draw(arrays((6,))),
                stride=data.draw(small), padding=data.draw(small), upsample=data.draw(st.booleans()),
                relu=data.draw(st.booleans()))
        attempt(made.add_residual, encoder=encoder, weight1=data.draw(arrays((6, 6, 3))), bias1=data.draw(arrays((6,))),
                weight2=data.draw(arrays((6, 6, 1))), bias2=data.draw(arrays((6,))), dilation=data.draw(small),
                activation=data.draw(st.sampled_from(["relu", "silu", "gelu", "tanh"])),
                norm=data.draw(st.sampled_from(["none", "layer", "affine", "group"])),
                **{name: data.draw(st.one_of(st.none(), arrays((6,)))) for name in
                   ("scale1", "shift1", "scale2", "shift2")})
    attempt(made.finish)
    attempt(made.decode, np.full((2, 64), 7, np.int32), 0, np.zeros((2, 4, 5), np.float32), 0)
