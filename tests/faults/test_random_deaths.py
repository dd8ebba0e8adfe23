"""Workers that die at random, and one that dies while it has nothing to do."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from how_long import here
from live_run import LiveRun

from isaac_hydra_ext.checkpoints.file import load_checkpoint

Live = Callable[..., LiveRun]
T, B, W = 16, 4, 2
ITERATIONS, DEATHS = here(100, 500), here(2, 8)
# Every worker counts the steps of its env 0; in a step drawn when it starts, that env writes down
# which step of the rollout it is and kills its process. On average that is rollout 50.
MODULE = f"""
import itertools, os, random, signal
import gymnasium
from gymnasium.envs.classic_control import PendulumEnv

indices = itertools.count()

class Mortal(PendulumEnv):
    def __init__(self, graveyard="", **kwargs):
        super().__init__(**kwargs)
        self.graveyard, self.steps, self.last = graveyard, 0, None
        if next(indices) == 0:
            dead = os.path.getsize(graveyard)
            self.last = random.Random(dead).randrange(100 * {T})

    def step(self, action):
        if self.steps == self.last:
            with open(self.graveyard, "ab") as f:
                f.write(bytes([self.steps % {T}]))
            os.kill(os.getpid(), signal.SIGKILL)
        self.steps += 1
        return super().step(action)

gymnasium.register("Mortal-v0", Mortal, max_episode_steps=50)
"""


@pytest.mark.timeout(1800)
def test_a_worker_that_dies_in_1_of_50_rollouts_costs_exactly_its_unfinished_steps(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mortal_env.py").write_text(MODULE)
    graveyard = tmp_path / "graveyard"
    graveyard.touch()
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    run = live(
        *("env=gym_any", "env.id=Mortal-v0", "env.imports=[mortal_env]"),
        *(f"+env.kwargs.graveyard={graveyard}", "rollout.max_restarts=100"),
        *(f"experiment.max_iterations={ITERATIONS}", "ppo.update_epochs=1", "checkpoint.every=20"),
    )
    assert run.finish(timeout=1700) == 0, run.text()
    deaths, summary = list(graveyard.read_bytes()), run.summary()
    assert len(deaths) >= DEATHS, "the test is about deaths"
    assert summary["status"] == "completed"
    assert summary["iterations"] == ITERATIONS
    assert summary["worker_restarts"] == len(deaths)
    assert summary["samples_consumed"] == summary["env_steps"] == ITERATIONS * W * B * T
    assert summary["samples_abandoned"] == sum(deaths) * B
    assert summary["samples_produced"] == (
        summary["samples_consumed"] + summary["samples_abandoned"]
    )
    assert load_checkpoint(run.checkpoints()[-1]).meta["iteration"] == ITERATIONS


@pytest.mark.alone
def test_a_worker_killed_while_it_waits_for_orders_costs_nothing_and_the_other_goes_on(
    live: Live,
) -> None:
    # Updates of seconds after rollouts of milliseconds, one after the other: workers are idle.
    run = live(
        *("experiment.max_iterations=4", "rollout=sync", "rollout.max_policy_lag=0"),
        *("ppo.update_epochs=2000", "ppo.num_mini_batches=1", "ppo.lr=1e-6"),
    )
    run.wait_for_iteration(1)
    time.sleep(0.3)
    victim, other = run.workers()
    before: list[float] = []  # they look up once a second: two looks that are the same
    while (now := [sum(worker.cpu_times()[:2]) for worker in (victim, other)]) != before:
        assert "iteration 2/" not in run.text()[0], "not idle"
        before = now
        time.sleep(0.2)
    assert "iteration 2/" not in run.text()[0], "the update was to last longer"
    victim.send_signal(signal.SIGKILL)
    run.wait_for_iteration(3)
    assert other.is_running()
    assert victim not in run.workers()
    assert run.finish() == 0, run.text()
    summary = run.summary()
    assert summary["worker_restarts"] == 1
    assert summary["samples_abandoned"] == 0
    assert summary["samples_produced"] == summary["samples_consumed"] == 4 * W * B * T
