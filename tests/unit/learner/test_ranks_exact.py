"""Ranks on parts of the samples learn what one learner does on all of them.

Ranks are threads here; `test_group.py` has them. The one learner's minibatch i is all ranks'
minibatches i together.
"""

import threading
from collections.abc import Iterator

import pytest
import torch

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.learner.group import Group
from isaac_hydra_ext.learner.ppo.ppo import PPO
from isaac_hydra_ext.learner.ppo.randomness import Draws

from ..builders import env_spec, run_config
from .test_group import on_ranks

T, B, BATCH, ITERATIONS = 5, 3, 4, 3  # 15 samples a rank: minibatches of 4, 4, 4, 3
MIRRORED = {
    "mirrors": {"m": {"obs": {"policy": [2, -1, 3]}, "action": [-1]}},
    "use_data_augmentation": True, "use_mirror_loss": True, "mirror_loss_coeff": 0.3,
}  # fmt: skip
CURIOUS = {
    "weight": 0.5, "state_normalization": True, "predictor_hidden_dims": [4], "num_outputs": 2
}  # fmt: skip
LEFT_OUT, UNDONE = (1, 1), (1, 2)  # (rank, iteration): its last env; a reward of NaN there


def config_of(num_envs: int, minibatches: int, estimator: str) -> RunConfig:
    return run_config(
        num_envs,
        rollout={"steps_per_env": T},
        ppo={"num_mini_batches": minibatches, "lr_schedule": "adaptive", "update_epochs": 2,
             "desired_kl": 1e-3, "advantages": "vtrace" if estimator == "vtrace" else "gae",
             "normalize_advantages_per_mini_batch": estimator == "vtrace",
             "symmetry": MIRRORED if estimator == "vtrace" else {},
             "terms": {"rnd": CURIOUS} if estimator == "vtrace" else {}},
        policy={"normalize_values": True, "hidden_dims": [8],
                "recurrent": {"kind": "lstm", "hidden": 4} if estimator == "memory" else {}},
    )  # fmt: skip


def learner_of(config: RunConfig, group: Group | None = None) -> PPO:
    assert config.rollout.envs_per_worker is not None
    return PPO(config, env_spec(config.rollout.envs_per_worker), torch.device("cpu"), group)


def fill(learner: PPO, iteration: int, ranks: list[int]) -> None:
    """Write the samples of some ranks side by side, as if they had been collected."""
    batch, columns = learner.batch, 0
    batch._show(batch._reward_TN.shape[1])
    for rank in ranks:
        draw = torch.Generator().manual_seed(100 * iteration + rank)
        dropped = (rank, iteration) == LEFT_OUT
        mine = slice(columns, columns := columns + B - dropped)

        def normal(*shape: int, draw: torch.Generator = draw) -> torch.Tensor:
            return torch.randn(*shape, generator=draw)

        count = B - dropped
        batch._obs["policy"][:, mine] = 3 * normal(T + 1, B, 3)[:, :count] + rank
        batch._action_TNA[:, mine] = normal(T, B, 1)[:, :count]
        batch._behavior_log_prob_TN[:, mine] = normal(T, B)[:, :count] * 0.3 - 1.4
        batch._reward_TN[:, mine] = (normal(T, B)[:, :count] + rank) * (1 + iteration)
        batch._terminated_TN[:, mine] = normal(T, B)[:, :count] > 1
        batch._truncated_TN[:, mine] = normal(T, B)[:, :count] > 1
        for state in batch._state.values():
            state[mine] = normal(B, *state.shape[1:])[:count]
        if (rank, iteration) == UNDONE:
            batch._reward_TN[2, mine.start] = torch.nan
    batch._show(columns)


def state_of(learner: PPO) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in learner.state_dict().items()}


class AllSamples:
    """One learner of all ranks' samples, cut into minibatches as the ranks cut theirs."""

    def __init__(self, size: int, learners: list[PPO], estimator: str, minibatches: int) -> None:
        self.size, self.learners = size, learners
        self.learner = learner_of(config_of(size * B, minibatches, estimator))
        self.learner._randomness.draw = self.draw  # type: ignore[method-assign]
        self.learner._epochs._minibatches = lambda order, sequences: [  # type: ignore[method-assign]
            (rows, sequences and sequences.take(rows[rows < sequences.starts_TC.shape[1]]))
            for rows in next(self.cut)
        ]

    def draw(self, iteration: int, count: int, columns: int | None = None) -> Draws:
        widths = [B - ((rank, iteration) == LEFT_OUT) for rank in range(self.size)]

        def epochs() -> Iterator[list[torch.Tensor]]:
            orders = [
                learner._randomness.draw(iteration, T * width, columns and width).orders_EN
                for learner, width in zip(self.learners, widths, strict=True)
            ]
            for epoch in range(2):
                parts = []
                for rank, learner in enumerate(self.learners):
                    first, width = sum(widths[:rank]), widths[rank]
                    sequences = learner.batch.sequences(T)
                    cut = learner._epochs._minibatches(orders[rank][epoch], sequences)
                    parts.append(
                        [rows // width * sum(widths) + first + rows % width for rows, _ in cut]
                    )
                # By time, as a minibatch of whole columns has them.
                yield [torch.cat(rows).sort().values for rows in zip(*parts, strict=True)]

        self.cut = epochs()
        return Draws(torch.zeros(2, count, dtype=torch.int64), None)


@pytest.mark.parametrize(("size", "estimator"), [(2, "gae"), (3, "vtrace"), (2, "memory")])
def test_ranks_learn_what_one_learner_of_all_samples_does(size: int, estimator: str) -> None:
    minibatches = 2 if estimator == "memory" else -(-T * B // BATCH)  # at most one a column
    one_at_a_time = threading.Lock()

    def of_rank(group: Group) -> object:
        with one_at_a_time:  # weights are drawn from the process's generator
            learner = learner_of(config_of(B, minibatches, estimator), group)
        states = []
        for iteration in range(ITERATIONS + 1):
            fill(learner, iteration, [group.rank])
            metrics = learner.update(iteration)
            states.append(state_of(learner) | {"undone": torch.tensor(metrics["Loss/undone"])})
        return learner, states

    ran = on_ranks(size, of_rank)
    ranks = [states for _, states in ran]  # type: ignore[misc]
    learners = [learner for learner, _ in ran]  # type: ignore[misc]
    alone = AllSamples(size, learners, estimator, minibatches)
    rates = set()
    for iteration in range(ITERATIONS + 1):
        fill(alone.learner, iteration, [*range(size)])
        undone = alone.learner.update(iteration)["Loss/undone"]
        assert undone == (iteration == UNDONE[1])
        expected = state_of(alone.learner) | {"undone": torch.tensor(undone)}
        rates.add(float(expected["lr"]))
        for name, tensor in expected.items():
            for states in ranks[1:]:
                assert torch.equal(ranks[0][iteration][name], states[iteration][name]), name
            torch.testing.assert_close(
                ranks[0][iteration][name],
                tensor,
                rtol=1e-6,
                atol=1e-6,
                msg=lambda m, where=(iteration, name): f"{where}: {m}",
            )
    assert len(rates) > 1  # the adaptive rate has moved


def test_a_rank_without_a_row_in_a_minibatch_counts_for_nothing() -> None:
    def of_rank(group: Group) -> object:
        mine = torch.full((2,), torch.nan) if group.rank else torch.tensor([3.0, 5.0])
        return group.mean_of_samples(mine, 0 if group.rank else 7)

    for mean in on_ranks(2, of_rank):
        assert torch.equal(mean, torch.tensor([3.0, 5.0]))  # type: ignore[arg-type]
