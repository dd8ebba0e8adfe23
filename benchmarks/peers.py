"""The same task, network, samples and hyper-parameters with other packages' PPO, on the CPU.

python -m benchmarks.peer_venvs .venvs
python -m benchmarks.peers --venvs .venvs --cleanrl CHECKOUT --json benchmarks/results/peers.json

Every trainer is given the same logged env (`benchmarks/peer_env.py`), and only its log is read:
steps/s, and when the mean return of the last 100 finished episodes first reaches the threshold.
Time begins with the first env step; what the command took until then (imports, processes,
compiling) is noted too. Envs advance together, so samples are their number times the steps of the
one that is furthest. The first episode of an env does not count: where it began is a trainer's
choice. Seeds are the outer loop, so that trainers alternate. rsl_rl has no discrete actions and
wants a simulator's tensors: here it has the tasks that need a memory, whose action is a number's
sign; `benchmarks.go1_reward` and `benchmarks.mjlab_cartpole` have it too. There *CPU s* is the
processor time of a command and all its processes per 100,000 samples, imports included: it depends
less on what else a machine does.
"""

import argparse
import hashlib
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.common import REPOSITORY, TRAINING_TIMEOUT_S, markdown, run_benchmark
from benchmarks.peer_venvs import REQUIREMENTS

SEEDS = (11, 12, 13)  # not those that our Pendulum's learning rate was chosen with
WINDOW = 100
OURS = {  # W, and ppo.compile
    "isaac_hydra_ext, W = 2": (2, "auto"),
    "isaac_hydra_ext, W = 1": (1, "auto"),
    "isaac_hydra_ext, W = 1, compiled": (1, "always"),
}
WITHOUT_MEMORY = ("stable_baselines3", "cleanrl", "sample_factory", "torchrl")
WITH_MEMORY = ("isaac_hydra_ext, W = 1", "sb3_contrib", "rsl_rl")
ASKED_VERSIONS = ("torch", "numpy", "gymnasium", "rsl-rl-lib")
ASKED_VERSIONS += tuple(name.replace("_", "-") for name in REQUIREMENTS)
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
COLUMNS = {  # of the tables: key of a row, format
    "steps/s": ("steps_per_s", ",.0f"),
    "samples to it": ("threshold_samples", ",.0f"),
    "seconds to it": ("threshold_s", ".1f"),
    "with the start": ("from_command_s", ".1f"),
    "CPU s": ("cpu_s_per_100k", ".1f"),
    "last 100 episodes": ("last_mean", ".4g"),
}
MEMORY = {
    **COMMON,
    "trainers": WITH_MEMORY,
    "continuous": True,
    "memory": 64,  # units of an LSTM before the hidden layer, of actor and critic each
    "hidden": [64],
    "gamma": 0.99,
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
    "CartPole without velocities": {
        **MEMORY,
        "env_id": "benchmarks.peer_env:LoggedMaskedCartPole-v0",
        "num_envs": 16,
        "steps": 128,
        "lr": 1e-3,
        "total_steps": 163_840,
        "threshold": 450.0,
    },
    "T-maze of length 20": {
        **MEMORY,
        "env_id": "benchmarks.peer_env:LoggedTMaze-v0",
        "lr": 3e-3,
        "total_steps": 61_440,
        "threshold": 0.95,
    },
}


def measure(
    tasks: dict[str, dict[str, Any]], quick: bool, venvs: Path, cleanrl: Path | None
) -> dict[str, Any]:
    """Train every task with every trainer and seed."""
    seeds, rows = SEEDS[:1] if quick else SEEDS, []
    asked = {peer for task in tasks.values() for peer in task.get("trainers", WITHOUT_MEMORY)}
    asked &= REQUIREMENTS.keys()
    installed = [name for name in REQUIREMENTS if (venvs / name / "bin" / "python").exists()]
    if cleanrl is None and "cleanrl" in installed:
        installed.remove("cleanrl")
    gaps = sorted(asked - {*installed})
    for name, task in tasks.items():
        for seed in seeds:
            for trainer in task.get("trainers", (*OURS, *WITHOUT_MEMORY)):
                if trainer in gaps:
                    continue
                settings = {**task, "seed": seed, "cleanrl": str(cleanrl)}
                if quick:
                    settings["total_steps"] = 4 * task["num_envs"] * task["steps"]
                row = {"task": name, "trainer": trainer, "seed": seed}
                rows.append(row | _measure_run(trainer, settings, venvs))
                print(rows[-1], flush=True)
    peers = {name: _versions(venvs / name) for name in installed if name in asked}
    if cleanrl is not None and "cleanrl" in peers:
        files = sorted((cleanrl / "cleanrl").glob("ppo*.py"))
        wanted = [file for file in files if file.name in ("ppo.py", "ppo_continuous_action.py")]
        peers["cleanrl"] |= {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in wanted}
    return {"tasks": tasks, "gaps": gaps, "peers": peers, "rows": rows}


