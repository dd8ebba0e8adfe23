"""Numbers that are not numbers, too large, or never change; and the smallest sizes there are."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from live_run import LiveRun

from isaac_hydra_ext.appo_runner import train
from isaac_hydra_ext.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from isaac_hydra_ext.errors import NonFiniteError

Live = Callable[..., LiveRun]
# One step gives reward `reward`; from step `bad_from` of each env on, `bad` instead.
MODULE = """
import gymnasium, numpy as np

class Odd(gymnasium.Env):
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, reward=1.0, obs="noise", end="", bad="", bad_from=0, where="reward"):
        self.reward, self.obs, self.end, self.clock = float(reward), obs, end, 0
        self.bad, self.bad_from, self.where = float(bad or 0), bad_from, where

    def reset(self, **kwargs):
        super().reset(seed=kwargs.get("seed"))
        return self.observe(), {}

    def observe(self):
        obs = self.np_random.normal(size=2) if self.obs == "noise" else np.full(2, float(self.obs))
        if self.bad_from and self.clock >= self.bad_from and self.where == "obs":
            obs[0] = self.bad
        return obs.astype(np.float32)

    def step(self, action):
        self.clock += 1
        reward = self.reward
        if self.bad_from and self.clock >= self.bad_from and self.where == "reward":
            reward = self.bad
        return self.observe(), reward, self.end == "terminated", self.end == "truncated", {}

gymnasium.register("Odd-v0", Odd)
"""
ODD = ("env=gym_any", "env.id=Odd-v0", "env.imports=[odd_env]")


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "odd_env.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def odd_run(odd: Path) -> Callable[..., Checkpoint]:
    """Train in this process, without workers, on the odd environment."""

    def run(*overrides: str) -> Checkpoint:
        typed = [*ODD, f"experiment.output_dir={odd}", "rollout.num_workers=0", *overrides]
        typed += ["policy.hidden_dims=[8]", "logging.console=quiet", "experiment.max_iterations=4"]
        with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
            cfg = compose("train_appo", overrides=["rollout.envs_per_worker=4", *typed])
        return find_checkpoint(train(cfg, typed)["run_dir"], odd)[0]

    return run


def not_finite(checkpoint: Checkpoint) -> list[str]:
    return [name for name, t in checkpoint.tensors.items() if not torch.isfinite(t).all()]


def moved(checkpoint: Checkpoint) -> bool:
    """Whether the optimizer has taken a step."""
    return any(t.any() for n, t in checkpoint.tensors.items() if n.startswith("optimizer.exp_avg"))


@pytest.mark.parametrize(("where", "bad"), [("reward", "nan"), ("obs", "inf")])
def test_a_bad_number_stops_the_run_before_it_reaches_weights_or_checkpoints(
    live: Live, odd: Path, where: str, bad: str
) -> None:
    # 16 steps an iteration: the first two are good, and the checkpoint after each is written.
    run = live(
        *(*ODD, f"+env.kwargs.bad='{bad}'", "+env.kwargs.bad_from=40"),
        *(f"+env.kwargs.where={where}", "checkpoint.every=1", "checkpoint.keep_last=0"),
        *("experiment.max_iterations=1000", "policy.hidden_dims=[8]"),
    )
    assert run.finish(timeout=40) == 1, run.text()
    error = run.text()[1].strip()
    assert len(error.splitlines()) == 1 and error.startswith("error: iteration 2: "), error
    assert "not finite" in error
    assert [p.name for p in run.checkpoints()] == [
        f"model_{n}.safetensors" for n in range(1, len(run.checkpoints()) + 1)
    ]
    newest = load_checkpoint(run.checkpoints()[-1])
    assert newest.meta["iteration"] == 2
    assert moved(newest) and not_finite(newest) == []
    summary = run.summary()
    assert (summary["status"], summary["iterations"]) == ("failed", 2)
    assert summary["samples_produced"] == summary["samples_consumed"] + summary["samples_abandoned"]


CASES: dict[str, tuple[str, ...]] = {
    "observations that never change": ("+env.kwargs.obs='0.5'",),
    "rewards that never change": ("+env.kwargs.reward=1",),
    "no reward ever": ("+env.kwargs.reward=0", "+env.kwargs.obs='0'"),
    "every step ends in a terminal state": ("+env.kwargs.end=terminated",),
    "every step is cut off": ("+env.kwargs.end=truncated",),
    "no episode ends": ("ppo.gamma=1", "ppo.lam=1"),
    "T = 1": ("rollout.steps_per_env=1",),
    "B = 1": ("rollout.envs_per_worker=1",),
    "one sample": ("rollout.steps_per_env=1", "rollout.envs_per_worker=1"),
    "one minibatch": ("ppo.num_mini_batches=1",),
    "minibatches of one sample": ("ppo.batch_size=1", "rollout.steps_per_env=4"),
}
VARIANTS: dict[str, tuple[str, ...]] = {
    "gae": (),
    "vtrace, values normalised": ("ppo=vtrace", "policy.normalize_values=true"),
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", CASES)
def test_the_weights_stay_finite_with(
    odd_run: Callable[..., Checkpoint], case: str, variant: str
) -> None:
    checkpoint = odd_run("rollout.steps_per_env=8", *CASES[case], *VARIANTS[variant])
    assert checkpoint.meta["iteration"] == 4
    assert not_finite(checkpoint) == []
    assert moved(checkpoint)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("huge", ["reward=1e18", "reward=-1e30", "reward=1e300", "obs='1e30'"])
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_huge_numbers_leave_finite_weights_or_end_with_our_error(
    odd_run: Callable[..., Checkpoint], odd: Path, huge: str, variant: str
) -> None:
    overrides = (f"+env.kwargs.{huge}", "checkpoint.every=1", *VARIANTS[variant])
    try:
        checkpoint = odd_run("rollout.steps_per_env=8", *overrides)
    except NonFiniteError as e:
        assert "observations and rewards" in str(e)
        written = list(odd.glob("odd-v0/*/checkpoints/*"))
        assert all(not_finite(load_checkpoint(path)) == [] for path in written)
    else:
        assert not_finite(checkpoint) == []
