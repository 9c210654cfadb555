"""`beingh0 train nano`: data, motion tokenizer, VLA, checkpoint, bundle - one resumable recipe.

Every stage leaves a file or a saved state in the run folder, so the same command goes on where it stopped. On two CPU
cores the whole recipe is estimated at three hours; the bundled model had 51 minutes (its model card). On a GPU, where
it has not been run yet, drawing the data should dominate.
"""

from __future__ import annotations

import json
import logging
import platform
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from beingh0_edge import __version__
from beingh0_edge.train import text
from beingh0_edge.train.aids import Aids, CodeSpace, Scene, position_range
from beingh0_edge.train.fit_tokenizer import TokenizerRecipe, encode_all, fit_part, write_folder
from beingh0_edge.train.fit_vla import VlaRecipe, VlaTrainer
from beingh0_edge.train.grq import MotionArgs, MotionVQ
from beingh0_edge.train.model import BeingVLA, LanguageConfig, VisionConfig, VLAConfig
from beingh0_edge.train.probe import make_probe
from beingh0_edge.train.vla_data import MotionVocabulary, VlaData

log = logging.getLogger(__name__)

PARTS = ("wrist", "finger")


@dataclass(frozen=True)
class NanoRecipe:
    """Everything that decides the result; written into the run folder and refused if changed on resume."""

    scenes: int = 40_000
    held_out_scenes: int = 300
    seed: int = 0
    image_size: int = 168
    max_seconds: int = 3
    tokenizer: TokenizerRecipe = field(default_factory=TokenizerRecipe)
    vla: VlaRecipe = field(default_factory=VlaRecipe)
    vit_hidden: int = 192
    vit_layers: int = 4
    hidden: int = 256
    layers: int = 6
    mlp: int = 512


