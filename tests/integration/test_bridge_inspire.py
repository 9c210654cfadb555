"""The whole bridge against a simulated Inspire RH56 in another process, through a pseudo-terminal."""

import ctypes
import os
import subprocess
import sys
import threading
import time

import bridge_bench as bench
import numpy as np
import pytest
from bridge_bench import PATIENCE_S, TOLERANT, move, wait_for

from beingh0_edge.errors import (
    HandError,
    HandFault,
    LimitError,
    TransportError,
    TransportTimeout,
)
from beingh0_edge.firmware_bridge import Bridge, Safety, codec, hand_spec, start_simulator
from beingh0_edge.types import HandTrajectory

SPEC = hand_spec("inspire_rh56")
SIM = "sim:inspire_rh56"
PARTLY_CLOSED = 0.25 * SPEC.upper_rad
REGISTER_STEP_RAD = 1.62e-3  # one count of the widest joint


def close_to(pose, seconds=0.3):
    return move(SPEC.joint_names, pose, seconds)


def open_armed(port=None, **options):
    return bench.open_armed("inspire_rh56", port, **options)


def simulated(**options):
    return bench.simulated("inspire_rh56", **options)


def ask(port, request, reply_size):
    """One exchange as any other program would do it."""
    fd = os.open(port, os.O_RDWR | os.O_NOCTTY)
    try:
        os.write(fd, request)
        reply = b""
        while len(reply) < reply_size:
            reply += os.read(fd, reply_size - len(reply))
        return reply
    finally:
        os.close(fd)


def test_the_hand_ends_where_the_trajectory_ends():
    with open_armed() as hand:
        hand.follow(close_to(PARTLY_CLOSED), blocking=True)
        assert hand.state.q_cmd_rad == pytest.approx(PARTLY_CLOSED, abs=REGISTER_STEP_RAD)
        wait_for(lambda: np.abs(hand.state.q_rad - PARTLY_CLOSED).max() < 2 * REGISTER_STEP_RAD, "arrival")
        wait_for(lambda: (hand.state.status == 2).all(), "the hand to say so")
        state = hand.state
        assert state.counts["checksum"] == state.counts["refused"] == state.counts["implausible"] == 0


def test_joints_are_matched_by_name_not_by_position():
    order = SPEC.joint_names[::-1]
    trajectory = close_to(PARTLY_CLOSED)
    with open_armed() as hand:
        hand.follow(HandTrajectory(trajectory.t_s, trajectory.q_rad[:, ::-1], order), blocking=True)
        assert hand.state.q_cmd_rad == pytest.approx(PARTLY_CLOSED, abs=REGISTER_STEP_RAD)


def test_opening_and_looking_moves_nothing():
    with Bridge.open("inspire_rh56", port=simulated(pose="400,500,600,700,800,900").port) as hand:
        wait_for(lambda: hand.state.cycle > 20, "cycles")
        assert hand.state.state == "idle"
        assert set(hand.log.written) == {"nothing"}
        expected = (1 - np.array([400, 500, 600, 700, 800, 900]) / 1000) * SPEC.upper_rad
        assert hand.state.q_rad == pytest.approx(expected)
        with pytest.raises(HandError, match=r"arm\(\) first"):
            hand.follow(close_to(PARTLY_CLOSED))


def test_the_first_command_is_the_measured_pose():
    with open_armed(simulated(pose="400,500,600,700,800,900").port) as hand:
        wait_for(lambda: "done" in hand.log.written, "the first write")
        log = hand.log
        first = log.written.index("done")
        assert log.q_cmd_rad[first] == pytest.approx(log.q_rad[first])


