"""The vision graph with 8-bit matrices and activations, as ONNX Runtime's quantizer writes it but tensor by tensor.

Quantized are the products with weights, per column. Products of activations with each other (attention), the patch
convolution, norms and softmax stay float32. Weights have 7 of the 8 bits: processors with AVX2 but without VNNI add two
products in 16 bits, where 8-bit weights overflow. Signed weights are what VNNI is fast with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from beingh0_edge.types import FloatArray

from .onnx_graph import Graph

_LARGEST_CODE = 64
_FLOAT = 1  # onnx's number for the type
Ranges = Mapping[str, tuple[float, float]]
"""Name of a value in the graph -> the least and the largest it takes."""


def quantize(exact: Path, out: Path, frames: Sequence[FloatArray] | None = None) -> None:
    """Writes `out` from the float32 graph in `exact`.

    frames  float32[3, S, S], normalised: the activations' ranges are fixed as they are on these, and what leaves them
            in another picture is cut off; None: they are found anew in every picture
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(exact), load_external_data=False).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    products = {node.name for node in graph.node if node.op_type == "MatMul" and node.input[1] in weights}
    ranges = None if frames is None else _ranges(exact, products, frames)

    def value(name: str) -> FloatArray:
        values: FloatArray = numpy_helper.to_array(weights[name], str(exact.parent))
        return values

    g = Graph()
    for node in graph.node:
        if node.name in products:
            (x, weight), (y,) = node.input, node.output
            _product(g, x, weight, value(weight), y, ranges)
        else:
            for name in weights.keys() & set(node.input):
                g.constant(name, value(name))
            node.name = f"node_{len(g.nodes)}"
            g.nodes.append(node)
    onnx.save_model(g.finished(graph.name, graph.input, graph.output), str(out))


def _product(g: Graph, x: str, name: str, weight: FloatArray, y: str, ranges: Ranges | None) -> None:
    """y = x @ weight, float32[inputs, outputs], by way of 8-bit codes."""
    largest = np.abs(weight).max(0)
    scale = np.where(largest > 0, largest / _LARGEST_CODE, 1).astype(np.float32)
    codes = g.constant(f"{name}.codes", np.rint(weight / scale).astype(np.int8))
    scales, zeros = g.constant(f"{name}.scales", scale), g.constant(f"{name}.zeros", np.zeros(len(scale), np.int8))
    if ranges is not None:
        matrix = g.op("DequantizeLinear", [codes, scales, zeros], f"{name}.float", axis=1)
        _rounded(g, g.op("MatMul", [_rounded(g, x, f"{y}.in", ranges[x]), matrix], f"{y}.exact"), y, ranges[y])
        return
    x, x_scale, x_zero = g.ops("DynamicQuantizeLinear", [x], [f"{y}.in", f"{y}.in_scale", f"{y}.in_zero"])
    total = g.op("Cast", [g.op("MatMulInteger", [x, codes, x_zero, zeros], f"{y}.sum")], f"{y}.float", to=_FLOAT)
    g.op("Mul", [total, g.op("Mul", [x_scale, scales], f"{y}.scale")], y)


def _rounded(g: Graph, x: str, y: str, between: tuple[float, float]) -> str:
    """x on the 256 steps from the least to the largest value; 0 is one of them."""
    least, largest = min(between[0], 0.0), max(between[1], 0.0)
    scale = (largest - least) / 255 or 1.0
    steps = [g.constant(f"{y}.step", np.array(scale, np.float32)),
             g.constant(f"{y}.zero", np.array(round(-least / scale), np.uint8))]
    return g.op("DequantizeLinear", [g.op("QuantizeLinear", [x, *steps], f"{y}.codes"), *steps], y)


def _ranges(exact: Path, products: set[str], frames: Sequence[FloatArray]) -> Ranges:
    """Of what goes into and comes out of the products."""
    import onnx
    import onnxruntime

    model = onnx.load(str(exact), load_external_data=False)
    nodes = list(model.graph.node)
    wanted = {name for node in nodes if node.name in products for name in (node.input[0], node.output[0])}
    names: list[str] = []
    del model.graph.node[:], model.graph.output[:]
    for node in nodes:  # each value is looked at as soon as it is there: then it need not stay
        model.graph.node.append(node)
        for name in wanted & set(node.output):
            for kind in ("ReduceMin", "ReduceMax"):
                model.graph.node.append(onnx.helper.make_node(kind, [name], [f"{kind}_{len(names)}"], keepdims=0))
                model.graph.output.append(onnx.helper.make_tensor_value_info(f"{kind}_{len(names)}", _FLOAT, []))
            names.append(name)
    observed = exact.with_name("observed.onnx")
    onnx.save_model(model, str(observed))
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.add_session_config_entry("session.disable_prepacking", "1")  # a second copy of all weights
    session = onnxruntime.InferenceSession(str(observed), options, providers=["CPUExecutionProvider"])
    seen = np.array([session.run(None, {"pixel_values": frame[None]}) for frame in frames], np.float64)
    seen = seen.reshape(len(frames), len(names), 2)
    return {name: (float(seen[:, i, 0].min()), float(seen[:, i, 1].max())) for i, name in enumerate(names)}
