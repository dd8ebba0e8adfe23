r"""Isaac Lab's training command line over the same run.

    ./isaaclab.sh -p -m isaac_hydra_ext.scripts.reinforcement_learning.appo.train \
        --task Isaac-Velocity-Flat-Unitree-Go1-v0 --num_envs 512 --headless

Flags are turned into Hydra overrides, which come last and therefore win. Runs in the learner's
process; with `--list_tasks` nothing else does.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig

from isaac_hydra_ext.cli.explain import asked_for, explain_task, strip_flags
from isaac_hydra_ext.cli.hydra_task import run_from_hydra
from isaac_hydra_ext.cli.main import end_process, run_hydra_app, run_reporting_errors
from isaac_hydra_ext.config.placement import auto_workers
from isaac_hydra_ext.config.schema import ExperimentConfig
from isaac_hydra_ext.config.seat import launched_seat
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.scripts.reinforcement_learning.appo.flags import (
    Parser,
    hydra_tokens,
    imports_asked,
    quoted,
    shared_overrides,
    value_of,
)
from isaac_hydra_ext.scripts.reinforcement_learning.appo.runs import choose_checkpoint
from isaac_hydra_ext.system.streams import prepare_streams
from isaac_hydra_ext.trackers.trackers import HOSTED

MODULE = "isaac_hydra_ext.scripts.reinforcement_learning.appo.train"
DEFAULT_ROOT = ExperimentConfig().output_dir


def make_parser() -> Parser:
    """Return the parser of everything that `train` takes."""
    parser = Parser("train", "Train with APPO. Further arguments are Hydra overrides.")
    parser.add_argument("--num_workers", type=int, help="worker processes; unset: chosen")
    parser.add_argument("--max_iterations", type=int, help="iterations; after a resume: more")
    parser.add_argument("--agent", help="entry of the rsl_rl cfg to start from, or none")
    parser.add_argument("--video_interval", type=int, default=2000, help="[steps]")
    parser.add_argument(
        "--distributed", action="store_true", help="under torchrun: a learner on each GPU"
    )
    parser.add_argument("--experiment_name", help="directory of related runs")
    parser.add_argument("--run_name", help="suffix of the run's directory")
    parser.add_argument("--resume", action="store_true", help="go on from a checkpoint")
    parser.add_argument("--load_run", help="regex of the run's directory name")
    parser.add_argument("--logger", help="tensorboard, csv, wandb, swanlab, or several: a,b")
    parser.add_argument("--log_project_name", help="project there, for wandb and swanlab")
    parser.add_argument("--quiet", action="store_true", help="say only what goes wrong")
    parser.add_argument("--ray-proc-id", "-rid", type=int, help="set by Isaac Lab's Ray tuner")
    parser.add_argument("--export_io_descriptors", action="store_true",
                        help="have a ManagerBased env write them beside its logs")  # fmt: skip
    parser.add_argument("--list_tasks", action="store_true", help="print all task ids and stop")
    parser.add_argument("--keyword", help="with --list_tasks: only ids that contain it")
    parser.add_argument("--show_presets", action="store_true", help="with --list_tasks")
    return parser


def overrides_of(flags: argparse.Namespace, rest: Sequence[str]) -> list[str]:
    """Return the run's overrides: the user's tokens, then the flags.

    Raises:
        ConfigError: Flags that contradict each other, or mean nothing here.
    """
    tokens = hydra_tokens(rest)
    if flags.distributed:
        if launched_seat(os.environ) is None and os.environ.get("WORLD_SIZE") != "1":
            raise ConfigError(
                "--distributed: torchrun starts it: torchrun --nproc_per_node=2 -m "
                f"{MODULE} ...; without it: experiment.devices=[cuda:0,cuda:1]"
            )
        if (flags.device or "").startswith("cuda"):
            flags.device = None  # as in Isaac Lab, each rank has its own
    if not flags.task and value_of("env.task", tokens) is None and value_of("env", tokens) is None:
        raise ConfigError("--task: missing; --list_tasks shows what there is")
    chosen = shared_overrides(flags)
    if value_of("env", tokens) is None:
        chosen.insert(0, "env=isaac_any")
    if flags.agent:
        chosen.append(f"env.agent={quoted(flags.agent)}")
    if flags.experiment_name:
        chosen.append(f"experiment.name={quoted(flags.experiment_name)}")
    run_name = flags.run_name or ""
    if flags.ray_proc_id is not None:
        run_name = f"{run_name or 'ray'}_{flags.ray_proc_id}"
    if run_name:
        chosen.append(f"experiment.run_name={quoted(run_name)}")
    if flags.logger:
        chosen.append(f"logging.backends=[{flags.logger}]")
    if flags.log_project_name:
        chosen += project_overrides(flags.log_project_name, [*tokens, *chosen])
    if flags.export_io_descriptors:
        chosen.append("++env.cfg.export_io_descriptors=true")
    if flags.quiet:
        chosen.append("logging.console=quiet")
    if flags.video:
        chosen.append("++env.launcher.video=true")
        chosen.append(f"++env.launcher.video_length={flags.video_length}")
        chosen.append(f"++env.launcher.video_interval={flags.video_interval}")
    chosen += divided(flags, [*tokens, *chosen])
    return [*tokens, *chosen, *resumed(flags, [*tokens, *chosen])]


def project_overrides(project: str, tokens: Sequence[str]) -> list[str]:
    """Name the project in those trackers that have any.

    Raises:
        ConfigError: None of the chosen ones has.
    """
    backends = value_of("logging.backends", tokens) or ""
    hosted = [name for name in HOSTED if name in backends]
    if not hosted:
        raise ConfigError(
            f"--log_project_name={project}: only wandb and swanlab have projects; say --logger too"
        )
    return [f"logging.{name}.project={quoted(project)}" for name in hosted]


def divided(flags: argparse.Namespace, tokens: Sequence[str]) -> list[str]:
    """Divide `--num_envs`, the total of a rank, over its workers; says so where fewer get any.

    Raises:
        ConfigError: It cannot be divided over the workers that were asked for; names the two
            nearest numbers that can.
    """
    asked = flags.num_workers
    if asked is None and (typed := value_of("rollout.num_workers", tokens)) not in (None, "auto"):
        asked = int(typed) if str(typed).isdigit() else None
    found = [f"rollout.num_workers={flags.num_workers}"] if flags.num_workers is not None else []
    total = flags.num_envs
    if total is None:
        return found
    if total < 1:
        raise ConfigError(f"--num_envs={total}: must be at least 1")
    device = flags.device or value_of("rollout.device", tokens) or "auto"
    if isinstance(device, list):
        device = ",".join(map(str, device))
    learner = value_of("experiment.device", tokens) or "auto"
    seat, devices = launched_seat(os.environ), value_of("experiment.devices", tokens) or []
    ranks = seat.local_size if seat else max(1, len(devices))
    simulating = device.strip("[]'\"")
    wanted = auto_workers(True, simulating, learner, ranks) if asked is None else asked
    workers, why = min(wanted, total), "each needs an env"
    if workers and total % workers:
        below = total - total % workers
        near = f"{below} and {below + workers}"
        if asked is not None:
            raise ConfigError(
                f"--num_envs={total}: not divisible by {workers} workers; {near} are, or choose "
                "--num_workers"
            )
        why = f"{total} envs do not divide among {wanted}; the nearest that do are {near}"
        workers = next(w for w in range(workers, 0, -1) if total % w == 0)
    if workers < wanted:
        print(f"--num_envs={total}: workers {wanted} -> {workers}: {why}", file=sys.stderr)
    collectors = max(1, workers)
    return [f"rollout.num_workers={workers}", f"rollout.envs_per_worker={total // collectors}"]


def resumed(flags: argparse.Namespace, tokens: Sequence[str]) -> list[str]:
    """Turn the flags about resuming, and `--max_iterations`, into overrides.

    Raises:
        ConfigError: Nothing to resume from, or a regex without `--resume`.
    """
    done = 0
    found: list[str] = []
    # In Isaac Lab's own script they name the teacher then, where nothing is resumed.
    of_teacher = "distillation" in (flags.agent or "") and not flags.resume
    if flags.resume or flags.load_run or flags.checkpoint:
        if flags.load_run and not (flags.resume or of_teacher):
            raise ConfigError(f"--load_run={flags.load_run}: needs --resume")
        root = Path(value_of("experiment.output_dir", tokens) or DEFAULT_ROOT).expanduser()
        named = flags.checkpoint and Path(flags.checkpoint).expanduser().exists()
        checkpoint, notes = choose_checkpoint(
            root,
            None if named else task_asked(flags, tokens),
            flags.experiment_name,
            flags.load_run,
            flags.checkpoint,
            regex=flags.resume or of_teacher,
        )
        for note in notes:
            print(note, file=sys.stderr)
        done = 0 if of_teacher else checkpoint.meta["iteration"]
        key = "distillation.teacher" if of_teacher else "resume"
        found.append(f"{key}={quoted(checkpoint.path)}")
    if flags.max_iterations is not None:
        if flags.max_iterations < 1:
            raise ConfigError(f"--max_iterations={flags.max_iterations}: must be at least 1")
        found.append(f"experiment.max_iterations={done + flags.max_iterations}")
    return found


def task_asked(flags: argparse.Namespace, tokens: Sequence[str]) -> str | None:
    """Return the task of the run: of a flag, an override, or the file of `env=`.

    Raises:
        ConfigError: That file cannot be read by itself.
    """
    typed = flags.task or value_of("env.task", tokens)
    if typed:
        return typed
    choice = f"env={value_of('env', tokens)}"
    try:
        with hydra.initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
            env = hydra.compose("train_appo", [choice]).env
    except HydraException as e:
        raise ConfigError(f"{choice}: its task cannot be read here; say --task as well") from e
    return env.get("task") or env.get("id")


def tell_ray(run_dir: Path) -> None:
    """Print the two lines that Isaac Lab's Ray tuner looks for, before anything slow begins."""
    print(f"[INFO] Logging experiment in directory: {run_dir.parent}")
    print(f"Exact experiment name requested from command line: {run_dir.name}", flush=True)


