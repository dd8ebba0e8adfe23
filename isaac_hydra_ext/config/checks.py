"""Every check of the configuration that needs no environment.

Runs in the learner's process, before any worker exists. Each finding is a `ConfigError` of one
line: the key, what is wrong, what would be right.
"""

import math
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from isaac_hydra_ext.config.placement import learner_device
from isaac_hydra_ext.config.schema import RunConfig, walk
from isaac_hydra_ext.errors import ConfigError, did_you_mean, first_line, shown
from isaac_hydra_ext.system import entry_points

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
MAX_DEPTH = 20  # levels of nesting
MAX_TEXT = 4096  # characters of a text
MAX_NAME = 200  # of a file name's 255, which also holds the time
MAX_PATH = 3500  # bytes, of Linux's 4096; the run's files lie below


def typed_paths(typed: Sequence[str]) -> list[str]:
    """Return the config paths of override tokens: `+ppo.lr=1` -> `ppo.lr`."""
    return [token.split("=", 1)[0].lstrip("+~").split("@")[0].replace("/", ".") for token in typed]


def is_typed(key: str, typed: Sequence[str]) -> bool:
    """Return whether the user typed this very key, alone or in a mapping (`ppo={lr:1e-4}`)."""
    if key in typed_paths(typed):
        return True
    section, _, name = key.rpartition(".")
    mappings = [t.split("=", 1)[1] for t in typed if typed_paths([t]) == [section] and "=" in t]
    return any(re.search(rf"^\{{(.*,)?\s*{name}\s*:", mapping) for mapping in mappings)


