"""Motion tokenizer folders (wrist, finger) as a bundle keeps them: official files, weights as safetensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from beingh0_edge.bundle import MotionSpec
from beingh0_edge.errors import BundleError
from beingh0_edge.tokens import PartLayout

from .tensor_files import SafetensorsFile, TensorFile

ARGS, META, MASK = "motion_args.json", "motion_meta.json", "meta_mask.json"
WEIGHTS = "net_best_mpjpe.safetensors"
_NAMES = ("overfit", "net_best_mpjpe", "net_best_mpjpe_labeling")
# Training state that no decoder or encoder reads.
_DROPPED = ("embed_avg", "cluster_size", "initted", "num_batches_tracked")


def write_motion(folders: list[Path], out: Path) -> MotionSpec:
    """Copies the parts into out/motion/<part>, in order, and returns what the manifest says about them."""
    parts, names, frames, fps = [], [], set(), set()
    for folder in folders:
        args = _read_args(folder / ARGS)
        part = part_layout(args, folder.name)
        if part.name in names:
            raise BundleError(f"{folder}: a second folder of part {part.name!r}", str(folder))
        target = out / "motion" / part.name
        target.mkdir(parents=True)
        for name in (ARGS, META, MASK):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, target / name)
            elif name != MASK:
                raise BundleError(f"{folder / name}: missing", str(folder / name))
        _write_weights(_open(folder), target / WEIGHTS)
        parts.append(part)
        names.append(part.name)
        frames.add(int(args["window_size"]))
        fps.add(float(args["fps"]))
    if len(frames) != 1 or len(fps) != 1:
        raise BundleError(f"{folders[0].parent}: the parts disagree on window_size {sorted(frames)} or fps "
                          f"{sorted(fps)}", str(folders[0].parent))
    return MotionSpec(tuple(f"motion/{name}" for name in names), tuple(parts), frames.pop(), fps.pop())


def part_layout(args: dict[str, Any], name: str) -> PartLayout:
    """The id layout of a part from its motion_args.json."""
    grouped = args["quantizer_name"] == "group_residualvq"
    if not grouped and args["quantizer_name"] != "residualvq":
        raise BundleError(f"{ARGS}: expected quantizer_name 'group_residualvq' or 'residualvq', got "
                          f"{args['quantizer_name']!r}")
    unit, window = 2 ** int(args["down_t"]), int(args["window_size"])
    extra = unit - window % unit  # a whole unit when the window divides evenly, as the published code does
    return PartLayout(
        name=args.get("use_part") or name, groups=int(args["num_quant_groups"]) if grouped else 1,
        steps=(window + extra) // unit, layers=int(args["num_quantizers"]), codes=int(args["nb_code"]),
        shared=bool(args["shared_codebook"]))


def _read_args(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BundleError(f"{path}: missing; a motion tokenizer folder needs it", str(path))
    try:
        args = json.loads(path.read_bytes())
        keys = (
            "window_size",
            "fps",
            "down_t",
            "quantizer_name",
            "nb_code",
            "num_quantizers",
            "num_quant_groups",
            "shared_codebook",
        )
        if missing := [key for key in keys if key not in args]:
            raise ValueError(f"lacks {', '.join(missing)}")
    except (ValueError, TypeError) as error:
        raise BundleError(f"{path}: {error}", str(path)) from error
    return dict(args)


def _open(folder: Path) -> TensorFile:
    for name in _NAMES:
        if (folder / f"{name}.safetensors").is_file():
            return SafetensorsFile(folder / f"{name}.safetensors")
    raise BundleError(f"{folder}: no weights; expected {_NAMES[1]}.safetensors", str(folder))


def _write_weights(source: TensorFile, path: Path) -> None:
    from safetensors.numpy import save_file

    values = {}
    for name in source.tensors:
        if name.endswith(_DROPPED):
            continue
        value = source.read(name)
        if not np.isfinite(value).all():
            raise BundleError(f"{source.path}: values that are not finite in {name}", str(source.path))
        values[name] = np.ascontiguousarray(value, np.float32)
    save_file(values, str(path))
