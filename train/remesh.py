"""Turn a dense triangle mesh of an implicit surface into a small, even one with an exact face count.

The mesh has one planar boundary loop (the wrist). Every decision compares rounded numbers, so the result does
not depend on the last bit of a CPU's exp() or sqrt().
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]  # [N, 3]
Values = npt.NDArray[np.float64]
Faces = npt.NDArray[np.int64]  # [N, 3]
Indices = npt.NDArray[np.int64]
Field = Callable[[Points], Values]

MIN_NORMAL_DOT = 0.3  # a collapse or flip may not turn a face further than about 70 degrees
GRADIENT_STEP_M = 1e-4
STAGES = (3.0, 1.8, 1.3, 1.1)  # face counts, in units of the final one, at which the mesh is relaxed


class _Mesh:
    """Vertices, triangles and, per vertex, the triangles around it. Removed faces are None."""

    def __init__(self, vertices: Points, faces: Faces) -> None:
        self.points = [np.asarray(p) for p in vertices]
        self.faces: list[tuple[int, int, int] | None] = [(int(a), int(b), int(c)) for a, b, c in faces]
        self.around: list[set[int]] = [set() for _ in self.points]
        for index, face in enumerate(self.faces):
            assert face is not None
            for vertex in face:
                self.around[vertex].add(index)
        self.count = len(self.faces)

    def face(self, index: int) -> tuple[int, int, int]:
        face = self.faces[index]
        assert face is not None
        return face

    def neighbours(self, vertex: int) -> set[int]:
        return {v for f in self.around[vertex] for v in self.face(f)} - {vertex}

    def normal(self, a: int, b: int, c: int) -> Points:
        p, q, r = self.points[a], self.points[b], self.points[c]
        u, v = q - p, r - p
        return np.array([u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]])

    def keeps_facing(self, old: tuple[int, int, int], new: tuple[int, int, int]) -> bool:
        before, after = self.normal(*old), self.normal(*new)
        scale = float(np.sqrt((before @ before) * (after @ after)))
        return round(float(before @ after) - MIN_NORMAL_DOT * scale, 15) > 0.0

    def boundary(self) -> list[int]:
        """The one boundary loop, in order along the faces, from its lowest vertex."""
        following: dict[int, int] = {}
        directed = {(f[i], f[(i + 1) % 3]) for f in self.faces if f is not None for i in range(3)}
        for a, b in directed:
            if (b, a) not in directed:
                if a in following:
                    raise ValueError("the boundary touches itself")
                following[a] = b
        if not following:
            raise ValueError("the mesh has no boundary")
        loop = [min(following)]
        while following[loop[-1]] != loop[0]:
            loop.append(following[loop[-1]])
        if len(loop) != len(following):
            raise ValueError("the mesh has more than one boundary loop")
        return loop

    def collapse(self, keep: int, drop: int, position: Points) -> bool:
        """Merge `drop` into `keep`. False, and nothing changed, when that would fold or pinch the surface."""
        shared_faces = self.around[keep] & self.around[drop]
        if len(self.neighbours(keep) & self.neighbours(drop)) != len(shared_faces):
            return False
        before = self.points[keep], self.points[drop]
        old_normals = []
        for index in sorted((self.around[keep] | self.around[drop]) - shared_faces):
            old_normals.append((self.face(index), self.normal(*self.face(index))))
        self.points[keep] = self.points[drop] = position
        for face, old in old_normals:
            new = self.normal(*face)
            limit = MIN_NORMAL_DOT * float(np.sqrt((old @ old) * (new @ new)))
            if round(float(old @ new) - limit, 15) <= 0.0:
                self.points[keep], self.points[drop] = before
                return False
        for index in shared_faces:
            for vertex in self.face(index):
                self.around[vertex].discard(index)
            self.faces[index] = None
            self.count -= 1
        for index in self.around[drop]:
            a, b, c = (keep if v == drop else v for v in self.face(index))
            self.faces[index] = (a, b, c)
            self.around[keep].add(index)
        self.around[drop] = set()
        return True

    def even_out_valences(self, fixed: set[int]) -> None:
        """Flip edges where that brings the four vertices closer to six neighbours (four on the boundary)."""
        wanted = {v: 4 if v in fixed else 6 for v in range(len(self.points))}
        valence = {v: len(self.neighbours(v)) for v in range(len(self.points)) if self.around[v]}
        for a in sorted(valence):
            for b in sorted(self.neighbours(a)):
                pair = sorted(self.around[a] & self.around[b])
                if b < a or len(pair) != 2:
                    continue
                (c,), (d,) = ({*self.face(f)} - {a, b} for f in pair)
                if d in self.neighbours(c):
                    continue

                def cost(change: int, ends: tuple[int, int] = (a, b), tips: tuple[int, int] = (c, d)) -> int:
                    return (sum((valence[v] - change - wanted[v]) ** 2 for v in ends)
                            + sum((valence[v] + change - wanted[v]) ** 2 for v in tips))

                if cost(1) >= cost(0) or min(valence[a], valence[b]) <= 3:
                    continue
                first, second = (self.face(f) for f in pair)
                if first[(first.index(a) + 1) % 3] != b:
                    first, second, c, d = second, first, d, c
                new_first, new_second = (a, d, c), (b, c, d)
                if not all(self.keeps_facing(old, new) for old in (first, second)
                           for new in (new_first, new_second)):
                    continue
                for index in pair:
                    for vertex in self.face(index):
                        self.around[vertex].discard(index)
                for index, face in zip(pair, (new_first, new_second), strict=True):
                    self.faces[index] = face
                    for vertex in face:
                        self.around[vertex].add(index)
                for vertex, change in ((a, -1), (b, -1), (c, 1), (d, 1)):
                    valence[vertex] += change

    def relax(self, distance: Field, size: Field, fixed: set[int]) -> None:
        """Move free vertices along the surface towards the size-weighted middle of their faces."""
        moving = [v for v in range(len(self.points)) if self.around[v] and v not in fixed]
        faces = np.array([f for f in self.faces if f is not None])
        points = np.array(self.points)
        corners = points[faces]
        centres = corners.mean(axis=1)
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        weight = area / size(centres) ** 2
        total, summed = np.zeros(len(points)), np.zeros((len(points), 3))
        for corner in range(3):
            np.add.at(total, faces[:, corner], weight)
            np.add.at(summed, faces[:, corner], weight[:, None] * centres)
        old = points[moving]
        normal = gradient(distance, old)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        step = summed[moving] / total[moving, None] - old
        step -= (step * normal).sum(axis=1, keepdims=True) * normal
        new = project(distance, old + 0.7 * step)
        for vertex, point in zip(moving, np.round(new, 9), strict=True):
            self.points[vertex] = point


def gradient(field: Field, points: Points) -> Points:
    """Central differences of `field`, float64[N, 3]."""
    result = np.empty_like(points)
    for axis in range(3):
        step = np.zeros(3)
        step[axis] = GRADIENT_STEP_M
        result[:, axis] = (field(points + step) - field(points - step)) / (2 * GRADIENT_STEP_M)
    return result


def project(distance: Field, points: Points) -> Points:
    """The points moved to the zero level of `distance`."""
    for _ in range(4):
        slope = gradient(distance, points)
        points = points - distance(points)[:, None] * slope / (slope**2).sum(axis=1, keepdims=True)
    return points


def _shrink_boundary(mesh: _Mesh, corners: int) -> None:
    """Collapse the shortest boundary edges until `corners` remain, then space them evenly."""
    loop = mesh.boundary()
    outline = np.array([mesh.points[v] for v in loop])
    while len(loop) > corners:
        lengths = [round(float(np.linalg.norm(mesh.points[a] - mesh.points[b])), 9)
                   for a, b in zip(loop, loop[1:] + loop[:1], strict=True)]
        for index in sorted(range(len(loop)), key=lambda i: (lengths[i], i)):
            keep, drop = loop[index], loop[(index + 1) % len(loop)]
            if mesh.collapse(keep, drop, (mesh.points[keep] + mesh.points[drop]) / 2):
                loop.remove(drop)
                break
        else:
            raise ValueError(f"the boundary does not shrink below {len(loop)} vertices")
    closed = np.vstack([outline, outline[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    start = int(np.argmin(np.round(np.linalg.norm(outline - mesh.points[loop[0]], axis=1), 9)))
    wanted = (along[start] + np.arange(corners) * along[-1] / corners) % along[-1]
    for vertex, position in zip(loop, wanted, strict=True):
        mesh.points[vertex] = np.array([np.interp(position, along, closed[:, axis]) for axis in range(3)])


def _collapse_to(mesh: _Mesh, count: int, size: Field, fixed: set[int]) -> None:
    """Collapse the edges that are shortest for their place until `count` faces remain."""
    wanted = size(np.array(mesh.points)).tolist()

    def cost(a: int, b: int) -> float:
        step = mesh.points[a] - mesh.points[b]
        return round(float(np.sqrt(step @ step)) * 2.0 / float(wanted[a] + wanted[b]), 6)

    current = {(v, other): cost(v, other)
               for v in range(len(mesh.points)) for other in mesh.neighbours(v) if v < other}
    queue = [(value, *pair) for pair, value in current.items()]
    heapq.heapify(queue)
    while mesh.count > count:
        if not queue:
            raise ValueError(f"the mesh does not shrink below {mesh.count} faces")
        value, keep, drop = heapq.heappop(queue)
        if current.get((keep, drop)) != value or (keep in fixed and drop in fixed):
            continue
        if drop in fixed:
            keep, drop = drop, keep
        position = mesh.points[keep] if keep in fixed else (mesh.points[keep] + mesh.points[drop]) / 2
        ring = mesh.neighbours(drop)
        if not mesh.collapse(keep, drop, position):
            continue
        for other in ring:
            current.pop((min(drop, other), max(drop, other)), None)
        if keep not in fixed:
            wanted[keep] = (wanted[keep] + wanted[drop]) / 2
        for other in sorted(mesh.neighbours(keep)):
            pair = (min(keep, other), max(keep, other))
            current[pair] = cost(*pair)
            heapq.heappush(queue, (current[pair], *pair))


def remesh(vertices: Points, faces: Faces, distance: Field, size: Field, *, face_count: int,
           boundary_count: int) -> tuple[Points, Faces]:
    """An even mesh of the same surface with exactly `face_count` faces and `boundary_count` boundary edges.

    vertices float64[V, 3] metres, faces int64[F, 3] (dense, one boundary loop); distance: signed distance of
    points; size: wanted relative edge length at points. Returns vertices and faces. Raises ValueError if it
    cannot.
    """
    mesh = _Mesh(vertices, faces)
    _shrink_boundary(mesh, boundary_count)
    fixed = set(mesh.boundary())
    for stage in (*STAGES, 1.0):
        _collapse_to(mesh, min(mesh.count, 2 * round(face_count * stage / 2)), size, fixed)
        for _ in range(8 if stage == 1.0 else 2):
            mesh.even_out_valences(fixed)
            mesh.relax(distance, size, fixed)
    used = [v for v in range(len(mesh.points)) if mesh.around[v]]
    renumber = {v: i for i, v in enumerate(used)}
    kept = np.array([[renumber[v] for v in f] for f in mesh.faces if f is not None], dtype=np.int64)
    return np.array([mesh.points[v] for v in used]), kept
