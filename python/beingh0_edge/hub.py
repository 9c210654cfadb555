"""Folders by name: a local one, or one of the Hugging Face hub where huggingface_hub and a network exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .errors import BackendError, BundleError

_HUB = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?P<inside>(?:/[A-Za-z0-9][\w.-]*)*)"
                  r"(?:@(?P<revision>[\w./-]+))?")
_SUFFIXES = (".json", ".safetensors", ".bin", ".pt", ".pth", ".txt", ".md", ".gguf", ".onnx", ".npy", ".npz")


def is_hub_id(given: str | Path) -> bool:
    """Whether `given` can only mean the hub: org/name[/folder][@revision], and nothing local is called org."""
    return _HUB.fullmatch(str(given)) is not None and not Path(Path(given).parts[0]).exists()


def local_folder(given: str | Path) -> Path:
    """`given` itself if it is no hub id; else the folder of that hub model, downloaded or from the local cache.

    Raises BackendError without huggingface_hub, BundleError if the hub cannot be reached or has no such model.
    """
    if not is_hub_id(given):
        return Path(given)
    repo, inside, revision = _parts(given)
    hub = _library(given)
    patterns = [f"{inside}/*"] if inside else [f"*{suffix}" for suffix in _SUFFIXES]
    try:
        root = Path(hub.snapshot_download(repo, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the library and its HTTP library have one class per kind of failure
        raise _unreachable(given, error) from error
    folder = root / inside
    if not folder.is_dir():
        raise BundleError(f"{given}: the model {repo} has no folder {inside}", str(given))
    return folder


def hub_files(given: str | Path) -> list[tuple[str, int]]:
    """(name, bytes) of every file that `local_folder` would download. Raises as `local_folder`."""
    repo, inside, revision = _parts(given)
    hub = _library(given)
    try:
        info = hub.HfApi().model_info(repo, revision=revision, files_metadata=True)
    except Exception as error:
        raise _unreachable(given, error) from error
    return [(f"{repo}/{file.rfilename}", int(file.size or 0)) for file in info.siblings or ()
            if (file.rfilename.startswith(f"{inside}/") if inside else file.rfilename.endswith(_SUFFIXES))]


def _parts(given: str | Path) -> tuple[str, str, str | None]:
    match = _HUB.fullmatch(str(given))
    if match is None:
        raise ValueError(f"{given}: expected org/name, org/name/folder or org/name@revision")
    return match["repo"], match["inside"].strip("/"), match["revision"]


def _library(given: str | Path) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise BackendError(f"{given}: no such folder; if it is a model on the Hugging Face hub, that needs "
                           "huggingface_hub: pip install 'beingh0-edge[hub]'", "huggingface_hub") from error
    return huggingface_hub


def _unreachable(given: str | Path, error: Exception) -> BundleError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return BundleError(f"{given}: no such folder, and the Hugging Face hub does not give it ({reason})", str(given))
