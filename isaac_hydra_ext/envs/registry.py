"""Which adapter serves which `env.kind`, and what each kind says of itself.

The only place where `env.kind` is asked. Imports an adapter only in the process that needs it, and
no torch.
"""

import importlib
import importlib.util
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from isaac_hydra_ext.config.schema import EnvConfig, RunConfig
from isaac_hydra_ext.envs.facts import EnvFacts
from isaac_hydra_ext.errors import ConfigError, EnvError, shown
from isaac_hydra_ext.system import entry_points
from isaac_hydra_ext.system.activity import tell

if TYPE_CHECKING:  # they import torch
    from isaac_hydra_ext.envs.contract import TaskDescription, VecEnv

ADAPTERS = {
    "gym": "isaac_hydra_ext.envs.gym",
    "mjlab": "isaac_hydra_ext.envs.mjlab",
    "isaaclab": "isaac_hydra_ext.envs.isaac.adapter",
}
FACTS = {
    "gym": EnvFacts(
        "Gymnasium",
        named_by="id",
        needs_simulator=False,
        is_pure_gym=True,
        can_use_gpu=False,
        has_viewer=True,
    ),
    "mjlab": EnvFacts(
        "mjlab",
        named_by="task",
        compiles_kernels=True,
        process_bytes=520 * 2**20,
        package="mjlab",
        install="pip install 'isaac-hydra-ext[mjlab]'",
        choice="mjlab_any",
        has_viewer=True,
    ),
    "isaaclab": EnvFacts(
        "Isaac Lab",
        named_by="task",
        auto_is_gpu=True,
        has_own_threads=True,
        compiles_kernels=True,
        package="isaaclab",
        install="Isaac Lab's own Python (scripts/run_isaac_lab.sh)",
        choice="isaac_any",
        viewed_by="its own viewers show it: python -m "
        "isaac_hydra_ext.scripts.reinforcement_learning.appo.play --checkpoint FILE --viz viser",
    ),
}


class Adapter(Protocol):
    """What a package registers in the entry-point group `isaac_hydra_ext.envs`: a module.

    The `env` section is its own to read: `id`, `task`, `kwargs` and `imports` are free for it.
    """

    def describe(self, env_config: EnvConfig, device: str) -> "TaskDescription":
        """Resolve the task without building it; see `TaskDescription`.

        Args:
            env_config: The `env` section.
            device: Of the simulation: auto, cpu or cuda:N.
        """
        ...

    def make(
        self,
        env_config: EnvConfig,
        *,
        num_envs: int,
        device: str,
        seed: int,
        worker: int,
        run_dir: Path | None,
        **shown: bool,
    ) -> "VecEnv":
        """Build the vector env; arguments as of `make_env`, `device` is cpu or cuda:N.

        `render=True` is passed only where pictures are wanted, `view=True` only by the viewer: an
        adapter that gives none need not know the words.
        """
        ...


def load_adapter(kind: str) -> Adapter:
    """Import the adapter of a kind, built in or registered by a package.

    Raises:
        ConfigError: It cannot be imported.
        EnvError: It has no `describe` or no `make`.
    """
    # What a login sets. Without it libwayland, which SDL asks first, prints an `error:` of its own.
    os.environ.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.getuid()}")
    if kind in ADAPTERS:
        adapter: Any = importlib.import_module(ADAPTERS[kind])
    else:
        adapter = entry_points.load("env.kind", kind, entry_points.ENVS)
    for name in ("describe", "make"):
        if not callable(getattr(adapter, name, None)):
            raise EnvError(f"env.kind={kind}: {adapter!r} has no function {name!r}")
    return adapter


def facts_of(env_config: EnvConfig) -> EnvFacts:
    """Return what the kind says of itself, without importing its adapter.

    Raises:
        ConfigError: Nobody has such a kind, or its facts cannot be read.
    """
    kind = env_config.kind
    entry_points.check_name("env.kind", shown(kind), ADAPTERS, entry_points.ENVS)
    if kind == "isaaclab":
        from isaac_hydra_ext.envs.isaac.generation import has_kit  # for this kind alone

        # Kit takes a GPU's whole time and most of its memory. Newton runs without it.
        physics = env_config.physics
        newton = physics.startswith("newton") if physics else not has_kit()
        if not newton or "omni.kit.app" in sys.modules:
            return replace(FACTS[kind], name="Isaac Lab with Kit", shares_gpu=False)
    if kind in FACTS:
        return FACTS[kind]
    facts: Any = EnvFacts()
    if kind in entry_points.registered(entry_points.ENV_FACTS):
        facts = entry_points.load("env.kind", kind, entry_points.ENV_FACTS)
        if not isinstance(facts, EnvFacts):
            raise ConfigError(
                f"env.kind={kind}: an EnvFacts is expected in the entry-point group "
                f"{entry_points.ENV_FACTS}, not a {type(facts).__name__}"
            )
    return replace(facts, name=facts.name or f"env.kind={kind}")