def resolve(cfg: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Turn a composed configuration into plain data with no interpolation left.

    The values of environment variables stay out: the configuration is written to files, to
    checkpoints, and to pipes.

    Raises:
        ConfigError: An interpolation that leads nowhere, or to an environment variable.
    """
    _register_oc_env(_refuse_environment)
    try:
        raw = OmegaConf.to_container(OmegaConf.create(cfg), resolve=True)  # type: ignore[arg-type]
    except (OmegaConfBaseException, RecursionError, ValueError) as e:
        key = getattr(e, "full_key", None) or "config"
        raise ConfigError(f"{key}: {first_line(e)}") from e
    finally:
        _register_oc_env(oc.env)
    if not isinstance(raw, dict):
        raise ConfigError(f"config={shown(repr(raw))}: a group of keys is expected here")
    return {str(key): value for key, value in raw.items() if key != "hydra"}


def _register_oc_env(resolver: Callable[..., Any]) -> None:
    with warnings.catch_warnings():  # OmegaConf 2.4 prefers a name that is another thing in 2.3
        warnings.simplefilter("ignore")
        OmegaConf.register_new_resolver("oc.env", resolver, replace=True)


def _refuse_environment(name: Any, default: Any = None) -> None:
    raise ValueError(
        f"oc.env:{name} is not accepted, as configurations are written to files; let the shell "
        "fill in what is no secret"
    )


def refuse_foreign(node: Any, path: str) -> None:
    """Refuse, anywhere in the tree, what is no plain setting: code, other types, huge numbers."""
    key = path.rstrip(".")
    if path.count(".") > MAX_DEPTH:
        raise ConfigError(f"{shown(key)}: nested deeper than {MAX_DEPTH} levels")
    if isinstance(node, Mapping):
        for name, value in node.items():
            if name == "_target_":
                raise ConfigError(
                    f"{path}_target_={shown(repr(value))}: not accepted; configs of this package "
                    "do not instantiate objects (register an environment and name it in env.id)"
                )
            refuse_foreign(value, f"{path}{name}.")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            refuse_foreign(value, f"{path}{index}.")
    elif isinstance(node, int) and node.bit_length() > 63:
        raise ConfigError(f"{key}: an integer of {node.bit_length()} bits; 63 are the most")
    elif node is not None and not isinstance(node, (str, int, float)):
        raise ConfigError(f"{key}: {type(node).__name__} is not a type of setting")


def refuse_unknown(node: Any, schema: type, path: str) -> None:
    """Refuse keys that the schema does not have, naming the nearest one."""
    if not isinstance(node, Mapping):
        found = shown(repr(node))
        raise ConfigError(
            f"{path.rstrip('.') or 'config'}={found}: a group of keys is expected here"
        )
    known = {f.name: f for f in fields(schema)}
    for key, value in node.items():
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ConfigError(f"{shown(f'{path}{key}')}: unknown key{hint}")
        section = known[str(key)].default_factory
        if isinstance(section, type) and is_dataclass(section):
            refuse_unknown(value, section, f"{path}{key}.")


def check_bounds(config: RunConfig) -> None:
    """Check every knob against the bounds and choices it declares."""
    for key, value, limits in walk(config):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str):
                _check_text(key, item)
            if isinstance(value, list) and isinstance(item, (list, dict)):
                raise ConfigError(f"{key}={shown(value)}: a list of plain values is expected here")
            if limits["choices"] and item is not None and item not in limits["choices"]:
                allowed = ", ".join(limits["choices"])
                raise ConfigError(
                    f"{key}={shown(item)}: must be one of {allowed}"
                    + did_you_mean(str(item), limits["choices"])
                )
            if isinstance(item, (int, float)) and not isinstance(item, bool):
                _check_number(key, item, limits)


def _check_text(key: str, text: str) -> None:
    if len(text) > MAX_TEXT:
        raise ConfigError(f"{key}={shown(text)}: longer than {MAX_TEXT} characters")
    if not text.isprintable():  # line ends and NUL too
        raise ConfigError(f"{key}={shown(ascii(text))}: must consist of printable characters")


def _check_number(key: str, number: float, limits: Mapping[str, Any]) -> None:
    if number == math.inf:
        raise ConfigError(f"{key}={number}: must be finite")
    # Written so that NaN fails every bound.
    if limits["ge"] is not None and not number >= limits["ge"]:
        raise ConfigError(f"{key}={number}: must be at least {limits['ge']:,.12g}")
    if limits["gt"] is not None and not number > limits["gt"]:
        raise ConfigError(f"{key}={number}: must be greater than {limits['gt']:,.12g}")
    if limits["le"] is not None and not number <= limits["le"]:
        raise ConfigError(f"{key}={number}: must be at most {limits['le']:,.12g}")


def check_rest(config: RunConfig, typed: Sequence[str]) -> None:
    """Check what a single bound cannot say."""
    workers, rollout = config.rollout.num_workers, config.rollout
    if rollout.on_invalid == "restart_worker" and (
        workers == 0 or rollout.deterministic or rollout.on_worker_failure != "restart"
    ):
        raise ConfigError(
            "rollout.on_invalid=restart_worker: needs workers that may be replaced: "
            "rollout.num_workers >= 1, on_worker_failure=restart and deterministic=false"
        )
    source = shown(rollout.source)
    entry_points.check_name("rollout.source", source, ("auto",), entry_points.SOURCES)
    if source != "auto":
        entry_points.load("rollout.source", source, entry_points.SOURCES)
    _check_precision(config)
    window = config.logging.profile
    if window and not (len(window) == 2 and 0 <= window[1] - window[0] < MAX_TRACED):
        raise ConfigError(
            f"logging.profile={shown(window)}: must be the first and the last iteration to trace, "
            f"at most {MAX_TRACED} of them, e.g. [10,12]"
        )
    _check_writable(as_path("experiment.output_dir", config.experiment.output_dir))
    resume = config.resume
    named = resume is not None and resume not in RESUME_WORDS
    if named and not os.path.exists(as_path("resume", str(resume))):
        words = " or ".join(f"resume={word}" for word in RESUME_WORDS)
        raise ConfigError(f"resume={shown(resume)}: no such file or directory (or say {words})")
    _check_evaluate(config)
    _check_registered(config)


def _check_registered(config: RunConfig) -> None:
    """Check every name that a package may have registered, and that what it names is there."""
    policy = config.policy
    names = [
        ("policy.kind", policy.kind, ("actor_critic",), entry_points.POLICIES),
        ("policy.network", policy.network, ("mlp",), entry_points.NETWORKS),
        ("algorithm.kind", config.algorithm.kind, ("ppo",), entry_points.ALGORITHMS),
        *(("ppo.terms", name, (), entry_points.TERMS) for name in config.ppo.terms),
    ]
    for key, name, built_in, group in names:
        entry_points.check_name(key, shown(name), built_in, group)
        if name not in built_in:
            entry_points.load(key, name, group)


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


def check_devices(config: RunConfig) -> None:
    """Check what each device is called, and whether there is one; `placement` does the rest."""
    import torch

    workers = config.rollout.num_workers
    if isinstance(workers, str) and workers != "auto":
        raise ConfigError(f"rollout.num_workers={shown(workers)}: must be a number or auto")
    simulating = config.rollout.device
    several = "," in simulating
    named = [("experiment.device", config.experiment.device)]
    named += [("rollout.device", part) for part in simulating.split(",")]
    named.append(("evaluate.device", config.evaluate.device))
    count = torch.cuda.device_count()  # through NVML: makes no CUDA context
    for key, value in named:
        if value == "auto" and (key != "rollout.device" or not several):
            continue
        try:
            device = torch.device(value)
        except RuntimeError as e:
            raise ConfigError(f"{key}={shown(value)}: not a device; use cpu or cuda:0") from e
        if device.type not in ("cpu", "cuda"):
            raise ConfigError(f"{key}={value}: not supported; use cpu or cuda:0")
        if device.type == "cpu" and device.index is not None:
            raise ConfigError(f"{key}={value}: there is one CPU device; use cpu")
        if key == "evaluate.device" and config.evaluate.cuda_visible_devices is not None:
            continue  # it numbers other GPUs than ours
        if device.type == "cuda" and (device.index or 0) >= count:
            raise ConfigError(f"{key}={value}: PyTorch sees {count} CUDA devices here; use cpu")
        if several and key == "rollout.device" and not value.startswith("cuda:"):
            raise ConfigError(f"rollout.device={shown(simulating)}: several are named as cuda:N")


def _check_precision(config: RunConfig) -> None:
    if config.ppo.precision != "fp32" and learner_device(config) == "cpu":
        raise ConfigError(f"ppo.precision={config.ppo.precision}: needs a CUDA learner; use fp32")


def _check_writable(path: Path) -> None:
    """Refuse an output directory that cannot be made or written, without making it."""
    nearest = path
    try:
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as e:
        raise ConfigError(f"experiment.output_dir={shown(path)}: cannot write there ({e})") from e
