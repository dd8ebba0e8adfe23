"""Every check of the configuration that needs neither an environment nor the machine.

Runs in the learner's process, before any worker exists. Each finding is a `ConfigError` of one
line: the key, what is wrong, what would be right.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from isaac_hydra_ext.config.bounds import check_bounds, check_number
from isaac_hydra_ext.config.encoders import check_encoders, check_frame_stack
from isaac_hydra_ext.config.knob import MAX_INT
from isaac_hydra_ext.config.mirrors import check_symmetry
from isaac_hydra_ext.config.policy_checks import check_policy
from isaac_hydra_ext.config.rnd_schema import read_rnd
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.errors import ConfigError, did_you_mean, shown

SAFE_NAME = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+= "
RESUME_WORDS = ("latest", "best")
# What `evaluate.environment` may set: where renderers and their libraries are, and which is used.
# Not LD_PRELOAD, PYTHONPATH and their like: a configuration is data.
RENDERER_VARIABLES = (
    "ACCEPT_EULA", "DISPLAY", "EGL_PLATFORM", "GALLIUM_DRIVER", "LD_LIBRARY_PATH",
    "LIBGL_ALWAYS_SOFTWARE", "LIBGL_DRIVERS_PATH", "MUJOCO_EGL_DEVICE_ID", "MUJOCO_GL",
    "NVIDIA_DRIVER_CAPABILITIES", "OMNI_KIT_ACCEPT_EULA", "PRIVACY_CONSENT", "PYOPENGL_PLATFORM",
    "SDL_VIDEODRIVER", "VK_DRIVER_FILES", "VK_ICD_FILENAMES", "XDG_RUNTIME_DIR",
    "__EGL_VENDOR_LIBRARY_DIRS", "__EGL_VENDOR_LIBRARY_FILENAMES", "__GLX_VENDOR_LIBRARY_NAME",
)  # fmt: skip
MAX_TRACED = 20  # iterations: a trace of more is too large to open
MAX_NAME = 200  # of a file name's 255, which also holds the time
MAX_PATH = 3500  # bytes, of Linux's 4096; the run's files lie below


def check(config: RunConfig) -> None:
    """Check each knob by itself, and what has to go together whatever the machine.

    Raises:
        ConfigError: The first finding.
    """
    check_names(config)
    check_bounds(config)
    if "rnd" in config.ppo.terms:
        rnd = read_rnd(config.ppo.terms["rnd"])
        check_bounds(rnd)
        _check_groups("ppo.terms.rnd.obs_groups", rnd.ppo.terms.rnd.obs_groups)
    for role, groups in (config.policy.obs_groups or {}).items():
        _check_groups(f"policy.obs_groups.{shown(role)}", groups)
    _check_groups("distillation.teacher_groups", config.distillation.teacher_groups)
    check_policy(config.policy)
    _check_device_names(config)
    _check_evaluate(config)
    check_symmetry(config.ppo.symmetry)
    check_ray(config)
    check_encoders(config.policy.encoders)
    check_frame_stack(config)
    window = config.logging.profile
    if window and not (len(window) == 2 and 0 <= window[1] - window[0] < MAX_TRACED):
        raise ConfigError(
            f"logging.profile={shown(window)}: must be the first and the last iteration to trace, "
            f"at most {MAX_TRACED} of them, e.g. [10,12]"
        )
    as_path("experiment.output_dir", config.experiment.output_dir)
    if config.resume is not None:
        as_path("resume", config.resume)
    if config.has_teacher and config.distillation.teacher is None:
        raise ConfigError(
            "distillation.teacher: missing; name the run, or the checkpoint, to learn from"
        )


def _check_groups(key: str, groups: Sequence[str] | None) -> None:
    if groups is not None and not groups:
        raise ConfigError(f"{key}=[]: names no group; leave it out to have them chosen")


def check_names(config: RunConfig) -> None:
    """Check what becomes part of a run directory's path."""
    for key in ("name", "run_name"):
        name = getattr(config.experiment, key)
        if name is None or (key, name) == ("run_name", ""):
            continue
        if name.strip() in ("", ".", "..") or any(c not in SAFE_NAME for c in name):
            raise ConfigError(
                f"experiment.{key}={shown(repr(name))}: must be one plain directory name "
                "(letters, digits, spaces, . _ - + =); set experiment.output_dir for the place"
            )
        if len(name) > MAX_NAME:
            raise ConfigError(f"experiment.{key}={shown(name)}: longer than {MAX_NAME} characters")


