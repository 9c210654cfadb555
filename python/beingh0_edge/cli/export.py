"""`beingh0 export`: a checkpoint's parts as ONNX graphs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..hub import local_folder
from .convert import Meter, folders_of, indented, quiet, size_text


@dataclass(frozen=True)
class Request:
    """The options of the command. static: "PROMPT,CACHE", both in tokens."""

    checkpoint: str
    out: Path
    tokenizer: str | None
    layout: str
    language: str
    vision: str
    static: str | None
    check: bool
    overwrite: bool

    def lengths(self) -> tuple[int, int] | None:
        if self.static is None:
            return None
        try:
            prompt, cache = (int(part) for part in self.static.split(","))
        except ValueError:
            raise ValueError(f"--static: expected PROMPT,CACHE, two numbers of tokens, got {self.static!r}") from None
        if not 1 <= prompt < cache:
            raise ValueError(f"--static: expected a prompt of 1 token or more and a longer cache, got {self.static!r}")
        return prompt, cache


def run_export(request: Request) -> str:
    """Exports. Raises ValueError, BundleError, BackendError."""
    from ..quantize.export_onnx import export_onnx

    names = folders_of(request.tokenizer)
    layout: Any = request.layout  # export_onnx refuses what it does not know
    language: Any = request.language
    vision: Any = request.vision
    with closing(Meter()) as meter, quiet():
        facts = export_onnx(
            local_folder(request.checkpoint), request.out, layout=layout, language=language, vision=vision,
            static=request.lengths(), tokenizer_folders=[local_folder(n) for n in names] if names else None,
            check=request.check, overwrite=request.overwrite, progress=meter)
    return f"{request.out}:\n{indented(_row(request.out, name, graph) for name, graph in facts['graphs'].items())}"


def _row(folder: Path, name: str, graph: Mapping[str, Any]) -> tuple[str, str, str]:
    files = [path for path in (folder / name, folder / f"{name}.data") if path.is_file()]
    what = "wrong ids" if name == "motion_encoder.onnx" else "largest error"
    error = f"{what} {graph['largest_error']:.2g}" if "largest_error" in graph else "not checked"
    return name, size_text(sum(path.stat().st_size for path in files)), error
