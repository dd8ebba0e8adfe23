"""Makes an asset root for Isaac Lab 3.0 of what packages on PyPI ship, not of NVIDIA's server.

    .venv-isaaclab/bin/python scripts/make_isaac_assets.py DIR
    ISAACSIM_ASSET_ROOT=DIR scripts/run_isaac_lab.sh

Robots have the names that the tasks ask for; they are stand-ins, not NVIDIA's assets. Needs Isaac
Lab's Python (for Newton, torch and OpenUSD). For Go1 and G1 it fetches two packages into a
temporary directory, as the converter wants another MuJoCo than Isaac Lab; without PyPI these two
are left out.
"""

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from pathlib import Path

# pyright: reportMissingImports=false
import torch
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics

LAB, SIM = Path("Isaac/IsaacLab"), Path("Isaac")
GRID = LAB / "Environments/Grid/default_ground_plane_checker_v1/default_ground_plane.usda"
CLASSIC, UNITREE = LAB / "Robots/Classic", LAB / "Robots/Unitree"
TILES = "TilesMarbleSpiderWhiteBrickBondHoned"
CONVERTER = "mujoco-usd-converter==0.8.0"
MODELS = "mjlab==1.6.0"
NEWTON = "Newton's examples, Apache-2.0"
FINGERS = ("zero", "one", "two", "three", "four", "five", "six")


def newton_asset(name: str) -> Sdf.Layer:
    """Open a copy of one of the assets that Newton's package ships."""
    spec = importlib.util.find_spec("newton")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("error: newton cannot be imported; run this with Isaac Lab's Python")
    path = Path(next(iter(spec.submodule_search_locations))) / "examples" / "assets" / name
    return Sdf.Layer.OpenAsAnonymous(str(path))


def renamed(layer: Sdf.Layer, names: Mapping[str, str]) -> Sdf.Layer:
    """Rename prims, which nothing in the layer points to: path -> name."""
    edits = Sdf.BatchNamespaceEdit()
    for path, name in names.items():
        edits.Add(Sdf.NamespaceEdit.Rename(path, name))
    if not layer.Apply(edits):
        sys.exit(f"error: {layer.identifier} has no {', '.join(names)}: another Newton?")
    return layer


def cartpole() -> Sdf.Layer:
    """Return Newton's Cartpole, which has no visible shapes, with copies of its colliders."""
    layer = newton_asset("cartpole_single_pendulum.usda")
    layer.defaultPrim = "cartpole"  # the file names another
    stage = Usd.Stage.Open(layer)
    for body, colour in (("slider", 0.25), ("cart", 0.5), ("pole", 0.8)):
        shown = Sdf.Path(f"/cartpole/{body}/visuals")
        Sdf.CopySpec(layer, Sdf.Path(f"/{body}/mesh_0"), layer, shown)
        cube = UsdGeom.Cube(stage.GetPrimAtPath(shown))
        cube.GetPrim().RemoveAPI(UsdPhysics.CollisionAPI)
        cube.CreateDisplayColorAttr([Gf.Vec3f(colour, 0.3, 1 - colour)])
    return layer


def cart_double_pendulum() -> Sdf.Layer:
    """Return Newton's cart with two poles, under Isaac Lab's names of the joints."""
    return renamed(
        newton_asset("cartpole.usda"),
        {
            "/cartPole/railCartJoint": "slider_to_cart",
            "/cartPole/cartPoleJoint": "cart_to_pole",
            "/cartPole/polePoleJoint": "pole_to_pendulum",
        },
    )


def humanoid() -> Sdf.Layer:
    """Return Newton's humanoid; Isaac Lab names its joints after the bodies that they move."""
    joints = {"abdomen_x": "pelvis"}
    for side in ("left", "right"):
        joints |= {f"{side}_knee": f"{side}_shin", f"{side}_elbow": f"{side}_lower_arm"}
    names = {f"/nv_humanoid/joints/{old}": new for old, new in joints.items()}
    return renamed(newton_asset("humanoid.usda"), names)


