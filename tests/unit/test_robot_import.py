"""URDF and MJCF files become compact descriptions; what is not understood is refused."""

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy_reference as reference
import pytest

from beingh0_edge.cli import main
from beingh0_edge.cli.hand_import import coupling
from beingh0_edge.errors import RobotFileError
from beingh0_edge.retarget import Retargeter
from beingh0_edge.robot_hand import RobotHand
from beingh0_edge.robot_import import ImportOptions, import_hand

EXACT_M = 1e-6  # coordinates are rounded to 0.1 um, axes to 1e-6
X, Y, Z = np.eye(3)

# Two fingers and a thumb. The finger's second hinge follows the first; frames are turned to make it interesting.
URDF = """<?xml version="1.0"?>
<robot name="toy">
  <link name="world"/><link name="base"/>
  <joint name="mount" type="prismatic"><parent link="world"/><child link="base"/><axis xyz="0 0 1"/>
    <limit lower="0" upper="1"/></joint>
{fingers}
</robot>"""


def rotation_about(axis: np.ndarray, angle_rad: float) -> np.ndarray:
    return reference.axis_angle_to_matrix(angle_rad * axis)


def urdf_finger(name: str, y: float, mimic: str = "", kind: str = "revolute") -> str:
    return f"""
  <link name="{name}1"/><link name="{name}2"/><link name="{name}_tip"/>
  <joint name="{name}_j1" type="{kind}"><parent link="base"/><child link="{name}1"/>
    <origin xyz="0.08 {y} 0.01" rpy="0.1 0.2 0.3"/><axis xyz="0 2 0"/><limit lower="-0.1" upper="1.5"/></joint>
  <joint name="{name}_j2" type="revolute"><parent link="{name}1"/><child link="{name}2"/>
    <origin xyz="0.04 0 0"/><axis xyz="0 1 0"/><limit lower="0" upper="1.6"/>{mimic}</joint>
  <joint name="{name}_fix" type="fixed"><parent link="{name}2"/><child link="{name}_tip"/>
    <origin xyz="0.03 0 0.002" rpy="0 0 1"/></joint>"""


TIPS = {finger: f"{finger}_tip" for finger in ("thumb", "index", "ring")}


@pytest.fixture
def urdf(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str | None = None, **each: str) -> Path:
        if text is None:
            text = URDF.format(fingers=urdf_finger("thumb", 0.05) + urdf_finger("index", 0.02, **each)
                               + urdf_finger("ring", -0.02))
        path = tmp_path / "toy.urdf"
        path.write_text(text)
        return path
    return write


def load(path: Path, **options: Any) -> RobotHand:
    return import_hand(path, ImportOptions(**{"tips": TIPS, "name": "toy"} | options))


def urdf_tip(y: float, first: float, second: float) -> np.ndarray:
    turn = rotation_about(Z, 0.3) @ rotation_about(Y, 0.2) @ rotation_about(X, 0.1)
    inner = rotation_about(Y, second) @ [0.03, 0, 0.002]
    return np.array([0.08, y, 0.01]) + turn @ rotation_about(Y, first) @ (np.array([0.04, 0, 0]) + inner)


def test_a_urdf_keeps_its_kinematics(urdf: Callable[..., Path]) -> None:
    hand = load(urdf())
    assert hand.joint_names == ("thumb_j1", "thumb_j2", "index_j1", "index_j2", "ring_j1", "ring_j2")
    np.testing.assert_array_equal(hand.lower_rad, [-0.1, 0, -0.1, 0, -0.1, 0])
    q = np.array([0.1, 0.2, 0.4, 0.9, 1.2, 0.3])
    points = hand.points_m(q)
    for finger, y, k in (("thumb", 0.05, 0), ("index", 0.02, 2), ("ring", -0.02, 4)):
        np.testing.assert_allclose(points[finger][3], urdf_tip(y, q[k], q[k + 1]), atol=EXACT_M)
        np.testing.assert_allclose(points[finger][0], [0.08, y, 0.01], atol=EXACT_M)


