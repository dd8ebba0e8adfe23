"""Every check of the configuration that needs no environment.

Runs in the learner's process, before any worker exists. Each finding is a `ConfigError` of one
line: the key, what is wrong, what would be right.
"""

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isaac_hydra_ext.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from isaac_hydra_ext.config import RunConfig

SAFE_NAME = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+= "


def typed_paths(typed: Sequence[str]) -> list[str]:
    """Return the config paths of override tokens: `+ppo.lr=1` -> `ppo.lr`."""
    return [token.split("=", 1)[0].lstrip("+~").split("@")[0].replace("/", ".") for token in typed]


def is_typed(key: str, typed: Sequence[str]) -> bool:
    """Return whether the user typed this very key."""
    return key in typed_paths(typed)


def refuse_targets(node: Any, path: str) -> None:
    """Refuse `_target_`: no config of this package names code to run."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                raise ConfigError(
                    f"{path}_target_={value!r}: not accepted; configs of this package do not "
                    "instantiate objects (register an environment and name it in env.id)"
                )
            refuse_targets(value, f"{path}{key}.")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            refuse_targets(value, f"{path}{index}.")


def refuse_unknown(node: Any, schema: type, path: str) -> None:
    """Refuse keys that the schema does not have, naming the nearest one."""
    if not isinstance(node, Mapping):
        raise ConfigError(f"{path.rstrip('.')}={node!r}: a group of keys is expected here")
    known = {f.name: f for f in fields(schema)}
    for key, value in node.items():
        if key not in known:
            raise ConfigError(f"{path}{key}: unknown key{did_you_mean(str(key), known)}")
        section = known[str(key)].default_factory
        if isinstance(section, type) and is_dataclass(section):
            refuse_unknown(value, section, f"{path}{key}.")


def walk(config: Any, path: str = "") -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Yield (key, value, metadata) for every leaf."""
    for f in fields(config):
        value = getattr(config, f.name)
        if is_dataclass(value):
            yield from walk(value, f"{path}{f.name}.")
        else:
            yield f"{path}{f.name}", value, f.metadata


def check_bounds(config: "RunConfig") -> None:
    """Check every knob against the bounds and choices it declares."""
    for key, value, limits in walk(config):
        for item in value if isinstance(value, list) else [value]:
            if limits["choices"] and item not in limits["choices"]:
                allowed = ", ".join(limits["choices"])
                raise ConfigError(
                    f"{key}={item}: must be one of {allowed}"
                    + did_you_mean(str(item), limits["choices"])
                )
            if isinstance(item, bool) or not isinstance(item, (int, float)):
                continue
            if item == math.inf:
                raise ConfigError(f"{key}={item}: must be finite")
            # Written so that NaN fails every bound.
            if limits["ge"] is not None and not item >= limits["ge"]:
                raise ConfigError(f"{key}={item}: must be at least {limits['ge']:g}")
            if limits["gt"] is not None and not item > limits["gt"]:
                raise ConfigError(f"{key}={item}: must be greater than {limits['gt']:g}")
            if limits["le"] is not None and not item <= limits["le"]:
                raise ConfigError(f"{key}={item}: must be at most {limits['le']:g}")


def check_rest(config: "RunConfig", typed: Sequence[str]) -> None:
    """Check what a single bound cannot say."""
    workers = config.rollout.num_workers
    if isinstance(workers, str) and workers != "auto":
        raise ConfigError(f"rollout.num_workers={workers}: must be a number or auto")
    if is_typed("ppo.batch_size", typed) and is_typed("ppo.num_mini_batches", typed):
        raise ConfigError("ppo.batch_size and ppo.num_mini_batches: give one of the two, not both")
    for key in ("name", "run_name"):
        name = getattr(config.experiment, key)
        if name is None or (key, name) == ("run_name", ""):
            continue
        if name.strip() in ("", ".", "..") or any(c not in SAFE_NAME for c in name):
            raise ConfigError(
                f"experiment.{key}={name!r}: must be one plain directory name "
                "(letters, digits, . _ - + =); set experiment.output_dir for the place"
            )
    _check_device(config)
    _check_writable(Path(config.experiment.output_dir).expanduser())
    resume = config.resume
    if resume not in (None, "latest") and not Path(str(resume)).expanduser().exists():
        raise ConfigError(f"resume={resume}: no such file or directory (or say resume=latest)")
    required, other = ("id", "task") if config.env.kind == "gym" else ("task", "id")
    if not getattr(config.env, required):
        raise ConfigError(
            f"env.{required}: missing for env.kind={config.env.kind}"
            + (f" (env.{other} is for the other kind)" if getattr(config.env, other) else "")
        )


def _check_device(config: "RunConfig") -> None:
    import torch

    count = torch.cuda.device_count()  # through NVML: makes no CUDA context
    for key, value in (
        ("experiment.device", config.experiment.device),
        ("rollout.device", config.rollout.device),
    ):
        if value == "auto":
            continue
        try:
            device = torch.device(value)
        except RuntimeError as e:
            raise ConfigError(f"{key}={value}: not a device; use cpu or cuda:0") from e
        if device.type not in ("cpu", "cuda"):
            raise ConfigError(f"{key}={value}: not supported; use cpu or cuda:0")
        if device.type == "cuda" and (device.index or 0) >= count:
            raise ConfigError(f"{key}={value}: PyTorch sees {count} CUDA devices here; use cpu")
    learner = config.experiment.device
    on_cpu = learner == "cpu" or (learner == "auto" and count == 0)
    if config.ppo.precision != "fp32" and on_cpu:
        raise ConfigError(f"ppo.precision={config.ppo.precision}: needs a CUDA learner; use fp32")


def _check_writable(path: Path) -> None:
    """Refuse an output directory that cannot be made or written, without making it."""
    nearest = path.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as e:
        raise ConfigError(f"experiment.output_dir={path}: cannot write there ({e})") from e
