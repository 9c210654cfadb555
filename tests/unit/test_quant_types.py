"""Number formats: llama.cpp's own quantizer against the reference in the gguf package, and which tensor
gets what.
"""

import gguf
import numpy as np
import pytest

from beingh0_edge.quantize.quant_types import QUANTS, TYPE_IDS, encode, row_bytes, tensor_type

VALUES = np.random.default_rng(0).normal(size=(6, 512)).astype(np.float32)
# Half a step of the format relative to the largest value of a block, with room for the format's own scale
# rounding.
RELATIVE_ERROR = {"F32": 0, "F16": 1e-3, "BF16": 8e-3, "Q8_0": 1e-2, "Q6_K": 0.04, "Q5_0": 0.07, "Q5_1": 0.07,
                  "Q5_K": 0.08, "Q4_0": 0.14, "Q4_1": 0.14, "Q4_K": 0.15, "IQ4_NL": 0.2, "IQ4_XS": 0.2}


def decoded(data: np.ndarray, kind: str) -> np.ndarray:
    return gguf.dequantize(data, gguf.GGMLQuantizationType(TYPE_IDS[kind])).reshape(VALUES.shape)


@pytest.mark.parametrize("kind", TYPE_IDS)
def test_encoded_values_are_close_and_of_the_stated_size(kind: str) -> None:
    data = encode(VALUES, kind)
    assert data.shape == (6, row_bytes(kind, 512))
    error = np.abs(decoded(data, kind) - VALUES).max()
    assert error <= RELATIVE_ERROR[kind] * np.abs(VALUES).max()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_1", "Q5_1"])
def test_the_bytes_are_those_of_the_gguf_package(kind: str) -> None:
    expected = gguf.quantize(VALUES, gguf.GGMLQuantizationType(TYPE_IDS[kind]))
    np.testing.assert_array_equal(encode(VALUES, kind), np.ascontiguousarray(expected).view(np.uint8))


def test_values_beyond_half_precision_are_refused() -> None:
    with pytest.raises(ValueError, match="range of F16"):
        encode(np.full((1, 32), 1e6, np.float32), "F16")


@pytest.mark.parametrize(("width", "quant", "expected"), [
    (896, "Q8_0", "Q8_0"), (896, "Q4_K", "Q5_0"), (896, "Q5_K", "Q5_1"), (896, "Q6_K", "Q8_0"), (896, "Q4_0", "Q4_0"),
    (896, "IQ4_XS", "IQ4_NL"), (1024, "Q4_K", "Q4_K"), (48, "Q8_0", "F16"), (48, "Q4_K", "F16"), (48, "F32", "F32")])
def test_rows_that_a_block_does_not_divide_fall_back(width: int, quant: str, expected: str) -> None:
    assert tensor_type("blk.0.attn_q.weight", (64, width), quant, 24) == expected


def test_vectors_stay_float32() -> None:
    for quant in QUANTS:
        assert tensor_type("blk.0.attn_norm.weight", (256,), quant, 24) == "F32"


def test_the_m_mixes_spend_more_bits_where_llama_does() -> None:
    kinds = [tensor_type(f"blk.{i}.ffn_down.weight", (512, 512), "Q4_K_M", 24) for i in range(24)]
    assert [i for i, kind in enumerate(kinds) if kind == "Q6_K"] == [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]
    assert tensor_type("output.weight", (512, 512), "Q4_K_M", 24) == "Q6_K"
    assert tensor_type("token_embd.weight", (512, 512), "Q5_K_M", 24) == "Q5_K"
    assert tensor_type("blk.3.attn_q.weight", (512, 512), "Q4_K_M", 24) == "Q4_K"


def test_overrides_win_by_pattern() -> None:
    overrides = {"output.weight": "F16", "blk.0.*": "Q8_0"}
    assert tensor_type("output.weight", (512, 512), "Q4_0", 24, overrides) == "F16"
    assert tensor_type("blk.0.ffn_up.weight", (512, 512), "Q4_0", 24, overrides) == "Q8_0"
    assert tensor_type("blk.1.ffn_up.weight", (512, 512), "Q4_0", 24, overrides) == "Q4_0"
    with pytest.raises(ValueError, match="unknown type 'Q9'"):
        tensor_type("output.weight", (512, 512), "Q4_0", 24, {"output*": "Q9"})


def test_an_unknown_quant_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown quant 'Q9_0'; known: F32, F16"):
        tensor_type("output.weight", (512, 512), "Q9_0", 24)
