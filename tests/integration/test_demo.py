"""Demo and infer from picture to files: model, motion, retargeting, bridge, pseudo-terminal, drawing.

A random bundle goes through the same code as a trained one; what only a trained one can do is asked of nano.
"""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from beingh0_edge.cli import FAILED, main
from beingh0_edge.cli.demo import DemoScene
from beingh0_edge.cli.video import count_frames

ROOT = Path(__file__).parents[2]
DEMO_FILES = {"hand.npz", "input.png", "joints.png", "motion.json", "motion.npz", "overlay.mp4", "overlay.png",
              "report.json"}
STEP_RAD = 2e-3  # the hand counts 1000 steps over at most 1.5 rad


@pytest.fixture
def scene_file(tmp_path) -> Path:
    path = tmp_path / "desk.png"
    Image.fromarray(DemoScene.load().observation.image_rgb).save(path)
    return path


def test_the_demo_runs_from_picture_to_pseudo_terminal_with_any_bundle(tiny, tmp_path, capsys):
    out = tmp_path / "demo"
    assert main(["demo", "--bundle", str(tiny.root), "--out", str(out)]) == 0
    assert {path.name for path in out.iterdir()} == DEMO_FILES
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]
    scene, report = DemoScene.load(), json.loads((out / "report.json").read_text())
    assert report["scene"]["instruction"] == scene.observation.instruction
    assert report["ids"] == 128
    with np.load(out / "hand.npz", allow_pickle=False) as arrays:
        assert arrays["target_q_rad"].shape == (15, 6)
        # the simulated hand ends where the bridge's last command put it
        np.testing.assert_allclose(arrays["q_rad"][-1], arrays["q_cmd_rad"][-1], atol=STEP_RAD)
        assert np.ptp(arrays["q_rad"], axis=0).max() > 0.1
    with np.load(out / "motion.npz", allow_pickle=False) as arrays:
        assert arrays["right_keypoints_cam_m"].shape == (15, 21, 3)
    assert count_frames(out / "overlay.mp4") == 15
    np.testing.assert_array_equal(
        cv2.cvtColor(cv2.imread(str(out / "input.png")), cv2.COLOR_BGR2RGB), scene.observation.image_rgb)
    printed = capsys.readouterr().out
    for word in (scene.observation.instruction, "closes", "hand rests", "bridge", str(out)):
        assert word in printed


def test_a_demo_that_fails_half_way_leaves_nothing(tiny, tmp_path, capsys, monkeypatch):
    from beingh0_edge.errors import TransportError

    def lost(*arguments: object) -> None:
        raise TransportError("the port was lost")

    monkeypatch.setattr("beingh0_edge.cli.demo.draw_motion", lost)
    assert main(["demo", "--bundle", str(tiny.root), "--out", str(tmp_path / "demo")]) == FAILED
    assert capsys.readouterr().err.splitlines()[-1] == "beingh0: the port was lost"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("hands", "sides"), [("left", ["left"]), ("both", ["left", "right"])])
def test_infer_writes_motion_and_pictures_of_the_hands_asked_for(hands, sides, tiny, scene_file, tmp_path):
    out = tmp_path / "out"
    assert main(["infer", str(tiny.root), "--image", str(scene_file), "--task", "pick up the yellow can",
                 "--hands", hands, "--seconds", "2", "--greedy", "--out", str(out)]) == 0
    facts = json.loads((out / "motion.json").read_text())
    assert facts["hands"] == sides
    assert [(chunk["side"], chunk["start_s"]) for chunk in facts["chunks"]] == [
        (side, second) for second in (0.0, 1.0) for side in sides]
    with np.load(out / "motion.npz", allow_pickle=False) as arrays:
        for side in sides:
            assert arrays[f"{side}_cam_from_wrist"].shape == (30, 4, 4)
            assert arrays[f"{side}_keypoints_cam_m"].dtype == np.float32
    assert count_frames(out / "overlay.mp4") == 30
    with Image.open(out / "overlay.png") as strip:
        assert strip.width > 3 * strip.height


def test_infer_with_a_seed_is_repeatable_and_another_seed_is_another_motion(tiny, scene_file, tmp_path):
    def ids(seed: str, name: str) -> np.ndarray:
        assert main(["infer", str(tiny.root), "--image", str(scene_file), "--task", "wave", "--seed", seed,
                     "--out", str(tmp_path / name)]) == 0
        with np.load(tmp_path / name / "motion.npz", allow_pickle=False) as arrays:
            return arrays["right_ids"]

    first = ids("3", "a")
    np.testing.assert_array_equal(first, ids("3", "b"))
    assert (first != ids("4", "c")).any()


def test_infer_refuses_more_seconds_than_the_bundle_was_trained_for(tiny, scene_file, tmp_path, capsys, caplog):
    assert main(["infer", str(tiny.root), "--image", str(scene_file), "--task", "wave", "--seconds", "1000",
                 "--out", str(tmp_path / "out")]) == FAILED
    assert capsys.readouterr().err == "beingh0: seconds: expected a whole number from 1 to 3, got 1000\n"
    assert caplog.records == []  # before anything was loaded
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [(1600, 16), (16, 1600)])
def test_a_narrow_picture_has_a_drawing_too(size, tiny, tmp_path):
    picture = tmp_path / "narrow.png"
    Image.new("RGB", size, "grey").save(picture)
    assert main(["infer", str(tiny.root), "--image", str(picture), "--task", "wave", "--out", str(tmp_path)]) == 0
    with Image.open(tmp_path / "overlay.png") as strip:
        assert max(strip.size) < 8000


def test_bundle_verify_and_inspect_describe_a_good_bundle(tiny, capsys):
    assert main(["bundle", "verify", str(tiny.root)]) == 0
    assert "all as the manifest says" in capsys.readouterr().out
    assert main(["bundle", "inspect", str(tiny.root)]) == 0
    assert "synthetic, not MANO" in capsys.readouterr().out
    assert main(["bundle", "inspect", str(tiny.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == tiny.manifest.name


def readme_python() -> str:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]


def test_the_python_example_of_the_readme_runs(scene_file, monkeypatch):
    monkeypatch.chdir(scene_file.parent)
    exec(compile(readme_python(), "README.md", "exec"), {})


def test_the_example_program_moves_the_simulated_hand(scene_file, capsys):
    program = runpy.run_path(str(ROOT / "examples" / "image_to_hand.py"))
    program["main"](str(scene_file), "pick up the yellow can")
    assert capsys.readouterr().out.splitlines()[-1].startswith("thumb_rotation")


def test_the_bundled_model_passes_the_checks_of_the_demo(tmp_path):
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    runpy.run_path(str(ROOT / ".ci" / "check_demo.py"))["check"](tmp_path / "demo")


def test_the_packaged_scene_is_the_one_its_recipe_draws(tmp_path):
    from beingh0_edge.train import demo_scene

    assert demo_scene.write(tmp_path) == DemoScene.load().facts
