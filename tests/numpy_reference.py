"""Plain numpy, float64 versions of the kernels, written from the formulas; what the kernels are compared with."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from beingh0_edge.retarget import HUBER_M, PAIR_WEIGHT, PINCH_FAR_M, PINCH_NEAR_M
from beingh0_edge.robot_hand import RobotHand

Array = npt.NDArray[Any]

PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
KEYPOINTS = (0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20)


def axis_angle_to_matrix(axis_angle: Array) -> Array:
    """Rodrigues' formula."""
    v = np.asarray(axis_angle, np.float64)
    angle = np.linalg.norm(v, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(v, -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*v.shape[:-1], 3, 3)
    # np.sinc(t) is sin(pi t) / (pi t) and 1 at 0
    first, second = np.sinc(angle / np.pi), 0.5 * np.sinc(0.5 * angle / np.pi) ** 2
    return np.eye(3) + first * cross + second * cross @ cross


def quaternion_to_matrix(quaternion: Array) -> Array:
    """Columns are the rotated axes: v' = v + 2 w (u x v) + 2 u x (u x v)."""
    q = np.asarray(quaternion, np.float64)
    q = q / np.linalg.norm(q, axis=-1, keepdims=True)
    w, u = q[..., :1, None], q[..., None, 1:]
    axes = np.broadcast_to(np.eye(3), (*q.shape[:-1], 3, 3))
    once = np.cross(u, axes)
    return np.swapaxes(axes + 2 * w * once + 2 * np.cross(u, once), -1, -2)


def rot6d_to_matrix(rot6d: Array, interleaved: bool) -> Array:
    d = np.asarray(rot6d, np.float64)
    a, b = (d[..., 0::2], d[..., 1::2]) if interleaved else (d[..., :3], d[..., 3:])
    x = a / np.linalg.norm(a, axis=-1, keepdims=True)
    y = b - (x * b).sum(-1, keepdims=True) * x
    y = y / np.linalg.norm(y, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], -1)


def upright(quaternion: Array) -> Array:
    """Of the two quaternions of a rotation, the one of length 1 with w >= 0."""
    q = np.asarray(quaternion, np.float64)
    return q / np.linalg.norm(q, axis=-1, keepdims=True) * np.where(q[..., :1] < 0, -1, 1)


def axis_angle_to_quaternion(axis_angle: Array) -> Array:
    v = np.asarray(axis_angle, np.float64)
    half = 0.5 * np.linalg.norm(v, axis=-1, keepdims=True)
    return upright(np.concatenate([np.cos(half), 0.5 * np.sinc(half / np.pi) * v], -1))


def quaternion_to_axis_angle(quaternion: Array) -> Array:
    q = upright(quaternion)
    w, u = q[..., :1], q[..., 1:]
    sine = np.linalg.norm(u, axis=-1, keepdims=True)
    return 2 * np.arctan2(sine, w) * u / np.maximum(sine, np.finfo(np.float64).tiny)


def matrix_to_quaternion(matrix: Array) -> Array:
    """The q whose rotation is nearest: it makes the sum of products of both matrices' entries, q^T n q, largest."""
    m = np.asarray(matrix, np.float64)
    n = np.empty((*m.shape[:-2], 4, 4))
    trace = np.trace(m, axis1=-2, axis2=-1)
    n[..., 1:, 1:] = m + np.swapaxes(m, -1, -2) - trace[..., None, None] * np.eye(3)
    n[..., 0, 0] = trace
    for i, (j, k) in enumerate(((1, 2), (2, 0), (0, 1)), 1):
        n[..., 0, i] = n[..., i, 0] = m[..., k, j] - m[..., j, k]
    return upright(np.linalg.eigh(n)[1][..., -1])


def matrix_to_axis_angle(matrix: Array) -> Array:
    return quaternion_to_axis_angle(matrix_to_quaternion(matrix))


def matrix_to_rot6d(matrix: Array, interleaved: bool) -> Array:
    columns = np.asarray(matrix)[..., :2]
    return (columns if interleaved else np.swapaxes(columns, -1, -2)).reshape(*columns.shape[:-2], 6)


