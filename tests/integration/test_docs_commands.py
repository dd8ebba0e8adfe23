"""Every command of the README and the docs is run, or is listed with the reason why not.

Trainings are run with their sizes cut down; what needs a simulator is composed and checked.
"""

import argparse
import contextlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from docs_blocks import ROOT, Command, blocks, commands
from hydra import compose, initialize_config_module

from isaac_hydra_ext.cli.main import COMMANDS, main
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.scripts.reinforcement_learning.appo import play, train

TRAIN_PY = "isaac_hydra_ext.scripts.reinforcement_learning.appo.train"
PLAY_PY = "isaac_hydra_ext.scripts.reinforcement_learning.appo.play"
CUT = [
    "rollout.num_workers=0", "rollout.envs_per_worker=4", "rollout.steps_per_env=16",
    "rollout.init_at_random_ep_len=false", "logging.console=quiet", "ppo.update_epochs=1",
]  # fmt: skip
# Read, not run: a pattern, and why.
NOT_RUN = {
    r"(.venv/bin/)?appo doctor\b.*": "imports every simulator; test_doctor.py has its checks",
    r"(.venv/bin/)?appo list tasks .*": "starts every simulator; test_new_package.py lists them",
    r"appo train env=my_task": "test_new_package.py writes that package and trains it",
    r"appo train .*env.imports=\[my_tasks\].*": "the page's own files: a test below",
    r"appo train env=my_cartpole .*": "the same",
    r"appo train -m .*": "test_sweeps.py runs sweeps, each job in a process of its own",
    r"appo plot logs/appo/(my_study|pendulum_lr).*": "of the runs of those sweeps",
    r"appo train .*(wandb|swanlab).*": "their packages; test_trackers.py has them",
    r"appo train .*rollout.launcher=ray.*": "test_ray.py has a cluster",
    r"ray start .*": "the same",
    r"appo tune .*": "test_tune.py runs it",
    r"appo train .*env=mjlab_.*": "minutes; composed and checked, and test_mjlab.py trains",
    r"appo train .*env=isaac_.*": "needs Isaac Lab; composed and checked",
    r"\./isaaclab\.sh .*": "needs Isaac Lab; its flags are read",
    r"scripts/run_isaacsim_docker\.sh\b.*": "needs docker and a GPU; test_container_scripts.py",
    r"scripts/install_inside_container\.sh": "needs Isaac Lab; test_container_scripts.py",
    r"scripts/(run_gym_local|run_isaac_lab|test)\.sh.*": "test_scripts.py has stand-ins",
    r"python -m isaac_hydra_ext.tasks.go1_nav.evaluate .*": "minutes; test_go1_nav.py plays",
    r"appo play examples/go1_nav/.*": "minutes; test_go1_nav.py loads that policy",
    r"appo play .*--viewer.*": "does not end; test_viewer.py watches",
    r"python -m benchmarks\.\w+ .*": "hours; its module is looked up",
    r"pip install .*": "needs a network; its extras are looked up",
    r"git clone .*": "needs a network",
    r"(.venv/bin/)?tensorboard --logdir \S+": "a server that does not end",
    r"(cd|source|export) .*": "for the reader's shell",
}  # fmt: skip
FOUND = commands()


def reason(command: Command) -> str | None:
    """Return the first pattern of `NOT_RUN` that a command matches."""
    return next((pattern for pattern in NOT_RUN if re.fullmatch(pattern, command.line)), None)


RUN = [c for c in FOUND if reason(c) is None]
APPO = [c for c in FOUND if re.match(r"(\S*/)?appo ", c.line)]


def words_of(command: Command) -> list[str]:
    """Split a command as the shell would; its program comes first."""
    return shlex.split(command.line)


@contextlib.contextmanager
def typed(*words: str) -> Iterator[None]:
    """Have this process's command line be `appo WORDS`."""
    before = sys.argv
    sys.argv = ["appo", *words]
    try:
        yield
    finally:
        sys.argv = before


def appo(*words: str) -> int:
    """Run `appo WORDS` in this process; returns its exit code."""
    with typed(*words):
        try:
            main()
        except SystemExit as e:
            return e.code if isinstance(e.code, int) else int(e.code is not None)
    return 0


