"""What a configuration needs of the machine that the run is to use.

Runs in the learner's process, before any worker exists; reading a configuration, as an evaluation
does, needs none of it. Each finding is a `ConfigError` of one line.
"""

import os
import tempfile
from pathlib import Path

from isaac_hydra_ext.config.checks import RESUME_WORDS, as_path, named_devices
from isaac_hydra_ext.config.encoders import kind_of
from isaac_hydra_ext.config.placement import learner_device
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.errors import ConfigError, shown
from isaac_hydra_ext.system import entry_points


def check_devices(config: RunConfig) -> None:
    """Check that each GPU that is named is there.

    Raises:
        ConfigError: The first one that is not.
    """
    named = [(key, value) for key, value in named_devices(config) if value.startswith("cuda")]
    if config.evaluate.cuda_visible_devices is not None:  # it numbers other GPUs than ours
        named = [(key, value) for key, value in named if key != "evaluate.device"]
    if not named:
        return
    import torch

    count = torch.cuda.device_count()  # through NVML: makes no CUDA context
    for key, value in named:
        if (torch.device(value).index or 0) >= count:
            raise ConfigError(f"{key}={value}: PyTorch sees {count} CUDA devices here; use cpu")


def check_machine(config: RunConfig) -> None:
    """Check what a run, placed, needs besides: packages, a GPU for its precision, its files.

    Raises:
        ConfigError: The first finding.
    """
    rollout, precision = config.rollout, config.ppo.precision
    if rollout.on_invalid == "restart_worker" and (
        rollout.num_workers == 0 or rollout.deterministic or rollout.on_worker_failure != "restart"
    ):
        raise ConfigError(
            "rollout.on_invalid=restart_worker: needs workers that may be replaced: "
            "rollout.num_workers >= 1, on_worker_failure=restart and deterministic=false"
        )
    _check_registered(config)
    if precision not in ("auto", "fp32") and learner_device(config) == "cpu":
        raise ConfigError(f"ppo.precision={precision}: needs a CUDA learner; use fp32")
    _check_writable(as_path("experiment.output_dir", config.experiment.output_dir))
    if config.has_teacher:
        teacher = str(config.distillation.teacher)
        if not os.path.exists(as_path("distillation.teacher", teacher)):
            raise ConfigError(f"distillation.teacher={shown(teacher)}: no such file or directory")
    resume = config.resume
    if resume is None or resume in RESUME_WORDS:
        return
    if not os.path.exists(as_path("resume", resume)):
        words = " or ".join(f"resume={word}" for word in RESUME_WORDS)
        raise ConfigError(f"resume={shown(resume)}: no such file or directory (or say {words})")


def _check_registered(config: RunConfig) -> None:
    """Check every name that a package may have registered, and that what it names is there."""
    policy = config.policy
    names = [
        ("rollout.source", config.rollout.source, entry_points.SOURCES),
        ("policy.kind", policy.kind, entry_points.POLICIES),
        ("policy.network", policy.network, entry_points.NETWORKS),
        *(
            (f"policy.encoders.{group}.kind", kind_of(settings), entry_points.ENCODERS)
            for group, settings in policy.encoders.items()
        ),
        ("algorithm.kind", config.algorithm.kind, entry_points.ALGORITHMS),
        *(("ppo.terms", name, entry_points.TERMS) for name in config.ppo.terms),
    ]
    for key, name, group in names:
        built_in = entry_points.BUILT_IN[group]
        entry_points.check_name(key, shown(name), built_in, group)
        if name not in built_in:
            entry_points.load(key, name, group)


def _check_writable(path: Path) -> None:
    """Refuse an output directory that cannot be made or written, without making it."""
    nearest = path
    try:
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as e:
        raise ConfigError(f"experiment.output_dir={shown(path)}: cannot write there ({e})") from e
