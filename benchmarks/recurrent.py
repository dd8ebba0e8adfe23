"""One update of a policy with memory: milliseconds, against rsl_rl's recurrent PPO in this process.

python -m benchmarks.recurrent --json benchmarks/results/recurrent.json

The same samples (24 steps of 4,096 envs), networks (an LSTM of 256, then 256-128, for actor and
critic; obs 48, 12 actions), 5 epochs of 4 minibatches, adaptive learning rate. Ours includes
loading the batch, the proximal pass, the values and the metrics; rsl_rl's its returns and its
update, as published. The two take turns; medians. Matrix products of both are in the precision of
the row; rsl_rl has no bf16, and is in TF32 there. `--only tiny` runs on a CPU too.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rsl_rl.algorithms import PPO as RslRlPPO
from rsl_rl.models import RNNModel
from rsl_rl.storage import RolloutStorage
from tensordict import TensorDict

from benchmarks.common import markdown, run_benchmark
from benchmarks.learner import ENDED, on_filled_storage
from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import ActionSpec, EnvSpec, TensorSpec
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.learner.ppo.ppo import PPO
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot

T, OBS, ACTIONS, HIDDEN, MEMORY = 24, 48, 12, [256, 128], 256
EPOCHS, MINIBATCHES = 5, 4
SIZES = {"98304": 4096, "tiny": 16}  # samples: envs
KINDS = ("lstm", "gru")
# precision, torch.compile, CUDA graphs
VARIANTS: dict[str, tuple[str, str, bool]] = {
    "fp32": ("fp32", "always", True),
    "tf32": ("tf32", "always", True),
    "tf32, no torch.compile": ("tf32", "never", True),
    "tf32, neither": ("tf32", "never", False),
    "bf16": ("bf16", "always", True),
}
ON_CPU = {"fp32": ("fp32", "never", False)}
DEVICE = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")


def measure(sizes: dict[str, int], quick: bool) -> dict[str, Any]:
    """Time every variant of both kinds beside rsl_rl, size by size."""
    rows = []
    for num_envs in sizes.values():
        for kind in KINDS:
            theirs = rsl_rl_update(num_envs, kind)
            for name, variant in (VARIANTS if DEVICE.type == "cuda" else ON_CPU).items():
                started = time.monotonic()
                ours, learner = our_update(num_envs, kind, *variant)
                start_up = time.monotonic() - started
                precision = "highest" if variant[0] == "fp32" else "high"
                torch.set_float32_matmul_precision(precision)
                torch.backends.cudnn.allow_tf32 = variant[0] != "fp32"
                ours_ms, theirs_ms = alternate(ours, theirs, 3 if quick else 15)
                rows.append(
                    {
                        "samples": num_envs * T,
                        "memory": kind,
                        "variant": name,
                        "ms": round(ours_ms, 2),
                        "rsl_rl_ms": round(theirs_ms, 2),
                        "times_as_fast": round(theirs_ms / ours_ms, 2),
                        "start_up_s": round(start_up, 1),
                    }
                )
                print(rows[-1], flush=True)
                del ours, learner
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"
    return {"device": name, "rows": rows}


def alternate(
    ours: Callable[[], object], theirs: Callable[[], object], times: int
) -> tuple[float, float]:
    """Run both in turns after two warm-ups; returns median milliseconds."""
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(times + 2):
        for function, ms in zip((ours, theirs), taken, strict=True):
            synchronize()
            started = time.perf_counter()
            function()
            synchronize()
            if turn >= 2:
                ms.append(1e3 * (time.perf_counter() - started))
    return statistics.median(taken[0]), statistics.median(taken[1])


def synchronize() -> None:
    """Wait for the device, if it is one that is waited for."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def our_update(
    num_envs: int, kind: str, precision: str, compiled: str, graphs: bool
) -> tuple[Callable[[], object], PPO]:
    """Return `load` and `update` of a learner with a rollout of its own, and the learner."""
    config = our_config(num_envs, kind, precision, compiled, graphs)
    spec = EnvSpec(
        num_envs=num_envs,
        obs={"policy": TensorSpec((OBS,), "float32")},
        action=ActionSpec("continuous", ACTIONS, (-1e9,) * ACTIONS, (1e9,) * ACTIONS),
        step_dt=0.02,
        max_episode_length=1000,
        has_final_obs=False,
    )
    learner = PPO(config, spec, DEVICE)
    slot = Slot.allocate(SlotLayout.of(spec, T, learner.policy), str(DEVICE))
    fill(slot, learner)
    learner.capture()

    def update() -> object:
        learner.load([slot])
        return learner.update(0)

    return update, learner