def test_commands_keep_speed_and_range_when_the_trajectory_does_not():
    jumps = np.array([[0.0] * 6, SPEC.upper_rad, [0.0] * 6, SPEC.upper_rad])
    with open_armed() as hand:
        hand.follow(HandTrajectory(np.array([0.0, 0.05, 0.1, 0.15]), jumps, SPEC.joint_names), blocking=True)
        log = hand.log
        active = np.array([state == "active" for state in log.state])
        poses = log.q_cmd_rad[active]
        # One step per cycle, however late a cycle began.
        step = np.abs(np.diff(poses, axis=0)).max(axis=0)
        assert (step <= SPEC.max_speed_rad_s / 100 + 1e-9).all()
        assert (poses >= SPEC.lower_rad - 1e-9).all()
        assert (poses <= SPEC.upper_rad + 1e-9).all()


def bad_trajectories():
    good = close_to(PARTLY_CLOSED)

    def with_q(row, column, value):
        q = good.q_rad.copy()
        q[row, column] = value
        return HandTrajectory(good.t_s, q, good.joint_names)

    yield "nan", with_q(5, 2, np.nan), LimitError, "not finite"
    yield "infinite", with_q(0, 0, np.inf), LimitError, "not finite"
    yield "too far", with_q(7, 4, 0.7), LimitError, "range is 0 to 0.68"
    yield "negative", with_q(7, 4, -0.1), LimitError, "range is 0 to 0.6"
    t, q, names = good.t_s, good.q_rad, good.joint_names
    yield "back in time", HandTrajectory(t[::-1], q, names), LimitError, "increasing"
    yield "nan time", HandTrajectory(t * np.nan, q, names), LimitError, "not finite"
    yield "empty", HandTrajectory(t[:0], q[:0], names), LimitError, "no points"
    yield "short", HandTrajectory(t, q[:-1], names), ValueError, "expected t_s"
    yield "five joints", HandTrajectory(t, q[:, :5], names[:5]), ValueError, "little"
    yield "strange joint", HandTrajectory(t, q, ("x", *names[1:])), ValueError, "got x"
    yield "text", HandTrajectory(t, q.astype(str), names), TypeError, "numbers"
    yield "no trajectory", [1, 2, 3], TypeError, "expected a HandTrajectory"


def test_a_bad_trajectory_stops_the_hand_first_and_raises_second():
    with open_armed() as hand:
        for name, bad, error, words in bad_trajectories():
            hand.arm()
            hand.follow(close_to(PARTLY_CLOSED, seconds=2.0))
            with pytest.raises(error, match=words) as caught:
                hand.follow(bad)
            state = hand.state
            assert (state.state, state.reason) == ("hold", "command_refused"), name
            # Already on the wire when the error is raised.
            log = hand.log
            last = max(i for i, (s, w) in enumerate(zip(log.state, log.written, strict=True))
                       if s == "hold" and w == "done")
            assert log.reason[last] == "command_refused", name
            if isinstance(caught.value, HandError):
                assert caught.value.recent[-1]["state"] == "hold", name


def test_a_trajectory_that_lies_in_the_past_is_stale():
    with open_armed() as hand:
        with pytest.raises(LimitError, match="stale"):
            hand.follow(close_to(PARTLY_CLOSED, seconds=1.0), elapsed_s=1.5)
        hand.arm()
        hand.follow(close_to(PARTLY_CLOSED, seconds=1.0), elapsed_s=0.8, blocking=True)
        with pytest.raises(ValueError, match="elapsed_s"):
            hand.follow(close_to(PARTLY_CLOSED), elapsed_s=float("nan"))


