"""The procedural world tells the truth: what is drawn, what is said and what moves agree."""

import json

import numpy as np
import pytest

from beingh0_edge import _kernels, preprocess
from beingh0_edge.train import procedural as world
from beingh0_edge.train.procedural import dataset
from beingh0_edge.train.procedural.hands import MIRROR, orientation
from beingh0_edge.train.procedural.world import COLOUR_RGB

SCENES = range(12)
REACH_M = 0.01         # the promise: the grasp point ends within a centimetre of the object's centre
FLOAT32 = 1e-5
FLOAT16_M = 2e-3       # finger features are stored as float16


def scene(index: int, **fixed) -> world.Scene:
    return world.make_scene(world.Split.TRAIN, 3, index, **fixed)


def start_poses(s: world.Scene):
    return [world.start_pose(h) for h in s.hands]


def test_the_same_index_gives_the_same_bytes_and_another_gives_another_picture():
    first, again, other = (world.render_canonical(s, start_poses(s), 64) for s in (scene(1), scene(1), scene(2)))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


def test_training_and_held_out_scenes_come_from_different_streams():
    a, b = scene(0), world.make_scene(world.Split.HELD_OUT, 3, 0)
    assert a.objects[0].xy_m != b.objects[0].xy_m


def test_objects_differ_in_kind_and_colour_and_keep_their_distance():
    for i in SCENES:
        s = scene(i)
        assert len({t.kind for t in s.objects}) == len({t.colour for t in s.objects}) == 3
        xy = np.array([t.xy_m for t in s.objects])
        gaps = np.linalg.norm(xy[:, None] - xy[None], axis=-1)[np.triu_indices(3, 1)]
        assert gaps.min() >= 0.09


@pytest.mark.parametrize("hands", ["right", "left"])
def test_the_grasp_point_of_a_pick_ends_at_the_object(hands):
    for i in SCENES:
        s = scene(i, visible=hands)
        for task in world.make_tasks(s, verb="pick"):
            motion = world.motions(s, task)[hands]
            point = motion.rotation[14] @ world.grasp_point_m(hands) + motion.wrist_m[14]
            assert np.linalg.norm(point - s.objects[task.target].centre_m) < REACH_M


def test_all_tasks_of_a_scene_start_alike_and_only_the_target_differs():
    for i in SCENES:
        s = scene(i)
        tasks = world.make_tasks(s)
        assert [t.target for t in tasks] == [0, 1, 2]
        assert len({(t.verb, t.hands) for t in tasks}) == 1
        for task in tasks:
            for side, motion in world.motions(s, task).items():
                begin = next(world.start_pose(h) for h in s.hands if h.side == side)
                assert np.linalg.norm(motion.wrist_m[0] - begin.wrist_m) < 0.03


def test_motion_is_smooth_across_seconds():
    for i in SCENES:
        s = scene(i)
        for motion in world.motions(s, world.make_tasks(s)[0]).values():
            steps = np.linalg.norm(np.diff(motion.wrist_m, axis=0), axis=1)
            assert steps.max() < 0.08  # 1.2 m/s: a reach, not a jump
            turns = np.einsum("tij,tkj->tik", motion.rotation[1:], motion.rotation[:-1])
            angles = np.arccos(np.clip((np.trace(turns, axis1=1, axis2=2) - 1) / 2, -1, 1))
            assert angles.max() < 0.5


