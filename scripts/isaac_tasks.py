"""Writes docs/isaac_tasks.md: what this trainer does with each task of the installed Isaac Lab.

    .venv-isaaclab/bin/python scripts/isaac_tasks.py

Resolves each task's configurations as a training does, and starts no simulation. Some minutes.
ISAACSIM_ASSET_ROOT is what `scripts/make_isaac_assets.py` has made.
"""

import dataclasses
import os
import re
import sys
import textwrap
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium as gym

from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.agent_cfgs.choice import ENTRY, TRAINERS, settings_from
from isaac_hydra_ext.envs.isaac import cfg as isaac_cfg
from isaac_hydra_ext.envs.isaac.generation import Generation
from isaac_hydra_ext.envs.isaac.ids import list_tasks
from isaac_hydra_ext.envs.isaac.launch import get_runtime
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import IsaacHydraExtError

PAGE = Path(__file__).parents[1] / "docs" / "isaac_tasks.md"
AS_TASK = "By its {} configuration"
DEFAULTS = "From our defaults, as there is no agent configuration of PPO"
NEWTON, KIT = "Newton", "Kit"
DRAWS, OFFLINE = " (draws)", "†"
NEWTONS = "/newton-assets/"  # a repository of its own
MARKERS = "Props/UIElements"  # drawn where somebody looks
TITLE = "# What each task of Isaac Lab does here"
HEAD = """{count} tasks of Isaac Lab {version}, by `scripts/isaac_tasks.py`, which reads their
configurations and simulates none. {newton} have Newton physics, so need no Kit, and {ready} of
these train by their own agent configuration. {accepted} Students need `distillation.teacher`. A
preset in backticks is taken without Isaac Sim. Tasks that draw need `renderer=newton_renderer`.
Refused ones train from our defaults with `env.agent=none`. The {offline} with a dagger find all
their files in what `scripts/make_isaac_assets.py` makes.
"""


def trains(task: str, env_config: EnvConfig) -> tuple[str, str, str]:
    """Return how a task trains, on what it simulates, and its name."""
    try:
        configs = isaac_cfg.resolve(env_config, task, Generation.GA)
    except IsaacHydraExtError as e:
        return f"Cannot be read: {e}".replace(f"env.task={task}: ", ""), KIT, f"`{task}`"
    on, name = KIT, f"`{task}`"
    if type(configs.env.sim.physics).__name__ == "NewtonCfg":
        on = NEWTON if configs.chosen is None else f"{NEWTON}, `{configs.chosen}`"
        if all(NEWTONS not in file and Path(file).exists() for file in files_of(configs.env)):
            name += OFFLINE
        if "newton_renderer" in isaac_cfg.list_presets(task).get("renderer", []):
            name += DRAWS
    if configs.agent is None:
        return DEFAULTS, on, name
    try:
        settings_from(configs.agent)
    except IsaacHydraExtError as e:
        return refused(str(e)), on, name
    return AS_TASK.format(configs.trainer), on, name


def files_of(cfg: Any) -> set[str]:
    """Return the assets that a resolved cfg names."""
    found: set[str] = set()
    seen: dict[int, Any] = {}  # kept, so that no id is that of another by now
    left = [cfg]
    while left:
        node = left.pop()
        if isinstance(node, str):
            if node.startswith(os.environ["ISAACSIM_ASSET_ROOT"]) or NEWTONS in node:
                found.add(node)
        elif id(node) in seen or isinstance(node, type):
            continue
        seen[id(node)] = node
        if dataclasses.is_dataclass(node):
            node = vars(node)
        if isinstance(node, Mapping):
            left += node.values()
        elif isinstance(node, (list, tuple)):
            left += node
    return {file for file in found if MARKERS not in file}


def refused(error: str) -> str:
    """Return a refusal of an agent cfg as a heading: `Refused: AMP is not PPO`."""
    found = re.search(r"cfg \([^=]*=(?:[\w.]+:)?(.*?)\) ([^:;]*)", error)
    return f"Refused: {found[1]} {found[2]}" if found else f"Refused: {error}"


