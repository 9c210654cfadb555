"""Builds the C++ fuzzer of the register codecs with sanitizers and lets it run for a moment."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODECS = ROOT / "firmware_bridge" / "src" / "codecs"
FRAMES = 5_000  # per codec; the million of the header comment is run by hand


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to build the fuzzer")
def test_damaged_frames_neither_crash_nor_pass(tmp_path):
    program = tmp_path / "fuzz_register_codecs"
    sources = [CODECS / f"{name}.cpp" for name in ("modbus", "inspire_can", "rohand_serial", "brainco_can")]
    flags = ["-std=c++17", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    main = Path(__file__).with_name("fuzz_register_codecs.cpp")
    build = subprocess.run(
        ["g++", *flags, f"-I{CODECS.parent}", str(main), *map(str, sources), "-o", str(program)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if build.returncode != 0 and "san" in build.stderr and "cannot find" in build.stderr:
        pytest.skip("this compiler has no sanitizers")
    assert build.returncode == 0, build.stderr
    run = subprocess.run([str(program), str(FRAMES), "1"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{FRAMES} frames per codec" in run.stdout