def test_a_mimic_joint_follows(urdf: Callable[..., Path]) -> None:
    hand = load(urdf(mimic='<mimic joint="index_j1" multiplier="1.1" offset="0.05"/>'))
    assert "index_j2" not in hand.joint_names
    q = np.array([0.1, 0.2, 0.4, 1.2, 0.3])
    np.testing.assert_allclose(hand.points_m(q)["index"][3], urdf_tip(0.02, 0.4, 1.1 * 0.4 + 0.05), atol=EXACT_M)


def test_a_mimic_of_a_mimic_and_of_another_finger_follows(urdf: Callable[..., Path]) -> None:
    hand = load(urdf(mimic='<mimic joint="ring_j2" multiplier="0.5"/>'),
                couple={"ring_j2": ("ring_j1", 2.0, 0.1)})
    q = np.array([0.1, 0.2, 0.4, 0.3])
    assert hand.joint_names == ("thumb_j1", "thumb_j2", "index_j1", "ring_j1")
    np.testing.assert_allclose(hand.points_m(q)["index"][3], urdf_tip(0.02, 0.4, 0.5 * (2 * 0.3 + 0.1)), atol=EXACT_M)


def test_a_coupled_hinge_driven_past_its_limits_is_noted(urdf: Callable[..., Path]) -> None:
    assert len(load(urdf(mimic='<mimic joint="index_j1" multiplier="1"/>')).notes["provenance"]) == 2  # down to -0.1
    notes = load(urdf(mimic='<mimic joint="index_j1" multiplier="1.5" offset="0.2"/>')).notes["provenance"]
    assert notes[1] == ("index_j2: following index_j1 it reaches 0.05 to 2.45 rad, its own limits are 0 to 1.6")


def test_names_limits_and_poses_can_be_said(urdf: Callable[..., Path]) -> None:
    hand = load(urdf(), rename={"index_j1": "index"}, fix={"ring_j2": 0.2}, open={"index": 0.1},
                natural={"index": (0.0, 1.0)}, radius_m={"index": 0.008}, license="ours")
    assert "index" in hand.joint_names
    assert "ring_j2" not in hand.joint_names
    column = hand.joint_names.index("index")
    assert hand.open_rad[column] == 0.1
    np.testing.assert_array_equal(hand.natural_rad[:, column], [0.0, 1.0])
    assert hand.notes["license"] == "ours"
    q = np.zeros(len(hand.joint_names))
    np.testing.assert_allclose(hand.points_m(q)["ring"][3], urdf_tip(-0.02, 0.0, 0.2), atol=EXACT_M)


def test_a_point_in_a_link_can_be_the_tip(urdf: Callable[..., Path]) -> None:
    hand = load(urdf(), tips=TIPS | {"index": "index2:0.03,0,0.002"})
    np.testing.assert_allclose(hand.points_m(np.zeros(6))["index"][3], urdf_tip(0.02, 0, 0), atol=EXACT_M)


