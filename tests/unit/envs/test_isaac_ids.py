"""Isaac Lab's task ids: what every generation calls a task is the same task."""

import gymnasium as gym
import pytest

from isaac_hydra_ext.envs.isaac.ids import find_task, trained_task

REGISTERED = {
    "Isaac-Cartpole-Direct": {},
    "IsaacContrib-Velocity-Flat-UnitreeGo1": {},
    "Isaac-Velocity-Flat-AnymalD": {},
    "Isaac-Reorient-Cube-Allegro": {},
    "Isaac-Reorient-Cube-Shadow-Camera-Direct": {},
    "Isaac-Pendulum-MARL-Direct": {},
    "Isaac-Lift-KukaAllegro": {},
    "Isaac-DrLegs-Walk-v0": {"deprecated": {"alias": "--task IsaacContrib-DrLegs-Walk"}},
    "IsaacContrib-DrLegs-Walk": {},
    "Old-v0": {},
    "Old-Play-v0": {},
}


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, more in REGISTERED.items():
        spec = gym.envs.registration.EnvSpec(name, kwargs={"env_cfg_entry_point": "x:y", **more})
        monkeypatch.setitem(gym.registry, name, spec)


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("Isaac-Cartpole-Direct-v0", "Isaac-Cartpole-Direct"),
        ("Isaac-Velocity-Flat-Unitree-Go1-v0", "IsaacContrib-Velocity-Flat-UnitreeGo1"),
        ("Isaac-Velocity-Flat-Anymal-D-v0", "Isaac-Velocity-Flat-AnymalD"),
        ("Isaac-Repose-Cube-Allegro-v0", "Isaac-Reorient-Cube-Allegro"),
        ("Isaac-Repose-Cube-Shadow-Vision-Direct-v0", "Isaac-Reorient-Cube-Shadow-Camera-Direct"),
        ("Isaac-Cart-Double-Pendulum-Direct-v0", "Isaac-Pendulum-MARL-Direct"),
        ("Isaac-Dexsuite-Kuka-Allegro-Lift-v0", "Isaac-Lift-KukaAllegro"),
        ("Isaac-DrLegs-Walk", "IsaacContrib-DrLegs-Walk"),  # not the deprecated one
        ("Isaac-DrLegs-Walk-v0", "Isaac-DrLegs-Walk-v0"),  # unless it is what was typed
        ("ns:Old", "Old-v0"),
    ],
)
def test_every_spelling_is_found(typed: str, found: str) -> None:
    assert find_task(typed) == found
    assert trained_task(typed) == trained_task(found)


def test_playing_takes_the_play_id_where_there_is_one() -> None:
    assert find_task("Old", play=True) == find_task("Old-Play-v0", play=True) == "Old-Play-v0"
    assert find_task("Old-v0") == "Old-v0"
    go1 = "IsaacContrib-Velocity-Flat-UnitreeGo1"
    assert find_task("Isaac-Velocity-Flat-Unitree-Go1-Play-v0", play=True) == go1
