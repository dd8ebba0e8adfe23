"""Random streams: addressed by what they are for, and independent of everything else."""

import random
from itertools import combinations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from isaac_hydra_ext.system.seeding import Stream, make_generator, stream_seed

ADDRESSES = st.tuples(
    st.integers(0, 2**31), st.sampled_from(Stream), st.lists(st.integers(0, 2**20), max_size=3)
)


@given(ADDRESSES)
def test_the_same_address_gives_the_same_numbers(
    address: tuple[int, Stream, list[int]],
) -> None:
    seed, stream, rest = address
    a, b = (torch.rand(8, generator=make_generator(seed, stream, *rest)) for _ in range(2))
    assert torch.equal(a, b)


@given(ADDRESSES, ADDRESSES)
def test_different_addresses_have_different_seeds(
    one: tuple[int, Stream, list[int]], other: tuple[int, Stream, list[int]]
) -> None:
    if one != other:
        assert stream_seed(one[0], one[1], *one[2]) != stream_seed(other[0], other[1], *other[2])


def test_every_part_of_an_address_matters() -> None:
    base = (1, Stream.POLICY_NOISE, 0, 0, 0)
    others = [
        (2, Stream.POLICY_NOISE, 0, 0, 0),
        (1, Stream.SHUFFLE, 0, 0, 0),
        (1, Stream.POLICY_NOISE, 1, 0, 0),
        (1, Stream.POLICY_NOISE, 0, 1, 0),
        (1, Stream.POLICY_NOISE, 0, 0, 1),
        (1, Stream.POLICY_NOISE, 0, 0),  # a shorter address is not one ending in zero
    ]
    draws = [torch.rand(16, generator=make_generator(*a)) for a in (base, *others)]
    assert not any(torch.equal(a, b) for a, b in combinations(draws, 2))


def test_a_position_in_an_address_is_not_its_neighbour() -> None:
    assert stream_seed(1, Stream.ENV, 2, 3) != stream_seed(1, Stream.ENV, 3, 2)


def test_seeds_fit_into_63_bits_and_use_them() -> None:
    seeds = [stream_seed(1, Stream.ENV, i) for i in range(200)]
    assert all(0 <= s < 2**63 for s in seeds)
    assert max(seeds) > 2**61


def test_global_seeding_does_not_disturb_a_stream_nor_the_other_way_round() -> None:
    alone = torch.rand(8, generator=make_generator(1, Stream.ENV))
    torch.manual_seed(0)
    generator = make_generator(1, Stream.ENV)
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(123)
    expected = torch.rand(4)
    torch.manual_seed(123)
    assert torch.equal(torch.rand(8, generator=generator), alone)
    assert torch.equal(torch.rand(4), expected)


def test_stream_numbers_are_what_old_checkpoints_were_trained_with() -> None:
    # A renumbering would silently change what `resume` continues with.
    assert {s.name: s.value for s in Stream} == {
        "INIT": 0,
        "ENV": 1,
        "EPISODE_TIME": 2,
        "POLICY_NOISE": 3,
        "SHUFFLE": 4,
        "TERM": 5,
    }
