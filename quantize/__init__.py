"""Turns checkpoints into bundles. Needs the extra `convert` (gguf, onnx); never torch."""

from .build import Choices, build_bundle
from .measure import Measured, Sample
from .plan import Plan, plan_bundle
from .report import add_report, compare_bundles
from .verify import Comparison, compare

__all__ = ["Choices", "Comparison", "Measured", "Plan", "Sample", "add_report", "build_bundle", "compare",
           "compare_bundles", "plan_bundle"]
