"""Hydra's multirun: each job a process of its own, whose end says what becomes of the sweep."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from isaac_hydra_ext.cli.main import _quoted_run
from isaac_hydra_ext.cli.sweep_results import MAX_LABEL, label
from isaac_hydra_ext.config.checks import SAFE_NAME

Command = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]
TINY = (
    "experiment.max_iterations=2", "experiment.device=cpu", "experiment.name=study",
    "rollout.num_workers=0", "rollout.envs_per_worker=2", "rollout.steps_per_env=8",
)  # fmt: skip
EPISODES = ("experiment.max_iterations=4", "rollout.steps_per_env=128",
            "rollout.init_at_random_ep_len=false")  # fmt: skip
WITNESS = """
import os
from pathlib import Path

with Path(__file__).with_name("pids").open("a") as file:
    file.write(f"{os.getppid()} {os.getpid()}\\n")
"""
with_plugin = {
    name: pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is missing")
    for name in ("joblib", "optuna")
}


def runs_of(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "logs" / "study").iterdir())


def job_lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    return sorted(line for line in done.stdout.splitlines() if line.startswith("job "))


def pids(tmp_path: Path) -> list[tuple[int, int]]:
    lines = (tmp_path / "pids").read_text().splitlines()
    return [(int(a), int(b)) for a, b in (line.split() for line in lines)]


def test_each_job_is_a_process_and_a_run_of_its_own(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "witness.py").write_text(WITNESS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    done = command(*TINY, *EPISODES, "env.imports=[witness]", "ppo.lr=1e-3,3e-4", "-m")
    assert done.returncode == 0, done.stderr
    runs = runs_of(tmp_path)
    settings = [OmegaConf.load(run / "params" / "agent.yaml") for run in runs]
    assert [s.ppo.lr for s in settings] == [1e-3, 3e-4]
    for run, lr in zip(runs, ("0.001", "0.0003"), strict=True):
        assert f"ppo.lr={lr}" in OmegaConf.load(run / ".hydra" / "overrides.yaml")
        assert OmegaConf.load(run / ".hydra" / "hydra.yaml").hydra.mode == "MULTIRUN"
        assert json.loads((run / "summary.json").read_text())["status"] == "completed"
    (first, one), (second, other) = pids(tmp_path)  # W = 0: the learner has imported it
    assert first == second and len({first, one, other}) == 3
    said = job_lines(done)
    assert len(said) == 4 and said[1] == "job 0: ppo.lr=0.001"
    summary = json.loads((runs[0] / "summary.json").read_text())
    assert said[0] == f"job 0: mean_return {summary['mean_return']}, run: {runs[0]}"
    assert [run.name.partition("_ppo")[2] for run in runs] == [".lr=0.001", ".lr=0.0003"]
    table = done.stdout[done.stdout.index("jobs, highest mean_return first") :].splitlines()
    assert " ".join(table[2].split()) == "job lr status mean return best iterations time"
    rows = [line.split() for line in table[4:6]]
    returns = [json.loads((run / "summary.json").read_text())["mean_return"] for run in runs]
    best = max((0, 1), key=lambda job: returns[job])
    assert [row[:3] for row in rows] == [
        [str(job), str(settings[job].ppo.lr), "completed"] for job in (best, 1 - best)
    ]
    assert [row[3] for row in rows] == [f"{x:,.2f}" for x in sorted(returns, reverse=True)]


def test_a_job_that_fails_takes_no_other_along(command: Command, tmp_path: Path) -> None:
    done = command(*TINY, "env=gym_any", "env.id=Nowhere-v0,Pendulum-v1", "-m")
    assert done.returncode == 1
    failed, completed = sorted(re.findall(r"^  \d  .*(?:failed|completed).*", done.stdout, re.M))
    assert failed.split() == ["0", "Nowhere-v0", "failed", "-", "-"]
    assert completed.split()[:3] == ["1", "Pendulum-v1", "completed"]
    assert len(runs_of(tmp_path)) == 1, "the second ran"
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 and "Nowhere-v0" in errors[0], "the job's own, and the sweep's"
    assert re.match(r"error: job 0 \(.*env.id=Nowhere-v0.*\) failed with exit code 2", errors[1])
    assert "Traceback" not in done.stderr


def test_a_sweep_whose_jobs_all_fail_to_start_leaves_nothing(
    command: Command, tmp_path: Path
) -> None:
    done = command(*TINY, "env=gym_any", "env.id=Nowhere-v0", "experiment.seed=1,2", "-m")
    assert done.returncode == 1 and "jobs, highest" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_a_sweep_is_resumed_by_its_path(tmp_path: Path) -> None:
    run = tmp_path / "2026-12-01_12-00-00_ppo.lr=0.001"
    run.mkdir()
    assert _quoted_run(f"resume={run}") == f"resume='{run}'"
    override = OverridesParser.create().parse_override(_quoted_run(f"++resume={run}"))
    assert override.value() == str(run)
    for word in ("resume=latest", f"resume='{run}'", "ppo.lr=1e-3", "resume=no=such", "-m"):
        assert _quoted_run(word) == word


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({}, ""),
        ({"ppo.lr": "1e-3", "experiment.seed": "12"}, "ppo.lr=0.001_experiment.seed=12"),
        ({"ppo.lr": "0.00123456789", "ppo.clip": "-0.5"}, "ppo.lr=0.001235_ppo.clip=-0.5"),
        ({"policy.hidden_dims": "[64, 64]"}, "policy.hidden_dims=64-64"),
        ({"env": "gym_cartpole", "env.id": "a/../b\u00fc c"}, "env=gym-cartpole_env.id=a-..-b-c"),
        ({"experiment.name": "x", "ppo.value_clip": "null"}, "ppo.value_clip=null"),
        ({"ppo.lr": "'quoted'"}, "ppo.lr=quoted"),
    ],
)
def test_the_name_of_a_job_is_short_and_safe(values: dict[str, str], name: str) -> None:
    assert label(values) == name
    assert all(c in SAFE_NAME for c in label(values))


def test_the_name_of_a_job_has_an_end() -> None:
    assert len(label({f"ppo.knob_{i}": str(i) for i in range(100)})) == MAX_LABEL


def test_the_objective_is_refused_before_anything_runs(command: Command, tmp_path: Path) -> None:
    done = command(*TINY, "experiment.objective=mean_retrun")
    assert done.returncode == 2
    assert "did you mean 'mean_return'" in done.stderr
    assert not (tmp_path / "logs").exists()


@with_plugin["joblib"]
def test_jobs_beside_each_other(command: Command, tmp_path: Path) -> None:
    done = command(
        *TINY,
        "experiment.seed=1,2,3",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
        "-m",
    )
    assert done.returncode == 0, done.stderr
    settings = [OmegaConf.load(run / "params" / "agent.yaml") for run in runs_of(tmp_path)]
    assert sorted(s.experiment.seed for s in settings) == [1, 2, 3]
    assert len(job_lines(done)) == 6 and "left running" not in done.stderr
    assert "jobs, highest mean_return first" in done.stdout
    assert "iteration 1/" not in done.stdout, "three tables on one terminal"


@pytest.mark.parametrize("swept", [(), ("ppo.lr=1e-3,3e-4", "-m")], ids=["run", "sweep"])
def test_group_files_of_ones_own_hold_what_differs_and_no_more(
    swept: tuple[str, ...], tmp_path: Path
) -> None:
    for group, text in (
        ("experiment", "name: study\nmax_iterations: 1\n"),
        ("logging", "backends: [csv]\n"),
        ("rollout", "num_workers: 0\nenvs_per_worker: 2\nsteps_per_env: 8\n"),
    ):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "mine.yaml").write_text(text)
    line = [sys.executable, "-m", "isaac_hydra_ext.appo_runner", "experiment=mine", "logging=mine"]
    line += ["rollout=mine", *swept, "--config-dir", "conf"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    runs = sorted((tmp_path / "logs" / "appo" / "study").iterdir())
    assert len(runs) == (2 if swept else 1)
    for run in runs:
        assert json.loads((run / "summary.json").read_text())["status"] == "completed"
    assert f"run: {runs[0]}" in done.stdout


@with_plugin["joblib"]
def test_a_job_that_fails_beside_others(command: Command, tmp_path: Path) -> None:
    done = command(
        *TINY, "env=gym_any", "env.id=Nowhere-v0,Pendulum-v1", "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2", "-m",
    )  # fmt: skip
    assert done.returncode == 1
    assert len(runs_of(tmp_path)) == 1
    assert "failed with exit code 2" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@with_plugin["optuna"]
def test_optuna_gets_the_objective(command: Command, tmp_path: Path) -> None:
    done = command(
        *TINY, *EPISODES, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=2",
        "hydra.sweeper.n_jobs=1", "hydra.sweeper.direction=maximize",
        "ppo.lr=tag(log, interval(1e-4, 1e-2))", "experiment.objective=best_return", "-m",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summaries = [json.loads((run / "summary.json").read_text()) for run in runs_of(tmp_path)]
    (results,) = (tmp_path / "logs" / "multirun").glob("*/optimization_results.yaml")
    assert OmegaConf.load(results).best_value == max(s["best_return"] for s in summaries)


@with_plugin["optuna"]
def test_a_trial_without_an_episode_says_so(command: Command) -> None:
    done = command(
        *TINY, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=1", "hydra.sweeper.n_jobs=1",
        "ppo.lr=interval(1e-4, 1e-2)", "-m",
    )  # fmt: skip
    assert done.returncode == 1
    assert "has no mean_return, as no episode ended" in done.stderr.splitlines()[-1]


@pytest.mark.skipif(importlib.util.find_spec("optuna") is not None, reason="Optuna is here")
def test_a_plugin_that_is_not_installed_is_named_with_its_extra(command: Command) -> None:
    done = command("hydra/sweeper=optuna", "-m")
    assert done.returncode == 2
    assert done.stderr == (
        "error: hydra/sweeper=optuna: install it with: pip install 'isaac-hydra-ext[sweep]'\n"
    )


def test_the_example_study_composes(command: Command, tmp_path: Path) -> None:
    study = ROOT / "examples" / "sweep_pendulum"
    done = command(
        *TINY, "experiment.seed=1",
        "-m", "--config-dir", str(study), "--config-name", "pendulum_lr",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    settings = [OmegaConf.load(run / "params" / "agent.yaml") for run in runs_of(tmp_path)]
    assert [s.ppo.lr for s in settings] == [1e-4, 5e-4, 2e-3]
