"""How far an Isaac Lab env's curriculum is: the part of its state that can be put back.

Runs in the process that hosts the simulation. Managers and physics offer no state, so episodes
start anew and commands are drawn anew; the step counter, which schedules read, and the terrain's
levels are kept.
"""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

TERRAIN = ("terrain_levels", "terrain_types")


def read_curriculum(core: Any) -> dict[str, Any]:
    """Return JSON-ready data of an unwrapped env."""
    terrain = _terrain(core)
    levels = {n: getattr(terrain, n).tolist() for n in TERRAIN} if terrain is not None else {}
    return {"common_step_counter": int(core.common_step_counter), **levels}


@contextlib.contextmanager
def curriculum_restored(core: Any, saved: Mapping[str, Any]) -> Iterator[None]:
    """Put the curriculum back, and hold it still while the block resets the env.

    The first reset would run the curriculum, which moves every env to another level.

    Args:
        core: The unwrapped env.
        saved: From `read_curriculum`. Levels of another number of envs are left alone.
    """
    core.common_step_counter = int(saved["common_step_counter"])
    terrain, held = _terrain(core), []
    if terrain is not None and len(saved.get(TERRAIN[0], ())) == len(terrain.terrain_levels):
        for name in TERRAIN:
            tensor = getattr(terrain, name)
            tensor.copy_(torch.as_tensor(saved[name], dtype=tensor.dtype))
        origins = terrain.terrain_origins[terrain.terrain_levels, terrain.terrain_types]
        terrain.env_origins.copy_(origins)
        held.append((terrain, "update_env_origins"))
    if (manager := getattr(core, "curriculum_manager", None)) is not None:
        held.append((manager, "compute"))
    for owner, method in held:
        setattr(owner, method, lambda *args, **kwargs: None)
    try:
        yield
    finally:
        for owner, method in held:
            delattr(owner, method)  # the class's own is visible again


def _terrain(core: Any) -> Any:
    """Return the terrain importer of a curriculum; Direct tasks keep it to themselves."""
    terrain = getattr(core.scene, "terrain", None) or getattr(core, "_terrain", None)
    return terrain if getattr(terrain, TERRAIN[0], None) is not None else None
