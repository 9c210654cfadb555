"""Training batches for the VLA: one picture, several instructions, each answered with motion ids.

A batch is a set of pictures with all their tasks. The prompt up to and including `</img>` is the same for every
sample and becomes the shared prefix; what follows (instruction, question, answer) is a branch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor

from beingh0_edge.prompt import motion_prompt

Mode = Literal["prompt", "group", "wrist", "full"]
IGNORE = -100
_S = TypeVar("_S", bound="Scenes")
HANDS = ("left", "right", "both")  # the codes of the data set's `hands` column


@dataclass(frozen=True)
class MotionVocabulary:
    """Where the motion ids lie, read from the tokenizer; `ids_per_part` and counts from the motion tokenizer."""

    mot: int
    end_mot: int
    eos: int
    wrist_ids: int      # ids per block of the wrist part
    block_ids: int      # ids per block, both parts
    wrist_codes: int    # codebook size of the wrist part
    groups: int         # latent groups of the wrist part

    @property
    def motion_id_0(self) -> int:
        return self.mot + 1

    def given_ids(self, mode: Mode) -> int:
        """Ids of the first block that a truncated step holds: all of the wrist, or its first latent group."""
        return {"prompt": 0, "group": self.wrist_ids // self.groups, "wrist": self.wrist_ids}[mode]

    @classmethod
    def read(cls, tokenizer: Tokenizer, wrist_ids: int, block_ids: int, wrist_codes: int,
             groups: int) -> MotionVocabulary:
        def one(token: str) -> int:
            index = tokenizer.token_to_id(token)
            if index is None:
                raise ValueError(f"tokenizer: expected a token {token!r}, found none")
            return int(index)

        return cls(one("<mot>"), one("</mot>"), one("<|im_end|>"), wrist_ids, block_ids, wrist_codes, groups)


@dataclass
class Scenes:
    """B pictures and what stands in them, camera frame."""

    pixels: Tensor          # uint8[B, S, S, 3]
    objects_pos: Tensor     # float[B, O, 3]
    objects_kind: Tensor    # int64[B, O]
    objects_colour: Tensor  # int64[B, O]
    objects_size: Tensor    # float[B, O, 2] radius and height, metres
    plate_colour: Tensor    # int64[B], -1 where there is no plate
    plate_pos: Tensor       # float[B, 3]
    hands_start: Tensor     # float[B, 2, 10] left, right: palm (m), rot6D, curl; NaN where absent

    def to(self: _S, device: str) -> _S:
        return type(self)(**{name: value.to(device) for name, value in vars(self).items()})


@dataclass
class Batch(Scenes):
    """B pictures, K branches each. Index arrays are padded with IGNORE targets, never with motion."""

    prefix_ids: Tensor      # int64[P]
    branch_ids: Tensor      # int64[B, K, L]
    mot_at: Tensor          # int64[B, K] position of the first <mot> in the branch
    slot_at: Tensor         # int64[B, K, N] positions whose next token is a learned answer token
    slot_target: Tensor     # int64[B, K, N] vocabulary ids, IGNORE where padded
    slot_index: Tensor      # int64[B, K, N] index 0..block_ids-1 inside the block, -1 for markers
    target_pos: Tensor      # float[B, K, 3] target object, camera frame, metres
    start: Tensor           # float[B, K, 9] palm (m) and rot6D, before it moves, of the hand of the first block


class OtherCodes:
    """Draws ids that spell nearly the same wrist motion: a level may take a row a little farther than the nearest,
    and the levels after it encode what then remains.

    So the model learns to mend with later levels what an earlier one missed, which is what it needs when it writes
    ids of its own; with nearest rows only it would never see such a case.
    """

    def __init__(self, latents: npt.NDArray[np.float16], codebooks: Tensor, positions: int, quantizers: int,
                 spread: float) -> None:
        """latents float16[M, 2, seconds, positions * D] of the wrist part; codebooks float[G, K, D / G].

        `spread`: variance of the draw, as a share of the mean squared distance to the nearest row at that level.
        """
        if spread <= 0:
            raise ValueError(f"spread: expected a positive number, got {spread}")
        self.latents, self.codebooks = latents, codebooks.cpu().float()
        self.positions, self.quantizers, self.spread = positions, quantizers, spread

    def draw(self, samples: npt.NDArray[np.integer], answers: npt.NDArray[np.int16], generator: torch.Generator,
             groups: int) -> None:
        """Replaces the ids of the wrist's first `groups` groups in `answers` int16[n, 2, seconds, block_ids] of
        `samples`, where there is motion."""
        present = answers[..., 0] >= 0
        rows = np.asarray(self.latents[samples, :, : answers.shape[2]])[present]
        dim = self.codebooks.shape[-1]
        z = torch.from_numpy(rows).float().view(len(rows), self.positions, -1, dim)
        drawn = [self.encode(z[:, :, g].reshape(-1, dim), g, generator).view(len(rows), -1) for g in range(groups)]
        new = answers[present]
        new[:, : groups * self.positions * self.quantizers] = torch.cat(drawn, 1).numpy()
        answers[present] = new

    def encode(self, x: Tensor, group: int, generator: torch.Generator) -> Tensor:
        """float[N, D] -> rows int64[N, quantizers]"""
        book, out = self.codebooks[group], []
        norms = book.square().sum(1)
        for _ in range(self.quantizers):
            distance = x.square().sum(1, keepdim=True) + norms - 2 * x @ book.t()
            variance = self.spread * distance.min(1).values.mean()
            score = -distance / (2 * variance)
            noise = torch.empty_like(score).exponential_(generator=generator).log_()  # minus a Gumbel variable
            index = (score - noise).argmax(1)
            out.append(index)
            x = x - book[index]
        return torch.stack(out, 1)


class VlaData:
    """A data set folder plus the ids of every block, int16[M, 2 sides, seconds, block_ids] (-1: absent)."""

    def __init__(self, folder: Path, ids: npt.NDArray[np.int16], tokenizer: Tokenizer, vocabulary: MotionVocabulary,
                 num_image_token: int) -> None:
        def read(name: str) -> npt.NDArray[Any]:
            return np.load(folder / f"{name}.npy", mmap_mode="r")

        self.images = read("images")
        self.scene_index, self.hands = np.array(read("scene_index")), np.array(read("hands"))
        self.target_pos = np.array(read("target_pos_cam_m"))
        self.kind, self.colour = np.array(read("objects_kind")), np.array(read("objects_colour"))
        self.objects_pos = np.array(read("objects_pos_cam_m"))
        self.objects_size, self.hands_start = np.array(read("objects_size_m")), np.array(read("hands_start"))
        self.plate_colour, self.plate_pos = np.array(read("plate_colour")), np.array(read("plate_pos_cam_m"))
        self.ids, self.vocabulary = ids, vocabulary
        self.other_codes: OtherCodes | None = None
        self.silent = np.full(vocabulary.block_ids, -1, np.int16)  # the id that a slot of a block always has, or -1
        self.tokenizer = tokenizer
        with (folder / "text.jsonl").open() as lines:
            self.texts: list[str] = [json.loads(line)["text"] for line in lines]
        self.tasks_per_scene = len(self.texts) // len(self.images)
        if len(self.texts) != len(self.images) * self.tasks_per_scene:
            raise ValueError(f"{folder}: expected the same number of tasks for each of {len(self.images)} scenes, "
                             f"got {len(self.texts)} tasks")
        if not np.array_equal(self.scene_index, np.repeat(np.arange(len(self.images)), self.tasks_per_scene)):
            raise ValueError(f"{folder}: scene_index must list each scene's tasks in a row")
        self._num_image_token = num_image_token
        self._img_end: int = tokenizer.encode("</img>", add_special_tokens=False).ids[0]
        self._prompt_cache: dict[tuple[str, str, int], list[int]] = {}
        self.prefix = self._split("pick", "right", 1)[0]

    def __len__(self) -> int:
        return len(self.images)

    def _split(self, text: str, hands: str, seconds: int) -> tuple[list[int], list[int]]:
        prompt = motion_prompt(text, seconds, hands, template="being_h0", image_tokens=self._num_image_token)
        ids = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        cut = ids.index(self._img_end) + 1
        return ids[:cut], ids[cut:]

    def question(self, text: str, hands: str, seconds: int) -> list[int]:
        """Ids of the branch up to (excluding) the first `<mot>`."""
        key = (text, hands, seconds)
        if key not in self._prompt_cache:
            prefix, rest = self._split(*key)
            if prefix != self.prefix:
                raise ValueError(f"the prompt before the instruction changed for {key!r}")
            self._prompt_cache[key] = rest
        return self._prompt_cache[key]

    def sides(self, sample: int) -> tuple[int, ...]:
        return {"left": (0,), "right": (1,), "both": (0, 1)}[HANDS[self.hands[sample]]]

    def answer(self, sample: int, seconds: int, mode: Mode,
               ids: npt.NDArray[np.int16] | None = None) -> tuple[list[int], list[int]]:
        """(tokens from `<mot>` on, slot index of each token inside its block or -1).

        `ids` int16[2, seconds, block_ids] replaces the stored ids of the sample.
        """
        v, sides = self.vocabulary, self.sides(sample)
        ids = self.ids[sample] if ids is None else ids
        if mode != "full":
            count = v.given_ids(mode)
            block = ids[sides[0], 0, :count].astype(np.int64)
            return [v.mot, *(block + v.motion_id_0).tolist()], [-1, *range(count)]
        tokens, index = [], []
        for second in range(seconds):
            for side in sides:
                block = ids[side, second].astype(np.int64)
                if block.min() < 0:
                    raise ValueError(f"sample {sample}: no motion for side {side}, second {second}")
                tokens += [v.mot, *(block + v.motion_id_0).tolist(), v.end_mot]
                index += [-1, *range(v.block_ids), -1]
        return [*tokens, v.eos], [*index, -1]

    def batch(self, scenes: Sequence[int], mode: Mode, seconds: int = 1, texts: Sequence[Sequence[str]] | None = None,
              generator: torch.Generator | None = None) -> Batch:
        """Pictures `scenes` with all their tasks; `texts` overrides the instructions (shuffled-word controls).

        With a `generator` and `other_codes`, the wrist's ids are drawn anew among those that spell the same motion.
        Slots that are `silent` keep their id.
        """
        k = self.tasks_per_scene
        s = np.asarray(scenes)
        samples = (s[:, None] * k + np.arange(k)).reshape(-1)
        answers = np.array(self.ids[samples, :, :seconds])
        if generator is not None and self.other_codes is not None and mode != "prompt":
            self.other_codes.draw(samples, answers, generator, 1 if mode == "group" else self.vocabulary.groups)
        answers = np.where((answers >= 0) & (self.silent >= 0), self.silent, answers)
        rows, mots, slots, targets, indices = [], [], [], [], []
        for b, scene in enumerate(scenes):
            for j in range(k):
                sample = scene * k + j
                text = texts[b][j] if texts is not None else self.texts[sample]
                question = self.question(text, HANDS[self.hands[sample]], seconds)
                tokens, index = self.answer(sample, seconds, mode, answers[b * k + j])
                n = len(question)
                rows.append(question + tokens)
                mots.append(n)
                # In truncated steps the first <mot> is given; in full mode every answer token is learned.
                first = 0 if mode == "full" else 1
                slots.append([n + i - 1 for i in range(first, len(tokens))])
                targets.append(tokens[first:])
                indices.append(index[first:])
        def padded(lists: list[list[int]], fill: int) -> Tensor:
            width = max(len(x) for x in lists)
            out = np.full((len(lists), width), fill, np.int64)
            for i, x in enumerate(lists):
                out[i, : len(x)] = x
            return torch.from_numpy(out).view(len(scenes), k, width)

        moving = [self.sides(int(sample))[0] for sample in samples]
        start = torch.from_numpy(self.hands_start[self.scene_index[samples], moving, :9]).view(-1, k, 9)
        if not bool(start.isfinite().all()):
            raise ValueError(f"scenes {s.tolist()}: a hand that is to move has no start")
        return Batch(
            **vars(self.scenes(s)), start=start, prefix_ids=torch.tensor(self.prefix),
            branch_ids=padded(rows, self.vocabulary.eos), mot_at=torch.tensor(mots).view(-1, k),
            slot_at=padded(slots, 0), slot_target=padded(targets, IGNORE), slot_index=padded(indices, -1),
            target_pos=torch.from_numpy(self.target_pos[samples]).view(-1, k, 3))

    def scenes(self, rows: npt.NDArray[np.integer]) -> Scenes:
        """Pictures `rows` and what stands in them."""
        def of(array: npt.NDArray[Any]) -> Tensor:
            return torch.from_numpy(array[rows])

        return Scenes(of(self.images), of(self.objects_pos), of(self.kind).long(), of(self.colour).long(),
                      of(self.objects_size), of(self.plate_colour).long(), of(self.plate_pos), of(self.hands_start))
