"""Motion tokenizer folders (wrist, finger) as a bundle keeps them: official files, weights as safetensors.

The weights come from the published folders or, where a checkpoint carries them, from its `motion_adapter.*`
tensors; the published loader lets the latter win, and so do we.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from beingh0_edge.bundle import MotionSpec
from beingh0_edge.errors import BundleError
from beingh0_edge.files import read_json
from beingh0_edge.motion_tokenizer import MotionTokenizer
from beingh0_edge.tokenizer_folder import MotionArgs
from beingh0_edge.types import FloatArray

from .checkpoint import MOTION, TRAINING_STATE, Checkpoint
from .tensor_files import SafetensorsFile, TensorFile
from .torch_file import TorchFile

ARGS, META, MASK = "motion_args.json", "motion_meta.json", "meta_mask.json"
WEIGHTS = "net_best_mpjpe.safetensors"
_NAMES = ("overfit", "net_best_mpjpe", "net_best_mpjpe_labeling")


@dataclass(frozen=True)
class _Part:
    """One part's files: the JSON contents, and its tensors by name. origin, weights: what errors call them."""

    origin: str
    weights: str
    args: MotionArgs
    meta: dict[str, Any]
    mask: dict[str, Any] | None
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], FloatArray]

    def kept(self) -> list[str]:
        """The tensors that a bundle needs."""
        return [name for name in sorted(self.shapes) if not name.endswith(TRAINING_STATE)]


def write_motion(folders: Sequence[Path], checkpoint: Checkpoint, out: Path,
                 precision: Literal["fp32", "fp16"]) -> MotionSpec | None:
    """Writes the parts into out/motion/<part>, in id order, and returns what the manifest says about them.

    folders    published folders (wrist, finger), maybe none
    precision  how the weights are stored; they are computed with in float32
    Returns    None if neither the folders nor the checkpoint hold a motion tokenizer.
    """
    parts = _read_parts(folders, checkpoint)
    if not parts:
        return None
    spec = _spec(parts, precision)
    for part, folder in zip(parts, spec.folders, strict=True):
        _write(part, out / folder, np.dtype(np.float16 if precision == "fp16" else np.float32))
    _try_out(parts, [out / folder for folder in spec.folders])
    return spec


def plan_motion(folders: Sequence[Path], checkpoint: Checkpoint,
                precision: Literal["fp32", "fp16"]) -> tuple[MotionSpec | None, dict[str, int]]:
    """What `write_motion` would return, and folder -> bytes that it would write there. Writes nothing."""
    parts = _read_parts(folders, checkpoint)
    if not parts:
        return None, {}
    spec = _spec(parts, precision)
    width = 2 if precision == "fp16" else 4
    return spec, {folder: sum(width * prod(part.shapes[name]) for name in part.kept())
                  for part, folder in zip(parts, spec.folders, strict=True)}


def motion_args(folders: Sequence[Path]) -> list[MotionArgs]:
    """What the folders say about their parts. Raises BundleError naming one that is missing or cannot be read."""
    for folder in folders:
        if not folder.is_dir():
            raise BundleError(f"{folder}: no such motion tokenizer folder", str(folder))
    return [MotionArgs(_described(folder / ARGS), folder / ARGS) for folder in folders]


def _read_parts(folders: Sequence[Path], checkpoint: Checkpoint) -> list[_Part]:
    args = motion_args(folders)
    _check_order(args, checkpoint)
    if checkpoint.carried:
        return [_from_checkpoint(checkpoint, key, part) for key, part in checkpoint.carried.items()]
    return [_from_folder(folder, part) for folder, part in zip(folders, args, strict=True)]


def _try_out(parts: list[_Part], folders: list[Path]) -> None:
    """Loads what was written as the runtime will. Raises its error with the names of the files that were read."""
    try:
        MotionTokenizer.load(*folders)
    except BundleError as error:
        text = str(error)
        for part, folder in zip(parts, folders, strict=True):
            text = text.replace(str(folder / WEIGHTS), part.weights).replace(str(folder), part.origin)
        raise BundleError(text, parts[0].origin) from error


