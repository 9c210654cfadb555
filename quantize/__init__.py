"""Turns checkpoints into bundles. Needs the extra `convert` (gguf, onnx); never torch."""

from .build import Choices, build_bundle
from .plan import Plan, plan_bundle
from .verify import Comparison, compare

__all__ = ["Choices", "Comparison", "Plan", "build_bundle", "compare", "plan_bundle"]
