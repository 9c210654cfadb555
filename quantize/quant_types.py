"""Which number format each language model tensor gets, and llama.cpp's own quantizer for single tensors.

A quant name is a plain type ("Q8_0": every matrix), one of llama.cpp's mixes ("Q4_K_M": more bits where
they matter), or "Q4_MIX": IQ4_NL everywhere except where a search (tune.py) found that more bits pay. Formats
work on blocks within a row; a row that its block does not divide gets the fallback type below, as llama.cpp does, and
the bundle records what every tensor really became.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from beingh0_edge.errors import BackendError
from beingh0_edge.types import FloatArray

TYPE_IDS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q4_K": 12, "Q5_K": 13,
            "Q6_K": 14, "IQ4_NL": 20, "IQ4_XS": 23, "BF16": 30}
"""Type name -> ggml's number for it."""
_BLOCKS = {"F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22),
           "Q5_1": (32, 24), "Q8_0": (32, 34), "IQ4_NL": (32, 18), "Q4_K": (256, 144), "Q5_K": (256, 176),
           "Q6_K": (256, 210), "IQ4_XS": (256, 136)}
"""Type name -> (values per block, bytes per block)."""
_FALLBACKS = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}
_MIXES = {"Q4_K_M": "Q4_K", "Q5_K_M": "Q5_K"}
SEARCHED = {"Q4_MIX": "IQ4_NL"}
"""Mixes of our own -> the type they start from."""

QUANTS = (*TYPE_IDS, *_MIXES, *SEARCHED)
"""Every name that `--quant` takes."""


def tensor_type(name: str, shape: tuple[int, ...], quant: str, layers: int,
                overrides: Mapping[str, str] | None = None) -> str:
    """What one tensor of a model with `layers` layers becomes: the wanted type, or its fallback."""
    chosen = wanted_type(name, shape, quant, layers, overrides)
    if shape[-1] % _BLOCKS[chosen][0]:
        chosen = _FALLBACKS.get(chosen, "F16")
    return chosen if shape[-1] % _BLOCKS[chosen][0] == 0 else "F16"


def wanted_type(name: str, shape: tuple[int, ...], quant: str, layers: int,
                overrides: Mapping[str, str] | None = None) -> str:
    """The type that one tensor should have, whatever its width.

    overrides  glob pattern of GGUF names -> type; the first that matches wins
    Raises     ValueError for an unknown name.
    """
    if quant not in QUANTS:
        raise ValueError(f"unknown quant {quant!r}; known: {', '.join(QUANTS)}")
    if len(shape) == 1:
        return "F32"
    chosen = (_MIXES | SEARCHED).get(quant, quant)
    if quant in _MIXES and _deserves_more_bits(name, layers):
        chosen = "Q6_K"
    for pattern, kind in (overrides or {}).items():
        if fnmatch(name, pattern):
            if kind not in TYPE_IDS:
                raise ValueError(f"unknown type {kind!r} for {pattern}; known: {', '.join(TYPE_IDS)}")
            return kind
    return chosen


def _deserves_more_bits(name: str, layers: int) -> bool:
    """llama.cpp's rule for its _M mixes: the head, and attn_v and ffn_down of the outer and every third
    layer.
    """
    if name == "output.weight":
        return True
    if not name.endswith(("attn_v.weight", "ffn_down.weight")):
        return False
    i, eighth = int(name.split(".")[1]), layers // 8
    return i < eighth or i >= 7 * layers // 8 or (i - eighth) % 3 == 2


def row_bytes(kind: str, width: int) -> int:
    values, size = _BLOCKS[kind]
    return width // values * size


def uses_importance(kind: str) -> bool:
    """Whether llama.cpp's quantizer can weigh the columns of this type."""
    return kind not in ("F32", "F16", "BF16", "Q8_0")


def encode(values: FloatArray, kind: str, importance: FloatArray | None = None) -> npt.NDArray[np.uint8]:
    """float32[rows, width] -> uint8[rows, row_bytes] in the format `kind`. Quantized by llama.cpp itself.

    importance  float32[width], mean square of what each column is multiplied with: errors there weigh more
    """
    rows, width = values.shape
    values = np.ascontiguousarray(values, np.float32)
    if kind == "F32":
        return values.view(np.uint8)
    if kind == "F16":
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.isfinite(half).all():
            raise ValueError("values beyond the range of F16; use BF16 or F32")
        return half.view(np.uint8)
    if kind == "BF16":
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).view(np.uint8)
    out = np.empty((rows, row_bytes(kind, width)), np.uint8)
    weights = None
    if importance is not None:
        if importance.shape != (width,) or importance.dtype != np.float32:
            raise ValueError(f"importance: expected float32[{width}], got {importance.dtype}{list(importance.shape)}")
        weights = np.ascontiguousarray(importance).ctypes.data
    written = _quantizer()(TYPE_IDS[kind], values.ctypes.data, out.ctypes.data, 0, rows, width, weights)
    if written != out.nbytes:
        raise BackendError(f"llama.cpp wrote {written} bytes of {kind}, expected {out.nbytes}", "llama.cpp")
    return out


@cache
def _quantizer() -> ctypes._NamedFuncPointer:
    import llama_cpp

    library = Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"
    function = ctypes.CDLL(str(library)).ggml_quantize_chunk
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                         ctypes.c_int64, ctypes.c_void_p]
    function.restype = ctypes.c_size_t
    return function
