"""Descriptions of robot hands: those of the package, the compact file, and what is refused."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import beingh0_edge
from beingh0_edge.errors import RobotFileError
from beingh0_edge.firmware_bridge import HANDS
from beingh0_edge.robot_hand import FORMAT, RobotHand, known_robots
from beingh0_edge.types import SIDES, Side

ROBOTS = Path(beingh0_edge.__file__).parent / "assets" / "robots"
MIRRORED = ("inspire_rh56", "allegro_v4", "shadow_hand")  # exactly; an Ability thumb and LEAP fingers are not
MIRROR_M = 2e-5  # files are rounded to 0.01 mm
LICENSES = {"inspire_rh56": ("MIT", "LICENSE.robosuite"), "leap": ("MIT", "LICENSE.leap_hand"),
            "allegro_v4": ("BSD-2-Clause", "LICENSE.allegro_hand"), "ability_hand": ("MIT", "LICENSE.ability_hand"),
            "shadow_hand": ("Apache-2.0", "LICENSE.shadow_hand")}


def description(name: str = "inspire_rh56") -> dict[str, Any]:
    return json.loads((ROBOTS / f"{name}_right.json").read_text())


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("name", known_robots())
def test_every_hand_of_the_package_loads_and_closes(name: str, side: Side) -> None:
    hand = RobotHand.load(name, side)
    assert (hand.name, hand.side) == (name, side)
    assert "thumb" in hand.fingers
    assert hand.closing_m() > 0.05
    assert set(hand.radius_m) == set(hand.fingers)


@pytest.mark.parametrize("name", known_robots())
def test_every_description_states_its_source_and_licence(name: str) -> None:
    licence, file = LICENSES[name]
    for side in SIDES:
        notes = RobotHand.load(name, side).notes
        assert len(notes["provenance"]) >= 3
        assert notes["license"].startswith(licence)
        assert file in notes["license"]
        assert "copyright" in (ROBOTS / file).read_text().lower()


@pytest.mark.parametrize("name", MIRRORED)
def test_the_left_hand_is_the_mirror_image_of_the_right(name: str) -> None:
    right, left = RobotHand.load(name, "right"), RobotHand.load(name, "left")
    assert right.joint_names == left.joint_names
    for q in np.random.default_rng(0).uniform(right.lower_rad, right.upper_rad, (4, len(right.lower_rad))):
        mirrored = q.copy()
        if name == "allegro_v4":  # its spread turns the same way on both sides
            mirrored[[i for i, joint in enumerate(left.joint_names) if joint.endswith("spread")]] *= -1
        for finger, points in right.points_m(q).items():
            np.testing.assert_allclose(left.points_m(mirrored)[finger], points * [1, -1, 1], atol=MIRROR_M)


@pytest.mark.parametrize("name", sorted(set(known_robots()) & set(HANDS)))
def test_joints_are_those_of_the_bridge(name: str) -> None:
    """So that `Bridge.follow` takes what `Retargeter.trajectory` gives."""
    spec, hand = HANDS[name], RobotHand.load(name, "right")
    assert set(hand.joint_names) == set(spec.joint_names)
    place = [hand.joint_names.index(joint) for joint in spec.joint_names]
    np.testing.assert_array_equal(hand.lower_rad[place], spec.lower_rad)
    np.testing.assert_array_equal(hand.upper_rad[place], spec.upper_rad)


def test_the_hands_with_drivers_and_kinematics_are_known() -> None:
    assert {"inspire_rh56", "leap"} <= set(known_robots()) & set(HANDS)


@pytest.mark.parametrize("name", known_robots())
def test_a_hand_survives_being_written_and_read(name: str, tmp_path: Path) -> None:
    hand = RobotHand.load(name, "left")
    path = tmp_path / "hand.json"
    path.write_text(hand.to_text())
    again = RobotHand.load(path, "left")
    assert again.to_json() == hand.to_json()
    q = np.random.default_rng(1).uniform(hand.lower_rad, hand.upper_rad)
    for finger, points in hand.points_m(q).items():
        np.testing.assert_allclose(again.points_m(q)[finger], points, atol=1e-6)


def changed(*keys: Any, value: Any) -> dict[str, Any]:
    """The Inspire's description with one value replaced, or removed where value is ..."""
    whole = description()
    inner = whole
    for key in keys[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return whole


@pytest.mark.parametrize(("keys", "value", "message"), [
    (("format",), "hand 2", f"expected format '{FORMAT}', got 'hand 2'"),
    (("side",), "both", "side: expected 'left' or 'right', got 'both'"),
    (("name",), 7, "name: expected text, got 7"),
    (("colour",), "red", "unknown keys colour"),
    (("joints",), [], "joints: expected a list of 1 to 32 objects, got 0"),
    (("joints", 0, "lower_rad"), 2.0, "joint 'little': expected lower_rad below upper_rad, got 2 and 1.62"),
    (("joints", 0, "upper_rad"), "1", "upper_rad: expected a finite number, got '1'"),
    (("joints", 0, "upper_rad"), float("nan"), "upper_rad: expected a finite number, got nan"),
    (("joints", 0, "open_rad"), -0.1, r"open_rad -0\.1 is outside its limits 0 to 1\.62"),
    (("joints", 0, "natural_rad"), [0.5, 1.0], "hold the open angle 0"),
    (("joints", 0, "natural_rad"), [0.0], "natural_rad: expected two numbers"),
    (("joints", 1, "name"), "little", "joints: the name 'little' must be there once"),
    (("links", 1, "parent"), "nowhere", "unknown parent 'nowhere'"),
    (("links", 0, "parent"), "ring_distal", "its parent 'ring_distal' must come before it"),
    (("links", 0, "axis"), [0.0, 0.5, 0.0], r"axis: expected length 1, got 0\.5"),
    (("links", 0, "axis"), [0.0, 1.0], "axis: expected three numbers"),
    (("links", 0, "origin_m"), [104.1, 0.0, 0.0], "104.1 m is not part of a hand; millimetres"),
    (("links", 0, "joint"), "pinky", "unknown joint 'pinky'"),
    (("links", 0, "multiplier"), True, "multiplier: expected a finite number, got True"),
    (("links", 0, "offset_rad"), ..., "offset_rad: expected a finite number, got None"),
    (("links", 1, "multiplier"), 1.7e308, "link '[a-z]*_distal': its angle at the limits is not finite"),
    (("fingers", "toe"), [], "fingers: expected some of thumb, index"),
    (("fingers", "index"), [], "finger 'index': expected four points"),
    (("fingers", "index", 0, "link"), "elbow", "unknown link 'elbow'"),
    (("fingers",), {}, "at least two besides the thumb"),
    (("radius_m", "index"), 5.0, r"radius_m: index: expected 0 to 0\.05 m, got 5"),
    (("radius_m", "toe"), 0.01, "radius_m: expected numbers by finger"),
    (("side",), "left", "closing the fingers moves their tips .* out of the back of a left hand. Is it a right one"),
])
def test_what_does_not_hold_is_named(keys: tuple[Any, ...], value: Any, message: str) -> None:
    with pytest.raises(RobotFileError, match=message):
        RobotHand.from_json(changed(*keys, value=value), "hand.json")


def test_fingers_in_the_wrong_order_are_noticed() -> None:
    whole = description()
    fingers = whole["fingers"]
    for a, b in (("index", "little"), ("middle", "ring")):
        fingers[a], fingers[b] = fingers[b], fingers[a]
    with pytest.raises(RobotFileError, match="are index and little exchanged"):
        RobotHand.from_json(whole)


@pytest.mark.parametrize(("content", "message"), [
    ("", "not json"), ("[]", "expected format .* got 'list'"), ('{"a":', "not json")])
def test_files_that_are_something_else_are_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "hand.json"
    path.write_text(content)
    with pytest.raises(RobotFileError, match=message):
        RobotHand.load(path, "right")


def test_a_file_that_is_not_there_or_of_the_other_side_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RobotFileError, match="No such file"):
        RobotHand.load(tmp_path / "none.json", "right")
    with pytest.raises(RobotFileError, match="a right hand, expected a left one"):
        RobotHand.load(ROBOTS / "leap_right.json", "left")


JUNK = st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=4),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3))


@settings(max_examples=80, deadline=None)
@given(data=st.data(), junk=JUNK)
def test_junk_anywhere_ends_in_one_clear_error(data: st.DataObject, junk: Any) -> None:
    whole = copy.deepcopy(description())
    inner: Any = whole
    while True:
        key = data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        if not isinstance(inner[key], (dict, list)) or not inner[key] or data.draw(st.booleans()):
            break
        inner = inner[key]
    inner[key] = junk
    try:
        hand = RobotHand.from_json(whole, "hand.json")
    except RobotFileError:
        return
    assert np.isfinite(hand.points_m(hand.open_rad)[next(iter(hand.fingers))]).all()
