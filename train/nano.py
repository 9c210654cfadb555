"""`beingh0 train nano`: data, motion tokenizer, three stages of the VLA, checkpoint, bundle - one resumable recipe.

Every stage leaves a file or a saved state in the run folder, so the same command goes on where it stopped. The picture
side and the language side learn at the same time, each in a process with one thread: on two CPU cores that is
faster than one process with two.
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
from beingh0_edge.files import staged, write_json
from beingh0_edge.train import text
from beingh0_edge.train.aids import Aids, CodeSpace, code_features, left_before, position_range
from beingh0_edge.train.description import SceneDescription
from beingh0_edge.train.fit import Fit, FitRecipe
from beingh0_edge.train.fit_tokenizer import TokenizerRecipe, encode_all, fit_part, latent_all, write_folder
from beingh0_edge.train.fit_vision import VisionFit
from beingh0_edge.train.fit_vla import VlaFit, VlaRecipe
from beingh0_edge.train.grq import MotionArgs, MotionVQ
from beingh0_edge.train.model import BeingVLA, LanguageConfig, VisionConfig, VLAConfig
from beingh0_edge.train.probe import make_probe
from beingh0_edge.train.vla_data import MotionVocabulary, OtherCodes, VlaData

log = logging.getLogger(__name__)

PARTS = ("wrist", "finger")
STAGES = ("vision", "language", "joint")


@dataclass(frozen=True)
class NanoRecipe:
    """Everything that decides the result; written into the run folder and refused if changed on resume."""

    scenes: int = 40_000
    held_out_scenes: int = 300
    seed: int = 0
    image_size: int = 168
    max_seconds: int = 3
    wrist: TokenizerRecipe = field(default_factory=lambda: TokenizerRecipe(first_group_odds=0.4))
    finger: TokenizerRecipe = field(default_factory=TokenizerRecipe)
    spread: float = 0.15  # of the ids that are drawn anew, see OtherCodes
    blur: float = 0.2     # of the odds of ids, see CodeSpace
    spoken_levels: tuple[tuple[int, int], ...] = ((2, 1), (2, 2))  # quantizers per part and group; the rest are silent
    vision: FitRecipe = field(default_factory=lambda: FitRecipe(pictures=180_000, batch_pictures=32))
    language: VlaRecipe = field(default_factory=lambda: VlaRecipe(
        pictures=50_000, batch_pictures=12, code_weight=1.0, position_weight=0.6, start_weight=0.4, latent_weight=0.5))
    joint: VlaRecipe = field(default_factory=lambda: VlaRecipe(
        pictures=47_000, batch_pictures=12, prompt_phase=0.0, later_prompt=0.05, later_full=0.2, muon_lr=0.012,
        adam_lr=1e-3))
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


@dataclass
class Prepared:
    """What the stages share."""

    data: VlaData
    probes: VlaData              # held-out right-hand picks
    models: dict[str, MotionVQ]
    model: BeingVLA              # as initialised
    aids: Aids
    description: SceneDescription
    image_token: int


class NanoRun:
    """One run folder. `run()` does whatever is missing, stage by stage."""

    def __init__(self, folder: Path, recipe: NanoRecipe, workers: int = 2, device: str | None = None) -> None:
        self.folder, self.recipe, self.workers = folder, recipe, workers
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:  # now, not after the data were drawn
            raise ValueError(f"device: expected one that torch has here, got {device!r} "
                             f"({str(error).splitlines()[0]})") from None
        folder.mkdir(parents=True, exist_ok=True)
        self._keep_recipe()

    def _keep_recipe(self) -> None:
        """The recipe of a started run may only change in the length of its stages."""
        path = self.folder / "recipe.json"
        now = json.loads(json.dumps(asdict(self.recipe)))
        if path.exists():
            before, after = (_flat(x) for x in (json.loads(path.read_text()), now))
            changed = [f"{k}: {before.get(k)!r} -> {after.get(k)!r}" for k in sorted(before.keys() | after.keys())
                       if not k.endswith(".pictures") and before.get(k) != after.get(k)]
            if changed:
                raise ValueError(f"{path}: this folder was started with another recipe ({'; '.join(changed)}); "
                                 "choose an empty folder or the same recipe")
        write_json(path, now)

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
            models[part] = fit_part(MotionArgs(use_part=part), features, getattr(self.recipe, part),
                                    self.folder / f"tokenizer_{part}.pt")
        return models

    def ids(self, data: Path, models: dict[str, MotionVQ]) -> npt.NDArray[np.int16]:
        """Ids of every hand and second, int16[M, 2, seconds, ids], -1 where a hand has no motion; cached."""
        path = data / "ids.npy"
        if not path.exists():
            log.info("encoding the motions of %s", data)
            blocks, offset = [], 0
            for part in PARTS:
                features, present = _windows(data, part)
                ids = np.full((*present.shape, models[part].args.ids_per_block), -1, np.int16)
                ids[present] = encode_all(models[part], features) + offset
                blocks.append(ids)
                offset += models[part].args.nb_code
            _save_array(path, np.concatenate(blocks, -1))
        out: npt.NDArray[np.int16] = np.load(path, mmap_mode="r")
        return out

    def wrist_latents(self, data: Path, model: MotionVQ) -> npt.NDArray[np.float16]:
        """What the wrist's ids quantise, float16[M, 2, seconds, positions * code_dim]; NaN where absent; cached."""
        path = data / "wrist_latents.npy"
        if not path.exists():
            features, present = _windows(data, "wrist")
            latents = np.full((*present.shape, model.args.positions * model.args.code_dim), np.nan, np.float16)
            latents[present] = latent_all(model, features)
            _save_array(path, latents)
        out: npt.NDArray[np.float16] = np.load(path, mmap_mode="r")
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

    def prepare(self) -> Prepared:
        """Everything before the VLA: data, tokenizers, ids."""
        from beingh0_edge.train import procedural

        train, held_out = self.data()
        models = self.motion_tokenizer(train)
        tokenizer = self.text_tokenizer(train)
        r, args = self.recipe, MotionArgs()
        config = model_config(r, tokenizer)
        vocabulary = MotionVocabulary.read(tokenizer, args.ids_per_block, len(PARTS) * args.ids_per_block, args.nb_code,
                                           args.num_quant_groups)
        data = VlaData(train, self.ids(train, models), tokenizer, vocabulary, config.num_image_token)
        probes = VlaData(held_out, self.ids(held_out, models), tokenizer, vocabulary, config.num_image_token)
        books = torch.stack([models[p].codebooks() for p in PARTS])
        variance, residual = (x.to(self.device) for x in _latent_spread(books, data.ids, args))
        codes = CodeSpace(books.to(self.device), variance, residual, args.positions, args.num_quantizers,
                          r.blur)
        data.other_codes = OtherCodes(self.wrist_latents(train, models["wrist"]), books[0], args.positions,
                                      args.num_quantizers, r.spread)
        data.silent = _silent([models[part] for part in PARTS], r.spoken_levels)
        camera = procedural.CANONICAL_CAMERA
        scale = r.image_size / camera.width
        low, high = position_range(data.target_pos)
        palms = data.hands_start[..., :3][np.isfinite(data.hands_start[..., 0])]
        description = SceneDescription(
            r.hidden, round(config.num_image_token**0.5),
            (camera.fx * scale, camera.fy * scale, camera.cx * scale, camera.cy * scale), r.image_size, low, high,
            len(procedural.KINDS), len(procedural.COLOURS), self.device)
        image_token = tokenizer.token_to_id("<IMG_CONTEXT>")
        if image_token is None:
            raise ValueError("tokenizer.json: expected a token '<IMG_CONTEXT>', found none")
        torch.manual_seed(r.seed)
        model = BeingVLA(config)
        _initialise(model, codes, vocabulary)
        return Prepared(data, probes, models, model, Aids(r.hidden, (low, high), position_range(palms), codes),
                        description, image_token)

    def vision(self, p: Prepared) -> VisionFit:
        return VisionFit(p.model, p.data, p.description, self.recipe.vision, self.folder / "vision.pt", self.device)

    def language(self, p: Prepared) -> VlaFit:
        return VlaFit(p.model, p.aids, p.data, p.description, self.recipe.language, p.image_token,
                      self.folder / "language.pt", self.device, from_pictures=False)

    def joint(self, p: Prepared) -> VlaFit:
        """The last stage; a new one starts from the averages that the other two left."""
        if not (self.folder / "joint.pt").exists():
            for name in ("vision", "language"):
                state = torch.load(self.folder / f"{name}.pt", weights_only=True, map_location="cpu")
                p.model.load_state_dict(state["average"], strict=False)
            torch.nn.ModuleList([p.aids]).load_state_dict(state["heads"])
        return VlaFit(p.model, p.aids, p.data, p.description, self.recipe.joint, p.image_token,
                      self.folder / "joint.pt", self.device, from_pictures=True)

    def stage(self, name: str) -> Fit:
        """Runs one stage to its end."""
        p = self.prepare()
        fit: Fit
        if name == "vision":
            fit = vision = self.vision(p)
            vision.run(lambda: vision.figures(p.probes))
        else:
            fit = vla = self.language(p) if name == "language" else self.joint(p)
            vla.run(make_probe(vla, p.probes, p.models["wrist"], grasp_offset()))
        return fit

    def write_checkpoint(self, fit: Fit, models: dict[str, MotionVQ], config: VLAConfig) -> Path:
        """The averaged weights and the motion tokenizer in the official layout, ready for `beingh0_edge.quantize`."""
        from beingh0_edge.train import procedural

        folder = self.folder / "checkpoint"
        history, stages = [], {}
        for name in STAGES:
            state = torch.load(self.folder / f"{name}.pt", weights_only=True, map_location="cpu")
            history += json.loads(state["history"])
            stages[name] = {"pictures": int(state["done"]), "steps": int(state["step"]),
                            "seconds": round(float(state["seconds_spent"]))}
        for part in PARTS:
            with staged(folder / "motion" / part) as stage:
                write_folder(models[part], stage)
        with staged(folder) as stage:
            weights = {k: v.detach().cpu().contiguous() for k, v in (fit.model.state_dict() | fit.average).items()}
            save_file(weights, stage / "model.safetensors")
            write_json(stage / "config.json", config.to_official())
            write_json(stage / "edge.json", {
                "name": "beingh0-nano", "licence": "Apache-2.0", "camera": asdict(procedural.CANONICAL_CAMERA),
                "image_size": self.recipe.image_size, "max_seconds": self.recipe.max_seconds,
                "provenance": {
                    "trained_by": f"beingh0_edge {__version__} train nano", "data": "procedural, synthetic hand",
                    "recipe": asdict(self.recipe), "stages": stages, "device": self.device,
                    "machine": platform.machine(), "torch": torch.__version__,
                }})
        write_json(self.folder / "history.json", history)
        return folder

    def run(self, bundle: Path | None = None) -> Path:
        """All stages; returns the checkpoint folder. With `bundle`, also builds the bundle there."""
        started = time.monotonic()
        prepared = self.prepare()
        models, config = prepared.models, prepared.model.config
        del prepared  # every stage prepares its own
        if self.device == "cpu":
            self._side_by_side()
        else:
            for name in ("vision", "language"):
                self.stage(name)
        checkpoint = self.write_checkpoint(self.stage("joint"), models, config)
        if bundle is not None:
            from beingh0_edge.quantize import build_bundle

            build_bundle(checkpoint, bundle, quant="Q8_0", vision="fp16", motion="fp16", overwrite=True)
        log.info("nano: done after %.0f s in this call", time.monotonic() - started)
        return checkpoint

    def _side_by_side(self) -> None:
        """Vision and language in a process each, with a thread each; a failure of one ends both."""
        context = torch.multiprocessing.get_context("spawn")
        processes = [context.Process(target=_stage_process, args=(self, name)) for name in ("vision", "language")]
        for process in processes:
            process.start()
        try:
            while any(process.is_alive() for process in processes):
                time.sleep(1)
                if any(process.exitcode for process in processes):
                    break
        except KeyboardInterrupt:  # the processes got it too, and save their states
            for process in processes:
                process.join(60)
            raise
        finally:
            for process in processes:
                if process.is_alive():
                    process.terminate()
                process.join()
        for process in processes:
            if process.exitcode:
                raise RuntimeError(f"a stage of the training ended with status {process.exitcode}; see its messages")


