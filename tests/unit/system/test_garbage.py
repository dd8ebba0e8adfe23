"""When garbage is collected around building a simulation."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from isaac_hydra_ext.system.garbage import garbage_uncollected, leave_garbage


class Cycle:
    """What only the collector frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def frozen_no_more() -> Iterator[None]:
    yield
    gc.unfreeze()


def test_an_envs_garbage_is_collected_by_the_next_one_alone() -> None:
    with garbage_uncollected():
        assert not gc.isenabled()
        left = weakref.ref(Cycle())
    assert gc.isenabled() and gc.get_freeze_count() > 1000
    leave_garbage()
    gc.collect()
    assert left() is not None, "Python has looked through the simulation's objects"
    with garbage_uncollected():
        assert left() is None


def test_a_failed_build_and_a_program_without_collection_are_left_as_they_were() -> None:
    with pytest.raises(ValueError), garbage_uncollected():
        raise ValueError
    assert gc.isenabled()
    gc.disable()
    try:
        with garbage_uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
