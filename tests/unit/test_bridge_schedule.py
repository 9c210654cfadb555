"""What an Inspire hand is asked per second, counted on a virtual clock."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "firmware_bridge" / "src"


@pytest.fixture(scope="module")
def per_second(tmp_path_factory):
    """{(rate_hz, busy_every, register): times a second}"""
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to build the program")
    program = tmp_path_factory.mktemp("schedule") / "inspire_schedule"
    sources = [ROOT / "tests" / "native" / "inspire_schedule.cpp", SOURCES / "drivers" / "inspire_driver.cpp",
               SOURCES / "session.cpp", *sorted((SOURCES / "core").glob("*.cpp"))]
    build = subprocess.run(["g++", "-std=c++17", "-O1", f"-I{SOURCES}", *map(str, sources), "-o", str(program)],
                           capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr
    said = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout.splitlines()
    return {(float(rate), int(busy), name): float(count) for rate, busy, name, count in map(str.split, said)}


@pytest.mark.parametrize("busy_every", [0, 4])
def test_the_default_schedule_keeps_its_promise_also_when_cycles_have_no_room(per_second, busy_every):
    wanted = {"write_angle": 100, "angle": 100, "force": 50, "error": 10, "current": 5, "temperature": 5}
    found = {name: per_second[100.0, busy_every, name] for name in wanted}
    assert found == pytest.approx(wanted, rel=0.005)


def test_at_the_limit_of_the_wire_the_pose_goes_first(per_second):
    found = {name: per_second[198.0, 0, name] for name in ("write_angle", "angle", "force", "error", "current",
                                                           "temperature")}
    assert found["write_angle"] == pytest.approx(1 / (2 * (290 / 115200 + 60e-6)), rel=0.01)  # nothing but the wire
    assert sum(found.values()) == pytest.approx(2 * found["write_angle"], rel=0.001)  # two exchanges in each cycle
    assert found["angle"] > 0.9 * found["write_angle"]
    assert found["force"] > 4.5
    assert found["error"] > 4.5
    assert found["current"] > 1.9
    assert found["temperature"] > 1.9
