"""Robots of models that packages on PyPI ship: what `make_isaac_assets.py` makes of them.

Each function changes a model until its bodies and joints have the names that Isaac Lab's tasks ask
for. `ROBOTS` lists them all.
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from isaac_convert import CONVERTER, Element, from_urdf

MJLAB, HANDS, ROS = "mjlab==1.6.0", "gymnasium-robotics==1.4.2", "example-robot-data==6.0.0"
PLAYGROUND = "playground==0.2.0"
LAB, SIM = Path("Isaac/IsaacLab"), Path("Isaac")
UNITREE, ANYBOTICS = LAB / "Robots/Unitree", LAB / "Robots/ANYbotics"
SHADOW = SIM / "Robots_Multiphysics/ShadowRobot/ShadowHandMultiPhysics_v0/right_hand"
FINGERS = ("zero", "one", "two", "three", "four", "five", "six")


def _read(path: Path) -> Element:
    """Read a model of MuJoCo's, whose meshes are then found from anywhere."""
    xml = ElementTree.parse(path).getroot()
    for compiler in xml.iter("compiler"):
        compiler.set("meshdir", str(path.parent / compiler.get("meshdir", "")))
    return xml


def go1(folder: Path) -> Element:
    """Give it feet."""
    xml = _read(folder / "unitree_go1/xmls/go1.xml")
    return _with_feet(xml, "calf", "0 0 -0.213", "0.023")


def spot(folder: Path) -> Element:
    """Give it feet."""
    xml = _without_meshes(_read(folder / "spot/xmls/spot_mjx_feetonly.xml"))
    return _with_feet(xml, "lleg", "0 0 -0.3365", "0.036")


def h1(folder: Path) -> Element:
    """Leave out what is not in the package."""
    return _without_meshes(_read(folder / "h1/xmls/h1_mjx_feetonly.xml"))


def _with_feet(xml: Element, calf: str, place: str, radius: str) -> Element:
    """Make the feet, spheres of the calves in these models, bodies of their own."""
    for body in xml.iter("body"):
        leg, _, part = body.get("name", "").partition("_")
        if part == calf:
            body.remove(next(g for g in body.findall("geom") if g.get("class") == "foot"))
            foot = ElementTree.SubElement(body, "body", name=f"{leg}_foot", pos=place)
            ElementTree.SubElement(
                foot,
                "geom",
                {"class": "collision", "type": "sphere", "size": radius, "mass": "0.06"},
            )
    return xml


def _without_meshes(xml: Element) -> Element:
    """Leave out meshes that the package does not ship, and what drives and films the robot."""
    for tag in ("actuator", "contact", "keyframe", "sensor"):
        for part in xml.findall(tag):
            xml.remove(part)
    for part in list(xml.iter()):
        for child in list(part):
            drawn = child.tag == "geom" and (child.get("mesh") or child.get("class") == "visual")
            if child.tag in ("mesh", "camera", "light") or drawn:
                part.remove(child)
            elif child.tag == "geom":
                child.attrib.pop("name", None)  # which may be that of a joint
    return xml


def g1(folder: Path) -> Element:
    """Make it Isaac Lab's G1: one joint in the waist, two in the elbow, seven in the hand."""
    xml = _read(folder / "unitree_g1/xmls/g1.xml")
    removed = ("waist_roll", "waist_pitch", "wrist_pitch", "wrist_yaw")
    names = {"waist_yaw_joint": "torso_joint"}
    for side in ("left", "right"):
        names[f"{side}_elbow_joint"] = f"{side}_elbow_pitch_joint"
        names[f"{side}_wrist_roll_joint"] = f"{side}_elbow_roll_joint"
    for body in list(xml.iter("body")):
        for joint in body.findall("joint"):
            name = joint.get("name", "")
            if any(part in name for part in removed):
                body.remove(joint)
            joint.set("name", names.get(name, name))
        side, _, part = body.get("name", "").partition("_")
        for i, finger in enumerate(FINGERS if part == "wrist_yaw_link" else ()):
            place = f"0.12 {0.01 * (i - 3):.2f} 0"
            link = ElementTree.SubElement(body, "body", name=f"{side}_{finger}_link", pos=place)
            ElementTree.SubElement(
                link, "joint", name=f"{side}_{finger}_joint", axis="0 1 0", range="-1.8 1.8"
            )
            ElementTree.SubElement(
                link, "geom", {"class": "visual", "type": "capsule", "fromto": "0 0 0 0.03 0 0",
                               "size": "0.004", "mass": "0.02"}
            )  # fmt: skip
    return xml


