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

Seed {seed}; {scenes} scenes, three tasks each, so that only the words decide. Three stages on {machine}, {device}:

{stages}

*vision* teaches ViT and projector to write into each visual token what stands in its cell; *language* teaches the
language model to answer from such tokens, written from the truth instead of a picture; *joint* puts the two together.
The first two do not wait for each other. The full recipe is in `manifest.json` under `provenance`.{notes}

## How it learned

Held-out right-hand picks, greedy, averaged weights; *head* is the training-only head that reads the object's place from
the hidden state. *nearest* and *reach* as below. In the language stage the model is given the truth instead of the
picture.

![Metrics against time](nano_curve.png)

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
    _plot(history, out / "nano_curve.png")
    (out / "nano.md").write_text(_TEXT.format(
        parameters=_parameters(run / "checkpoint" / "model.safetensors") / 1e6, max_seconds=recipe["max_seconds"],
        kinds=", ".join(procedural.KINDS), colours=", ".join(procedural.COLOURS), verbs=", ".join(procedural.VERBS),
        seed=recipe["seed"], scenes=recipe["scenes"],
        pictures=sum(stage["pictures"] for stage in made["provenance"]["stages"].values()),
        stages=_stages(made["provenance"]["stages"]),
        machine=made["provenance"]["machine"], device=made["provenance"]["device"],
        notes=f"\n\n{notes}" if notes else "", curve=_table(history), episodes=evaluation["episodes"],
        table=markdown([Result.of(row) for row in evaluation["rows"]])))


def _parameters(weights: Path) -> int:
    from math import prod

    from safetensors import safe_open

    with safe_open(weights, "numpy") as tensors:
        return sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118


def _stages(stages: dict[str, dict[str, int]]) -> str:
    rows = [["stage", "pictures", "steps", "minutes"], ["---"] * 4]
    rows += [[name, str(s["pictures"]), str(s["steps"]), f"{s['seconds'] / 60:.0f}"] for name, s in stages.items()]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


_COLUMNS = {"stage": "stage", "pictures": "pictures", "seconds": "s", "head_nearest": "head nearest",
            "head_median_mm": "head mm", "nearest": "nearest", "shuffled": "other words", "reach": "reach 4 cm",
            "median_mm": "median mm"}


def _answers(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The evaluations that asked for motion, which the vision stage's do not."""
    return [h for h in history if "nearest" in h]


def _cell(name: str, value: Any) -> str:
    if name == "stage":
        return str(value)
    return f"{value:.0f}" if name in ("pictures", "seconds") or name.endswith("_mm") else f"{value:.2f}"


def _table(history: list[dict[str, Any]]) -> str:
    rows = [list(_COLUMNS.values()), ["---"] * len(_COLUMNS)]
    rows += [[_cell(name, h[name]) for name in _COLUMNS] for h in _answers(history)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _plot(history: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    places, rates, errors = figure.subplots(1, 3)
    vision = [h for h in history if h["stage"] == "vision"]
    for key, label in (("object_mm", "objects"), ("palm_mm", "palms")):
        places.plot([h["seconds"] / 60 for h in vision], [h[key] for h in vision], marker=".", label=label)
    places.set(xlabel="minutes, vision stage", ylabel="median error of places in tokens (mm)", yscale="log")
    places.legend()
    answers, before, x = _answers(history), 0.0, []
    for last, h in zip([None, *answers], answers, strict=False):
        if last is not None and last["stage"] != h["stage"]:
            before = last["seconds"] / 60
            for axes in (rates, errors):
                axes.axvline(before, color="grey", lw=0.8)
        x.append(before + h["seconds"] / 60)
    for key in ("head_nearest", "nearest", "shuffled", "reach"):
        rates.plot(x, [h[key] for h in answers], marker=".", label=_COLUMNS[key])
    rates.axhline(1 / 3, color="grey", lw=0.8, ls=":")
    rates.set(xlabel="minutes, language | joint", ylabel="share of held-out tasks", ylim=(0, 1))
    rates.legend()
    for key in ("head_median_mm", "median_mm"):
        errors.plot(x, [h[key] for h in answers], marker=".", label=_COLUMNS[key])
    errors.set(xlabel="minutes, language | joint", ylabel="median distance to the object (mm)", yscale="log")
    errors.legend()
    figure.savefig(path, dpi=90)
