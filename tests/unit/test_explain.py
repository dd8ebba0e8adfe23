"""When `--cfg job --resolve` is ours to answer."""

import pytest

from isaac_hydra_ext.cli.explain import asked_for, strip_flags


@pytest.mark.parametrize("flags", [["--cfg", "job"], ["-c", "job"], ["--cfg=job"]])
def test_the_whole_resolved_configuration_is(flags: list[str]) -> None:
    words = ["appo train", "ppo.lr=1", *flags, "--resolve"]
    assert asked_for(words)
    assert strip_flags(words) == ["appo train", "ppo.lr=1"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--cfg", "job"],
        ["--cfg", "all", "--resolve"],
        ["--cfg", "job", "--resolve", "-p", "ppo"],
        ["--cfg=job", "--resolve", "--package=ppo"],
    ],
)
def test_what_else_there_is_to_show_is_hydras(flags: list[str]) -> None:
    assert not asked_for(["appo train", "ppo.lr=1", *flags])
