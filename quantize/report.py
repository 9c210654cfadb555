"""The verification report of a bundle: report.json for programs, report.md with a plot for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from beingh0_edge.bundle import MANIFEST, Bundle, FileEntry, sha256_of
from beingh0_edge.files import staged, write_json
from beingh0_edge.gguf_header import read_gguf_header
from beingh0_edge.policy import Policy

from .build import build_bundle
from .checkpoint import Checkpoint, Progress
from .measure import Measured, Original, Sample, measure
from .quant_types import row_bytes, wanted_type

REPORT_JSON, REPORT_MD, REPORT_PNG = "report.json", "report.md", "report.png"
_OURS = (REPORT_JSON, REPORT_MD, REPORT_PNG)
NOT_MEASURED = "not measured"
_FORMAT = "beingh0-edge report 2"


@dataclass(frozen=True)
class TensorFact:
    """A language model tensor: the type the mix wanted, what its width allowed, and its bytes."""

    name: str
    wanted: str
    became: str
    bytes: int


def tensor_facts(bundle: Bundle) -> list[TensorFact]:
    """Every tensor of language.gguf, in file order."""
    m = bundle.manifest
    header = read_gguf_header(bundle.path(m.language.file))
    overrides: Mapping[str, str] = m.provenance.get("overrides", {})
    return [TensorFact(name, wanted_type(name, shape, m.language.quant, m.language.layers, overrides),
                       header.types[name], prod(shape[:-1]) * row_bytes(header.types[name], shape[-1]))
            for name, shape in header.shapes.items()]


def bytes_per_token(bundle: Bundle) -> int:
    """What the processor reads of the language model for every generated id (of the embedding, one row)."""
    language, total = bundle.manifest.language, 0
    for fact in tensor_facts(bundle):
        embedding = fact.name == "token_embd.weight" and not language.tied
        total += fact.bytes // language.rows if embedding else fact.bytes
    return total


def describe(bundle: Bundle) -> dict[str, Any]:
    """What a report says of a bundle without running it."""
    m = bundle.manifest
    sizes = {entry.path: entry.size for entry in m.files if entry.path not in _OURS}
    return {
        "name": m.name, "layout": m.language.layout, "quant": m.language.quant, "vision": m.vision.precision,
        "text_embeddings": m.embeddings.dtype, "motion": m.motion.precision if m.motion else None,
        "total_bytes": sum(sizes.values()), "files": sizes, "bytes_per_token": bytes_per_token(bundle),
        "tensors": [asdict(fact) for fact in tensor_facts(bundle)]}


def add_report(checkpoint_dir: str | Path, bundle: Bundle, samples: Sequence[Sample], source: str, *,
               tokenizer_folders: Sequence[str | Path] | None = None, hands: Mapping[str, str | Path] | None = None,
               exact: Bundle | None = None, threads: int | None = None, progress: Progress | None = None) -> Bundle:
    """Measures the bundle against its checkpoint, writes the report into it, and returns it with its new manifest.

    source                    what the samples are, for people
    tokenizer_folders, hands  as given to build_bundle
    exact                     an F32 bundle of the checkpoint, if there is one already
    Raises                    what build_bundle and measure raise; the bundle is then as it was.

    For the greedy answers an F32 bundle lies beside this one for a while.
    """
    checkpoint = Checkpoint(Path(checkpoint_dir))
    with TemporaryDirectory(prefix=".beingh0-", suffix=".exact", dir=bundle.root.parent) as scratch:
        exact = exact or build_bundle(checkpoint_dir, Path(scratch) / "exact", quant="F32", vision="fp32",
                                      tokenizer_folders=tokenizer_folders, hands=hands, progress=progress)
        original, policy = Policy.load(exact, threads=threads), Policy.load(bundle, threads=threads)
        try:
            measured = measure(Original(original, checkpoint), policy, samples, progress)
        finally:
            original.close()
            policy.close()
    facts = {"format": _FORMAT, "samples_are": source, **describe(bundle), "measured": asdict(measured)}
    with staged(bundle.root) as stage:
        write_json(stage / REPORT_JSON, facts)
        (stage / REPORT_MD).write_text(markdown(facts), encoding="utf-8")
        _plot(facts, stage / REPORT_PNG)
    ours = tuple(FileEntry(name, bundle.path(name).stat().st_size, sha256_of(bundle.path(name)))
                 for name in _OURS)
    others = tuple(entry for entry in bundle.manifest.files if entry.path not in _OURS)
    manifest = replace(bundle.manifest, files=tuple(sorted(others + ours, key=lambda entry: entry.path)))
    write_json(bundle.root / MANIFEST, json.loads(manifest.to_json()))
    return Bundle(bundle.root, manifest)


def read_report(bundle: Bundle) -> dict[str, Any] | None:
    """The bundle's report.json, if it has one of this format."""
    if REPORT_JSON not in {entry.path for entry in bundle.manifest.files}:
        return None
    facts = json.loads(bundle.path(REPORT_JSON).read_bytes())
    return facts if isinstance(facts, dict) and facts.get("format") == _FORMAT else None


def compare_bundles(a: Bundle, b: Bundle, samples: Sequence[Sample], *, threads: int | None = None,
                    progress: Progress | None = None) -> Measured:
    """Bundle b measured against bundle a as the original. Raises ValueError if they are not of one model."""
    first, second = Policy.load(a, threads=threads), Policy.load(b, threads=threads)
    try:
        return measure(Original(first), second, samples, progress)
    finally:
        first.close()
        second.close()


# ------------------------------------------------------------------------------------------------ text