@contextlib.contextmanager
def inside(directory: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a directory in which Pendulum and CartPole were trained a little, and exported."""
    directory = tmp_path_factory.mktemp("reader")
    with inside(directory):
        for env, count in (("gym_pendulum", 13), ("gym_cartpole", 4)):
            assert appo("train", f"env={env}", *CUT, f"experiment.max_iterations={count}") == 0
        if importlib.util.find_spec("onnxruntime"):
            pendulum = next(Path("logs/appo/pendulum-v1").iterdir())
            assert appo("export", str(pendulum)) == 0
    return directory


def test_the_list_of_what_is_not_run_is_no_longer_than_needed() -> None:
    assert len(RUN) > 20
    used = {reason(command) for command in FOUND}
    assert set(NOT_RUN) - used == set()


@pytest.mark.parametrize("command", RUN, ids=str)
def test_it_runs(
    command: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, name, *rest = words_of(command)
    assert program in ("appo", ".venv/bin/appo"), f"{command}: run it, or list it in NOT_RUN"
    if name in ("export", "run-onnx"):
        pytest.importorskip("onnxruntime")
    if "video" in command.line:
        pytest.importorskip("imageio_ffmpeg")
        pytest.importorskip("pygame")
    if name in ("plot", "report"):
        pytest.importorskip("matplotlib")
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    (pendulum,) = Path("logs/appo/pendulum-v1").iterdir()
    runs = {"<run>": pendulum.name, "RUN_A": str(pendulum), "RUN_B": str(pendulum)}
    runs |= {"RUN_C": str(pendulum), "RUN": str(pendulum)}
    words = [re.sub("<run>|RUN_.|RUN", lambda found: runs[found[0]], word) for word in rest]
    if name == "train" and "--cfg" not in rest and "--help" not in rest:
        words = _cut(words)
    assert appo(name, *words) == 0


def _cut(words: list[str]) -> list[str]:
    """Cut a training down: few envs and iterations, of a sweep the first value of each."""
    swept = "--multirun" in words
    kept = [w.partition(",")[0] if swept and "[" not in w else w for w in words if w[:2] != "--"]
    total = 15 if any(word.startswith("resume=") for word in words) else 2
    return [*kept, *CUT, f"experiment.max_iterations={total}"]


def composed(words: list[str], tmp_path: Path) -> None:
    """Compose and check a configuration as the runner does before it asks a simulator."""
    overrides = [word for word in words if not word.startswith("--") and word != "job"]
    overrides.append(f"experiment.output_dir={tmp_path}")
    with initialize_config_module("isaac_hydra_ext.conf", version_base="1.3"):
        load_run_config(compose("train_appo", overrides=overrides), overrides)


NEEDS_SIMULATOR = [
    c for c in FOUND if re.search(r"(train|appo_runner) .*env=(mjlab|isaac)_", c.line)
]


@pytest.mark.parametrize("command", NEEDS_SIMULATOR, ids=str)
def test_a_simulators_configuration_is_sound(command: Command, tmp_path: Path) -> None:
    words = words_of(command)
    composed([word for word in words if "=" in word], tmp_path)


ISAAC = [c for c in FOUND if TRAIN_PY in c.line or PLAY_PY in c.line]


@pytest.mark.parametrize("command", ISAAC, ids=str)
def test_isaac_labs_flags_are_ours(command: Command, tmp_path: Path) -> None:
    words = words_of(command)
    if PLAY_PY in words:
        play.make_parser().parse(words[words.index(PLAY_PY) + 1 :])
        return
    flags, rest = train.make_parser().parse(words[words.index(TRAIN_PY) + 1 :])
    if not flags.list_tasks:
        composed(train.overrides_of(flags, rest), tmp_path)


@pytest.mark.parametrize("command", [c for c in APPO if reason(c)], ids=str)
def test_the_flags_of_what_is_not_run_exist(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    _, name, *rest = words_of(command)
    assert name in COMMANDS
    flags = [word for word in rest if word.startswith("--")]
    if name == "train":  # Hydra's
        assert set(flags) <= {"--cfg", "--resolve", "--config-dir", "--config-name"}
        return
    assert appo(name, "--help") == 0
    text = capsys.readouterr().out
    assert [flag for flag in flags if flag not in text] == []


def test_what_is_installed_and_started_exists() -> None:
    about = (ROOT / "pyproject.toml").read_text()
    extras = set(re.findall(r"^(\w+) = \[", about[about.index("optional-dependencies") :], re.M))
    for command in FOUND:
        for named in re.findall(r"(?:isaac-hydra-ext|\.)\[([\w,]+)\]", command.line):
            assert set(named.split(",")) <= extras, command
        for module in re.findall(r"python -m (benchmarks\.\w+)", command.line):
            assert importlib.util.find_spec(module), command
        for script in re.findall(r"^scripts/\w+\.sh", command.line):
            assert os.access(ROOT / script, os.X_OK), command


def test_blocks_of_python_yaml_and_toml_can_be_read() -> None:
    from omegaconf import OmegaConf

    for block in blocks("python"):
        compile(block.text, f"{block.page}", "exec")
    for block in blocks("yaml"):
        assert len(OmegaConf.create(block.text)) > 0, block.page
    if sys.version_info >= (3, 11):
        import tomllib

        for block in blocks("toml"):
            assert tomllib.loads(block.text)


def test_the_network_of_the_docs_is_one_that_trains(tmp_path: Path) -> None:
    import torch

    (block,) = (b for b in blocks("python") if "def build(config, role" in b.text)
    names: dict[str, Callable[..., torch.nn.Module]] = {}
    exec(compile(block.text, block.page, "exec"), names)
    network = names["build"](argparse.Namespace(), "actor", 5, 2)
    assert network(torch.zeros(3, 5)).shape == (3, 2)


@pytest.mark.mjlab
def test_the_files_of_a_task_of_ones_own_are_found_and_said(tmp_path: Path) -> None:
    pytest.importorskip("mjlab")
    for block in blocks("python", "yaml"):
        if block.page == "docs/own_env.md" and "my_pkg" not in block.name:
            path = tmp_path / block.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
    (line,) = (c.line for c in FOUND if "env=my_cartpole" in c.line)
    code = "from isaac_hydra_ext.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *shlex.split(line)[1:], "--cfg", "job", "--resolve"],
        cwd=tmp_path, capture_output=True, text=True, timeout=280,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = {line.strip().split(": ")[0]: line for line in done.stdout.splitlines()}
    assert said["task"].split()[1] == "My-Cartpole"
    assert re.match(r"  gamma: 0.95 +# the task's agent cfg", said["gamma"])
    assert re.match(r"  max_iterations: 150 +# env.trainer_defaults", said["max_iterations"])
