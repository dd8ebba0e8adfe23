"""One update from pictures: milliseconds and GPU memory, against rsl_rl's CNN in this process.

python -m benchmarks.image_learner --json benchmarks/results/image_learner.json

Sizes, networks and settings of Isaac-Cartpole-Camera-Direct and its rsl_rl cfg (Isaac Lab 3.0.0):
512 envs x 64 steps, 6 x 96 x 96 float32, convolutions of 8-16-16 channels (kernels 5-3-3, stride 2)
and an MLP of 64; a critic of 32-32 on 4 numbers; 4 epochs of 16 minibatches. Ours includes loading
the slot, the proximal pass, the values and the metrics, and goes on to another slot each time where
L = 1; rsl_rl's its returns and its update. The two take turns; medians. Memory is each one's alone.
Where there is no GPU, sizes are tiny and nothing is recorded or compiled: it shows that it works.
"""

import gc
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rsl_rl.algorithms import PPO as RslRlPPO
from rsl_rl.models import CNNModel, MLPModel
from rsl_rl.storage import RolloutStorage
from tensordict import TensorDict

from benchmarks.common import markdown, run_benchmark
from benchmarks.learner import on_filled_storage
from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import ActionSpec, EnvSpec, TensorSpec
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.learner.ppo.ppo import PPO
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda:0" if ON_GPU else "cpu")
# Samples: envs, steps, pixels a side.
SIZES = {"32768": (512, 64, 96)} if ON_GPU else {"32": (8, 4, 40)}
CHANNELS, KERNELS, STRIDES, EPOCHS, MINIBATCHES = [8, 16, 16], [5, 3, 3], [2, 2, 2], 4, 16
# What is measured: precision, torch.compile, CUDA graphs, how pictures are stored, L.
VARIANTS: dict[str, tuple[str, str, bool, str, int]] = {
    "tf32": ("tf32", "always", True, "as_is", 0),
    "bf16": ("bf16", "always", True, "as_is", 0),
    "tf32, L = 1": ("tf32", "always", True, "as_is", 1),
    "tf32, L = 1, in half": ("tf32", "always", True, "float16", 1),
    "bf16, L = 1, in half": ("bf16", "always", True, "float16", 1),
}
ON_CPU: dict[str, tuple[str, str, bool, str, int]] = {
    "fp32": ("fp32", "never", False, "as_is", 0),
    "fp32, L = 1, in half": ("fp32", "never", False, "float16", 1),
}
Trainer = Callable[[], object]


def measure(sizes: dict[str, tuple[int, int, int]], quick: bool) -> dict[str, Any]:
    """Measure every variant: its memory alone, its time in turns with rsl_rl."""
    rows = []
    if not ON_GPU:
        torch.set_num_threads(1)
    for size in sizes.values():
        _, theirs_stored, theirs_peak = _memory_of(lambda size=size: rsl_rl_update(*size))
        for name, variant in (VARIANTS if ON_GPU else ON_CPU).items():
            started = time.monotonic()
            _, stored, peak = _memory_of(lambda v=variant, size=size: our_update(*size, *v))
            start_up = time.monotonic() - started
            ours, theirs = our_update(*size, *variant)[0], rsl_rl_update(*size)[0]
            torch.set_float32_matmul_precision("high")
            ours_ms, theirs_ms = alternate(ours, theirs, 3 if quick or not ON_GPU else 15)
            del ours, theirs
            rows.append(
                {
                    "samples": size[0] * size[1],
                    "variant": name,
                    "ms": round(ours_ms, 2),
                    "rsl_rl_ms": round(theirs_ms, 2),
                    "rollouts_gib": round(stored / 2**30, 3),
                    "rsl_rl_rollouts_gib": round(theirs_stored / 2**30, 3),
                    "peak_gib": round(peak / 2**30, 3),
                    "rsl_rl_peak_gib": round(theirs_peak / 2**30, 3),
                    "start_up_s": round(start_up, 1),
                }
            )
            print(rows[-1], flush=True)
    return {"device": torch.cuda.get_device_name() if ON_GPU else "cpu", "rows": rows}


def _memory_of(make: Callable[[], tuple[Trainer, int]]) -> tuple[None, int, int]:
    """Return what a trainer keeps of rollouts [bytes], and the most that it has reserved."""
    gc.collect()
    if ON_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    trainer, stored = make()
    for _ in range(2):
        trainer()
    peak = torch.cuda.max_memory_reserved() if ON_GPU else 0
    del trainer
    gc.collect()
    return None, stored, peak


def alternate(ours: Trainer, theirs: Trainer, times: int) -> tuple[float, float]:
    """Run both in turns after two warm-ups; returns median milliseconds."""
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(times + 2):
        for function, ms in zip((ours, theirs), taken, strict=True):
            _wait()
            started = time.perf_counter()
            function()
            _wait()
            if turn >= 2:
                ms.append(1e3 * (time.perf_counter() - started))
    return statistics.median(taken[0]), statistics.median(taken[1])


def _wait() -> None:
    if ON_GPU:
        torch.cuda.synchronize()


