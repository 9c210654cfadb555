"""Prints docs/robot_hands.md from the table of hands: `python -m beingh0_edge.firmware_bridge.hands.describe`."""

from __future__ import annotations

from itertools import groupby

from beingh0_edge.firmware_bridge.hands import HANDS
from beingh0_edge.firmware_bridge.hands.spec import HandSpec, Option

_HEAD = """# The hands the bridge drives

Printed by `python -m beingh0_edge.firmware_bridge.hands.describe`; a test keeps it up to date. 0 rad is open and angles
grow while closing, whatever the hand's own units do; joints are in the order of the wire. Options are arguments of
`Bridge.open`; what sources disagree on is one of them. How to add a hand: [add_a_hand.md](add_a_hand.md); when the
bridge stops one: [safety.md](safety.md).
"""


def _allowed(option: Option) -> str:
    if option.bounds is not None:
        return f"{option.bounds[0]:g} to {option.bounds[1]:g}"
    return ", ".join(map(repr, option.choices))


def _section(spec: HandSpec) -> str:
    ids = f"{spec.device_id}" if spec.left_device_id is None else f"{spec.device_id} right, {spec.left_device_id} left"
    errors = ", ".join(f"{bit} {text}" for bit, text in spec.error_bits.items())
    lines = [
        f"## `{spec.name}`", "",
        f"{spec.title}. {len(spec.joints)} joints, id {ids}, "
        f"{spec.rate_hz:g} Hz ({spec.lowest_rate_hz:g} to {spec.highest_rate_hz:g}).", "",
        f"- Safe stop: {spec.safe_stop}.",
        f"- Error bits: {errors}.",
        f"- Source: {spec.source}.", "",
        "| joint | range, rad | speed, rad/s | acceleration, rad/s² |", "|---|---|---|---|",
    ]
    for (low, high, speed, accel), same in groupby(
            spec.joints, lambda j: (j.lower_rad, j.upper_rad, j.max_speed_rad_s, j.max_accel_rad_s2)):
        names = ", ".join(joint.name for joint in same)
        lines.append(f"| {names} | {low:g} to {high:g} | {speed:.3g} | {accel:.3g} |")
    lines += ["", "| option | default | allowed | meaning |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {option.default!r} | {_allowed(option)} | {option.meaning} |"
              for name, option in spec.options.items()]
    return "\n".join(lines) + "\n"


def markdown() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(_section(spec) for spec in HANDS.values())])


if __name__ == "__main__":
    print(markdown(), end="")
