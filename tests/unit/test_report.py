"""What a conversion cost: the figures, the report in the bundle, and two bundles side by side."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_bundle
from PIL import Image

from beingh0_edge import Bundle, Policy
from beingh0_edge.cli import FAILED, main
from beingh0_edge.quantize import Sample, add_report, build_bundle
from beingh0_edge.quantize.checkpoint import Checkpoint
from beingh0_edge.quantize.measure import Errors, Original, measure, slot_errors
from beingh0_edge.quantize.report import (
    TensorFact,
    answer_rows,
    bytes_per_token,
    compare_bundles,
    read_report,
    tensor_facts,
)
from beingh0_edge.quantize.verify import random_samples
from beingh0_edge.tokens import Slot

DATA = Path(__file__).parents[1] / "golden" / "data" / "vla"
MOTION = [DATA / "motion_tokenizer" / part for part in ("wrist", "finger")]
EXACT_ATOL = 1e-4  # float32 in another order: the recorded checkpoint reproduces to about 2e-5
PARTS = ["vision tower", "vision and projector", "text embeddings", "logits", "motion decoder"]


def recorded() -> list[Sample]:
    golden = np.load(DATA / "golden.npz")
    return [Sample(golden["fwd_input_ids"][0], golden["pixel_values"][0])]


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(DATA / "checkpoint", tmp_path_factory.mktemp("exact") / "bundle", quant="F32", vision="fp32",
                        tokenizer_folders=MOTION)


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """With its report, on the recorded question."""
    bundle = build_bundle(DATA / "checkpoint", tmp_path_factory.mktemp("coarse") / "bundle", quant="Q4_K_M",
                          tokenizer_folders=MOTION, motion="fp16")
    return add_report(DATA / "checkpoint", bundle, recorded(), "the recorded question", tokenizer_folders=MOTION,
                      threads=1)


def test_an_exact_bundle_costs_nothing(exact: Bundle) -> None:
    policy = Policy.load(exact, threads=1)
    truth = np.zeros((15, 21, 3), np.float32)
    samples = [replace(recorded()[0], true_joints_cam_m=truth)]
    got = measure(Original(policy, Checkpoint(DATA / "checkpoint")), policy, samples)
    assert list(got.parts) == PARTS
    for part, errors in got.parts.items():
        assert errors.max_abs < EXACT_ATOL, part
        assert errors.mean_abs <= errors.max_abs
        assert errors.cosine == pytest.approx(1, abs=1e-6)
    assert (got.agreement, got.same_ids, got.mpjpe_mm, got.mpjpe_worst_mm) == (1, 1, 0, 0)
    assert got.kl == pytest.approx(0, abs=1e-8)
    ids = policy.backbone.generate_ids(samples[0].input_ids, samples[0].pixels)
    joints = policy.decode_block(policy.bundle.manifest.layout().blocks(ids, 1)[0], "right").keypoints_cam_m
    distance = 1000 * np.linalg.norm(joints, axis=-1).mean()  # the truth is the camera itself
    assert got.true_mm == pytest.approx((distance, distance), rel=1e-5)
    policy.close()


def test_a_report_lies_in_the_bundle_and_belongs_to_it(coarse: Bundle) -> None:
    opened = Bundle.open(coarse.root)
    opened.verify()
    assert {"report.json", "report.md", "report.png"} < {entry.path for entry in opened.manifest.files}
    facts = read_report(opened)
    assert facts is not None
    assert (facts["quant"], facts["vision"], facts["motion"]) == ("Q4_K_M", "fp16", "fp16")
    assert facts["total_bytes"] == sum(facts["files"].values())
    got = facts["measured"]
    assert list(got["parts"]) == PARTS
    assert got["parts"].pop("text embeddings")["max_abs"] == 0  # the recorded bfloat16 values fit float16
    for part in got["parts"]:  # everything else is stored with less precision here
        assert 0 < got["parts"][part]["mean_abs"] < got["parts"][part]["max_abs"], part
    assert got["kl"] > 0
    assert len(got["kl_of_slots"]) == 128  # ids of a block
    assert np.mean(got["kl_of_slots"]) == pytest.approx(got["kl"])
    with Image.open(opened.path("report.png")) as plot:
        assert len(np.unique(np.asarray(plot.convert("L")))) > 10  # something is drawn
    assert [path.name for path in coarse.root.parent.iterdir()] == ["bundle"]  # the exact one is gone


def test_the_text_says_what_the_figures_say(coarse: Bundle) -> None:
    facts, text = read_report(coarse), coarse.path("report.md").read_text()
    assert facts is not None
    for part, errors in facts["measured"]["parts"].items():
        assert f"| {part} | {errors['max_abs']:.3g} |" in text
    for what, figure in answer_rows(facts["measured"]):
        assert f"| {what} | {figure} |" in text
    assert "1 samples: the recorded question" in text
    assert "Q6_K | F16 (fallback)" in text  # rows of 48
    assert "Q6_K | Q8_0 (fallback)" in text  # rows of 96
    assert str(coarse.root.parent) not in text + coarse.path("report.json").read_text()


def test_a_second_report_replaces_the_first(coarse: Bundle, tmp_path: Path) -> None:
    again = add_report(DATA / "checkpoint", coarse, recorded() * 2, "twice", tokenizer_folders=MOTION, threads=1)
    facts = read_report(again)
    assert facts is not None
    assert (facts["samples_are"], facts["measured"]["samples"]) == ("twice", 2)
    assert "report.md" not in facts["files"]
    Bundle.open(coarse.root).verify()
    add_report(DATA / "checkpoint", again, recorded(), "the recorded question", tokenizer_folders=MOTION, threads=1)


def test_wrong_motion_weights_show_in_millimetres(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A bundle of another checkpoint with the same vocabulary answers something else, and the report says so."""
    other = build_bundle(tiny_bundle.make_checkpoint(tmp_path / "other", seed=1), tmp_path / "bundle", quant="F16")
    got = read_report(add_report(tiny_checkpoint, other, random_samples(other, 1), "noise", threads=1))
    assert got is not None
    assert got["measured"]["agreement"] < 0.5
    assert got["measured"]["mpjpe_mm"] > 1
    assert got["measured"]["mpjpe_worst_mm"] == got["measured"]["mpjpe_mm"]  # one sample
    assert got["measured"]["true_mm"] is None


