"""Names, options and processes of the simulated hands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType, TracebackType
from urllib.parse import parse_qsl

from beingh0_edge.errors import TransportError
from beingh0_edge.firmware_bridge.simulators.ability import AbilityHand
from beingh0_edge.firmware_bridge.simulators.allegro import Allegro
from beingh0_edge.firmware_bridge.simulators.brainco import Revo2, Revo2Can, Revo2CanFd
from beingh0_edge.firmware_bridge.simulators.dynamixel import LeapHand
from beingh0_edge.firmware_bridge.simulators.faults import Faults
from beingh0_edge.firmware_bridge.simulators.inspire_rh56 import InspireRh56
from beingh0_edge.firmware_bridge.simulators.inspire_wires import InspireNode, InspireRegisters, PrivateFrame
from beingh0_edge.firmware_bridge.simulators.linkerhand import LinkerHand
from beingh0_edge.firmware_bridge.simulators.modbus import ModbusRtu, ModbusTcp, Registers
from beingh0_edge.firmware_bridge.simulators.rohand import RoHand
from beingh0_edge.firmware_bridge.simulators.server import Device, PtyServer, Server
from beingh0_edge.firmware_bridge.simulators.slcan import Node, SlcanAdapter
from beingh0_edge.firmware_bridge.simulators.tcp_server import TcpServer

_PREFIX = "sim:"


@dataclass(frozen=True)
class SimulatorSpec:
    """What stands after `sim:`. Options that belong to the hand itself are in `options`."""

    name: str
    faults: Faults = field(default_factory=Faults)
    seed: int = 0
    baud: int = 0  # 0: as fast as this machine
    trace: str = ""  # file that gets a line per request: monotonic seconds, bytes in hex
    options: Mapping[str, str] = field(default_factory=dict)

    def device(self) -> Device:
        return SIMULATORS[self.name].device(self.options)

    def server(self) -> Server:
        return SIMULATORS[self.name].server(self)


@dataclass(frozen=True)
class Simulator:
    """One row of the table: how to make the device, what it stands on, and the speed of that."""

    device: Callable[[Mapping[str, str]], Device]
    server: Callable[[SimulatorSpec], Server]
    baud: int
    prefix: str = ""  # of the port's name


Options = Mapping[str, str]


def _serial(device: Callable[[Options], Device], baud: int) -> Simulator:
    return Simulator(device, PtyServer, baud)


def _rtu(registers: Callable[[Options], Registers], baud: int) -> Simulator:
    return Simulator(lambda options: ModbusRtu(registers(options)), PtyServer, baud)


def _can(node: Callable[[Options], Node]) -> Simulator:
    return Simulator(lambda options: SlcanAdapter(node(options)), PtyServer, 1_000_000, "slcan:")


SIMULATORS: Mapping[str, Simulator] = MappingProxyType({
    "inspire_rh56": _serial(lambda options: PrivateFrame(InspireRh56(options)), 115200),
    "inspire_rh56_modbus": _rtu(lambda options: InspireRegisters(InspireRh56(options)), 115200),
    "inspire_rh56_tcp": Simulator(lambda options: ModbusTcp(InspireRegisters(InspireRh56(options))), TcpServer, 0),
    "inspire_rh56_can": _can(lambda options: InspireNode(InspireRh56(options))),
    "leap": _serial(LeapHand, 4_000_000),
    **{f"linkerhand_{model}": _can(partial(LinkerHand, model)) for model in ("o6", "l6", "l7", "l10", "l20")},
    "rohand": _rtu(RoHand, 115200),
    "brainco_revo2": _rtu(Revo2, 460800),
    "brainco_revo2_canfd": _can(Revo2CanFd),
    "brainco_revo2_can": _can(Revo2Can),
    "ability_hand": _serial(AbilityHand, 460800),
    "allegro_v4": _can(partial(Allegro, "v4")),
    "allegro_v5": _can(partial(Allegro, "v5")),
})


def is_simulated(port: str) -> bool:
    return port.startswith(_PREFIX)


def parse_spec(text: str) -> SimulatorSpec:
    """`inspire_rh56?fault=drop:0.1,echo&seed=1&baud=115200&device_id=2`. Raises ValueError."""
    name, _, query = text.removeprefix(_PREFIX).partition("?")
    if name not in SIMULATORS:
        raise ValueError(f"unknown simulated hand {name!r}; known: {', '.join(sorted(SIMULATORS))}")
    options = dict(parse_qsl(query, keep_blank_values=True))
    faults = Faults.parse(options.pop("fault", ""))
    try:
        seed = int(options.pop("seed", "0"))
        baud = int(options.pop("baud", str(SIMULATORS[name].baud)))
    except ValueError as error:
        raise ValueError(f"sim:{name}: {error}") from None
    if baud < 0:
        raise ValueError(f"sim:{name}: baud: expected 0 (as fast as this machine) or more, got {baud}")
    spec = SimulatorSpec(name, faults, seed, baud, options.pop("trace", ""), options)
    spec.device()  # refuses unknown options here rather than in the other process
    return spec


class RunningSimulator:
    """A simulated hand in a process of its own; ends with `close`, or when this process ends."""

    def __init__(self, process: subprocess.Popen[str], port: str) -> None:
        self._process = process
        self.port = port  # what `Bridge.open` takes

    def command(self, line: str) -> None:
        """`fault drop:1`, `unplug`, `replug`, `reset`, `set object=400`. Raises ValueError if it is not understood."""
        if self._process.stdin is None or self._process.stdout is None or self._process.poll() is not None:
            raise TransportError(f"the simulated hand on {self.port} has ended")
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        if answer != "ok":
            raise ValueError(f"simulated hand: {answer or 'no answer'}")

    def close(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def __enter__(self) -> RunningSimulator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def start_simulator(port: str) -> RunningSimulator:
    """Starts `sim:NAME[?options]`.

    Raises ValueError for a bad name or option, TransportError if it does not start.
    """
    spec = parse_spec(port)
    process = subprocess.Popen(
        [sys.executable, "-m", __package__, port.removeprefix(_PREFIX)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    if process.stdout is None or process.stderr is None:
        raise TransportError(f"{port} did not start: no pipes")
    path = process.stdout.readline().strip()
    if not path:
        complaint = process.stderr.read().strip().splitlines()
        RunningSimulator(process, port).close()
        raise TransportError(f"{port} did not start: {complaint[-1] if complaint else 'no message'}")
    return RunningSimulator(process, SIMULATORS[spec.name].prefix + path)
