"""`beingh0 train nano` from nothing to a bundle that answers, with sizes that take seconds."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from beingh0_edge import Observation, Policy  # noqa: E402
from beingh0_edge.train.nano import STAGES, NanoRecipe, NanoRun, of_length  # noqa: E402


def small() -> NanoRecipe:
    recipe = NanoRecipe(scenes=6, held_out_scenes=2, vit_layers=1, layers=1, max_seconds=1)
    return replace(
        recipe, wrist=replace(recipe.wrist, steps=2, batch=8), finger=replace(recipe.finger, steps=2, batch=8),
        vision=replace(recipe.vision, pictures=4, batch_pictures=2),
        language=replace(recipe.language, pictures=6, batch_pictures=2, seconds_odds=(1.0,)),
        joint=replace(recipe.joint, pictures=4, batch_pictures=2, seconds_odds=(1.0,)))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nano")
    NanoRun(folder / "run", small(), workers=1, device="cpu").run(folder / "bundle")
    return folder


@pytest.mark.timeout(600)
def test_a_run_ends_in_a_bundle_that_answers(run):
    policy = Policy.load(run / "bundle")
    picture = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    chunk, = policy.stream(Observation(picture, "pick up the red can"), 1, "right", greedy=True)
    assert chunk.keypoints_cam_m.shape == (15, 21, 3)
    assert np.isfinite(chunk.keypoints_cam_m).all()
    stages = policy.bundle.manifest.provenance["stages"]
    assert list(stages) == list(STAGES)
    assert [stages[name]["pictures"] for name in STAGES] == [4, 6, 4]


def test_a_finished_run_is_not_trained_again(run):
    before = {name: (run / "run" / f"{name}.pt").stat().st_mtime_ns for name in STAGES}
    NanoRun(run / "run", small(), workers=1, device="cpu").stage("joint")
    assert {name: (run / "run" / f"{name}.pt").stat().st_mtime_ns for name in STAGES} == before


def test_another_recipe_in_the_same_folder_is_refused_and_named(run):
    with pytest.raises(ValueError, match=r"language.code_weight: 1.0 -> 2.0"):
        NanoRun(run / "run", replace(small(), language=replace(small().language, code_weight=2.0)))


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="device: expected one that torch has here, got 'tpu'"):
        NanoRun(tmp_path / "run", small(), device="tpu")
    assert list(tmp_path.iterdir()) == []


def test_a_run_handed_to_a_process_does_not_write_its_recipe_again(tmp_path):
    run = NanoRun(tmp_path / "run", small(), device="cpu")
    recipe = tmp_path / "run" / "recipe.json"
    recipe.unlink()  # two processes that write the same file come into each other's way
    assert pickle.loads(pickle.dumps(run)).recipe == run.recipe
    assert not recipe.exists()


def test_a_longer_run_keeps_the_shares_of_the_stages():
    recipe = NanoRecipe()
    longer = of_length(recipe, 3 * sum(getattr(recipe, name).pictures for name in STAGES))
    for name in STAGES:
        assert getattr(longer, name).pictures == 3 * getattr(recipe, name).pictures
