"""From one picture to a moving hand, in the fewest lines: a simulated hand unless a port is given.

python examples/image_to_hand.py PICTURE "pick up the red can" [/dev/ttyUSB0]
"""

from __future__ import annotations

import sys

from beingh0_edge import Observation, Policy
from beingh0_edge.firmware_bridge import Bridge
from beingh0_edge.preprocess import read_image
from beingh0_edge.retarget import Retargeter


def main(picture: str, instruction: str, port: str = "sim:inspire_rh56") -> None:
    policy = Policy.load("nano")
    retargeter = Retargeter.load("inspire_rh56", "right")
    observation = Observation(read_image(picture), instruction)
    motion = policy.generate(observation, seconds=1, hands="right")
    trajectory = retargeter.trajectory(motion.of("right"))
    with Bridge.open("inspire_rh56", port=port, side="right") as hand:
        hand.arm()
        hand.follow(trajectory, blocking=True)
        for name, angle_rad in zip(hand.spec.joint_names, hand.state.q_rad, strict=True):
            print(f"{name:15} {angle_rad:.3f} rad")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
