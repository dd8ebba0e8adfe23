"""Isaac Lab's task ids: all their forms, and which of them is registered.

`[NS:]Isaac[Contrib]-X[-Play][-vN]`: 3.0 dropped the version, moved some tasks to `IsaacContrib-`,
writes a robot's name in one word (`UnitreeGo1`, before `Unitree-Go1`), and gave a few tasks another
name. Imports nothing of Isaac Lab; the registry is filled where the simulation runs.
"""

import re

import gymnasium as gym

from isaac_hydra_ext.errors import EnvNotFoundError, did_you_mean

ENV_ENTRY = "env_cfg_entry_point"
APPO_ENTRY = "appo_cfg_entry_point"
PLAY = re.compile(r"-Play(?=-|$)")
# 2.x's names in X, and those of 3.0, by its changelog: robots in one word, and a few new ones.
ONE_WORD = re.compile(r"\b(Anymal-[BCD]|Unitree-(A1|Go1|Go2)|Kuka-Allegro|OpenArm-Bi)\b")
RENAMED = {
    r"^Cart-Double-Pendulum-Direct$": "Pendulum-MARL-Direct",
    r"^Dexsuite-KukaAllegro-(Lift|Reorient)": r"\1-KukaAllegro",
    r"^Franka-Cabinet-Direct": "Open-Drawer-Franka-Direct",
    r"^Repose-Cube": "Reorient-Cube",
    r"^Reorient-Cube-Shadow-Vision": "Reorient-Cube-Shadow-Camera",
}
# Tasks of this package that the installed Isaac Lab cannot have, as `trained_task` says -> why.
unavailable: dict[str, str] = {}
# What installed packages could not register, and why, a line each.
not_registered: list[str] = []


def list_tasks() -> list[str]:
    """Return all ids whose registration looks like Isaac Lab's."""
    return sorted(name for name, spec in gym.registry.items() if ENV_ENTRY in (spec.kwargs or {}))


def trained_task(task: str) -> str:
    """Return X in 3.0's spelling, which all forms of a task's id share, of its `-Play` as well."""
    return _key(PLAY.sub("", _bare(task)))


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
    known, name = list_tasks(), task.split(":")[-1]
    plain = trained_task(task)
    wanted = [f"{plain}-Play", plain] if play else [_key(_bare(task))]
    found: dict[str, str] = {}
    for candidate in sorted(known, key=_rank):
        found.setdefault(_key(_bare(candidate)), candidate)
    if name in known and not (play and wanted[0] in found):
        return name
    for key in wanted:
        if key in found:
            return found[key]
    if why := unavailable.get(trained_task(task)):
        raise EnvNotFoundError(f"env.task={task}: cannot be had here; {why}")
    hint = did_you_mean(name, known) or did_you_mean(_bare(task), known)
    hint = hint or "; --list_tasks shows all, env.imports=[my_pkg] registers yours"
    hint += "".join(f"; tasks are missing: {line}" for line in not_registered)
    raise EnvNotFoundError(f"env.task={task}: not registered with Isaac Lab{hint}")


def _bare(task: str) -> str:
    """Return an id without namespace and version."""
    return re.sub(r"-v\d+$", "", task.split(":")[-1])


def _key(bare: str) -> str:
    """Return X of a bare id, in 3.0's spelling."""
    name = re.sub(r"^Isaac(Contrib)?-", "", bare)
    name = ONE_WORD.sub(lambda found: found[0].replace("-", ""), name)
    for old, new in RENAMED.items():
        name = re.sub(old, new, name)
    return name


def _rank(task: str) -> tuple[bool, bool, bool]:
    """Order the ids of one task: the best comes first."""
    old = "deprecated" in (gym.registry[task].kwargs or {})
    return old, task.startswith("IsaacContrib-"), re.search(r"-v\d+$", task) is not None
