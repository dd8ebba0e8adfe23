"""Names of other trainers are answered with ours."""

import re

import pytest

from isaac_hydra_ext.config.elsewhere import THEIRS, name_here
from isaac_hydra_ext.config.schema import all_knobs

from .test_config_refusals import refusal

KNOBS = [key for key, _, _ in all_knobs()]


def test_every_answer_names_a_knob_and_no_name_of_ours_is_redirected() -> None:
    for theirs, ours in THEIRS.items():
        named = re.findall(
            r"[a-z]+\.[a-z_]+(?:\.[a-z_]+)?", ours.replace(".launcher.headless", ".launcher")
        )
        assert named or ours.startswith("resume="), theirs
        assert set(named) <= set(KNOBS), theirs
        assert f"ppo.{theirs}" not in KNOBS and f"policy.{theirs}" not in KNOBS


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("ppo.learning_rate", "it is ppo.lr here"),
        ("learning_rate", "it is ppo.lr here"),
        ("agent.algorithm.clip_param", "it is ppo.clip here"),
        ("n_steps", "it is rollout.steps_per_env here"),
        ("num_envs", "it is rollout.envs_per_worker (of each worker) here"),
        ("env.scene.num_envs", "it is rollout.envs_per_worker (of each worker) here"),
        ("seed", "it is experiment.seed here"),
        ("rollout.pipeline_stages", "it is rollout.num_workers (a second worker gains more"),
        ("device", "it is rollout.device (the simulation's) or experiment.device"),
        ("logger", "it is logging.backends here"),
        ("--max_iterations", "it is experiment.max_iterations here"),
        ("gamma", "it is ppo.gamma here"),
        ("env.appo", "it is env.trainer_defaults here"),
        ("env.appo.ppo.lr", "it is env.trainer_defaults.ppo.lr here"),
        ("env.name", "did you mean 'experiment.name'?"),
        ("ppo.gama", "did you mean 'ppo.gamma'"),
        ("ppo.quux_of_nothing", ""),
    ],
)
def test_what_is_said(key: str, says: str) -> None:
    told = name_here(key, KNOBS)
    assert told.startswith(f"; {says}") if says else told == ""


def test_a_file_or_an_added_key_gets_it_too() -> None:
    assert refusal("+ppo.learning_rate=1") == "ppo.learning_rate: unknown key; it is ppo.lr here"
    nested = refusal("+env.trainer_defaults.ppo.n_epochs=1")
    assert nested == "env.trainer_defaults.ppo.n_epochs: unknown key; it is ppo.update_epochs here"
