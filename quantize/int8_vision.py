"""The vision graph with 8-bit matrices and activations, by ONNX Runtime's quantizer.

Quantized are the products with weights, per column. Products of activations with each other (attention), the patch
convolution, norms and softmax stay float32. Weights have 7 of the 8 bits: processors with AVX2 but without VNNI add two
products in 16 bits, where 8-bit weights overflow. Signed weights are what VNNI is fast with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beingh0_edge.types import FloatArray

if TYPE_CHECKING:
    import onnx


def quantize_static(model: Path, out: Path, frames: Sequence[FloatArray]) -> None:
    """Writes `out` from the float32 graph in `model`, with the activations' ranges as they are on `frames`.

    frames  float32[3, S, S], normalised. What leaves their ranges in another picture is cut off.
    """
    from onnxruntime import quantization

    class Frames(quantization.CalibrationDataReader):  # type: ignore[misc]  # an untyped library
        def __init__(self) -> None:
            self._left: Iterator[FloatArray] = iter(frames)

        def get_next(self) -> dict[str, Any] | None:
            frame = next(self._left, None)
            return None if frame is None else {"pixel_values": frame[None]}

    quantization.quantize_static(str(model), str(out), Frames(), quant_format=quantization.QuantFormat.QDQ,
                                 activation_type=quantization.QuantType.QUInt8, **_weights(model))


def quantize_dynamic(model: Path, out: Path) -> None:
    """Writes `out` from the float32 graph in `model`; the activations' ranges are found anew in every picture."""
    from onnxruntime import quantization

    quantization.quantize_dynamic(str(model), str(out), **_weights(model))


def save_prepared(model: onnx.ModelProto, path: Path) -> None:
    """Saves a float32 graph for the functions above.

    Its shapes and constants are already what ONNX Runtime's pre-processing would make of them; this is how to say so.
    """
    import onnx

    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    onnx.save_model(model, str(path))


def _weights(model: Path) -> dict[str, Any]:
    import onnx
    from onnxruntime.quantization import QuantType

    graph = onnx.load(str(model), load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    products = [node.name for node in graph.node if node.op_type == "MatMul" and weights & set(node.input)]
    return {"per_channel": True, "weight_type": QuantType.QInt8, "reduce_range": True, "nodes_to_quantize": products,
            "op_types_to_quantize": ["MatMul"]}
