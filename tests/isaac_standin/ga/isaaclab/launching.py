"""Stand-in: no Kit here, so what needs it ends in SystemExit."""

import contextlib
from collections.abc import Iterator

from isaaclab import state


@contextlib.contextmanager
def launch_simulation(env_cfg: object, launcher_args: dict) -> Iterator[None]:
    """Start what the resolved cfg needs."""
    if type(env_cfg.sim.physics).__name__ != "NewtonCfg":
        print("[ERROR] Isaac Sim is not installed")
        raise SystemExit(1)
    if state.started:
        raise RuntimeError("launched twice")
    state.arguments.update(launcher_args)
    state.started.append("newton")
    yield
