"""Numbers that are not numbers, too large, or never change; and the smallest sizes there are."""

import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_module
from live_run import LiveRun
from safetensors.torch import load_file

from isaac_hydra_ext.appo_runner import train
from isaac_hydra_ext.checkpoints.file import Checkpoint, load_checkpoint
from isaac_hydra_ext.checkpoints.find import find_checkpoint
from isaac_hydra_ext.errors import InvalidNumberError, NonFiniteError

Live = Callable[..., LiveRun]
# Each step gives `reward`. From step `bad_from` until `bad_until` of the envs in `bad_envs` (all,
# if it is empty), `where` is `bad` instead. Env i is the i-th that is made in a process.
MODULE = """
import gymnasium, numpy as np

class Odd(gymnasium.Env):
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    made = 0

    def __init__(
        self, reward=1.0, obs="noise", end="", bad="", bad_from=0, bad_until=10**9, bad_envs=(),
        where="reward", choices=0,
    ):
        if choices:
            self.action_space = gymnasium.spaces.Discrete(choices)
        self.reward, self.obs, self.end, self.clock = float(reward), obs, end, 0
        self.bad, self.span, self.where = float(bad or 0), (bad_from, bad_until), where
        self.may_be_bad = not bad_envs or Odd.made in bad_envs
        Odd.made += 1

    def is_bad(self, where):
        first, end = self.span
        return where == self.where and self.may_be_bad and first and first <= self.clock < end

    def reset(self, **kwargs):
        super().reset(seed=kwargs.get("seed"))
        return self.observe(), {}

    def observe(self):
        obs = self.np_random.normal(size=2) if self.obs == "noise" else np.full(2, float(self.obs))
        if self.is_bad("obs"):
            obs[0] = self.bad
        return obs.astype(np.float32)

    def step(self, action):
        self.clock += 1
        reward = self.bad if self.is_bad("reward") else self.reward
        ends = [self.end in (kind, "both") for kind in ("terminated", "truncated")]
        return self.observe(), reward, *ends, {}

gymnasium.register("Odd-v0", Odd)
"""
ODD = ("env=gym_any", "env.id=Odd-v0", "env.imports=[odd_env]")


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "odd_env.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
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


# ------------------------------------------------------------------ numbers that are none

# 16 steps an iteration: what env 1 of each worker gives is bad in rollout 2 alone.
ONE_ROLLOUT = ("+env.kwargs.bad_from=33", "+env.kwargs.bad_until=48", "+env.kwargs.bad_envs=[1]")
ALL = ("checkpoint.every=1", "checkpoint.keep_last=0")


def balanced(summary: dict[str, Any]) -> bool:
    consumed, abandoned = summary["samples_consumed"], summary["samples_abandoned"]
    return summary["samples_produced"] == consumed + abandoned


@pytest.mark.parametrize(
    ("where", "bad", "found", "workers"),
    [
        ("reward", "nan", "env 1, step 0: reward[0] is nan", 2),
        ("obs", "-inf", "env 1, step 1: obs/policy[0] is -inf", 0),
    ],
)
def test_a_bad_number_ends_the_run_and_is_named_before_anything_learns_from_it(
    live: Live, odd: Path, where: str, bad: str, found: str, workers: int
) -> None:
    run = live(
        *(*ODD, *ONE_ROLLOUT, *ALL, f"+env.kwargs.bad='{bad}'", f"+env.kwargs.where={where}"),
        *(f"rollout.num_workers={workers}", "experiment.max_iterations=1000"),
        *("policy.hidden_dims=[8]", "rollout.max_policy_lag=0"),
    )
    assert run.finish() == 1, run.text()
    error = run.text()[1].strip().splitlines()[-1]
    assert error.startswith("error: "), error
    assert f"rollout 2, {found}; " in error
    assert ("step, env Odd-v0: rollout 2" in error) == bool(workers)  # behind "worker N, "
    assert "set rollout.on_invalid" in error
    (dump, *_) = run.logs.glob("*/*/nan_dump/*_rollout_2_env_1.safetensors")
    assert f"its last steps are in {dump.parent}" in error
    assert len(load_file(dump)["reward"]) <= 2
    assert len(run.checkpoints()) == 2
    newest = load_checkpoint(run.checkpoints()[-1])
    assert newest.meta["iteration"] == 2
    assert moved(newest) and not_finite(newest) == []
    summary = run.summary()
    assert (summary["status"], summary["iterations"]) == ("failed", 2)
    assert balanced(summary)


