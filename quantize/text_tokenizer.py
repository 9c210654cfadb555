"""tokenizer.json for checkpoints that carry only the slow tokenizer's files (vocab.json, merges.txt).

The published motion script loads the slow Qwen2 tokenizer; the fast one built here splits text the same way.
Source: the Qwen2 tokenizer's published pattern and normalisation (NFC, byte-level BPE).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from beingh0_edge.errors import BundleError
from beingh0_edge.files import read_json
from beingh0_edge.prompt import TextTokenizer

_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
            r"|\s+(?!\S)|\s+")


def has_slow_files(folder: Path) -> bool:
    return (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()


def write_tokenizer(folder: Path, path: Path) -> None:
    """Writes tokenizer.json at `path` from the slow files in `folder`. Raises BundleError naming a bad
    file.
    """
    vocabulary = read_json(folder / "vocab.json")
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [line for line in lines if line and not line.startswith("#version")]
    if bad := [line for line in merges if len(line.split(" ")) != 2]:
        raise BundleError(f"{folder / 'merges.txt'}: expected two pieces a line, got {bad[0]!r}",
                          str(folder / "merges.txt"))
    added = _added_tokens(folder)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    path.write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": _PATTERN}, "behavior": "Isolated", "invert": False}, byte_level]},
        "post_processor": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocabulary, "merges": merges},
    }, ensure_ascii=False), encoding="utf-8")
    tokenizer = TextTokenizer(path)
    wrong = [f"{t['content']} ({tokenizer.id_of(t['content'])} instead of {t['id']})" for t in added
             if tokenizer.id_of(t["content"]) != t["id"]]
    if wrong:
        raise BundleError(f"{folder}: added tokens do not follow the vocabulary: {', '.join(wrong[:5])}", str(folder))


def _added_tokens(folder: Path) -> list[dict[str, Any]]:
    """In id order. tokenizer_config.json knows their flags; added_tokens.json only their ids."""
    config = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    found = {}
    for number, token in config.get("added_tokens_decoder", {}).items():
        found[int(number)] = {key: bool(token.get(key, False))
                              for key in ("single_word", "lstrip", "rstrip", "normalized", "special")} | {
                                  "content": token["content"]}
    if (folder / "added_tokens.json").is_file():
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        for content, number in read_json(folder / "added_tokens.json").items():
            found.setdefault(int(number), flags | {"content": content})
    return [{"id": number} | found[number] for number in sorted(found)]
