"""A task's configuration, and what a user changes in it, on stand-ins of every generation.

Run as a script, this file makes all checks in one process, as `test_isaac_contract.py` does.
"""

import importlib
import importlib.util
import os
from functools import partial
from typing import Any

import gymnasium as gym
import pytest
from isaac_kinds import B, Checks, env_config, findings_of, make
from isaac_stage import report

from isaac_hydra_ext.envs.isaac.adapter import IsaacLabVecEnv, describe
from isaac_hydra_ext.envs.isaac.ids import list_tasks
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import ConfigError, MissingDependencyError

pytestmark = pytest.mark.timeout(900)
check = Checks()


@check
def overrides_take_the_type_of_what_they_replace() -> None:
    config = {"decimation": 4, "sim": {"dt": 1}, "term": None, "limits": [0, 2], "func": "math:sin"}
    cfg = make("Isaac-Cartpole-Direct-v0", **config)._core.cfg
    assert (cfg.decimation, cfg.sim.dt, cfg.term) == (4, 1.0, None)
    assert cfg.limits == (0.0, 2.0) and cfg.func(0.0) == 0.0
    params = {"scale": 1, "joints": ["x"]}
    cfg = make("Isaac-Cartpole-Direct-v0", term={"weight": 2, "params": params})._core.cfg
    assert cfg.term.weight == 2.0 and cfg.term.params == {"scale": 1.0, "joints": ["x"]}


@check
def what_does_not_fit_is_refused() -> None:
    for path, value in (
        ("decimation", True), ("decimation", "4"), ("decimation", None), ("sim.dt", "x"),
        ("is_finite_horizon", 1), ("limits", [0, "a"]), ("limits", 3), ("func", "nowhere:f"),
        ("term.params.scale", None), ("term.params.scael", 1), ("term.weight.x", 1),
        ("actor_groups.5", "x"), ("usd_path", 3),
    ):  # fmt: skip
        cfg: Any = value
        for part in reversed(path.split(".")):
            cfg = {part: cfg}
        with pytest.raises(ConfigError) as raised:
            make("Isaac-Cartpole-Direct-v0", **cfg)
        message = str(raised.value)
        assert message.startswith(f"env.cfg.{path}") and "\n" not in message, message


@check
def presets_and_variants_are_isaac_labs_to_apply() -> None:
    if os.environ["PHYSICS"]:
        cfg = make("Isaac-Cartpole-Direct-v0")._core.cfg
        assert type(cfg.sim.physics).__name__ == "NewtonCfg"
        described = describe(env_config("Isaac-Cartpole-Direct-v0", physics=None), "cpu")
        assert described.env_config["physics"] is None, "its default needs no Kit"
        for changed in (
            {"physics": "newton"},  # its name before 3.0
            {"physics": None, "presets": ["newton_mjwarp"]},
            {"physics": None, "cfg": {"sim": {"physics": "newton_mjwarp"}}},
        ):
            describe(env_config("Isaac-Cartpole-Direct-v0", **changed), "cpu")
        below = {"sim": {"physics": {"num_substeps": 3}}}
        assert make("Isaac-Cartpole-Direct-v0", **below)._core.cfg.sim.physics.num_substeps == 3
        return
    assert make("Isaac-Cartpole-Direct-v0", limits="narrow")._core.cfg.limits == (0.1, 0.2)
    with pytest.raises(ConfigError, match=r"^env\.cfg\.limits=wide: .*narrow"):
        make("Isaac-Cartpole-Direct-v0", limits="wide")
    with pytest.raises(ConfigError, match=r"^env\.physics=newton_mjwarp: .*it has none"):
        describe(env_config("Isaac-Cartpole-Direct-v0", physics="newton_mjwarp"), "cpu")


@check
def newton_is_taken_where_kit_is_missing_and_nobody_has_chosen() -> None:
    if not os.environ["PHYSICS"]:
        return
    go1 = partial(env_config, "Isaac-Velocity-Flat-Unitree-Go1-v0", physics=None)
    described = describe(go1(), "cpu")
    assert described.env_config["physics"] == "newton_mjwarp"
    (note,) = (n for n in described.notes if n.startswith("env.physics=newton_mjwarp: "))
    assert note.endswith("the task's own physics needs Isaac Sim, not found here")
    env = IsaacLabVecEnv(go1(cfg={"terrain_levels": 0}), B, "cpu", seed=1)
    assert type(env._core.cfg.sim.physics).__name__ == "NewtonCfg" and env.notes == [note]
    for chosen in (
        {"presets": ["isaacsim_physx"]},
        {"cfg": {"sim": {"physics": "isaacsim_physx"}}},
        {"physics": "isaacsim_physx"},
    ):
        assert describe(go1(**chosen), "cpu").notes == ()


