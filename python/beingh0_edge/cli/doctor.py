"""`beingh0 doctor`: what this machine can do, what it cannot, and the command that mends it.

Nothing here needs a vendor's library: the facts come from /proc, /sys, /dev and the installed packages.
"""

from __future__ import annotations

import grp
import importlib.util
import json
import os
import platform
import resource
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

State = Literal["ok", "note", "warning", "problem"]
EXTRAS: dict[str, tuple[str, ...]] = {  # extra -> the modules it brings
    "convert": ("gguf", "onnx"),
    "hub": ("huggingface_hub",),
    "train": ("torch", "transformers", "gguf", "onnx"),
    "hand": ("skimage", "scipy"),
    "bench": ("torch", "smplx", "dex_retargeting"),
    "clients": ("dynamixel_sdk", "minimalmodbus", "pymodbus", "can", "ah_wrapper", "bc_stark_sdk"),
    "mujoco": ("robosuite", "gymnasium_robotics", "mujoco"),
    "test": ("pytest", "pytest_timeout", "hypothesis"),
}
PACKAGES = ("numpy", "opencv-python-headless", "pillow", "llama-cpp-python", "onnxruntime", "tokenizers",
            "safetensors", "typer", "matplotlib")
SERIAL_PATTERNS = ("ttyUSB*", "ttyACM*", "ttyTHS*", "ttyAMA*", "ttyXRUSB*")
CPU_FLAGS = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16",
             "asimd", "asimdhp", "asimddp", "fphp", "i8mm", "bf16", "sve")  # x86, then ARM
JETPACK = {"35": "JetPack 5", "36": "JetPack 6", "38": "JetPack 7", "39": "JetPack 7"}  # by L4T release
CAN_TYPE = "280"  # ARPHRD_CAN
WANTED_LATENCY_MS = 1
LIMITS = "/etc/security/limits.d/realtime.conf"


@dataclass(frozen=True)
class Finding:
    """One fact. "problem" stops the demo, "warning" costs speed or a hand, "note" is only worth knowing."""

    section: str
    name: str
    state: State
    value: str
    hint: str = ""


class Machine:
    """Where the facts are read. `root` lets a test put another machine's /proc, /sys and /dev in a folder."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def text(self, name: str) -> str | None:
        """The file's text without trailing zero bytes and blanks, None if it cannot be read."""
        try:
            return self.path(name).read_text(errors="replace").rstrip("\0 \n")
        except OSError:
            return None

    def glob(self, folder: str, pattern: str) -> list[Path]:
        return sorted(self.path(folder).glob(pattern))


def examine(machine: Machine) -> list[Finding]:
    """All findings, section by section."""
    sections: tuple[Callable[[Machine], Iterable[Finding]], ...] = (
        _system, _processor, _accelerators, _engines, _package, _ports, _can, _realtime)
    return [finding for section in sections for finding in section(machine)]


def _system(machine: Machine) -> Iterator[Finding]:
    release = dict(line.split("=", 1) for line in (machine.text("/etc/os-release") or "").splitlines()
                   if "=" in line)
    name = release.get("PRETTY_NAME", platform.system()).strip('"')
    yield Finding("system", "os", "ok", f"{name}, {platform.machine()}, kernel {platform.release()}")
    enough = sys.version_info >= (3, 10)
    yield Finding("system", "python", "ok" if enough else "problem", platform.python_version(),
                  "" if enough else "Python 3.10 or newer is needed")
    memory = _memory_mib(machine)
    if memory:
        total, free = memory
        yield Finding("system", "memory", "ok" if free > 500 else "warning",
                      f"{total / 1024:.1f} GiB, {free / 1024:.1f} GiB available",
                      "" if free > 500 else "under 500 MiB free: close other programs first")


def _memory_mib(machine: Machine) -> tuple[float, float] | None:
    rows = dict(line.split(":", 1) for line in (machine.text("/proc/meminfo") or "").splitlines()
                if ":" in line)
    try:
        return tuple(int(rows[key].split()[0]) / 1024 for key in ("MemTotal", "MemAvailable"))  # type: ignore[return-value]
    except (KeyError, ValueError, IndexError):
        return None


