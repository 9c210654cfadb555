"""The retargeting benchmark: it gives its peer the same robot, and the page says what was measured."""

import json
from pathlib import Path
from types import ModuleType

import benchmark_module
import numpy as np
import pytest

from beingh0_edge.robot_hand import RobotHand, known_robots
from beingh0_edge.robot_import import ImportOptions, import_hand

ROOT = Path(__file__).parents[2]
SAME_M = 1e-6  # the importer rounds to 0.1 um


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return benchmark_module.load("retargeting")


@pytest.mark.parametrize("name", known_robots())
def test_the_peer_gets_the_same_robot(benchmark: ModuleType, name: str, tmp_path: Path) -> None:
    robot = RobotHand.load(name, "right")
    leaders = benchmark.write_urdf(robot, np.array([0.01, 0.0, 0.0]), tmp_path / "hand.urdf")
    assert set(leaders) == set(robot.joint_names)
    opened = {joint: m * robot.open_rad[robot.joint_names.index(driven)] + o
              for driven, (joint, m, o) in leaders.items()}
    again = import_hand(tmp_path / "hand.urdf", ImportOptions(
        tips={finger: f"{finger}_tip" for finger in robot.fingers}, name=name, open=opened))
    for q in np.random.default_rng(3).uniform(robot.lower_rad, robot.upper_rad, (3, len(robot.lower_rad))):
        angles = {joint: m * q[robot.joint_names.index(driven)] + o for driven, (joint, m, o) in leaders.items()}
        points = again.points_m(np.array([angles[joint] for joint in again.joint_names]))
        for finger, expected in robot.points_m(q).items():
            np.testing.assert_allclose(points[finger][3], expected[3], atol=SAME_M)


def test_the_page_says_what_was_measured(benchmark: ModuleType) -> None:
    result = json.loads((ROOT / "docs" / "results" / "retargeting.json").read_text())
    assert benchmark.section(result) in benchmark.PAGE.read_text()
