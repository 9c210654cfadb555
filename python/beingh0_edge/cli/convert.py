"""`beingh0 convert`: a checkpoint becomes a bundle."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..bundle import Bundle
from ..hub import hub_files, is_hub_id, local_folder
from .tables import table

if TYPE_CHECKING:
    from ..quantize import Choices, Plan

_TERMINAL_EVERY_S, _LOG_EVERY_S = 0.2, 10.0
_BYTES = ("checking", "language")  # stages that count bytes; the others count layers or samples


@dataclass(frozen=True)
class Request:
    """The options of the command. tokenizer: folders joined by "+", in id order."""

    checkpoint: str
    out: Path
    tokenizer: str | None = None
    mano_left: Path | None = None
    mano_right: Path | None = None
    layout: str = "trimmed"
    quant: str = "Q8_0"
    vision: str | None = None  # by default fp16, and fp32 beside an F32 language model
    overwrite: bool = False
    report: int = 3
    imatrix: str = "auto"
    budget: float = 0.25
    questions: int = 8
    override: tuple[str, ...] = ()
    mmproj: str | None = None

    def folders(self) -> list[str] | None:
        return folders_of(self.tokenizer)

    def overrides(self) -> dict[str, str]:
        """Raises ValueError for anything that is not PATTERN=TYPE."""
        pairs = [text.split("=") for text in self.override]
        if bad := [text for text, pair in zip(self.override, pairs, strict=True) if len(pair) != 2 or not all(pair)]:
            raise ValueError(f"--override: expected PATTERN=TYPE, got {bad[0]!r}")
        return {pattern: kind for pattern, kind in pairs}

    def tuned(self) -> bool:
        """Whether importance is measured: where the type can use it, or a search needs it."""
        from ..quantize.quant_types import SEARCHED, uses_importance

        kinds = [self.quant, *self.overrides().values()]
        return self.quant in SEARCHED or (self.imatrix == "auto" and any(map(uses_importance, kinds)))

    def hands(self) -> dict[str, Path] | None:
        given = {"left": self.mano_left, "right": self.mano_right}
        return {side: path for side, path in given.items() if path is not None} or None


def folders_of(tokenizer: str | None) -> list[str] | None:
    """WRIST+FINGER -> the folders. Raises ValueError for an empty name."""
    if tokenizer is None:
        return None
    names = [tokenizer] if Path(tokenizer).is_dir() else tokenizer.split("+")
    if not all(names):
        raise ValueError(f"--tokenizer: expected WRIST+FINGER, two folders, got {tokenizer!r}")
    return names


def run_convert(request: Request, dry_run: bool) -> str:
    """Converts, or with `dry_run` only tells what that would take. Raises ValueError, BundleError, BackendError."""
    from ..quantize import plan_bundle
    from ..quantize.build import check_target

    if request.report < 0:
        raise ValueError(f"--report: expected a whole number from 0 on, got {request.report}")
    if request.questions < 1:
        raise ValueError(f"--questions: expected a whole number from 1 on, got {request.questions}")
    names = request.folders()
    _choices(request, names)  # refuses what cannot be before anything is downloaded
    check_target(request.out, request.overwrite)
    remote = [name for name in (request.checkpoint, *(names or ())) if is_hub_id(name)]
    if dry_run and remote:
        return _downloads(remote)
    checkpoint = local_folder(request.checkpoint)
    folders = [local_folder(name) for name in names] if names is not None else None
    choices = _choices(request, folders)
    with closing(Meter()) as meter:
        plan = plan_bundle(checkpoint, choices, headers_only=dry_run, progress=meter)
        if dry_run:
            return _as_text(plan, request)
        needed = sum(plan.writes.values())
        if request.report or request.tuned():
            needed += sum(plan_bundle(checkpoint, replace(choices, layout="trimmed", quant="F32", vision="fp32",
                                                          overrides={}, mmproj=None)).writes.values())
        _check_space(request.out, needed)
        with quiet():
            bundle = _convert(request, checkpoint, folders, choices, meter)
    return _summary(bundle)


def _convert(request: Request, checkpoint: Path, folders: list[Path] | None, wanted: Choices, meter: Meter) -> Bundle:
    """With a report or tuning, the float32 model lies beside the bundle for a while and answers the questions."""
    from ..quantize import add_report, build_bundle
    from ..quantize.checkpoint import Checkpoint
    from ..quantize.importance import load_importance
    from ..quantize.tune import tune
    from .samples import TUNING_SEED, calibration_frames, samples_for

    given: dict[str, Any] = {"tokenizer_folders": folders, "hands": request.hands(), "progress": meter}
    importance = None if request.imatrix in ("auto", "none") else load_importance(Path(request.imatrix))
    overrides: dict[str, str] = request.overrides()
    provenance: dict[str, Any] = {}
    layout: Any = wanted.layout
    request.out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".beingh0-", suffix=".exact", dir=request.out.parent) as scratch:
        exact = None
        if request.report or request.tuned():
            exact = build_bundle(checkpoint, Path(scratch) / "exact", quant="F32", vision="fp32", **given)
        if exact and request.tuned():
            samples, source = samples_for(exact, request.questions, TUNING_SEED)
            tuned = tune(Checkpoint(checkpoint), exact, samples, source, quant=wanted.quant, budget=request.budget,
                         progress=meter)
            importance, overrides, provenance = tuned.importance, tuned.overrides | overrides, tuned.provenance()
        bundle = build_bundle(
            checkpoint, request.out, layout=layout, quant=wanted.quant, vision=wanted.vision,
            overrides=overrides, importance=importance, mmproj=wanted.mmproj, overwrite=request.overwrite,
            calibration=calibration_frames, origin=request.checkpoint if is_hub_id(request.checkpoint) else None,
            provenance=provenance, **given)
        if exact and request.report:
            samples, source = samples_for(bundle, request.report)
            bundle = add_report(checkpoint, bundle, samples, source, exact=exact, **given)
    return bundle


def _choices(request: Request, folders: Any) -> Choices:
    from ..quantize import Choices

    # Choices refuses what it does not know.
    precision: Any = request.vision or ("fp32" if request.quant == "F32" else "fp16")
    return Choices(request.layout, request.quant, precision, "fp32", folders, request.hands(), request.overrides(),
                   mmproj=request.mmproj)


def _downloads(names: list[str]) -> str:
    rows, total = [], 0
    for name in names:
        for file, size in hub_files(name):
            rows.append((file, size_text(size)))
            total += size
    return (f"would download {size_text(total)}:\n{indented(rows)}\n"
            "what would be written is known once the files are here")


def _as_text(plan: Plan, request: Request) -> str:
    types = ", ".join(f"{count} {kind}" for kind, count in plan.types.items())
    reads, writes = (indented((name, size_text(size)) for name, size in sizes.items())
                     for sizes in (plan.reads, plan.writes))
    return (f"would read {size_text(sum(plan.reads.values()))}:\n{reads}\n"
            f"would write about {size_text(sum(plan.writes.values()))} to {request.out}:\n{writes}\n"
            f"language model tensors: {types}\nnothing was written")


def _summary(bundle: Bundle) -> str:
    from ..quantize.report import NOT_MEASURED, REPORT_MD, answer_rows, read_report

    types = bundle.inspect()["language"]["tensor_types"]
    total = sum(entry.size for entry in bundle.manifest.files)
    kinds = ", ".join(f"{count} {kind}" for kind, count in types.items())
    files = len(bundle.manifest.files)
    lines = [f"{bundle.root}: {size_text(total)} in {files} files; language model tensors: {kinds}"]
    if report := read_report(bundle):
        figures = [row for row in answer_rows(report["measured"]) if row[1] != NOT_MEASURED]
        lines += [indented(figures), f"more in {bundle.path(REPORT_MD)}"]
    return "\n".join(lines)


def _check_space(out: Path, needed: int) -> None:
    home = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(home).free
    if free < needed:
        raise ValueError(f"{out}: needs about {size_text(needed)}, only {size_text(free)} are free there")


def indented(rows: Any) -> str:
    """Rows of texts as an indented table."""
    return "\n".join(f"  {line}" for line in table(list(rows)).splitlines())


def size_text(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


@contextmanager
def quiet() -> Iterator[None]:
    """Only warnings from the libraries and from loading: the meter says what goes on."""
    loggers = [logging.getLogger(name) for name in ("gguf", "beingh0_edge")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class Meter:
    """A line per stage on stderr with share, rate and time left: rewritten on a terminal, else every ten seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._stage, self._shown = "", 0.0
        self._started = self._called = time.monotonic()

    def __call__(self, done: int, total: int, what: str) -> None:
        now, stage = time.monotonic(), what.split()[0]
        if stage != self._stage:
            self._stage, self._started, self._shown = stage, self._called, self._called
        self._called = now
        every = _TERMINAL_EVERY_S if self._terminal else _LOG_EVERY_S
        if now - self._shown < every and done < total:
            return
        self._shown = now
        spent = max(now - self._started, 1e-9)
        rate, left = done / spent, spent * (total - done) / max(done, 1)
        speed = f"{size_text(rate)}/s" if stage in _BYTES else f"{rate:.2g}/s"
        line = f"{done / total:4.0%}  {speed}  {left:.0f} s left  {what}"
        print(f"\r{line[:100]:<100}" if self._terminal else line, end="" if self._terminal else "\n",
              file=sys.stderr, flush=True)

    def close(self) -> None:
        """Ends the line that was rewritten."""
        if self._terminal and self._shown:
            print(file=sys.stderr)
