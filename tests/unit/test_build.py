"""Checkpoint to bundle: layouts, what goes in, what is refused, and that nothing is left half-written."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundle
import torch
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

import beingh0_edge
from beingh0_edge import Bundle, HandModel
from beingh0_edge.backbone import Backbone
from beingh0_edge.errors import BundleError
from beingh0_edge.hand_model import SHAPES
from beingh0_edge.quantize import build_bundle
from beingh0_edge.quantize.checkpoint import EMBEDDING, HEAD, Checkpoint
from beingh0_edge.quantize.quant_types import QUANTS

LOGIT_ATOL = 1e-4  # float32 in another order


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def logits_of(bundle: Bundle) -> dict[int, np.ndarray]:
    """Vocabulary id -> its scores over a fixed prompt."""
    backbone = Backbone(bundle, threads=1)
    ids = np.arange(3, 15)
    ids[2:6] = bundle.manifest.tokens.img_context
    logits = backbone.logits(ids, np.random.default_rng(0).normal(size=(3, 56, 56)).astype(np.float32))
    return dict(zip(backbone.vocabulary.ids().tolist(), logits.T, strict=True))


def test_both_layouts_score_the_shared_ids_alike(tiny_checkpoint: Path, tmp_path: Path) -> None:
    full = logits_of(build_bundle(tiny_checkpoint, tmp_path / "full", layout="full", quant="F32"))
    trimmed = logits_of(build_bundle(tiny_checkpoint, tmp_path / "trimmed", quant="F32"))
    assert len(full) > 2 * len(trimmed)
    for token, scores in trimmed.items():
        np.testing.assert_allclose(scores, full[token], atol=LOGIT_ATOL, rtol=0)


def test_a_full_layout_carries_the_text_tokenizer(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """llama.cpp itself reads text with it, to the ids of tokenizer.json."""
    import llama_cpp
    from tokenizers import Tokenizer

    bundle = build_bundle(tiny_checkpoint, tmp_path / "full", layout="full", quant="F16")
    model = llama_cpp.Llama(str(bundle.path("language.gguf")), vocab_only=True, verbose=False)
    text = "<|im_start|>pick up the red can<mot><motion_id_5></mot>"
    expected = Tokenizer.from_file(str(bundle.path("tokenizer.json"))).encode(text).ids
    assert model.tokenize(text.encode(), add_bos=False, special=True) == expected


def test_llama_cpp_answers_in_text_from_a_full_layout(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Its own greedy answer to a chat, id by id the likeliest of ours."""
    import llama_cpp
    from tokenizers import Tokenizer

    bundle = build_bundle(tiny_checkpoint, tmp_path / "full", layout="full", quant="F32", vision="fp32")
    model = llama_cpp.Llama(str(bundle.path("language.gguf")), n_ctx=512, n_threads=1, verbose=False)
    assert "You are Being-H0" in model.metadata["tokenizer.chat_template"]
    text = chat_text("pick up the red can")
    prompt = Tokenizer.from_file(str(bundle.path("tokenizer.json"))).encode(text).ids
    assert model.tokenize(text.encode(), add_bos=False, special=True) == prompt
    answer: list[int] = []
    for token in model.generate(prompt, temp=0, repeat_penalty=1.0):
        answer.append(token)
        if len(answer) == 4:
            break
    model.close()
    scores = Backbone(bundle, threads=1).logits(np.array(prompt + answer))
    assert answer == scores[len(prompt) - 1 : -1].argmax(-1).tolist()


def chat_text(question: str) -> str:
    system = "You are Being-H0, a helpful and harmless AI assistant developed by BeingBeyond."
    return (f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n"
            "<|im_start|>assistant\n")


@pytest.fixture(scope="module")
def exact(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, np.ndarray]:
    folder = tmp_path_factory.mktemp("exact") / "bundle"
    return logits_of(build_bundle(tiny_checkpoint, folder, quant="F32", vision="fp32"))


@pytest.mark.parametrize("quant", QUANTS)
def test_every_quant_opens_and_scores_near_the_original(tiny_checkpoint: Path, tmp_path: Path, quant: str,
                                                        exact: dict[int, np.ndarray]) -> None:
    other = logits_of(build_bundle(tiny_checkpoint, tmp_path / "other", quant=quant))
    a, b = (np.stack([scores[token] for token in exact]) for scores in (exact, other))
    cosine = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
    assert cosine > (0.95 if "4" in quant else 0.98 if "5" in quant else 0.999)  # random weights exaggerate


