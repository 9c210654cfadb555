"""Motion tokenizer folders (wrist, finger) as a bundle keeps them: official files, weights as safetensors.

The weights come from the published folders or, where a checkpoint carries them, from its `motion_adapter.*`
tensors; the published loader lets the latter win, and so do we.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from beingh0_edge.bundle import MotionSpec
from beingh0_edge.errors import BundleError
from beingh0_edge.files import read_json
from beingh0_edge.motion_tokenizer import MotionTokenizer
from beingh0_edge.tokens import PartLayout
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
    args: dict[str, Any]
    meta: dict[str, Any]
    mask: dict[str, Any] | None
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], FloatArray]

    def kept(self) -> list[str]:
        """The tensors that a bundle needs."""
        return [name for name in sorted(self.shapes) if not name.endswith(TRAINING_STATE)]


def write_motion(folders: list[Path], checkpoint: Checkpoint, out: Path,
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


def plan_motion(folders: list[Path], checkpoint: Checkpoint,
                precision: Literal["fp32", "fp16"]) -> tuple[MotionSpec | None, dict[str, int]]:
    """What `write_motion` would return, and folder -> bytes that it would write there. Writes nothing."""
    parts = _read_parts(folders, checkpoint)
    if not parts:
        return None, {}
    spec = _spec(parts, precision)
    width = 2 if precision == "fp16" else 4
    return spec, {folder: sum(width * prod(part.shapes[name]) for name in part.kept())
                  for part, folder in zip(parts, spec.folders, strict=True)}


def _read_parts(folders: list[Path], checkpoint: Checkpoint) -> list[_Part]:
    parts = [_from_folder(folder) for folder in folders]
    _check_order(parts, checkpoint)
    carried = _carried_parts(checkpoint)
    if carried:
        args = [part.args for part in parts] or checkpoint.config.motion_args
        if len(args) != len(carried):
            raise BundleError(f"{checkpoint.folder}: carries {len(carried)} motion parts, got "
                              f"{len(args)} descriptions of them", str(checkpoint.folder))
        parts = [_from_checkpoint(checkpoint, key, args[i]) for i, key in enumerate(carried)]
    return parts


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
    layouts = [part_layout(part.args, part.origin) for part in parts]
    names = [layout.name for layout in layouts]
    if len(set(names)) != len(names):
        raise BundleError(
            f"{parts[0].origin}: two motion parts with one name: {', '.join(names)}", parts[0].origin
        )
    frames = {int(part.args["window_size"]) for part in parts}
    fps = {float(part.args["fps"]) for part in parts}
    if len(frames) != 1 or len(fps) != 1:
        raise BundleError(f"{parts[0].origin}: the parts disagree on window_size {sorted(frames)} or fps "
                          f"{sorted(fps)}", parts[0].origin)
    return MotionSpec(tuple(f"motion/{name}" for name in names), tuple(layouts), frames.pop(), fps.pop(),
                      precision)


def files_of(folder: Path) -> list[Path]:
    """The files of a motion tokenizer folder that are read. Raises BundleError if it has no weights."""
    names = [folder / name for name in (ARGS, META, MASK) if (folder / name).is_file()]
    return [*names, _open(folder).path]


def part_layout(args: dict[str, Any], origin: str) -> PartLayout:
    """The id layout of a part from its motion_args.json; a part that is the whole hand is called "whole"."""
    grouped = args.get("quantizer_name") == "group_residualvq"
    keys = ["window_size", "fps", "down_t", "quantizer_name", "nb_code", "num_quantizers", "shared_codebook"]
    if missing := [key for key in [*keys, *(["num_quant_groups"] if grouped else [])] if key not in args]:
        raise BundleError(f"{origin}: {ARGS} lacks {', '.join(missing)}", origin)
    if not grouped and args["quantizer_name"] != "residualvq":
        raise BundleError(f"{origin}: expected quantizer_name 'group_residualvq' or 'residualvq', got "
                          f"{args['quantizer_name']!r}", origin)
    try:
        unit, window = 2 ** int(args["down_t"]), int(args["window_size"])
        extra = (
            unit - window % unit
        )  # a whole unit when the window divides evenly, as the published code does
        return PartLayout(
            name=args.get("use_part") or "whole", groups=int(args["num_quant_groups"]) if grouped else 1,
            steps=(window + extra) // unit, layers=int(args["num_quantizers"]), codes=int(args["nb_code"]),
            shared=bool(args["shared_codebook"]))
    except (TypeError, ValueError) as error:
        raise BundleError(f"{origin}: {ARGS}: {error}", origin) from error


def _from_folder(folder: Path) -> _Part:
    file = _open(folder)
    mask = read_json(folder / MASK) if (folder / MASK).is_file() else None
    return _Part(
        str(folder), str(file.path), _described(folder / ARGS), _described(folder / META), mask,
        {name: info.shape for name, info in file.tensors.items()}, file.read
    )


def _check_order(parts: list[_Part], checkpoint: Checkpoint) -> None:
    """The order of the folders is the order of the ids; where config.json tells it too, they must agree."""
    given = [part.args.get("use_part") for part in parts]
    told = [args.get("use_part") for args in checkpoint.config.motion_args]
    if given != told and sorted(map(str, given)) == sorted(map(str, told)):
        raise BundleError(f"{checkpoint.folder}: expected the motion tokenizer folders in the order of config.json, "
                          f"{' + '.join(map(str, told))}, got {' + '.join(map(str, given))}", str(checkpoint.folder))


def _carried_parts(checkpoint: Checkpoint) -> list[str]:
    """The keys under motion_adapter.motion_model, in part order: ["0", "1"] or [""] for a single model."""
    prefix = MOTION + "motion_model."
    keys = {name.removeprefix(prefix).split("model.")[0].rstrip(".")
            for name in checkpoint.names() if name.startswith(prefix)}
    return sorted(keys)


def _from_checkpoint(checkpoint: Checkpoint, key: str, args: dict[str, Any]) -> _Part:
    tail = f".{key}" if key else ""
    prefix = f"{MOTION}motion_model{tail}."
    statistics = [f"{MOTION}motion_{kind}{tail}" for kind in ("mean", "std")]
    names = set(checkpoint.names())
    if missing := [name for name in statistics if name not in names]:
        raise BundleError(f"{checkpoint.folder}: missing {', '.join(missing)}", str(checkpoint.folder))
    mean, std = (checkpoint.tensor(name).reshape(-1).tolist() for name in statistics)
    return _Part(
        str(checkpoint.folder), f"{checkpoint.folder}: {prefix}*", args, {"mean": mean, "std": std},
        {"meta_mask": None},
        {name.removeprefix(prefix): checkpoint.shape(name) for name in names if name.startswith(prefix)},
        lambda name: checkpoint.tensor(prefix + name))


def _described(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BundleError(f"{path}: missing; a motion tokenizer folder needs it", str(path))
    return read_json(path)


def _open(folder: Path) -> TensorFile:
    if not folder.is_dir():
        raise BundleError(f"{folder}: no such motion tokenizer folder", str(folder))
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
    contents = {ARGS: part.args, META: part.meta} | ({MASK: part.mask} if part.mask is not None else {})
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