def test_robot_mode_is_measured(tmp_path: Path) -> None:
    checkpoint = tiny_bundle.make_checkpoint(tmp_path / "robot", robot=True)
    bundle = build_bundle(checkpoint, tmp_path / "bundle", quant="Q4_0")
    got = read_report(add_report(checkpoint, bundle, random_samples(bundle, 1), "noise", threads=1))
    assert got is not None
    actions = got["measured"]["parts"]["robot actions"]
    assert 0 < actions["max_abs"] < 1
    assert actions["cosine"] > 0.9
    text = bundle.path("report.md").read_text()
    assert f"| robot actions, largest error | {actions['max_abs']:.3g} |" in text


def test_a_model_without_motion_tokenizer_is_measured_on_what_it_has(tmp_path: Path) -> None:
    bundle = build_bundle(DATA / "checkpoint", tmp_path / "bundle", quant="F16")
    got = read_report(add_report(DATA / "checkpoint", bundle, recorded(), "the recorded question", threads=1))
    assert got is not None
    assert "logits" in got["measured"]["parts"]
    assert got["measured"]["mpjpe_mm"] is None
    assert "| greedy ids that are equal | not measured |" in bundle.path("report.md").read_text()


# --------------------------------------------------------------------------------------------- figures


def test_errors_are_over_all_samples() -> None:
    a, b = np.array([1.0, 2.0], np.float32), np.array([[4.0]], np.float32)
    errors = Errors.of([(a, a + np.float32(0.5)), (b, b - 2)])
    assert (errors.max_abs, errors.mean_abs) == (2, 1)
    assert errors.cosine == pytest.approx((1.5 + 5 + 8) / np.sqrt(21 * (2.25 + 6.25 + 4)))
    assert Errors.of([(a, 0 * a)]).cosine is None


