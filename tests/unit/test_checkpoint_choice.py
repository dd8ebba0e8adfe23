"""Which checkpoint a run goes on from, whether it fits, and which ones are kept."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from isaac_hydra_ext.checkpoint import (
    Checkpoint,
    check_fits,
    delete_old,
    find_checkpoint,
    list_checkpoints,
    save_checkpoint,
)
from isaac_hydra_ext.config import CheckpointConfig
from isaac_hydra_ext.envs.vec_env import EnvSpec
from isaac_hydra_ext.errors import CheckpointError
from isaac_hydra_ext.learner.learner import Learner

from .builders import continuous, discrete, env_spec, run_config


def run_of(root: Path, name: str, *iterations: int) -> Path:
    directory = root / name / "checkpoints"
    directory.mkdir(parents=True)
    for iteration in iterations:
        save_checkpoint(directory, iteration, {"w": torch.full((2,), float(iteration))}, {})
    return root / name


def damage(run: Path, iteration: int) -> Path:
    path = run / "checkpoints" / f"model_{iteration}.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    return path


# ------------------------------------------------------------------ finding


def test_a_run_directory_means_its_newest_by_number(tmp_path: Path) -> None:
    run = run_of(tmp_path, "a", 9, 10, 100)
    found, notes = find_checkpoint(str(run), tmp_path)
    assert found.meta["iteration"] == 100 and notes == []
    assert [p.name for p in list_checkpoints(run / "checkpoints")] == [
        f"model_{k}.safetensors" for k in (9, 10, 100)
    ]


def test_a_damaged_newest_is_passed_over_and_named(tmp_path: Path) -> None:
    run = run_of(tmp_path, "a", 1, 2, 3)
    paths = [damage(run, 3), damage(run, 2)]
    found, notes = find_checkpoint(str(run), tmp_path)
    assert found.meta["iteration"] == 1
    assert found.tensors["w"].tolist() == [1.0, 1.0]
    assert len(notes) == 2
    for note, path in zip(notes, paths, strict=True):
        assert note.startswith("DAMAGED") and str(path) in note


def test_a_damaged_one_that_was_named_is_an_error(tmp_path: Path) -> None:
    path = damage(run_of(tmp_path, "a", 1, 2), 2)
    with pytest.raises(CheckpointError, match=str(path)):
        find_checkpoint(str(path), tmp_path)


def test_a_named_one_is_loaded_even_if_it_is_not_the_newest(tmp_path: Path) -> None:
    run = run_of(tmp_path, "a", 1, 2)
    found, notes = find_checkpoint(str(run / "checkpoints" / "model_1.safetensors"), tmp_path)
    assert found.meta["iteration"] == 1 and notes == []


def test_latest_is_the_newest_run_that_has_a_checkpoint(tmp_path: Path) -> None:
    run_of(tmp_path, "2026-01-01_00-00-00", 500)
    run_of(tmp_path, "2026-01-02_00-00-00", 3)
    run_of(tmp_path, "2026-01-03_00-00-00")  # crashed before its first
    found, _ = find_checkpoint("latest", tmp_path)
    assert found.path.parts[-3] == "2026-01-02_00-00-00"


@pytest.mark.parametrize("made", [False, True])
def test_latest_without_any_says_where_it_looked(tmp_path: Path, made: bool) -> None:
    root = tmp_path / "runs"
    if made:
        run_of(root, "a")
    with pytest.raises(CheckpointError, match=f"resume=latest.*{root}"):
        find_checkpoint("latest", root)


def test_nothing_that_loads_is_an_error_and_never_a_start_from_scratch(tmp_path: Path) -> None:
    run = run_of(tmp_path, "a", 1)
    path = damage(run, 1)
    with pytest.raises(CheckpointError, match=path.name):
        find_checkpoint(str(run), tmp_path)
    with pytest.raises(CheckpointError, match="none there"):
        find_checkpoint(str(run_of(tmp_path, "b")), tmp_path)
    with pytest.raises(CheckpointError, match="no such file or directory"):
        find_checkpoint(str(tmp_path / "missing"), tmp_path)


# ------------------------------------------------------------------ fitting


SPEC = env_spec(2)


def file_of(spec: EnvSpec = SPEC, **policy: Any) -> Checkpoint:
    learner = Learner(run_config(policy=policy), spec, torch.device("cpu"))
    meta = json.loads(json.dumps({"spec": spec.to_json(), "iteration": 1}))  # as in a file
    return Checkpoint(Path("some/model_1.safetensors"), learner.state_dict(), meta)


def misfit(checkpoint: Checkpoint, spec: EnvSpec = SPEC) -> str:
    own = Learner(run_config(), spec, torch.device("cpu")).state_dict()
    with pytest.raises(CheckpointError) as caught:
        check_fits(checkpoint, own, spec.to_json())
    message = str(caught.value)
    assert message.startswith("some/model_1.safetensors: ") and "\n" not in message
    return message


def test_the_same_env_and_network_fit_whatever_the_number_of_envs() -> None:
    own = Learner(run_config(), SPEC, torch.device("cpu")).state_dict()
    check_fits(file_of(env_spec(64)), own, SPEC.to_json())


def test_a_tensor_of_another_shape_is_named_with_both_shapes() -> None:
    message = misfit(file_of(hidden_dims=[16, 8]))
    assert "policy.actor.2.weight is (8, 16), expected (16, 16)" in message


def test_a_tensor_that_is_missing_is_named() -> None:
    checkpoint = file_of()
    del checkpoint.tensors["policy.critic.0.bias"]
    assert "'policy.critic.0.bias'" in misfit(checkpoint)


def test_a_tensor_that_the_network_does_not_have_is_named() -> None:
    # A deeper network, or the running statistics of values: dropping it would change the policy.
    assert "policy.actor.6.weight" in misfit(file_of(hidden_dims=[16, 16, 1]))
    assert "policy.value_normalizer.mean" in misfit(file_of(normalize_values=True))


@pytest.mark.parametrize(
    ("other", "key"),
    [
        (env_spec(2, {"policy": ((4,), "float32")}), "obs"),
        (env_spec(2, {"actor": ((3,), "float32")}), "obs"),
        (env_spec(2, {"policy": ((3,), "float64")}), "obs"),
        (env_spec(2, action=discrete(3)), "action"),
        (env_spec(2, action=continuous((-2.0, 2.0))), "action"),
    ],
)
def test_another_environment_is_named_by_what_differs(other: EnvSpec, key: str) -> None:
    assert f"of another environment: {key} is " in misfit(file_of(other))


def test_unbounded_actions_fit_themselves_after_json() -> None:
    spec = env_spec(2, action=continuous((-float("inf"), float("inf"))))
    own = Learner(run_config(), spec, torch.device("cpu")).state_dict()
    check_fits(file_of(spec), own, spec.to_json())


def test_the_optimizer_may_be_absent_on_either_side() -> None:
    checkpoint = file_of()
    own = dict(checkpoint.tensors)
    check_fits(checkpoint, {**own, "optimizer.step": torch.zeros(())}, SPEC.to_json())
    checkpoint.tensors["optimizer.step"] = torch.zeros(())
    check_fits(checkpoint, own, SPEC.to_json())


# ------------------------------------------------------------------ keeping


@pytest.mark.parametrize(
    ("keep_last", "keep_every", "kept"),
    [
        (2, None, [50, 60]),
        (1, 20, [20, 40, 60]),
        (2, 30, [30, 50, 60]),
        (0, None, [10, 20, 30, 40, 50, 60]),
        (9, None, [10, 20, 30, 40, 50, 60]),
        (1, 7, [60]),
    ],
)
def test_the_newest_and_the_multiples_are_kept(
    tmp_path: Path, keep_last: int, keep_every: int | None, kept: list[int]
) -> None:
    directory = run_of(tmp_path, "a", *range(10, 70, 10)) / "checkpoints"
    (directory / "notes.txt").write_text("mine")
    delete_old(directory, CheckpointConfig(keep_last=keep_last, keep_every=keep_every))
    names = [p.name for p in list_checkpoints(directory)]
    assert names == [f"model_{k}.safetensors" for k in kept]
    assert (directory / "notes.txt").exists()
