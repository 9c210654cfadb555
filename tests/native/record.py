"""Writes what check_kernels.cpp replays: the golden tokenizers and hands, layer by layer, with their recorded results,
and rotations as numpy converts them.

    python tests/native/record.py OUT

A file is a row of records: uint32 length of the name, the name, uint32 number of axes, int64 axes, then float32 or
int32 data (the name begins with "f:" or "i:"). Records are read in order, the names only checked.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
import numpy_reference

from beingh0_edge.hand_model import PARENTS, SHAPES, TIP_VERTICES
from beingh0_edge.tokenizer_folder import TokenizerFolder

GOLDEN = Path(__file__).parents[1] / "golden" / "data"
VARIANTS = ("main_mano162", "shared_ln_silu", "gn_gelu_win16")
ACTIVATIONS, NORMS = ("relu", "silu", "gelu"), ("none", "affine", "layer", "group")


class Recorder:
    """Takes a network's layers as the kernel does and writes them down."""

    def __init__(self, out: BinaryIO) -> None:
        self.out = out

    def floats(self, name: str, value: Any) -> None:
        self._write("f:" + name, np.asarray(value, np.float32))

    def ints(self, name: str, *value: Any) -> None:
        self._write("i:" + name, np.asarray(value[0] if len(value) == 1 else value, np.int32))

    def _write(self, name: str, array: np.ndarray) -> None:
        self.out.write(struct.pack("<I", len(name)) + name.encode())
        self.out.write(struct.pack(f"<I{array.ndim}q", array.ndim, *array.shape))
        self.out.write(np.ascontiguousarray(array).tobytes())

    def add_conv(self, *, encoder: bool, weight: np.ndarray, bias: np.ndarray, stride: int = 1, padding: int = 1,
                 upsample: bool = False, relu: bool = False) -> None:
        self.ints("layer", 1, encoder, stride, padding, upsample, relu)
        self.floats("weight", weight)
        self.floats("bias", bias)

    def add_residual(self, *, encoder: bool, dilation: int, activation: str, norm: str = "none",
                     **tensors: np.ndarray) -> None:
        self.ints("layer", 2, encoder, dilation, ACTIVATIONS.index(activation), NORMS.index(norm), 0)
        for name in ("weight1", "bias1", "weight2", "bias2", *(("scale1", "shift1", "scale2", "shift2")
                                                              if norm != "none" else ())):
            self.floats(name, tensors[name])


def tokenizers(to: Recorder) -> None:
    for variant in VARIANTS:
        golden = np.load(GOLDEN / "tokenizer" / variant / "golden.npz")
        offset = start = column = 0
        for i, name in enumerate(("wrist", "finger")):
            source = TokenizerFolder(GOLDEN / "tokenizer" / variant / name)
            part = source.geometry(offset=offset, start=start)
            books = source.codebooks(part)
            mean, std = source.statistics(part)
            to.ints("section", 1)
            to.ints("geometry", part.groups, part.quantizers, part.nb_code, part.code_dim, books.shape[1], part.window,
                    part.window + part.padding, part.positions, part.dims, part.offset)
            to.floats("codebooks", books)
            to.floats("mean", mean)
            to.floats("std", std)
            source.networks(part, to)
            to.ints("layer", 0, 0, 0, 0, 0, 0)
            ids = golden["decode_ids"].reshape(-1, golden["decode_ids"].shape[-1])
            decoded = golden["decode_features"]
            to.ints("decode ids", ids[:, start: start + part.ids_per_block])
            to.floats("decode features", decoded.reshape(-1, *decoded.shape[-2:])[..., column: column + part.dims])
            to.floats("encode features", golden[f"encode_features_part{i}"].reshape(-1, part.window, part.dims))
            encoded = golden["encode_ids"].reshape(-1, golden["encode_ids"].shape[-1])
            to.ints("encode ids", encoded[:, start: start + part.ids_per_block])
            offset, start, column = offset + part.num_ids, start + part.ids_per_block, column + part.dims


def hands(to: Recorder) -> None:
    golden = np.load(GOLDEN / "mano" / "golden.npz")
    for side in ("right", "left"):
        model = np.load(GOLDEN / "mano" / f"synthetic_mano_{side}.npz")
        to.ints("section", 2)
        for name in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "hands_components", "hands_mean"):
            value = model[name].reshape(SHAPES[name]).astype(np.float64)
            to.floats(name, value / 1000 if name in ("shapedirs", "posedirs") else value)  # recorded in thousandths
        to.ints("parents", PARENTS)
        to.ints("tips", [TIP_VERTICES[name][side] for name in TIP_VERTICES])  # type: ignore[index]
        pose = np.concatenate([golden[f"{side}_global_orient"], golden[f"{side}_hand_pose"]], -1)
        to.floats("betas", golden[f"{side}_betas"])
        to.floats("trans", golden[f"{side}_transl"])
        to.floats("axis-angle", pose)
        matrices = numpy_reference.axis_angle_to_matrix(pose.reshape(-1, 16, 3))
        to.floats("matrices", matrices)
        for layout in ("interleaved", "columns"):
            to.floats(f"6D {layout}", numpy_reference.matrix_to_rot6d(matrices, layout == "interleaved"))
        to.floats("pca", np.concatenate([golden[f"{side}_global_orient"], golden[f"{side}_pca_coeffs"]], -1))
        to.floats("vertices", golden[f"smplx_{side}_flat1_pca0_vertices"])
        for name, case in (("keypoints", "flat1_pca0"), ("keypoints on the mean pose", "flat0_pca0"),
                           ("keypoints of pca", "flat1_pca1"), ("keypoints from the wrist", "flat1_pca0_center0")):
            to.floats(name, golden[f"manotorch_{side}_{case}_joints21"])


def conversions(to: Recorder) -> None:
    """Angles up to 3 rad, where axis and sign are not a matter of rounding."""
    rng = np.random.default_rng(0)
    axis = rng.normal(0, 1, (101, 3))  # no multiple of any vector's lanes
    angle = np.concatenate([np.geomspace(1e-8, 1e-2, 20), np.linspace(0.01, 3, 81)])[:, None]
    axis_angle = axis / np.linalg.norm(axis, axis=1, keepdims=True) * angle
    matrices = numpy_reference.axis_angle_to_matrix(axis_angle)
    to.ints("section", 3)
    to.floats("axis-angle", axis_angle)
    to.floats("matrices", matrices)
    to.floats("quaternions", numpy_reference.axis_angle_to_quaternion(axis_angle))
    for layout in ("interleaved", "columns"):
        to.floats(f"6D {layout}", numpy_reference.matrix_to_rot6d(matrices, layout == "interleaved"))


def main() -> None:
    with open(sys.argv[1], "wb") as out:
        to = Recorder(out)
        tokenizers(to)
        hands(to)
        conversions(to)
        to.ints("section", 0)


if __name__ == "__main__":
    main()
