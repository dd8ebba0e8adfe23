"""Gymnasium envs to watch: MuJoCo's in the browser, others in their own window.

Runs in the process that plays. Needs mjviser for MuJoCo (the extra `viewer`).
"""

import importlib
import importlib.util
import itertools
import sys
from collections.abc import Callable
from typing import Any

import gymnasium as gym

from isaac_hydra_ext.envs.viewing import Pace, Player, has_display
from isaac_hydra_ext.errors import MissingDependencyError, RenderError

SPEEDS = {"1/4x": 0.25, "1/2x": 0.5, "1x": 1.0, "2x": 2.0, "4x": 4.0}
FRAME_S = 1 / 60  # between pictures, at the least


def is_mujoco(env: gym.Env) -> bool:
    """Return whether `env.unwrapped` has MuJoCo's `model` and `data`, as Gymnasium's own have."""
    mujoco, raw = sys.modules.get("mujoco"), env.unwrapped
    return (
        mujoco is not None
        and isinstance(getattr(raw, "model", None), mujoco.MjModel)
        and isinstance(getattr(raw, "data", None), mujoco.MjData)
    )


def made_to_view(env: gym.Env, make: Callable[..., gym.Env]) -> gym.Env:
    """Return an env that `view` can show: this one, or one with a window in its place.

    Args:
        env: Made without a window.
        make: Makes it again, given `render_mode`.

    Raises:
        MissingDependencyError: Of MuJoCo's: what shows it is not installed.
        RenderError: Of others: there is no window.
    """
    name = env.spec.id if env.spec else type(env.unwrapped).__name__
    if is_mujoco(env):
        if importlib.util.find_spec("mjviser") is None:
            raise MissingDependencyError(
                f"env.id={name}: MuJoCo envs are shown in the browser by mjviser; install it with: "
                "pip install 'isaac-hydra-ext[viewer]'"
            )
        return env
    if "human" not in (modes := env.metadata.get("render_modes", [])):
        found = ", ".join(map(str, modes)) or "none"
        raise RenderError(f"env.id={name}: has no window (render mode human); it has {found}")
    if not has_display():
        raise RenderError(
            f"env.id={name}: opens a window, and there is no display here (DISPLAY is not set): "
            "connect with ssh -X, or film it: appo play RUN --video"
        )
    env.close()
    return make(render_mode="human")


def view(env: gym.Env, step_dt: float, player: Player, open_page: Callable[[], Any]) -> None:
    """Show an env from `made_to_view`; see `ViewableEnv.view`."""
    if is_mujoco(env):
        _in_browser(env.unwrapped, step_dt, player, open_page())
    player.reset()
    pace = Pace(step_dt)
    while True:  # with render_mode="human" a step draws itself
        player.step()
        pace.wait()


def _in_browser(raw: Any, step_dt: float, player: Player, server: Any) -> None:
    mjviser = importlib.import_module("mjviser")
    player.reset()
    controls = Controls(server)
    scene = mjviser.ViserMujocoScene(server, raw.model, num_envs=1)
    # Gymnasium's own distance: mjviser's is of the whole model, of which the floor is the most.
    renderer = getattr(raw, "mujoco_renderer", None)
    camera = getattr(renderer, "default_cam_config", None) or {}
    scene.create_visualization_gui(camera_distance=float(camera.get("distance", -1.0)))
    scene.set_refresh_handler(lambda: None)  # this loop does, and no thread beside a step
    pace, paused = Pace(step_dt), Pace(FRAME_S)
    stride = max(1, round(FRAME_S / step_dt)) if step_dt else 1
    for step in itertools.count():
        if controls.take("reset"):
            player.reset()
        elif not controls.paused or controls.take("step"):
            player.step()
        if controls.paused or step % stride == 0:
            with server.atomic():
                scene.update_from_mjdata(raw.data)
        if controls.paused:
            paused.wait()
        else:
            pace.wait(controls.speed)


class Controls:
    """Pause, step, reset and speed, as the page's buttons say; their threads only leave word."""

    def __init__(self, server: Any) -> None:
        """Add them to a `viser.ViserServer`'s page."""
        self.paused, self.speed = False, 1.0
        self._asked: set[str] = set()
        buttons = server.gui.add_button_group("Play", ["Pause", "Step", "Reset"])
        speeds = server.gui.add_button_group("Speed", list(SPEEDS))
        buttons.on_click(lambda event: self.press(event.target.value))
        speeds.on_click(lambda event: setattr(self, "speed", SPEEDS[event.target.value]))

    def press(self, button: str) -> None:
        """Do what a button says; Step also pauses."""
        if button == "Pause":
            self.paused = not self.paused
        else:
            self.paused = self.paused or button == "Step"
            self._asked.add(button.lower())

    def take(self, what: str) -> bool:
        """Return whether it was asked for, once."""
        asked = what in self._asked
        self._asked.discard(what)
        return asked
