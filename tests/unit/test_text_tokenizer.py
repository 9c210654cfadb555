"""tokenizer.json built from the slow tokenizer's files, against transformers' own Qwen2 tokenizer."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from beingh0_edge.errors import BundleError
from beingh0_edge.prompt import TextTokenizer
from beingh0_edge.quantize.text_tokenizer import has_slow_files, write_tokenizer

TEXTS = [
    "pick up the red can",
    "it's  the\tuser's turn\n\n  now ",
    "Öffne 123 Gläser!",
    "把红色的罐子拿起来",
    "e\u0301",
    "<mot><motion_id_0></mot> after",
    "In <img><IMG_CONTEXT></img>, 15-step",
    "",
    "I'LL don'T",
    "x  \r\n y",
]
ADDED = ["<|endoftext|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<mot>", "<motion_id_0>", "</mot>"]


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with vocab.json, merges.txt and added tokens, as older checkpoints have it."""
    folder = tmp_path_factory.mktemp("slow")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
                                  show_progress=False)
    tokenizer.train_from_iterator([*TEXTS * 3, "the red can the red can pick up pick it up"], trainer)
    tokenizer.model.save(str(folder))
    size = tokenizer.get_vocab_size()
    (folder / "added_tokens.json").write_text(json.dumps({token: size + i for i, token in enumerate(ADDED)}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {
        str(size + i): {"content": token, "special": token.startswith("<|"), "normalized": False, "lstrip": False,
                        "rstrip": False, "single_word": False} for i, token in enumerate(ADDED)}}))
    return folder


def test_text_is_split_as_by_the_published_tokenizer(slow: Path, tmp_path: Path) -> None:
    from transformers import Qwen2Tokenizer

    assert has_slow_files(slow)
    write_tokenizer(slow, tmp_path / "tokenizer.json")
    ours, theirs = TextTokenizer(tmp_path / "tokenizer.json"), Qwen2Tokenizer.from_pretrained(str(slow))
    for text in TEXTS:
        np.testing.assert_array_equal(ours.encode(text), theirs(text)["input_ids"], err_msg=repr(text))


def test_ids_of_added_tokens_are_kept(slow: Path, tmp_path: Path) -> None:
    write_tokenizer(slow, tmp_path / "tokenizer.json")
    tokenizer = TextTokenizer(tmp_path / "tokenizer.json")
    for token, number in json.loads((slow / "added_tokens.json").read_text()).items():
        assert tokenizer.id_of(token) == number


def test_damaged_files_are_named(slow: Path, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt", "added_tokens.json"):
        (tmp_path / name).write_text((slow / name).read_text())
    (tmp_path / "merges.txt").write_text("one two three\n")
    with pytest.raises(BundleError, match=r"merges\.txt: expected two pieces a line, got 'one two three'"):
        write_tokenizer(tmp_path, tmp_path / "tokenizer.json")
    (tmp_path / "vocab.json").write_text("[1]")
    with pytest.raises(BundleError, match=r"vocab\.json: expected an object"):
        write_tokenizer(tmp_path, tmp_path / "tokenizer.json")


def test_added_tokens_with_a_gap_are_refused(slow: Path, tmp_path: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_text((slow / name).read_text())
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<mot>": 5000}))
    with pytest.raises(BundleError, match=r"<mot> \(\d+ instead of 5000\)"):
        write_tokenizer(tmp_path, tmp_path / "tokenizer.json")
