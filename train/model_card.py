"""The model card of a nano run, from the run's files: what it is, how it was made and learned, how well it does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from beingh0_edge.train.evaluate_nano import Result, markdown

_TEXT = """# beingh0-nano

A small model with the architecture, token grammar and code path of Being-H0 (arXiv 2507.15597): InternViT, pixel
shuffle, projector, Qwen2, and a grouped residual motion tokenizer with 128 ids per hand and second.
{parameters:.1f} million parameters, trained from nothing on pictures drawn by this package. It shows that everything
works; it has never seen a real photo or a real hand.

- **Input**: a photo with known intrinsics, one sentence. **Output**: MANO-shaped motion of one or two hands, 1 to
  {max_seconds} seconds, 15 frames each, camera frame.
- **World**: {kinds} in {colours}; plates; verbs {verbs}; right, left or both hands.
- **Hand**: the synthetic hand of this package, labelled "synthetic, not MANO". Licence of everything: Apache-2.0.

## How it was made

    beingh0 train nano --out runs/nano --bundle runs/nano/bundle --pictures {pictures}

Seed {seed}; {scenes} scenes, three tasks each, so that only the words decide; {pictures} pictures seen in {steps} steps
({minutes:.0f} minutes of training on {machine}, {device}). Parts of a run: {budget}. The full recipe is in
`manifest.json` under `provenance`.{notes}

## How it learned

Held-out right-hand picks, greedy, averaged weights; *head* is the training-only head that reads the object's place from
the hidden state. *nearest* and *reach* as below.

![Metrics against pictures seen](nano_curve.png)

{curve}

## How well it does

`beingh0 eval nano --episodes {episodes}`: unseen scenes through the deployed path (photo with its own intrinsics,
preprocessing, GGUF and ONNX model, C++ decoding). *nearest*: the hand ends nearest to the named object. *other words*:
same picture, another object named, judged as before. *within 4 cm* of the named object's centre. *MPJPE*: 21 joints,
camera frame, mm; *baseline*: always answering with the mean motion.

{table}
"""


def write_card(run: Path, figures: Path, out: Path, notes: str = "") -> None:
    """Writes `nano.md` and `nano_curve.png` into the folder `out` from a run folder and an evaluation's JSON."""
    from beingh0_edge.train import procedural

    recipe = json.loads((run / "recipe.json").read_text())
    history: list[dict[str, Any]] = json.loads((run / "history.json").read_text())
    made = json.loads((run / "checkpoint" / "edge.json").read_text())
    evaluation = json.loads(figures.read_text())
    vla = recipe["vla"]
    budget = (f"the first {vla['prompt_phase']:.0%} of the pictures teach where the named object is, then "
              f"{vla['later_prompt']:.0%} of the steps still do, {vla['later_wrist']:.0%} learn the wrist's ids, "
              f"{vla['later_full']:.0%} whole answers, the rest the first latent group of the wrist")
    _plot(history, out / "nano_curve.png")
    (out / "nano.md").write_text(_TEXT.format(
        parameters=_parameters(run / "checkpoint" / "model.safetensors") / 1e6, max_seconds=recipe["max_seconds"],
        kinds=", ".join(procedural.KINDS), colours=", ".join(procedural.COLOURS), verbs=", ".join(procedural.VERBS),
        seed=recipe["seed"], scenes=recipe["scenes"], pictures=made["provenance"]["pictures"],
        steps=made["provenance"]["steps"], minutes=made["provenance"]["seconds"] / 60,
        machine=made["provenance"]["machine"], device=made["provenance"]["device"], budget=budget,
        notes=f"\n\n{notes}" if notes else "", curve=_table(history), episodes=evaluation["episodes"],
        table=markdown([Result.of(row) for row in evaluation["rows"]])))


def _parameters(weights: Path) -> int:
    from math import prod

    from safetensors import safe_open

    with safe_open(weights, "numpy") as tensors:
        return sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


_COLUMNS = {"pictures": "pictures", "seconds": "s", "head_nearest": "head nearest", "head_median_mm": "head mm",
            "nearest": "nearest", "shuffled": "other words", "reach": "reach 4 cm", "median_mm": "median mm"}


def _table(history: list[dict[str, Any]]) -> str:
    rows = [list(_COLUMNS.values()), ["---"] * len(_COLUMNS)]
    rows += [[f"{h[k]:.0f}" if k in ("pictures", "seconds") or k.endswith("_mm") else f"{h[k]:.2f}" for k in _COLUMNS]
             for h in history]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _plot(history: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    rates, errors = figure.subplots(1, 2)
    x = [h["pictures"] / 1000 for h in history]
    for key in ("head_nearest", "nearest", "shuffled", "reach"):
        rates.plot(x, [h[key] for h in history], marker=".", label=_COLUMNS[key])
    rates.axhline(1 / 3, color="grey", lw=0.8, ls=":")
    rates.set(xlabel="thousand pictures", ylabel="share of held-out tasks", ylim=(0, 1))
    rates.legend()
    for key in ("head_median_mm", "median_mm"):
        errors.plot(x, [h[key] for h in history], marker=".", label=_COLUMNS[key])
    errors.set(xlabel="thousand pictures", ylabel="median distance to the object (mm)", yscale="log")
    errors.legend()
    figure.savefig(path, dpi=90)
