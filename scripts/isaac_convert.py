"""Models of MuJoCo and ROS (URDF), read and converted to USD for `make_isaac_assets.py`.

`mujoco-usd-converter` runs in a process of its own, as it wants another MuJoCo than Isaac Lab.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# pyright: reportMissingImports=false
import mujoco
import numpy as np
from pxr import Sdf, Usd, UsdGeom, UsdPhysics

Element = ElementTree.Element
CONVERTER = "mujoco-usd-converter==0.8.0"
_TENSOR = ("ixx", "ixy", "ixz", "iyy", "iyz", "izz")


def from_urdf(path: Path, kept: str = "$^", floats: bool = True) -> Element:
    """Read a URDF as MuJoCo's model: what is rigidly attached is fused, and not drawn.

    Args:
        path: The file, in what `example-robot-data` has installed.
        kept: Pattern of links that stay bodies of their own although a fixed joint holds them.
        floats: The root moves freely; else it is fixed to the world.
    """
    robot = ElementTree.parse(path).getroot()
    share = next(p for p in path.parents if p.name == "share")
    for joint in robot.findall("joint"):
        if joint.find("parent[@link='world']") is not None:
            robot.remove(joint)
    for link in robot.findall("link"):
        if link.get("name") == "world":
            robot.remove(link)
        for shape in (*link.findall("visual"), *link.findall("collision")):
            mesh = shape.find("geometry/mesh")
            file = "" if mesh is None else mesh.get("filename", "")
            if shape.tag == "visual" or file.endswith(".dae"):  # which MuJoCo cannot read
                link.remove(shape)
            elif mesh is not None:
                mesh.set("filename", file.replace("package:/", str(share)))
        _mend_inertia(link)
    links = {link.get("name") for link in robot.findall("link")}
    (root,) = links - {child.get("link") for child in robot.findall("joint/child")}
    ElementTree.SubElement(robot, "link", name="world")
    kind = "floating" if floats else "fixed"
    joint = ElementTree.SubElement(robot, "joint", name="root", type=kind)
    ElementTree.SubElement(joint, "parent", link="world")
    ElementTree.SubElement(joint, "child", link=str(root))
    compiler = {"strippath": "false", "fusestatic": "false", "balanceinertia": "true"}
    compiler |= {"boundmass": "1e-4", "boundinertia": "1e-8", "inertiafromgeom": "false"}
    ElementTree.SubElement(ElementTree.SubElement(robot, "mujoco"), "compiler", compiler)
    return _fused(ElementTree.tostring(robot, encoding="unicode"), kept)


def _fused(text: str, kept: str) -> Element:
    """Read a URDF; bodies without a joint, but the root, become part of what they are attached to.

    MuJoCo's `fusestatic` does that too, but not for masses.
    """
    spec = mujoco.MjSpec.from_string(text)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    xml = ElementTree.fromstring(spec.to_xml())
    parts: dict[int, list[int]] = {}
    for i in range(1, model.nbody):
        whole = i
        while not (
            model.body_jntnum[whole]
            or model.body_parentid[whole] == 0
            or re.fullmatch(kept, model.body(whole).name)
        ):
            whole = int(model.body_parentid[whole])
        parts.setdefault(whole, []).append(i)
    for body in list(xml.iter("body")):
        i = model.body(body.get("name")).id
        for inertial in body.findall("inertial"):
            body.remove(inertial)
        if i in parts:
            body.insert(0, _inertial(i, parts[i], model, data))
        else:  # a frame is a place, and no body
            body.tag = "frame"
            body.attrib.pop("name")
    _balance(xml)
    placed = mujoco.MjSpec.from_string(ElementTree.tostring(xml, encoding="unicode"))
    placed.compile()
    return _balance(ElementTree.fromstring(placed.to_xml()))


def _balance(xml: Element) -> Element:
    """Have MuJoCo mend what rounding leaves of an inertia."""
    for compiler in xml.iter("compiler"):
        compiler.set("balanceinertia", "true")
    return xml


def _inertial(whole: int, parts: Sequence[int], model: Any, data: Any) -> Element:
    """Return the mass, its middle and the inertia of `parts`, in the frame of `whole`."""
    masses = model.body_mass[parts]
    middle = masses @ data.xipos[parts] / masses.sum()
    inertia = np.zeros((3, 3))
    for i, mass in zip(parts, masses, strict=True):
        axes, away = data.ximat[i].reshape(3, 3), data.xipos[i] - middle
        inertia += axes @ np.diag(model.body_inertia[i]) @ axes.T
        inertia += mass * (away @ away * np.eye(3) - np.outer(away, away))
    axes = data.xmat[whole].reshape(3, 3)
    # A little rounder than it is: in single precision a thin one may break A + B >= C.
    tensor = axes.T @ inertia @ axes + 1e-3 * inertia.trace() * np.eye(3)
    numbers = {
        "mass": [masses.sum()],
        "pos": axes.T @ (middle - data.xpos[whole]),
        "fullinertia": [*np.diag(tensor), tensor[0, 1], tensor[0, 2], tensor[1, 2]],
    }
    return ElementTree.Element(
        "inertial", {key: " ".join(map(repr, map(float, row))) for key, row in numbers.items()}
    )


def _mend_inertia(link: Element) -> None:
    """Give a link whose inertia no body can have that of a ball of 2 cm."""
    for inertial in link.findall("inertial"):
        mass, tensor = next(inertial.iter("mass")), next(inertial.iter("inertia"))
        xx, xy, xz, yy, yz, zz = (float(tensor.get(key, 0)) for key in _TENSOR)
        if np.linalg.eigvalsh([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]).min() <= 0:
            size = 1.6e-4 * float(mass.get("value", 0))
            for key in _TENSOR:
                tensor.set(key, str(size) if key[1] == key[2] else "0")
        if float(mass.get("value", 0)) == 0:
            link.remove(inertial)


def converted(xml: Element, tools: Path, nested: bool = False) -> Sdf.Layer:
    """Convert a model; see `Robot` for `nested`.

    Raises:
        subprocess.CalledProcessError: The converter does not take it.
    """
    name = xml.get("model", "model").replace(" ", "_")
    model = tools / f"{name}.xml"
    ElementTree.ElementTree(xml).write(model)
    code = (
        "import sys; from mujoco_usd_converter import Converter\n"
        "print(Converter(layer_structure=False, scene=False).convert(*sys.argv[1:]).path)"
    )
    line = [sys.executable, "-c", code, str(model), str(tools / "usd" / name)]
    environment = {**os.environ, "PYTHONPATH": str(tools)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    layer = Usd.Stage.Open(done.stdout.splitlines()[-1]).Flatten()
    if not nested:
        _side_by_side(layer)
    return layer


def _side_by_side(layer: Sdf.Layer) -> None:
    """Put each body beside the others, as in NVIDIA's older assets."""
    stage = Usd.Stage.Open(layer)
    root = stage.GetDefaultPrim()
    bodies = [p for p in Usd.PrimRange(root) if p.HasAPI(UsdPhysics.RigidBodyAPI)]
    poses = UsdGeom.XformCache()
    where = {body.GetPath(): poses.GetLocalToWorldTransform(body) for body in bodies}
    editor = Usd.NamespaceEditor(stage)
    for path in reversed(list(where)):  # the leaves first
        place = root.GetPath().AppendChild(path.name)
        editor.MovePrimAtPath(path, place)
        if not editor.ApplyEdits():
            sys.exit(f"error: {path} cannot be moved in what {CONVERTER} has made")
        xform = UsdGeom.Xformable(stage.GetPrimAtPath(place))
        xform.ClearXformOpOrder()
        xform.MakeMatrixXform().Set(where[path])


def fetch(tools: Path, words: Sequence[str]) -> None:
    """Install packages beside this Python's, for the converter alone.

    Raises:
        subprocess.CalledProcessError: PyPI cannot be reached, or does not have them.
    """
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    if importlib.util.find_spec("pip") is None:
        pip = [shutil.which("uv") or "uv", "pip", "install", "-q", "--python", sys.executable]
    subprocess.run([*pip, "--target", str(tools), *words], check=True, capture_output=True)
