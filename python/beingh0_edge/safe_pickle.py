"""Reads the two kinds of pickle that published models come in, without running what is inside.

`load_torch` reads a torch checkpoint (`.pth`, `.pt`, `.bin`) to numpy without torch. `load_mano` reads a
MANO_LEFT/RIGHT.pkl, a Python 2 pickle of chumpy and scipy objects, without either. Both unpicklers know a short list of
names and refuse every other one, so a file can describe arrays and nothing else.
"""

from __future__ import annotations

import pickle
import tokenize
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from beingh0_edge.errors import BundleError

Array = npt.NDArray[Any]

# torch storage class -> dtype of its bytes; bfloat16 travels as uint16 and becomes float32
_STORAGES = {"DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "<u2",
             "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "|i1",
             "ByteStorage": "|u1", "BoolStorage": "|b1"}
PARSE_ERRORS = (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError,
                ImportError, OverflowError, MemoryError, RecursionError)
# What zipfile raises on a damaged archive (RuntimeError for flags and methods that it does not know), and numpy on one
# of arrays (TokenError).
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, tokenize.TokenError)


def load_torch(path: str | Path) -> Any:
    """What torch.save wrote, with every tensor as a numpy array (bfloat16 as float32).

    Dictionaries, lists, tuples, numbers and strings come through as they are; tensors that shared storage share no
    memory here.
    Raises: BundleError if the file is missing, damaged, of torch's format before 1.6, or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise BundleError(f"{path}: no such file", str(path))
    if not zipfile.is_zipfile(path):
        raise BundleError(f"{path}: expected a torch zip checkpoint (torch >= 1.6), got another or a damaged format; "
                          "load it with torch and save it again", str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            index = [name for name in archive.namelist() if name.rsplit("/", 1)[-1] == "data.pkl"]
            if len(index) != 1:
                raise BundleError(f"{path}: expected one data.pkl inside, got {len(index)}", str(path))
            root = index[0][: -len("data.pkl")]
            order = f"{root}byteorder"
            if order in archive.namelist() and archive.read(order) != b"little":
                raise BundleError(f"{path}: expected little-endian data, got {archive.read(order)!r}", str(path))
            with archive.open(index[0]) as stream:
                return _TorchUnpickler(stream, archive, f"{root}data/", path).load()
    except BundleError:
        raise
    except (*PARSE_ERRORS, *ZIP_ERRORS) as error:
        raise BundleError(f"{path}: damaged torch checkpoint ({error})", str(path)) from error


def load_mano(path: str | Path, names: Iterable[str]) -> dict[str, Array]:
    """Those of the named arrays that a MANO pickle has: chumpy variables by value, sparse matrices dense.

    Raises: BundleError if the file is missing, damaged, not a dictionary, or holds objects of any other kind.
    """
    path = Path(path)
    if not path.is_file():
        raise BundleError(f"{path}: no such file", str(path))
    try:
        with path.open("rb") as stream:
            content = _ManoUnpickler(stream, path).load()
        if not isinstance(content, dict):
            raise BundleError(f"{path}: expected a dictionary of arrays, got {type(content).__name__}", str(path))
        return {name: _array_of(content[name]) for name in names if name in content}
    except BundleError:
        raise
    except PARSE_ERRORS as error:
        raise BundleError(f"{path}: damaged MANO pickle ({error})", str(path)) from error


class RestrictedUnpickler(pickle.Unpickler):
    """Resolves the names in `allowed` and no others."""

    allowed: ClassVar[dict[tuple[str, str], Any]]

    def __init__(self, stream: IO[bytes], path: Path, **options: Any) -> None:
        super().__init__(stream, **options)
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.allowed[module, name]
        except KeyError:
            raise BundleError(f"{self.path}: refused to load {module}.{name}; the file may hold arrays only",
                              str(self.path)) from None


# ---- torch ----


class _Storage(NamedTuple):
    """Stands for a torch storage class while its tensors are read; a pickle cannot write to a tuple."""

    name: str


def _rebuild_tensor(storage: tuple[str, Array], offset: int, size: tuple[int, ...], stride: tuple[int, ...],
                    *_rest: Any) -> Array:
    name, data = storage
    size, stride = tuple(int(n) for n in size), tuple(int(n) for n in stride)
    if len(size) != len(stride) or offset < 0 or any(n < 0 for n in size + stride):
        raise ValueError(f"tensor of size {size}, stride {stride}, offset {offset}")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if 0 not in size and last >= data.size:
        raise ValueError(f"tensor of size {size}, stride {stride}, offset {offset} in a storage of {data.size}")
    if 0 in size:
        view = np.zeros(size, data.dtype)
    else:
        view = np.lib.stride_tricks.as_strided(data[offset:], size, tuple(s * data.itemsize for s in stride))
    if name == "BFloat16Storage":
        return (view.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.array(view, dtype=view.dtype.newbyteorder("="), order="C")


def _rebuild_parameter(data: Array, *_rest: Any) -> Array:
    return data


class _TorchUnpickler(RestrictedUnpickler):
    allowed: ClassVar = {
        ("collections", "OrderedDict"): OrderedDict,
        ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
        ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        **{("torch", name): _Storage(name) for name in _STORAGES},
    }

    def __init__(self, stream: IO[bytes], archive: zipfile.ZipFile, folder: str, path: Path) -> None:
        super().__init__(stream, path)
        self._archive, self._folder = archive, folder
        self._storages: dict[str, tuple[str, Array]] = {}

    def persistent_load(self, pid: Any) -> tuple[str, Array]:
        kind, storage, key, _device, count = pid
        if kind != "storage" or not isinstance(storage, _Storage):
            raise ValueError(f"unknown persistent id {pid!r}")
        if key not in self._storages:
            dtype = np.dtype(_STORAGES[storage.name])
            entry = self._archive.getinfo(f"{self._folder}{key}")
            if entry.file_size != int(count) * dtype.itemsize:
                raise ValueError(f"storage {key}: expected {int(count) * dtype.itemsize} bytes, got {entry.file_size}")
            self._storages[key] = (storage.name, np.frombuffer(self._archive.read(entry), dtype))
        return self._storages[key]


# ---- MANO ----

# Even numpy's own objects are not let near the file: their unpickling is C code that trusts its input.


class _State:
    """Holds what a chumpy or scipy object was pickled with; has no behaviour."""

    def __init__(self, *_args: Any) -> None:
        self.values: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise ValueError(f"state of type {type(state).__name__}")
        self.values = state

    def get(self, *names: str) -> Any:
        for name in names:
            if name in self.values:
                return self.values[name]
        raise ValueError(f"none of {', '.join(names)} in a pickled object")


class _Variable(_State):
    """chumpy.Ch: an array in `x`."""


class _Select(_State):
    """chumpy.reordering.Select: elements `idxs` of another variable."""


class _Columns(_State):
    """scipy.sparse matrix of compressed columns."""


class _Rows(_State):
    """scipy.sparse matrix of compressed rows."""


class _DType:
    """numpy.dtype of a plain number."""

    def __init__(self, code: Any, *_options: Any) -> None:
        self.code: Any = code
        self.order: Any = "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]

    def value(self) -> np.dtype[Any]:
        if not (isinstance(self.code, str) and self.code in _NUMBERS and self.order in ("<", ">", "|", "=")):
            raise ValueError(f"array of {self.code!r}")
        return np.dtype(self.code).newbyteorder(self.order)


class _Array:
    """numpy.ndarray: shape, dtype, order and bytes."""

    def __init__(self, shape: Any = (), dtype: Any = None, fortran: bool = False, data: Any = b"") -> None:
        self.parts = (shape, dtype, fortran, data)

    def __setstate__(self, state: Any) -> None:
        _version, *parts = state
        self.parts = tuple(parts)

    def value(self) -> Array:
        shape, dtype, fortran, data = self.parts
        if isinstance(data, str):  # Python 2's str
            data = data.encode("latin1")
        if not (isinstance(dtype, _DType) and isinstance(data, (bytes, bytearray))):
            raise ValueError("array of objects")
        if not (isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)):
            raise ValueError(f"array of shape {shape!r}")
        array = np.frombuffer(data, dtype.value()).reshape(shape, order="F" if fortran else "C")
        return array.astype(array.dtype.newbyteorder("="), order="C")


_NUMBERS = {"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"}


def _array_of(value: Any) -> Array:
    if isinstance(value, _Array):
        return value.value()
    if isinstance(value, _Variable):
        return _array_of(value.get("x"))
    if isinstance(value, _Select):
        source, indices = _array_of(value.get("a")), _array_of(value.get("idxs"))
        picked = source.ravel()[indices.astype(np.int64)]
        return picked.reshape(value.values.get("preferred_shape", picked.shape))
    if isinstance(value, (_Columns, _Rows)):
        return _dense(value, by_column=isinstance(value, _Columns))
    if isinstance(value, (bool, int, float, list, tuple)):
        array = np.asarray(value)
        if array.dtype.kind in "biuf":
            return array
    raise ValueError(f"expected numbers, got {type(value).__name__}")


def _dense(matrix: _State, *, by_column: bool) -> Array:
    rows, columns = (int(n) for n in matrix.get("_shape", "shape"))
    data, indices, starts = (_array_of(matrix.get(name)) for name in ("data", "indices", "indptr"))
    lines, across = (columns, rows) if by_column else (rows, columns)
    if not 0 <= lines * across <= _LARGEST_DENSE:
        raise ValueError(f"sparse matrix of {rows} x {columns}")
    ends_fit = starts.shape == (lines + 1,) and starts[0] == 0 and starts[-1] == data.size
    if not ends_fit or indices.shape != data.shape or data.ndim != 1:
        raise ValueError("sparse matrix with inconsistent indices")
    out = np.zeros((lines, across), data.dtype)
    np.add.at(out, (np.repeat(np.arange(lines), np.diff(starts)), indices), data)
    return out.T if by_column else out


_LARGEST_DENSE = 1 << 24  # elements; MANO's regressor has 16 x 778


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """_codecs.encode, by which old protocols carry bytes."""
    if encoding != "latin1":
        raise ValueError(f"bytes encoded as {encoding}")
    return text.encode("latin1")


def _reconstruct(*_args: Any) -> _Array:
    return _Array()


def _scalar(dtype: Any, data: Any) -> _Array:
    return _Array((), dtype, False, data)


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    """numpy's _frombuffer, by which protocol 5 carries arrays."""
    return _Array(shape, dtype, order == "F", data)