@check
def what_the_author_recommends_beats_the_rsl_rl_cfg() -> None:
    settings = describe(env_config("Isaac-Recommended-v0"), "cpu").settings
    assert settings["ppo"]["gamma"] == 0.93 and settings["ppo"]["lam"] == 0.9
    assert settings["rollout"]["max_policy_lag"] == 0
    config = load_run_config({"env": {"kind": "isaaclab", "task": "X"}}, (), settings)
    assert (config.ppo.gamma, config.ppo.lr, config.rollout.device) == (0.93, 3e-4, "cpu")


@check
def rsl_rls_older_layout_and_its_refusals_arrive() -> None:
    task = "Isaac-Velocity-Flat-Unitree-Go1-v0"
    policy = describe(env_config(task), "cpu").settings["policy"]
    assert policy["hidden_dims"] == [64] and policy["critic_hidden_dims"] == [48]
    assert policy["normalize_obs"] is True and policy["init_std"] == 0.8
    assert policy["obs_groups"] == {"actor": ["policy"], "critic": ["critic"]}
    with pytest.raises(ConfigError, match=r"another memory than the actor's.*env\.agent=none"):
        describe(env_config("Isaac-Memory-v0"), "cpu")
    assert describe(env_config("Isaac-Memory-v0", agent="none"), "cpu").notes


@check
def play_mode_is_applied_before_overrides() -> None:
    task = "Isaac-Velocity-Flat-Unitree-Go1-v0"
    assert describe(env_config(task), "cpu").default_num_envs == 4096
    assert describe(env_config(task, play=True), "cpu").default_num_envs == 50
    typed = env_config(task, play=True, cfg={"scene": {"num_envs": 7}})
    assert describe(typed, "cpu").default_num_envs == 7


@check
def a_play_id_is_made_for_playing_already() -> None:
    rough = "Isaac-Velocity-Rough-Unitree-Go1"
    number = 50 if os.environ["PHYSICS"] else 20  # 3.0 has no such ids: the task's play_mode()
    for task in (rough, f"{rough}-v0", f"{rough}-Play", f"{rough}-Play-v0", f"ns:{rough}-Play-v0"):
        assert describe(env_config(task, play=True), "cpu").default_num_envs == number
    # Of a task that has none, it means the task, with its play_mode().
    flat = env_config("Isaac-Velocity-Flat-Unitree-Go1-Play-v0", play=True)
    assert describe(flat, "cpu").default_num_envs == 50


@check
def another_trainers_cfg_is_refused() -> None:
    task = "Isaac-Velocity-Flat-Unitree-Go1-v0"
    with pytest.raises(ConfigError) as raised:
        describe(env_config(task, agent="sb3_cfg_entry_point"), "cpu")
    message = str(raised.value)
    assert message.startswith("env.agent=sb3_cfg_entry_point: no such entry")
    assert " has rsl_rl_cfg_entry_point" in message
    assert message.endswith(", and none starts from this package's defaults")


@check
def the_shipped_task_is_registered_and_says_what_it_misses() -> None:
    task = "Isaac-Velocity-Sber-Unitree-Go1{}-v0"
    assert {task.format(v) for v in ("", "-Play", "-Eval")} <= set(list_tasks())
    entries = gym.spec(task.format("-Play")).kwargs
    assert entries["rsl_rl_cfg_entry_point"] == "isaaclab_tasks.cfgs:OldLayoutCfg"
    assert "skrl_cfg_entry_point" not in entries
    module, _, function = entries["appo_cfg_entry_point"].partition(":")
    appo = getattr(importlib.import_module(module), function)()
    assert load_run_config({"env": {"id": "X-v0"}}, (), appo).experiment.name == "go1_nav"
    # Of Isaac Lab's managers and terrains there are none here.
    with pytest.raises(MissingDependencyError, match=r"^env\.task=.*'isaaclab\.managers'"):
        describe(env_config(task.format("")), "cpu")


@check
def a_later_cfg_is_filled_in_as_the_launched_one_was() -> None:
    cfg = make("Isaac-Cartpole-Direct-v0")._core.cfg
    launch_fills_in = hasattr(cfg, "video_recorders")
    assert cfg.sim.renderer == ("ovrtx" if launch_fills_in else "auto_rtx")


@pytest.fixture(scope="module")
def findings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return findings_of(__file__, request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("findings", ["v2", "ga"], indirect=True, scope="module")
@pytest.mark.parametrize("name", list(check))
def test_kinds(findings: dict, name: str) -> None:
    assert findings[name] == ""


if __name__ == "__main__":
    report(check, __file__)