def hand(arrays: dict[str, Array], rotations: Array, betas: Array, tips: tuple[int, ...]) -> tuple[Array, Array]:
    """One hand: matrices [16, 3, 3], betas [10] -> keypoints [21, 3], mesh [778, 3], neither centred nor moved."""
    a = {name: np.asarray(value, np.float64) for name, value in arrays.items()}
    shaped = a["v_template"] + a["shapedirs"] @ betas
    joints = a["J_regressor"] @ shaped
    rest = shaped + a["posedirs"] @ (rotations[1:] - np.eye(3)).reshape(135)
    world = np.tile(np.eye(4), (16, 1, 1))
    for j, parent in enumerate(PARENTS):
        local = np.eye(4)
        local[:3, :3] = rotations[j]
        local[:3, 3] = joints[j] - (joints[parent] if parent >= 0 else 0)
        world[j] = world[parent] @ local if parent >= 0 else local
    posed_joints = world[:, :3, 3].copy()
    world[:, :3, 3] -= np.einsum("jab,jb->ja", world[:, :3, :3], joints)
    blended = np.einsum("vj,jab->vab", a["weights"], world)
    mesh = np.einsum("vab,vb->va", blended[:, :3, :3], rest) + blended[:, :3, 3]
    return np.concatenate([posed_joints, mesh[list(tips)]])[list(KEYPOINTS)], mesh


def conv1d(x: Array, weight: Array, bias: Array, stride: int = 1, padding: int = 1, dilation: int = 1) -> Array:
    """x [T, inputs], weight [outputs, inputs, K], zeros around -> [frames, outputs]."""
    width = weight.shape[2]
    padded = np.pad(x, ((padding, padding), (0, 0)))
    frames = (len(padded) - dilation * (width - 1) - 1) // stride + 1
    at = np.arange(frames) * stride
    return bias + sum(padded[at + tap * dilation] @ weight[:, :, tap].T for tap in range(width))


def activate(x: Array, kind: str) -> Array:
    if kind == "relu":
        return np.maximum(x, 0)
    if kind == "silu":
        return x / (1 + np.exp(-x))
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def normalise(x: Array, kind: str, scale: Array | None, shift: Array | None) -> Array:
    """x [T, channels]. layer: of a frame; group: of 32 groups of channels over all frames; affine: fixed."""
    if kind == "none":
        return x
    if kind == "layer":
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    elif kind == "group":
        groups = x.reshape(len(x), 32, -1)
        mean, variance = groups.mean((0, 2), keepdims=True), groups.var((0, 2), keepdims=True)
        x = ((groups - mean) / np.sqrt(variance + 1e-6)).reshape(x.shape)
    return x * scale + shift


def nearest_bf16(x: Array) -> Array:
    bits = np.asarray(x, np.float32).view(np.uint32)
    return (bits + 0x7FFF + (bits >> 16 & 1) & 0xFFFF0000).view(np.float32)


def bf16_pairs(weight: Array) -> Array:
    """Each second input is read with the first one's bits below its own, and is what then comes nearest."""
    kept, bits = nearest_bf16(weight), weight[:, 1::2].view(np.uint32).astype(np.int64)
    below = (kept[:, : 2 * bits.shape[1]: 2].view(np.uint32) >> 16).astype(np.int64)
    upper = np.clip((bits & 0x7FFFFFFF) + 0x8000 - below >> 16, 0x0080, 0x7F7F)  # normal and finite
    kept[:, 1::2] = (bits & 0x80000000 | upper << 16 | below).astype(np.uint32).view(np.float32)
    return kept


def int8_steps(weight: Array) -> Array:
    """Steps of the largest of an output and tap. Where their errors add up, those nearest to the middle go the other
    way."""
    step = np.abs(weight).max(1, keepdims=True) / np.float32(127)
    exact = weight / np.maximum(step, np.finfo(np.float32).tiny)
    whole = np.rint(exact)
    sums = (whole - exact).sum(1, keepdims=True, dtype=np.float64)
    way = np.where(sums > 0, -1, 1)
    rank = np.argsort(np.argsort(way * (whole - exact), 1, kind="stable"), 1)
    other = whole + way * (rank < np.rint(np.abs(sums)))
    return np.where(np.abs(other) <= 127, other, whole) * step


