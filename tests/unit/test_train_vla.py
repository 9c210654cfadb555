"""The VLA's training batches, resuming, and the cached generation of the probe - on a random six-picture data set."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from beingh0_edge.train.aids import Aids, CodeSpace, level_weights  # noqa: E402
from beingh0_edge.train.description import SceneDescription  # noqa: E402
from beingh0_edge.train.fit import FitRecipe  # noqa: E402
from beingh0_edge.train.fit_vision import VisionFit  # noqa: E402
from beingh0_edge.train.fit_vla import VlaFit, VlaRecipe, forward  # noqa: E402
from beingh0_edge.train.model import BeingVLA, LanguageConfig, VisionConfig, VLAConfig  # noqa: E402
from beingh0_edge.train.probe import greedy_wrist  # noqa: E402
from beingh0_edge.train.text import build_tokenizer  # noqa: E402
from beingh0_edge.train.vla_data import IGNORE, MotionVocabulary, OtherCodes, Scenes, VlaData  # noqa: E402

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
        "objects_size_m": rng.uniform(0.03, 0.1, (SCENES, 3, 2)).astype(np.float32),
        "plate_colour": rng.integers(-1, 6, SCENES).astype(np.int8),
        "plate_pos_cam_m": rng.uniform(0.3, 0.5, (SCENES, 3)).astype(np.float32),
        "hands_start": rng.uniform(0.3, 0.5, (SCENES, 2, 10)).astype(np.float32),
    }
    arrays["hands_start"][::2, 0] = np.nan
    arrays["hands"].reshape(SCENES, TASKS)[::2] = 1  # which leaves the right one to move
    for name, value in arrays.items():
        np.save(tmp_path / f"{name}.npy", value)
    lines = [json.dumps({"text": TEXTS[i % TASKS]}) for i in range(samples)]
    (tmp_path / "text.jsonl").write_text("\n".join(lines) + "\n")
    tokenizer = build_tokenizer(TEXTS * 10, 2 * ROWS, bpe_vocab=300)
    vocabulary = MotionVocabulary.read(tokenizer, WRIST, 2 * WRIST, ROWS, GROUPS)
    ids = np.concatenate([rng.integers(0, ROWS, (samples, 2, 3, WRIST)),
                          rng.integers(ROWS, 2 * ROWS, (samples, 2, 3, WRIST))], -1).astype(np.int16)
    return VlaData(tmp_path, ids, tokenizer, vocabulary, num_image_token=4)


HIDDEN = 256  # a token must hold the description of its cell


def description() -> SceneDescription:
    return SceneDescription(HIDDEN, 2, (56.0, 56.0, 28.0, 28.0), SIZE, (0.2, 0.2, 0.2), (0.6, 0.6, 0.6), 4, 6)


def network(data: VlaData) -> BeingVLA:
    torch.manual_seed(0)
    return BeingVLA(VLAConfig(VisionConfig(SIZE, 14, 16, 32, 1, 1),
                              LanguageConfig(data.tokenizer.get_vocab_size(), HIDDEN, 32, 1, 2, 1,
                                             eos_token_id=data.vocabulary.eos)))


def fit(data: VlaData, state: Path, from_pictures: bool = True) -> VlaFit:
    model = network(data)
    codes = CodeSpace(torch.randn(2, GROUPS, ROWS, 4), torch.ones(2, GROUPS), torch.ones(2, GROUPS, QUANTIZERS),
                      POSITIONS, QUANTIZERS, 0.1)
    recipe = VlaRecipe(pictures=24, batch_pictures=2, prompt_phase=0.2, later_full=0.3)
    box = (0.2, 0.2, 0.2), (0.6, 0.6, 0.6)
    return VlaFit(model, Aids(HIDDEN, box, box, codes), data, description(), recipe,
                  data.tokenizer.token_to_id("<IMG_CONTEXT>"), state, from_pictures=from_pictures)


def vision(data: VlaData, state: Path) -> VisionFit:
    return VisionFit(network(data), data, description(), FitRecipe(pictures=24, batch_pictures=2), state)


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
    codes = CodeSpace(torch.randn(2, GROUPS, ROWS, 4), torch.ones(2, GROUPS), torch.ones(2, GROUPS, QUANTIZERS),
                      POSITIONS, QUANTIZERS, 0.1)
    weights = level_weights(codes, 2 * WRIST)
    assert weights[-1] == 1.0
    assert weights[0] == 1.0
    assert weights[7] == pytest.approx(0.6**7)
    assert weights[WRIST] == pytest.approx(0.3)


@pytest.mark.parametrize("stage", [vision, fit, lambda data, path: fit(data, path, from_pictures=False)],
                         ids=["vision", "joint", "language"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(stage, data, tmp_path):
    data.other_codes = other_codes(data)
    whole = stage(data, tmp_path / "a.pt")
    whole.run()
    first = stage(data, tmp_path / "b.pt")
    for _ in range(5):
        first.train_step()
    first.save()
    second = stage(data, tmp_path / "b.pt")
    assert second.done == first.done
    second.run()
    for name, value in whole.average.items():
        torch.testing.assert_close(second.average[name], value, atol=SAME, rtol=0, msg=name)


def other_codes(data: VlaData, spread: float = 0.25) -> OtherCodes:
    latents = torch.randn(SCENES * TASKS, 2, 3, POSITIONS * GROUPS * 4, generator=torch.Generator().manual_seed(1))
    books = torch.randn(GROUPS, ROWS, 4, generator=torch.Generator().manual_seed(2))
    return OtherCodes(latents.numpy().astype(np.float16), books, POSITIONS, QUANTIZERS, spread)


def test_with_hardly_any_spread_the_codes_drawn_are_the_nearest(data):
    codes = other_codes(data, spread=1e-9)
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(3))
    drawn = codes.encode(x, 1, torch.Generator().manual_seed(0))
    rest, expected = x.clone(), []
    for _ in range(QUANTIZERS):
        index = torch.cdist(rest, codes.codebooks[1]).argmin(1)
        expected.append(index)
        rest = rest - codes.codebooks[1][index]
    assert torch.equal(drawn, torch.stack(expected, 1))


def one_level(book: torch.Tensor, blur: float) -> CodeSpace:
    """A space of one part, group, position and level."""
    return CodeSpace(book[None, None], torch.ones(1, 1), torch.ones(1, 1, 1), 1, 1, blur)


def test_odds_point_at_the_row_itself_and_fall_with_the_distance():
    book = torch.tensor([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]])
    odds = one_level(book, blur=0.5).odds(torch.tensor([0, 1]), torch.tensor([0, 0]))
    expected = torch.softmax(-torch.tensor([[0.0, 1.0, 9.0], [1.0, 0.0, 4.0]]), -1)
    torch.testing.assert_close(odds, expected)


def test_odds_of_a_level_are_about_all_that_its_cell_still_spells():
    codes = CodeSpace(torch.randn(2, GROUPS, ROWS, 4), torch.ones(2, GROUPS), torch.ones(2, GROUPS, QUANTIZERS),
                      POSITIONS, QUANTIZERS, 1e-4)
    slots = torch.arange(2 * WRIST)
    ids = torch.randint(0, ROWS, (2 * WRIST,)) + ROWS * (slots >= WRIST)
    odds = codes.odds(ids, slots)
    at = WRIST + 3 * QUANTIZERS + 2  # a finger cell of the first group, from its third level on
    left = codes.codebooks[1, 0][ids[at : at + QUANTIZERS - 2] - ROWS].sum(0)
    assert int(odds[at].argmax()) - ROWS == int((codes.codebooks[1, 0] - left).norm(dim=1).argmin())
    assert odds[at, :ROWS].sum() == 0
    torch.testing.assert_close(odds.sum(-1), torch.ones(len(slots)))


def test_where_nothing_is_known_the_likeliest_of_blurred_odds_is_the_row_nearest_to_the_mean():
    """A ring of rows and a short one in the middle; what is left lies anywhere on the ring, mostly to the right."""
    angle = torch.arange(24) * torch.pi / 12
    ring = torch.stack([angle.cos(), angle.sin()], 1)
    book, seen = torch.cat([ring, torch.tensor([[0.1, 0.0]])]), torch.cat([torch.arange(24), torch.zeros(3).long()])
    sharp, blurred = (one_level(book, blur).odds(seen, torch.zeros(27).long()).mean(0) for blur in (0.0, 1.0))
    assert sharp.argmax() == 0
    assert blurred.argmax() == 24


def test_other_codes_differ_but_spell_the_same_latent_nearly_as_well():
    books = torch.randn(1, 512, 3, generator=torch.Generator().manual_seed(2)) * torch.rand(512, 1)
    x = torch.randn(2000, 3, generator=torch.Generator().manual_seed(3))
    drawn, exact = (OtherCodes(np.zeros(0, np.float16), books, 1, QUANTIZERS, spread) for spread in (0.15, 1e-9))
    generator = torch.Generator().manual_seed(4)
    a, b = drawn.encode(x, 0, generator), exact.encode(x, 0, generator)
    assert (a[:, 0] != b[:, 0]).float().mean() > 0.1
    error = [(books[0][ids].sum(1) - x).norm(dim=1).mean() for ids in (a, b)]
    first_level = (books[0][b[:, 0]] - x).norm(dim=1).mean()
    assert error[0] < 0.5 * first_level  # the later levels mend what the first ones missed


def test_the_row_of_zeros_is_meant_as_it_is():
    book = torch.tensor([[0.0, 0.0], [0.1, 0.0], [3.0, 0.0]])
    odds = one_level(book, blur=0.5).odds(torch.tensor([0, 1]), torch.tensor([0, 0]))
    torch.testing.assert_close(odds[0], torch.tensor([1.0, 0.0, 0.0]))
    assert odds[1].max() < 0.6


def test_silent_slots_have_their_id_in_every_answer_and_the_others_their_own(data):
    data.silent[3::QUANTIZERS] = 5
    data.ids[3, 0] = -1  # a hand that does not move
    data.hands[3] = 1
    batch = data.batch([0, 1], "full", 2)
    motion = (batch.slot_index >= 0) & (batch.slot_target != IGNORE)
    said = batch.slot_target - data.vocabulary.motion_id_0
    silent = motion & (batch.slot_index % QUANTIZERS == 3)
    assert silent.sum() > 0
    assert (said[silent] == 5).all()
    first = torch.from_numpy(data.ids[0, data.sides(0)[0], 0].astype(np.int64))
    at = batch.slot_index[0, 0, 1 : 1 + 2 * WRIST]
    own = at % QUANTIZERS != 3
    assert torch.equal(said[0, 0, 1 : 1 + 2 * WRIST][own], first[own])


def test_the_start_of_a_sample_is_that_of_the_hand_whose_ids_come_first(data):
    batch = data.batch([0, 3], "group")
    for b, scene in enumerate([0, 3]):
        for j in range(TASKS):
            side = data.sides(scene * TASKS + j)[0]
            np.testing.assert_array_equal(batch.start[b, j], data.hands_start[scene, side, :9])


def test_drawn_codes_replace_the_wrist_where_there_is_motion_and_nothing_else(data):
    data.other_codes = other_codes(data)
    absent = np.array(data.ids)
    absent[3, 0] = -1
    new = absent[:6].copy()
    data.other_codes.draw(np.arange(6), new, torch.Generator().manual_seed(0), GROUPS)
    assert (new[3, 0] == -1).all()
    assert (new[..., WRIST:] == absent[:6, ..., WRIST:]).all()
    assert (new[0, 1, :, :WRIST] != absent[0, 1, :, :WRIST]).any()
    assert ((new[0, 1, :, :WRIST] >= 0) & (new[0, 1, :, :WRIST] < ROWS)).all()


def apart(data: VlaData) -> Scenes:
    """All scenes, with everything inside the picture and nothing on the same patch."""
    batch = data.scenes(np.arange(SCENES))
    for i, xy in enumerate([(-0.1, -0.1), (0.1, 0.1), (-0.1, 0.1)]):
        batch.objects_pos[:, i] = torch.tensor([*xy, 0.5])
    batch.plate_pos[:] = torch.tensor([0.1, -0.1, 0.5])
    return batch


def test_tokens_written_from_the_truth_say_it(data):
    told, batch = description(), apart(data)
    target = told.target(batch)
    figures = told.figures(told.tokens(target), target)
    assert figures["object_mm"] < 1e-2
    assert figures["palm_mm"] < 1e-2
    assert figures["kind"] == figures["colour"] == figures["seen"] == 1.0
    assert float(told.loss(told.tokens(target), target)) < 1e-9


def test_a_description_counts_every_thing_in_the_picture_once(data):
    told, batch = description(), apart(data)
    things, hands = told.split(told.target(batch))
    assert torch.equal(things[..., 0].sum((1, 2)), 3.0 + (batch.plate_colour >= 0))
    assert torch.equal(hands[..., 0].sum(1), batch.hands_start[:, :, 0].isfinite().float())


def test_a_token_too_narrow_for_the_description_is_refused():
    with pytest.raises(ValueError, match="cannot hold"):
        SceneDescription(64, 2, (56.0, 56.0, 28.0, 28.0), SIZE, (0.2,) * 3, (0.6,) * 3, 4, 6)


@pytest.mark.parametrize("from_pictures", [True, False], ids=["joint", "language"])
def test_the_language_side_learns_and_leaves_the_picture_side_alone(from_pictures, data, tmp_path):
    run = fit(data, tmp_path / "a.pt", from_pictures=from_pictures)
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    for _ in range(6):
        run.train_step()
    changed = {k for k, v in run.model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert all("_language_model" in k for k in changed)
    assert all("_language_model" in k for k in run.average)


def test_the_budget_ends_the_run_and_every_step_kind_was_used(data, tmp_path):
    run = fit(data, tmp_path / "a.pt")
    seen = set()
    while run.done < run.recipe.pictures:
        seen.add(run.train_step()[0])
    assert seen == {"prompt", "group", "wrist", "full"}


def test_cached_greedy_generation_agrees_with_the_uncached_forward(data, tmp_path):
    run = fit(data, tmp_path / "a.pt")
    codes, _ = greedy_wrist(run.vla_model, data, [0, 1], run.image_token, run.visual_tokens)
    v = data.vocabulary
    for b in (0, 1):
        for j in range(TASKS):
            hand = 0 if data.hands[b * TASKS + j] != 1 else 1
            data.ids[b * TASKS + j, hand, 0, :WRIST] = codes[b * TASKS + j].numpy()
    batch = data.batch([0, 1], "wrist", 1)
    with torch.no_grad():
        hidden = forward(run.vla_model, batch, run.visual_tokens(batch), run.image_token)
        picked = hidden.reshape(6, -1, HIDDEN).gather(1, batch.slot_at.reshape(6, -1, 1).expand(-1, -1, HIDDEN))
        logits = picked @ run.vla_model.language.lm_head.weight[v.motion_id_0 : v.motion_id_0 + ROWS].t()
    top = logits.max(-1).values
    chosen = logits.gather(-1, codes[..., None])[..., 0]
    torch.testing.assert_close(chosen, top, atol=1e-4, rtol=0)  # equal up to float32 ties
