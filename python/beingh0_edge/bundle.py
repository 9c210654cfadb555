"""The bundle: one directory that holds everything a policy needs, and the contract of what is in it.

`Manifest` is that contract: the writer (beingh0_edge.quantize) fills it, `Bundle.open` reads and checks it.
manifest.json lists every file with its size and SHA-256. docs/bundle.md describes the directory for people.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tokenize
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

import numpy as np

from .errors import BundleError
from .files import PACKAGED, packaged
from .gguf_header import read_gguf_header
from .preprocess import Camera
from .tokens import PartLayout, TokenLayout

FORMAT = "beingh0-edge bundle"
REVISION = 1
MANIFEST = "manifest.json"

_LARGEST_MANIFEST = 8 << 20
_MOST_LAYERS = 1000
_CHUNK = 1 << 20
T = TypeVar("T")


@dataclass(frozen=True)
class LanguageSpec:
    """A Qwen2 language model as GGUF. `rows` are those of its embedding and head (see tokens.Vocabulary)."""

    file: str
    layout: Literal["trimmed", "full"]
    quant: str
    rows: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    context: int
    rms_norm_eps: float
    rope_theta: float
    tied: bool

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape (outermost axis first) of every tensor in the file."""
        h, q, kv = self.hidden, self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (self.rows, h), "output_norm.weight": (h,)}
        if not self.tied:
            shapes["output.weight"] = (self.rows, h)
        for i in range(self.layers):
            shapes |= {
                f"blk.{i}.attn_norm.weight": (h,),
                f"blk.{i}.attn_q.weight": (q, h), f"blk.{i}.attn_q.bias": (q,),
                f"blk.{i}.attn_k.weight": (kv, h), f"blk.{i}.attn_k.bias": (kv,),
                f"blk.{i}.attn_v.weight": (kv, h), f"blk.{i}.attn_v.bias": (kv,),
                f"blk.{i}.attn_output.weight": (h, q),
                f"blk.{i}.ffn_norm.weight": (h,),
                f"blk.{i}.ffn_gate.weight": (self.mlp, h), f"blk.{i}.ffn_up.weight": (self.mlp, h),
                f"blk.{i}.ffn_down.weight": (h, self.mlp),
            }
        return shapes

    def metadata(self) -> dict[str, str | int | float]:
        """What the file's own header says of the geometry; llama.cpp believes it, and aborts where it cannot be."""
        sizes = {"vocab_size": self.rows, "context_length": self.context, "embedding_length": self.hidden,
                 "block_count": self.layers, "feed_forward_length": self.mlp, "attention.head_count": self.heads,
                 "attention.head_count_kv": self.kv_heads, "attention.key_length": self.head_dim,
                 "attention.value_length": self.head_dim, "rope.dimension_count": self.head_dim}
        reals = {"attention.layer_norm_rms_epsilon": self.rms_norm_eps, "rope.freq_base": self.rope_theta}
        return {"general.architecture": "qwen2", **{f"qwen2.{key}": value for key, value in sizes.items()},
                **{f"qwen2.{key}": float(np.float32(value)) for key, value in reals.items()}}


@dataclass(frozen=True)
class EmbeddingsSpec:
    """The input embedding of every vocabulary id, as .npy of [rows, hidden]."""

    file: str
    rows: int
    hidden: int
    dtype: Literal["float16", "float32"]


VisionPrecision = Literal["fp32", "fp16", "int8", "int8_dynamic"]


@dataclass(frozen=True)
class VisionSpec:
    """Vision tower, pixel shuffle and projector as ONNX: pixel_values [1, 3, S, S] -> [1, tokens, hidden]."""

    file: str
    precision: VisionPrecision
    image_size: int
    tokens: int


@dataclass(frozen=True)
class TokenSpec:
    """Vocabulary ids of the special tokens; None or () where the model has none."""

    eos: int
    mot: int
    mot_end: int
    noop: int | None
    motion_ids: int
    img_context: int
    prop_context: int | None
    action_chunks: tuple[int, ...]

    def layout(self, parts: tuple[PartLayout, ...]) -> TokenLayout:
        """Raises ValueError if the ids and the parts of the motion tokenizer do not fit together."""
        return TokenLayout(eos=self.eos, mot=self.mot, mot_end=self.mot_end, noop=self.noop,
                           motion_ids=self.motion_ids, parts=parts)


