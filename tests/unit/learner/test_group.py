"""What ranks agree on: moments of all samples together, and an update that goes through a group."""

import threading
from collections.abc import Callable

import pytest
import torch

from isaac_hydra_ext.learner.group import Group, OneProcess, combined, on_any
from isaac_hydra_ext.learner.ppo.ppo import PPO

from ..builders import InProcessRun, run_config


class Threads(Group):
    """Ranks that are threads of this process."""

    def __init__(
        self, rank: int, size: int, table: list[torch.Tensor], barrier: threading.Barrier
    ) -> None:
        self.rank, self.size, self._table, self._barrier = rank, size, table, barrier

    def sum(self, x: torch.Tensor) -> torch.Tensor:
        self._table[self.rank] = x.clone()
        self._barrier.wait(60)
        x.copy_(torch.stack(self._table).sum(0))
        self._barrier.wait(60)
        return x

    def mean(self, x: torch.Tensor) -> torch.Tensor:
        return self.sum(x).div_(self.size)

    def broadcast(self, x: torch.Tensor) -> torch.Tensor:
        self.sum(x if self.is_first else x.zero_())
        return x


def on_ranks(size: int, work: Callable[[Group], object]) -> list[object]:
    """Run `work` on each of `size` ranks and return what each gave."""
    table, barrier = [torch.zeros(())] * size, threading.Barrier(size)
    results: list[object] = [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = work(Threads(rank, size, table, barrier))
        except BaseException:
            barrier.abort()
            raise

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert all(result is not None for result in results)
    return results


def test_moments_of_unequal_ranks_are_those_of_all_samples() -> None:
    samples = torch.randn(11, 3, dtype=torch.float64) * 5 + 2
    parts = samples.split([2, 6, 3])

    def of_rank(group: Group) -> object:
        part = parts[group.rank]
        var, mean = torch.var_mean(part, dim=0, correction=0)
        return combined(group, len(part), mean, var)

    for rows, mean, var in on_ranks(3, of_rank):  # type: ignore[misc]
        assert rows == 11
        torch.testing.assert_close(mean, samples.mean(0), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(var, samples.var(0, correction=0), rtol=1e-12, atol=1e-12)


def test_alone_every_bit_of_a_moment_stays() -> None:
    mean, std = torch.randn(1000), torch.rand(1000) * 1e3
    rows, same_mean, var = combined(OneProcess(), 7, mean, std.square())
    assert rows == 7 and torch.equal(mean, same_mean) and torch.equal(var.sqrt(), std)


def test_what_one_rank_has_all_hear_of() -> None:
    flags = [[False, False, True], [False, True, True]]
    found = on_ranks(2, lambda group: on_any(group, flags[group.rank], torch.device("cpu")))
    assert found == [[False, True, True]] * 2
    assert on_any(OneProcess(), flags[0], torch.device("cpu")) == flags[0]


@pytest.mark.parametrize("advantages", ["gae", "vtrace"])
def test_two_ranks_with_the_same_samples_learn_what_one_learns(advantages: str) -> None:
    config = run_config(
        8, ppo={"batch_size": 24, "advantages": advantages, "lr_schedule": "adaptive"},
        policy={"normalize_values": True, "hidden_dims": [16]},
    )  # fmt: skip
    alone = InProcessRun(config)
    alone.collect(0)
    expected = alone.update(0)

    one_at_a_time = threading.Lock()  # weights are drawn from the process's generator

    def of_rank(group: Group) -> object:
        with one_at_a_time:
            source = InProcessRun(config)  # the same seed: the same rollout
            learner = PPO(config, source.learner._spec, torch.device("cpu"), group)
            learner._randomness._place = ()  # and the same shuffles
            source.collect(0)
        learner.batch = source.learner.batch
        metrics = learner.update(0)
        state = {name: x.clone() for name, x in learner.state_dict().items()}
        return state | {f"metric {tag}": torch.tensor(x) for tag, x in metrics.items()}

    first, second = on_ranks(2, of_rank)
    ours = alone.learner.state_dict()
    for name, tensor in ours.items():
        assert torch.equal(first[name], second[name]), name  # type: ignore[index]
        if not name.endswith("count"):
            torch.testing.assert_close(first[name], tensor, rtol=1e-6, atol=1e-6)  # type: ignore[index]
    for tag, value in expected.items():
        assert float(first[f"metric {tag}"]) == pytest.approx(value, rel=1e-5, abs=1e-6), tag  # type: ignore[index]


def test_one_process_is_the_first_of_one() -> None:
    group, x = OneProcess(), torch.ones(2)
    assert group.is_first and group.size == 1
    assert group.sum(x) is x and group.mean(x) is x and group.broadcast(x) is x
