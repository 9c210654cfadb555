"""Opens a checkpoint folder, brings its tensor names to the published ones, and checks that nothing is amiss.

Names and shapes are compared with what config.json demands before anything is converted. Tensors are read one
at a time. Source: the published loader, except that it keeps random values for whatever is missing and we
refuse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from beingh0_edge.errors import BundleError
from beingh0_edge.types import FloatArray

from .config import ModelConfig, read_config
from .tensor_files import TensorFile
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


class Checkpoint:
    """A folder with config.json and weights. Tensor names are those of the published BeingVLA files."""

    def __init__(self, folder: Path) -> None:
        """Raises BundleError listing every tensor that is missing, unexpected or misshapen."""
        self.folder = folder
        if not folder.is_dir():
            raise BundleError(f"{folder}: no such checkpoint folder", str(folder))
        self.config: ModelConfig = read_config(folder / "config.json")
        self._recipes: dict[str, _Recipe] = {}
        problems = self._index(open_weights(folder))
        self.tied = HEAD not in self._recipes and self.config.language.tied
        problems += self._compare(expected_shapes(self.config, self.tied))
        if problems:
            raise BundleError(f"{folder}: the weights do not fit config.json:\n  " + "\n  ".join(problems),
                              str(folder))

    def weight_files(self) -> list[Path]:
        """Every file that holds tensors of this model."""
        return sorted(self._files())

    def _files(self) -> dict[Path, TensorFile]:
        return {file.path: file for recipe in self._recipes.values()
                for file, _ in (*recipe.pieces.values(), *recipe.lora.values())}

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
        recipe = self._recipes[name]
        if len(recipe.pieces) == 1 and not recipe.lora:
            file, raw = next(iter(recipe.pieces.values()))
            return file.read(raw, first, last)
        return self.tensor(name)[first:last]

    def nbytes(self) -> int:
        """Bytes of all tensors as float32."""
        return sum(4 * int(np.prod(self.shape(name))) for name in self._recipes)

    def check_values(self, progress: Progress | None = None) -> None:
        """Reads everything once. Raises BundleError for a file that does not have its checksums (torch files have
        them), or listing every tensor with values that are not finite.
        """
        for file in self._files().values():
            file.verify()
        total, done, bad = self.nbytes(), 0, []
        for name in self._recipes:
            if name.startswith(MOTION) and name.endswith(TRAINING_STATE):
                continue
            shape = self.shape(name)
            rows = shape[0] if shape else 1
            for first in range(0, rows, _ROWS_AT_ONCE):
                part = (
                    self.rows(name, first, min(first + _ROWS_AT_ONCE, rows)) if shape else self.tensor(name)
                )
                done += part.nbytes
                if not np.isfinite(part).all():
                    bad.append(name)
                    break
            if progress:
                progress(done, total, f"checking {name}")
        if bad:
            raise BundleError(
                f"{self.folder}: values that are not finite in " + ", ".join(bad), str(self.folder)
            )

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

    def _compare(self, expected: dict[str, tuple[int, ...]]) -> list[str]:
        problems = [f"missing {name} {list(shape)}" for name, shape in expected.items()
                    if not self._pieces_of(name)]
        problems += [f"unexpected {name}" for name in self._recipes
                     if name not in expected and not name.startswith(_MOTION_PARTS)]
        for name, shape in expected.items():
            if self._pieces_of(name) and self.shape(name) != shape:
                problems.append(f"{name}: expected {list(shape)}, got {list(self.shape(name))}")
        return problems

    def _pieces_of(self, name: str) -> bool:
        return name in self._recipes and bool(self._recipes[name].pieces)
