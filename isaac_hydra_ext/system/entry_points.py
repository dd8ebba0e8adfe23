"""What other packages register. Runs in every process of a run.

A package names its own in its pyproject.toml, and needs no change here:

    [project.entry-points."isaac_hydra_ext.envs"]
    my_sim = "my_package.adapter"              # env.kind=my_sim: `envs/registry.py`

    [project.entry-points."isaac_hydra_ext.networks"]
    my_network = "my_package.networks:build"   # policy.network=my_network: `models/networks.py`

    [project.entry-points."isaac_hydra_ext.encoders"]
    my_encoder = "my_package.encoders:build"   # policy.encoders.camera.kind: `models/encoders.py`

    [project.entry-points."isaac_hydra_ext.env_facts"]
    my_sim = "my_package.facts:FACTS"       # an EnvFacts, where its defaults do not suit

    [project.entry-points."isaac_hydra_ext.tasks"]
    my_tasks = "my_package.tasks:register"  # a function, or a module whose import registers them

    [project.entry-points."isaac_hydra_ext.policies"]
    my_policy = "my_package.policy:make"       # policy.kind=my_policy: `models/policy.py`

    [project.entry-points."isaac_hydra_ext.algorithms"]
    my_algorithm = "my_package.algorithm:make" # algorithm.kind=my_algorithm: `learner/algorithm.py`

    [project.entry-points."isaac_hydra_ext.terms"]
    my_term = "my_package.term:make"           # ppo.terms.my_term={}: `learner/terms.py`

    [project.entry-points."isaac_hydra_ext.sources"]
    my_source = "my_package.source:make"       # rollout.source=my_source: `rollout/source.py`
"""

import importlib
import os
import sys
from collections.abc import Collection
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from isaac_hydra_ext.errors import ConfigError, did_you_mean, shown

ENVS = "isaac_hydra_ext.envs"
ENV_FACTS = "isaac_hydra_ext.env_facts"
TASKS = "isaac_hydra_ext.tasks"
NETWORKS = "isaac_hydra_ext.networks"
ENCODERS = "isaac_hydra_ext.encoders"
POLICIES = "isaac_hydra_ext.policies"
ALGORITHMS = "isaac_hydra_ext.algorithms"
TERMS = "isaac_hydra_ext.terms"
SOURCES = "isaac_hydra_ext.sources"

BY_PLACE = (NETWORKS, ENCODERS)  # of which one may also be named as module:function

# What this package has itself, beside what others register; of envs: `envs/registry.py`.
BUILT_IN = {
    NETWORKS: ("mlp",),
    ENCODERS: ("cnn", "mlp"),
    POLICIES: ("actor_critic",),
    ALGORITHMS: ("ppo", "distillation"),
    TERMS: ("rnd",),
    SOURCES: ("auto",),
}


def registered(group: str) -> list[str]:
    """Return the names that installed packages register in `group`."""
    return sorted(entry_points(group=group).names)


def check_name(key: str, name: str, built_in: Collection[str], group: str) -> None:
    """Refuse a name that is neither built in nor registered.

    Raises:
        ConfigError: Names all that there are.
    """
    if name in built_in:
        return
    if group in BY_PLACE and ":" in name:
        if not names_object(name):
            raise ConfigError(f"{key}={shown(name)}: package.module:function is expected")
        return
    known = [*built_in, *registered(group)]
    if name not in known:
        raise ConfigError(
            f"{key}={name}: must be one of {', '.join(known)}{did_you_mean(name, known)}"
            f" (packages register theirs in the entry-point group {group})"
        )


def names_object(name: str) -> bool:
    """Return whether a text may name what a module holds: `package.module:name`."""
    module, _, attribute = name.partition(":")
    return all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")])


def import_module(name: str) -> ModuleType:
    """Import a module, also one that lies in the working directory, as `python -m` would."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as e:
        here = os.getcwd()
        if e.name != name.partition(".")[0] or here in sys.path:
            raise
        sys.path.append(here)  # last: it hides nothing that is installed
        importlib.invalidate_caches()
        return importlib.import_module(name)


def load(key: str, name: str, group: str) -> Any:
    """Import what a package has registered.

    Args:
        key: The config key that names it, for messages.
        name: Of the entry point; `check_name` has seen it. A network or an encoder may be
            `module:name` itself, also of the working directory.
        group: One of those above.

    Raises:
        ConfigError: It cannot be imported, or two packages have registered the name.
    """
    by_place = group in BY_PLACE and ":" in name
    if by_place:
        found = [EntryPoint(name, name, group)]
    else:
        found = list(entry_points(group=group, name=name))
    if len({entry.value for entry in found}) != 1:
        values = " and ".join(entry.value for entry in found) or "nobody"
        raise ConfigError(f"{key}={name}: registered by {values} in {group}; one is expected")
    try:
        if by_place:
            import_module(found[0].module)
        return found[0].load()
    except Exception as e:  # of somebody else's module
        why = f"{found[0].value} cannot be imported ({_in_a_line(e)})"
        raise ConfigError(f"{key}={name}: {why}") from e


def run_all(group: str) -> list[str]:
    """Import all that is registered in `group`, and call what is a function.

    Returns:
        A line for each that failed: one package must not keep the others from working.
    """
    failures = []
    for entry in sorted(entry_points(group=group), key=lambda entry: entry.name):
        try:
            found = entry.load()
            if callable(found):
                found()
        except Exception as e:  # of somebody else's module
            failures.append(f"{entry.name} ({entry.value}) of {group}: {_in_a_line(e)}")
    return failures


def _in_a_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
