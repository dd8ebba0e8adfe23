"""Isaac Lab without this package: its own trainer, rsl_rl, or nothing but the simulation.

python -m benchmarks.isaac_lab_child --mode rsl_rl --seed 1 --num-envs 256 --iterations 150

A process of its own for `isaac_cartpole` and `isaac_gpu`; prints one line of JSON at the end. Does
what Isaac Lab's `train_rsl_rl.py` does, kit-less.
"""

import argparse
import json
import os
import time
from collections import deque
from importlib import metadata
from typing import Any

import gymnasium as gym
import numpy as np
import torch

WARM_ITERATIONS, WARM_STEPS = 5, 100  # before what a rate counts
WINDOW = 100  # finished episodes a mean is over, as in isaac_hydra_ext.run.episodes


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mode", choices=("rsl_rl", "steady", "simulate"), required=True)
    parser.add_argument("--task", default="Isaac-Cartpole-Direct")
    parser.add_argument("--presets", nargs="*", default=["physics=newton_mjwarp"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--num-envs", type=int, required=True)
    parser.add_argument("--iterations", type=int, default=150)
    arguments = parser.parse_args()

    import isaaclab_tasks  # type: ignore[import-not-found]  # noqa: F401
    from isaaclab.app import launch_simulation  # type: ignore[import-not-found]
    from isaaclab_tasks.utils.hydra import (  # type: ignore[import-not-found]
        resolve_task_config,
    )

    task, device = arguments.task, arguments.device
    env_cfg, agent_cfg = resolve_task_config(
        task, "rsl_rl_cfg_entry_point", overrides=arguments.presets
    )
    env_cfg.sim.device, env_cfg.seed = device, arguments.seed
    env_cfg.scene.num_envs = arguments.num_envs
    agent_cfg.seed, agent_cfg.device = arguments.seed, device
    with launch_simulation(env_cfg, {"device": device}):
        env = gym.make(task, cfg=env_cfg)
        if arguments.mode == "simulate":
            result = simulate(env, arguments.num_envs, device)
        elif arguments.mode == "steady":
            result = steady(env, agent_cfg, arguments)
        else:
            result = train(env, agent_cfg, arguments)
        print("\n" + json.dumps(result), flush=True)
    os._exit(0)


def simulate(env: Any, num_envs: int, device: str, seconds: float = 10.0) -> dict[str, Any]:
    """Step with random actions; the first steps, in which kernels are compiled, do not count."""
    torch.set_num_threads(1)
    env.reset()
    shape = (num_envs, *env.unwrapped.single_action_space.shape)
    for _ in range(WARM_STEPS):
        env.step(torch.randn(shape, device=device))
    begun, steps = _now(device), 0
    while time.monotonic() - begun < seconds:
        env.step(torch.randn(shape, device=device))
        steps += 1
    return {"fps": steps * num_envs / (_now(device) - begun)}


def _now(device: str) -> float:
    """Return the time, once a GPU has done what it was given."""
    if device != "cpu":
        torch.cuda.synchronize()
    return time.monotonic()


def steady(env: Any, agent_cfg: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train as Isaac Lab's script does; the rate is that of all iterations but the first few."""
    from isaaclab_rl.rsl_rl import RslRlVecEnvWrapper  # type: ignore[import-not-found]

    begun: list[float] = []  # each iteration

    class Timed(RslRlVecEnvWrapper):
        steps = 0

        def step(self, actions: torch.Tensor) -> Any:
            if self.steps % agent_cfg.num_steps_per_env == 0:
                begun.append(_now(arguments.device))
            self.steps += 1
            return super().step(actions)

    _learn(Timed(env, clip_actions=agent_cfg.clip_actions), agent_cfg, arguments)
    begun.append(_now(arguments.device))
    counted = begun[WARM_ITERATIONS:]
    samples = agent_cfg.num_steps_per_env * arguments.num_envs
    return {"fps": (len(counted) - 1) * samples / (counted[-1] - counted[0])}


def _learn(wrapped: Any, agent_cfg: Any, arguments: argparse.Namespace) -> None:
    from isaaclab_rl.rsl_rl import (  # type: ignore[import-not-found]
        handle_deprecated_rsl_rl_cfg,
    )
    from rsl_rl.runners import OnPolicyRunner

    agent_cfg = handle_deprecated_rsl_rl_cfg(agent_cfg, metadata.version("rsl-rl-lib"))
    # It logs and saves nothing then: neither is in our seconds.
    runner = OnPolicyRunner(wrapped, agent_cfg.to_dict(), log_dir=None, device=arguments.device)
    runner.learn(arguments.iterations, init_at_random_ep_len=True)


def train(env: Any, agent_cfg: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train as Isaac Lab's script does, counting episodes as isaac_hydra_ext does."""
    from isaaclab_rl.rsl_rl import RslRlVecEnvWrapper  # type: ignore[import-not-found]

    finished: deque[tuple[float, int]] = deque(maxlen=WINDOW)
    return_B, length_B = torch.zeros(arguments.num_envs), torch.zeros(arguments.num_envs)
    partial_B = torch.ones(arguments.num_envs, dtype=torch.bool)  # begun at a random time

    class Counted(RslRlVecEnvWrapper):
        def step(self, actions: torch.Tensor) -> Any:
            obs, reward_B, dones_B, extras = super().step(actions)
            return_B.add_(reward_B)
            length_B.add_(1)
            done_B = dones_B.bool()
            for b in (done_B & ~partial_B).nonzero().flatten().tolist():
                finished.append((float(return_B[b]), int(length_B[b])))
            return_B[done_B], length_B[done_B] = 0.0, 0
            partial_B.logical_and_(~done_B)
            return obs, reward_B, dones_B, extras

    started = time.monotonic()
    _learn(Counted(env, clip_actions=agent_cfg.clip_actions), agent_cfg, arguments)
    returns, lengths = zip(*finished, strict=True)
    return {
        "training_s": time.monotonic() - started,
        "env_steps": arguments.iterations * agent_cfg.num_steps_per_env * arguments.num_envs,
        "mean_return": float(np.mean(returns)),
        "mean_length": float(np.mean(lengths)),
    }


if __name__ == "__main__":
    main()
