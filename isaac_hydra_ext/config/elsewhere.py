"""What others, and earlier versions, call a knob: for the hint beside a key that is none here.

Runs in the learner's process.
"""

from collections.abc import Iterable

from isaac_hydra_ext.config.renamed import new_name
from isaac_hydra_ext.config.schema import all_knobs
from isaac_hydra_ext.errors import did_you_mean

# The last part of their name -> what to type here. Names of rsl_rl, Stable-Baselines3, Isaac Lab,
# skrl, rl_games, CleanRL, Sample Factory and RLinf; what is called the same here is not listed.
THEIRS = {
    # where and for how long
    "num_envs": "rollout.envs_per_worker (of each worker)",
    "n_envs": "rollout.envs_per_worker (of each worker)",
    "num_envs_per_worker": "rollout.envs_per_worker",
    "seed": "experiment.seed",
    "device": "rollout.device (the simulation's) or experiment.device (the learner's)",
    "rl_device": "experiment.device",
    "sim_device": "rollout.device",
    "task": "env.task (or env.id, of Gymnasium)",
    "task_name": "env.task",
    "env_id": "env.id",
    "env_kwargs": "env.kwargs",
    "experiment_name": "experiment.name",
    "exp_name": "experiment.name",
    "train_dir": "experiment.output_dir",
    "log_dir": "experiment.output_dir",
    "max_epochs": "experiment.max_iterations",
    "total_timesteps": "experiment.max_env_steps",
    "timesteps": "experiment.max_env_steps",
    "train_for_env_steps": "experiment.max_env_steps",
    "load_run": "resume=RUN",
    "load_checkpoint": "resume=CHECKPOINT",
    "load_path": "resume=CHECKPOINT",
    "save_interval": "checkpoint.every",
    "save_frequency": "checkpoint.every",
    "checkpoint_interval": "checkpoint.every",
    "eval_freq": "evaluate.every",
    "n_eval_episodes": "evaluate.num_episodes",
    "logger": "logging.backends",
    "tensorboard_log": "logging.backends=[tensorboard]",
    "wandb_project": "logging.wandb.project",
    "wandb_project_name": "logging.wandb.project",
    "log_interval": "logging.every",
    "verbose": "logging.console",
    "headless": "env.launcher.headless (of Isaac Lab)",
    # rollouts and minibatches
    "num_steps_per_env": "rollout.steps_per_env",
    "num_steps": "rollout.steps_per_env",
    "n_steps": "rollout.steps_per_env",
    "rollouts": "rollout.steps_per_env",
    "horizon_length": "rollout.steps_per_env",
    "pipeline_stages": "rollout.num_workers (a second worker gains more than halves of one)",
    "num_learning_epochs": "ppo.update_epochs",
    "learning_epochs": "ppo.update_epochs",
    "n_epochs": "ppo.update_epochs",
    "num_epochs": "ppo.update_epochs",
    "mini_epochs": "ppo.update_epochs",
    "mini_batches": "ppo.num_mini_batches",
    "num_minibatches": "ppo.num_mini_batches",
    "num_batches_per_epoch": "ppo.num_mini_batches",
    "minibatch_size": "ppo.batch_size",
    # the update
    "learning_rate": "ppo.lr",
    "schedule": "ppo.lr_schedule",
    "anneal_lr": "ppo.lr_schedule=linear",
    "learning_rate_scheduler": "ppo.lr_schedule",
    "kl_threshold": "ppo.desired_kl",
    "target_kl": "ppo.stop_kl (or ppo.desired_kl, of the schedule)",
    "discount_factor": "ppo.gamma",
    "gae_lambda": "ppo.lam",
    "lambda": "ppo.lam",
    "tau": "ppo.lam",
    "clip_param": "ppo.clip",
    "clip_range": "ppo.clip",
    "clip_coef": "ppo.clip",
    "ratio_clip": "ppo.clip",
    "e_clip": "ppo.clip",
    "clip_range_vf": "ppo.value_clip",
    "use_clipped_value_loss": "ppo.value_clip (null: off)",
    "ent_coef": "ppo.entropy_coef",
    "entropy_loss_scale": "ppo.entropy_coef",
    "exploration_loss_coeff": "ppo.entropy_coef",
    "vf_coef": "ppo.value_coef",
    "value_loss_coef": "ppo.value_coef",
    "value_loss_coeff": "ppo.value_coef",
    "value_loss_scale": "ppo.value_coef",
    "critic_coef": "ppo.value_coef",
    "grad_norm": "ppo.max_grad_norm",
    "grad_norm_clip": "ppo.max_grad_norm",
    "normalize_advantage": "ppo.normalize_advantages",
    "normalize_advantage_per_mini_batch": "ppo.normalize_advantages_per_mini_batch",
    "norm_adv": "ppo.normalize_advantages",
    "with_vtrace": "ppo.advantages=vtrace",
    "mixed_precision": "ppo.precision",
    # the networks
    "net_arch": "policy.hidden_dims",
    "actor_hidden_dims": "policy.hidden_dims",
    "activation_fn": "policy.activation",
    "init_noise_std": "policy.init_std",
    "log_std_init": "policy.init_std (std, not its logarithm)",
    "noise_std_type": "policy.std_type",
    "empirical_normalization": "policy.normalize_obs",
    "actor_obs_normalization": "policy.normalize_obs",
    "critic_obs_normalization": "policy.normalize_critic_obs",
    "normalize_input": "policy.normalize_obs",
    "normalize_value": "policy.normalize_values",
}


def name_here(key: str, known: Iterable[str], path: str = "") -> str:
    """Return `"; it is ppo.lr here"` for another trainer's name, else the nearest known names.

    Args:
        key: That nobody has here: `ppo.learning_rate`, `num_envs`, `--max_iterations`.
        known: What could have stood in its place.
        path: What it lies below, where `key` and `known` leave that out: `ppo.`
    """
    if now := new_name(f"{path}{key}"):
        return f"; it is {now} here"
    section, _, name = f"{path}{key}".lstrip("-").rpartition(".")
    same = [knob for knob, _, _ in all_knobs() if knob.rpartition(".")[2] == name]
    if name in THEIRS or (len(same) == 1 and not section):
        return f"; it is {THEIRS.get(name) or same[0]} here"
    return f"; did you mean {same[0]!r}?" if len(same) == 1 else did_you_mean(key, known)
