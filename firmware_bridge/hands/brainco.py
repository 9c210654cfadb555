"""BrainCo Revo2 over Modbus RTU, CAN-FD and CAN 2.0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.hands.spec import Connection, HandSpec, Joint, Option, Options

_FULL_STROKE_S = 0.8  # not published: ours, slow enough to be followed at speed 1000


def _joint(name: str, upper_rad: float) -> Joint:
    speed = upper_rad / _FULL_STROKE_S
    return Joint(name, 0.0, upper_rad, speed, speed / 0.1)


def _driver(wire: str) -> Callable[[Connection, Options], _bridge.Driver]:
    def make(to: Connection, options: Options) -> _bridge.Driver:
        return _bridge.revo2_driver(
            wire=wire, port=to.port, baud=to.baud, device_id=to.device_id, left=to.side == "left", rate_hz=to.rate_hz,
            reply_timeout_s=to.reply_timeout_s,
            frame_gap_s=1e-3 * options.number("frame_gap_ms") if "frame_gap_ms" in options else 0.0,
            echoes=options.flag("echoes"), master_id=options.whole("master_id") if "master_id" in options else 0,
            speed=options.whole("speed") if "speed" in options else 0,
            stall_is_fault=options.flag("stall_is_fault"), trust_family=options["family"] == "revo2", limits=to.limits,
        )

    return make


_OPTIONS = {
    "stall_is_fault": Option(False, "a stalled finger (motor state 2) is a fault; every grasp ends in a stall, so by "
                                    "default it only shows in `state.status`", choices=(False, True)),
    "family": Option(None, "'revo2' vouches for a Revo2 when the hand is not recognised", choices=(None, "revo2")),
}
_SPEED = {"speed": Option(1000, "speed of all fingers, per mille", (1, 1000))}

REVO2 = HandSpec(
    name="brainco_revo2",
    title="BrainCo Revo2 over Modbus RTU",
    wire="modbus",
    # The hand's order. No ranges in radians are published; nominal ones make 0 rad position 0 (open) and the upper
    # limit position 1000 (closed).
    joints=(
        _joint("thumb_flexion", 1.0),
        _joint("thumb_rotation", 1.5),
        _joint("index", 1.4),
        _joint("middle", 1.4),
        _joint("ring", 1.4),
        _joint("little", 1.4),
    ),
    baud=460800,
    device_id=0x7F,
    left_device_id=0x7E,
    rate_hz=100.0,
    highest_rate_hz=150.0,
    cycle_bytes=66, silences=2,
    error_bits=MappingProxyType({2: "stall"}),
    options=MappingProxyType({
        **_SPEED, **_OPTIONS,
        "frame_gap_ms": Option(1.75, "silence between frames; whether the hand insists on it is not known",
                               (0.0, 10.0)),
        "echoes": Option(False, "the adapter repeats what is sent", choices=(False, True)),
    }),
    driver=_driver("modbus"),
    source="bc-stark-sdk 2.0.8: its register enums and the frames it sends; one maker, nobody else",
)

REVO2_CANFD = replace(
    REVO2, name="brainco_revo2_canfd", title="BrainCo Revo2 over CAN-FD (SocketCAN, or slcan with b and B frames)",
    wire="canfd", baud=1_000_000, cycle_bytes=0, silences=0, highest_rate_hz=300.0, driver=_driver("canfd"),
    options=MappingProxyType({
        **_SPEED, **_OPTIONS, "master_id": Option(1, "our id in the CAN ids we send", (0, 255)),
    }),
)

REVO2_CAN = replace(
    REVO2, name="brainco_revo2_can", title="BrainCo Revo2 over CAN 2.0: whole percents, no acknowledgements",
    wire="can", baud=1_000_000, cycle_bytes=0, silences=0, device_id=1, left_device_id=2, device_ids=(1, 15),
    highest_rate_hz=300.0,
    driver=_driver("can"), options=MappingProxyType(_OPTIONS),
)

HANDS = (REVO2, REVO2_CANFD, REVO2_CAN)
