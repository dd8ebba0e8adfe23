"""What a run writes and shows, and what it leaves behind: nothing."""

import gc
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from dev_shm import in_dev_shm, left_in_dev_shm
from hydra import compose, initialize_config_module
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from isaac_hydra_ext.appo_runner import open_run
from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.errors import ConfigError, RunInterrupted
from isaac_hydra_ext.reports.report import write_report
from isaac_hydra_ext.run.record import RunRecord

Train = Callable[..., Checkpoint]
Command = Callable[..., subprocess.CompletedProcess[str]]
TINY = ("rollout.envs_per_worker=4", "rollout.steps_per_env=16")


def test_the_run_directory(command: Command, tmp_path: Path) -> None:
    done = command(*TINY, "experiment.max_iterations=14", "experiment.run_name=first")
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "logs" / "pendulum-v1").iterdir()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_first", run.name)
    assert f"tensorboard --logdir {run}" in done.stdout
    found = {str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()}
    assert {
        "summary.json", "checkpoints/model_14.safetensors", "params/agent.yaml",
        "params/env.yaml", ".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml",
        "workers/worker_0.log", "workers/worker_1.log",
    } <= found  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["logs"], "no outputs/ of Hydra's"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["env_steps"] == summary["samples_produced"] == 14 * 2 * 4 * 16


def test_tensorboard_has_the_tags_users_know(train_run: Train) -> None:
    # 14 * 16 steps: every 200-step episode that began at a random time has ended once, and
    # some that began after it.
    run = train_run("experiment.max_iterations=30").path.parent.parent
    events = EventAccumulator(str(run))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {
        "Train/mean_reward", "Train/mean_episode_length", "Perf/total_fps",
        "Perf/collection_time", "Perf/learning_time", "Loss/surrogate", "Loss/value",
        "Loss/entropy", "Loss/learning_rate", "Policy/mean_std", "Policy/kl",
        "Policy/clip_fraction", "Async/policy_lag", "Async/learner_idle_s",
        "Async/workers_wait_s", "Async/effective_sample_size", "Async/truncated_weights",
        "Async/samples_produced", "Async/samples_consumed", "Async/samples_abandoned",
    } <= tags  # fmt: skip
    assert [e.step for e in events.Scalars("Loss/value")] == list(range(1, 31))
    assert {e.value for e in events.Scalars("Train/mean_episode_length")} == {200.0}


def test_a_terminal_shows_a_live_table(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    line = [sys.executable, "-m", "isaac_hydra_ext.appo_runner", *TINY]
    line += ["experiment.max_iterations=3", f"experiment.output_dir={tmp_path}"]
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "40"}
    process = subprocess.Popen(line, stdout=theirs, stderr=theirs, env=env, cwd=tmp_path)
    os.close(theirs)
    screen = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux's way to say that the other side has closed
            break
        if not part:
            break
        screen += part
    assert process.wait(60) == 0, screen.decode()
    text = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", screen).decode()
    rows = [row for row in text.splitlines() if row.strip()]
    assert any("iteration" in row and "3/3 (100%)" in row for row in rows)
    for label in ("time left", "steps/s", "mean return", "KL", "policy lag", "learner waits"):
        assert any(label in row for row in rows), label
    tables = [row for row in rows if row.startswith("│")]
    assert tables
    assert max(map(len, tables)) <= 80


@pytest.mark.release
def test_nothing_is_left_after_five_runs(train_run: Train) -> None:
    """The first run is not counted: libraries open what they keep."""

    def left() -> tuple[int, list[psutil.Process]]:
        gc.collect()
        me = psutil.Process()
        children = [p for p in me.children() if "resource_tracker" not in " ".join(p.cmdline())]
        return me.num_fds(), children

    def run() -> None:
        train_run("experiment.max_iterations=2", "rollout.num_workers=1", "env=gym_cartpole")

    run()
    shm, (fds, _) = in_dev_shm(), left()
    for _ in range(5):
        run()
    assert left() == (fds, [])
    assert left_in_dev_shm(shm) == set()


