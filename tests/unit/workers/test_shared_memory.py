"""Both kinds of shared block, from both sides."""

import gc
import json
import multiprocessing
import os
import pickle
from multiprocessing import shared_memory
from pathlib import Path

import numpy as np
import pytest
from dev_shm import in_dev_shm, left_in_dev_shm

from isaac_hydra_ext.errors import SharedMemoryError
from isaac_hydra_ext.workers.env_states import read_env_state, write_env_states
from isaac_hydra_ext.workers.shared_memory import MemfdBlock, NamedBlock, make_shared_block

SIZE = 3 * 4096 + 17


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_linux_gets_a_memfd() -> None:
    block = make_shared_block()
    assert isinstance(block, MemfdBlock)
    block.close()


def test_both_mappings_of_a_memfd_see_each_others_bytes() -> None:
    block = MemfdBlock()
    ours = block.allocate(SIZE)
    theirs = block.attach(block.name, SIZE)
    assert ours.shape == theirs.shape == (SIZE,)
    assert ours.dtype == np.uint8 and not ours.any()
    ours[:] = np.arange(SIZE) % 251
    assert np.array_equal(theirs, ours)
    theirs[-1] = 255
    assert ours[-1] == 255
    block.close()
    assert theirs[-1] == 255  # a mapping outlives the descriptor


def _write_from_a_child(block: MemfdBlock, go: multiprocessing.Event) -> None:  # type: ignore
    go.wait(60)
    block.attach("memfd", SIZE)[7] = 42


def test_a_memfd_handed_over_empty_is_seen_at_its_later_size() -> None:
    context, block = multiprocessing.get_context("spawn"), MemfdBlock()
    go = context.Event()
    child = context.Process(target=_write_from_a_child, args=(block, go))
    child.start()
    memory = block.allocate(SIZE)
    go.set()
    child.join(60)
    assert child.exitcode == 0
    assert memory[7] == 42
    block.close()


@pytest.mark.parametrize("kind", [MemfdBlock, NamedBlock])
def test_a_block_carries_env_states_and_then_begins_anew(
    kind: type[MemfdBlock] | type[NamedBlock],
) -> None:
    shm, block = in_dev_shm(), kind()
    worker = block if kind is MemfdBlock else NamedBlock()
    states = [{"rng": 2**127, "x": [1.5, "\u00fc"]}, None, {"far": "y" * 70_000}]
    places = write_env_states(block, states)
    assert len(json.dumps(places)) < 1024, "they go through a pipe"
    assert [place and read_env_state(worker, place) for place in places] == states
    assert not block.allocate(SIZE).any(), "slots begin as zeros"
    block.close()
    assert left_in_dev_shm(shm) == set()
    assert write_env_states(make_shared_block(), [None, None]) == [None, None]


def test_a_memfd_leaves_no_file_no_descriptor_and_no_mapping() -> None:
    gc.collect()  # what other tests have left open
    files, shm = open_files(), in_dev_shm()
    for _ in range(20):
        block = MemfdBlock()
        memory = block.allocate(SIZE)
        memory[0] = 1
        block.close()
    del memory, block
    gc.collect()
    assert open_files() == files
    assert left_in_dev_shm(shm) == set()
    assert "memfd:isaac_hydra_ext" not in Path("/proc/self/maps").read_text()


def test_a_size_nobody_has_is_our_error_and_names_the_knobs() -> None:
    block = MemfdBlock()
    with pytest.raises(SharedMemoryError, match=r"rollout\.envs_per_worker"):
        block.allocate(2**60)
    block.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_both_sides_of_a_named_block_see_each_others_bytes_and_nothing_is_left() -> None:
    learner = NamedBlock()
    ours = learner.allocate(SIZE)
    name = learner.name
    assert name in in_dev_shm()
    worker = pickle.loads(pickle.dumps(learner))
    assert worker.name == ""  # the name comes with ATTACH
    theirs = worker.attach(name, SIZE)
    assert ours.shape == theirs.shape == (SIZE,) and not ours.any()
    ours[3], theirs[-1] = 9, 8
    assert theirs[3] == 9 and ours[-1] == 8
    worker.close()  # only the side that made it removes it
    assert name in in_dev_shm()
    learner.close()
    assert name not in in_dev_shm()
    with pytest.raises(FileNotFoundError):
        shared_memory.SharedMemory(name=name)


def test_a_named_block_that_does_not_fit_is_our_error() -> None:
    shm = in_dev_shm()
    with pytest.raises(SharedMemoryError, match=r"rollout\.steps_per_env"):
        NamedBlock().allocate(2**60)
    assert left_in_dev_shm(shm) == set()
