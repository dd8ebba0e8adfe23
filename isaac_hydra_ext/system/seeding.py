"""Random streams addressed by what they are for. Used in every process.

No generator's state is ever carried on: the noise of rollout k of worker w, or the shuffle of
iteration k, is drawn from a fresh generator seeded by those numbers. So a resumed run continues
the streams without having saved them, timing cannot reorder draws, and environments may seed the
global generators as they please.
"""

from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What a random stream is for."""

    INIT = 0  # network weights
    ENV = 1  # physics and resets of one worker's envs
    EPISODE_TIME = 2  # random initial episode times
    POLICY_NOISE = 3  # action sampling of one rollout
    SHUFFLE = 4  # minibatch order (and sampled entropies) of one iteration
    TERM = 5  # weights of one of PPO's terms


def stream_seed(seed: int, stream: Stream, *address: int) -> int:
    """Return a 63-bit seed for `address`, e.g. (worker, generation, iteration)."""
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=(int(stream), *address))
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def make_generator(
    seed: int, stream: Stream, *address: int, device: str | torch.device = "cpu"
) -> torch.Generator:
    """Return a fresh generator for `address`; see `stream_seed`."""
    generator = torch.Generator(device=device)
    generator.manual_seed(stream_seed(seed, stream, *address))
    return generator
