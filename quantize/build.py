"""Checkpoint folder -> bundle."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import beingh0_edge
from beingh0_edge.bundle import (
    FORMAT,
    MANIFEST,
    REVISION,
    Bundle,
    Manifest,
    MotionSpec,
    PreprocessSpec,
    RobotSpec,
    TokenSpec,
    VisionPrecision,
    describe_files,
    sha256_of,
)
from beingh0_edge.errors import BackendError, BundleError
from beingh0_edge.files import replace_folder
from beingh0_edge.tokens import Vocabulary
from beingh0_edge.types import FloatArray

from .card import write_card
from .checkpoint import Checkpoint, Progress, robot_spec
from .edge_file import read_edge
from .hand_files import write_hands
from .importance import IMATRIX, Importance, check_importance, save_importance
from .motion_folder import motion_args, write_motion
from .quant_types import QUANTS
from .sources import default_folders, source_files
from .vocabulary import find_tokens
from .write_gguf import language_spec, write_embeddings, write_gguf
from .write_mmproj import MMPROJ_TYPES, check_mmproj, write_mmproj
from .write_onnx import VISION_CHOICES, VISION_PRECISIONS, write_vision

Calibration = Callable[[PreprocessSpec, int], Sequence[FloatArray]]

log = logging.getLogger(__name__)


def build_bundle(
    checkpoint_dir: str | Path, out_dir: str | Path, *, layout: Literal["trimmed", "full"] = "trimmed",
    quant: str = "Q8_0", vision: VisionPrecision = "fp16", motion: Literal["fp32", "fp16"] = "fp32",
    tokenizer_folders: Sequence[str | Path] | None = None, hands: Mapping[str, str | Path] | None = None,
    overrides: Mapping[str, str] | None = None, importance: Importance | None = None, mmproj: str | None = None,
    overwrite: bool = False, progress: Progress | None = None, origin: str | None = None,
    calibration: Calibration | None = None, provenance: Mapping[str, Any] | None = None,
) -> Bundle:
    """Converts a checkpoint folder to a bundle, checks the result, and returns it opened.

    layout             "trimmed": the language model keeps only motion ids and markers; "full": the whole
                       vocabulary
    quant              see quant_types.QUANTS
    vision, motion     how the weights of vision tower and motion tokenizer are stored; computed in float32,
                       but with vision "int8" and "int8_dynamic" the products with weights are computed in
                       8 bits
    tokenizer_folders  motion tokenizer folders in id order (wrist, finger); default: motion/wrist and
                       motion/finger of the checkpoint, if it has them
    hands              side -> hand model (.npz, or MANO_LEFT/RIGHT.pkl); default: the packaged synthetic
    hands
    overrides          glob of GGUF tensor names -> type
    importance         of the columns, for the quantizer; kept in the bundle as imatrix.gguf
    mmproj             type of a vision file for llama.cpp's own tools, mmproj.gguf; None: no such file
    overwrite          replace a bundle that is already there
    progress           called with (bytes done, bytes in all, what)
    origin             what to call the checkpoint in card and manifest; default: its folder's name
    calibration        for vision "int8": called with the model's cameras and picture size S, returns pictures
                       float32[3, S, S], normalised
    provenance         more facts for the manifest
    Raises             BundleError saying what is wrong with the checkpoint; ValueError for wrong arguments.

    Everything is written to a temporary folder beside `out_dir` and renamed at the end.
    """
    choices = Choices(layout, quant, vision, motion, tokenizer_folders, hands, overrides or {}, importance, mmproj,
                      provenance or {})
    require("gguf", "onnx")
    source, out = Path(checkpoint_dir), Path(out_dir)
    check_target(out, overwrite)
    started = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    work = out.parent / f".{out.name}.partial"
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir()
        manifest = _write(source, work, choices, progress, origin, calibration)
        (work / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        Bundle.open(work)  # the contract, read back
        replace_folder(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    size = sum(entry.size for entry in manifest.files)
    log.info("built %s: %.1f MB in %.1f s", out, size / 1e6, time.monotonic() - started)
    return Bundle(out, manifest)


def check_target(out: Path, overwrite: bool) -> None:
    """Raises BundleError if something lies at `out` that may not be replaced."""
    if out.exists() and not (out / MANIFEST).is_file():
        raise BundleError(f"{out}: already exists and is not a bundle", str(out))
    if out.exists() and not overwrite:
        raise BundleError(f"{out}: already exists; --overwrite (overwrite=True) replaces it", str(out))


@dataclass(frozen=True)
class Choices:
    """The arguments of build_bundle that decide what is written. Raises ValueError for one that cannot be."""

    layout: str
    quant: str
    vision: VisionPrecision
    motion: Literal["fp32", "fp16"]
    tokenizer_folders: Sequence[str | Path] | None
    hands: Mapping[str, str | Path] | None
    overrides: Mapping[str, str]
    importance: Importance | None = None
    mmproj: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.layout not in ("trimmed", "full"):
            raise ValueError(f"layout: expected 'trimmed' or 'full', got {self.layout!r}")
        if self.vision not in VISION_PRECISIONS:
            raise ValueError(f"vision: expected {VISION_CHOICES}, got {self.vision!r}")
        if self.motion not in ("fp32", "fp16"):
            raise ValueError(f"motion: expected 'fp32' or 'fp16', got {self.motion!r}")
        if self.quant not in QUANTS:
            raise ValueError(f"quant: expected one of {', '.join(QUANTS)}, got {self.quant!r}")
        if self.mmproj is not None and self.mmproj not in MMPROJ_TYPES:
            raise ValueError(f"mmproj: expected one of {', '.join(MMPROJ_TYPES)}, got {self.mmproj!r}")

    def folders(self, source: Path) -> list[Path]:
        """The motion tokenizer folders, in id order."""
        return [Path(folder) for folder in self.tokenizer_folders or default_folders(source)]


def _write(source: Path, work: Path, choices: Choices, progress: Progress | None, origin: str | None,
           calibration: Calibration | None) -> Manifest:
    folders = choices.folders(source)
    checkpoint = Checkpoint(source, motion_args(folders), progress=progress)
    config, edge = checkpoint.config, read_edge(source / "edge.json")
    tokens, tokenizer = find_tokens(source, config, work)
    motion = write_motion(folders, checkpoint, work, choices.motion)
    vocabulary = language_vocabulary(checkpoint, tokens, motion, choices.layout)
    hand_models = write_hands(choices.hands, edge.betas, work)
    if choices.mmproj:
        check_mmproj(checkpoint, choices.mmproj)
    weights = _importance(checkpoint, vocabulary, choices, work)
    checkpoint.check_values(progress)

    language = write_gguf(checkpoint, work / "language.gguf", vocabulary, choices.quant, tokenizer=tokenizer,
                          overrides=choices.overrides, importance=weights, progress=progress)
    embeddings = write_embeddings(checkpoint, work / "text_embeddings.npy", exact=choices.quant == "F32")
    preprocess = edge.cameras()
    frames = calibration(preprocess, config.image_size) if choices.vision == "int8" and calibration else ()
    tower = write_vision(checkpoint, work / "vision.onnx", choices.vision, progress, frames)
    if choices.mmproj:
        write_mmproj(checkpoint, work / "mmproj.gguf", choices.mmproj)
    robot = robot_spec(config.robot) if config.robot else None
    if robot:
        _write_robot(checkpoint, work, robot)

    manifest = Manifest(
        format=FORMAT,
        revision=REVISION,
        name=edge.name or origin or source.resolve().name,
        template=config.template,
        tokenizer="tokenizer.json" if tokenizer else None,
        max_seconds=edge.max_seconds,
        language=language,
        embeddings=embeddings,
        vision=tower,
        tokens=tokens,
        preprocess=preprocess,
        motion=motion,
        hands=hand_models,
        robot=robot,
        files=(),
        licence=edge.licence,
        provenance={
            "checkpoint": origin or source.name,
            "converted_by": f"beingh0_edge {beingh0_edge.__version__}",
            **({"overrides": dict(choices.overrides)} if choices.overrides else {}),
            **choices.provenance,
            **edge.provenance,
        },
    )
    sources = source_files(checkpoint, folders, choices.hands)
    write_card(work, manifest, {name: sha256_of(path) for name, path in sources.items()})
    return replace(manifest, files=describe_files(work))


def _importance(checkpoint: Checkpoint, vocabulary: Vocabulary, choices: Choices,
                work: Path) -> dict[str, FloatArray] | None:
    """The weights for the quantizer, after a look whether they are of this model; their file goes into the bundle."""
    if choices.importance is None:
        return None
    weights = choices.importance.weights()
    shapes = language_spec(checkpoint, "language.gguf", vocabulary, choices.quant).tensor_shapes()
    check_importance(weights, shapes, Path(choices.importance.source))
    save_importance(choices.importance, work / IMATRIX)
    return weights


def language_vocabulary(checkpoint: Checkpoint, tokens: TokenSpec, motion: MotionSpec | None,
                        layout: str) -> Vocabulary:
    """The rows of the language model. Raises BundleError if token ids and motion tokenizer do not fit."""
    try:
        token_layout = tokens.layout(motion.parts if motion else ())
        return Vocabulary(token_layout, checkpoint.config.language.vocabulary if layout == "full" else None)
    except ValueError as error:
        raise BundleError(f"{checkpoint.folder}: {error}", str(checkpoint.folder)) from error


def require(*packages: str) -> None:
    """Raises BackendError if one of them is not installed."""
    from importlib.util import find_spec

    if missing := [name for name in packages if find_spec(name) is None]:
        raise BackendError(f"converting needs {' and '.join(missing)}: pip install 'beingh0-edge[convert]'")


def _write_robot(checkpoint: Checkpoint, work: Path, robot: RobotSpec) -> None:
    from safetensors.numpy import save_file

    hidden = checkpoint.config.language.hidden
    save_file({name: checkpoint.tensor(name) for name in robot.tensor_shapes(hidden)}, str(work / robot.file))
