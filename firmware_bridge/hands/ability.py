"""PSYONIC Ability Hand over UART or RS-485."""

from __future__ import annotations

from types import MappingProxyType

from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.hands.spec import Connection, HandSpec, Joint, Option, Options
from beingh0_edge.firmware_bridge.safety import Safety


def _joint(name: str, upper_rad: float) -> Joint:
    return Joint(name, 0.0, upper_rad, 2.5, 25.0)  # our choice: the hand itself is faster


def _driver(to: Connection, options: Options) -> _bridge.Driver:
    return _bridge.ability_driver(
        port=to.port, baud=to.baud, device_id=to.device_id, rate_hz=to.rate_hz, reply_timeout_s=to.reply_timeout_s,
        counts_per_ampere=options.number("counts_per_ampere"), stall_is_fault=options.flag("stall_is_fault"),
        limits=to.limits,
    )


ABILITY_HAND = HandSpec(
    name="ability_hand",
    title="PSYONIC Ability Hand over UART or RS-485, with byte stuffing",
    wire="uart",
    # Angles travel as such, so these limits only bound what is commanded; the hand could bend to 150 degrees. Thumb
    # rotation closes with negative angles on the wire, the driver turns it round.
    joints=(
        _joint("index", 1.6), _joint("middle", 1.6), _joint("ring", 1.6), _joint("pinky", 1.6),
        _joint("thumb_flexor", 1.2), _joint("thumb_rotator", 1.7),
    ),
    baud=460800,
    device_id=0x50,
    device_ids=(0, 255),
    rate_hz=100.0,
    cycle_bytes=104,
    highest_rate_hz=400.0,  # 104 bytes per cycle at 460800 baud take 2.26 ms
    error_bits=MappingProxyType({0: "limited or stalled"}),
    options=MappingProxyType({
        "counts_per_ampere": Option(620.606, "of the measured currents; depends on the hardware, ask it over Bluetooth",
                                    (1.0, 10000.0)),
        "stall_is_fault": Option(False, "a limited or stalled motor is a fault; every grasp ends in one, so by default "
                                        "it only shows in `state.status`", choices=(False, True)),
    }),
    driver=_driver,
    source="PSYONIC's interface document and both of its libraries (ability-hand-api)",
    safe_stop="the measured pose becomes the target; closing the bridge leaves the API mode from there. A bridge that "
              "died leaves the hand to itself after 0.3 s: it may then open",
    safety=Safety(max_current_a=3.0),
)

HANDS = (ABILITY_HAND,)
