"""A bundle is opened only if every byte of it is what the manifest says."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beingh0_edge import Bundle
from beingh0_edge.bundle import MANIFEST, describe_files, sha256_of
from beingh0_edge.errors import BundleError
from beingh0_edge.gguf_header import read_gguf_header


@pytest.fixture
def root(tiny: Bundle, tmp_path: Path) -> Path:
    """A copy of the tiny bundle to damage."""
    return Path(shutil.copytree(tiny.root, tmp_path / "bundle"))


def edit(root: Path, change: Any) -> None:
    """Applies `change` to the manifest's data."""
    data = json.loads((root / MANIFEST).read_text())
    change(data)
    (root / MANIFEST).write_text(json.dumps(data))


def relist(root: Path) -> None:
    """Makes the manifest agree with altered files, as a forger would."""
    edit(root, lambda data: data.update(files=[vars(entry) for entry in describe_files(root)]))


def refused(root: Path, message: str, path: str | None = None) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(root)
    assert "\n" not in str(caught.value)
    if path is not None:
        assert caught.value.path == str(root / path)


def test_a_whole_bundle_opens_and_verifies(tiny: Bundle) -> None:
    bundle = Bundle.open(tiny.root)
    assert bundle.manifest == tiny.manifest
    bundle.verify()


def test_the_manifest_survives_json(tiny: Bundle) -> None:
    assert json.loads(tiny.manifest.to_json())["tokens"]["motion_ids"] == tiny.manifest.tokens.motion_ids


def test_no_directory_and_no_manifest_are_told_apart(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", r"no such bundle directory \(packaged bundles: nano\)")
    refused(tmp_path, "manifest.json: missing")


LISTED = ["language.gguf", "text_embeddings.npy", "vision.onnx", "tokenizer.json",
          "motion/wrist/net_best_mpjpe.safetensors", "motion/finger/motion_meta.json", "hands/left.npz"]


@pytest.mark.parametrize("name", LISTED)
def test_a_missing_file_is_named(root: Path, name: str) -> None:
    (root / name).unlink()
    refused(root, f"{name}: missing; expected a file of", name)


@pytest.mark.parametrize("name", LISTED)
def test_a_truncated_file_is_named(root: Path, name: str) -> None:
    path = root / name
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2])
    refused(root, f"{name}: expected {size} bytes, got {size // 2}", name)


@pytest.mark.parametrize("name", LISTED)
def test_one_flipped_bit_is_noticed(root: Path, name: str) -> None:
    path = root / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refused(root, f"{name}: expected sha256 .*, got {sha256_of(path)}", name)


def test_another_revision_is_refused(root: Path) -> None:
    edit(root, lambda data: data.update(revision=99))
    refused(root, "expected revision 1, got 99", MANIFEST)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]", '{"format": "other"}', "\xff\xfe", '{"format": NaN}'])
def test_a_foreign_manifest_is_refused(root: Path, text: str) -> None:
    (root / MANIFEST).write_text(text, encoding="latin-1")
    refused(root, "manifest.json: (not valid JSON|expected format)", MANIFEST)


@pytest.mark.parametrize(("keys", "value", "message"), [
    (("language", "rows"), "68", r"language\.rows: expected int, got '68'"),
    (("language", "layout"), "half", r"language\.layout: expected 'trimmed' or 'full', got 'half'"),
    (("max_seconds",), True, "max_seconds: expected int, got True"),
    (("max_seconds",), 0, "max_seconds: expected at least 1, got 0"),
    (("tokens", "motion_ids"), 63, "room for 64 motion ids, got 63"),
    (("language", "layers"), 10**9, r"language\.layers: expected 1 to 1000, got 1000000000"),
    (("motion", "parts"), [], "2 folders for 0 parts"),
    (("hands", "left", "betas"), [0.0], "with 10 betas"),
    (("embeddings", "hidden"), 63, r"embeddings\.hidden: expected 64, got 63"),
    (("preprocess", "camera", "fx"), -1.0, "expected finite fx, fy > 0"),
    (("preprocess", "camera", "fx"), None, r"preprocess\.camera\.fx: expected float, got None"),
    (("vision",), 3, "vision: expected an object"),
    (("surprise",), 1, "unknown 'surprise'"),
    (("vision", "file"), "tower.onnx", "'tower.onnx' is used but not listed"),
])
def test_a_manifest_that_does_not_fit_says_where(root: Path, keys: tuple[str, ...], value: object,
                                                 message: str) -> None:
    def change(data: dict[str, Any]) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    edit(root, change)
    refused(root, message, MANIFEST)


