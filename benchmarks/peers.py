"""What the kernels are compared with. Peers that are not installed give None and are left out."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from beingh0_edge.hand_model import PARENTS, TIP_VERTICES
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


def mano_torch(arrays: Arrays, *, keypoints: bool = False) -> Callable[[Tensor], Tensor]:
    """Plain torch, betas zero and baked in; what torch.compile is given. Vertices, or our keypoints."""
    t = {name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in arrays.items()}
    joints = t["J_regressor"] @ t["v_template"]
    bones = joints - joints[[max(p, 0) for p in PARENTS]] * torch.tensor([0.0] + [1.0] * 15)[:, None]
    dirs = t["posedirs"].reshape(-1, 135).T.contiguous()
    eye, tips = torch.eye(3), list(TIP_VERTICES["manotorch"]["right"])

    def forward(pose: Tensor) -> Tensor:
        n = len(pose)
        v = pose.reshape(-1, 3)
        angle = v.norm(dim=1, keepdim=True) + 1e-12
        x, y, z = (v / angle).unbind(1)
        zero = torch.zeros_like(x)
        cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
        sine, cosine = angle.sin()[..., None], angle.cos()[..., None]
        rotations = (eye + sine * cross + (1 - cosine) * cross @ cross).reshape(n, 16, 3, 3)
        rest = t["v_template"] + ((rotations[:, 1:] - eye).reshape(n, 135) @ dirs).reshape(n, 778, 3)
        turns, places = [rotations[:, 0]], [bones[0].expand(n, 3)]
        for j, parent in enumerate(PARENTS[1:], 1):
            turns.append(turns[parent] @ rotations[:, j])
            places.append(places[parent] + turns[parent] @ bones[j])
        turn, stands = torch.stack(turns, 1), torch.stack(places, 1)
        place = stands - (turn @ joints[..., None])[..., 0]
        blended = (t["weights"] @ torch.cat([turn.reshape(n, 16, 9), place], 2)).reshape(n, 778, 12)
        vertices = (blended[..., :9].reshape(n, 778, 3, 3) @ rest[..., None])[..., 0] + blended[..., 9:]
        return torch.cat([stands, vertices[:, tips]], 1)[:, KEYPOINTS] if keypoints else vertices

    return forward


def mano_numpy(arrays: Arrays) -> Callable[[np.ndarray], np.ndarray]:
    """The same in numpy."""
    a = {name: np.asarray(value, np.float32) for name, value in arrays.items()}
    joints = a["J_regressor"] @ a["v_template"]
    bones = joints - joints[[max(p, 0) for p in PARENTS]] * np.array([0] + [1] * 15, np.float32)[:, None]
    dirs = np.ascontiguousarray(a["posedirs"].reshape(-1, 135).T)
    eye = np.eye(3, dtype=np.float32)

    def forward(pose: np.ndarray) -> np.ndarray:
        n = len(pose)
        v = pose.reshape(-1, 3)
        angle = np.linalg.norm(v, axis=1, keepdims=True) + 1e-12
        x, y, z = (v / angle).T
        zero = np.zeros_like(x)
        cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
        sine, cosine = np.sin(angle)[..., None], np.cos(angle)[..., None]
        rotations = (eye + sine * cross + (1 - cosine) * cross @ cross).reshape(n, 16, 3, 3)
        rest = a["v_template"] + ((rotations[:, 1:] - eye).reshape(n, 135) @ dirs).reshape(n, 778, 3)
        turn, place = np.empty((n, 16, 3, 3), np.float32), np.empty((n, 16, 3), np.float32)
        turn[:, 0], place[:, 0] = rotations[:, 0], bones[0]
        for j, parent in enumerate(PARENTS[1:], 1):
            turn[:, j] = turn[:, parent] @ rotations[:, j]
            place[:, j] = place[:, parent] + turn[:, parent] @ bones[j]
        place -= (turn @ joints[..., None])[..., 0]
        blended = (a["weights"] @ np.concatenate([turn.reshape(n, 16, 9), place], 2)).reshape(n, 778, 12)
        return (blended[..., :9].reshape(n, 778, 3, 3) @ rest[..., None])[..., 0] + blended[..., 9:]

    return forward


def tokenizer_onnx(models: list[MotionVQ]) -> tuple[Callable[[list[Tensor]], np.ndarray], ...]:
    """Decoders and encoders of both parts as ONNX graphs in ONNX Runtime, one thread.

    int64[N, 64] of each part in, features out; and the other way round.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1

    def run(make: Callable[[MotionVQ], onnx.ModelProto]) -> Callable[[list[Tensor]], np.ndarray]:
        sessions = [onnxruntime.InferenceSession(make(model).SerializeToString(), options,
                                                 providers=["CPUExecutionProvider"]) for model in models]
        return lambda parts: np.concatenate(
            [session.run(None, {"x": x.numpy()})[0] for session, x in zip(sessions, parts, strict=True)], -1)

    return run(_decoder), run(_encoder)


