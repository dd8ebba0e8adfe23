"""Runs that are evaluated: what they write, and that nothing of the training depends on it."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from staged_env import MARK
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.checkpoints.find import find_checkpoint

Train = Callable[..., Checkpoint]
EVALUATE = ("evaluate.every=1", "evaluate.num_episodes=2", "evaluate.num_envs=2")


def staged(where: Path, *present: str) -> list[str]:
    """Overrides of an env that does odd things in the evaluator alone."""
    for what in present:
        (where / what).touch()
    ((name, value),) = MARK.items()
    return [
        "env=gym_any", "env.id=Staged-v0", "env.imports=[staged_env]",
        f"+env.kwargs.stage={where}", f"+evaluate.environment.{name}={value}", *EVALUATE,
    ]  # fmt: skip


def summary_of(checkpoint: Checkpoint) -> dict[str, Any]:
    return json.loads((checkpoint.path.parent.parent / "summary.json").read_text())


def evaluations_of(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    path = checkpoint.path.parent.parent / "evaluations.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def events_of(checkpoint: Checkpoint) -> EventAccumulator:
    events = EventAccumulator(str(checkpoint.path.parent.parent))
    events.Reload()
    return events


def assert_bit_identical(a: Checkpoint, b: Checkpoint) -> None:
    assert a.tensors.keys() == b.tensors.keys()
    for name, tensor in a.tensors.items():
        assert torch.equal(tensor, b.tensors[name]), name


@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluated_run_learns_the_same_bits(train_run: Train, workers: int) -> None:
    common = (
        "experiment.max_iterations=4", f"rollout.num_workers={workers}",
        "rollout.deterministic=true",
    )  # fmt: skip
    assert_bit_identical(train_run(*common), train_run(*common, *EVALUATE))


def test_what_an_evaluated_run_writes(
    train_run: Train, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    last = train_run(
        *EVALUATE, "experiment.max_iterations=5", "rollout.num_workers=1", "logging.console=plain"
    )
    run, found = last.path.parent.parent, evaluations_of(last)
    assert found[-1]["iteration"] == 5, "the end of a run waits for the last one"
    assert [e["iteration"] for e in found] == sorted({e["iteration"] for e in found})
    assert summary_of(last)["evaluation"] == found[-1]
    assert found[-1]["best_mean_return"] == max(e["mean_return"] for e in found)
    assert len(found) + found[-1]["skipped"] == 5
    events = events_of(last)
    points = {p.step: p.value for p in events.Scalars("Eval/mean_return")}
    assert points == pytest.approx({e["iteration"]: e["mean_return"] for e in found})
    tags = {tag for tag in events.Tags()["scalars"] if tag.startswith("Eval/")}
    assert tags == {
        "Eval/mean_return", "Eval/std_return", "Eval/mean_episode_length", "Eval/episodes",
        "Eval/iteration", "Eval/skipped", "Eval/time",
    }  # fmt: skip
    out = capfd.readouterr().out
    assert out.count("evaluation of iteration") == 5
    assert re.search(r"evaluation of iteration 5: 2 episodes: return -[\d.]+ \+- [\d.]+, len", out)

    best = find_checkpoint("best", run.parent).checkpoint
    assert best.meta["iteration"] == max(found, key=lambda e: e["mean_return"])["iteration"]
    assert find_checkpoint(str(run), tmp_path)[0].meta["iteration"] == 5


def test_a_busy_evaluator_is_skipped_and_the_training_goes_on(
    train_run: Train, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    last = train_run(
        *staged(tmp_path, "hold"), "experiment.max_iterations=6", "rollout.num_workers=0",
        "evaluate.timeout_s=3", "rollout.startup_timeout_s=250", "logging.console=plain",
    )  # fmt: skip
    assert last.meta["iteration"] == 6 and summary_of(last)["status"] == "completed"
    said = capfd.readouterr()
    assert evaluations_of(last) == []
    skipped = re.findall(r"evaluation of iteration (\d) skipped: that of iteration 1", said.out)
    assert skipped == ["2", "3", "4", "5"], "no env is built in the time of 6 short iterations"
    assert "took longer than evaluate.timeout_s allows and was killed (iteration 6" in said.err


def test_evaluators_that_die_cost_the_evaluations_only(
    train_run: Train, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    common = (
        *staged(tmp_path), "experiment.max_iterations=3", "rollout.num_workers=0",
        "rollout.deterministic=true",
    )  # fmt: skip
    alone = train_run(*common, "evaluate.every=0")
    (tmp_path / "die").touch()
    beside = train_run(*common)
    assert summary_of(beside)["status"] == "completed" and evaluations_of(beside) == []
    assert_bit_identical(alone, beside)
    assert "the evaluator was killed by SIGKILL (iteration 3 is" in capfd.readouterr().err


def test_a_return_that_is_no_number_is_said_and_left_out(
    train_run: Train, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    last = train_run(
        *staged(tmp_path, "nan"), "experiment.max_iterations=4", "rollout.num_workers=0",
        "checkpoint.every=1",
    )  # fmt: skip
    summary = summary_of(last)
    assert summary["status"] == "completed" and summary["evaluation"] is None
    assert last.meta["iteration"] == 4 and evaluations_of(last) == []
    said = capfd.readouterr().err
    assert "evaluation of iteration 4 left out: its mean return is nan" in said


def test_where_no_evaluator_can_live_training_episodes_stand_in_and_that_is_said(
    train_run: Train, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from isaac_hydra_ext.run import evaluations as schedule

    monkeypatch.setattr(schedule, "why_impossible", lambda config: "one GPU, one Kit")
    last = train_run(
        *staged(tmp_path), "experiment.max_iterations=4", "rollout.num_workers=0",
        "rollout.init_at_random_ep_len=false", "evaluate.every=2",
    )  # fmt: skip
    err = capfd.readouterr().err
    assert "no evaluator: one GPU, one Kit; Eval/* are of finished training episodes" in err
    events = events_of(last)
    assert [p.step for p in events.Scalars("Eval/from_training")] == [2, 4]
    points = [p.value for p in events.Scalars("Eval/mean_return")]
    training = {p.step: p.value for p in events.Scalars("Train/mean_reward")}
    assert points == [training[2], training[4]]
    assert evaluations_of(last) == [], "best goes by the training"


def test_videos_of_a_run_and_their_previews(train_run: Train, tmp_path: Path) -> None:
    iio = pytest.importorskip("imageio.v3", reason="pip install 'isaac-hydra-ext[video]'")
    last = train_run(
        *staged(tmp_path), "experiment.max_iterations=3", "rollout.num_workers=0",
        "evaluate.every=0", "logging.video.every=3", "logging.video.length=3",
    )  # fmt: skip
    run = last.path.parent.parent
    assert sorted(p.name for p in (run / "videos").iterdir()) == ["eval_3.gif", "eval_3.mp4"]
    assert iio.imread(run / "videos" / "eval_3.mp4").shape == (4, 32, 48, 3)
    (image,) = events_of(last).Images("Eval/video")
    assert image.encoded_image_string == (run / "videos" / "eval_3.gif").read_bytes()
    assert (image.step, image.width, image.height) == (3, 48, 32)
    assert summary_of(last)["evaluation"]["video"] == "eval_3.mp4"


@pytest.mark.parametrize(("knob", "there"), [("true", True), ("false", False)])
def test_the_report_at_the_end(train_run: Train, knob: str, there: bool) -> None:
    last = train_run(
        "experiment.max_iterations=1", "rollout.num_workers=0", f"logging.report={knob}"
    )
    assert (last.path.parent.parent / "report.md").exists() == there


def test_a_report_without_matplotlib_says_so_and_nothing_else_does(
    train_run: Train, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    last = train_run(
        *EVALUATE, "experiment.max_iterations=14", "rollout.num_workers=0", "logging.report=true",
        "rollout.init_at_random_ep_len=false", "evaluate.every=7",
    )  # fmt: skip
    report = (last.path.parent.parent / "report.md").read_text()
    assert "pip install 'isaac-hydra-ext[plot]'" in report
    assert "| evaluation of iteration 14 | " in report
    said = capfd.readouterr()
    assert "matplotlib" not in said.out + said.err
    assert os.listdir(last.path.parent.parent).count("learning_curve.png") == 0
