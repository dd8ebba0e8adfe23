"""Isaac Lab's task ids: all their forms, and which of them is registered.

`[NS:]Isaac[Contrib]-X[-Play][-vN]`: 3.0 dropped the version and moved some tasks to
`IsaacContrib-`. Imports nothing of Isaac Lab; the registry is filled where the simulation runs.
"""

import re

import gymnasium as gym

from isaac_hydra_ext.errors import EnvNotFoundError, did_you_mean

ENV_ENTRY = "env_cfg_entry_point"
APPO_ENTRY = "appo_cfg_entry_point"
PLAY = re.compile(r"-Play(?=-|$)")
# Tasks of this package that the installed Isaac Lab cannot have, as `trained_task` says -> why.
unavailable: dict[str, str] = {}
# What installed packages could not register, and why, a line each.
not_registered: list[str] = []


def list_tasks() -> list[str]:
    """Return all ids whose registration looks like Isaac Lab's."""
    return sorted(name for name, spec in gym.registry.items() if ENV_ENTRY in (spec.kwargs or {}))


def trained_task(task: str) -> str:
    """Return X, which all forms of a task's id share, those of its `-Play` variant as well."""
    name = re.sub(r"-v\d+$", "", task.split(":")[-1])
    return re.sub(r"^Isaac(Contrib)?-", "", PLAY.sub("", name))


def is_play_id(task: str) -> bool:
    """Return whether an id names a task as it is to be played."""
    return PLAY.search(task) is not None


def find_task(task: str, play: bool = False) -> str:
    """Return the registered id.

    Args:
        task: As the user wrote it.
        play: Prefer the task's `-Play` id, where it has one; without one, `-Play` means the task.

    Raises:
        EnvNotFoundError: Names near ids.
    """
    name = task.split(":")[-1]
    bare = re.sub(r"-v\d+$", "", name)
    known = set(list_tasks())
    candidates = [name, *_forms(bare)]
    if play:
        stem = PLAY.sub("", bare)
        played = _forms(f"{stem}-Play")
        candidates = [name, *played, *_forms(stem)] if is_play_id(name) else played + candidates
    for candidate in candidates:
        if candidate in known:
            return candidate
    if why := unavailable.get(trained_task(task)):
        raise EnvNotFoundError(f"env.task={task}: cannot be had here; {why}")
    hint = did_you_mean(name, known) or did_you_mean(bare, known)
    hint = hint or "; --list_tasks shows all, env.imports=[my_pkg] registers yours"
    hint += "".join(f"; tasks are missing: {line}" for line in not_registered)
    raise EnvNotFoundError(f"env.task={task}: not registered with Isaac Lab{hint}")


def _forms(bare: str) -> list[str]:
    """Return the ids that a task without its version may be registered with."""
    contributed = re.sub(r"^Isaac-", "IsaacContrib-", bare)
    return [bare, f"{bare}-v0", contributed, f"{contributed}-v0"]