def choice_of(name: str) -> list[str]:
    """Return the overrides that name a task which is given by its name alone.

    Args:
        name: A task of mjlab's where that is installed and Gymnasium knows no such id; else an id.
    """
    gym_ids = importlib.import_module("isaac_hydra_ext.envs.gym_ids")
    if ":" not in name and not gym_ids.is_known(name) and importlib.util.find_spec("mjlab"):
        list_tasks = importlib.import_module(ADAPTERS["mjlab"]).list_tasks
        if name in list_tasks():
            return ["env=mjlab_any", f"env.task='{name}'"]
    return ["env=gym_any", f"env.id='{name}'"]


def auto_is_gpu(env_config: EnvConfig) -> bool:
    """Return whether `rollout.device=auto` means a GPU; see `EnvFacts`."""
    return facts_of(env_config).auto_is_gpu


def check_env(config: RunConfig) -> None:
    """Check the `env` section, and the devices that its kind can simulate on.

    Raises:
        ConfigError: In one line: the key, what is wrong, what would be right.
    """
    env, facts = config.env, facts_of(config.env)
    required = facts.named_by
    if required and not getattr(env, required):
        other = "task" if required == "id" else "id"
        raise ConfigError(
            f"env.{required}: missing for env.kind={env.kind}"
            + (f" (env.{other} is for the other kind)" if getattr(env, other) else "")
            + f"; set env.{required}=NAME (appo list tasks has the names)"
        )
    if "id" in env.kwargs:
        raise ConfigError("env.kwargs.id: say env.id instead")
    for module in env.imports:
        # Isaac Lab's --external_callback, `module:function`, is called.
        if not entry_points.names_object(module if ":" in module else f"{module}:none"):
            raise ConfigError(f"env.imports={shown(repr(module))}: not the name of a module")
    devices = {"rollout": config.rollout.device, "evaluate": config.evaluate.device}
    for section, device in devices.items():
        if device.startswith("cuda") and not facts.can_use_gpu:
            raise ConfigError(
                f"{section}.device={device}: env.kind={env.kind} simulates on the CPU; use cpu"
            )


def needs_simulator(env_config: EnvConfig) -> bool:
    """Return whether resolving the task imports a simulator, or code that might.

    If not, the task can be described before any process starts.
    """
    names_module = ":" in str(env_config.id or "")  # Gymnasium's module:Name-v1
    return facts_of(env_config).needs_simulator or bool(env_config.imports) or names_module


def describe_task(env_config: EnvConfig, device: str = "auto") -> "TaskDescription":
    """Resolve the task without building it.

    Runs where the simulation will, or, if it needs none, in the learner's process.

    Args:
        env_config: The `env` section.
        device: Of the simulation, for envs that must know it from the start.

    Raises:
        EnvNotFoundError: No such task; names near ones.
    """
    tell(f"imports {env_config.kind} and reads the task")
    return load_adapter(env_config.kind).describe(env_config, device)


def make_env(
    config: RunConfig,
    seed: int,
    worker: int = 0,
    run_dir: Path | None = None,
    render: bool = False,
    view: bool = False,
) -> "VecEnv":
    """Build the vector env of B envs. Runs where the simulation will.

    Args:
        config: After `complete`.
        seed: For whatever the env draws while it is built.
        worker: Index of the worker, 0 with W = 0.
        run_dir: Where the env may write; None where there is no run.
        render: `VecEnv.render` will be asked for pictures.
        view: It is to be a `ViewableEnv`; only where `EnvFacts.has_viewer`.
    """
    num_envs = config.rollout.envs_per_worker
    assert num_envs is not None
    slow = facts_of(config.env).compiles_kernels
    tell(f"builds {num_envs} envs{'; a first start compiles kernels' if slow else ''}")
    return load_adapter(config.env.kind).make(
        config.env,
        num_envs=num_envs,
        device=config.rollout.device,
        seed=seed,
        worker=worker,
        run_dir=run_dir,
        **({"render": True} if render else {}),
        **({"view": True} if view else {}),
    )
