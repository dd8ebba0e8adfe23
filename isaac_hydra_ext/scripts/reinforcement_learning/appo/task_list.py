"""`--list_tasks`: Isaac Lab's registry, printed. Hosts the simulation app where 2.x needs one."""

import os
import sys
from collections.abc import Sequence

from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.isaac.cfg import list_presets
from isaac_hydra_ext.envs.isaac.host import output_kept
from isaac_hydra_ext.envs.isaac.ids import list_tasks
from isaac_hydra_ext.envs.isaac.launch import get_runtime


def print_tasks(
    keyword: str, show_presets: bool, imports: Sequence[str], device: str | None
) -> None:
    """Print the ids of all tasks, one a line, and end the process: Kit may not let go.

    Args:
        keyword: Only ids that contain it, in any case.
        show_presets: Add each task's presets.
        imports: Packages that register more.
        device: Of the simulation app, where one must be started.
    """
    config = EnvConfig(kind="isaaclab", imports=list(imports))
    said: list[str] = []
    lines = []
    with output_kept(said):
        get_runtime(config, device or "cpu", worker=0)
        tasks = [t for t in list_tasks() if keyword.lower() in t.lower()]
        for task in tasks:
            presets = list_presets(task) if show_presets else {}
            lines.append(
                "  ".join([task, *(f"{k}={','.join(v)}" for k, v in presets.items() if v)])
            )
    print("\n".join(lines))
    print(f"{len(lines)} tasks", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(0)
