"""Vision tower, pixel shuffle and projector in ONNX Runtime: pixels in, visual embeddings out."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from .bundle import VisionSpec
from .errors import BackendError, BundleError
from .types import FloatArray

log = logging.getLogger(__name__)


class VisionTower:
    """One picture at a time, as the model was exported."""

    def __init__(self, path: Path, spec: VisionSpec, hidden: int, *, threads: int) -> None:
        """Raises BundleError if the file is not this model, BackendError if ONNX Runtime is not there."""
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError(f"ONNX Runtime does not load ({error}): pip install onnxruntime",
                               "onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin between two pictures would take the cores from the language model.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the library has one exception class per kind of damage
            raise BundleError(f"{path}: ONNX Runtime refuses it: {error}", str(path)) from error
        size = spec.image_size
        self._shape = (1, 3, size, size)
        found = [(i.name, i.shape) for i in (*self._session.get_inputs(), *self._session.get_outputs())]
        expected = [("pixel_values", [*self._shape]), ("visual_embeddings", [1, spec.tokens, hidden])]
        if found != expected:
            raise BundleError(f"{path}: expected inputs and outputs {expected}, got {found}", str(path))

    def embed(self, pixel_values: FloatArray) -> FloatArray:
        """float32[3, S, S] or [N, 3, S, S], normalised -> float32[N * tokens, hidden].

        Raises ValueError for another shape, BackendError if the result is not finite.
        """
        pixels = np.asarray(pixel_values, np.float32)
        if pixels.ndim == 3:
            pixels = pixels[None]
        if pixels.ndim != 4 or pixels.shape[1:] != self._shape[1:] or len(pixels) == 0:
            raise ValueError(f"pixel_values: expected float32{list(self._shape)}, got {list(pixels.shape)}")
        if not np.isfinite(pixels).all():
            raise ValueError("pixel_values: some values are not finite")
        parts = [
            self._session.run(None, {"pixel_values": np.ascontiguousarray(one[None])})[0][0] for one in pixels
        ]
        out: FloatArray = np.concatenate(parts)
        if not np.isfinite(out).all():
            raise BackendError("the vision tower gave values that are not finite", "onnxruntime")
        return out
