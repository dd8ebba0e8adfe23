"""`train(cfg, on_iteration=...)`: a script watches its training, ends it, or fails in it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module

from isaac_hydra_ext import train
from isaac_hydra_ext.checkpoints.find import list_checkpoints

Seen = list[dict[str, float]]


def run(tmp_path: Path, on_iteration: Callable[..., Any]) -> dict[str, Any]:
    """Five iterations, saved after the third and the last."""
    typed = [
        f"experiment.output_dir={tmp_path}", "experiment.max_iterations=5", "checkpoint.every=3",
        "rollout.num_workers=0", "rollout.envs_per_worker=4", "rollout.steps_per_env=16",
        "logging.console=quiet", "logging.report=false",
    ]  # fmt: skip
    with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
        cfg = compose("train_appo", overrides=typed)
    return train(cfg, typed, on_iteration=on_iteration)


def left_in(tmp_path: Path) -> tuple[str, list[str]]:
    """The run's status and its checkpoints."""
    (summary,) = tmp_path.glob("*/*/summary.json")
    names = [path.stem for path in list_checkpoints(summary.parent / "checkpoints")]
    return json.loads(summary.read_text())["status"], names


def test_it_is_given_each_iteration_as_plain_numbers(tmp_path: Path) -> None:
    seen: Seen = []
    run(tmp_path, lambda metrics: seen.append({**metrics}))
    assert [m["iteration"] for m in seen] == [1, 2, 3, 4, 5]
    assert [m["env_steps"] for m in seen] == [64, 128, 192, 256, 320]
    assert all({"Loss/surrogate", "Policy/kl", "Perf/total_fps"} <= {*m} for m in seen)
    assert all(isinstance(value, (int, float)) for m in seen for value in m.values())
    assert left_in(tmp_path) == ("completed", ["model_3", "model_5"])


@pytest.mark.parametrize(("last", "saved"), [(2, ["model_2"]), (3, ["model_3"])])
def test_false_ends_a_run_that_is_then_complete(
    tmp_path: Path, last: int, saved: list[str]
) -> None:
    summary = run(tmp_path, lambda metrics: metrics["iteration"] < last)
    assert summary["iterations"] == last
    assert left_in(tmp_path) == ("completed", saved)


def test_its_error_reaches_the_caller_and_what_was_learned_is_kept(tmp_path: Path) -> None:
    def fails(metrics: dict[str, float]) -> None:
        if metrics["iteration"] == 4:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="^mine$"):
        run(tmp_path, fails)
    assert left_in(tmp_path) == ("failed", ["model_3", "model_4"])
