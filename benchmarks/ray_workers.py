"""Remote workers against local ones: the same W, two Ray nodes on this one machine.

python -m benchmarks.ray_workers --json benchmarks/results/ray_workers.json

Turns of both kinds alternate, so that both see the same machine; the ratio is the median of the
turns' own. Both have a learner of one thread (`rollout.deterministic`), as remote workers share its
cores here, which they would not elsewhere. Of the bytes copied on the learner's node for a rollout,
the relay's are counted by what it copies, Ray's are one write of the same object into the node's
store (none that the network's own buffers do).
"""

import statistics
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.common import markdown, run_benchmark, train
from benchmarks.ray_nodes import ray_nodes
from isaac_hydra_ext.config.placement import available_cores
from isaac_hydra_ext.envs.contract import ActionSpec, EnvSpec, TensorSpec
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.workers.block import BlockPlan
from isaac_hydra_ext.workers.far_block import FarBlock

W, ROUNDS = 2, 7
TASKS: dict[str, list[str]] = {
    "Pendulum": ["env=gym_pendulum", "experiment.max_iterations=200"],
    "mjlab Cartpole": ["env=mjlab_cartpole_balance", "experiment.max_iterations=25"],
}
COMMON = [
    f"rollout.num_workers={W}", "rollout.deterministic=true", "rollout.pin_cores=false",
    "logging.report=false",
]  # fmt: skip


def measure(tasks: dict[str, list[str]], quick: bool) -> dict[str, Any]:
    """Train each task in turns of both kinds."""
    rows = []
    with ray_nodes(2, workers_per_node=1) as nodes:
        for name, task in tasks.items():
            rows.append({"task": name, **_in_turns([*task, *COMMON], nodes.typed, quick)})
            print({k: v for k, v in rows[-1].items() if k != "turns"}, flush=True)
    said = f"both nodes and the learner share one machine of {available_cores()} cores"
    return {
        "workers": W,
        "said": f"{said}; where others use it too, Linux may favour Ray's processes, which are "
        "sessions of their own (sched_autogroup)",
        "rows": rows,
        "bytes_copied_over_rollout": _bytes_copied(),
    }


def _in_turns(task: list[str], on_ray: list[str], quick: bool) -> dict[str, Any]:
    kinds: dict[str, list[str]] = {"local": [], "ray": on_ray}
    more = ["experiment.max_iterations=3"] if quick else []
    turns: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(1 if quick else ROUNDS):
        for kind in kinds if turn % 2 == 0 else reversed(kinds):
            with TemporaryDirectory() as directory:
                run = train([*task, *more, *kinds[kind]], directory)
            turns[kind].append(run.summary["fps"])
            print(kind, round(turns[kind][-1]), flush=True)
    local, ray = (statistics.median(turns[kind]) for kind in kinds)
    pairs = zip(turns["local"], turns["ray"], strict=True)
    ratio = statistics.median(far / near for near, far in pairs)
    return {"local_steps_s": local, "ray_steps_s": ray, "ratio": ratio, "turns": turns}


def _bytes_copied() -> dict[str, float]:
    """Count what the relay copies for one rollout, as it does."""
    obs = {"policy": TensorSpec((48,), "float32")}
    action = ActionSpec("continuous", 12, (-1.0,) * 12, (1.0,) * 12, ())
    spec = EnvSpec(256, obs, action, 0.02, 1000, has_final_obs=True)
    plan = BlockPlan(SlotLayout(spec, 24, torch.float32), 1, 2, 2 * (16 + 4))
    there, here = (FarBlock(plan.numbers(1), np.zeros(plan.nbytes, np.uint8)) for _ in range(2))
    parts = there.rollout(0, 0)
    size = sum(part.nbytes for part in parts)
    relay = here.write_rollout(0, 0, parts) / size
    return {"relay": relay, "ray_store": 1.0, "sum": relay + 1.0}


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    rows = [
        [
            row["task"],
            f"{row['local_steps_s']:,.0f}",
            f"{row['ray_steps_s']:,.0f}",
            f"{row['ratio']:.2f}",
        ]
        for row in results["rows"]
    ]
    return markdown(["task", "local [steps/s]", "Ray [steps/s]", "ratio"], rows)


if __name__ == "__main__":
    run_benchmark(__doc__ or "", TASKS, measure, render)
