"""The Go1 navigation task on mjlab and on a real Isaac Lab."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from isaac_stage import HOW_TO_IMPORT, run_python

from isaac_hydra_ext.checkpoints.file import load_checkpoint
from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.envs.mjlab import MjlabVecEnv
from isaac_hydra_ext.evaluation.of_checkpoint import config_of, load_weights, with_overrides
from isaac_hydra_ext.evaluation.playing import check_same_spaces
from isaac_hydra_ext.export.export import export
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.tasks.go1_nav.evaluate import evaluate

pytestmark = pytest.mark.timeout(900)
Command = Callable[..., subprocess.CompletedProcess[str]]
MODULE = "isaac_hydra_ext.tasks.go1_nav.mjlab_task"
B, HEIGHT = 2, 1.2  # [m] of the puppets: above every obstacle
LEVELS = (0, 9)
EXAMPLE = Path(__file__).parents[2] / "examples" / "go1_nav"
KEPT = EXAMPLE / "model_850.safetensors"


@pytest.fixture(scope="module")
def mjlab_task() -> Any:
    pytest.importorskip("mjlab", reason="pip install -e '.[mjlab]'")
    from isaac_hydra_ext.tasks.go1_nav import mjlab_task

    return mjlab_task


@pytest.fixture
def held(mjlab_task: Any) -> Any:
    """One Go1 on the flat level and one among the highest obstacles."""
    task = mjlab_task.register("Go1-Held", levels=LEVELS)
    env = MjlabVecEnv(EnvConfig(kind="mjlab", task=task), B, "cpu", seed=1)
    env.reset(1)
    yield env
    env.close()


def put(env: Any, position_B2: torch.Tensor, heading_B: torch.Tensor) -> None:
    """Put the robots there, at rest in the air."""
    pose = torch.zeros(B, 7)
    pose[:, :2], pose[:, 2] = position_B2, HEIGHT
    pose[:, 3], pose[:, 6] = (heading_B / 2).cos(), (heading_B / 2).sin()
    robot, rows = env._env.scene["robot"], torch.arange(B)
    robot.write_root_link_pose_to_sim(pose, env_ids=rows)
    robot.write_root_link_velocity_to_sim(torch.zeros(B, 6), env_ids=rows)


@pytest.mark.mjlab
def test_a_puppet_driven_along_the_command_succeeds(held: Any, mjlab_task: Any) -> None:
    core = held._env
    command, robot = mjlab_task.command_of(core), core.scene["robot"]
    assert core.scene.terrain.terrain_levels.tolist() == list(LEVELS)
    position, heading = robot.data.root_link_pos_w[:, :2].clone(), robot.data.heading_w.clone()
    names = core.reward_manager.active_terms
    arrival, progress = names.index("arrival"), names.index("progress")
    arrivals = torch.zeros(B)
    for step in range(400):
        forward, left, yaw_rate = command.command.unbind(1)
        cos, sin = heading.cos(), heading.sin()
        velocity = torch.stack([forward * cos - left * sin, forward * sin + left * cos], dim=1)
        position, heading = position + velocity * core.step_dt, heading + yaw_rate * core.step_dt
        put(held, position, heading)
        new = command.books._distance_B.isnan()
        held.step(torch.zeros(B, 12))
        terms = core.reward_manager._step_reward
        arrivals += terms[:, arrival] == 10
        expected = torch.where(new, 0.0, 0.8)
        torch.testing.assert_close(terms[:, progress], expected, atol=2e-3, rtol=0)
        if step and bool((arrivals >= 1).all()):
            break
    assert bool((arrivals >= 1).all())
    core.episode_length_buf[:] = core.max_episode_length  # the time is up
    result = held.step(torch.zeros(B, 12))
    assert result.truncated_B.all() and not result.terminated_B.any()
    reached, fell, path, straight = result.obs["outcome"].T
    assert reached.all() and not fell.any()
    torch.testing.assert_close(path, straight, atol=0, rtol=1e-3)
    assert result.log["Metrics/success_rate"] == 1.0


@pytest.mark.mjlab
def test_an_obstacle_shows_in_the_scan(held: Any) -> None:
    core = held._env
    origins, model = core.scene.env_origins[:, :2].clone(), core.sim.mj_model
    # The highest cell of the tile under env 1, in the world.
    geom = min(
        (g for g in range(model.ngeom) if model.geom_dataid[g] >= 0 and model.geom_type[g] == 1),
        key=lambda g: float((torch.tensor(model.geom_pos[g][:2]) - origins[1]).norm()),
    )
    field = int(model.geom_dataid[geom])
    rows, columns = int(model.hfield_nrow[field]), int(model.hfield_ncol[field])
    start = int(model.hfield_adr[field])
    heights = torch.tensor(model.hfield_data[start : start + rows * columns]).view(rows, columns)
    r, c = divmod(int(heights.argmax()), columns)
    half = model.hfield_size[field][:2]
    block = torch.tensor(model.geom_pos[geom][:2], dtype=torch.float32) + torch.tensor(
        [(2 * c / (columns - 1) - 1) * half[0], (2 * r / (rows - 1) - 1) * half[1]],
        dtype=torch.float32,
    )

    def scan(position_B2: torch.Tensor) -> torch.Tensor:
        put(held, position_B2, torch.zeros(B))
        return held.step(torch.zeros(B, 12)).obs["actor"][:, 48:] * 5  # metres below the trunk

    over_platform = scan(origins)
    assert over_platform.shape == (B, 187)
    torch.testing.assert_close(over_platform, torch.full((B, 187), HEIGHT), atol=0.02, rtol=0)
    over_block = scan(torch.stack([origins[0], block]))
    assert float(over_block[0].min()) == pytest.approx(HEIGHT, abs=0.02)
    assert float(over_block[1].min()) == pytest.approx(HEIGHT - 0.5, abs=0.02)


@pytest.mark.mjlab
def test_the_curriculum_starts_on_the_flat_level_and_is_kept(mjlab_task: Any) -> None:
    env = MjlabVecEnv(EnvConfig(kind="mjlab", task=mjlab_task.TASK), 12, "cpu", seed=1)
    terrain = env._env.scene.terrain
    assert {name: spec.shape for name, spec in env.spec.obs.items()} == {
        "actor": (235,),
        "critic": (259,),
    }
    assert terrain.terrain_origins.shape == (10, 10, 3)
    env.reset(1)
    env.step(torch.zeros(12, 12))
    env.reset(2)
    assert terrain.terrain_levels.tolist() == [0] * 12
    state = json.loads(json.dumps(env.state_dict()))
    env.load_state_dict({**state, "terrain_levels": [5] * 12})
    assert terrain.terrain_levels.tolist() == [5] * 12
    away = (env._env.scene["robot"].data.root_link_pos_w - env._env.scene.env_origins)[:, :2]
    assert float(away.abs().max()) < 0.6
    # All targets are on their tiles, on the ground.
    patches, origins = terrain.flat_patches["target"], terrain.terrain_origins
    assert float((patches[..., :2] - origins[:, :, None, :2]).abs().max()) <= 3.61
    assert float(patches[..., 2].abs().max()) < 0.01
    env.close()


@pytest.mark.mjlab
def test_a_worker_trains_and_what_was_learned_is_evaluated(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mjlab_task: Any
) -> None:
    line = ["env=mjlab_go1_nav", "rollout.num_workers=1", "rollout.envs_per_worker=3"]
    done = command(*line, "experiment.max_iterations=3", timeout=800)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "logs").glob("go1_nav/*/checkpoints/model_3.safetensors")
    checkpoint = load_checkpoint(path)
    assert checkpoint.meta["env_steps"] == 3 * 1 * 3 * 24
    assert len(checkpoint.meta["env_states"][0]["terrain_levels"]) == 3
    assert checkpoint.meta["config"]["rollout"]["on_invalid"] == "drop_env"
    full = mjlab_task.env_cfg

    def short(*arguments: Any) -> Any:
        cfg = full(*arguments)
        cfg.episode_length_s = 0.1
        return cfg

    monkeypatch.setattr(mjlab_task, "env_cfg", short)
    told = evaluate(str(path), LEVELS, episodes=2, device="cpu")
    assert told["iteration"] == 3 and told["stack"] == "mjlab"
    assert list(told["levels"]) == ["0", "9"]
    for level in told["levels"].values():
        assert level["episodes"] == 2 and 0 <= level["success"] <= 1 and 0 <= level["falls"] <= 1
    pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")
    exported = export(checkpoint).directory
    assert (exported / "policy.onnx").stat().st_size < 2e6
    again = evaluate(str(exported), LEVELS, episodes=2, device="cpu")
    assert {**again, "policy": str(path)} == told


@pytest.mark.mjlab
def test_variants_are_registered(mjlab_task: Any) -> None:
    from mjlab.tasks.registry import list_tasks, load_env_cfg

    assert {mjlab_task.TASK, f"{mjlab_task.TASK}-Play"} <= set(list_tasks())
    play = load_env_cfg(f"{mjlab_task.TASK}-Play")
    assert "push_robot" not in play.events and not play.observations["actor"].enable_corruption
    assert list(play.events)[0] == "randomize_terrain"  # before the robot is put somewhere
    env = MjlabVecEnv(EnvConfig(kind="mjlab", task=f"{mjlab_task.TASK}-Play"), 8, "cpu", seed=1)
    obs = env.reset(1)
    check_same_spaces(env.spec, EnvSpec.from_json(load_checkpoint(KEPT).meta["spec"]))
    core = env._env
    away = (core.scene["robot"].data.root_link_pos_w - core.scene.env_origins)[:, :2]
    assert float(away.abs().max()) < 0.6
    assert len(core.scene.terrain.terrain_levels.unique()) > 1
    assert {name: tuple(x.shape) for name, x in obs.items()} == {
        "actor": (8, 235),
        "critic": (8, 259),
    }
    env.close()


# ---------------------------------------------------------------- the kept policy


def test_the_kept_policy_loads_and_acts() -> None:
    assert KEPT.stat().st_size < 2_000_000
    checkpoint = load_checkpoint(KEPT)
    spec = EnvSpec.from_json(checkpoint.meta["spec"])
    assert (spec.obs["actor"].shape, spec.action.dim) == ((235,), 12)
    config = with_overrides(config_of(checkpoint), ["env.task=Mjlab-Navigation-Unitree-Go1-Play"])
    assert config.env.task == "Mjlab-Navigation-Unitree-Go1-Play"
    policy = ActorCritic(config.policy, spec, seed=0)
    load_weights(policy, checkpoint)
    standing, turning = torch.zeros(2, 1, 235)
    turning[:, 11] = 0.5  # the command's yaw rate, behind 9 of motion and 2 of walking
    actions = [
        policy.distribution.mode(policy.action_params({"actor": x})) for x in (standing, turning)
    ]
    assert all(x.shape == (1, 12) and x.isfinite().all() for x in actions)
    assert not actions[0].allclose(actions[1])


def test_the_kept_policys_numbers_are_above_the_bar() -> None:
    told = json.loads((EXAMPLE / "evaluation.json").read_text())
    assert Path(told["policy"]) == KEPT.relative_to(EXAMPLE.parents[1])
    assert told["iteration"] == load_checkpoint(KEPT).meta["iteration"]
    assert [told["levels"][level]["episodes"] for level in ("0", "5", "9")] == [256] * 3
    assert told["levels"]["0"]["success"] >= 0.9 and told["levels"]["5"]["success"] >= 0.7
    rows = (EXAMPLE / "README.md").read_text()
    for level, x in told["levels"].items():  # the table says the same
        shares = f"{x['success']:.3f} | {x['falls']:.3f} | {x['path_over_straight']:.2f} |"
        assert any(r.startswith(f"| {level} |") and r.endswith(shares) for r in rows.splitlines())


# ---------------------------------------------------------------- a real Isaac Lab

GO1 = "Isaac/IsaacLab/Robots/Unitree/Go1/go1.usd"


@pytest.fixture
def isaac() -> dict[str, str]:
    """Environment variables in which the task and its robot are there."""
    import importlib.util

    if importlib.util.find_spec("isaaclab") is None:
        pytest.skip(HOW_TO_IMPORT)
    if not (Path(os.environ.get("ISAACSIM_ASSET_ROOT", "")) / GO1).is_file():
        pytest.skip("no Go1: name in ISAACSIM_ASSET_ROOT what scripts/make_isaac_assets.py makes")
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


@pytest.mark.isaaclab
@pytest.mark.timeout(1800)
def test_two_workers_train_on_a_real_isaac_lab(isaac: dict[str, str], tmp_path: Path) -> None:
    line = ["-m", "isaac_hydra_ext.appo_runner", "env=isaac_go1_nav"]
    line += ["rollout.num_workers=2", "rollout.envs_per_worker=2", "rollout.device=cpu"]
    line += ["experiment.device=cpu", "experiment.max_iterations=3", "experiment.output_dir=logs"]
    line += ["rollout.startup_timeout_s=1200"]
    done = run_python(line, isaac, tmp_path, timeout=1700)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = (tmp_path / "logs").glob("go1_nav/*/checkpoints/model_3.safetensors")
    meta = load_checkpoint(path).meta
    assert meta["env_steps"] == 3 * 2 * 2 * 24
    assert meta["spec"]["obs"]["policy"]["shape"] == [235]
    assert meta["env_states"][0]["terrain_levels"] == [0, 0]


@pytest.mark.isaaclab
@pytest.mark.timeout(1200)
def test_a_puppet_succeeds_on_a_real_isaac_lab(isaac: dict[str, str], tmp_path: Path) -> None:
    puppet = Path(__file__).with_name("isaac_go1_puppet.py")
    done = run_python([str(puppet)], isaac, tmp_path, timeout=1100)
    assert "the puppet has arrived" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
