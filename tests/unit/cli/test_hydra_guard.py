"""Code and secrets under `hydra.` are refused before Hydra acts; its own plugins go on working."""

from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.errors import HydraException

from isaac_hydra_ext.cli.hydra_guard import CONFIG_NAME, CONFIG_PATH, check_hydra_node
from isaac_hydra_ext.errors import ConfigError

EVIL = "{_target_: os.mkdir, path: MARKER}"
HANDLER = "{version: 1, handlers: {x: {class: os.mkdir, path: MARKER}}}"
FILES = {
    "hydra/callbacks/evil.yaml": f"x: {EVIL}",
    "hydra/job_logging/evil.yaml": HANDLER,
    "hydra/launcher/evil.yaml": "_target_: os.mkdir",
    "ppo/callbacks.yaml": f"# @package _global_\nhydra: {{callbacks: {{x: {EVIL}}}}}",
    "ppo/handlers.yaml": f"# @package _global_\nhydra: {{job_logging: {HANDLER}}}",
    "ppo/elsewhere.yaml": "defaults: [default, /stuff@_global_.hydra.callbacks.x: evil, _self_]",
    "stuff/evil.yaml": "_target_: os.mkdir\npath: MARKER",
    "ppo/variables.yaml": "# @package _global_\nhydra: {job: {env_set: {LD_PRELOAD: x}}}",
    "ppo/copied.yaml": "# @package _global_\nhydra: {job: {env_copy: [HOME]}}",
    "ppo/harmless.yaml": (
        "# @package _global_\ndefaults: [default@ppo]\n"
        "hydra: {sweeper: {max_batch_size: 2}, job: {name: mine}}\nppo: {lr: 0.1}"
    ),
    "ppo/broken.yaml": "lr: [1",
    "swept.yaml": (
        "defaults: [train_appo, _self_]\nhydra: {sweeper: {params: {ppo: 'default,handlers'}}}"
    ),
    "searched.yaml": "defaults: [train_appo, _self_]\nhydra: {searchpath: [file://DIRECTORY]}",
}


@hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name=CONFIG_NAME)
def app(cfg: Any) -> None:
    raise AssertionError("nothing is run here")


@pytest.fixture(scope="module")
def conf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("conf")
    for name, text in FILES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("DIRECTORY", str(directory)))
    return directory


def check(*arguments: str) -> None:
    check_hydra_node(arguments, app)


def refusal(*arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check(*arguments)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["hydra/callbacks=evil"], "hydra.callbacks.x._target_"),
        (["hydra/job_logging=evil"], "hydra.job_logging.handlers.x.class"),
        (["hydra/launcher=evil"], "hydra.launcher._target_"),
        (["ppo=callbacks"], "hydra.callbacks.x._target_"),
        (["ppo=handlers"], "hydra.job_logging.handlers.x.class"),
        (["ppo=elsewhere"], "hydra.callbacks.x._target_"),
        (["ppo=variables"], "hydra.job.env_set.LD_PRELOAD"),
        (["ppo=copied"], "hydra.job.env_"),
        (["-m", "ppo=default,handlers"], "hydra.job_logging.handlers.x.class"),
        (["-m", "env.id=a,b", "ppo=choice(default,callbacks)"], "hydra.callbacks.x._target_"),
        (["-m", "ppo=glob(handl*)"], "hydra."),
        (["-m", "-cn", "swept"], "hydra.job_logging.handlers.x.class"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_files_of_the_user_may_not_name_code(conf: Path, arguments: list[str], key: str) -> None:
    flags = [a for a in arguments if a.startswith("-") or a == "swept"]
    overrides = [a for a in arguments if a not in flags]
    assert refusal(*flags, "--config-dir", str(conf), *overrides).startswith(key)


def test_other_ways_to_such_a_file(conf: Path) -> None:
    path = f"hydra.searchpath=[file://{conf}]"
    assert refusal(path, "ppo=callbacks").startswith("hydra.callbacks.x._target_")
    flags = ("--config-path", str(conf), "--config-name", "searched")
    assert refusal(*flags, "ppo=callbacks").startswith("hydra.callbacks.x._target_")


@pytest.mark.parametrize(
    "override",
    [
        "+hydra.callbacks.x._target_=os.mkdir",
        "+hydra.callbacks={x: {_target_: os.mkdir}}",
        "hydra.launcher._target_=os.mkdir",
        "+hydra.sweeper.sampler._target_=os.mkdir",
        "+hydra.job_logging.handlers={x: {class: os.mkdir}}",
        "+hydra.hydra_logging.filters={x: {class: os.mkdir}}",
        "+hydra.job.env_set.LD_PRELOAD=x",
    ],
)
def test_overrides_may_not_name_code(override: str) -> None:
    assert refusal(override).startswith("hydra.")


@pytest.mark.parametrize(
    "override",
    [
        "hydra.job.env_copy=[APPO_SECRET]",
        "hydra.run.dir=${oc.env:APPO_SECRET}",
        "hydra.sweep.subdir=x${oc.env:APPO_SECRET,y}",
        "+hydra.job.env_set.X=hunter2",
    ],
)
def test_no_variable_gets_into_hydras_node_or_a_message(
    monkeypatch: pytest.MonkeyPatch, override: str
) -> None:
    monkeypatch.setenv("APPO_SECRET", "hunter2")
    assert "hunter2" not in refusal(override)


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("ppo=vtrace", "ppo.lr=1"),
        ("hydra.verbose=true", "hydra.sweep.dir=x"),
        ("-m", "hydra/launcher=basic", "env=gym_pendulum,gym_cartpole", "ppo.lr=1,2,3"),
        ("--cfg", "job"),
        ("--hydra-help",),
        ("-sc", "query=bash"),
    ],
)
def test_hydras_own_defaults_and_plugins_pass(arguments: tuple[str, ...]) -> None:
    check(*arguments)


def test_a_harmless_file_of_the_user_passes(conf: Path) -> None:
    check("-m", "--config-dir", str(conf), "ppo=harmless,default", "experiment.seed=1,2")


def test_what_cannot_be_composed_is_one_line(conf: Path) -> None:
    assert "broken.yaml" in refusal("--config-dir", str(conf), "ppo=broken")
    assert refusal("--config-dir", "nowhere") == "--config-dir=nowhere: no such directory"
    assert "composed" in refusal("experiment.max_iterations=" + "9" * 5000)
    assert "composed" in refusal("+env.kwargs=" + "{a:" * 300 + "1" + "}" * 300)
    assert "composed" in refusal("ppo=null")
    assert "composed" in refusal("hydra.job.env_copy=[APPO_NOT_SET]")
    with pytest.raises(HydraException):
        check("ppo=nosuch,default")


def test_a_run_is_not_taken_up_from_a_pickle() -> None:
    assert refusal("--experimental-rerun", "x.pickle").startswith("--experimental-rerun: not acc")