def our_update(
    num_envs: int, steps: int, pixels: int,
    precision: str, compiled: str, graphs: bool, storage: str, lag: int,
) -> tuple[Trainer, int]:  # fmt: skip
    """Return `load` and `update` of a learner with L + 1 rollouts, and what these take [bytes]."""
    config = our_config(num_envs, steps, lag, storage)
    config.ppo.precision, config.ppo.compile, config.ppo.cuda_graphs = precision, compiled, graphs
    spec = EnvSpec(
        num_envs=num_envs,
        obs={
            "policy": TensorSpec((6, pixels, pixels), "float32"),
            "critic": TensorSpec((4,), "float32"),
        },
        action=ActionSpec("continuous", 1, (-1.0,), (1.0,)),
        step_dt=0.02,
        max_episode_length=250,
        has_final_obs=False,
    )
    before = torch.cuda.memory_allocated() if ON_GPU else 0
    learner = PPO(config, spec, DEVICE)
    layout = SlotLayout.of(spec, steps, learner.policy)
    slots = Slot.allocate_all(layout, str(DEVICE), lag + 1)
    stored = (torch.cuda.memory_allocated() if ON_GPU else 0) - before
    for slot in slots:
        fill(slot, learner)
    learner.capture()
    turn = 0

    def update() -> object:
        nonlocal turn
        turn += 1
        learner.load([slots[turn % len(slots)]])
        return learner.update(0)

    return update, stored


def our_config(num_envs: int, steps: int, lag: int, storage: str) -> RunConfig:
    """Return the configuration that the task's rsl_rl cfg is here."""
    camera = {"channels": CHANNELS, "kernel": KERNELS, "stride": STRIDES, "activation": "relu"}
    config = load_run_config(
        {
            "experiment": {"device": str(DEVICE), "output_dir": "."},
            "env": {"id": "Pendulum-v1"},
            "rollout": {
                "num_workers": 0, "envs_per_worker": num_envs, "steps_per_env": steps,
                "max_policy_lag": lag, "image_storage": storage,
            },
            "policy": {
                "encoders": {"policy": camera}, "hidden_dims": [64],
                "critic_hidden_dims": [32, 32], "normalize_obs": False,
                "normalize_critic_obs": False, "clip_actions": 1.0,
                "obs_groups": {"actor": ["policy"], "critic": ["critic"]},
            },
            "ppo": {
                "update_epochs": EPOCHS, "num_mini_batches": MINIBATCHES, "lr": 3e-4,
                "lr_schedule": "fixed", "value_coef": 2.0, "entropy_coef": 0.0,
            },
        }
    )  # fmt: skip
    complete(config, num_envs, [])
    return config


@torch.no_grad()
def fill(slot: Slot, learner: PPO) -> None:
    """Write a rollout of noise, acted by the learner's own policy."""
    for obs in slot.obs.values():
        obs.normal_()
    slot.reward_TB.normal_()
    slot.terminated_TB.copy_(torch.rand_like(slot.reward_TB) < 0.002)
    slot.truncated_TB.copy_(torch.rand_like(slot.reward_TB) < 0.001)
    slot.dropped_B.fill_(False)
    slot.header["policy_version"] = 0
    slot.action_TBA.normal_()
    for t, action_BA in enumerate(slot.action_TBA):
        params = learner.policy.action_params({group: x[t] for group, x in slot.obs.items()})
        slot.behavior_log_prob_TB[t] = learner.policy.distribution.log_prob(params, action_BA)


def rsl_rl_update(num_envs: int, steps: int, pixels: int) -> tuple[Trainer, int]:
    """Return rsl_rl's `compute_returns` and `update` on a filled storage, and its size [bytes]."""
    obs = TensorDict(
        {
            "policy": torch.randn(num_envs, 6, pixels, pixels, device=DEVICE),
            "critic": torch.randn(num_envs, 4, device=DEVICE),
        },
        batch_size=[num_envs],
    )
    gaussian = {"class_name": "GaussianDistribution", "init_std": 1.0, "std_type": "scalar"}
    groups = {"actor": ["policy"], "critic": ["critic"]}
    cnn = {"output_channels": CHANNELS, "kernel_size": KERNELS, "stride": STRIDES,
           "activation": "relu"}  # fmt: skip
    actor = CNNModel(obs, groups, "actor", 1, [64], "elu", False, gaussian, cnn)
    critic = MLPModel(obs, groups, "critic", 1, [32, 32], "elu", False)
    before = torch.cuda.memory_allocated() if ON_GPU else 0
    storage = RolloutStorage("rl", num_envs, steps, obs, [1], str(DEVICE))
    stored = (torch.cuda.memory_allocated() if ON_GPU else 0) - before
    ppo = RslRlPPO(
        actor.to(DEVICE), critic.to(DEVICE), storage, num_learning_epochs=EPOCHS,
        num_mini_batches=MINIBATCHES, learning_rate=3e-4, schedule="fixed", value_loss_coef=2.0,
        entropy_coef=0.0, desired_kl=0.008, device=str(DEVICE),
    )  # fmt: skip
    return on_filled_storage(ppo, storage, obs, steps), stored


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    header = ("samples", "ours", "ms", "rsl_rl ms", "times as fast", "rollouts, GiB",
              "rsl_rl's", "peak, GiB", "rsl_rl's", "start [s]")  # fmt: skip
    table = [
        (
            *(row["samples"], row["variant"], row["ms"], row["rsl_rl_ms"]),
            round(statistics.median(r["rsl_rl_ms"] for r in results["rows"]) / row["ms"], 1),
            *(row["rollouts_gib"], row["rsl_rl_rollouts_gib"], row["peak_gib"]),
            *(row["rsl_rl_peak_gib"], row["start_up_s"]),
        )
        for row in results["rows"]
    ]
    return markdown(header, table)


if __name__ == "__main__":
    run_benchmark(__doc__ or "", SIZES, measure, render)