def our_config(num_envs: int, kind: str, precision: str, compiled: str, graphs: bool) -> RunConfig:
    """Return the configuration that rsl_rl's arguments in `rsl_rl_update` are."""
    ppo = {"precision": precision, "compile": compiled, "cuda_graphs": graphs}
    config = load_run_config(
        {
            "experiment": {"device": str(DEVICE), "output_dir": "."},
            "env": {"id": "Pendulum-v1"},
            "rollout": {"num_workers": 0, "envs_per_worker": num_envs, "steps_per_env": T},
            "policy": {"hidden_dims": HIDDEN, "recurrent": {"kind": kind, "hidden": MEMORY}},
            "ppo": {"update_epochs": EPOCHS, "num_mini_batches": MINIBATCHES, **ppo},
        }
    )
    complete(config, num_envs, [])
    return config


def fill(slot: Slot, learner: PPO) -> None:
    """Write a rollout of noise, acted by the learner's own policy."""
    slot.obs["policy"].normal_()
    slot.reward_TB.normal_()
    slot.terminated_TB.copy_(torch.rand_like(slot.reward_TB) < 2 * ENDED / 3)
    slot.truncated_TB.copy_(torch.rand_like(slot.reward_TB) < ENDED / 3)
    slot.dropped_B.fill_(False)
    slot.header["policy_version"] = 0
    slot.action_TBA.normal_()
    for state in slot.state.values():
        state.zero_()
    learner.load([slot])
    sequences = learner.batch.sequences(T)
    with torch.no_grad():
        params = learner.policy.action_params(learner.batch.obs_N, sequences)
        log_prob = learner.policy.distribution.log_prob(params, slot.action_TBA.flatten(0, 1))
    slot.behavior_log_prob_TB.copy_(log_prob.view_as(slot.reward_TB))


def rsl_rl_update(num_envs: int, kind: str) -> Callable[[], object]:
    """Return rsl_rl's `compute_returns` and `update` on a filled storage."""
    obs = TensorDict({"policy": torch.randn(num_envs, OBS, device=DEVICE)}, batch_size=[num_envs])
    groups = {"actor": ["policy"], "critic": ["policy"]}
    gaussian = {"class_name": "GaussianDistribution", "init_std": 1.0, "std_type": "scalar"}
    memory = {"rnn_type": kind, "rnn_hidden_dim": MEMORY, "rnn_num_layers": 1}
    actor = RNNModel(obs, groups, "actor", ACTIONS, HIDDEN, "elu", True, gaussian, **memory)
    critic = RNNModel(obs, groups, "critic", 1, HIDDEN, "elu", True, **memory)
    storage = RolloutStorage("rl", num_envs, T, obs, [ACTIONS], str(DEVICE))
    ppo = RslRlPPO(
        actor.to(DEVICE),
        critic.to(DEVICE),
        storage,
        num_learning_epochs=EPOCHS,
        num_mini_batches=MINIBATCHES,
        device=str(DEVICE),
    )
    return on_filled_storage(ppo, storage, obs, T)


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    names = ("samples", "memory", "variant", "ms", "rsl_rl_ms", "times_as_fast", "start_up_s")
    header = ("samples", "memory", "ours", "ms", "rsl_rl ms", "times as fast", "start [s]")
    return markdown(header, [tuple(row[name] for name in names) for row in results["rows"]])


if __name__ == "__main__":
    run_benchmark(__doc__ or "", SIZES, measure, render)
