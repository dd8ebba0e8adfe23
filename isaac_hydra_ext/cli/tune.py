"""`appo tune`: a search on Ray Tune, in Hydra's own sweep syntax. Runs in the driver's process.

    appo tune --trials 8 env=gym_pendulum 'ppo.lr=tag(log, interval(1e-4, 1e-2))'

A trial is a run in a process of its own, and a new one for each `--every` iterations: a run resumes
exactly, so that a trial can be stopped, or go on from another's checkpoint, at any report.
"""

import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, ValueType
from hydra.errors import HydraException

from isaac_hydra_ext.cli.main import one_line, run_reporting_errors
from isaac_hydra_ext.cli.parser import CommandParser
from isaac_hydra_ext.errors import ConfigError, MissingDependencyError, SweepError, shown

COUNTED = (ValueType.CHOICE_SWEEP, ValueType.SIMPLE_CHOICE_SWEEP, ValueType.RANGE_SWEEP)
Space = dict[str, Any]  # key -> what Tune samples it from


def main() -> None:
    """Run the command line."""
    parser = CommandParser(
        prog="appo tune",
        description="Search on Ray (ray.address) for the highest experiment.objective. What is "
        "searched is typed as for Hydra's sweepers: ppo.lr='tag(log, interval(1e-4, 1e-2))', "
        "ppo.gamma='choice(0.95, 0.99)', 'ppo.update_epochs=range(2, 6)'.",
        epilog="Needs: pip install 'isaac-hydra-ext[ray]'",
    )
    parser.add_argument("overrides", nargs="+", metavar="KEY=VALUE", help="as of appo train")
    parser.add_argument("--trials", type=int, default=8, help="default: 8")
    parser.add_argument(
        "--every", type=int, help="iterations between reports (default: a tenth of all)"
    )
    parser.add_argument(
        "--scheduler",
        choices=("asha", "pbt", "none"),
        default="asha",
        help="asha stops what falls behind, pbt has it go on from what leads; default: asha",
    )
    arguments = parser.parse_args()
    sys.exit(run_reporting_errors(lambda: _tune(arguments)))


def search_space(overrides: Sequence[str]) -> tuple[list[str], Space]:
    """Part what is typed into what all trials have and what is searched.

    Returns:
        The overrides of all, and Tune's search space by key.

    Raises:
        ConfigError: Something that Hydra cannot read, or Tune not search.
    """
    from ray import tune

    space: Space = {}
    fixed = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_override(text)
        except HydraException as e:
            raise ConfigError(f"{text}: not an override Hydra can read (KEY=VALUE)") from e
        key = override.get_key_element()
        if key.lstrip("+~").partition(".")[0].partition("/")[0] == "hydra":
            raise ConfigError(f"{text}: Ray Tune has the place of Hydra's launcher and sweeper")
        if not override.is_sweep_override():
            fixed.append(text)
        elif override.value_type in COUNTED:
            space[key] = tune.choice(list(override.sweep_string_iterator()))
        else:
            space[key] = _between(override)
    return fixed, space


def _between(override: Override) -> Any:
    from ray import tune

    interval = override.value()
    if not isinstance(interval, IntervalSweep):
        raise ConfigError(f"{override.input_line}: use choice(), range() or interval()")
    low, high = interval.start, interval.end
    assert low is not None and high is not None  # the grammar has both
    if not -math.inf < low < high < math.inf or ("log" in interval.tags and low <= 0):
        raise ConfigError(f"{override.input_line}: not an interval to search")
    if isinstance(low, int) and isinstance(high, int):
        of_whole = tune.lograndint if "log" in interval.tags else tune.randint
        return of_whole(low, high + 1)
    return (tune.loguniform if "log" in interval.tags else tune.uniform)(low, high)


