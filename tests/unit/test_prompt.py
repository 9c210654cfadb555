"""Prompts: what is refused, and the tokenizer around them. The exact strings are pinned by the goldens."""

from pathlib import Path

import pytest
import tiny_bundle

from beingh0_edge import prompt
from beingh0_edge.errors import BundleError


@pytest.mark.parametrize("empty", ["", "   ", "\n\t"])
def test_an_empty_instruction_is_refused(empty: str) -> None:
    with pytest.raises(ValueError, match="empty text"):
        prompt.motion_prompt(empty, 1, "right", template="being_h0", image_tokens=4)


@pytest.mark.parametrize("piece", ["<IMG_CONTEXT>", "</mot>", "<|im_end|>", "<motion_id_3>", "<image>", "<box>"])
def test_special_tokens_cannot_be_smuggled_in(piece: str) -> None:
    with pytest.raises(ValueError, match="special token"):
        prompt.motion_question(f"pick up {piece} the can", 1, "right")


@pytest.mark.parametrize("seconds", [0, -1, True, 1.5, "2"])
def test_seconds_must_be_a_positive_whole_number(seconds: object) -> None:
    with pytest.raises(ValueError, match="seconds"):
        prompt.motion_question("wave", seconds, "right")  # type: ignore[arg-type]


def test_an_unknown_hand_is_refused() -> None:
    with pytest.raises(ValueError, match="'middle'"):
        prompt.motion_question("wave", 1, "middle")


def test_an_instruction_must_be_text() -> None:
    with pytest.raises(TypeError, match="bytes"):
        prompt.check_instruction(b"wave")  # type: ignore[arg-type]


def test_bytes_that_are_no_text_are_refused() -> None:
    typed = b"caf\xe9".decode("utf-8", "surrogateescape")  # what Python makes of such a command line
    with pytest.raises(ValueError, match=r"expected text \(UTF-8 on the command line\), got 'caf\\udce9'"):
        prompt.check_instruction(typed)


def test_an_unknown_template_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="being_h0, internvl2_5"):
        prompt.chat("wave", "llama", 4)


def test_special_pieces_become_single_ids_and_text_survives(tmp_path: Path) -> None:
    tokenizer = tiny_bundle.make_tokenizer(tmp_path / "tokenizer.json")
    text = prompt.motion_prompt("Öffne das Glas", 2, "both", template="internvl2_5", image_tokens=4)
    ids = prompt.TextTokenizer(tmp_path / "tokenizer.json").encode(text)
    assert (ids == tokenizer.token_to_id(prompt.IMG_CONTEXT)).sum() == 4
    assert tokenizer.decode(ids.tolist(), skip_special_tokens=False) == text


def test_a_damaged_tokenizer_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"model": ')
    with pytest.raises(BundleError, match=r"tokenizer\.json: not a tokenizer"):
        prompt.TextTokenizer(tmp_path / "tokenizer.json")
