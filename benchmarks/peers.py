"""The same task, network, samples and hyper-parameters with other packages' PPO, on the CPU.

python -m benchmarks.peer_venvs .venvs
python -m benchmarks.peers --venvs .venvs --cleanrl CHECKOUT --json benchmarks/results/peers.json

Every trainer is given the same logged env (`benchmarks/peer_env.py`), and only its log is read:
steps/s, and when the mean return of the last 100 finished episodes first reaches the threshold.
Time begins with the first env step, samples are those of finished episodes, and the first episode
of an env does not count, for all alike. Seeds are the outer loop, so that trainers alternate.
rsl_rl has no discrete actions and wants a simulator's tensors: `benchmarks.go1_reward` and
`benchmarks.mjlab_cartpole` have it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import deque
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.common import REPOSITORY, TRAINING_TIMEOUT_S, markdown, run_benchmark
from benchmarks.peer_venvs import REQUIREMENTS

SEEDS = (1, 2, 3)
WINDOW = 100
OURS = {"isaac_hydra_ext, W = 2": 2, "isaac_hydra_ext, W = 1": 1}
COMMON = {
    "num_envs": 32,
    "steps": 64,
    "minibatches": 4,
    "epochs": 10,
    "lam": 0.95,
    "clip": 0.2,
    "value_coef": 0.5,
    "max_grad_norm": 0.5,
    "lr": 5e-4,  # constant: Sample Factory knows no linear schedule
    "hidden": [64, 64],  # tanh; CleanRL knows no other
}
TASKS: dict[str, dict[str, Any]] = {
    "Pendulum-v1": {
        **COMMON,
        "env_id": "benchmarks.peer_env:LoggedPendulum-v1",
        "continuous": True,
        "gamma": 0.95,
        "total_steps": 307_200,
        "threshold": -200.0,
    },
    "CartPole-v1": {
        **COMMON,
        "env_id": "benchmarks.peer_env:LoggedCartPole-v1",
        "continuous": False,
        "gamma": 0.99,
        "total_steps": 307_200,
        "threshold": 450.0,
    },
}


def measure(
    tasks: dict[str, dict[str, Any]], quick: bool, venvs: Path, cleanrl: Path | None
) -> dict[str, Any]:
    """Train every task with every trainer and seed."""
    seeds, rows = SEEDS[:1] if quick else SEEDS, []
    gaps = [name for name in REQUIREMENTS if not (venvs / name / "bin" / "python").exists()]
    if cleanrl is None and "cleanrl" not in gaps:
        gaps.append("cleanrl")
    for name, task in tasks.items():
        for seed in seeds:
            for trainer in (*OURS, *(peer for peer in REQUIREMENTS if peer not in gaps)):
                settings = {**task, "seed": seed, "cleanrl": str(cleanrl)}
                if quick:
                    settings["total_steps"] = 4 * task["num_envs"] * task["steps"]
                row = {"task": name, "trainer": trainer, "seed": seed}
                rows.append(row | _measure_run(trainer, settings, venvs))
                print(rows[-1], flush=True)
    return {"tasks": tasks, "gaps": gaps, "rows": rows}


def _measure_run(trainer: str, settings: dict[str, Any], venvs: Path) -> dict[str, Any]:
    with TemporaryDirectory() as directory:
        log = Path(directory) / "episodes"
        if trainer in OURS:
            command = [sys.executable, "-m", "isaac_hydra_ext.appo_runner"]
            command += _overrides(settings, OURS[trainer], directory)
        else:
            settings = {**settings, "directory": directory}
            command = [str(venvs / trainer / "bin" / "python"), "-m", "benchmarks.peer_trainers"]
            command += [trainer, "--settings", json.dumps(settings)]
        env = {**os.environ, "PEER_LOG": str(log), "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=env,
            capture_output=True,
            text=True,
            timeout=TRAINING_TIMEOUT_S,
        )
        if done.returncode:
            return {"failed": (done.stdout + done.stderr)[-1000:]}
        return read_log(log.read_text(), settings["threshold"], settings["num_envs"])


def _overrides(s: dict[str, Any], workers: int, directory: str) -> list[str]:
    """Say the settings in our words; those that peers do not have are ours."""
    module, env_id = s["env_id"].split(":")
    return [
        "env=gym_any",
        f"env.id={env_id}",
        f"env.imports=[{module}]",
        f"experiment.output_dir={directory}",
        "experiment.name=peers",
        f"experiment.seed={s['seed']}",
        "experiment.device=cpu",
        f"experiment.max_env_steps={s['total_steps']}",
        "experiment.max_iterations=1000000",
        f"rollout.num_workers={workers}",
        f"rollout.envs_per_worker={s['num_envs'] // workers}",
        f"rollout.steps_per_env={s['steps']}",
        f"ppo.update_epochs={s['epochs']}",
        f"ppo.num_mini_batches={s['minibatches']}",
        f"ppo.gamma={s['gamma']}",
        f"ppo.lam={s['lam']}",
        f"ppo.clip={s['clip']}",
        f"ppo.lr={s['lr']}",
        "ppo.lr_schedule=fixed",
        "ppo.entropy_coef=0",
        "ppo.value_clip=null",
        f"ppo.value_coef={s['value_coef']}",
        f"ppo.max_grad_norm={s['max_grad_norm']}",
        "ppo.compile=always",  # before the first env step, as everybody's start
        f"policy.hidden_dims={s['hidden']}",
        "policy.activation=tanh",
        "policy.normalize_values=true",
        "logging.console=quiet",
    ]


def read_log(text: str, threshold: float, num_envs: int) -> dict[str, Any]:
    """Read what the envs noted.

    Args:
        text: Lines of `benchmarks.peer_env`.
        threshold: Of the mean return of the last 100 finished episodes.
        num_envs: So many episodes, the first of each env, may begin at a random time.

    Returns:
        Steps/s; seconds and samples to the threshold, None if it is not reached; the last mean.
    """
    lines = [line.split() for line in text.splitlines()]
    start = min(float(line[1]) for line in lines if line[0] == "start")
    episodes = sorted((float(t), float(r), int(n)) for kind, t, r, n in _whole(lines))
    samples, window, reached = 0, deque(maxlen=WINDOW), None
    for index, (at, value, length) in enumerate(episodes):
        samples += length
        if index < num_envs:
            continue
        window.append(value)
        if reached is None and len(window) == WINDOW and statistics.fmean(window) >= threshold:
            reached = (at - start, samples)
    seconds = episodes[-1][0] - start
    return {
        "steps_per_s": samples / seconds,
        "seconds": seconds,
        "samples": samples,
        "threshold_s": reached[0] if reached else None,
        "threshold_samples": reached[1] if reached else None,
        "last_mean": statistics.fmean(window) if window else None,
    }


def _whole(lines: list[list[str]]) -> list[list[str]]:
    """Return the episodes' lines; a process killed at its end may leave a part of one."""
    return [line for line in lines if line[0] == "episode" and len(line) == 4]


