"""The whole path on a random bundle: what comes out, in which order, and what is refused."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy_reference as reference
import pytest
import tiny_bundle

from beingh0_edge import Bundle, Observation, Policy, features
from beingh0_edge.errors import BackendError, BundleError, TokenError
from beingh0_edge.quantize import build_bundle

IMAGE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
ROTATION_ATOL = 1e-5  # float32 orthonormalisation


@pytest.fixture(scope="module")
def policy(tiny: Bundle) -> Iterator[Policy]:
    loaded = Policy.load(tiny.root, threads=1)
    yield loaded
    loaded.close()


def observation(**changes: Any) -> Observation:
    fields: dict[str, Any] = {"image_rgb": IMAGE, "instruction": "pick up the red can"}
    return Observation(**(fields | changes))


def test_chunks_come_second_by_second_left_before_right(policy: Policy) -> None:
    chunks = list(policy.stream(observation(), seconds=2, hands="both"))
    assert [(chunk.side, chunk.start_s) for chunk in chunks] == [
        ("left", 0.0), ("right", 0.0), ("left", 1.0), ("right", 1.0)]


def test_a_chunk_is_whole_and_consistent(policy: Policy) -> None:
    chunk = next(policy.stream(observation(), hands="left"))
    layout = policy.bundle.manifest.layout()
    assert chunk.ids.shape == (layout.ids_per_block,)
    assert chunk.ids.dtype == np.int32
    assert chunk.keypoints_wrist_m.shape == (15, 21, 3)
    assert chunk.motion.finger_rotvec_rad.shape == (15, 15, 3)
    assert chunk.dt_s == 1 / 15
    rotation = chunk.motion.cam_from_wrist[:, :3, :3]
    np.testing.assert_allclose(rotation @ rotation.transpose(0, 2, 1), np.tile(np.eye(3), (15, 1, 1)),
                               atol=ROTATION_ATOL)
    np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=ROTATION_ATOL)
    np.testing.assert_allclose(chunk.keypoints_wrist_m[:, 0], 0, atol=1e-6)
    np.testing.assert_allclose(chunk.keypoints_cam_m[:, 0], chunk.motion.cam_from_wrist[:, :3, 3], atol=1e-6)


def test_keypoints_agree_with_the_hand_model_in_the_camera_frame(policy: Policy) -> None:
    """Wrist-frame keypoints moved by cam_from_wrist equal forward kinematics with the wrist rotation in the
    pose.
    """
    chunk = next(policy.stream(observation()))
    rotations = np.concatenate([chunk.motion.cam_from_wrist[:, None, :3, :3],
                                reference.axis_angle_to_matrix(chunk.motion.finger_rotvec_rad)], 1)
    points = policy.hands["right"].forward_rotmats(
        rotations.astype(np.float32), chunk.motion.betas, chunk.motion.cam_from_wrist[:, :3, 3].copy())
    np.testing.assert_allclose(chunk.keypoints_cam_m, points.joints, atol=1e-5)


def test_the_first_chunk_carries_the_costs_of_the_request(policy: Policy) -> None:
    first, second = policy.stream(observation(), seconds=2)
    for stage in ("preprocess_ms", "vision_ms", "prefill_ms", "decode_ms", "motion_ms", "kinematics_ms"):
        assert getattr(first.timings, stage) > 0
    assert second.timings.decode_ms > 0
    assert (second.timings.preprocess_ms, second.timings.vision_ms, second.timings.prefill_ms) == (0, 0, 0)


def test_greedy_and_seeded_motions_repeat(policy: Policy) -> None:
    def ids(**options: Any) -> np.ndarray:
        return policy.generate(observation(), **options).chunks[0].ids

    np.testing.assert_array_equal(ids(), ids())
    np.testing.assert_array_equal(ids(greedy=False, seed=3), ids(greedy=False, seed=3))
    assert (ids(greedy=False, seed=3) != ids(greedy=False, seed=4)).any()


def test_words_and_pictures_reach_the_model(policy: Policy) -> None:
    def logits(**changes: Any) -> np.ndarray:
        pixels, prompt, _ = policy._prepare(observation(**changes), 1, "right")
        return policy.backbone.logits(prompt, pixels)[-1]

    base = logits()
    assert np.abs(logits(instruction="pick up the blue box") - base).max() > 1e-3
    assert np.abs(logits(image_rgb=255 - IMAGE) - base).max() > 1e-3
    assert np.abs(logits(intrinsics_px=(300.0, 300.0, 80.0, 60.0)) - base).max() > 1e-3


@pytest.mark.parametrize("seconds", [0, -1, 4, 1000, 1.0, True, None])
def test_impossible_durations_are_refused_at_once(policy: Policy, seconds: Any) -> None:
    with pytest.raises(ValueError, match="seconds: expected a whole number from 1 to 3, got"):
        policy.stream(observation(), seconds=seconds)


def test_unknown_hands_and_empty_instructions_are_refused_at_once(policy: Policy) -> None:
    with pytest.raises(ValueError, match="'left', 'right' or 'both', got 'third'"):
        policy.stream(observation(), hands="third")
    with pytest.raises(ValueError, match="empty text"):
        policy.stream(observation(instruction=" "))
    with pytest.raises(ValueError, match="grey"):
        policy.stream(observation(image_rgb=IMAGE[..., 0]))
    with pytest.raises(ValueError, match="intrinsics"):
        policy.stream(observation(intrinsics_px=(0.0, 1.0, 1.0, 1.0)))
    with pytest.raises(ValueError, match="top_k"):
        policy.stream(observation(), greedy=False, top_k=0)


def test_one_block_of_one_hand_can_be_decoded_and_nothing_else(policy: Policy) -> None:
    chunk = policy.generate(observation()).chunks[0]
    again = policy.decode_block(chunk.ids.tolist(), "right")  # type: ignore[arg-type]
    np.testing.assert_array_equal(again.keypoints_cam_m, chunk.keypoints_cam_m)
    with pytest.raises(TokenError, match=r"expected one block, int\[128\], got \[2, 128\]"):
        policy.decode_block(np.stack([chunk.ids, chunk.ids]), "right")
    with pytest.raises(ValueError, match="side: expected left or right, got 'both'"):
        policy.decode_block(chunk.ids, "both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="this motion has right, got 'left'"):
        policy.generate(observation()).keypoints_cam_m("left")


def test_an_instruction_longer_than_the_context_is_refused(policy: Policy) -> None:
    with pytest.raises(ValueError, match="more than the context"):
        policy.generate(observation(instruction="very " * 900 + "slowly"))


@pytest.mark.parametrize("wrong", [None, "desk.png", np.zeros((64, 64, 3), np.uint8)])
def test_what_is_no_observation_is_named_at_once(policy: Policy, wrong: Any) -> None:
    for ask in (policy.stream, policy.generate):
        with pytest.raises(TypeError, match=f"observation: expected an Observation, got {type(wrong).__name__}"):
            ask(wrong)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("feature", [0, 7, 9, 20])
def test_motion_that_is_not_finite_never_leaves(policy: Policy, monkeypatch: pytest.MonkeyPatch, feature: int,
                                                value: float) -> None:
    assert policy.tokenizer is not None
    decode = policy.tokenizer.decode

    def broken(ids: Any) -> Any:
        features = decode(ids).copy()
        features[3, feature] = value
        return features

    monkeypatch.setattr(policy, "tokenizer", _Proxy(policy.tokenizer, decode=broken))
    with pytest.raises(BackendError, match="finite"):
        next(policy.stream(observation()))


def test_a_motion_too_large_to_compute_with_never_leaves(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    split = features.split_features

    def huge(*arguments: Any) -> Any:
        rotation, trans_m, theta_rad, betas = split(*arguments)
        return rotation, trans_m, np.full_like(theta_rad, 1e30), betas

    monkeypatch.setattr(features, "split_features", huge)
    with pytest.raises(BackendError, match="expected a hand that is finite"):
        next(policy.stream(observation()))


class _Proxy:
    """Another object's attributes, with some replaced."""

    def __init__(self, target: object, **replaced: Any) -> None:
        self._target = target
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)


