"""Motion tokens to motion features and back (GRQ)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from beingh0_edge import _kernels
from beingh0_edge.arrays import INT32, ArrayLike, Workers, as_array, as_float32, output, shares
from beingh0_edge.errors import BundleError, TokenError
from beingh0_edge.files import packaged
from beingh0_edge.tokenizer_folder import TokenizerFolder, TokenizerPart, Weights
from beingh0_edge.types import FloatArray, IntArray

_log = logging.getLogger(__name__)

_BLOCKS_PER_THREAD = 4  # with fewer, every thread would read all weights for little


class MotionTokenizer:
    """Decodes blocks of motion ids to motion features, and encodes features to ids.

    A block is one hand over one window (one second in the published models). Features of the parts stand side by side
    in part order; `features.split_features(x, tokenizer.parts)` takes them apart. Thread safe.
    """

    def __init__(self, folders: Sequence[Path], *, weights: Weights = "float32", threads: int = 1) -> None:
        """Options as in `load`."""
        self._workers = Workers(threads)
        self.weights = weights
        self._parts: list[TokenizerPart] = []
        self._kernels: list[_kernels.GrqPart] = []
        self._codebooks: list[FloatArray] = []
        self._ids_per_block = self._dims = 0
        for folder in folders:
            source = TokenizerFolder(folder)
            part = source.geometry(offset=sum(p.num_ids for p in self._parts), start=self._ids_per_block)
            if part.name in [known.name for known in self._parts]:
                raise BundleError(f"{folder}: expected another part, the {part.name} is there already", str(folder))
            self._codebooks.append(source.codebooks(part))
            self._kernels.append(source.build(part, self._codebooks[-1], weights))
            self._parts.append(part)
            self._ids_per_block += part.ids_per_block
            self._dims += part.dims
        first = self._parts[0]
        for part, folder in zip(self._parts, folders, strict=True):
            if (part.window, part.fps) != (first.window, first.fps):
                raise BundleError(f"{folder}: expected window {first.window} at {first.fps:g} fps as in {folders[0]}, "
                                  f"got {part.window} at {part.fps:g} fps", str(folder))

    @classmethod
    def load(cls, *folders: str | Path, weights: Weights = "float32", threads: int = 1) -> MotionTokenizer:
        """Read published folders in part order (wrist, finger), one folder of a whole-hand model, or a bundle ("nano").

        A folder holds motion_args.json, motion_meta.json, meta_mask.json and weights as .safetensors or .pth; pickles
        are read without executing anything. A bundle has manifest.json and motion/wrist, motion/finger inside.
        weights  how the networks' are kept: "float32" (the reference), "bfloat16" or "int8" (a half or a quarter of
                 the bytes a decode reads; sums stay float32). What that costs in mm: docs/kernels.md
        threads  parts, and large batches, are shared among at most this many
        Raises: BundleError naming the file, what was got and what was expected.
        """
        start = time.perf_counter()
        paths = [packaged(folder) for folder in folders]
        if not paths:
            raise ValueError("folders: expected the parts' folders or a bundle, got none")
        if len(paths) == 1 and (paths[0] / "manifest.json").is_file():
            root = paths[0] / "motion"
            names = ("wrist", "finger") if not (root / "whole").is_dir() else ("whole",)
            paths = [root / name for name in names]
        tokenizer = cls(paths, weights=weights, threads=threads)
        _log.info("loaded motion tokenizer %s (%d ids) in %.3f s", ", ".join(map(str, paths)), tokenizer.num_ids,
                  time.perf_counter() - start)
        return tokenizer

    @property
    def parts(self) -> tuple[TokenizerPart, ...]:
        """Geometry of every part, in id order."""
        return tuple(self._parts)

    @property
    def ids_per_block(self) -> int:
        """Ids of one hand and window."""
        return self._ids_per_block

    @property
    def num_ids(self) -> int:
        """How many different motion ids there are."""
        return sum(part.num_ids for part in self._parts)

    @property
    def dims(self) -> int:
        """Features per frame, of all parts together."""
        return self._dims

    @property
    def window(self) -> int:
        """Frames per block."""
        return self._parts[0].window

    @property
    def fps(self) -> float:
        """Frames per second."""
        return self._parts[0].fps

    def codebook(self, part: int | str) -> FloatArray:
        """float32[groups, 1 if shared else quantizers, nb_code, code_dim / groups], read-only; by index or name."""
        return self._codebooks[self._index(part)]

    def decode(self, ids: ArrayLike, *, out: FloatArray | None = None) -> FloatArray:
        """Integer [..., ids_per_block] (the N of <motion_id_N>) -> float32[..., window, dims], de-normalised.

        out  an earlier result of the same shape to be written over and returned; left as it was if ids are refused
        An id counts by its position: one from another quantizer's range decodes as upstream decodes it, modulo nb_code.
        Raises: TokenError with the position of the first id outside its part's range, or if blocks are not whole;
        ValueError for an `out` that does not fit.
        """
        blocks, batch = self._blocks(ids)
        for part, kernel in zip(self._parts, self._kernels, strict=True):
            self._check_range(ids, blocks, part, kernel)
        features = output("out", (*batch, self.window, self._dims), out)
        rows = features if len(batch) == 1 else features.reshape(-1, self.window, self._dims)
        tasks: list[Callable[[], None]] = []
        column = 0
        for part, kernel in zip(self._parts, self._kernels, strict=True):
            if self._workers.threads == 1:
                kernel.decode(blocks, part.start, rows, column)
            else:
                tasks += [partial(kernel.decode, blocks[share], part.start, rows[share], column)
                          for share in self._shares(len(blocks))]
            column += part.dims
        self._workers.run(tasks)
        return features

    def encode(self, *part_features: ArrayLike, out: IntArray | None = None) -> IntArray:
        """Features float[..., window, dims of the part], one array per part -> int32[..., ids_per_block].

        out  an earlier result of the same shape to be written over and returned
        Raises: ValueError for another shape, an `out` that does not fit, or values that are not finite.
        """
        if len(part_features) != len(self._parts):
            raise ValueError(f"part_features: expected {len(self._parts)} arrays "
                             f"({', '.join(p.name for p in self._parts)}), got {len(part_features)}")
        arrays = [self._features(value, part) for value, part in zip(part_features, self._parts, strict=True)]
        batch = arrays[0].shape[:-2]
        if any(array.shape[:-2] != batch for array in arrays):
            raise ValueError("part_features: expected the same leading axes, got "
                             + " and ".join(str(list(array.shape)) for array in arrays))
        ids = output("out", (*batch, self.ids_per_block), out, INT32)
        rows = ids.reshape(-1, self.ids_per_block)
        self._workers.run([
            partial(kernel.encode, array.reshape(-1, part.window, part.dims)[share], rows[share], part.start)
            for array, part, kernel in zip(arrays, self._parts, self._kernels, strict=True)
            for share in self._shares(len(rows))])
        return ids

    def dequantize(self, ids: ArrayLike, part: int | str, *, out: FloatArray | None = None) -> FloatArray:
        """Integer [..., ids_per_block] -> a part's latent float32[..., positions, code_dim] that its decoder reads.

        out  as in `decode`
        """
        index = self._index(part)
        known, kernel = self._parts[index], self._kernels[index]
        blocks, batch = self._blocks(ids)
        self._check_range(ids, blocks, known, kernel)
        latent = output("out", (*batch, known.positions, known.code_dim), out)
        kernel.dequantize(blocks, known.start, latent.reshape(-1, known.positions, known.code_dim))
        return latent

    def latent(self, features: ArrayLike, part: int | str, *, out: FloatArray | None = None) -> FloatArray:
        """A part's features float[..., window, dims] -> encoder output float32[..., positions, code_dim].

        out  as in `encode`
        """
        index = self._index(part)
        known = self._parts[index]
        array = self._features(features, known)
        latent = output("out", (*array.shape[:-2], known.positions, known.code_dim), out)
        self._kernels[index].latent(array.reshape(-1, known.window, known.dims),
                                    latent.reshape(-1, known.positions, known.code_dim))
        return latent

    def _shares(self, blocks: int) -> list[slice]:
        return shares(blocks, -(-self._workers.threads // len(self._parts)), _BLOCKS_PER_THREAD)

    def _index(self, part: int | str) -> int:
        names = [p.name for p in self._parts]
        if isinstance(part, str) and part in names:
            return names.index(part)
        if isinstance(part, int) and 0 <= part < len(names):
            return part
        raise ValueError(f"part: expected one of {', '.join(names)} or 0 to {len(names) - 1}, got {part!r}")

    def _blocks(self, ids: ArrayLike) -> tuple[IntArray, tuple[int, ...]]:
        array = as_array(ids)
        if array.dtype is INT32 and array.ndim == 2 and array.flags.carray and array.shape[1] == self._ids_per_block:
            return array, array.shape[:1]
        if array.dtype.kind not in "iu":
            raise TypeError(f"ids: expected integers, got {array.dtype}")
        if array.ndim < 1 or array.shape[-1] != self.ids_per_block:
            raise TokenError(f"ids: expected whole blocks [..., {self.ids_per_block}], got {list(array.shape)}")
        # Values beyond int32 must not wrap into the valid range.
        single = np.clip(array, -1, np.iinfo(np.int32).max).astype(np.int32)
        return np.ascontiguousarray(single).reshape(-1, self.ids_per_block), array.shape[:-1]

    def _check_range(self, ids: ArrayLike, blocks: IntArray, part: TokenizerPart, kernel: _kernels.GrqPart) -> None:
        at = kernel.first_foreign_id(blocks, part.start)
        if at >= 0:
            block, position = divmod(at, self.ids_per_block)
            got = as_array(ids).reshape(-1)[at]
            raise TokenError(f"ids: block {block}, position {position} ({part.name}): expected an id in "
                             f"[{part.offset}, {part.offset + part.num_ids}), got {got}", position)

    @staticmethod
    def _features(value: ArrayLike, part: TokenizerPart) -> FloatArray:
        array = as_array(value)
        if array.dtype.kind != "f" or array.ndim < 2 or array.shape[-2:] != (part.window, part.dims):
            raise ValueError(f"{part.name} features: expected float[..., {part.window}, {part.dims}], "
                             f"got {array.dtype}{list(array.shape)}")
        single = as_float32(array)
        if not np.isfinite(single).all():
            raise ValueError(f"{part.name} features: expected finite values, got "
                             f"{int(np.sum(~np.isfinite(single)))} that are not")
        return single
