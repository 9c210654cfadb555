"""Training batches for the VLA: one picture, several instructions, each answered with motion ids.

A batch is a set of pictures with all their tasks. The prompt up to and including `</img>` is the same for every
sample and becomes the shared prefix; what follows (instruction, question, answer) is a branch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor

from beingh0_edge.prompt import motion_prompt

Mode = Literal["prompt", "group", "wrist", "full"]
IGNORE = -100
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
class Batch:
    """B pictures, K branches each. Index arrays are padded with IGNORE targets, never with motion."""

    pixels: Tensor          # uint8[B, S, S, 3]
    prefix_ids: Tensor      # int64[P]
    branch_ids: Tensor      # int64[B, K, L]
    mot_at: Tensor          # int64[B, K] position of the first <mot> in the branch
    slot_at: Tensor         # int64[B, K, N] positions whose next token is a learned answer token
    slot_target: Tensor     # int64[B, K, N] vocabulary ids, IGNORE where padded
    slot_index: Tensor      # int64[B, K, N] index 0..block_ids-1 inside the block, -1 for markers
    target_pos: Tensor      # float[B, K, 3] target object, camera frame, metres
    objects_pos: Tensor     # float[B, O, 3]
    objects_kind: Tensor    # int64[B, O]
    objects_colour: Tensor  # int64[B, O]


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
        self.ids, self.vocabulary = ids, vocabulary
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

    def answer(self, sample: int, seconds: int, mode: Mode) -> tuple[list[int], list[int]]:
        """(tokens from `<mot>` on, slot index of each token inside its block or -1)."""
        v = self.vocabulary
        sides = {"left": (0,), "right": (1,), "both": (0, 1)}[HANDS[self.hands[sample]]]
        if mode != "full":
            count = v.given_ids(mode)
            block = self.ids[sample, sides[0], 0, :count].astype(np.int64)
            return [v.mot, *(block + v.motion_id_0).tolist()], [-1, *range(count)]
        tokens, index = [], []
        for second in range(seconds):
            for side in sides:
                block = self.ids[sample, side, second].astype(np.int64)
                if block.min() < 0:
                    raise ValueError(f"sample {sample}: no motion for side {side}, second {second}")
                tokens += [v.mot, *(block + v.motion_id_0).tolist(), v.end_mot]
                index += [-1, *range(v.block_ids), -1]
        return [*tokens, v.eos], [*index, -1]

    def batch(self, scenes: Sequence[int], mode: Mode, seconds: int = 1,
              texts: Sequence[Sequence[str]] | None = None) -> Batch:
        """Pictures `scenes` with all their tasks; `texts` overrides the instructions (shuffled-word controls)."""
        k = self.tasks_per_scene
        rows, mots, slots, targets, indices = [], [], [], [], []
        for b, scene in enumerate(scenes):
            for j in range(k):
                sample = scene * k + j
                text = texts[b][j] if texts is not None else self.texts[sample]
                question = self.question(text, HANDS[self.hands[sample]], seconds)
                tokens, index = self.answer(sample, seconds, mode)
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

        s = np.asarray(scenes)
        samples = (s[:, None] * k + np.arange(k)).reshape(-1)
        return Batch(
            torch.from_numpy(self.images[s]), torch.tensor(self.prefix),
            padded(rows, self.vocabulary.eos), torch.tensor(mots).view(-1, k),
            padded(slots, 0), padded(targets, IGNORE), padded(indices, -1),
            torch.from_numpy(self.target_pos[samples]).view(-1, k, 3), torch.from_numpy(self.objects_pos[s]),
            torch.from_numpy(self.kind[s].astype(np.int64)), torch.from_numpy(self.colour[s].astype(np.int64)))
