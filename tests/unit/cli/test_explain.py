"""`--cfg job --resolve`: when it is ours to answer, and which layer a value comes from."""

import pytest
from omegaconf import OmegaConf

from isaac_hydra_ext.cli.explain import asked_for, explain, origin, strip_flags
from isaac_hydra_ext.config.reading import read
from isaac_hydra_ext.envs.contract import TaskDescription

from ..config.test_config_refusals import composed


@pytest.mark.parametrize("flags", [["--cfg", "job"], ["-c", "job"], ["--cfg=job"]])
def test_the_whole_resolved_configuration_is(flags: list[str]) -> None:
    words = ["appo train", "ppo.lr=1", *flags, "--resolve"]
    assert asked_for(words)
    assert strip_flags(words) == ["appo train", "ppo.lr=1"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--cfg", "job"],
        ["--cfg", "all", "--resolve"],
        ["--cfg", "job", "--resolve", "-p", "ppo"],
        ["--cfg=job", "--resolve", "--package=ppo"],
    ],
)
def test_what_else_there_is_to_show_is_hydras(flags: list[str]) -> None:
    assert not asked_for(["appo train", "ppo.lr=1", *flags])


def test_each_value_names_the_highest_layer_that_sets_it() -> None:
    typed = ["env=gym_pendulum", "ppo={clip:0.2}", "ppo=vtrace", "logging.video.every=5"]
    cfg = composed(*typed)
    cfg.ppo.lam = 0.95  # as in a file of the user's own; our default
    said = dict(line.split("#") for line in explain(cfg, typed).splitlines() if "#" in line)
    origins = {text.split(":")[0].strip(): of.strip() for text, of in said.items()}
    assert [origins[name] for name in ("clip", "lam", "advantages", "gamma", "value_clip")] == [
        "typed", "config file", "config file", "env.trainer_defaults", "default",
    ]  # fmt: skip
    assert (origins["batch_size"], origins["id"], origins["task"]) == (
        "completed", "config file", "default",
    )  # fmt: skip
    text = explain(cfg, typed)
    assert "\n  video:\n    every: 5 " in text
    resolved = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(resolved, dict) and resolved["ppo"]["lam"] == 0.95


def test_the_layers_of_a_task() -> None:
    task = TaskDescription(
        default_num_envs=8,
        env_config={},
        settings={"ppo": {"lam": 0.8, "lr": 1.0, "num_mini_batches": 4}},
        authors={"ppo": {"lr": 1.0}},
    )
    appo = {"logging": {"video": {"every": 9}}}
    settings = read({"env": {"id": "X-v0", "trainer_defaults": appo}, "ppo": {"batch_size": 64}})
    config = settings.config(task.settings)
    assert origin("ppo.lam", settings, task, config.ppo.lam) == "the task's agent cfg"
    assert origin("ppo.lr", settings, task, config.ppo.lr) == "appo_cfg_entry_point"
    assert origin("logging.video.every", settings, task, 9) == "env.trainer_defaults"
    assert origin("ppo.batch_size", settings, task, 64) == "config file"
    assert config.ppo.num_mini_batches is None, "the user's batch_size is above it"
    assert origin("ppo.num_mini_batches", settings, task, None) == "default"
