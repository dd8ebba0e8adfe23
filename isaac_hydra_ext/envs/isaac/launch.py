"""Starting Isaac Lab's simulation the way the installed generation wants it started.

Runs in the process that hosts the simulation (a worker, or the learner's with W = 0). There is one
simulation a process, and it lives as long as the process does: Kit's own `close()` may never
return, or end the process with exit code 0 whatever has happened, so nothing here calls it.
"""

import atexit
import contextlib
import importlib
import importlib.util
import inspect
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from isaac_hydra_ext.config.placement import thread_caps
from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.imports import import_packages
from isaac_hydra_ext.envs.isaac import ids
from isaac_hydra_ext.envs.isaac.generation import Generation, detect_generation
from isaac_hydra_ext.envs.isaac.host import (
    first_line,
    host_settings_kept,
    is_output_kept,
    tell_start,
)
from isaac_hydra_ext.errors import (
    ConfigError,
    EnvError,
)
from isaac_hydra_ext.system import entry_points

# AppLauncher arguments that show or record something: one worker is enough.
WORKER_0_ONLY = ("visualizer", "livestream", "video", "xr")
# Flags that Isaac Sim reads from sys.argv, whatever AppLauncher was given.
ARGV_FLAGS = ("verbose", "info")


def launcher_arguments(asked: Mapping[str, Any], worker: int, device: str) -> dict[str, Any]:
    """Return what a worker tells AppLauncher, or 3.0's launch.

    Args:
        asked: `env.launcher`.
        worker: Its index; only worker 0 shows or records anything.
        device: Of the simulation, where Isaac Lab does not find the renderer's GPU by itself.
    """
    told = {k: v for k, v in asked.items() if worker == 0 or k not in WORKER_0_ONLY}
    if worker > 0 and "headless" in told:
        told["headless"] = True  # a window is worker 0's, too
    if told.get("video") or told.get("livestream"):
        told.setdefault("enable_cameras", True)
    if told.get("anim_recording_enabled"):  # AppLauncher compares the two, given or not
        told = {"anim_recording_start_time": 0.0, "anim_recording_stop_time": 10.0} | told
    for_kit = str(told.get("kit_args") or "")
    gpu = _renderers_gpu(device)
    if gpu is not None and "activeGpu" not in for_kit:
        told["kit_args"] = f"{for_kit} --/renderer/activeGpu={gpu}".strip()
    return told