def ground_plane() -> Sdf.Layer:
    """Author what Isaac Lab's spawner scales, colours and binds materials to."""
    layer = Sdf.Layer.CreateAnonymous(".usda")
    stage = Usd.Stage.Open(layer)
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1)
    stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, "/World").GetPrim())
    UsdGeom.Xform.Define(stage, "/World/Environment").AddScaleOp().Set(Gf.Vec3f(1))
    mesh = UsdGeom.Mesh.Define(stage, "/World/Environment/Geometry")
    corners = [(-50, -50), (50, -50), (50, 50), (-50, 50)]
    mesh.CreatePointsAttr([Gf.Vec3f(x, y, 0) for x, y in corners])
    mesh.CreateFaceVertexCountsAttr([4])
    mesh.CreateFaceVertexIndicesAttr([0, 1, 2, 3])
    mesh.CreateDisplayColorAttr([Gf.Vec3f(0.35, 0.4, 0.35)])
    st = UsdGeom.PrimvarsAPI(mesh).CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray)
    st.SetInterpolation(UsdGeom.Tokens.varying)
    st.Set([Gf.Vec2f(x / 2, y / 2) for x, y in corners])
    UsdGeom.Xform.Define(stage, "/World/GroundPlane")
    plane = UsdGeom.Plane.Define(stage, "/World/GroundPlane/CollisionPlane")
    plane.CreateAxisAttr(UsdGeom.Tokens.z)
    plane.CreateVisibilityAttr(UsdGeom.Tokens.invisible)
    UsdPhysics.CollisionAPI.Apply(plane.GetPrim())
    stage.DefinePrim("/World/Looks/theGrid", "Material")
    stage.DefinePrim("/World/Looks/theGrid/Shader", "Shader")
    return layer


# ---------------------------------------------------------------- of MuJoCo's models


def go1_model(xml: ElementTree.Element) -> None:
    """Make the feet, spheres of the calves in this model, bodies of their own."""
    for calf in xml.iter("body"):
        leg, _, part = calf.get("name", "").partition("_")
        if part == "calf":
            sphere = next(g for g in calf.findall("geom") if g.get("class") == "foot")
            calf.remove(sphere)
            foot = ElementTree.SubElement(calf, "body", name=f"{leg}_foot", pos="0 0 -0.213")
            ElementTree.SubElement(
                foot,
                "geom",
                {"class": "collision", "type": "sphere", "size": "0.023", "mass": "0.06"},
            )


def g1_model(xml: ElementTree.Element) -> None:
    """Make it Isaac Lab's G1: one joint in the waist, two in the elbow, seven in the hand."""
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


def converted(model: Path, change: Callable[[ElementTree.Element], None], tools: Path) -> Sdf.Layer:
    """Change a model, convert it, and put each of its bodies beside the others, as NVIDIA does."""
    tree = ElementTree.parse(model)
    change(tree.getroot())
    changed = model.with_name(f"changed_{model.name}")
    tree.write(changed)
    code = (
        "import sys; from mujoco_usd_converter import Converter\n"
        "print(Converter(layer_structure=False, scene=False).convert(*sys.argv[1:]).path)"
    )
    line = [sys.executable, "-c", code, str(changed), str(tools / "usd" / model.stem)]
    done = subprocess.run(
        line,
        env={**os.environ, "PYTHONPATH": str(tools)},
        capture_output=True,
        text=True,
        check=True,
    )
    layer = Usd.Stage.Open(done.stdout.splitlines()[-1]).Flatten()
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
            sys.exit(f"error: {path} cannot be moved in what {CONVERTER} has made of {model.name}")
        xform = UsdGeom.Xformable(stage.GetPrimAtPath(place))
        xform.ClearXformOpOrder()
        xform.MakeMatrixXform().Set(where[path])
    return layer


