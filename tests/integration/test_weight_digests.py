"""Training gives the weights it gave before, to the last bit, by the code that others are held to.

On a CPU small updates are computed by formulas written out; `losses.py` with autograd and the
optimizer's device code are their reference (`tests/unit/learner/test_by_hand.py`), and run here.
`weight_digests.json` was written by an earlier build. Bits are those of one kind of processor and
one PyTorch; elsewhere the norms of the weights are compared. A change that is meant to change
results writes the table anew, and CHANGELOG names it:

    APPO_WRITE_DIGESTS=1 pytest tests/integration/test_weight_digests.py -n 0
"""

import hashlib
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.learner.optimizer import FlatOptimizer

TABLE = Path(__file__).with_name("weight_digests.json")
COMMON = ("experiment.max_iterations=4", "experiment.seed=7", "rollout.deterministic=true")
FIXED = "ppo.lr_schedule=fixed"
RUNS = {
    "pendulum, W=0": (FIXED, "rollout.num_workers=0"),
    "pendulum, W=1": (FIXED, "rollout.num_workers=1"),
    "pendulum, W=2": (FIXED, "rollout.num_workers=2"),
    "pendulum, W=2, L=2": (FIXED, "rollout.num_workers=2", "rollout.max_policy_lag=2"),
    "cartpole, W=0, L=0": (
        "env=gym_cartpole", "rollout.num_workers=0", "rollout.max_policy_lag=0"
    ),
    "cartpole, W=2": ("env=gym_cartpole", "rollout.num_workers=2"),
    "tanh, W=1": (
        FIXED, "rollout.num_workers=1", "policy.squash=tanh", "ppo.entropy_coef=0.01"
    ),
    "vtrace, W=0": (FIXED, "rollout.num_workers=0", "ppo=vtrace"),
    "vtrace, W=2": (FIXED, "rollout.num_workers=2", "ppo=vtrace"),
    "the schema's defaults, W=0": (
        "env=gym_any", "env.id=Pendulum-v1", "rollout.num_workers=0", "ppo.num_mini_batches=3"
    ),
    "early stops, log std, W=0": (
        "rollout.num_workers=0", "ppo.stop_kl=0.004", "ppo.lr_schedule=adaptive",
        "policy.std_type=log", "policy.activation=tanh", "policy.normalize_values=false",
    ),
}  # fmt: skip


def machine() -> str:
    """What bits depend on."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":")[1].strip() for line in cpu.splitlines() if "model name" in line]
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{(models or [platform.machine()])[0]}, {capability}, torch {torch.__version__}"


def weights_of(run: Checkpoint) -> dict[str, torch.Tensor]:
    """The policy's tensors, normalisers included, and the learning rate."""
    return {n: t for n, t in run.tensors.items() if n.startswith("policy.") or n == "lr"}


def digest(weights: dict[str, torch.Tensor]) -> str:
    content = hashlib.sha256()
    for name in sorted(weights):
        content.update(name.encode() + weights[name].numpy().tobytes())
    return content.hexdigest()


@pytest.fixture(autouse=True)
def reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Learn by autograd, and decide about each step on the device."""
    monkeypatch.setattr("isaac_hydra_ext.learner.ppo.epochs.by_hand", lambda *_: None)
    monkeypatch.setattr(FlatOptimizer, "_decided_on_host", FlatOptimizer._decided_step)


@pytest.mark.parametrize("name", RUNS)
def test_the_weights_are_those_of_before(name: str, train_run: Callable[..., Checkpoint]) -> None:
    weights = weights_of(train_run(*COMMON, *RUNS[name]))
    norms = {n: float(t.double().norm()) for n, t in weights.items()}
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    if os.environ.get("APPO_WRITE_DIGESTS"):
        table[name] = {"machine": machine(), "digest": digest(weights), "norms": norms}
        TABLE.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
        return
    before = table[name]
    if before["machine"] == machine():
        assert digest(weights) == before["digest"]
    assert norms == pytest.approx(before["norms"], rel=0.05, abs=0.05)
