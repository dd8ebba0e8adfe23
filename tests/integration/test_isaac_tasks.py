"""Every kind of Isaac Lab task, on stand-ins of every generation.

Run as a script, this file makes all checks in one process, as `test_isaac_contract.py` does.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from isaac_stage import physics, read_report, report, run_python, stage

from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.isaac.adapter import IsaacLabVecEnv, describe
from isaac_hydra_ext.envs.isaac.ids import list_tasks
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import ConfigError, EnvError, MissingDependencyError, RenderError

pytestmark = pytest.mark.timeout(900)
B = 3
CHECKS: dict[str, Callable[[], None]] = {}


def check(function: Callable[[], None]) -> Callable[[], None]:
    """Have `function` run in each generation's process."""
    CHECKS[function.__name__] = function
    return function


def env_config(task: str, **changed: Any) -> EnvConfig:
    config = EnvConfig(kind="isaaclab", task=task, physics=os.environ["PHYSICS"] or None)
    for name, value in changed.items():
        setattr(config, name, value)
    return config


def make(task: str, **cfg: Any) -> IsaacLabVecEnv:
    cfg.setdefault("episode_length_s", 0.05)  # three steps
    return IsaacLabVecEnv(env_config(task, cfg=cfg), B, "cpu", seed=1)


@check
def groups_are_as_they_are() -> None:
    env = make("Isaac-Velocity-Flat-Unitree-Go1-v0", terrain_levels=0)
    assert {k: v.shape for k, v in env.spec.obs.items()} == {"policy": (3,), "critic": (3,)}
    assert env.spec.action.dim == 12


@check
def terms_of_an_unconcatenated_group_have_names_of_their_own() -> None:
    env = make("Isaac-Nested-Groups-v0")
    shapes = {k: v.shape for k, v in env.spec.obs.items()}
    assert shapes == {
        "policy/clock": (1,), "policy/rest": (2,), "critic/clock": (1,), "critic/all": (3,),
        "subtask_terms/late": (1,),
    }  # fmt: skip
    first = env.reset(1)
    kept = first["policy/rest"].clone()
    env.step(torch.full((B, 1), 0.5))
    assert first["policy/rest"].equal(kept)


@check
def discrete_actions_count_from_the_spaces_start() -> None:
    env = make("Isaac-Pick-One-v0")
    assert (env.spec.action.kind, env.spec.action.nvec) == ("discrete", (4,))
    assert env.spec.finite_horizon
    env.reset(1)
    actions = torch.tensor([[0], [1], [2]])
    assert env.step(actions).reward_B.tolist() == [-2.0, -1.0, 0.0]  # start is -2
    assert actions.flatten().tolist() == [0, 1, 2]


@check
def several_choices_come_as_columns() -> None:
    env = make("Isaac-Pick-Two-v0")
    assert (env.spec.action.dim, env.spec.action.nvec) == (2, (3, 2))
    env.reset(1)
    assert env.step(torch.tensor([[0, 1], [1, 1], [2, 0]])).terminated_B.tolist() == [
        False, True, True,
    ]  # fmt: skip


@check
def bounds_are_one_envs() -> None:
    action = make("Isaac-Bounded-Box-v0").spec.action
    assert (action.low, action.high) == ((-2.0, -2.0), (3.0, 3.0))


@check
def agents_are_joined_and_the_counters_are_the_inner_envs() -> None:
    env = make("Isaac-Cart-Double-Pendulum-Direct-v0")
    assert env.spec.obs["policy"].shape == (6,) and env.spec.action.dim == 2
    assert env.spec.max_episode_length == 3
    assert env.spec.has_final_obs == hasattr(env._core.cfg, "compute_final_obs")
    env.reset(1)
    assert env.randomize_episode_time(torch.Generator().manual_seed(0))
    clock = env._core.episode_length_buf.clone()
    result = env.step(torch.full((B, 2), 0.25))
    assert result.reward_B.tolist() == [0.5] * B  # the sum over agents
    assert result.obs["policy"][:, 0].equal(torch.where(clock == 2, 0.0, clock + 1.0))
    env._core.episode_length_buf[:] = 0
    for _ in range(3):
        result = env.step(torch.full((B, 2), 0.25))
    assert env._core.common_step_counter == 4 and result.truncated_B.all()
    if env.spec.has_final_obs:
        assert result.final_obs is not None
        assert result.final_obs["policy"][:, [0, 3]].eq(3).all(), "of both agents, before the reset"


@check
def agents_with_choices_are_refused() -> None:
    with pytest.raises(EnvError, match="agent 'cart' has the action space Discrete"):
        make("Isaac-Discrete-Agents-v0")