@dataclass(frozen=True)
class PreprocessSpec:
    """The model's camera, and the one assumed for photos that come without intrinsics."""

    camera: Camera
    default_raw_camera: Camera


@dataclass(frozen=True)
class MotionSpec:
    """The motion tokenizer: one folder per part, in id order; `frames` of `fps` per block."""

    folders: tuple[str, ...]
    parts: tuple[PartLayout, ...]
    frames: int
    fps: float
    precision: Literal["fp32", "fp16"]

    def whole_hand(self) -> bool:
        """Whether the parts say all of a hand's motion: a wrist alone has ids, but moves nothing."""
        return sorted(part.name for part in self.parts) in (["finger", "wrist"], ["whole"])


@dataclass(frozen=True)
class HandModelSpec:
    """A MANO-shaped hand model (.npz) with the shape it is used with; `label` says whose it is."""

    file: str
    betas: tuple[float, ...]
    label: str


@dataclass(frozen=True)
class RobotSpec:
    """Robot (Align) mode: proprioception in, joint actions out; weights as safetensors.

    state_names, action_names, statistics: as the checkpoint told them, else empty. Statistics are for the user; the
    published model neither normalises states nor actions, and neither do we.
    """

    file: str
    proprio_dim: int
    action_dim: int
    chunk_length: int
    gen_action_type: Literal["action_token", "prop_hidden", "last_hidden"]
    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    statistics: dict[str, Any] = dataclasses.field(default_factory=dict)

    def tensor_shapes(self, hidden: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor in the file (names as in the checkpoint)."""
        half = hidden // 2
        out = self.action_dim * (1 if self.gen_action_type == "action_token" else self.chunk_length)
        return {
            "proprio_encoder.0.weight": (half, self.proprio_dim), "proprio_encoder.0.bias": (half,),
            "proprio_encoder.2.weight": (hidden, half), "proprio_encoder.2.bias": (hidden,),
            "action_decoder.0.weight": (half, hidden), "action_decoder.0.bias": (half,),
            "action_decoder.2.weight": (out, half), "action_decoder.2.bias": (out,),
        }


@dataclass(frozen=True)
class FileEntry:
    """A file of the bundle: its path in it, its size in bytes, its SHA-256 as hexadecimal digits."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything manifest.json says. Paths are relative to the bundle, with forward slashes."""

    format: str
    revision: int
    name: str
    template: str
    tokenizer: str | None
    max_seconds: int
    language: LanguageSpec
    embeddings: EmbeddingsSpec
    vision: VisionSpec
    tokens: TokenSpec
    preprocess: PreprocessSpec
    motion: MotionSpec | None
    hands: dict[str, HandModelSpec]
    robot: RobotSpec | None
    files: tuple[FileEntry, ...]
    licence: str
    provenance: dict[str, Any]

    def layout(self) -> TokenLayout:
        """Where motion ids stand. Raises ValueError as TokenSpec.layout."""
        return self.tokens.layout(self.motion.parts if self.motion else ())

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def referenced(self) -> Iterator[str]:
        """Every single file the fields above name (the motion folders hold more)."""
        yield from (self.language.file, self.embeddings.file, self.vision.file)
        if self.tokenizer is not None:
            yield self.tokenizer
        if self.robot is not None:
            yield self.robot.file
        yield from (hand.file for hand in self.hands.values())


@dataclass(frozen=True)
class Bundle:
    """An opened, checked bundle."""

    root: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Opens a bundle directory, or a packaged bundle by name ("nano"), and checks all of it.

        Checked: revision, every file's presence, size and SHA-256, that no path leaves the directory, tensor
        names and shapes, finite values. Raises BundleError naming the file, what was expected and what was
        got.
        """
        root = packaged(path)
        bundle = cls(root, _read_manifest(root))
        bundle._check_files()
        bundle._check_contents()
        return bundle

    def path(self, relative: str) -> Path:
        """The file or folder in this bundle. Raises BundleError if the path would leave it."""
        return _inside(self.root, relative)

    def verify(self) -> None:
        """What `open` checks, once more, and that nothing else lies in the directory. Raises BundleError."""
        self._check_files()
        self._check_contents()
        listed = {entry.path for entry in self.manifest.files} | {MANIFEST}
        for found in sorted(self.root.rglob("*")):
            relative = found.relative_to(self.root).as_posix()
            if not found.is_dir() and relative not in listed:
                raise BundleError(f"{found}: not a file of this bundle", str(found))

    def inspect(self) -> dict[str, Any]:
        """The manifest's facts and the types the language model's tensors really have, for people."""
        header = read_gguf_header(self.path(self.manifest.language.file))
        counts: dict[str, int] = {}
        for kind in header.types.values():
            counts[kind] = counts.get(kind, 0) + 1
        facts = dataclasses.asdict(self.manifest)
        facts["path"] = str(self.root)
        facts["language"]["tensor_types"] = counts
        facts["total_bytes"] = sum(entry.size for entry in self.manifest.files)
        return facts

    def _check_files(self) -> None:
        for entry in self.manifest.files:
            path = self.path(entry.path)
            if not path.is_file():
                raise BundleError(f"{path}: missing; expected a file of {entry.size} bytes", str(path))
            size = path.stat().st_size
            if size != entry.size:
                raise BundleError(f"{path}: expected {entry.size} bytes, got {size}", str(path))
            digest = sha256_of(path)
            if digest != entry.sha256:
                raise BundleError(f"{path}: expected sha256 {entry.sha256}, got {digest}", str(path))

    def _check_contents(self) -> None:
        m = self.manifest
        self._check_language()
        path = self.path(m.embeddings.file)
        try:
            table = np.lib.format.open_memmap(path, mode="r")
        except (ValueError, OSError, EOFError, tokenize.TokenError) as error:
            raise BundleError(f"{path}: not a .npy table ({error})", str(path)) from error
        got = f"{table.dtype}{list(table.shape)}"
        expected = f"{m.embeddings.dtype}[{m.embeddings.rows}, {m.embeddings.hidden}]"
        if got != expected:
            raise BundleError(f"{path}: expected {expected}, got {got}", str(path))
        for start in range(0, len(table), 4096):
            if not np.isfinite(table[start : start + 4096]).all():
                raise BundleError(f"{path}: values that are not finite near row {start}", str(path))

    def _check_language(self) -> None:
        language = self.manifest.language
        path = self.path(language.file)
        header = read_gguf_header(path)
        expected = language.tensor_shapes()
        problems = [f"missing {name}" for name in expected if name not in header.shapes]
        problems += [f"unexpected {name}" for name in header.shapes if name not in expected]
        problems += [f"{name} is {list(header.shapes[name])} instead of {list(shape)}"
                     for name, shape in expected.items() if header.shapes.get(name, shape) != shape]
        problems += [f"{key} is {header.metadata.get(key)} instead of {value}"
                     for key, value in language.metadata().items() if header.metadata.get(key) != value]
        if problems:
            raise BundleError(f"{path}: it does not fit the manifest: {'; '.join(problems)}", str(path))


def sha256_of(path: Path) -> str:
    """Hexadecimal digits of a file's SHA-256. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def describe_files(root: Path) -> tuple[FileEntry, ...]:
    """The entry of every file below root except the manifest, sorted by path."""
    return tuple(
        FileEntry(path.relative_to(root).as_posix(), path.stat().st_size, sha256_of(path))
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).as_posix() != MANIFEST)