def test_a_noisy_wire_is_counted_and_the_motion_goes_on():
    faults = {"drop:0.1": "timeout", "corrupt:0.1": "checksum", "duplicate": "late", "echo": "echo",
              "garbage": "garbage", "split": None, "wrong_id:0.1": "foreign", "truncate:0.1": "truncated"}
    simulator = simulated()
    with open_armed(simulator.port, safety=TOLERANT) as hand:
        for i, (fault, kind) in enumerate(faults.items()):
            simulator.command("fault ")
            hand.arm()
            before = hand.state.counts
            simulator.command(f"fault {fault}")
            target = PARTLY_CLOSED * (1 - i % 2)
            q = np.stack([PARTLY_CLOSED - target, target])
            hand.follow(HandTrajectory(np.array([0.0, 0.3]), q, SPEC.joint_names), blocking=True)
            after = hand.state
            assert after.q_cmd_rad == pytest.approx(target, abs=0.1), fault
            if kind is not None:
                # A duplicate comes after its transaction: dropped before the next one, or skipped within it.
                also = ("late", "foreign") if fault == "duplicate" else (kind,)
                assert sum(after.counts[k] - before[k] for k in also) > 0, fault


def test_a_silent_hand_is_a_fault_that_only_reset_and_arm_leave():
    simulator = simulated()
    with open_armed(simulator.port, reply_timeout_s=0.02) as hand:
        hand.follow(close_to(PARTLY_CLOSED, seconds=3.0))
        simulator.command("fault drop")
        with pytest.raises(TransportTimeout) as caught:
            hand.wait(PATIENCE_S)
        assert any(cycle["read"] == "timeout" for cycle in caught.value.recent)
        wait_for(lambda: hand.state.state == "fault", "the fault")
        simulator.command("fault ")
        with pytest.raises(TransportTimeout, match=r"too many failed transactions .*reset\(\)"):
            hand.arm()
        wait_for(lambda: hand.state.q_age_s < 0.05, "the pose")
        hand.reset()
        hand.arm()
        hand.follow(close_to(PARTLY_CLOSED), blocking=True)


def test_unplugging_is_a_transport_error_and_the_hand_comes_back_idle():
    simulator = simulated()
    with open_armed(simulator.port) as hand:
        hand.follow(close_to(PARTLY_CLOSED, seconds=3.0))
        simulator.command("unplug")
        with pytest.raises(TransportError, match="lost"):
            hand.wait(PATIENCE_S)
        with pytest.raises(TransportError, match="lost"):
            hand.follow(close_to(PARTLY_CLOSED))
        assert hand.state.state == "disconnected"
        simulator.command("replug")
        wait_for(lambda: hand.state.state == "idle", "the bridge to reconnect")
        with pytest.raises(HandError, match=r"arm\(\) first"):
            hand.follow(close_to(PARTLY_CLOSED))
        hand.arm()
        hand.follow(close_to(PARTLY_CLOSED), blocking=True)


def test_a_stuck_finger_is_a_hand_fault_that_names_it():
    simulator = simulated()
    with open_armed(simulator.port) as hand:
        simulator.command("set stuck=index")
        hand.follow(close_to(PARTLY_CLOSED, seconds=2.0))
        with pytest.raises(HandFault, match="index: stall") as caught:
            hand.wait(PATIENCE_S)
        assert caught.value.code == 1
        assert hand.state.state == "fault"
        with pytest.raises(HandFault):
            hand.arm()
        simulator.command("set stuck=")
        hand.reset()
        hand.arm()
        hand.follow(close_to(PARTLY_CLOSED), blocking=True)


def test_a_hot_finger_is_a_fault_before_the_hand_itself_gives_up():
    simulator = simulated()
    with open_armed(simulator.port) as hand:
        simulator.command("set hot=thumb_bend")
        wait_for(lambda: hand.state.state == "fault", "the temperature")
        assert hand.state.reason == "over_temperature"
        assert hand.state.error_bits.max() == 0


def test_a_grasped_object_is_held_without_a_fault():
    with open_armed(simulated(object=600).port, force_g=400) as hand:
        hand.follow(close_to(SPEC.upper_rad, seconds=1.0), blocking=True)
        wait_for(lambda: (hand.state.status[:4] == 3).all(), "the fingers to report force")
        state = hand.state
        assert state.state in ("active", "hold")
        assert state.force_g[:4].min() >= 400
        assert state.q_rad[3] == pytest.approx(0.4 * SPEC.upper_rad[3], abs=2 * REGISTER_STEP_RAD)


