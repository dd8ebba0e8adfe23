"""The run's directory: made exclusively, after validation, with what is needed to repeat the run.

Runs in the learner's main thread. Hydra's own run directory is off: it would exist before the
configuration is checked, and two runs of one second would share it. A caller that must know the
directory before any process starts has it reserved.
"""

import contextlib
import os
import subprocess
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from isaac_hydra_ext.checkpoints.find import RUN_NAME, UNNAMED
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.errors import ConfigError, shown
from isaac_hydra_ext.run.ranks import Ranks

GIT_TIMEOUT_S = 10.0
TIMESTAMP = "ISAACLAB_RUN_TIMESTAMP"  # Isaac Lab's variable: when all nodes' run has begun
SUBDIRECTORIES = ("checkpoints", "params", "git", "workers", ".hydra")


def runs_root(config: RunConfig) -> Path:
    """Return `<experiment.output_dir>/<experiment.name>`; without a name, of runs to be named."""
    root = Path(config.experiment.output_dir).expanduser().absolute()
    return root / (config.experiment.name or UNNAMED)


def make_run_dir(config: RunConfig) -> Path:
    """Make `<output_dir>/<name>/<time>[-<number>][_<run_name>]`, which did not exist before.

    Raises:
        ConfigError: It cannot be made.
    """
    root, time = runs_root(config), _time()
    suffix = f"_{config.experiment.run_name}" if config.experiment.run_name else ""
    taken = sum(1 for _ in root.glob(f"{time}*"))  # by runs that started within the same second
    for number in range(taken, taken + 100):
        path = root / f"{time}{f'-{number}' if number else ''}{suffix}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as e:
            raise ConfigError(f"experiment.output_dir={path.parent.parent}: {e}") from e
        for name in SUBDIRECTORIES:
            (path / name).mkdir()
        return path
    raise ConfigError(f"experiment.output_dir: too many runs of {time} in {root}")


def _time() -> str:
    """Return when the run begins, as its directory's name has it."""
    given = os.environ.get(TIMESTAMP)
    if given is None:
        return datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    found = RUN_NAME.fullmatch(given)
    if found is None or found[1] != given:
        raise ConfigError(f"{TIMESTAMP}={shown(given)}: must be a time such as 2026-12-01_08-30-00")
    return given


class RunDirectory:
    """A run's directory, made once the configuration is complete, or before if it is announced.

    One that is announced is made before anything is known of the task; a run that nobody has named
    is then moved to its task's name by `settle`, and the path that was announced becomes a link,
    which lasts as long as the run does, or longer on request. Leaving it tidies up.
    """

    def __init__(
        self, config: RunConfig, announce: Callable[[Path], None] | None, lasting: bool
    ) -> None:
        """Make and announce it, or nothing yet.

        Args:
            config: Before the task is known.
            announce: Called with the directory; None: `settle` makes it.
            lasting: Keep the link.

        Raises:
            ConfigError: It cannot be made.
        """
        root = runs_root(config)
        announce = None if config.seat.rank else announce
        self._made = [p for p in (root, *root.parents) if not p.exists()] if announce else []
        self._announced, self._lasting, self._settled = None, lasting, False
        if announce is not None:
            self._announced = make_run_dir(config)
            announce(self._announced)

    def settle(
        self,
        config: RunConfig,
        typed: Sequence[str],
        env_config: dict[str, Any],
        ranks: Ranks = Ranks(),  # noqa: B008  # alone
    ) -> Path:
        """Return where this rank writes: the run's directory, with what it was started with.

        Args:
            config: The complete one.
            typed: The user's override tokens.
            env_config: The env's own configuration, for `params/env.yaml`.
            ranks: The first one makes it, the others have directories in it.

        Raises:
            ConfigError: It cannot be made, or written to.
            RankError: Another rank has another configuration.
        """
        if not ranks.is_first:
            return ranks.settle(None, config)
        run_dir = self._moved(config, self._announced) if self._announced else make_run_dir(config)
        self._settled = True
        try:
            write_inputs(run_dir, typed, config, env_config)
        except OSError as e:
            raise ConfigError(f"experiment.output_dir: cannot write to {run_dir} ({e})") from e
        return ranks.settle(run_dir, config)

    def _moved(self, config: RunConfig, announced: Path) -> Path:
        """Move what was announced to where the complete configuration wants it."""
        run_dir = runs_root(config) / announced.name
        if run_dir != announced:
            try:
                run_dir.parent.mkdir(parents=True, exist_ok=True)
                announced.rename(run_dir)
            except OSError:  # another run began within the same second
                run_dir = make_run_dir(config)
                _remove_empty(announced)
            announced.symlink_to(os.path.relpath(run_dir, announced.parent))
        return run_dir

    def __enter__(self) -> "RunDirectory":
        """Nothing to do."""
        return self

    def __exit__(self, *error: object) -> None:
        """Remove what no run has come to use."""
        if self._announced is None:
            return
        if not self._settled:
            _remove_empty(self._announced)
        elif self._announced.is_symlink() and not self._lasting:
            self._announced.unlink()
        for parent in self._made:
            with contextlib.suppress(OSError):  # it has come into use
                parent.rmdir()


