"""Questions and chat templates, word for word as the models were trained.

Every special piece is one token of the vocabulary; the text between them goes through the bundle's tokenizer.
Source: the published Being-H0 code; the strings are pinned by tests/golden/data/prompts.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import BundleError
from .types import IntArray

if TYPE_CHECKING:
    from tokenizers import Tokenizer

IMAGE, IMG, IMG_END, IMG_CONTEXT = "<image>", "<img>", "</img>", "<IMG_CONTEXT>"
MOT, MOT_END, MOT_NOOP, PROP_CONTEXT = "<mot>", "</mot>", "<MOT_NOOP>", "<PROP_CONTEXT>"
END = "<|im_end|>"


def motion_id(n: int) -> str:
    return f"<motion_id_{n}>"


def action_chunk(i: int) -> str:
    return f"<ACTION_CHUNK_{i}>"


SYSTEM_MESSAGES = {
    "being_h0": "You are Being-H0, a helpful and harmless AI assistant developed by BeingBeyond.",
    "internvl2_5": (
        "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的"
        "多模态大语言模型。"
    ),
}
HAND_PHRASES = {"both": "the both hands", "left": "the left hand", "right": "the right hand"}
STEPS_PER_SECOND = 15
_RESERVED = (IMAGE, IMG, IMG_END, IMG_CONTEXT, MOT, MOT_END, MOT_NOOP, PROP_CONTEXT, "<motion_id_",
             "<ACTION_CHUNK_", "<|", "<box>", "</box>", "<quad>", "</quad>", "<ref>", "</ref>", "<tool_call>",
             "</tool_call>")


def check_instruction(instruction: str) -> str:
    """The instruction itself. Raises TypeError, or ValueError if it is empty, no text or holds a special token."""
    if not isinstance(instruction, str):
        raise TypeError(f"instruction: expected str, got {type(instruction).__name__}")
    if not instruction.strip():
        raise ValueError("instruction: expected what to do, e.g. 'pick up the red can', got an empty text")
    if any("\ud800" <= letter <= "\udfff" for letter in instruction):  # bytes of a command line that were not UTF-8
        raise ValueError(f"instruction: expected text (UTF-8 on the command line), got {instruction!a}")
    for piece in _RESERVED:
        if piece in instruction:
            raise ValueError(f"instruction: the special token {piece!r} may not stand in it")
    return instruction


def motion_question(instruction: str, seconds: int, hands: str) -> str:
    """The question of motion generation, with `<image>` still in it."""
    if hands not in HAND_PHRASES:
        raise ValueError(f"hands: expected 'left', 'right' or 'both', got {hands!r}")
    if isinstance(seconds, bool) or not isinstance(seconds, (int, np.integer)) or seconds < 1:
        raise ValueError(f"seconds: expected a whole number from 1 on, got {seconds!r}")
    return (f"In {IMAGE}, {check_instruction(instruction)}, what is the {STEPS_PER_SECOND * seconds}-step "
            f"motion sequence for {HAND_PHRASES[hands]}?")


def chat(question: str, template: str, image_tokens: int) -> str:
    """One user turn in a chat template, ready for the assistant's answer.

    The first `<image>` becomes `image_tokens` visual slots; a question without one gets it in front, on its
    own line.
    """
    if template not in SYSTEM_MESSAGES:
        raise ValueError(f"unknown chat template {template!r}; known: {', '.join(SYSTEM_MESSAGES)}")
    if IMAGE not in question:
        question = f"{IMAGE}\n{question}"
    question = question.replace(IMAGE, IMG + IMG_CONTEXT * image_tokens + IMG_END, 1)
    return (f"<|im_start|>system\n{SYSTEM_MESSAGES[template]}<|im_end|>\n"
            f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")


def motion_prompt(instruction: str, seconds: int, hands: str, *, template: str, image_tokens: int) -> str:
    """What the language model reads before it writes motion."""
    return chat(motion_question(instruction, seconds, hands), template, image_tokens)


def robot_prompt(instruction: str, chunk_length: int, image_tokens: int) -> str:
    """Robot mode as the published server asks it: no chat template, spaces between all pieces."""
    image = IMG + IMG_CONTEXT * image_tokens + IMG_END
    queries = map(action_chunk, range(chunk_length))
    return " ".join([image, check_instruction(instruction), PROP_CONTEXT, *queries])


def robot_training_turns(instruction: str, chunk_length: int) -> tuple[str, str]:
    """(user turn, assistant turn) as the published data script writes them; the user turn goes into
    `chat`.
    """
    user = (f"{IMAGE}\n According to the instruction '{check_instruction(instruction)}', what's the motion "
            f"plan for the right hand in {chunk_length} steps? {PROP_CONTEXT}")
    return user, "".join(map(action_chunk, range(chunk_length)))


class TextTokenizer:
    """A bundle's tokenizer.json: text with special pieces -> vocabulary ids."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer: Tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception for every kind of damage
            raise BundleError(f"{path}: not a tokenizer.json ({error})", str(path)) from error

    def encode(self, text: str) -> IntArray:
        """int32[T]; special tokens in the text become their ids, nothing is added."""
        return np.asarray(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def ids(self) -> dict[str, int]:
        """Every token and its id."""
        return dict(self._tokenizer.get_vocab(with_added_tokens=True))

    def id_of(self, token: str) -> int | None:
        found: int | None = self._tokenizer.token_to_id(token)
        return found
