"""The evaluation's own honesty: what a perfect, a deaf and a random answer must score."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from beingh0_edge.cli import main
from beingh0_edge.train import evaluate_nano, procedural
from beingh0_edge.train.evaluate_nano import MAIN, ROWS, SEED, Row, Split
from beingh0_edge.train.metrics import mpjpe_mm
from beingh0_edge.types import HandMotion, MotionChunk, Observation

EPISODES = 4
FLOAT32_MM = 0.01  # motions travel as float32 metres of about 1: 6e-5 mm, and a hand model in between


class Oracle:
    """Answers with the true motion of the task it is asked for; a deaf one always with the first question's."""

    def __init__(self, row: Row, deaf: bool = False) -> None:
        self.row, self.deaf, self._last = row, deaf, ""
        self._scenes = evaluate_nano.scenes_with(row, Split.HELD_OUT, SEED)
        self._picture: np.ndarray | None = None

    def stream(self, observation: Observation, seconds: int, hands: str, *, greedy: bool) -> Iterator[MotionChunk]:
        assert (seconds, hands, greedy) == (1, self.row.hands, True)
        text = observation.instruction
        if observation.image_rgb is not self._picture:
            self._picture = observation.image_rgb
            self.scene, self.tasks = next(self._scenes)
            self.first = text
        asked = self.first if self.deaf else text
        task = next(task for task in self.tasks if task.text == asked)
        for side, motion in procedural.motions(self.scene, task).items():
            rotation, position = procedural.to_camera(self.scene, motion)
            pose = np.tile(np.eye(4, dtype=np.float32), (15, 1, 1))
            pose[:, :3, :3], pose[:, :3, 3] = rotation[:15], position[:15]
            theta = motion.theta_rad[:15]
            keypoints = procedural.model(side).forward(
                np.concatenate([np.zeros((15, 3)), theta], axis=1), self.scene.betas).joints
            fingers = theta.reshape(15, 15, 3).astype(np.float32)
            betas = self.scene.betas.astype(np.float32)
            yield MotionChunk(HandMotion(side, pose, fingers, betas, 1 / 15), keypoints, 0.0, np.zeros(0, np.int32))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.verb}-{row.hands}")
def test_a_perfect_answer_scores_perfectly_and_follows_the_other_words_away(row):
    result = evaluate_nano.measure(Oracle(row), row, EPISODES, lambda done: None, baseline_scenes=10)
    assert (result.nearest.rate, result.reach.rate, result.shuffled.rate) == (1.0, 1.0, 0.0)
    assert result.mpjpe_mm < FLOAT32_MM
    assert result.baseline_mpjpe_mm > 20
    assert result.scenes == EPISODES


def test_an_answer_deaf_to_the_words_scores_the_same_with_other_words():
    result = evaluate_nano.measure(Oracle(MAIN, deaf=True), MAIN, EPISODES, lambda done: None, baseline_scenes=10)
    assert result.shuffled.rate == result.nearest.rate == 1.0


def test_a_pick_ends_with_the_grasp_point_in_the_named_object():
    for scene, tasks in itertools.islice(evaluate_nano.scenes_with(MAIN, Split.HELD_OUT, SEED), 5):
        case = evaluate_nano.episode(MAIN, scene, tasks, target=1)
        centres = scene.to_camera(np.array([thing.centre_m for thing in scene.objects]))
        np.testing.assert_allclose(case.true_ends_m[:, 0], centres, atol=1e-9)
        assert scene.objects[1].kind in case.observation.instruction or "one" in case.observation.instruction


def test_the_scenes_differ_from_those_of_training_and_its_probes():
    def layout(split: Split, seed: int) -> tuple[float, float]:
        scene, _ = next(evaluate_nano.scenes_with(MAIN, split, seed))
        return scene.objects[0].xy_m

    assert len({layout(Split.HELD_OUT, SEED), layout(Split.HELD_OUT, 0), layout(Split.TRAIN, 0),
                layout(Split.TRAIN, SEED)}) == 4


def test_every_placing_scene_has_a_plate():
    scenes = itertools.islice(evaluate_nano.scenes_with(Row("place", "right"), Split.HELD_OUT, SEED), 10)
    assert all(scene.plate is not None and "plate" in tasks[0].text for scene, tasks in scenes)


def test_no_constant_answer_beats_the_mean_motion_on_its_own_scenes_in_squared_error():
    mean = evaluate_nano.mean_motion(MAIN, scenes=5)
    true = [evaluate_nano.joints_cam_m(scene, procedural.motions(scene, task)["right"])
            for scene, tasks in itertools.islice(evaluate_nano.scenes_with(MAIN, Split.TRAIN, 0), 5)
            for task in tasks]
    np.testing.assert_allclose(mean[0], np.mean(true, axis=0), atol=1e-9)
    assert mpjpe_mm(mean[0], np.mean(true, axis=0)) < 1e-6


def test_the_command_measures_a_random_bundle_and_writes_its_figures(tiny, tmp_path, capsys):
    import json

    target = tmp_path / "figures.json"
    assert main(["eval", "nano", "--episodes", "2", "--bundle", str(tiny.root), "--main-only",
                 "--json", str(target)]) == 0
    figures = json.loads(target.read_text())
    assert figures["episodes"] == figures["main"]["scenes"] == 2
    assert figures["rows"] == [figures["main"]]
    assert figures["main"]["mpjpe_ratio"] > 1  # random weights cannot beat the mean motion
    table = capsys.readouterr().out
    assert table.startswith("| task | hands | scenes | nearest")
    assert evaluate_nano.markdown([evaluate_nano.Result.of(figures["main"])]) == table.rstrip("\n")
