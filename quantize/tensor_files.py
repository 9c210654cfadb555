"""Reads single tensors, or rows of them, out of weight files; nothing is held in memory and nothing is
executed.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from beingh0_edge.errors import BundleError
from beingh0_edge.types import FloatArray

DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I64": np.int64,
           "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "BOOL": np.bool_}
FLOATS = ("F64", "F32", "F16", "BF16")
_LARGEST_HEADER = 100 << 20


@dataclass(frozen=True)
class TensorInfo:
    """dtype is safetensors' name for it, e.g. "BF16"."""

    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def item_bytes(self) -> int:
        return int(np.dtype(DTYPES[self.dtype]).itemsize)

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.item_bytes


class TensorFile(Protocol):
    """One file of tensors."""

    path: Path
    tensors: dict[str, TensorInfo]

    def read(self, name: str, first: int = 0, last: int | None = None) -> FloatArray:
        """float32 values of rows [first, last) of the outermost axis (all by default)."""

    def verify(self) -> None:
        """Raises BundleError if the file has checksums and one is wrong."""


class SafetensorsFile:
    """A .safetensors file. Raises BundleError unless header and size agree."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self.tensors, self._data = _read_header(file, path.stat().st_size)
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise BundleError(f"{path}: not a whole safetensors file ({error})", str(path)) from error

    def read(self, name: str, first: int = 0, last: int | None = None) -> FloatArray:
        info = self.tensors[name]
        shape = info.shape
        skip, count = 0, math.prod(shape)
        if first or last is not None:
            last = shape[0] if last is None else last
            row = math.prod(shape[1:])
            shape, skip, count = (last - first, *shape[1:]), first * row, (last - first) * row
        with self.path.open("rb") as file:
            file.seek(self._data + info.offset + skip * info.item_bytes)
            raw: npt.NDArray[Any] = np.fromfile(file, DTYPES[info.dtype], count)
        if raw.size != count:
            raise BundleError(f"{self.path}: ends within {name}", str(self.path))
        return as_float32(raw, info.dtype).reshape(shape)

    def verify(self) -> None:
        """Nothing: the format has no checksums."""


def as_float32(raw: npt.NDArray[Any], dtype: str) -> FloatArray:
    if dtype == "BF16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.astype(np.float32, copy=False)


def _read_header(file: BinaryIO, size: int) -> tuple[dict[str, TensorInfo], int]:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(size - 8, _LARGEST_HEADER):
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    tensors, end = {}, 0
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        info = TensorInfo(entry["dtype"], tuple(entry["shape"]), start)
        if info.dtype not in DTYPES:
            raise ValueError(f"{name} has the unknown type {info.dtype}")
        if min((*info.shape, start), default=0) < 0 or stop - start != info.nbytes:
            raise ValueError(f"{name}: {stop - start} bytes for {info.dtype}{list(info.shape)}")
        tensors[name] = info
        end = max(end, stop)
    if 8 + length + end != size:
        raise ValueError(f"expected {8 + length + end} bytes, got {size}")
    return tensors, 8 + length
