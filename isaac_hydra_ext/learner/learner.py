"""The learner: one `update` turns the rollouts of an iteration into the next policy version.

Runs in the learner's process: in the main thread, or in a background thread with W = 0 and L >= 1.
Everything between loading the batch and reading the metrics is device tensors; the host waits for
the device once an iteration.
"""

from collections.abc import Mapping
from typing import Any

import torch

from isaac_hydra_ext.config import RunConfig
from isaac_hydra_ext.envs.vec_env import EnvSpec
from isaac_hydra_ext.errors import NonFiniteError
from isaac_hydra_ext.learner.advantages import gae, next_values, vtrace
from isaac_hydra_ext.learner.batch import RolloutBatch
from isaac_hydra_ext.learner.losses import Minibatch, ppo_loss
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.rollout.buffer import Slot
from isaac_hydra_ext.seeding import Stream, make_generator

LR_RANGE = (1e-5, 1e-2)  # of the adaptive schedule, rsl_rl's
MINIBATCH_METRICS = (
    "surrogate",
    "value",
    "entropy",
    "kl",
    "clip_fraction",
    "actor_norm",
    "critic_norm",
)


class Learner:
    """Networks, optimizer and the update.

    Attributes:
        policy: The current networks; `policy.flat` is what is published.
        batch: The samples of the iteration.
    """

    def __init__(self, config: RunConfig, spec: EnvSpec, device: torch.device) -> None:
        """Build networks and optimizer.

        Args:
            config: After `complete`.
            spec: Of one worker's env.
            device: Where to learn.
        """
        self._config, self._ppo, self._spec, self.device = config, config.ppo, spec, device
        self.policy = ActorCritic(config.policy, spec, config.experiment.seed, device)
        distribution = self.policy.distribution
        self.batch = RolloutBatch(
            spec,
            config.num_collectors,
            config.rollout.steps_per_env,
            distribution.action_dtype,
            device,
        )
        # One parameter over all parameters' memory, and one gradient over all gradients': the
        # optimizer is then one operation. Two more over the actor's part and the critic's, which
        # are clipped apart, as in rsl_rl 5: a large value error must not shrink the actor's step.
        self._parameters = torch.nn.Parameter(self.policy.flat[: self.policy.num_params])
        self._parameters.grad = torch.zeros_like(self._parameters)
        self._networks = []
        for part in (
            slice(0, self.policy.num_actor_params),
            slice(self.policy.num_actor_params, None),
        ):
            network = torch.nn.Parameter(self._parameters.data[part])
            network.grad = self._parameters.grad[part]
            self._networks.append(network)
        offset = 0
        for p in self.policy.parameters():
            p.grad = self._parameters.grad[offset : offset + p.numel()].view(p.shape)
            offset += p.numel()
        self.lr = torch.tensor(config.ppo.lr, device=device)
        self._optimizer = torch.optim.Adam([self._parameters], lr=self.lr, fused=True)
        if config.ppo.precision == "tf32":
            torch.backends.cuda.matmul.allow_tf32 = True

    def load(self, slots: list[Slot]) -> None:
        """Copy the iteration's rollouts in; the slots are free when this returns."""
        self.batch.load(slots)

    def update(self, iteration: int) -> dict[str, float]:
        """Train on the loaded batch: version `iteration` becomes `iteration + 1`.

        Returns:
            Metrics by tag.

        Raises:
            NonFiniteError: A loss or gradient was NaN or Inf. From there on no step was taken;
                the normalisers are as they were.
        """
        ppo = self._ppo
        if ppo.lr_schedule == "linear":
            self.lr.fill_(ppo.lr * (1.0 - iteration / self._config.experiment.max_iterations))
        seed = self._config.experiment.seed
        generator = make_generator(seed, Stream.SHUFFLE, iteration, device=self.device)
        samples, target_N, diagnostics = self._prepare(generator)

        # 1 from the first minibatch on that must not step: fused Adam then leaves parameters,
        # moments and its step count alone, without the host knowing.
        stop = torch.zeros((), device=self.device)
        bad = torch.zeros((), device=self.device)
        totals = torch.zeros(len(MINIBATCH_METRICS), device=self.device)
        steps = torch.zeros((), device=self.device)
        self._optimizer.found_inf = stop  # type: ignore[attr-defined]
        obs = self.batch.obs_N
        for _ in range(ppo.update_epochs):
            order = torch.randperm(target_N.shape[0], generator=generator, device=self.device)
            for rows in order.split(ppo.batch_size):
                stats = self._step(samples, obs, rows, stop, bad)
                taken = 1.0 - stop
                totals += torch.where(taken > 0, stats, 0.0)
                steps += taken
        return self._finish(iteration, totals, steps, stop, bad, diagnostics, target_N)

    @torch.no_grad()
    def _prepare(
        self, generator: torch.Generator
    ) -> tuple[Minibatch, torch.Tensor, dict[str, torch.Tensor]]:
        """Evaluate the proximal policy, the critic and the advantages on the whole batch."""
        batch, policy, ppo = self.batch, self.policy, self._ppo
        distribution = policy.distribution
        T, N = batch.reward_TN.shape
        raw_value, final_raw = self._values()
        value_T1N = policy.denormalize_value(raw_value).view(T + 1, N)
        # Where a truncated episode's final observation is unknown, V(s_t) stands in for it.
        final_value_TN = value_T1N[:-1].clone()
        if final_raw is not None:
            at_t, at_n = batch.final_index.unbind(1)
            final_value_TN[at_t, at_n] = policy.denormalize_value(final_raw)
        done_TN = batch.terminated_TN | batch.truncated_TN
        next_value_TN = next_values(
            value_T1N,
            batch.terminated_TN,
            batch.truncated_TN,
            final_value_TN,
            self._spec.finite_horizon,
        )

        params = self._in_chunks(policy.action_params, batch.obs_N)
        action_NA = batch.action_TNA.flatten(0, 1)
        proximal_log_prob = distribution.log_prob(params, action_NA)
        rho = (proximal_log_prob - batch.behavior_log_prob_TN.flatten()).exp()
        weight = rho.clamp(max=ppo.max_importance_weight)

        series = (batch.reward_TN, value_T1N[:-1], next_value_TN, done_TN)
        if ppo.advantages == "vtrace":
            advantage_TN, target_TN = vtrace(
                *series, rho.view(T, N), ppo.gamma, ppo.lam, ppo.rho_bar, ppo.c_bar
            )
        else:
            advantage_TN, target_TN = gae(*series, ppo.gamma, ppo.lam)
        advantage, target = advantage_TN.flatten(), target_TN.flatten()
        unexplained = (target - value_T1N[:-1].flatten()).var(correction=0)
        explained = 1.0 - unexplained / (target.var(correction=0) + 1e-8)
        if ppo.normalize_advantages:
            advantage = (advantage - advantage.mean()) / (advantage.std(correction=0) + 1e-8)
        noise = None
        if self._config.policy.squash == "tanh" and self._spec.action.kind == "continuous":
            noise = distribution.draw_noise((T * N,), generator)
        samples = Minibatch(
            action_NA,
            advantage,
            policy.normalize_value(target),
            params,
            proximal_log_prob,
            raw_value[: T * N],
            weight,
            noise,
        )
        diagnostics = {
            "Async/effective_sample_size": weight.sum().square() / weight.square().sum() / (T * N),
            "Async/truncated_weights": (rho > ppo.max_importance_weight).float().mean(),
            "Loss/explained_variance": explained,
            "Loss/ratio_error": (rho - 1.0).abs().max(),
        }
        return samples, target, diagnostics

    def _values(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Run the critic once over all T + 1 observations and the final ones."""
        batch = self.batch
        rows = {group: obs.flatten(0, 1) for group, obs in batch.obs.items()}
        finals = batch.final_index.shape[0]
        if finals == 0:
            return self._in_chunks(self.policy.raw_value, rows), None
        rows = {group: torch.cat([obs, batch.final_obs[group]]) for group, obs in rows.items()}
        values = self._in_chunks(self.policy.raw_value, rows)
        return values[:-finals], values[-finals:]

    def _in_chunks(self, network: Any, obs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Evaluate a network on many rows, at most four minibatches at a time."""
        rows = next(iter(obs.values())).shape[0]
        size = 4 * self._ppo.batch_size
        parts = [
            network({group: x[start : start + size] for group, x in obs.items()}).float()
            for start in range(0, rows, size)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _step(
        self,
        samples: Minibatch,
        obs: Mapping[str, torch.Tensor],
        rows: torch.Tensor,
        stop: torch.Tensor,
        bad: torch.Tensor,
    ) -> torch.Tensor:
        """Take one minibatch step, or none if `stop` is set or becomes set; returns its metrics.

        The last minibatch of an epoch may be smaller: its loss is the mean over its own rows.
        """
        ppo, policy = self._ppo, self.policy
        minibatch = samples.take(rows)
        # Only the groups that the networks read.
        groups = {*policy.actor_groups, *policy.critic_groups}
        seen = {group: obs[group][rows] for group in groups}
        bf16 = ppo.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            params, value = policy.action_params(seen), policy.raw_value(seen)
        loss = ppo_loss(ppo, policy.distribution, minibatch, params.float(), value.float())
        assert self._parameters.grad is not None
        self._parameters.grad.zero_()
        loss.total.backward()
        norms = [torch.nn.utils.clip_grad_norm_(n, ppo.max_grad_norm) for n in self._networks]
        finite = torch.isfinite(torch.stack([loss.total.detach(), *norms])).all()
        torch.maximum(bad, 1.0 - finite.float(), out=bad)
        torch.maximum(stop, bad, out=stop)
        if ppo.stop_kl is not None:
            torch.maximum(stop, (loss.kl > ppo.stop_kl).float(), out=stop)
        if ppo.lr_schedule == "adaptive":
            self._adapt_lr(loss.kl, stop)
        self._optimizer.step()
        policy.keep_std_positive()
        return torch.stack(
            [loss.surrogate, loss.value, loss.entropy, loss.kl, loss.clip_fraction, *norms]
        )

    def _adapt_lr(self, kl: torch.Tensor, stop: torch.Tensor) -> None:
        """rsl_rl's rule: a third down above twice the desired KL, half up below half of it."""
        desired = self._ppo.desired_kl
        lower = torch.clamp(self.lr / 1.5, min=LR_RANGE[0])
        higher = torch.clamp(self.lr * 1.5, max=LR_RANGE[1])
        up = (kl < 0.5 * desired) & (kl > 0.0)
        lr = torch.where(kl > 2.0 * desired, lower, torch.where(up, higher, self.lr))
        self.lr.copy_(torch.where(stop > 0, self.lr, lr))

    def _finish(
        self,
        iteration: int,
        totals: torch.Tensor,
        steps: torch.Tensor,
        stop: torch.Tensor,
        bad: torch.Tensor,
        diagnostics: dict[str, torch.Tensor],
        target_N: torch.Tensor,
    ) -> dict[str, float]:
        """Copy the metrics to the host, once; then let the normalisers see the iteration."""
        means = totals / steps.clamp(min=1.0)
        mean_std = self.policy.mean_std()
        device_values = torch.stack(
            [*means, *diagnostics.values(), mean_std, self.lr, steps, stop, bad]
        )
        values = device_values.tolist()
        if values[-1]:
            raise NonFiniteError(
                f"iteration {iteration}: the loss or its gradient is not finite; nothing was "
                "published and the last checkpoint is intact; look for NaN or huge values in "
                "observations and rewards, or lower ppo.lr"
            )
        names = [
            *("Loss/surrogate", "Loss/value", "Loss/entropy", "Policy/kl", "Policy/clip_fraction"),
            *("Loss/actor_grad_norm", "Loss/critic_grad_norm", *diagnostics, "Policy/mean_std"),
            *("Loss/learning_rate", "Loss/minibatch_steps", "Loss/stopped_early"),
        ]
        self.policy.update_statistics(self.batch.obs_N, target_N)
        return dict(zip(names, values[:-1], strict=True))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return everything that learning goes on from, as named tensors."""
        state = {f"policy.{k}": v for k, v in self.policy.state_dict().items()}
        for name, value in self._optimizer.state.get(self._parameters, {}).items():
            state[f"optimizer.{name}"] = value
        return {**state, "lr": self.lr}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore `state_dict`'s tensors, in place: `policy.flat` stays the one vector."""
        own = self.policy.state_dict()
        for name, value in own.items():
            value.copy_(state[f"policy.{name}"])
        moments = {
            name.removeprefix("optimizer."): value.to(self.device, copy=True)
            for name, value in state.items()
            if name.startswith("optimizer.")
        }
        if moments:
            self._optimizer.state[self._parameters] = moments
        self.lr.copy_(state["lr"])