@check
def a_termination_and_a_truncation_at_once_are_told_apart() -> None:
    env = make("Isaac-Cartpole-Direct-v0")
    env.reset(1)
    for _ in range(2):
        env.step(torch.zeros(B, 1))
    result = env.step(torch.tensor([[1.0], [0.0], [1.0]]))
    assert result.terminated_B.tolist() == [True, False, True]
    assert result.truncated_B.tolist() == [True, True, True]


@check
def final_observations_are_of_the_step_that_ended_the_episode() -> None:
    env = make("Isaac-Cartpole-Direct-v0")
    if not env.spec.has_final_obs:
        return
    env.reset(1)
    env._core.episode_length_buf[:] = torch.tensor([0, 1, 0])
    env.step(torch.full((B, 1), 0.5))
    result = env.step(torch.full((B, 1), 0.25))
    assert result.truncated_B.tolist() == [False, True, False]
    assert result.final_obs is not None
    assert result.final_obs["policy"][1, 0] == 3 and result.final_obs["policy"][1, 2] == 0.25
    assert result.obs["policy"][1, 0] == 0
    kept = result.final_obs["policy"].clone()
    last = env.step(torch.zeros(B, 1))
    assert result.final_obs["policy"].equal(kept)
    assert last.truncated_B.tolist() == [True, False, True]
    # Terminated only: there is nothing to bootstrap from, and what is stored is an older step's.
    env.reset(1)
    ended = env.step(torch.ones(B, 1))
    assert ended.terminated_B.all() and ended.final_obs is None


@check
def final_observations_can_be_declined() -> None:
    for task in ("Isaac-Velocity-Flat-Unitree-Go1-v0", "Isaac-Cart-Double-Pendulum-Direct-v0"):
        if make(task).spec.has_final_obs:
            assert not make(task, compute_final_obs=False).spec.has_final_obs


@check
def tensors_of_the_log_are_read() -> None:
    env = make("Isaac-Cartpole-Direct-v0")
    env.reset(1)
    log = [env.step(torch.zeros(B, 1)) for _ in range(3)][-1].log
    assert log == {
        "Episode_Termination/time_out": 3.0, "Episode/success": 0.5, "Episode/counter": 3.0,
    }  # fmt: skip


@check
def a_missing_asset_is_named_with_the_asset_root() -> None:
    with pytest.raises(EnvError, match=r"'/nowhere/robot\.usd'.*/stand-in/assets"):
        make("Isaac-Cartpole-Direct-v0", usd_path="/nowhere/robot.usd")


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
def terrain_levels_survive_the_first_reset_and_move_at_the_next() -> None:
    env = make("Isaac-Velocity-Flat-Unitree-Go1-v0")
    terrain = env._core.scene.terrain
    state = {"common_step_counter": 70, "terrain_levels": [3, 5, 0], "terrain_types": [2, 0, 1]}
    obs = env.load_state_dict(state)
    assert obs["policy"][:, 0].tolist() == [0.0] * B
    assert env.state_dict() == state
    assert terrain.env_origins.tolist() == [[3, 2, 0], [5, 0, 0], [0, 1, 0]]
    env.reset(1)  # the curriculum moves again: here one level up at every reset
    assert terrain.terrain_levels.tolist() == [4, 6, 1]
    # Of another number of envs: only the counter is taken.
    env.load_state_dict({**state, "terrain_levels": [1], "terrain_types": [1]})
    assert env._core.common_step_counter == 70


@check
def some_envs_of_a_managed_task_are_reset_and_the_others_go_on() -> None:
    env = make("Isaac-Velocity-Flat-Unitree-Go1-v0", terrain_levels=0, episode_length_s=10)
    env.reset(1)
    for _ in range(4):
        last = env.step(torch.zeros(B, 12)).obs
    rows = env.reset_envs([0, 2])
    assert rows is not None and rows.keys() == env.spec.obs.keys()
    assert rows["policy"].shape == (2, 3) and rows["policy"][:, 0].tolist() == [0.0, 0.0]
    drawn = env._core._drawn
    assert rows["policy"][:, 1].equal(drawn[[0, 2]]) and drawn[1] == last["policy"][1, 1]
    assert env._core.episode_length_buf.tolist() == [0, 4, 0]
    # A direct task resets all or none; one whose observations remember would move the others on.
    assert make("Isaac-Cartpole-Direct-v0").reset_envs([0]) is None
    for remembers in ({"history_length": 3}, {"modifiers": [max]}, {"func": Remembering()}):
        term = type("Term", (), {"func": max, **remembers})()
        group = type("Group", (), {"__init__": lambda self, t=term: setattr(self, "height", t)})()
        env._core.cfg.observations.policy = group
        assert env.reset_envs([0]) is None, remembers
    env._core.cfg.observations.policy = type("Group", (), {"history_length": 2})()
    assert env.reset_envs([0]) is None
    assert env._core.episode_length_buf.tolist() == [0, 4, 0]


