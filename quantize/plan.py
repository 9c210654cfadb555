"""What a conversion would read and write, from the headers alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import beingh0_edge
from beingh0_edge.errors import BundleError
from beingh0_edge.types import SIDES

from .build import Choices, language_vocabulary
from .checkpoint import EMBEDDING, PROJECTOR, VISION, Checkpoint, Progress, robot_spec
from .motion_folder import motion_args, plan_motion
from .quant_types import row_bytes, tensor_type
from .sources import source_files
from .vocabulary import find_tokens
from .write_gguf import language_spec
from .write_mmproj import check_mmproj


@dataclass(frozen=True)
class Plan:
    """Names and bytes. `writes` counts the values; headers, manifest, card and report come on top.

    types  how many language model tensors become what
    """

    reads: dict[str, int]
    writes: dict[str, int]
    types: dict[str, int]


def plan_bundle(checkpoint_dir: str | Path, choices: Choices, *, headers_only: bool = True,
                progress: Progress | None = None) -> Plan:
    """Checks everything that a conversion checks except the values themselves. Raises as `build_bundle`.

    headers_only, progress  for checkpoints that do not fit, see Checkpoint
    """
    source = Path(checkpoint_dir)
    folders = choices.folders(source)
    checkpoint = Checkpoint(source, motion_args(folders), headers_only=headers_only, progress=progress)
    config = checkpoint.config
    writes: dict[str, int] = {}
    with TemporaryDirectory() as scratch:
        tokens, tokenizer = find_tokens(source, config, Path(scratch))
        if tokenizer:
            writes[tokenizer.name] = tokenizer.stat().st_size
    motion, motion_bytes = plan_motion(folders, checkpoint, choices.motion)
    vocabulary = language_vocabulary(checkpoint, tokens, motion, choices.layout)
    shapes = language_spec(checkpoint, "language.gguf", vocabulary, choices.quant).tensor_shapes()
    types = {name: tensor_type(name, shape, choices.quant, config.language.layers, choices.overrides)
             for name, shape in shapes.items()}
    writes["language.gguf"] = sum(prod(shape[:-1]) * row_bytes(types[name], shape[-1])
                                  for name, shape in shapes.items())
    writes["text_embeddings.npy"] = prod(checkpoint.shape(EMBEDDING)) * (4 if choices.quant == "F32" else 2)
    writes["vision.onnx"] = _vision_bytes(checkpoint, choices.vision)
    writes |= motion_bytes
    if choices.mmproj:
        check_mmproj(checkpoint, choices.mmproj)
        writes["mmproj.gguf"] = _vision_bytes(checkpoint, choices.mmproj)
    if config.robot:
        spec = robot_spec(config.robot)
        writes[spec.file] = 4 * sum(map(prod, spec.tensor_shapes(config.language.hidden).values()))
    for side, path in _hand_files(choices).items():
        writes[f"hands/{side}.npz"] = path.stat().st_size
    reads = {name: path.stat().st_size for name, path in source_files(checkpoint, folders, choices.hands).items()}
    return Plan(reads, writes, dict(Counter(types.values())))


def _vision_bytes(checkpoint: Checkpoint, precision: str) -> int:
    width = {"fp32": 4, "fp16": 2, "int8": 1, "int8_dynamic": 1,
             "F32": 4, "F16": 2, "BF16": 2, "Q8_0": 34 / 32}[precision]
    last = checkpoint.config.vision.layers
    used = [name for name in checkpoint.names() if name.startswith((VISION, PROJECTOR))
            and not any(name.startswith(f"{VISION}encoder.layers.{i}.")
                        for i in range(last, checkpoint.config.vision.stored_layers))]
    shapes = [checkpoint.shape(name) for name in used]
    matrices = [name.endswith(".weight") and len(shape) > 1 for name, shape in zip(used, shapes, strict=True)]
    return sum(int(prod(shape) * (width if matrix else 4)) for shape, matrix in zip(shapes, matrices, strict=True))


def _hand_files(choices: Choices) -> dict[str, Path]:
    if choices.hands is None:
        assets = Path(beingh0_edge.__file__).parent / "assets" / "hands"
        return {side: assets / f"synthetic_{side}.npz" for side in SIDES}
    paths = {side: Path(path) for side, path in choices.hands.items()}
    for path in paths.values():
        if not path.is_file():
            raise BundleError(f"{path}: no such hand model", str(path))
    return paths