def shadow_hand(folder: Path) -> Element:
    """Count its joints from 1, and give each finger the tendon that bends its two last joints."""

    def read(name: str) -> Element:
        text = (folder / "hand" / name).read_text()
        text = re.sub(r":([A-Z]{2}J)(\d)", lambda m: f":{m[1]}{int(m[2]) + 1}", text)
        return ElementTree.fromstring(text.replace("robot0:", "rh_"))

    xml = ElementTree.Element("mujoco", model="right_hand")
    ElementTree.SubElement(xml, "compiler", angle="radian", meshdir=str(folder / "stls/hand"))
    xml.extend(read("shared.xml").findall("default"))
    assets = read("shared_asset.xml")
    for material in assets.findall("material"):
        material.attrib.pop("texture", None)
    ElementTree.SubElement(xml, "asset").extend(
        [*assets.findall("material"), *assets.findall("mesh")]
    )
    forearm = read("robot.xml").find("body/body")  # what it is mounted on is only a place
    assert forearm is not None
    forearm.set("pos", "0 0 0")
    ElementTree.SubElement(xml, "worldbody").append(forearm)
    tendons, motors = (ElementTree.SubElement(xml, tag) for tag in ("tendon", "actuator"))
    for finger in ("FF", "MF", "RF", "LF"):
        name = f"rh_{finger}J0"
        tendon = ElementTree.SubElement(tendons, "fixed", name=name)
        for joint in "21":
            ElementTree.SubElement(tendon, "joint", joint=f"rh_{finger}J{joint}", coef="1")
        ElementTree.SubElement(
            motors, "position", name=f"rh_A_{finger}J0", tendon=name, kp="1", kv="0.1",
            ctrlrange="0 3.1415", forcerange="-2 2",
        )  # fmt: skip
    return xml


CABINET = """
<mujoco model="cabinet"><worldbody><body name="sektion">
  <geom type="box" size="0.01 0.38 0.4" pos="-0.35 0 0"/>
  <geom type="box" size="0.35 0.01 0.4" pos="0 0.38 0"/>
  <geom type="box" size="0.35 0.01 0.4" pos="0 -0.38 0"/>
  <body name="drawer_top" pos="0.35 0 0.3">
    <joint name="drawer_top_joint" type="slide" axis="1 0 0" range="0 0.4"/>
    <geom type="box" size="0.01 0.36 0.08" mass="1"/>
    <body name="drawer_handle_top" pos="0.05 0 0">
      <geom type="box" size="0.01 0.06 0.01" mass="0.05"/>
    </body>
  </body>
  <body name="drawer_bottom" pos="0.35 0 0.1">
    <joint name="drawer_bottom_joint" type="slide" axis="1 0 0" range="0 0.4"/>
    <geom type="box" size="0.01 0.36 0.08" mass="1"/>
  </body>
  <body name="door_left" pos="0.36 0.36 -0.2">
    <joint name="door_left_joint" axis="0 0 1" range="0 1.57"/>
    <geom type="box" size="0.01 0.17 0.18" pos="0 -0.18 0" mass="1"/>
  </body>
  <body name="door_right" pos="0.36 -0.36 -0.2">
    <joint name="door_right_joint" axis="0 0 -1" range="0 1.57"/>
    <geom type="box" size="0.01 0.17 0.18" pos="0 0.18 0" mass="1"/>
  </body>
</body></worldbody></mujoco>
"""


def cabinet(folder: Path) -> Element:
    """Return a cabinet with two drawers above two doors, of our own."""
    del folder
    return ElementTree.fromstring(CABINET.strip())


def anymal_b(folder: Path) -> Element:
    """Keep its feet."""
    return from_urdf(folder / "anymal_b_simple_description/robots/anymal.urdf", ".._FOOT")


def anymal_c(folder: Path) -> Element:
    """Keep its feet."""
    return from_urdf(folder / "anymal_c_simple_description/urdf/anymal.urdf", ".._FOOT")


def go2(folder: Path) -> Element:
    """Keep its feet."""
    return from_urdf(folder / "go2_description/urdf/go2.urdf", ".._foot")


