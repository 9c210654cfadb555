"""OYMotion ROHand over Modbus RTU."""

from __future__ import annotations

from types import MappingProxyType

from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.hands.spec import Connection, HandSpec, Joint, Option, Options

_FULL_STROKE_S = 1.0  # at speed 65535, units per second of a stroke of 65535


def _joint(name: str, upper_rad: float) -> Joint:
    speed = upper_rad / _FULL_STROKE_S
    return Joint(name, 0.0, upper_rad, speed, speed / 0.1)


def _driver(to: Connection, options: Options) -> _bridge.Driver:
    return _bridge.rohand_driver(
        port=to.port, baud=to.baud, device_id=to.device_id, rate_hz=to.rate_hz, reply_timeout_s=to.reply_timeout_s,
        frame_gap_s=1e-3 * options.number("frame_gap_ms"), echoes=options.flag("echoes"), speed=options.whole("speed"),
        current_ma=options.whole("current_ma"), stall_is_fault=options.flag("stall_is_fault"), limits=to.limits,
    )


ROHAND = HandSpec(
    name="rohand",
    title="OYMotion ROHand, generations 1 and 2, over Modbus RTU",
    wire="modbus",
    # Register order. Only the thumb's rotation has a published range (0 to 90 degrees); the others are nominal, so
    # that 0 rad is position 0 (open) and the upper limit position 65535 (closed).
    joints=(
        _joint("thumb_bend", 0.7),
        _joint("index", 1.5),
        _joint("middle", 1.5),
        _joint("ring", 1.5),
        _joint("little", 1.5),
        _joint("thumb_rotation", 1.57),
    ),
    baud=115200,
    device_id=2,
    device_ids=(1, 247),
    rate_hz=60.0,  # what the maker quotes for commands at this baud
    cycle_bytes=54, silences=2,
    highest_rate_hz=85.0,  # 54 bytes and two silences of 1.75 ms on either side of a cycle
    error_bits=MappingProxyType({3: "over-current", 5: "stuck"}),
    options=MappingProxyType({
        "speed": Option(65535, "speed of all fingers, units of position per second", (1, 65535)),
        "current_ma": Option(600, "current limit of every motor: how hard it may push", (50, 1178)),
        "stall_is_fault": Option(False, "a finger that stopped against something (status 3 or 5) is a fault; it may "
                                        "as well be a grasp, so by default it only shows in `state.status`",
                                 choices=(False, True)),
        "frame_gap_ms": Option(1.75, "silence between frames", (0.0, 10.0)),
        "echoes": Option(False, "the adapter repeats what is sent", choices=(False, True)),
    }),
    driver=_driver,
    source="oymotion roh_firmware, roh_gen2_firmware, roh_demos: register tables, limits and rates",
)

HANDS = (ROHAND,)