def test_a_motion_is_saved_whole_with_its_facts(policy: Policy, tmp_path: Path) -> None:
    intrinsics = np.array([150, 150, 80, 60])
    motion = policy.generate(observation(intrinsics_px=intrinsics), seconds=2, hands="both", greedy=False,
                             seed=np.int64(7))  # type: ignore[arg-type]
    npz, facts = motion.save(tmp_path / "new" / "folder")
    assert sorted(path.name for path in npz.parent.iterdir()) == ["motion.json", "motion.npz"]
    with np.load(npz, allow_pickle=False) as saved:
        assert saved["left_keypoints_cam_m"].shape == (30, 21, 3)
        np.testing.assert_array_equal(saved["right_ids"], [chunk.ids for chunk in motion.of("right")])
        np.testing.assert_allclose(saved["left_t_s"], np.arange(30) / 15)
        np.testing.assert_array_equal(saved["left_keypoints_cam_m"], motion.keypoints_cam_m("left"))
    data = json.loads(facts.read_text())
    assert data["arrays"].keys() == motion.arrays().keys()
    for name, array in motion.arrays().items():
        assert data["arrays"][name].startswith(f"{array.dtype}[")
    assert data["settings"] == {"greedy": False, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "seed": 7,
                                "seconds": 2, "intrinsics_px": [150.0, 150.0, 80.0, 60.0]}
    assert data["hands"] == ["left", "right"]
    assert len(data["chunks"]) == 4
    assert data["instruction"] == "pick up the red can"


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere: no such bundle"):
        Policy.load(tmp_path / "nowhere")