def _spec(parts: list[_Part], precision: Literal["fp32", "fp16"]) -> MotionSpec:
    found = [part.args.geometry(0, 0) for part in parts]
    names = [part.name for part in found]
    if len(set(names)) != len(names):
        raise BundleError(
            f"{parts[0].origin}: two motion parts with one name: {', '.join(names)}", parts[0].origin
        )
    first = found[0]
    for source, part in zip(parts, found, strict=True):
        if (part.window, part.fps) != (first.window, first.fps):
            raise BundleError(f"{source.args.file}: expected window_size {first.window} and fps {first.fps:g} as in "
                              f"{parts[0].args.file}, got {part.window} and {part.fps:g}", str(source.args.file))
    return MotionSpec(tuple(f"motion/{name}" for name in names), tuple(part.layout for part in found), first.window,
                      first.fps, precision)


def files_of(folder: Path) -> list[Path]:
    """The files of a motion tokenizer folder that are read. Raises BundleError if it has no weights."""
    names = [folder / name for name in (ARGS, META, MASK) if (folder / name).is_file()]
    return [*names, _open(folder).path]


def _from_folder(folder: Path, args: MotionArgs) -> _Part:
    file = _open(folder)
    mask = read_json(folder / MASK) if (folder / MASK).is_file() else None
    return _Part(
        str(folder), str(file.path), args, _described(folder / META), mask,
        {name: info.shape for name, info in file.tensors.items()}, file.read
    )


def _check_order(parts: list[MotionArgs], checkpoint: Checkpoint) -> None:
    """The order of the folders is the order of the ids; where config.json tells it too, they must agree."""
    given = [part.values.get("use_part") for part in parts]
    told = [args.get("use_part") for args in checkpoint.config.motion_args]
    if given != told and sorted(map(str, given)) == sorted(map(str, told)):
        raise BundleError(f"{checkpoint.folder}: expected the motion tokenizer folders in the order of config.json, "
                          f"{' + '.join(map(str, told))}, got {' + '.join(map(str, given))}", str(checkpoint.folder))


def _from_checkpoint(checkpoint: Checkpoint, key: str, args: MotionArgs) -> _Part:
    tail = f".{key}" if key else ""
    prefix = f"{MOTION}motion_model{tail}."
    statistics = [f"{MOTION}motion_{kind}{tail}" for kind in ("mean", "std")]
    mean, std = (checkpoint.tensor(name).reshape(-1).tolist() for name in statistics)
    return _Part(
        str(checkpoint.folder), f"{checkpoint.folder}: {prefix}*", args, {"mean": mean, "std": std},
        {"meta_mask": None},
        {name.removeprefix(prefix): checkpoint.shape(name) for name in checkpoint.names() if name.startswith(prefix)},
        lambda name: checkpoint.tensor(prefix + name))


def _described(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BundleError(f"{path}: missing; a motion tokenizer folder needs it", str(path))
    return read_json(path)


def _open(folder: Path) -> TensorFile:
    for name in _NAMES:
        if (safe := folder / f"{name}.safetensors").is_file():
            return SafetensorsFile(safe)
        if (pickled := folder / f"{name}.pth").is_file():
            file = TorchFile(pickled)
            file.verify()
            return file
    raise BundleError(
        f"{folder}: no weights; expected {_NAMES[1]}.pth or {_NAMES[1]}.safetensors", str(folder)
    )


def _write(part: _Part, folder: Path, dtype: np.dtype[Any]) -> None:
    from safetensors.numpy import save_file

    values = {}
    for name in part.kept():
        with np.errstate(over="ignore"):
            value = np.ascontiguousarray(part.read(name), dtype)
        if not np.isfinite(value).all():
            raise BundleError(f"{part.origin}: values that are not finite as {dtype} in {name}", part.origin)
        values[name] = value
    folder.mkdir(parents=True)
    save_file(values, str(folder / WEIGHTS))
    contents = {ARGS: part.args.values, META: part.meta} | ({MASK: part.mask} if part.mask is not None else {})
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
