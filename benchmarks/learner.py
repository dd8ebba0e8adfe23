"""One update on a GPU: milliseconds for an iteration's samples, against rsl_rl in this process.

python -m benchmarks.learner --json benchmarks/results/learner.json

The same samples, networks (two MLPs of 512-256-128, obs 48 and 72, 12 actions), 5 epochs of 4
minibatches, adaptive learning rate. Ours includes loading the batch, the proximal pass, the values
and the metrics; rsl_rl's its returns and its update, as published and with its own torch.compile.
The two take turns; medians. rsl_rl waits for its launches, so that the same work takes longer in
one row than in the next: ours is compared with the median of its rows.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rsl_rl.algorithms import PPO as RslRlPPO
from rsl_rl.models import MLPModel
from rsl_rl.storage import RolloutStorage
from tensordict import TensorDict

from benchmarks.common import markdown, run_benchmark
from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import ActionSpec, EnvSpec, TensorSpec
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.learner.ppo.ppo import PPO
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot

T, ACTIONS, HIDDEN = 24, 12, [512, 256, 128]
OBS = {"actor": 48, "critic": 72}
EPOCHS, MINIBATCHES = 5, 4
ENDED = 0.003  # of rsl_rl's steps
SIZES = {"98304": 4096, "393216": 16384}  # samples: envs
# What is measured: precision, torch.compile, CUDA graphs; rsl_rl's mode of torch.compile.
VARIANTS: dict[str, tuple[str, str, bool, str]] = {
    "fp32": ("fp32", "always", True, ""),
    "tf32": ("tf32", "always", True, ""),
    "tf32, no torch.compile": ("tf32", "never", True, ""),
    "tf32, no graphs": ("tf32", "always", False, ""),
    "tf32, neither": ("tf32", "never", False, ""),
    "tf32, rsl_rl compiled too": ("tf32", "always", True, "default"),
    "bf16": ("bf16", "always", True, ""),
}
# Dense matrix products of one H200 [FLOP/s], as the vendor's datasheet has them.
RATES = {"fp32": 67e12, "tf32": 494e12, "bf16": 989e12}
DEVICE = torch.device("cuda:0")


def measure(sizes: dict[str, int], quick: bool) -> dict[str, Any]:
    """Time every variant beside rsl_rl, size by size."""
    rows = []
    for num_envs in sizes.values():
        trainers = {mode: rsl_rl_update(num_envs, mode) for mode in ("", "default")}
        for name, (precision, compiled, graphs, rsl_rl) in VARIANTS.items():
            started = time.monotonic()
            ours = our_update(num_envs, precision, compiled, graphs)
            start_up = time.monotonic() - started
            torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
            ours_ms, theirs_ms = alternate(ours, trainers[rsl_rl], 3 if quick else 15)
            rows.append(
                {
                    "samples": num_envs * T,
                    "variant": name,
                    "ms": round(ours_ms, 2),
                    "rsl_rl_ms": round(theirs_ms, 2),
                    "start_up_s": round(start_up, 1),
                }
            )
            print(rows[-1], flush=True)
            del ours
    return {"device": torch.cuda.get_device_name(), "rows": rows}


def ratio(rows: list[dict[str, Any]], row: dict[str, Any]) -> float:
    """Return how often ours fits into rsl_rl's median of all rows with the same work of its own."""

    def kind(other: dict[str, Any]) -> tuple[Any, ...]:
        precision, _, _, rsl_rl = VARIANTS[other["variant"]]
        return other["samples"], precision == "fp32", rsl_rl

    alike = [other["rsl_rl_ms"] for other in rows if kind(other) == kind(row)]
    return round(statistics.median(alike) / row["ms"], 1)


def flops(samples: int) -> float:
    """Return the arithmetic of the epochs: forward, and twice that backward but for the inputs."""
    products = 0
    for inputs, outputs in ((OBS["actor"], ACTIONS), (OBS["critic"], 1)):
        dims = [inputs, *HIDDEN, outputs]
        products += 3 * sum(a * b for a, b in zip(dims, dims[1:], strict=False))
        products -= inputs * HIDDEN[0]  # nobody asks for the observations' gradient
    return 2.0 * products * samples * EPOCHS


def alternate(
    ours: Callable[[], object], theirs: Callable[[], object], times: int
) -> tuple[float, float]:
    """Run both in turns after two warm-ups; returns median milliseconds."""
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(times + 2):
        for function, ms in zip((ours, theirs), taken, strict=True):
            torch.cuda.synchronize()
            started = time.perf_counter()
            function()
            torch.cuda.synchronize()
            if turn >= 2:
                ms.append(1e3 * (time.perf_counter() - started))
    return statistics.median(taken[0]), statistics.median(taken[1])


