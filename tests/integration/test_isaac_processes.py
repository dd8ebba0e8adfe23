"""Isaac Lab across processes: what the learner imports, what a SIGKILL of the whole run leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from isaac_stage import run_python, stage

from isaac_hydra_ext.checkpoints.file import load_checkpoint

pytestmark = pytest.mark.timeout(900)
GO1 = [
    "env=isaac_go1_flat", "env.physics=newton_mjwarp", "rollout.device=cpu",
    "rollout.num_workers=2", "rollout.envs_per_worker=3", "logging.console=plain",
]  # fmt: skip
T = 24  # the task's own

# A run in the learner's process, and what that process has imported at its end.
LEARNER = """
import json, sys
from hydra import compose, initialize_config_module
from isaac_hydra_ext.appo_runner import train

if __name__ == "__main__":
    with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
        cfg = compose("train_appo", overrides=sys.argv[1:])
    summary = train(cfg, sys.argv[1:])
    print(json.dumps([summary["status"], summary["run_dir"], sorted(sys.modules)]))
"""


@pytest.mark.parametrize("generation", ["v2", "ga"])
def test_the_learners_process_never_imports_isaac_lab(generation: str, tmp_path: Path) -> None:
    env = stage(generation, tmp_path)
    (tmp_path / "learner.py").write_text(LEARNER)
    typed = [t for t in GO1 if generation != "v2" or not t.startswith("env.physics")]
    done = run_python(["learner.py", *typed, "experiment.max_iterations=2"], env, tmp_path)
    assert done.returncode == 0, done.stderr
    status, run_dir, modules = json.loads(done.stdout.splitlines()[-1])
    assert status == "completed"
    assert "isaac_hydra_ext.learner.ppo.ppo" in modules
    simulators = ("isaaclab", "isaacsim", "omni", "warp", "newton", "mujoco", "pxr")
    assert [m for m in modules if m.split(".")[0].startswith(simulators)] == []
    for worker in (0, 1):  # while they had it
        log = Path(run_dir) / "workers" / f"worker_{worker}.log"
        assert "Base environment" in log.read_text()


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait, for a limited time, as long as the run is alive."""
    deadline = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, "the run has ended"
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_sigkill_of_the_whole_run_leaves_progress_to_go_on_from(tmp_path: Path) -> None:
    env = stage("ga", tmp_path)
    command = [sys.executable, "-m", "isaac_hydra_ext.appo_runner", *GO1, "checkpoint.every=1"]
    command += ["checkpoint.keep_last=0", "++env.cfg.episode_length_s=0.5"]
    with open(tmp_path / "terminal", "w") as terminal:
        run = subprocess.Popen(
            [*command, "experiment.max_iterations=100000"],
            cwd=tmp_path, env=env, stdout=terminal, stderr=terminal, start_new_session=True,
        )  # fmt: skip

    def saved() -> list[Path]:
        return list(tmp_path.glob("logs/appo/*/*/checkpoints/model_*.safetensors"))

    try:
        until(lambda: len(saved()) >= 5, run)
        workers = psutil.Process(run.pid).children(recursive=True)
    finally:
        os.kill(run.pid, signal.SIGKILL)
        run.wait(30)
    _, alive = psutil.wait_procs(workers, timeout=600)
    assert not alive
    run_dir = saved()[0].parents[1]
    # What each worker has left for a replacement is whole, wherever it was hit.
    for worker in (0, 1):
        progress = json.loads((run_dir / "workers" / f"worker_{worker}_handover.json").read_text())
        assert progress["common_step_counter"] % T == 0 and len(progress["terrain_levels"]) == 3
    # Every checkpoint holds all workers' progress of the same moment, which is its iteration's.
    newest = {}
    for path in saved():
        meta = load_checkpoint(path).meta
        counters = [state["common_step_counter"] for state in meta["env_states"]]
        assert counters == [T * meta["iteration"]] * 2
        newest[meta["iteration"]] = meta
    last = max(newest)
    # The next run goes on from the checkpoint, not from what a worker has left since.
    resumed = run_python(
        [*command[1:], f"resume={run_dir}", f"experiment.max_iterations={last + 1}"], env, tmp_path
    )
    assert resumed.returncode == 0, resumed.stderr
    (path,) = tmp_path.glob(f"logs/appo/*/*/checkpoints/model_{last + 1}.safetensors")
    meta = load_checkpoint(path).meta
    assert [s["common_step_counter"] for s in meta["env_states"]] == [T * (last + 1)] * 2


@pytest.mark.parametrize(
    ("typed", "seen_by_critic"),
    [([], 4), (["policy.obs_groups={critic:[critic,subtask_terms]}"], 5)],
)
def test_networks_see_the_terms_of_their_nested_groups_and_no_others(
    typed: list[str], seen_by_critic: int, tmp_path: Path
) -> None:
    line = ["-m", "isaac_hydra_ext.appo_runner", "env=isaac_any", "env.task=Isaac-Nested-Groups"]
    line += ["env.physics=newton_mjwarp", "rollout.device=cpu", "rollout.num_workers=0", *typed]
    line += ["rollout.envs_per_worker=4", "rollout.steps_per_env=8", "experiment.max_iterations=2"]
    done = run_python(line, stage("ga", tmp_path), tmp_path)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("logs/appo/*/*/checkpoints/model_2.safetensors")
    tensors = load_checkpoint(path).tensors
    assert tensors["policy.actor.0.weight"].shape[1] == 3
    assert tensors["policy.critic.0.weight"].shape[1] == seen_by_critic


# A ManagerBased task of the real one, some of whose envs are reset by themselves.
MANAGED = """
import torch
from isaac_hydra_ext.config.schema import EnvConfig
from isaac_hydra_ext.envs.isaac.adapter import IsaacLabVecEnv

config = EnvConfig(kind="isaaclab", task="Isaac-Cartpole-v0", physics="newton_mjwarp")
env = IsaacLabVecEnv(config, 4, "cpu", seed=1)
env.reset(1)
still = torch.zeros(4, env.spec.action.dim)
for _ in range(3):
    last = env.step(still).obs
rows = env.reset_envs([0, 2])
now = env._groups(env._core.observation_manager.compute())
for group, of_two in rows.items():
    assert of_two.shape == (2, *env.spec.obs[group].shape)
    assert of_two.equal(now[group][[0, 2]]) and not of_two.equal(last[group][[0, 2]])
    assert torch.allclose(now[group][[1, 3]], last[group][[1, 3]], atol=1e-6)
assert env._core.episode_length_buf.tolist() == [0, 3, 0, 3]
after = env.step(still)
assert not (after.terminated_B | after.truncated_B).any()
print("managed: seen")
"""


@pytest.mark.isaaclab
@pytest.mark.timeout(900)
def test_some_envs_of_the_real_ones_managed_task_are_reset(tmp_path: Path) -> None:
    env = stage("real", tmp_path)
    done = run_python(["-c", MANAGED], env, tmp_path, timeout=800)
    assert "managed: seen" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
