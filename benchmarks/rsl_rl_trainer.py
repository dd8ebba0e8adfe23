"""mjlab's own trainer, rsl_rl, on one task: a process of its own for the benchmarks.

python -m benchmarks.rsl_rl_trainer --task Mjlab-Cartpole-Balance --num-envs 64 --iterations 10
    --seed 1 --log-dir /tmp/rsl_rl

Does what `mjlab.scripts.train` does, and prints one line of JSON at the end. On a GPU nothing is
recorded but what rsl_rl logs itself: looking at each step would make it wait.
"""

import argparse
import json
from collections import deque
from dataclasses import asdict
from typing import Any

import mjlab.tasks  # noqa: F401  (fills the registry)
import numpy as np
import torch
from mjlab.envs import ManagerBasedRlEnv
from mjlab.rl import MjlabOnPolicyRunner, RslRlVecEnvWrapper
from mjlab.tasks.registry import load_env_cfg, load_rl_cfg, load_runner_cls
from mjlab.utils.torch import configure_torch_backends
from tensordict import TensorDict

from benchmarks.common import EVALUATION_SEED

WINDOW = 100  # finished episodes a mean return is over, as in isaac_hydra_ext.run.episodes


class EpisodeRecorder(RslRlVecEnvWrapper):
    """Keeps the mean return after every step, defined as isaac_hydra_ext defines it.

    rsl_rl's own figure also counts the first episodes, which begin at a random time.
    """

    def __init__(self, env: ManagerBasedRlEnv, clip_actions: float | None) -> None:
        """Wrap `env` for rsl_rl."""
        super().__init__(env, clip_actions)
        self._return_B = torch.zeros(self.num_envs)
        self._partial_B = torch.ones(self.num_envs, dtype=torch.bool)
        self._finished: deque[float] = deque(maxlen=WINDOW)
        self.mean_returns: list[float | None] = []

    def step(
        self, actions: torch.Tensor
    ) -> tuple[TensorDict, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """Step, and count."""
        obs, reward_B, dones_B, extras = super().step(actions)
        self._return_B += reward_B
        done_B = dones_B.bool()
        self._finished.extend(self._return_B[done_B & ~self._partial_B].tolist())
        self._return_B[done_B] = 0.0
        self._partial_B &= ~done_B
        self.mean_returns.append(float(np.mean(self._finished)) if self._finished else None)
        return obs, reward_B, dones_B, extras


def make_env(task: str, num_envs: int, seed: int, device: str) -> ManagerBasedRlEnv:
    """Build the task as registered, but for the number of envs and the seed."""
    cfg = load_env_cfg(task)
    cfg.scene.num_envs, cfg.seed = num_envs, seed
    return ManagerBasedRlEnv(cfg, device=device)


def train(
    task: str, num_envs: int, iterations: int, seed: int, log_dir: str, device: str, episodes: int
) -> dict[str, Any]:
    """Train as mjlab does, then play `episodes` of them with deterministic actions."""
    configure_torch_backends()  # TF32, as mjlab has it
    agent_cfg = load_rl_cfg(task)
    agent_cfg.seed, agent_cfg.logger = seed, "tensorboard"
    agent_cfg.upload_model = False
    wrapper = EpisodeRecorder if device == "cpu" else RslRlVecEnvWrapper
    env = wrapper(make_env(task, num_envs, seed, device), agent_cfg.clip_actions)
    runner_cls = load_runner_cls(task) or MjlabOnPolicyRunner
    runner = runner_cls(env, asdict(agent_cfg), log_dir, device)
    runner.learn(iterations, init_at_random_ep_len=True)
    steps = agent_cfg.num_steps_per_env
    result: dict[str, Any] = {
        "env_steps": iterations * steps * num_envs,
        "n_buffer": steps * num_envs,
    }
    if isinstance(env, EpisodeRecorder):
        result["curve"] = env.mean_returns[steps - 1 :: steps]
    if episodes:
        policy = runner.get_inference_policy(device=device)
        result["evaluation_return"] = play(task, policy, episodes, device)
    env.close()
    return result


@torch.inference_mode()
def play(task: str, policy: Any, episodes: int, device: str) -> float:
    """Return the mean return of one episode in each of `episodes` envs."""
    env = RslRlVecEnvWrapper(make_env(task, episodes, EVALUATION_SEED, device))
    obs, _ = env.unwrapped.reset(seed=EVALUATION_SEED)
    return_B = torch.zeros(episodes, device=device)
    running_B = torch.ones(episodes, dtype=torch.bool, device=device)
    while running_B.any():
        actions = policy(TensorDict(obs, batch_size=[episodes]))  # type: ignore[arg-type]
        obs, reward_B, dones_B, _ = env.step(actions)
        return_B += reward_B * running_B
        running_B &= ~dones_B.bool()
    env.close()
    return float(return_B.mean())


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", required=True)
    parser.add_argument("--num-envs", type=int, required=True)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--log-dir", required=True)
    parser.add_argument("--device", default="cpu", help="cpu, cuda:0 (default: cpu)")
    parser.add_argument("--episodes", type=int, default=32, help="played at the end (default: 32)")
    arguments = parser.parse_args()
    print("\n" + json.dumps(train(**vars(arguments))), flush=True)


if __name__ == "__main__":
    main()
