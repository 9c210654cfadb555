"""The command line: help, exit status, one line per error, nothing half-written."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beingh0_edge import __version__
from beingh0_edge.cli import FAILED, INTERRUPTED, main
from beingh0_edge.cli.video import count_frames, write_video
from beingh0_edge.errors import BundleError, TransportError
from beingh0_edge.files import check_file_target, staged, write_json


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "beingh0_edge", *arguments], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=120, check=False)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120,
                          check=False)


def fails_with_one_line(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == FAILED
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("beingh0: ")
    return lines[0].removeprefix("beingh0: ")


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(path)
    return path


# ------------------------------------------------------------------------------------------------ help


def test_help_names_every_command_and_loads_no_engine():
    code = ("import sys; from beingh0_edge.cli import main; main(['--help']); "
            "heavy = {'torch', 'cv2', 'llama_cpp', 'onnxruntime', 'matplotlib'} & set(sys.modules); "
            "sys.exit(f'loaded: {heavy}' if heavy else 0)")
    done = python(code)
    assert done.returncode == 0, done.stderr
    for name in ("demo", "infer", "train", "eval", "bundle", "doctor", "hand"):
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("group", [[], ["train"], ["eval"], ["bundle"], ["hand"]])
def test_a_group_without_a_command_shows_its_help(group, capsys):
    assert main(group) == 0
    assert "Commands:" in capsys.readouterr().out


def test_the_version_is_that_of_the_package():
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"beingh0-edge {__version__}\n", "")


# ------------------------------------------------------------------------------------------- wrong arguments


@pytest.mark.parametrize(("arguments", "said"), [
    (["fly"], "No such command 'fly'"),
    (["--speed", "1"], "No such option: --speed"),
    (["infer", "nano"], "Missing option '--image'"),
    (["bundle", "verify"], "Missing argument 'BUNDLE'"),
    (["infer", "nano", "--image", "a", "--task", "b", "--out", "c", "--seconds", "1.5"],
     "expected a whole number, got '1.5'"),
    (["eval", "nano", "--episodes", "many"], "expected a whole number, got 'many'"),
])
def test_wrong_usage_is_one_line(arguments, said, capsys):
    assert said in fails_with_one_line(capsys, *arguments)


@pytest.mark.parametrize(("option", "value", "said"), [
    ("--task", "  ", "instruction: expected what to do, e.g. 'pick up the red can', got an empty text"),
    ("--task", "go <mot> now", "the special token '<mot>' may not stand in it"),
    ("--hands", "three", "hands: expected 'left', 'right' or 'both', got 'three'"),
    ("--seconds", "0", "seconds: expected a whole number from 1 on, got 0"),
    ("--seconds", "-1", "seconds: expected a whole number from 1 on, got -1"),
    ("--seed", "-1", "--seed: expected a whole number from 0 on, got -1"),
    ("--temperature", "0", "--temperature: expected a number above 0, got 0.0"),
    ("--temperature", "nan", "--temperature: expected a number above 0, got nan"),
    ("--intrinsics", "1,2,3", "--intrinsics: expected four numbers fx,fy,cx,cy, got '1,2,3'"),
    ("--image", "absent.png", "no picture at absent.png"),
    ("--image", __file__, "not a whole picture"),
    ("--task", "caf\udce9", "instruction: expected text"),
])
def test_infer_refuses_a_bad_request_before_it_loads_a_model(option, value, said, capsys, picture, tmp_path):
    request = {"--image": str(picture), "--task": "pick up the red can", "--out": str(tmp_path / "out")}
    request[option] = value
    # the bundle does not exist either: the request is checked first
    message = fails_with_one_line(capsys, "infer", str(tmp_path / "bundle"),
                                  *(word for pair in request.items() for word in pair))
    assert said in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("pixels", "said"), [
    (np.zeros((48, 64), np.uint8), "expected an RGB picture, got mode L (grey); convert it"),
    (np.zeros((48, 64, 4), np.uint8), "got mode RGBA"),
    (np.zeros((4, 4, 3), np.uint8), "sides of 16 to 16384 px"),
])
def test_infer_refuses_pictures_that_are_not_sane_colour_pictures(pixels, said, capsys, tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    assert said in fails_with_one_line(capsys, "infer", "nano", "--image", str(path), "--task", "wave",
                                       "--out", str(tmp_path / "out"))


def test_infer_refuses_a_truncated_picture(capsys, picture, tmp_path):
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])
    assert "not a whole picture" in fails_with_one_line(
        capsys, "infer", "nano", "--image", str(picture), "--task", "wave", "--out", str(tmp_path / "out"))


@pytest.mark.parametrize(("intrinsics", "said"), [
    ("nan,1,1,1", "expected finite (fx, fy, cx, cy) with fx, fy > 0, got (nan, 1.0, 1.0, 1.0)"),
    ("0.8,0.8,0.5,0.5", "expected fx, fy in pixels of the photo"),
    ("60,60,9000,24", "sees nothing of a 64x48 photo"),
])
def test_infer_refuses_intrinsics_that_cannot_be(intrinsics, said, capsys, picture, tmp_path):
    assert said in fails_with_one_line(capsys, "infer", "nano", "--image", str(picture), "--task", "wave",
                                       "--intrinsics", intrinsics, "--out", str(tmp_path / "out"))


@pytest.mark.parametrize("command", [
    ["bundle", "verify", "{}"], ["bundle", "inspect", "{}"],
    ["eval", "nano", "--episodes", "5", "--bundle", "{}"], ["demo", "--bundle", "{}", "--out", "{}/out"],
])
def test_a_missing_bundle_is_one_line_everywhere(command, capsys, tmp_path):
    absent = str(tmp_path / "absent")
    message = fails_with_one_line(capsys, *(word.format(absent) for word in command))
    assert message == f"{absent}: no such bundle directory (packaged bundles: nano)"
    assert not (tmp_path / "absent").exists()


def test_a_bundle_of_another_revision_is_one_line(capsys, tmp_path):
    (tmp_path / "manifest.json").write_text('{"format": "beingh0-edge bundle", "revision": 999}')
    message = fails_with_one_line(capsys, "bundle", "verify", str(tmp_path))
    assert "expected revision 1, got 999" in message


@pytest.mark.parametrize("episodes", ["0", "-3"])
def test_eval_refuses_to_measure_nothing(episodes, capsys):
    assert f"episodes: expected a whole number from 1 on, got {episodes}" in fails_with_one_line(
        capsys, "eval", "nano", "--episodes", episodes)


def test_eval_checks_where_it_will_write_before_it_starts(capsys, tmp_path):
    message = fails_with_one_line(capsys, "eval", "nano", "--json", str(tmp_path / "no" / "figures.json"))
    assert "does not exist" in message


# ---------------------------------------------------------------------------------------------- exit status


@pytest.mark.parametrize("error", [
    BundleError("weights.gguf: expected 10 bytes, got 9"), TransportError("port /dev/ttyX is in use"),
    ValueError("hands: expected one"), TimeoutError("still moving"),
])
def test_every_expected_error_is_one_line_and_status_2(error, capsys, monkeypatch):
    def broken(as_json: bool) -> tuple[str, bool]:
        raise error

    monkeypatch.setattr("beingh0_edge.cli.doctor.report", broken)
    assert fails_with_one_line(capsys, "doctor") == str(error)


def test_a_file_the_system_refuses_is_named_without_error_numbers(capsys, tmp_path):
    for path, said in ((tmp_path / "absent.npz", "No such file or directory"), (tmp_path, "Is a directory")):
        arguments = ("hand", "replay", "leap", str(path), "--port", "sim:leap")
        assert fails_with_one_line(capsys, *arguments) == f"{path}: {said}"


def test_a_bug_shows_its_traceback(monkeypatch):
    def broken(as_json: bool) -> tuple[str, bool]:
        raise ZeroDivisionError

    monkeypatch.setattr("beingh0_edge.cli.doctor.report", broken)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_a_traceback_of_an_expected_error_can_be_asked_for(monkeypatch):
    monkeypatch.setenv("BEINGH0_TRACEBACK", "1")
    with pytest.raises(BundleError):
        main(["bundle", "verify", "absent"])


def test_a_missing_extra_is_named(tmp_path):
    code = ("import sys; sys.modules['torch'] = None; from beingh0_edge.cli import main; "
            f"sys.exit(main(['train', 'nano', '--out', {str(tmp_path / 'run')!r}]))")
    done = python(code)
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert done.stderr == "beingh0: this command needs torch: pip install 'beingh0-edge[train]'\n"
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_with_status_130_and_leaves_nothing_behind(capsys, monkeypatch, tmp_path):
    def interrupted(as_json: bool) -> tuple[str, bool]:
        with staged(tmp_path / "out") as stage:
            (stage / "half").write_text("written")
            raise KeyboardInterrupt

    monkeypatch.setattr("beingh0_edge.cli.doctor.report", interrupted)
    assert main(["doctor"]) == INTERRUPTED
    assert list(tmp_path.iterdir()) == []
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_end_of_a_process_or_terminal_unwinds_and_leaves_nothing_behind(number, monkeypatch, tmp_path):
    def terminated(as_json: bool) -> tuple[str, bool]:
        with staged(tmp_path / "out") as stage:
            (stage / "half").write_text("written")
            os.kill(os.getpid(), number)
            raise AssertionError("the signal has no effect")

    monkeypatch.setattr("beingh0_edge.cli.doctor.report", terminated)
    before = signal.signal(number, signal.SIG_DFL)  # tests under nohup inherit an ignored SIGHUP
    try:
        with pytest.raises(SystemExit) as exit_info:
            main(["doctor"])
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert exit_info.value.code == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_a_closed_standard_output_is_no_traceback():
    done = subprocess.run(f"{sys.executable} -m beingh0_edge hand list >&-", shell=True, text=True,
                          capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_pipe_is_no_traceback():
    done = subprocess.run(f"{sys.executable} -m beingh0_edge doctor | head -n 1", shell=True, text=True,
                          capture_output=True, timeout=60, check=False)
    assert done.stdout == "system\n"
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------------- outputs


def test_results_appear_all_at_once_and_keep_what_else_lies_there(tmp_path):
    out = tmp_path / "deep" / "out"
    with staged(out) as stage:
        (stage / "a.txt").write_text("1")
        assert not out.exists()
    (out / "mine.txt").write_text("keep")
    with staged(out) as stage:
        (stage / "a.txt").write_text("2")
        assert (out / "a.txt").read_text() == "1"
    assert {path.name: path.read_text() for path in out.iterdir()} == {"a.txt": "2", "mine.txt": "keep"}


def test_a_failure_leaves_the_old_results(tmp_path):
    out = tmp_path / "out"
    with staged(out) as stage:
        (stage / "a.txt").write_text("1")

    def fail() -> None:
        with staged(out) as stage:
            (stage / "a.txt").write_text("2")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "a.txt"]
    assert (out / "a.txt").read_text() == "1"


def test_a_folder_in_the_place_of_a_result_is_refused_before_any_file_is_moved(tmp_path):
    (tmp_path / "b.txt").mkdir()

    def move() -> None:
        with staged(tmp_path) as stage:
            (stage / "a.txt").write_text("1")
            (stage / "b.txt").write_text("1")

    with pytest.raises(ValueError, match=r"b\.txt: expected a file to replace, got a folder"):
        move()
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]


def test_a_link_to_nothing_is_no_folder_to_write_to(tmp_path):
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match="is a link to nothing"), staged(tmp_path / "out"):
        pass


def test_a_file_is_no_folder_to_write_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"), staged(tmp_path / "file" / "out"):
        pass


def test_json_with_nan_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"rate": float("nan")})
    assert list(tmp_path.iterdir()) == []
    write_json(tmp_path / "a.json", {"rate": 0.5})
    assert json.loads((tmp_path / "a.json").read_text()) == {"rate": 0.5}


def test_a_folder_is_no_file_to_write(tmp_path):
    with pytest.raises(ValueError, match="got a folder"):
        check_file_target(tmp_path)


def test_a_video_holds_every_frame_it_was_given(tmp_path):
    frames = [np.full((64, 96, 3), value, np.uint8) for value in range(0, 200, 10)]
    write_video(tmp_path / "a.mp4", frames, 15.0)
    assert count_frames(tmp_path / "a.mp4") == len(frames)


@pytest.mark.parametrize("frames", [[], [np.zeros((64, 96, 3), np.uint8), np.zeros((64, 98, 3), np.uint8)],
                                    [np.zeros((63, 96, 3), np.uint8)]])
def test_frames_that_cannot_make_a_video_are_refused(frames, tmp_path):
    with pytest.raises(ValueError, match="expected"):
        write_video(tmp_path / "a.mp4", frames, 15.0)
    assert list(tmp_path.iterdir()) == []


def test_hand_list_names_every_hand_of_the_bridge():
    from beingh0_edge.firmware_bridge import HANDS

    done = run("hand", "list")
    assert done.returncode == 0
    listed = [line.split()[0] for line in io.StringIO(done.stdout)]
    assert listed == ["name", *HANDS]