def test_estop_wins_over_a_running_trajectory_and_latches():
    with open_armed() as hand:
        hand.follow(close_to(PARTLY_CLOSED, seconds=2.0))
        wait_for(lambda: hand.state.q_cmd_rad[0] > 0.05, "motion")
        hand.estop()
        assert hand.state.state == "estop"
        wait_for(lambda: hand.log.written[-1] == "nothing", "the stop to be acknowledged")
        with pytest.raises(HandError, match=r"e-stop is latched; reset\(\) and arm\(\)"):
            hand.follow(close_to(PARTLY_CLOSED))
        log = hand.log
        stopped = [i for i, state in enumerate(log.state) if state == "estop"]
        assert (log.q_cmd_rad[stopped] == log.q_cmd_rad[stopped[0]]).all()
        hand.reset()
        with pytest.raises(HandError, match=r"arm\(\) first"):
            hand.follow(close_to(PARTLY_CLOSED))
        hand.arm()


def test_stop_keeps_the_measured_pose_and_needs_arm():
    with open_armed() as hand:
        hand.follow(close_to(PARTLY_CLOSED, seconds=2.0))
        wait_for(lambda: hand.state.q_rad[0] > 0.05, "motion")
        hand.stop()
        state = hand.state
        assert (state.state, state.reason) == ("hold", "stop_requested")
        with pytest.raises(HandError, match=r"arm\(\) first"):
            hand.follow(close_to(PARTLY_CLOSED))


def test_leaving_the_block_stops_the_hand_before_the_port_closes():
    with start_simulator(SIM) as simulator:
        with open_armed(simulator.port) as hand:
            hand.follow(close_to(SPEC.upper_rad, seconds=2.0))
            wait_for(lambda: hand.state.q_rad[0] > 0.2, "motion")
        measured = hand.log.q_rad[-1]
        inspire = codec("inspire_rh56")
        target = inspire.parse(ask(simulator.port, inspire.read(1486, 12), 20)).values
        assert (1 - target / 1000) * SPEC.upper_rad == pytest.approx(measured, abs=0.1)
        assert measured.max() < 0.9 * SPEC.upper_rad.max()
        hand.close()
        with pytest.raises(TransportError, match="closed"):
            hand.arm()


def test_the_loop_keeps_its_rate_while_python_is_blocked():
    hold_the_gil = ctypes.PyDLL(None).usleep  # PyDLL calls keep the GIL
    with open_armed() as hand:
        hand.follow(close_to(PARTLY_CLOSED, seconds=1.0))
        before = hand.state
        thread = threading.Thread(target=hold_the_gil, args=(500_000,))
        thread.start()
        thread.join()
        after = hand.state
        # Half a second is 50 cycles. On a busy machine the simulated hand, an ordinary process, answers late and
        # costs some of them; a loop that needed the interpreter would have made none.
        assert after.cycle - before.cycle >= 10
        assert after.state == "active"


def test_two_hands_on_two_ports_do_not_disturb_each_other():
    with start_simulator(SIM) as second, open_armed(side="left") as left, \
            open_armed(second.port, side="right") as right:
        left.follow(close_to(PARTLY_CLOSED))
        right.follow(close_to(0.5 * PARTLY_CLOSED))
        left.wait()
        right.estop()
        left.follow(close_to(0.8 * PARTLY_CLOSED), blocking=True)
        assert right.state.state == "estop"
        assert left.state.q_cmd_rad == pytest.approx(0.8 * PARTLY_CLOSED, abs=REGISTER_STEP_RAD)
        assert right.state.q_cmd_rad == pytest.approx(0.5 * PARTLY_CLOSED, abs=0.3)


def test_without_a_realtime_priority_the_state_says_so():
    with Bridge.open("inspire_rh56", port=simulated().port, realtime_priority=0) as hand:
        assert hand.state.realtime is False
        assert hand.state.memory_locked is False
        assert hand.state.low_latency is False  # a pseudo-terminal has no such flag


