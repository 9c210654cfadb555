"""The files that a conversion reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .checkpoint import Checkpoint
from .motion_folder import files_of

_BESIDE = ("config.json", "edge.json", "model.safetensors.index.json", "pytorch_model.bin.index.json",
           "pytorch_model.pt.index.json", "tokenizer.json")
_SLOW = ("vocab.json", "merges.txt", "tokenizer_config.json", "added_tokens.json")


def default_folders(source: Path) -> list[Path]:
    """The motion tokenizer folders that our own training puts into a checkpoint, in id order."""
    folders = [source / "motion" / part for part in ("wrist", "finger")]
    return [folder for folder in folders if folder.is_dir()]


def source_files(checkpoint: Checkpoint, folders: Sequence[Path],
                 hands: Mapping[str, str | Path] | None) -> dict[str, Path]:
    """Name for people -> path, of all files that are read: checkpoint, motion tokenizer, given hand models."""
    folder = checkpoint.folder
    names = [*_BESIDE, *(() if (folder / "tokenizer.json").is_file() else _SLOW)]
    if not any((folder / name).is_file() for name in names[len(_BESIDE) - 1 :]):  # no tokenizer: token ids only
        names.append("ids.json" if (folder / "ids.json").is_file() else "../ids.json")
    found = {name: folder / name for name in names if (folder / name).is_file()}
    found |= {path.name: path for path in checkpoint.weight_files()}
    for part in folders:
        found |= {f"{part.name}/{path.name}": path for path in files_of(part)}
    found |= {f"{side} hand: {Path(path).name}": Path(path) for side, path in (hands or {}).items()}
    return found
