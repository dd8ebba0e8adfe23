"""What worker processes and the evaluator's import of ours: nothing that only a learner needs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = """
import json, multiprocessing, os, sys
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

class Telling(PendulumEnv):
    def __init__(self, seen, render_mode=None):
        super().__init__()
        self.seen = seen

    def close(self):
        name = multiprocessing.current_process().name
        with open(os.path.join(self.seen, name), "w") as file:
            json.dump([sorted(sys.modules), os.environ.get("MAINS", "")], file)

gymnasium.register("Telling-v0", Telling, max_episode_steps=8)
"""
MOST = 38  # modules of ours in a worker, without the packages they are in and without the schema's
LEARNERS = ("learner", "cli", "trackers", "terminal")
NEVER = {
    "appo-worker-0": (*LEARNERS, "run", "reports", "evaluation", "export", "doctor"),
    "appo-evaluator": LEARNERS,
}
SCRIPT = Path(sys.executable).with_name("appo")
TYPED = (
    "env=gym_any", "env.id=Telling-v0", "env.imports=[telling_env]", "rollout.num_workers=1",
    "rollout.envs_per_worker=1", "rollout.steps_per_env=8", "experiment.max_iterations=2",
    "logging.report=false", "policy.hidden_dims=[8]",
)  # fmt: skip
EVALUATED = ("evaluate.every=1", "evaluate.num_episodes=1")
USERS_MAIN = """
import os, sys
os.environ["MAINS"] = os.environ.get("MAINS", "") + __name__ + " "
from isaac_hydra_ext.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
"""


def modules_seen(tmp_path: Path, *command: str) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Run a training; returns process -> its modules, process -> how its main module was run."""
    seen = tmp_path / "seen"
    seen.mkdir()
    (tmp_path / "telling_env.py").write_text(MODULE)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *command, *TYPED, f"+env.kwargs.seen={seen}"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = {file.name: json.loads(file.read_text()) for file in seen.iterdir()}
    return {name: t[0] for name, t in told.items()}, {name: t[1] for name, t in told.items()}


@pytest.mark.parametrize(
    "command",
    [
        ("-m", "isaac_hydra_ext.appo_runner"),
        ("-m", "isaac_hydra_ext.scripts.reinforcement_learning.appo.train"),
        pytest.param(
            (str(SCRIPT), "train"),
            marks=pytest.mark.skipif(not SCRIPT.exists(), reason="appo is not installed"),
        ),
    ],
    ids=["appo_runner", "Isaac Lab's", "appo"],
)
def test_workers_and_evaluators_import_no_learner(command: tuple[str, ...], tmp_path: Path) -> None:
    seen, _ = modules_seen(tmp_path, *command, *EVALUATED)
    assert seen.keys() == {"appo-worker-0", "appo-evaluator"}
    for process, modules in seen.items():
        ours = [module for module in modules if module.split(".")[0] == "isaac_hydra_ext"]
        rooms = {module.split(".")[1] for module in ours if "." in module}
        assert rooms.isdisjoint(NEVER[process]), process
        # PyTorch's compiler takes longer to import than all else of PyTorch.
        others = {"tensorboard", "rich", "hydra", "matplotlib", "torch._dynamo"}
        assert others.isdisjoint(modules), process
        files = [name for name in ours if not any(o.startswith(f"{name}.") for o in ours)]
        files = [name for name in files if not name.startswith("isaac_hydra_ext.config.")]
        assert process != "appo-worker-0" or len(files) <= MOST, (len(files), files)


def test_a_users_own_main_module_is_run_in_workers_as_ever(tmp_path: Path) -> None:
    (tmp_path / "users_main.py").write_text(USERS_MAIN)
    _, mains = modules_seen(tmp_path, "users_main.py")
    assert mains["appo-worker-0"].split() == ["__main__", "__mp_main__"]
