"""What the terminal shows, by its width and kind."""

import io
import os
import pty
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isaac_hydra_ext.learner.ppo.ppo import PPO
from isaac_hydra_ext.system.activity import Activity, listen, tell
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.terminal import console as console_module
from isaac_hydra_ext.terminal import start_progress
from isaac_hydra_ext.terminal.console import IterationView, RunConsole
from isaac_hydra_ext.terminal.start_progress import StartProgress
from isaac_hydra_ext.workers.pool import WorkerPool

from ..builders import run_config

METRICS = {
    "Train/mean_reward": -1234.5, "Train/mean_episode_length": 200.0, "Perf/total_fps": 18162.0,
    "Perf/iteration_time": 0.5, "Perf/collection_time": 0.25, "Perf/learning_time": 0.4,
    "Loss/surrogate": -0.008, "Loss/value": 0.0006, "Loss/entropy": 0.458,
    "Loss/learning_rate": 5e-4, "Loss/explained_variance": 0.9, "Loss/actor_grad_norm": 0.1,
    "Loss/critic_grad_norm": 0.2, "Policy/kl": 0.01, "Policy/mean_std": 0.383,
    "Policy/clip_fraction": 0.05, "Async/policy_lag": 1.0, "Async/learner_idle_s": 0.0,
    "Async/workers_wait_s": 0.25, "Async/worker_restarts": 0.0, "Async/samples_abandoned": 12.0,
}  # fmt: skip
TASK = {
    f"Episode_Reward/a_term_of_the_reward_with_a_long_name_{i}": 0.123456 * i for i in range(12)
}


def view(iteration: int = 110, **more: float) -> IterationView:
    return IterationView(iteration, 200, 1_225_280, METRICS | more, 10.0, PPO.shown)


class Tty(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        """As terminals say."""
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch, width: int = 80) -> Tty:
    """Have stdout be a terminal; not a fixture, as pytest sets stdout again after those."""
    out = Tty()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(width))
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    return out


def last_frame(out: Tty) -> list[str]:
    """The lines of the last table drawn, without control sequences."""
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", out.getvalue())
    return text[text.rindex("┌") :].splitlines()


@pytest.mark.parametrize(("width", "rows", "pairs"), [(60, 15, 1), (80, 8, 2), (120, 8, 3)])
def test_the_table_fits_the_terminals_width(
    monkeypatch: pytest.MonkeyPatch, width: int, rows: int, pairs: int
) -> None:
    tty = on_terminal(monkeypatch, width)
    console = RunConsole("auto")
    console.starting(with_pids(2), shared=False)
    console.start("APPO x")
    console.show(view(**TASK))
    console.close()
    frame = last_frame(tty)
    table = [line for line in frame if line.startswith(("┌", "│", "└"))]
    assert len(table) == rows + 2
    assert max(map(len, table)) <= width
    assert all(line.count("│") == 2 * pairs + 1 for line in table if line.startswith("│"))
    text = "\n".join(table)
    for shown in ("110/200 (55%)", "1,225,280", "-1,234.50", "18,162", "5.00e-04", "50%"):
        assert shown in text
    assert ("a_term_of_the_reward_w" in text) == (pairs == 3), "what the task logs, where it fits"
    assert f"pids: learner {os.getpid()}, workers 70, 71" in " ".join("\n".join(frame).split())


def with_pids(workers: int) -> list[Activity]:
    activities = begun(*["ready"] * workers)
    for w, activity in enumerate(activities):
        activity.pid = 70 + w
    return activities


