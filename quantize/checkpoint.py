"""Opens a checkpoint folder, brings its tensor names to the published ones, and checks that nothing is amiss.

Names and shapes are compared with what config.json demands before anything is converted. Tensors are read one
at a time. Source: the published loader, except that it keeps random values for whatever is missing and we
refuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from beingh0_edge.errors import BundleError
from beingh0_edge.tokenizer_folder import MotionArgs
from beingh0_edge.types import FloatArray

from .config import ModelConfig, read_config
from .tensor_files import FLOATS, TensorFile
from .tensor_names import (
    EMBEDDING,
    HEAD,
    LANGUAGE,
    MOTION,
    PROJECTOR,
    VISION,
    expected_shapes,
    official_name,
    robot_spec,
)
from .weight_files import open_weights

__all__ = ["EMBEDDING", "HEAD", "LANGUAGE", "MOTION", "PROJECTOR", "TRAINING_STATE", "VISION", "Checkpoint",
           "Progress", "expected_shapes", "official_name", "open_weights", "robot_spec"]

Progress = Callable[[int, int, str], None]
"""Called with (bytes done, bytes in all, what)."""

_MOTION_PARTS = tuple(f"{MOTION}motion_{what}" for what in ("model", "mean", "std"))
_MOTION_KEY = re.compile(rf"{re.escape(MOTION)}motion_model\.(?:([^.]+)\.)?model\.")
# Buffers that a checkpoint may carry although they are computed from the config.
_IGNORED = re.compile(r"rotary_emb\.inv_freq$|embeddings\.position_ids$")
# Of a motion tokenizer: what no decoder or encoder reads.
TRAINING_STATE = ("embed_avg", "cluster_size", "initted", "num_batches_tracked")
_ROWS_AT_ONCE = 4096


@dataclass
class _Recipe:
    """Where a tensor comes from: files to concatenate along the first axis, and maybe a LoRA pair to add."""

    pieces: dict[int, tuple[TensorFile, str]] = field(default_factory=dict)
    lora: dict[str, tuple[TensorFile, str]] = field(default_factory=dict)

    def sources(self) -> list[tuple[TensorFile, str]]:
        return [*self.pieces.values(), *self.lora.values()]


class Checkpoint:
    """A folder with config.json and weights. Tensor names are those of the published BeingVLA files."""

    def __init__(self, folder: Path, motion: Sequence[MotionArgs] | None = None, *, headers_only: bool = False,
                 progress: Progress | None = None) -> None:
        """Raises BundleError listing every tensor that is missing, unexpected, misshapen or of a type without floats.

        Where there is one, all values are read too, and those that are not finite are in the same list; sound
        checkpoints leave that to `check_values`.

        motion        what the motion tokenizer folders say, [] if there are none: then a motion tokenizer inside the
                      checkpoint is checked too, by that or by what config.json says. None: it is not looked at
        headers_only  values are never read
        """
        self.folder = folder
        if not folder.is_dir():
            raise BundleError(f"{folder}: no such checkpoint folder", str(folder))
        self.config: ModelConfig = read_config(folder / "config.json")
        self._recipes: dict[str, _Recipe] = {}
        problems = self._index(open_weights(folder))
        self.tied = HEAD not in self._recipes and self.config.language.tied
        self.carried: dict[str, MotionArgs] = {}
        """Key of each motion part inside the checkpoint ("" if there is one without) -> its description."""
        expected = expected_shapes(self.config, self.tied)
        if motion is not None:
            problems += self._describe_motion(motion)
            expected |= self._motion_shapes()
        problems += self._compare(expected)
        if problems:
            problems += ["values were not read"] if headers_only else self._bad_values(progress)
            raise BundleError(f"{folder}: the weights do not fit config.json:\n  " + "\n  ".join(problems),
                              str(folder))

    def weight_files(self) -> list[Path]:
        """Every file that holds tensors of this model."""
        return sorted(self._files())

    def _files(self) -> dict[Path, TensorFile]:
        return {file.path: file for recipe in self._recipes.values()
                for file, _ in recipe.sources()}

    def names(self) -> Iterator[str]:
        return iter(self._recipes)

    def shape(self, name: str) -> tuple[int, ...]:
        recipe = self._recipes[name]
        shapes = [file.tensors[raw].shape for file, raw in recipe.pieces.values()]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:]) if shapes[0] else ()

    def tensor(self, name: str) -> FloatArray:
        """The whole tensor, float32."""
        recipe = self._recipes[name]
        value = np.concatenate([file.read(raw) for file, raw in recipe.pieces.values()]) \
            if len(recipe.pieces) > 1 else next(file.read(raw) for file, raw in recipe.pieces.values())
        if recipe.lora:
            (file_a, a), (file_b, b) = recipe.lora["A"], recipe.lora["B"]
            down = file_a.read(a)
            part = "language" if name.startswith(LANGUAGE) else "vision"
            rank = self.config.lora_rank[part] or down.shape[0]
            value = value + (2 * rank / down.shape[0]) * (file_b.read(b) @ down)
        return value

    def rows(self, name: str, first: int, last: int) -> FloatArray:
        """Rows [first, last) of the tensor, float32."""
        if not 0 <= first <= last <= self.shape(name)[0]:
            raise ValueError(f"{name}: no rows {first} to {last} in {list(self.shape(name))}")
        recipe = self._recipes[name]
        if len(recipe.pieces) == 1 and not recipe.lora:
            file, raw = next(iter(recipe.pieces.values()))
            return file.read(raw, first, last)
        return self.tensor(name)[first:last]

    def check_values(self, progress: Progress | None = None) -> None:
        """Reads everything once. Raises BundleError listing every file that does not have its checksums (torch files
        have them) and every tensor with values that are not finite.
        """
        if problems := self._bad_values(progress):
            raise BundleError(f"{self.folder}: the weights are damaged:\n  " + "\n  ".join(problems), str(self.folder))
        if progress:
            size = self._stored_bytes()
            progress(size, size, "checking values")

    def _stored_bytes(self) -> int:
        return sum(file.tensors[raw].nbytes for recipe in self._recipes.values() for file, raw in recipe.sources())

    def _bad_values(self, progress: Progress | None) -> list[str]:
        problems = []
        for file in self._files().values():
            try:
                file.verify()
            except BundleError as error:
                problems.append(str(error))
        names = [name for name in self._recipes if not (name.startswith(MOTION) and name.endswith(TRAINING_STATE))]
        done, total = 0, self._stored_bytes() + 1  # 1: whoever called is not done
        for name in names:
            sources = self._recipes[name].sources()
            if not all(np.isfinite(part).all() for source in sources for part in _slices(*source)):
                problems.append(f"values that are not finite in {name}")
            done += sum(file.tensors[raw].nbytes for file, raw in sources)
            if progress:
                progress(done, total, f"checking {name}")
        return problems

    def _index(self, weights: dict[str, TensorFile]) -> list[str]:
        problems: list[str] = []
        native = any("vision_tower." in name for name in weights)
        for raw, file in weights.items():
            name, piece, lora = official_name(raw, native)
            if _IGNORED.search(name):
                continue
            recipe = self._recipes.setdefault(name, _Recipe())
            slots = recipe.lora if lora else recipe.pieces
            key = lora or piece
            if key in slots:
                problems.append(f"{name} comes twice, once as {raw}")
            slots[key] = (file, raw)  # type: ignore[index]
        for name, recipe in self._recipes.items():
            recipe.pieces = dict(sorted(recipe.pieces.items()))
            if recipe.lora and (set(recipe.lora) != {"A", "B"} or not recipe.pieces):
                problems.append(f"{name} has an incomplete LoRA pair")
        return problems

    def _describe_motion(self, motion: Sequence[MotionArgs]) -> list[str]:
        keys = sorted({match[1] or "" for match in map(_MOTION_KEY.match, self._recipes) if match})
        if not keys:
            return []
        config = self.folder / "config.json"
        args = motion or [MotionArgs(values, config) for values in self.config.motion_args]
        if len(args) != len(keys):
            return [f"{len(keys)} motion parts inside, {len(args)} descriptions of them"]
        self.carried = dict(zip(keys, args, strict=True))
        return []

    def _motion_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        for key, args in self.carried.items():
            part, tail = args.geometry(0, 0), f".{key}" if key else ""
            shapes |= {f"{MOTION}motion_model{tail}.{name}": shape for name, shape in args.tensor_shapes(part).items()}
            shapes |= {f"{MOTION}motion_{what}{tail}": (part.dims,) for what in ("mean", "std")}
        return shapes

    def _compare(self, expected: dict[str, tuple[int, ...]]) -> list[str]:
        problems = [f"missing {name} {list(shape)}" for name, shape in expected.items()
                    if not self._pieces_of(name)]
        problems += [f"unexpected {name}" for name in self._recipes
                     if name not in expected and not (name.startswith(MOTION) and name.endswith(TRAINING_STATE))
                     and not (name.startswith(_MOTION_PARTS) and not self.carried)]
        for name, shape in expected.items():
            if self._pieces_of(name):
                problems += self._misfits(name, shape)
        return problems

    def _misfits(self, name: str, shape: tuple[int, ...]) -> list[str]:
        """What is wrong with the shapes and types of a tensor's sources; pieces are the three of a qkv."""
        recipe = self._recipes[name]
        infos = {raw: file.tensors[raw] for file, raw in recipe.sources()}
        problems = [f"{name}: expected floating-point values, got {info.dtype}" for info in infos.values()
                    if info.dtype not in FLOATS]
        got = [infos[raw].shape for _, raw in recipe.pieces.values()]
        if got != [shape] and got != [(shape[0] // 3, *shape[1:])] * 3:
            problems.append(f"{name}: expected {list(shape)}, got {' + '.join(str(list(piece)) for piece in got)}")
        if set(recipe.lora) == {"A", "B"}:
            down, up = (infos[recipe.lora[half][1]].shape for half in "AB")
            if down[1:] != shape[1:] or up != (shape[0], *down[:1]) or len(down) != 2:
                problems.append(f"{name}: expected a LoRA pair [rank, {shape[-1]}] and [{shape[0]}, rank], got "
                                f"{list(down)} and {list(up)}")
        return problems

    def _pieces_of(self, name: str) -> bool:
        return name in self._recipes and bool(self._recipes[name].pieces)


def _slices(file: TensorFile, name: str) -> Iterator[FloatArray]:
    """All values of a tensor in a file, some rows at a time."""
    if not (shape := file.tensors[name].shape):
        yield file.read(name)
    for first in range(0, shape[0] if shape else 0, _ROWS_AT_ONCE):
        yield file.read(name, first, min(first + _ROWS_AT_ONCE, shape[0]))
