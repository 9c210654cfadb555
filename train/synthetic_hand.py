"""Builds the synthetic hand: a MANO-shaped hand model made from formulas alone, free to ship.

It has MANO's numbers (778 vertices, 1538 faces, 16 joints, 10 shape and 135 pose blend shapes), MANO's joint
tree and MANO's axes, but none of MANO's data: the surface is a smooth union of tapered capsules of adult
proportions, the blend shapes follow from the skeleton. Nothing measured on people went into it, so no claim
about people comes out.

Right hand, rest pose, metres: fingers along -x, palm facing -y, thumb towards +z. The left hand is its mirror
image. Building takes about seven seconds and needs the extra `hand`:

    python -m beingh0_edge.train.synthetic_hand python/beingh0_edge/assets/hands
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from beingh0_edge import HandModel, rotations
from beingh0_edge._kernels import rotation_about
from beingh0_edge.train.hand_surface import (
    FINGERS,
    SKELETON_MM,
    WRIST_M,
    Surface,
    build_mesh,
    flexion_axes,
    pad_direction,
    place,
    rest_joints,
)
from beingh0_edge.train.remesh import Faces, Indices, Points, Values

BUILDER_VERSION = 1
LABEL = "synthetic, not MANO"
LICENSE = "Apache-2.0"
JOINTS = 16
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
# Tip vertices of the two conventions in use, on every hand near the end of the finger.
TIPS_MANOTORCH = {"thumb": 745, "index": 317, "middle": 444, "ring": 556, "little": 673}
TIPS_SMPLX = {"thumb": 744, "index": 320, "middle": 443, "ring": 554, "little": 671}
MIDDLE_TIP_MANOTORCH_LEFT = 445
# Named poses, degrees. Fingers: flexion of the three joints. Thumb: flexion of its root, turn of the root
# towards the palm (opposition), flexion of the other two joints.
POSES_DEG: dict[str, dict[str, tuple[float, ...]]] = {
    "open": {"index": (0, 0, 0), "middle": (0, 0, 0), "ring": (0, 0, 0), "little": (0, 0, 0),
             "thumb": (0, 0, 0, 0)},
    "relaxed": {"index": (15, 20, 12), "middle": (20, 25, 14), "ring": (24, 28, 16), "little": (28, 30, 18),
                "thumb": (5, 15, 10, 10)},
    "pre_grasp": {"index": (22, 20, 8), "middle": (24, 22, 8), "ring": (28, 24, 10), "little": (30, 26, 10),
                  "thumb": (-5, 57, 0, 6)},
    "grasp": {"index": (33, 31, 13), "middle": (35, 33, 15), "ring": (40, 38, 18), "little": (42, 40, 18),
              "thumb": (-1, 66, 0, 10)},
    "pinch": {"index": (50, 45, 25), "middle": (20, 25, 10), "ring": (15, 20, 10), "little": (10, 20, 10),
              "thumb": (0, 55, 15, 25)},
    "point": {"index": (0, 0, 0), "middle": (80, 92, 55), "ring": (80, 92, 55), "little": (78, 90, 55),
              "thumb": (20, 26, 37, 16)},
    "fist": {"index": (82, 98, 62), "middle": (84, 98, 62), "ring": (84, 98, 62), "little": (82, 96, 62),
             "thumb": (21, 26, 23, 61)},
}


def rotation_matrices(rotvec_rad: Points) -> Points:
    """float64[N, 3] to float64[N, 3, 3]; `rotations` rounds to float32, which blend shapes in float16 would show."""
    angles = np.linalg.norm(rotvec_rad, axis=1)
    return np.array([rotation_about(rotvec / angle if angle else np.array([1.0, 0.0, 0.0]), angle)
                     for rotvec, angle in zip(rotvec_rad, angles, strict=True)])


def skin_weights(surface: Surface, vertices: Points, faces: Faces) -> Values:
    """Weights float64[778, 16], at most four per row, rows sum to 1.

    Every vertex starts with the joint of its nearest cone; heat spread over the mesh then makes the borders
    soft without ever crossing from finger to finger through the air.
    """
    labels = np.array([cone.joint for cone in surface.cones])[surface.nearest(vertices)]
    start = np.eye(JOINTS)[labels]
    sides = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.unique(np.sort(sides, axis=1), axis=0)
    length = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    laplacian = np.zeros((len(vertices), len(vertices)))
    laplacian[edges[:, 0], edges[:, 1]] = laplacian[edges[:, 1], edges[:, 0]] = -(np.mean(length) / length)
    laplacian -= np.diag(laplacian.sum(axis=1))
    weights: Values = np.empty_like(start)
    narrow = np.linalg.inv(np.eye(len(vertices)) + 0.3 * laplacian) @ start
    wide = np.linalg.inv(np.eye(len(vertices)) + 3.0 * laplacian) @ start
    weights[:] = narrow
    base = [1 + 3 * f for f in range(5)]  # knuckles and the thumb's root bend over a longer stretch of skin
    weights[:, base] = 0.5 * (narrow + wide)[:, base]
    weights[:, 13] = wide[:, 13]
    weights /= weights.sum(axis=1, keepdims=True)
    order = np.argsort(-np.round(weights, 9), axis=1, kind="stable")
    for row, ranks in zip(weights, order, strict=True):
        row[ranks[4:]] = 0.0
    weights[weights < 0.01] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def joint_regressor(vertices: Points, joints: Points) -> Values:
    """J_regressor float64[16, 778]: non-negative, rows sum to 1, spread over the ring of skin around each
    joint.
    """
    from scipy.optimize import nnls

    regressor = np.zeros((JOINTS, len(vertices)))
    for j, joint in enumerate(joints):
        near = np.argsort(np.round(np.linalg.norm(vertices - joint, axis=1), 9), kind="stable")[:40]
        exact = np.vstack([(vertices[near] - joint).T * 1e3, np.ones(len(near))]) * 1e3
        system = np.vstack([exact, np.eye(len(near))])
        wanted = np.concatenate([[0.0, 0.0, 0.0, 1e3], np.zeros(len(near))])
        weights, _ = nnls(system, wanted)
        regressor[j, near] = weights / weights.sum()
    return regressor


def _subtree_weights(weights: Values, joint: int) -> Values:
    """How much of each vertex moves with `joint`: the summed weights of the joint and all joints after it."""
    members = {joint}
    for child in range(joint + 1, JOINTS):
        if PARENTS[child] in members:
            members.add(child)
    share: Values = weights[:, sorted(members)].sum(axis=1)
    return share


def pose_blend_shapes(vertices: Points, joints: Points, weights: Values) -> Values:
    """posedirs float64[778, 3, 135] over row-major vec(R_j - I), j = 1..15.

    Linear skinning pulls the skin of a bent joint inwards. Turning each vertex by its share of the rotation
    keeps its distance to the joint instead; the blend shapes are the ridge fit of that difference over the
    joint's range.
    """
    flexion = flexion_axes()
    shapes = np.zeros((len(vertices), 3, 15, 9))
    for j in range(1, JOINTS):
        share = _subtree_weights(weights, j)
        skin = np.flatnonzero((share > 0.01) & (share < 0.99))
        bend, forward = flexion[j - 1], np.array([-1.0, 0.0, 0.0])
        side = np.cross(bend, forward)
        rotvecs = [np.radians(a) * bend + np.radians(b) * side + np.radians(c) * forward
                   for a in range(-20, 101, 15) for b in (-20, 0, 20) for c in (-15, 0, 15)]
        turns = rotation_matrices(np.array(rotvecs))
        offset = vertices[skin] - joints[j]
        corrections = []
        for rotvec, turn in zip(rotvecs, turns, strict=True):
            partial = rotation_matrices(share[skin, None] * rotvec)
            linear = share[skin, None, None] * turn + (1.0 - share[skin, None, None]) * np.eye(3)
            wanted = np.einsum("nij,nj->ni", partial, offset)
            corrections.append(np.linalg.solve(linear, wanted[:, :, None])[:, :, 0] - offset)
        features = (turns - np.eye(3)).reshape(len(turns), 9)
        gram = features.T @ features + 0.3 * np.eye(9)
        fit = np.linalg.solve(gram, features.T @ np.array(corrections).reshape(len(turns), -1))
        shapes[skin, :, j - 1] = np.moveaxis(fit.reshape(9, len(skin), 3), 0, 2)
    return shapes.reshape(len(vertices), 3, 135)


def shape_blend_shapes(vertices: Points, joints: Points, weights: Values) -> Values:
    """shapedirs float64[778, 3, 10], metres per unit of beta; +-3 stays a plausible hand.

    0 size, 1 finger length, 2 palm width, 3 thickness, 4 thumb length, 5 palm length, 6 finger thickness,
    7 finger spread, 8 little side against index side, 9 thumb opening.
    """
    relative = vertices - joints[0]
    thumb_share = _subtree_weights(weights, 13)[:, None]
    finger_share = weights[:, 1:13].sum(axis=1)[:, None]

    def lengthen(finger: str, factor: float) -> Points:
        """Each phalanx grows along itself and carries what comes after it."""
        first = 1 + 3 * FINGERS.index(finger)
        move = np.zeros_like(vertices)
        for k in range(3):
            start = place(*SKELETON_MM[finger][k])
            bone = place(*SKELETON_MM[finger][k + 1]) - start
            along = np.clip((vertices - start) @ bone / (bone @ bone), 0.0, 1.2 if k == 2 else 1.0)
            move += _subtree_weights(weights, first + k)[:, None] * along[:, None] * bone * factor
        return move

    def thicken(first: int, last: int, factor: float) -> Points:
        """Skin moves away from the bones first..last."""
        move = np.zeros_like(vertices)
        for j in range(first, last + 1):
            finger, k = FINGERS[(j - 1) // 3], (j - 1) % 3
            start = place(*SKELETON_MM[finger][k])
            bone = place(*SKELETON_MM[finger][k + 1]) - start
            offset = vertices - start
            across = offset - (offset @ bone / (bone @ bone))[:, None] * bone
            move += weights[:, j, None] * across * factor
        return move

    def turn(first: int, axis: Points, angle: float) -> Points:
        """The finger whose first joint is `first` turns a little about that joint."""
        return _subtree_weights(weights, first)[:, None] * np.cross(axis * angle, vertices - joints[first])

    palm_width = np.zeros_like(vertices)
    fan = 0.03 * np.clip(-relative[:, 0] / 0.09, 0.0, 1.0)
    palm_width[:, 2] = fan * np.clip(relative[:, 2], -0.05, 0.03)
    palm_length = np.zeros_like(vertices)
    palm_length[:, 0] = -0.03 * np.clip(-relative[:, 0], 0.0, 0.092)
    thickness = np.zeros_like(vertices)
    thickness[:, 1] = 0.04 * relative[:, 1]
    up = np.array([0.0, 1.0, 0.0])
    spread = [turn(1, up, 0.02), turn(4, up, 0.004), turn(10, up, -0.012), turn(7, up, -0.025)]
    fields = [
        0.03 * relative,
        sum((lengthen(f, 0.03) for f in FINGERS[:4]), np.zeros_like(vertices)),
        palm_width,
        thickness * (1.0 - finger_share) * (1.0 - thumb_share) + thicken(1, 15, 0.03),
        lengthen("thumb", 0.03),
        palm_length,
        thicken(1, 15, 0.04),
        sum(spread, np.zeros_like(vertices)),
        lengthen("little", 0.03) + lengthen("ring", 0.015) - lengthen("index", 0.02),
        turn(13, up, 0.03),
    ]
    return np.stack([np.asarray(field) for field in fields], axis=2)


def pose_theta_rad(degrees: dict[str, tuple[float, ...]]) -> Values:
    """One row of POSES_DEG as MANO's theta for the right hand, float64[45]."""
    axes = flexion_axes()
    theta = np.zeros((15, 3))
    for finger, angles in degrees.items():
        first = 3 * FINGERS.index(finger)
        flexion = np.radians(angles if finger != "thumb" else (angles[0], *angles[2:]))
        theta[first:first + 3] = flexion[:, None] * axes[first:first + 3]
        if finger == "thumb":
            towards, bend = rotation_matrices(np.array([[np.radians(angles[1]), 0.0, 0.0], theta[first]]))
            theta[first] = rotations.matrix_to_axis_angle(towards @ bend)
    return theta.ravel()


