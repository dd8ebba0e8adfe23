"""Which checkpoint a run goes on from, and which ones are kept."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from isaac_hydra_ext.checkpoints.find import find_checkpoint, list_checkpoints, list_runs
from isaac_hydra_ext.checkpoints.history import append
from isaac_hydra_ext.checkpoints.retention import delete_old
from isaac_hydra_ext.config.schema import CheckpointConfig
from isaac_hydra_ext.errors import CheckpointError, NoRunOfTaskError
from isaac_hydra_ext.run import directory as run_dir
from isaac_hydra_ext.run.resume import changed_knobs, find_resumed
from isaac_hydra_ext.terminal.console import RunConsole

from ..builders import run_config
from ..checkpoint_samples import write


def run_of(root: Path, name: str, *iterations: int) -> Path:
    directory = root / name / "checkpoints"
    directory.mkdir(parents=True)
    for iteration in iterations:
        write(directory, iteration)
    return root / name


def damage(run: Path, iteration: int) -> Path:
    path = run / "checkpoints" / f"model_{iteration}.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    return path


# ------------------------------------------------------------------ finding


def test_a_run_directory_means_its_newest_by_number(tmp_path: Path) -> None:
    run = run_of(tmp_path, "a", 9, 10, 100)
    found, notes, _ = find_checkpoint(str(run), tmp_path)
    assert found.meta["iteration"] == 100 and notes == []
    assert find_checkpoint(f"{run}/checkpoints", tmp_path)[0].path == found.path
    assert [p.name for p in list_checkpoints(run / "checkpoints")] == [
        f"model_{k}.safetensors" for k in (9, 10, 100)
    ]


def test_a_damaged_newest_is_passed_over_and_named(tmp_path: Path) -> None:
    run = run_of(tmp_path, "a", 1, 2, 3)
    paths = [damage(run, 3), damage(run, 2)]
    found, notes, _ = find_checkpoint(str(run), tmp_path)
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
    found, notes, _ = find_checkpoint(str(run / "checkpoints" / "model_1.safetensors"), tmp_path)
    assert found.meta["iteration"] == 1 and notes == []


def test_latest_is_the_newest_run_that_has_a_checkpoint(tmp_path: Path) -> None:
    run_of(tmp_path, "2026-01-01_00-00-00", 500)
    run_of(tmp_path, "2026-01-02_00-00-00", 3)
    run_of(tmp_path, "2026-01-03_00-00-00")  # crashed before its first
    found = find_checkpoint("latest", tmp_path).checkpoint
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


# ------------------------------------------------------------------ the order of runs

TIME = "2026-01-01_12-00-00"


@pytest.mark.parametrize(
    "names",
    [
        (TIME, f"{TIME}-1", f"{TIME}-2", f"{TIME}-10"),
        (f"{TIME}_zz", f"{TIME}-1_b", f"{TIME}-2", f"{TIME}-10_a"),
        (f"{TIME}_x", f"{TIME}_x-2", f"{TIME}_x-10"),
        (f"{TIME}_z", "2026-01-01_12-00-01_a", "2026-01-01_12-00-01-1_0"),
        ("zzz", "2025-12-31_23-59-59", f"{TIME}-9", "2026-01-02_00-00-00"),
    ],
)
def test_runs_are_ordered_by_when_they_began(tmp_path: Path, names: tuple[str, ...]) -> None:
    for iteration, name in enumerate(reversed(names)):
        run_of(tmp_path, name, len(names) - iteration)
    assert [run.name for run in list_runs(tmp_path)] == list(reversed(names))
    assert find_checkpoint("latest", tmp_path)[0].meta["iteration"] == len(names)


def test_directories_of_one_second_are_made_in_that_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2026, 1, 1, 12, 0, 0)

    monkeypatch.setattr(run_dir, "datetime", Clock)
    made = []
    for run_name in ["z", "", "a", "", "z", *["m"] * 8]:
        config = run_config(
            experiment={"output_dir": str(tmp_path), "name": "x", "run_name": run_name}
        )
        made.append(run_dir.make_run_dir(config))
    assert made[0].name == f"{TIME}_z"
    assert made[12].name == f"{TIME}-12_m"
    assert list_runs(tmp_path / "x") == made[::-1]


def test_latest_says_which_newer_runs_it_passed_over(tmp_path: Path) -> None:
    run_of(tmp_path, "2026-01-01_00-00-00")  # older than what is found: not of interest
    run_of(tmp_path, "2026-01-02_00-00-00", 3)
    broken = run_of(tmp_path, "2026-01-03_00-00-00", 7)
    path = damage(broken, 7)
    empty = run_of(tmp_path, "2026-01-04_00-00-00")
    found, notes, _ = find_checkpoint("latest", tmp_path)
    assert found.meta["iteration"] == 3
    assert notes[0] == f"{empty} holds no checkpoint: passed over"
    assert notes[1].startswith(f"DAMAGED checkpoint passed over: {path}: ")
    assert len(notes) == 2


# ------------------------------------------------------------------ the best


def scored(run: Path, **returns: float) -> Path:
    for name, value in returns.items():
        write(run / "checkpoints", int(name[1:]), *([value] if value == value else []))
    return run


def test_best_is_the_highest_mean_return_of_all_runs(tmp_path: Path) -> None:
    nan = float("nan")  # here: none finished yet
    scored(tmp_path / "2026-01-01_00-00-00", _5=-3.0, _10=7.5, _15=7.0)
    scored(tmp_path / "2026-01-02_00-00-00", _20=nan, _25=6.0)
    found, notes, _ = find_checkpoint("best", tmp_path)
    assert (found.meta["iteration"], notes) == (10, [])


def test_of_equally_good_ones_the_newest_is_the_best(tmp_path: Path) -> None:
    scored(tmp_path / "2026-01-01_00-00-00", _5=1.0, _10=1.0)
    scored(tmp_path / "2026-01-02_00-00-00", _3=1.0, _4=0.0)
    assert find_checkpoint("best", tmp_path)[0].meta["iteration"] == 3


def test_a_damaged_best_is_named_and_the_next_one_taken(tmp_path: Path) -> None:
    run = scored(tmp_path / "2026-01-01_00-00-00", _1=1.0, _2=2.0, _3=3.0, _4=0.0)
    flipped = run / "checkpoints" / "model_3.safetensors"
    data = bytearray(flipped.read_bytes())
    data[-1] ^= 1  # in the weights: the metadata alone reads well
    flipped.write_bytes(data)
    found, notes, _ = find_checkpoint("best", tmp_path)
    assert found.meta["iteration"] == 2
    assert len(notes) == 1 and str(flipped) in notes[0] and notes[0].startswith("DAMAGED")


def test_best_without_any_finished_episode_is_an_error(tmp_path: Path) -> None:
    run_of(tmp_path, "2026-01-01_00-00-00", 1, 2)
    with pytest.raises(CheckpointError, match="^resume=best: no checkpoint that loads under"):
        find_checkpoint("best", tmp_path)


# ------------------------------------------------------------------ of which task


@pytest.fixture
def two_tasks(tmp_path: Path) -> Path:
    """The newer run, with the higher return, is of another task than the two before."""
    for day, env_id, value in ((1, "A-v0", 3.0), (2, "A-v0", 2.0), (3, "B-v0", 99.0)):
        run = tmp_path / f"2026-01-0{day}_00-00-00"
        write(run / "checkpoints", day, value, env_id=env_id)
    return tmp_path


def test_latest_and_best_are_of_the_commands_task_and_say_which_run_and_why(
    two_tasks: Path,
) -> None:
    latest = find_checkpoint("latest", two_tasks, task="A-v0")
    run = two_tasks / "2026-01-02_00-00-00"
    assert (latest.checkpoint.meta["iteration"], latest.notes) == (2, [])
    assert latest.why == f"latest: {run}, the newest run of A-v0 under {two_tasks}"
    best = find_checkpoint("best", two_tasks, task="A-v0")
    path = two_tasks / "2026-01-01_00-00-00" / "checkpoints" / "model_1.safetensors"
    assert best.checkpoint.path == path
    assert best.why == (
        f"best: {path}, mean return 3.00 in training, the highest of 2 run(s) of A-v0 "
        f"under {two_tasks}"
    )
    append(run, {"iteration": 2, "mean_return": -8.0})
    best = find_checkpoint("best", two_tasks, task="A-v0")
    assert best.checkpoint.meta["iteration"] == 2, "evaluated: the other is not"
    assert "mean return -8.00 in evaluation" in best.why
    assert find_checkpoint(str(run), two_tasks, task="B-v0").why == "", "a named one is that one"


def test_without_a_task_latest_is_the_newest_and_best_of_several_is_refused(
    two_tasks: Path,
) -> None:
    latest = find_checkpoint("latest", two_tasks)
    assert latest.checkpoint.meta["iteration"] == 3
    assert latest.why.endswith(f"the newest run of B-v0 under {two_tasks}")
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint("best", two_tasks)
    assert "of several tasks, whose returns cannot be compared (A-v0, B-v0)" in str(caught.value)


@pytest.mark.parametrize("word", ["latest", "best"])
def test_a_task_without_a_run_is_told_those_that_there_are(two_tasks: Path, word: str) -> None:
    with pytest.raises(NoRunOfTaskError) as caught:
        find_checkpoint(word, two_tasks, task="C-v0")
    assert str(caught.value) == (
        f"resume={word}: no run of C-v0 under {two_tasks}; there are runs of A-v0, B-v0"
    )


def test_a_run_is_resumed_by_word_only_in_its_own_task(two_tasks: Path) -> None:
    config = run_config(experiment={"output_dir": str(two_tasks.parent), "name": two_tasks.name})
    config.resume = "latest"
    with pytest.raises(NoRunOfTaskError):
        find_resumed(config, RunConsole("quiet"))
    config.env.id = "A-v0"
    assert (found := find_resumed(config, RunConsole("quiet"))) and found.meta["iteration"] == 2
    assert config.resume == str(found.path), "the record says what it meant"
    config.resume, config.env.id, config.checkpoint.partial = "latest", "C-v0", True
    assert (found := find_resumed(config, RunConsole("quiet"))) and found.meta["iteration"] == 3


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


@pytest.mark.parametrize(
    ("returns", "keep_best", "kept"),
    [
        ((5.0, 9.0, 7.0, 1.0), True, [20, 40]),
        ((5.0, 9.0, 7.0, 1.0), False, [40]),
        ((5.0, 9.0, 9.0, 1.0), True, [30, 40]),
        ((5.0, 1.0, 1.0, 9.0), True, [40]),
    ],
)
def test_the_best_is_kept(
    tmp_path: Path, returns: tuple[float, ...], keep_best: bool, kept: list[int]
) -> None:
    directory = tmp_path / "run" / "checkpoints"
    for iteration, value in zip((10, 20, 30, 40), returns, strict=True):
        write(directory, iteration, value)
    config = CheckpointConfig(keep_last=1, keep_best=keep_best)
    delete_old(directory, config)
    assert [p.name for p in list_checkpoints(directory)] == [f"model_{k}.safetensors" for k in kept]


def test_a_best_one_is_kept_for_as_long_as_it_is_the_best(tmp_path: Path) -> None:
    # One after the other, as a run does it; nothing but the files themselves knows the best.
    directory, kept = tmp_path / "run" / "checkpoints", []
    for iteration, value in enumerate((1.0, 8.0, 3.0, 2.0, 9.0, 4.0), start=1):
        write(directory, iteration, value)
        delete_old(directory, CheckpointConfig(keep_last=2, keep_best=True))
        kept.append([int(p.stem.removeprefix("model_")) for p in list_checkpoints(directory)])
    assert kept == [[1], [1, 2], [2, 3], [2, 3, 4], [4, 5], [5, 6]]


# ------------------------------------------------------------------ what changed since


def test_changed_knobs_are_told_and_what_always_changes_is_not() -> None:
    saved = json.loads(json.dumps(run_config().to_dict()))
    now = run_config(
        experiment={"max_iterations": 7, "run_name": "b", "output_dir": "logs", "seed": 4},
        ppo={"lr": 5e-4, "stop_kl": 0.1},
        policy={"hidden_dims": [16, 8], "normalize_obs": False},
        logging={"every": 5},
        env={"kwargs": {"g": 5}},
    )
    now.resume = "latest"
    assert changed_knobs(saved, now) == [
        "experiment.seed: 3 -> 4",
        'env.kwargs: {} -> {"g": 5}',
        "ppo.lr: 0.001 -> 0.0005",
        "ppo.stop_kl: null -> 0.1",
        "policy.hidden_dims: [16, 16] -> [16, 8]",
        "policy.normalize_obs: true -> false",
    ]
    assert changed_knobs(saved, run_config()) == []
    del saved["checkpoint"], saved["ppo"]["lr"]  # knobs that are younger than the checkpoint
    assert changed_knobs(saved, run_config()) == []


def test_changed_knobs_of_nested_groups_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    # `logging` has the only nested groups, and is usually not told.
    monkeypatch.setattr("isaac_hydra_ext.run.resume.UNTOLD_GROUPS", ("resume",))
    saved = json.loads(json.dumps(run_config().to_dict()))
    now = run_config(logging={"video": {"every": 5}, "wandb": {"project": "walk"}})
    assert changed_knobs(saved, now) == [
        "logging.video.every: 0 -> 5",
        "logging.wandb.project: null -> walk",
    ]
    del saved["logging"]["video"], saved["logging"]["wandb"]["project"]
    assert changed_knobs(saved, now) == []