def count_accepted(accepted: Mapping[tuple[str, str], bool]) -> str:
    """Say how many agent cfgs are accepted.

    Args:
        accepted: (task, registry key) of each cfg of rsl_rl, skrl and rl_games.
    """
    first = TRAINERS[0]
    of_first = [ok for (_, key), ok in accepted.items() if key.startswith(first)]
    with_first = {task for task, key in accepted if key.startswith(first)}
    others: dict[str, list[bool]] = {}
    for (task, _), ok in accepted.items():
        if task not in with_first:
            others.setdefault(task, []).append(ok)
    some = sum(any(found) for found in others.values())
    return (
        f"Of {len(of_first)} {first} configurations {sum(of_first)} are accepted, of {len(others)} "
        f"tasks with only those of {' or '.join(TRAINERS[1:])}, {some}."
    )


def is_accepted(task: str, key: str) -> bool:
    """Return whether an agent cfg gives settings that load."""
    env_config = EnvConfig(kind="isaaclab", task=task, agent=key)
    try:
        agent = isaac_cfg.resolve(env_config, task, Generation.GA).agent
        settings, _ = settings_from(agent or {})
        if "distillation" not in settings:  # whose teacher is the user's to name
            load_run_config({"env": {"kind": "isaaclab", "task": task}}, (), settings)
    except IsaacHydraExtError as e:
        print(task, key, e, sep=" | ", file=sys.stderr, flush=True)
        return False
    return True


def page(rows: list[tuple[str, str, str]], version: str, accepted: str) -> str:
    """Return the page: a heading for each way to train, a paragraph for each physics."""
    newton = [how for how, on, _ in rows if on.startswith(NEWTON)]
    own = [AS_TASK.format(trainer) for trainer in TRAINERS]
    ready = sum(how in own for how in newton)
    head = HEAD.format(
        count=len(rows), version=version, newton=len(newton), ready=ready, accepted=accepted,
        offline=sum(OFFLINE in name for _, _, name in rows),
    )  # fmt: skip
    text = f"{TITLE}\n\n{textwrap.fill(head, 100)}\n"
    ways = sorted({how for how, _, _ in rows}, key=lambda how: (how.startswith("Refused"), how))
    for how in ways:
        text += f"\n## {how}\n"
        for on in sorted({on for way, on, _ in rows if way == how}, key=lambda on: (on == KIT, on)):
            names = [name for way, where, name in rows if (way, where) == (how, on)]
            line = f"{on} ({len(names)}): {', '.join(names)}"
            text += "\n" + textwrap.fill(line, 100, break_on_hyphens=False) + "\n"
    return text


def tasks_of_isaac_lab() -> dict[str, Mapping[str, Any]]:
    """Return what each task has registered, without this package's own tasks."""
    found = {task: gym.spec(task).kwargs or {} for task in list_tasks()}
    ours = "isaac_hydra_ext"
    return {t: keys for t, keys in found.items() if ours not in str(keys.get(f"env{ENTRY}"))}


def accepted_cfgs() -> dict[tuple[str, str], bool]:
    """Return for each agent cfg of PPO trainers whether it is accepted; see `count_accepted`."""
    return {
        (task, key): is_accepted(task, key)
        for task, entries in tasks_of_isaac_lab().items()
        for key in entries
        if key.startswith(TRAINERS) and key.endswith(ENTRY)
    }


def main() -> None:
    """Write the page."""
    if not Path(os.environ.get("ISAACSIM_ASSET_ROOT", ""), "ABOUT.txt").exists():
        sys.exit("error: ISAACSIM_ASSET_ROOT: name what scripts/make_isaac_assets.py has made")
    get_runtime(EnvConfig(kind="isaaclab"), "cpu", worker=0)
    accepted = accepted_cfgs()
    rows = []
    for task in tasks_of_isaac_lab():
        rows.append(trains(task, EnvConfig(kind="isaaclab", task=task)))
        print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    PAGE.write_text(page(rows, metadata.version("isaaclab"), count_accepted(accepted)))


if __name__ == "__main__":
    main()