def test_a_tied_head_is_the_embedding(folder: Path, tmp_path: Path) -> None:
    weights = load_file(str(folder / "model.safetensors"))
    reference = dict(weights, **{HEAD: weights[EMBEDDING]})
    del weights[HEAD]
    save_file(weights, str(folder / "model.safetensors"))
    config = json.loads((folder / "config.json").read_text())
    config["vlm_config"]["llm_config"]["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config))
    tied = build_bundle(folder, tmp_path / "tied", quant="F32")
    assert tied.manifest.language.tied
    config["vlm_config"]["llm_config"]["tie_word_embeddings"] = False
    (folder / "config.json").write_text(json.dumps(config))
    save_file(reference, str(folder / "model.safetensors"))
    untied = build_bundle(folder, tmp_path / "untied", quant="F32")
    a, b = logits_of(tied), logits_of(untied)
    for token in a:
        np.testing.assert_allclose(a[token], b[token], atol=LOGIT_ATOL, rtol=0)


def test_overrides_show_in_the_bundle(tiny_checkpoint: Path, tmp_path: Path) -> None:
    bundle = build_bundle(tiny_checkpoint, tmp_path / "b", quant="Q4_0", overrides={"output.weight": "F16"})
    assert bundle.inspect()["language"]["tensor_types"] == {"Q4_0": 15, "F16": 1, "F32": 11}


def test_edge_json_reaches_the_manifest(tiny: Bundle) -> None:
    m = tiny.manifest
    assert (m.name, m.max_seconds, m.preprocess.camera.fx) == ("tiny", tiny_bundle.MAX_SECONDS, 90.0)
    assert m.preprocess.default_raw_camera == m.preprocess.camera
    assert m.provenance["made_by"] == "tests/tiny_bundle.py"
    assert {side: hand.label for side, hand in m.hands.items()} == dict.fromkeys(
        ("left", "right"), "synthetic, not MANO"
    )
    assert m.hands["left"].betas == (0.0,) * 10


def test_the_official_camera_and_limits_are_the_default(folder: Path, tmp_path: Path) -> None:
    (folder / "edge.json").unlink()
    m = build_bundle(folder, tmp_path / "bundle").manifest
    assert (m.preprocess.camera.fx, m.preprocess.camera.width) == (736.6339, 1920)
    assert m.preprocess.default_raw_camera.fx == 2304.0
    assert m.max_seconds == 10


# ------------------------------------------------------------------------------------- motion tokenizer


def test_pickled_motion_weights_give_the_same_files(folder: Path, tmp_path: Path) -> None:
    for part in ("wrist", "finger"):
        path = folder / "motion" / part / "net_best_mpjpe.safetensors"
        tensors = {name: torch.from_numpy(value) for name, value in load_file(str(path)).items()}
        torch.save({"net": tensors, "epoch": 1}, path.with_suffix(".pth"))
        path.unlink()
    pickled = build_bundle(folder, tmp_path / "pickled")
    plain = build_bundle(tiny_bundle.make_checkpoint(tmp_path / "again"), tmp_path / "plain")
    name = "motion/{}/net_best_mpjpe.safetensors"
    for part in ("wrist", "finger"):
        assert pickled.path(name.format(part)).read_bytes() == plain.path(name.format(part)).read_bytes()


@pytest.mark.parametrize("with_folders", [True, False], ids=["beside folders", "alone"])
def test_motion_weights_inside_the_checkpoint_win(folder: Path, tmp_path: Path, with_folders: bool) -> None:
    weights = load_file(str(folder / "model.safetensors"))
    args = []
    for i, part in enumerate(("wrist", "finger")):
        source = folder / "motion" / part
        tensors = load_file(str(source / "net_best_mpjpe.safetensors"))
        weights |= {f"motion_adapter.motion_model.{i}.{name}": value * 2 for name, value in tensors.items()}
        mask = json.loads((source / "meta_mask.json").read_text())["meta_mask"]
        meta = json.loads((source / "motion_meta.json").read_text())
        for kind in ("mean", "std"):
            weights[f"motion_adapter.motion_{kind}.{i}"] = np.array(meta[kind], np.float32)[mask] + 1
        args.append(json.loads((source / "motion_args.json").read_text()))
    save_file(weights, str(folder / "model.safetensors"))
    if not with_folders:
        shutil.rmtree(folder / "motion")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"motion_config": args}))
    bundle = build_bundle(folder, tmp_path / "bundle")
    assert bundle.manifest.motion is not None
    assert bundle.manifest.motion.folders == ("motion/wrist", "motion/finger")
    written = load_file(str(bundle.path("motion/wrist/net_best_mpjpe.safetensors")))
    name = "model.decoder.model.0.weight"
    np.testing.assert_array_equal(written[name], weights["motion_adapter.motion_model.0." + name])
    meta = json.loads(bundle.path("motion/finger/motion_meta.json").read_text())
    np.testing.assert_allclose(meta["mean"], weights["motion_adapter.motion_mean.1"])

    weights["motion_adapter.motion_model.1.surprise"] = weights.pop("motion_adapter.motion_model.1." + name)
    weights["motion_adapter.motion_mean.0"] = np.ones(8, np.float32)
    weights["motion_adapter.motion_std.1"][5] = np.nan
    del weights[HEAD]
    save_file(weights, str(folder / "model.safetensors"))
    with pytest.raises(BundleError) as caught:
        build_bundle(folder, tmp_path / "damaged")
    said = str(caught.value).splitlines()[1:]
    assert [line.strip().split(" [")[0] for line in said] == [
        f"missing {HEAD}", f"missing motion_adapter.motion_model.1.{name}",
        "unexpected motion_adapter.motion_model.1.surprise", "motion_adapter.motion_mean.0: expected",
        "values that are not finite in motion_adapter.motion_std.1"]


