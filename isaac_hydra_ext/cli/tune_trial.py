"""One trial of `appo tune`. Runs in an actor of Ray Tune's, on any node; trains in processes."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from isaac_hydra_ext.cli.sweep import run_in_process
from isaac_hydra_ext.errors import SweepError

STATE = "trial.json"  # beside the model in a checkpoint of Tune's


def composed(typed: Sequence[str]) -> DictConfig:
    """Compose a run's configuration, with Hydra's own node."""
    with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
        return compose("train_appo", overrides=list(typed), return_hydra_config=True)


def typed_as(settings: Mapping[str, Any]) -> list[str]:
    """Return sampled settings as overrides."""
    return [f"{key}={value}" for key, value in settings.items()]


@dataclass(frozen=True)
class Trial:
    """What all trials of a search have in common.

    Attributes:
        overrides: Of each run.
        until: Iterations of a whole trial.
        every: Iterations from one report to the next.
        output_dir: Of the search; one that all nodes share, if there are several.
    """

    overrides: Sequence[str]
    until: int
    every: int
    output_dir: str

    def __call__(self, settings: Mapping[str, Any]) -> None:
        """Train with `settings`, from Tune's checkpoint if it gives one, and report."""
        from ray import tune

        with tempfile.TemporaryDirectory() as directory:
            model, done = "", 0
            if (given := tune.get_checkpoint()) is not None:
                given.to_directory(directory)
                state = json.loads((Path(directory) / STATE).read_text())
                model, done = str(Path(directory) / state["model"]), state["iterations"]
            while done < self.until:
                done = min(done + self.every, self.until)
                result = self._train(settings, model, done, tune.get_context().get_trial_name())
                model = str(Path(result["run_dir"]) / "checkpoints" / f"model_{done}.safetensors")
                self._report(result, model, done)

    def _train(
        self, settings: Mapping[str, Any], model: str, until: int, name: str
    ) -> dict[str, Any]:
        """Go on from `model` to iteration `until`, in a process; returns what it answers."""
        typed = [
            *self.overrides,
            *typed_as(settings),
            f"experiment.output_dir={json.dumps(self.output_dir)}",
            f"experiment.name={name}",
            f"checkpoint.every={self.every}",  # the envs' states are saved where a part ends
            "logging.console=quiet",
            *([f"resume={json.dumps(model)}"] if model else []),
        ]
        cfg = composed(typed)
        hydra = OmegaConf.to_yaml(OmegaConf.masked_copy(cfg, "hydra"))
        node = OmegaConf.to_container(cfg, resolve=False)
        assert isinstance(node, dict)
        node.pop("hydra")
        request = {"cfg": node, "hydra": hydra, "typed": typed, "until": until}
        with tempfile.TemporaryFile() as errors:
            code, _, result = run_in_process(request, errors.fileno())
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
        if code or not result:
            raise SweepError(f"exit code {code}: {said[-1] if said else 'it said nothing'}")
        if result["summary"][result["objective"]] is None:
            raise SweepError(f"no {result['objective']} yet, as no episode ended; raise --every")
        return result

    def _report(self, result: Mapping[str, Any], model: str, done: int) -> None:
        from ray import tune

        name = result["objective"]
        metrics = {name: result["summary"][name], "iterations": done, "run_dir": result["run_dir"]}
        with tempfile.TemporaryDirectory() as directory:
            shutil.copy(model, directory)
            state = {"model": Path(model).name, "iterations": done}
            (Path(directory) / STATE).write_text(json.dumps(state))
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(directory))