@pytest.mark.parametrize(
    "overrides",
    [
        ["ppo=vtrace", "rollout.max_policy_lag=2"],
        ["policy.squash=tanh", "ppo.entropy_coef=0.01"],
        ["policy.clip_actions=0.5", "policy.std_type=log", "ppo.lr_schedule=adaptive"],
        ["ppo.stop_kl=0.0001"],
        ["env=gym_any", "env.id=Acrobot-v1", "ppo.value_clip=null", "policy.normalize_obs=false"],
        ["rollout.steps_per_env=1", "rollout.envs_per_worker=1", "ppo.num_mini_batches=1"],
        ["policy.hidden_dims=[]", "policy.critic_hidden_dims=[8]"],
    ],
)
def test_variants_train(train_run: Train, overrides: list[str]) -> None:
    checkpoint = train_run("experiment.max_iterations=4", "rollout.num_workers=0", *overrides)
    assert checkpoint.meta["iteration"] == 4
    assert all(t.isfinite().all() for t in checkpoint.tensors.values())


def test_in_another_application_a_stop_says_how_the_run_goes_on_there(tmp_path: Path) -> None:
    typed = [f"experiment.output_dir={tmp_path}", "rollout.num_workers=0", "logging.console=quiet"]
    typed += TINY
    with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
        cfg = compose("train_appo", overrides=typed)
    with (
        pytest.raises(RunInterrupted, match=r"after iteration 1; .* \+\+appo\.resume=/"),
        open_run(cfg, [f"appo.{token}" for token in typed], package="appo") as run,
    ):
        run.stop.signum = signal.SIGINT  # a signal has come
        run.iterate()


def test_the_time_of_a_run_has_its_saves_in_it(
    train_run: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = RunRecord.save

    def slow_save(self: RunRecord, *args: Any, **kwargs: Any) -> None:
        time.sleep(0.3)
        save(self, *args, **kwargs)

    monkeypatch.setattr(RunRecord, "save", slow_save)
    run = train_run(
        "experiment.max_iterations=4", "checkpoint.every=1", "rollout.num_workers=0"
    ).path.parent.parent
    summary = json.loads((run / "summary.json").read_text())
    assert summary["wall_s"] > 3 * 0.3, "three saves lie between four iterations' ends"
    left = summary["fps_left_out"]
    assert left["iterations"] == 3, "the first, the one fed beside it, and the last"
    steady_s = summary["wall_s"] - left["wall_s"]
    assert steady_s > 0.3, "the save before the steady one"
    assert summary["fps"] == pytest.approx(summary["env_steps"] / 4 / steady_s, rel=0.01)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_last_iteration_beside_which_nothing_is_collected_shows_the_rate_before_it(
    train_run: Train, workers: int
) -> None:
    run = train_run(
        "experiment.max_iterations=8", f"rollout.num_workers={workers}", "rollout.max_policy_lag=2"
    ).path.parent.parent
    events = EventAccumulator(str(run))
    events.Reload()
    rates = [e.value for e in events.Scalars("Perf/total_fps")]
    assert rates[-3] == rates[-2] == rates[-1] and rates[-4] != rates[-3]
    rewards = events.Scalars("Train/reward_per_step")
    assert [e.step for e in rewards] == list(range(1, 9))
    assert all(-17 < e.value < 0 for e in rewards), "Pendulum's, of one step"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["fps_left_out"]["iterations"] == 1 + 2 + 2
    assert summary["reward_per_step"] == pytest.approx(rewards[-1].value)


@pytest.mark.parametrize("error", [RuntimeError("no fonts"), IndexError("out of range")])
def test_a_report_that_cannot_be_drawn_is_a_warning(
    train_run: Train,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: Exception,
) -> None:
    figure = pytest.importorskip("matplotlib.figure")

    def fail(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(figure.Figure, "savefig", fail)
    run = train_run(
        "experiment.max_iterations=2", "rollout.num_workers=0", "logging.report=true",
        "rollout.steps_per_env=200", "rollout.init_at_random_ep_len=false",
    ).path.parent.parent  # fmt: skip
    assert json.loads((run / "summary.json").read_text())["status"] == "completed"
    said = capfd.readouterr().err
    assert f"no report: {type(error).__name__}: {error}; try again: appo report {run}" in said


def test_a_report_names_the_file_that_cannot_be_read(train_run: Train) -> None:
    run = train_run("experiment.max_iterations=1", "rollout.num_workers=0").path.parent.parent
    overrides = run / ".hydra" / "overrides.yaml"
    overrides.write_text("- ppo.lr=[1\n- {")
    with pytest.raises(ConfigError, match=rf"^{overrides}: cannot be read \(ParserError"):
        write_report(run)
    overrides.unlink()
    with pytest.raises(ConfigError, match=rf"^{overrides}: cannot be read \(FileNotFoundError"):
        write_report(run)
