"""What nobody means to type is refused in one line too: absurd sizes, texts and trees, secrets."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import ConfigError

from .test_config_refusals import loaded, refusal

MIRROR = "ppo.symmetry.data_augmentation_func"
LONG = "a" * 5000
PENDULUM = OmegaConf.create({"env": {"id": "Pendulum-v1"}})


def refused(settings: dict[str, Any]) -> str:
    """The line with which a nested configuration is refused, whatever it holds."""
    with pytest.raises(ConfigError) as caught:
        load_run_config(OmegaConf.merge(PENDULUM, settings))
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    return message


def nested(key: str, value: Any) -> dict[str, Any]:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


PATHS = ["", "  ", "~nobody_of_that_name/x", LONG, "a/" * 2500, "x" * 256, "a\0b", "a\nb", "\udc80"]
WORDS = ["", LONG, "a\0b", "a\nb", "\x1b[31m", "\udc80"]


@pytest.mark.parametrize("path", PATHS, ids=range(len(PATHS)))
@pytest.mark.parametrize("key", ["experiment.output_dir", "resume"])
def test_paths_that_no_file_can_have(key: str, path: str) -> None:
    assert refused(nested(key, path)).startswith(key)


@pytest.mark.parametrize("text", WORDS, ids=range(len(WORDS)))
@pytest.mark.parametrize(
    "key",
    [
        *("experiment.name", "experiment.device", "rollout.device", "ppo.lr_schedule"),
        *("env.id", "env.kind", "policy.activation", "rollout.num_workers", "ppo.lr"),
    ],
)
def test_texts_that_are_no_word(key: str, text: str) -> None:
    assert refused(nested(key, text)).startswith(key)


@pytest.mark.parametrize("key", ["experiment.name", "experiment.run_name"])
def test_names_that_leave_no_room_for_the_time(key: str) -> None:
    assert refused(nested(key, "a" * 201)).endswith("longer than 200 characters")


@pytest.mark.parametrize("number", [10**400, -(10**400), 2**63, 10**5000], ids=int.bit_length)
@pytest.mark.parametrize(
    "key",
    [
        *("experiment.max_iterations", "experiment.seed", "ppo.lr", "ppo.batch_size"),
        *("env.kwargs.g", "checkpoint.every", "policy.clip_actions", "experiment.max_env_steps"),
    ],
)
def test_integers_that_no_machine_word_holds(key: str, number: int) -> None:
    cfg = {"env": {"id": "Pendulum-v1"}}
    with pytest.raises(ConfigError, match=rf"^{key}: an integer of \d+ bits; 63 are the most$"):
        load_run_config({**cfg, **nested(key, number)})


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("experiment.max_iterations=2147483648", "must be at most 2,147,483,647"),
        ("rollout.num_workers=100000", "must be at most 1,024"),
        ("rollout.envs_per_worker=1000000000000", "must be at most 1,000,000"),
        ("rollout.max_policy_lag=101", "must be at most 100"),
        ("policy.hidden_dims=[100000]", "must be at most 65,536"),
        ("rollout.startup_timeout_s=1e300", "must be at most 1,000,000"),
        ("policy.init_std=1e-320", "must be at least 1e-06"),
        ("ppo.lr=1e400", "must be finite"),
    ],
)
def test_numbers_beyond_any_use(override: str, says: str) -> None:
    assert refusal(override).startswith(override.split("=")[0])
    assert says in refusal(override)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("policy.hidden_dims=[[1]]", "policy.hidden_dims=[[1]]: a list of plain values"),
        ("policy.hidden_dims=[{a:1}]", "policy.hidden_dims=[{'a': 1}]: a list of plain values"),
        ("policy.critic_hidden_dims=[[]]", "policy.critic_hidden_dims=[[]]: a list of plain"),
        ("logging.backends=[[tensorboard]]", "logging.backends=[['tensorboard']]: a list of"),
        ("env.imports=[[numpy]]", "env.imports=[['numpy']]: a list of plain values"),
        ("env.imports=['']", "env.imports='': not the name of a module"),
        ("env.imports=[..]", "env.imports='..': not the name of a module"),
        ("env.imports=['os; evil']", "env.imports='os; evil': not the name of a module"),
        ("env.imports=['json:']", "env.imports='json:': not the name of a module"),
        ("policy.network='json:'", "policy.network=json:: package.module:function is expected"),
        ("policy.network=.a:b", "policy.network=.a:b: package.module:function is expected"),
        (f"{MIRROR}=nope", f"{MIRROR}=nope: package.module:function is expected"),
        (f"{MIRROR}=''", f"{MIRROR}=: package.module:function is expected"),
        (f"{MIRROR}='a.:b'", f"{MIRROR}=a.:b: package.module:function is expected"),
        ("+ppo.terms.rnd={obs_groups: []}", "ppo.terms.rnd.obs_groups=[]: names no group"),
        ("policy.obs_groups={critic: []}", "policy.obs_groups.critic=[]: names no group"),
        ("distillation.teacher_groups=[]", "distillation.teacher_groups=[]: names no group"),
        ("+env.kwargs.id=CartPole-v1", "env.kwargs.id: say env.id instead"),
        ("policy.obs_groups={actor:[[x]]}", "policy.obs_groups.actor: "),
        ("policy.obs_groups={actor:x}", "policy.obs_groups.actor: "),
        ("experiment.device=cpu:5", "experiment.device=cpu:5: there is one CPU device; use cpu"),
        ("rollout.device=cpu:0", "rollout.device=cpu:0: there is one CPU device; use cpu"),
        ("experiment.device=cuda:99999999999", "experiment.device=cuda:99999999999: not a device"),
        ("experiment.device='cuda:'", "experiment.device=cuda:: not a device"),
    ],
)
def test_shapes_and_names_of_the_wrong_kind(override: str, says: str) -> None:
    assert refusal(override).startswith(says)


def deep(levels: int) -> Any:
    return [deep(levels - 1)] if levels else 1


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (deep(20), r"env\.kwargs\.x.*: nested deeper than 20 levels"),
        (deep(200), r"config: maximum recursion depth"),
        (b"bytes", r"env\.kwargs\.x: bytes is not a type of setting"),
        ({"x": Path("p")}, r"env\.kwargs\.x\.x: \w+Path is not a type of setting"),
    ],
    ids=["deep", "deeper", "bytes", "path"],
)
def test_values_that_are_no_plain_data(value: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=f"^{says}") as caught:
        load_run_config({"env": {"id": "Pendulum-v1", "kwargs": {"x": value}}})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "cfg", [None, 3, "text", [1], {"ppo": None}, {1: 2}, {LONG: 1}], ids=range(7)
)
def test_what_is_no_configuration_at_all(cfg: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load_run_config(cfg)
    assert len(str(caught.value)) < 300


def test_simulation_on_a_gpu_where_it_is_not_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    on_gpu = "rollout.device=cuda:0"
    assert refusal(on_gpu, "env=gym_pendulum").startswith(f"{on_gpu}: env.kind=gym simulates on")
    mjlab = ("env=mjlab_any", "env.task=X")
    for workers in ("auto", "1"):  # the only GPU is the learner's too
        assert loaded(on_gpu, *mjlab, f"rollout.num_workers={workers}").num_workers == 0
    message = refusal(on_gpu, *mjlab, "rollout.num_workers=2")
    assert message.startswith(f"rollout.num_workers=2: {on_gpu} names 1 GPU, and each has one")


# ------------------------------------------------------------------ environment variables


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:APPO_SECRET}",
        "x_${oc.env:APPO_SECRET,default}_y",
        "${oc.decode:${oc.env:APPO_SECRET}}",
        "${oc.${resume}:APPO_SECRET}",
        "${oc.env:APPO_NOT_SET,default}",
    ],
)
@pytest.mark.parametrize("key", ["experiment.run_name", "ppo.lr", "env.kwargs.token", "env.id"])
def test_values_of_environment_variables_are_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, key: str, text: str
) -> None:
    monkeypatch.setenv("APPO_SECRET", "hunter2")
    cfg = OmegaConf.merge(PENDULUM, {"resume": "env"}, nested(key, text))
    with pytest.raises(ConfigError, match=rf"^{key}: oc\.env:APPO_\w+ is not accepted") as caught:
        load_run_config(cfg)
    assert "hunter2" not in str(caught.value)
    # Other configurations of the same program resolve as ever.
    assert OmegaConf.create({"x": "${oc.env:APPO_SECRET}"}).x == "hunter2"
