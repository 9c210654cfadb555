"""Checkpoints: every way their weights are stored and named, and one error for everything that is wrong
with them.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundle
import torch
from safetensors.numpy import load_file, save_file

from beingh0_edge.errors import BundleError
from beingh0_edge.quantize.checkpoint import EMBEDDING, HEAD, LANGUAGE, PROJECTOR, VISION, Checkpoint
from beingh0_edge.quantize.config import read_config
from beingh0_edge.quantize.tensor_files import SafetensorsFile
from beingh0_edge.quantize.torch_file import TorchFile

Q_PROJ = LANGUAGE + "model.layers.0.self_attn.q_proj.weight"
K_BIAS = LANGUAGE + "model.layers.0.self_attn.k_proj.bias"
NORM = LANGUAGE + "model.norm.weight"


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint to alter."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def weights_of(folder: Path) -> dict[str, np.ndarray]:
    return load_file(str(folder / "model.safetensors"))


def rewrite(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    weights = weights_of(folder)
    change(weights)
    save_file(weights, str(folder / "model.safetensors"))


def reconfigure(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((folder / "config.json").read_text())
    change(data)
    (folder / "config.json").write_text(json.dumps(data))


def same_as(folder: Path, reference: dict[str, np.ndarray]) -> None:
    checkpoint = Checkpoint(folder)
    assert set(checkpoint.names()) == set(reference)
    for name, value in reference.items():
        np.testing.assert_array_equal(checkpoint.tensor(name), value, err_msg=name)


# ------------------------------------------------------------------------------------------- storage


def test_rows_are_read_without_the_rest(folder: Path) -> None:
    checkpoint, whole = Checkpoint(folder), weights_of(folder)[EMBEDDING]
    np.testing.assert_array_equal(checkpoint.rows(EMBEDDING, 3, 9), whole[3:9])
    np.testing.assert_array_equal(checkpoint.rows(EMBEDDING, 0, len(whole)), whole)


def test_shards_and_their_index_are_read(folder: Path) -> None:
    weights = weights_of(folder)
    (folder / "model.safetensors").unlink()
    shards: dict[str, dict[str, np.ndarray]] = {"model-1.safetensors": {}, "model-2.safetensors": {}}
    for i, (name, value) in enumerate(weights.items()):
        shards[f"model-{i % 2 + 1}.safetensors"][name] = value
    for shard, values in shards.items():
        save_file(values, str(folder / shard))
    index = {"weight_map": {name: shard for shard, values in shards.items() for name in values}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    same_as(folder, weights)

    (folder / "model-2.safetensors").unlink()
    with pytest.raises(BundleError, match=r"missing shards next to it: model-2\.safetensors"):
        Checkpoint(folder)
    index["weight_map"][EMBEDDING] = "../elsewhere.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BundleError, match=r"missing shards.*elsewhere"):
        Checkpoint(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("nest", [None, "module", "state_dict"])
def test_torch_pickles_are_read_like_safetensors(folder: Path, dtype: torch.dtype, nest: str | None) -> None:
    tensors = {name: torch.from_numpy(value).to(dtype) for name, value in weights_of(folder).items()}
    (folder / "model.safetensors").unlink()
    torch.save({nest: tensors, "epoch": 3} if nest else tensors, folder / "pytorch_model.bin")
    same_as(folder, {name: value.float().numpy() for name, value in tensors.items()})


def test_views_and_shared_storage_in_a_pickle_come_out_right(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    torch.save({"whole": base, "transposed": base.T, "part": base[1:3, 2:5], "scalar": base[2, 3],
                "parameter": torch.nn.Parameter(base), "none": base[:0]}, tmp_path / "a.bin")
    file = TorchFile(tmp_path / "a.bin")
    np.testing.assert_array_equal(file.read("transposed"), base.numpy().T)
    np.testing.assert_array_equal(file.read("transposed", 2, 5), base.numpy().T[2:5])
    np.testing.assert_array_equal(file.read("part", 1, 2), base.numpy()[2:3, 2:5])
    np.testing.assert_array_equal(file.read("parameter"), base.numpy())
    assert file.read("scalar") == 15
    assert file.read("none").shape == (0, 6)


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("1/0",)


def test_a_malicious_pickle_is_refused_by_name_and_not_run(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": _Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(BundleError, match=r"refused to load .*builtin.*\.eval"):
        Checkpoint(folder)


@pytest.mark.parametrize(
    "data", [b"", b"not a zip", b"PK\x03\x04" + b"\0" * 100], ids=["empty", "text", "stub"]
)
def test_a_foreign_pickle_is_named(folder: Path, data: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(data)
    with pytest.raises(BundleError, match=r"pytorch_model\.bin: not a whole torch zip checkpoint"):
        Checkpoint(folder)


def test_damaged_safetensors_are_named(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for data in (b"", whole[:100], whole[:-1], whole + b"x", b"\xff" * 64):
        path.write_bytes(data)
        with pytest.raises(BundleError, match=r"model\.safetensors: not a whole safetensors file"):
            Checkpoint(folder)


def test_one_weight_file_of_another_name_is_no_doubt(folder: Path) -> None:
    reference = weights_of(folder)
    torch.save({name: torch.from_numpy(value) for name, value in reference.items()}, folder / "step_900.pth")
    (folder / "model.safetensors").unlink()
    same_as(folder, reference)
    shutil.copy(folder / "step_900.pth", folder / "step_800.pth")
    with pytest.raises(BundleError, match=r"no weights; expected .*; found step_800\.pth, step_900\.pth"):
        Checkpoint(folder)


def test_no_folder_no_config_and_no_weights_are_told_apart(folder: Path) -> None:
    with pytest.raises(BundleError, match="no such checkpoint folder"):
        Checkpoint(folder / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BundleError, match="no weights; expected"):
        Checkpoint(folder)
    (folder / "config.json").unlink()
    with pytest.raises(BundleError, match=r"config\.json: missing"):
        Checkpoint(folder)


# -------------------------------------------------------------------------------------------- strictness


def test_everything_wrong_is_listed_in_one_error(folder: Path) -> None:
    def change(weights: dict[str, np.ndarray]) -> None:
        weights["surprise"] = weights.pop(Q_PROJ)
        weights[HEAD] = weights[HEAD][:-1]
        weights[HEAD][-1, 2] = np.nan
        weights[NORM][5] = np.inf
        weights[K_BIAS] = weights[K_BIAS].astype(np.int32)
        del weights[PROJECTOR + "3.bias"]

    rewrite(folder, change)
    with pytest.raises(BundleError) as caught:
        Checkpoint(folder)
    message = str(caught.value)
    assert f"{K_BIAS}: expected floating-point values, got I32" in message
    assert message.count("values that are not finite in") == 2
    for name in (HEAD, NORM):
        assert f"values that are not finite in {name}" in message
    with pytest.raises(BundleError, match="unexpected surprise") as caught:
        Checkpoint(folder, headers_only=True)
    assert "not finite" not in str(caught.value)
    assert "values were not read" in str(caught.value)
    assert f"missing {Q_PROJ} [64, 64]" in message
    assert f"missing {PROJECTOR}3.bias [64]" in message
    assert "unexpected surprise" in message
    assert f"{HEAD}: expected [" in message


def test_every_tensor_that_is_not_finite_is_listed(folder: Path) -> None:
    def change(weights: dict[str, np.ndarray]) -> None:
        weights[Q_PROJ][3, 4] = np.nan
        weights[EMBEDDING][-1, -1] = np.inf

    rewrite(folder, change)
    with pytest.raises(BundleError, match="not finite in") as caught:
        Checkpoint(folder).check_values()
    assert Q_PROJ in str(caught.value)
    assert EMBEDDING in str(caught.value)


def test_a_missing_head_is_only_fine_when_tied(folder: Path) -> None:
    rewrite(folder, lambda weights: weights.pop(HEAD))
    with pytest.raises(BundleError, match=r"missing .*lm_head"):
        Checkpoint(folder)
    reconfigure(folder, lambda c: c["vlm_config"]["llm_config"].update(tie_word_embeddings=True))
    assert Checkpoint(folder).tied


def test_buffers_computed_from_the_config_are_ignored(folder: Path) -> None:
    name = LANGUAGE + "model.layers.0.self_attn.rotary_emb.inv_freq"
    rewrite(folder, lambda weights: weights.update({name: np.ones(8, np.float32)}))
    assert name not in set(Checkpoint(folder).names())


# ----------------------------------------------------------------------------------------------- names


def test_lora_pairs_are_merged(folder: Path) -> None:
    rank, reference = 4, weights_of(folder)
    random = np.random.default_rng(0)
    a, b = (random.normal(size=s).astype(np.float32) for s in ((rank, 64), (64, rank)))

    def wrap(weights: dict[str, np.ndarray]) -> None:
        for name in [name for name in weights if name.startswith(LANGUAGE)]:
            wrapped = name.replace(LANGUAGE, LANGUAGE + "base_model.model.")
            if name == Q_PROJ:
                stem = wrapped.removesuffix(".weight")
                weights |= {
                    f"{stem}.base_layer.weight": weights.pop(name),
                    f"{stem}.lora_A.default.weight": a,
                    f"{stem}.lora_B.default.weight": b,
                }
            else:
                weights[wrapped] = weights.pop(name)

    rewrite(folder, wrap)
    reconfigure(folder, lambda c: c["vlm_config"].update(use_llm_lora=rank))
    merged = Checkpoint(folder)
    assert set(merged.names()) == set(reference)
    # The published code wraps with alpha = 2 * rank.
    np.testing.assert_allclose(merged.tensor(Q_PROJ), reference[Q_PROJ] + 2 * b @ a, atol=1e-6)
    np.testing.assert_allclose(merged.rows(Q_PROJ, 5, 7), (reference[Q_PROJ] + 2 * b @ a)[5:7], atol=1e-6)

    rewrite(folder, lambda weights: [weights.pop(name) for name in list(weights) if "lora_B" in name])
    with pytest.raises(BundleError, match="incomplete LoRA pair"):
        Checkpoint(folder)


@pytest.mark.parametrize("none", [False, None, 0])
def test_a_config_may_say_in_three_ways_that_there_is_no_lora(folder: Path, none: object) -> None:
    reconfigure(folder, lambda c: c["vlm_config"].update(use_llm_lora=none, use_backbone_lora=none))
    assert read_config(folder / "config.json").lora_rank == {"language": 0, "vision": 0}


def test_a_name_that_comes_twice_is_refused(folder: Path) -> None:
    rewrite(folder, lambda weights: weights.update({"module." + Q_PROJ: weights[Q_PROJ]}))
    with pytest.raises(BundleError, match=r"q_proj\.weight comes twice"):
        Checkpoint(folder)


def test_hugging_face_native_names_and_config_are_understood(folder: Path) -> None:
    """Against the model that transformers builds from the same numbers."""
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    reference = weights_of(folder)
    vlm = json.loads((folder / "config.json").read_text())["vlm_config"]
    vision, language = vlm["vision_config"], vlm["llm_config"]
    config = InternVLConfig(
        vision_config={**{k: vision[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers",
                                                 "num_attention_heads", "layer_norm_eps")},
                       "image_size": [56, 56], "patch_size": [14, 14], "attention_bias": True},
        text_config={k: v for k, v in language.items() if k != "rope_theta"} | {
            "rope_parameters": {"rope_theta": language["rope_theta"], "rope_type": "default"}},
        tie_word_embeddings=False)
    model = InternVLForConditionalGeneration(config)
    state = model.state_dict()
    for name, value in reference.items():
        for native, part in native_names(name, value):
            assert state[native].shape == part.shape, native
            state[native] = torch.from_numpy(part)
    model.load_state_dict(state)
    native_folder = folder.parent / "native"
    model.save_pretrained(native_folder)
    same_as(native_folder, reference)


def native_names(name: str, value: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """transformers' names for one published tensor, written out independently of the reader."""
    if name.startswith(LANGUAGE):
        rest = name.removeprefix(LANGUAGE)
        return [
            (
                rest if rest.startswith("lm_head") else "model.language_model." + rest.removeprefix("model."),
                value,
            )
        ]
    if name.startswith(PROJECTOR):
        index, kind = name.removeprefix(PROJECTOR).split(".")
        module = {"0": "layer_norm", "1": "linear_1", "3": "linear_2"}[index]
        return [(f"model.multi_modal_projector.{module}.{kind}", value)]
    rest = name.removeprefix(VISION)
    tower = "model.vision_tower."
    if rest.startswith("embeddings."):
        for old, new in (("class_embedding", "cls_token"), ("position_embedding", "position_embeddings"),
                         ("patch_embedding", "patch_embeddings.projection")):
            if rest.startswith("embeddings." + old):
                return [(tower + rest.replace(old, new), value)]
    layer, module = rest.removeprefix("encoder.layers.").split(".", 1)
    prefix = f"{tower}encoder.layer.{layer}."
    if module.startswith("attn.qkv."):
        kind = module.rsplit(".", 1)[1]
        return [(f"{prefix}attention.{p}_proj.{kind}", part)
                for p, part in zip("qkv", np.split(value, 3), strict=True)]
    table = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.projection_layer",
        "ls1": "lambda_1",
        "ls2": "lambda_2",
    }
    for old, new in table.items():
        if module == old or module.startswith(old + "."):
            return [(prefix + new + module.removeprefix(old), value)]
    return [(prefix + module, value)]