def _vertex_order(surface: Surface, vertices: Points, weights: Values) -> Indices:
    """Old index per new index: bone by bone, with the tips where MANO's users look for them."""
    distance = np.round(np.linalg.norm(vertices - WRIST_M, axis=1), 9)
    order = list(np.lexsort((distance, np.argmax(weights, axis=1))))
    for finger in FINGERS:
        points = [place(*point) for point in SKELETON_MM[finger]]
        outward = (points[3] - points[2]) / np.linalg.norm(points[3] - points[2])
        target = points[3] + 0.001 * outward + 0.002 * pad_direction(finger)
        near = np.argsort(np.round(np.linalg.norm(vertices - target, axis=1), 9), kind="stable")
        wanted = [TIPS_MANOTORCH[finger], TIPS_SMPLX[finger]]
        if finger == "middle":
            wanted.append(MIDDLE_TIP_MANOTORCH_LEFT)
        for vertex, position in zip(near, wanted, strict=False):
            other = order.index(vertex)
            order[position], order[other] = order[other], order[position]
    return np.array(order)


def _components(mean: Values) -> Values:
    """hands_components float64[45, 45], orthonormal rows: the named poses first, single angles after them."""
    poses = [pose_theta_rad(POSES_DEG[name]) for name in ("fist", "grasp", "point", "pinch", "pre_grasp")]
    rows: list[Values] = []
    for candidate in [*poses, mean, *np.eye(45)]:
        for row in rows:
            candidate = candidate - (candidate @ row) * row
        if np.linalg.norm(candidate) > 1e-3 and len(rows) < 45:
            rows.append(candidate / np.linalg.norm(candidate))
    return np.array(rows)


