"""What an env raises while a rollout is collected beside an update (W = 0)."""

import pytest
import torch

from isaac_hydra_ext.errors import EnvError, IsaacHydraExtError, RunInterrupted

from .builders import InProcessRun, run_config


def raising(monkeypatch: pytest.MonkeyPatch, error: IsaacHydraExtError) -> InProcessRun:
    run = InProcessRun(run_config(2))

    def step(actions_BA: torch.Tensor) -> None:
        raise error

    monkeypatch.setattr(run.source.collector.env, "step", step)
    return run


def test_an_error_waits_for_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    run = raising(monkeypatch, EnvError("of the env"))
    run.source.collect_ahead(0)
    with pytest.raises(EnvError, match="of the env"):
        run.source.gather(0)


def test_a_second_ctrl_c_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    run = raising(monkeypatch, RunInterrupted(2, "now"))
    with pytest.raises(RunInterrupted):
        run.source.collect_ahead(0)
