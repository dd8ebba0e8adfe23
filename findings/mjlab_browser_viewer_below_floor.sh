#!/usr/bin/env bash
# mjlab 1.6.0 with mjviser 0.0.14: the browser's camera starts below the floor.
#
# mjlab's ViewerConfig.elevation is MuJoCo's: negative looks down on the scene, and the native and
# the offscreen viewer read it so. The viewer in the browser hands the same number to mjviser, where
# positive is above: a task's -15 or so puts the camera under the ground plane, looking up.
# Seen: the camera's height over what it looks at is negative for the shipped Cartpole task, and it
# is positive, of the same size, once the sign is turned.
#
# Installs pinned packages in a temporary folder; fails if this has changed. About two minutes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check \
  mjlab==1.6.0 mjviser==0.0.14 viser==1.1.1 mujoco==3.11.0
cd "$work"
cat >camera.py <<'PYTHON'
import contextlib
import io
import sys
from types import SimpleNamespace

import mjlab.tasks  # noqa: F401  registers them
import viser
from mjlab.envs import ManagerBasedRlEnv
from mjlab.tasks.registry import load_env_cfg
from mjlab.viewer.viser.scene import MjlabViserScene

with contextlib.redirect_stdout(io.StringIO()):  # its tables
    cfg = load_env_cfg("Mjlab-Cartpole-Balance")
    cfg.scene.num_envs = 1
    env = ManagerBasedRlEnv(cfg, device="cpu")


def height(elevation):
    """Height of the camera that a browser is given, over what it looks at."""
    server = viser.ViserServer(port=0, verbose=False)
    connected = []
    server.on_client_connect = lambda function: connected.append(function) or function
    scene = MjlabViserScene(server, env.sim.mj_model, num_envs=1)
    scene.create_scene_gui(
        camera_distance=cfg.viewer.distance,
        camera_azimuth=cfg.viewer.azimuth,
        camera_elevation=elevation,
    )
    client = SimpleNamespace(camera=SimpleNamespace(position=None, look_at=None, fov=None))
    for function in connected:
        with contextlib.suppress(AttributeError):  # other callbacks want a whole client
            function(client)
    server.stop()
    return float(client.camera.position[2])


asked = cfg.viewer.elevation
as_is, turned = height(asked), height(-asked)
print(f"the task's elevation {asked:g}: camera height {as_is:.2f}; {-asked:g}: {turned:.2f}")
sys.exit(not (asked < 0 and as_is < 0 < turned))
PYTHON
MUJOCO_GL=disable "$work/venv/bin/python" camera.py
