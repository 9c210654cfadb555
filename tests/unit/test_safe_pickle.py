"""Reading pickles without running them: torch checkpoints and MANO files, honest and malicious."""

import contextlib
import io
import os
import pickle
import subprocess
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from test_mano import ARRAYS

from beingh0_edge import HandModel, safe_pickle
from beingh0_edge.errors import BundleError


class Evil:
    """Runs a command when unpickled in the ordinary way."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


# ---- torch ----


def save(path: Path, content: object, **options: object) -> Path:
    torch.save(content, path, **options)
    return path


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.int16,
                                   torch.int8, torch.uint8, torch.bool])
def test_tensors_of_every_dtype_come_through(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.arange(-3, 9).reshape(3, 4).to(dtype)
    loaded = safe_pickle.load_torch(save(tmp_path / "x.pth", {"net": {"a": tensor}}))["net"]["a"]
    assert loaded.dtype == tensor.numpy().dtype
    assert np.array_equal(loaded, tensor.numpy())


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    tensor = torch.randn(5, 7).to(torch.bfloat16)
    loaded = safe_pickle.load_torch(save(tmp_path / "x.pt", tensor))
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, tensor.float().numpy())


def test_strides_offsets_and_shared_storage_are_followed(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    views = {"t": base.t(), "slice": base[1:3, ::2], "row": base[2], "expanded": base[0].expand(3, 6),
             "scalar": base[3, 5], "empty": base[:0], "flip": base.flip(0), "whole": base}
    loaded = safe_pickle.load_torch(save(tmp_path / "x.bin", views))
    for name, tensor in views.items():
        assert np.array_equal(loaded[name], tensor.numpy()), name
        assert loaded[name].flags.c_contiguous


def test_a_modules_state_dict_with_parameters_loads(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv1d(2, 3, 3), torch.nn.BatchNorm1d(3))
    content = {"net": module.state_dict(), "parameter": torch.nn.Parameter(torch.ones(2)), "epoch": 3,
               "lr": [1e-3, "a"]}
    loaded = safe_pickle.load_torch(save(tmp_path / "x.pth", content))
    assert isinstance(loaded["net"], OrderedDict)
    assert list(loaded["net"]) == list(module.state_dict())
    for name, tensor in module.state_dict().items():
        assert np.array_equal(loaded["net"][name], tensor.numpy())
    assert loaded["parameter"].tolist() == [1, 1]
    assert (loaded["epoch"], loaded["lr"]) == (3, [1e-3, "a"])


def test_code_in_a_checkpoint_is_refused_by_name_and_never_runs(tmp_path: Path) -> None:
    marker = tmp_path / "it_ran"
    path = save(tmp_path / "x.pth", {"net": {"a": torch.ones(2)}, "evil": Evil(marker)})
    with pytest.raises(BundleError, match=r"refused to load (posix|os)\.system"):
        safe_pickle.load_torch(path)
    assert not marker.exists()


def test_other_classes_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"refused to load torch\.nn\.modules\.linear\.Linear"):
        safe_pickle.load_torch(save(tmp_path / "x.pth", torch.nn.Linear(1, 1)))


def test_the_old_torch_format_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "x.pth", {"net": torch.ones(2)}, _use_new_zipfile_serialization=False)
    with pytest.raises(BundleError, match=r"expected a torch zip checkpoint \(torch >= 1\.6\)"):
        safe_pickle.load_torch(path)


def test_damaged_checkpoints_give_one_clear_error(tmp_path: Path) -> None:
    whole = save(tmp_path / "x.pth", {"net": {"a": torch.randn(100)}}).read_bytes()
    rng = np.random.default_rng(0)
    broken = tmp_path / "broken.pth"
    for length in (0, 10, len(whole) // 2, len(whole) - 5):
        broken.write_bytes(whole[:length])
        with pytest.raises(BundleError, match=r"broken\.pth"):
            safe_pickle.load_torch(broken)
    for _ in range(200):  # a flipped byte may hit a value no check covers, but never ends in another exception
        position = int(rng.integers(len(whole)))
        altered = bytearray(whole)
        altered[position] ^= int(rng.integers(1, 256))
        broken.write_bytes(altered)
        with contextlib.suppress(BundleError):
            safe_pickle.load_torch(broken)
    with pytest.raises(BundleError, match="no such file"):
        safe_pickle.load_torch(tmp_path / "nowhere.pth")


def rewritten(source: Path, target: Path, pickled: bytes) -> Path:
    """The same archive with another data.pkl."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickled if name.endswith("data.pkl") else old.read(name))
    return target


