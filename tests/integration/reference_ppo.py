"""Synchronous PPO written from the paper (Schulman et al. 2017) and from GAE's (2016).

Knows nothing of the package: it is given raw rollouts and initial weights as plain tensors. Loops
are explicit where that is closest to the formulas.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Rollout:
    """Raw data of all envs: obs is [T + 1, N, O], the rest [T, N]; finals are (t, n, obs)."""

    obs: torch.Tensor
    action: torch.Tensor
    log_prob: torch.Tensor
    reward: torch.Tensor
    terminated: torch.Tensor
    truncated: torch.Tensor
    finals: list[tuple[int, int, torch.Tensor]]


@dataclass
class Settings:
    """PPO's numbers."""

    gamma: float
    lam: float
    clip: float
    value_clip: float
    entropy_coef: float
    value_coef: float
    max_grad_norm: float
    lr: float
    desired_kl: float
    epochs: int
    batch_size: int


class ReferencePPO:
    """Gaussian actor with a free std, critic, running observation statistics, Adam."""

    def __init__(
        self, actor: nn.Module, critic: nn.Module, std: torch.Tensor, settings: Settings
    ) -> None:
        self.actor, self.critic, self.settings = actor, critic, settings
        self.std = nn.Parameter(std.clone())
        self.parameters = [*actor.parameters(), *critic.parameters(), self.std]
        self.lr = settings.lr
        self.adam = torch.optim.Adam(self.parameters, lr=self.lr)
        self.seen: list[torch.Tensor] = []  # all observations acted on so far

    def normalize(self, obs: torch.Tensor) -> torch.Tensor:
        if not self.seen:
            return obs
        seen = torch.cat(self.seen).double()
        mean, std = seen.mean(0), seen.std(0, correction=0)
        return (obs - mean.float()) / (std + 1e-2).float()

    def policy(self, obs: torch.Tensor) -> torch.distributions.Normal:
        mean = self.actor(self.normalize(obs))
        return torch.distributions.Normal(mean, self.std.expand_as(mean))

    def value(self, obs: torch.Tensor) -> torch.Tensor:
        return self.critic(self.normalize(obs)).squeeze(-1)

    @torch.no_grad()
    def advantages(self, r: Rollout) -> tuple[torch.Tensor, torch.Tensor]:
        steps, envs = r.reward.shape
        values = self.value(r.obs)
        finals = {(t, n): self.value(obs[None])[0] for t, n, obs in r.finals}
        advantage = torch.zeros_like(r.reward)
        for n in range(envs):
            running = 0.0
            for t in reversed(range(steps)):
                if r.terminated[t, n]:
                    bootstrap, carry = 0.0, 0.0
                elif r.truncated[t, n]:
                    bootstrap, carry = float(finals[t, n]), 0.0
                else:
                    bootstrap, carry = float(values[t + 1, n]), running
                delta = float(r.reward[t, n]) + self.settings.gamma * bootstrap - values[t, n]
                running = float(delta) + self.settings.gamma * self.settings.lam * carry
                advantage[t, n] = running
        return advantage, advantage + values[:-1]

    def update(self, r: Rollout, orders: Sequence[torch.Tensor]) -> dict[str, float]:
        """Train on one rollout; `orders` is the sample order of each epoch."""
        s = self.settings
        advantage, target = (x.flatten() for x in self.advantages(r))
        advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
        obs, action = r.obs[:-1].flatten(0, 1), r.action.flatten(0, 1)
        with torch.no_grad():
            old, old_value = self.policy(obs), self.value(obs)
            old_mean, old_std = old.mean.clone(), old.stddev.clone()
        sums = {"surrogate": 0.0, "value": 0.0, "entropy": 0.0, "kl": 0.0}
        count = -(-len(orders[0]) // s.batch_size)
        batches = [rows for order in orders for rows in order.tensor_split(count)]
        for rows in batches:
            new = self.policy(obs[rows])
            ratio = (new.log_prob(action[rows]).sum(-1) - r.log_prob.flatten()[rows]).exp()
            a = advantage[rows]
            surrogate = -torch.min(ratio * a, ratio.clamp(1 - s.clip, 1 + s.clip) * a).mean()
            value, before = self.value(obs[rows]), old_value[rows]
            near = before + (value - before).clamp(-s.value_clip, s.value_clip)
            errors = (value - target[rows]) ** 2, (near - target[rows]) ** 2
            value_loss = torch.max(*errors).mean()
            entropy = new.entropy().sum(-1).mean()
            loss = surrogate + s.value_coef * value_loss - s.entropy_coef * entropy
            kl = torch.distributions.kl_divergence(
                torch.distributions.Normal(old_mean[rows], old_std[rows]), new
            )
            self.adapt(float(kl.sum(-1).mean().detach()))
            self.adam.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_([*self.actor.parameters(), self.std], s.max_grad_norm)
            nn.utils.clip_grad_norm_(self.critic.parameters(), s.max_grad_norm)
            self.adam.step()
            for name, x in zip(
                sums, (surrogate, value_loss, entropy, kl.sum(-1).mean()), strict=True
            ):
                sums[name] += float(x.detach()) / len(batches)
        self.seen.append(obs)
        return sums

    def adapt(self, kl: float) -> None:
        if kl > 2 * self.settings.desired_kl:
            self.lr = max(1e-5, self.lr / 1.5)
        elif 0 < kl < self.settings.desired_kl / 2:
            self.lr = min(1e-2, self.lr * 1.5)
        self.adam.param_groups[0]["lr"] = self.lr
