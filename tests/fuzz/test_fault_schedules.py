"""Builds the C++ harness of random fault schedules with sanitizers and lets it run for a moment."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "firmware_bridge" / "src"
SCHEDULES = 1_500  # the hundred thousand of the header comment are run by hand


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ to build the harness")
def test_no_fault_schedule_breaks_the_promises_of_the_bridge(tmp_path):
    program = tmp_path / "fault_schedules"
    sources = [Path(__file__).with_name("fault_schedules.cpp"), SOURCES / "session.cpp",
               *sorted((SOURCES / "core").glob("*.cpp"))]
    flags = ["-std=c++17", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    build = subprocess.run(["g++", *flags, f"-I{SOURCES}", *map(str, sources), "-o", str(program)],
                           capture_output=True, text=True, check=False)
    if build.returncode != 0 and "san" in build.stderr and "cannot find" in build.stderr:
        pytest.skip("this compiler has no sanitizers")
    assert build.returncode == 0, build.stderr
    run = subprocess.run([str(program), str(SCHEDULES), "7"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{SCHEDULES} schedules" in run.stdout
