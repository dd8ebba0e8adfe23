"""Writes docs/isaac_tasks.md: what this trainer does with each task of the installed Isaac Lab.

    .venv-isaaclab/bin/python scripts/isaac_tasks.py

Resolves each task's configurations as a training does, and starts no simulation. Some minutes.
"""

import re
import sys
import textwrap
from importlib import metadata
from pathlib import Path

import gymnasium as gym

from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.agent_cfgs.rsl_rl import settings_from_rsl_rl
from isaac_hydra_ext.envs.isaac import cfg as isaac_cfg
from isaac_hydra_ext.envs.isaac.generation import Generation
from isaac_hydra_ext.envs.isaac.ids import list_tasks
from isaac_hydra_ext.envs.isaac.launch import get_runtime
from isaac_hydra_ext.errors import IsaacHydraExtError

PAGE = Path(__file__).parents[1] / "docs" / "isaac_tasks.md"
ENTRY = "_cfg_entry_point"
AS_TASK = "By its rsl_rl configuration"
DEFAULTS = "From our defaults, as there is no rsl_rl configuration"
NEWTON, KIT = "Newton", "Kit"
DRAWS = " (draws)"
HEAD = """# What each task of Isaac Lab does here

{count} tasks of Isaac Lab {version}, by `scripts/isaac_tasks.py`, which resolves their
configurations and simulates none. {newton} simulate with Newton, so without Kit, and {ready} of
these train by their rsl_rl configuration. A preset in backticks is taken where Isaac Sim is
missing. What draws needs `renderer=newton_renderer`. What is refused trains from our defaults
with `env.agent=none`.
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
        if "newton_renderer" in isaac_cfg.list_presets(task).get("renderer", []):
            name += DRAWS
    if configs.agent is None:
        return DEFAULTS, on, name
    try:
        settings_from_rsl_rl(configs.agent)
    except IsaacHydraExtError as e:
        asked = re.search(r"asks for (an? )(?:[\w.]+:)?([\w ]*\w)", str(e))
        return f"Refused: {asked[1] + asked[2] if asked else e}", on, name
    return AS_TASK, on, name


def page(rows: list[tuple[str, str, str]], version: str) -> str:
    """Return the page: a heading for each way to train, a paragraph for each physics."""
    newton = [how for how, on, _ in rows if on.startswith(NEWTON)]
    text = HEAD.format(
        count=len(rows), version=version, newton=len(newton), ready=newton.count(AS_TASK)
    )
    ways = sorted({how for how, _, _ in rows}, key=lambda how: (how.startswith("Refused"), how))
    for how in ways:
        text += f"\n## {how}\n"
        for on in sorted({on for way, on, _ in rows if way == how}, key=lambda on: (on == KIT, on)):
            names = [name for way, where, name in rows if (way, where) == (how, on)]
            line = f"{on} ({len(names)}): {', '.join(names)}"
            text += "\n" + textwrap.fill(line, 100, break_on_hyphens=False) + "\n"
    return text


def main() -> None:
    """Write the page."""
    get_runtime(EnvConfig(kind="isaaclab"), "cpu", worker=0)
    ours = "isaac_hydra_ext"
    tasks = [t for t in list_tasks() if ours not in str(gym.spec(t).kwargs.get(f"env{ENTRY}"))]
    rows = []
    for task in tasks:
        rows.append(trains(task, EnvConfig(kind="isaaclab", task=task)))
        print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    PAGE.write_text(page(rows, metadata.version("isaaclab")))


if __name__ == "__main__":
    main()