def _stage_process(run: NanoRun, name: str) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    run.stage(name)


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


def _silent(models: list[MotionVQ], spoken: tuple[tuple[int, ...], ...]) -> npt.NDArray[np.int16]:
    """The id of each slot of a block that says nothing, -1 for those that do: int16[block_ids].

    What is left of a latent after the first levels is smaller than what a model of this size gets wrong. Ids for it
    would be guesses, and each guess adds to the error.
    """
    out = []
    for part, (model, levels) in enumerate(zip(models, spoken, strict=True)):
        a = model.args
        for row, count in zip(model.silent_rows(), levels, strict=True):
            cell = np.full(a.num_quantizers, part * a.nb_code + row, np.int16)
            cell[:count] = -1
            out.append(np.tile(cell, a.positions))
    return np.concatenate(out)


def _latent_spread(books: torch.Tensor, ids: npt.NDArray[np.int16],
                   args: MotionArgs) -> tuple[torch.Tensor, torch.Tensor]:
    """(variance of the quantised latents float[parts, G], root mean square of what is left of them before each level
    float[parts, G, quantizers]), from a sample of blocks."""
    rows = np.asarray(ids[:20_000]).reshape(-1, ids.shape[-1])
    blocks = torch.from_numpy(rows[rows[:, 0] >= 0][:20_000].astype(np.int64))
    variance = torch.zeros(len(books), args.num_quant_groups)
    residual = torch.zeros(len(books), args.num_quant_groups, args.num_quantizers)
    for p, codes in enumerate(blocks.chunk(len(books), 1)):
        codes = (codes - p * args.nb_code).view(-1, args.num_quant_groups, args.positions, args.num_quantizers)
        for g in range(args.num_quant_groups):
            left = left_before(books[p, g][codes[:, g]])  # [N, positions, quantizers, D]
            variance[p, g] = left[:, :, 0].var(0).mean()
            residual[p, g] = left.square().mean((0, 1, 3)).sqrt()
    return variance, residual


