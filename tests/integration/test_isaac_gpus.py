"""Isaac Lab's simulation on GPUs, by stand-ins whose tensors are there; skipped without GPUs."""

from pathlib import Path

import pytest
import torch
from isaac_stage import run_python, stage

from isaac_hydra_ext.checkpoints.file import load_checkpoint

there = torch.cuda.device_count()
pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize(
    ("gpus", "typed", "workers", "said"),
    [
        (1, [], 0, "no worker processes: this one simulates\nsimulating on cuda:0 beside"),
        (1, ["rollout.device=cuda:0", "rollout.num_workers=1", "experiment.device=cpu"], 1,
         "starting 1 worker process; logs in workers/\nsimulating on cuda:0\n"),
        (2, [], 1, "starting 1 worker process; logs in workers/\nsimulating on cuda:1\n"),
        (2, ["rollout.device=[cuda:0,cuda:1]", "experiment.device=cpu"], 2,
         "starting 2 worker processes; logs in workers/\nsimulating on cuda:0,cuda:1\n"),
    ],
)  # fmt: skip
def test_gpus_simulate_and_learn(
    gpus: int, typed: list[str], workers: int, said: str, tmp_path: Path
) -> None:
    if gpus > there or (not typed and gpus != there):
        pytest.skip(f"needs {gpus} CUDA devices, there are {there}")
    line = ["-m", "isaac_hydra_ext.appo_runner", "env=isaac_cartpole", "env.physics=newton_mjwarp"]
    line += ["rollout.envs_per_worker=4", "experiment.max_iterations=3", *typed]
    line += ["++env.cfg.episode_length_s=0.2", "logging.console=plain"]
    done = run_python(line, stage("ga", tmp_path), tmp_path, timeout=250)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout, done.stdout
    (path,) = tmp_path.glob("logs/appo/*/*/checkpoints/model_3.safetensors")
    checkpoint = load_checkpoint(path)
    assert checkpoint.meta["config"]["rollout"]["num_workers"] == workers
    assert checkpoint.meta["episodes"]["total"] > 0
    assert all(tensor.isfinite().all() for tensor in checkpoint.tensors.values())
