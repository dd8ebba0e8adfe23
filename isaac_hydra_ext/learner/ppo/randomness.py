"""All that is random in an update. Runs in the learner's process, on its device."""

from dataclasses import dataclass

import torch

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.models.distributions import ActionDistribution
from isaac_hydra_ext.system.seeding import Stream, make_generator


@dataclass
class Draws:
    """What one update is given.

    Attributes:
        orders_EN: A permutation of the indices of samples, or of columns, for each epoch.
        noise_NP: For sampled entropies; None where they have a closed form.
    """

    orders_EN: torch.Tensor
    noise_NP: torch.Tensor | None

    def copy_(self, other: "Draws") -> None:
        """Take another update's draws over, in place."""
        self.orders_EN.copy_(other.orders_EN)
        if self.noise_NP is not None and other.noise_NP is not None:
            self.noise_NP.copy_(other.noise_NP)


class Randomness:
    """Draws for each iteration, from a generator seeded by the iteration's number."""

    def __init__(
        self,
        config: RunConfig,
        distribution: ActionDistribution,
        noisy_entropy: bool,
        device: torch.device,
        rank: int = 0,
    ) -> None:
        """Draw nothing yet.

        Args:
            config: The seed and `update_epochs` are read.
            distribution: Draws the noise.
            noisy_entropy: Whether entropies are sampled.
            device: Where to draw.
            rank: Ranks shuffle samples of their own, each in an order of its own.
        """
        self._seed, self._epochs = config.experiment.seed, config.ppo.update_epochs
        self._distribution, self._noisy, self._device = distribution, noisy_entropy, device
        self._place = (rank,) if rank else ()

    def draw(self, iteration: int, count: int, columns: int | None = None) -> Draws:
        """Draw for an update of `count` samples, whose `columns` are shuffled if they are given."""
        address = (iteration, *self._place)
        generator = make_generator(self._seed, Stream.SHUFFLE, *address, device=self._device)
        noise_NP = None
        if self._noisy:
            noise_NP = self._distribution.draw_noise((count,), generator)
        orders = [
            torch.randperm(columns or count, generator=generator, device=self._device)
            for _ in range(self._epochs)
        ]
        return Draws(torch.stack(orders), noise_NP)