@torch.no_grad()
def _initialise(model: BeingVLA, codes: CodeSpace, vocabulary: MotionVocabulary) -> None:
    """Small normal weights, and motion rows that start as random projections of what their codes mean."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embeddings" not in name:
            torch.nn.init.normal_(parameter, std=0.02)
        elif name.endswith("bias"):
            parameter.zero_()
    parts, _, rows, _ = codes.codebooks.shape
    for p in range(parts):
        features = code_features(codes, p).to(model.language.lm_head.weight.device)
        projected = features @ torch.randn(features.shape[1], model.config.language.hidden_size)
        projected = projected / projected.std()
        at = slice(vocabulary.motion_id_0 + p * rows, vocabulary.motion_id_0 + (p + 1) * rows)
        model.language.get_parameter("model.embed_tokens.weight")[at] = 0.02 * projected
        model.language.lm_head.weight[at] = 0.04 * projected


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted names."""
    if not isinstance(value, dict):
        return {prefix.rstrip("."): value}
    return {name: leaf for k, v in value.items() for name, leaf in _flat(v, f"{prefix}{k}.").items()}


def _save_array(path: Path, array: npt.NDArray[Any]) -> None:
    temporary = path.with_suffix(".tmp.npy")
    np.save(temporary, array)
    temporary.replace(path)


def of_length(recipe: NanoRecipe, pictures: int) -> NanoRecipe:
    """The recipe with `pictures` in all, shared among the stages as before."""
    total = sum(getattr(recipe, name).pictures for name in STAGES)
    stages = {name: replace(getattr(recipe, name), pictures=max(1, getattr(recipe, name).pictures * pictures // total))
              for name in STAGES}
    return replace(recipe, **stages)


def main(folder: Path, *, pictures: int | None = None, scenes: int | None = None,
         bundle: Path | None = None, workers: int = 2, device: str | None = None) -> Path:
    """Entry of `beingh0 train nano`; numbers left None come from the recipe."""
    recipe = NanoRecipe()
    if scenes is not None:
        recipe = replace(recipe, scenes=scenes)
    if pictures is not None:
        if pictures < 1:
            raise ValueError(f"pictures: expected a whole number from 1 on, got {pictures}")
        recipe = of_length(recipe, pictures)
    return NanoRun(folder, recipe, workers, device).run(bundle)
