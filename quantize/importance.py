"""Importance of the language model's matrix columns: how strongly prompts and motion excite each of them.

The mean square of every input of every matrix, over real prompts with the motion ids that answer them, collected in
numpy from the float32 checkpoint. The files are llama.cpp's (its imatrix format as GGUF): its quantizer reads ours, and
one that llama-imatrix wrote may be given instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from beingh0_edge.errors import BundleError
from beingh0_edge.types import FloatArray, IntArray

from . import reference
from .checkpoint import Checkpoint, Progress

IMATRIX = "imatrix.gguf"


@dataclass(frozen=True, eq=False)
class Importance:
    """GGUF tensor name -> sum of squares float32[width] and how many rows were summed."""

    sums: Mapping[str, FloatArray]
    counts: Mapping[str, int]
    source: str
    sequences: int = 1

    def weights(self) -> dict[str, FloatArray]:
        """Name -> float32[width], the mean square; a column that nothing excites counts as the weakest other."""
        found = {}
        for name, total in self.sums.items():
            mean = (total / max(self.counts[name], 1)).astype(np.float32)
            positive = mean[mean > 0]
            found[name] = np.maximum(mean, positive.min()) if len(positive) else np.ones_like(mean)
        return found


def measure_importance(checkpoint: Checkpoint, questions: Sequence[tuple[IntArray, FloatArray]], image_token: int,
                       motion_from: Sequence[int], source: str, progress: Progress | None = None) -> Importance:
    """questions: (prompt and answer ids int32[T], pixels float32[3, S, S]) each.

    motion_from  per question, the place from which on the head is used: the last prompt token
    """
    sums: dict[str, FloatArray] = {}
    counts: dict[str, int] = {}

    def observe(name: str, x: FloatArray) -> None:
        squares = np.einsum("ti,ti->i", x, x, dtype=np.float64)
        sums[name] = sums[name] + squares if name in sums else squares
        counts[name] = counts.get(name, 0) + len(x)

    sequences = [reference.embedded(checkpoint, ids, reference.visual_embeddings(checkpoint, pixels), image_token)
                 for ids, pixels in questions]
    states = reference.all_hidden_states(checkpoint, sequences, observe, progress)
    for first, one in zip(motion_from, states, strict=True):
        observe("token_embd.weight" if checkpoint.tied else "output.weight", one[first:])
    return Importance({name: total.astype(np.float32) for name, total in sums.items()}, counts, source, len(sequences))


def save_importance(importance: Importance, path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "imatrix")
    try:
        writer.add_type("imatrix")
        writer.add_array("imatrix.datasets", [importance.source])
        writer.add_uint32("imatrix.chunk_count", importance.sequences)
        writer.add_uint32("imatrix.chunk_size", max(1, max(importance.counts.values()) // importance.sequences))
        for name in sorted(importance.sums):
            writer.add_tensor(f"{name}.in_sum2", np.ascontiguousarray(importance.sums[name][None], np.float32))
            writer.add_tensor(f"{name}.counts", np.array([[importance.counts[name]]], np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def load_importance(path: Path) -> Importance:
    """Raises BundleError if the file is none of llama.cpp's importance matrices in GGUF."""
    import gguf

    if not path.is_file():
        raise BundleError(f"{path}: no such importance matrix", str(path))
    try:
        reader = gguf.GGUFReader(path)
        tensors = {tensor.name: np.array(tensor.data, np.float32) for tensor in reader.tensors}
        sums = {name.removesuffix(".in_sum2"): value.reshape(-1) for name, value in tensors.items()
                if name.endswith(".in_sum2")}
        counts = {name: int(tensors[f"{name}.counts"].sum()) for name in sums}
    except (ValueError, KeyError, IndexError, OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path}: not an importance matrix of llama.cpp ({error})", str(path)) from error
    bad = [name for name, value in sums.items() if not np.isfinite(value).all() or counts[name] < 1 or value.min() < 0]
    if bad or not sums:
        what = f"no usable values for {', '.join(bad)}" if bad else "no entry"
        raise BundleError(f"{path}: not an importance matrix of llama.cpp ({what})", str(path))
    return Importance(sums, counts, path.name)


def check_importance(weights: Mapping[str, FloatArray], shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Raises BundleError unless every entry fits a tensor of the model."""
    wrong = [f"{name} has {len(value)} columns instead of {shapes[name][-1]}" if name in shapes else f"no tensor {name}"
             for name, value in weights.items() if name not in shapes or len(value) != shapes[name][-1]]
    if wrong:
        raise BundleError(f"{path}: made for another model: {'; '.join(wrong)}", str(path))
