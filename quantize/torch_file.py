"""Tensors of a torch zip checkpoint (.bin, .pt, .pth), read one by one, without torch and without running
anything.

The pickle inside goes through the package's restricted unpickler; only where each tensor lies is kept from
it.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from beingh0_edge import safe_pickle
from beingh0_edge.errors import BundleError
from beingh0_edge.types import FloatArray

from .tensor_files import DTYPES, TensorInfo, as_float32

# torch storage class -> safetensors' name for its type
_KINDS = {"DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
          "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
          "ByteStorage": "U8", "BoolStorage": "BOOL"}
# Keys under which training programs keep the weights, when the file holds more than them.
_NESTS = ("net", "module", "state_dict", "model")


class _Storage(NamedTuple):
    """A torch storage class; a pickle cannot write to a tuple."""

    kind: str


class _Place(NamedTuple):
    """A storage in the archive: byte offset of its data in the file, and its length in values."""

    kind: str
    start: int
    length: int


class _Tensor(NamedTuple):
    place: _Place
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class TorchFile:
    """A file that torch.save wrote with a dictionary of tensors. Raises BundleError for anything else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                index = [name for name in archive.namelist() if name.rsplit("/", 1)[-1] == "data.pkl"]
                if len(index) != 1:
                    raise ValueError(f"{len(index)} pickles inside")
                root = index[0].removesuffix("data.pkl")
                if (order := f"{root}byteorder") in archive.namelist() and archive.read(order) != b"little":
                    raise ValueError("big-endian data")
                with archive.open(index[0]) as stream:
                    content = _Unpickler(stream, archive, f"{root}data/", path).load()
            self._places = _flat(content)
        except BundleError:
            raise
        except (*safe_pickle.PARSE_ERRORS, *safe_pickle.ZIP_ERRORS, struct.error) as error:
            raise BundleError(f"{path}: not a whole torch zip checkpoint ({error})", str(path)) from error
        self.tensors = {
            name: TensorInfo(t.place.kind, t.shape, t.place.start) for name, t in self._places.items()
        }

    def verify(self) -> None:
        """Reads all of it against the checksums in the archive. Raises BundleError for the first that is wrong."""
        with zipfile.ZipFile(self.path) as archive:
            try:
                bad = archive.testzip()
            except safe_pickle.ZIP_ERRORS as error:
                raise BundleError(f"{self.path}: not a whole torch zip checkpoint ({error})", str(self.path)) from error
        if bad is not None:
            raise BundleError(f"{self.path}: damaged: {bad} does not have its checksum", str(self.path))

    def read(self, name: str, first: int = 0, last: int | None = None) -> FloatArray:
        """float32 values of rows [first, last) of the outermost axis (all by default)."""
        tensor = self._places[name]
        shape, offset = tensor.shape, tensor.offset
        if first or last is not None:
            last = shape[0] if last is None else last
            shape, offset = (last - first, *shape[1:]), offset + first * tensor.stride[0]
        if 0 in shape:
            return np.zeros(shape, np.float32)
        dtype = np.dtype(DTYPES[tensor.place.kind])
        span = 1 + sum((n - 1) * s for n, s in zip(shape, tensor.stride, strict=True))
        with self.path.open("rb") as file:
            file.seek(tensor.place.start + offset * dtype.itemsize)
            raw: npt.NDArray[Any] = np.fromfile(file, dtype, span)
        if raw.size != span:
            raise BundleError(f"{self.path}: ends within {name}", str(self.path))
        strides = tuple(s * dtype.itemsize for s in tensor.stride)
        values = np.lib.stride_tricks.as_strided(raw, shape, strides)
        return np.ascontiguousarray(as_float32(values, tensor.place.kind)).reshape(shape)


def _flat(content: Any) -> dict[str, _Tensor]:
    if not isinstance(content, dict):
        raise ValueError(f"expected a dictionary of tensors, got {type(content).__name__}")
    for nest in _NESTS:
        if isinstance(content.get(nest), dict):
            content = content[nest]
    wrong = [str(name) for name, value in content.items() if not isinstance(value, _Tensor)]
    if wrong or not content:
        raise ValueError(
            f"expected tensors, got something else under {', '.join(wrong[:5]) or 'no names at all'}"
        )
    return {str(name): value for name, value in content.items()}


def _rebuild(
    place: _Place, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_rest: Any
) -> _Tensor:
    shape, stride = tuple(int(n) for n in shape), tuple(int(n) for n in stride)
    if len(shape) != len(stride) or min((offset, *shape, *stride), default=0) < 0:
        raise ValueError(f"tensor of size {shape}, stride {stride}, offset {offset}")
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
    if math.prod(shape) and last >= place.length:
        raise ValueError(
            f"tensor of size {shape}, stride {stride}, offset {offset} in a storage of {place.length}"
        )
    return _Tensor(place, int(offset), shape, stride)


def _parameter(tensor: _Tensor, *_rest: Any) -> _Tensor:
    return tensor


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    **{("torch", name): _Storage(kind) for name, kind in _KINDS.items()},
}


class _Unpickler(safe_pickle.RestrictedUnpickler):
    allowed: ClassVar[dict[tuple[str, str], Any]] = _ALLOWED

    def __init__(self, stream: Any, archive: zipfile.ZipFile, folder: str, path: Path) -> None:
        super().__init__(stream, path)
        self._archive, self._folder = archive, folder

    def persistent_load(self, pid: Any) -> _Place:
        what, storage, key, _device, count = pid
        if what != "storage" or not isinstance(storage, _Storage):
            raise ValueError(f"unknown persistent id {pid!r}")
        entry = self._archive.getinfo(f"{self._folder}{key}")
        size = int(count) * np.dtype(DTYPES[storage.kind]).itemsize
        if entry.file_size != size or entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(
                f"storage {key}: expected {size} plain bytes, got {entry.file_size} of compression "
                f"{entry.compress_type}"
            )
        # The local header may be longer than the central one: torch pads it to align the data.
        with self.path.open("rb") as file:
            file.seek(entry.header_offset)
            name_length, extra_length = struct.unpack("<26x2H", file.read(30))
        return _Place(storage.kind, entry.header_offset + 30 + name_length + extra_length, int(count))
