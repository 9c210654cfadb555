"""The invented hand models that the golden data was recorded with."""

from pathlib import Path

import numpy as np
import pytest

from beingh0_edge import HandModel
from beingh0_edge.types import SIDES

DATA = Path(__file__).parent / "data" / "mano"


@pytest.fixture(scope="session")
def golden_hands() -> dict[str, HandModel]:
    """Blend shapes are recorded as float16 thousandths."""
    hands = {}
    for side in SIDES:
        arrays = dict(np.load(DATA / f"synthetic_mano_{side}.npz"))
        for name in ("shapedirs", "posedirs"):
            arrays[name] = arrays[name].astype(np.float64) / 1000
        hands[side] = HandModel(arrays, side)
    return hands
