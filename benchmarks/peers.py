"""What the kernels are compared with. Peers that are not installed give None and are left out."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from beingh0_edge.hand_model import PARENTS
from beingh0_edge.quantize.onnx_motion import decoder_graph, encoder_graph
from beingh0_edge.train import procedural
from beingh0_edge.train.grq import MotionVQ

Arrays = dict[str, np.ndarray]
# Of MANO's joints, then the tips: wrist, then thumb to little.
KEYPOINTS = [0, 13, 14, 15, 16, 1, 2, 3, 17, 4, 5, 6, 18, 10, 11, 12, 19, 7, 8, 9, 20]


def smplx_mano(path: Path) -> Callable[[Tensor], np.ndarray] | None:
    """smplx.MANO of the same hand, axis-angle in, vertices out."""
    if importlib.util.find_spec("smplx") is None:
        print("smplx is not installed: its rows are left out")
        return None
    import smplx

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        file = Path(folder) / "MANO_RIGHT.npz"
        with np.load(path) as arrays:
            content = {name: arrays[name].astype(np.float32) if arrays[name].dtype == np.float16 else arrays[name]
                       for name in arrays.files}
        np.savez(file, **content, hands_coeffs=np.eye(45, dtype=np.float32))
        model = smplx.MANO(str(file), is_rhand=True, use_pca=False, flat_hand_mean=True, ext="npz")

    def forward(pose: Tensor) -> Any:
        # Its defaults of batch size 1 are not expanded: the rest is given at the batch's size.
        n = len(pose)
        return model(betas=torch.zeros(n, 10), global_orient=pose[:, :3], hand_pose=pose[:, 3:],
                     transl=torch.zeros(n, 3)).vertices

    return forward


def manotorch_mano(arrays: Arrays) -> Callable[[Tensor], Tensor] | None:
    """manotorch's layer of the same hand, axis-angle in, vertices out. GPL: for who has it, never a dependency.

    It reads its file with chumpy, which does not import beside numpy >= 1.24 or in Python >= 3.11.
    """
    if importlib.util.find_spec("manotorch") is None:
        print("manotorch is not installed: its rows are left out")
        return None
    try:
        from manotorch.manolayer import ManoLayer
        from scipy.sparse import csc_matrix

        content = arrays | {"J_regressor": csc_matrix(arrays["J_regressor"]), "bs_type": "lrotmin", "bs_style": "lbs"}
        with tempfile.TemporaryDirectory() as folder:
            for file in (Path(folder) / "MANO_RIGHT.pkl", Path(folder) / "models" / "MANO_RIGHT.pkl"):  # by version
                file.parent.mkdir(exist_ok=True)
                file.write_bytes(pickle.dumps(content))
            layer = ManoLayer(side="right", use_pca=False, flat_hand_mean=True, mano_assets_root=folder)
    except (ImportError, AttributeError) as error:
        print(f"manotorch does not import ({error}): its rows are left out")
        return None
    return lambda pose: layer(pose, torch.zeros(len(pose), 10)).verts  # type: ignore[no-any-return]


def mano_plain(arrays: Arrays, xp: Any) -> Callable[[Any], Any]:
    """Plain numpy or torch (`xp`), betas zero and baked in; what torch.compile is given."""
    plain = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    rest_joints = plain["J_regressor"] @ plain["v_template"]
    offsets = rest_joints - rest_joints[[max(p, 0) for p in PARENTS]] * np.array([0] + [1] * 15, np.float32)[:, None]
    template, weights, joints, bones, dirs, eye = (xp.asarray(array) for array in (
        plain["v_template"], plain["weights"], rest_joints, offsets,
        np.ascontiguousarray(plain["posedirs"].reshape(-1, 135).T), np.eye(3, dtype=np.float32)))

    def forward(pose: Any) -> Any:
        n = len(pose)
        v = pose.reshape(-1, 3)
        angle = xp.linalg.norm(v, None, 1, True) + 1e-12
        x, y, z = (v / angle).T
        zero = xp.zeros_like(x)
        cross = xp.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
        sine, cosine = xp.sin(angle)[..., None], xp.cos(angle)[..., None]
        rotations = (eye + sine * cross + (1 - cosine) * cross @ cross).reshape(n, 16, 3, 3)
        rest = template + ((rotations[:, 1:] - eye).reshape(n, 135) @ dirs).reshape(n, 778, 3)
        turns, places = [rotations[:, 0]], [xp.broadcast_to(bones[0], (n, 3))]
        for j, parent in enumerate(PARENTS[1:], 1):
            turns.append(turns[parent] @ rotations[:, j])
            places.append(places[parent] + turns[parent] @ bones[j])
        turn, place = xp.stack(turns, 1), xp.stack(places, 1)
        place = place - (turn @ joints[..., None])[..., 0]
        blended = (weights @ xp.concatenate([turn.reshape(n, 16, 9), place], 2)).reshape(n, 778, 12)
        return (blended[..., :9].reshape(n, 778, 3, 3) @ rest[..., None])[..., 0] + blended[..., 9:]

    return forward


def tokenizer_onnx(folders: list[Path]) -> tuple[Callable[[np.ndarray], np.ndarray], ...]:
    """Decoder and encoder as `beingh0 export` writes them, in ONNX Runtime, one thread.

    int64[N, 128] in, features out; and the other way round.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1

    def run(model: onnx.ModelProto, takes: str) -> Callable[[np.ndarray], np.ndarray]:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return lambda array: session.run(None, {takes: array})[0]  # type: ignore[no-any-return]

    return run(decoder_graph(folders, "N")[0], "motion_ids"), run(encoder_graph(folders, "N")[0], "features")


def tokenizer_vq(model: MotionVQ) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]] | None:
    """vector-quantize-pytorch with the same codebooks: its dequantiser, and its quantiser behind torch's encoder.

    ids int64[N, 64] -> latent; features -> ids.
    """
    if importlib.util.find_spec("vector_quantize_pytorch") is None:
        print("vector-quantize-pytorch is not installed: its rows are left out")
        return None
    from vector_quantize_pytorch import GroupedResidualVQ

    a = model.args
    vq = GroupedResidualVQ(dim=a.code_dim, groups=a.num_quant_groups, num_quantizers=a.num_quantizers,
                           codebook_size=a.nb_code).eval()
    for group, book in zip(vq.rvqs, model.codebooks(), strict=True):
        for layer in group.layers:
            layer._codebook.embed.copy_(book[None])

    def dequantise(ids: Tensor) -> Tensor:
        shaped = ids.view(-1, a.num_quant_groups, a.positions, a.num_quantizers).transpose(0, 1)
        return vq.get_output_from_indices(shaped)  # type: ignore[no-any-return]

    def encode(features: Tensor) -> Tensor:
        _, ids, _ = vq(model.latent(features))  # [groups, N, positions, quantizers]
        return ids.transpose(0, 1).flatten(1)  # type: ignore[no-any-return]

    return dequantise, encode


def nano_motions(scenes: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of right hands in scenes nano was not trained on, as the wrist's and the fingers' features."""
    wrists, fingers = [], []
    for index in range(scenes):
        scene = procedural.make_scene(procedural.Split.HELD_OUT, 0, index, visible="right")
        wrist, finger, present = procedural.features(scene, procedural.make_tasks(scene)[index % 3])
        wrists.append(wrist[1][present[1]])
        fingers.append(finger[1][present[1]])
    return np.concatenate(wrists), np.concatenate(fingers)
