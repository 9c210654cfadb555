"""The tiny recorded checkpoints, converted to bundles and compared with the official code's outputs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from beingh0_edge import Bundle, Policy
from beingh0_edge.backbone import Backbone
from beingh0_edge.quantize import build_bundle
from beingh0_edge.quantize.checkpoint import HEAD, Checkpoint
from beingh0_edge.quantize.onnx_graph import Graph
from beingh0_edge.quantize.write_onnx import _VisionGraph

DATA = Path(__file__).parent / "data" / "vla"
GOLDEN = np.load(DATA / "golden.npz")
RUNS = json.loads((DATA / "generation_runs.json").read_text())
MOTION = [DATA / "motion_tokenizer" / part for part in ("wrist", "finger")]

VISION_RTOL = VISION_ATOL = 2e-5  # float32 in another summation order; the recording itself reproduces to about 1e-5
LOGIT_ATOL = 1e-4  # an F32 GGUF with a float32 cache reproduces to about 2e-5
ACTION_ATOL = 1e-4  # as recorded by an independent implementation: 4e-6


def build(folder: Path, out: Path, layout: str = "trimmed", motion: bool = True) -> Bundle:
    return build_bundle(folder, out, layout=layout, quant="F32", vision="fp32",
                        tokenizer_folders=MOTION if motion else None)


def copy_checkpoint(source: str, target: Path) -> Path:
    """A checkpoint folder with the recorded token ids beside it, ready to be altered."""
    shutil.copytree(DATA / source, target)
    shutil.copy(DATA / "ids.json", target / "ids.json")
    return target


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return Backbone(build(DATA / "checkpoint", tmp_path_factory.mktemp("vla") / "bundle"), threads=1)


@pytest.fixture(scope="module")
def free_head(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    """The full vocabulary with the recorded replacement head, which also writes text and closes blocks
    early.
    """
    folder = copy_checkpoint("checkpoint", tmp_path_factory.mktemp("vla") / "free_head")
    weights = raw_weights(folder / "model.safetensors")
    head = raw_weights(DATA / "alt_lm_head.safetensors")
    weights[HEAD] = next(iter(head.values()))
    write_raw(weights, folder / "model.safetensors")
    return Backbone(build(folder, folder.parent / "bundle", layout="full"), threads=1)


def raw_weights(path: Path) -> dict[str, tuple[str, list[int], bytes]]:
    """name -> (dtype, shape, bytes), so that bfloat16 survives."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    return {
        name: (
            e["dtype"],
            e["shape"],
            data[8 + length + e["data_offsets"][0] : 8 + length + e["data_offsets"][1]],
        )
        for name, e in header.items()
    }


def write_raw(weights: dict[str, tuple[str, list[int], bytes]], path: Path) -> None:
    header, at = {}, 0
    for name, (dtype, shape, data) in weights.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(
        len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in weights.values())
    )


def test_visual_embeddings_match(trimmed: Backbone) -> None:
    for image, expected in zip(GOLDEN["pixel_values"], GOLDEN["vit_embeds"], strict=True):
        np.testing.assert_allclose(trimmed.vision.embed(image), expected, atol=VISION_ATOL, rtol=VISION_RTOL)


