"""Writes docs/isaac_tasks.md: what this trainer does with each task of the installed Isaac Lab.

    .venv-isaaclab/bin/python scripts/isaac_tasks.py

Resolves each task's configurations as a training does, and starts no simulation. Some minutes.
"""

import sys
from collections import Counter
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
AS_TASK = "as its rsl_rl configuration says"
HEAD = """# What each task of Isaac Lab does here

{count} tasks of Isaac Lab {version}, by `scripts/isaac_tasks.py`, which resolves their
configurations and simulates none. *Simulates on* is the physics that is taken unasked where Isaac
Sim is missing; where a task draws, `renderer=` has to be typed.

{summary}

| task | simulates on | trains |
|---|---|---|
"""


def trains(task: str, env_config: EnvConfig) -> tuple[str, str]:
    """Return on what a task simulates without Kit, and what is learned from."""
    entries = gym.spec(task).kwargs or {}
    others = sorted(
        key.removesuffix(ENTRY)
        for key in entries
        if key.endswith(ENTRY) and not key.startswith(("env_", "rsl_rl"))
    )
    try:
        configs = isaac_cfg.resolve(env_config, task, Generation.GA)
    except IsaacHydraExtError as e:
        return "-", f"no: {said(e, task)}"
    simulates = "needs Kit"
    if type(configs.env.sim.physics).__name__ == "NewtonCfg":
        defaults = "its default" if configs.chosen is None else f"`{configs.chosen}`"
        simulates = f"Newton, {defaults}"
        renderers = isaac_cfg.list_presets(task).get("renderer", [])
        if "newton_renderer" in renderers:
            simulates += "; `renderer=newton_renderer`"
    if configs.agent is None:
        whose = f" (there is {', '.join(others)})" if others else " (no trainer has one)"
        return simulates, f"from our defaults: no rsl_rl configuration{whose}"
    try:
        settings_from_rsl_rl(configs.agent)
    except IsaacHydraExtError as e:
        return simulates, f"refused: {said(e, task)}"
    return simulates, AS_TASK


def said(error: Exception, task: str) -> str:
    """Return an error without what the row says already."""
    text = str(error).replace(f"env.task={task}: ", "").replace("env.task: ", "")
    return text.split(", not supported;")[0].replace("|", "\\|")


def main() -> None:
    """Write the page."""
    get_runtime(EnvConfig(kind="isaaclab"), "cpu", worker=0)
    ours = "isaac_hydra_ext"
    tasks = [t for t in list_tasks() if ours not in str(gym.spec(t).kwargs.get(f"env{ENTRY}"))]
    rows = []
    for task in tasks:
        rows.append((task, *trains(task, EnvConfig(kind="isaaclab", task=task))))
        print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    kinds = Counter(why.split(":")[0] for _, _, why in rows)
    kitless = sum(on.startswith("Newton") for _, on, _ in rows)
    ready = sum(on.startswith("Newton") and why == AS_TASK for _, on, why in rows)
    summary = (
        f"{kitless} simulate without Kit. {kinds[AS_TASK]} train {AS_TASK}, {ready}\n"
        f"of them without Kit. {kinds['refused']} are refused for what we do not have;\n"
        f"`env.agent=none` starts from our defaults, as do {kinds['from our defaults']} without an "
        f"rsl_rl\nconfiguration. {kinds['no']} cannot be read."
    )
    head = HEAD.format(count=len(rows), version=metadata.version("isaaclab"), summary=summary)
    PAGE.write_text(head + "".join(f"| `{a}` | {b} | {c} |\n" for a, b, c in rows))


if __name__ == "__main__":
    main()
