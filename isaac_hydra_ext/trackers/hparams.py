"""The settings that tell runs apart, flat, for a tracker's table of runs.

Runs in the learner's main thread.
"""

import json
from collections.abc import Sequence

from isaac_hydra_ext.config.schema import RunConfig, walk
from isaac_hydra_ext.config.typed import is_typed

# What every run has, so that the table of any two has it; the rest is what differs from a default.
MAIN = (
    "experiment.seed", "env.id", "env.task", "rollout.num_workers", "rollout.envs_per_worker",
    "rollout.steps_per_env", "rollout.max_policy_lag", "ppo.lr", "ppo.lr_schedule",
    "ppo.update_epochs", "ppo.batch_size", "ppo.gamma", "ppo.lam", "ppo.clip", "ppo.entropy_coef",
    "policy.network", "policy.hidden_dims",
)  # fmt: skip
SECTIONS = ("env.", "rollout.", "algorithm.", "ppo.", "policy.")


def hparams_of(config: RunConfig, typed: Sequence[str]) -> dict[str, bool | float | str]:
    """Return `ppo.lr` -> value: what every run has, what was typed, what is not our default.

    Args:
        config: The complete one.
        typed: The user's override tokens; those of a sweep's jobs name what it varies.
    """
    default = {key: value for key, value, _ in walk(RunConfig())}
    return {
        key: value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
        for key, value, _ in walk(config)
        if key in MAIN
        or key.startswith(SECTIONS)
        and (value != default.get(key) or is_typed(key, typed))
    }
