"""`beingh0 convert`: flags, dry run, hub ids, model card, one line per error, nothing half-written."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

import beingh0_edge
from beingh0_edge import Bundle, Policy, hub
from beingh0_edge.cli import FAILED, INTERRUPTED, main
from beingh0_edge.cli.convert import Meter
from beingh0_edge.errors import BackendError, BundleError
from beingh0_edge.quantize import Choices, plan_bundle
from beingh0_edge.quantize.checkpoint import EMBEDDING, HEAD

GOLDEN = Path(__file__).parents[1] / "golden" / "data" / "vla"
TOKENIZER = "+".join(str(GOLDEN / "motion_tokenizer" / part) for part in ("wrist", "finger"))
HANDS = Path(beingh0_edge.__file__).parent / "assets" / "hands"
INT8_COSINE = 0.99  # random weights of this size: 0.9998
HEADER_SHARE = 0.1  # of a tiny bundle's file may be headers and graph, which a plan does not count


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


def fails_with_one_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["convert", *arguments]) == FAILED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    return captured.err.removeprefix("beingh0: ").strip()


def test_the_recorded_checkpoint_converts_with_every_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bundle"
    assert main(["convert", str(GOLDEN / "checkpoint"), "--tokenizer", TOKENIZER,
                 "--mano-left", str(HANDS / "synthetic_left.npz"), "--mano-right", str(HANDS / "synthetic_right.npz"),
                 "--layout", "full", "--quant", "F32", "--vision", "fp32", "--report", "0", "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    policy = Policy.load(out, threads=1)
    golden = np.load(GOLDEN / "golden.npz")
    logits = policy.backbone.logits(golden["fwd_input_ids"], golden["pixel_values"][:1])
    np.testing.assert_allclose(logits, golden["fwd_logits"][0], atol=1e-4, rtol=0)  # float32 in another order
    policy.close()
    assert policy.bundle.manifest.hands["left"].label == "synthetic, not MANO"


def test_a_dry_run_lists_sizes_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(GOLDEN / "checkpoint"), "--tokenizer", TOKENIZER, "--quant", "Q8_0",
                 "--out", str(tmp_path / "bundle"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    for name in ("model.safetensors", "wrist/net_best_mpjpe.safetensors", "language.gguf", "vision.onnx",
                 "14 F16, 11 F32, 2 Q8_0", "nothing was written"):
        assert name in said  # rows of 48 do not fit blocks of 32, those of 96 do
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("quant", "vision"), [("F32", "fp32"), ("Q4_0", "fp16")])
def test_a_plan_foresees_the_sizes(tiny_checkpoint: Path, tmp_path: Path, quant: str, vision: str) -> None:
    choices = Choices("full", quant, vision, "fp32", None, None, {})  # type: ignore[arg-type]
    plan = plan_bundle(tiny_checkpoint, choices)
    bundle = beingh0_edge.quantize.build_bundle(tiny_checkpoint, tmp_path / "b", layout="full", quant=quant,
                                                vision=vision)
    assert plan.types == bundle.inspect()["language"]["tensor_types"]
    sizes = {entry.path: entry.size for entry in bundle.manifest.files}
    for name, planned in plan.writes.items():
        real = sum(size for path, size in sizes.items() if path == name or path.startswith(f"{name}/"))
        assert planned <= real
        assert real - planned < HEADER_SHARE * real + 25_000, name


def test_the_bundle_has_a_card_that_names_its_sources(tiny: Bundle, tiny_checkpoint: Path) -> None:
    tiny.verify()
    assert "README.md" in {entry.path for entry in tiny.manifest.files}
    text = tiny.path("README.md").read_text()
    assert "# tiny, as an edge bundle" in text
    assert "asked for Q8_0: 16 Q8_0, 11 F32 tensors" in text
    assert "synthetic, not MANO" in text
    digest = hashlib.sha256((tiny_checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert f"| model.safetensors | `{digest}` |" in text
    assert str(tiny.root.parent) not in text


@pytest.mark.parametrize("precision", ["int8", "int8_dynamic"])
def test_8_bit_vision_is_close(tiny_checkpoint: Path, tmp_path: Path, precision: str) -> None:
    """"int8" is calibrated on drawn pictures, as of those that the report asks about."""
    assert main(["convert", str(tiny_checkpoint), "--vision", precision, "--report", "1",
                 "--out", str(tmp_path / "bundle")]) == 0
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.manifest.vision.precision == precision
    errors = json.loads(bundle.path("report.json").read_text())["measured"]["parts"]["vision and projector"]
    assert INT8_COSINE < errors["cosine"] < 0.999999  # it is quantized, and still close
    graph = onnx.load(str(bundle.path("vision.onnx"))).graph
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer
               if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2]
    assert len(weights) == 2 * 4 + 2  # qkv, proj, fc1, fc2 of two layers, and the projector's two
    assert all(np.abs(weight.astype(int)).max() == 64 for weight in weights)  # 7 bits, for AVX2 without VNNI


def test_int8_vision_without_pictures_is_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs pictures to calibrate on"):
        beingh0_edge.quantize.build_bundle(tiny_checkpoint, tmp_path / "bundle", vision="int8")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------- refusals


def test_wrong_options_are_one_line(tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "bundle")]
    given = str(tiny_checkpoint)
    assert "got 'Q9'" in fails_with_one_line(capsys, given, *out, "--quant", "Q9")
    assert "got 'half'" in fails_with_one_line(capsys, given, *out, "--layout", "half")
    assert "got 'fp64'" in fails_with_one_line(capsys, given, *out, "--vision", "fp64")
    assert "expected WRIST+FINGER" in fails_with_one_line(capsys, given, *out, "--tokenizer", "wrist+")
    assert "no such motion tokenizer folder" in fails_with_one_line(
        capsys, given, *out, "--tokenizer", f"{tmp_path}/a+{tmp_path}/b")
    assert "no such hand model" in fails_with_one_line(capsys, given, *out, "--mano-left", f"{tmp_path}/none.pkl")
    assert "--report: expected a whole number from 0 on, got -1" in fails_with_one_line(
        capsys, given, *out, "--report", "-1")
    assert "no such checkpoint folder" in fails_with_one_line(capsys, f"{tmp_path}/none", *out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]], ids=["for real", "dry"])
def test_all_that_is_wrong_with_the_weights_is_one_line(folder: Path, tmp_path: Path, dry_run: list[str],
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    weights = load_file(str(folder / "model.safetensors"))
    weights["odd.weight"] = weights.pop(HEAD)[:3]
    weights[EMBEDDING][7, 7] = np.nan
    save_file(weights, str(folder / "model.safetensors"))
    said = fails_with_one_line(capsys, str(folder), "--out", str(tmp_path / "bundle"), *dry_run)
    assert f"missing {HEAD}" in said
    assert "unexpected odd.weight" in said
    assert ("values were not read" if dry_run else f"values that are not finite in {EMBEDDING}") in said
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_bundle_is_only_replaced_when_told(tiny_checkpoint: Path, tmp_path: Path,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(tiny_checkpoint), "--out", str(tmp_path / "bundle"), "--report", "0", "--quant"]
    assert main(["convert", *arguments, "F16"]) == 0
    capsys.readouterr()
    assert "already exists; --overwrite" in fails_with_one_line(capsys, *arguments, "Q8_0")
    assert main(["convert", *arguments, "Q8_0", "--overwrite"]) == 0
    assert Bundle.open(tmp_path / "bundle").manifest.language.quant == "Q8_0"


def test_too_little_space_is_said_before_anything_is_written(tiny_checkpoint: Path, tmp_path: Path,
                                                             capsys: pytest.CaptureFixture[str],
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1234))
    said = fails_with_one_line(capsys, str(tiny_checkpoint), "--out", str(tmp_path / "deep" / "bundle"))
    assert "only 1.2 kB are free there" in said
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_conversion_leaves_nothing(tiny_checkpoint: Path, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Meter, done: int, total: int, what: str) -> None:
        if what.startswith("vision"):
            raise KeyboardInterrupt

    monkeypatch.setattr(Meter, "__call__", interrupt)
    assert main(["convert", str(tiny_checkpoint), "--out", str(tmp_path / "bundle")]) == INTERRUPTED
    assert list(tmp_path.iterdir()) == []


def test_progress_says_share_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter()
    meter(1, 4_000_000, "checking a")
    assert capsys.readouterr().err == ""  # not a line per tensor
    meter(4_000_000, 4_000_000, "checking z")
    meter(2, 2, "vision layer 1")
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("100%")
    assert "B/s  0 s left  checking z" in first
    assert "B/s" not in second
    assert "0 s left  vision layer 1" in second


# ------------------------------------------------------------------------------------------------ hub


@pytest.fixture
def far_hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """A hub with one checkpoint and one tokenizer model, in place of the library."""
    shutil.move(folder / "motion", tmp_path / "grq")
    models = {"Org/Model-1B": folder, "Org/GRVQ": tmp_path / "grq"}

    def snapshot_download(repo: str, revision: str | None, allow_patterns: list[str]) -> str:
        if repo not in models or revision == "gone":
            raise OSError(f"404 for {repo}\nRequest ID: 1")
        return str(models[repo])

    class HfApi:
        def model_info(self, repo: str, revision: str | None, files_metadata: bool) -> types.SimpleNamespace:
            root = Path(snapshot_download(repo, revision, []))
            return types.SimpleNamespace(siblings=[
                types.SimpleNamespace(rfilename=path.relative_to(root).as_posix(), size=path.stat().st_size)
                for path in sorted(root.rglob("*")) if path.is_file()])

    library = types.ModuleType("huggingface_hub")
    library.snapshot_download, library.HfApi = snapshot_download, HfApi  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    monkeypatch.chdir(tmp_path)
    return models


def test_hub_ids_convert_and_are_named_in_the_manifest(far_hub: dict[str, Path], tmp_path: Path,
                                                       capsys: pytest.CaptureFixture[str]) -> None:
    (far_hub["Org/Model-1B"] / "edge.json").unlink()
    arguments = ["convert", "Org/Model-1B", "--tokenizer", "Org/GRVQ/wrist+Org/GRVQ/finger", "--out", "bundle",
                 "--report", "0"]
    assert main([*arguments, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "Org/Model-1B/model.safetensors" in said
    assert "Org/GRVQ/finger/motion_args.json" in said
    assert not Path("bundle").exists()
    assert main(arguments) == 0
    manifest = Bundle.open("bundle").manifest
    assert (manifest.name, manifest.provenance["checkpoint"]) == ("Org/Model-1B", "Org/Model-1B")


def test_policies_load_by_hub_id(far_hub: dict[str, Path], tiny: Bundle) -> None:
    far_hub["Org/Bundle"] = tiny.root
    policy = Policy.load("Org/Bundle", threads=1)
    assert policy.bundle.manifest == tiny.manifest
    policy.close()


def test_an_unknown_hub_id_is_one_line(far_hub: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for given in ("Org/None", "Org/Model-1B@gone"):
        said = fails_with_one_line(capsys, given, "--out", "bundle")
        assert said.startswith(f"{given}: no such folder, and the Hugging Face hub does not give it (404 for Org/")
        assert "Request ID" not in said
    with pytest.raises(BundleError, match="has no folder thumb"):
        hub.local_folder("Org/GRVQ/thumb")


def test_a_hub_id_without_the_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BackendError, match=r"Org/Model: no such folder; .* pip install 'beingh0-edge\[hub\]'"):
        hub.local_folder("Org/Model")


@pytest.mark.parametrize("given", ["/models/a", "./org/name", "../org/name", "name", "runs/mistyped", "org/../x", ""])
def test_local_paths_never_go_to_the_hub(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert not hub.is_hub_id(given)
    assert hub.local_folder(given) == Path(given)


def test_the_cards_front_matter_is_what_the_hub_reads(tiny: Bundle) -> None:
    _, front, _ = tiny.path("README.md").read_text().split("---\n", 2)
    fields = dict(line.split(": ", 1) for line in front.strip().splitlines())
    assert fields == {"license": "other", "library_name": "beingh0-edge", "pipeline_tag": "robotics",
                      "tags": "[being-h0, gguf, onnx]"}
    assert json.loads((tiny.root / "manifest.json").read_text())["licence"].startswith("as the checkpoint")