def _versions(venv: Path) -> dict[str, str]:
    """Return what of `ASKED_VERSIONS` a peer's environment has."""
    code = "import sys, json; from importlib.metadata import distributions as d; "
    code += "found = {x.name.replace('_', '-'): x.version for x in d()}; "
    code += "print(json.dumps({n: found[n] for n in sys.argv if n in found}))"
    command = [str(venv / "bin" / "python"), "-c", code, *ASKED_VERSIONS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def _measure_run(trainer: str, settings: dict[str, Any], venvs: Path) -> dict[str, Any]:
    with TemporaryDirectory() as directory:
        log = Path(directory) / "episodes"
        if trainer in OURS:
            command = [sys.executable, "-m", "isaac_hydra_ext.appo_runner"]
            command += _overrides(settings, *OURS[trainer], directory)
        else:
            settings = {**settings, "directory": directory}
            command = [str(venvs / trainer / "bin" / "python"), "-m", "benchmarks.peer_trainers"]
            command += [trainer, "--settings", json.dumps(settings)]
        env = {**os.environ, "PEER_LOG": str(log), "PYTHONPATH": str(REPOSITORY)}
        if "memory" in settings:  # two threads in so small an LSTM wait for each other, under load
            env["OMP_NUM_THREADS"] = "1"
        began, before = time.time(), _cpu_s()
        with (Path(directory) / "output").open("w+") as output:
            process = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=env,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                code = process.wait(TRAINING_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                code = -signal.SIGKILL
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # its own processes too
                    process.wait(60)
            if code:
                output.seek(0)
                return {"failed": f"exit code {code}: {output.read()[-1000:]}"}
        row = read_log(log.read_text(), settings["threshold"], settings["num_envs"], began)
        return {**row, "cpu_s_per_100k": 1e5 * (_cpu_s() - before) / row["samples"]}


def _cpu_s() -> float:
    """Return the processor time of all commands that have ended [s], with what they waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _overrides(s: dict[str, Any], workers: int, compiled: str, directory: str) -> list[str]:
    """Say the settings in our words; those that peers do not have are ours."""
    module, env_id = s["env_id"].split(":")
    memory = s.get("memory")
    remembering = [f"policy.recurrent={{kind: lstm, hidden: {memory}}}"] if memory else []
    return [
        *remembering,
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
        f"ppo.compile={compiled}",
        f"policy.hidden_dims={s['hidden']}",
        "policy.activation=tanh",
        "policy.normalize_values=true",
        "logging.console=quiet",
    ]


def read_log(text: str, threshold: float, num_envs: int, began: float) -> dict[str, Any]:
    """Read what the envs noted.

    Args:
        text: Lines of `benchmarks.peer_env`.
        threshold: Of the mean return of the last 100 finished episodes.
        num_envs: That advance together.
        began: When the command was given [s].

    Returns:
        Steps/s; seconds until the first env step; seconds from there and samples to the threshold,
        None if it is not reached; the last mean.
    """
    lines = [line.split() for line in text.splitlines()]
    start = min(float(line[1]) for line in lines if line[0] == "start")
    episodes = sorted((float(t), float(r), int(n), int(s)) for _, t, r, n, s in _whole(lines))
    furthest, window, reached = 0, deque(maxlen=WINDOW), None
    for at, value, number, steps in episodes:
        furthest = max(furthest, steps)
        if number == 0:
            continue
        window.append(value)
        if reached is None and len(window) == WINDOW and statistics.fmean(window) >= threshold:
            reached = (at - start, furthest * num_envs)
    seconds, samples = episodes[-1][0] - start, furthest * num_envs
    return {
        "steps_per_s": samples / seconds,
        "start_s": start - began,
        "seconds": seconds,
        "samples": samples,
        "threshold_s": reached[0] if reached else None,
        "threshold_samples": reached[1] if reached else None,
        "last_mean": statistics.fmean(window) if window else None,
    }


def _whole(lines: list[list[str]]) -> list[list[str]]:
    """Return the episodes' lines; a process killed at its end may leave a part of one."""
    return [line for line in lines if line[0] == "episode" and len(line) == 5]


def render(results: dict[str, Any]) -> str:
    """Return medians a trainer, and every run."""
    table, runs = [], []
    for name, task in results["tasks"].items():
        rows = [row for row in results["rows"] if row["task"] == name and "failed" not in row]
        for trainer in dict.fromkeys(row["trainer"] for row in rows):
            own = [row for row in rows if row["trainer"] == trainer]
            label = f"{name}, to {task['threshold']:g}"
            table.append((label, trainer, len(own), *(_median(own, c) for c in COLUMNS)))
            runs += [(name, trainer, r["seed"], *(_median([r], c) for c in COLUMNS)) for r in own]
    failed = [row for row in results["rows"] if "failed" in row]
    named = [f"{r['trainer']} ({r['task']}, seed {r['seed']})" for r in failed]
    gaps = f"Not installed: {', '.join(results['gaps']) or 'none'}."
    failures = f"Failed: {', '.join(named) or 'none'}."
    return "\n\n".join(
        [
            markdown(("task", "trainer", "seeds", *COLUMNS), table),
            markdown(("task", "trainer", "seed", *COLUMNS), runs),
            *(gaps, failures),
        ]
    )


def _median(rows: list[dict[str, Any]], column: str) -> str:
    """Return the median over seeds; a seed that never got there is beyond all others."""
    key, form = COLUMNS[column]
    if key == "from_command_s":
        starts = [row["start_s"] for row in rows]
        reached = [row["threshold_s"] for row in rows]
        values = [None if r is None else s + r for s, r in zip(starts, reached, strict=True)]
    else:
        values = [row.get(key) for row in rows]  # older files have no processor time
    found = sorted(float("inf") if value is None else value for value in values)
    middle = found[len(found) // 2]
    if middle == float("inf"):
        return "-" if key == "cpu_s_per_100k" else "not reached"
    return f"{middle:{form}}"


if __name__ == "__main__":
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--venvs", type=Path, required=True)
    options.add_argument("--cleanrl", type=Path)
    known, rest = options.parse_known_args()
    run_benchmark(
        __doc__ or "",
        TASKS,
        lambda tasks, quick: measure(tasks, quick, known.venvs.absolute(), known.cleanrl),
        render,
        argv=rest,
    )
