"""Reads the header of a GGUF file: metadata, tensor names, shapes and types; no tensor data.

Source: the GGUF specification, version 3 (little-endian).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .errors import BundleError

TYPE_NAMES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 20: "IQ4_NL", 23: "IQ4_XS", 30: "BF16",
}
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q",
            12: "<d"}
_STRING, _ARRAY = 8, 9
_LONGEST_NAME = 1 << 16
_MOST_ENTRIES = 1 << 20
_KEPT_ITEMS = 64


@dataclass(frozen=True)
class GgufHeader:
    """metadata: arrays longer than 64 items are given as their length only.

    shapes: outermost axis first, as numpy has them. types: names such as "Q8_0".
    """

    metadata: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]
    types: dict[str, str]


def read_gguf_header(path: Path) -> GgufHeader:
    """Raises BundleError if the file is not a whole GGUF version 3 header."""
    with path.open("rb") as file:
        try:
            return _read(file)
        except (struct.error, ValueError, UnicodeDecodeError) as error:
            raise BundleError(f"{path}: not a GGUF version 3 file ({error})", str(path)) from error


def _read(file: BinaryIO) -> GgufHeader:
    if file.read(4) != b"GGUF":
        raise ValueError("the first four bytes are not 'GGUF'")
    version, tensor_count, pair_count = _unpack(file, "<IQQ")
    if version != 3:
        raise ValueError(f"version {version}")
    if max(tensor_count, pair_count) > _MOST_ENTRIES:
        raise ValueError(f"{tensor_count} tensors and {pair_count} metadata pairs")
    metadata: dict[str, Any] = {}
    for _ in range(pair_count):
        key = _text(file)
        metadata[key] = _value(file, _unpack(file, "<I")[0])
    shapes: dict[str, tuple[int, ...]] = {}
    types: dict[str, str] = {}
    for _ in range(tensor_count):
        name = _text(file)
        rank = _unpack(file, "<I")[0]
        if rank > 4:
            raise ValueError(f"tensor {name!r} has {rank} axes")
        shape = _unpack(file, f"<{rank}Q")
        kind, _offset = _unpack(file, "<IQ")
        shapes[name] = tuple(reversed(shape))
        types[name] = TYPE_NAMES.get(kind, f"type {kind}")
    return GgufHeader(metadata, shapes, types)


def _unpack(file: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _text(file: BinaryIO) -> str:
    length = _unpack(file, "<Q")[0]
    if length > _LONGEST_NAME:
        raise ValueError(f"a text of {length} bytes")
    data = file.read(length)
    if len(data) != length:
        raise ValueError("the file ends within a text")
    return data.decode()


def _value(file: BinaryIO, kind: int) -> Any:
    if kind in _SCALARS:
        return _unpack(file, _SCALARS[kind])[0]
    if kind == _STRING:
        return _text(file)
    if kind != _ARRAY:
        raise ValueError(f"metadata of type {kind}")
    item, count = _unpack(file, "<IQ")
    if item in _SCALARS:
        size = struct.calcsize(_SCALARS[item])
        if count > _KEPT_ITEMS:
            file.seek(size * count, 1)
            return count
        return [_unpack(file, _SCALARS[item])[0] for _ in range(count)]
    if item != _STRING or count > 16 * _MOST_ENTRIES:
        raise ValueError(f"an array of {count} values of type {item}")
    texts = [_text(file) for _ in range(count)]
    return texts if count <= _KEPT_ITEMS else count
