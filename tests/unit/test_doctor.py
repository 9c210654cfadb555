"""`beingh0 doctor` on invented machines: their /proc, /sys and /dev are folders."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from beingh0_edge import _kernels
from beingh0_edge.cli import _EXTRA_OF, doctor
from beingh0_edge.cli.doctor import Finding, Machine

if sys.version_info >= (3, 11):
    import tomllib
else:  # the oldest Python we support has no TOML reader of its own
    tomllib = None

ORIN = {
    "/proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "/etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
    "/var/lib/nvpmodel/status": "pmode:0000 fmode:fanNull\n",
    "/etc/os-release": 'PRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
    "/proc/meminfo": "MemTotal:        7802540 kB\nMemFree: 1 kB\nMemAvailable:    5243000 kB\n",
    "/proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd evtstrm aes asimdhp fphp asimddp\n"
                     "CPU part\t: 0xd42\n\nprocessor\t: 1\nFeatures\t: fp\n",
    "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "/sys/class/net/can0/type": "280\n",
    "/sys/class/net/can0/operstate": "down\n",
    "/sys/class/net/eth0/type": "1\n",
    "/proc/version": "Linux version 5.15.148-tegra (buildbrain) #1 SMP PREEMPT\n",
}


def machine(folder: Path, files: dict[str, str]) -> Machine:
    for name, text in files.items():
        path = folder / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(folder)


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_a_jetson_is_recognised_without_any_vendor_library(tmp_path):
    found = by_name(doctor.examine(machine(tmp_path, ORIN)))
    assert found["jetson"].value == "NVIDIA Jetson Orin Nano Developer Kit; L4T 36.4.3 (JetPack 6)"
    assert found["power mode"].value == "pmode:0000 fmode:fanNull"
    assert "gpu" not in found
    assert found["os"].value.startswith("Ubuntu 22.04.5 LTS")
    assert found["memory"].value == "7.4 GiB, 5.0 GiB available"
    assert found["model"].value == "NVIDIA Jetson Orin Nano Developer Kit"
    assert found["features"].value == "asimd asimdhp asimddp fphp"
    assert found["governor"].state == "note"
    assert "performance" in found["governor"].hint


def test_a_desktop_gpu_is_named_with_its_driver(tmp_path):
    found = by_name(doctor.examine(machine(tmp_path, {
        "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue\n"
                                       "GCC version:  gcc version 12.3.0\n",
        "/proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA RTX A4000\nIRQ: 12\n",
    })))
    assert found["nvidia"].value == "NVIDIA RTX A4000; driver 550.54.15"
    assert "gpu" not in found


def test_a_board_that_is_no_jetson_has_no_accelerator(tmp_path):
    found = by_name(doctor.examine(machine(tmp_path, {"/proc/device-tree/model": "Raspberry Pi 5\0"})))
    assert found["gpu"].state == "note"
    assert "jetson" not in found


def test_a_can_interface_that_is_down_comes_with_the_command_that_brings_it_up(tmp_path):
    found = by_name(doctor.examine(machine(tmp_path, ORIN)))
    assert found["can0"].state == "warning"
    assert found["can0"].hint == "sudo ip link set can0 up type can bitrate 1000000"
    assert "eth0" not in found


def test_a_slow_usb_serial_adapter_is_reported_with_its_stable_name(tmp_path):
    fake = machine(tmp_path, {
        "/dev/ttyUSB0": "",
        "/sys/bus/usb-serial/devices/ttyUSB0/latency_timer": "16\n",
        "/sys/bus/usb-serial/drivers/ftdi_sio/bind": "",
    })
    by_id = tmp_path / "dev/serial/by-id"
    by_id.mkdir(parents=True)
    (by_id / "usb-FTDI_FT232R-if00-port0").symlink_to("../../ttyUSB0")
    device = tmp_path / "sys/class/tty/ttyUSB0/device"
    device.mkdir(parents=True)
    (device / "driver").symlink_to(tmp_path / "sys/bus/usb-serial/drivers/ftdi_sio")
    port = by_name(doctor.examine(fake))["/dev/ttyUSB0"]
    assert port.state == "warning"
    assert port.value == ("ftdi_sio, latency timer 16 ms, "
                          "stable name /dev/serial/by-id/usb-FTDI_FT232R-if00-port0")
    assert port.hint.endswith("echo 1 | sudo tee /sys/bus/usb-serial/devices/ttyUSB0/latency_timer")


def test_a_port_without_permission_names_the_group_to_join(tmp_path, monkeypatch):
    fake = machine(tmp_path, {"/dev/ttyACM0": ""})
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "ttyACM0" not in str(path) and real(path, mode))
    port = by_name(doctor.examine(fake))["/dev/ttyACM0"]
    assert port.state == "warning"
    assert "no permission" in port.value
    assert "usermod -aG" in port.hint


def test_a_machine_that_tells_nothing_is_still_examined(tmp_path):
    findings = doctor.examine(Machine(tmp_path))
    assert {finding.section for finding in findings} >= {"system", "processor", "package", "ports", "can"}


def test_a_missing_engine_is_a_problem_with_the_command_that_mends_it():
    finding = doctor._engine("llama.cpp", "beingh0_edge_no_such_engine", "llama-cpp-python", str)
    assert finding.state == "problem"
    assert finding.hint == "pip install --force-reinstall llama-cpp-python"


def test_one_problem_makes_the_machine_unfit_for_the_demo(monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda machine: [Finding("a", "b", "warning", "c")])
    assert doctor.report(as_json=False)[1]
    monkeypatch.setattr(doctor, "examine", lambda machine: [Finding("a", "b", "problem", "c", "mend it")])
    text, healthy = doctor.report(as_json=False)
    assert not healthy
    assert "1 problem" in text
    assert "-> mend it" in text


def test_the_json_report_holds_every_finding_of_this_machine():
    facts = json.loads(doctor.report(as_json=True)[0])
    assert facts["ready"] == all(finding["state"] != "problem" for finding in facts["findings"])
    assert {finding["section"] for finding in facts["findings"]} == {
        "system", "processor", "accelerators", "engines", "package", "ports", "can", "real time"}


@pytest.fixture
def _the_best_isa_again():
    before = _kernels.isa()
    yield
    _kernels.use_isa(before)


@pytest.mark.usefixtures("_the_best_isa_again")
@pytest.mark.parametrize("isa", _kernels.available_isas())
def test_the_instruction_set_printed_is_the_one_in_use(tmp_path, isa):
    _kernels.use_isa(isa)
    assert by_name(doctor.examine(Machine(tmp_path)))["kernels"].value == f"built, {isa} path"


def kernels_under(isa: str) -> dict[str, str]:
    """What the doctor says of them in a process with BEINGH0_ISA."""
    run = subprocess.run([sys.executable, "-m", "beingh0_edge", "doctor", "--json"], capture_output=True, text=True,
                         env=os.environ | {"BEINGH0_ISA": isa}, check=False)
    return next(finding for finding in json.loads(run.stdout)["findings"] if finding["name"] == "kernels")


@pytest.mark.parametrize("isa", ["", *_kernels.available_isas()])
def test_the_instruction_set_printed_follows_the_environment(isa):
    assert kernels_under(isa)["value"] == f"built, {isa or _kernels.available_isas()[0]} path"


def test_an_instruction_set_the_machine_lacks_is_a_problem_that_names_those_it_has():
    found = kernels_under("mmx")
    assert found["state"] == "problem"
    assert f"this machine runs {', '.join(_kernels.available_isas())}; got mmx" in found["value"]
    assert found["hint"] == "unset BEINGH0_ISA"


@pytest.mark.skipif(tomllib is None, reason="needs the TOML reader of Python 3.11")
def test_the_doctor_knows_every_extra_and_dependency_of_the_package():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(doctor.EXTRAS) == set(project["optional-dependencies"])
    assert set(_EXTRA_OF.values()) <= set(doctor.EXTRAS)
    assert {requirement.partition(">")[0] for requirement in project["dependencies"]} == set(doctor.PACKAGES)


def test_every_extra_brings_only_what_something_imports():
    root = Path(__file__).parents[2]
    folders = ("python", "quantize", "train", "firmware_bridge", "benchmarks", "tests")
    code = "\n".join(path.read_text() for folder in folders for path in (root / folder).rglob("*.py"))
    brought = {module for extra, modules in doctor.EXTRAS.items() if extra != "test" for module in modules}
    named = r"(import|from|(importorskip|find_spec)\(\")"
    assert [module for module in brought if not re.search(rf"{named}\s*{module}\b", code)] == []