@pytest.mark.parametrize(("where", "workers"), [("reward", 0), ("obs", 2)])
def test_envs_with_bad_numbers_are_left_out_and_counted(
    live: Live, odd: Path, where: str, workers: int
) -> None:
    run = live(
        *(*ODD, *ONE_ROLLOUT, *ALL, "+env.kwargs.bad=nan", f"+env.kwargs.where={where}"),
        *(f"rollout.num_workers={workers}", "rollout.on_invalid=drop_env"),
        *("experiment.max_iterations=5", "policy.hidden_dims=[8]"),
    )
    assert run.finish() == 0, run.text()
    said = run.text()[1].strip().splitlines()
    assert len(said) == max(1, workers), said
    for w, line in enumerate(said):
        assert line.startswith(f"worker {w}: rollout 2, env 1, step "), line
        assert line.endswith("left out and started anew")
    for path in run.checkpoints():
        assert not_finite(load_checkpoint(path)) == []
    totals = load_checkpoint(run.checkpoints()[-1]).meta["totals"]
    summary = run.summary()
    assert totals["samples_dropped"] == summary["samples_abandoned"] == 16 * max(1, workers)
    assert summary["env_steps"] == summary["samples_produced"] == 5 * 64 * max(1, workers)
    assert balanced(summary) and totals["bad_updates"] == 0
    assert learned(run.checkpoints()[1]) != learned(run.checkpoints()[2])


def test_a_run_in_which_no_env_is_left_ends_with_what_it_had(live: Live, odd: Path) -> None:
    run = live(
        *(*ODD, "+env.kwargs.bad=nan", "+env.kwargs.bad_from=33", "checkpoint.every=1000"),
        *("rollout.on_invalid=drop_env", "policy.hidden_dims=[8]"),
    )
    assert run.finish() == 1, run.text()
    error = run.text()[1].strip().splitlines()[-1]
    assert error.startswith("error: iteration 2: every env has been left out"), error
    (checkpoint,) = run.checkpoints()
    assert load_checkpoint(checkpoint).meta["iteration"] == 2
    assert not_finite(load_checkpoint(checkpoint)) == []
    assert balanced(run.summary())


def test_workers_with_bad_numbers_are_replaced_and_their_rollouts_abandoned(
    live: Live, odd: Path
) -> None:
    # The replacement begins with rollout 2; its own third one, rollout 4, is bad again.
    run = live(
        *(*ODD, *ONE_ROLLOUT, *ALL, "+env.kwargs.bad=nan", "rollout.on_invalid=restart_worker"),
        *("experiment.max_iterations=5", "policy.hidden_dims=[8]"),
    )
    assert run.finish() == 0, run.text()
    summary = run.summary()
    assert summary["worker_restarts"] == 4
    assert summary["samples_consumed"] == summary["env_steps"] == 5 * 2 * 64
    assert summary["samples_abandoned"] == 4 * 64 and balanced(summary)
    assert len(list(run.logs.glob("*/*/nan_dump/*_generation_[01]_*.safetensors"))) == 4
    assert run.text()[1].count("env 1, step 0: reward[0] is nan") == 4
    assert not_finite(load_checkpoint(run.checkpoints()[-1])) == []


def test_replacements_for_bad_numbers_have_the_budget_of_deaths(live: Live, odd: Path) -> None:
    run = live(
        *(*ODD, "+env.kwargs.bad=nan", "+env.kwargs.bad_from=1", "rollout.max_restarts=1"),
        *("rollout.on_invalid=restart_worker", "policy.hidden_dims=[8]"),
    )
    assert run.finish() == 1, run.text()
    assert "rollout.max_restarts=1 replacements per hour are used up" in run.text()[1]


# ------------------------------------------------------------------ updates that are undone


def learned(path: Path) -> dict[str, bytes]:
    """All that learning goes on from, to the bit."""
    return {name: t.numpy().tobytes() for name, t in load_checkpoint(path).tensors.items()}


@pytest.mark.parametrize(("workers", "lag"), [(0, 0), (2, 1)])
def test_a_bad_update_is_undone_said_and_counted_and_the_run_goes_on(
    live: Live, odd: Path, workers: int, lag: int
) -> None:
    # 16 steps an iteration: rewards are huge in iteration 2 alone.
    run = live(
        *(*ODD, "+env.kwargs.bad=1e30", "+env.kwargs.bad_from=33", "+env.kwargs.bad_until=49"),
        *(*ALL, "experiment.max_iterations=5", "policy.hidden_dims=[8]"),
        *(f"rollout.num_workers={workers}", f"rollout.max_policy_lag={lag}"),
    )
    assert run.finish() == 0, run.text()
    said = [line for line in run.text()[1].splitlines() if "undone" in line]
    assert len(said) == 1 and said[0].startswith("iteration 2: "), run.text()
    after = [learned(path) for path in run.checkpoints()]
    assert after[1] == after[2]
    assert all(a != b for a, b in ((after[0], after[1]), (after[2], after[3])))
    assert load_checkpoint(run.checkpoints()[-1]).meta["totals"]["bad_updates"] == 1
    summary = run.summary()
    assert (summary["status"], summary["iterations"]) == ("completed", 5)
    assert summary["samples_produced"] == summary["samples_consumed"] == summary["env_steps"]