def test_slots_are_judged_within_their_range() -> None:
    slots = [Slot("wrist", 0, 0, 0, 0, 1), Slot("finger", 0, 0, 0, 2, 3)]
    exact = np.array([[9, 1, 0, 5, 5], [9, 8, 8, 0, 1]], np.float32)  # column 0 is <mot>
    got = np.array([[0, 1, 0, 7, 9], [0, 9, 9, 1, 0]], np.float32)
    same, kl = slot_errors(exact, got, slots, 1)
    assert same == [True, False]
    p = 1 / (1 + np.exp(1))
    assert kl == pytest.approx([0, (1 - p) * np.log((1 - p) / p) + p * np.log(p / (1 - p))])


def test_tensors_are_listed_as_they_are(coarse: Bundle, tiny_checkpoint: Path, tmp_path: Path) -> None:
    facts = {fact.name: fact for fact in tensor_facts(coarse)}
    assert facts["output.weight"] == TensorFact("output.weight", "Q6_K", "F16", 2 * 48 * coarse.manifest.language.rows)
    total = sum(fact.bytes for fact in facts.values())
    assert bytes_per_token(coarse) == total - (coarse.manifest.language.rows - 1) * 48 * 2
    overridden = build_bundle(tiny_checkpoint, tmp_path / "b", quant="Q4_0", overrides={"output.*": "F16"})
    assert {fact.name: fact for fact in tensor_facts(overridden)}["output.weight"].wanted == "F16"


# ------------------------------------------------------------------------------------------- two bundles


def test_two_bundles_are_compared_without_the_checkpoint(exact: Bundle, coarse: Bundle) -> None:
    same = compare_bundles(exact, exact, recorded(), threads=1)
    assert same.agreement == 1
    assert same.mpjpe_mm == 0
    assert all(errors.max_abs == 0 for errors in same.parts.values())
    other = compare_bundles(exact, coarse, recorded(), threads=1)
    assert list(other.parts) == PARTS[1:]
    assert other.parts["logits"].max_abs > 0


def test_the_command_puts_two_bundles_side_by_side(exact: Bundle, coarse: Bundle,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "compare", str(exact.root), str(coarse.root), "--samples", "1"]) == 0
    said = capsys.readouterr().out
    lines = {line.split("  ")[0]: line.split() for line in said.splitlines() if line}
    assert lines["quant"][-2:] == ["F32", "Q4_K_M"]
    assert lines["report: KL divergence per id, nats"][-3:-1] == ["no", "report"]
    assert "noise and random ids" in said  # the recorded checkpoint has no text tokenizer
    assert main(["bundle", "compare", str(exact.root), str(coarse.root), "--samples", "1", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["reports"][0] is None
    assert facts["reports"][1]["measured"]["samples"] == 1
    assert facts["b_against_a"]["parts"]["logits"]["max_abs"] > 0


def test_bundles_of_different_models_are_refused_in_one_line(exact: Bundle, tiny: Bundle,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "compare", str(exact.root), str(tiny.root)]) == FAILED
    said = capsys.readouterr().err
    assert "are no versions of one model: token ids" in said
    assert len(said.splitlines()) == 1


def test_convert_measures_on_drawn_scenes(tiny_checkpoint: Path, tmp_path: Path,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bundle"
    assert main(["convert", str(tiny_checkpoint), "--quant", "Q4_0", "--report", "1", "--out", str(out)]) == 0
    facts = read_report(Bundle.open(out))
    assert facts is not None
    assert facts["samples_are"].startswith("drawn scenes")
    said = capsys.readouterr()
    assert f"{facts['measured']['kl']:.3g}" in said.out
    assert "measuring" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
