"""Random dtypes, shapes, strides and values at every function of the kernels.

Whatever comes in, a call ends in ValueError or TypeError or in a result; under the sanitizers (.ci/sanitize) it also
touches nothing but its own memory. Results of good calls are checked elsewhere.
"""

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beingh0_edge import _kernels
from beingh0_edge.hand_model import PARENTS

DTYPES = (np.float32, np.float32, np.float32, np.float64, np.int32, np.int64, np.uint8, np.bool_, np.complex64)
NUMBERS = (0.0, 1.0, -1.0, 0.3, 1e-30, 1e30, np.nan, np.inf, -np.inf, 2.0**31)


def examples(count: int) -> settings:
    """Under sanitizers and beside other work everything is slow."""
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow])


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


def hand(blends: str) -> _kernels.HandModel:
    rng = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.1, shape).astype(np.float32)

    return _kernels.HandModel(
        v_template=some(778, 3), shapedirs=some(778, 3, 10), posedirs=some(778, 3, 135), j_regressor=some(16, 778),
        weights=np.abs(some(778, 16)), components=some(45, 45), mean_pose=some(45),
        parents=np.array(PARENTS, np.int32), tips=np.arange(10, dtype=np.int32).reshape(2, 5), pose_blends=blends)


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


STORAGES = ("float32", "bfloat16", "int8")
HANDS, PARTS = [hand(storage) for storage in STORAGES], [part(storage) for storage in STORAGES]
CONVERSIONS = {
    "axis_angle_to_matrix": (-1, 3), "axis_angle_to_quaternion": (-1, 3), "matrix_to_axis_angle": (-1, 3, 3),
    "matrix_to_quaternion": (-1, 3, 3), "quaternion_to_matrix": (-1, 4), "quaternion_to_axis_angle": (-1, 4)}


@pytest.mark.parametrize("name", CONVERSIONS)
@examples(40)
@given(data=st.data())
def test_rotations(name: str, data: st.DataObject) -> None:
    attempt(getattr(_kernels, name), data.draw(arrays(CONVERSIONS[name])))


@examples(60)
@given(st.data(), st.booleans())
def test_6d(data: st.DataObject, interleaved: bool) -> None:
    attempt(_kernels.rot6d_to_matrix, data.draw(arrays((-1, 6))), interleaved)
    attempt(_kernels.matrix_to_rot6d, data.draw(arrays((-1, 3, 3))), interleaved)


@examples(150)
@given(st.data(), st.sampled_from(HANDS))
def test_hand_kinematics(data: st.DataObject, model: _kernels.HandModel) -> None:
    kind, shape = data.draw(st.sampled_from([
        ("axis_angle", (-1, 16, 3)), ("matrix", (-1, 16, 3, 3)), ("rot6d_interleaved", (-1, 16, 6)),
        ("rot6d_columns", (-1, 16, 6)), ("pca", (-1, 9)), ("pca", (-1, 60)), ("", (-1, 16, 3))]))
    pose = data.draw(arrays(shape))
    n = pose.shape[0] if pose.ndim else 1
    width = data.draw(st.sampled_from([48, 9]))
    attempt(model.forward, pose, data.draw(st.one_of(arrays((10,)), arrays((n, 10)))),
            data.draw(st.one_of(st.none(), arrays((n, 3)))), kind, data.draw(st.booleans()), data.draw(st.booleans()),
            data.draw(st.integers(-2, 3)), data.draw(arrays((n, 21, 3))),
            data.draw(st.one_of(st.none(), arrays((n, 778, 3)))),
            data.draw(st.one_of(st.none(), arrays((n, 21, 3, width)))))


@examples(150)
@given(st.data(), st.sampled_from(PARTS), st.integers(-3, 12), st.integers(-3, 9))
def test_tokens(data: st.DataObject, made: _kernels.GrqPart, start: int, column: int) -> None:
    ids = data.draw(arrays((-1, 12), np.int32))
    if ids.dtype == np.int32 and ids.flags.writeable and data.draw(st.booleans()):
        ids %= 8
        ids += 7
    n = ids.shape[0] if ids.ndim else 1
    attempt(made.decode, ids, start, data.draw(arrays((n, 3, 7))), column)
    latent = data.draw(st.one_of(st.none(), arrays((n, 2, 6))))
    attempt(made.dequantize, ids, start, latent)
    attempt(made.first_foreign_id, ids, start)
    features = data.draw(arrays((n, 3, 5)))
    attempt(made.encode, features, data.draw(arrays((n, 12), np.int32)), start)
    attempt(made.latent, features, latent)


