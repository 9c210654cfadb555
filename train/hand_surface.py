"""The outside of the synthetic hand: its skeleton, a smooth surface around it, and the mesh of that surface.

Right hand, rest pose, metres: fingers along -x, palm facing -y, thumb towards +z.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beingh0_edge.train.remesh import Faces, Indices, Points, Values, remesh

Place = tuple[float, float, float]

FACES, WRIST_LOOP = 1538, 16
FINGERS = ("index", "middle", "little", "ring", "thumb")  # order of MANO's joints 1..15
WRIST_M = np.array([0.095, 0.006, 0.006])  # as in MANO, the wrist is not the origin
VOXEL_M = 0.0026
WRIST_CUT_MM = -14.0  # the mesh ends this far behind the wrist joint

# Points are (f, t, p) millimetres from the wrist: towards the fingers, towards the thumb, out of the palm.
# Per finger: the three joints and the tip; radii there.
SKELETON_MM: dict[str, list[Place]] = {
    "index": [(90, 25, -1), (133, 28.5, 0.5), (158, 30, 3), (179, 31, 6)],
    "middle": [(93, 2, -2.5), (139, 2.5, -1), (168, 2.5, 1.5), (191, 2, 5)],
    "ring": [(88, -19, -1), (130, -22.5, 0.5), (157, -25, 3), (179, -27, 6.5)],
    "little": [(79, -37.5, 2), (112, -43.5, 3.5), (132, -47, 5.5), (151, -50, 8.5)],
    "thumb": [(23, 24, 9), (55, 50, 19), (77, 74, 26.5), (96, 95, 31.5)],
}
RADII_MM = {
    "index": (10.2, 9.3, 8.3, 7.1),
    "middle": (10.4, 9.5, 8.5, 7.3),
    "ring": (9.8, 8.9, 8.0, 6.9),
    "little": (8.6, 7.8, 7.0, 6.1),
    "thumb": (15.5, 12.0, 10.8, 8.8),
}


@dataclass(frozen=True)
class _Cone:
    """A capsule from `start` to `end` (metres) with a radius at each end, moved by one joint."""

    start: Points
    end: Points
    start_radius: float
    end_radius: float
    joint: int

    def distance(self, points: Points) -> Values:
        axis = self.end - self.start
        offset = points - self.start
        along = np.clip(offset @ axis / (axis @ axis), 0.0, 1.0)
        across = offset - along[:, None] * axis
        radius = self.start_radius + along * (self.end_radius - self.start_radius)
        distance: Values = np.sqrt((across**2).sum(axis=1)) - radius
        return distance

    def radius_at(self, points: Points) -> Values:
        axis = self.end - self.start
        along = np.clip((points - self.start) @ axis / (axis @ axis), 0.0, 1.0)
        return self.start_radius + along * (self.end_radius - self.start_radius)


def place(f: float, t: float, p: float) -> Points:
    return WRIST_M + np.array([-f, -p, t]) / 1000.0


def _cone(start: Place, end: Place, radius: float, end_radius: float, joint: int = 0) -> _Cone:
    return _Cone(place(*start), place(*end), radius / 1000.0, end_radius / 1000.0, joint)


def rest_joints() -> Points:
    """The 16 joints at rest, float64[16, 3], metres, right hand."""
    return np.array([WRIST_M] + [place(*point) for finger in FINGERS for point in SKELETON_MM[finger][:3]])


def _mix(a: Place, b: Place, s: float) -> Place:
    return (a[0] + s * (b[0] - a[0]), a[1] + s * (b[1] - a[1]), a[2] + s * (b[2] - a[2]))


def _palm_cones() -> list[_Cone]:
    """Forearm end, carpus, metacarpals, the two cushions and the webs; all move with the wrist but the
    thenar.
    """
    cones = [
        _cone((-40, 8.5, -1), (6, 9.5, 0), 18.5, 17.0),
        _cone((-40, -8.5, -1), (6, -9.5, 0), 18.5, 16.5),
        _cone((12, -16, 7), (58, -31, 7), 13.0, 11.0),
        _cone((20, 4, 3), (72, 4, 1), 13.5, 11.0),
        _cone((26, 17, 7), (66, 27, 6), 12.0, 8.5),
    ]
    base = {"index": (14, 12, 1), "middle": (14, 3, 0), "ring": (14, -6, 1), "little": (12, -14, 3)}
    for finger, start in base.items():
        knuckle = SKELETON_MM[finger][0]
        cones.append(_cone(start, knuckle, 12.0, RADII_MM[finger][0] + 0.8))
    for one, other in (("index", "middle"), ("middle", "ring"), ("ring", "little")):
        a = _mix(SKELETON_MM[one][0], SKELETON_MM[one][1], 0.27)
        b = _mix(SKELETON_MM[other][0], SKELETON_MM[other][1], 0.27)
        cones.append(_cone((a[0], a[1], a[2] + 1), (b[0], b[1], b[2] + 1), 6.6, 6.4))
    thumb = SKELETON_MM["thumb"]
    cones.append(_cone((20, 17, 11), (50, 40, 19), 14.0, 11.5, 13))
    cones.append(_cone(thumb[0], thumb[1], RADII_MM["thumb"][0], RADII_MM["thumb"][1] + 0.5, 13))
    return cones


def _finger_cones(finger: str) -> list[_Cone]:
    """Each phalanx is two cones, thinnest in the middle; the last one ends in a pad that is fuller to the
    palm.
    """
    first_joint = 1 + 3 * FINGERS.index(finger)
    points, radii = SKELETON_MM[finger], RADII_MM[finger]
    cones = []
    for k in range(1 if finger == "thumb" else 0, 3):
        start, end, r0, r1 = points[k], points[k + 1], radii[k], radii[k + 1]
        if k == 2:  # stop one radius before the tip
            length = float(np.linalg.norm(np.subtract(end, start)))
            end = _mix(start, end, 1.0 - r1 / length)
        waist = 0.5 * (r0 + r1) - 0.35 * (k < 2)
        middle = _mix(start, end, 0.5)
        cones.append(_cone(start, middle, r0, waist + (0.5 if k == 2 else 0.0), first_joint + k))
        cones.append(_cone(middle, end, waist + (0.5 if k == 2 else 0.0), r1, first_joint + k))
    return cones


def _smooth_min(distances: list[Values], blend_m: float) -> Values:
    result = distances[0]
    for other in distances[1:]:
        overlap = np.maximum(blend_m - np.abs(result - other), 0.0) / blend_m
        result = np.minimum(result, other) - overlap**2 * blend_m / 4.0
    return result


class Surface:
    """The hand as a signed distance: negative inside. Fingers blend into the palm but not into each other."""

    def __init__(self) -> None:
        self.palm = _palm_cones()
        self.fingers = {finger: _finger_cones(finger) for finger in FINGERS}
        self.cones = self.palm + [cone for cones in self.fingers.values() for cone in cones]

    def distance(self, points: Points) -> Values:
        palm = _smooth_min([cone.distance(points) for cone in self.palm], 0.008)
        fingers = np.min([_smooth_min([cone.distance(points) for cone in cones], 0.002)
                          for cones in self.fingers.values()], axis=0)
        return np.round(_smooth_min([palm, fingers], 0.007), 9)

    def nearest(self, points: Points) -> Indices:
        """Which cone each point belongs to, int64[N]."""
        nearest: Indices = np.argmin(np.round([cone.distance(points) for cone in self.cones], 9), axis=0)
        return nearest

    def edge_length(self, points: Points) -> Values:
        """Wanted edge length, relative: short where the hand is thin, shorter still at the fingertips."""
        nearest = self.nearest(points)
        radius = np.array([cone.radius_at(points) for cone in self.cones])[nearest, np.arange(len(points))]
        to_tips = [np.linalg.norm(points - place(*SKELETON_MM[finger][3]), axis=1) for finger in FINGERS]
        to_tip = np.min(to_tips, axis=0)
        length: Values = np.clip(radius, 0.006, 0.0135) ** 0.75 * np.clip(0.62 + to_tip / 0.03, 0.0, 1.0)
        return length


def build_mesh(surface: Surface) -> tuple[Points, Faces]:
    """Marching cubes on the surface, cut behind the wrist, reduced to MANO's counts. Right hand, metres."""
    from skimage.measure import marching_cubes

    low = WRIST_M + np.array([-0.205, -0.062, -0.070])
    high = WRIST_M + np.array([-WRIST_CUT_MM / 1000.0, 0.035, 0.115])
    counts = np.ceil((high - low) / VOXEL_M).astype(int) + 1
    start = high - (counts - 1) * VOXEL_M
    axes = [start[k] + VOXEL_M * np.arange(counts[k]) for k in range(3)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    volume = np.round(surface.distance(grid), 7).reshape(counts)
    vertices, faces, _, _ = marching_cubes(volume, 0.0, spacing=(VOXEL_M,) * 3)
    return remesh(vertices.astype(np.float64) + start, faces.astype(np.int64), surface.distance,
                  surface.edge_length, face_count=FACES, boundary_count=WRIST_LOOP)


def pad_direction(finger: str) -> Points:
    """Where the pad faces at rest: out of the palm; the thumb faces across it, to the fingertips."""
    return np.array([-0.1, -0.62, -0.78]) if finger == "thumb" else np.array([0.0, -1.0, 0.0])


def flexion_axes() -> Points:
    """Unit axis of positive flexion (closing) of joints 1..15 at rest, float64[15, 3], right hand."""
    axes = []
    for finger in FINGERS:
        for k in range(3):
            bone = place(*SKELETON_MM[finger][k + 1]) - place(*SKELETON_MM[finger][k])
            axis = np.cross(bone, pad_direction(finger))
            axes.append(axis / np.linalg.norm(axis))
    return np.array(axes)
