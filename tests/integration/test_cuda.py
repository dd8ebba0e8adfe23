"""The learner on a GPU; skipped where there is none."""

from collections.abc import Callable

import pytest
import torch

from isaac_hydra_ext.checkpoint import Checkpoint

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
Train = Callable[..., Checkpoint]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("lag", [0, 1])
def test_the_gpu_learns_what_the_cpu_learns(train_run: Train, workers: int, lag: int) -> None:
    # A fixed learning rate and one minibatch an epoch: the order of samples, which the two
    # devices shuffle differently, does not matter.
    common = [
        f"rollout.num_workers={workers}", f"rollout.max_policy_lag={lag}",
        "rollout.deterministic=true", "ppo.num_mini_batches=1", "experiment.max_iterations=3",
    ]  # fmt: skip
    on_cpu = train_run(*common, "experiment.device=cpu")
    on_gpu = train_run(*common, "experiment.device=cuda:0")
    for name, tensor in on_cpu.tensors.items():
        torch.testing.assert_close(on_gpu.tensors[name], tensor, atol=2e-3, rtol=2e-2)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_lower_precisions_stay_finite(train_run: Train, precision: str) -> None:
    common = ["experiment.max_iterations=5", "experiment.device=cuda:0"]
    checkpoint = train_run(*common, f"ppo.precision={precision}")
    assert all(t.isfinite().all() for t in checkpoint.tensors.values())
