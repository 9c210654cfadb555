"""Blocks of motion ids: places, strict reading, and the two sets of rules."""

import numpy as np
import pytest

from beingh0_edge.errors import TokenError
from beingh0_edge.tokens import OfficialRules, PartLayout, SlotRules, TokenLayout, Vocabulary

WRIST = PartLayout("wrist", groups=2, steps=3, layers=2, codes=4, shared=False)  # 12 ids of 8 values
FINGER = PartLayout("finger", groups=1, steps=3, layers=2, codes=5, shared=True)  # 6 ids of 5 values
LAYOUT = TokenLayout(eos=2, mot=10, mot_end=25, noop=24, motion_ids=13, parts=(WRIST, FINGER))
FULL = Vocabulary(LAYOUT, 30)
TRIMMED = Vocabulary(LAYOUT)


def random_block(seed: int) -> list[int]:
    random = np.random.default_rng(seed)
    return [int(random.integers(slot.first, slot.last + 1)) for slot in LAYOUT.slots]


def as_ids(*blocks: list[int]) -> list[int]:
    ids = []
    for block in blocks:
        ids += [LAYOUT.mot, *(LAYOUT.motion_id_0 + n for n in block), LAYOUT.mot_end]
    return [*ids, LAYOUT.eos]


def test_a_block_runs_over_part_group_step_layer() -> None:
    assert LAYOUT.ids_per_block == 18
    first, second, last = LAYOUT.slots[0], LAYOUT.slots[1], LAYOUT.slots[-1]
    assert (first.part, first.group, first.step, first.layer, first.first, first.last) == (
        "wrist",
        0,
        0,
        0,
        0,
        3,
    )
    assert (second.layer, second.first, second.last) == (1, 4, 7)
    assert (last.part, last.step, last.layer, last.first, last.last) == ("finger", 2, 1, 8, 12)
    assert LAYOUT.slots[6].group == 1


def test_answers_run_over_seconds_then_hands() -> None:
    assert LAYOUT.place(0, "both")[:2] == (0, "left")
    assert LAYOUT.place(18, "both")[:2] == (0, "right")
    assert LAYOUT.place(2 * 18 + 5, "both") == (1, "left", LAYOUT.slots[5])
    assert LAYOUT.place(18, "right")[:2] == (1, "right")


def test_whole_blocks_are_read_back() -> None:
    blocks = [random_block(seed) for seed in range(3)]
    np.testing.assert_array_equal(LAYOUT.blocks(as_ids(*blocks), 3), blocks)


def test_no_ops_are_dropped_and_a_block_may_span_two_hands() -> None:
    left, right = random_block(0), random_block(1)
    ids = as_ids(left + right)
    ids[4:4] = [24, 24]
    np.testing.assert_array_equal(LAYOUT.blocks(ids, 2), [left, right])


def test_half_a_block_is_refused() -> None:
    ids = as_ids(random_block(0))
    with pytest.raises(TokenError, match="expected 1 x 18 motion ids, got 17"):
        LAYOUT.blocks(ids[:5] + ids[6:], 1, check_slots=False)
    with pytest.raises(TokenError, match="unfinished"):
        LAYOUT.blocks(ids[:-2], 1)
    with pytest.raises(TokenError, match="expected 2 x 18"):
        LAYOUT.blocks(ids, 2)


@pytest.mark.parametrize(("ids", "position", "where"), [
    ([10, 11, 3], 2, "inside a block"), ([3], 0, "between blocks"), ([11], 0, "between blocks"),
    ([10, 10], 1, "inside a block"), ([25], 0, "between blocks"), ([10, 2], 1, "inside a block"),
    ([2, 10], 1, "after the end token")])
def test_a_foreign_id_is_refused_with_its_position(ids: list[int], position: int, where: str) -> None:
    with pytest.raises(TokenError, match=where) as caught:
        LAYOUT.blocks(ids, 1)
    assert caught.value.position == position


def test_an_id_in_the_wrong_slot_is_refused() -> None:
    block = random_block(0)
    block[13] = 7  # a wrist value in a finger slot
    with pytest.raises(
        TokenError, match=r"<motion_id_7> cannot stand in slot 13 \(finger group 0 step 0 layer 1"
    ):
        LAYOUT.blocks(as_ids(block), 1)
    assert LAYOUT.blocks(as_ids(block), 1, check_slots=False)[0, 13] == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"motion_ids": 12}, "room for 13"),
        ({"noop": 12}, "right before"),
        ({"eos": 15}, "among the motion ids"),
        ({"noop": None}, "room for 14"),
        ({"parts": (WRIST,)}, "needs 8 motion ids .wrist 8., the vocabulary has 13"),
    ],
)
def test_ids_that_cannot_fit_together_are_refused(change: dict[str, object], message: str) -> None:
    fields = {"eos": 2, "mot": 10, "mot_end": 25, "noop": 24, "motion_ids": 13, "parts": (WRIST, FINGER)}
    with pytest.raises(ValueError, match=message):
        TokenLayout(**(fields | change))  # type: ignore[arg-type]


def test_a_no_op_elsewhere_takes_no_motion_id() -> None:
    layout = TokenLayout(eos=2, mot=10, mot_end=25, noop=40, motion_ids=14)
    assert layout.motion_id_0 + layout.motion_ids == layout.mot_end


def test_a_part_needs_positive_sizes() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        PartLayout("wrist", 2, 0, 8, 512, True)


@pytest.mark.parametrize("vocabulary", [FULL, TRIMMED], ids=["full", "trimmed"])
def test_rows_and_ids_are_inverse(vocabulary: Vocabulary) -> None:
    for row, token in enumerate(vocabulary.ids()):
        assert vocabulary.row(int(token)) == row
    for name in ("mot", "mot_end", "eos"):
        assert vocabulary.ids()[getattr(vocabulary, name)] == getattr(LAYOUT, name)


def test_a_trimmed_vocabulary_has_no_rows_for_text() -> None:
    assert TRIMMED.size == 17
    with pytest.raises(ValueError, match="id 5 has no row"):
        TRIMMED.row(5)
    with pytest.raises(ValueError, match="has 20 rows"):
        Vocabulary(LAYOUT, 20)


@pytest.mark.parametrize("vocabulary", [FULL, TRIMMED], ids=["full", "trimmed"])
def test_slot_rules_can_only_make_whole_blocks(vocabulary: Vocabulary) -> None:
    random, ids = np.random.default_rng(1), []
    rules = SlotRules(vocabulary, 2)
    while not rules.done():
        row = int(random.choice(np.arange(vocabulary.size)[rules.allowed()]))
        rules.push(row)
        ids.append(int(vocabulary.ids()[row]))
    assert LAYOUT.blocks(ids, 2).shape == (2, 18)
    assert ids[-1] == LAYOUT.eos


def test_slot_rules_need_blocks_and_a_tokenizer() -> None:
    with pytest.raises(ValueError, match="blocks"):
        SlotRules(FULL, 0)
    bare = TokenLayout(eos=2, mot=10, mot_end=25, noop=24, motion_ids=13)
    with pytest.raises(ValueError, match="motion tokenizer"):
        SlotRules(Vocabulary(bare), 1)
    with pytest.raises(ValueError, match="no motion tokenizer"):
        _ = bare.ids_per_block


def test_colliding_official_rules_leave_nothing() -> None:
    rules = OfficialRules(TRIMMED, max_blocks=1, min_blocks=1, block_length=1)
    for token in (LAYOUT.mot, LAYOUT.mot, 11, LAYOUT.mot_end):  # still inside, one block counted
        rules.push(TRIMMED.row(token))
    assert not np.any(rules.allowed())