def _processor(machine: Machine) -> Iterator[Finding]:
    info: dict[str, str] = {}
    for line in (machine.text("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        info.setdefault(key.strip(), value.strip())
    model = info.get("model name") or info.get("Model") or machine.text("/proc/device-tree/model")
    yield Finding("processor", "model", "ok", model or "unknown")
    usable = len(os.sched_getaffinity(0))
    cores = {path.read_text()
             for path in machine.glob("/sys/devices/system/cpu", "cpu[0-9]*/topology/core_cpus_list")}
    text = f"{usable} usable of {os.cpu_count()}" + (f", {len(cores)} cores" if cores else "")
    quota = (machine.text("/sys/fs/cgroup/cpu.max") or "max").split()
    if quota[0] != "max" and len(quota) == 2:
        text += f", limited to {int(quota[0]) / int(quota[1]):g} by its control group"
    yield Finding("processor", "threads", "ok", text)
    have = set((info.get("flags") or info.get("Features") or "").split())
    known = [flag for flag in CPU_FLAGS if flag in have]
    yield Finding("processor", "features", "ok" if known else "note", " ".join(known) or "none we know")
    governor = machine.text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor:
        steady = governor == "performance"
        yield Finding("processor", "governor", "ok" if steady else "note", governor,
                      "" if steady else "steadier timing: echo performance | sudo tee "
                      "/sys/devices/system/cpu/cpu*/cpufreq/scaling_governor")


def _accelerators(machine: Machine) -> Iterator[Finding]:
    board = machine.text("/proc/device-tree/model")
    release = machine.text("/etc/nv_tegra_release")
    found = bool(release or (board and "jetson" in board.lower()))
    if found:
        yield Finding("accelerators", "jetson", "ok", f"{board or 'unknown board'}; {_l4t(release)}")
        mode = machine.text("/var/lib/nvpmodel/status")
        yield Finding("accelerators", "power mode", "note", mode or "unknown",
                      "sudo nvpmodel -q shows it; timings only compare within one mode")
    driver = machine.text("/proc/driver/nvidia/version")
    names = [line.partition(":")[2].strip()
             for path in machine.glob("/proc/driver/nvidia/gpus", "*/information")
             for line in path.read_text().splitlines() if line.startswith("Model:")]
    if driver or names:
        found = True
        version = next((word for word in (driver or "").split() if word[:1].isdigit() and "." in word), "?")
        yield Finding("accelerators", "nvidia", "ok", f"{', '.join(names) or 'no device'}; driver {version}")
    if machine.path("/dev/kfd").exists():
        yield Finding("accelerators", "amd", "ok", "/dev/kfd is there")
        found = True
    if not found:
        yield Finding("accelerators", "gpu", "note", "none found: everything runs on the processor")


def _l4t(release: str | None) -> str:
    """'R36 (release), REVISION: 4.0' of /etc/nv_tegra_release as 'L4T 36.4.0 (JetPack 6)'."""
    words = (release or "").replace(",", " ").split()
    major = next((word[1:] for word in words if word[:1] == "R" and word[1:].isdigit()), None)
    minor = words[words.index("REVISION:") + 1] if "REVISION:" in words[:-1] else None
    if not (major and minor):
        return "L4T version unknown"
    return f"L4T {major}.{minor}" + (f" ({JETPACK[major]})" if major in JETPACK else "")


def _engines(machine: Machine) -> Iterator[Finding]:
    yield _engine("llama.cpp", "llama_cpp", "llama-cpp-python", lambda module: (
        "GPU offload" if module.llama_supports_gpu_offload() else "processor only"))
    yield _engine("onnxruntime", "onnxruntime", "onnxruntime", lambda module: (
        ", ".join(name.removesuffix("ExecutionProvider") for name in module.get_available_providers())))


def _engine(name: str, module: str, package: str, describe: Callable[[Any], str]) -> Finding:
    try:
        loaded = import_module(module)
        return Finding("engines", name, "ok", f"{_version(package)}, {describe(loaded)}")
    except (ImportError, OSError, RuntimeError) as error:  # a broken shared library raises any of these
        return Finding("engines", name, "problem", f"does not load: {error}",
                       f"pip install --force-reinstall {package}")


def _package(machine: Machine) -> Iterator[Finding]:
    from .. import __version__

    yield Finding("package", "beingh0-edge", "ok", __version__)
    missing = [package for package in PACKAGES if _version(package) == "missing"]
    yield Finding("package", "dependencies", "problem" if missing else "ok",
                  f"missing: {', '.join(missing)}" if missing
                  else ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
                  f"pip install {' '.join(missing)}" if missing else "")
    yield _extension("kernels", "beingh0_edge._kernels")
    yield _extension("bridge", "beingh0_edge.firmware_bridge._bridge")
    yield _bundle()
    for extra, modules in EXTRAS.items():
        absent = [module for module in modules if importlib.util.find_spec(module) is None]
        yield Finding("package", f"extra [{extra}]", "note" if absent else "ok",
                      f"not installed: {', '.join(absent)}" if absent else "installed",
                      f"pip install 'beingh0-edge[{extra}]'" if absent else "")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _extension(name: str, module: str) -> Finding:
    try:
        loaded = import_module(module)
    except ImportError as error:
        return Finding("package", name, "problem", f"does not load: {error}",
                       "unset BEINGH0_ISA" if "BEINGH0_ISA" in str(error)
                       else "build it again: pip install --force-reinstall --no-deps .")
    instructions = getattr(loaded, "isa", None)
    return Finding("package", name, "ok", f"built, {instructions()} path" if instructions else "built")


def _bundle() -> Finding:
    from ..bundle import Bundle
    from ..errors import BundleError

    try:
        facts = Bundle.open("nano").inspect()
    except BundleError as error:
        return Finding("package", "bundle nano", "problem", str(error), "reinstall the package")
    return Finding("package", "bundle nano", "ok", f"{facts['total_bytes'] / 1e6:.1f} MB, all hashes agree")


def _ports(machine: Machine) -> Iterator[Finding]:
    ports = [path for pattern in SERIAL_PATTERNS for path in machine.glob("/dev", pattern)]
    stable = {path.resolve(): path.name for path in machine.glob("/dev/serial/by-id", "*")}
    for port in ports:
        yield _port(machine, port, stable.get(port.resolve()))
    if not ports:
        yield Finding("ports", "serial", "note", "no USB or board serial port found",
                      "plug the hand's adapter in; `beingh0 demo` needs none")


def _port(machine: Machine, port: Path, stable: str | None) -> Finding:
    name = f"/dev/{port.name}"
    parts = []
    driver = machine.path(f"/sys/class/tty/{port.name}/device/driver")
    if driver.exists():
        parts.append(driver.resolve().name)
    latency = machine.text(f"/sys/bus/usb-serial/devices/{port.name}/latency_timer")
    if latency:
        parts.append(f"latency timer {latency} ms")
    if stable:
        parts.append(f"stable name /dev/serial/by-id/{stable}")
    text = ", ".join(parts) or "present"
    if not os.access(port, os.R_OK | os.W_OK):
        group = _group(port)
        return Finding("ports", name, "warning", f"no permission (group {group}); {text}",
                       f"sudo usermod -aG {group} $USER, then log in again")
    if latency and latency.isdigit() and int(latency) > WANTED_LATENCY_MS:
        return Finding("ports", name, "warning", text, "every reply waits for it: echo 1 | sudo tee "
                       f"/sys/bus/usb-serial/devices/{port.name}/latency_timer")
    return Finding("ports", name, "ok", text)


def _group(path: Path) -> str:
    try:
        return grp.getgrgid(path.stat().st_gid).gr_name
    except (KeyError, OSError):
        return "unknown"


def _can(machine: Machine) -> Iterator[Finding]:
    interfaces = [path.parent for path in machine.glob("/sys/class/net", "*/type")
                  if path.read_text().strip() == CAN_TYPE]
    for path in interfaces:
        state = (machine.text(f"/sys/class/net/{path.name}/operstate") or "unknown")
        down = state == "down"
        yield Finding("can", path.name, "warning" if down else "ok", state,
                      f"sudo ip link set {path.name} up type can bitrate 1000000" if down else "")
    if not interfaces:
        yield Finding("can", "interfaces", "note", f"none; the kernel {_can_support()}")


def _can_support() -> str:
    try:
        socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW).close()
        return "supports CAN sockets"
    except (OSError, AttributeError):
        return "has no CAN sockets"


def _realtime(machine: Machine) -> Iterator[Finding]:
    version = machine.text("/proc/version") or ""
    hard = "PREEMPT_RT" in version or machine.text("/sys/kernel/realtime") == "1"
    yield Finding("real time", "kernel", "ok" if hard else "note", "PREEMPT_RT" if hard else "not PREEMPT_RT")
    allowed = _may_use_fifo()
    yield Finding("real time", "SCHED_FIFO", "ok" if allowed else "warning",
                  "allowed" if allowed else "refused: the hand's loop runs at normal priority",
                  "" if allowed else f"add '@realtime - rtprio 80' to {LIMITS}, join that group "
                  "and log in again")
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    enough = locked == resource.RLIM_INFINITY or locked >= 64 << 20
    yield Finding("real time", "locked memory", "ok" if enough else "note",
                  "unlimited" if locked == resource.RLIM_INFINITY else f"{locked >> 10} kiB",
                  "" if enough else f"add '@realtime - memlock unlimited' to {LIMITS}")


def _may_use_fifo() -> bool:
    """Asks the kernel itself: switches this thread for a moment and back."""
    before, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        return False
    os.sched_setscheduler(0, before, priority)
    return True


def render(findings: list[Finding]) -> str:
    """The findings as text for people; hints stand below what they mend."""
    marks = {"ok": "ok", "note": "--", "warning": "!!", "problem": "XX"}
    width = max(len(finding.name) for finding in findings)
    lines: list[str] = []
    section = ""
    for finding in findings:
        if finding.section != section:
            section = finding.section
            lines += ["", section]
        lines.append(f"  {marks[finding.state]}  {finding.name:{width}}  {finding.value}")
        if finding.hint:
            lines.append(f"      {'':{width}}  -> {finding.hint}")
    problems = sum(finding.state == "problem" for finding in findings)
    lines += ["", f"{problems} problem{'s' * (problems != 1)}" if problems else "ready"]
    return "\n".join(lines[1:])


def report(as_json: bool) -> tuple[str, bool]:
    """(text for people or programs, whether the demo can run on this machine)."""
    findings = examine(Machine())
    healthy = all(finding.state != "problem" for finding in findings)
    if as_json:
        facts = {"ready": healthy, "findings": [asdict(finding) for finding in findings]}
        return json.dumps(facts, indent=1, ensure_ascii=False), healthy
    return render(findings), healthy
