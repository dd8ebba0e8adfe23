"""Distillation: a student acts, and learns what its teacher would have done in its place.

That is DAgger (Ross et al. 2011) without a mixture of the two; the schedule is rsl_rl's.

Runs in the learner's process: in the main thread, or in a background thread with W = 0 and L >= 1.
All of an update is device tensors; on a GPU it is replayed as a CUDA graph. As the teacher answers
what the student has seen, it does not matter how old the weights were that acted. A student with a
memory is differentiated through one window at a time, and begins it with what it then remembers.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import inf
from typing import Any

import torch
from torch.nn import functional as F

from isaac_hydra_ext.checkpoints.fit import PER_ENV
from isaac_hydra_ext.config.schema import PPOConfig, RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.learner.distillation.memory import TeacherMemory
from isaac_hydra_ext.learner.distillation.teacher import make_teacher
from isaac_hydra_ext.learner.group import Group, OneProcess, combined, on_any
from isaac_hydra_ext.learner.optimizer import FlatOptimizer
from isaac_hydra_ext.learner.ppo.batch import RolloutBatch
from isaac_hydra_ext.learner.ppo.burn_in import burn_in
from isaac_hydra_ext.learner.ppo.images import Rows
from isaac_hydra_ext.learner.ppo.precision import matrix_products
from isaac_hydra_ext.learner.ppo.preparation import CHUNK_BYTES, CHUNK_ROWS
from isaac_hydra_ext.learner.stream import LearnerStream, naming_memory
from isaac_hydra_ext.learner.undoing import BadUpdates, check_samples, copies, copy_each
from isaac_hydra_ext.models.normalizer import Moments
from isaac_hydra_ext.models.past import no_past
from isaac_hydra_ext.models.policy import Samples, Sequences, State, restarted
from isaac_hydra_ext.models.registry import make_policy
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.rollout.weights import WeightStore
from isaac_hydra_ext.system.cuda import Captured
from isaac_hydra_ext.terminal.metric import Metric

LOSSES = {"mse": F.mse_loss, "huber": F.huber_loss}


class Distillation:
    """Student, teacher and optimizer; see `Algorithm` for the methods.

    Attributes:
        policy: The student. Its std has no gradient: what it explores with stays as it begins.
        batch: The samples of the iteration.
        lr: The learning rate, 0-dim, on the device.
    """

    fields: Collection[str] = ()
    shown: Sequence[Metric] = (
        Metric("behaviour loss", "Loss/behavior", ".5f"),
        Metric("action std", "Policy/mean_std", ".3f"),
        Metric("learning rate", "Loss/learning_rate", ".2e"),
    )

    def __init__(
        self,
        config: RunConfig,
        spec: EnvSpec,
        device: torch.device,
        group: Group | None = None,
    ) -> None:
        """Build the student and load its teacher; arguments and errors as of `make_algorithm`."""
        self._config, self._own, self._ppo = config, config.distillation, config.ppo
        self._group, self.device = group or OneProcess(), device
        self.notes: list[str] = []
        self._teacher = make_teacher(config, spec, device)
        self._memory = TeacherMemory(self._teacher.fresh, config.num_collectors * spec.num_envs)
        self._saves_memory = spec.whole_state  # else episodes start anew where a run goes on
        self.policy = make_policy(config, spec, device)
        T, distribution = config.rollout.steps_per_env, self.policy.distribution
        fields = self.policy.fields
        state = {**self.policy.initial_state(1), **no_past(self.policy, spec, 1)}
        dtype, images = distribution.action_dtype, self.policy.images
        self.batch = RolloutBatch(
            spec, config.num_collectors, T, dtype, device, fields, state, images
        )
        self._parameters = [p for ps in self.policy.parameter_groups().values() for p in ps]
        steps = PPOConfig(
            optimizer=self._own.optimizer,
            lr=self._own.lr,
            lr_schedule="fixed",
            max_grad_norm=self._own.max_grad_norm or inf,
        )
        self._optimizer = FlatOptimizer(steps, self.policy, self._group, compiled=False)
        self.lr = self._optimizer.lr
        self._loss = LOSSES[self._own.loss]
        hint = "observations, or lower distillation.lr"
        self._bad_updates = BadUpdates(config.ppo.max_bad_updates, hint)
        self._tags: list[str] = []  # of the numbers that `_compute` returns
        self._stream = LearnerStream(device)
        self._update: Captured[torch.Tensor] | None = None
        self._capture_later = False  # once it is known where the images lie

    # ---------------------------------------------------------------- in and out

    def load(self, slots: list[Slot]) -> None:
        """Copy the iteration's rollouts in; as of `PPO.load`."""
        with naming_memory(self.device, self._config.n_buffer), self._stream.in_turn():
            self.batch.load(slots)
            self._memory.begin(slots)
        if slots[0].reward_TB.device.type == "cpu":
            self._stream.wait()
        if self._capture_later:  # from a whole batch, and on all ranks or none
            with self._stream.in_turn():
                (narrow,) = on_any(self._group, [self.batch.narrow], self.device)
            if not narrow:
                self.capture()

    def publish(self, store: WeightStore, version: int) -> None:
        with self._stream.in_turn():
            store.publish(version, self.policy.flat)

    # ---------------------------------------------------------------- the update

    def capture(self) -> None:
        """Capture the update as a CUDA graph, if `ppo.cuda_graphs` and the teacher allow it."""
        stream = self._stream.stream
        if stream is None or not self._ppo.cuda_graphs or self._teacher.on_host:
            return
        self._capture_later = not self.batch.is_placed
        if self._capture_later:
            return
        changes = {**self.state_dict(), **self._memory.all}
        before = copies(changes)
        with naming_memory(self.device, self._config.n_buffer):
            self._update = Captured(self._compute, stream)
        copy_each(changes, before)
        torch.cuda.synchronize(self.device)

    def update(self, iteration: int) -> dict[str, float]:
        """Learn from the loaded batch: version `iteration` becomes `iteration + 1`.

        A loss, gradient or weight that is NaN or Inf undoes the whole update.

        Returns:
            Metrics by tag.

        Raises:
            NonFiniteError: More than `ppo.max_bad_updates` in a row were undone, or there is no
                sample.
            DeviceMemoryError: The GPU is too small for it; nothing has changed.
        """
        check_samples(self.batch.reward_TN.numel(), iteration)
        with naming_memory(self.device, self._config.n_buffer), self._stream.current():
            before = copies(self._changing())
            try:
                captured = None if self.batch.narrow else self._update
                numbers = (captured or self._compute)()
                self._stream.wait()
                self._group.check()
            except Exception:  # half an update is none
                copy_each(self._changing(), before)
                raise
            metrics = dict(zip(self._tags, numbers.tolist(), strict=True))
            if metrics["Loss/undone"]:
                copy_each(self._changing(), before)
                self._bad_updates.count(iteration)
                return metrics | {"Loss/minibatch_steps": 0.0}
            self._bad_updates.forget()
            returns_N = torch.zeros(0, device=self.device)  # nobody predicts any
            self.policy.update_statistics(self.batch.obs_N, returns_N, self._combine)
        return metrics

    def _compute(self) -> torch.Tensor:
        """Ask the teacher and take all gradient steps; returns numbers in the order of `_tags`."""
        burn_in(self.policy, self.batch, self._ppo.precision)
        samples = self.batch.samples_N
        with matrix_products(self._ppo.precision, self.device):
            wanted_NA = self._asked(samples)
        optimizer, whole = self._optimizer, self.batch.sequences(self.batch.reward_TN.shape[0])
        optimizer.begin()
        totals, steps = torch.zeros(2, device=self.device), torch.zeros((), device=self.device)
        for _ in range(self._own.update_epochs):
            state = self.batch.state
            for rows, when in self._windows():
                window = {group: samples[group][rows] for group in self.policy.actor_groups}
                sequences = whole and Sequences(state, whole.starts_TC[when])
                length = when.stop - when.start
                numbers, state = self._step(window, wanted_NA[rows], length, sequences)
                taken = 1.0 - optimizer.stop
                totals += torch.where(taken > 0, numbers, 0.0)
                steps += taken
        finite = torch.isfinite(self.policy.flat).all()
        loss, norm = totals / steps.clamp(min=1.0)
        numbers = {
            "Loss/behavior": loss,
            "Loss/actor_grad_norm": norm,
            "Loss/minibatch_steps": steps,
            "Loss/undone": torch.maximum(optimizer.bad, 1.0 - finite.float()),
            "Policy/mean_std": self.policy.mean_std(),
            "Loss/learning_rate": self.lr,
        }
        self._tags = list(numbers)
        return self._group.mean(torch.stack([*numbers.values()]))

    def _asked(self, samples: Mapping[str, Rows]) -> torch.Tensor:
        """Return the teacher's mean actions [N, A]; pictures are given to it in parts."""
        if self._memory.all:
            return self._asked_by_step(samples)
        rows, obs = self.batch.reward_TN.numel(), {g: samples[g] for g in self._teacher.here}
        picture = sum(images.nbytes for group, images in self.batch.images.items() if group in obs)
        size = min(CHUNK_ROWS, max(1, CHUNK_BYTES // picture)) if picture else CHUNK_ROWS
        parts = [
            self._teacher.mean_action(
                {g: x[at : min(at + size, rows)] for g, x in obs.items()}, {}
            )[0]
            for at in range(0, rows, size)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _asked_by_step(self, samples: Mapping[str, Rows]) -> torch.Tensor:
        """Ask a teacher that remembers, which goes on from the rollout before; likewise."""
        N, memory = self.batch.reward_TN.shape[1], self._memory
        state, wanted = memory.current(), []
        for t, ended_N in enumerate(self.batch.terminated_TN | self.batch.truncated_TN):
            obs = {g: samples[g][t * N : (t + 1) * N] for g in self._teacher.here}
            action_NA, after = self._teacher.mean_action(obs, state)
            state = restarted(after, memory.fresh, ended_N)
            wanted.append(action_NA)
        memory.keep(state)
        return torch.cat(wanted)

    def _windows(self) -> Iterator[tuple[slice, slice]]:
        """Yield the samples and the env steps of each gradient step, by time.

        As rsl_rl has them, but of nearly the same length, where that drops what is left over.
        """
        T, N = self.batch.reward_TN.shape
        count = -(-T // self._own.gradient_length)
        edges = [T * i // count for i in range(count + 1)]
        for first, end in zip(edges, edges[1:], strict=False):
            yield slice(first * N, end * N), slice(first, end)

    def _step(
        self, window: Samples, wanted_MA: torch.Tensor, length: int, sequences: Sequences | None
    ) -> tuple[torch.Tensor, State]:
        """Take one gradient step, or none after a bad one.

        Its loss is the sum over env steps of the mean over envs, as in rsl_rl: what
        `max_grad_norm` is compared with grows with the window.

        Returns:
            Its loss and gradient norm, and what the student remembers after the window, with the
            weights before the step.
        """
        policy = self.policy
        with matrix_products(self._ppo.precision, self.device):
            params = policy.action_params(window, sequences)
            loss = self._loss(policy.distribution.mode(params.float()), wanted_MA)
            gradients = torch.autograd.grad(
                length * loss, self._parameters, allow_unused=True, materialize_grads=True
            )
            state = self._remembered(window, sequences) if sequences is not None else {}
        loss = loss.detach()
        no_kl, rows = torch.zeros_like(loss), wanted_MA.shape[0]
        norms = self._optimizer.step(gradients, [loss], no_kl, rows)
        return torch.stack([loss, norms[0]]), state

    @torch.no_grad()
    def _remembered(self, window: Samples, sequences: Sequences) -> State:
        """Return what the student remembers after a window's last step."""
        T, C = sequences.starts_TC.shape
        state, fresh = sequences.state, self.policy.initial_state(C)
        obs_TC = {name: x.unflatten(0, (T, C)) for name, x in window.items()}
        for t, starts_C in enumerate(sequences.starts_TC):
            obs = {name: x[t] for name, x in obs_TC.items()}
            state = self.policy.act(obs, restarted(state, fresh, starts_C), None).state
        return state

    def _combine(self, rows: int, mean: torch.Tensor, var: torch.Tensor) -> Moments:
        return combined(self._group, rows, mean, var)

    # ---------------------------------------------------------------- state

    def _changing(self) -> dict[str, torch.Tensor]:
        """Return what gradient steps change; normalisers follow them."""
        return {"policy.flat": self.policy.flat, **self._optimizer.state_dict()}

    def state_dict(self) -> dict[str, torch.Tensor]:
        self._stream.wait()
        policy = {f"policy.{name}": value for name, value in self.policy.state_dict().items()}
        memory = self._memory.all if self._saves_memory else {}
        return {
            **policy,
            **{f"teacher.{name}{PER_ENV}": x for name, x in memory.items()},
            **self._optimizer.state_dict(),
        }

    def load_state_dict(
        self, state: Mapping[str, torch.Tensor], before: Mapping[str, Any] | None = None
    ) -> None:
        """Moments that are not there stay as they are; a learning rate that was changed, too."""
        for name, ours in self.state_dict().items():
            saved, per_env = state.get(name), name.endswith(PER_ENV)
            if saved is None or (per_env and (saved.shape != ours.shape or self._group.size > 1)):
                continue  # what is per env may be of others than these
            ours.copy_(saved)
        asked = (before or {}).get("distillation")
        if asked and asked["lr"] != self._own.lr:
            self.lr.fill_(self._own.lr)
        if self._stream.stream is not None:
            torch.cuda.synchronize(self.device)
