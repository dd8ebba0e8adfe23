"""PPO: one `update` turns the rollouts of an iteration into the next policy version.

Runs in the learner's process: in the main thread, or in a background thread with W = 0 and L >= 1.
Everything between loading the batch and reading the metrics is device tensors; the host waits for
the device once an iteration. On a GPU all of it runs on the learner's own stream, so that a
simulation on the same GPU goes on beside it, and is replayed as two CUDA graphs.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from isaac_hydra_ext.checkpoints.fit import PER_ENV
from isaac_hydra_ext.config.reading import check_columns
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.learner.group import Group, OneProcess, combined, on_any
from isaac_hydra_ext.learner.ppo.batch import RolloutBatch
from isaac_hydra_ext.learner.ppo.burn_in import burn_in
from isaac_hydra_ext.learner.ppo.epochs import Epochs, Samples
from isaac_hydra_ext.learner.ppo.preparation import prepare
from isaac_hydra_ext.learner.ppo.randomness import Draws, Randomness
from isaac_hydra_ext.learner.ppo.scaled import scaled
from isaac_hydra_ext.learner.ppo.symmetry import MirrorLoss, Symmetry, make_symmetry
from isaac_hydra_ext.learner.stream import LearnerStream, naming_memory
from isaac_hydra_ext.learner.trained_terms import TrainedTerm, make_terms
from isaac_hydra_ext.learner.undoing import BadUpdates, check_samples, copies, copy_each
from isaac_hydra_ext.models.normalizer import Moments
from isaac_hydra_ext.models.past import no_past
from isaac_hydra_ext.models.registry import make_policy
from isaac_hydra_ext.models.stacks import without_frames
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.rollout.weights import WeightStore
from isaac_hydra_ext.system import compiler
from isaac_hydra_ext.system.cuda import Captured
from isaac_hydra_ext.terminal.metric import Metric

COMPILE_FROM = 16_384  # samples an iteration on a GPU: below, compiling takes longer than it saves


class PPO:
    """Networks, optimizer and the update; see `Algorithm` for the methods.

    Attributes:
        policy: The current networks; `policy.flat` is what is published.
        batch: The samples of the iteration.
        lr: The learning rate, 0-dim, on the device.
        notes: What to tell the user of how updates are computed.
    """

    fields: Collection[str] = ()
    shown: Sequence[Metric] = (
        Metric("surrogate loss", "Loss/surrogate", ".4f"),
        Metric("entropy", "Loss/entropy", ".3f"),
        Metric("KL", "Policy/kl", ".4f"),
        Metric("value loss", "Loss/value", ".4f"),
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
        """Build networks and optimizer; arguments as of `make_algorithm`."""
        self._group = group = group or OneProcess()
        self._asked, config = config.ppo, scaled(config, group.size)
        self._config, self._ppo, self._spec, self.device = config, config.ppo, spec, device
        self.notes: list[str] = []
        self.policy = make_policy(config, spec, device)
        if spec.action.kind == "discrete":  # it has no std
            self.shown = [metric for metric in self.shown if metric.tag != "Policy/mean_std"]
        seed, T = config.experiment.seed, config.rollout.steps_per_env
        dtype, fields = self.policy.distribution.action_dtype, self.policy.fields
        state = without_frames(self.policy.initial_state(1))
        state |= self.policy.initial_critic_state(1)
        if state:
            check_columns(config)
        state |= no_past(self.policy, spec, 1)
        self.batch = RolloutBatch(
            spec, config.num_collectors, T, dtype, device, fields, state, self.policy.images
        )
        self._compiled = self._is_compiled()
        self._terms = make_terms(config.ppo.terms, self.policy, spec, seed, device)
        mirrored = self._mirrored()
        for trained in self._terms:
            trained.term.begin(group, config.num_collectors * spec.num_envs)
        self._epochs = Epochs(
            config.ppo, self.policy, self._terms, group, config.n_buffer, self._compiled, mirrored
        )
        self.lr = self._epochs.optimizer.lr
        noisy = config.policy.squash == "tanh" and spec.action.kind == "continuous"
        self._randomness = Randomness(config, self.policy.distribution, noisy, device, group.rank)
        hint = "observations and rewards, or lower ppo.lr"
        self._bad_updates = BadUpdates(config.ppo.max_bad_updates, hint)
        self._tags: list[str] = []  # of the numbers that `_compute` returns
        self._stream = LearnerStream(device)
        self._draws: Draws | None = None  # where the captured update reads them
        self._update: Captured[tuple[torch.Tensor, torch.Tensor]] | None = None
        self._statistics: Captured[None] | None = None
        self._outgrown = False  # the captured update reads a batch that is no longer this one
        self._capture_later = False  # once it is known where the images lie

    def _mirrored(self) -> Symmetry | None:
        """Measure the policy's symmetry where there is one; return it if samples are mirrored."""
        asked = self._ppo.symmetry
        symmetry = make_symmetry(self._config, self._spec, self.policy, self.device)
        if symmetry is None:
            return None
        weight = asked.mirror_loss_coeff if asked.use_mirror_loss else 0.0
        self._terms.append(TrainedTerm("symmetry", MirrorLoss(symmetry, weight), self.device))
        return symmetry if asked.use_data_augmentation else None

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
        """Copy the iteration's rollouts in, but for images that lie on this device."""
        room = self.batch.final_step.shape[0]
        with naming_memory(self.device, self._config.n_buffer), self._stream.in_turn():
            self.batch.load(slots)
        if slots[0].reward_TB.device.type == "cpu":
            self._stream.wait()
        # More final observations than there was room for: what is captured reads the old tensors.
        self._outgrown |= self.batch.final_step.shape[0] != room
        may_outgrow = self._update is not None and self._spec.has_final_obs
        if (self._capture_later or may_outgrow) and self._captures_now():
            self.capture()

    def _captures_now(self) -> bool:
        """Whether the update is captured, first or anew: all ranks do it, or none.

        From whole batches alone: a graph of fewer columns would be replayed for all that follow.
        """
        with self._stream.in_turn():
            flags = self._capture_later or self._outgrown, self.batch.narrow
            wanted, narrow = on_any(self._group, flags, self.device)
        return wanted and not narrow

    def publish(self, store: WeightStore, version: int) -> None:
        with self._stream.in_turn():
            store.publish(version, self.policy.flat)

    # ---------------------------------------------------------------- the update

    def capture(self) -> None:
        """Compile, and capture as CUDA graphs, what `ppo.compile` and `ppo.cuda_graphs` say."""
        self._capture_later = not self.batch.is_placed
        if not self._capture_later:
            with naming_memory(self.device, self._config.n_buffer):
                self._capture()

    def _capture(self) -> None:
        stream = self._stream.stream if self._ppo.cuda_graphs else None  # to capture on
        if stream is None and not self._compiled:
            return
        changes = {**self.state_dict(), "reward": self.batch.reward_TN}  # by a term, that one
        before = copies(changes)
        with self._stream.in_turn():
            draws = self._draw(0, self._config.n_buffer)
        if stream is not None:
            self._update = self._statistics = None  # what an earlier graph holds is needed again
            self._outgrown, self._draws = False, draws
            self._update = Captured(lambda: self._compute(draws), stream)
            _, target_N = self._update.result
            if self.policy.has_statistics:  # PyTorch warns of a graph without work
                self._statistics = Captured(lambda: self._learn_statistics(target_N), stream)
        else:  # compiled now, and not in the first iteration
            with self._stream.in_turn():
                self._compute(draws)
        copy_each(changes, before)
        if self._stream.stream is not None:
            torch.cuda.synchronize(self.device)

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
        check_samples(self.batch.reward_TN.numel(), iteration)
        ppo = self._ppo
        with naming_memory(self.device, self._config.n_buffer), self._stream.current():
            before = copies(self._changing())
            if ppo.lr_schedule == "linear":
                self.lr.fill_(ppo.lr * (1.0 - iteration / self._config.experiment.max_iterations))
            draws = self._draw(iteration, self.batch.reward_TN.numel())
            captured = self._update is not None and not (self.batch.narrow or self._outgrown)
            try:
                numbers, target_N = self._replay(draws) if captured else self._compute(draws)
                self._stream.wait()
                self._group.check()
            except Exception:  # half an update is none
                copy_each(self._changing(), before)
                raise
            metrics = dict(zip(self._tags, numbers.tolist(), strict=True))
            if metrics["Loss/undone"]:
                return metrics | self._undo(iteration, before)
            self._bad_updates.forget()
            if captured and self._statistics is not None:
                self._statistics()
            else:
                self._learn_statistics(target_N)
        return metrics

    def _draw(self, iteration: int, count: int) -> Draws:
        columns = count // self._config.rollout.steps_per_env if self.batch.state else None
        return self._randomness.draw(iteration, count, columns)

    def _replay(self, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the captured `_compute`."""
        assert self._draws is not None and self._update is not None
        self._draws.copy_(draws)
        return self._update()

    def _compute(self, draws: Draws) -> tuple[torch.Tensor, torch.Tensor]:
        """Prepare and take all minibatch steps.

        Returns:
            The update's numbers, in the order of `_tags`, and the value targets [N], on the device.
        """
        burn_in(self.policy, self.batch, self._ppo.precision)
        inputs = self.batch.samples_N
        for trained in self._terms:
            inputs |= {f"term/{k}": x for k, x in trained.term.prepare(self.batch).items()}
        prepared = prepare(
            self._ppo, self._spec, self.policy, self.batch, draws.noise_NP, self._group
        )
        if self._terms:
            inputs["action"] = prepared.actor.action_MA
        sequences = self.batch.sequences(self._config.rollout.steps_per_env)
        samples = Samples(inputs, prepared.actor, prepared.critic, sequences)
        numbers = self._epochs.run(samples, draws.orders_EN) | prepared.diagnostics
        std = self.policy.mean_std()
        if std is None:  # the samples' own, before the update
            std = self.policy.distribution.std(prepared.actor.proximal_params_MP).mean()
        numbers |= {"Policy/mean_std": std, "Loss/learning_rate": self.lr}
        for trained in self._terms:
            numbers |= trained.term.metrics()
        self._tags = list(numbers)
        return self._group.mean(torch.stack([*numbers.values()])), prepared.target_N

    def _learn_statistics(self, target_N: torch.Tensor) -> None:
        self.policy.update_statistics(self.batch.obs_N, target_N, self._combine)

    def _combine(self, rows: int, mean: torch.Tensor, var: torch.Tensor) -> Moments:
        return combined(self._group, rows, mean, var)

    # ---------------------------------------------------------------- state

    def _undo(self, iteration: int, before: dict[str, torch.Tensor]) -> dict[str, float]:
        """Go back to the state before the update; returns the metrics that are then other ones."""
        copy_each(self._changing(), before)
        self._bad_updates.count(iteration)
        std = self.policy.mean_std()
        own = {} if std is None else {"Policy/mean_std": std.item()}
        return {"Loss/minibatch_steps": 0.0, "Loss/learning_rate": self.lr.item(), **own}

    def _changing(self) -> dict[str, torch.Tensor]:
        """Return what minibatch steps change; normalisers follow them."""
        return {"policy.flat": self.policy.flat, **self._learning_state()}

    def _learning_state(self) -> dict[str, torch.Tensor]:
        state = self._epochs.optimizer.state_dict()
        for term in self._terms:
            state |= term.state_dict()
        return state

    def state_dict(self) -> dict[str, torch.Tensor]:
        self._stream.wait()
        policy = {f"policy.{name}": value for name, value in self.policy.state_dict().items()}
        return policy | self._learning_state()

    def load_state_dict(
        self, state: Mapping[str, torch.Tensor], before: Mapping[str, Any] | None = None
    ) -> None:
        """Moments that are not there stay as they are; a learning rate that was changed, too."""
        for name, tensor in self.state_dict().items():
            saved = state.get(name)
            if saved is not None and (saved.shape == tensor.shape or not name.endswith(PER_ENV)):
                tensor.copy_(saved)
        saved, asked = (before or {}).get("ppo"), self._asked
        if saved and (saved["lr"], saved["lr_schedule"]) != (asked.lr, asked.lr_schedule):
            self.lr.fill_(self._ppo.lr)
        if self._stream.stream is not None:
            torch.cuda.synchronize(self.device)