def _tune(arguments: Any) -> None:
    if importlib.util.find_spec("ray") is None or importlib.util.find_spec("pyarrow") is None:
        raise MissingDependencyError(
            "appo tune: Ray Tune is not installed; install it with: "
            "pip install 'isaac-hydra-ext[ray]'"
        )
    from ray import tune

    from isaac_hydra_ext.cli.tune_trial import Trial, composed, typed_as
    from isaac_hydra_ext.config.checks import as_path
    from isaac_hydra_ext.config.reading import read
    from isaac_hydra_ext.workers.ray_cluster import actor_options, check_room, join

    if arguments.trials < 1 or (arguments.every or 1) < 1:
        raise ConfigError("appo tune: --trials and --every must be at least 1")
    fixed, space = search_space(arguments.overrides)
    if not space:
        raise ConfigError("appo tune: nothing to search; e.g. 'ppo.lr=interval(1e-4, 1e-2)'")
    drawn = {key: domain.sample() for key, domain in space.items()}
    typed = [*fixed, *typed_as(drawn)]
    try:
        config = read(composed(typed), typed).config()
    except HydraException as e:
        raise ConfigError(one_line(e)) from e
    iterations = config.experiment.max_iterations
    trial = Trial(
        overrides=fixed,
        until=iterations,
        every=min(iterations, arguments.every or math.ceil(iterations / 10)),
        output_dir=str(as_path("experiment.output_dir", config.experiment.output_dir)),
    )
    print(join(config.ray.address), flush=True)
    check_room("a trial", 1, config.ray.worker_resources)
    options = actor_options(config.ray.worker_resources)
    bundle = {"cpu": options.pop("num_cpus"), "gpu": options.pop("num_gpus", 0)}
    bundle |= options.pop("resources") | options
    metric = config.experiment.objective
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(_trial, common=trial), bundle),
        param_space=space,
        tune_config=tune.TuneConfig(
            metric=metric,
            mode="max",
            num_samples=arguments.trials,
            scheduler=_scheduler(arguments.scheduler, trial, space),
        ),
        run_config=tune.RunConfig(
            name=config.experiment.name or "tune",
            storage_path=str(Path(trial.output_dir) / "tune"),
            callbacks=[_lines(metric)],
            verbose=0,
        ),
    )
    results = tuner.fit()
    failed = [result for result in results if result.error is not None]
    if len(failed) < len(results):
        best = results.get_best_result(filter_nan_and_inf=True)
        assert best.metrics is not None
        print(f"best: {metric} {best.metrics[metric]:g}, run: {best.metrics['run_dir']}")
        print(f"with: {' '.join(typed_as(best.config or {}))}")
    if failed:
        why = shown(str(failed[0].error).strip().splitlines()[-1], 300)
        raise SweepError(f"{len(failed)} of {len(results)} trials failed; the first: {why}")


def _trial(config: dict[str, Any], common: Any) -> None:
    common(config)


def _scheduler(name: str, trial: Any, space: Space) -> Any:
    from ray.tune import schedulers

    if name == "asha":
        reports = math.ceil(trial.until / trial.every)
        return schedulers.ASHAScheduler(max_t=reports, reduction_factor=3)
    if name == "pbt":
        return schedulers.PopulationBasedTraining(
            time_attr="training_iteration",
            perturbation_interval=1,
            hyperparam_mutations=dict(space),
            synch=True,  # trials are compared where they have trained for as long
            custom_explore_fn=lambda config: _inside(config, space),
        )
    return None


def _inside(config: dict[str, Any], space: Space) -> dict[str, Any]:
    """Keep what PBT has moved inside what was typed."""
    bounded = {key: d for key, d in space.items() if hasattr(d, "upper")}
    top = {
        key: d.upper - 1 if isinstance(config[key], int) else d.upper for key, d in bounded.items()
    }
    return config | {key: min(max(config[key], d.lower), top[key]) for key, d in bounded.items()}


def _lines(metric: str) -> Any:
    """Return a callback that says a line a report."""
    from ray import tune

    from isaac_hydra_ext.cli.tune_trial import typed_as

    class Lines(tune.Callback):
        """A line a report."""

        def on_trial_result(
            self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
        ) -> None:
            settings = " ".join(typed_as(trial.config))
            done, value = result["iterations"], result[metric]
            print(f"trial {trial.trial_id}: {done} iterations, {metric} {value:g}, {settings}")

    return Lines()
