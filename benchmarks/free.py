"""Whole iterations where the environment is free, on one GPU: ours against rsl_rl in this process.

python -m benchmarks.free --json benchmarks/results/h200/free.json ppo.precision=bf16

4,096 envs that draw their observations (48 and 72 floats) as noise and never end, 24 steps, two
MLPs of 512-256-128, 5 epochs of 4 minibatches. The two take turns; medians.
"""

from contextlib import ExitStack
from tempfile import TemporaryDirectory
from typing import Any

import torch
from hydra import compose, initialize_config_module
from tensordict import TensorDict

from benchmarks import free_env
from benchmarks.common import markdown, run_benchmark
from benchmarks.learner import ACTIONS, EPOCHS, HIDDEN, MINIBATCHES, OBS, T, alternate, make_rsl_rl
from isaac_hydra_ext.appo_runner import Run, open_run

SIZES = {"4096": 4096}
DEVICE = "cuda:0"
CONF = "isaac_hydra_ext.conf"
UNENDING = 10**6
WARM_UP = 5  # iterations


def measure(sizes: dict[str, int], quick: bool, overrides: list[str]) -> dict[str, Any]:
    """Take iterations of each in turn."""
    rows = []
    for num_envs in sizes.values():
        with ExitStack() as stack:
            stack.enter_context(free_env.registered())
            logs = stack.enter_context(TemporaryDirectory())
            stack.enter_context(initialize_config_module(CONF, version_base="1.3"))
            typed = [*_settings(num_envs, logs), *overrides]
            run = stack.enter_context(open_run(compose("train_appo", typed), typed))
            ours_ms, theirs_ms = alternate(
                _Iterations(run), _RslRl(num_envs, run), 3 if quick else 30
            )
            rows.append(
                {
                    "samples": num_envs * T,
                    "precision": run.config.ppo.precision,
                    "lag": run.config.rollout.max_policy_lag,
                    "ms": round(ours_ms, 2),
                    "rsl_rl_ms": round(theirs_ms, 2),
                    "ratio": round(theirs_ms / ours_ms, 2),
                }
            )
            print(rows[-1], flush=True)
    return {"overrides": overrides, "rows": rows}


def _settings(num_envs: int, logs: str) -> list[str]:
    obs = ",".join(f"{group}:[float32,{size}]" for group, size in OBS.items())
    return [
        *("env=gym_any", f"env.kind={free_env.KIND}", "env.id=free"),
        *(f"+env.kwargs.obs={{{obs}}}", f"+env.kwargs.actions={ACTIONS}", "+env.kwargs.fill=noise"),
        *(f"rollout.device={DEVICE}", "rollout.num_workers=0", f"experiment.device={DEVICE}"),
        *(f"rollout.envs_per_worker={num_envs}", f"rollout.steps_per_env={T}"),
        *(f"policy.hidden_dims={HIDDEN}", "policy.normalize_obs=true"),
        *("policy.normalize_critic_obs=true", f"ppo.update_epochs={EPOCHS}"),
        *(f"ppo.num_mini_batches={MINIBATCHES}", "ppo.lr_schedule=adaptive"),
        *(f"experiment.output_dir={logs}", f"experiment.max_iterations={UNENDING}"),
        *(f"checkpoint.every={UNENDING}", "logging.console=quiet", "logging.report=false"),
    ]


class _Iterations:
    """Ours, one a call. With a lag of 1 a call ends with the next rollout collected."""

    def __init__(self, run: Run) -> None:
        self._run, self._next = run, 0
        for _ in range(WARM_UP):
            self()

    def __call__(self) -> None:
        self._run.iteration(self._next)
        self._next += 1


class _RslRl:
    """rsl_rl's, one a call, on an env like the run's."""

    def __init__(self, num_envs: int, run: Run) -> None:
        self._env = free_env.make(run.config.env, num_envs=num_envs, device=DEVICE)
        self._obs = self._as_tensordict(self._env.reset(0))
        self._ppo, _ = make_rsl_rl(self._obs)

    def _as_tensordict(self, obs: dict[str, torch.Tensor]) -> TensorDict:
        return TensorDict(obs, batch_size=[self._env.spec.num_envs])  # type: ignore[arg-type]

    def __call__(self) -> None:
        torch.set_float32_matmul_precision("high")  # as mjlab runs it
        with torch.inference_mode():
            for _ in range(T):
                result = self._env.step(self._ppo.act(self._obs))
                self._obs = self._as_tensordict(result.obs)
                done = result.terminated_B | result.truncated_B
                self._ppo.process_env_step(self._obs, result.reward_B, done, {})
            self._ppo.compute_returns(self._obs)
        self._ppo.update()


def render(results: dict[str, Any]) -> str:
    """Return the table."""
    header = ("samples", "precision", "L", "ours, ms", "rsl_rl, ms", "times as fast")
    keys = ("samples", "precision", "lag", "ms", "rsl_rl_ms", "ratio")
    return markdown(header, [[row[key] for key in keys] for row in results["rows"]])


if __name__ == "__main__":
    run_benchmark(__doc__ or "", SIZES, measure, render, takes_overrides=True)
