"""Exported ONNX graphs against torch: text embeddings, language model with cache, motion, robot heads."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from varied_checkpoints import VARIANTS, Made, make

from beingh0_edge import Policy
from beingh0_edge.cli import FAILED, main
from beingh0_edge.errors import BundleError
from beingh0_edge.quantize import build_bundle
from beingh0_edge.quantize.export_onnx import export_onnx
from beingh0_edge.quantize.onnx_graph import INT4_BLOCK, Graph
from beingh0_edge.tokens import TokenLayout

RTOL = 1e-5  # of the largest value; float32 in another order
ACTION_ATOL = 1e-4  # of an F32 bundle's actions
# Source: the table of the ONNX parser for TensorRT 8.5, and its changes for 8.6 (LayerNormalization). A new
# operator belongs here once it was looked up there.
TENSORRT_READS = {
    "Add", "And", "ArgMin", "Cast", "Concat", "Conv", "Cos", "Div", "Erf", "Gather", "Identity", "LayerNormalization",
    "MatMul", "Mod", "Mul", "Pad", "ReduceMean", "ReduceSum", "Relu", "Reshape", "Resize", "Sigmoid", "Sin", "Slice",
    "Softmax", "Split", "Sqrt", "Sub", "Transpose", "Unsqueeze", "Where"}
CASES = ("odd widths, one key-value head, old config", "rms norm and normalised queries in the tower, DeepSpeed, bin",
         "robot, an action per token", "robot, last hidden")


class Exported(NamedTuple):
    made: Made
    folder: Path

    def run(self, name: str, **inputs: np.ndarray) -> list[np.ndarray]:
        path = str(self.folder / f"{name}.onnx")
        return list(onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs))


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("export")
    made = make(folder, VARIANTS[request.param])
    export_onnx(made.folder, folder / "onnx", language="fp32", vision="fp32", tokenizer_folders=made.tokenizer_folders)
    return Exported(made, folder / "onnx")


@pytest.fixture(scope="module")
def policy(case: Exported, tmp_path_factory: pytest.TempPathFactory) -> Policy:
    """Our own runtime on the same checkpoint."""
    bundle = build_bundle(case.made.folder, tmp_path_factory.mktemp("runtime") / "bundle", quant="F32", vision="fp32",
                          tokenizer_folders=case.made.tokenizer_folders)
    return Policy(bundle, threads=1)


def close(got: np.ndarray, expected: Any) -> None:
    wanted = np.asarray(expected)
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() < RTOL * max(1.0, float(np.abs(wanted).max()))


def embedded(case: Exported, ids: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Prompt embeddings from the exported graphs alone."""
    x = case.run("text_embeddings", input_ids=ids[None].astype(np.int64))[0][0]
    x[ids == case.made.token("<IMG_CONTEXT>")] = case.run("vision", pixel_values=pixels[None])[0][0]
    return x


def embed_ids(case: Exported, ids: list[int]) -> np.ndarray:
    """float32[n, hidden]"""
    return case.run("text_embeddings", input_ids=np.array([ids]))[0][0]