def some(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.3, shape).astype(np.float32)


PART_ARGUMENTS = ("codebooks", "mean", "std", "quantizers", "window", "positions", "id_offset", "weights", "weight",
                  "bias", "stride", "padding", "upsample", "weight1", "bias1", "weight2", "bias2", "dilation",
                  "activation", "norm", "scale1", "shift1", "scale2", "shift2", "layers")


@examples(200)
@given(st.data())
def test_building_a_part(data: st.DataObject) -> None:
    """One argument at most is not as it should be, so that what lies behind it is reached; if none is, all of it."""
    strange = data.draw(st.sampled_from([*[None] * len(PART_ARGUMENTS), *PART_ARGUMENTS]))
    small = st.integers(-1, 5)

    def pick(name: str, right: Any, other: st.SearchStrategy[Any] | None = None) -> Any:
        if name != strange or data.draw(st.booleans()):  # of several layers not always the first
            return right
        return data.draw(arrays(right.shape, right.dtype) if other is None else other)

    width = data.draw(st.sampled_from([6, 32]))
    norm = data.draw(st.sampled_from(["none", "layer", "affine", "group"] if width == 32 else ["none", "layer"]))

    def build() -> None:
        made = _kernels.GrqPart(
            codebooks=pick("codebooks", some(2, 1, 8, 3)), mean=pick("mean", some(5)),
            std=pick("std", np.ones(5, np.float32)), quantizers=pick("quantizers", 2, st.sampled_from([1, 0, -5])),
            window=pick("window", 3, small), frames=4, positions=pick("positions", 2, small),
            id_offset=pick("id_offset", 7, st.sampled_from([-1, 2**31 - 3])),
            weights=pick("weights", data.draw(st.sampled_from(["float32", "bfloat16", "int8"])), st.just("")))

        def conv(encoder: bool, shape: tuple[int, int, int], stride: int, upsample: bool) -> None:
            made.add_conv(encoder=encoder, weight=pick("weight", some(*shape)), bias=pick("bias", some(shape[0])),
                          stride=pick("stride", stride, small), padding=pick("padding", 1, small),
                          upsample=pick("upsample", upsample, st.just(not upsample)), relu=data.draw(st.booleans()))

        def residual(encoder: bool) -> None:
            vector = some(width)
            made.add_residual(
                encoder=encoder, weight1=pick("weight1", some(width, width, 3)), bias1=pick("bias1", vector),
                weight2=pick("weight2", some(width, width, 1)), bias2=pick("bias2", vector),
                dilation=pick("dilation", data.draw(st.integers(1, 9)), st.integers(-2, 0)),
                activation=pick("activation", data.draw(st.sampled_from(["relu", "silu", "gelu"])), st.just("tanh")),
                norm=pick("norm", norm, st.sampled_from(["batch", "group"])),
                **{name: pick(name, vector, st.one_of(st.none(), arrays((width,))))
                   for name in ("scale1", "shift1", "scale2", "shift2")})

        layers = [lambda: conv(True, (width, 5, 3), 1, False), lambda: residual(True),
                  lambda: conv(True, (6, width, 4), 2, False), lambda: conv(False, (width, 6, 3), 1, False),
                  lambda: residual(False), lambda: conv(False, (5, width, 3), 1, True)]
        if strange == "layers":
            layers = data.draw(st.permutations(layers))[: data.draw(st.integers(0, 6))]
        for layer in layers:
            layer()
        made.finish()
        ids, out = np.full((2, 8), 7, np.int32), np.zeros((2, 3, 5), np.float32)
        made.decode(ids, 0, out, 0)
        made.encode(out, ids, 0)
        if strange is None:
            assert np.isfinite(out).all()
            assert np.isin(ids, np.arange(7, 15)).all()

    if strange is None:
        build()
    else:
        attempt(build)


# Two fingers of two hinges.
SOLVED: dict[str, Any] = {
    "parents": np.array([-1, 0, -1, 2], np.int32), "origins": np.full((4, 3), 0.03),
    "axes": np.tile([0.0, 0.0, 1.0], (4, 1)), "link_joints": np.array([0, 0, 1, 2], np.int32),
    "multipliers": np.ones(4), "offsets": np.zeros(4), "point_links": np.array([1, 3, 0, 2], np.int32),
    "points": np.full((4, 3), 0.02), "tips": 2, "lower": np.full(3, -1.0), "upper": np.ones(3),
    "human_tips": np.array([4, 8], np.int32), "human_bases": np.array([1, 5], np.int32), "bases": np.zeros((2, 3)),
    "maps": np.tile(np.eye(3), (2, 1, 1)), "thumb": 0, "palm_from_wrist": np.eye(3), "huber_m": 0.02,
    "smoothness_m2": 1e-4, "pinch_weight": 1.0, "pinch_near_m": 0.01, "pinch_far_m": 0.03,
    "pairs": np.array([[0, 2, 1, 3]], np.int32), "pair_distances": np.array([0.01]), "pair_weight": 1.0}