def model_config(recipe: NanoRecipe, tokenizer: Tokenizer) -> VLAConfig:
    return VLAConfig(
        VisionConfig(recipe.image_size, 14, recipe.vit_hidden, 4 * recipe.vit_hidden, recipe.vit_layers, 3),
        LanguageConfig(tokenizer.get_vocab_size(), recipe.hidden, recipe.mlp, recipe.layers,
                       recipe.hidden // 64, recipe.hidden // 128, eos_token_id=tokenizer.token_to_id("<|im_end|>")),
        motion_config=[MotionArgs(use_part=p).to_official() for p in PARTS])


class NanoRun:
    """One run folder. `run()` does whatever is missing, stage by stage."""

    def __init__(self, folder: Path, recipe: NanoRecipe, workers: int = 2, device: str | None = None) -> None:
        self.folder, self.recipe, self.workers = folder, recipe, workers
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        folder.mkdir(parents=True, exist_ok=True)
        self._keep_recipe()

    def _keep_recipe(self) -> None:
        """The recipe of a started run may only change in the length of the VLA training."""
        path = self.folder / "recipe.json"
        now = asdict(self.recipe)
        if path.exists():
            before = json.loads(path.read_text())
            free = {"pictures"}
            changed = [f"{k}: {before.get(k)!r} -> {v!r}" for k, v in json.loads(json.dumps(now)).items()
                       if k != "vla" and before.get(k) != v]
            changed += [f"vla.{k}: {before['vla'].get(k)!r} -> {v!r}"
                        for k, v in json.loads(json.dumps(now["vla"])).items()
                        if k not in free and before["vla"].get(k) != v]
            if changed:
                raise ValueError(f"{path}: this folder was started with another recipe ({'; '.join(changed)}); "
                                 "choose an empty folder or the same recipe")
        _write_json(path, now)

    # ------------------------------------------------------------------------------------- stages

    def data(self) -> tuple[Path, Path]:
        """Training and held-out pictures with motions."""
        from beingh0_edge.train import procedural

        train, held_out = self.folder / "data", self.folder / "held_out"
        r = self.recipe
        procedural.write_dataset(train, r.scenes, r.seed, self.workers, size=r.image_size)
        procedural.write_dataset(held_out, r.held_out_scenes, r.seed, self.workers, size=r.image_size,
                                 split=procedural.Split.HELD_OUT, picks_only=True)
        return train, held_out

    def motion_tokenizer(self, train: Path) -> dict[str, MotionVQ]:
        """Wrist and finger quantizers, one after the other."""
        models = {}
        for part in PARTS:
            features, _ = _windows(train, part, limit=400_000, seed=self.recipe.seed)
            models[part] = fit_part(MotionArgs(use_part=part), features, self.recipe.tokenizer,
                                    self.folder / f"tokenizer_{part}.pt")
            write_folder(models[part], self.folder / "checkpoint" / "motion" / part)
        return models

    def ids(self, data: Path, models: dict[str, MotionVQ]) -> npt.NDArray[np.int16]:
        """Ids of every hand and second, int16[M, 2, seconds, ids], -1 where a hand has no motion; cached."""
        path = data / "ids.npy"
        if path.exists():
            out: npt.NDArray[np.int16] = np.load(path, mmap_mode="r")
            return out
        log.info("encoding the motions of %s", data)
        blocks, offset = [], 0
        for part in PARTS:
            features, present = _windows(data, part)
            ids = np.full((*present.shape, models[part].args.ids_per_block), -1, np.int16)
            ids[present] = encode_all(models[part], features) + offset
            blocks.append(ids)
            offset += models[part].args.nb_code
        out = np.concatenate(blocks, -1)
        temporary = path.with_suffix(".tmp.npy")
        np.save(temporary, out)
        temporary.replace(path)
        return out

    def text_tokenizer(self, train: Path) -> Tokenizer:
        path = self.folder / "checkpoint" / "tokenizer.json"
        if not path.exists():
            with (train / "text.jsonl").open() as lines:
                corpus = [f", {json.loads(line)['text']}" for line in lines]
            steps = [str(15 * s) for s in range(1, self.recipe.max_seconds + 1)]
            path.parent.mkdir(parents=True, exist_ok=True)
            text.save(text.build_tokenizer([*corpus, *steps * 100], len(PARTS) * MotionArgs().nb_code), path)
        return Tokenizer.from_file(str(path))

    def trainer(self, train: Path, models: dict[str, MotionVQ], tokenizer: Tokenizer) -> VlaTrainer:
        """The VLA trainer, restored if this run has a saved state."""
        from beingh0_edge.train import procedural

        r = self.recipe
        torch.manual_seed(r.seed)
        config = model_config(r, tokenizer)
        args = MotionArgs()
        vocabulary = MotionVocabulary.read(tokenizer, args.ids_per_block, len(PARTS) * args.ids_per_block, args.nb_code,
                                           args.num_quant_groups)
        data = VlaData(train, self.ids(train, models), tokenizer, vocabulary, config.num_image_token)
        books = torch.stack([models[p].codebooks() for p in PARTS])
        codes = CodeSpace(books.to(self.device), _latent_variance(books, data.ids, args).to(self.device),
                          args.positions, args.num_quantizers)
        camera = procedural.CANONICAL_CAMERA
        scale = r.image_size / camera.width
        low, high = position_range(data.target_pos)
        scene = Scene(len(procedural.KINDS), len(procedural.COLOURS),
                      (camera.fx * scale, camera.fy * scale, camera.cx * scale, camera.cy * scale),
                      r.image_size, low, high)
        model = BeingVLA(config)
        _initialise(model, books, vocabulary)
        image_token = tokenizer.token_to_id("<IMG_CONTEXT>")
        if image_token is None:
            raise ValueError("tokenizer.json: expected a token '<IMG_CONTEXT>', found none")
        return VlaTrainer(model, Aids(r.hidden, scene, codes), data, r.vla, image_token,
                          self.folder / "vla.pt", self.device)

    def write_checkpoint(self, trainer: VlaTrainer) -> Path:
        """The averaged weights in the official layout, ready for `beingh0_edge.quantize`."""
        from beingh0_edge.train import procedural

        folder = self.folder / "checkpoint"
        weights = {k: v.detach().cpu().contiguous() for k, v in trainer.average.items()}
        temporary = folder / "model.safetensors.tmp"
        save_file(weights, temporary)
        temporary.replace(folder / "model.safetensors")
        _write_json(folder / "config.json", trainer.model.config.to_official())
        _write_json(folder / "edge.json", {
            "name": "beingh0-nano", "licence": "Apache-2.0", "camera": asdict(procedural.CANONICAL_CAMERA),
            "image_size": self.recipe.image_size, "max_seconds": self.recipe.max_seconds,
            "provenance": {
                "trained_by": f"beingh0_edge {__version__} train nano", "data": "procedural, synthetic hand",
                "recipe": asdict(self.recipe), "pictures": trainer.done, "steps": trainer.step,
                "seconds": round(trainer.seconds_spent), "device": self.device,
                "machine": f"{platform.machine()}, {torch.get_num_threads()} threads", "torch": torch.__version__,
            }})
        _write_json(self.folder / "history.json", trainer.history)
        return folder

    def run(self, bundle: Path | None = None) -> Path:
        """All stages; returns the checkpoint folder. With `bundle`, also builds the bundle there."""
        started = time.monotonic()
        train, held_out = self.data()
        models = self.motion_tokenizer(train)
        tokenizer = self.text_tokenizer(train)
        trainer = self.trainer(train, models, tokenizer)
        probe_data = VlaData(held_out, self.ids(held_out, models), tokenizer, trainer.data.vocabulary,
                             trainer.model.config.num_image_token)
        probe = make_probe(probe_data, trainer.aids, models["wrist"], grasp_offset(), trainer.image_token)
        trainer.run(probe)
        checkpoint = self.write_checkpoint(trainer)
        if bundle is not None:
            from beingh0_edge.quantize import build_bundle

            build_bundle(checkpoint, bundle, quant="Q8_0", vision="fp16", motion="fp16", overwrite=True)
        log.info("nano: done after %.0f s in this call", time.monotonic() - started)
        return checkpoint


def grasp_offset() -> npt.NDArray[np.float64]:
    """The right hand's fixed grasp point in its wrist frame, metres, from the shipped hand."""
    from beingh0_edge.train import procedural

    return np.asarray(procedural.grasp_point_m("right"), np.float64)


def _windows(folder: Path, part: str, limit: int | None = None,
             seed: int = 0) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Every hand-second of a data set: features [n, window, D] and the mask bool[M, 2, seconds] they come from."""
    features = np.load(folder / f"{part}.npy", mmap_mode="r")
    present = np.load(folder / "present.npy")
    if limit is not None and present.sum() > limit:
        picked = np.random.default_rng(seed).permutation(np.flatnonzero(present))[:limit]
        mask = np.zeros(present.size, bool)
        mask[picked] = True
        mask = mask.reshape(present.shape)
    else:
        mask = present
    out = np.empty((int(mask.sum()), *features.shape[3:]), features.dtype)
    at = 0
    for start in range(0, len(features), 8192):  # a boolean index on a memory map would read it row by row
        chunk = np.asarray(features[start : start + 8192])[mask[start : start + 8192]]
        out[at : at + len(chunk)] = chunk
        at += len(chunk)
    return out, mask


def _latent_variance(books: torch.Tensor, ids: npt.NDArray[np.int16], args: MotionArgs) -> torch.Tensor:
    """Variance of the quantised latents, float[parts, G], from a sample of blocks."""
    rows = np.asarray(ids[:20_000]).reshape(-1, ids.shape[-1])
    blocks = torch.from_numpy(rows[rows[:, 0] >= 0][:20_000].astype(np.int64))
    out = torch.zeros(len(books), args.num_quant_groups)
    for p, codes in enumerate(blocks.chunk(len(books), 1)):
        codes = (codes - p * args.nb_code).view(-1, args.num_quant_groups, args.positions, args.num_quantizers)
        for g in range(args.num_quant_groups):
            out[p, g] = books[p, g][codes[:, g]].sum(2).var(0).mean()
    return out


@torch.no_grad()
def _initialise(model: BeingVLA, books: torch.Tensor, vocabulary: MotionVocabulary) -> None:
    """Small normal weights, and motion rows that start as random projections of their codebook rows."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embeddings" not in name:
            torch.nn.init.normal_(parameter, std=0.02)
        elif name.endswith("bias"):
            parameter.zero_()
    parts, groups, rows, dim = books.shape
    table = books.permute(0, 2, 1, 3).reshape(parts, rows, groups * dim)
    hidden = model.config.language.hidden_size
    first = vocabulary.motion_id_0
    for p in range(parts):
        projected = table[p] @ torch.randn(groups * dim, hidden)
        projected = 0.02 * projected / projected.std()
        at = slice(first + p * rows, first + (p + 1) * rows)
        model.language.get_parameter("model.embed_tokens.weight")[at] = projected
        model.language.lm_head.weight[at] = projected


def _write_json(path: Path, value: Any) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=1, default=str) + "\n")
    temporary.replace(path)


def main(folder: Path, *, pictures: int | None = None, scenes: int | None = None,
         bundle: Path | None = None, workers: int = 2, device: str | None = None) -> Path:
    """Entry of `beingh0 train nano`; numbers left None come from the recipe."""
    recipe = NanoRecipe()
    if scenes is not None:
        recipe = replace(recipe, scenes=scenes)
    if pictures is not None:
        recipe = replace(recipe, vla=replace(recipe.vla, pictures=pictures))
    return NanoRun(folder, recipe, workers, device).run(bundle)