def test_an_imported_hand_can_be_followed(urdf: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "toy.json"
    path.write_text(load(urdf()).to_text())
    retargeter = Retargeter.load(path, "right")
    from beingh0_edge.retarget import open_hand

    q = retargeter.retarget(np.repeat(open_hand("right")[None], 3, axis=0))
    np.testing.assert_allclose(q[-1], 0.0, atol=1e-6)


@pytest.mark.parametrize(("options", "message"), [
    ({"tips": TIPS | {"index": "fingertip"}}, "unknown link 'fingertip'; links at the ends: thumb_tip, index_tip"),
    ({"tips": TIPS | {"index": "index2:1,2"}}, "expected name:x,y,z in metres"),
    ({"tips": TIPS | {"toe": "index_tip"}}, "unknown fingers toe"),
    ({"tips": {}}, "tips: none given"),
    ({"tips": TIPS | {"index": "base"}}, "'base' carries the others"),
    ({"base": "index1"}, "base: 'index1' does not carry all tips; these do: world, base"),
    ({"base": "world"}, "joint 'mount': type 'prismatic' is not supported"),
    ({"couple": {"elbow": ("index_j1", 1.0, 0.0)}}, "couple: unknown joints elbow"),
    ({"couple": {"index_j1": ("index_j2", 1.0, 0.0), "index_j2": ("index_j1", 1.0, 0.0)}}, "in a circle"),
    ({"couple": {"index_j2": ("elbow", 1.0, 0.0)}}, "follows 'elbow', which is not in the file"),
    ({"fix": {"elbow": 0.0}}, "fix: unknown joints elbow"),
    ({"open": {"elbow": 0.0}}, "open: unknown joints elbow"),
    ({"rename": {"index_j1": "ring_j1"}}, "two joints get the same name"),
    ({"open": {"index_j1": 3.0}}, "open at 3 rad, which is outside its limits"),
    ({"side": "left"}, "out of the back of a left hand"),
    ({"fix": {"index_j1": 0.0, "index_j2": 0.0}}, "nothing moves between 'base' and 'index_tip'"),
])
def test_wrong_options_are_named(urdf: Callable[..., Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(RobotFileError, match=message):
        load(urdf(), **options)


@pytest.mark.parametrize(("old", "new", "message"), [
    ('<axis xyz="0 2 0"/>', '<axis xyz="0 0 0"/>', "direction of length 0"),
    ('<axis xyz="0 2 0"/>', '<axis xyz="0 2"/>', "expected 3 finite numbers, got '0 2'"),
    ('<axis xyz="0 2 0"/>', '<axis xyz="0 nan 0"/>', "expected 3 finite numbers"),
    ('<axis xyz="0 2 0"/>', '<axis xyz="0 two 0"/>', "expected 3 numbers, got '0 two 0'"),
    ('type="revolute"', 'type="floating"', "type 'floating' is not supported"),
    ('type="revolute"', 'type="continuous"', "has no limits"),
    ('<limit lower="-0.1" upper="1.5"/>', "", "a revolute joint needs a <limit>"),
    ('<limit lower="-0.1" upper="1.5"/>', '<limit lower="1.5" upper="1.5"/>', "lower limit below the upper"),
    ('<child link="index1"/>', '<child link="nowhere"/>', "unknown child link 'nowhere'"),
    ('<child link="index1"/>', '<child link="ring1"/>', "two parents"),
    ('<parent link="base"/><child link="index1"/>', '<parent link="index2"/><child link="index1"/>',
     "hangs on itself"),
    ('<link name="index1"/>', '<link name="ring1"/>', "expected a name of its own, got 'ring1'"),
    ('<link name="base"/>', '<link name="base"/><xacro:finger xmlns:xacro="x"/>', "a xacro file; expand it first"),
    ('xyz="0.04 0 0"', 'xyz="${length} 0 0"', "a xacro file; expand it first"),
    ("</robot>", "", "not XML"),
    ("<robot ", "<bot ", "not XML|expected <robot>"),
])
def test_a_wrong_urdf_is_refused(urdf: Callable[..., Path], old: str, new: str, message: str) -> None:
    text = urdf().read_text()
    assert old in text
    path = urdf(text=text.replace(old, new))
    with pytest.raises(RobotFileError, match=message):
        load(path)


def test_an_expanded_xacro_file_is_a_urdf(urdf: Callable[..., Path]) -> None:
    text = urdf().read_text()
    assert load(urdf(text=text.replace("<robot ", '<robot xmlns:xacro="http://ros.org/wiki/xacro" '))).name == "toy"


@pytest.mark.parametrize("head", [
    '<!DOCTYPE robot [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
    '<!DOCTYPE robot [<!ENTITY secret SYSTEM "file:///etc/passwd">]>',
    '<!DOCTYPE robot SYSTEM "http://localhost/robot.dtd">',
])
def test_entities_are_refused(urdf: Callable[..., Path], head: str) -> None:
    text = urdf().read_text().replace("<robot", head + "<robot", 1)
    with pytest.raises(RobotFileError, match="line 2: a document type or entity"):
        load(urdf(text=text))


def test_deep_and_foreign_files_are_refused(urdf: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(RobotFileError, match="more than 200 elements inside each other"):
        load(urdf(text="<robot>" + "<a>" * 300 + "</a>" * 300 + "</robot>"))
    with pytest.raises(RobotFileError, match=r"expected <robot> .* got <html>"):
        load(urdf(text="<html/>"))
    with pytest.raises(RobotFileError, match="No such file"):
        load(tmp_path / "none.urdf")
    with pytest.raises(RobotFileError, match="not XML"):
        load(urdf(text="\x00\x01"))


# ---- MJCF ----

MJCF = """<mujoco>
  <compiler angle="{angle}" {compiler}/>
  <default><joint axis="0 1 0"/>
    <default class="finger"><joint range="{range1}"/>
      <default class="outer"><joint range="{range2}"/></default></default>
  </default>
  <worldbody><body name="arm"><freejoint/><body name="base" pos="0 0 1" childclass="finger">
{fingers}
  </body></body></worldbody>
{more}
</mujoco>"""


def mjcf_finger(name: str, y: float) -> str:
    return f"""
  <frame pos="0 {y} 0"><body name="{name}1" pos="0.08 0 0.01" {{turn}}>
    <joint name="{name}_j1"/>
    <body name="{name}2" pos="0.03 0 0"><joint name="{name}_j2" class="outer" pos="0.01 0 0"/>
      <site name="{name}_tip" pos="0.04 0 0.002"/></body></body></frame>"""


def mjcf(tmp_path: Path, *, angle: str = "radian", compiler: str = "", turn: str = "", more: str = "",
         fingers: str | None = None) -> Path:
    one, two = ("-0.1 1.5", "0 1.6") if angle == "radian" else ("-5.729578 85.943669", "0 91.673247")
    body = fingers or "".join(mjcf_finger(n, y) for n, y in (("thumb", 0.05), ("index", 0.02), ("ring", -0.02)))
    path = tmp_path / "toy.xml"
    path.write_text(MJCF.format(angle=angle, compiler=compiler, range1=one, range2=two, more=more,
                                fingers=body.replace("{turn}", turn)))
    return path


TURNS = [
    ("radian", "", 'euler="0.1 0.2 0.3"', rotation_about(X, 0.1) @ rotation_about(Y, 0.2) @ rotation_about(Z, 0.3)),
    ("radian", 'eulerseq="XYZ"', 'euler="0.1 0.2 0.3"',
     rotation_about(Z, 0.3) @ rotation_about(Y, 0.2) @ rotation_about(X, 0.1)),
    ("degree", "", 'euler="0 0 30"', rotation_about(Z, math.pi / 6)),
    ("degree", "", 'axisangle="0 0 2 30"', rotation_about(Z, math.pi / 6)),
    ("radian", "", 'quat="2 0 0 0.4"', rotation_about(Z, 2 * math.atan(0.2))),
    ("radian", "", 'quat="-0.9 0.1 0.2 -0.3"', reference.quaternion_to_matrix(np.array([-0.9, 0.1, 0.2, -0.3]))),
    ("radian", "", 'quat="-2 0 0 0"', np.eye(3)),
    ("radian", "", 'xyaxes="0.8 0.6 0 -1 1 0"', rotation_about(Z, math.atan2(0.6, 0.8))),
    ("radian", "", 'zaxis="0.6 0 0.8"', rotation_about(Y, math.atan2(0.6, 0.8))),
    ("radian", "", "", np.eye(3)),
]


@pytest.mark.parametrize(("angle", "compiler", "turn", "rotation"), TURNS)
def test_an_mjcf_keeps_its_kinematics(tmp_path: Path, angle: str, compiler: str, turn: str,
                                      rotation: np.ndarray) -> None:
    hand = load(mjcf(tmp_path, angle=angle, compiler=compiler, turn=turn))
    np.testing.assert_allclose(hand.upper_rad, [1.5, 1.6] * 3, atol=1e-6)
    q = np.array([0.1, 0.2, 0.4, 0.9, 1.2, 0.3])
    for finger, y, k in (("thumb", 0.05, 0), ("index", 0.02, 2), ("ring", -0.02, 4)):
        inner = np.array([0.01, 0, 0]) + rotation_about(Y, q[k + 1]) @ [0.03, 0, 0.002]
        expected = (np.array([0.08, y, 0.01])
                    + rotation @ rotation_about(Y, q[k]) @ (np.array([0.03, 0, 0]) + inner))
        np.testing.assert_allclose(hand.points_m(q)[finger][3], expected, atol=EXACT_M)


def test_joint_equalities_couple(tmp_path: Path) -> None:
    more = '<equality><joint joint1="index_j2" joint2="index_j1" polycoef="0.1 1.2 0 0 0"/></equality>'
    hand = load(mjcf(tmp_path, more=more))
    link = hand.link_names.index("index_j2")
    assert (hand.multipliers[link], hand.offsets_rad[link]) == (1.2, 0.1)
    assert "index_j2" not in hand.joint_names


def test_a_joint_held_by_an_equality_stays(tmp_path: Path) -> None:
    more = '<equality><joint joint1="index_j2" polycoef="0.3 0 0 0 0"/></equality>'
    held, free = load(mjcf(tmp_path, more=more)), load(mjcf(tmp_path))
    at = free.points_m(np.array([0, 0, 0.2, 0.3, 0, 0]))["index"][3]
    np.testing.assert_allclose(held.points_m(np.array([0, 0, 0.2, 0, 0]))["index"][3], at, atol=EXACT_M)


def test_one_motor_on_a_tendon_drives_two_joints(tmp_path: Path) -> None:
    more = """<tendon><fixed name="index_both"><joint joint="index_j1" coef="1"/><joint joint="index_j2" coef="1"/>
      </fixed></tendon><actuator><position tendon="index_both"/><position joint="thumb_j1"/><position joint="thumb_j2"/>
      <position joint="ring_j1"/><position joint="ring_j2"/></actuator>"""
    hand = load(mjcf(tmp_path, more=more))
    assert hand.joint_names == ("thumb_j1", "thumb_j2", "ring_j1", "ring_j2", "index_both")
    assert hand.upper_rad[-1] == pytest.approx(3.0), "what both joints allow"
    assert [hand.multipliers[hand.link_names.index(j)] for j in ("index_j1", "index_j2")] == [0.5, 0.5]
    assert "one motor pulls index_j1 and index_j2" in hand.notes["provenance"][1]


def test_a_tight_tendon_couples_a_joint_without_motor(tmp_path: Path) -> None:
    motors = "".join(f'<position joint="{j}"/>' for j in ("thumb_j1", "thumb_j2", "index_j1", "ring_j1", "ring_j2"))
    tendon = """<tendon><fixed name="t" limited="true" range="-0.001 0.001"><joint joint="index_j2" coef="0.007"/>
      <joint joint="index_j1" coef="-0.008"/></fixed></tendon>"""
    hand = load(mjcf(tmp_path, more=f"{tendon}<actuator>{motors}</actuator>"))
    assert hand.multipliers[hand.link_names.index("index_j2")] == pytest.approx(8 / 7)
    with pytest.raises(RobotFileError, match="'index_j2' has no motor in the file; couple it"):
        load(mjcf(tmp_path, more=f"<actuator>{motors}</actuator>"))
    loose = tendon.replace('"-0.001 0.001"', '"-0.1 0.1"')
    with pytest.raises(RobotFileError, match="'index_j2' has no motor"):
        load(mjcf(tmp_path, more=f"{loose}<actuator>{motors}</actuator>"))


def test_a_body_goes_before_a_site_of_its_name(tmp_path: Path) -> None:
    path = mjcf(tmp_path)
    plain = load(path, tips=TIPS | {"index": "index2"})
    path.write_text(path.read_text().replace("index_tip", "index2"))
    both = load(path, tips=TIPS | {"index": "index2"})
    assert both.to_json() == plain.to_json()


def test_the_reference_angle_counts(tmp_path: Path) -> None:
    q = np.array([0, 0, 0.5, 0.1, 0, 0.0])
    path = mjcf(tmp_path)
    expected = load(path).points_m(q - [0, 0, 0.2, 0, 0, 0])["index"][3]
    path.write_text(path.read_text().replace('<joint name="index_j1"/>', '<joint name="index_j1" ref="0.2"/>'))
    np.testing.assert_allclose(load(path).points_m(q)["index"][3], expected, atol=EXACT_M)


def test_included_files_are_read_from_the_same_folder_only(tmp_path: Path) -> None:
    path = mjcf(tmp_path)
    whole = path.read_text()
    (tmp_path / "parts").mkdir()
    start, end = whole.index("<worldbody>"), whole.index("</worldbody>") + len("</worldbody>")
    (tmp_path / "parts" / "hand.xml").write_text(f"<mujocoinclude>{whole[start:end]}</mujocoinclude>")
    path.write_text(whole[:start] + '<include file="parts/hand.xml"/>' + whole[end:])
    assert len(load(path).joint_names) == 6
    path.write_text(whole[:start] + '<include file="../hand.xml"/>' + whole[end:])
    with pytest.raises(RobotFileError, match="outside the folder of the file"):
        load(path)
    path.write_text(whole[:start] + '<include file="toy.xml"/>' + whole[end:])
    with pytest.raises(RobotFileError, match="includes itself"):
        load(path)


@pytest.mark.parametrize(("old", "new", "message"), [
    ('<joint name="index_j1"/>', '<joint name="index_j1" type="slide"/>', "type 'slide' is not supported"),
    ('<joint name="index_j1"/>', '<joint name="index_j1" type="ball"/>', "type 'ball' is not supported"),
    ('<joint name="index_j1"/>', '<joint name="index_j1" limited="false"/>', "has no limits"),
    ('<joint name="index_j1"/>', '<joint name="index_j1" class="none"/>', "unknown class 'none'"),
    ('<body name="index2"', '<replicate count="2"/><body name="index2"', "<replicate>: not supported"),
    ('<body name="index2"', '<body name="ring2"', "there twice"),
    ("</mujoco>", '<equality><connect body1="index2" body2="base" anchor="0 0 0"/></equality></mujoco>',
     "connect .* closes a loop at 'index2'"),
    ("</mujoco>", '<equality><joint joint1="index_j2" joint2="index_j1" polycoef="0 1 2 0 0"/></equality></mujoco>',
     "a curved coupling"),
    ("</mujoco>", '<equality><joint joint1="index_j2" joint2="elbow"/></equality></mujoco>', "follows 'elbow'"),
    ('angle="radian"', 'angle="radian" coordinate="global"', "coordinate: only local"),
    ('angle="radian"', 'angle="radian" eulerseq="abc"', "eulerseq: expected three of x, y, z"),
    ('<body name="index2" pos="0.03 0 0">', '<body name="index2" pos="0.03 0 0" quat="1 0 0 0" euler="0 0 0">',
     "quat and euler, expected one"),
])
def test_a_wrong_mjcf_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = mjcf(tmp_path)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(RobotFileError, match=message):
        load(path)


# ---- the command ----


def test_the_command_writes_a_description_and_a_picture(urdf: Callable[..., Path], tmp_path: Path,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out" / "toy.json"
    status = main(["hand", "import", str(urdf()), *(word for f, t in TIPS.items() for word in ("--tip", f"{f}={t}")),
                   "--couple", "index_j2=index_j1*1.1+0.05", "--rename", "index_j1=index", "--open", "index=0.1",
                   "--natural", "index=0:1.2", "--fix", "ring_j2=0.2", "--radius", "index=0.008", "--license", "ours",
                   "--out", str(out)])
    assert status == 0
    assert "toy, right: 4 joints move 5 hinges" in capsys.readouterr().out
    hand = RobotHand.load(out, "right")
    link, joint = hand.link_names.index("index_j2"), hand.joint_names.index("index")
    assert (hand.multipliers[link], hand.offsets_rad[link], hand.link_joints[link]) == (1.1, 0.05, joint)
    assert (hand.open_rad[joint], hand.natural_rad[1, joint], hand.radius_m["index"]) == (0.1, 1.2, 0.008)
    assert hand.notes["license"] == "ours"
    assert out.with_suffix(".png").read_bytes()[:4] == b"\x89PNG"
    assert sorted(path.name for path in out.parent.iterdir()) == ["toy.json", "toy.png"]


@pytest.mark.parametrize(("words", "message"), [
    (["--tip", "index"], "--tip: expected NAME=VALUE"),
    (["--couple", "index_j2=index_j1*x"], "--couple: expected JOINT=DRIVER"),
    (["--fix", "index_j2=far"], "--fix: expected a number, got 'far'"),
    (["--natural", "index_j1=1"], "--natural: expected JOINT=LOW:HIGH"),
    (["--side", "both"], "--side: expected left or right, got 'both'"),
    (["--out", "hand.txt"], "--out: expected a file that ends in .json"),
    (["--base", "elbow"], "base: 'elbow' does not carry all tips"),
])
def test_a_wrong_command_says_so_and_writes_nothing(urdf: Callable[..., Path], tmp_path: Path, words: list[str],
                                                    message: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = [*(word for f, t in TIPS.items() for word in ("--tip", f"{f}={t}")), "--out", str(out / "toy.json")]
    assert main(["hand", "import", str(urdf()), *arguments, *words]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(("text", "expected"), [
    ("a", ("a", 1.0, 0.0)), ("a-1", ("a-1", 1.0, 0.0)), ("a*-0.5", ("a", -0.5, 0.0)), ("a*1e-1-.2", ("a", 0.1, -0.2))])
def test_couplings_are_read(text: str, expected: tuple[str, float, float]) -> None:
    assert coupling(text) == expected


# ---- real files, where their packages are installed ----

INSPIRE_TIPS = {"thumb": "r_thumb_distal:0.02,0.02,0", "index": "r_index_distal:0,0.045,0",
                "middle": "r_middle_distal:0,0.048,0", "ring": "r_ring_distal:0,0.045,0",
                "little": "r_pinky_distal:0,0.037,0"}
SHADOW_TIPS = {"thumb": "robot0:S_thtip", "index": "robot0:S_fftip", "middle": "robot0:S_mftip",
               "ring": "robot0:S_rftip", "little": "robot0:S_lftip"}


OTHERS = {"robosuite": importlib.util.find_spec("robosuite"),
          "gymnasium_robotics": importlib.util.find_spec("gymnasium_robotics")}


def package_file(package: str, inner: str) -> Path:
    found = OTHERS[package]
    if found is None:
        pytest.skip(f"{package} is not installed")
    return Path(found.submodule_search_locations[0]) / inner


@pytest.mark.parametrize(("package", "inner", "tips"), [
    ("robosuite", "models/assets/grippers/inspire_right_hand.xml", INSPIRE_TIPS),
    ("gymnasium_robotics", "envs/assets/hand/reach.xml", SHADOW_TIPS)])
def test_real_hands_move_as_in_mujoco(package: str, inner: str, tips: dict[str, str]) -> None:
    path = package_file(package, inner)
    mujoco = pytest.importorskip("mujoco")
    hand = import_hand(path, ImportOptions(tips=tips, name="real"))
    model = mujoco.MjModel.from_xml_path(str(path))
    data = mujoco.MjData(model)
    base = "r_palm" if package == "robosuite" else "robot0:palm"
    for q in np.random.default_rng(2).uniform(hand.lower_rad, hand.upper_rad, (5, len(hand.joint_names))):
        for i, name in enumerate(hand.link_names):
            angle = hand.multipliers[i] * q[hand.link_joints[i]] + hand.offsets_rad[i]
            data.joint(name).qpos[0] = angle
        mujoco.mj_kinematics(model, data)
        palm = data.body(base)
        points = hand.points_m(q)
        for finger, tip in tips.items():
            name, _, offset = tip.partition(":") if not tip.startswith("robot0") else (tip, "", "")
            at = (data.site(name).xpos if not offset else data.body(name).xpos
                  + data.body(name).xmat.reshape(3, 3) @ [float(v) for v in offset.split(",")])
            expected = palm.xmat.reshape(3, 3).T @ (at - palm.xpos)
            np.testing.assert_allclose(points[finger][3], expected, atol=2e-6)
