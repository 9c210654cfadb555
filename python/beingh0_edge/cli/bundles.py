"""`beingh0 bundle inspect`, `verify` and `compare`."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict
from typing import Any

from ..bundle import Bundle
from .tables import table


def verify(path: str) -> str:
    """Raises BundleError at the first thing that is not as it should be."""
    bundle = Bundle.open(path)
    bundle.verify()
    files = bundle.manifest.files
    total = sum(entry.size for entry in files)
    return f"{bundle.root}: {len(files)} files, {total / 1e6:.2f} MB, all as the manifest says"


def inspect(path: str, as_json: bool) -> str:
    bundle = Bundle.open(path)
    facts = bundle.inspect()
    if as_json:
        return json.dumps(facts, indent=1, ensure_ascii=False)
    m, language, vision = bundle.manifest, facts["language"], bundle.manifest.vision
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(language["tensor_types"].items()))
    rows = [
        ("name", m.name),
        ("folder", facts["path"]),
        ("size", f"{facts['total_bytes'] / 1e6:.2f} MB in {len(m.files)} files"),
        ("format", f"revision {m.revision}, chat template {m.template}, up to {m.max_seconds} s of motion"),
        ("language", f"Qwen2, {language['layers']} layers of {language['hidden']}, {language['rows']} rows "
                     f"({language['layout']}), {language['quant']}: {kinds}"),
        ("vision", f"{vision.image_size} px, {vision.tokens} tokens, {vision.precision}"),
        ("camera", "fx {fx:g}  fy {fy:g}  cx {cx:g}  cy {cy:g}  {width}x{height}".format(
            **facts["preprocess"]["camera"])),
    ]
    if m.motion:
        parts = " + ".join(f"{folder} ({part.ids_per_block} ids)" for folder, part in zip(
            m.motion.folders, m.motion.parts, strict=True))
        rows.append(("motion", f"{parts}, {m.motion.frames} frames at {m.motion.fps:g} Hz"))
    rows += [(f"{side} hand", hand.label) for side, hand in m.hands.items()]
    if (robot := m.robot) is not None:
        rows.append(("robot mode", f"{robot.proprio_dim} in, {robot.chunk_length} x {robot.action_dim} out"))
    rows.append(("licence", m.licence))
    rows += [(key.replace("_", " "), str(value)) for key, value in m.provenance.items()
             if isinstance(value, str | int)]
    return table(rows)


def compare(path_a: str, path_b: str, count: int, as_json: bool) -> str:
    """Raises ValueError if the bundles are not of one model."""
    from ..quantize.report import compare_bundles, describe, read_report
    from .convert import Meter, quiet
    from .samples import samples_for

    if count < 1:
        raise ValueError(f"--samples: expected a whole number from 1 on, got {count}")
    a, b = Bundle.open(path_a), Bundle.open(path_b)
    with closing(Meter()) as meter, quiet():
        samples, source = samples_for(a, count)
        measured = asdict(compare_bundles(a, b, samples, progress=meter))
    facts = [describe(bundle) for bundle in (a, b)]
    reports = [read_report(bundle) for bundle in (a, b)]
    if as_json:
        return json.dumps({"samples_are": source, "a": facts[0], "b": facts[1], "reports": reports,
                           "b_against_a": measured}, indent=1, ensure_ascii=False)
    return "\n\n".join([_side_by_side(facts, reports), _against(measured, source)])


def _side_by_side(facts: list[dict[str, Any]], reports: list[dict[str, Any] | None]) -> str:
    from ..quantize.report import answer_rows

    rows: list[tuple[str, ...]] = [("", "A", "B")]
    rows += [(key.replace("_", " "), *(str(fact[key]) for fact in facts))
             for key in ("name", "layout", "quant", "vision", "text_embeddings", "motion")]
    kinds = [sorted({tensor["became"] for tensor in fact["tensors"]}) for fact in facts]
    rows += [("tensor types", *(", ".join(kind) for kind in kinds)),
             ("size, MB", *(f"{fact['total_bytes'] / 1e6:.2f}" for fact in facts)),
             ("read per id, MB", *(f"{fact['bytes_per_token'] / 1e6:.2f}" for fact in facts))]
    columns = [dict(answer_rows(report["measured"])) if report else {} for report in reports]
    rows += [(f"report: {what}", *(column.get(what, "no report") for column in columns))
             for what in dict.fromkeys([*columns[0], *columns[1]])]
    return table(rows)


def _against(measured: dict[str, Any], source: str) -> str:
    from ..quantize.report import answer_rows

    rows = [("B against A", "max error", "mean error", "cosine")]
    rows += [(part, f"{e['max_abs']:.3g}", f"{e['mean_abs']:.3g}",
              "not defined" if e["cosine"] is None else f"{e['cosine']:.7f}") for part, e in measured["parts"].items()]
    return "\n".join([table(rows), "", table(answer_rows(measured)), "", f"{measured['samples']} samples: {source}"])