def test_a_tokenizer_that_does_not_fit_the_vocabulary_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "motion" / "finger")
    with pytest.raises(BundleError, match=r"needs 32 motion ids \(wrist 32\), the vocabulary has 64"):
        build_bundle(folder, tmp_path / "bundle")


@pytest.mark.parametrize("name", ["motion_args.json", "motion_meta.json"])
def test_a_missing_motion_file_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / "motion" / "wrist" / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: missing"):
        build_bundle(folder, tmp_path / "bundle")


# ------------------------------------------------------------------------------------------- refusals


def test_missing_tokens_are_all_named(folder: Path, tmp_path: Path) -> None:
    data = json.loads((folder / "tokenizer.json").read_text())
    data["added_tokens"] = [t for t in data["added_tokens"] if t["content"] not in ("<mot>", "<IMG_CONTEXT>")]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(BundleError, match="the tokenizer lacks <mot>, <IMG_CONTEXT>"):
        build_bundle(folder, tmp_path / "bundle")


def test_motion_ids_out_of_line_are_refused(folder: Path, tmp_path: Path) -> None:
    data = json.loads((folder / "tokenizer.json").read_text())
    by_name = {t["content"]: t for t in data["added_tokens"]}
    a, b = by_name["<motion_id_3>"], by_name["<motion_id_4>"]
    a["content"], b["content"] = b["content"], a["content"]
    (folder / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(BundleError, match="motion ids must follow <mot> one by one"):
        build_bundle(folder, tmp_path / "bundle")


@pytest.mark.parametrize("layout", ["trimmed", "full"])
def test_tokens_beyond_the_embedding_are_refused(folder: Path, tmp_path: Path, layout: Any) -> None:
    """Their rows would be those of the next tensor in the file."""
    config = json.loads((folder / "config.json").read_text())
    language = config["vlm_config"]["llm_config"]
    language["vocab_size"] -= 2
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tiny_bundle.make_weights(folder), str(folder / "model.safetensors"))
    rows = language["vocab_size"]
    with pytest.raises(BundleError, match=rf"2 token ids .* {rows} rows: <MOT_NOOP> {rows}, </mot> {rows + 1}"):
        build_bundle(folder, tmp_path / "bundle", layout=layout)
    with pytest.raises(ValueError, match=f"no rows {rows - 1} to {rows + 1}"):
        Checkpoint(folder).rows(EMBEDDING, rows - 1, rows + 1)
    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    (folder / "tokenizer.json").unlink()
    (folder / "ids.json").write_text(json.dumps({
        "token_ids": vocabulary, "motion_id_0": vocabulary["<motion_id_0>"], "eos_token_id": vocabulary["<|im_end|>"],
        "num_motion_ids": tiny_bundle.MOTION_IDS}))
    with pytest.raises(BundleError, match=rf"ids\.json: 2 token ids without a row .* noop {rows}, mot_end {rows + 1}"):
        build_bundle(folder, tmp_path / "bundle", layout=layout)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(("options", "message"), [
    ({"layout": "half"}, "'trimmed' or 'full', got 'half'"), ({"quant": "Q9"}, "quant: expected one of F32"),
    ({"vision": "int2"}, "vision: expected 'fp32', 'fp16', 'int8' or 'int8_dynamic'"),
    ({"hands": {"third": "x"}}, "got 'third'")])