def fetch_tools(tools: Path) -> Path:
    """Install the converter, and the models beside it; returns the folder of the robots.

    Raises:
        subprocess.CalledProcessError: PyPI cannot be reached, or does not have them.
    """
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    if importlib.util.find_spec("pip") is None:
        pip = [shutil.which("uv") or "uv", "pip", "install", "-q", "--python", sys.executable]
    for words in ([CONVERTER], ["--no-deps", MODELS]):
        subprocess.run([*pip, "--target", str(tools), *words], check=True, capture_output=True)
    return tools / "mjlab" / "asset_zoo" / "robots"


class DCMotor(torch.nn.Module):
    """Stands for the Go1's actuator network: a PD controller of 25 Nm/rad and 0.5 Nm s/rad."""

    def forward(self, x_N6: torch.Tensor) -> torch.Tensor:
        """Return torques of three past position errors (negated) and velocities, newest first."""
        return -25.0 * x_N6[:, 0] - 0.5 * x_N6[:, 3]


# ---------------------------------------------------------------- the root


def main() -> None:
    """Build all that can be built, and say of each file what it is made of."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="the new asset root")
    root = parser.parse_args().directory.absolute()

    def place(path: Path | str) -> Path:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        return root / path

    def put(path: Path, layer: Sdf.Layer, of: str) -> None:
        layer.Export(str(place(path)))
        print(f"{path}: {of}", flush=True)

    put(GRID, ground_plane(), "ours: a plane of one colour")
    put(CLASSIC / "Cartpole/cartpole.usd", cartpole(), f"{NEWTON}; visible shapes added")
    put(
        CLASSIC / "CartDoublePendulum/cart_double_pendulum.usd",
        cart_double_pendulum(),
        f"{NEWTON}; joints renamed",
    )
    robots = SIM / "Robots/IsaacSim"
    put(robots / "Ant/ant_instanceable.usd", newton_asset("ant.usda"), NEWTON)
    put(robots / "Humanoid/humanoid_instanceable.usd", humanoid(), f"{NEWTON}; joints renamed")

    motor = LAB / "ActuatorNets/Unitree/unitree_go1.pt"
    torch.jit.script(DCMotor()).save(str(place(motor)))
    print(f"{motor}: ours: a PD controller, not a network")
    marble = LAB / f"Materials/{TILES}/{TILES}.mdl"
    place(marble).write_text("mdl 1.6;\n")
    sky = SIM / "Materials/Textures/Skies/PolyHaven/kloofendal_43d_clear_puresky_4k.hdr"
    grey = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 2 +X 2\n" + bytes((128, 128, 128, 128)) * 4
    place(sky).write_bytes(grey)
    print(f"{marble}, {sky}: ours, empty")

    print(f"fetching {CONVERTER} and {MODELS}", flush=True)
    of = f"the MuJoCo model of {MODELS} (Apache-2.0; the robot BSD-3-Clause, Unitree), converted"
    with tempfile.TemporaryDirectory() as name:
        try:
            models = fetch_tools(Path(name))
        except (OSError, subprocess.CalledProcessError) as e:
            said = getattr(e, "stderr", b"") or str(e).encode()
            sys.exit(f"no Go1 and no G1: {said.decode().strip().splitlines()[-1]}")
        go1 = converted(models / "unitree_go1/xmls/go1.xml", go1_model, Path(name))
        put(UNITREE / "Go1/go1.usd", go1, f"{of}; feet are bodies of their own")
        g1 = converted(models / "unitree_g1/xmls/g1.xml", g1_model, Path(name))
        put(
            UNITREE / "G1/g1_minimal.usd", g1, f"{of}; joints as Isaac Lab's, small ones as fingers"
        )
    print(f"done: export ISAACSIM_ASSET_ROOT={root}")


if __name__ == "__main__":
    main()