def made_again(run_dir: Path, config: RunConfig) -> bool:
    """Make a run's directory again if somebody has moved or deleted it; returns whether it was so.

    Args:
        run_dir: Of the run that goes on.
        config: The complete one; `params/agent.yaml` is written again.

    Raises:
        OSError: It cannot be made.
    """
    if (run_dir / "checkpoints").is_dir():
        return False
    for name in SUBDIRECTORIES:
        (run_dir / name).mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(config.to_dict()), run_dir / "params" / "agent.yaml")
    return True


def _remove_empty(run_dir: Path) -> None:
    """Remove a run's directory that nothing was written to."""
    for path in (*(run_dir / name for name in SUBDIRECTORIES), run_dir):
        with contextlib.suppress(OSError):
            path.rmdir()


def write_inputs(
    run_dir: Path,
    typed: Sequence[str],
    config: RunConfig,
    env_config: dict[str, Any],
) -> None:
    """Write what the run was started with.

    Args:
        run_dir: From `make_run_dir`.
        typed: The user's override tokens.
        config: The configuration after every completion.
        env_config: The env's own configuration, for `params/env.yaml`.
    """
    hydra_dir = run_dir / ".hydra"
    OmegaConf.save(OmegaConf.create(list(typed)), hydra_dir / "overrides.yaml")
    if HydraConfig.initialized():
        # Unresolved, and without what an application has copied: no variable's value.
        node = OmegaConf.to_container(HydraConfig.get(), resolve=False, enum_to_str=True)
        assert isinstance(node, dict)
        node["job"]["env_set"] = {}
        OmegaConf.save(OmegaConf.create({"hydra": node}), hydra_dir / "hydra.yaml")
    # One record, twice: Hydra's place for it is a config to run again (--config-dir RUN/.hydra).
    for path in (hydra_dir / "config.yaml", run_dir / "params" / "agent.yaml"):
        OmegaConf.save(OmegaConf.create(config.to_dict()), path)
    OmegaConf.save(OmegaConf.create(env_config), run_dir / "params" / "env.yaml")
    for name, where in (("isaac_hydra_ext", Path(__file__).parent), ("cwd", Path.cwd())):
        if state := _git_state(where):
            (run_dir / "git" / f"{name}.diff").write_text(state)


def _git_state(where: Path) -> str | None:
    """Return commit, status and diff of the repository around `where`, or None without one."""
    parts = []
    for command in (["rev-parse", "HEAD"], ["status", "--short"], ["diff", "HEAD"]):
        try:
            done = subprocess.run(
                ["git", *command],
                cwd=where,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=GIT_TIMEOUT_S,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode != 0:
            return None
        parts.append(f"--- git {' '.join(command)} ---\n{done.stdout}")
    return "\n".join(parts)
