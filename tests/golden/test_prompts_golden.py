"""Prompt strings recorded with the official code."""

import json
from pathlib import Path

import pytest

from beingh0_edge import prompt

CASES = json.loads((Path(__file__).parent / "data" / "prompts" / "prompts.json").read_text())


@pytest.mark.parametrize(
    "case", [c for c in CASES["motion"] if "task" in c],
    ids=lambda c: f"{c['template']}-{c['hand_mode']}-{c['num_seconds']}s-{c['task'][:8]}")
def test_motion_prompt_is_the_official_text(case: dict) -> None:
    built = prompt.motion_prompt(case["task"], case["num_seconds"], case["hand_mode"],
                                 template=case["template"], image_tokens=case["num_image_token"])
    assert built == case["prompt"]


def test_a_question_without_image_gets_it_in_front() -> None:
    cases = [c for c in CASES["motion"] if "question" in c]
    assert cases
    for case in cases:
        assert prompt.chat(case["question"], case["template"], case["num_image_token"]) == case["prompt"]


@pytest.mark.parametrize("case", CASES["robot"], ids=lambda c: f"{c['action_chunk_length']}-steps")
def test_robot_prompts_are_the_official_texts(case: dict) -> None:
    built = prompt.robot_prompt(case["task"], case["action_chunk_length"], case["num_image_token"])
    assert built == case["inference_prompt"]
    turns = prompt.robot_training_turns(case["task"], case["action_chunk_length"])
    assert turns == (case["training_user_turn"], case["training_assistant_turn"])
