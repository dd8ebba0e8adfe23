"""The run's directory: made exclusively, after validation, with what is needed to repeat the run.

Runs in the learner's main thread. Hydra's own run directory is off: it would exist before the
configuration is checked, and two runs of one second would share it. A caller that must know the
directory before any process starts has it reserved.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from isaac_hydra_ext.checkpoints.find import RUN_NAME, UNNAMED
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.errors import ConfigError, MissingDependencyError, shown
from isaac_hydra_ext.run.ranks import Ranks

GIT_TIMEOUT_S = 10.0
TIMESTAMP = "ISAACLAB_RUN_TIMESTAMP"  # Isaac Lab's variable: when all nodes' run has begun
INPUTS = ("params", "git", ".hydra", "summary.json")  # of a run that has done nothing, no more
Begun = TypeVar("Begun")
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
    which lasts as long as the run does, or longer on request. Leaving it tidies up: of a start that
    failed nothing stays, unless a worker, or the env, has written something.
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
        self._made = _missing(root) if announce else []
        self._announced, self._lasting = None, lasting
        self._run_dir: Path | None = None
        self._begun = False
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
        self._made = [*_missing(runs_root(config)), *self._made]  # below what is there by now
        run_dir = self._moved(config, self._announced) if self._announced else make_run_dir(config)
        self._run_dir = run_dir
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

    def keep(self, run: Begun) -> Begun:
        """Leave the directory whatever happens, as the run has begun; returns the run."""
        self._begun = True
        return run

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Remove what no run has come to use."""
        run_dir, link = self._run_dir, self._announced
        if run_dir is None:
            if link is not None:
                _remove_empty(link)
        elif kind and not self._begun and not _worth_keeping(run_dir, kind):
            shutil.rmtree(run_dir, ignore_errors=True)
        if link is not None and link.is_symlink() and not (self._lasting and link.exists()):
            link.unlink()
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


def _missing(root: Path) -> list[Path]:
    """Return what has to be made for `root` to be there, itself first."""
    return [path for path in (root, *root.parents) if not path.exists()]


def _worth_keeping(run_dir: Path, kind: type[BaseException]) -> bool:
    """Return whether there is more to read than the error of a start that failed.

    Args:
        run_dir: Of the run that has not begun.
        kind: Of the error; what the user has typed wrong is all there is to say.
    """
    if issubclass(kind, ConfigError | MissingDependencyError):
        return False
    files = (path for path in run_dir.rglob("*") if path.is_file())
    others = (p for p in files if not {*INPUTS}.intersection(p.relative_to(run_dir).parts))
    return any(path.stat().st_size for path in others)


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
