"""Checkpoint folder -> bundle."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import beingh0_edge
from beingh0_edge.bundle import (
    FORMAT,
    MANIFEST,
    REVISION,
    Bundle,
    Manifest,
    PreprocessSpec,
    RobotSpec,
    describe_files,
)
from beingh0_edge.errors import BackendError, BundleError
from beingh0_edge.preprocess import OFFICIAL_CAMERA, OFFICIAL_RAW_CAMERA, Camera
from beingh0_edge.tokens import Vocabulary
from beingh0_edge.types import SIDES

from .checkpoint import Checkpoint, Progress, robot_spec
from .hand_files import write_hands
from .motion_folder import write_motion
from .quant_types import QUANTS
from .vocabulary import find_tokens

log = logging.getLogger(__name__)

OFFICIAL_MAX_SECONDS = 10


def build_bundle(
    checkpoint_dir: str | Path, out_dir: str | Path, *, layout: Literal["trimmed", "full"] = "trimmed",
    quant: str = "Q8_0", vision: Literal["fp32", "fp16"] = "fp16", motion: Literal["fp32", "fp16"] = "fp32",
    tokenizer_folders: Sequence[str | Path] | None = None, hands: Mapping[str, str | Path] | None = None,
    overrides: Mapping[str, str] | None = None, overwrite: bool = False, progress: Progress | None = None,
) -> Bundle:
    """Converts a checkpoint folder to a bundle, checks the result, and returns it opened.

    layout             "trimmed": the language model keeps only motion ids and markers; "full": the whole
                       vocabulary
    quant              see quant_types.QUANTS
    vision, motion     how the weights of vision tower and motion tokenizer are stored; computed in float32
    tokenizer_folders  motion tokenizer folders in id order (wrist, finger); default: motion/wrist and
                       motion/finger of the checkpoint, if it has them
    hands              side -> hand model (.npz, or MANO_LEFT/RIGHT.pkl); default: the packaged synthetic
    hands
    overrides          glob of GGUF tensor names -> type
    overwrite          replace a bundle that is already there
    progress           called with (bytes done, bytes in all, what)
    Raises             BundleError saying what is wrong with the checkpoint; ValueError for wrong arguments.

    Everything is written to a temporary folder beside `out_dir` and renamed at the end.
    """
    if layout not in ("trimmed", "full"):
        raise ValueError(f"layout: expected 'trimmed' or 'full', got {layout!r}")
    for name, precision in (("vision", vision), ("motion", motion)):
        if precision not in ("fp32", "fp16"):
            raise ValueError(f"{name}: expected 'fp32' or 'fp16', got {precision!r}")
    if quant not in QUANTS:
        raise ValueError(f"quant: expected one of {', '.join(QUANTS)}, got {quant!r}")
    _require("gguf", "onnx")
    source, out = Path(checkpoint_dir), Path(out_dir)
    if out.exists() and not (overwrite and (out / MANIFEST).is_file()):
        raise BundleError(f"{out}: already exists" + (" and is not a bundle" if overwrite else ""), str(out))
    started = time.monotonic()
    out.parent.mkdir(parents=True, exist_ok=True)
    work = out.parent / f".{out.name}.partial"
    shutil.rmtree(work, ignore_errors=True)
    try:
        work.mkdir()
        choices = _Choices(layout, quant, vision, motion, tokenizer_folders, hands, overrides or {})
        manifest = _write(source, work, choices, progress)
        (work / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
        _try_out(Bundle.open(work))
        if out.exists():
            shutil.rmtree(out)
        work.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    size = sum(entry.size for entry in manifest.files)
    log.info("built %s: %.1f MB in %.1f s", out, size / 1e6, time.monotonic() - started)
    return Bundle(out, manifest)


@dataclass(frozen=True)
class _Choices:
    """The arguments of build_bundle that decide what is written."""

    layout: str
    quant: str
    vision: Literal["fp32", "fp16"]
    motion: Literal["fp32", "fp16"]
    tokenizer_folders: Sequence[str | Path] | None
    hands: Mapping[str, str | Path] | None
    overrides: Mapping[str, str]


def _write(source: Path, work: Path, choices: _Choices, progress: Progress | None) -> Manifest:
    from .write_gguf import write_embeddings, write_gguf
    from .write_onnx import write_vision

    checkpoint = Checkpoint(source)
    config, edge = checkpoint.config, _read_edge(source / "edge.json")
    tokens, tokenizer = find_tokens(source, config.robot.chunk_length if config.robot else 0, work)
    folders = [Path(folder) for folder in choices.tokenizer_folders or _default_folders(source)]
    motion = write_motion(folders, checkpoint, work, choices.motion)
    try:
        token_layout = tokens.layout(motion.parts if motion else ())
        vocabulary = Vocabulary(token_layout, config.language.vocabulary if choices.layout == "full" else None)
    except ValueError as error:
        raise BundleError(f"{source}: {error}", str(source)) from error
    checkpoint.check_finite(progress)

    language = write_gguf(checkpoint, work / "language.gguf", vocabulary, choices.quant, tokenizer=tokenizer,
                          overrides=choices.overrides, progress=progress)
    embeddings = write_embeddings(checkpoint, work / "text_embeddings.npy", exact=choices.quant == "F32")
    tower = write_vision(checkpoint, work / "vision.onnx", choices.vision, progress)
    robot = robot_spec(config.robot) if config.robot else None
    if robot:
        _write_robot(checkpoint, work, robot)
    hand_models = write_hands(choices.hands, edge.get("betas", {}), work)

    camera = _camera(edge["camera"]) if "camera" in edge else OFFICIAL_CAMERA
    raw_camera = OFFICIAL_RAW_CAMERA if camera == OFFICIAL_CAMERA else camera
    if "default_raw_camera" in edge:
        raw_camera = _camera(edge["default_raw_camera"])
    return Manifest(
        format=FORMAT,
        revision=REVISION,
        name=str(edge.get("name", source.resolve().name)),
        template=config.template,
        tokenizer="tokenizer.json" if tokenizer else None,
        max_seconds=int(edge.get("max_seconds", OFFICIAL_MAX_SECONDS)),
        language=language,
        embeddings=embeddings,
        vision=tower,
        tokens=tokens,
        preprocess=PreprocessSpec(camera, raw_camera),
        motion=motion,
        hands=hand_models,
        robot=robot,
        files=describe_files(work),
        licence=str(edge.get("licence", "as the checkpoint it was made from")),
        provenance={
            "checkpoint": source.name,
            "converted_by": f"beingh0_edge {beingh0_edge.__version__}",
            **edge.get("provenance", {}),
        },
    )


def _try_out(bundle: Bundle) -> None:
    """Loads the parts whose files `Bundle.open` only compares with their hashes. Raises BundleError."""
    from beingh0_edge.hand_model import HandModel
    from beingh0_edge.motion_tokenizer import MotionTokenizer

    hands = bundle.manifest.hands
    if bundle.manifest.motion:
        MotionTokenizer.load(bundle.root)
    if len(hands) == 2:  # also says in the log if the left shape basis is not mirrored
        HandModel.load_pair(*(bundle.path(hands[side].file) for side in SIDES))
    for side in SIDES:
        if side in hands:
            HandModel.load(bundle.path(hands[side].file), side)


def _require(*packages: str) -> None:
    from importlib.util import find_spec

    if missing := [name for name in packages if find_spec(name) is None]:
        raise BackendError(f"converting needs {' and '.join(missing)}: pip install 'beingh0-edge[convert]'")


def _default_folders(source: Path) -> list[Path]:
    folders = [source / "motion" / part for part in ("wrist", "finger")]
    return [folder for folder in folders if folder.is_dir()]


def _read_edge(path: Path) -> dict[str, Any]:
    """edge.json, which our own training writes: camera, max_seconds, betas, provenance. {} if there is
    none.
    """
    if not path.is_file():
        return {}
    try:
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict):
            raise ValueError("expected an object")
        return data
    except ValueError as error:
        raise BundleError(f"{path}: {error}", str(path)) from error


def _camera(data: dict[str, Any]) -> Camera:
    try:
        return Camera(float(data["fx"]), float(data["fy"]), float(data["cx"]), float(data["cy"]),
                      int(data["width"]), int(data["height"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"edge.json: not a camera: {data!r} ({error!r})") from error


def _write_robot(checkpoint: Checkpoint, work: Path, robot: RobotSpec) -> None:
    from safetensors.numpy import save_file

    hidden = checkpoint.config.language.hidden
    save_file({name: checkpoint.tensor(name) for name in robot.tensor_shapes(hidden)}, str(work / robot.file))
