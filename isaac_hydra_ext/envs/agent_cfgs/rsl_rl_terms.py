"""rsl_rl's extensions of PPO in this package's knobs: symmetry and curiosity.

Runs in worker 0 during `describe`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from isaac_hydra_ext.envs.agent_cfgs.section import Section

_USES = ("use_data_augmentation", "use_mirror_loss")
_SYMMETRY = ("data_augmentation_func", *_USES, "mirror_loss_coeff")
_RND = (
    "weight", "weight_schedule", "reward_normalization", "state_normalization", "learning_rate",
    "num_outputs", "predictor_hidden_dims", "target_hidden_dims", "activation",
)  # fmt: skip


def symmetry_settings(symmetry: Section) -> dict[str, Any]:
    """Return what `ppo.symmetry` is: the names are the same. A loss only logged is left out."""
    asked = {name: symmetry.get(name) for name in _SYMMETRY}
    symmetry.done()
    used = any(asked[name] for name in _USES)
    return {name: value for name, value in asked.items() if used and value is not None}


def rnd_settings(rnd: Section, groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return what `ppo.terms.rnd` is: the names are the same, and its groups a set of `groups`."""
    settings = {name: rnd.get(name) for name in _RND if name in rnd}
    if groups.get("rnd_state"):
        settings["obs_groups"] = list(groups["rnd_state"])
    if isinstance(schedule := settings.get("weight_schedule"), Mapping):
        names = ("mode", "initial_step", "final_step", "final_value")
        settings["weight_schedule"] = {k: v for k, v in schedule.items() if k in names}
    rnd.done()
    return settings
