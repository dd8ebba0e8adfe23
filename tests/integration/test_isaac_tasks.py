"""Every kind of Isaac Lab task, on stand-ins of every generation.

Run as a script, this file makes all checks in one process, as `test_isaac_contract.py` does.
"""

import importlib
import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch
from isaac_kinds import B, Checks, env_config, findings_of, make
from isaac_stage import report

from isaac_hydra_ext.envs.isaac.adapter import IsaacLabVecEnv
from isaac_hydra_ext.errors import EnvError, MissingDependencyError, RenderError

pytestmark = pytest.mark.timeout(900)
check = Checks()


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
def a_cpu_simulation_leaves_the_host_as_it_was() -> None:
    assert len(sys.argv) == 1 and sys.stdout is sys.__stdout__
    assert not Path("outputs").exists()


@pytest.fixture(scope="module")
def findings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return findings_of(__file__, request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("findings", ["v2", "ga"], indirect=True, scope="module")
@pytest.mark.parametrize("name", list(check))
def test_kinds(findings: dict, name: str) -> None:
    assert findings[name] == ""


if __name__ == "__main__":
    report(check, __file__)
