"""Motion tokenizers recorded with the official code: three geometries, both directions."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from beingh0_edge import HandModel, MotionTokenizer, features, rotations

DATA = Path(__file__).parent / "data" / "tokenizer"
VARIANTS = ("main_mano162", "shared_ln_silu", "gn_gelu_win16")
# Relative to the largest value; both sides sum in float32, in different orders.
TOLERANCE = 1e-5


class Case(NamedTuple):
    tokenizer: MotionTokenizer
    golden: dict[str, np.ndarray]


@pytest.fixture(scope="module", params=VARIANTS)
def case(request: pytest.FixtureRequest) -> Case:
    folder = DATA / request.param
    return Case(MotionTokenizer.load(folder / "wrist", folder / "finger"), dict(np.load(folder / "golden.npz")))


def relative(actual: np.ndarray, expected: np.ndarray) -> float:
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def test_ids_decode_to_the_official_features(case: Case) -> None:
    assert relative(case.tokenizer.decode(case.golden["decode_ids"]), case.golden["decode_features"]) < TOLERANCE


def test_latents_are_the_official_ones_on_both_sides(case: Case) -> None:
    for i, part in enumerate(case.tokenizer.parts):
        latent = case.tokenizer.dequantize(case.golden["decode_ids"], part.name)
        expected = case.golden[f"decode_latent_part{i}"]
        assert relative(latent.reshape(expected.shape), expected) < TOLERANCE
        encoded = case.tokenizer.latent(case.golden[f"encode_features_part{i}"], i)
        assert relative(encoded, case.golden[f"encode_latent_part{i}"]) < TOLERANCE


def test_features_encode_to_the_official_ids_and_back(case: Case) -> None:
    ids = case.tokenizer.encode(case.golden["encode_features_part0"], case.golden["encode_features_part1"])
    assert ids.dtype == np.int32
    assert np.array_equal(ids, case.golden["encode_ids"])
    assert relative(case.tokenizer.decode(ids), case.golden["roundtrip_features"]) < TOLERANCE


def test_decoded_features_split_into_the_official_motion(case: Case) -> None:
    split = features.split_features(case.tokenizer.decode(case.golden["decode_ids"]), case.tokenizer.parts)
    assert relative(split.rotation, case.golden["mano_rot"]) < TOLERANCE
    assert relative(split.trans_m, case.golden["mano_trans"]) < TOLERANCE
    theta = case.golden["mano_theta"]  # 6D to axis-angle loses a digit
    assert relative(split.theta_rad.reshape(theta.shape), theta) < 10 * TOLERANCE


def test_an_id_of_another_quantizer_counts_by_its_position() -> None:
    folder = DATA / "main_mano162"
    golden = np.load(folder / "golden.npz")
    decoded = MotionTokenizer.load(folder / "wrist", folder / "finger").decode(golden["decode_ids_anyquantizer"])
    assert relative(decoded, golden["decode_features_anyquantizer"]) < TOLERANCE


# Right and left shape parameters that the official script uses with every motion.
OFFICIAL_BETAS = {
    "left": (1.1270238, -0.25079092, -2.2111652, 4.350904, -2.3538678, 3.7198792, 0.80536413, 0.9086072, -0.41488478,
             1.8571062),
    "right": (0.50233305, -1.332463, -5.994158, -1.2552336, 2.1817644, -5.384019, -2.189624, 2.3371675, -4.9490705,
              -2.3550193)}
# Metres, on hands 20 cm long somewhere within 2 m: float32 rounding of decode, rotation and kinematics together.
END_TO_END_TOLERANCE_M = 5e-6


@pytest.mark.parametrize("hand", [0, 1])
def test_ids_become_the_official_keypoints_and_meshes(hand: int, golden_hands: dict[str, HandModel]) -> None:
    side = ("left", "right")[hand]
    folder = DATA / "main_mano162"
    tokenizer = MotionTokenizer.load(folder / "wrist", folder / "finger")
    decoded = tokenizer.decode(np.load(folder / "golden.npz")["decode_ids"])[0, :, hand]
    split = features.split_features(decoded.reshape(-1, tokenizer.dims), tokenizer.parts)
    expected = np.load(DATA.parent / "mano" / "golden.npz")
    pose = np.concatenate([split.rotation[:, None], rotations.axis_angle_to_matrix(split.theta_rad)], 1)
    points = golden_hands[side].forward_rotmats(pose, np.array(OFFICIAL_BETAS[side]), split.trans_m, vertices=True)
    assert points.vertices is not None
    assert np.abs(points.joints - expected[f"e2e_{side}_joints21"]).max() < END_TO_END_TOLERANCE_M
    assert np.abs(points.vertices[:, ::13] - expected[f"e2e_{side}_vertices_stride13"]).max() < END_TO_END_TOLERANCE_M