def test_a_view_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    source = save(tmp_path / "x.pth", torch.arange(4.0))
    with zipfile.ZipFile(source) as archive:
        pickled = archive.read(next(n for n in archive.namelist() if n.endswith("data.pkl")))
    assert pickled.count(b"K\x04\x85") == 1  # the size, (4,)
    path = rewritten(source, tmp_path / "y.pth", pickled.replace(b"K\x04\x85", b"K\x05\x85"))
    with pytest.raises(BundleError, match=r"tensor of size \(5,\).*in a storage of 4"):
        safe_pickle.load_torch(path)


def test_a_pickle_cannot_change_the_reader(tmp_path: Path) -> None:
    """BUILD on a name that the reader hands out would otherwise alter it for every later file."""
    source = save(tmp_path / "x.pth", torch.ones(1))
    attack = b"\x80\x02ctorch\nFloatStorage\nN}X\x04\x00\x00\x00nameX\x04\x00\x00\x00evils\x86b."
    with pytest.raises(BundleError, match="damaged torch checkpoint"):
        safe_pickle.load_torch(rewritten(source, tmp_path / "y.pth", attack))
    assert safe_pickle.load_torch(source).tolist() == [1]


# ---- MANO ----


@pytest.fixture
def fake_modules() -> Iterator[dict[str, types.ModuleType]]:
    """Modules with the names and layouts of chumpy and scipy, only to write pickles with."""
    made: dict[str, types.ModuleType] = {}

    def add(module: str, name: str) -> type:
        created = made.setdefault(module, types.ModuleType(module))
        cls = type(name, (object,), {"__module__": module})
        setattr(created, name, cls)
        return cls

    add("chumpy.ch", "Ch")
    add("chumpy.reordering", "Select")
    add("scipy.sparse.csc", "csc_matrix")
    add("scipy.sparse.csr", "csr_matrix")
    before = {name: sys.modules.get(name) for name in [*made, "chumpy"]}
    sys.modules.update(made)
    sys.modules["chumpy"] = types.ModuleType("chumpy")
    yield made
    for name, module in before.items():
        if module is None:
            del sys.modules[name]
        else:
            sys.modules[name] = module


def build(cls: type, **state: object) -> object:
    made = cls()
    made.__dict__.update(state)
    return made


def sparse(matrix: np.ndarray, cls: type, by_column: bool) -> object:
    lines = matrix.T if by_column else matrix
    rows, indices = np.nonzero(lines)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(lines)))])
    return build(cls, _shape=matrix.shape, data=lines[rows, indices], indices=indices.astype(np.int32),
                 indptr=starts.astype(np.int32))


@pytest.mark.parametrize("protocol", [0, 2])
@pytest.mark.parametrize("by_column", [True, False])
def test_a_mano_pickle_of_chumpy_and_scipy_objects_gives_its_arrays(
        tmp_path: Path, fake_modules: dict[str, types.ModuleType], protocol: int, by_column: bool) -> None:
    ch, select = fake_modules["chumpy.ch"].Ch, fake_modules["chumpy.reordering"].Select
    kind = fake_modules["scipy.sparse.csc"].csc_matrix if by_column else fake_modules["scipy.sparse.csr"].csr_matrix
    padded = np.concatenate([ARRAYS["shapedirs"], np.ones((778, 3, 2))], -1)  # Select takes ten of twelve
    indices = np.arange(padded.size).reshape(padded.shape)[..., :10].ravel()
    content = ARRAYS | {
        "shapedirs": build(select, a=build(ch, x=padded), idxs=indices, preferred_shape=(778, 3, 10)),
        "posedirs": build(ch, x=ARRAYS["posedirs"]), "J_regressor": sparse(ARRAYS["J_regressor"], kind, by_column),
        "bs_type": "lrotmin", "kintree_table": ARRAYS["kintree_table"].astype(np.uint32)}
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    loaded = safe_pickle.load_mano(path, ARRAYS)
    for name, expected in ARRAYS.items():
        assert np.array_equal(loaded[name], expected), name
    assert HandModel.load(path).forward(np.zeros(48)).joints.shape == (21, 3)