class Remembering:
    """An observation term that is a class, as Isaac Lab's own are."""

    def reset(self, env_ids: object) -> None: ...


@check
def videos_are_recorded_by_worker_0_only_and_what_cannot_draw_costs_the_videos() -> None:
    config = env_config("Isaac-Cartpole-Direct-v0", launcher={"video": True, "video_length": 7})
    run_dir = Path("filmed").absolute()
    (run_dir / "workers").mkdir(parents=True)

    def build(worker: int) -> IsaacLabVecEnv:
        return IsaacLabVecEnv(config, B, "cpu", seed=1, worker=worker, run_dir=run_dir)

    second = build(1)._core
    assert second.render_mode is None and second.cfg.sim.visualizer_cfgs == []
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        with pytest.raises(MissingDependencyError, match="^--video: imageio_ffmpeg is not"):
            build(0)
        return
    if hasattr(second.cfg, "video_recorders"):
        os.environ["NO_EGL"] = "1"
        (note,) = build(0).notes
        del os.environ["NO_EGL"]
        assert note.startswith("--video: no videos, Newton's viewer cannot draw here, ImportError")
    else:
        config.cfg = {"on_render": "raise"}  # as a machine without graphics
        env = build(0)
        assert env.notes == ["--video: no videos, RuntimeError: no display"]
        env.reset(1)
        env.step(torch.zeros(B, 1))
    config.cfg, config.launcher["video_interval"] = {}, 10
    os.environ["DISPLAY"] = ":9"
    env = build(0)
    env.reset(1)
    for _ in range(14):  # 7 pictures from step 0 on, and 4 from step 10 on
        env.step(torch.zeros(B, 1))
    env.close()
    iio = importlib.import_module("imageio.v3")
    clips = {path.name: len(iio.imread(path)) for path in Path("filmed/videos").iterdir()}
    assert clips == {"rl-video-step-0.mp4": 7, "rl-video-step-10.mp4": 4}
    if hasattr(second.cfg, "video_recorders"):
        (viewer,) = env._core.cfg.sim.visualizer_cfgs
        assert viewer.window_width == 640 and "DISPLAY" not in os.environ, "no window opens"


@check
def pictures_come_of_what_draws() -> None:
    config = env_config("Isaac-Cartpole-Direct-v0")
    env = IsaacLabVecEnv(config, B, "cpu", seed=1, worker=1, render=True)
    assert "enable_cameras" not in config.launcher, "the run's own is left alone"
    env.step(torch.zeros(B, 1))
    frame = env.render()
    ga = hasattr(env._core.cfg, "video_recorders")
    assert (frame.shape, frame.dtype.name) == ((480, 640, 3) if ga else (6, 8, 3), "uint8")
    assert (frame == 1).all()
    if ga:
        config.launcher = {"visualizer": "none"}
        with pytest.raises(RenderError, match="--viz none leaves nothing that draws"):
            IsaacLabVecEnv(config, B, "cpu", seed=1, render=True)
        config.launcher = {"visualizer": "rerun"}  # which the stand-in's launch does not start
        with pytest.raises(RenderError, match="draws nothing here"):
            IsaacLabVecEnv(config, B, "cpu", seed=1, render=True).render()


@check
def a_later_cfg_is_filled_in_as_the_launched_one_was() -> None:
    cfg = make("Isaac-Cartpole-Direct-v0")._core.cfg
    launch_fills_in = hasattr(cfg, "video_recorders")
    assert cfg.sim.renderer == ("ovrtx" if launch_fills_in else "auto_rtx")


@check
def a_cpu_simulation_leaves_the_host_as_it_was() -> None:
    assert len(sys.argv) == 1 and sys.stdout is sys.__stdout__
    assert not Path("outputs").exists()


@pytest.fixture(scope="module")
def findings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict:
    where = tmp_path_factory.mktemp(request.param)
    env = {**stage(request.param, where), "PHYSICS": physics(request.param) or ""}
    return read_report(run_python([__file__], env, where))


@pytest.mark.parametrize("findings", ["v2", "ga"], indirect=True, scope="module")
@pytest.mark.parametrize("name", list(CHECKS))
def test_kinds(findings: dict, name: str) -> None:
    assert findings[name] == ""


if __name__ == "__main__":
    report(CHECKS, __file__)
