"""Which checkpoint is best once there are evaluations; when there can be none; their knobs."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from isaac_hydra_ext.checkpoints import find
from isaac_hydra_ext.checkpoints.find import best_first, list_checkpoints
from isaac_hydra_ext.checkpoints.history import FILE, append, evaluated_returns
from isaac_hydra_ext.checkpoints.retention import delete_old
from isaac_hydra_ext.config.schema import CheckpointConfig, RunConfig
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.evaluation.evaluator import evaluator_config
from isaac_hydra_ext.run.evaluations import why_impossible
from isaac_hydra_ext.run.metrics import evaluation_metrics

from ..builders import run_config
from ..checkpoint_samples import write
from ..config.test_config_refusals import loaded


def evaluated(run: Path, **returns: float) -> None:
    for name, value in returns.items():
        append(run, {"iteration": int(name[1:]), "mean_return": value, "episodes": 2})


def ranked(*runs: Path) -> list[str]:
    notes: list[str] = []
    names = [f"{path.parent.parent.name}/{path.stem[6:]}" for path in best_first(runs, notes)]
    assert notes == []
    return names


# ------------------------------------------------------------------ what is written


def test_lines_that_are_none_are_passed_over(tmp_path: Path) -> None:
    assert evaluated_returns(tmp_path) == {}
    evaluated(tmp_path, k3=1.5, k6=-2)
    with (tmp_path / FILE).open("a") as f:
        for line in (
            "", "[1]", "7", '{"iteration": 9}', '{"iteration": "9", "mean_return": 1}',
            '{"iteration": 9, "mean_return": "much"}', '{"iteration": 9, "mean_return": NaN}',
            '{"iteration": 9, "mean_return": 1' + "0" * 400 + "}", "[" * 10**5,
            '{"iteration": true, "mean_return": 1}', '{"iteration": 9, "mean_re',
        ):  # fmt: skip
            f.write(line + "\n")
    evaluated(tmp_path, k3=2.5)  # the same iteration again: what was found last
    assert evaluated_returns(tmp_path) == {3: 2.5, 6: -2.0}


def test_tags() -> None:
    result = {"episodes": 4, "mean_return": 1.0, "std_return": 2.0, "mean_length": 3.0}
    metrics = evaluation_metrics(50, {**result, "std_length": 0.0, "seconds": 0.5}, 7)
    assert metrics == {
        "Eval/mean_return": 1.0, "Eval/std_return": 2.0, "Eval/mean_episode_length": 3.0,
        "Eval/episodes": 4.0, "Eval/iteration": 50.0, "Eval/skipped": 7.0, "Eval/time": 0.5,
    }  # fmt: skip


# ------------------------------------------------------------------ best


def test_best_goes_by_evaluation_where_a_run_has_any(tmp_path: Path) -> None:
    run = tmp_path / "a"
    for iteration, trained in ((1, 9.0), (2, 8.0), (3, 10.0)):
        write(run / "checkpoints", iteration, trained)
    assert ranked(run) == ["a/3", "a/1", "a/2"]
    evaluated(run, k1=1.0, k2=2.0, k77=99.0)  # 77 was never saved, or is deleted
    assert ranked(run) == ["a/2", "a/1", "a/3"], "what was not evaluated comes last"


def test_runs_are_compared_by_the_best_that_each_knows(tmp_path: Path) -> None:
    for name, trained in (("a", 5.0), ("b", 6.0), ("c", 1.0)):
        write(tmp_path / name / "checkpoints", 1, trained)
    evaluated(tmp_path / "a", k1=7.0)
    assert ranked(*(tmp_path / name for name in "abc")) == ["a/1", "b/1", "c/1"]
    evaluated(tmp_path / "a", k1=-7.0)
    assert ranked(*(tmp_path / name for name in "abc")) == ["a/1", "b/1", "c/1"], (
        "what was evaluated comes first: a return in training is of a policy that explores"
    )


def test_an_evaluation_needs_no_finished_training_episode(tmp_path: Path) -> None:
    write(tmp_path / "a" / "checkpoints", 1)
    assert ranked(tmp_path / "a") == []
    evaluated(tmp_path / "a", k1=-3.0)
    assert ranked(tmp_path / "a") == ["a/1"]


def test_what_is_being_evaluated_stays_and_the_best_evaluated_too(tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    for iteration in range(1, 8):
        write(directory, iteration, float(iteration))
    evaluated(tmp_path, k2=5.0, k3=4.0)
    delete_old(directory, CheckpointConfig(keep_last=1), keep=4)
    assert [p.stem for p in list_checkpoints(directory)] == ["model_2", "model_4", "model_7"]


# ------------------------------------------------------------------ where it can live


def isaac(**evaluate: Any) -> RunConfig:
    config = run_config(evaluate=evaluate)
    config.env.kind, config.rollout.device = "isaaclab", "cuda:0"
    return config


def test_the_evaluators_device() -> None:
    assert evaluator_config(run_config()).rollout.device == "cpu"
    config = run_config()
    config.env.kind, config.rollout.device = "mjlab", "cuda:0"
    assert evaluator_config(config).rollout.device == "cpu"
    assert evaluator_config(isaac()).rollout.device == "cuda:0"
    assert evaluator_config(isaac(device="cpu")).rollout.device == "cpu"
    assert config.rollout.device == "cuda:0", "the run's own is left alone"
    several = isaac()
    several.rollout.device = "cuda:1,cuda:2"
    assert evaluator_config(several).rollout.device == "cuda:1"
    several.evaluate.cuda_visible_devices = "3"
    assert evaluator_config(several).rollout.device == "cuda:0", "the one that its process sees"


def test_two_kits_on_one_gpu_are_refused_and_nothing_else_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    why = why_impossible(isaac())
    assert why.startswith("Isaac Lab with Kit has cuda:0 to itself; name another GPU")
    assert why_impossible(run_config()) == ""
    assert why_impossible(isaac(device="cpu")) == ""
    assert why_impossible(isaac(cuda_visible_devices="1")) == ""
    several = isaac()
    several.rollout.device, several.evaluate.device = "cuda:1,cuda:2", "cuda:2"
    assert why_impossible(several) != ""
    several.evaluate.device = "cuda:3"
    assert why_impossible(several) == ""
    kitless = isaac()
    kitless.env.physics = "newton_mjwarp"
    assert why_impossible(kitless) == ""
    monkeypatch.setitem(sys.modules, "omni.kit.app", object())
    assert why_impossible(kitless) == why, "Kit runs here all the same"
    mjlab = isaac()
    mjlab.env.kind = "mjlab"
    assert why_impossible(mjlab) == ""


# ------------------------------------------------------------------ knobs


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("evaluate.every=-1", "evaluate.every=-1: must be at least 0"),
        ("evaluate.num_episodes=0", "evaluate.num_episodes=0: must be at least 1"),
        ("evaluate.device=tpu", "evaluate.device=tpu: not a device"),
        ("evaluate.timeout_s=0", "evaluate.timeout_s=0.0: must be greater than 0"),
        ("+evaluate.environment.LD_PRELOAD=x", "LD_PRELOAD: not a renderer's variable; set it in"),
        ("+evaluate.environment.MUJOKO_GL=x", "not a renderer's variable; did you mean 'MUJOCO_GL"),
        ("+evaluate.environment.PYTHONPATH=x", "PYTHONPATH: not a renderer's variable"),
        ("logging.video.length=0", "logging.video.length=0: must be at least 1"),
        ("logging.video.fps=0", "logging.video.fps=0.0: must be greater than 0"),
    ],
)
def test_bad_values_are_refused(typed: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded("env=gym_pendulum", typed)
    assert says in str(caught.value)


def test_a_gpu_for_a_cpu_simulation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="evaluate.device=cuda:0: env.kind=gym simulates on the"):
        loaded("env=gym_pendulum", "evaluate.device=cuda:0", "experiment.device=cpu")


def test_other_visible_gpus_are_numbered_otherwise() -> None:
    with pytest.raises(ConfigError, match="PyTorch sees 0 CUDA devices here"):
        loaded("env=mjlab_any", "env.task=X", "evaluate.device=cuda:0")
    loaded(
        "env=mjlab_any", "env.task=X", "evaluate.device=cuda:0", "evaluate.cuda_visible_devices='3'"
    )


def test_a_save_reads_of_the_checkpoints_that_are_kept_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "checkpoints"
    directory.mkdir()
    read: list[str] = []
    real = find.read_meta

    def noting(path: Path) -> dict[str, Any]:
        read.append(path.stem)
        return real(path)

    monkeypatch.setattr(find, "read_meta", noting)
    config = CheckpointConfig(keep_last=2, keep_every=2, keep_best=True)
    for iteration in range(1, 6):
        write(directory, iteration)
        delete_old(directory, config)
    assert sorted(read) == sorted(set(read)) != [], "each at most once"
    assert [path.stem for path in list_checkpoints(directory)][-2:] == ["model_4", "model_5"]
    damaged = directory / "model_4.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    notes: list[str] = []
    assert damaged not in list(best_first([tmp_path], notes))
    assert len(notes) == 1, "read again: it has changed"
