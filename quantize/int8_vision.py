"""The vision graph with 8-bit matrices and activations, by ONNX Runtime's static quantization."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from beingh0_edge.types import FloatArray

if TYPE_CHECKING:
    import onnx


def quantize_vision(model: onnx.ModelProto, out: Path, frames: Sequence[FloatArray]) -> None:
    """Writes `out` from the float32 graph `model`.

    frames  float32[3, S, S], normalised: what the activations' ranges are measured on

    Quantized are the products with weights, per column; products of activations with each other (attention), the
    patch convolution, norms and softmax stay float32. Both sides are unsigned: signed weights overflow on processors
    with AVX2 but without VNNI.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Frames(CalibrationDataReader):  # type: ignore[misc]  # an untyped library
        def __init__(self) -> None:
            self._left: Iterator[FloatArray] = iter(frames)

        def get_next(self) -> dict[str, Any] | None:
            frame = next(self._left, None)
            return None if frame is None else {"pixel_values": frame[None]}

    # Shapes and constants are already what ONNX Runtime's pre-processing would make of them; this is how to say so.
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    weights = {tensor.name for tensor in model.graph.initializer}
    products = [node.name for node in model.graph.node if node.op_type == "MatMul" and weights & set(node.input)]
    quantize_static(model, str(out), Frames(), quant_format=QuantFormat.QDQ, per_channel=True,
                    activation_type=QuantType.QUInt8, weight_type=QuantType.QUInt8, nodes_to_quantize=products,
                    op_types_to_quantize=["MatMul"])
