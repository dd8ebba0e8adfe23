"""A task's symmetry function as data: what it permutes, and what is refused with numbers."""

import json
from types import SimpleNamespace
from typing import Any

import pytest

from isaac_hydra_ext.envs.contract import EnvSpec, Mirror
from isaac_hydra_ext.envs.isaac.launch import as_plain
from isaac_hydra_ext.envs.symmetry import find_mirrors
from isaac_hydra_ext.errors import ConfigError

from ..builders import continuous, discrete, env_spec
from . import symmetries

HERE = symmetries.__name__


def env_of(spec: EnvSpec) -> Any:
    return SimpleNamespace(spec=spec, task_env=SimpleNamespace(device="cpu"))


def test_a_tasks_function_is_its_permutations_and_signs() -> None:
    pytest.importorskip("tensordict")
    obs = {
        "policy": ((3,), "float32"),
        "rest/clock": ((1,), "float32"),
        "camera": ((4, 4, 3), "uint8"),
    }
    spec = env_spec(2, obs, continuous((-1, 1), (-1, 1)))
    mirrors = find_mirrors(env_of(spec), f"{HERE}:four_legs")
    assert mirrors == (
        Mirror({"policy": (-1, 3, 2), "rest/clock": (-1,)}, (2, 1)),
        Mirror({"policy": (1, 2, 3), "rest/clock": (1,)}, (1, 2)),
    )


def test_mirrors_travel_with_the_spec() -> None:
    spec = env_spec(mirrors=(Mirror({"policy": (1, -3, 2)}, (-1,)),))
    assert EnvSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert EnvSpec.from_json(env_spec().to_json()).mirrors == ()


def test_rsl_rl_2s_functions_are_asked_group_by_group() -> None:
    spec = env_spec(2, {"policy": ((3,), "float32"), "critic": ((2,), "float64")})
    for name in (f"{HERE}:older", f"{HERE}.older"):
        (mirror,) = find_mirrors(env_of(spec), name)
        assert mirror == Mirror({"policy": (-1, -2, -3), "critic": (-1, -2)}, (-1,))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("scales", "copy 1: no permutation with signs: policy[1] is 0.5 policy[1]"),
        ("mixes", "copy 1: no permutation with signs: policy[1] is 1 policy[1] + -2 policy[2]"),
        ("shifts", "policy[2] is 3 + 1 policy[2]"),
        ("forgets", "policy[1] is 0 whatever is given"),
        ("repeats", "no permutation: policy[0] is taken more than once"),
        ("clamps", "of a random vector is"),
        ("shortens", "(policy), 138 (action)"),
        ("reorders", "its first copy of policy is not the original"),
        ("raises", "RuntimeError: no such sensor"),
        ("gone", "has no attribute 'gone'"),
    ],
)
def test_what_is_no_signed_permutation_is_refused_with_numbers(name: str, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        find_mirrors(env_of(env_spec()), f"{HERE}:{name}")
    line = str(refused.value)
    assert line.startswith(f"ppo.symmetry.data_augmentation_func={HERE}:{name}: ")
    assert says in line and "\n" not in line


def test_choices_have_no_mirror() -> None:
    with pytest.raises(ConfigError, match="needs continuous actions"):
        find_mirrors(env_of(env_spec(action=discrete(3))), f"{HERE}:older")


def test_a_cfgs_function_is_known_by_its_name() -> None:
    assert as_plain({"f": symmetries.older}) == {"f": f"{HERE}:older"}
