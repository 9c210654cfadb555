"""A damaged copy of each file that a conversion reads ends in one error that names it, and leaves nothing behind."""

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundle
import torch
from safetensors.numpy import load_file, save_file

import beingh0_edge
from beingh0_edge.errors import BundleError
from beingh0_edge.hand_model import SHAPES
from beingh0_edge.quantize import build_bundle

HANDS = Path(beingh0_edge.__file__).parent / "assets" / "hands"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "edge.json", "motion/wrist/motion_args.json",
         "motion/wrist/motion_meta.json", "motion/wrist/meta_mask.json", "motion/wrist/net_best_mpjpe.safetensors",
         "motion/finger/net_best_mpjpe.pth", "MANO_RIGHT.pkl", "left.npz")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A robot-mode checkpoint with a pickled finger tokenizer and both kinds of hand file."""
    folder = tiny_bundle.make_checkpoint(tmp_path_factory.mktemp("whole") / "checkpoint", robot=True)
    path = folder / "motion" / "finger" / "net_best_mpjpe.safetensors"
    tensors = {name: torch.from_numpy(value) for name, value in load_file(str(path)).items()}
    torch.save({"net": tensors}, path.with_suffix(".pth"))
    path.unlink()
    with np.load(HANDS / "synthetic_right.npz") as arrays:
        (folder / "MANO_RIGHT.pkl").write_bytes(pickle.dumps({k: arrays[k] for k in SHAPES}, protocol=2))
    shutil.copy(HANDS / "synthetic_left.npz", folder / "left.npz")
    return folder


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "checkpoint"))


def refusal(folder: Path) -> str:
    """What the one error says; nothing may be left behind."""
    with pytest.raises(BundleError) as caught:
        build_bundle(folder, folder.parent / "bundle", quant="F16",
                     hands={"left": folder / "left.npz", "right": folder / "MANO_RIGHT.pkl"})
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]
    return str(caught.value)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"", "half": lambda data: data[: len(data) // 2], "without its last byte": lambda d: d[:-1],
    "zeros": lambda data: bytes(len(data)), "its first byte flipped": lambda data: flipped(data, 0)}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    assert str(path) in refusal(folder)


@pytest.mark.parametrize(("at", "value"), [(6, 99), (8, 1), (8, 0x20), (10, 99)],
                         ids=["version", "encrypted", "patched", "method"])
@pytest.mark.parametrize("name", ["motion/finger/net_best_mpjpe.pth", "left.npz"])
def test_an_archive_of_an_unknown_kind_is_named(folder: Path, name: str, at: int, value: int) -> None:
    path = folder / name
    data, entry = bytearray(path.read_bytes()), b"PK\x01\x02"
    for i in range(len(data)):
        if data[i : i + 4] == entry:
            data[i + at] = value
    path.write_bytes(bytes(data))
    assert str(path) in refusal(folder)


def test_an_array_with_a_header_of_no_language_is_named(folder: Path) -> None:
    path = folder / "left.npz"
    with np.load(path) as arrays:
        contents = {name: arrays[name] for name in arrays.files}
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in contents.items():
            buffer = io.BytesIO()
            np.save(buffer, value)
            archive.writestr(f"{name}.npy", buffer.getvalue().replace(b"False, ", b"(False,"))
    assert str(path) in refusal(folder)


def test_a_flipped_bit_among_pickled_values_fails_its_checksum(folder: Path) -> None:
    """safetensors has no checksums, torch's archives do."""
    path = folder / "motion" / "finger" / "net_best_mpjpe.pth"
    data = path.read_bytes()
    value = load_pickled(path)["model.decoder.model.0.weight"].numpy().tobytes()
    path.write_bytes(flipped(data, data.index(value) + 5))
    said = refusal(folder)
    assert str(path) in said
    assert "checksum" in said


def load_pickled(path: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(path, weights_only=True)["net"])


def with_nan(weights: dict[str, Any], name: str) -> None:
    weights[name] = weights[name].copy()
    weights[name].reshape(-1)[3] = np.nan


@pytest.mark.parametrize(("change", "said"), [
    (lambda w, n: w.pop(n), "missing"), (lambda w, n: w.update(surprise=w[n]), "surprise"),
    (lambda w, n: w.update({n: w[n][..., :-1].copy()}), "expected"), (with_nan, "not finite")],
    ids=["missing", "extra", "misshapen", "NaN"])
@pytest.mark.parametrize(("file", "tensor"), [
    ("model.safetensors", "vlm_adapter._vision_model.encoder.layers.1.mlp.fc1.weight"),
    ("model.safetensors", "vlm_adapter._language_model.model.layers.0.self_attn.k_proj.bias"),
    ("model.safetensors", "action_decoder.2.weight"),
    ("motion/wrist/net_best_mpjpe.safetensors", "model.decoder.model.2.2.weight"),
    ("motion/wrist/net_best_mpjpe.safetensors", "model.quantizer.rvqs.1.layers.3._codebook.embed")])
def test_a_wrong_tensor_is_named(folder: Path, file: str, tensor: str, change: Callable[[Any, str], None],
                                 said: str) -> None:
    weights = load_file(str(folder / file))
    change(weights, tensor)
    save_file(weights, str(folder / file))
    message = refusal(folder)
    assert said in message
    assert ("surprise" if said == "surprise" else tensor) in message
    assert str(folder) in message


def test_folders_in_the_wrong_order_are_refused_where_the_config_tells_the_order(folder: Path) -> None:
    args = [json.loads((folder / "motion" / part / "motion_args.json").read_text()) for part in ("wrist", "finger")]
    config = json.loads((folder / "config.json").read_text()) | {"motion_config": args}
    (folder / "config.json").write_text(json.dumps(config))
    folders = [folder / "motion" / part for part in ("finger", "wrist")]
    with pytest.raises(BundleError, match=r"in the order of config\.json, wrist \+ finger, got finger \+ wrist"):
        build_bundle(folder, folder.parent / "bundle", tokenizer_folders=folders)
    assert [path.name for path in folder.parent.iterdir()] == ["checkpoint"]


def test_names_and_statistics_of_a_robot_reach_the_manifest(folder: Path) -> None:
    names = {"state_names": list("abcde"), "action_names": ["x", "y", "z"],
             "norm_stats": {"action": {"mean": [0, 1, 2]}}}
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | names))
    robot = build_bundle(folder, folder.parent / "bundle").manifest.robot
    assert robot is not None
    assert (robot.state_names, robot.action_names, robot.statistics) == (tuple("abcde"), ("x", "y", "z"),
                                                                         names["norm_stats"])
    (folder / "config.json").write_text(json.dumps(config | {"action_names": ["x"]}))
    with pytest.raises(BundleError, match=r"config\.json: action_names: expected 3 texts"):
        build_bundle(folder, folder.parent / "other")
