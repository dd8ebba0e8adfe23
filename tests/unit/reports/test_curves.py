"""Learning curves: exact numbers, runs joined by their configuration, pictures and reports."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf
from torch.utils.tensorboard.writer import SummaryWriter

from isaac_hydra_ext.cli import plot, report
from isaac_hydra_ext.errors import ConfigError, MissingDependencyError
from isaac_hydra_ext.reports.curves import (
    RETURN,
    Curve,
    combine,
    find_runs,
    read_run,
    without_parts,
)
from isaac_hydra_ext.reports.events import SAMPLES
from isaac_hydra_ext.reports.plot import draw, read_runs
from isaac_hydra_ext.reports.report import write_report

from ..builders import run_config

BEGIN = 1_000_000.0
SUMMARY = {
    "status": "completed", "iterations": 3, "env_steps": 3000, "wall_s": 75.0, "fps": 40.0,
    "mean_return": -1.5, "best_return": None, "mean_episode_length": 200.0,
    "policy_lag_mean": 0.5, "worker_restarts": 0, "samples_produced": 3000,
    "samples_consumed": 3000, "samples_abandoned": 0, "learner_idle_s": 15.0,
    "workers_wait_s": 30.0, "device": "cpu", "versions": {"torch": "2.13"},
}  # fmt: skip


def made(
    where: Path,
    returns: list[float | None],
    seed: int = 1,
    samples: int = 1000,
    first: int = 1,
    resume: str | None = None,
    **sections: Any,
) -> Path:
    """A run of one iteration every 10 s, each of `samples` env steps."""
    experiment = {"seed": seed, "name": "toy", **sections.pop("experiment", {})}
    config = run_config(experiment=experiment, **sections)
    config.resume = resume
    for name in ("params", "checkpoints", ".hydra"):
        (where / name).mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(config.to_dict()), where / "params" / "agent.yaml")
    typed = ["ppo.lr=1e-3", "policy.hidden_dims=[8, 8]"]
    OmegaConf.save(OmegaConf.create(typed), where / ".hydra" / "overrides.yaml")
    (where / "summary.json").write_text(json.dumps(SUMMARY))
    writer = SummaryWriter(str(where))
    for step, value in enumerate(returns, first):
        time = BEGIN + 10 * step + (1e6 if resume else 0)  # a resumed one goes on days later
        writer.add_scalar(SAMPLES, samples * step, step, walltime=time)
        if value is not None:
            writer.add_scalar(RETURN, value, step, walltime=time)
    writer.close()
    return where


def test_the_axes(tmp_path: Path) -> None:
    run = made(tmp_path / "a", [None, 1.0, 2.0, float("nan"), 4.0])
    for axis, wanted in {
        "iterations": [2, 3, 5], "samples": [2000, 3000, 5000], "seconds": [10, 20, 40]
    }.items():  # fmt: skip
        curve = read_run(run, axis=axis)
        assert curve.x.tolist() == wanted, axis
        assert curve.y.tolist() == [1.0, 2.0, 4.0]
    assert read_run(run, SAMPLES, "iterations").y.tolist() == [1000, 2000, 3000, 4000, 5000]


def test_a_run_with_a_knobs_earlier_name_differs_in_nothing(tmp_path: Path) -> None:
    old, new = made(tmp_path / "a", [1.0], seed=1), made(tmp_path / "b", [1.0], seed=2)
    path = old / "params" / "agent.yaml"
    path.write_text(path.read_text().replace("  trainer_defaults: {}", "  appo: {}"))
    assert "  appo: {}" in path.read_text()
    (curve,) = combine([read_run(old), read_run(new)])
    assert curve.runs == 2


def test_more_points_than_tensorboard_shows_are_all_read(tmp_path: Path) -> None:
    run = made(tmp_path / "a", [float(i) for i in range(12_000)])
    assert read_run(run).y.tolist() == list(range(12_000))


def test_seeds_are_one_curve_with_a_spread(tmp_path: Path) -> None:
    runs = [
        made(tmp_path / "a", [0.0, 2.0, 4.0, 6.0], seed=1),
        made(tmp_path / "b", [None, 6.0, 6.0], seed=2, experiment={"run_name": "second"}),
        made(tmp_path / "c", [1.0, 4.0, 5.0], seed=3, logging={"every": 1, "console": "quiet"}),
    ]
    (curve,) = combine([read_run(run) for run in runs])
    assert (curve.label, curve.runs) == ("toy", 3)
    assert curve.x.tolist() == [2000, 3000], "where all have points"
    assert curve.mean.tolist() == [4.0, 5.0]
    assert curve.low.tolist() == [2.0, 4.0]
    assert curve.high.tolist() == [6.0, 6.0]


def test_points_in_between_are_on_straight_lines(tmp_path: Path) -> None:
    first = made(tmp_path / "a", [0.0, 2.0, 4.0], samples=1000)
    second = made(tmp_path / "b", [10.0, 20.0], samples=1500)
    (curve,) = combine([read_run(first), read_run(second)])
    assert curve.x.tolist() == [1500, 2000, 3000]
    assert curve.mean == pytest.approx(np.array([(1 + 10) / 2, (2 + 40 / 3) / 2, (4 + 20) / 2]))


# ------------------------------------------------------------------ a resumed run's parts

FIRST, SECOND = "2026-11-21_10-00-00", "2026-11-22_10-00-00"


def interrupted(root: Path, resume: str = "{first}/checkpoints/model_4.safetensors") -> list[Path]:
    """Six iterations, the last checkpoint after the fourth; and what went on from it, to 9."""
    first = made(root / FIRST, [None, 2.0, 3.0, 4.0, -5.0, -6.0])
    (first / "checkpoints" / "model_4.safetensors").touch()
    returns = [5.0, 6.0, 7.0, 8.0, 9.0]
    made(root / SECOND, [*returns], first=5, resume=resume.format(first=first))
    return [first, root / SECOND]


@pytest.mark.parametrize("resume", ["{first}/checkpoints/model_4.safetensors", "latest", "{first}"])
def test_the_parts_of_a_resumed_run_are_one_curve(tmp_path: Path, resume: str) -> None:
    first, second = interrupted(tmp_path, resume)
    assert without_parts([first, second]) == [second]
    for axis, wanted in {
        "iterations": [2, 3, 4, 5, 6, 7, 8, 9],
        "samples": [2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000],
        "seconds": [10, 20, 30, 30, 40, 50, 60, 70],  # each part from its own first point
    }.items():
        curve = read_run(second, axis=axis)
        assert curve.x.tolist() == wanted, axis
        assert curve.y.tolist() == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0], axis
    assert read_run(first, axis="iterations").x.tolist() == [2, 3, 4, 5, 6], "asked for alone"


def test_a_second_seed_beside_a_resumed_run_is_drawn_with_it(tmp_path: Path) -> None:
    runs = [*interrupted(tmp_path), made(tmp_path / "2026-11-23_10-00-00", [1.0] * 9, seed=2)]
    curves, notes = read_runs(runs, RETURN, "iterations")
    (curve,) = combine(curves)
    assert (curve.runs, notes, curve.x.tolist()) == (2, [], [2, 3, 4, 5, 6, 7, 8, 9])
    assert curve.high.tolist() == [2, 3, 4, 5, 6, 7, 8, 9]


def test_parts_that_were_moved_together_are_found_and_one_that_is_gone_is_left_out(
    tmp_path: Path,
) -> None:
    interrupted(tmp_path / "before")
    (tmp_path / "before").rename(tmp_path / "after")
    second = tmp_path / "after" / SECOND
    assert read_run(second, axis="iterations").x.tolist() == [2, 3, 4, 5, 6, 7, 8, 9]
    shutil.rmtree(tmp_path / "after" / FIRST)
    assert read_run(second, axis="iterations").x.tolist() == [5, 6, 7, 8, 9]


def test_a_part_without_points_has_those_of_the_one_before(tmp_path: Path) -> None:
    first = made(tmp_path / FIRST, [1.0, 2.0])
    (first / "checkpoints" / "model_2.safetensors").touch()
    resume = f"{first}/checkpoints/model_2.safetensors"
    second = made(tmp_path / SECOND, [None], first=3, resume=resume)
    assert read_run(second, axis="iterations").x.tolist() == [1, 2]
    resume = f"{second}/checkpoints/model_3.safetensors"
    third = made(tmp_path / "2026-11-23_10-00-00", [3.0], first=4, resume=resume)
    assert read_run(third, axis="iterations").x.tolist() == [1, 2, 4]


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    early, late = made(tmp_path / "a", [1.0, 2.0]), made(tmp_path / "b", [1.0], seed=2, first=7)
    said = refusal(lambda: combine([read_run(early), read_run(late)]))
    assert said == f"nothing to draw of toy: {early} ends before {late} begins; draw them apart"
    nothing = made(tmp_path / "c", [float("nan")])
    assert f"{nothing}: no finite points of {RETURN}" in refusal(lambda: read_run(nothing))


def test_what_sets_curves_apart_is_their_label(tmp_path: Path) -> None:
    runs = [
        made(tmp_path / "a", [1.0], seed=1),
        made(tmp_path / "b", [1.0], seed=2, ppo={"lr": 0.5}),
        made(tmp_path / "c", [1.0], seed=1, ppo={"lr": 0.5}),
    ]
    labels = [(c.label, c.runs) for c in combine([read_run(r) for r in runs])]
    assert labels == [("ppo.lr=0.001", 1), ("ppo.lr=0.5", 2)]
    runs.append(made(tmp_path / "d", [1.0], experiment={"name": "other"}))
    labels = [c.label for c in combine([read_run(runs[0]), read_run(runs[3])])]
    assert labels == ["toy", "other"]


def test_a_knob_that_is_newer_than_a_run_had_its_default(tmp_path: Path) -> None:
    runs = [made(tmp_path / "a", [1.0]), made(tmp_path / "b", [1.0], seed=2)]
    path = runs[0] / "params" / "agent.yaml"
    saved = OmegaConf.load(path)
    del saved.policy.network
    OmegaConf.save(saved, path)
    assert [c.runs for c in combine([read_run(r) for r in runs])] == [2]


def test_runs_are_found_in_a_directory_of_them(tmp_path: Path) -> None:
    runs = [made(tmp_path / "all" / name, [1.0]) for name in ("a", "b")]
    (tmp_path / "all" / "notes").mkdir()
    assert find_runs([tmp_path / "all", runs[1]]) == runs


def refusal(act: Any, kind: type[Exception] = ConfigError) -> str:
    with pytest.raises(kind) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bad_runs_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no such directory" in refusal(lambda: find_runs([tmp_path / "nowhere"]))
    assert "empty: no run" in refusal(lambda: find_runs([tmp_path / "empty"]))
    run = made(tmp_path / "a", [None, None])
    assert "no episode has ended" in refusal(lambda: read_run(run))
    assert f"did you mean {SAMPLES!r}?" in refusal(lambda: read_run(run, SAMPLES + "x"))
    good = made(tmp_path / "b", [1.0])
    curves, notes = read_runs([run, good], RETURN, "samples")
    assert ([c.run_dir for c in curves], len(notes)) == ([good], 1)
    assert "(nor in 1 others)" in refusal(lambda: read_runs([run, run], RETURN, "samples"))
    (good / "params" / "agent.yaml").write_text("a: [")
    assert "cannot be read" in refusal(lambda: read_run(good))
    for events in good.glob("events*"):
        events.unlink()
    assert "has no TensorBoard events" in refusal(lambda: read_run(good))


def some_curves() -> list[Curve]:
    x = np.arange(5.0)
    return [
        Curve("ppo.lr=0.1", 3, x, x, x - 1, x + 1),
        Curve("ppo.lr=<0.2>", 1, x, 2 * x, 2 * x, 2 * x),
    ]


def test_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    png, svg = draw(some_curves(), "seconds", RETURN, tmp_path / "new" / "v1.5")
    assert (png.name, svg.name) == ("v1.5.png", "v1.5.svg")
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    text = svg.read_text()
    for word in ("ppo.lr=0.1 (3 runs)", "ppo.lr=&lt;0.2&gt;", "seconds", "mean return"):
        assert word in text, word
    assert "PolyCollection" in text, "the band"
    before = svg.read_bytes()
    draw(some_curves(), "seconds", RETURN, tmp_path / "new" / "v1.5")
    assert svg.read_bytes() == before, "the same curves give the same file"
    (tmp_path / "file").touch()
    said = refusal(lambda: draw(some_curves(), "seconds", RETURN, tmp_path / "file" / "x"))
    assert "cannot be written" in said


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = refusal(
        lambda: draw(some_curves(), "seconds", RETURN, tmp_path / "x"), MissingDependencyError
    )
    assert "pip install 'isaac-hydra-ext[plot]'" in said
    text = write_report(made(tmp_path / "run", [1.0])).read_text()
    assert "No curve: " in text
    assert "isaac-hydra-ext[plot]" in text


def test_a_report(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = made(tmp_path / "toy" / "2026-11-21_10-00-00", [1.0, 2.0, 3.0])
    text = write_report(run).read_text()
    assert text.startswith("# toy, 2026-11-21_10-00-00\n")
    assert "Completed after 3 iterations: 3,000 env steps in 0:01:15." in text
    assert "![Train/mean_reward over env steps](learning_curve.svg)" in text
    assert (run / "learning_curve.svg").is_file()
    rows = (
        "| mean return (last 100 episodes) | -1.50 |",
        "| best mean return | - |",
        "| learner waited | 20% of the time |",
        "| workers waited | 40% of the time |",
    )
    for row in rows:
        assert row in text.splitlines()
    assert "appo train ppo.lr=1e-3 'policy.hidden_dims=[8, 8]'" in text
    assert not list(run.glob(".*.tmp"))


def test_a_long_run_does_not_wait_for_its_curve_at_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("isaac_hydra_ext.reports.report.PATIENCE_BYTES", 0)
    run = made(tmp_path / "toy" / "2026-11-21_10-00-00", [1.0, 2.0, 3.0])
    text = write_report(run, patient=False).read_text()
    assert f"`appo report {run}` draws it" in text and not (run / "learning_curve.svg").exists()
    assert "learning_curve.svg" in write_report(run).read_text()


def test_a_run_without_a_summary_has_no_report(tmp_path: Path) -> None:
    run = made(tmp_path / "a", [1.0])
    (run / "summary.json").write_text("{")
    assert "summary.json: cannot be read" in refusal(lambda: write_report(run))
    (run / "summary.json").unlink()
    assert "summary.json: no such file; a run writes it" in refusal(lambda: write_report(run))
    assert not (run / "report.md").exists()


def test_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)

    def call(module: Any, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["appo", *words])
        with pytest.raises(SystemExit) as ended:
            module.main()
        code = ended.value.code
        assert isinstance(code, int)
        return (code, *capsys.readouterr())

    assert call(plot, "latest") == (2, "", "error: latest: there is no such run below logs/appo\n")
    run = made(tmp_path / "logs" / "appo" / "toy" / "2026-11-21_10-00-00", [1.0, 2.0])
    made(run.with_name("2026-11-21_09-00-00"), [None])
    code, out, _ = call(plot, "latest", "--x", "iterations")
    assert (code, out.splitlines()[0]) == (0, f"wrote {run}/learning_curve.png")
    code, out, err = call(plot, "logs/appo/toy", "--output", "pictures/both")
    assert (code, out.splitlines()) == (0, ["wrote pictures/both.png", "wrote pictures/both.svg"])
    assert err.startswith("passed over: ")
    assert "no episode has ended" in err
    code, _, err = call(plot, "nowhere")
    assert code == 2
    assert (
        err == f"error: {tmp_path}/nowhere: no such directory (a RUN is one, or latest, or best)\n"
    )
    code, out, _ = call(report, "latest")
    assert (code, out) == (0, f"wrote {run}/report.md\n")
