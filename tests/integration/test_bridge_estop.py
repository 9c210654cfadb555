"""An e-stop while the hand is silent: it does not wait for an answer that may never come. The reply timeout here is the
longest there is, half a second, so that nearly all the time passes in waiting."""

import pytest
from bridge_bench import simulated, wait_for
from test_bridge_contract import close, open_armed

# One of every carrier: frames of its own, RTU, TCP, Dynamixel, CAN with and without acknowledged writes.
NAMES = ("inspire_rh56", "inspire_rh56_modbus", "inspire_rh56_tcp", "inspire_rh56_can", "leap", "linkerhand_o6",
         "rohand", "brainco_revo2", "brainco_revo2_can", "ability_hand")
LONGEST_S = 0.5


def moving(name, simulator):
    hand = open_armed(name, simulator.port, reply_timeout_s=LONGEST_S)
    hand.follow(close(name, seconds=3.0))
    start = hand.state.q_cmd_rad
    wait_for(lambda: abs(hand.state.q_cmd_rad - start).max() > 0.01, "motion")
    return hand


@pytest.mark.parametrize("name", NAMES)
def test_an_estop_ends_the_wait_for_a_silent_hand(name):
    simulator = simulated(name)
    with moving(name, simulator) as hand:
        simulator.command("fault drop")
        asked = hand.state.t_s
        wait_for(lambda: hand.state.q_age_s > 0.04, "silence")
        hand.estop()
        assert hand.state.state == "estop"
        stopped = hand.state.q_cmd_rad
        simulator.command("fault ")
        wait_for(lambda: hand.log.written[-1] == "nothing", "the stop to be acknowledged")
        assert (hand.state.q_cmd_rad == stopped).all()
        log = hand.log.after(asked)
        happened = log.read + log.written
        # The log has no word for a wait in which the bridge asked for something else than the pose.
        assert "interrupted" in happened or "timeout" not in log.read[:log.state.index("estop") + 1]


@pytest.mark.parametrize("name", NAMES)
def test_a_late_answer_to_the_abandoned_request_is_no_answer_to_the_stop(name):
    simulator = simulated(name)
    with moving(name, simulator) as hand:
        simulator.command("fault delay:1:0.1")
        wait_for(lambda: hand.state.q_age_s > 0.04, "silence")
        hand.estop()
        assert hand.state.state == "estop"
        simulator.command("fault ")
        wait_for(lambda: hand.log.written[-1] == "nothing", "the stop to be acknowledged")
        log = hand.log
        latched = log.state.index("estop")
        stopped = log.q_cmd_rad[latched]
        assert (log.q_cmd_rad[latched:] == stopped).all()
        wait_for(lambda: hand.state.q_age_s < 0.04, "the pose")
        wait_for(lambda: abs(hand.state.q_rad - stopped).max() < 0.05, "the hand to stand where it was stopped")