def test_wrist_orientations_are_rotations_and_the_left_hand_mirrors_the_right():
    right, left = orientation("right", 0.3, 0.5, 0.9), orientation("left", 0.3, 0.5, 0.9)
    np.testing.assert_allclose(right @ right.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(right) == pytest.approx(1)
    np.testing.assert_allclose(left, MIRROR @ right @ MIRROR)
    np.testing.assert_allclose(orientation("right", 0, 0, 0) @ [-1, 0, 0], [0, 1, 0], atol=1e-12)  # fingers away
    np.testing.assert_allclose(orientation("right", 0, 0, np.pi / 2) @ [0, -1, 0], [0, 0, -1], atol=1e-12)  # palm down


def test_features_are_the_forward_kinematics_of_the_camera_frame_pose():
    s = scene(5, visible="both")
    task = world.make_tasks(s, hands="both")[1]
    wrist, finger, present = world.features(s, task)
    assert present.all()
    for i, (side, motion) in enumerate(sorted(world.motions(s, task).items())):
        rotation, position = world.to_camera(s, motion)
        pose = np.tile(np.eye(3), (45, 16, 1, 1))
        pose[:, 0] = rotation
        turns = _kernels.axis_angle_to_matrix(motion.theta_rad.reshape(-1, 3).astype(np.float32)).reshape(45, 15, 3, 3)
        pose[:, 1:] = turns
        joints = world.model(side).forward_rotmats(pose, s.betas, position).joints
        got = finger[i].reshape(45, 150)[:, 90:].reshape(45, 20, 3) + wrist[i].reshape(45, 9)[:, None, 6:]
        np.testing.assert_allclose(got, joints[:, 1:], atol=FLOAT32)
        sixes = finger[i].reshape(45, 150)[:, :90].reshape(45, 15, 3, 2)
        np.testing.assert_allclose(sixes, turns[..., :2], atol=FLOAT32)


def test_an_object_is_drawn_where_it_is_said_to_be_in_its_colour():
    hits = total = 0
    for i in range(30):
        s = scene(i)
        image = world.render_canonical(s, [], 448)  # without hands nothing but objects can hide an object
        for thing in s.objects:
            top = thing.centre_m if thing.kind == "ball" else np.array([*thing.xy_m, 0.75 * thing.height_m])
            if thing.kind == "bottle":
                top = thing.centre_m
            u, v = world.project(world.CANONICAL_CAMERA, s.to_camera(top)).astype(int)
            pixel = image[v, u] / 255
            distance = np.linalg.norm(COLOUR_RGB / np.linalg.norm(COLOUR_RGB, axis=1, keepdims=True)
                                      - pixel / max(np.linalg.norm(pixel), 1e-6), axis=1)
            chromatic = thing.colour < 6  # white and black differ in brightness, not in hue
            if chromatic:
                total += 1
                hits += int(distance[:6].argmin() == thing.colour)
    assert total > 50
    assert hits / total > 0.95  # a nearer object may cover a few


def test_the_canonical_picture_is_the_warped_photo():
    s = scene(4)
    raw = s.raw_camera
    photo = world.render_photo(s, start_poses(s))
    assert photo.shape == (raw.height, raw.width, 3)
    warped = preprocess.motion_frame(photo, (raw.fx, raw.fy, raw.cx, raw.cy), camera=world.CANONICAL_CAMERA, size=168)
    direct = world.render_canonical(s, start_poses(s), 168)
    difference = np.abs(warped.astype(float) - direct).mean(-1)
    assert np.median(difference) < 4      # grey levels: noise of two renderings
    assert (difference > 40).mean() < 0.03  # edges only


@pytest.mark.parametrize("verb", world.VERBS)
def test_every_verb_names_its_object_and_can_be_performed(verb):
    named = 0
    for i in SCENES:
        s = scene(i, visible="right")
        for task in world.make_tasks(s, verb=verb):
            thing = s.objects[task.target]
            named += thing.kind in task.text or world.COLOURS[thing.colour] in task.text
            assert task.verb == verb or (verb == "place" and s.plate is None)
            motion = world.motions(s, task)["right"]
            assert np.isfinite(motion.wrist_m).all()
    assert named == 3 * len(SCENES)


def test_a_push_moves_the_hand_along_its_direction():
    for i in SCENES:
        s = scene(i, visible="left")
        for task in world.make_tasks(s, verb="push"):
            motion = world.motions(s, task)["left"]
            moved = motion.wrist_m[29] - motion.wrist_m[14]
            np.testing.assert_allclose(moved, [*(0.1 * np.array(world.DIRECTIONS[task.direction])), 0], atol=1e-6)


def test_a_hand_that_is_not_in_the_picture_cannot_act():
    s = scene(0, visible="right")
    with pytest.raises(ValueError, match="left hand is not in the picture"):
        world.motions(s, world.Task("pick", "left", 0, "pick up the can"))


def test_a_data_set_is_written_whole_resumes_and_refuses_another_recipe(tmp_path):
    folder = world.write_dataset(tmp_path / "d", 5, 1, workers=1, size=28)
    images = np.load(folder / "images.npy")
    assert images.shape == (5, 28, 28, 3)
    assert all(image.any() for image in images)
    texts = [json.loads(line)["text"] for line in (folder / "text.jsonl").read_text().splitlines()]
    assert len(texts) == 15
    s = world.make_scene(world.Split.TRAIN, 1, 3)
    task = world.make_tasks(s)[2]
    assert texts[3 * 3 + 2] == task.text
    wrist, finger, present = world.features(s, task)
    np.testing.assert_array_equal(np.load(folder / "wrist.npy")[11], wrist)
    np.testing.assert_allclose(np.load(folder / "finger.npy")[11], finger, atol=FLOAT16_M)
    np.testing.assert_array_equal(np.load(folder / "present.npy")[11], present)
    assert world.write_dataset(tmp_path / "d", 5, 1, workers=1, size=28) == folder  # nothing to do
    with pytest.raises(ValueError, match="another data set"):
        world.write_dataset(tmp_path / "d", 6, 1, workers=1, size=28)


def test_an_interrupted_data_set_goes_on_where_it_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "SHARD", 2)
    whole = world.write_dataset(tmp_path / "whole", 5, 1, workers=1, size=28)
    write, calls = dataset._write_rows, []

    def interrupted(*job):
        calls.append(job[3])
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(*job)

    monkeypatch.setattr(dataset, "_write_rows", interrupted)
    with pytest.raises(KeyboardInterrupt):
        world.write_dataset(tmp_path / "d", 5, 1, workers=1, size=28)
    assert not (tmp_path / "d").exists()
    world.write_dataset(tmp_path / "d", 5, 1, workers=1, size=28)
    assert calls == [0, 2, 2, 4]
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == sorted(p.name for p in whole.iterdir())
    for path in whole.iterdir():
        assert path.read_bytes() == (tmp_path / "d" / path.name).read_bytes(), path.name


def test_two_workers_write_what_one_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "SHARD", 2)
    for workers in (1, 2):
        world.write_dataset(tmp_path / str(workers), 3, 1, workers=workers, size=28)
    for path in (tmp_path / "1").iterdir():
        assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes(), path.name


def test_other_files_are_never_replaced_by_a_data_set(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds other files"):
        world.write_dataset(tmp_path / "d", 5, 1, workers=1, size=28)
    (tmp_path / "e.partial").mkdir()
    (tmp_path / "e.partial" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"holds other files \(notes.txt\)"):
        world.write_dataset(tmp_path / "e", 5, 1, workers=1, size=28)
    with pytest.raises(ValueError, match="scenes: expected a whole number from 1 on, got 0"):
        world.write_dataset(tmp_path / "f", 0, 1)