def test_a_missing_field_is_named(root: Path) -> None:
    edit(root, lambda data: data["language"].pop("heads"))
    refused(root, "language: missing 'heads'", MANIFEST)


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "a/../../secret", "a\\b", "", "."])
def test_paths_may_not_leave_the_bundle(root: Path, path: str) -> None:
    edit(root, lambda data: data["files"].append({"path": path, "size": 1, "sha256": "0" * 64}))
    refused(root, "leaves the bundle", MANIFEST)


def test_a_link_out_of_the_bundle_is_refused(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.onnx"
    shutil.move(root / "vision.onnx", outside)
    (root / "vision.onnx").symlink_to(outside)
    refused(root, "'vision.onnx' leaves the bundle", MANIFEST)


def test_values_that_are_not_finite_are_refused_even_when_listed(root: Path) -> None:
    table = np.load(root / "text_embeddings.npy")
    table[5, 3] = np.nan
    np.save(root / "text_embeddings.npy", table)
    relist(root)
    refused(root, "not finite near row 0", "text_embeddings.npy")


def test_a_table_of_another_shape_or_with_pickles_is_refused(root: Path) -> None:
    np.save(root / "text_embeddings.npy", np.zeros((3, 64), np.float16))
    relist(root)
    refused(root, r"expected float16\[\d+, 64\], got float16\[3, 64\]", "text_embeddings.npy")
    np.save(root / "text_embeddings.npy", np.array([{"a": 1}]), allow_pickle=True)
    relist(root)
    refused(root, "not a .npy table", "text_embeddings.npy")
    for content in (np.zeros((3, 64), np.float16), None):
        with (root / "text_embeddings.npy").open("wb") as file:
            np.savez(file, table=content) if content is not None else file.write(b"PK\x03\x04")
        relist(root)
        refused(root, "not a .npy table", "text_embeddings.npy")


def test_a_language_model_of_another_geometry_is_refused(root: Path) -> None:
    edit(root, lambda data: data["language"].update(mlp=256, layers=3))
    refused(
        root,
        r"missing blk\.2\.attn_norm\.weight.*ffn_gate\.weight is \[128, 64\] instead of \[256, 64\]",
        "language.gguf",
    )


@pytest.mark.parametrize("key", ["qwen2.attention.head_count_kv", "qwen2.rope.freq_base", "qwen2.block_count"])
def test_a_language_model_whose_header_says_otherwise_is_refused(root: Path, key: str) -> None:
    """llama.cpp aborts the process for some such numbers, and computes something else for others."""
    path = root / "language.gguf"
    data = bytearray(path.read_bytes())
    data[data.index(key.encode()) + len(key) + 4] ^= 7
    path.write_bytes(bytes(data))
    relist(root)
    refused(root, f"it does not fit the manifest: {re.escape(key)} is", "language.gguf")


@pytest.mark.parametrize("data", [b"", b"GGUF", b"GGUF" + b"\xff" * 40, b"PK\x03\x04" + b"\0" * 60],
                         ids=["empty", "magic-only", "insane-counts", "zip"])
def test_a_foreign_language_model_is_refused(root: Path, data: bytes) -> None:
    (root / "language.gguf").write_bytes(data)
    relist(root)
    refused(root, "not a GGUF version 3 file", "language.gguf")


def test_verify_finds_files_that_do_not_belong(root: Path) -> None:
    (root / "motion" / "extra.bin").write_bytes(b"x")
    Bundle.open(root)
    with pytest.raises(BundleError, match=r"extra\.bin: not a file of this bundle"):
        Bundle.open(root).verify()


def test_inspect_tells_what_the_tensors_really_are(tiny: Bundle) -> None:
    facts = tiny.inspect()
    assert facts["language"]["tensor_types"] == {"Q8_0": 16, "F32": 11}
    assert facts["total_bytes"] == sum(path.stat().st_size for path in tiny.root.rglob("*")
                                       if path.is_file() and path.name != MANIFEST)


def test_the_gguf_header_reads_what_was_written(tiny: Bundle) -> None:
    header = read_gguf_header(tiny.root / "language.gguf")
    assert header.shapes == tiny.manifest.language.tensor_shapes()
    assert header.metadata["general.architecture"] == "qwen2"
    assert header.metadata["qwen2.attention.head_count_kv"] == 2
