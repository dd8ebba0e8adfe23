"""The learner: one `update` turns the rollouts of an iteration into the next policy version.

Runs in the learner's process: in the main thread, or in a background thread with W = 0 and L >= 1.
Everything between loading the batch and reading the metrics is device tensors; the host waits for
the device once an iteration.
"""

from collections.abc import Mapping

import torch

from isaac_hydra_ext.config import RunConfig
from isaac_hydra_ext.envs.vec_env import EnvSpec
from isaac_hydra_ext.errors import NonFiniteError
from isaac_hydra_ext.learner.batch import RolloutBatch
from isaac_hydra_ext.learner.losses import Minibatch, ppo_loss
from isaac_hydra_ext.learner.preparation import prepare
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.rollout.buffer import Slot
from isaac_hydra_ext.seeding import Stream, make_generator

LR_RANGE = (1e-5, 1e-2)  # of the adaptive schedule, rsl_rl's
# Of weights, learning rate and moments.
Copies = tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]
MINIBATCH_METRICS = (  # what `_step` returns, in this order
    "Loss/surrogate",
    "Loss/value",
    "Loss/entropy",
    "Policy/kl",
    "Policy/clip_fraction",
    "Loss/actor_grad_norm",
    "Loss/critic_grad_norm",
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
        self._bad_in_a_row = 0
        if config.ppo.precision == "tf32":
            torch.backends.cuda.matmul.allow_tf32 = True

    def load(self, slots: list[Slot]) -> None:
        """Copy the iteration's rollouts in; the slots are free when this returns."""
        self.batch.load(slots)

    def update(self, iteration: int) -> dict[str, float]:
        """Train on the loaded batch: version `iteration` becomes `iteration + 1`.

        A loss, gradient or weight that is NaN or Inf undoes the whole update: weights, moments,
        learning rate and normalisers are to the last bit what they were, and `Loss/undone` is 1.

        Returns:
            Metrics by tag.

        Raises:
            NonFiniteError: More than `ppo.max_bad_updates` in a row were undone, or there is no
                sample.
        """
        if not self.batch.reward_TN.numel():
            raise NonFiniteError(
                f"iteration {iteration}: every env has been left out for NaN or Inf "
                "(rollout.on_invalid=drop_env): nothing is left to learn from; see nan_dump/"
            )
        ppo, before = self._ppo, self._copy_state()
        if ppo.lr_schedule == "linear":
            self.lr.fill_(ppo.lr * (1.0 - iteration / self._config.experiment.max_iterations))
        seed = self._config.experiment.seed
        generator = make_generator(seed, Stream.SHUFFLE, iteration, device=self.device)
        prepared = prepare(self._config, self._spec, self.policy, self.batch, generator)
        scalars = self._run_epochs(prepared.samples, generator)
        metrics = self._read(scalars | prepared.diagnostics)
        if metrics["Loss/undone"]:
            return metrics | self._undo(iteration, before)
        self._bad_in_a_row = 0
        self.policy.update_statistics(self.batch.obs_N, prepared.target_N)
        return metrics

    def _run_epochs(
        self, samples: Minibatch, generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """Take all minibatch steps, without the host knowing how they go; returns their metrics."""
        # 1 from the first minibatch on that must not step: fused Adam then leaves parameters,
        # moments and its step count alone.
        stop = torch.zeros((), device=self.device)
        bad = torch.zeros((), device=self.device)
        totals = torch.zeros(len(MINIBATCH_METRICS), device=self.device)
        steps = torch.zeros((), device=self.device)
        self._optimizer.found_inf = stop  # type: ignore[attr-defined]
        obs, count = self.batch.obs_N, samples.target_M.shape[0]
        for _ in range(self._ppo.update_epochs):
            order = torch.randperm(count, generator=generator, device=self.device)
            for rows in order.split(self._ppo.batch_size):
                stats = self._step(samples, obs, rows, stop, bad)
                taken = 1.0 - stop
                totals += torch.where(taken > 0, stats, 0.0)
                steps += taken
        finite = torch.isfinite(self.policy.flat).all()
        return {
            **dict(zip(MINIBATCH_METRICS, totals / steps.clamp(min=1.0), strict=True)),
            "Loss/minibatch_steps": steps,
            "Loss/stopped_early": stop,
            "Loss/undone": torch.maximum(bad, 1.0 - finite.float()),
        }

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

    def _read(self, scalars: dict[str, torch.Tensor]) -> dict[str, float]:
        """Copy an iteration's numbers to the host: the one time that it waits for the device."""
        scalars |= {"Policy/mean_std": self.policy.mean_std(), "Loss/learning_rate": self.lr}
        return dict(zip(scalars, torch.stack([*scalars.values()]).tolist(), strict=True))

    def _copy_state(self) -> Copies:
        """Copy what minibatch steps change: weights, learning rate, moments."""
        moments = self._optimizer.state.get(self._parameters, {})
        copies = {name: value.clone() for name, value in moments.items()}
        return self.policy.flat.clone(), self.lr.clone(), copies

    def _undo(self, iteration: int, before: Copies) -> dict[str, float]:
        """Go back to `_copy_state`'s copy; returns the metrics that are then other ones."""
        flat, lr, moments = before
        self.policy.flat.copy_(flat)
        self.lr.copy_(lr)
        state = self._optimizer.state[self._parameters]
        for name, value in moments.items():
            state[name].copy_(value)
        if not moments:
            state.clear()  # there had been no step yet
        self._bad_in_a_row += 1
        if self._bad_in_a_row > self._ppo.max_bad_updates:
            raise NonFiniteError(
                f"iteration {iteration}: the loss or its gradient is not finite, in "
                f"{self._bad_in_a_row} updates in a row (ppo.max_bad_updates="
                f"{self._ppo.max_bad_updates}); they were undone and the weights are the last "
                "good ones; look for huge values in observations and rewards, or lower ppo.lr"
            )
        return self._read({"Loss/minibatch_steps": torch.zeros_like(lr)})

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
