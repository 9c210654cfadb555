"""The mmproj file in llama.cpp's own multimodal library."""

import ctypes
import json
import shutil
from pathlib import Path

import llama_cpp
import llama_cpp.mtmd_cpp as mtmd
import numpy as np
import pytest
from tiny_bundle import IMAGE_SIZE
from varied_checkpoints import VARIANTS, make

from beingh0_edge import Bundle
from beingh0_edge.errors import BundleError
from beingh0_edge.preprocess import normalize
from beingh0_edge.quantize import build_bundle, reference
from beingh0_edge.quantize.checkpoint import Checkpoint
from beingh0_edge.quantize.write_mmproj import write_mmproj

# libmtmd computes GELU by its tanh form and a half-precision table; a position table in the checkpoint's order, class
# token first, is a hundred times farther off.
ATOL = {"F32": 5e-3, "F16": 5e-3, "BF16": 3e-2, "Q8_0": 0.1}


@pytest.fixture(scope="module")
def full(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return build_bundle(tiny_checkpoint, tmp_path_factory.mktemp("mmproj") / "full", layout="full", quant="F32")


def seen(language: Path, mmproj: Path, frame: np.ndarray, hidden: int) -> np.ndarray:
    """uint8[S, S, 3] -> float32[tokens, hidden], as llama.cpp sees the picture."""
    model = llama_cpp.llama_model_load_from_file(str(language).encode(), llama_cpp.llama_model_default_params())
    params = mtmd.mtmd_context_params_default()
    params.use_gpu, params.n_threads, params.print_timings, params.warmup = False, 1, False, False
    context = mtmd.mtmd_init_from_file(str(mmproj).encode(), model, params)
    assert context
    chunks = mtmd.mtmd_input_chunks_init()
    bitmap = mtmd.mtmd_bitmap_init(frame.shape[1], frame.shape[0], frame.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
    marker = mtmd.mtmd_default_marker()
    text = mtmd.mtmd_input_text(text=marker, text_len=len(marker), add_special=False, parse_special=True)
    try:
        assert mtmd.mtmd_tokenize(context, chunks, ctypes.byref(text), (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap), 1) == 0
        found = [mtmd.mtmd_input_chunks_get(chunks, i) for i in range(mtmd.mtmd_input_chunks_size(chunks))]
        image = [c for c in found if mtmd.mtmd_input_chunk_get_type(c) == mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE]
        assert len(image) == 1
        assert mtmd.mtmd_encode_chunk(context, image[0]) == 0
        shape = (mtmd.mtmd_input_chunk_get_n_tokens(image[0]), hidden)
        return np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(context), shape).copy()
    finally:
        mtmd.mtmd_bitmap_free(bitmap)
        mtmd.mtmd_input_chunks_free(chunks)
        mtmd.mtmd_free(context)
        llama_cpp.llama_model_free(model)


@pytest.mark.parametrize("kind", ATOL)
def test_llama_cpp_sees_what_the_original_sees(full: Bundle, tiny_checkpoint: Path, tmp_path: Path, kind: str) -> None:
    checkpoint = Checkpoint(tiny_checkpoint)
    write_mmproj(checkpoint, tmp_path / "mmproj.gguf", kind)
    frame = np.random.default_rng(0).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    exact = reference.visual_embeddings(checkpoint, normalize(frame))
    got = seen(full.path("language.gguf"), tmp_path / "mmproj.gguf", frame, 64)
    np.testing.assert_allclose(got, exact, atol=ATOL[kind], rtol=0)


def test_another_picture_size_and_an_earlier_layer_are_in_the_file(tiny_checkpoint: Path, full: Bundle,
                                                                   tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))
    config = json.loads((folder / "config.json").read_text())
    config["vlm_config"] |= {"force_image_size": 84, "select_layer": -2}
    (folder / "config.json").write_text(json.dumps(config))
    checkpoint = Checkpoint(folder)
    write_mmproj(checkpoint, tmp_path / "mmproj.gguf", "F32")
    frame = np.random.default_rng(1).integers(0, 256, (84, 84, 3), dtype=np.uint8)
    exact = reference.visual_embeddings(checkpoint, normalize(frame))
    got = seen(full.path("language.gguf"), tmp_path / "mmproj.gguf", frame, 64)
    np.testing.assert_allclose(got, exact, atol=ATOL["F32"], rtol=0)


def test_a_tower_that_libmtmd_would_misread_is_refused(tmp_path: Path) -> None:
    made = make(tmp_path, VARIANTS["rms norm and normalised queries in the tower, DeepSpeed, bin"])
    with pytest.raises(BundleError, match="no mmproj file is possible"):
        build_bundle(made.folder, tmp_path / "b", mmproj="F16", tokenizer_folders=made.tokenizer_folders)
    with pytest.raises(ValueError, match="mmproj: expected one of F32, F16, BF16, Q8_0, got 'Q2'"):
        build_bundle(made.folder, tmp_path / "b", mmproj="Q2", tokenizer_folders=made.tokenizer_folders)
    assert not (tmp_path / "b").exists()
