"""The commands as a user types them, each in a process of its own."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

pytestmark = pytest.mark.installed
RUNNER = (sys.executable, "-m", "isaac_hydra_ext.appo_runner")
BIN = Path(sys.executable).parent
APPO = BIN / "appo"
TINY = (
    "experiment.max_iterations=1", "experiment.output_dir=runs", "experiment.device=cpu",
    "rollout.num_workers=0", "rollout.envs_per_worker=2", "rollout.steps_per_env=8",
)  # fmt: skip
# Asks Hydra's completion function for what follows each line as an interactive bash would.
COMPLETE = """
eval "$(appo train -sc install=bash)"
complete -p appo
for COMP_LINE in "$@"; do
  COMP_POINT=${#COMP_LINE}
  COMP_WORDS=($COMP_LINE)
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  hydra_bash_completion
  echo "$COMP_LINE -> ${COMPREPLY[*]}"
done
"""
REPLIES = {
    "appo train env=gym_p": "env=gym_pendulum",
    "appo train env=gym_pendulum rollout.max_p": "rollout.max_policy_lag=",
    "appo tr": "train",
}


def _leaves(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


@pytest.fixture(scope="module")
def composed(run: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what `--cfg job --resolve` prints."""
    cwd = tmp_path_factory.mktemp("cfg")
    done = run(*RUNNER, "--cfg", "job", "--resolve", cwd=cwd)
    assert not list(cwd.iterdir())
    container = OmegaConf.to_container(OmegaConf.create(done.stdout))
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def test_cfg_prints_the_composed_configuration(composed: dict[str, Any]) -> None:
    assert composed["env"]["id"] == "Pendulum-v1"
    assert composed["ppo"]["update_epochs"] == 10  # as the task recommends
    assert "hydra" not in composed


@pytest.mark.parametrize("command", [RUNNER, (APPO, "train")], ids=["module", "appo"])
def test_help_names_every_knob(
    run: Any, tmp_path: Path, composed: dict[str, Any], command: tuple[Any, ...]
) -> None:
    text = run(*command, "--help", cwd=tmp_path).stdout
    del composed["env"]["trainer_defaults"]
    knobs = [*_leaves(composed), "env.trainer_defaults"]
    assert len(knobs) > 60
    shown = {line.split("=")[0].strip(): line for line in text.splitlines() if "=" in line}
    for knob in knobs:
        assert knob in shown, f"{knob} is not in --help"
        assert len(shown[knob].split(maxsplit=1)[1]) > 5, f"{knob} is not explained"
    composed["env"]["trainer_defaults"] = {}
    assert not list(tmp_path.iterdir())


def test_completion_query(run: Any, tmp_path: Path) -> None:
    line = "appo_runner env=gym_p"
    done = run(
        *RUNNER, "-sc", "query=bash", cwd=tmp_path, COMP_LINE=line, COMP_POINT=str(len(line))
    )
    assert done.stdout.split() == ["env=gym_pendulum"]


def test_completion_in_bash(run: Any, tmp_path: Path) -> None:
    path = f"{BIN}:/usr/bin:/bin"
    done = run("bash", "--norc", "-c", COMPLETE, "bash", *REPLIES, cwd=tmp_path, PATH=path)
    installed, *replies = done.stdout.splitlines()
    assert "-F hydra_bash_completion appo" in installed
    assert replies == [f"{line} -> {reply}" for line, reply in REPLIES.items()]


def test_multirun_makes_one_run_each_and_no_litter(run: Any, tmp_path: Path) -> None:
    run(*RUNNER, "--multirun", "experiment.seed=1,2", *TINY, cwd=tmp_path, timeout=400)
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]
    runs = sorted((tmp_path / "runs" / "pendulum-v1").iterdir())
    seeds = [OmegaConf.load(r / "params" / "agent.yaml").experiment.seed for r in runs]
    assert sorted(seeds) == [1, 2]
    for directory in runs:
        assert json.loads((directory / "summary.json").read_text())["iterations"] == 1
        assert (directory / "checkpoints" / "model_1.safetensors").is_file()


def test_train_says_where_things_are_and_eval_finds_them(run: Any, tmp_path: Path) -> None:
    tiny = ("experiment.name=x", "rollout.num_workers=1", "policy.hidden_dims=[8]")
    done = run(APPO, "train", *TINY, *tiny, cwd=tmp_path, timeout=400)
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)
    directory, checkpoint = Path(said["run"]), Path(said["checkpoint"])
    assert directory.parent == tmp_path / "runs" / "x"
    assert checkpoint == directory / "checkpoints" / "model_1.safetensors"
    assert checkpoint.is_file()
    assert f"tensorboard --logdir {directory}" in done.stdout
    assert list(directory.glob("events.out.tfevents.*"))

    done = run(APPO, "eval", directory, "--episodes", "2", "--json", cwd=tmp_path)
    result = json.loads(done.stdout)
    assert result["episodes"] == 2
    assert result["mean_length"] == 200
    assert -2000 < result["mean_return"] < 0
    done = run(APPO, "eval", "latest", "experiment.output_dir=runs", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["checkpoint"] == str(checkpoint)


def test_appo_alone_lists_its_commands(run: Any, tmp_path: Path) -> None:
    text = run(APPO, cwd=tmp_path).stdout
    assert text == run(APPO, "--help", cwd=tmp_path).stdout
    for command in ("train", "eval"):
        assert f"\n  {command} " in text


def test_an_unknown_command_is_one_line_with_the_nearest_name(run: Any, tmp_path: Path) -> None:
    done = run(APPO, "trian", cwd=tmp_path, code=2)
    assert done.stdout == ""
    assert done.stderr == "appo: no command 'trian'; did you mean 'train'?\n"
    (line,) = run(APPO, "nosuch", cwd=tmp_path, code=2).stderr.splitlines()
    assert line.startswith("appo: no command 'nosuch'; there are train, eval, ")


def test_a_wrong_value_is_one_line_and_leaves_nothing(run: Any, tmp_path: Path) -> None:
    done = run(APPO, "train", *TINY, "ppo.lrr=1", cwd=tmp_path, code=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ppo.lrr")
    assert "ppo.lr" in line.removeprefix("error: ppo.lrr")
    assert not list(tmp_path.iterdir())
