"""Robot (Align) mode: the two small networks around the language model, and where their inputs sit.

Source: the published robot model; recorded in tests/golden/data/vla.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .bundle import RobotSpec
from .errors import BackendError, BundleError
from .types import FloatArray


class RobotHead:
    """Proprioception -> embedding, hidden states -> actions; both are two linear layers with a ReLU
    between.
    """

    def __init__(self, path: Path, spec: RobotSpec, hidden: int) -> None:
        """Raises BundleError unless the file holds exactly the expected tensors, all finite."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            self._w = load_file(str(path))
        except SafetensorError as error:
            raise BundleError(f"{path}: not a safetensors file ({error})", str(path)) from error
        got = {name: value.shape for name, value in self._w.items()}
        expected = spec.tensor_shapes(hidden)
        if got != expected:
            raise BundleError(f"{path}: expected tensors {expected}, got {got}", str(path))
        if bad := [name for name, value in self._w.items() if not np.isfinite(value).all()]:
            raise BundleError(f"{path}: values that are not finite in {', '.join(bad)}", str(path))
        self.spec = spec

    def encode(self, proprio: FloatArray) -> FloatArray:
        """float32[proprio_dim], joint positions as in the training data -> float32[hidden]."""
        values = np.asarray(proprio, np.float32)
        if values.shape != (self.spec.proprio_dim,):
            raise ValueError(f"proprio: expected float32[{self.spec.proprio_dim}], got {list(values.shape)}")
        if not np.isfinite(values).all():
            raise ValueError(f"proprio: some values are not finite: {values}")
        return self._two_layers("proprio_encoder", values)

    def decode(self, states: FloatArray) -> FloatArray:
        """Hidden states float32[S, hidden] -> float32[n, action_dim].

        n is S for "action_token"; the other kinds decode a chunk of K actions from every state, so n is S * K.
        """
        actions = self._two_layers("action_decoder", states).reshape(-1, self.spec.action_dim)
        if not np.isfinite(actions).all():
            raise BackendError("the action decoder gave values that are not finite")
        return actions

    def _two_layers(self, name: str, x: FloatArray) -> FloatArray:
        w = self._w
        x = np.maximum(x @ w[f"{name}.0.weight"].T + w[f"{name}.0.bias"], 0)
        out: FloatArray = x @ w[f"{name}.2.weight"].T + w[f"{name}.2.bias"]
        return out