def test_a_forked_child_does_not_touch_the_parents_hand():
    program = (
        "import os\n"
        "from beingh0_edge.firmware_bridge import Bridge\n"
        "with Bridge.open('inspire_rh56', port='sim:inspire_rh56') as hand:\n"
        "    hand.arm()\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        raise SystemExit(0)\n"
        "    os.waitpid(child, 0)\n"
        "    hand.arm()\n"
        "    print(hand.state.state)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True,
                          timeout=PATIENCE_S * 3, check=True)
    assert done.stdout.strip() in ("active", "hold")  # by then the armed hand may be holding


def test_a_killed_user_process_leaves_no_command_behind_its_last_one():
    program = (
        "import sys, numpy as np\n"
        "from beingh0_edge.firmware_bridge import Bridge, hand_spec\n"
        "from beingh0_edge.types import HandTrajectory\n"
        "spec = hand_spec('inspire_rh56')\n"
        "hand = Bridge.open('inspire_rh56', port=sys.argv[1]); hand.arm()\n"
        "hand.follow(HandTrajectory(np.array([0.0, 3.0]), np.array([0 * spec.upper_rad, spec.upper_rad]),"
        " spec.joint_names))\n"
        "print('moving', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with start_simulator(SIM) as simulator:
        with subprocess.Popen([sys.executable, "-c", program, simulator.port], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline().strip() == "moving"
            time.sleep(0.3)
            process.kill()
            process.wait()
        # The port is free at once, and the hand is found holding part of the way, not the trajectory's end.
        with Bridge.open("inspire_rh56", port=simulator.port) as hand:
            assert hand.state.state == "idle"
            assert hand.state.q_rad.max() < 0.9 * SPEC.upper_rad.max()


# -- what cannot be opened


def test_ports_that_cannot_be_opened_say_what_is_possible(tmp_path, monkeypatch):
    with pytest.raises(TransportError, match=r"port /dev/ttyUSB99 does not exist; .*sim:inspire_rh56"):
        Bridge.open("inspire_rh56", port="/dev/ttyUSB99")
    with pytest.raises(TransportError, match="is not a serial port"):
        Bridge.open("inspire_rh56", port="/dev/null")
    plain = tmp_path / "file"
    plain.write_text("")
    with pytest.raises(TransportError, match="is not a serial port"):
        Bridge.open("inspire_rh56", port=str(plain))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TransportError, match="port file: not a serial port"):
        Bridge.open("inspire_rh56", port="file")
    with pytest.raises(TransportError, match=r"file is not a serial port; .*sim:linkerhand_l6$"):
        Bridge.open("linkerhand_l6", port=f"slcan:{plain}")


def test_a_simulated_hand_of_another_kind_is_refused_by_name():
    with pytest.raises(HandError, match=r"^sim:leap\?seed=1 is a simulated leap; expected sim:inspire_rh56$"):
        Bridge.open("inspire_rh56", port="sim:leap?seed=1")


def test_a_port_in_use_is_refused():
    simulator = simulated()
    with Bridge.open("inspire_rh56", port=simulator.port) as first:
        with pytest.raises(TransportError, match="in use"):
            Bridge.open("inspire_rh56", port=simulator.port)
        first.arm()  # undisturbed


def test_a_hand_with_another_id_does_not_answer():
    with pytest.raises(TransportTimeout, match=r"no answer .* check power.*asked for id 1, 115200 baud"):
        Bridge.open("inspire_rh56", port=simulated(device_id=2).port)
    with Bridge.open("inspire_rh56", port=simulated(device_id=2).port, device_id=2) as hand:
        assert hand.state.state == "idle"


def test_a_hand_of_another_family_is_not_driven():
    with pytest.raises(HandError, match="map A"):
        Bridge.open("inspire_rh56", port=simulated(map="B").port)


def test_a_fully_closed_hand_is_recognised_all_the_same():
    with Bridge.open("inspire_rh56", port=simulated(pose="0,0,0,0,0,0").port) as hand:
        assert hand.state.q_rad == pytest.approx(SPEC.upper_rad)


def test_a_closed_hand_says_so():
    hand = open_armed()
    hand.close()
    assert hand.state.state == "disconnected"
    for call in (hand.arm, hand.stop, hand.reset, hand.wait):
        with pytest.raises(TransportError, match="is closed"):
            call()
    hand.estop()
    hand.close()


@pytest.mark.parametrize("arguments", [{"rate_hz": "100"}, {"device_id": 1.5}, {"baud": "115200"}, {"safety": 3},
                                       {"realtime_priority": 1.5}, {"reply_timeout_s": None}])
def test_arguments_of_a_wrong_type_are_named(arguments):
    with pytest.raises(TypeError, match=f"{next(iter(arguments))}: expected"):
        Bridge.open(**{"name": "inspire_rh56", "port": SIM, **arguments})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "inspire_rh65"}, "unknown hand 'inspire_rh65'; known: .*inspire_rh56"),
        ({"side": "middle"}, "expected 'left' or 'right', got 'middle'"),
        ({"rate_hz": 0}, "rate_hz: expected 10 to 198"),
        ({"rate_hz": float("nan")}, "rate_hz"),
        ({"rate_hz": 500}, "rate_hz"),
        ({"rate_hz": 100, "baud": 19200}, r"rate_hz: expected 10 to 33\.1 for inspire_rh56 at 19200 baud, got 100"),
        ({"baud": 4800}, "needs 10 cycles a second, 4800 baud have room for 8.28"),
        ({"device_id": 0}, "device_id"),
        ({"baud": 7}, "baud"),
        ({"speed": 2000}, "speed"),
        ({"force_g": 0}, "force_g"),
        ({"family": "B"}, "family"),
        ({"port": ""}, "port"),
        ({"share": 3}, "name: expected letters, .* got 3"),
        ({"port": "sim:nothing"}, "unknown simulated hand 'nothing'; known: .*inspire_rh56,"),
        ({"port": SIM + "?fault=gremlins"}, "unknown fault 'gremlins'; known: drop"),
        ({"port": SIM + "?fault=drop:2"}, "probability"),
        ({"port": SIM + "?baud=-5"}, "baud: expected 0"),
        ({"port": SIM + "?colour=red"}, "unknown option; known: device_id"),
    ],
)
def test_wrong_arguments_say_what_was_got_and_what_is_possible(arguments, words):
    with pytest.raises(ValueError, match=words):
        Bridge.open(**{"name": "inspire_rh56", "port": SIM, **arguments})


def test_safety_values_out_of_bounds_are_refused():
    for values in ({"hold_after_s": 5.0}, {"freeze_after_s": float("nan")}, {"consecutive_errors": 0},
                   {"hold_after_s": 1.0, "freeze_after_s": 0.5}, {"error_rate": 1.0}, {"hold_after_s": "0.1"},
                   {"consecutive_errors": 2.5}, {"ignored_error_bits": 1.0}, {"blend_s": None}):
        with pytest.raises(ValueError, match="Safety"):
            Safety(**values)


def test_a_slow_line_is_driven_at_the_rate_it_has_room_for():
    with start_simulator("sim:inspire_rh56?baud=19200") as simulator, \
            Bridge.open("inspire_rh56", port=simulator.port, baud=19200) as hand:
        hand.arm()
        # Longer than an error report may be old; a pose that becomes stale would stop it.
        hand.follow(move(SPEC.joint_names, 0.5 * SPEC.upper_rad, 3.0), blocking=True)
        assert hand.state.state in ("active", "hold")
        assert hand.state.q_cmd_rad == pytest.approx(0.5 * SPEC.upper_rad, abs=1e-6)
