"""Updates compiled for the CPU learn what eager ones learn; without a compiler they are eager."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from unit.builders import InProcessRun, run_config

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.system import compiler

Train = Callable[..., Checkpoint]
RUN = ("experiment.max_iterations=3", "rollout.num_workers=0", "rollout.deterministic=true")


@pytest.fixture(autouse=True)
def ask_anew() -> Iterator[None]:
    compiler.why_not.cache_clear()
    yield
    compiler.why_not.cache_clear()


@pytest.mark.release
def test_compiled_updates_learn_what_eager_ones_learn(train_run: Train) -> None:
    if why_not := compiler.why_not("cpu"):
        pytest.skip(why_not)
    eager = train_run(*RUN, "ppo.compile=never")
    torch._dynamo.utils.counters.clear()
    compiled = train_run(*RUN, "ppo.compile=always")
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 3, "actor, critic, Adam"
    for name, tensor in eager.tensors.items():
        torch.testing.assert_close(compiled.tensors[name], tensor, atol=1e-4, rtol=1e-3)


def test_without_a_compiler_the_run_goes_on_and_says_so(
    train_run: Train, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: object, **__: object) -> Callable[[torch.Tensor], torch.Tensor]:
        def compiled(x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("No working C++ compiler found\nand more lines")

        return compiled

    monkeypatch.setattr(torch, "compile", failing)
    train_run(*RUN, "ppo.compile=always", "logging.console=plain")
    said = capsys.readouterr().out
    assert "ppo.compile=always: torch.compile fails here" in said
    assert "No working C++ compiler found; updates are not compiled" in said


def test_nothing_is_compiled_for_a_cpu_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "why_not", lambda device: pytest.fail("asked whether it could"))
    InProcessRun(run_config(4, experiment={"max_iterations": 10**6}))


def test_triton_without_python_s_headers_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(compiler.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("CC", sys.executable)
    monkeypatch.setattr(compiler.sysconfig, "get_path", lambda name: str(tmp_path))
    assert "apt-get install python3-dev" in compiler.why_not("cuda")
    (tmp_path / "Python.h").touch()
    compiler.why_not.cache_clear()
    assert compiler.why_not("cuda") == ""