class GrqPart:
    """One part of a motion tokenizer, with the methods of the kernel's; one block at a time, float64."""

    def __init__(self, *, codebooks: Array, mean: Array, std: Array, quantizers: int, window: int, frames: int,
                 positions: int, id_offset: int, weights: str = "float32", bf16_rows: bool = False) -> None:
        """bf16_rows: beside bf16 weights, what they are multiplied with is rounded to bf16 too."""
        self.books, self.mean, self.std = (np.asarray(a, np.float64) for a in (codebooks, mean, std))
        self.quantizers, self.window, self.frames, self.positions = quantizers, window, frames, positions
        self.id_offset, self.storage, self.bf16_rows = id_offset, weights, bf16_rows
        self.layers: dict[bool, list[Callable[[Array], Array]]] = {True: [], False: []}

    def _kept(self, weight: Array, storage: str) -> Array:
        if storage == "bfloat16":
            return (nearest_bf16 if self.bf16_rows else bf16_pairs)(weight)
        return int8_steps(weight) if storage == "int8" else weight

    def _rows(self, x: Array, storage: str, non_negative: bool = False) -> Array:
        if storage == "bfloat16" and self.bf16_rows:
            return nearest_bf16(x).astype(np.float64)
        if storage != "int8":
            return x
        # 7 bits if none is negative, else 15, or as many as sums of them with int8 in 32 bits allow
        steps = 127 if non_negative else min(2**15 - 1, (2**31 - 1) // 127 // x.shape[1])
        step = np.maximum(np.abs(x).max(1, keepdims=True), 1e-30) / steps
        return np.rint(x / step) * step

    def add_conv(self, *, encoder: bool, weight: Array, bias: Array, stride: int = 1, padding: int = 1,
                 upsample: bool = False, relu: bool = False) -> None:
        """Layers that meet features keep float32, the one that meets the codebook at least bf16."""
        storage, first = self.storage, not self.layers[encoder]
        if first if encoder else len(weight) == len(self.mean):
            storage = "float32"
        elif first and storage == "int8":
            storage = "bfloat16"
        kept = self._kept(weight, storage).astype(np.float64)

        def layer(x: Array) -> Array:
            x = self._rows(x, storage)
            y = conv1d(np.repeat(x, 2, 0) if upsample else x, kept, bias, stride, padding)
            return np.maximum(y, 0) if relu else y

        self.layers[encoder].append(layer)

    def add_residual(self, *, encoder: bool, weight1: Array, bias1: Array, weight2: Array, bias2: Array, dilation: int,
                     activation: str, norm: str = "none", scale1: Array | None = None, shift1: Array | None = None,
                     scale2: Array | None = None, shift2: Array | None = None) -> None:
        kept1, kept2 = (self._kept(weight, self.storage).astype(np.float64) for weight in (weight1, weight2))

        def inner(x: Array, scale: Array | None, shift: Array | None) -> Array:
            return self._rows(activate(normalise(x, norm, scale, shift), activation), self.storage,
                              activation == "relu")

        def layer(x: Array) -> Array:
            y = conv1d(inner(x, scale1, shift1), kept1, bias1, padding=dilation, dilation=dilation)
            return x + conv1d(inner(y, scale2, shift2), kept2, bias2, padding=0)

        self.layers[encoder].append(layer)

    def latent(self, features: Array) -> Array:
        """[window, dims] -> [positions, code_dim]; the frames that pad are zeros after normalisation."""
        x = np.zeros((self.frames, features.shape[1]))
        x[:self.window] = (features - self.mean) / (self.std + 1e-6)
        for layer in self.layers[True]:
            x = layer(x)
        return x

    def encode(self, features: Array) -> tuple[Array, Array]:
        """[window, dims] -> ids [groups, positions, quantizers], and how much nearer each code was than the next."""
        return self.quantize(self.latent(features))

    def quantize(self, latent: Array) -> tuple[Array, Array]:
        """[positions, code_dim] -> as `encode`."""
        latent, books = np.asarray(latent, np.float64), self.books
        groups, count, codes, dim = books.shape
        ids = np.zeros((groups, self.positions, self.quantizers), np.int64)
        margin = np.zeros(ids.shape)
        for group in range(groups):
            rest = latent[:, group * dim: (group + 1) * dim].copy()
            for q in range(self.quantizers):
                book = books[group, q if count > 1 else 0]
                distance = ((rest[:, None] - book) ** 2).sum(-1)
                code = distance.argmin(1)
                margin[group, :, q] = np.diff(np.sort(distance, 1)[:, :2], axis=1)[:, 0]
                ids[group, :, q] = self.id_offset + (q * codes if count > 1 else 0) + code
                rest -= book[code]
        return ids, margin

    def dequantize(self, ids: Array) -> Array:
        """[groups, positions, quantizers] -> [positions, code_dim]; the place of an id says which quantizer's it is."""
        groups, count, codes, _ = self.books.shape
        code = (ids - self.id_offset) % codes
        return np.concatenate([sum(self.books[g, q if count > 1 else 0][code[g, :, q]] for q in range(self.quantizers))
                               for g in range(groups)], -1)

    def decode(self, ids: Array) -> Array:
        """[groups, positions, quantizers] -> [window, dims]."""
        x = self.dequantize(ids)
        for layer in self.layers[False]:
            x = layer(x)
        return x[:self.window] * self.std + self.mean


# ---- robot hands ----

HUMAN = {"thumb": (1, 4), "index": (5, 8), "middle": (9, 12), "ring": (13, 16), "little": (17, 20)}  # base, tip


def robot_frames(robot: RobotHand, q: Array) -> list[Array]:
    """Where every link is at q [J]: float64[4, 4] each; the last one is the palm, so that -1 finds it."""
    angles = robot.multipliers * q[robot.link_joints] + robot.offsets_rad
    frames = [*np.tile(np.eye(4), (len(angles) + 1, 1, 1))]
    for i, turn in enumerate(axis_angle_to_matrix(angles[:, None] * robot.axes)):
        frames[i][:3, :3], frames[i][:3, 3] = turn, robot.origins_m[i]
        frames[i] = frames[robot.parents[i]] @ frames[i]
    return frames


def robot_fingers(robot: RobotHand, q: Array) -> dict[str, Array]:
    """Finger -> its four points [4, 3] at q, palm frame."""
    frames = robot_frames(robot, q)
    return {finger: np.array([(frames[link] @ [*point, 1.0])[:3] for link, point in points])
            for finger, points in robot.fingers.items()}


def robot_rods(robot: RobotHand, q: Array) -> dict[str, Array]:
    """Finger of known radius -> [4, 3]: as its points, but the last lies a radius (at most 0.9 of the way) towards the
    third when the hand is open, and moves with the fingertip's link.
    """
    opened, now, rods = robot_fingers(robot, robot.open_rad), robot_fingers(robot, q), {}
    open_frames, frames = robot_frames(robot, robot.open_rad), robot_frames(robot, q)
    for finger in (f for f in robot.fingers if f in robot.radius_m):
        back, link = opened[finger][2] - opened[finger][3], robot.fingers[finger][3][0]
        pad = opened[finger][3] + min(robot.radius_m[finger] / np.linalg.norm(back), 0.9) * back
        moved = frames[link] @ np.linalg.inv(open_frames[link]) @ [*pad, 1.0]
        rods[finger] = np.array([*now[finger][:3], moved[:3]])
    return rods


def segment_distance(a: Array, b: Array) -> float:
    """Of segments [2, 3]: the least of |w + s u - t v| over the unit square lies inside or on one of its edges."""
    u, v, w = a[1] - a[0], b[1] - b[0], a[0] - b[0]
    places = [np.linalg.lstsq(np.stack([u, -v], 1), -w, rcond=None)[0]]
    for end in (0.0, 1.0):
        places.append(np.array([end, v @ (w + end * u) / (v @ v)]))
        places.append(np.array([u @ (end * v - w) / (u @ u), end]))
    return float(min(np.linalg.norm(w + s * u - t * v) for s, t in np.clip(places, 0.0, 1.0)))


def rod_distances(robot: RobotHand, q: Array) -> tuple[Array, Array]:
    """Distances between the watched parts of fingers, and the sums of their radii: the thumb's outer two rods against
    all of the others', the outer two of neighbours.
    """
    rods = robot_rods(robot, q)
    long = [finger for finger in rods if finger != "thumb"]
    couples = [("thumb", finger, 0) for finger in long if "thumb" in rods]
    couples += [(one, two, 1) for one, two in itertools.pairwise(long)]
    distances = [(segment_distance(rods[one][a:a + 2], rods[two][b:b + 2]), robot.radius_m[one] + robot.radius_m[two])
                 for one, two, first in couples for a in (1, 2) for b in range(first, 3)]
    return np.array(distances).reshape(-1, 2)[:, 0], np.array(distances).reshape(-1, 2)[:, 1]


def retarget_terms(robot: RobotHand, opened: Array, to_palm: Array, human: Array, previous: Array, q: Array, *,
                   objective: str, pinch_weight: float, smoothness: float, margin: float | None,
                   scale: float | None = None, wrist: Array | None = None) -> dict[str, float]:
    """The terms of what retargeting minimises (m^2). opened, human [21, 3]: the open and the present human hand in the
    wrist frame; to_palm [3, 3] turns that into the palm frame, where `wrist` is the human's wrist.
    """
    now, rest = robot_fingers(robot, q), robot_fingers(robot, robot.open_rad)
    terms = dict.fromkeys(("near", "far", "pinch", "pairs"), 0.0)
    terms["smoothness"] = 0.5 * smoothness * float(((q - previous) ** 2).sum())
    reach = {f: (to_palm @ (opened[HUMAN[f][1]] - opened[HUMAN[f][0]]), rest[f][3] - rest[f][0]) for f in rest}
    ratio = {f: np.linalg.norm(b) / np.linalg.norm(a) for f, (a, b) in reach.items()}
    long = [finger for finger in rest if finger != "thumb"]
    if scale is None:
        scale = float(np.mean([ratio[f] for f in long])) if objective == "vectors" else 1.0
    if wrist is None:
        wrist = np.mean([rest[f][0] - scale * to_palm @ (opened[HUMAN[f][0]] - opened[0]) for f in long], axis=0)
    for finger, (a, b) in reach.items():
        base, tip = HUMAN[finger]
        if objective == "fingers":  # turned by the smallest angle that takes the open human finger to the robot's
            axis = np.cross(a, b) / np.linalg.norm(np.cross(a, b))
            turn = axis_angle_to_matrix(axis * np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b))
            target = rest[finger][0] + ratio[finger] * turn @ to_palm @ (human[tip] - human[base])
        else:
            target = wrist + scale * to_palm @ (human[tip] - human[0])
        error = float(np.linalg.norm(now[finger][3] - target))
        if error <= HUBER_M:
            terms["near"] += 0.5 * error**2
        else:
            terms["far"] += HUBER_M * (error - 0.5 * HUBER_M)
        if finger != "thumb" and "thumb" in now:
            gap = human[tip] - human[4]
            x = min(max((PINCH_FAR_M - np.linalg.norm(gap)) / (PINCH_FAR_M - PINCH_NEAR_M), 0.0), 1.0)
            missed = now[finger][3] - now["thumb"][3] - to_palm @ gap
            terms["pinch"] += 0.5 * pinch_weight * (6 * x**5 - 15 * x**4 + 10 * x**3) * float(missed @ missed)
    if margin is not None:
        (distances, radii), allowed = rod_distances(robot, q), rod_distances(robot, robot.open_rad)[0]
        missing = np.maximum(np.minimum(radii + margin, allowed), 1e-4) - distances
        terms["pairs"] = 0.5 * PAIR_WEIGHT * float((np.maximum(missing, 0.0) ** 2).sum())
    return terms
