"""Reads the two kinds of pickle that published models come in, without running what is inside.

`load_torch` reads a torch checkpoint (`.pth`, `.pt`, `.bin`) to numpy without torch. `load_mano` reads a
MANO_LEFT/RIGHT.pkl, a Python 2 pickle of chumpy and scipy objects, without either. Both unpicklers know a short list of
names and refuse every other one, so a file can describe arrays and nothing else.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, ClassVar, NamedTuple, NoReturn, cast

import numpy as np
import numpy.typing as npt

from beingh0_edge.errors import BundleError

Array = npt.NDArray[Any]

# torch storage class -> dtype of its bytes; bfloat16 travels as uint16 and becomes float32
_STORAGES = {"DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "<u2",
             "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "|i1",
             "ByteStorage": "|u1", "BoolStorage": "|b1"}
PARSE_ERRORS = (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
                ImportError, OverflowError, MemoryError, RecursionError)


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
    except (*PARSE_ERRORS, zipfile.BadZipFile, OSError, NotImplementedError) as error:
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


class _Sparse(_State):
    """scipy.sparse matrix of compressed columns."""


class _SparseRows(_State):
    """scipy.sparse matrix of compressed rows."""


def _array_of(value: Any) -> Array:
    if isinstance(value, _Select):
        source = _array_of(value.get("a"))
        picked = source.ravel()[np.asarray(value.get("idxs"), np.int64)]
        return picked.reshape(value.values.get("preferred_shape", picked.shape))
    if isinstance(value, _Variable):
        return _array_of(value.get("x"))
    if isinstance(value, _Sparse | _SparseRows):
        return _dense(value, by_column=isinstance(value, _Sparse))
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"expected numbers, got {array.dtype} ({type(value).__name__})")
    return array


def _dense(matrix: _State, *, by_column: bool) -> Array:
    rows, columns = (int(n) for n in matrix.get("_shape", "shape"))
    data, indices, starts = (np.asarray(matrix.get(name)) for name in ("data", "indices", "indptr"))
    lines, across = (columns, rows) if by_column else (rows, columns)
    if starts.shape != (lines + 1,) or starts[0] != 0 or starts[-1] != data.size or indices.shape != data.shape:
        raise ValueError("sparse matrix with inconsistent indices")
    out = np.zeros((lines, across), data.dtype)
    np.add.at(out, (np.repeat(np.arange(lines), np.diff(starts)), indices), data)
    return out.T if by_column else out


def _refuse(*_args: Any) -> NoReturn:
    raise ValueError("object of an unexpected kind")


def _reconstruct(kind: Any, shape: tuple[int, ...], typecode: Any) -> Array:
    if kind is not np.ndarray:
        _refuse()
    return np.ndarray.__new__(np.ndarray, shape, typecode)


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """_codecs.encode, by which Python 2 protocols carry bytes."""
    return text.encode(encoding)


def _rebuild_object(kind: Any, base: Any, _state: Any) -> _State:
    """copyreg._reconstructor for the stand-ins above."""
    if not (isinstance(kind, type) and issubclass(kind, _State) and base is object):
        _refuse()
    built: _State = kind()
    return built


def _new_object(kind: Any, *_args: Any) -> _State:
    if not (isinstance(kind, type) and issubclass(kind, _State)):
        _refuse()
    built: _State = kind()
    return built


def _numpy_scalar() -> Callable[..., Any]:
    function: Any = np.float64(0).__reduce__()[0]  # its module moved between numpy 1 and 2
    return cast("Callable[..., Any]", function)


def _mano_names() -> dict[tuple[str, str], Any]:
    names: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _encode,
        ("copy_reg", "_reconstructor"): _rebuild_object,
        ("copyreg", "_reconstructor"): _rebuild_object,
        ("copyreg", "__newobj__"): _new_object,
        ("copy_reg", "__newobj__"): _new_object,
        ("collections", "OrderedDict"): OrderedDict,
        ("chumpy.ch", "Ch"): _Variable,
        ("chumpy.reordering", "Select"): _Select,
    }
    for module in ("__builtin__", "builtins"):
        names |= {(module, "object"): object, (module, "set"): set, (module, "slice"): slice}
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names |= {(module, "_reconstruct"): _reconstruct, (module, "scalar"): _numpy_scalar()}
    for module in ("scipy.sparse", "scipy.sparse.csc", "scipy.sparse._csc"):
        names[module, "csc_matrix"] = _Sparse
    for module in ("scipy.sparse", "scipy.sparse.csr", "scipy.sparse._csr"):
        names[module, "csr_matrix"] = _SparseRows
    return names


class _ManoUnpickler(RestrictedUnpickler):
    allowed: ClassVar = _mano_names()

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        super().__init__(stream, path, encoding="latin1")