def as_path(key: str, text: str) -> Path:
    """Return an absolute path, `~` expanded.

    Raises:
        ConfigError: Something that no file can be called.
    """
    if not text.strip():
        raise ConfigError(f"{key}: empty; name a file or directory")
    if not text.isprintable():
        raise ConfigError(f"{key}={shown(ascii(text))}: must consist of printable characters")
    try:
        path = Path(text).expanduser().absolute()
    except (RuntimeError, OSError) as e:  # an unknown user; a working directory that is gone
        raise ConfigError(f"{key}={shown(text)}: not a path ({e})") from e
    if len(os.fsencode(path)) > MAX_PATH or max(len(os.fsencode(p)) for p in path.parts) > 255:
        raise ConfigError(f"{key}={shown(text)}: longer than a path may be")
    return path


def _check_evaluate(config: RunConfig) -> None:
    evaluate = config.evaluate
    for name in evaluate.environment:
        if name not in RENDERER_VARIABLES:
            hint = did_you_mean(name, RENDERER_VARIABLES) or "; set it in the shell"
            raise ConfigError(
                f"evaluate.environment.{shown(name)}: not a renderer's variable{hint}"
            )


def check_ray(config: RunConfig) -> None:
    """Check what Ray is asked for, and what the run leaves to it.

    Raises:
        ConfigError: The first finding.
    """
    ray, rollout = config.ray, config.rollout
    host, colon, port = ray.address.rpartition(":")
    named = bool(host and colon) and port.isdecimal() and 0 < int(port) < 2**16
    if ray.address not in ("auto", "local") and not named:
        raise ConfigError(f"ray.address={shown(ray.address)}: must be auto, local or HOST:PORT")
    for name, amount in ray.worker_resources.items():
        if isinstance(amount, bool) or not isinstance(amount, int | float):
            raise ConfigError(f"ray.worker_resources.{shown(name)}={shown(amount)}: not a number")
        check_number(
            f"ray.worker_resources.{shown(name)}", amount, {"ge": 0, "gt": None, "le": MAX_INT}
        )
    if rollout.launcher != "ray":
        return
    if rollout.num_workers in (0, "auto"):
        raise ConfigError(
            f"rollout.num_workers={rollout.num_workers}: rollout.launcher=ray needs the number of "
            "its workers, e.g. rollout.num_workers=8"
        )
    if rollout.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(
            f"rollout.device={shown(rollout.device)}: Ray chooses each worker's GPU; use cuda, and "
            "+ray.worker_resources.num_gpus=1"
        )
    if rollout.device == "cuda" and not ray.worker_resources.get("num_gpus"):
        raise ConfigError(
            "rollout.device=cuda: no GPU of Ray's for it; give each worker one, or a part: "
            "+ray.worker_resources.num_gpus=0.25"
        )


def named_devices(config: RunConfig) -> list[tuple[str, str]]:
    """Return (key, device) of each device that the configuration names; `auto` names none."""
    named = [("experiment.device", config.experiment.device)]
    named += [("experiment.devices", part) for part in config.experiment.devices]
    if config.rollout.launcher == "local":  # else it is another machine's
        named += [("rollout.device", part) for part in config.rollout.device.split(",")]
    named.append(("evaluate.device", config.evaluate.device))
    return [(key, value) for key, value in named if value != "auto"]


def _check_device_names(config: RunConfig) -> None:
    """Check what each device is called; whether there is one, `config/machine.py` looks."""
    workers = config.rollout.num_workers
    if isinstance(workers, str) and workers != "auto":
        raise ConfigError(f"rollout.num_workers={shown(workers)}: must be a number or auto")
    simulating = config.rollout.device
    if "," in simulating and not all(d.startswith("cuda:") for d in simulating.split(",")):
        raise ConfigError(f"rollout.device={shown(simulating)}: several are named as cuda:N")
    named = [(key, value) for key, value in named_devices(config) if value != "cpu"]
    if not named:
        return
    import torch

    for key, value in named:
        try:
            device = torch.device(value)
        except RuntimeError as e:
            raise ConfigError(f"{key}={shown(value)}: not a device; use cpu or cuda:0") from e
        if device.type not in ("cpu", "cuda"):
            raise ConfigError(f"{key}={value}: not supported; use cpu or cuda:0")
        if device.type == "cpu" and device.index is not None:
            raise ConfigError(f"{key}={value}: there is one CPU device; use cpu")
