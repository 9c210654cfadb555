"""What the retargeter gives, the bridge takes: human motion on simulated hands of several makers."""

import time

import numpy as np
import pytest

from beingh0_edge.firmware_bridge import HANDS, Bridge
from beingh0_edge.retarget import Retargeter, open_hand
from beingh0_edge.robot_hand import known_robots
from beingh0_edge.types import HandTrajectory

ARRIVED_RAD = 0.06  # after half a second of rest; what the simulated hands' own resolution and droop leave


@pytest.mark.parametrize("name", ["inspire_rh56", "ability_hand", "leap"])
def test_a_hand_follows_the_retargeted_motion(name: str) -> None:
    assert name in set(known_robots()) & set(HANDS)
    retargeter = Retargeter.load(name)
    opened = open_hand("right")
    bent = opened.copy()
    bent[[6, 7, 8]] += np.array([0.02, -0.04, 0.0], np.float32)  # the index a little towards the palm
    share = np.linspace(0.0, 1.0, 16, dtype=np.float32)[:, None, None]
    q = retargeter.retarget(opened + share * (bent - opened))
    trajectory = HandTrajectory(np.arange(16) / 15, q, retargeter.joint_names)
    assert np.abs(q[-1] - q[0]).max() > 0.1
    with Bridge.open(name, port=f"sim:{name}") as hand:
        hand.arm()
        hand.follow(trajectory, blocking=True)
        time.sleep(0.5)
        state, log = hand.state, hand.log
    assert state.state in ("active", "hold")
    column = [retargeter.joint_names.index(joint) for joint in log.joint_names]
    np.testing.assert_allclose(log.q_cmd_rad[-1], q[-1, column], atol=0.01)
    np.testing.assert_allclose(log.q_rad[-1], q[-1, column], atol=ARRIVED_RAD)
