"""What of PPO's knobs grows with the number of ranks. Runs in each rank."""

import copy
import dataclasses

from isaac_hydra_ext.config.schema import RunConfig


def scaled(config: RunConfig, ranks: int) -> RunConfig:
    """Return the configuration of an update of R ranks, each with an N_buffer of its own.

    By itself a minibatch step is then one on R times as many samples, with the same rate and as
    many of them, as in rsl_rl. `num_mini_batches` keeps the samples of a step as many as one rank
    has; `lr` follows their number (Goyal et al. 2017).

    Args:
        config: The complete one; not changed.
        ranks: R.
    """
    grows, ppo = config.ppo.scale_with_ranks, dataclasses.replace(config.ppo)
    if ranks == 1 or not grows:
        return config
    if "lr" in grows:
        ppo.lr *= ranks
    if "update_epochs" in grows:
        ppo.update_epochs *= ranks
    if "num_mini_batches" in grows:
        minibatches = -(-config.n_buffer // ppo.batch_size) * ranks
        ppo.batch_size = -(-config.n_buffer // minibatches)
    config = copy.copy(config)
    config.ppo = ppo
    return config