def test_wrong_arguments_are_refused(tiny_checkpoint: Path, tmp_path: Path, options: dict[str, Any],
                                     message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_bundle(tiny_checkpoint, tmp_path / "bundle", **options)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_only_replaced_if_it_is_a_bundle(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    build_bundle(tiny_checkpoint, out)
    with pytest.raises(BundleError, match=r"already exists; --overwrite \(overwrite=True\) replaces it"):
        build_bundle(tiny_checkpoint, out)
    build_bundle(tiny_checkpoint, out, quant="F16", overwrite=True)
    assert Bundle.open(out).manifest.language.quant == "F16"
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("dear to somebody")
    with pytest.raises(BundleError, match="already exists and is not a bundle"):
        build_bundle(tiny_checkpoint, tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter1.txt").exists()


def test_an_interrupted_build_leaves_the_old_bundle_and_nothing_else(tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    build_bundle(tiny_checkpoint, out)
    seen: list[str] = []

    def interrupt(done: int, total: int, what: str) -> None:
        seen.append(what)
        assert 0 < done <= total
        if what.startswith("vision"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_bundle(tiny_checkpoint, out, quant="F16", overwrite=True, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert Bundle.open(out).manifest.language.quant == "Q8_0"
    assert {what.split()[0] for what in seen} == {"checking", "language", "vision"}


def test_a_hand_model_that_is_none_is_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "hand.npz").write_bytes(b"no hand")
    with pytest.raises(BundleError, match=r"hand\.npz: not a hand model"):
        build_bundle(tiny_checkpoint, tmp_path / "bundle", hands={"left": tmp_path / "hand.npz"})
    with pytest.raises(BundleError, match="no such hand model"):
        build_bundle(tiny_checkpoint, tmp_path / "bundle", hands={"left": tmp_path / "none.npz"})


def test_a_mano_pickle_becomes_an_npz_with_the_published_shape(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A stand-in with MANO's keys; real files and their odd classes are tested with the unpickler."""
    synthetic = Path(beingh0_edge.__file__).parent / "assets" / "hands" / "synthetic_right.npz"
    with np.load(synthetic) as arrays:
        (tmp_path / "MANO_RIGHT.pkl").write_bytes(pickle.dumps({k: arrays[k] for k in SHAPES}, protocol=2))
    bundle = build_bundle(tiny_checkpoint, tmp_path / "bundle", hands={"right": tmp_path / "MANO_RIGHT.pkl"})
    hand = bundle.manifest.hands["right"]
    assert "MANO" in hand.label
    assert hand.betas[0] == 0.50233305
    pose = np.zeros(48, np.float32)
    np.testing.assert_array_equal(HandModel.load(bundle.path(hand.file)).forward(pose).joints,
                                  HandModel.load(synthetic).forward(pose).joints)


def test_a_malicious_hand_is_refused_by_name(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "evil.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(BundleError, match=r"refused to load os\.system"):
        build_bundle(tiny_checkpoint, tmp_path / "bundle", hands={"right": tmp_path / "evil.pkl"})


def test_the_same_checkpoint_gives_the_same_bytes(tiny_checkpoint: Path, tmp_path: Path) -> None:
    a, b = (build_bundle(tiny_checkpoint, tmp_path / name) for name in "ab")
    assert a.manifest == b.manifest
