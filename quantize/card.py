"""The model card of a bundle: what it came from, what it is, how to run it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from beingh0_edge.bundle import Manifest
from beingh0_edge.gguf_header import read_gguf_header

CARD = "README.md"
_HUB_LICENCES = {"apache-2.0": "apache-2.0", "mit": "mit"}


def write_card(work: Path, manifest: Manifest, sources: Mapping[str, str]) -> None:
    """Writes README.md into the unfinished bundle `work`. sources: name -> SHA-256 of every file that was read."""
    (work / CARD).write_text(card(work, manifest, sources), encoding="utf-8")


def card(work: Path, manifest: Manifest, sources: Mapping[str, str]) -> str:
    m, language, vision = manifest, manifest.language, manifest.vision
    kinds = Counter(read_gguf_header(work / language.file).types.values())
    types = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    facts = [
        ("language model", f"Qwen2, {language.layers} layers of {language.hidden}, {language.layout} layout with "
                           f"{language.rows} rows, asked for {language.quant}: {types} tensors"),
        ("vision", f"{vision.image_size} x {vision.image_size} pixels to {vision.tokens} tokens, {vision.precision}"),
        ("text embeddings", m.embeddings.dtype),
    ]
    if m.motion:
        ids = sum(part.ids_per_block for part in m.motion.parts)
        facts.append(("motion", f"{ids} ids per hand and block of {m.motion.frames} frames at {m.motion.fps:g} Hz, "
                                f"up to {m.max_seconds} s, {m.motion.precision}"))
    if m.robot:
        facts.append(("robot mode", f"{m.robot.proprio_dim} numbers in, {m.robot.chunk_length} x {m.robot.action_dim} "
                                    f"out, {m.robot.gen_action_type}"))
    facts += [(f"{side} hand model", hand.label) for side, hand in m.hands.items()]
    licence = _HUB_LICENCES.get(m.licence.lower(), "other")
    lines = [
        "---", f"license: {licence}", "library_name: beingh0-edge", "pipeline_tag: robotics",
        "tags: [being-h0, gguf, onnx]", "---", "", f"# {m.name}, as an edge bundle", "",
        f"Converted from `{m.provenance.get('checkpoint')}` by {m.provenance.get('converted_by')}. "
        f"Licence: {m.licence}.", "", "| part | what it is |", "|---|---|",
        *(f"| {name} | {text} |" for name, text in facts), "", "## Run it", "",
        *_usage(m), "",
        "Being-H0 writes human hand motion; a robot follows it only through retargeting and limits. What the "
        "conversion cost in accuracy is in `report.md`, if it was measured. `beingh0 bundle verify .` checks every "
        "file against `manifest.json`.", "", "## Converted from", "", "| file | SHA-256 |", "|---|---|",
        *(f"| {name} | `{digest}` |" for name, digest in sources.items()), ""]
    return "\n".join(lines)


def _usage(m: Manifest) -> list[str]:
    if m.tokenizer is None:
        return ["It has no text tokenizer and works on ids only: `Policy.load(folder).backbone.generate_ids(...)`."]
    lines = ["```python", "from beingh0_edge import Observation, Policy",
             "from beingh0_edge.preprocess import read_image", "", 'policy = Policy.load("path/of/this/folder")',
             'seen = Observation(read_image("desk.png"), "pick up the red can", intrinsics_px=(910, 910, 640, 360))']
    if m.motion:
        lines.append('motion = policy.generate(seen, seconds=1, hands="right")')
    if m.robot:
        lines.append(f"actions = policy.act(seen, proprio)  # proprio: float32[{m.robot.proprio_dim}]")
    return [*lines, "```"]