def render(results: dict[str, Any]) -> str:
    """Return medians a trainer, and every run."""
    header = ("task", "trainer", "steps/s", "of the best peer", "samples to it", "seconds to it")
    table, runs = [], []
    for name, task in results["tasks"].items():
        rows = [row for row in results["rows"] if row["task"] == name and "failed" not in row]
        trainers = list(dict.fromkeys(row["trainer"] for row in rows))
        rate = {
            t: statistics.median(r["steps_per_s"] for r in rows if r["trainer"] == t)
            for t in trainers
        }
        best = max((rate[t] for t in trainers if t not in OURS), default=None)
        for trainer in trainers:
            own = [row for row in rows if row["trainer"] == trainer]
            shown = [_median(own, key) for key in ("threshold_samples", "threshold_s")]
            share = f"{rate[trainer] / best:.2f}" if best else "-"
            label = f"{name}, {task['threshold']:g}"
            table.append((label, trainer, f"{rate[trainer]:,.0f}", share, *shown))
            for row in own:
                single = [_median([row], key) for key in ("threshold_samples", "threshold_s")]
                mean = "-" if row["last_mean"] is None else f"{row['last_mean']:.1f}"
                rate_shown = f"{row['steps_per_s']:,.0f}"
                runs.append((name, trainer, row["seed"], rate_shown, *single, mean))
    run_header = ("task", "trainer", "seed", "steps/s", "samples to it", "seconds to it", "at end")
    failed = [f"{r['trainer']} ({r['task']}, seed {r['seed']})" for r in _failed(results)]
    gaps = f"Not installed: {', '.join(results['gaps']) or 'none'}."
    failures = f"Failed: {', '.join(failed) or 'none'}."
    return "\n\n".join([markdown(header, table), markdown(run_header, runs), gaps, failures])


def _failed(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in results["rows"] if "failed" in row]


def _median(rows: list[dict[str, Any]], key: str) -> str:
    """Return the median over seeds; a seed that never got there is beyond all others."""
    values = sorted(float("inf") if row[key] is None else row[key] for row in rows)
    middle = values[len(values) // 2]
    if middle == float("inf"):
        return "never"
    return f"{middle:,.0f}" if key.endswith("samples") else f"{middle:.1f}"


if __name__ == "__main__":
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--venvs", type=Path, required=True)
    options.add_argument("--cleanrl", type=Path)
    known, sys.argv[1:] = options.parse_known_args()
    run_benchmark(
        __doc__ or "",
        TASKS,
        lambda tasks, quick: measure(tasks, quick, known.venvs.absolute(), known.cleanrl),
        render,
    )
