"""A module in the user's own folder has an env and a network; every command finds it there."""

import os
import subprocess
import sys
from pathlib import Path

# As a console script has it: the folder is not on Python's path.
APPO = """
import sys
sys.path[:] = [place for place in sys.path if place]
from isaac_hydra_ext.cli.main import main
main()
"""
BESIDE = """
import gymnasium as gym
from gymnasium.envs.classic_control import PendulumEnv
gym.register("Beside-v0", entry_point=PendulumEnv, max_episode_steps=5)

def build(config, role, num_inputs, num_outputs):
    from torch import nn
    return nn.Linear(num_inputs, num_outputs)
"""


def test_a_module_beside_the_user_is_found(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text(BESIDE)
    paths = os.pathsep.join(place for place in sys.path if place)

    def run(*line: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", APPO, *line],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    small = "rollout.num_workers=1 rollout.envs_per_worker=2 rollout.steps_per_env=8"
    rest = "experiment.max_iterations=1 logging.report=false"
    words = "env.id=Beside-v0 env.imports=[beside] policy.network=beside:build"
    run("train", "env=gym_any", *words.split(), *small.split(), *rest.split())
    assert "2 episodes" in run("eval", "latest", "--episodes", "2")