def test_what_a_bundle_lacks_is_said(tiny: Bundle, tmp_path: Path) -> None:
    manifest = replace(tiny.manifest, hands={"right": tiny.manifest.hands["right"]}, tokenizer=None)
    partial = Policy.load(Bundle(tiny.root, manifest), threads=1)
    with pytest.raises(BundleError, match="no left hand model"):
        partial.stream(observation(), hands="both")
    with pytest.raises(BundleError, match="no text tokenizer"):
        partial.stream(observation())
    with pytest.raises(BundleError, match="no robot mode"):
        partial.act(observation(), np.zeros(5, np.float32))


@pytest.mark.parametrize(("changes", "said"), [
    ({"frames": 16}, "frames: manifest.json says 16, the motion tokenizer 15"),
    ({"fps": 30.0}, "fps: manifest.json says 30.0, the motion tokenizer 15"),
    ({"folders": ("motion/finger", "motion/wrist")}, "parts: manifest.json says"),
])
def test_a_manifest_that_contradicts_its_motion_tokenizer_is_refused(tiny: Bundle, changes: Any, said: str) -> None:
    assert tiny.manifest.motion is not None
    manifest = replace(tiny.manifest, motion=replace(tiny.manifest.motion, **changes))
    with pytest.raises(BundleError, match=said):
        Policy.load(Bundle(tiny.root, manifest), threads=1)


def test_numpy_whole_numbers_are_seconds(policy: Policy) -> None:
    motion = policy.generate(observation(), seconds=np.int64(2))  # type: ignore[arg-type]
    assert len(motion.chunks) == 2
    assert json.dumps(motion.facts()["settings"]["seconds"]) == "2"


def test_robot_mode_reads_a_chunk_of_actions(tmp_path: Path) -> None:
    checkpoint = tiny_bundle.make_checkpoint(tmp_path / "checkpoint", robot=True)
    shutil.rmtree(checkpoint / "motion")
    robot = Policy(build_bundle(checkpoint, tmp_path / "bundle"), threads=1)
    proprio = np.linspace(-1, 1, 5, dtype=np.float32)
    actions = robot.act(observation(), proprio)
    assert actions.shape == (4, 3)
    assert np.abs(robot.act(observation(), proprio + 0.5) - actions).max() > 1e-4
    for wrong in (np.zeros(4, np.float32), np.full(5, np.nan, np.float32)):
        with pytest.raises(ValueError, match="proprio"):
            robot.act(observation(), wrong)
    with pytest.raises(ValueError, match="expected 4 <ACTION_CHUNK_i> places, got 0"):
        robot.act_from_ids([1, 2, 3], np.zeros((3, 56, 56), np.float32), proprio)
    with pytest.raises(BundleError, match="no motion tokenizer"):
        robot.stream(observation())
