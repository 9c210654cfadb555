"""Forward kinematics of the human hand: pose and shape to 21 keypoints, and to the mesh on request."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from beingh0_edge import _kernels, safe_pickle
from beingh0_edge.arrays import FLOAT32, ArrayLike, Workers, as_array, as_float32, output, shares
from beingh0_edge.errors import BundleError
from beingh0_edge.rotations import Rot6dLayout
from beingh0_edge.types import SIDES, FloatArray, IntArray, Side

_log = logging.getLogger(__name__)

Weights = Literal["float32", "bfloat16", "int8"]

VERTICES, FACES, JOINTS, KEYPOINTS, BETAS, POSE_DIRS = 778, 1538, 16, 21, 10, 135

# Vertices that stand for the finger tips, thumb to little. The two conventions differ by a few millimetres;
# Being-H0 was trained with manotorch's.
TIP_VERTICES: dict[str, dict[Side, tuple[int, int, int, int, int]]] = {
    "manotorch": {"right": (745, 317, 444, 556, 673), "left": (745, 317, 445, 556, 673)},
    "smplx": {"right": (744, 320, 443, 554, 671), "left": (744, 320, 443, 554, 671)},
}

SHAPES: dict[str, tuple[int, ...]] = {
    "v_template": (VERTICES, 3), "shapedirs": (VERTICES, 3, BETAS), "posedirs": (VERTICES, 3, POSE_DIRS),
    "J_regressor": (JOINTS, VERTICES), "weights": (VERTICES, JOINTS), "kintree_table": (2, JOINTS),
    "f": (FACES, 3), "hands_components": (45, 45), "hands_mean": (45,)}
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
_LONGEST_AXIS_M = (0.02, 1.0)  # a hand in metres; outside, the file is in other units
_WEIGHT_SUM_TOLERANCE = 1e-3  # float32 rows of MANO sum to one within 1e-6

_HANDS_PER_THREAD = 32  # fewer are done before another thread has woken


@dataclass(frozen=True, eq=False)
class HandPoints:
    """What forward kinematics gives. Metres.

    joints    float32[..., 21, 3]: wrist, thumb x4, index x4, middle x4, ring x4, little x4, base to tip
    vertices  float32[..., 778, 3], or None unless asked for
    jacobian  float32[..., 21, 3, P], joints by pose numbers (metres per radian), or None unless asked for
    """

    joints: FloatArray
    vertices: FloatArray | None = None
    jacobian: FloatArray | None = None


class HandModel:
    """A MANO-shaped hand (Romero et al. 2017) of one side.

    Pose order is MANO's: wrist, then index, middle, little, ring, thumb with three joints each. Thread safe.
    """

    def __init__(self, arrays: dict[str, ArrayLike], side: Side = "right", *, source: str = "hand model",
                 pose_blends: Weights = "float32", threads: int = 1) -> None:
        """arrays: the keys of `SHAPES`, as in a MANO file. Raises BundleError naming `source`.

        pose_blends  how the mesh's pose blend shapes are kept, "float32", "bfloat16" or "int8": a half or a quarter
                     of the bytes a mesh reads. joints do not depend on it; docs/kernels.md has the vertices' error
        threads      large batches are shared among at most this many
        """
        if side not in SIDES:
            raise ValueError(f"side: expected 'left' or 'right', got {side!r}")
        self._workers = Workers(threads)
        checked = _check(arrays, source)
        self.side: Side = side
        self.faces: IntArray = np.ascontiguousarray(checked["f"], np.int32)
        self.template_m: FloatArray = np.ascontiguousarray(checked["v_template"], np.float32)
        self.mean_pose_rad: FloatArray = np.ascontiguousarray(checked["hands_mean"], np.float32)
        self.components: FloatArray = np.ascontiguousarray(checked["hands_components"], np.float32)
        self.shape_dirs: FloatArray = np.ascontiguousarray(checked["shapedirs"], np.float32)
        self.skin_weights: FloatArray = np.ascontiguousarray(checked["weights"], np.float32)
        for array in (self.faces, self.template_m, self.mean_pose_rad, self.components, self.shape_dirs,
                      self.skin_weights):
            array.flags.writeable = False
        self._kernel = _kernels.HandModel(
            v_template=self.template_m, shapedirs=self.shape_dirs, weights=self.skin_weights,
            posedirs=np.ascontiguousarray(checked["posedirs"], np.float32),
            j_regressor=np.ascontiguousarray(checked["J_regressor"], np.float32),
            components=self.components, mean_pose=self.mean_pose_rad, parents=np.array(PARENTS, np.int32),
            pose_blends=pose_blends,
            tips=np.array([TIP_VERTICES[name][side] for name in TIP_VERTICES], np.int32))

    @classmethod
    def load(cls, path: str | Path, side: Side = "right", *, pose_blends: Weights = "float32",
             threads: int = 1) -> HandModel:
        """Read a hand from .npz (MANO's keys) or from a MANO pickle; options as in the constructor.

        A file of ours says its side, and another one is refused; MANO's do not say. Nothing in a pickle is executed.
        Raises BundleError naming the file, with what was got and expected.
        """
        start = time.perf_counter()
        path = Path(path)
        arrays = _read(path)
        if (found := str(arrays.pop("side", side))) != side:
            raise BundleError(f"{path}: expected a {side} hand, got a {found} one", str(path))
        model = cls(arrays, side, source=str(path), pose_blends=pose_blends, threads=threads)
        _log.info("loaded hand model %s (%s) in %.3f s", path, side, time.perf_counter() - start)
        return model

    @classmethod
    def load_pair(cls, left: str | Path, right: str | Path) -> dict[Side, HandModel]:
        """Both hands. Logs a warning if the left shape basis is not mirrored, a defect of some MANO_LEFT files."""
        models: dict[Side, HandModel] = {"left": cls.load(left, "left"), "right": cls.load(right, "right")}
        if left_basis_is_unmirrored(models["left"], models["right"]):
            _log.warning("%s: shapedirs has the x sign of the right hand, so betas deform this left hand "
                         "wrongly; it is used as it is", left)
        return models

    def forward(self, pose: ArrayLike, betas: ArrayLike | None = None, trans: ArrayLike | None = None, *,
                flat_hand_mean: bool = True, center: bool = True, tips: str = "manotorch",
                vertices: bool = False, pca_components: int | None = None, jacobian: bool = False,
                out: HandPoints | None = None) -> HandPoints:
        """Pose to keypoints.

        pose   float[..., 48]: axis-angle of wrist, then fingers, radians; or float[..., 3 + pca_components]
        betas  float[10] for all or float[..., 10]; None means zeros
        trans  float[3] or float[..., 3], metres, added at the end
        flat_hand_mean  False adds the model's mean pose to the fingers
        center  True puts the wrist joint at the origin, so that trans is its position; False is classic MANO
        tips   "manotorch" (as Being-H0) or "smplx"
        jacobian  also the exact derivative of joints by the numbers of pose: [..., 21, 3, 48 or 3 + pca_components]
        out    an earlier result of the same shape to be written over and returned; nothing else is allocated
        Arrays may be numpy's or anything in CPU memory with __dlpack__, such as torch tensors; float32 is not copied.
        Raises: ValueError for another shape, a value that is not finite, or one so large that the result is not.
        """
        width = 48 if pca_components is None else 3 + pca_components
        if pca_components is not None and not 1 <= pca_components <= 45:
            raise ValueError(f"pca_components: expected 1 to 45, got {pca_components}")
        array = _floats("pose", pose, (width,))
        batch = array.shape[:-1]
        kind, shape = ("axis_angle", (-1, JOINTS, 3)) if pca_components is None else ("pca", (-1, width))
        return self._forward(array.reshape(shape), kind, batch, betas, trans, not flat_hand_mean, center, tips,
                             vertices, jacobian, out)

    def forward_rotmats(self, rotations: ArrayLike, betas: ArrayLike | None = None,
                        trans: ArrayLike | None = None, *, center: bool = True, tips: str = "manotorch",
                        vertices: bool = False, jacobian: bool = False, out: HandPoints | None = None) -> HandPoints:
        """As `forward`, from rotation matrices float[..., 16, 3, 3]: wrist, then fingers; used as given.

        jacobian  by 16 rotation vectors, [..., 21, 3, 48]: each turns its joint further in the frame of the joint's
                  parent, R -> exp(delta) R
        """
        array = _floats("rotations", rotations, (JOINTS, 3, 3))
        return self._forward(array.reshape(-1, JOINTS, 3, 3), "matrix", array.shape[:-3], betas, trans, False, center,
                             tips, vertices, jacobian, out)

    def forward_rot6d(self, rot6d: ArrayLike, betas: ArrayLike | None = None, trans: ArrayLike | None = None, *,
                      layout: Rot6dLayout = "interleaved", center: bool = True, tips: str = "manotorch",
                      vertices: bool = False, jacobian: bool = False, out: HandPoints | None = None) -> HandPoints:
        """As `forward_rotmats`, from 6D rotations float[..., 16, 6] in either layout of `rotations`."""
        if layout not in ("interleaved", "columns"):
            raise ValueError(f"layout: expected 'interleaved' or 'columns', got {layout!r}")
        array = _floats("rot6d", rot6d, (JOINTS, 6))
        return self._forward(array.reshape(-1, JOINTS, 6), f"rot6d_{layout}", array.shape[:-2], betas, trans, False,
                             center, tips, vertices, jacobian, out)

    def joints_from_rotmats(self, wrist: ArrayLike, fingers: ArrayLike, betas: ArrayLike | None = None,
                            trans: ArrayLike | None = None) -> FloatArray:
        """float32[..., 21, 3], wrist-centred, from wrist float[..., 3, 3] and fingers float[..., 15, 3, 3]."""
        wrist = as_array(wrist)
        rotations = np.concatenate([wrist[..., None, :, :], as_array(fingers)], -3)
        return self.forward_rotmats(rotations, betas, trans).joints

    def _forward(self, pose: FloatArray, kind: str, batch: tuple[int, ...], betas: ArrayLike | None,
                 trans: ArrayLike | None, mean: bool, center: bool, tips: str, vertices: bool, jacobian: bool,
                 out: HandPoints | None) -> HandPoints:
        if tips not in TIP_VERTICES:
            raise ValueError(f"tips: expected one of {', '.join(TIP_VERTICES)}, got {tips!r}")
        shape = _NO_BETAS
        if betas is not None:
            shape = _floats("betas", betas, (BETAS,))
            if shape.ndim > 1:
                shape = _broadcast("betas", shape, batch)
        offset = None if trans is None else _broadcast("trans", _floats("trans", trans, (3,)), batch)
        width = pose.shape[-1] if kind == "pca" else 3 * JOINTS
        joints = output("out.joints", (*batch, KEYPOINTS, 3), out.joints if out else None)
        mesh = output("out.vertices", (*batch, VERTICES, 3), out.vertices if out else None) if vertices else None
        slope = None
        if jacobian:
            slope = output("out.jacobian", (*batch, KEYPOINTS, 3, width), out.jacobian if out else None)
        if out is None or out.vertices is not mesh or out.jacobian is not slope:
            out = HandPoints(joints, mesh, slope)
        flat = joints if len(batch) == 1 else joints.reshape(-1, KEYPOINTS, 3)
        flat_mesh = mesh if mesh is None or len(batch) == 1 else mesh.reshape(-1, VERTICES, 3)
        flat_slope = slope if slope is None or len(batch) == 1 else slope.reshape(-1, KEYPOINTS, 3, width)
        if self._workers.threads == 1 or len(pose) < 2 * _HANDS_PER_THREAD:
            self._kernel.forward(pose, shape, offset, kind, mean, center, _TIP_SETS[tips], flat, flat_mesh, flat_slope)
            return out

        def share(part: slice) -> None:
            self._kernel.forward(
                pose[part], shape[part] if shape.ndim > 1 else shape, None if offset is None else offset[part], kind,
                mean, center, _TIP_SETS[tips], flat[part], None if flat_mesh is None else flat_mesh[part],
                None if flat_slope is None else flat_slope[part])

        parts = shares(len(pose), self._workers.threads, _HANDS_PER_THREAD)
        self._workers.run([lambda part=part: share(part) for part in parts])  # type: ignore[misc]
        return out


_NO_BETAS = np.zeros(BETAS, np.float32)
_TIP_SETS = {name: i for i, name in enumerate(TIP_VERTICES)}


def _floats(name: str, value: ArrayLike, tail: tuple[int, ...]) -> FloatArray:
    if type(value) is np.ndarray and value.dtype is FLOAT32 and value.shape[-len(tail):] == tail \
            and value.flags.c_contiguous:
        return value
    array = as_array(value)
    if array.dtype.kind not in "fiu" or array.shape[array.ndim - len(tail):] != tail:
        raise ValueError(f"{name}: expected float[..., {', '.join(map(str, tail))}], "
                         f"got {array.dtype}{list(array.shape)}")
    return as_float32(array)  # that it is finite, the kernel checks


def _broadcast(name: str, value: FloatArray, batch: tuple[int, ...]) -> FloatArray:
    try:
        full = np.broadcast_to(value, (*batch, value.shape[-1]))
    except ValueError:
        raise ValueError(f"{name}: expected [{value.shape[-1]}] or {[*batch, value.shape[-1]]}, "
                         f"got {list(value.shape)}") from None
    return np.ascontiguousarray(full.reshape(-1, value.shape[-1]))


def _read(path: Path) -> dict[str, ArrayLike]:
    if not path.is_file():
        raise BundleError(f"{path}: no such file", str(path))
    if path.suffix.lower() != ".npz":
        return safe_pickle.load_mano(path, SHAPES)
    try:
        # numpy forgets to close a damaged file that it opened itself
        with path.open("rb") as stream, np.lib.npyio.NpzFile(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name in SHAPES or name == "side"}
    except (ValueError, KeyError, *safe_pickle.ZIP_ERRORS) as error:
        message = f"{path}: not a readable .npz without pickled objects ({error})"
        raise BundleError(message, str(path)) from error


def _check(arrays: dict[str, ArrayLike], source: str) -> dict[str, ArrayLike]:
    """Every key with its shape, finite, with MANO's tree; float64 or as stored. Lists all that is wrong."""
    wrong = [f"{name}: missing" for name in SHAPES if name not in arrays]
    checked = {}
    for name in SHAPES.keys() & arrays.keys():
        array = np.asarray(arrays[name])
        if name == "shapedirs" and array.ndim == 3 and array.shape[-1] > BETAS:
            array = array[..., :BETAS]  # MANO files of some releases carry more directions than are used
        if array.shape != SHAPES[name]:
            wrong.append(f"{name}: expected {list(SHAPES[name])}, got {list(array.shape)}")
        elif array.dtype.kind not in "fiu":
            wrong.append(f"{name}: expected numbers, got {array.dtype}")
        elif not np.isfinite(array).all():
            wrong.append(f"{name}: holds values that are not finite")
        checked[name] = array
    if wrong:
        raise BundleError(f"{source}: not a MANO hand: {'; '.join(sorted(wrong))}", source)

    # The root's parent is -1, stored as an unsigned 2^32 - 1 in MANO files.
    parents = [-1 if p in (-1, 2**32 - 1) else int(p) for p in checked["kintree_table"][0]]
    if parents != list(PARENTS):
        raise BundleError(f"{source}: kintree_table: expected parents {list(PARENTS)}, got {parents}", source)
    faces = checked["f"]
    if faces.min() < 0 or faces.max() >= VERTICES:
        raise BundleError(f"{source}: f: expected vertices in [0, {VERTICES}), "
                          f"got {faces.min()} to {faces.max()}", source)
    rows = checked["weights"].sum(1)
    if np.abs(rows - 1).max() > _WEIGHT_SUM_TOLERANCE:
        raise BundleError(f"{source}: weights: expected rows that sum to 1, "
                          f"got {rows.min():.4g} to {rows.max():.4g}", source)
    size = float(np.ptp(checked["v_template"], 0).max())
    if not _LONGEST_AXIS_M[0] < size < _LONGEST_AXIS_M[1]:
        raise BundleError(f"{source}: v_template: expected a hand in metres, got one {size:.4g} long", source)
    return checked


def left_basis_is_unmirrored(left: HandModel, right: HandModel) -> bool:
    """True if the x parts of both shape bases agree where they should be opposite."""
    x_left, x_right = left.shape_dirs[:, 0], right.shape_dirs[:, 0]
    return bool(np.abs(x_left - x_right).sum() < np.abs(x_left + x_right).sum())
