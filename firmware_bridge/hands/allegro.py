"""Wonik Allegro Hand V4 and V5 over CAN: hands that take torques, so the position loop runs in the bridge."""

from __future__ import annotations

from collections.abc import Callable
from math import radians
from types import MappingProxyType

from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.hands.spec import Connection, HandSpec, Joint, Option, Options
from beingh0_edge.firmware_bridge.safety import Safety

_FINGERS = ("index", "middle", "ring")
_PARTS = ("spread", "mcp", "pip", "dip")
_THUMB = ("thumb_cmc1", "thumb_cmc2", "thumb_mp", "thumb_ip")


def _joints(finger: tuple[tuple[float, float], ...], thumb: tuple[tuple[float, float], ...]) -> tuple[Joint, ...]:
    def joint(name: str, range_rad: tuple[float, float]) -> Joint:
        return Joint(name, *range_rad, 3.0, 20.0)

    return (
        *(joint(f"{name}_{part}", bounds) for name in _FINGERS for part, bounds in zip(_PARTS, finger, strict=True)),
        *(joint(name, bounds) for name, bounds in zip(_THUMB, thumb, strict=True)),
    )


def _degrees(*ranges: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    return tuple((round(radians(low), 4), round(radians(high), 4)) for low, high in ranges)


_OPTIONS = {
    "stiffness_nm_rad": Option(0.6, "torque per radian of error", (0.01, 3.0)),
    "damping_nm_s_rad": Option(0.03, "torque per radian and second of error in speed", (0.0, 0.2)),
    "version_check": Option(True, "ask the hand for its version and side; many do not answer: False means you vouch "
                                  "for both", choices=(True, False)),
}
_V4_OPTIONS = {
    **_OPTIONS,
    "max_torque_nm": Option(0.15, "of any joint; the maker's own bounds per joint hold besides", (0.01, 0.7)),
    "supply_v": Option(12, "12, or 8 for the older hands that take fewer PWM counts per newton metre",
                       choices=(12, 8)),
}
_V5_OPTIONS = {
    **_OPTIONS,
    "max_torque_nm": Option(0.15, "of any joint; 240 mA, which is 0.168 Nm, is the most it takes", (0.01, 0.168)),
    "hardware": Option(None, "'A' or 'B' ('Plus': another gear in three joints); None: as its serial number says",
                       choices=(None, "A", "B")),
    "first_motor": Option(0, "whether its error frames count motors from 0 or from 1: not documented", choices=(0, 1)),
}


def _driver(version: int) -> Callable[[Connection, Options], _bridge.Driver]:
    def make(to: Connection, options: Options) -> _bridge.Driver:
        hardware = options.get("hardware")
        return _bridge.allegro_driver(
            version=version, port=to.port, device_id=to.device_id, left=to.side == "left", rate_hz=to.rate_hz,
            reply_timeout_s=to.reply_timeout_s, stiffness_nm_rad=options.number("stiffness_nm_rad"),
            damping_nm_s_rad=options.number("damping_nm_s_rad"), max_torque_nm=options.number("max_torque_nm"),
            supply_v=options.number("supply_v") if "supply_v" in options else 12.0,
            trust_version=not options.flag("version_check"), hardware=hardware if isinstance(hardware, str) else "",
            first_motor=options.whole("first_motor") if "first_motor" in options else 0, limits=to.limits,
        )

    return make


def _hand(version: int, joints: tuple[Joint, ...], errors: dict[int, str], options: dict[str, Option],
          source: str) -> HandSpec:
    return HandSpec(
        name=f"allegro_v{version}",
        title=f"Wonik Allegro Hand V{version} over CAN (SocketCAN or slcan)",
        wire="can",
        joints=joints,
        baud=1_000_000,
        device_id=0,
        device_ids=(0, 3),
        rate_hz=333.0,          # one torque per set of poses, as the maker does it
        lowest_rate_hz=200.0,   # below, the position loop shakes
        highest_rate_hz=500.0,
        error_bits=MappingProxyType(errors),
        options=MappingProxyType(options),
        driver=_driver(version),
        source=source,
        safe_stop="stop holds the measured pose by torque; fault, e-stop and a pose older than 20 ms mean zero torque: "
                  "the fingers go limp and drop what they hold",
        safety=Safety(release_on_fault=True, release_after_s=10.0, feedback_stale_s=0.2),
    )


HANDS = (
    _hand(
        4,
        _joints(
            ((-0.47, 0.47), (-0.196, 1.61), (-0.174, 1.709), (-0.227, 1.618)),
            ((0.263, 1.396), (-0.105, 1.163), (-0.189, 1.644), (-0.162, 1.719)),
        ),
        {1: "over-temperature", 2: "internal communication"}, _V4_OPTIONS,
        "allegro_hand_ros_v4 and allegro_hand_linux_v4 (torques, caps, periods); ranges as recalled of its "
        "public URDF, not checked against it: compare with your hand's before you drive it",
    ),
    _hand(
        5,
        _joints(
            _degrees((-16, 16), (-5, 110), (-3, 102), (-5, 105)),
            _degrees((0, 105), (-6, 107), (-5, 106), (-4, 104)),
        ),
        {0: "input voltage", 2: "overheating", 4: "electrical shock or low power", 5: "overload"}, _V5_OPTIONS,
        "Allegro Hand V5 manual 1.3, allegro_hand_ros2_v5, allegro_hand_v5_plus_python; MCP range of the Plus",
    ),
)
