"""The shipped synthetic hand: MANO's numbers, a hand's proportions, left as the mirror of right,
reproducible.
"""

from pathlib import Path

import numpy as np
import pytest

import beingh0_edge
from beingh0_edge import HandModel
from beingh0_edge.train import synthetic_hand as builder
from beingh0_edge.train.hand_surface import WRIST_M, rest_joints

HANDS = Path(beingh0_edge.__file__).parent / "assets" / "hands"
MAX_BYTES = 1_500_000  # both files together, as the package budget says
FLOAT32_M = 1e-6  # float32 rounding of coordinates of 0.2 m, summed over a row
MIRROR_M = 1e-6
REBUILT_M = 2e-6  # the last bits of the thumb's poses; another machine may round a float16 (a few mm) elsewhere
MANO_ORDER = {"index": 1, "middle": 4, "little": 7, "ring": 10, "thumb": 13}
KEYPOINT_TIP = {"thumb": 4, "index": 8, "middle": 12, "ring": 16, "little": 20}


def load(side: str) -> dict[str, np.ndarray]:
    with np.load(HANDS / f"synthetic_{side}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.fixture(scope="module")
def right() -> dict[str, np.ndarray]:
    return load("right")


@pytest.fixture(scope="module")
def left() -> dict[str, np.ndarray]:
    return load("left")


def theta(model: dict[str, np.ndarray], name: str) -> np.ndarray:
    return model["poses_rad"][list(model["pose_names"]).index(name)]


def pose48(theta_rad: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(3), theta_rad]).astype(np.float32)[None]


def directed_edges(faces: np.ndarray) -> list[tuple[int, int]]:
    return [(int(f[i]), int(f[(i + 1) % 3])) for f in faces for i in range(3)]


def enclosed_volume_m3(vertices: np.ndarray, faces: np.ndarray) -> float:
    """Volume of the mesh closed by a fan over the wrist's boundary loop."""
    edges = set(directed_edges(faces))
    boundary = [(b, a) for a, b in edges if (b, a) not in edges]
    centre = vertices[[a for a, _ in boundary]].mean(axis=0)
    corners = vertices[faces] - centre  # the fan's own tetrahedra have no volume seen from its centre
    return float(np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6.0)


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_counts_are_those_of_mano(side: str) -> None:
    shapes = {key: value.shape for key, value in load(side).items()}
    assert shapes["v_template"] == (778, 3)
    assert shapes["f"] == (1538, 3)
    assert shapes["weights"] == (778, 16)
    assert shapes["J_regressor"] == (16, 778)
    assert shapes["shapedirs"] == (778, 3, 10)
    assert shapes["posedirs"] == (778, 3, 135)
    assert shapes["kintree_table"] == (2, 16)
    assert shapes["hands_mean"] == (45,)
    assert shapes["hands_components"] == (45, 45)
    assert tuple(load(side)["kintree_table"][0]) == (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)


def test_both_files_fit_the_package_and_say_that_they_are_synthetic(right: dict, left: dict) -> None:
    assert sum(path.stat().st_size for path in HANDS.glob("*.npz")) <= MAX_BYTES
    for model in (right, left):
        assert str(model["label"]) == "synthetic, not MANO"
        assert str(model["license"]) == "Apache-2.0"


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_mesh_is_one_oriented_surface_open_only_at_the_wrist(side: str) -> None:
    model = load(side)
    edges = directed_edges(model["f"])
    assert len(set(edges)) == len(edges), "an edge is used twice in the same direction"
    undirected = {tuple(sorted(edge)) for edge in edges}
    boundary = {a: b for a, b in set(edges) if (b, a) not in set(edges)}
    assert 778 - len(undirected) + 1538 == 1, "Euler number of a disc"
    loop = [min(boundary)]
    while boundary[loop[-1]] != loop[0]:
        loop.append(boundary[loop[-1]])
    assert len(loop) == len(boundary) == 16
    behind_wrist = np.abs(model["v_template"][loop, 0]) - WRIST_M[0]
    np.testing.assert_allclose(behind_wrist, 0.014, atol=FLOAT32_M)
    assert enclosed_volume_m3(model["v_template"].astype(float), model["f"]) > 0.0, "normals point outwards"