# ---------------------------------------------------------------------------------------------- config


def test_the_older_config_style_means_the_same(folder: Path) -> None:
    new = read_config(folder / "config.json")

    def flatten(config: dict[str, Any]) -> None:
        config |= config.pop("vlm_config")

    reconfigure(folder, flatten)
    assert read_config(folder / "config.json") == new


def test_templates_default_to_the_base_models(folder: Path) -> None:
    reconfigure(folder, lambda c: c["vlm_config"].pop("template"))
    assert read_config(folder / "config.json").template == "internvl2_5"


def test_dynamic_rope_scaling_is_ignored_as_published(folder: Path) -> None:
    before = read_config(folder / "config.json")
    reconfigure(
        folder, lambda c: c["vlm_config"]["llm_config"].update(rope_scaling={"factor": 2, "type": "dynamic"})
    )
    assert read_config(folder / "config.json") == before


@pytest.mark.parametrize(("where", "change", "message"), [
    ("vlm_config", {"ps_version": "v1"}, "ps_version: expected 'v2', got 'v1'"),
    ("vlm_config", {"downsample_ratio": 0.3}, "downsample_ratio 0.3"),
    ("vlm_config", {"force_image_size": 70}, "does not divide the 70 px picture"),
    ("vlm_config", {"select_layer": 7}, "select_layer 7 does not exist"),
    ("vlm_config", {"template": "vicuna"}, "unknown template 'vicuna'; known: being_h0"),
    ("llm_config", {"model_type": "llama"}, "model_type: expected 'qwen2', got 'llama'"),
    ("llm_config", {"hidden_act": "gelu"}, "hidden_act: expected 'silu'"),
    ("llm_config", {"use_sliding_window": True}, "use_sliding_window"),
    ("llm_config", {"head_dim": 20}, "head_dim: Qwen2 has hidden_size 64 over 4 heads in even parts, got 20"),
    ("vision_config", {"norm_type": "batch_norm"}, "norm_type: expected 'layer_norm' or 'rms_norm'"),
    ("vision_config", {"num_attention_heads": 3}, "not a multiple of its 3 heads"),
    ("vision_config", {"image_size": [56, 28]}, "expected a square"),
    ("vision_config", {"patch_size": 0}, "patch_size: expected a whole number from 1"),
    ("vision_config", {"hidden_size": 32.5}, "hidden_size: expected a whole number from 1 to .*, got 32.5"),
    ("vision_config", {"layer_norm_eps": float("nan")}, "layer_norm_eps: expected a number above 0, got nan"),
    ("vision_config", {"qkv_bias": "no"}, "qkv_bias: expected true or false, got 'no'"),
    ("vlm_config", {"downsample_ratio": 0}, "downsample_ratio: expected a number above 0, got 0"),
    ("vlm_config", {"llm_config": []}, r"llm_config: expected an object, got \[\]"),
    ("vlm_config", {"use_llm_lora": -4}, "use_llm_lora: expected a whole number from 0"),
    ("llm_config", {"num_hidden_layers": 10**9}, "num_hidden_layers: expected a whole number from 1 to 1000"),
    ("llm_config", {"num_key_value_heads": 3}, "num_attention_heads: expected a multiple of 3 num_key_value_heads"),
    ("llm_config", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type: expected .*, got 'yarn'"),
])
def test_what_is_not_supported_is_an_error_that_names_the_field(
    folder: Path, where: str, change: dict[str, Any], message: str
) -> None:
    def apply(config: dict[str, Any]) -> None:
        vlm = config["vlm_config"]
        (vlm if where == "vlm_config" else vlm[where]).update(change)

    reconfigure(folder, apply)
    with pytest.raises(BundleError, match=message):
        read_config(folder / "config.json")


def test_a_missing_field_is_named(folder: Path) -> None:
    reconfigure(folder, lambda c: c["vlm_config"]["llm_config"].pop("num_hidden_layers"))
    with pytest.raises(BundleError, match="the field 'num_hidden_layers' is missing"):
        read_config(folder / "config.json")


def test_an_earlier_layer_can_be_selected(folder: Path) -> None:
    reconfigure(folder, lambda c: c["vlm_config"].update(select_layer=-2))
    config = read_config(folder / "config.json")
    assert (config.vision.layers, config.vision.stored_layers) == (1, 2)
    Checkpoint(folder)


def test_bfloat16_bytes_become_the_float_they_mean(tmp_path: Path) -> None:
    import safetensors.torch

    value = torch.randn(5, 7).to(torch.bfloat16)
    safetensors.torch.save_file({"a": value}, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(
        SafetensorsFile(tmp_path / "a.safetensors").read("a"), value.float().numpy()
    )


def test_the_tiny_checkpoint_is_what_it_says(tiny_checkpoint: Path) -> None:
    weights = tiny_bundle.make_weights(tiny_checkpoint)
    same_as(tiny_checkpoint, weights)
