"""One training by another package, in that package's own virtual environment.

python -m benchmarks.peer_trainers NAME --settings JSON

Imports nothing of this project but the logged envs, whose file is all that is read of a training.
Settings are those of `benchmarks.peers`. Each trainer normalises observations and rewards (or
returns) by its own means, as this project's does.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym

import benchmarks.peer_env  # noqa: F401  (registers the envs)
from benchmarks.peer_memories import learn_by_sb3, rsl_rl, sb3_contrib


def stable_baselines3(s: dict[str, Any]) -> None:
    """`stable_baselines3.PPO` with VecNormalize."""
    from stable_baselines3 import PPO  # type: ignore[import-not-found]

    learn_by_sb3(PPO, "MlpPolicy", s)


def cleanrl(s: dict[str, Any]) -> None:
    """CleanRL's single files, from a checkout of its repository; their network is fixed."""
    name = "ppo_continuous_action.py" if s["continuous"] else "ppo.py"
    flags = {
        "env-id": s["env_id"],
        "seed": s["seed"],
        "total-timesteps": s["total_steps"],
        "learning-rate": s["lr"],
        "num-envs": s["num_envs"],
        "num-steps": s["steps"],
        "gamma": s["gamma"],
        "gae-lambda": s["lam"],
        "num-minibatches": s["minibatches"],
        "update-epochs": s["epochs"],
        "clip-coef": s["clip"],
        "ent-coef": 0.0,
        "vf-coef": 2 * s["value_coef"],  # it halves the squared error
        "max-grad-norm": s["max_grad_norm"],
    }
    command = [sys.executable, str(Path(s["cleanrl"]) / "cleanrl" / name)]
    command += [part for key, value in flags.items() for part in (f"--{key}", str(value))]
    command += ["--no-anneal-lr", "--no-cuda", "--no-clip-vloss"]
    subprocess.run(command, check=True, cwd=s["directory"], stdout=subprocess.DEVNULL)


def sample_factory(s: dict[str, Any]) -> None:
    """Sample Factory's APPO, two workers of half the envs each."""
    from sample_factory.cfg.arguments import (  # type: ignore[import-not-found]
        parse_full_cfg,
        parse_sf_args,
    )
    from sample_factory.envs.env_utils import register_env  # type: ignore[import-not-found]
    from sample_factory.train import run_rl  # type: ignore[import-not-found]

    register_env(s["env_id"], _make_env)
    settings = {
        "algo": "APPO",
        "env": s["env_id"],
        "experiment": "peer",
        "train_dir": s["directory"],
        "device": "cpu",
        "seed": s["seed"],
        "use_rnn": False,
        "num_workers": 2,
        "num_envs_per_worker": s["num_envs"] // 2,
        "rollout": s["steps"],
        "recurrence": 1,
        "batch_size": s["num_envs"] * s["steps"] // s["minibatches"],
        "num_batches_per_epoch": s["minibatches"],
        "num_epochs": s["epochs"],
        "shuffle_minibatches": True,
        "gamma": s["gamma"],
        "gae_lambda": s["lam"],
        "ppo_clip_ratio": s["clip"],
        "ppo_clip_value": 1e9,  # the others' value losses are not clipped
        "exploration_loss_coeff": 0.0,
        "value_loss_coeff": s["value_coef"],
        "value_bootstrap": True,
        "max_grad_norm": s["max_grad_norm"],
        "learning_rate": s["lr"],
        "lr_schedule": "constant",
        "with_vtrace": False,
        "actor_critic_share_weights": False,
        "adaptive_stddev": False,
        "nonlinearity": "tanh",
        "train_for_env_steps": s["total_steps"],
        "save_every_sec": 10_000,
    }
    argv = [f"--{key}={value}" for key, value in settings.items()]
    argv += ["--encoder_mlp_layers", *map(str, s["hidden"])]
    parser, _ = parse_sf_args(argv=argv)
    run_rl(parse_full_cfg(parser, argv))