def test_reading_a_mano_pickle_needs_neither_chumpy_nor_scipy(tmp_path: Path) -> None:
    path = tmp_path / "hand.pkl"
    path.write_bytes(pickle.dumps(ARRAYS, protocol=2))
    code = (f"import sys; from beingh0_edge import HandModel; HandModel.load({str(path)!r}); "
            "print([m for m in ('chumpy', 'scipy', 'torch') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"


def test_python_2_byte_strings_are_read_as_latin1(tmp_path: Path) -> None:
    """Protocol-2 arrays written by Python 2 carry their bytes as str."""
    value = np.array([1.5, -2.0])
    text = value.tobytes()
    pickled = (b"\x80\x02}U\x01xcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
               b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
               b"K\x00tb\x89U" + bytes([len(text)]) + text + b"tbs.")
    path = tmp_path / "py2.pkl"
    path.write_bytes(pickled)
    assert safe_pickle.load_mano(path, ["x"])["x"].tolist() == [1.5, -2.0]


def test_code_in_a_mano_pickle_is_refused_by_name_and_never_runs(tmp_path: Path) -> None:
    marker = tmp_path / "it_ran"
    path = tmp_path / "MANO_LEFT.pkl"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(ARRAYS | {"f": Evil(marker)}, protocol=protocol))
        with pytest.raises(BundleError, match=r"MANO_LEFT\.pkl: refused to load (posix|os)\.system"):
            HandModel.load(path, "left")
    assert not marker.exists()


@pytest.mark.parametrize("name", ["builtins\neval", "builtins\ngetattr", "numpy\nfromfile", "chumpy.ch\nMatVecMult",
                                  "numpy.f2py.crackfortran\nmyeval", "torch.storage\n_load_from_bytes"])
def test_dangerous_names_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(f"c{name}\n.".encode())
    with pytest.raises(BundleError, match=r"refused to load " + name.replace("\n", r"\.")):
        safe_pickle.load_mano(path, ARRAYS)


@pytest.mark.parametrize("content", [
    pickle.dumps([1, 2]), b"", b"\x80\x02}", b"\x80\x05\xff\xff", pickle.dumps({"f": {"nested": 1}}),
    pickle.dumps({"f": "text"}), pickle.dumps({"f": np.array([{}], object)}),
    pickle.dumps({"f": np.zeros(2, "f4,i4")})])
def test_other_and_damaged_pickles_give_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"x\.pkl"):
        safe_pickle.load_mano(path, ["f"])


def test_inconsistent_sparse_matrices_are_refused(tmp_path: Path, fake_modules: dict[str, types.ModuleType]) -> None:
    kind = fake_modules["scipy.sparse.csc"].csc_matrix
    for starts in ([0, 1], [0, 1, 3], [1, 1, 2], [0, 2, 1]):
        bad = build(kind, _shape=(2, 2), data=np.ones(2), indices=np.zeros(2, int), indptr=np.array(starts))
        path = tmp_path / "x.pkl"
        stream = io.BytesIO()
        pickle.dump({"J_regressor": bad}, stream, protocol=2)
        path.write_bytes(stream.getvalue())
        with pytest.raises(BundleError, match=r"x\.pkl: damaged MANO pickle"):
            safe_pickle.load_mano(path, ["J_regressor"])
