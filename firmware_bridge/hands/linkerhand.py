"""LinkerHand O6, L6, L7, L10 and L20 over CAN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import MappingProxyType

from beingh0_edge.firmware_bridge import _bridge
from beingh0_edge.firmware_bridge.hands.spec import Connection, HandSpec, Joint, Option, Options

_FULL_STROKE_S = 0.6  # not published; slow enough to be followed at SPEED 255 [our choice]


def _joint(name: str, lower_rad: float, upper_rad: float) -> Joint:
    speed = (upper_rad - lower_rad) / _FULL_STROKE_S
    return Joint(name, lower_rad, upper_rad, speed, speed / 0.1)


def _bend(names: Sequence[str], upper_rad: Sequence[float]) -> tuple[Joint, ...]:
    return tuple(_joint(name, 0.0, upper) for name, upper in zip(names, upper_rad, strict=True))


_SIX = ("thumb_pitch", "thumb_yaw", "index", "middle", "ring", "little")
_FINGERS = ("thumb", "index", "middle", "ring", "little")

_ERRORS = MappingProxyType({1: "over-current", 2: "over-temperature", 3: "encoder", 4: "over- or under-voltage"})
_OPTIONS = {
    "speed": Option(255, "speed of all joints", (1, 255)),
    "frame_gap_ms": Option(1.5, "least pause between frames; the maker's libraries pause 1.5 to 5 ms, no limit is "
                                "published", (0.0, 10.0)),
    "model_check": Option(True, "ask the hand which model and side it is; False: you vouch for it",
                          choices=(True, False)),
}
_TORQUE = {"torque": Option(180, "torque limit of all joints, of 255", (1, 255))}


def _driver(model: str, degrees: int, wire: Sequence[int]) -> Callable[[Connection, Options], _bridge.Driver]:
    def make(to: Connection, options: Options) -> _bridge.Driver:
        return _bridge.linkerhand_driver(
            model=model, port=to.port, device_id=to.device_id, left=to.side == "left", rate_hz=to.rate_hz,
            reply_timeout_s=to.reply_timeout_s, degrees=degrees, wire=list(wire),
            frame_gap_s=1e-3 * options.number("frame_gap_ms"), speed=options.whole("speed"),
            torque=options.whole("torque") if "torque" in options else 255,
            trust_model=not options.flag("model_check"), limits=to.limits,
        )

    return make


def _hand(model: str, joints: tuple[Joint, ...], rate_hz: float, highest_rate_hz: float, *, degrees: int | None = None,
          wire: Sequence[int] | None = None, torque: bool = True, note: str = "") -> HandSpec:
    order = range(len(joints)) if wire is None else wire
    return HandSpec(
        name=f"linkerhand_{model}",
        title=f"LinkerHand {model.upper()} over CAN (SocketCAN or slcan)",
        wire="can",
        joints=joints,
        baud=1_000_000,
        device_id=0x27,
        left_device_id=0x28,
        rate_hz=rate_hz,
        highest_rate_hz=highest_rate_hz,
        error_bits=_ERRORS,
        options=MappingProxyType({**_OPTIONS, **(_TORQUE if torque else {})}),
        driver=_driver(model, degrees or len(joints), order),
        source="linkerhand-python-sdk, linkerhand-cpp-sdk and a driver that agrees with them; ranges of the right hand "
               "from the former" + note,
    )


# Radian ranges with 0 extended and the upper limit bent, as the SDK's own tables give them.
HANDS = (
    _hand("o6", _bend(_SIX, (0.58, 1.36, 1.6, 1.6, 1.6, 1.6)), 100.0, 300.0),
    _hand("l6", _bend(_SIX, (0.58, 1.36, 1.6, 1.6, 1.6, 1.6)), 100.0, 300.0),
    _hand("l7", _bend((*_SIX, "thumb_roll"), (0.75, 1.43, 1.62, 1.62, 1.62, 1.62, 1.54)), 100.0, 300.0),
    _hand(
        "l10",
        (
            *_bend(_SIX, (0.75, 1.43, 1.62, 1.62, 1.62, 1.62)),
            *(_joint(f"{finger}_roll", -0.26, 0.26) for finger in ("index", "ring", "little")),
            _joint("thumb_roll", 0.0, 1.01),
        ),
        50.0, 150.0,
    ),
    _hand(
        "l20",
        (
            *(_joint(f"{finger}_base", 0.0, 1.6) for finger in _FINGERS),
            *(_joint(f"{finger}_yaw", -0.26, 0.26) for finger in _FINGERS),
            _joint("thumb_roll", 0.0, 1.0),
            *(_joint(f"{finger}_tip", 0.0, 1.6) for finger in _FINGERS),
        ),
        30.0, 80.0, degrees=16, wire=(*range(11), *range(15, 20)), torque=False,
        note="; none are published for this model: nominal ones stand in",
    ),
)
