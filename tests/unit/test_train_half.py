"""bfloat16 where the machine has instructions for it, float32 where it would take many times as long."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from beingh0_edge.train import half  # noqa: E402
from beingh0_edge.train.fit_tokenizer import TokenizerRecipe, fit_part  # noqa: E402
from beingh0_edge.train.grq import MotionArgs, MotionVQ  # noqa: E402
from beingh0_edge.train.muon import orthogonalise  # noqa: E402


@pytest.fixture(params=[0.25, 16.0])
def ratio(request, monkeypatch):
    """A machine whose bfloat16 products take so many times as long as float32's."""
    def took(multiply):
        return request.param if multiply().dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(half, "_best_s", took)
    half.half_is_fast.cache_clear()
    yield request.param
    half.half_is_fast.cache_clear()


def test_a_forward_pass_multiplies_in_what_is_faster(ratio):
    x = torch.ones(2, 2)
    with half.half_products("cpu"):
        assert (x @ x).dtype == (torch.bfloat16 if ratio < 1 else torch.float32)


def test_muon_iterates_in_what_is_faster(ratio):
    # What rounding adds to a matrix of rank one is pushed up as its one singular value is.
    a, b = torch.linspace(0.1, 1, 24)[:, None], torch.linspace(0.3, 0.7, 32)[None]
    found = orthogonalise((a * b)[None])[0]
    error = (found / found.norm() - a * b / (a * b).norm()).abs().max()
    assert error < 1e-4 if ratio > 1 else error > 1e-3


def test_the_motion_tokenizer_settles_in_float32_and_starts_in_what_is_faster(ratio, monkeypatch, tmp_path):
    halves = []
    forward = MotionVQ.forward

    def spy(self, features, levels=None, *, groups=None, half=False):
        halves.append(half)
        return forward(self, features, levels, groups=groups, half=half)

    monkeypatch.setattr(MotionVQ, "forward", spy)
    args = MotionArgs(width=16, code_dim=8, output_emb_width=8, nb_code=16, depth=2)
    windows = np.random.default_rng(0).normal(size=(40, 15, 9)).astype(np.float32)
    fit_part(args, windows, TokenizerRecipe(steps=5, batch=8), tmp_path / "state.pt")
    assert halves == [ratio < 1] * 4 + [False]


def test_the_first_product_does_not_count():
    times = iter([10.0, 11.0, 12.0, 12.5, 13.0, 15.0])
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(half.time, "perf_counter", lambda: next(times))
        assert half._best_s(lambda: calls.append(len(calls))) == 0.5
    assert len(calls) == 4