@pytest.mark.parametrize("mode", ["table", "plain"])
def test_what_says_nothing_is_not_shown(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    def shown(activities: list[Activity], lags: bool, **more: float) -> str:
        tty = on_terminal(monkeypatch, 120)
        console = RunConsole(mode)
        console.starting(activities, shared=False)
        console.start("APPO x")
        console.show(replace(view(**more), lags=lags))
        console.close()
        return tty.getvalue()

    bare = shown([Activity("this process")], lags=False, **{"Async/samples_abandoned": 0.0})
    for word in ("lag", "workers wait", "restarts", "pids", "abandoned", "nan"):
        assert word not in bare, word
    whole = shown(with_pids(9), lags=True, **{"Async/worker_restarts": 2.0})
    for word in ("lag", "workers wait", "restarts", "workers 70, 71, 72", "(9)"):
        assert word in " ".join(whole.split()), word


def test_one_workers_start_says_its_pid() -> None:
    start = StartProgress(with_pids(1), lambda start: None, every_s=3600.0)
    try:
        assert start.line().endswith("| worker 0 (pid 70): ready")
    finally:
        start.stop()


def test_a_wide_table_without_a_tasks_log_shows_more_of_the_update(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tty = on_terminal(monkeypatch, 120)
    console = RunConsole("table")
    console.start("APPO x")
    console.show(view())
    console.close()
    text = "\n".join(last_frame(tty))
    assert "iteration [s]" in text and "samples abandoned" in text


def test_it_is_drawn_no_more_often_than_anybody_can_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tty = on_terminal(monkeypatch)
    monkeypatch.setattr(console_module, "MIN_REDRAW_S", 3600.0)
    console = RunConsole("auto")
    console.start("APPO x")
    for iteration in range(1, 201):
        console.show(view(iteration))
    console.close()
    assert "200/200 (100%)" in "\n".join(last_frame(tty)), "the last one stands"
    assert len(re.findall(r"\d+/200 \(", tty.getvalue())) <= 3


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    tty = on_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    console = RunConsole("auto")
    console.start("APPO x")
    console.show(view())
    console.warn("careful")
    console.close()
    colours = re.findall(r"\x1b\[(?:\d+;)*(?:3|4|9)\d(?:;\d+)*m", tty.getvalue())
    assert not colours


@pytest.mark.parametrize("terminal", ["file", "dumb", "forced"])
def test_elsewhere_there_are_plain_lines(monkeypatch: pytest.MonkeyPatch, terminal: str) -> None:
    out: io.StringIO = on_terminal(monkeypatch)
    if terminal == "dumb":
        monkeypatch.setenv("TERM", "dumb")
    else:
        out = io.StringIO()
        monkeypatch.setattr("sys.stdout", out)
    if terminal == "forced":
        monkeypatch.setenv("FORCE_COLOR", "1")
    console = RunConsole("auto")
    console.start("APPO x")
    console.show(view())
    console.close()
    (line,) = out.getvalue().splitlines()
    assert line.startswith("iteration 110/200 | return -1,234.50") and line.endswith("ETA 0:00:10")


def without_an_episode(**more: float) -> IterationView:
    metrics = {k: v for k, v in METRICS.items() if not k.startswith("Train/")}
    return IterationView(1, 200, 1_225_280, metrics | more, 10.0)


def test_before_an_episode_has_ended_the_reward_of_a_step_is_shown_and_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tty = on_terminal(monkeypatch, 80)
    console = RunConsole("table")
    console.start("APPO x")
    console.show(without_an_episode(**{"Train/reward_per_step": -0.01234}))
    console.close()
    text = "\n".join(last_frame(tty))
    assert re.search(r"reward/step +│ +-0.01234 │", text)
    assert re.search(r"mean return +│ +no whole episode │", text)
    assert "mean length" not in text
    monkeypatch.setattr("sys.stdout", out := io.StringIO())
    console = RunConsole("plain")
    console.start("APPO x")
    console.show(without_an_episode(**{"Train/reward_per_step": 2.0}))
    console.show(without_an_episode())
    first, every_env_left_out = out.getvalue().splitlines()
    assert "| reward/step 2 (no whole episode has ended) | 18,162 steps/s" in first
    assert "| reward/step - (no whole episode has ended) |" in every_env_left_out


def test_quiet_says_only_what_goes_wrong(capfd: pytest.CaptureFixture[str]) -> None:
    console = RunConsole("quiet")
    console.say("hello")
    console.starting([Activity("worker 0")], shared=False)
    console.start("APPO x")
    console.show(view())
    console.warn("careful")
    console.close()
    assert capfd.readouterr() == ("", "careful\n")


# ------------------------------------------------------------------ while it starts


def begun(*whats: str) -> list[Activity]:
    activities = [Activity(f"worker {w}") for w in range(len(whats))]
    for activity, what in zip(activities, whats, strict=True):
        activity.begin(what)
    return activities


def test_workers_that_do_the_same_are_one_row() -> None:
    activities = begun("builds", "waits", "waits", "ready", "waits", "ready")
    start = StartProgress(activities, lambda start: None, every_s=3600.0)
    try:
        rows = [(who, what) for who, what, _ in start.rows()]
        assert rows == [
            ("worker 0", "builds"), ("workers 1-2, 4", "waits"), ("workers 3, 5", "ready"),
        ]  # fmt: skip
        assert re.sub(r"0:00:\d\d", "T", start.line()) == (
            "starting T | worker 0: builds (T) | workers 1-2, 4: waits (T) | workers 3, 5: ready"
        )
    finally:
        start.stop()


def test_a_start_is_drawn_on_a_terminal_and_gone_when_it_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tty = on_terminal(monkeypatch)
    monkeypatch.setattr(console_module, "REFRESH_S", 0.01)
    console = RunConsole("auto")
    console.starting(begun("builds 4 envs", "waits"), shared=False)
    until(lambda: "builds 4 envs" in tty.getvalue())
    console.start("APPO x")
    console.show(view())
    console.close()
    assert "builds" not in "\n".join(last_frame(tty))
    drawn = len(tty.getvalue())
    time.sleep(0.05)
    assert len(tty.getvalue()) == drawn, "its thread has ended"


def test_a_start_is_told_in_lines_where_an_env_may_redirect_the_output(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """What Isaac Lab prints is kept from fd 1 for minutes, just when there is something to tell."""
    monkeypatch.setattr(console_module, "LINE_EVERY_S", 0.01)
    console = RunConsole("table")
    console.starting([Activity("this process")], shared=True)
    kept, saved = os.open(tmp_path / "kept", os.O_CREAT | os.O_WRONLY), os.dup(1)
    os.dup2(kept, 1)
    listen(lambda what: console._start._activities[0].begin(what))  # type: ignore[union-attr]
    tell("starts Isaac Sim")
    said = [""]
    until(lambda: "this process: starts Isaac Sim (0:00:0" in grown(said, capfd))
    os.dup2(saved, 1)
    console.close()
    listen(lambda what: None)
    assert not (tmp_path / "kept").read_text()


def grown(said: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    said[0] += capfd.readouterr().out
    return said[0]


def until(true: Any, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_workers_tell_what_they_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str]] = []
    begin = Activity.begin

    def spy(activity: Activity, what: str) -> None:
        told.append((activity.who, what))
        begin(activity, what)

    monkeypatch.setattr(Activity, "begin", spy)
    config = run_config(
        env={"imports": ["gymnasium"]},  # else the task is read in this process
        rollout={"num_workers": 2, "envs_per_worker": 2, "steps_per_env": 8},
    )
    pool = WorkerPool(config, StopSignals())
    try:
        pool.describe()
        (tmp_path / "workers").mkdir()
        pool.build(config, tmp_path, None, 0)
    finally:
        pool.close()
    by_worker = [[what for who, what in told if who == f"worker {w}"] for w in (0, 1)]
    assert by_worker[0] == [
        "starts Python", "imports gym and reads the task", "has read the task", "builds 2 envs",
        "resets its envs", start_progress.READY,
    ]  # fmt: skip
    assert by_worker[1] == [
        "starts Python", "waits for worker 0, which fills caches", "builds 2 envs",
        "resets its envs", start_progress.READY,
    ]  # fmt: skip


PROGRAM = """
from isaac_hydra_ext.system.activity import Activity
from isaac_hydra_ext.terminal.console import RunConsole
console = RunConsole("auto")
console.starting([Activity("worker 0")], shared=False)
console.say("hello")
console.start("APPO x")
console.close()
"""


def test_a_real_terminal_is_left_as_it_was() -> None:
    """The cursor is shown again, whatever the console was at."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=theirs, env=env) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                said += os.read(ours, 65536)
            except OSError:  # what a terminal says at its end
                break
        assert process.wait(30) == 0
    os.close(ours)
    assert b"hello" in said
    assert said.rfind(b"\x1b[?25h") > said.rfind(b"\x1b[?25l") >= 0