def test_triangles_are_well_shaped(right: dict) -> None:
    corners = right["v_template"][right["f"]].astype(float)
    sides = [corners[:, (i + 1) % 3] - corners[:, i] for i in range(3)]
    angles = [np.degrees(np.arccos(-(sides[i] * sides[i - 1]).sum(1)
                                   / np.linalg.norm(sides[i], axis=1) / np.linalg.norm(sides[i - 1], axis=1)))
              for i in range(3)]
    assert np.min(angles) > 12.0
    assert np.median(np.min(angles, axis=0)) > 40.0


def test_skin_weights_share_every_vertex_among_at_most_four_joints(right: dict) -> None:
    weights = right["weights"].astype(float)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)
    assert weights.min() == 0.0
    assert (weights > 0).sum(axis=1).max() <= 4
    assert (weights.max(axis=0) > 0.8).all(), "every joint has skin of its own"


def test_the_regressor_gives_the_joints(right: dict) -> None:
    regressor = right["J_regressor"].astype(float)
    assert regressor.min() >= 0.0
    np.testing.assert_allclose(regressor.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(regressor @ right["v_template"], rest_joints(), atol=FLOAT32_M)


def test_proportions_are_those_of_an_adult_hand(right: dict) -> None:
    points = HandModel.load(HANDS / "synthetic_right.npz").forward(pose48(np.zeros(45))).joints[0]
    assert np.linalg.norm(points[KEYPOINT_TIP["middle"]]) == pytest.approx(0.19, abs=0.005)
    knuckles = np.abs(right["v_template"][:, 0] - WRIST_M[0] + 0.085) < 0.01
    not_thumb = right["weights"][:, 13:].sum(axis=1) < 0.5
    assert np.ptp(right["v_template"][knuckles & not_thumb, 2]) == pytest.approx(0.085, abs=0.004)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("tips", ["manotorch", "smplx"])
def test_tip_vertices_of_both_conventions_lie_on_the_fingertips(side: str, tips: str) -> None:
    model = load(side)
    vertices = model["v_template"].astype(float)
    ids = dict(builder.TIPS_MANOTORCH if tips == "manotorch" else builder.TIPS_SMPLX)
    if (side, tips) == ("left", "manotorch"):
        ids["middle"] = builder.MIDDLE_TIP_MANOTORCH_LEFT
    joints = model["J_regressor"].astype(float) @ vertices
    for finger, vertex in ids.items():
        last = MANO_ORDER[finger] + 2
        own = np.flatnonzero(model["weights"][:, last] > 0.5)
        outward = (joints[last] - joints[last - 1]) / np.linalg.norm(joints[last] - joints[last - 1])
        reach = (vertices[own] - joints[last]) @ outward
        assert vertex in own
        assert (vertices[vertex] - joints[last]) @ outward > reach.max() - 0.004


def test_the_left_hand_is_the_mirror_image(right: dict, left: dict) -> None:
    np.testing.assert_array_equal(left["v_template"], right["v_template"] * np.float32([-1, 1, 1]))
    np.testing.assert_array_equal(left["f"], right["f"][:, ::-1])
    for key in ("weights", "J_regressor", "kintree_table"):
        np.testing.assert_array_equal(left[key], right[key])


@pytest.mark.parametrize("seed", range(4))
def test_a_mirrored_pose_gives_the_mirrored_mesh(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pose = rng.normal(0.0, 0.4, (3, 16, 3)).astype(np.float32)
    betas = rng.normal(0.0, 1.0, 10).astype(np.float32)
    mirrored = pose * np.float32([1, -1, -1])
    one = HandModel.load(HANDS / "synthetic_right.npz", side="right").forward(
        pose.reshape(3, 48), betas, vertices=True).vertices
    other = HandModel.load(HANDS / "synthetic_left.npz", side="left").forward(
        mirrored.reshape(3, 48), betas, vertices=True).vertices
    assert one is not None
    np.testing.assert_allclose(other, one * np.float32([-1, 1, 1]), atol=MIRROR_M)


@pytest.mark.parametrize("side", ["right", "left"])
def test_positive_flexion_closes_every_finger(side: str) -> None:
    model, hand = load(side), HandModel.load(HANDS / f"synthetic_{side}.npz", side=side)
    rest = hand.forward(pose48(np.zeros(45))).joints[0]
    for finger, first in MANO_ORDER.items():
        for joint in range(first - 1, first + 2):
            bent = np.zeros((15, 3))
            bent[joint] = 0.5 * model["flexion_axes"][joint]
            tip = KEYPOINT_TIP[finger]
            move = hand.forward(pose48(bent.ravel())).joints[0, tip] - rest[tip]
            if finger == "thumb":
                assert move[2] < -0.005, "across the palm, towards the little finger"
            else:
                assert move[1] < -0.005, "out of the palm, which faces -y"


def test_named_poses_do_what_their_names_say(right: dict) -> None:
    hand = HandModel.load(HANDS / "synthetic_right.npz")
    points = {str(name): hand.forward(pose48(theta(right, name))).joints[0] for name in right["pose_names"]}

    def gap(name: str) -> float:
        return float(np.linalg.norm(points[name][4] - points[name][8]))

    assert gap("pinch") < 0.01 < 0.03 < gap("grasp") < 0.06 < gap("pre_grasp") < gap("open")
    reach = {name: np.linalg.norm(points[name][[8, 12, 16, 20]], axis=1) for name in points}
    assert (reach["fist"] < 0.09).all()
    assert reach["point"][0] > 0.17
    assert (reach["point"][1:] < 0.09).all()


def test_the_grasp_point_lies_between_thumb_and_fingers(right: dict, left: dict) -> None:
    points = HandModel.load(HANDS / "synthetic_right.npz").forward(pose48(theta(right, "grasp"))).joints[0]
    between = (points[4] + (points[8] + points[12]) / 2) / 2
    np.testing.assert_allclose(right["grasp_point_wrist_m"], between, atol=FLOAT32_M)
    mirrored = right["grasp_point_wrist_m"] * np.float32([-1, 1, 1])
    np.testing.assert_array_equal(left["grasp_point_wrist_m"], mirrored)


def test_pose_blend_shapes_keep_a_bent_finger_full(right: dict) -> None:
    plain = dict(right, posedirs=np.zeros_like(right["posedirs"]))
    bent = np.zeros((15, 3))
    bent[[1, 4, 7, 10]] = np.radians(90) * right["flexion_axes"][[1, 4, 7, 10]]

    def bent_mesh_m(model: dict[str, np.ndarray]) -> np.ndarray:
        return HandModel(model).forward(pose48(bent.ravel()), vertices=True).vertices[0].astype(float)

    rest = enclosed_volume_m3(right["v_template"].astype(float), right["f"])
    with_shapes = enclosed_volume_m3(bent_mesh_m(right), right["f"])
    without = enclosed_volume_m3(bent_mesh_m(plain), right["f"])
    assert abs(with_shapes - rest) < 0.5 * abs(without - rest)


def test_the_first_shape_is_size(right: dict) -> None:
    hand = HandModel.load(HANDS / "synthetic_right.npz")
    betas = np.zeros(10, dtype=np.float32)
    betas[0] = 2.0
    bigger = hand.forward(pose48(theta(right, "grasp")), betas).joints[0]
    plain = hand.forward(pose48(theta(right, "grasp"))).joints[0]
    np.testing.assert_allclose(bigger, 1.06 * plain, atol=5e-4)  # pose blend shapes do not grow with the hand


def test_components_are_orthonormal(right: dict) -> None:
    components = right["hands_components"].astype(float)
    np.testing.assert_allclose(components @ components.T, np.eye(45), atol=1e-5)


def test_building_again_gives_the_shipped_hand(right: dict) -> None:
    pytest.importorskip("skimage", reason="needs the extra 'hand'")
    again = builder.build_right()
    assert sorted(again) == sorted(right)
    for key, shipped in right.items():
        if shipped.dtype.kind == "f":
            np.testing.assert_allclose(again[key].astype(float), shipped.astype(float), rtol=0,
                                       atol=REBUILT_M, err_msg=key)
        else:
            np.testing.assert_array_equal(again[key], shipped, err_msg=key)