def _read_manifest(root: Path) -> Manifest:
    path = root / MANIFEST
    if not root.is_dir():
        raise BundleError(
            f"{root}: no such bundle directory (packaged bundles: {', '.join(PACKAGED)})", str(root))
    if not path.is_file():
        raise BundleError(f"{path}: missing; {root} is not a bundle", str(path))
    if path.stat().st_size > _LARGEST_MANIFEST:
        raise BundleError(
            f"{path}: expected at most {_LARGEST_MANIFEST} bytes, got {path.stat().st_size}", str(path))
    try:
        data = json.loads(path.read_bytes(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not valid JSON ({error})", str(path)) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BundleError(f"{path}: expected format {FORMAT!r}; this is not a bundle manifest", str(path))
    if data.get("revision") != REVISION:
        raise BundleError(f"{path}: expected revision {REVISION}, got {data.get('revision')!r}; convert the "
                          "checkpoint again with this version", str(path))
    try:
        manifest = from_json(Manifest, data)
        _check_manifest(root, manifest)
    except ValueError as error:
        raise BundleError(f"{path}: {error}", str(path)) from error
    return manifest


def _check_manifest(root: Path, m: Manifest) -> None:
    """Raises ValueError, or BundleError for a path that leaves the directory."""
    listed = {entry.path for entry in m.files}
    for name in m.referenced():
        if name not in listed:
            raise ValueError(f"{name!r} is used but not listed in files")
    for relative in [*listed, *(m.motion.folders if m.motion else ())]:
        _inside(root, relative)
    m.layout()
    if not 1 <= m.language.layers <= _MOST_LAYERS:
        raise ValueError(f"language.layers: expected 1 to {_MOST_LAYERS}, got {m.language.layers}")
    if m.max_seconds < 1:
        raise ValueError(f"max_seconds: expected at least 1, got {m.max_seconds}")
    if m.motion and len(m.motion.folders) != len(m.motion.parts):
        raise ValueError(f"motion: {len(m.motion.folders)} folders for {len(m.motion.parts)} parts")
    if m.embeddings.hidden != m.language.hidden:
        raise ValueError(f"embeddings.hidden: expected {m.language.hidden}, got {m.embeddings.hidden}")
    for side, hand in m.hands.items():
        if side not in ("left", "right") or len(hand.betas) != 10:
            raise ValueError(
                f"hands: expected 'left' and 'right' with 10 betas, got {side!r} with {len(hand.betas)}")


def _inside(root: Path, relative: str) -> Path:
    pure = PurePosixPath(relative)
    leaves = pure.is_absolute() or ".." in pure.parts or "\\" in relative or not pure.parts
    path = root / pure
    if leaves or not path.resolve().is_relative_to(root.resolve()):
        raise BundleError(f"{root / MANIFEST}: the path {relative!r} leaves the bundle", str(root / MANIFEST))
    return path


# ------------------------------------------------------------------------------------ dataclasses from JSON


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _from_json(kind: Any, value: Any, where: str) -> Any:
    """`value` as an instance of the annotated type. Raises ValueError saying where it does not fit."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return _dataclass_from_json(kind, value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_from_json(args[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {key: _from_json(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if origin is types.UnionType:  # X | None
        return None if value is None else _from_json(args[0], value, where)
    if origin is Literal and value in args:
        return value
    if kind is float and type(value) in (int, float) and math.isfinite(value):
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    expected = " or ".join(map(repr, args)) if origin is Literal else getattr(kind, "__name__", str(kind))
    raise ValueError(f"{where}: expected {expected}, got {value!r}")


def from_json(kind: type[T], data: Any) -> T:
    """A dataclass from JSON's values. Raises ValueError saying where they do not fit; unknown fields do not."""
    return _dataclass_from_json(kind, data, "")


def _dataclass_from_json(kind: type[T], value: Any, where: str) -> T:
    hints: dict[str, Any] = _hints(typing.cast(typing.Hashable, kind))
    if not isinstance(value, dict):
        raise ValueError(f"{where}: expected an object, got {value!r}")
    optional = {field.name for field in dataclasses.fields(kind)  # type: ignore[arg-type]
                if (field.default, field.default_factory) != (dataclasses.MISSING, dataclasses.MISSING)}
    wrong = [f"missing {name!r}" for name in hints if name not in value and name not in optional]
    wrong += [f"unknown {name!r}" for name in value if name not in hints]
    if wrong:
        raise ValueError(f"{where}: {', '.join(wrong)}" if where else ", ".join(wrong))
    prefix = f"{where}." if where else ""
    return kind(**{name: _from_json(hint, value[name], prefix + name) for name, hint in hints.items() if name in value})


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
