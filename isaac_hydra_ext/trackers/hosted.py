"""Trackers with a service behind them, which also work offline.

Each runs in a thread of its own in the learner's process (`in_thread.py`), its check in the main
thread. Their packages are imported only where they are asked for. None of them may redirect the
output, which is the console's, or ask the user anything.
"""

import importlib
import os
import shlex
from pathlib import Path
from typing import Any

from isaac_hydra_ext.config.schema import LoggingConfig
from isaac_hydra_ext.errors import ConfigError, MissingDependencyError
from isaac_hydra_ext.evaluation.video import preview_of
from isaac_hydra_ext.trackers.tracker import TrackedRun

EVALUATIONS, EVALUATED = "Eval/", "Eval/iteration"
NEEDS_NO_LOGIN = ("offline", "disabled", "local")


class WandbTracker:
    """Weights & Biases; its files lie in the run's `wandb/`."""

    def __init__(self, run: TrackedRun, config: LoggingConfig) -> None:
        """Begin a run there, or go on with one; see `TrackedRun`."""
        self._wandb: Any = importlib.import_module("wandb")
        wandb = config.wandb
        self._run: Any = self._wandb.init(
            project=wandb.project or os.environ.get("WANDB_PROJECT") or run.project,
            entity=wandb.entity,
            group=wandb.group,
            tags=wandb.tags or None,
            mode=wandb.mode,
            name=run.run_dir.name,
            dir=str(run.run_dir),
            config=run.config,
            id=run.run_id,
            resume="allow" if run.run_id else None,
            settings=self._wandb.Settings(console="off", silent=True),
        )
        self.run_id: str | None = str(self._run.id)
        self.afterwards = ""
        if getattr(self._run, "offline", False):  # its directory holds files/
            self.afterwards = f"wandb sync {shlex.quote(str(Path(self._run.dir).parent))}"
        self._newest = 0
        self._run.define_metric(f"{EVALUATIONS}*", step_metric=EVALUATED)

    def log(self, metrics: dict[str, float], iteration: int) -> None:
        self._log(metrics, iteration)

    def log_video(self, tag: str, path: Path, iteration: int) -> None:
        self._log({tag: self._wandb.Video(str(path), format="mp4")}, iteration)

    def _log(self, metrics: dict[str, Any], iteration: int) -> None:
        """Write a point. Steps must not go back there, but an evaluation ends after others began.

        Evaluations therefore have an axis of their own, the iteration that was played.
        """
        self._newest = max(self._newest, iteration)
        if any(tag.startswith(EVALUATIONS) for tag in metrics):
            metrics = {**metrics, EVALUATED: iteration}
        self._run.log(metrics, step=self._newest)

    def flush(self) -> None:
        """Nothing to do: its own process writes and uploads as points come."""

    def close(self) -> None:
        """Wait for the upload."""
        self._run.finish()


class SwanLabTracker:
    """SwanLab; its files lie in the run's `swanlab/`."""

    def __init__(self, run: TrackedRun, config: LoggingConfig) -> None:
        """Begin a run there, or go on with one; see `TrackedRun`."""
        self._swanlab: Any = importlib.import_module("swanlab")
        swanlab = config.swanlab
        settings = {"interactive": False, "terminal": {"proxy_type": "none"}}
        mode = swanlab.mode or os.environ.get("SWANLAB_MODE")
        self._run: Any = self._swanlab.init(
            project=swanlab.project or os.environ.get("SWANLAB_PROJECT") or run.project,
            workspace=swanlab.workspace,
            group=swanlab.group,
            tags=swanlab.tags or None,
            mode=mode,
            name=run.run_dir.name,
            log_dir=str(run.run_dir / "swanlab"),
            config=run.config,
            id=run.run_id if mode in (None, "online") else None,  # elsewhere it has no resume
            resume="allow" if run.run_id and mode in (None, "online") else None,
            settings=self._swanlab.Settings(**settings),
        )
        self.run_id: str | None = str(self._run.id)
        offline = self._run.mode == "offline"
        self.afterwards = f"swanlab sync {shlex.quote(str(self._run.dir))}" if offline else ""

    def log(self, metrics: dict[str, float], iteration: int) -> None:
        self._run.log(metrics, step=iteration)

    def log_video(self, tag: str, path: Path, iteration: int) -> None:
        """Upload the GIF beside it, which is all that SwanLab takes."""
        gif = self._swanlab.Video(str(preview_of(path)))
        self._run.log({tag: gif}, step=iteration)

    def flush(self) -> None:
        """Nothing to do: its own thread writes and uploads as points come."""

    def close(self) -> None:
        """Wait for the upload."""
        self._run.finish()


def check_hosted(name: str, config: LoggingConfig) -> None:
    """Refuse a tracker that cannot work, before any process starts.

    Args:
        name: wandb or swanlab.
        config: The `logging` section.

    Raises:
        MissingDependencyError: Its package cannot be imported.
        ConfigError: It needs a login that there is not.
    """
    key = f"logging.backends=[{name}]"
    mode = getattr(config, name).mode or os.environ.get(f"{name.upper()}_MODE")
    packages = {name: f"isaac-hydra-ext[{name}]"}
    if name == "swanlab" and mode == "local":
        packages["swanboard"] = "swanlab[dashboard]"
    for package, extra in packages.items():
        try:
            module: Any = importlib.import_module(package)
        except ImportError as e:
            raise MissingDependencyError(
                f"{key}: {e}; install it with: pip install '{extra}'"
            ) from e
        if name == "wandb" and mode not in NEEDS_NO_LOGIN and not _logged_in(module):
            raise ConfigError(
                f"{key}: not logged in; say `wandb login`, or set WANDB_API_KEY, or write to the "
                "run's directory with logging.wandb.mode=offline"
            )


def _logged_in(wandb: Any) -> bool:
    """Return whether W&B has a key; what only its server can say is said when the run begins."""
    try:
        return bool(wandb.login(prompt=False))
    except TypeError:  # older releases, which have another way to ask without prompting
        return bool(wandb.api.api_key)
    except wandb.Error:
        return True
