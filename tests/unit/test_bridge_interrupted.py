"""Waits of the loop that an e-stop ends, in the bridge's own C++ against wires of memory."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "firmware_bridge" / "src"
PATIENCE_S = 120.0  # only bounds a hang


def test_an_estop_ends_every_wait_and_a_late_answer_is_none_to_the_stop(tmp_path):
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to build the program")
    program = tmp_path / "interrupted_waits"
    parts = ("session", "drivers/line", "drivers/can_line", "drivers/modbus_line", "drivers/inspire_wires",
             "drivers/leap_driver", "codecs/inspire_rs485", "codecs/inspire_can", "codecs/modbus", "codecs/dynamixel",
             "codecs/brainco_can", "io/stream")
    sources = [ROOT / "tests" / "native" / "interrupted_waits.cpp", *(SOURCES / f"{part}.cpp" for part in parts),
               *sorted((SOURCES / "core").glob("*.cpp"))]
    build = subprocess.run(
        ["g++", "-std=c++17", "-O0", "-pthread", f"-I{SOURCES}", *map(str, sources), "-o", str(program)],
        capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr
    run = subprocess.run([str(program)], capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert run.returncode == 0, run.stderr
