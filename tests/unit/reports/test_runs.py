"""A table of runs: what it says of whole, unfinished and damaged ones, and in which order."""

import os
import sys
from pathlib import Path

import pytest

from isaac_hydra_ext.cli import listing
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.reports.runs import RunLine, list_runs

SUMMARY = '{{"status": "{}", "iterations": 3, "mean_return": {}}}'
AGENT = "env: {{kind: gym, id: {}, task: null}}\n"


def made(run: Path, agent: str = AGENT.format("Pendulum-v1"), summary: str | None = None) -> Path:
    for name in ("params", "checkpoints"):
        (run / name).mkdir(parents=True)
    (run / "params" / "agent.yaml").write_text(agent)
    if summary is not None:
        (run / "summary.json").write_text(summary)
    for path in (*run.iterdir(), run):
        os.utime(path, (1e9, 1e9))  # in 2001, in every zone
    os.utime(run / "params", (1e9 + 86400 * 30, 1e9 + 86400 * 30))
    return run


def test_runs_are_listed_newest_first_and_say_what_is_wrong(tmp_path: Path) -> None:
    made(tmp_path / "a" / "2026-01-02_00-00-00", summary=SUMMARY.format("completed", -1.254))
    made(tmp_path / "b" / "2026-01-03_00-00-00_x", summary=SUMMARY.format("running", "null"))
    made(tmp_path / "a" / "2026-01-01_00-00-00", "env: {task: Isaac-Ant}\n", '{"status": "fai')
    made(tmp_path / "a" / "2025-01-01_00-00-00", "env: [", summary="[]")
    made(tmp_path / "a" / "2024-01-01_00-00-00")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "2024-01-01_00-00-00")
    (tmp_path / "a" / "2027-01-01_00-00-00").mkdir()  # no run
    lines = list_runs(tmp_path)
    assert [(*line[1:5], line.run[len(str(tmp_path)) + 1 :]) for line in lines] == [
        ("not ended", "3", "", "Pendulum-v1", "b/2026-01-03_00-00-00_x"),
        ("completed", "3", "-1.25", "Pendulum-v1", "a/2026-01-02_00-00-00"),
        ("damaged", "", "", "Isaac-Ant", "a/2026-01-01_00-00-00"),
        ("damaged", "", "", "damaged", "a/2025-01-01_00-00-00"),
        ("no summary", "", "", "Pendulum-v1", "a/2024-01-01_00-00-00"),
    ]
    assert lines[0].written.startswith("2001-10-0")
    assert list_runs(tmp_path / "b") == lines[:1] == list_runs(Path(lines[0].run))
    with pytest.raises(ConfigError, match="nowhere: no such directory"):
        list_runs(tmp_path / "nowhere")


def test_the_command_prints_what_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    made(Path("logs/appo/a/2026-01-02_00-00-00"), summary=SUMMARY.format("completed", 10))
    made(Path("logs/appo/a/2026-01-01_00-00-00"), summary=SUMMARY.format("failed", -200.5))

    def listed(*words: str) -> tuple[int, list[str], str]:
        monkeypatch.setattr(sys, "argv", ["appo list", *words])
        with pytest.raises(SystemExit) as caught:
            listing.main()
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out.splitlines(), err

    code, (header, first, second), _ = listed("runs")
    assert code == 0 and header.split("  ")[0] == RunLine._fields[0]
    assert first.endswith(
        "completed           3        10.00  Pendulum-v1  logs/appo/a/2026-01-02_00-00-00"
    )
    assert second.endswith(
        "failed              3      -200.50  Pendulum-v1  logs/appo/a/2026-01-01_00-00-00"
    )
    _, only, _ = listed("runs", "logs/appo", "--keyword", "FAIL")
    assert [line.split() for line in only] == [header.split(), second.split()]
    assert listed("runs", "--keyword", "zzz") == (1, [], "no runs with 'zzz'\n")
    assert listed("runs", "elsewhere")[0] == 2
    code, _, err = listed("envs", "go1")
    assert code == 2 and "--keyword go1" in err
