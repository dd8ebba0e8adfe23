"""The example of docs/evaluation.md: a trained policy played in a script of the user's own."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from docs_blocks import blocks

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.evaluation.of_checkpoint import evaluate


def test_the_example_plays_as_eval_does(
    train_run: Callable[..., Checkpoint],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (block,) = (b for b in blocks("python") if "load_policy" in b.text)
    checkpoint = train_run(
        "experiment.output_dir=" + str(tmp_path / "logs" / "appo"),
        "experiment.max_iterations=2", "rollout.num_workers=0",
    )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    exec(block.text, {})
    said = re.fullmatch(r"iteration 2: return (-[\d.]+)\n", capsys.readouterr().out)
    assert said
    assert float(said[1]) == pytest.approx(evaluate(checkpoint, 1, seed=0)["mean_return"], abs=0.1)