def build_right() -> dict[str, npt.NDArray[Any]]:
    """The right hand's file as arrays, MANO's keys and a few of our own (docs/hands.md)."""
    surface = Surface()
    vertices, faces = build_mesh(surface)
    weights = skin_weights(surface, vertices, faces)
    order = _vertex_order(surface, vertices, weights)
    new_index = np.argsort(order)
    vertices, weights, faces = vertices[order], weights[order], new_index[faces]
    faces = faces[np.lexsort(faces.T[::-1])]
    joints = rest_joints()
    posedirs = pose_blend_shapes(vertices, joints, weights)
    names = list(POSES_DEG)
    poses = np.array([pose_theta_rad(POSES_DEG[name]) for name in names])
    mean = poses[names.index("relaxed")]
    model: dict[str, npt.NDArray[Any]] = {
        "v_template": vertices.astype(np.float32),
        "f": faces.astype(np.int32),
        "weights": weights.astype(np.float32),
        "J_regressor": joint_regressor(vertices, joints).astype(np.float32),
        "kintree_table": np.array([PARENTS, range(JOINTS)], dtype=np.int64),
        "shapedirs": shape_blend_shapes(vertices, joints, weights).astype(np.float16),
        "posedirs": posedirs.astype(np.float16),
        "hands_mean": mean.astype(np.float32),
        "hands_components": _components(mean).astype(np.float32),
        "flexion_axes": flexion_axes().astype(np.float32),
        "pose_names": np.array(names),
        "poses_rad": poses.astype(np.float32),
        "label": np.array(LABEL),
        "license": np.array(LICENSE),
        "side": np.array("right"),
        "builder_version": np.array(BUILDER_VERSION),
    }
    half_closed = HandModel(model).forward(np.concatenate([np.zeros(3), poses[names.index("grasp")]])).joints
    grasp_point = (half_closed[4] + (half_closed[8] + half_closed[12]) / 2) / 2  # thumb's, index's, middle's tip
    model["grasp_point_wrist_m"] = grasp_point.astype(np.float32)
    return model


