"""The VLA's training batches, resuming, and the cached generation of the probe - on a random six-picture data set."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from beingh0_edge.train.aids import Aids, CodeSpace, Scene, level_weights  # noqa: E402
from beingh0_edge.train.fit_vla import VlaRecipe, VlaTrainer, forward, normalise  # noqa: E402
from beingh0_edge.train.model import BeingVLA, LanguageConfig, VisionConfig, VLAConfig  # noqa: E402
from beingh0_edge.train.probe import greedy_wrist  # noqa: E402
from beingh0_edge.train.text import build_tokenizer  # noqa: E402
from beingh0_edge.train.vla_data import IGNORE, MotionVocabulary, VlaData  # noqa: E402

SCENES, TASKS, SIZE, ROWS = 6, 3, 56, 8
GROUPS, POSITIONS, QUANTIZERS = 2, 4, 8
WRIST = GROUPS * POSITIONS * QUANTIZERS
TEXTS = ["pick up the red box", "grab the blue ball", "push the green can to the left"]
SAME = 1e-6


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    samples = SCENES * TASKS
    arrays = {
        "images": rng.integers(0, 255, (SCENES, SIZE, SIZE, 3), dtype=np.uint8),
        "scene_index": np.repeat(np.arange(SCENES), TASKS).astype(np.int32),
        "hands": rng.integers(0, 3, samples).astype(np.int8),
        "target_pos_cam_m": rng.uniform(0.3, 0.5, (samples, 3)).astype(np.float32),
        "objects_kind": rng.integers(0, 4, (SCENES, 3)).astype(np.int8),
        "objects_colour": rng.integers(0, 6, (SCENES, 3)).astype(np.int8),
        "objects_pos_cam_m": rng.uniform(0.3, 0.5, (SCENES, 3, 3)).astype(np.float32),
    }
    for name, value in arrays.items():
        np.save(tmp_path / f"{name}.npy", value)
    lines = [json.dumps({"text": TEXTS[i % TASKS]}) for i in range(samples)]
    (tmp_path / "text.jsonl").write_text("\n".join(lines) + "\n")
    tokenizer = build_tokenizer(TEXTS * 10, 2 * ROWS, bpe_vocab=300)
    vocabulary = MotionVocabulary.read(tokenizer, WRIST, 2 * WRIST, ROWS, GROUPS)
    ids = np.concatenate([rng.integers(0, ROWS, (samples, 2, 3, WRIST)),
                          rng.integers(ROWS, 2 * ROWS, (samples, 2, 3, WRIST))], -1).astype(np.int16)
    return VlaData(tmp_path, ids, tokenizer, vocabulary, num_image_token=4)


def trainer(data: VlaData, state: Path, **recipe) -> VlaTrainer:
    torch.manual_seed(0)
    config = VLAConfig(VisionConfig(SIZE, 14, 16, 32, 1, 1),
                       LanguageConfig(data.tokenizer.get_vocab_size(), 32, 32, 2, 2, 1,
                                      eos_token_id=data.vocabulary.eos))
    codes = CodeSpace(torch.randn(2, GROUPS, ROWS, 4), torch.ones(2, GROUPS), POSITIONS, QUANTIZERS)
    scene = Scene(4, 6, (56.0, 56.0, 28.0, 28.0), SIZE, (0.2, 0.2, 0.2), (0.6, 0.6, 0.6))
    settings = VlaRecipe(pictures=24, batch_pictures=2, prompt_phase=0.2, later_full=0.3, **recipe)
    return VlaTrainer(BeingVLA(config), Aids(32, scene, codes), data, settings,
                      data.tokenizer.token_to_id("<IMG_CONTEXT>"), state)


def test_a_full_answer_is_whole_blocks_in_order_left_before_right(data):
    sample = int(np.flatnonzero(data.hands == 2)[0])
    tokens, index = data.answer(sample, seconds=2, mode="full")
    v = data.vocabulary
    assert tokens[-1] == v.eos
    blocks = np.array(tokens[:-1]).reshape(4, 2 * WRIST + 2)
    assert (blocks[:, 0] == v.mot).all()
    assert (blocks[:, -1] == v.end_mot).all()
    expected = [data.ids[sample, side, second] for second in (0, 1) for side in (0, 1)]
    np.testing.assert_array_equal(blocks[:, 1:-1] - v.motion_id_0, expected)
    assert index[1 : 2 * WRIST + 1] == list(range(2 * WRIST))


def test_every_slot_stands_in_front_of_its_target(data):
    for mode in ("group", "wrist", "full"):
        batch = data.batch([0, 3], mode, 1)
        flat = batch.branch_ids.reshape(-1, batch.branch_ids.shape[-1])
        slots, targets = batch.slot_at.reshape(len(flat), -1), batch.slot_target.reshape(len(flat), -1)
        keep = targets != IGNORE
        following = flat.gather(1, slots + 1)
        assert keep.sum() > 0
        assert torch.equal(following[keep], targets[keep])


def test_markers_have_no_slot_weight_of_a_level(data):
    codes = CodeSpace(torch.randn(2, GROUPS, ROWS, 4), torch.ones(2, GROUPS), POSITIONS, QUANTIZERS)
    weights = level_weights(codes, 2 * WRIST)
    assert weights[-1] == 1.0
    assert weights[0] == 1.0
    assert weights[7] == pytest.approx(0.6**7)
    assert weights[WRIST] == pytest.approx(0.3)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(data, tmp_path):
    whole = trainer(data, tmp_path / "a.pt")
    whole.run()
    first = trainer(data, tmp_path / "b.pt")
    for _ in range(5):
        first.train_step()
    first.save()
    second = trainer(data, tmp_path / "b.pt")
    assert second.done == first.done
    second.run()
    for name, value in whole.average.items():
        torch.testing.assert_close(second.average[name], value, atol=SAME, rtol=0, msg=name)


def test_the_budget_ends_the_run_and_every_step_kind_was_used(data, tmp_path):
    run = trainer(data, tmp_path / "a.pt")
    seen = set()
    while run.done < run.recipe.pictures:
        seen.add(run.train_step()[0])
    assert seen == {"prompt", "group", "wrist", "full"}


def test_cached_greedy_generation_agrees_with_the_uncached_forward(data, tmp_path):
    run = trainer(data, tmp_path / "a.pt")
    codes, _ = greedy_wrist(run.model, data, [0, 1], run.image_token)
    v = data.vocabulary
    for b in (0, 1):
        for j in range(TASKS):
            data.ids[b * TASKS + j, 0 if data.hands[b * TASKS + j] != 1 else 1, 0, :WRIST] = codes[b * TASKS + j]
    batch = data.batch([0, 1], "wrist", 1)
    with torch.no_grad():
        _, hidden, _ = forward(run.model, batch, normalise(batch.pixels), run.image_token)
        picked = hidden.reshape(6, -1, 32).gather(1, batch.slot_at.reshape(6, -1, 1).expand(-1, -1, 32))
        logits = picked @ run.model.language.lm_head.weight[v.motion_id_0 : v.motion_id_0 + ROWS].t()
    top = logits.max(-1).values
    chosen = logits.gather(-1, codes[..., None])[..., 0]
    torch.testing.assert_close(chosen, top, atol=1e-4, rtol=0)  # equal up to float32 ties