class _Graph:
    """Nodes of an ONNX graph whose input is called x."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: list[onnx.TensorProto] = []

    def constant(self, value: Any) -> str:
        self._tensors.append(numpy_helper.from_array(np.asarray(value), f"w{len(self._tensors)}"))
        return self._tensors[-1].name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, list(inputs), [f"n{len(self._nodes)}"], **attributes))
        return self._nodes[-1].output[0]

    def network(self, module: torch.nn.Module, x: str) -> str:
        """An encoder or decoder, [N, channels, frames] -> the same."""
        kind = type(module).__name__
        if isinstance(module, torch.nn.Conv1d):
            weight, bias = module.weight.numpy(), module.bias.numpy()  # type: ignore[union-attr]
            return self.node("Conv", x, self.constant(weight), self.constant(bias),
                             kernel_shape=list(module.kernel_size), strides=list(module.stride),
                             dilations=list(module.dilation), pads=[int(module.padding[0])] * 2)
        if kind == "ReLU":
            return self.node("Relu", x)
        if kind == "Upsample":
            return self.node("Resize", x, "", self.constant(np.array([1, 1, 2], np.float32)), mode="nearest",
                             coordinate_transformation_mode="asymmetric", nearest_mode="floor")
        if kind == "_ResBlock":
            inner = self.network(module.conv1, self.node("Relu", x))  # type: ignore[arg-type]
            return self.node("Add", x, self.network(module.conv2, self.node("Relu", inner)))  # type: ignore[arg-type]
        for child in (module.model if kind == "_ResNet" else module).children():  # type: ignore[union-attr]
            x = self.network(child, x)
        return x

    def model(self, output: str, takes: tuple[int, list[Any]], gives: tuple[int, list[Any]]) -> onnx.ModelProto:
        """The last node is the output. Element type and shape of what goes in and what comes out."""
        self._nodes[-1].output[0] = output
        graph = helper.make_graph(self._nodes, "part", [helper.make_tensor_value_info("x", *takes)],
                                  [helper.make_tensor_value_info(output, *gives)], self._tensors)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _decoder(model: MotionVQ) -> onnx.ModelProto:
    a, g = model.args, _Graph()
    ids = g.node("Reshape", "x", g.constant(np.array([-1, a.num_quant_groups, a.positions, a.num_quantizers])))
    groups = []
    for i, book in enumerate(model.codebooks()):
        chosen = g.node("Gather", ids, g.constant(np.array(i)), axis=1)
        rows = g.node("Gather", g.constant(book.numpy()), chosen, axis=0)
        groups.append(g.node("ReduceSum", rows, g.constant(np.array([2])), keepdims=0))
    x = g.node("Transpose", g.node("Concat", *groups, axis=-1), perm=[0, 2, 1])
    x = g.node("Transpose", g.network(model.decoder, x), perm=[0, 2, 1])
    x = g.node("Slice", x, *(g.constant(np.array([value])) for value in (0, a.window_size, 1)))
    g.node("Add", g.node("Mul", x, g.constant(model.std.numpy())), g.constant(model.mean.numpy()))
    return g.model("features", (TensorProto.INT64, ["N", a.ids_per_block]),
                   (TensorProto.FLOAT, ["N", a.window_size, len(model.mean)]))


def _encoder(model: MotionVQ) -> onnx.ModelProto:
    a, g = model.args, _Graph()
    x = g.node("Div", g.node("Sub", "x", g.constant(model.mean.numpy())), g.constant(model.std.numpy() + 1e-6))
    x = g.node("Pad", x, g.constant(np.array([0, 0, 0, 0, a.padding, 0])))
    x = g.node("Transpose", x, perm=[0, 2, 1])
    x = g.node("Transpose", g.network(model.encoder, x), perm=[0, 2, 1])
    groups, dim = [], a.code_dim // a.num_quant_groups
    for i, book in enumerate(model.codebooks().numpy()):
        residual = g.node("Slice", x, *(g.constant(np.array([value])) for value in (i * dim, (i + 1) * dim, 2)))
        rows, columns = g.constant(book), g.constant(np.ascontiguousarray(book.T))
        half_square, ids = g.constant(0.5 * np.square(book).sum(1)), []
        for _ in range(a.num_quantizers):
            far = g.node("Sub", half_square, g.node("MatMul", residual, columns))  # orders as the distance does
            ids.append(g.node("ArgMin", far, axis=-1, keepdims=0))
            residual = g.node("Sub", residual, g.node("Gather", rows, ids[-1], axis=0))
        last = g.constant(np.array([-1]))
        groups.append(g.node("Concat", *(g.node("Unsqueeze", level, last) for level in ids), axis=-1))
    x = g.node("Concat", *(g.node("Unsqueeze", group, g.constant(np.array([1]))) for group in groups), axis=1)
    g.node("Reshape", x, g.constant(np.array([-1, a.ids_per_block])))
    return g.model("ids", (TensorProto.FLOAT, ["N", a.window_size, len(model.mean)]),
                   (TensorProto.INT64, ["N", a.ids_per_block]))


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
