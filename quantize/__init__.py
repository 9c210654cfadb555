"""Turns checkpoints into bundles. Needs the extra `convert` (gguf, onnx); never torch."""

from .build import build_bundle
from .verify import Comparison, compare

__all__ = ["Comparison", "build_bundle", "compare"]
