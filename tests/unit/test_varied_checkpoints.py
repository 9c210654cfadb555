"""Checkpoints of many geometries and styles become bundles that answer as torch does."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from varied_checkpoints import VARIANTS, Made, make

from beingh0_edge import Bundle, Policy
from beingh0_edge.cli import main
from beingh0_edge.errors import BundleError
from beingh0_edge.policy import check_request
from beingh0_edge.quantize import build_bundle
from beingh0_edge.quantize.report import read_report

LOGIT_RTOL = 1e-3  # of the largest logit: the tolerance of an F32 bundle; measured: below 3e-6
ACTION_ATOL = 1e-4
FEATURE_RTOL = 1e-5  # of the largest value; float32 in another order


class Case(NamedTuple):
    made: Made
    policy: Policy


@pytest.fixture(scope="module", params=VARIANTS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("varied")
    made = make(folder, VARIANTS[request.param])
    layout = "full" if len(request.param) % 2 else "trimmed"
    bundle = build_bundle(made.folder, folder / "bundle", layout=layout, quant="F32", vision="fp32",
                          tokenizer_folders=made.tokenizer_folders)
    return Case(made, Policy(bundle, threads=1))


def test_logits_are_torchs(case: Case) -> None:
    random = np.random.default_rng(1)
    ids, pixels = case.made.prompt(random), case.made.pixels(random)
    got = case.policy.backbone.logits(ids, pixels)
    expected = case.made.run(ids, pixels)[0][:, case.policy.backbone.vocabulary.ids()]
    assert np.abs(got - expected).max() < LOGIT_RTOL * np.abs(expected).max()


def test_greedy_answers_are_torchs(case: Case) -> None:
    """Within the slot grammar, every id torch's likeliest of its slot."""
    random = np.random.default_rng(2)
    prompt, pixels = case.made.prompt(random), case.made.pixels(random)
    ids = case.policy.backbone.generate_ids(prompt, pixels, max_blocks=1, rules="slots")
    layout = case.policy.bundle.manifest.layout()
    assert len(ids) == layout.ids_per_block + 3
    assert [ids[0], *ids[-2:]] == [case.made.token(text) for text in ("<mot>", "</mot>", "<|im_end|>")]
    scores = case.made.run(np.concatenate([prompt, ids]), pixels)[0][len(prompt) :]
    for i, slot in enumerate(layout.slots):
        first = case.made.ids["motion_id_0"] + slot.first
        assert ids[1 + i] == first + scores[i, first : first + 1 + slot.last - slot.first].argmax()


def test_the_manifest_says_what_the_files_say(case: Case) -> None:
    v, m = case.made.variant, case.policy.bundle.manifest
    assert (m.language.hidden, m.language.heads, m.language.kv_heads) == (v.hidden, v.heads, v.kv_heads)
    assert (m.language.tied, m.template, m.vision.image_size) == (v.tied, v.template, v.image)
    assert m.vision.tokens == case.made.ids["num_image_token"]
    assert m.tokens.noop == case.made.ids["token_ids"].get("<MOT_NOOP>")


def test_motion_ids_decode_as_in_torch(case: Case) -> None:
    random = np.random.default_rng(3)
    layout, tokenizer = case.policy.bundle.manifest.layout(), case.policy.tokenizer
    assert tokenizer is not None
    ids = np.array([random.integers(slot.first, slot.last + 1) for slot in layout.slots], np.int32)
    expected, at = [], 0
    for part, reference in zip(layout.parts, case.made.motion, strict=True):
        codes = np.array([n - s.first for n, s in zip(ids, layout.slots, strict=True) if s.part == part.name])
        shaped = torch.from_numpy(codes.reshape(1, part.groups, part.steps, part.layers))
        expected.append(reference.decode(shaped)[0].numpy())
        at += part.ids_per_block
    wanted, got = np.concatenate(expected, -1), tokenizer.decode(ids)
    assert np.abs(got - wanted).max() < FEATURE_RTOL * np.abs(wanted).max()


def test_a_wrist_alone_has_ids_but_moves_no_hand(tmp_path: Path) -> None:
    made = make(tmp_path, VARIANTS["a wrist alone"])
    out = tmp_path / "bundle"
    tokenizer = "+".join(map(str, made.tokenizer_folders))
    assert main(["convert", str(made.folder), "--tokenizer", tokenizer, "--out", str(out), "--report", "1"]) == 0
    report = read_report(Bundle.open(out))
    assert report is not None
    assert report["measured"]["mpjpe_mm"] is None
    with pytest.raises(BundleError, match="has no motion of a whole hand, only wrist"):
        check_request(Bundle.open(out), 1, "right")


def test_actions_are_torchs(case: Case) -> None:
    v = case.made.variant
    if v.robot is None:
        assert case.policy.robot is None
        return
    random = np.random.default_rng(4)
    ids, pixels = case.made.robot_prompt(random), case.made.pixels(random)
    proprio = random.normal(size=5).astype(np.float32)
    states = torch.from_numpy(case.made.run(ids, pixels, proprio)[1])
    places = {"action_token": slice(len(ids) - v.chunk, None), "prop_hidden": slice(len(ids) - v.chunk - 1, -v.chunk),
              "last_hidden": slice(-1, None)}
    expected = case.made.two_layers("action_decoder", states[places[v.robot]]).reshape(v.chunk, 3)
    got = case.policy.act_from_ids(ids, pixels, proprio)
    np.testing.assert_allclose(got, expected, atol=ACTION_ATOL, rtol=0)
    every = case.made.two_layers("action_decoder", states[-v.chunk :]).reshape(-1, 3)
    got = case.policy.act_from_ids(ids, pixels, proprio, official_kxk=True)
    np.testing.assert_allclose(got, every, atol=ACTION_ATOL, rtol=0)