@hydra.main(version_base="1.3", config_path="pkg://isaac_hydra_ext.conf", config_name="train_appo")
def _task(cfg: DictConfig) -> float | None:
    return run_from_hydra(cfg, tell_ray)


@hydra.main(version_base="1.3", config_path="pkg://isaac_hydra_ext.conf", config_name="train_appo")
def _rays_task(cfg: DictConfig) -> float | None:
    """Run a trial of the tuner, which reads the directory that it was told to the end."""
    return run_from_hydra(cfg, tell_ray, lasting=True)


def main() -> None:
    """Run the command line."""
    prepare_streams()
    arguments = sys.argv[1:]
    overrides: list[str] = []
    task = _task

    def parse() -> None:
        nonlocal task
        flags, rest = make_parser().parse(arguments)
        task = _task if flags.ray_proc_id is None else _rays_task
        if flags.list_tasks:
            from isaac_hydra_ext.scripts.reinforcement_learning.appo.task_list import print_tasks

            imports = imports_asked(flags, rest)
            print_tasks(flags.keyword or "", flags.show_presets, imports, flags.device)
        else:
            overrides.extend(overrides_of(flags, rest))

    code = run_reporting_errors(parse)
    if code:
        end_process(code)
    if asked_for(overrides):
        overrides, task = strip_flags(overrides), explain_task
    sys.argv = [sys.argv[0], *overrides]
    end_process(run_hydra_app(task))


if __name__ == "__main__":
    main()