HAND_ARRAYS = ("parents", "origins", "axes", "link_joints", "multipliers", "offsets", "point_links", "points")
SOLVER = _kernels.RetargetSolver(**SOLVED)


def follow(made: _kernels.RetargetSolver, human: np.ndarray, wide: np.ndarray, q: np.ndarray) -> None:
    attempt(made.jacobian, q)
    attempt(made.pair_distances, q)
    attempt(made.objective, wide, q, q)
    attempt(made.gradient, wide, q, q)
    attempt(made.solve, human, q)


@examples(100)
@given(st.data())
def test_retargeting(data: st.DataObject) -> None:
    follow(SOLVER, data.draw(arrays((-1, 21, 3))), data.draw(arrays((21, 3), np.float64)),
           data.draw(arrays((3,), np.float64)))
    attempt(_kernels.rotation_about, data.draw(st.one_of(st.just(np.eye(3)[1]), arrays((3,), np.float64))),
            data.draw(st.sampled_from(NUMBERS)))
    attempt(_kernels.first_strange_frame, data.draw(arrays((-1, 21, 3))), data.draw(arrays((6, 3), np.float64)),
            **{name: data.draw(st.sampled_from(NUMBERS)) for name in
               ("max_wrist_m", "max_size_ratio", "max_reach_m", "max_palm_error")})


@examples(200)
@given(st.data())
def test_building_a_solver(data: st.DataObject) -> None:
    strange = data.draw(st.sampled_from(sorted(SOLVED)))
    right = SOLVED[strange]
    if isinstance(right, np.ndarray):
        value = data.draw(arrays(right.shape, right.dtype))
    else:
        value = data.draw(st.integers(-2, 70) if isinstance(right, int) else st.sampled_from(NUMBERS))
    with contextlib.suppress(ValueError, TypeError):
        made = _kernels.RetargetSolver(**SOLVED | {strange: value})
        human = some(2, 21, 3)
        follow(made, human, human[0].astype(np.float64), np.zeros(3))
    attempt(_kernels.hand_points, data.draw(arrays((-1, 3), np.float64)),
            **{name: value if name == strange else SOLVED[name] for name in HAND_ARRAYS})


@examples(150)
@given(st.data(), st.integers(0, 8), st.integers(0, 2**32 - 1))
def test_rasteriser(data: st.DataObject, strange: int, seed: int) -> None:
    """One array of each call at most is not as it should be."""
    rng = np.random.default_rng(seed)

    def numbers(count: int, *right: float) -> tuple[float, ...]:
        return tuple(float(x) for x in rng.choice([*right * 40, *NUMBERS], count))

    def array(place: int, *shape: int, dtype: Any = np.float32, below: int = 2) -> np.ndarray:
        if place == strange:
            return data.draw(arrays(shape, dtype))
        size = [5 if n < 0 else n for n in shape]
        return rng.normal(0, 1, size).astype(dtype) if dtype == np.float32 else rng.integers(0, below, size, dtype)

    camera, near_m = numbers(4, 4.0, 20.0), numbers(1, 0.02)[0]
    vertices, faces = array(0, 9, 3), array(1, -1, 3, dtype=np.int32, below=9)
    if strange:
        vertices[:, 2] += 2  # most are before the camera
    attempt(_kernels.raster_triangles, array(2, 8, 12, 3), array(3, 8, 12), vertices, array(4, 9, 3), faces, camera,
            near_m)
    attempt(_kernels.raster_coverage, array(5, 8, 12, dtype=np.uint8), vertices, faces, camera, near_m)
    attempt(_kernels.raster_soften, array(5, 8, 12, dtype=np.uint8), int(rng.integers(-2, 40)))
    attempt(_kernels.raster_plane, array(2, 8, 12, 3), camera, *(numbers(3, 1.0, -0.5) for _ in range(7)),
            *numbers(1, 10.0), int(rng.integers(-1, 5)), int(rng.integers(-1, 9)))
    attempt(_kernels.raster_compose, array(6, 4, 6, 3), array(5, 8, 12, dtype=np.uint8), *numbers(1, 0.5),
            array(2, 8, 12, 3), array(3, 8, 12), array(7, 4, 6, 3))
