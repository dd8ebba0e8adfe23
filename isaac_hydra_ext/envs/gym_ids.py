"""`env.id` in every spelling that Gymnasium takes. Runs wherever such an env is described or made.

`Name-v1`, `Name` (its newest version), `my_package.my_module:Name-v1` (which imports the module).
"""

import importlib
import re
from functools import cache
from typing import Any

import gymnasium as gym

from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.imports import import_packages
from isaac_hydra_ext.errors import EnvError, EnvNotFoundError, did_you_mean, shown

PIP = re.compile(r"`(pip install [^`]+)`")  # in the messages of Gymnasium
VERSION = re.compile(r"-v(\d+)$")


def find_spec(env_config: EnvConfig) -> Any:
    """Import what registers the id, and look it up; builds nothing.

    Returns:
        Gymnasium's `EnvSpec`.

    Raises:
        EnvNotFoundError: Names near ids.
        EnvError: `gymnasium.make` cannot make it.
    """
    import_packages(env_config.imports)
    env_id = str(env_config.id)
    module, _, name = env_id.rpartition(":")
    if module:
        import_packages([module], f"env.id={env_id}")
    spec = gym.registry.get(name) or _newest(name)
    if spec is None:
        near = did_you_mean(name, gym.registry)
        hint = near or "; name the package that registers it in env.imports=[...]"
        raise EnvNotFoundError(f"env.id={env_id}: not registered with Gymnasium{hint}")
    if spec.entry_point is None:
        raise EnvError(
            f"env.id={env_id}: registered with a vector_entry_point alone; single envs are made "
            "here, so give gymnasium.register an entry_point as well"
        )
    return spec


def is_known(name: str) -> bool:
    """Return whether Gymnasium has an id, with its version or without."""
    return name in gym.registry or _newest(name) is not None


def what_it_needs(spec: Any) -> str:
    """Return what is missing to make an id here, in a line; empty where its module can be imported.

    Args:
        spec: Gymnasium's `EnvSpec`; nothing is built.
    """
    entry = spec.entry_point
    if entry is None:
        return "an entry_point: its vector_entry_point makes no single env"
    try:
        if isinstance(entry, str):
            return _why_not_imported(entry.partition(":")[0])
        if (
            getattr(entry, "__module__", "") == gym.envs.__name__
        ):  # of what has moved: all that it does is raise
            entry()
    except (Exception, SystemExit) as e:  # of somebody else's package
        return _how_to_get(e)
    return ""


@cache
def _why_not_imported(module: str) -> str:
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as e:  # of somebody else's package
        return _how_to_get(e)
    return ""


def _how_to_get(error: BaseException) -> str:
    text = shown(error, limit=200)
    if isinstance(error, ModuleNotFoundError) and error.name:
        text = f"the module {error.name}"
    return "; ".join(PIP.findall(text)) or text


def _newest(name: str) -> Any:
    """Return the spec of the highest version of a name that was given without one, or None."""
    versions = {
        int(found[1]): spec
        for known, spec in gym.registry.items()
        if (found := VERSION.search(known)) and known[: found.start()] == name
    }
    return versions[max(versions)] if versions else None
