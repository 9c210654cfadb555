"""Importance of columns and the search for tensors that deserve more bits."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny_bundle

from beingh0_edge import Bundle
from beingh0_edge.cli import FAILED, main
from beingh0_edge.errors import BundleError
from beingh0_edge.quantize import build_bundle, reference
from beingh0_edge.quantize.checkpoint import LANGUAGE, Checkpoint
from beingh0_edge.quantize.importance import load_importance, measure_importance, save_importance
from beingh0_edge.quantize.quant_types import encode
from beingh0_edge.quantize.report import bytes_per_token
from beingh0_edge.quantize.tune import tune
from beingh0_edge.quantize.verify import random_samples

RTOL = 1e-5  # float32 sums in another order


@pytest.fixture(scope="module")
def exact(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(tiny_checkpoint, tmp_path_factory.mktemp("tune") / "exact", quant="F32", vision="fp32")


def test_importance_is_the_mean_square_of_what_a_matrix_reads(tiny_checkpoint: Path) -> None:
    checkpoint, random = Checkpoint(tiny_checkpoint), np.random.default_rng(0)
    ids = random.integers(0, 200, (2, 7)).astype(np.int32)
    pixels = random.normal(size=(2, 3, 56, 56)).astype(np.float32)
    image = 500  # in no prompt: no visual tokens
    rows = [reference.embedded(checkpoint, one, None, image) for one in ids]
    questions = list(zip(ids, pixels, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reference, "visual_embeddings", lambda checkpoint, pixels: np.empty((0, 64), np.float32))
        importance = measure_importance(checkpoint, questions, image, [3, 3], "random ids")
    weights = importance.weights()
    norm = checkpoint.tensor(LANGUAGE + "model.layers.0.input_layernorm.weight")
    normed = reference.rms_norm(np.concatenate(rows), norm, 1e-6)
    np.testing.assert_allclose(weights["blk.0.attn_q.weight"], (normed**2).mean(0), rtol=RTOL)
    np.testing.assert_array_equal(weights["blk.0.attn_q.weight"], weights["blk.0.attn_v.weight"])
    assert importance.counts["blk.1.ffn_down.weight"] == 14
    assert importance.counts["output.weight"] == 8  # only where a motion id follows
    states = np.concatenate([one[3:] for one in reference.all_hidden_states(checkpoint, rows)])
    np.testing.assert_allclose(weights["output.weight"], (states**2).mean(0), rtol=RTOL)


def test_important_columns_come_out_better(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=(64, 256)).astype(np.float32)
    importance = np.ones(256, np.float32)
    importance[::32] = 1000
    off = []
    for weights in (None, importance):
        for kind in ("Q4_0", "IQ4_NL", "Q4_K"):
            data = encode(values, kind, weights)
            back = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind])
            off.append(float(np.abs(back - values)[:, ::32].mean()))
    assert all(with_weights < 0.8 * without for without, with_weights in zip(off[:3], off[3:], strict=True))
    with pytest.raises(ValueError, match=r"importance: expected float32\[256\]"):
        encode(values, "Q4_0", importance[:5])


def test_the_file_is_llama_cpps_and_comes_back(tiny_checkpoint: Path, exact: Bundle, tmp_path: Path) -> None:
    importance = tune(Checkpoint(tiny_checkpoint), exact, random_samples(exact, 2), "noise", threads=1).importance
    path = tmp_path / "imatrix.gguf"
    save_importance(importance, path)
    reader = gguf.GGUFReader(path)
    assert reader.fields["general.type"].contents() == "imatrix"
    assert reader.fields["imatrix.datasets"].contents() == ["noise"]
    assert reader.fields["imatrix.chunk_count"].contents() == 2
    shapes = {tensor.name: list(tensor.shape) for tensor in reader.tensors}  # ggml's order: columns first
    assert shapes["blk.0.ffn_down.weight.in_sum2"] == [128, 1]
    assert shapes["blk.0.ffn_down.weight.counts"] == [1, 1]
    again = load_importance(path).weights()
    assert set(again) == {name for name in exact.manifest.language.tensor_shapes()
                          if name.endswith("weight") and "norm" not in name} - {"token_embd.weight"}
    for name, value in importance.weights().items():
        np.testing.assert_array_equal(again[name], value)


def test_a_search_finds_fewer_errors_within_its_budget(tiny_checkpoint: Path, exact: Bundle) -> None:
    tuned = tune(Checkpoint(tiny_checkpoint), exact, random_samples(exact, 2), "noise", quant="Q4_MIX", budget=0.3,
                 threads=1)
    base, *others = tuned.trials
    best = next(trial for trial in tuned.trials if trial.overrides == tuned.overrides)
    assert base.overrides == {}
    assert best.kl < base.kl
    assert base.bytes < best.bytes <= 1.3 * base.bytes
    assert {"output.weight": "Q8_0"} in [trial.overrides for trial in others]
    assert best.kl == min(trial.kl for trial in tuned.trials if trial.bytes <= 1.3 * base.bytes
                          and set(trial.overrides) <= set(best.overrides))


def test_convert_measures_importance_searches_and_says_so(tiny_checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["convert", str(tiny_checkpoint), "--report", "1", "--questions", "2"]
    assert main([*arguments, "--out", str(tmp_path / "mix"), "--quant", "Q4_MIX", "--budget", "0.2"]) == 0
    assert main([*arguments, "--out", str(tmp_path / "plain"), "--quant", "IQ4_NL", "--imatrix", "none",
                 "--mmproj", "F16", "--override", "output.weight=Q8_0"]) == 0
    assert main([*arguments, "--out", str(tmp_path / "again"), "--quant", "IQ4_NL",
                 "--imatrix", str(tmp_path / "mix" / "imatrix.gguf")]) == 0
    mix, plain, again = (Bundle.open(tmp_path / name) for name in ("mix", "plain", "again"))
    for bundle in (mix, plain, again):
        bundle.verify()
    assert mix.manifest.provenance["search"][0]["overrides"] == {}
    assert "training's split" in mix.manifest.provenance["importance"]
    assert "importance" not in plain.manifest.provenance
    assert plain.path("mmproj.gguf").is_file()
    assert plain.inspect()["language"]["tensor_types"]["Q8_0"] == 1
    assert again.path("imatrix.gguf").is_file()
    assert bytes_per_token(again) < bytes_per_token(mix) <= 1.25 * bytes_per_token(again)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "mix", "plain"]


def test_an_importance_matrix_of_another_model_is_refused(tiny_checkpoint: Path, tmp_path: Path,
                                                          capsys: pytest.CaptureFixture[str]) -> None:
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "imatrix")
    writer.add_tensor("blk.0.attn_q.weight.in_sum2", np.ones((1, 96), np.float32))
    writer.add_tensor("blk.0.attn_q.weight.counts", np.ones((1, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (tmp_path / "none.gguf").write_bytes(b"GGUF" + bytes(40))
    common = ["convert", str(tiny_checkpoint), "--out", str(tmp_path / "b"), "--report", "0", "--quant", "Q4_0"]
    for name, said in (("other.gguf", "made for another model: blk.0.attn_q.weight has 96 columns instead of 64"),
                       ("none.gguf", "not an importance matrix"), ("missing.gguf", "no such importance matrix")):
        assert main([*common, "--imatrix", str(tmp_path / name)]) == FAILED
        assert said in capsys.readouterr().err
    assert main([*common, "--override", "output.weight"]) == FAILED
    assert "expected PATTERN=TYPE, got 'output.weight'" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none.gguf", "other.gguf"]


def test_a_robot_model_is_tuned_on_its_prompts(tmp_path: Path) -> None:
    folder = tiny_bundle.make_checkpoint(tmp_path / "robot", robot=True)
    (folder / "motion").rename(tmp_path / "motion")
    exact = build_bundle(folder, tmp_path / "exact", quant="F32", vision="fp32")
    tuned = tune(Checkpoint(folder), exact, random_samples(exact, 1), "noise", quant="Q4_MIX", threads=1)
    assert tuned.trials[0].kl > 0
    with pytest.raises(BundleError, match="no such importance matrix"):
        load_importance(tmp_path / "nothing.gguf")
