"""The tokenizer kernel itself: strict arguments, batches, threads; variants are in test_motion_tokenizer.py."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy_reference as reference
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beingh0_edge import _kernels

RELATIVE = 1e-5  # of the largest value; the kernel sums in float32
GROUPS, QUANTIZERS, CODES, CODE_DIM, WIDTH, DIMS, WINDOW, FRAMES, POSITIONS, OFFSET = 2, 3, 8, 12, 20, 5, 7, 8, 4, 100
IDS = GROUPS * QUANTIZERS * POSITIONS


def weights(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def empty_part(**changes: Any) -> _kernels.GrqPart:
    rng = np.random.default_rng(0)
    arguments = {
        "codebooks": weights(rng, GROUPS, QUANTIZERS, CODES, CODE_DIM // GROUPS) * 5, "mean": weights(rng, DIMS),
        "std": np.ones(DIMS, np.float32), "quantizers": QUANTIZERS, "window": WINDOW, "frames": FRAMES,
        "positions": POSITIONS, "id_offset": OFFSET}
    return _kernels.GrqPart(**(arguments | changes))


def conv(part: _kernels.GrqPart, encoder: bool, outputs: int, inputs: int, kernel: int = 3, **options: Any) -> None:
    rng = np.random.default_rng(outputs)
    part.add_conv(encoder=encoder, weight=weights(rng, outputs, inputs, kernel), bias=weights(rng, outputs), **options)


def residual(part: _kernels.GrqPart, encoder: bool, **changes: Any) -> None:
    rng = np.random.default_rng(7)
    part.add_residual(**({
        "encoder": encoder, "weight1": weights(rng, WIDTH, WIDTH, 3), "bias1": weights(rng, WIDTH),
        "weight2": weights(rng, WIDTH, WIDTH, 1), "bias2": weights(rng, WIDTH), "dilation": 3,
        "activation": "relu"} | changes))


def make_part() -> _kernels.GrqPart:
    part = empty_part()
    conv(part, True, WIDTH, DIMS, relu=True)
    conv(part, True, WIDTH, WIDTH, 4, stride=2)
    residual(part, True)
    conv(part, True, CODE_DIM, WIDTH)
    conv(part, False, WIDTH, CODE_DIM, relu=True)
    residual(part, False)
    conv(part, False, WIDTH, WIDTH, upsample=True)
    conv(part, False, DIMS, WIDTH)
    part.finish()
    return part


PART = make_part()


def ids_of(seed: int, blocks: int, start: int = 0) -> np.ndarray:
    ids = np.full((blocks, start + IDS + 2), -9, np.int32)  # neighbours' ids, which must not be looked at
    last = OFFSET + CODES * QUANTIZERS
    ids[:, start: start + IDS] = np.random.default_rng(seed).integers(OFFSET, last, (blocks, IDS))
    return ids


def decode(ids: np.ndarray, start: int = 0) -> np.ndarray:
    out = np.zeros((len(ids), WINDOW, DIMS), np.float32)
    PART.decode(ids, start, out, 0)
    return out


@pytest.mark.parametrize("blocks", [1, 2, 3, 5, 31, 32, 33, 70])
def test_a_block_decodes_to_the_same_bits_alone_and_among_others(blocks: int) -> None:
    ids = ids_of(1, blocks)
    together = decode(ids)
    for i in {0, blocks // 2, blocks - 1}:
        assert np.array_equal(decode(ids[i: i + 1]), together[i: i + 1])


@pytest.mark.parametrize("blocks", [1, 5, 33])
def test_a_block_encodes_to_the_same_ids_alone_and_among_others(blocks: int) -> None:
    features = np.random.default_rng(2).standard_normal((blocks, WINDOW, DIMS)).astype(np.float32)
    together = np.zeros((blocks, IDS), np.int32)
    PART.encode(features, together, 0)
    alone = np.zeros((1, IDS), np.int32)
    for i in range(blocks):
        PART.encode(features[i: i + 1], alone, 0)
        assert np.array_equal(alone[0], together[i])
    assert together.min() >= OFFSET
    assert together.max() < OFFSET + CODES * QUANTIZERS


@pytest.mark.parametrize("codebooks", [1, QUANTIZERS])
@pytest.mark.parametrize("norm", ["none", "affine", "layer", "group"])
@pytest.mark.parametrize("activation", ["relu", "silu", "gelu"])
def test_encoding_and_decoding_are_the_formulas(isa: str, activation: str, norm: str, codebooks: int) -> None:
    """Against numpy in float64, every activation, norm and kind of codebook."""
    rng = np.random.default_rng(8)
    arguments: dict[str, Any] = {
        "codebooks": weights(rng, GROUPS, codebooks, CODES, CODE_DIM // GROUPS) * 5, "mean": weights(rng, DIMS),
        "std": np.full(DIMS, 0.7, np.float32), "quantizers": QUANTIZERS, "window": WINDOW, "frames": FRAMES,
        "positions": POSITIONS, "id_offset": OFFSET}
    width = 64 if norm == "group" else 50  # not a multiple of what an instruction takes
    scales = {} if norm == "none" else {f"{name}{i}": 1 + 0.3 * weights(rng, width, 1)[:, 0] for i in (1, 2)
                                        for name in ("scale", "shift")}
    kernel, formula = _kernels.GrqPart(**arguments), reference.GrqPart(**arguments)
    for encoder, shapes in ((True, [(width, DIMS, 3), (width, width, 4), (CODE_DIM, width, 3)]),
                            (False, [(width, CODE_DIM, 3), (width, width, 3), (DIMS, width, 3)])):
        for i, shape in enumerate(shapes):
            layer: dict[str, Any] = {
                "encoder": encoder, "weight": weights(rng, *shape), "bias": weights(rng, shape[0]),
                "stride": 2 if shape[2] == 4 else 1, "upsample": not encoder and i == 1, "relu": i == 0}
            kernel.add_conv(**layer)
            formula.add_conv(**layer)
            if i == 1:
                block: dict[str, Any] = {
                    "encoder": encoder, "dilation": 3, "activation": activation, "norm": norm, **scales,
                    "weight1": weights(rng, width, width, 3), "bias1": weights(rng, width),
                    "weight2": weights(rng, width, width, 1), "bias2": weights(rng, width)}
                kernel.add_residual(**block)
                formula.add_residual(**block)
    kernel.finish()
    features = rng.standard_normal((3, WINDOW, DIMS)).astype(np.float32)
    latent, ids, decoded = kernel.latent(features), np.zeros((3, IDS), np.int32), np.zeros_like(features)
    kernel.encode(features, ids, 0)
    kernel.decode(ids, 0, decoded, 0)
    for i, codes in enumerate(ids.reshape(3, GROUPS, POSITIONS, QUANTIZERS)):
        for ours, exact in ((latent[i], formula.latent(features[i])), (decoded[i], formula.decode(codes))):
            assert np.abs(ours - exact).max() < RELATIVE * np.abs(exact).max()
        expected, margin = formula.encode(features[i])
        assert margin.min() > 1e-4  # no code is a matter of rounding
        assert np.array_equal(codes, expected)


def test_only_the_own_columns_and_slots_are_touched() -> None:
    ids = ids_of(3, 2, start=4)
    wide = np.full((2, WINDOW, DIMS + 6), 9.0, np.float32)
    PART.decode(ids, 4, wide, 5)
    assert (wide[..., :5] == 9).all()
    assert (wide[..., 5 + DIMS:] == 9).all()
    assert np.array_equal(wide[..., 5: 5 + DIMS], decode(ids, 4))
    slots = np.full((2, IDS + 6), -1, np.int32)
    PART.encode(np.zeros((2, WINDOW, DIMS), np.float32), slots, 5)
    assert (slots[:, :5] == -1).all()
    assert (slots[:, 5 + IDS:] == -1).all()
    assert (slots[:, 5: 5 + IDS] >= OFFSET).all()


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_quantising_is_greedy_nearest_code(seed: int) -> None:
    """Each id names the row nearest to what the earlier rows left over."""
    features = np.random.default_rng(seed).standard_normal((1, WINDOW, DIMS)).astype(np.float32)
    latent = PART.latent(features).astype(np.float64)
    ids = np.zeros((1, IDS), np.int32)
    PART.encode(features, ids, 0)
    codes = (ids - OFFSET).reshape(GROUPS, POSITIONS, QUANTIZERS)
    books = weights(np.random.default_rng(0), GROUPS, QUANTIZERS, CODES, CODE_DIM // GROUPS).astype(np.float64) * 5
    assert np.array_equal(codes // CODES, np.broadcast_to(np.arange(QUANTIZERS), codes.shape))
    for group in range(GROUPS):
        rest = latent[0, :, group * 6: group * 6 + 6]
        for q in range(QUANTIZERS):
            distance = np.linalg.norm(rest[:, None] - books[group, q], axis=-1)
            chosen = distance[np.arange(POSITIONS), codes[group, :, q] % CODES]
            assert (chosen <= distance.min(1) + 1e-5).all()  # float32 distances of order one
            rest = rest - books[group, q, codes[group, :, q] % CODES]


def test_dequantised_ids_are_sums_of_codebook_rows() -> None:
    ids = ids_of(4, 3)
    books = weights(np.random.default_rng(0), GROUPS, QUANTIZERS, CODES, CODE_DIM // GROUPS) * 5
    codes = (ids[:, :IDS] - OFFSET).reshape(3, GROUPS, POSITIONS, QUANTIZERS) % CODES
    expected = sum(books[np.arange(GROUPS)[None, :, None], q, codes[..., q]] for q in range(QUANTIZERS))
    assert np.array_equal(PART.dequantize(ids, 0), np.moveaxis(expected, 1, 2).reshape(3, POSITIONS, CODE_DIM))


def test_threads_do_not_disturb_each_other() -> None:
    batches = [ids_of(seed, 1 + seed) for seed in range(6)]
    expected = [decode(ids) for ids in batches]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: (i % 6, decode(batches[i % 6])), range(120)))
    assert all(np.array_equal(out, expected[i]) for i, out in results)


@pytest.mark.parametrize(("at", "value"), [((0, 0), OFFSET - 1), ((1, IDS - 1), OFFSET + CODES * QUANTIZERS),
                                           ((1, 3), -2**31), ((0, 5), 2**31 - 1)])
def test_ids_outside_the_part_are_found_and_refused(at: tuple[int, int], value: int) -> None:
    ids = ids_of(5, 2)
    assert PART.first_foreign_id(ids, 0) == -1
    ids[at] = value
    assert PART.first_foreign_id(ids, 0) == at[0] * ids.shape[1] + at[1]
    message = rf"ids\[{at[0]}, {at[1]}\]: expected an id in \[100, 124\), got {value}"
    with pytest.raises(ValueError, match=message):
        decode(ids)
    with pytest.raises(ValueError, match=message):
        PART.dequantize(ids, 0)


OUT = np.zeros((1, WINDOW, DIMS), np.float32)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: PART.decode(ids_of(0, 1).astype(np.int64), 0, OUT, 0), r"ids: expected int32\[N, N\], got int64\[1, 26\]"),
    (lambda: PART.decode(ids_of(0, 1)[:, ::-1], 0, OUT, 0), "not C-contiguous"),
    (lambda: PART.decode(ids_of(0, 1), 3, OUT, 0), r"ids: expected at least 27 per block, got int32\[1, 26\]"),
    (lambda: PART.decode(ids_of(0, 1), -1, OUT, 0), "ids: expected at least"),
    (lambda: PART.decode(ids_of(0, 2), 0, OUT, 0), r"out: expected float32\[2, 7, N\], got float32\[1, 7, 5\]"),
    (lambda: PART.decode(ids_of(0, 1), 0, OUT, 1), "out: expected at least 6 columns, got 5"),
    (lambda: PART.decode(ids_of(0, 1), 0, OUT, -1), "out: expected at least"),
    (lambda: PART.encode(np.zeros((1, 6, DIMS), np.float32), ids_of(0, 1), 0),
     r"features: expected float32\[N, 7, 5\], got float32\[1, 6, 5\]"),
    (lambda: PART.encode(OUT, ids_of(0, 2), 0), "ids: expected 1 rows"),
    (lambda: PART.latent(OUT.astype(np.float64)), "features: expected float32"),
    (lambda: residual(PART, True), "cannot be added to a finished part"), (lambda: PART.finish(), "already finished"),
    (lambda: decode_unfinished(), "call finish"), (lambda: empty_part().finish(), "layers: encoder gives"),
    (lambda: conv(empty_part(), True, 4, 6), r"weight: expected float32\[N, 5, N\], got float32\[4, 6, 3\]"),
    (lambda: conv(empty_part(), True, 4, DIMS, 40), "kernel 40 with padding 1 does not fit 8 frames"),
    (lambda: conv(empty_part(), True, 4, DIMS, padding=3), "padding"),
    (lambda: conv(empty_part(), True, 4, DIMS, stride=0), "stride: expected 1 to"),
    (lambda: residual(widened(), True, activation="tanh"), "activation: expected relu, silu or gelu, got tanh"),
    (lambda: residual(widened(), True, norm="group"), "norm: expected scale and shift of both norms"),
    (lambda: residual(widened(), True, norm="instance"), "norm: expected none, affine, layer or group"),
    (lambda: residual(widened(), True, norm="group", **dict.fromkeys(
        ("scale1", "shift1", "scale2", "shift2"), np.ones(WIDTH, np.float32))), "expects a multiple of 32 channels"),
    (lambda: residual(widened(), True, dilation=0), "dilation: expected 1 to"),
    (lambda: empty_part(codebooks=np.zeros((2, 2, 8, 6), np.float32)), r"codebooks: expected \[G, 1 or 3, K, D\]"),
    (lambda: empty_part(codebooks=np.zeros((2, 3, 0, 6), np.float32)), "codebooks: expected 1 to"),
    (lambda: empty_part(std=np.ones(4, np.float32)), r"std: expected float32\[5\], got float32\[4\]"),
    (lambda: empty_part(window=9), "frames: expected at least window"), (lambda: empty_part(id_offset=-1), "id_offset"),
    (lambda: empty_part(id_offset=2**31 - 5), "id_offset")])
def test_wrong_arguments_are_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def widened() -> _kernels.GrqPart:
    part = empty_part()
    conv(part, True, WIDTH, DIMS)
    return part


def decode_unfinished() -> None:
    widened().decode(ids_of(0, 1), 0, OUT, 0)


def test_a_read_only_output_is_refused() -> None:
    frozen = OUT.copy()
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="out: expected an array that is writeable"):
        PART.decode(ids_of(0, 1), 0, frozen, 0)


def stored(weight: np.ndarray, storage: str) -> np.ndarray:
    """What weights [outputs, inputs] have become: each input alone, through a layer that changes nothing."""
    outputs, inputs = weight.shape
    dims = outputs + 1  # a layer of `dims` outputs makes features and stays float32
    part = _kernels.GrqPart(codebooks=np.eye(inputs, dtype=np.float32)[None, None], mean=np.zeros(dims, np.float32),
                            std=np.ones(dims, np.float32), quantizers=1, window=inputs, frames=inputs,
                            positions=inputs, id_offset=0, weights=storage)
    same = np.eye(dims, outputs, dtype=np.float32)
    for encoder, layer in ((True, np.ones((inputs, dims), np.float32)), (False, weight), (False, same)):
        part.add_conv(encoder=encoder, weight=np.ascontiguousarray(layer[..., None]),
                      bias=np.zeros(len(layer), np.float32), padding=0)
    part.finish()
    out = np.empty((1, inputs, dims), np.float32)
    part.decode(np.arange(inputs, dtype=np.int32)[None], 0, out, 0)
    return out[0, :, :outputs].T


def rounded(weight: np.ndarray, storage: str) -> np.ndarray:
    """Weights [outputs, inputs, kernel] that the storage keeps exactly on the instruction set in use."""
    if storage == "bfloat16":
        return np.stack([stored(tap, storage) for tap in np.moveaxis(weight, 2, 0)], 2).copy()
    largest = np.abs(weight).max(1, keepdims=True)  # per output and tap
    return (np.rint(weight / largest * 127) * largest / 127).astype(np.float32)


def part_of(storage: str, keep: str | None = None) -> _kernels.GrqPart:
    """The decoder of `make_part` with a wide layer; `keep` first rounds the weights to what that storage can hold."""
    # Sums of quarters are bf16 numbers, so the layer that reads the latent, never less than bf16, is exact too.
    books = np.rint(weights(np.random.default_rng(0), GROUPS, QUANTIZERS, CODES, CODE_DIM // GROUPS) * 20) / 4
    part = empty_part(weights=storage, codebooks=books.astype(np.float32))
    rng = np.random.default_rng(11)

    def add(encoder: bool, outputs: int, inputs: int, kernel: int = 3, **options: Any) -> None:
        weight = weights(rng, outputs, inputs, kernel)
        if keep:
            weight = rounded(weight, "bfloat16" if inputs == CODE_DIM else keep)
        part.add_conv(encoder=encoder, weight=weight, bias=weights(rng, outputs), **options)

    add(True, WIDTH, DIMS, relu=True)
    add(True, WIDTH, WIDTH, 4, stride=2)
    add(True, CODE_DIM, WIDTH)
    add(False, 200, CODE_DIM, relu=True)
    add(False, 37, 200, upsample=True)  # an odd number of channels
    add(False, DIMS, 37)
    part.finish()
    return part


def decoded(part: _kernels.GrqPart, blocks: int) -> np.ndarray:
    out = np.empty((blocks, WINDOW, DIMS), np.float32)
    part.decode(ids_of(9, blocks), 0, out, 0)
    return out


# Of the largest value. Activations become bf16 (8 bits) beside bf16 weights on some machines, 15 bits beside int8.
ACTIVATION_TOLERANCE = {"bfloat16": 1e-2, "int8": 2e-4}


@pytest.mark.parametrize("storage", ["bfloat16", "int8"])
def test_weights_a_storage_can_hold_decode_as_in_float32(isa: str, storage: str) -> None:
    exact = decoded(part_of("float32", storage), 5)
    error = np.abs(decoded(part_of(storage, storage), 5) - exact).max() / np.abs(exact).max()
    assert error < ACTIVATION_TOLERANCE[storage]


@pytest.mark.parametrize(("storage", "tolerance"), [("bfloat16", 2e-2), ("int8", 2e-2)])
def test_smaller_weights_change_little_and_take_less(isa: str, storage: str, tolerance: float) -> None:
    whole, small = part_of("float32"), part_of(storage)
    exact, error = decoded(whole, 3), decoded(small, 3) - decoded(whole, 3)
    assert 0 < np.sqrt((error**2).mean()) < tolerance * np.sqrt((exact**2).mean())
    most = {"bfloat16": 0.55, "int8": 0.35}[storage]
    assert small.weight_bytes(encoder=False) < most * whole.weight_bytes(encoder=False)


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_every_instruction_set_agrees_with_the_best(isa: str, storage: str) -> None:
    part = part_of(storage)
    here = decoded(part, 4)
    assert np.array_equal(decoded(part, 6)[:4], np.concatenate([decoded(part, 6)[i: i + 1] for i in range(4)]))
    _kernels.use_isa("")
    best = decoded(part_of(storage), 4)
    tolerance = {"float32": 1e-5, **ACTIVATION_TOLERANCE}[storage]
    if storage == "int8" and _kernels.isa() == "avx512bf16" != isa:
        tolerance = 1e-3  # its layer of bf16 is rounded otherwise where there is no instruction for it
    assert np.abs(here - best).max() < tolerance * np.abs(best).max()


def test_bfloat16_weights_are_as_near_as_eight_bits_come(isa: str) -> None:
    rng = np.random.default_rng(13)
    weight = rng.standard_normal((37, 9)).astype(np.float32)  # odd: the last input has no second of its pair
    weight[:3], weight[3], weight[4] = 0, 1e30 * weight[3], 1e-30 * weight[4]
    weight[5, ::2], weight[6, 1::2] = 0, 0
    kept = stored(weight, "bfloat16")
    error = np.abs(kept.astype(np.float64) - weight)
    assert (kept != weight).mean() > 0.5
    assert (error <= 2.0**-8 * np.abs(weight) + 2e-38).all()  # the smallest normal number may stand for nothing


@pytest.mark.parametrize("blocks", [1, 5])
def test_int8_rows_behind_a_relu_are_kept_in_seven_bits(isa: str, blocks: int) -> None:
    """Against numpy, with weights and rows rounded there as the kernel rounds them."""
    arguments: dict[str, Any] = {
        "codebooks": np.rint(weights(np.random.default_rng(0), 1, 1, CODES, 50) * 30) / 4, "mean": np.zeros(DIMS),
        "std": np.ones(DIMS), "quantizers": 3, "window": WINDOW, "frames": FRAMES, "positions": FRAMES, "id_offset": 0}
    formulas = [reference.GrqPart(**arguments, weights=storage) for storage in ("int8", "float32")]
    kernel = _kernels.GrqPart(**{name: value.astype(np.float32) if isinstance(value, np.ndarray) else value
                                 for name, value in arguments.items()}, weights="int8")
    rng, width = np.random.default_rng(14), 50  # not a multiple of what a step takes
    kernel.add_conv(encoder=True, weight=np.ones((width, DIMS, 3), np.float32), bias=np.zeros(width, np.float32))
    for dilation in (1, 3, 9):
        block = {"weight1": weights(rng, width, width, 3), "bias1": weights(rng, width),
                 "weight2": weights(rng, width, width, 1), "bias2": weights(rng, width)}
        for part in (kernel, *formulas):
            part.add_residual(encoder=False, dilation=dilation, activation="relu", **block)
    last = {"encoder": False, "weight": weights(rng, DIMS, width, 3), "bias": weights(rng, DIMS)}
    for part in (kernel, *formulas):
        part.add_conv(**last)
    kernel.finish()
    ids = np.random.default_rng(15).integers(0, CODES, (blocks, 3 * FRAMES)).astype(np.int32)
    out = np.empty((blocks, WINDOW, DIMS), np.float32)
    kernel.decode(ids, 0, out, 0)
    as_kept, exact = (np.stack([part.decode(row.reshape(1, FRAMES, 3)) for row in ids]) for part in formulas)
    assert np.abs(out - as_kept).max() < 1e-5 * np.abs(exact).max()
    assert 1e-4 < np.abs(out - exact).max() / np.abs(exact).max() < 2e-2


def test_an_object_keeps_the_instruction_set_it_was_built_with() -> None:
    before, part = _kernels.isa(), part_of("float32")
    expected = decoded(part, 2)
    for name in _kernels.available_isas():
        _kernels.use_isa(name)
        assert np.array_equal(decoded(part, 2), expected)
    _kernels.use_isa(before)


def test_unknown_weights_and_instruction_sets_are_named() -> None:
    with pytest.raises(ValueError, match="weights: expected float32, bfloat16 or int8, got int4"):
        empty_part(weights="int4")
    with pytest.raises(ValueError, match=r"isa: this machine runs .*; got mmx"):
        _kernels.use_isa("mmx")
