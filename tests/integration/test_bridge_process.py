"""The bridge as a process of its own, and the e-stop from outside: crashed, hung, stopped and killed processes."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from bridge_bench import PATIENCE_S, simulated, wait_for

from beingh0_edge.cli import main
from beingh0_edge.errors import HandError, TransportError
from beingh0_edge.firmware_bridge import (
    Bridge,
    Safety,
    SharedHand,
    codec,
    estop_shared,
    hand_spec,
    shared_names,
    start_simulator,
)
from beingh0_edge.firmware_bridge.remote import RemoteLoop, _send
from beingh0_edge.firmware_bridge.sharing import open_page
from beingh0_edge.types import HandTrajectory

HAND = "inspire_rh56"
SPEC = hand_spec(HAND)
PARTLY_CLOSED = 0.5 * SPEC.upper_rad
REGISTER_STEP_RAD = 1.62 / 1000


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("BEINGH0_RUNTIME_DIR", str(tmp_path / "run"))


def closing(seconds=0.3, share=0.5):
    t = np.linspace(0.0, seconds, 16)
    return HandTrajectory(t, 0.5 * (1 - np.cos(np.pi * t / seconds))[:, None] * share * SPEC.upper_rad,
                          SPEC.joint_names)


class Process:
    """A Python process that says when it is ready, and is gone at the end of the block."""

    def __init__(self, program, *arguments):
        self.process = subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def expect(self, words):
        line = self.process.stdout.readline()
        assert words in line, line
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


BRIDGE = "import sys; from beingh0_edge.cli import main; sys.exit(main(['bridge', *sys.argv[1:]]))"


def bridge_process(name="right", side="right", simulator=None):
    simulator = simulator or simulated(HAND)
    return Process(BRIDGE, HAND, "--port", simulator.port, "--as", name, "--side", side).expect("is bridge:")


# Opens the hand as argv[1] says, moves for three seconds, and then does what argv[2] says.
CLIENT = f"""
import ctypes, sys, time
import numpy as np
from beingh0_edge.firmware_bridge import Bridge, hand_spec
from beingh0_edge.types import HandTrajectory
spec = hand_spec({HAND!r})
port, share, then = sys.argv[1:]
hand = Bridge.open({HAND!r}, port, share=share or None)
hand.arm()
hand.follow(HandTrajectory(np.array([0.0, 3.0]), np.array([0 * spec.upper_rad, spec.upper_rad]), spec.joint_names))
print('moving', flush=True)
if then == 'hold the interpreter':
    ctypes.PyDLL(None).sleep(1000)