def test_too_many_bad_updates_in_a_row_end_the_run_with_the_last_good_weights(
    live: Live, odd: Path
) -> None:
    run = live(
        *(*ODD, "+env.kwargs.bad=1e30", "+env.kwargs.bad_from=33", "ppo.max_bad_updates=2"),
        *("experiment.max_iterations=1000", "policy.hidden_dims=[8]", "checkpoint.every=2"),
        *("checkpoint.keep_last=0", "rollout.num_workers=0"),
    )
    assert run.finish() == 1, run.text()
    *warnings, error = run.text()[1].strip().splitlines()
    assert len(warnings) == 2 and all("undone" in line for line in warnings)
    assert error.startswith("error: iteration 4: ") and "max_bad_updates=2" in error
    # Two good iterations, and two that were undone.
    assert [p.name for p in run.checkpoints()] == ["model_2.safetensors", "model_4.safetensors"]
    good, last = run.checkpoints()
    assert learned(good) == learned(last)
    assert moved(load_checkpoint(last)) and not_finite(load_checkpoint(last)) == []


CASES: dict[str, tuple[str, ...]] = {
    "observations that never change": ("+env.kwargs.obs='0.5'",),
    "large observations that never change": ("+env.kwargs.obs='1e8'",),
    "rewards that never change": ("+env.kwargs.reward=1",),
    "no reward ever": ("+env.kwargs.reward=0", "+env.kwargs.obs='0'"),
    "every step ends in a terminal state": ("+env.kwargs.end=terminated",),
    "every step is cut off": ("+env.kwargs.end=truncated",),
    "every step ends for both reasons": ("+env.kwargs.end=both",),
    "every step is cut off, V(s_T) counts nothing": ("+env.kwargs.end=truncated", "ppo.gamma=0"),
    "no episode ends": ("ppo.gamma=1", "ppo.lam=1"),
    "T = 1": ("rollout.steps_per_env=1",),
    "B = 1": ("rollout.envs_per_worker=1",),
    "one sample": ("rollout.steps_per_env=1", "rollout.envs_per_worker=1"),
    "one minibatch": ("ppo.num_mini_batches=1",),
    "one sample, cut off": (
        *("rollout.steps_per_env=1", "rollout.envs_per_worker=1", "+env.kwargs.end=truncated"),
    ),
    "minibatches of one sample": ("ppo.batch_size=1", "rollout.steps_per_env=4"),
}
VARIANTS: dict[str, tuple[str, ...]] = {
    "gae": (),
    "vtrace, values normalised": ("ppo=vtrace", "policy.normalize_values=true"),
    "discrete actions, no lag": ("+env.kwargs.choices=3", "rollout.max_policy_lag=0"),
    "squashed actions": ("policy.squash=tanh", "policy.std_type=log"),
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
@pytest.mark.parametrize(
    ("huge", "error"),
    [
        ("reward=1e15", None),
        ("reward=-1e30", NonFiniteError),
        ("reward=1e300", InvalidNumberError),  # more than float32 holds
        ("obs='1e15'", NonFiniteError),
        ("obs='-1e300'", InvalidNumberError),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_huge_numbers_leave_finite_weights_or_end_with_our_error(
    odd_run: Callable[..., Checkpoint],
    odd: Path,
    huge: str,
    error: type[Exception] | None,
    variant: str,
) -> None:
    line = (f"+env.kwargs.{huge}", "checkpoint.every=1", "checkpoint.keep_last=0")
    line += ("rollout.steps_per_env=8", *VARIANTS[variant])
    with nullcontext() if error is None else pytest.raises(error) as caught:
        odd_run(*line)
    if caught is not None:
        assert re.search("observations and rewards|env 0, step 0: ", str(caught.value))
    written = [load_checkpoint(path) for path in odd.glob("odd-v0/*/checkpoints/*")]
    # Undone updates are versions, too; there is none without a rollout.
    assert len(written) == {None: 4, NonFiniteError: 3, InvalidNumberError: 0}[error]
    assert all(not_finite(checkpoint) == [] for checkpoint in written)
    assert all(moved(checkpoint) == (error is None) for checkpoint in written)