def test_tower_and_pixel_shuffle_match_inside_the_graph(tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    model = _VisionGraph(Checkpoint(DATA / "checkpoint"), Graph(), half=False, progress=None).build()
    for name in ("tower_output", "pixel_shuffled"):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for i, image in enumerate(GOLDEN["pixel_values"]):
        tower, shuffled = session.run(["tower_output", "pixel_shuffled"], {"pixel_values": image[None]})
        np.testing.assert_allclose(tower[0], GOLDEN["vit_last_hidden"][i], atol=VISION_ATOL, rtol=VISION_RTOL)
        np.testing.assert_allclose(shuffled[0], GOLDEN["pixel_shuffled"][i], atol=VISION_ATOL, rtol=VISION_RTOL)


def test_logits_and_hidden_states_match_on_the_trimmed_rows(trimmed: Backbone) -> None:
    ids, pixels = GOLDEN["fwd_input_ids"], GOLDEN["pixel_values"][:1]
    logits = trimmed.logits(ids, pixels)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(
        logits, GOLDEN["fwd_logits"][0][:, trimmed.vocabulary.ids()], atol=LOGIT_ATOL, rtol=0
    )
    hidden = trimmed.hidden(trimmed.prompt(ids, pixels))
    np.testing.assert_allclose(hidden, GOLDEN["fwd_last_hidden"][0], atol=LOGIT_ATOL, rtol=0)


def test_logits_match_on_the_full_vocabulary(tmp_path: Path) -> None:
    backbone = Backbone(build(DATA / "checkpoint", tmp_path / "bundle", layout="full"), threads=1)
    logits = backbone.logits(GOLDEN["fwd_input_ids"], GOLDEN["pixel_values"][:1])
    np.testing.assert_allclose(logits, GOLDEN["fwd_logits"][0], atol=LOGIT_ATOL, rtol=0)


def generate(backbone: Backbone, run: str, prompt: np.ndarray, image: int) -> np.ndarray:
    settings = RUNS[run]
    return backbone.generate_ids(
        prompt,
        GOLDEN["pixel_values"][image],
        max_blocks=settings["seconds"] * settings["sides"],
        rules="official",
        block_length=settings["fixed_block_length"],
        allow_non_motion=settings["allow_non_motion"],
        max_new_tokens=settings["max_new_tokens"],
    )


@pytest.mark.parametrize("run", [r for r in RUNS if not r.startswith("free_head") and RUNS[r]["batch"] == 1])
def test_greedy_ids_match_on_the_trimmed_rows(trimmed: Backbone, run: str) -> None:
    ids = generate(trimmed, run, GOLDEN["fwd_input_ids"], 0)
    np.testing.assert_array_equal(ids, GOLDEN[f"gen_{run}_ids"][0])


def test_the_defaults_are_the_shipped_switches(trimmed: Backbone) -> None:
    ids = trimmed.generate_ids(
        GOLDEN["fwd_input_ids"], GOLDEN["pixel_values"][0], max_blocks=2, rules="official"
    )
    np.testing.assert_array_equal(ids, GOLDEN["gen_shipped_both_1s_ids"][0])


def test_greedy_ids_match_for_a_left_padded_batch(trimmed: Backbone) -> None:
    run = "unpadded_batch2_leftpad_1s"
    for row, (ids, mask) in enumerate(
        zip(GOLDEN["leftpad_input_ids"], GOLDEN["leftpad_attention_mask"], strict=True)
    ):
        generated = generate(trimmed, run, ids[mask == 1], row)
        np.testing.assert_array_equal(generated, GOLDEN[f"gen_{run}_ids"][row][: len(generated)])
        assert generated[-1] == trimmed.vocabulary.layout.eos


@pytest.mark.parametrize("run", [r for r in RUNS if r.startswith("free_head")])
def test_greedy_ids_match_where_the_model_writes_text_too(free_head: Backbone, run: str) -> None:
    ids = generate(free_head, run, GOLDEN["fwd_input_ids"], 0)
    np.testing.assert_array_equal(ids, GOLDEN[f"gen_{run}_ids"][0])


def test_prefixed_and_raw_names_give_the_same_bundle(tmp_path: Path) -> None:
    plain = raw_weights(DATA / "checkpoint" / "model.safetensors")
    raw_names = {
        "vlm_adapter._vision_model.": "vision_model.",
        "vlm_adapter._language_model.": "language_model.",
        "vlm_adapter.mlp1.": "mlp1.",
    }

    def to_raw(name: str) -> str:
        for official, raw in raw_names.items():
            if name.startswith(official):
                return raw + name.removeprefix(official)
        return name

    hashes = []
    for i, rename in enumerate((str, lambda name: "module." + name, to_raw)):
        folder = copy_checkpoint("checkpoint", tmp_path / f"c{i}")
        write_raw({rename(name): value for name, value in plain.items()}, folder / "model.safetensors")
        bundle = build(folder, tmp_path / f"b{i}")
        # The card and the JSON files state the source, which differs; everything that is computed must not.
        stating = (".json", ".md")
        hashes.append({e.path: e.sha256 for e in bundle.manifest.files if not e.path.endswith(stating)})
    assert hashes[0] == hashes[1] == hashes[2]


@pytest.mark.parametrize("kind", ["action_token", "prop_hidden"])
def test_align_actions_match(tmp_path: Path, kind: str) -> None:
    folder = copy_checkpoint("align_action_token", tmp_path / "checkpoint")
    if kind == "prop_hidden":  # recorded with the other weights of align_action_token
        weights = raw_weights(folder / "model.safetensors")
        weights |= raw_weights(DATA / "align_prop_hidden" / "robot_modules.safetensors")
        write_raw(weights, folder / "model.safetensors")
        shutil.copy(DATA / "align_prop_hidden" / "config.json", folder / "config.json")
    policy = Policy(build(folder, tmp_path / "bundle", motion=False), threads=1)
    ids, proprio = GOLDEN[f"align_{kind}_input_ids"], GOLDEN[f"align_{kind}_proprio"]
    if kind == "prop_hidden":  # without the flag: one chunk, read where the name says
        chunk = policy.act_from_ids(ids, GOLDEN["pixel_values"][:1], proprio)
        assert chunk.shape == (16, 13)
    actions = policy.act_from_ids(
        ids, GOLDEN["pixel_values"][:1], proprio, official_kxk=kind == "prop_hidden"
    )
    np.testing.assert_allclose(actions, GOLDEN[f"align_{kind}_actions"], atol=ACTION_ATOL, rtol=0)
    assert policy.robot is not None
    np.testing.assert_allclose(
        policy.robot.encode(proprio), GOLDEN[f"align_{kind}_proprio_embed"][0], atol=ACTION_ATOL, rtol=0)


@pytest.mark.parametrize("run", ["unpadded_both_1s", "shipped_both_1s"])
def test_answers_are_read_to_the_recorded_codes(trimmed: Backbone, run: str) -> None:
    """The official parser cuts what is too much; here the surplus has to be asked for."""
    codes, ids = GOLDEN[f"gen_{run}_codes_b0"].reshape(-1, 128), GOLDEN[f"gen_{run}_ids"][0]
    hands = RUNS[run]["total_motion_ids"][0] // 128
    blocks = trimmed.vocabulary.layout.blocks(ids, hands, check_slots=False)
    np.testing.assert_array_equal(blocks[: len(codes)], codes)


def test_half_precision_vision_stays_close(tmp_path: Path, trimmed: Backbone) -> None:
    bundle = build_bundle(DATA / "checkpoint", tmp_path / "bundle", quant="F16", vision="fp16",
                          tokenizer_folders=MOTION)
    half = Backbone(bundle, threads=1)
    image = GOLDEN["pixel_values"][0]
    # The recorded weights are bfloat16, which half precision holds exactly except for the smallest.
    np.testing.assert_allclose(half.vision.embed(image), trimmed.vision.embed(image), atol=1e-4, rtol=0)
