"""What a user gets wrong on any command line: one line on stderr, its exit code, nothing lost."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.cli.main import COMMANDS, main
from isaac_hydra_ext.system.background import BackgroundThread

TINY = ["rollout.envs_per_worker=4", "rollout.steps_per_env=16", "rollout.num_workers=0"]
Appo = Callable[..., tuple[int, str]]


@pytest.fixture
def appo(capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Appo:
    """Run `appo WORDS` in an empty directory; returns its exit code and what stderr holds."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["appo", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else 0
        return code, capsys.readouterr().err

    return call


def refusal(appo: Appo, *words: object) -> str:
    """Return the one line that refuses a command."""
    code, err = appo(*words)
    assert code in (1, 2), err
    (line,) = err.splitlines()
    return line


def test_beside_an_earlier_update_a_command_ends_alone(appo: Appo) -> None:
    thread = BackgroundThread[None]()  # alive, as after a run that was closed in an update
    line = refusal(appo, "train", "--wrong")
    thread.stop()
    assert "--wrong: no such flag" in line


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_flag_is_one_line_that_names_it(appo: Appo, command: str) -> None:
    line = refusal(appo, command, "--wrong")
    assert "--wrong: no such flag" in line
    assert f"appo {command} --help" in line
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["trian"], "did you mean 'train'?"),
        (["--wrong"], "there are train, eval, "),
        (["train", "env=gym_pendulm"], "did you mean 'gym_pendulum'?"),
        (["train", "ppo.lrr=1"], "did you mean 'ppo.lr'"),
        (["train", "pp=vtrace"], "did you mean 'ppo'?"),
        (["train", "ppo.learning_rate=1e-3"], "ppo.learning_rate: unknown key; it is ppo.lr here"),
        (["train", "--max_iterations", "9"], "no such flag; it is experiment.max_iterations here"),
        (["train", "--config-name", "foo"], "--config-name=foo: no such config"),
        (["train", "--resolve"], "--resolve: only with --cfg"),
        (["train", "-p", "ppo"], "--package: only with --cfg"),
        (
            ["train", "--cfg", "job", "--multirun", "ppo.lr=1,2"],
            "--cfg and --multirun: one of them",
        ),
        (["train", "--multrun", "ppo.lr=1,2"], "did you mean --multirun"),
        (["train", "--partil"], "did you mean --partial?"),
        (["train", "--cfg", "jobs"], "choose from"),
        (["train", "env=gym_pendulum", "--cfg", "job", "ppo.lr=1"], "after all KEY=VALUE"),
        (["train", "env=gym_any"], "set env.id=NAME (appo list tasks"),
        (["train", "resume=nosuch"], "resume=latest"),
        (["train", "policy.hidden_dims=64"], "policy.hidden_dims=64: a list is expected here"),
        (["eval", "latest", "--episode", "3"], "did you mean --episodes or"),
        (["eval", "latest", "--seed", "-5"], "not a whole number in 0 .. 2147483647"),
        (["eval"], "name a run directory, a checkpoint file, latest or best"),
        (["plot"], "required: RUN (appo plot --help)"),
        (["plot", "x", "--x", "hours"], "choose from"),
        (["list", "envz"], "choose from"),
        (["new", "1st"], "must be a package's name"),
    ],
)
def test_a_typo_is_one_line_with_what_is_right(appo: Appo, words: list[str], hint: str) -> None:
    assert hint in refusal(appo, *words)
    assert list(Path().iterdir()) == []


def test_a_reader_that_leaves_ends_a_command_in_silence() -> None:
    code = "from isaac_hydra_ext.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "list", "configs"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    ) as process:  # fmt: skip
        assert process.stdout and process.stderr
        process.stdout.close()  # as `| head` does
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 1


@pytest.mark.parametrize("command", ["eval", "export", "run-onnx", "plot", "report"])
def test_what_is_no_run_is_one_line_and_stays_as_it_was(appo: Appo, command: str) -> None:
    empty, half, text = Path("empty"), Path("half"), Path("notes.txt")
    empty.mkdir()
    for directory in ("checkpoints", "params"):
        (half / directory).mkdir(parents=True)
    text.write_text("no checkpoint")
    before = sorted(Path().rglob("*"))
    for word in ("nosuch", "latest", "best", empty, half, text):
        line = refusal(appo, command, word)
        assert str(word) in line
        assert len(line) < 400
    if command in ("eval", "export"):
        (Path("runs") / "one" / "checkpoints").mkdir(parents=True)
        before = sorted(Path().rglob("*"))
        assert "it is a directory of runs: name one of them" in refusal(appo, command, "runs")
    refusal(appo, command, "")
    assert sorted(Path().rglob("*")) == before


def test_a_checkpoint_of_another_env_is_refused_and_kept(
    appo: Appo, train_run: Callable[..., Checkpoint]
) -> None:
    short = ("experiment.max_iterations=1", "rollout.num_workers=0")
    path = train_run("env=gym_pendulum", *short).path
    before = path.read_bytes()
    line = refusal(
        appo, "train", "env=gym_cartpole", f"resume={path}", "experiment.max_iterations=2",
        "experiment.output_dir=other", *TINY,
    )  # fmt: skip
    assert "of another environment: obs is" in line
    assert "checkpoint.partial=true" in line
    assert path.read_bytes() == before


@pytest.mark.parametrize("workers", [0, 1])
def test_an_argument_the_env_does_not_take_is_one_line(appo: Appo, workers: int) -> None:
    typed = ["env=gym_cartpole", "+env.kwargs.g=5", f"rollout.num_workers={workers}"]
    line = refusal(appo, "train", *typed, "logging.console=quiet")
    assert "env.kwargs: CartPoleEnv.__init__() got an unexpected keyword argument 'g'" in line


def test_plot_and_report_take_whatever_names_a_run(
    appo: Appo, train_run: Callable[..., Checkpoint]
) -> None:
    checkpoint = train_run(  # long enough for an episode to end
        "env=gym_pendulum", "experiment.max_iterations=14", "rollout.num_workers=0",
        "rollout.init_at_random_ep_len=false", "experiment.output_dir=logs/appo",
    )  # fmt: skip
    run_dir = checkpoint.path.parents[1]
    for word in ("latest", "best", checkpoint.path, run_dir):
        assert appo("report", word) == (0, "")
        (run_dir / "report.md").unlink()
    (run_dir / "summary.json").unlink()
    assert "a run writes it with its first checkpoint" in refusal(appo, "report", "latest")


def test_a_missing_default_of_ones_own_config_is_named_as_what_it_is(appo: Appo) -> None:
    Path("conf").mkdir()
    Path("conf/job.yaml").write_text("defaults: [mine]\n")
    line = refusal(appo, "train", "--config-dir", "conf", "--config-name", "job")
    assert line == "error: mine: no such config"


def test_a_script_whose_calls_are_unguarded_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "my_app.py").write_text(
        "from hydra import compose, initialize_config_module\n"
        "from isaac_hydra_ext.appo_runner import train\n"
        "from isaac_hydra_ext.cli.main import run_reporting_errors\n"
        'typed = ["rollout.num_workers=1"]\n'
        'with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):\n'
        '    cfg = compose("train_appo", typed)\n'
        "raise SystemExit(run_reporting_errors(lambda: train(cfg, typed)))\n"
    )
    done = subprocess.run(
        [sys.executable, "my_app.py"], cwd=tmp_path, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 1
    assert "worker 0 (generation 0) exited with code 1" in done.stderr
    assert 'a script that trains has its calls under if __name__ == "__main__":' in done.stderr
