"""The training network against data recorded from the official code, and its shared-prefix form against itself."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file  # noqa: E402

from beingh0_edge.train.model import BeingVLA, VLAConfig  # noqa: E402
from beingh0_edge.train.muon import Muon, orthogonalise  # noqa: E402

VLA = Path(__file__).parents[1] / "golden" / "data" / "vla"
LOGIT_TOLERANCE = 1e-4  # float32 sums in another order, as recorded in the golden notes
SAME = 2e-5             # two orders of the same float32 attention sums


@pytest.fixture(scope="module")
def golden():
    config = VLAConfig.from_official(json.loads((VLA / "checkpoint" / "config.json").read_text()))
    model = BeingVLA(config)
    weights = load_file(VLA / "checkpoint" / "model.safetensors")
    model.load_state_dict({k: v.float() for k, v in weights.items()}, strict=True)
    ids = json.loads((VLA / "ids.json").read_text())
    return model.eval(), dict(np.load(VLA / "golden.npz")), ids


@torch.no_grad()
def embedded(model, data, ids):
    tokens = torch.tensor(data["fwd_input_ids"])
    x = model.language.embed(tokens)
    visual = model.visual_tokens(torch.tensor(data["pixel_values"]))
    x[0, tokens[0] == ids["token_ids"]["<IMG_CONTEXT>"]] = visual[0]
    return x, visual


def test_visual_tokens_match_the_recorded_ones(golden):
    model, data, ids = golden
    _, visual = embedded(model, data, ids)
    np.testing.assert_allclose(visual, data["vit_embeds"], atol=LOGIT_TOLERANCE)


def test_logits_match_the_recorded_ones(golden):
    model, data, ids = golden
    x, _ = embedded(model, data, ids)
    with torch.no_grad():
        hidden, _ = model.language(x)
        logits = model.language.lm_head(hidden)
    np.testing.assert_allclose(hidden, data["fwd_last_hidden"], atol=LOGIT_TOLERANCE)
    np.testing.assert_allclose(logits, data["fwd_logits"], atol=LOGIT_TOLERANCE)


def test_a_branch_sees_the_prefix_and_itself_only(golden):
    model, data, ids = golden
    x, _ = embedded(model, data, ids)
    with torch.no_grad():
        whole, _ = model.language(x)
        other = torch.randn_like(x[:, 15:])
        prefix, branches = model.language(x[:, :15], torch.stack([x[:, 15:], other], 1))
    torch.testing.assert_close(prefix, whole[:, :15], atol=SAME, rtol=0)
    torch.testing.assert_close(branches[:, 0], whole[:, 15:], atol=SAME, rtol=0)
    assert (branches[:, 1] - whole[:, 15:]).abs().max() > 100 * SAME


def test_the_config_survives_a_round_trip(golden):
    config = golden[0].config
    assert VLAConfig.from_official(json.loads(json.dumps(config.to_official()))) == config


def test_orthogonalise_brings_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((2, 48, 24), (1, 32, 96)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
        assert values.min() > 0.3  # the quintic's band, Jordan et al.
        assert values.max() < 1.4


def test_muon_refuses_anything_but_matrices():
    p = torch.nn.Parameter(torch.zeros(3))
    p.grad = torch.ones(3)
    with pytest.raises(ValueError, match="expected matrices"):
        Muon([p]).step()