def _rebuild(kind: Any, *_args: Any) -> _State:
    """copyreg's _reconstructor and __newobj__ for the stand-ins above."""
    if not (isinstance(kind, type) and issubclass(kind, _State)):
        raise ValueError("object of an unexpected kind")
    built: _State = kind()
    return built


def _mano_names() -> dict[tuple[str, str], Any]:
    names: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): _Array, ("numpy", "dtype"): _DType, ("_codecs", "encode"): _encode,
        ("collections", "OrderedDict"): OrderedDict,
        ("chumpy.ch", "Ch"): _Variable, ("chumpy.reordering", "Select"): _Select}
    for module in ("copyreg", "copy_reg"):
        names |= {(module, "_reconstructor"): _rebuild, (module, "__newobj__"): _rebuild}
    for module in ("__builtin__", "builtins"):
        names |= {(module, "object"): object, (module, "set"): set, (module, "slice"): slice}
    for package in ("numpy.core.", "numpy._core."):
        names |= {(f"{package}multiarray", "_reconstruct"): _reconstruct, (f"{package}multiarray", "scalar"): _scalar,
                  (f"{package}numeric", "_frombuffer"): _from_buffer}
    for name, kind in (("csc", _Columns), ("csr", _Rows)):
        for module in ("scipy.sparse", f"scipy.sparse.{name}", f"scipy.sparse._{name}"):
            names[module, f"{name}_matrix"] = kind
    return names


class _ManoUnpickler(RestrictedUnpickler):
    allowed: ClassVar = _mano_names()

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        super().__init__(stream, path, encoding="latin1")