def markdown(facts: Mapping[str, Any]) -> str:
    """report.md from report.json's contents."""
    got = facts["measured"]
    lines = [
        f"# {facts['name']}: what the conversion cost", "",
        f"{facts['layout']} layout, language model {facts['quant']}, vision {facts['vision']}, text embeddings "
        f"{facts['text_embeddings']}, motion tokenizer {facts['motion'] or 'none'}. Measured on {got['samples']} "
        f"samples: {facts['samples_are']}.", "",
        "Vision, text embeddings and logits are compared with the checkpoint read in plain numpy, float32. Whole "
        "answers, motion and robot actions are compared with an F32 bundle of the checkpoint (llama.cpp, float32 "
        "cache).", "",
        "## Parts", "", "| part | max error | mean error | cosine |", "|---|---:|---:|---:|",
        *(f"| {part} | {e['max_abs']:.3g} | {e['mean_abs']:.3g} | {_number(e['cosine'], '.7f')} |"
          for part, e in got["parts"].items()), "",
        "Logits: of the motion ids after every place of the original's greedy answer; the bundle sees with its own "
        "vision tower. Motion decoder: metres and matrix elements of the same ids.", "",
        f"![Errors of the parts, divergence along a block, distance of the joints, bytes by type]({REPORT_PNG})", "",
        "## Answers", "", "| | |", "|---|---:|", *(f"| {name} | {value} |" for name, value in answer_rows(got)), "",
        "## Size", "", "| file | bytes |", "|---|---:|",
        *(f"| {path} | {size:,} |" for path, size in facts["files"].items()),
        f"| all | {facts['total_bytes']:,} |", "",
        f"Every generated id reads {facts['bytes_per_token']:,} bytes of the language model.", "",
        "## What the tensors really became", "", "| tensors | wanted | became | how many | bytes |",
        "|---|---|---|---:|---:|",
        *(f"| {kind} | {wanted} | {became}{'' if wanted == became else ' (fallback)'} | {count} | {size:,} |"
          for (kind, wanted, became), (count, size) in _grouped(facts["tensors"]).items()), ""]
    if any(fact["wanted"] != fact["became"] for fact in facts["tensors"]):
        lines += ["A fallback: the rows are not a multiple of the wanted type's block, so llama.cpp's substitute is "
                  "used.", ""]
    return "\n".join(lines)


def answer_rows(measured: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(what, figure) of everything about whole answers that was measured."""
    rows = [("likeliest next id is the original's", _share(measured["agreement"])),
            ("KL divergence per id, nats", _number(measured["kl"], ".3g")),
            ("greedy ids that are equal", _share(measured["same_ids"])),
            ("MPJPE to the original's greedy motion, mm", _number(measured["mpjpe_mm"], ".3f")),
            ("the same, worst sample, mm", _number(measured["mpjpe_worst_mm"], ".3f"))]
    if measured["true_mm"] is not None:
        original, got = measured["true_mm"]
        rows += [("MPJPE to the true motion: original, mm", f"{original:.2f}"),
                 ("MPJPE to the true motion: this bundle, mm", f"{got:.2f}")]
    if actions := measured["parts"].get("robot actions"):
        rows.append(("robot actions, largest error", f"{actions['max_abs']:.3g}"))
    return rows


def _plot(facts: Mapping[str, Any], path: Path) -> None:
    """How far off each part is, where in a block and a motion the bundle differs, and what its bytes are."""
    from matplotlib.figure import Figure

    got = facts["measured"]
    figure = Figure(figsize=(9, 6), layout="constrained")
    (parts, along), (frames, sizes) = figure.subplots(2, 2)
    names = list(got["parts"])
    for key, colour in (("max_abs", "tab:orange"), ("mean_abs", "tab:blue")):
        values = [got["parts"][name][key] for name in names]
        parts.plot(values, range(len(names)), "o", color=colour, label=key.split("_")[0])
    parts.set_xscale("symlog", linthresh=1e-7)
    parts.set(yticks=range(len(names)), yticklabels=names, xlabel="error", title="parts", xlim=0)
    parts.legend()
    along.plot(got["kl_of_slots"], lw=1)
    along.set(xlabel="place in the block", ylabel="KL divergence, nats", title="along the original's answer")
    for sample in got["apart_of_frames_mm"]:
        frames.plot(sample, lw=1, alpha=0.6)
    frames.set(xlabel="frame", ylabel="mm", title="joints' distance to the original's, per sample", ylim=0)
    kinds: Counter[str] = Counter()
    for fact in facts["tensors"]:
        kinds[fact["became"]] += fact["bytes"]
    sizes.barh(list(kinds), [count / 1e6 for count in kinds.values()])
    sizes.set(xlabel="MB", title="language model by type")
    figure.savefig(path, dpi=90, metadata={"Software": None})


def _grouped(tensors: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], tuple[int, int]]:
    """(kind, wanted, became) -> (count, bytes); the layers of one kind together."""
    counts: Counter[tuple[str, str, str]] = Counter()
    sizes: Counter[tuple[str, str, str]] = Counter()
    for fact in tensors:
        words = fact["name"].split(".")
        kind = ".".join(["blk.*", *words[2:]]) if words[0] == "blk" else fact["name"]
        key = (kind, fact["wanted"], fact["became"])
        counts[key] += 1
        sizes[key] += fact["bytes"]
    return {key: (counts[key], sizes[key]) for key in counts}


def _share(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{value:.2%}"


def _number(value: float | None, form: str) -> str:
    return NOT_MEASURED if value is None else format(value, form)
