"""`beingh0 bundle inspect` and `beingh0 bundle verify`."""

from __future__ import annotations

import json

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
