"""LEAP Hand: sixteen Dynamixel servos."""

from __future__ import annotations

from types import MappingProxyType

from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.hands.spec import Connection, HandSpec, Joint, Option, Options
from beingh0_edge.firmware_bridge.safety import Safety


def _leap_joint(name: str, lower_rad: float, upper_rad: float) -> Joint:
    # Half of what an unloaded XC330 does, reached within 0.1 s.
    return Joint(name, lower_rad, upper_rad, 4.0, 40.0)


def _driver(to: Connection, options: Options) -> _bridge.Driver:
    return _bridge.leap_driver(
        port=to.port, baud=to.baud, rate_hz=to.rate_hz, reply_timeout_s=to.reply_timeout_s,
        current_ma=options.whole("current_ma"), p_gain=options.whole("p_gain"), d_gain=options.whole("d_gain"),
        fast_read=options.flag("fast_read"), limits=to.limits,
    )


LEAP = HandSpec(
    name="leap",
    title="LEAP Hand, 16 Dynamixel XC330 or XL330 servos",
    wire="dynamixel",
    # Servo ids 0 to 15. 0 rad is the flat open hand (tick 2048 of every servo); side joints swing both ways.
    joints=(
        *(
            _leap_joint(f"{finger}_{joint}", lower, upper)
            for finger in ("index", "middle", "ring")
            for joint, lower, upper in (
                ("side", -1.047, 1.047), ("forward", -0.314, 2.23), ("pip", -0.506, 1.885), ("dip", -0.366, 2.042)
            )
        ),
        _leap_joint("thumb_side", -0.349, 2.094),
        _leap_joint("thumb_forward", -0.47, 2.443),
        _leap_joint("thumb_pip", -1.20, 1.90),
        _leap_joint("thumb_dip", -1.34, 1.88),
    ),
    baud=4_000_000,
    device_id=1,  # not used: the servos have ids 0 to 15
    rate_hz=100.0,
    cycle_bytes=356,
    highest_rate_hz=1000.0,  # 356 bytes per cycle at 4 Mbaud take 0.89 ms; USB adapters stop at about 500 Hz
    error_bits=MappingProxyType({
        0: "voltage", 2: "overheating", 3: "encoder", 4: "electrical shock", 5: "overload", 8: "bus watchdog"
    }),
    options=MappingProxyType({
        "current_ma": Option(350, "goal current of all joints: how hard they may push", (10, 1000)),
        "p_gain": Option(600, "position P gain (side joints get three quarters)", (1, 5000)),
        "d_gain": Option(200, "position D gain (side joints get three quarters)", (0, 5000)),
        "fast_read": Option(True, "ask for one joint answer; older firmware is noticed and asked one by one",
                            choices=(True, False)),
    }),
    driver=_driver,
    source="ROBOTIS e-manual (protocol 2.0, XC330-M288), LEAP_Hand_API; joint limits from the latter",
    safety=Safety(release_after_s=10.0),  # its servos heat up while they hold against something
)

HANDS = (LEAP,)
