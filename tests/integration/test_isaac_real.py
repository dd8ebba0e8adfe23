"""Tasks of the real Isaac Lab 3.0.0 without Kit, on robots of `scripts/make_isaac_assets.py`."""

from pathlib import Path

import pytest
from isaac_stage import run_python, stage

from isaac_hydra_ext.checkpoints.file import load_checkpoint

pytestmark = [pytest.mark.isaaclab, pytest.mark.timeout(1800)]

CAMERA = """
import os, torch
from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.isaac.adapter import IsaacLabVecEnv

config = EnvConfig(
    kind="isaaclab", task="Isaac-Cartpole-Camera-Direct", agent="none", renderer="newton_renderer"
)
env = IsaacLabVecEnv(config, 2, "cpu", seed=1)
env.reset(1)
obs = env.step(torch.zeros(2, env.spec.action.dim)).obs["policy"]
assert obs.shape == (2, 6, 96, 96) and obs.dtype == torch.float32
assert float(obs.std()) > 0.01, "a blank picture: the robot has no visible shapes"
assert not obs[0].equal(obs[1])
print("camera: seen", flush=True)
os._exit(0)
"""

FINAL = """
import os, torch
from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.isaac.adapter import IsaacLabVecEnv

config = EnvConfig(
    kind="isaaclab",
    task="Isaac-Shadow-Handover-Direct",
    agent="none",
    cfg={"episode_length_s": 0.1},  # six steps: before the ball has fallen
)
env = IsaacLabVecEnv(config, 2, "cpu", seed=1)
env.reset(1)
for _ in range(6):
    result = env.step(torch.zeros(2, env.spec.action.dim))
    if result.truncated_B.any():
        break
assert result.truncated_B.all() and not result.terminated_B.any()
extras = env._core.extras
parts = [extras[agent]["final_obs"] for agent in ("right_hand", "left_hand")]
assert result.final_obs["policy"].equal(torch.cat(parts, dim=-1))
assert not result.final_obs["policy"].equal(result.obs["policy"])
print("final: seen", flush=True)
os._exit(0)
"""


COUNT = """
import contextlib, io, os, runpy
script = runpy.run_path(os.environ["SCRIPT"])
script["get_runtime"](script["EnvConfig"](kind="isaaclab"), "cpu", worker=0)
with contextlib.redirect_stdout(io.StringIO()):
    accepted = script["accepted_cfgs"]()
print(script["count_accepted"](accepted), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("task", "says"),
    [
        ("Isaac-Ant-Direct", ""),
        ("Isaac-Humanoid-Direct", ""),
        ("Isaac-Cartpole", ""),  # ManagerBased
        ("Isaac-Cart-Double-Pendulum-Direct-v0", "env.agent=skrl: "),  # DirectMARL
        ("Isaac-Velocity-Flat-Unitree-Go1-v0", "env.physics=newton_mjwarp: the task's own physics"),
        ("Isaac-Velocity-Flat-G1-v0", ""),
        ("Isaac-Shadow-Handover-Direct", ""),  # DirectMARL, with motors on tendons
        ("Isaac-Velocity-Rough-AnymalD", ""),  # a terrain, an LSTM as actuator
        ("Isaac-Reach-Franka", ""),
        ("Isaac-Cartpole-Camera-Direct env.renderer=newton_renderer", ""),  # convolutions
        ("Isaac-Cartpole env.agent=rsl_rl_with_symmetry_cfg_entry_point", ""),
        ("Isaac-Cartpole-Direct env.agent=rl_games", "env.agent=rl_games: "),
    ],
)
def test_a_task_trains(task: str, says: str, tmp_path: Path) -> None:
    line = ["-m", "isaac_hydra_ext.appo_runner", "env=isaac_any", *f"env.task={task}".split()]
    line += ["rollout.num_workers=0", "rollout.device=cpu", "rollout.envs_per_worker=4"]
    line += ["experiment.max_iterations=2", "logging.report=false"]
    done = run_python(line, stage("real", tmp_path), tmp_path, timeout=1700)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "truncated episodes bootstrap from the env's final observation" in done.stdout
    assert says in done.stdout
    (path,) = tmp_path.glob("logs/appo/*/*/checkpoints/model_2.safetensors")
    assert all(tensor.isfinite().all() for tensor in load_checkpoint(path).tensors.values())


def test_all_but_one_of_the_agent_cfgs_are_accepted(tmp_path: Path) -> None:
    """The one has heads and an algorithm of its own, for tasks that are trained together."""
    where = stage("real", tmp_path)
    script = Path(__file__).parents[2] / "scripts" / "isaac_tasks.py"
    done = run_python(["-c", COUNT.replace('os.environ["SCRIPT"]', repr(str(script)))], where,
                      tmp_path, timeout=1700)  # fmt: skip
    assert done.stdout.splitlines()[-1:] == [
        "Of 99 rsl_rl configurations 98 are accepted, of 14 tasks with only those of skrl or "
        "rl_games, 11."
    ], done.stdout[-2000:] + done.stderr[-2000:]


def test_a_camera_on_the_cpu_sees_the_robot(tmp_path: Path) -> None:
    done = run_python(["-c", CAMERA], stage("real", tmp_path), tmp_path, timeout=1700)
    assert "camera: seen" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]


def test_each_agents_final_observation_arrives(tmp_path: Path) -> None:
    """Of all agents of a DirectMARL task, in their order."""
    done = run_python(["-c", FINAL], stage("real", tmp_path), tmp_path, timeout=1700)
    assert "final: seen" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
