"""One update on a CPU: milliseconds by threads, eager and compiled.

python -m benchmarks.cpu_learner --json benchmarks/results/cpu_learner.json

10 epochs of 4 minibatches, two MLPs, the observations and actions of the tasks they stand for. Each
row is a process of its own. Medians; the start has what compiling takes with nothing cached.
"""

import json
import statistics
import sys
import time
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.common import markdown, run_benchmark, run_module
from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.envs.contract import ActionSpec, EnvSpec, TensorSpec
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.learner.ppo.ppo import PPO
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot

# What: envs, steps, observation, actions, hidden units, activation.
SIZES: dict[str, tuple[int, int, int, int, list[int], str]] = {
    "2,048 samples, 64-64 tanh": (32, 64, 3, 1, [64, 64], "tanh"),
    "2,048 samples, 64-64 elu": (64, 32, 4, 1, [64, 64], "elu"),
    "12,288 samples, 256-128 elu": (512, 24, 48, 12, [256, 128], "elu"),
}
THREADS = (1, 2)
COMPILED = {"eager": "never", "compiled": "always"}


def measure(sizes: dict[str, Any], quick: bool) -> dict[str, Any]:
    """Measure every row in a process of its own."""
    rows = []
    for name in sizes:
        for threads in THREADS:
            for how, compiled in COMPILED.items():
                arguments = ["--one", name, str(threads), compiled, "3" if quick else "30"]
                with TemporaryDirectory() as cache:
                    cold = {"TORCHINDUCTOR_CACHE_DIR": cache}
                    output = run_module("benchmarks.cpu_learner", arguments, cold)
                measured = json.loads(output.splitlines()[-1])
                rows.append({"update": name, "threads": threads, "how": how} | measured)
                print(rows[-1], flush=True)
    return {"rows": rows}


def measure_one(name: str, threads: int, compiled: str, times: int) -> dict[str, float]:
    """Measure one row in this process."""
    torch.set_num_threads(threads)
    num_envs, steps, obs, actions, hidden, activation = SIZES[name]
    config = load_run_config(
        {
            "experiment": {"device": "cpu", "output_dir": "."},
            "env": {"id": "Pendulum-v1"},
            "rollout": {"num_workers": 0, "envs_per_worker": num_envs, "steps_per_env": steps},
            "policy": {"hidden_dims": hidden, "activation": activation, "normalize_obs": True},
            "ppo": {"update_epochs": 10, "num_mini_batches": 4, "compile": compiled},
        }
    )
    complete(config, num_envs, [])
    spec = EnvSpec(
        num_envs=num_envs,
        obs={"policy": TensorSpec((obs,), "float32")},
        action=ActionSpec("continuous", actions, (-1e9,) * actions, (1e9,) * actions),
        step_dt=0.05,
        max_episode_length=200,
        has_final_obs=False,
    )
    started = time.monotonic()
    learner = PPO(config, spec, torch.device("cpu"))
    learner.capture()
    start_up = time.monotonic() - started
    slot = Slot.allocate(SlotLayout(spec, steps, torch.float32), "cpu")
    for tensor in (*slot.obs.values(), slot.reward_TB, slot.action_TBA):
        tensor.normal_()
    for flags in (slot.terminated_TB, slot.truncated_TB, slot.dropped_B):
        flags.fill_(False)
    slot.behavior_log_prob_TB.fill_(-1.0)
    taken = []
    for _ in range(times + 2):
        started = time.perf_counter()
        learner.load([slot])
        learner.update(0)
        taken.append(time.perf_counter() - started)
    return {"ms": round(1e3 * statistics.median(taken[2:]), 1), "start_up_s": round(start_up, 1)}


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    header = ("update", "threads", "how", "ms", "start, s")
    keys = ("update", "threads", "how", "ms", "start_up_s")
    return markdown(header, [[row[key] for key in keys] for row in results["rows"]])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one, cores, mode, count = sys.argv[2:]
        print(json.dumps(measure_one(one, int(cores), mode, int(count))))
    else:
        run_benchmark(__doc__ or "", SIZES, measure, render)