time.sleep(1000)
"""


def target_of(simulator):
    """Where the simulated hand was last told to go, radians."""
    inspire = codec(HAND)
    fd = os.open(simulator.port, os.O_RDWR | os.O_NOCTTY)
    try:
        os.write(fd, inspire.read(1486, 12))
        reply = b""
        while len(reply) < 20:
            reply += os.read(fd, 64)
    finally:
        os.close(fd)
    return (1 - np.array(inspire.parse(reply).values) / 1000) * SPEC.upper_rad


def test_a_hand_in_another_process_has_the_same_interface():
    with bridge_process(), Bridge.open(HAND, "bridge:right") as hand:
        with pytest.raises(HandError, match=r"arm\(\) first"):
            hand.follow(closing())
        hand.arm()
        hand.follow(closing(), blocking=True)
        assert hand.state.q_cmd_rad == pytest.approx(PARTLY_CLOSED, abs=REGISTER_STEP_RAD)
        wait_for(lambda: np.allclose(hand.state.q_rad, PARTLY_CLOSED, atol=2 * REGISTER_STEP_RAD), "the hand")
        hand.stop()
        assert (hand.state.state, hand.state.reason) == ("hold", "stop_requested")
        hand.arm()
        with pytest.raises(HandError, match="not finite"):
            hand.follow(HandTrajectory(np.array([0.0, 1.0]), np.full((2, 6), np.nan), SPEC.joint_names))
        assert hand.state.reason == "command_refused"
        assert "stop_requested" in hand.log.reason
        hand.estop()
        assert hand.state.state == "estop"
        hand.reset()
        assert hand.state.state == "idle"
        assert repr(hand) == "<Bridge inspire_rh56 right on bridge:right: idle>"


def test_only_one_client_drives_and_all_may_look_and_stop():
    with bridge_process(), Bridge.open(HAND, "bridge:right") as first, Bridge.open(HAND, "bridge:right") as second:
        first.arm()
        for forbidden in (second.arm, second.reset, lambda: second.follow(closing())):
            with pytest.raises(HandError, match="another process drives"):
                forbidden()
        assert second.state.state in ("active", "hold")
        second.stop()
        assert first.state.reason == "stop_requested"
        first.close()
        wait_for(lambda: second._loop.arm() == (True, "accepted"), "the place of the driver")


def test_a_killed_client_leaves_a_hand_that_stopped():
    with bridge_process(), Bridge.open(HAND, "bridge:right") as watching:
        with Process(CLIENT, "bridge:right", "", "") as client:
            client.expect("moving")
            wait_for(lambda: watching.state.q_rad[0] > 0.1, "motion")
            client.process.kill()
            wait_for(lambda: watching.state.reason == "stop_requested", "the stop")
        assert watching.state.state == "hold"
        assert watching.state.q_rad.max() < 0.9 * SPEC.upper_rad.max()


def test_a_client_that_speaks_nonsense_is_cut_off_and_the_others_are_served():
    with bridge_process(), Bridge.open(HAND, "bridge:right") as hand:
        for nonsense in ({"ask": "dance"}, {}, {"ask": "follow", "points": -1}, {"ask": "follow", "points": 10**9}):
            loop = RemoteLoop("right")
            _send(loop._socket, nonsense)
            assert loop._socket.recv(10) == b""
            loop.close()
        loop = RemoteLoop("right")
        loop._socket.sendall(b"\xff\xff\xff\xff")
        assert loop._socket.recv(10) == b""
        loop.close()
        hand.arm()


def test_a_wrong_hand_or_name_is_refused():
    with bridge_process():
        with pytest.raises(HandError, match="drives a right inspire_rh56, not a left inspire_rh56"):
            Bridge.open(HAND, "bridge:right", side="left")
        with pytest.raises(HandError, match="not a right leap"):
            Bridge.open("leap", "bridge:right")
        with pytest.raises(TransportError, match="no bridge is called 'left'; running: right"):
            Bridge.open(HAND, "bridge:left", side="left")
        with pytest.raises(TransportError, match="another process has a bridge called 'right'"):
            Bridge.open(HAND, "/dev/null", share="right")
        with pytest.raises(ValueError, match="name: expected letters"):
            Bridge.open(HAND, "bridge:../x")
        assert shared_names() == ["right"]
    assert shared_names() == []


def test_what_the_bridge_was_started_with_is_not_asked_for_in_vain():
    with bridge_process():
        for name, value in {"rate_hz": 50.0, "device_id": 1, "baud": 115200, "safety": Safety(), "share": "left",
                            "force_g": 300}.items():
            with pytest.raises(ValueError, match=f"^{name}: expected to be set where bridge:right was started"):
                Bridge.open(HAND, "bridge:right", **{name: value})


@pytest.mark.parametrize("command", [("monitor",), ("record", "--out", "log.npz")])
def test_a_bridge_that_drives_another_hand_is_not_taken_for_the_one_asked_for(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with bridge_process():
        for hand, side in (("leap", "right"), ("rohand", "right"), (HAND, "left")):  # rohand has as many joints
            assert main(["hand", *command, hand, "--port", "bridge:right", "--side", side, "--seconds", "0.3"]) == 2
            assert f"drives a right inspire_rh56, not a {side} {hand}" in capsys.readouterr().err
        assert main(["hand", *command, HAND, "--port", "bridge:right", "--seconds", "0.3", "--rate", "50"]) == 2
        assert "expected to be set where bridge:right was started" in capsys.readouterr().err
        assert not (tmp_path / "log.npz").exists()
        assert main(["hand", *command, HAND, "--port", "bridge:right", "--seconds", "0.3"]) == 0


def test_two_hands_in_two_processes():
    with start_simulator(f"sim:{HAND}") as other, bridge_process("right"), \
            bridge_process("left", "left", other), \
            Bridge.open(HAND, "bridge:left", side="left") as left, Bridge.open(HAND, "bridge:right") as right:
        assert shared_names() == ["left", "right"]
        left.arm()
        right.arm()
        left.follow(closing(share=0.3))
        right.follow(closing(share=0.6))
        left.wait()
        right.wait()
        assert left.state.q_cmd_rad == pytest.approx(0.3 * SPEC.upper_rad, abs=REGISTER_STEP_RAD)
        assert right.state.q_cmd_rad == pytest.approx(0.6 * SPEC.upper_rad, abs=REGISTER_STEP_RAD)


# -- the e-stop from outside


def test_the_estop_reaches_a_hand_whose_program_holds_the_interpreter_for_ever():
    simulator = simulated(HAND)
    with Process(CLIENT, simulator.port, "arm", "hold the interpreter") as policy:
        policy.expect("moving")
        page = open_page("arm")
        wait_for(lambda: page.snapshot()["q_rad"][0] > 0.1, "motion")
        assert page.snapshot()["state"] == "active"
        assert estop_shared("arm") == "the loop took it"
        wait_for(lambda: page.snapshot()["stop_delivered"], "the hand to take it")
        stopped = page.snapshot()
        assert stopped["state"] == "estop"
        wait_for(lambda: page.snapshot()["cycle"] > stopped["cycle"] + 20, "time to pass")
        assert (page.snapshot()["q_cmd_rad"] == stopped["q_cmd_rad"]).all()
        assert policy.process.poll() is None  # it hangs on


def test_the_estop_reaches_a_hand_while_its_bridge_and_its_client_are_stopped():
    simulator = simulated(HAND)
    with bridge_process() as server, Process(CLIENT, "bridge:right", "", "") as client:
        client.expect("moving")
        page = open_page("right")
        wait_for(lambda: page.snapshot()["q_rad"][0] > 0.1, "motion")
        for process in (client.process, server.process):
            process.send_signal(signal.SIGSTOP)
        said = estop_shared("right")
        assert "is ended, and the hand was stopped on" in said
        assert server.process.wait(PATIENCE_S) == -signal.SIGKILL
        with Bridge.open(HAND, simulator.port) as hand:
            assert hand.state.q_rad.max() < 0.9 * SPEC.upper_rad.max()
        assert target_of(simulator).max() < 0.9 * SPEC.upper_rad.max()


def test_the_estop_reaches_a_hand_whose_bridge_was_killed():
    simulator = simulated(HAND, latency_s=0.5)  # so slow that its last command is still on the way
    with bridge_process() as server, Process(CLIENT, "bridge:right", "", "") as client:
        client.expect("moving")
        about = SharedHand.load("right")
        assert (about.hand, about.process) == (HAND, server.process.pid)
        server.process.kill()
        server.process.wait()
        assert "was stopped on" in estop_shared("right")
        with Bridge.open(HAND, simulator.port) as hand:
            assert hand.state.state == "idle"


def test_a_dead_bridge_looks_disconnected_to_its_clients():
    simulated(HAND)
    with bridge_process() as server, Bridge.open(HAND, "bridge:right") as hand:
        hand.arm()
        server.process.kill()
        server.process.wait()
        with pytest.raises(TransportError, match="is gone"):
            hand.follow(closing())
        wait_for(lambda: hand.state.state == "disconnected", "the page to grow old")
        assert hand.log.state[-1] in ("active", "hold")  # the last cycles outlive the process
        with pytest.raises(TransportError, match="closed"):
            hand.arm()


def test_the_runtime_folder_must_be_the_users_own(tmp_path, monkeypatch):
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    monkeypatch.setenv("BEINGH0_RUNTIME_DIR", str(open_to_all))
    with pytest.raises(TransportError, match="nobody else can write"):
        shared_names()


def test_a_page_of_another_version_is_refused(tmp_path):
    with bridge_process():
        page = tmp_path / "run" / "right.page"
        held = page.read_bytes()
        (tmp_path / "run" / "short.page").write_bytes(held[:1000])
        (tmp_path / "run" / "other.page").write_bytes(b"x" * len(held))
        for name in ("short", "other"):
            with pytest.raises(TransportError, match="not a page of this version"):
                open_page(name)
