"""What every hand of the table keeps, over its simulated twin: one set of tests, a row per hand adds only its words."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from bridge_bench import PATIENCE_S, TOLERANT, move, open_armed, simulated, wait_for

from beingh0_edge.errors import HandError, HandFault, LimitError, TransportError, TransportTimeout
from beingh0_edge.firmware_bridge import HANDS, Bridge
from beingh0_edge.firmware_bridge.simulators import SIMULATORS
from beingh0_edge.types import HandTrajectory


@dataclass(frozen=True)
class Case:
    """What the tests must know about a hand besides its row."""

    step_rad: float                     # the coarsest unit of the wire
    foreign: dict[str, object]          # options of the simulated hand that make it another kind of hand
    refusal: str                        # and how the bridge says so
    stuck: str | None = None            # an option that blocks a joint
    stuck_joint: str = "index"          # and how the bridge names it
    options: dict[str, object] = field(default_factory=dict)  # of the bridge, for the test with the blocked joint
    arrival_rad: float | None = None    # how near the hand comes to its target; three steps unless said


def inspire() -> Case:
    return Case(2e-3, {"map": "B"}, "map A", "stuck=index")


def linkerhand(foreign: str, stuck: str = "index") -> Case:
    return Case(7e-3, {"model": foreign}, "degrees of freedom", f"stuck={stuck}", stuck)


def revo2(step_rad: float) -> Case:
    return Case(step_rad, {"revo1": 1}, "Revo2", "stuck=index", options={"stall_is_fault": True})


CASES = {
    "inspire_rh56": inspire(),
    "inspire_rh56_modbus": inspire(),
    "inspire_rh56_tcp": inspire(),
    "inspire_rh56_can": inspire(),
    "leap": Case(2 * np.pi / 4096, {"model": 1060}, "servo 0 is model 1060", "overload=2", "index_pip"),
    "linkerhand_o6": linkerhand("l10"),
    "linkerhand_l6": linkerhand("l7"),
    "linkerhand_l7": linkerhand("l10"),
    "linkerhand_l10": linkerhand("l7"),
    "linkerhand_l20": linkerhand("o6", stuck="index_tip"),
    "rohand": Case(1e-3, {"map": "none"}, "do not look like a ROHand", "stuck=index", options={"stall_is_fault": True}),
    "brainco_revo2": revo2(2e-3),
    "brainco_revo2_canfd": revo2(2e-3),
    "brainco_revo2_can": revo2(1.6e-2),
    "ability_hand": Case(1e-3, {"mirrored": 1, "pose": "0,0,0,0,0,0.5"}, "no Ability Hand", "stuck=index",
                         options={"stall_is_fault": True}),
    # Torque hands stop where friction holds against the spring; V4 does not report a blocked joint.
    "allegro_v4": Case(2e-4, {"plays": "v5"}, "looks like a V5", arrival_rad=0.03),
    "allegro_v5": Case(2e-3, {"plays": "v4"}, "looks like a V4", "stuck=2", "index_pip", arrival_rad=0.03),
}


NOISE = ("drop:0.1,corrupt:0.1", "duplicate,echo", "garbage,split:0.3", "wrong_id:0.1,truncate:0.1")

# Models that share every line of their driver with one of the others: for them the shorter tests are enough.
ALIKE = {"allegro_v4", "linkerhand_l6", "linkerhand_l7", "linkerhand_l10", "inspire_rh56_modbus", "inspire_rh56_tcp",
         "brainco_revo2_canfd"}
FULL = [name for name in CASES if name not in ALIKE]


def home_of(name: str) -> np.ndarray:
    """Open: 0 rad where the joint can."""
    return np.clip(0.0, HANDS[name].lower_rad, HANDS[name].upper_rad)


def target_of(name: str, share: float = 0.25) -> np.ndarray:
    spec = HANDS[name]
    # Every joint another share, so that joints that are mixed up show.
    return home_of(name) + share * np.linspace(0.6, 1.0, len(spec.joints)) * (spec.upper_rad - home_of(name))


def close(name: str, share: float = 0.25, seconds: float = 0.3) -> HandTrajectory:
    """A smooth move from open to partly closed."""
    bend = move(HANDS[name].joint_names, target_of(name, share) - home_of(name), seconds)
    return HandTrajectory(bend.t_s, bend.q_rad + home_of(name), bend.joint_names)


def test_every_hand_has_a_simulated_twin_and_a_row_here():
    assert set(HANDS) == set(SIMULATORS) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_description_says_where_its_numbers_come_from(name):
    spec = HANDS[name]
    assert spec.source
    assert spec.safe_stop
    assert len(set(spec.joint_names)) == len(spec.joints)
    assert (spec.lower_rad < spec.upper_rad).all()
    assert spec.rate_hz <= spec.highest_rate_hz
    assert spec.device_ids[0] <= spec.device_id <= spec.device_ids[1]


@pytest.mark.parametrize("name", CASES)
def test_the_hand_follows_and_ends_where_the_trajectory_ends(name):
    case = CASES[name]
    target = target_of(name)
    with open_armed(name) as hand:
        hand.follow(close(name), blocking=True)
        assert hand.state.q_cmd_rad == pytest.approx(target, abs=1e-3)
        wait_for(lambda: np.abs(hand.state.q_rad - target).max() < (case.arrival_rad or 3 * case.step_rad), "arrival")
        counts = hand.state.counts
        assert counts["checksum"] == counts["refused"] == counts["implausible"] == 0


@pytest.mark.parametrize("name", FULL)
def test_only_arm_and_follow_move_it_and_stop_and_estop_end_that(name):
    spec = HANDS[name]
    with Bridge.open(name, port=simulated(name).port) as hand:
        wait_for(lambda: hand.state.cycle > 10, "cycles")
        assert hand.state.state == "idle"
        assert set(hand.log.written) == {"nothing"}
        with pytest.raises(HandError, match=r"arm\(\) first"):
            hand.follow(close(name))
        hand.arm()
        wait_for(lambda: "done" in hand.log.written, "the first write")
        log = hand.log
        first = log.written.index("done")
        # What is read may lie a little outside of the range, what is commanded never does.
        assert log.q_cmd_rad[first] == pytest.approx(np.clip(log.q_rad[first], spec.lower_rad, spec.upper_rad))

        # Far too fast, from end to end and back.
        jumps = np.stack([spec.lower_rad, spec.upper_rad, spec.lower_rad, spec.upper_rad])
        hand.follow(HandTrajectory(np.array([0.0, 0.05, 0.1, 0.15]), jumps, spec.joint_names))
        wait_for(lambda: np.abs(hand.state.q_cmd_rad - log.q_cmd_rad[first]).max() > 0.02, "motion")
        bad = close(name)
        bad.q_rad[3, 1] = np.nan
        with pytest.raises(LimitError, match="not finite"):
            hand.follow(bad)
        assert (hand.state.state, hand.state.reason) == ("hold", "command_refused")

        hand.arm()
        hand.follow(HandTrajectory(np.array([0.0, 0.05, 0.1, 0.15]), jumps, spec.joint_names))
        hand.stop()
        assert (hand.state.state, hand.state.reason) == ("hold", "stop_requested")
        hand.arm()
        hand.follow(close(name))
        hand.estop()
        assert hand.state.state == "estop"
        wait_for(lambda: hand.log.written[-1] == "nothing", "the stop to be acknowledged")
        with pytest.raises(HandError, match="e-stop is latched"):
            hand.arm()
        hand.reset()
        hand.arm()

        log = hand.log
        moving = np.array([state == "active" for state in log.state])
        steps = np.abs(np.diff(log.q_cmd_rad, axis=0))[moving[1:] & moving[:-1]]
        assert (steps <= spec.max_speed_rad_s / spec.rate_hz + 1e-9).all()
        assert (log.q_cmd_rad[moving] >= spec.lower_rad - 1e-9).all()
        assert (log.q_cmd_rad[moving] <= spec.upper_rad + 1e-9).all()


@pytest.mark.parametrize("name", FULL)
def test_silence_is_a_fault_and_a_pulled_cable_a_lost_port_and_both_end_idle(name):
    simulator = simulated(name)
    with open_armed(name, simulator.port, reply_timeout_s=0.02) as hand:
        hand.follow(close(name, seconds=3.0))
        simulator.command("fault drop")
        with pytest.raises(TransportTimeout):
            hand.wait(PATIENCE_S)
        wait_for(lambda: hand.state.state == "fault", "the fault")
        simulator.command("fault ")
        wait_for(lambda: hand.state.q_age_s < 0.1, "the pose")
        hand.reset()
        hand.arm()
        simulator.command("unplug")
        with pytest.raises(TransportError, match="lost"):
            hand.follow(close(name, seconds=3.0), blocking=True)
        simulator.command("replug")
        wait_for(lambda: hand.state.state == "idle", "the bridge to reconnect")
        with pytest.raises(HandError, match=r"arm\(\) first"):
            hand.follow(close(name))
        hand.arm()
        hand.follow(close(name), blocking=True)


@pytest.mark.parametrize("name", CASES)
def test_another_kind_of_hand_is_refused(name):
    case = CASES[name]
    with pytest.raises(HandError, match=case.refusal):
        Bridge.open(name, port=simulated(name, **case.foreign).port, reply_timeout_s=0.02)


@pytest.mark.parametrize("name", [name for name in FULL if CASES[name].stuck])
def test_a_blocked_joint_is_a_fault_that_names_it(name):
    case = CASES[name]
    simulator = simulated(name)
    with open_armed(name, simulator.port, **case.options) as hand:
        simulator.command(f"set {case.stuck}")
        hand.follow(close(name, 0.6, 2.5))
        with pytest.raises(HandFault, match=f"{case.stuck_joint}: "):
            hand.wait(PATIENCE_S)
        assert hand.state.state == "fault"
        with pytest.raises(HandFault):
            hand.arm()
        simulator.command(f"set {case.stuck.partition('=')[0]}=")
        wait_for(lambda: reset(hand), "the hand to be well again")
        hand.arm()


def reset(hand: Bridge) -> bool:
    """Whether the fault ended; a hand without a way to clear its errors takes its time."""
    try:
        hand.reset()
    except HandError:
        return False
    return True


@pytest.mark.parametrize("name", FULL)
def test_a_noisy_wire_only_costs_cycles(name):
    simulator = simulated(name)
    with open_armed(name, simulator.port, safety=TOLERANT) as hand:
        for fault in NOISE:
            simulator.command(f"fault {fault}")
            hand.arm()
            hand.follow(close(name, 0.1, 0.1), blocking=True)
            assert hand.state.q_cmd_rad == pytest.approx(target_of(name, 0.1), abs=0.1), fault
