"""The benchmark of vision formats: what it calls the float32 original, and what its page says."""

from pathlib import Path
from types import ModuleType

import benchmark_module
import numpy as np
import pytest

from beingh0_edge import Bundle
from beingh0_edge.vision_onnx import VisionTower


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(benchmark_module.FOLDER)
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
            patch.setenv(name, "1")  # the benchmark sets them, and they are put back
        return benchmark_module.load("vision_formats")


def test_the_unpacked_tower_is_the_bundles_and_the_8_bit_ones_are_close(
        benchmark: ModuleType, tiny: Bundle, tmp_path: Path) -> None:
    m = tiny.manifest
    assert m.vision.precision == "fp16"
    pixels = np.random.default_rng(0).normal(size=(3, m.vision.image_size, m.vision.image_size)).astype(np.float32)
    got = {name: VisionTower(path, m.vision, m.language.hidden, threads=1).embed(pixels)
           for name, path in benchmark.bundle_towers(tiny, tmp_path).items()}
    np.testing.assert_array_equal(got["fp32"], got["fp16"])
    for name in ("int8", "int8_dynamic"):
        cosine = (got["fp32"] * got[name]).sum() / np.linalg.norm(got["fp32"]) / np.linalg.norm(got[name])
        assert 0.99 < cosine < 0.999999


def test_the_page_has_a_row_per_format(benchmark: ModuleType) -> None:
    figures = benchmark.Figures(2.5, 0.1, 3.0, 4.0, 0.02, {"drawn": 0.999, "dark": 0.99, "noise": 0.98}, 0.8, 5.0,
                                [0.01, -0.02, 0.03])
    exact = benchmark.Figures(9.0, 0.1, 7.0, 8.0, 0.0, {"drawn": 1.0, "dark": 1.0, "noise": 1.0}, 1.0, 0.0,
                              [0.0, 0.0, 0.0])
    tower = {"what": "a tower", "scenes": 7, "formats": {"fp32": vars(exact), "int8": vars(figures)}}
    text = benchmark.markdown({"machine": "a machine", "towers": [tower]})
    assert "a tower; 7 scenes:" in text
    row = "| int8 | 2.5 | 0.10 | 3.0 | 4.0 | 2.00 | 2.0e-02 | 0.999000 | 0.980000 | 80.0 | 5.0 | +1.0 (-2.0 to +3.0) |"
    assert row in text
