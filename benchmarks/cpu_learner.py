"""One update on a CPU: milliseconds by threads, eager and compiled.

python -m benchmarks.cpu_learner --json benchmarks/results/cpu_learner.json

10 epochs of 4 minibatches, two MLPs, the observations and actions of the tasks they stand for. Each
row is a process of its own. Medians; the start has what compiling takes with nothing cached. The
learning rate is small, so that the samples go on being such as the policy would give.

With `--baseline REV` it is the eager update on one thread, in turns with that commit's: both
processes stay, and each makes a few updates while the other waits. The ratio is the median of the
turns' own. Operations are all events of PyTorch's profiler, an update's divided by its steps.
"""

import json
import statistics
import sys
import time
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.baseline import Build, builds
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
TURNS, TURN_S = 60, 0.3


def measure(sizes: dict[str, Any], quick: bool, baseline: str | None) -> dict[str, Any]:
    """Measure every row in a process of its own."""
    if baseline is not None:
        with builds(baseline) as both:
            rows = [_in_turns(name, both, 3 if quick else TURNS) for name in sizes]
        return {"baseline": both[0].name, "rows": rows}
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


def _in_turns(name: str, both: list[Build], turns: int) -> dict[str, Any]:
    """Let both builds make updates by turns."""
    processes = [build.start("benchmarks.cpu_learner", ["--turns", name]) for build in both]

    def ask(index: int, updates: int) -> list[float]:
        pipe = processes[index]
        assert pipe.stdin is not None and pipe.stdout is not None
        pipe.stdin.write(f"{updates}\n")
        pipe.stdin.flush()
        return json.loads(pipe.stdout.readline())

    try:
        first = [ask(index, 1) for index in range(2)]
        updates = max(1, round(TURN_S / (first[0][0] / 1e3)))
        taken = [[ask(index, updates)[0] for index in range(2)] for _ in range(turns)]
    finally:
        for process in processes:
            process.communicate()
    low, middle, high = statistics.quantiles([old / new for old, new in taken], n=4)
    row = {
        "update": name,
        "old_ms": round(statistics.median(old for old, _ in taken), 1),
        "new_ms": round(statistics.median(new for _, new in taken), 1),
        "ratio": round(middle, 3),
        "ratio_middle_half": [round(low, 3), round(high, 3)],
        "old_operations": round(first[0][1]),
        "new_operations": round(first[1][1]),
        "turns": turns,
    }
    print(row, flush=True)
    return row


def answer_turns(name: str) -> None:
    """Make as many updates as each line of stdin says; print ms of one, and operations a step."""
    learner, slot, _ = _learner(name, 1, "never")
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        learner.load([slot])
        steps = learner.update(0)["Loss/minibatch_steps"]
    operations = len(profiled.events() or []) / steps
    for line in sys.stdin:
        started = time.perf_counter()
        for _ in range(int(line)):
            learner.load([slot])
            learner.update(0)
        ms = 1e3 * (time.perf_counter() - started) / int(line)
        print(json.dumps([ms, operations]), flush=True)


def measure_one(name: str, threads: int, compiled: str, times: int) -> dict[str, float]:
    """Measure one row in this process."""
    learner, slot, start_up = _learner(name, threads, compiled)
    taken = []
    for _ in range(times + 2):
        started = time.perf_counter()
        learner.load([slot])
        learner.update(0)
        taken.append(time.perf_counter() - started)
    return {"ms": round(1e3 * statistics.median(taken[2:]), 1), "start_up_s": round(start_up, 1)}


def _learner(name: str, threads: int, compiled: str) -> tuple[PPO, Slot, float]:
    """Return a learner, a rollout for it, and what making it took [s]."""
    torch.set_num_threads(threads)
    num_envs, steps, obs, actions, hidden, activation = SIZES[name]
    config = load_run_config(
        {
            "experiment": {"device": "cpu", "output_dir": "."},
            "env": {"id": "Pendulum-v1"},
            "rollout": {"num_workers": 0, "envs_per_worker": num_envs, "steps_per_env": steps},
            "policy": {"hidden_dims": hidden, "activation": activation, "normalize_obs": True},
            "ppo": {
                **{"update_epochs": 10, "num_mini_batches": 4, "compile": compiled},
                **{"lr": 1e-5, "desired_kl": 1e-9},
            },
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
    return learner, slot, start_up


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    header = ("update", "threads", "how", "ms", "start, s")
    keys = ("update", "threads", "how", "ms", "start_up_s")
    if old := results.get("baseline"):
        header = ("update", f"{old}, ms", "new, ms", "ratio", "middle half", "operations", "new")
        keys = ("update", "old_ms", "new_ms", "ratio", "ratio_middle_half")
        keys = (*keys, "old_operations", "new_operations")
    return markdown(header, [[row[key] for key in keys] for row in results["rows"]])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one, cores, mode, count = sys.argv[2:]
        print(json.dumps(measure_one(one, int(cores), mode, int(count))))
    elif sys.argv[1:2] == ["--turns"]:
        answer_turns(sys.argv[2])
    else:
        run_benchmark(__doc__ or "", SIZES, measure, render, takes_baseline=True)