def empty_cache(case: Exported, batch: int) -> dict[str, np.ndarray]:
    v = case.made.variant
    empty = np.zeros((batch, v.kv_heads, 0, v.hidden // v.heads), np.float32)
    return {f"past_key_values.{i}.{kind}": empty for i in range(v.layers) for kind in ("key", "value")}


def test_a_prompt_and_steps_over_the_cache_give_torchs_logits(case: Exported) -> None:
    random = np.random.default_rng(0)
    ids, pixels = case.made.prompt(random), case.made.pixels(random)
    x = embedded(case, ids, pixels)
    logits, states = case.made.run(ids, pixels)
    cache, start, got = empty_cache(case, 1), 0, []
    for end in (5, 6, len(ids) - 1, len(ids)):  # chunks of several and of one
        out = case.run("language", inputs_embeds=x[None, start:end], attention_mask=np.ones((1, end), np.int64),
                       position_ids=np.arange(start, end, dtype=np.int64)[None], **cache)
        got.append((out[0][0], out[1][0]))
        cache, start = dict(zip(cache, out[2:], strict=True)), end
    close(np.concatenate([step[0] for step in got]), logits)
    close(np.concatenate([step[1] for step in got]), states)


def test_left_padding_changes_nothing(case: Exported) -> None:
    """As the published code pads a batch; positions count what is not padding."""
    random = np.random.default_rng(1)
    ids, pixels = case.made.prompt(random), case.made.pixels(random)
    x, n, pad = embedded(case, ids, pixels), len(ids), 3
    batch = np.stack([np.concatenate([np.full((pad, x.shape[1]), 7, np.float32), x]), np.concatenate([x, x[:pad]])])
    mask = np.ones((2, n + pad), np.int64)
    mask[0, :pad] = 0
    places = np.maximum(np.cumsum(mask, 1) - 1, 0)
    logits = case.run("language", inputs_embeds=batch, attention_mask=mask, position_ids=places,
                      **empty_cache(case, 2))[0]
    expected = case.made.run(ids, pixels)[0]
    close(logits[0, pad:], expected)
    close(logits[1, :n], expected)


def test_ids_decode_and_features_encode_as_in_torch(case: Exported) -> None:
    random, decoded, ids, offset = np.random.default_rng(2), [], [], 0
    for reference in case.made.motion:
        a = reference.args
        steps = (a["window_size"] + 2 ** a["down_t"] - a["window_size"] % 2 ** a["down_t"]) // 2 ** a["down_t"]
        codes = random.integers(0, a["nb_code"], (2, len(reference.books), steps, a["num_quantizers"]))
        decoded.append(reference.decode(torch.from_numpy(codes)).numpy())
        layer = 0 if a["shared_codebook"] else np.arange(a["num_quantizers"]) * a["nb_code"]
        ids.append((codes + layer + offset).reshape(2, -1))
        offset += a["nb_code"] * (1 if a["shared_codebook"] else a["num_quantizers"])
    features = case.run("motion_decoder", motion_ids=np.concatenate(ids, 1))[0]
    close(features, np.concatenate(decoded, 2))

    encoded, offset = [], 0
    for reference, part in zip(case.made.motion, decoded, strict=True):
        a = reference.args
        layer = 0 if a["shared_codebook"] else np.arange(a["num_quantizers"]) * a["nb_code"]
        encoded.append((reference.encode(torch.from_numpy(part)).numpy() + layer + offset).reshape(2, -1))
        offset += a["nb_code"] * (1 if a["shared_codebook"] else a["num_quantizers"])
    np.testing.assert_array_equal(case.run("motion_encoder", features=features)[0], np.concatenate(encoded, 1))


def test_robot_heads_are_torchs(case: Exported) -> None:
    v, random = case.made.variant, np.random.default_rng(3)
    if v.robot is None:
        assert not (case.folder / "action_decoder.onnx").exists()
        return
    proprio = random.normal(size=(2, 5)).astype(np.float32)
    close(case.run("proprio_encoder", proprio=proprio)[0],
          case.made.two_layers("proprio_encoder", torch.from_numpy(proprio)))
    states = random.normal(size=(2, 4, v.hidden)).astype(np.float32)
    expected = case.made.two_layers("action_decoder", torch.from_numpy(states))
    shape = (2, 4, 3) if v.robot == "action_token" else (2, 4, v.chunk, 3)
    close(case.run("action_decoder", hidden_states=states)[0], expected.reshape(shape))


def pick(layout: TokenLayout, logits: np.ndarray, slot: int) -> int:
    """The likeliest id of a slot; logits of the full layout."""
    first = layout.motion_id_0 + layout.slots[slot].first
    return first + int(logits[first : layout.motion_id_0 + layout.slots[slot].last + 1].argmax())


def test_the_graphs_alone_answer_as_the_runtime_does(case: Exported, policy: Policy) -> None:
    """Prompt, one step per id over the cache, motion; or the action. The runtime: llama.cpp and our kernels, F32."""
    random, v = np.random.default_rng(5), case.made.variant
    prompt, pixels = case.made.prompt(random), case.made.pixels(random)
    layout = policy.bundle.manifest.layout()
    x = np.concatenate([embedded(case, prompt, pixels), embed_ids(case, [layout.mot])])
    cache, ids, past = empty_cache(case, 1), [], 0
    for slot in range(len(layout.slots)):
        total = past + len(x)
        out = case.run("language", inputs_embeds=x[None], attention_mask=np.ones((1, total), np.int64),
                       position_ids=np.arange(past, total, dtype=np.int64)[None], **cache)
        cache, past = dict(zip(cache, out[2:], strict=True)), total
        ids.append(pick(layout, out[0][0, -1], slot))
        x = embed_ids(case, ids[-1:])
    answer = policy.backbone.generate_ids(prompt, pixels, max_blocks=1, rules="slots")
    np.testing.assert_array_equal(ids, answer[1:-2])
    motion = np.array(ids)[None] - layout.motion_id_0
    assert policy.tokenizer is not None
    close(case.run("motion_decoder", motion_ids=motion)[0][0], policy.tokenizer.decode(motion[0]))
    if v.robot is None:
        return
    ids, proprio = case.made.robot_prompt(random), random.normal(size=5).astype(np.float32)
    x = embedded(case, ids, pixels)
    x[ids == policy.bundle.manifest.tokens.prop_context] = case.run("proprio_encoder", proprio=proprio[None])[0]
    states = case.run("language", inputs_embeds=x[None], attention_mask=np.ones((1, len(ids)), np.int64),
                      position_ids=np.arange(len(ids))[None], **empty_cache(case, 1))[1]
    read = states[:, -v.chunk :] if v.robot == "action_token" else states[:, -1:]
    actions = case.run("action_decoder", hidden_states=read)[0].reshape(v.chunk, 3)
    np.testing.assert_allclose(actions, policy.act_from_ids(ids, pixels, proprio), atol=ACTION_ATOL, rtol=0)


def test_static_graphs_answer_a_shorter_prompt_as_the_page_says(tmp_path: Path) -> None:
    """Padded on the left and hidden by the mask; new rows copied into a cache of fixed length."""
    made, cache_length = make(tmp_path, VARIANTS["plain"]), 90
    random = np.random.default_rng(6)
    prompt, pixels = made.prompt(random), made.pixels(random)
    width = len(prompt) + 5
    export_onnx(made.folder, tmp_path / "onnx", static=(width, cache_length), language="fp32", vision="fp32",
                tokenizer_folders=made.tokenizer_folders)
    bundle = build_bundle(made.folder, tmp_path / "bundle", quant="F32", vision="fp32",
                          tokenizer_folders=made.tokenizer_folders)
    policy, layout = Policy(bundle, threads=1), bundle.manifest.layout()
    graphs = {name: str(tmp_path / "onnx" / f"language_{name}.onnx") for name in ("prefill", "decode")}
    sessions = {name: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
                for name, path in graphs.items()}
    x = policy.backbone.prompt(np.append(prompt, layout.mot), pixels)
    pad = width - len(x)
    mask = np.r_[np.zeros(pad, np.int64), np.ones(len(x), np.int64)][None]
    logits, _, *rows = sessions["prefill"].run(None, {
        "inputs_embeds": np.concatenate([np.full((pad, x.shape[1]), 9, np.float32), x])[None], "attention_mask": mask,
        "position_ids": np.maximum(np.cumsum(mask, 1) - 1, 0)})
    names = [entry.name for entry in sessions["decode"].get_inputs() if entry.name.startswith("past")]
    shape = (1, made.variant.kv_heads, cache_length, made.variant.hidden // made.variant.heads)
    cache = {name: np.zeros(shape, np.float32) for name in names}
    used, ids = 0, [pick(layout, logits[0, -1], 0)]
    for slot in range(1, len(layout.slots)):
        for name, new in zip(names, rows, strict=True):
            kept = new[:, :, pad:] if used == 0 else new
            cache[name][:, :, used : used + kept.shape[2]] = kept
        used += kept.shape[2]
        mask = np.r_[np.arange(cache_length) < used, True].astype(np.int64)[None]
        logits, _, *rows = sessions["decode"].run(None, {
            "inputs_embeds": policy.backbone.embed(ids[-1:])[None], "attention_mask": mask,
            "position_ids": np.array([[used]]), **cache})
        ids.append(pick(layout, logits[0, -1], slot))
    np.testing.assert_array_equal(ids, policy.backbone.generate_ids(prompt, pixels, rules="slots")[1:-2])


def test_the_listing_says_what_the_graphs_have(case: Exported) -> None:
    facts = json.loads((case.folder / "graphs.json").read_text())
    assert {f"{path.stem}.onnx" for path in case.folder.glob("*.onnx")} == set(facts["graphs"])
    for name, graph in facts["graphs"].items():
        session = onnxruntime.InferenceSession(str(case.folder / name), providers=["CPUExecutionProvider"])
        for listed, real in ((graph["inputs"], session.get_inputs()), (graph["outputs"], session.get_outputs())):
            assert [(v["name"], v["axes"]) for v in listed] == [(v.name, v.shape) for v in real]
        assert graph["largest_error"] < (1e-4 if name != "motion_encoder.onnx" else 1e-9)


def test_static_graphs_have_no_open_axis_and_share_their_weights(tmp_path: Path) -> None:
    made = make(tmp_path, VARIANTS["robot, an action per token"])
    dynamic, static = tmp_path / "dynamic", tmp_path / "static"
    export_onnx(made.folder, dynamic, tokenizer_folders=made.tokenizer_folders)
    facts = export_onnx(made.folder, static, static=(30, 40), tokenizer_folders=made.tokenizer_folders)
    axes = [axis for graph in facts["graphs"].values() for value in graph["inputs"] + graph["outputs"]
            for axis in value["axes"]]
    assert all(isinstance(axis, int) for axis in axes)
    for name in facts["graphs"]:
        model = onnx.shape_inference.infer_shapes(onnx.load(str(static / name), load_external_data=False))
        inner = {value.name: value.type.tensor_type.shape.dim for value in model.graph.value_info}
        made_by = {value for node in model.graph.node for value in node.output} - set(inner)
        assert made_by == {value.name for value in model.graph.output}, f"{name}: shapes that are not known"
        assert all(dim.HasField("dim_value") for dims in inner.values() for dim in dims), f"{name}: open axes inside"
        assert {node.op_type for node in model.graph.node} <= TENSORRT_READS
    graphs = facts["graphs"]
    assert {"language_prefill.onnx", "language_decode.onnx"} < set(graphs)
    assert all(graphs[name]["largest_error"] < 1e-2 for name in graphs)  # stored in half precision
    sizes = [(folder / "language.onnx.data").stat().st_size for folder in (dynamic, static)]
    assert sizes[0] <= sizes[1] < 1.1 * sizes[0]


def test_int4_weights_are_within_half_a_step() -> None:
    random = np.random.default_rng(4)
    values = random.normal(size=(3 * INT4_BLOCK, 5)).astype(np.float32)
    values[:INT4_BLOCK, 1] = 0
    graph = Graph(int4=True)
    graph.op("Identity", [graph.int4("w", values)], "out")
    model = graph.model("test", [], [("out", np.float32, values.shape)])
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    got = session.run(None, {})[0]
    step = np.abs(values.reshape(3, INT4_BLOCK, 5)).max(1, keepdims=True) / 8
    off = np.abs(got - values).reshape(3, INT4_BLOCK, 5)
    assert (off <= 1.001 * step).all()  # the far end of a block is a whole step away, as in Q4_0
    assert np.mean(off <= 0.501 * step) > 0.95


def test_int4_exports_run(tmp_path: Path) -> None:
    made = make(tmp_path, VARIANTS["larger picture than trained, raw names, bfloat16"])  # 64 wide: whole blocks
    exact = export_onnx(made.folder, tmp_path / "half", layout="trimmed", tokenizer_folders=made.tokenizer_folders)
    facts = export_onnx(made.folder, tmp_path / "int4", language="int4", layout="trimmed",
                        tokenizer_folders=made.tokenizer_folders)
    assert exact["graphs"]["language.onnx"]["largest_error"] < 1e-2
    assert 1e-2 < facts["graphs"]["language.onnx"]["largest_error"] < 1  # random weights exaggerate
    rows = {v["name"]: v["axes"] for v in facts["graphs"]["language.onnx"]["outputs"]}["logits"][-1]
    assert rows == made.token("</mot>") - made.token("<mot>") + 2


def test_the_command_writes_whole_folders_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make(tmp_path, VARIANTS["plain"])
    given = [str(made.folder), "--tokenizer", "+".join(map(str, made.tokenizer_folders)), "--out", str(tmp_path / "o")]
    assert main(["export", *given, "--static", "30,40", "--no-check"]) == 0
    assert "language_decode.onnx" in capsys.readouterr().out
    assert main(["export", *given, "--static", "40,30"]) == FAILED
    assert "a longer cache, got '40,30'" in capsys.readouterr().err
    assert main(["export", *given]) == FAILED
    assert "already exists; --overwrite" in capsys.readouterr().err
    assert main(["export", *given, "--overwrite", "--language", "int4"]) == 0
    assert not (tmp_path / "o" / "language_decode.onnx").exists()
    with pytest.raises(ValueError, match="longer than the picture's 4 tokens, got 3"):
        export_onnx(made.folder, tmp_path / "p", static=(3, 9), tokenizer_folders=made.tokenizer_folders)
    with pytest.raises(BundleError, match="already exists and holds no exported graphs"):
        export_onnx(made.folder, made.folder, overwrite=True)
    assert not (tmp_path / "p").exists()
