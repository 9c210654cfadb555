"""Inspire RH56 hands with register map A, on each of their wires."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.hands.spec import Connection, HandSpec, Joint, Option, Options, tcp_place


def _inspire_joint(name: str, upper_rad: float) -> Joint:
    # The slower published full stroke: 0.8 s at SPEED_SET 1000 (DFX). That speed is reached within 0.1 s.
    speed = upper_rad / 0.8
    return Joint(name, 0.0, upper_rad, speed, speed / 0.1)


def _driver(wire: str) -> Callable[[Connection, Options], _bridge.Driver]:
    def make(to: Connection, options: Options) -> _bridge.Driver:
        place, number = tcp_place(to.port, to.baud) if wire == "tcp" else (to.port, to.baud)
        return _bridge.inspire_driver(
            wire=wire, port=place, baud=number, device_id=to.device_id, rate_hz=to.rate_hz,
            reply_timeout_s=to.reply_timeout_s, speed=options.whole("speed"), force_g=options.whole("force_g"),
            trust_family=options["family"] == "A", high_byte_first=options.get("byte_order") == "high_first",
            echoes=options.flag("echoes"), limits=to.limits,
        )

    return make


INSPIRE_RH56 = HandSpec(
    name="inspire_rh56",
    title="Inspire RH56 DFX, DFQ, BFX, DFTP, R1 (register map A)",
    wire="rs485",
    # Register order. Ranges: what each driven joint of robosuite's RH56 model turns from register 1000 to 0; the
    # retargeter's robot file has the same numbers and a test compares them.
    joints=(
        _inspire_joint("little", 1.62),
        _inspire_joint("ring", 1.62),
        _inspire_joint("middle", 1.62),
        _inspire_joint("index", 1.62),
        _inspire_joint("thumb_bend", 0.68),
        _inspire_joint("thumb_rotation", 1.3),
    ),
    baud=115200,
    device_id=1,
    rate_hz=100.0,
    highest_rate_hz=198.0,  # 58 bytes per cycle at 115200 baud take 5.03 ms
    cycle_bytes=58,
    error_bits=MappingProxyType(
        {0: "stall", 1: "over-temperature", 2: "over-current", 3: "motor abnormal", 4: "communication"}
    ),
    options=MappingProxyType({
        "speed": Option(1000, "SPEED_SET of all fingers; 1000 is a full stroke in 0.6 to 0.8 s", (1, 1000)),
        "force_g": Option(500, "FORCE_SET of all fingers: closing stops there", (1, 1000)),
        "family": Option(None, "'A' vouches for register map A when the hand is not recognised", choices=(None, "A")),
    }),
    calibration="zeroes the force sensors: fingers open, nothing touched, for 15 seconds",
    driver=_driver("rs485"),
    source="RH56DFTP user manual V1.0.0, RH56 R1 manual V1.0.0, and drivers that agree with them",
)

_MODBUS_OPTIONS = {
    **INSPIRE_RH56.options,
    "byte_order": Option("low_first", "which byte of a word of ERROR, STATUS and TEMP is the earlier finger; sources "
                         "disagree", choices=("low_first", "high_first")),
}

INSPIRE_RH56_MODBUS = replace(
    INSPIRE_RH56, name="inspire_rh56_modbus", title="Inspire RH56 (map A) over Modbus RTU", wire="modbus",
    rate_hz=50.0, highest_rate_hz=115.0, cycle_bytes=54, silences=2,  # 54 bytes and two silences of 1.75 ms per cycle
    options=MappingProxyType({**_MODBUS_OPTIONS, "echoes": Option(
        False, "the adapter repeats what is sent", choices=(False, True))}),
    driver=_driver("modbus"),
)
INSPIRE_RH56_TCP = replace(
    INSPIRE_RH56, name="inspire_rh56_tcp", title="Inspire RH56 DFTP, R1 over Modbus TCP", wire="tcp", baud=6000,
    cycle_bytes=0,
    highest_rate_hz=200.0, options=MappingProxyType(_MODBUS_OPTIONS),
    driver=_driver("tcp"),
)
INSPIRE_RH56_CAN = replace(
    INSPIRE_RH56, name="inspire_rh56_can", title="Inspire RH56 (map A) over CAN (SocketCAN or slcan)", wire="can",
    cycle_bytes=0,
    highest_rate_hz=400.0, driver=_driver("can"),
)

HANDS = (INSPIRE_RH56, INSPIRE_RH56_MODBUS, INSPIRE_RH56_TCP, INSPIRE_RH56_CAN)