def mirrored(model: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The same hand in a mirror (x -> -x). Rotation vectors become (x, -y, -z)."""
    point = np.array([-1, 1, 1])
    rotvec = np.array([1, -1, -1])
    matrix = np.outer(point, point).ravel()  # sign of each entry of R under the mirror
    result = dict(model)
    result["v_template"] = model["v_template"] * point.astype(np.float32)
    result["f"] = model["f"][:, ::-1].copy()
    result["shapedirs"] = model["shapedirs"] * point[None, :, None].astype(np.float16)
    result["posedirs"] = model["posedirs"] * (point[None, :, None] * np.tile(matrix, 15)).astype(np.float16)
    for key in ("hands_mean", "hands_components", "poses_rad"):
        result[key] = model[key] * np.tile(rotvec, 15).astype(np.float32)
    result["flexion_axes"] = model["flexion_axes"] * rotvec.astype(np.float32)
    result["grasp_point_wrist_m"] = model["grasp_point_wrist_m"] * point.astype(np.float32)
    result["side"] = np.array("left")
    return result


def save(model: dict[str, npt.NDArray[Any]], path: Path) -> None:
    """Write the .npz under a temporary name, then move it into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **model)
    os.replace(temporary, path)


def main() -> None:
    """Write synthetic_right.npz and synthetic_left.npz."""
    parser = argparse.ArgumentParser(description="Build the synthetic hand model, right and left.")
    parser.add_argument("out_dir", type=Path)
    out_dir: Path = parser.parse_args().out_dir
    out_dir.mkdir(parents=True, exist_ok=True)
    right = build_right()
    for name, model in (("right", right), ("left", mirrored(right))):
        path = out_dir / f"synthetic_{name}.npz"
        save(model, path)
        print(f"{path}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
