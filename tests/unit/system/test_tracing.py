"""What may be traced, and a trace that cannot be written."""

from pathlib import Path

import pytest
import torch

from isaac_hydra_ext.system.tracing import Tracer

from ..config.test_config_refusals import refusal


@pytest.mark.parametrize("window", ["[3]", "[5,4]", "[1,2,3]", "[0,20]"])
def test_a_window_to_trace_is_two_iterations(window: str) -> None:
    said = refusal(f"logging.profile={window}")
    assert said.startswith("logging.profile=[")
    assert said.endswith("to trace, at most 20 of them, e.g. [10,12]")


def test_the_iterations_to_trace_are_not_negative() -> None:
    assert refusal("logging.profile=[-1,2]") == "logging.profile=-1: must be at least 0"


def test_a_trace_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "profile").write_text("a file where the directory should be")
    said: list[str] = []
    tracer = Tracer([0, 0], 1, tmp_path, "learner", False, said.append)
    with tracer.around(0):
        torch.ones(2).sum()
    (line,) = said
    assert line.startswith(
        f"no trace: {tmp_path / 'profile' / 'learner.json.gz'} cannot be written"
    )