def _renderers_gpu(device: str) -> int | None:
    """Return which GPU Kit has to be told to draw on, where it would take another.

    Vulkan's list of GPUs knows no `CUDA_VISIBLE_DEVICES`. Isaac Lab before 3.0 tells Kit its CUDA
    index all the same, and Kit aborts if that GPU is one that CUDA may not use.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    index = int(device.partition(":")[2] or 0) if ":" in device else 0
    if device in ("", "cpu") or index >= len(visible) or not visible[index].strip().isdigit():
        return None
    physical = int(visible[index])
    return physical if physical != index else None


class Runtime:
    """What has been started in this process: the generation, and Kit or no Kit."""

    def __init__(self, env_config: EnvConfig, device: str, worker: int) -> None:
        """Prepare the process; for 2.x start Kit, which must come before any other import.

        Args:
            env_config: `launcher` and `imports` are read.
            device: Of the simulation; `auto` is the task's own.
            worker: Its index; only worker 0 shows or records anything.

        Raises:
            MissingDependencyError: No Isaac Lab, or one that is too old.
            ConfigError: `env.imports` cannot be imported, or there is no such GPU.
        """
        self.generation = detect_generation()
        os.environ.update(thread_caps())  # with W = 0: the simulator's libraries are yet to load
        self.asked_device = device
        self._arguments = launcher_arguments(
            env_config.launcher, worker, "" if self.generation is Generation.GA else device
        )
        flags = [f"--{name}" for name in ARGV_FLAGS if env_config.launcher.get(name)]
        sys.argv = [sys.argv[0], *flags]  # Isaac Lab parses what it finds there
        if device == "cpu" and multiprocessing.parent_process() is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a context costs half a GB a worker
        self._simulation: Any = None  # AppLauncher, or launch_simulation's open context
        if self.generation is Generation.V2:
            self._start_app_launcher()
        self.import_tasks(env_config.imports)

    def _start_app_launcher(self) -> None:
        device = "cuda:0" if self.asked_device == "auto" else self.asked_device
        check_gpu(device)
        arguments = {"headless": True, **self._arguments, "device": device}
        with explained("AppLauncher"), host_settings_kept():
            tell_start("starts Isaac Sim")
            app = importlib.import_module("isaaclab.app")
            self._simulation = app.AppLauncher(arguments)
        _leave_without_kit()

    def import_tasks(self, imports: Sequence[str]) -> None:
        """Fill Gymnasium's registry: Isaac Lab's tasks, those of installed packages, the user's.

        `package.module:function` is also called (Isaac Lab's `--external_callback`).

        Raises:
            EnvNotFoundError: A package of `env.imports` cannot be imported.
        """
        with explained("isaaclab_tasks"):
            importlib.import_module("isaaclab_tasks")
        with contextlib.suppress(ImportError):
            importlib.import_module("isaaclab_tasks_experimental")
        ids.not_registered[:] = entry_points.run_all(entry_points.TASKS)
        import_packages(imports)

    def start(self, env_cfg: Any, kitless: Sequence[str]) -> None:
        """Start what a resolved task needs, once a process (3.0; in 2.x Kit runs already).

        Args:
            env_cfg: Isaac Lab's cfg, resolved, with its device set.
            kitless: The task's physics presets, named where Kit is needed and missing.

        Raises:
            EnvError: Isaac Lab gave up; the message says what to choose instead.
        """
        told = {**self._arguments, "device": env_cfg.sim.device}
        if self._simulation is not None:
            if self.generation is Generation.GA:  # its launch fills in what a cfg leaves open
                importlib.import_module("isaaclab.app.sim_launcher").scan(env_cfg, told)
            return
        context = importlib.import_module("isaaclab.app").launch_simulation(env_cfg, told)
        tell_start("starts the simulation")
        try:
            with host_settings_kept():
                context.__enter__()
        except SystemExit as e:
            hint = f"; physics presets of this task: env.physics={' or '.join(kitless)}"
            raise EnvError(
                "env.task needs Isaac Sim (Kit), which cannot be started here (SystemExit "
                f"{e.code}){hint if kitless else ', and has no other physics preset'}"
            ) from e
        except (ValueError, ImportError) as e:
            raise EnvError(f"starting the simulation: {first_line(e)}") from e
        self._simulation = context
        if "omni.kit.app" in sys.modules:
            _leave_without_kit()


_runtime: Runtime | None = None
_begun = False


def get_runtime(env_config: EnvConfig, device: str, worker: int) -> Runtime:
    """Return this process's runtime, preparing it on the first call."""
    global _runtime, _begun
    _begun = True  # Kit may live here from now on, even if what follows its start fails
    if _runtime is None:
        _runtime = Runtime(env_config, device, worker)
    return _runtime


def check_gpu(device: str) -> None:
    """Refuse a GPU simulation where there is no such GPU, before minutes of Kit's start.

    Raises:
        ConfigError: Says what there is.
    """
    try:
        parsed = torch.device(device)
    except RuntimeError as e:
        raise ConfigError(f"rollout.device={device}: not a device; use cpu or cuda:0") from e
    count = torch.cuda.device_count()
    if parsed.type == "cuda" and (parsed.index or 0) >= count:
        raise ConfigError(
            f"rollout.device={device}: the simulation wants a GPU, and PyTorch sees {count} here; "
            "say rollout.device=cpu (--device cpu) to simulate on the CPU"
        )


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what Isaac Lab raises for things a user can change into one line.

    Raises:
        EnvError: A missing asset (with the asset root) or other file, or a SystemExit.
    """
    try:
        yield
    except SystemExit as e:
        in_worker = multiprocessing.parent_process() is not None
        said = f"; its own message is {'in the log of the worker' if in_worker else 'above'}"
        raise EnvError(
            f"{what}: Isaac Lab ended with SystemExit({e.code}){'' if is_output_kept() else said}"
        ) from e
    except FileNotFoundError as e:
        if not (root := _asset_root(first_line(e))):
            raise EnvError(f"{what}: {first_line(e)}") from e
        raise EnvError(f"{what}: asset missing: {first_line(e)} ({root})") from e


def _asset_root(missing: str) -> str:
    """Return where assets are looked for; nothing before the module is there (in 2.x: Kit)."""
    if "newton-assets" in missing:
        return "Newton's own; NEWTON_ASSET_DIR names a checkout of newton-assets"
    assets = sys.modules.get("isaaclab.utils.assets")
    if assets is None:
        return ""
    root = getattr(assets, "NUCLEUS_ASSET_ROOT_DIR", None) or os.environ.get("ISAACSIM_ASSET_ROOT")
    change = "persistent.isaac.asset_root.cloud in apps/isaaclab.python.kit"
    if detect_generation() is Generation.GA:
        change = "ISAACSIM_ASSET_ROOT; without a network, scripts/make_isaac_assets.py makes one"
    return f"the asset root is {root or 'not set'}; change it with {change}"


def is_running() -> bool:
    """Return whether a simulation may live in this process."""
    return _begun


def _leave_without_kit() -> None:
    """End a worker at once when it is done: Kit's exit handlers may hang.

    What a worker has achieved it has said in messages; nobody reads its exit code.
    """
    if multiprocessing.parent_process() is not None:
        atexit.register(os._exit, 0)  # registered after Kit's, so it runs before them


def as_plain(value: Any) -> Any:
    """Turn a cfg's data into what JSON can hold; code becomes its name, anything else its text."""
    if isinstance(value, Mapping):
        return {str(k): as_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(v) for v in value]
    if inspect.isfunction(value):
        return f"{value.__module__}:{value.__qualname__}"
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
