"""Turns checkpoints into bundles. Needs the extra `convert` (gguf, onnx); never torch."""

from .build import build_bundle

__all__ = ["build_bundle"]