def _make_env(name: str, cfg: Any, env_config: Any, render_mode: str | None = None) -> gym.Env:
    """Make what Sample Factory's own processes ask for."""
    return gym.make(name, render_mode=render_mode)


def _torchrl_envs(s: dict[str, Any]) -> Any:
    """Observations by TorchRL's own normaliser, over all envs; it has none that scales rewards."""
    from gymnasium.vector import AutoresetMode, SyncVectorEnv  # type: ignore[attr-defined]
    from torchrl.envs import (  # type: ignore[import-not-found]
        GymWrapper,
        TransformedEnv,
        VecNormV2,
    )

    def make() -> gym.Env:
        return gym.wrappers.NormalizeReward(gym.make(s["env_id"]), s["gamma"])

    vector = SyncVectorEnv([make] * s["num_envs"], autoreset_mode=AutoresetMode.DISABLED)
    envs = TransformedEnv(
        GymWrapper(vector, categorical_action_encoding=True),
        VecNormV2(["observation"], decay=1.0, reduce_batch_dims=True),
    )
    envs.set_seed(s["seed"])
    return envs


def torchrl(s: dict[str, Any]) -> None:
    """TorchRL's collector, GAE and ClipPPOLoss, put together as its PPO tutorial does."""
    import torch
    from tensordict.nn import AddStateIndependentNormalScale, TensorDictModule
    from torchrl.collectors import Collector  # type: ignore[import-not-found]
    from torchrl.modules import (  # type: ignore[import-not-found]
        MLP,
        IndependentNormal,
        ProbabilisticActor,
        ValueOperator,
    )
    from torchrl.objectives import ClipPPOLoss  # type: ignore[import-not-found]
    from torchrl.objectives.value import GAE  # type: ignore[import-not-found]

    torch.manual_seed(s["seed"])
    envs = _torchrl_envs(s)
    width = envs.observation_spec["observation"].shape[-1]
    outputs = envs.action_spec.shape[-1] if s["continuous"] else 2

    def mlp(out: int) -> torch.nn.Module:
        return MLP(width, out, num_cells=s["hidden"], activation_class=torch.nn.Tanh)

    net = mlp(outputs)
    keys = ["logits"]
    if s["continuous"]:
        net, keys = (
            torch.nn.Sequential(net, AddStateIndependentNormalScale(outputs)),
            ["loc", "scale"],
        )
    actor = ProbabilisticActor(
        TensorDictModule(net, in_keys=["observation"], out_keys=[*keys]),
        spec=envs.action_spec,
        in_keys=keys,
        distribution_class=IndependentNormal
        if s["continuous"]
        else torch.distributions.Categorical,
        return_log_prob=True,
    )
    critic = ValueOperator(mlp(1), in_keys=["observation"])
    advantage = GAE(gamma=s["gamma"], lmbda=s["lam"], value_network=critic)
    loss_module = ClipPPOLoss(
        actor,
        critic,
        clip_epsilon=s["clip"],
        entropy_bonus=False,
        critic_coeff=s["value_coef"],
        loss_critic_type="l2",
        normalize_advantage=True,
    )
    n = s["num_envs"] * s["steps"]
    optimizer = torch.optim.Adam(loss_module.parameters(), lr=s["lr"])
    total = s["total_steps"] // n
    collector = Collector(envs, actor, frames_per_batch=n, total_frames=total * n, device="cpu")
    for data in collector:
        for _ in range(s["epochs"]):
            with torch.no_grad():
                advantage(data)
            rows = data.reshape(-1)
            for part in torch.randperm(n).split(n // s["minibatches"]):
                losses = loss_module(rows[part])
                loss = losses["loss_objective"] + losses["loss_critic"]
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(loss_module.parameters(), s["max_grad_norm"])
                optimizer.step()
    collector.shutdown()


TRAINERS = {
    f.__name__: f
    for f in (stable_baselines3, cleanrl, sample_factory, torchrl, sb3_contrib, rsl_rl)
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=TRAINERS)
    parser.add_argument("--settings", type=json.loads, required=True)
    arguments = parser.parse_args()
    TRAINERS[arguments.name](arguments.settings)
