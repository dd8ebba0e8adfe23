"""400 iterations among killed workers, stops, kills of the whole run, and resumes.

2,000 under `scripts/test_long.sh`.
"""

import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from how_long import here
from live_run import LiveRun
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from isaac_hydra_ext.checkpoints.file import load_checkpoint
from isaac_hydra_ext.checkpoints.find import list_checkpoints

Live = Callable[..., LiveRun]
TOTAL, N_BUFFER = here(240, 2000), 2 * 4 * 16
EVERY = TOTAL // 40  # iterations between two checkpoints
LIGHT = ("ppo.update_epochs=1", "ppo.num_mini_batches=1", "policy.hidden_dims=[8]")


def curve_of(run_dir: Path) -> dict[int, float]:
    """Mean return by iteration, as TensorBoard shows it."""
    events = EventAccumulator(str(run_dir), size_guidance={"scalars": 0})
    events.Reload()
    return {e.step: e.value for e in events.Scalars("Train/mean_reward")}


@pytest.mark.timeout(1800)
def test_counters_and_curve_join_over_kills_stops_and_resumes(live: Live) -> None:
    chance, signals = random.Random(28), [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]
    chance.shuffle(signals)
    curve: dict[int, float] = {}
    resume: list[str] = []
    done, segments, deaths, restarts = 0, 0, 0, 0
    while done < TOTAL:
        run = live(
            *(f"experiment.max_iterations={TOTAL}", f"checkpoint.every={EVERY}", *LIGHT, *resume),
            "rollout.max_restarts=1000",
        )
        first, stop_at = done, done + chance.randrange(5 * EVERY, 10 * EVERY)
        run.wait_for_iteration(min(TOTAL - 3 * EVERY, first + 2 * EVERY))
        chance.choice(run.workers()).send_signal(signal.SIGKILL)
        deaths += 1
        if stop_at < TOTAL - 3 * EVERY:
            run.wait_for_iteration(stop_at)
            run.workers()
            signum = signals[segments % 3]
            run.process.send_signal(signum)
            assert run.finish() == (-9 if signum == signal.SIGKILL else 128 + signum)
        else:
            assert run.finish() == 0, run.text()
        (run_dir,) = run.logs.glob("*/*")
        newest = load_checkpoint(list_checkpoints(run_dir / "checkpoints")[-1])
        done, segments, resume = newest.meta["iteration"], segments + 1, [f"resume={run_dir}"]
        totals = newest.meta["totals"]
        assert newest.meta["env_steps"] == totals["samples_consumed"] == done * N_BUFFER
        assert totals["worker_restarts"] >= restarts
        restarts = totals["worker_restarts"]
        points = {k: r for k, r in curve_of(run_dir).items() if k <= done}
        if curve:  # it goes on where the last one ended: the same episodes are in its window
            assert min(points) == first + 1
            assert abs(points[first + 1] - curve[first]) < 100
        curve |= points
    assert segments >= 4 and deaths == segments, "the test is about stops and deaths"
    assert sorted(curve) == list(range(min(curve), TOTAL + 1)), "a point for every iteration"
    assert min(curve) <= 2 * 200 // 16 + 1, "from the first whole episode on"
    summary = run.summary()
    assert summary["iterations"] == TOTAL
    assert summary["env_steps"] == summary["samples_consumed"] == TOTAL * N_BUFFER
    assert summary["samples_produced"] == summary["samples_consumed"] + summary["samples_abandoned"]
    # A death costs one unfinished rollout; an end of the run what was in flight, two a worker.
    assert summary["samples_abandoned"] <= deaths * 4 * 16 + segments * 2 * N_BUFFER
