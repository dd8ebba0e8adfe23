"""Trainings of policies with memory by other packages; see `benchmarks.peer_trainers`.

Each runs in its package's own virtual environment. Both envs have one action, a number whose sign
counts: rsl_rl has no discrete ones.
"""

from typing import Any

import gymnasium as gym
import numpy as np


def learn_by_sb3(algorithm: Any, policy: str, s: dict[str, Any], **network: int) -> None:
    """Train by a PPO of Stable-Baselines3's family, with VecNormalize."""
    import torch
    from stable_baselines3.common.vec_env import (  # type: ignore[import-not-found]
        DummyVecEnv,
        VecNormalize,
    )

    envs = DummyVecEnv([lambda: gym.make(s["env_id"])] * s["num_envs"])
    model = algorithm(
        policy,
        VecNormalize(envs, gamma=s["gamma"]),
        learning_rate=s["lr"],
        n_steps=s["steps"],
        batch_size=s["num_envs"] * s["steps"] // s["minibatches"],
        n_epochs=s["epochs"],
        gamma=s["gamma"],
        gae_lambda=s["lam"],
        clip_range=s["clip"],
        ent_coef=0.0,
        vf_coef=s["value_coef"],
        max_grad_norm=s["max_grad_norm"],
        policy_kwargs={
            "net_arch": {"pi": s["hidden"], "vf": s["hidden"]},
            "activation_fn": torch.nn.Tanh,
            **network,
        },
        seed=s["seed"],
        device="cpu",
    )
    model.learn(s["total_steps"])


def sb3_contrib(s: dict[str, Any]) -> None:
    """`sb3_contrib.RecurrentPPO` with VecNormalize; actor and critic each have an LSTM."""
    from sb3_contrib import RecurrentPPO  # type: ignore[import-not-found]

    learn_by_sb3(RecurrentPPO, "MlpLstmPolicy", s, lstm_hidden_size=s["memory"])


def rsl_rl(s: dict[str, Any]) -> None:
    """rsl_rl's OnPolicyRunner with its RNNModel, on Gymnasium's own vector env."""
    import torch
    from rsl_rl.runners import OnPolicyRunner  # type: ignore[import-not-found]

    torch.manual_seed(s["seed"])
    memory = {
        "class_name": "RNNModel",
        "hidden_dims": s["hidden"],
        "activation": "tanh",
        "obs_normalization": True,
        "rnn_type": "lstm",
        "rnn_hidden_dim": s["memory"],
        "rnn_num_layers": 1,
    }
    gaussian = {"class_name": "GaussianDistribution", "init_std": 1.0, "std_type": "scalar"}
    settings = {
        "class_name": "PPO",
        "num_learning_epochs": s["epochs"],
        "num_mini_batches": s["minibatches"],
        "clip_param": s["clip"],
        "gamma": s["gamma"],
        "lam": s["lam"],
        "value_loss_coef": s["value_coef"],
        "entropy_coef": 0.0,
        "learning_rate": s["lr"],
        "max_grad_norm": s["max_grad_norm"],
        "use_clipped_value_loss": False,
        "schedule": "fixed",
    }
    cfg = {
        "num_steps_per_env": s["steps"],
        "save_interval": 10**9,
        "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
        "actor": {**memory, "distribution_cfg": gaussian},
        "critic": memory,
        "algorithm": settings,
    }
    envs: Any = _TensorEnvs(s)
    runner = OnPolicyRunner(envs, cfg, log_dir=None, device="cpu")
    runner.learn(s["total_steps"] // (s["num_envs"] * s["steps"]))


class _TensorEnvs:
    """A vector env as rsl_rl wants a simulator: tensors; an env begins anew in the same step."""

    device, cfg = "cpu", {}

    def __init__(self, s: dict[str, Any]) -> None:
        """Make and reset them."""
        import torch
        from gymnasium.vector import AutoresetMode, SyncVectorEnv  # type: ignore[attr-defined]

        self.num_envs, self.num_actions, self.max_episode_length = s["num_envs"], 1, 500
        self.episode_length_buf = torch.zeros(self.num_envs, dtype=torch.long)
        self._envs = SyncVectorEnv(
            [lambda: gym.make(s["env_id"])] * self.num_envs, autoreset_mode=AutoresetMode.SAME_STEP
        )
        self._obs = self._envs.reset(seed=s["seed"])[0]

    def get_observations(self) -> Any:
        """Return what the envs show now."""
        import torch
        from tensordict import TensorDict

        obs = torch.as_tensor(np.array(self._obs, np.float32))
        return TensorDict({"policy": obs}, batch_size=[self.num_envs])

    def step(self, actions: Any) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Take one step in all of them; actions outside the bounds are clipped."""
        import torch

        clipped = actions.clamp(-1.0, 1.0).numpy()
        self._obs, rewards, ended, cut_off, _ = self._envs.step(clipped)
        dones = torch.as_tensor(ended | cut_off)
        self.episode_length_buf = torch.where(dones, 0, self.episode_length_buf + 1)
        extras = {"time_outs": torch.as_tensor(cut_off & ~ended)}
        return self.get_observations(), torch.as_tensor(rewards).float(), dones, extras
