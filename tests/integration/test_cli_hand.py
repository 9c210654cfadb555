"""The commands for a hand on the bench, against a simulated one."""

import numpy as np
import pytest
from bridge_bench import simulated

from beingh0_edge.cli import main
from beingh0_edge.firmware_bridge import HandLog, hand_spec
from beingh0_edge.firmware_bridge.ports import stable_name

HAND = "inspire_rh56"
SPEC = hand_spec(HAND)
REGISTER_STEP_RAD = 1.62 / 1000


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BEINGH0_RUNTIME_DIR", str(tmp_path / "run"))


def run(capsys, *arguments):
    status = main(["hand", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out + err


def test_close_jog_record_replay_and_open_do_what_they_say(capsys, tmp_path):
    port = simulated(HAND).port
    status, said = run(capsys, "close", HAND, "--port", port, "--amount", 0.5, "--seconds", 0.6, "--log", "close.npz",
                       "--option", "force_g=300")
    assert status == 0, said
    assert "ended in" in said
    log, hand, side = HandLog.load(tmp_path / "close.npz")
    assert (hand, side, log.joint_names) == (HAND, "right", SPEC.joint_names)
    assert log.q_cmd_rad[-1] == pytest.approx(0.5 * SPEC.upper_rad, abs=1e-6)
    assert (tmp_path / "hand_close.png").stat().st_size > 10_000

    status, said = run(capsys, "jog", HAND, "index", -10, "--port", port, "--seconds", 0.3, "--log", "jog.npz")
    assert status == 0, said
    moved = HandLog.load(tmp_path / "jog.npz")[0].q_cmd_rad[-1] - log.q_rad[-1]
    assert moved[3] == pytest.approx(np.radians(-10), abs=2 * REGISTER_STEP_RAD)
    assert np.abs(np.delete(moved, 3)).max() < 2 * REGISTER_STEP_RAD

    status, said = run(capsys, "open", HAND, "--port", port, "--seconds", 0.6)
    assert status == 0, said
    status, said = run(capsys, "record", HAND, "--port", port, "--out", "still.npz", "--seconds", 0.3)
    assert status == 0, said
    still = HandLog.load(tmp_path / "still.npz")[0]
    assert set(still.state) == {"idle"}  # recording moves nothing
    assert np.abs(still.q_rad).max() < 2 * REGISTER_STEP_RAD
    assert (tmp_path / "still.png").exists()

    status, said = run(capsys, "replay", HAND, "close.npz", "--port", port, "--speed", 2, "--log", "again.npz")
    assert status == 0, said
    assert HandLog.load(tmp_path / "again.npz")[0].q_cmd_rad[-1] == pytest.approx(
        log.q_rad[-1], abs=2 * REGISTER_STEP_RAD)


def test_probe_monitor_and_calibrate(capsys):
    port = simulated(HAND).port
    status, said = run(capsys, "probe", HAND, "--port", port)
    assert status == 0
    assert f"{port}  inspire_rh56  idle" in said
    status, said = run(capsys, "monitor", HAND, "--port", port, "--seconds", 0.3)
    assert status == 0
    assert "thumb_rotation" in said
    assert "idle (none)" in said
    status, said = run(capsys, "calibrate", HAND, "--port", port)
    assert status == 2
    assert "zeroes the force sensors" in said
    assert "--yes" in said
    status, said = run(capsys, "calibrate", HAND, "--port", port, "--yes", "--wait", 0.5)
    assert status == 0
    assert "210 g         0 g" in said
    status, said = run(capsys, "probe", "leap", "--port", port, "--baud", 115200)
    assert status == 2
    assert "no hand answers" in said


@pytest.mark.parametrize(("arguments", "words"), [
    (("jog", HAND, "nose", "5"), "joint: expected one of little, ring"),
    (("jog", HAND, "index", "500"), "leaves its range"),
    (("close", HAND, "--amount", "2"), "--amount: expected 0 to 1"),
    (("close", HAND, "--seconds", "-1"), "--seconds: expected more than 0"),
    (("close", HAND, "--option", "force_g"), "--option: expected NAME=VALUE"),
    (("close", HAND, "--option", "force_g=much"), "--option force_g: expected a number"),
    (("close", HAND, "--option", "colour=1"), "unknown option 'colour'"),
    (("record", HAND, "--out", "log.txt"), "ends in .npz"),
    (("calibrate", "leap", "--yes"), "nothing to calibrate"),
    (("replay", HAND, "broken.npz"), "not a log of a hand"),
    (("replay", HAND, "empty.npz"), "empty.npz: not a log of a hand (File is not a zip file)"),
    (("record", HAND, "--out", "no/log.npz"), "the folder no does not exist"),
    (("record", HAND, "--out", "log.npz", "--seconds", "nan"), "--seconds: expected more than 0"),
    (("monitor", HAND, "--seconds", "-1"), "--seconds: expected more than 0"),
    (("close", HAND, "--plot", "a.xyz"), "--plot: expected a name that ends in .png"),
    (("close", HAND, "--log", "no/log.npz"), "the folder no does not exist"),
    (("calibrate", HAND, "--yes", "--wait", "-1"), "--wait: expected 0 to 120"),
    (("close", HAND, "--rate", "fast"), "--rate': expected a number, got 'fast'"),
])
def test_bad_arguments_are_refused_in_one_line(capsys, tmp_path, arguments, words):
    (tmp_path / "broken.npz").write_bytes(b"no log")
    (tmp_path / "empty.npz").touch()
    status, said = run(capsys, *arguments, "--port", simulated(HAND).port)
    assert status == 2
    assert words in said
    assert len(said.splitlines()) == 1, said  # nothing was opened, so nothing moved


def test_a_port_that_is_not_there_is_named_once(capsys):
    status, said = run(capsys, "probe", "--port", "/dev/nothing")
    assert status == 2
    assert said.count("/dev/nothing does not exist") == 1


def test_estop_without_a_name_lists_what_runs(capsys):
    status, said = run(capsys, "estop")
    assert status == 2
    assert "running: none" in said
    status, said = run(capsys, "estop", "left")
    assert status == 2
    assert "no bridge is called 'left'" in said


def test_logs_are_joined_and_cut_by_time_and_damaged_files_are_refused(tmp_path):
    def log(begin, cycles):
        zeros = np.zeros((cycles, 2))
        words = ("idle",) * cycles
        return HandLog(("a", "b"), begin + np.arange(cycles) / 10, np.zeros(cycles), zeros, zeros, zeros, zeros, words,
                       words, words, words)

    whole = HandLog.joined([log(0.0, 10), log(1.0, 5)])
    assert len(whole.t_s) == len(whole.state) == len(whole.q_rad) == 15
    assert len(whole.after(0.95).t_s) == 5
    whole.save(str(tmp_path / "log.npz"), "toy", "left")
    again, hand, side = HandLog.load(str(tmp_path / "log.npz"))
    assert (hand, side, again.state) == ("toy", "left", whole.state)
    assert (again.t_s == whole.t_s).all()
    columns = dict(np.load(tmp_path / "log.npz"))
    np.savez(tmp_path / "short.npz", **{**columns, "q_rad": columns["q_rad"][:3]})
    with pytest.raises(ValueError, match=r"q_rad: expected shape \[15, 2\], got \[3, 2\]"):
        HandLog.load(tmp_path / "short.npz")
    np.savez(tmp_path / "text.npz", **{**columns, "t_s": columns["state"]})
    with pytest.raises(ValueError, match="t_s: expected floats, got <U4"):
        HandLog.load(tmp_path / "text.npz")


def test_a_log_that_was_cut_or_altered_is_named(tmp_path):
    numbers, words = np.zeros((9, 2)), ("idle",) * 9
    log = HandLog(("a", "b"), np.arange(9.0), np.zeros(9), *[numbers] * 4, *[words] * 4)
    log.save(tmp_path / "log.npz", "toy", "left")
    whole = (tmp_path / "log.npz").read_bytes()
    within = whole.index(b"t_s.npy") + 50  # of the compressed bytes
    for damaged in (b"", whole[:40], whole[:-30], whole[:within] + b"\xff" * 8 + whole[within + 8:]):
        (tmp_path / "damaged.npz").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged\.npz: not a log of a hand"):
            HandLog.load(tmp_path / "damaged.npz")


def test_a_port_is_known_by_the_name_that_survives_replugging(tmp_path):
    links = tmp_path / "by-id"
    links.mkdir()
    device, other = tmp_path / "ttyUSB0", tmp_path / "ttyUSB1"
    device.touch()
    (links / "usb-FTDI_1234").symlink_to(device)
    stable = str(links / "usb-FTDI_1234")
    assert stable_name(str(device), str(links)) == stable
    assert stable_name(f"slcan:{device}", str(links)) == f"slcan:{stable}"
    assert stable_name(stable, str(links)) == stable
    assert stable_name(str(other), str(links)) == str(other)
    assert stable_name("can0", str(links)) == "can0"
