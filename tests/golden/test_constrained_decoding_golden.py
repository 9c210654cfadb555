"""Logit masks recorded with the official mask processor."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beingh0_edge.tokens import OfficialRules, TokenLayout, Vocabulary

DATA = Path(__file__).parent / "data" / "constrained_decoding"
CASES = json.loads((DATA / "cases.json").read_text())
GOLDEN = np.load(DATA / "golden.npz")
IDS = CASES["ids"]
LAYOUT = TokenLayout(eos=IDS["eos"], mot=IDS["mot_start"], mot_end=IDS["mot_end"], noop=IDS["mot_noop"],
                     motion_ids=IDS["num_motion_ids"])
FULL = Vocabulary(LAYOUT, IDS["vocab"])
MASK_CASES = [case for case in CASES["cases"] if case["rows"]]


def of_row(value: Any, row: int) -> Any:
    return value[row] if isinstance(value, list) else value


def allowed_after(vocabulary: Vocabulary, case: dict[str, Any], row: int) -> np.ndarray:
    rules = OfficialRules(
        vocabulary, allow_non_motion=case["allow_non_motion"], block_length=case["fixed_block_length"],
        max_blocks=of_row(case["max_block_num"], row) if case["block_control_set"] else None,
        min_blocks=of_row(case["min_block_num"], row) if case["block_control_set"] else None,
        closed_before=of_row(case["prefix_base"], row))
    for token in case["sequences"][row]:
        rules.push(vocabulary.row(token))
    mask = np.zeros(vocabulary.size, np.uint8)
    mask[rules.allowed()] = 1
    return mask


@pytest.mark.parametrize("case", MASK_CASES, ids=[case["tag"] for case in MASK_CASES])
def test_official_masks_are_reproduced(case: dict[str, Any]) -> None:
    for row in range(case["rows"]):
        np.testing.assert_array_equal(
            allowed_after(FULL, case, row), GOLDEN["allowed"][case["row_start"] + row])


@pytest.mark.parametrize("case", MASK_CASES, ids=[case["tag"] for case in MASK_CASES])
def test_the_trimmed_vocabulary_has_the_same_masks_on_its_rows(case: dict[str, Any]) -> None:
    trimmed = Vocabulary(LAYOUT)
    rows = trimmed.ids()
    for row in range(case["rows"]):
        if not set(case["sequences"][row]) <= set(rows.tolist()):
            continue  # text cannot have been generated there
        np.testing.assert_array_equal(
            allowed_after(trimmed, case, row), GOLDEN["allowed"][case["row_start"] + row][rows])
