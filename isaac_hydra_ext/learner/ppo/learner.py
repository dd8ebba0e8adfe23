"""The learner: one `update` turns the rollouts of an iteration into the next policy version.

Runs in the learner's process: in the main thread, or in a background thread with W = 0 and L >= 1.
Everything between loading the batch and reading the metrics is device tensors; the host waits for
the device once an iteration. On a GPU all of it runs on the learner's own stream, so that a
simulation on the same GPU goes on beside it, and is replayed as two CUDA graphs.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.errors import DeviceMemoryError, NonFiniteError
from isaac_hydra_ext.learner.optimizer import Copies
from isaac_hydra_ext.learner.ppo.batch import RolloutBatch
from isaac_hydra_ext.learner.ppo.epochs import Epochs, Samples
from isaac_hydra_ext.learner.ppo.preparation import prepare
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.rollout.weights import WeightStore
from isaac_hydra_ext.system import compiler
from isaac_hydra_ext.system.cuda import Recorded
from isaac_hydra_ext.system.seeding import Stream, make_generator

COMPILE_FROM = 16_384  # samples an iteration on a GPU: below, compiling takes longer than it saves


@dataclass
class Draws:
    """What is random in an update: a permutation of the samples an epoch, noise for entropies."""

    orders_EN: torch.Tensor
    noise_NP: torch.Tensor | None


class Learner:
    """Networks, optimizer and the update.

    Attributes:
        policy: The current networks; `policy.flat` is what is published.
        batch: The samples of the iteration.
        notes: What to tell the user of how updates are computed.
    """

    def __init__(self, config: RunConfig, spec: EnvSpec, device: torch.device) -> None:
        """Build networks and optimizer.

        Args:
            config: After `complete`.
            spec: Of one worker's env.
            device: Where to learn.
        """
        self._config, self._ppo, self._spec, self.device = config, config.ppo, spec, device
        self.notes: list[str] = []
        self.policy = ActorCritic(config.policy, spec, config.experiment.seed, device)
        self._distribution = self.policy.distribution
        self.batch = RolloutBatch(
            spec,
            config.num_collectors,
            config.rollout.steps_per_env,
            self._distribution.action_dtype,
            device,
        )
        self._compiled = self._is_compiled()
        self._epochs = Epochs(config.ppo, self.policy, config.n_buffer, self._compiled)
        self._optimizer = self._epochs.optimizer
        self.lr = self._optimizer.lr
        self._noisy_entropy = config.policy.squash == "tanh" and spec.action.kind == "continuous"
        self._bad_in_a_row = 0
        self._tags: list[str] = []  # of the numbers that `_compute` returns
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._draws: Draws | None = None  # where the recorded update reads them
        self._update: Recorded[tuple[torch.Tensor, torch.Tensor]] | None = None
        self._statistics: Recorded[None] | None = None
        self._outgrown = False  # the recorded update reads a batch that is no longer this one

    def _is_compiled(self) -> bool:
        ppo, on_gpu = self._ppo, self.device.type == "cuda"
        # Not by itself on a CPU: a run's bits must not depend on its length or on a C++ compiler.
        pays = on_gpu and self._config.n_buffer >= COMPILE_FROM
        if ppo.compile == "never" or (ppo.compile == "auto" and not pays):
            return False
        if why_not := compiler.why_not(self.device.type):
            self.notes.append(f"ppo.compile={ppo.compile}: {why_not}; updates are not compiled")
        return not why_not

    # ---------------------------------------------------------------- in and out

    def load(self, slots: list[Slot]) -> None:
        """Copy the iteration's rollouts in; the slots are free when this returns.

        On a GPU a slot of that GPU is free for what the caller's stream is given from now on.
        """
        room = self.batch.final_step.shape[0]
        with self._naming_memory(), self._in_turn():
            self.batch.load(slots)
        if self._stream is not None and slots[0].reward_TB.device.type == "cpu":
            self._stream.synchronize()
        # More final observations than there was room for: what is recorded reads the old tensors.
        self._outgrown |= self.batch.final_step.shape[0] != room
        if self._update is not None and self._outgrown and not self.batch.narrow:
            self.record()

    def publish(self, store: WeightStore, version: int) -> None:
        """Write the current weights to a store; returns when they may be read from it."""
        with self._in_turn():
            store.publish(version, self.policy.flat)

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Work on the learner's stream, after what the caller's has, before what it gets next."""
        if self._stream is None:
            yield
            return
        callers = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(callers)
        with self._on_stream():
            yield
        callers.wait_stream(self._stream)

    # ---------------------------------------------------------------- the update

    def record(self) -> None:
        """Compile, and record as CUDA graphs, what `ppo.compile` and `ppo.cuda_graphs` say.

        To be called while no other thread uses the GPU. Changes no weight.

        Raises:
            DeviceMemoryError: The GPU is too small for it.
        """
        with self._naming_memory():
            self._record()

    def _record(self) -> None:
        stream = self._stream if self._ppo.cuda_graphs else None  # to record on
        if stream is None and not self._compiled:
            return
        before = {name: value.clone() for name, value in self.state_dict().items()}
        with self._in_turn():
            draws = self._draw(0, self._config.n_buffer)
        if stream is not None:
            self._update = self._statistics = None  # what an earlier graph holds is needed again
            self._outgrown, self._draws = False, draws
            self._update = Recorded(lambda: self._compute(draws), stream)
            _, target_N = self._update.result
            if self.policy.has_statistics:  # PyTorch warns of a graph without work
                self._statistics = Recorded(lambda: self._learn_statistics(target_N), stream)
        else:  # compiled now, and not in the first iteration
            with self._in_turn():
                self._compute(draws)
        self.load_state_dict(before)

    def update(self, iteration: int) -> dict[str, float]:
        """Train on the loaded batch: version `iteration` becomes `iteration + 1`.

        A loss, gradient or weight that is NaN or Inf undoes the whole update: weights, moments,
        learning rate and normalisers are to the last bit what they were, and `Loss/undone` is 1.

        Returns:
            Metrics by tag.

        Raises:
            NonFiniteError: More than `ppo.max_bad_updates` in a row were undone, or there is no
                sample.
            DeviceMemoryError: The GPU is too small for it; nothing has changed.
        """
        if not self.batch.reward_TN.numel():
            raise NonFiniteError(
                f"iteration {iteration}: every env has been left out for NaN or Inf "
                "(rollout.on_invalid=drop_env): nothing is left to learn from; see nan_dump/"
            )
        ppo = self._ppo
        with self._naming_memory(), self._on_stream():
            before = self._optimizer.copy_state()
            if ppo.lr_schedule == "linear":
                self.lr.fill_(ppo.lr * (1.0 - iteration / self._config.experiment.max_iterations))
            draws = self._draw(iteration, self.batch.reward_TN.numel())
            recorded = self._update is not None and not (self.batch.narrow or self._outgrown)
            try:
                numbers, target_N = self._replay(draws) if recorded else self._compute(draws)
            except Exception:  # half an update is none
                self._optimizer.restore(before)
                raise
            self._wait()
            metrics = dict(zip(self._tags, numbers.tolist(), strict=True))
            if metrics["Loss/undone"]:
                return metrics | self._undo(iteration, before)
            self._bad_in_a_row = 0
            if recorded and self._statistics is not None:
                self._statistics()
            else:
                self._learn_statistics(target_N)
        return metrics

    def _draw(self, iteration: int, count: int) -> Draws:
        """Draw all that is random in an update of `count` samples."""
        seed = self._config.experiment.seed
        generator = make_generator(seed, Stream.SHUFFLE, iteration, device=self.device)
        noise_NP = None
        if self._noisy_entropy:
            noise_NP = self._distribution.draw_noise((count,), generator)
        orders = [
            torch.randperm(count, generator=generator, device=self.device)
            for _ in range(self._ppo.update_epochs)
        ]
        return Draws(torch.stack(orders), noise_NP)

    def _replay(self, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the recorded `_compute`."""
        assert self._draws is not None and self._update is not None
        self._draws.orders_EN.copy_(draws.orders_EN)
        if self._draws.noise_NP is not None and draws.noise_NP is not None:
            self._draws.noise_NP.copy_(draws.noise_NP)
        return self._update()

    def _compute(self, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Prepare and take all minibatch steps.

        Returns:
            The update's numbers, in the order of `_tags`, and the value targets [N], on the device.
        """
        prepared = prepare(self._ppo, self._spec, self.policy, self.batch, draws.noise_NP)
        samples = Samples(self.batch.obs_N, prepared.actor, prepared.critic)
        numbers = self._epochs.run(samples, draws.orders_EN) | prepared.diagnostics
        numbers |= {"Policy/mean_std": self.policy.mean_std(), "Loss/learning_rate": self.lr}
        self._tags = list(numbers)
        return torch.stack([*numbers.values()]), prepared.target_N

    def _learn_statistics(self, target_N: torch.Tensor) -> None:
        self.policy.update_statistics(self.batch.obs_N, target_N)

    def _undo(self, iteration: int, before: Copies) -> dict[str, float]:
        """Go back to the state before the update; returns the metrics that are then other ones."""
        self._optimizer.restore(before)
        self._bad_in_a_row += 1
        if self._bad_in_a_row > self._ppo.max_bad_updates:
            raise NonFiniteError(
                f"iteration {iteration}: the loss or its gradient is not finite, in "
                f"{self._bad_in_a_row} updates in a row (ppo.max_bad_updates="
                f"{self._ppo.max_bad_updates}); they were undone and the weights are the last "
                "good ones; look for huge values in observations and rewards, or lower ppo.lr"
            )
        return {
            "Loss/minibatch_steps": 0.0,
            "Policy/mean_std": self.policy.mean_std().item(),
            "Loss/learning_rate": self.lr.item(),
        }

    def _wait(self) -> None:
        """Have the host wait for the device, in a way that lets other threads use it meanwhile.

        A copy to ordinary host memory waits too, but holds the driver's lock of copies meanwhile: a
        simulation in this process would stop at its next one until the update is done.
        """
        if self._stream is not None:
            self._stream.synchronize()

    @contextmanager
    def _naming_memory(self) -> Iterator[None]:
        """Say in one line what does not fit on the GPU."""
        try:
            yield
        except torch.cuda.OutOfMemoryError as e:
            raise DeviceMemoryError(
                f"{self.device}: no memory for an update of {self._config.n_buffer:,} samples "
                f"({str(e).splitlines()[0]}); lower rollout.envs_per_worker or "
                "rollout.steps_per_env, or raise ppo.num_mini_batches"
            ) from e

    @contextmanager
    def _on_stream(self) -> Iterator[None]:
        """Work on the learner's stream, if it has one, and on its GPU.

        Without the latter, leaving the stream would give the first GPU a context that nobody needs.
        """
        if self._stream is None:
            yield
            return
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            yield

    # ---------------------------------------------------------------- checkpoints

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return everything that learning goes on from, as named tensors."""
        self._wait()
        state = {f"policy.{k}": v for k, v in self.policy.state_dict().items()}
        return state | self._optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore `state_dict`'s tensors, in place: `policy.flat` stays the one vector."""
        for name, value in self.policy.state_dict().items():
            value.copy_(state[f"policy.{name}"])
        self._optimizer.load_state_dict(state)
        if self._stream is not None:
            torch.cuda.synchronize(self.device)
