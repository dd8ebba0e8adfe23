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


def test_what_comes_before_the_env_s_step_waits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # E.g. an error that the update's thread has left on the GPU: its own is the one to tell.
    run = InProcessRun(run_config(2))

    def load(version: int, flat: torch.Tensor) -> None:
        raise RuntimeError("of the device")

    monkeypatch.setattr(run.weights, "load", load)
    run.source.collect_ahead(0)
    with pytest.raises(EnvError, match="of the device"):
        run.source.gather(0)


def test_a_second_ctrl_c_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    run = raising(monkeypatch, RunInterrupted(2, "now"))
    with pytest.raises(RunInterrupted):
        run.source.collect_ahead(0)