def a1(folder: Path) -> Element:
    """Keep its feet, and call its root as Isaac Lab does."""
    xml = from_urdf(folder / "a1_description/urdf/a1.urdf", ".._foot")
    next(xml.iter("body")).set("name", "trunk")
    return xml


def panda(folder: Path) -> Element:
    """Keep its hand."""
    return from_urdf(folder / "panda_description/urdf/panda.urdf", "panda_hand", floats=False)


def ur10(folder: Path) -> Element:
    """Keep the frame at its end, and let the elbow turn as far as in Isaac Lab's."""
    path = folder / "ur_description/urdf/ur10_robot.urdf"
    xml = from_urdf(path, "ee_link", floats=False)
    next(xml.iterfind(".//joint[@name='elbow_joint']")).set("range", "-6.2832 6.2832")
    return xml


def allegro_hand(folder: Path) -> Element:
    """Call joints and links after their fingers: 0.0 to 15.0 in this model."""
    path = folder / "allegro_hand_description/urdf/allegro_right_hand.urdf"
    xml = from_urdf(path, floats=False)
    for part in (*xml.iter("body"), *xml.iter("joint")):
        kind, _, number = part.get("name", "").partition("_")
        if kind in ("link", "joint"):
            finger = ("index", "middle", "ring", "thumb")[int(float(number)) // 4]
            part.set("name", f"{finger}_{kind}_{int(float(number)) % 4}")
    return xml


# ---------------------------------------------------------------- all of them


@dataclass(frozen=True)
class Robot:
    """What one file of the asset root is made of.

    Attributes:
        path: Where the tasks look for it.
        package: As pip has it.
        folder: Of the models, below the installed package.
        model: Returns the model, changed, of that folder.
        about: The robot's own licence, and what was changed.
        nested: Bodies lie inside their parents, as in Isaac Lab's newer assets, or side by side.
    """

    path: Path
    package: str
    folder: str
    model: Callable[[Path], Element]
    about: str
    nested: bool = False


_ZOO, _GYM = "mjlab/asset_zoo/robots", "gymnasium_robotics/envs/assets"
_MJX = "mujoco_playground/_src/locomotion"
_ROS = "cmeel.prefix/share/example-robot-data/robots"
_BSD = "BSD-3-Clause"
ROBOTS = (
    Robot(SIM / "Props/Sektion_Cabinet/sektion_cabinet_instanceable.usd", CONVERTER, "", cabinet,
          "ours: boxes"),
    Robot(UNITREE / "Go1/go1.usd", MJLAB, _ZOO, go1, f"{_BSD}; feet are bodies of their own"),
    Robot(UNITREE / "G1/g1_minimal.usd", MJLAB, _ZOO, g1,
          f"{_BSD}; joints as Isaac Lab's, small ones as fingers"),
    Robot(UNITREE / "H1/h1_minimal.usd", PLAYGROUND, _MJX, h1, "Apache-2.0; without its meshes"),
    Robot(SIM / "Robots/BostonDynamics/spot/spot.usd", PLAYGROUND, _MJX, spot,
          "Apache-2.0; without its meshes"),
    Robot(SHADOW / "right_hand.usda", HANDS, _GYM, shadow_hand,
          "Apache-2.0; joints counted from 1, tendons as motors", nested=True),
    Robot(ANYBOTICS / "ANYmal-B/anymal_b.usd", ROS, _ROS, anymal_b, _BSD),
    Robot(ANYBOTICS / "ANYmal-C/anymal_c.usd", ROS, _ROS, anymal_c, _BSD),
    Robot(ANYBOTICS / "ANYmal-D/anymal_d.usd", ROS, _ROS, anymal_c, f"{_BSD}; it is a C"),
    Robot(UNITREE / "Go2/go2.usd", ROS, _ROS, go2, "MPL-2.0"),
    Robot(UNITREE / "A1/a1.usd", ROS, _ROS, a1, "MPL-2.0"),
    Robot(LAB / "Robots/FrankaEmika/franka_panda.usda", ROS, _ROS, panda, "Apache-2.0", True),
    Robot(LAB / "Robots/UniversalRobots/UR10/ur10_instanceable.usd", ROS, _ROS, ur10, "BSD"),
    Robot(SIM / "Robots/WonikRobotics/AllegroHand/allegro_hand_instanceable.usd", ROS, _ROS,
          allegro_hand, "BSD; joints called after their fingers"),
)  # fmt: skip