def our_update(num_envs: int, precision: str, compiled: str, graphs: bool) -> Callable[[], object]:
    """Return `load` and `update` of a learner with a rollout of its own on the GPU."""
    config = our_config(num_envs, precision, compiled, graphs)
    spec = EnvSpec(
        num_envs=num_envs,
        obs={group: TensorSpec((size,), "float32") for group, size in OBS.items()},
        action=ActionSpec("continuous", ACTIONS, (-1e9,) * ACTIONS, (1e9,) * ACTIONS),
        step_dt=0.02,
        max_episode_length=1000,
        has_final_obs=False,
    )
    learner = PPO(config, spec, DEVICE)
    slot = Slot.allocate(SlotLayout(spec, T, torch.float32), str(DEVICE))
    fill(slot, learner)
    learner.capture()

    def update() -> object:
        learner.load([slot])
        return learner.update(0)

    return update


def our_config(num_envs: int, precision: str, compiled: str, graphs: bool) -> RunConfig:
    """Return the configuration that rsl_rl's arguments in `rsl_rl_update` are."""
    ppo = {"precision": precision, "compile": compiled, "cuda_graphs": graphs}
    config = load_run_config(
        {
            "experiment": {"device": str(DEVICE), "output_dir": "."},
            "env": {"id": "Pendulum-v1"},
            "rollout": {"num_workers": 0, "envs_per_worker": num_envs, "steps_per_env": T},
            "policy": {"hidden_dims": HIDDEN, "normalize_obs": True, "normalize_critic_obs": True},
            "ppo": {"update_epochs": EPOCHS, "num_mini_batches": MINIBATCHES, **ppo},
        }
    )
    complete(config, num_envs, [])
    return config


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
    with torch.no_grad():
        obs = {group: x[:-1].flatten(0, 1) for group, x in slot.obs.items()}
        params = learner.policy.action_params(obs)
        log_prob = learner.policy.distribution.log_prob(params, slot.action_TBA.flatten(0, 1))
    slot.behavior_log_prob_TB.copy_(log_prob.view_as(slot.reward_TB))


def rsl_rl_update(num_envs: int, mode: str) -> Callable[[], object]:
    """Return rsl_rl's `compute_returns` and `update` on a filled storage.

    Args:
        num_envs: Of the storage.
        mode: Of its torch.compile; empty for none.
    """
    obs = TensorDict(
        {group: torch.randn(num_envs, size, device=DEVICE) for group, size in OBS.items()},
        batch_size=[num_envs],
    )
    ppo, storage = make_rsl_rl(obs)
    ppo.compile(mode or None)
    return on_filled_storage(ppo, storage, obs, T)


def on_filled_storage(
    ppo: RslRlPPO, storage: RolloutStorage, obs: TensorDict, steps: int
) -> Callable[[], object]:
    """Act for `steps`; returns rsl_rl's `compute_returns` and `update` on what that has stored."""
    num_envs, device = obs.batch_size[0], ppo.device
    with torch.inference_mode():
        for _ in range(steps):
            ppo.act(obs)
            dones = torch.rand(num_envs, device=device) < ENDED
            ppo.process_env_step(obs, torch.randn(num_envs, device=device), dones, {})
    filled = storage.step

    def update() -> object:
        storage.step = filled
        with torch.inference_mode():
            ppo.compute_returns(obs)
        return ppo.update()

    return update


def make_rsl_rl(obs: TensorDict) -> tuple[RslRlPPO, RolloutStorage]:
    """Return rsl_rl's algorithm for observations like these, and where it keeps its samples."""
    num_envs = obs.batch_size[0]
    gaussian = {"class_name": "GaussianDistribution", "init_std": 1.0, "std_type": "scalar"}
    groups = {group: [group] for group in OBS}
    actor = MLPModel(obs, groups, "actor", ACTIONS, HIDDEN, "elu", True, gaussian)
    critic = MLPModel(obs, groups, "critic", 1, HIDDEN, "elu", True)
    storage = RolloutStorage("rl", num_envs, T, obs, [ACTIONS], str(DEVICE))
    ppo = RslRlPPO(
        actor,
        critic,
        storage,
        num_learning_epochs=EPOCHS,
        num_mini_batches=MINIBATCHES,
        device=str(DEVICE),
    )
    return ppo, storage


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    header = ("samples", "ours", "ms", "rsl_rl ms", "times as fast", "floor ms", "start [s]")
    rows, table = results["rows"], []
    for row in rows:
        floor_ms = 1e3 * flops(row["samples"]) / RATES[VARIANTS[row["variant"]][0]]
        times = (row["ms"], row["rsl_rl_ms"], ratio(rows, row), round(floor_ms, 1))
        table.append((row["samples"], row["variant"], *times, row["start_up_s"]))
    return markdown(header, table)


if __name__ == "__main__":
    run_benchmark(__doc__ or "", SIZES, measure, render)
