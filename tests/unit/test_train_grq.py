"""The torch motion tokenizer: shapes, codebook updates, and agreement with the C++ runtime that decodes its folders."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from beingh0_edge import MotionTokenizer  # noqa: E402
from beingh0_edge.train.fit_tokenizer import TokenizerRecipe, encode_all, fit_part, write_folder  # noqa: E402
from beingh0_edge.train.grq import MotionArgs, MotionVQ  # noqa: E402

SMALL = {"width": 16, "code_dim": 8, "output_emb_width": 8, "nb_code": 16, "depth": 2}
RELATIVE = 1e-5  # float32 sums in another order


def features(dims: int, n: int = 12) -> np.ndarray:
    t = np.linspace(0, 1, 15)[None, :, None]
    rng = np.random.default_rng(dims)
    return (rng.normal(size=(n, 1, dims)) + rng.normal(size=(n, 1, dims)) * t).astype(np.float32)


def part(name: str, dims: int) -> MotionVQ:
    torch.manual_seed(dims)
    x = torch.from_numpy(features(dims, 200))
    return MotionVQ(MotionArgs(use_part=name, **SMALL), x.mean((0, 1)), x.std((0, 1))).eval()


def test_a_block_is_64_ids_per_part():
    args = MotionArgs()
    assert (args.padding, args.positions, args.ids_per_block) == (1, 4, 64)
    assert MotionArgs(window_size=16).padding == 4  # upstream pads a whole unit when the window fits exactly


def test_the_runtime_reads_a_trained_folder_and_agrees_with_torch(tmp_path):
    models = {"wrist": part("wrist", 9), "finger": part("finger", 150)}
    for name, model in models.items():
        write_folder(model, tmp_path / name)
    runtime = MotionTokenizer.load(tmp_path / "wrist", tmp_path / "finger")
    inputs = [features(9), features(150)]
    ids = np.concatenate([encode_all(models["wrist"], inputs[0]), encode_all(models["finger"], inputs[1]) + 16], 1)
    np.testing.assert_array_equal(runtime.encode(*inputs), ids)
    expected = np.concatenate([models["wrist"].decode(torch.from_numpy(ids[:, :64].astype(np.int64))).numpy(),
                               models["finger"].decode(torch.from_numpy(ids[:, 64:].astype(np.int64) - 16)).numpy()],
                              -1)
    np.testing.assert_allclose(runtime.decode(ids), expected, rtol=RELATIVE, atol=RELATIVE * 10)


def test_training_lowers_the_error_and_resumes(tmp_path):
    factors = np.random.default_rng(0).normal(size=(400, 1, 2))
    x = (factors @ np.random.default_rng(1).normal(size=(2, 9)) * np.linspace(0.5, 1, 15)[:, None]).astype(np.float32)
    recipe = TokenizerRecipe(steps=150, batch=64)
    args = MotionArgs(use_part="wrist", **SMALL)
    trained = fit_part(args, x, recipe, tmp_path / "w.pt")
    torch.manual_seed(0)
    fresh = MotionVQ(args, trained.mean, trained.std).eval()

    def error(model: MotionVQ) -> float:
        ids = torch.from_numpy(encode_all(model, x).astype(np.int64))
        return float((model.decode(ids) - torch.from_numpy(x)).abs().mean())

    assert error(trained) < 0.7 * error(fresh)
    again = fit_part(args, x, recipe, tmp_path / "w.pt")  # nothing left to do: the saved state is the result
    assert error(again) == error(trained)


def test_rows_nobody_uses_are_replaced():
    model = part("wrist", 9).train()
    group = model.groups[0]
    group.embed[3] = 1e3
    group.embed_sum[3], group.cluster_size[3] = 1e3, 0.4
    model(torch.from_numpy(features(9, 64)))
    assert group.embed[3].abs().max() < 1e2


def test_the_least_used_row_becomes_the_one_that_says_nothing():
    model = part("wrist", 9)
    with pytest.raises(ValueError, match="found none"):
        model.silent_rows()
    for group, row in zip(model.groups, (3, 11), strict=True):
        group.cluster_size[row] = 0.1
    before = model.codebooks().clone()
    model.silence()
    assert model.silent_rows() == [3, 11]
    changed = (model.codebooks() != before).any(-1)
    assert changed.sum(1).tolist() == [1, 1]


def test_unsupported_variants_are_refused_by_name():
    with pytest.raises(ValueError, match="norm='LN'"):
        MotionVQ(MotionArgs(norm="LN"), torch.zeros(9), torch.ones(9))
