"""The small text tokenizer of the nano model: byte-level BPE, constant prompt pieces as single tokens.

Byte-level, so that any instruction a user types can be written; the constant pieces (system message, question frame)
cost one token each, which is a third of a prompt. Special tokens carry the official strings, motion ids are
contiguous behind `<mot>`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL = ("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<PROP_CONTEXT>")
PIECES = (
    "system\nYou are Being-H0, a helpful and harmless AI assistant developed by BeingBeyond.",
    "user\n", "assistant\n", "In ", ", what is the ", "-step motion sequence for ",
    "the right hand", "the left hand", "the both hands",
)


def build_tokenizer(corpus: Iterable[str], num_motion_ids: int, bpe_vocab: int = 640) -> Tokenizer:
    """Learns merges on instructions and adds the constant pieces, markers and motion ids (in this order)."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=bpe_vocab, show_progress=False, min_frequency=2,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    tokenizer.add_tokens([AddedToken(t, normalized=False) for t in PIECES])
    motion = ["<mot>", *(f"<motion_id_{n}>" for n in range(num_motion_ids)), "<MOT_NOOP>", "</mot>"]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in motion])
    ids = [tokenizer.token_to_id(t) or 0 for t in motion]
    if ids != list(range(ids[0], ids[0] + len(motion))):
        raise RuntimeError("motion tokens are not contiguous in the tokenizer that was just built")
    return tokenizer


def save(tokenizer: Tokenizer, path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    tokenizer.save(str(temporary))
    temporary.replace(path)
