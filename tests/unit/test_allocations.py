"""Kernels ask for no memory once they are loaded: counted by a heap that is preloaded into another interpreter."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import beingh0_edge
from beingh0_edge import HandModel, MotionTokenizer
from beingh0_edge.retarget import Retargeter

HAND = Path(beingh0_edge.__file__).parent / "assets/hands/synthetic_right.npz"
COUNTER = Path(__file__).parents[1] / "native" / "count_malloc.c"
WARM, CALLS = 3, 20
POSES = {"forward": np.zeros(48), "forward_rotmats": np.tile(np.eye(3), (16, 1, 1)),
         "forward_rot6d": np.tile(np.eye(3)[:, :2].ravel(), (16, 1))}


def allocations(call: Callable[..., object], *given: object, **named: object) -> float:
    """What one call asks the heap for, on this thread, after the first ones."""
    count = ctypes.CDLL(None).malloc_count
    count.restype = ctypes.c_long
    for _ in range(WARM):
        call(*given, **named)
    before = count()
    for _ in range(CALLS):
        call(*given, **named)
    return (count() - before) / CALLS


def hands() -> dict[str, float]:
    found = {}
    for blends in ("float32", "bfloat16", "int8"):
        hand = HandModel.load(HAND, pose_blends=blends)
        for method, one in POSES.items():
            for batch in (0, 1, 40):
                pose = np.repeat(one[None].astype(np.float32), batch, 0)
                betas, trans = np.zeros((batch, 10), np.float32), np.zeros((batch, 3), np.float32)
                forward = getattr(hand, method)
                out = forward(pose, betas, trans, vertices=True, jacobian=True)
                found[f"{blends} {method} {batch}"] = allocations(
                    forward, pose, betas, trans, vertices=True, jacobian=True, out=out)
    return found


def tokens() -> dict[str, float]:
    found = {}
    for weights in ("float32", "bfloat16", "int8"):
        tokenizer = MotionTokenizer.load("nano", weights=weights)
        for batch in (1, 9):
            ids = np.concatenate([np.full((batch, p.ids_per_block), p.offset, np.int32) for p in tokenizer.parts], 1)
            out = tokenizer.decode(ids)
            found[f"{weights} decode {batch}"] = allocations(tokenizer.decode, ids, out=out)
            part, kernel = tokenizer.parts[0], tokenizer._kernels[0]
            features = np.ascontiguousarray(out[..., :part.dims])
            latent = tokenizer.latent(features, 0)
            found[f"{weights} dequantize {batch}"] = allocations(tokenizer.dequantize, ids, 0, out=latent)
            found[f"{weights} latent {batch}"] = allocations(kernel.latent, features, latent)
            found[f"{weights} encode {batch}"] = allocations(kernel.encode, features, ids, 0)
    return found


def followed() -> dict[str, float]:
    """Frames whose results are too large for what numpy keeps by."""
    retargeter, found = Retargeter.load("inspire_rh56"), {}
    open_rad = np.clip(retargeter.robot.open_rad, *retargeter.robot.natural_rad)
    for frames in (100, 1000):
        moving = HandModel.load(HAND).forward(np.linspace(0, 0.3, 48 * frames, dtype=np.float32).reshape(-1, 48)).joints
        found[f"solve {frames}"] = allocations(retargeter._kernel.solve, moving, open_rad)
    return found


def test_a_kernel_asks_for_no_memory_once_it_is_loaded(tmp_path: Path) -> None:
    """Beyond what the call itself takes: pybind11 keeps the many arguments of `forward` on the heap, and angles of
    frames come as a new array, a dozen requests whatever their number."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler and the C library of Linux")
    counter = tmp_path / "count_malloc.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", counter, COUNTER], check=True)
    run = subprocess.run([sys.executable, __file__], env=os.environ | {"LD_PRELOAD": str(counter)}, text=True,
                         capture_output=True, check=True)
    found = json.loads(run.stdout)
    assert found.pop("a list") >= 1, "nothing is counted"
    assert found.pop("solve 1000") < found.pop("solve 100") + 10, "frames ask for memory"
    of_call = found["float32 forward 0"]
    assert {name: n for name, n in found.items() if n > (of_call if " forward" in name else 0)} == {}
    assert len(found) > 50


if __name__ == "__main__":
    print(json.dumps({"a list": allocations([None].__mul__, 1000)} | hands() | tokens() | followed()))
