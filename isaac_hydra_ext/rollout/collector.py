"""Acting: the policy drives one vector env for T steps into one slot.

Runs wherever the simulation does: in a worker, or in the learner's main thread with W = 0.
"""

import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import StepResult, check_obs
from isaac_hydra_ext.envs.registry import make_env
from isaac_hydra_ext.errors import InvalidNumberError
from isaac_hydra_ext.models.actor_critic import group_and_terms
from isaac_hydra_ext.models.past import no_past, past_of
from isaac_hydra_ext.models.policy import Sequences, State, restarted
from isaac_hydra_ext.models.registry import make_policy
from isaac_hydra_ext.rollout.acting import Acting, make_acting
from isaac_hydra_ext.rollout.remembered import BURN_IN, POLICY, from_json, to_json
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.system.activity import tell
from isaac_hydra_ext.system.seeding import Stream, make_generator, stream_seed

if TYPE_CHECKING:
    from isaac_hydra_ext.rollout.handover import Handover
    from isaac_hydra_ext.rollout.invalid_numbers import InvalidNumber

NAN_DUMP = "nan_dump"  # the directory in a run's
AFTER = 1  # in the address of a seed: what is drawn after a rollout, not before
# On a GPU one kernel for all of the tensors, where they have one dtype.
copy_each = torch._foreach_copy_  # pyright: ignore[reportPrivateImportUsage]
MAX_NOTES = 16  # of dropped envs from one process; what follows is counted only


class Collector:
    """One env, the policy's copy that acts in it, and the observation between two rollouts.

    Attributes:
        env: The env.
        policy: The copy that acts.
        device: Of the simulation's tensors, and so of `policy`.
        obs: What the next action answers, group -> [B, ...].
        random_start: Whether the first episodes began at random times.
    """

    def __init__(
        self,
        config: RunConfig,
        worker: int,
        generation: int,
        run_dir: Path,
        env_state: Mapping[str, Any] | None = None,
        first: int = 0,
    ) -> None:
        """Build the env and start its first episodes.

        Args:
            config: After `complete`.
            worker: Index of the worker, 0 with W = 0.
            generation: How many processes have had this worker's place before.
            run_dir: Where the env may write, and the last steps before a NaN or Inf go.
            env_state: From `VecEnv.state_dict` of an earlier run, to go on from there.
            first: The iteration that a resumed run begins with: its new episodes are other ones.
        """
        # Of all ranks' workers: two ranks of one are the two workers of one rank.
        worker += config.seat.rank * config.num_collectors
        self._config, self._address = config, (worker, generation)
        self._run_dir, self._notes_left = run_dir, MAX_NOTES
        if generation and env_state is None:
            env_state = self._handover.read()
        when = (first,) if first else ()
        env_seed = self._env_seed(*when)
        self.env = make_env(config, env_seed, worker, run_dir)
        self.random_start = False
        tell("resets its envs")
        if env_state is None:
            self._start_episodes(env_seed, *when)
        else:
            own = {name: part for name, part in env_state.items() if name != POLICY}
            self.obs = self.env.load_state_dict(own)
            if not self.env.spec.whole_state:  # the episodes are new ones
                self._randomize_time(*when)
            check_obs(self.obs, self.env.spec)
        self._find_mirrors()
        self.device = next(iter(self.obs.values())).device
        if config.ppo.precision == "fp32":  # on by itself: acting rounds as learning does
            torch.backends.cudnn.allow_tf32 = False
        self.policy = make_policy(config, self.env.spec, self.device)
        self._groups_read = {*self.policy.actor_groups, *self.policy.critic_groups}
        for group in config.teacher_groups:
            self._groups_read.update(group_and_terms(group, list(self.env.spec.obs)))
        self._fresh = self.policy.initial_state(self.env.spec.num_envs)
        self._state = self._fresh  # of the policy, between two rollouts
        self._fresh_critic = self.policy.initial_critic_state(self.env.spec.num_envs)
        self._critic_state = self._fresh_critic
        self._fresh_past = self._past = no_past(self.policy, self.env.spec, self.env.spec.num_envs)
        if env_state is not None and (saved := env_state.get(POLICY)):
            self._state = from_json(saved, self._fresh)
            self._critic_state = from_json(saved, self._fresh_critic)
            if saved.get(BURN_IN) == self.policy.burn_in:
                self._past = from_json(saved, self._fresh_past)
        self._leave_handover()
        self._last_slot: Slot | None = None
        self._acting: dict[Slot, Acting] = {}

    def _find_mirrors(self) -> None:
        """Have the task's own symmetry function say what it does, where it is asked for."""
        symmetry = self._config.ppo.symmetry
        if symmetry.data_augmentation_func and not symmetry.mirrors:
            from isaac_hydra_ext.envs.symmetry import find_mirrors  # few runs have one

            mirrors = find_mirrors(self.env, symmetry.data_augmentation_func)
            self.env.spec = replace(self.env.spec, mirrors=mirrors)

    def _env_seed(self, *address: int) -> int:
        seed = self._config.experiment.seed
        return stream_seed(seed, Stream.ENV, *self._address, *address) % 2**31

    def _start_episodes(self, env_seed: int, *address: int) -> None:
        """Reset all envs, to random times of their episodes where that is wanted."""
        self.obs = self.env.reset(env_seed)
        self._randomize_time(*address)
        check_obs(self.obs, self.env.spec)

    def _randomize_time(self, *address: int) -> None:
        if self._config.rollout.init_at_random_ep_len:
            seed = self._config.experiment.seed
            generator = make_generator(seed, Stream.EPISODE_TIME, *self._address, *address)
            self.random_start = self.env.randomize_episode_time(generator)

    def collect(
        self,
        slot: Slot,
        iteration: int,
        version: int,
        on_step: Callable[[int], None],
        wait_s: float,
        save_env_state: bool,
    ) -> None:
        """Collect rollout `iteration` with the weights that `policy` now holds.

        Args:
            slot: Where to; every dense element is written, and the first `final_count` rows.
            iteration: k.
            version: Of the weights, for the header.
            on_step: Called with the number of steps done, before each step and after the last.
            wait_s: How long the collector waited for this slot [s], for the header.
            save_env_state: Also store the env's state after the rollout, where it has one.

        Raises:
            InvalidNumberError: There is a NaN or Inf, and `rollout.on_invalid` is not drop_env or
                the env has raised because of it.
        """
        started = time.monotonic()
        worker, generation = self._address
        slot.header[0] = (iteration, worker, generation, version, 0, 0, 0.0, wait_s)
        slot.dropped_B.fill_(False)
        slot.restarted_B.fill_(False)
        log = self._act(slot, on_step)
        T, notes = self._config.rollout.steps_per_env, []
        if not slot.is_finite(self._groups_read, T):
            notes = self._drop_invalid(slot)
        if self._last_slot is None:
            notes += [
                f"the obs group {group} is the same in all {T} steps of all envs: nothing can be "
                "learned from it; look at what the camera sees"
                for group in slot.constant(self.policy.images)
            ]
        self._last_slot = slot
        slot.header["collect_s"] = time.monotonic() - started
        state = self._saved_state() if save_env_state else None
        slot.write_extra({"log": log, "env_state": state, "notes": notes})
        self._leave_handover()

    def _saved_state(self) -> Mapping[str, Any] | None:
        """Return the env's state, with what the policy remembers of the episodes in it."""
        state = self.env.state_dict()
        if state is None or not self.env.spec.whole_state or not self._fresh:
            return state
        remembered = to_json({**self._state, **self._critic_state, **self._past})
        return {**state, POLICY: {**remembered, BURN_IN: self.policy.burn_in}}

    @cached_property
    def _handover(self) -> "Handover":
        from isaac_hydra_ext.rollout.handover import Handover  # few envs have such a state

        return Handover(self._run_dir, self._address[0])

    def _leave_handover(self) -> None:
        """Leave what outlives this env's episodes to a worker that might take this one's place."""
        spec, workers = self.env.spec, self._config.num_workers
        if workers and spec.has_state and not spec.whole_state and self._handover.is_due:
            self._handover.write(self.env.state_dict())

    def _act(self, slot: Slot, on_step: Callable[[int], None]) -> dict[str, float]:
        """Take T steps and write them; returns the means of what the env logs."""
        T, distribution = self._config.rollout.steps_per_env, self.policy.distribution
        seed, shape = self._config.experiment.seed, (T, self.env.spec.num_envs)
        address = (*self._address, int(slot.header["iteration"][0]))
        generator = make_generator(seed, Stream.POLICY_NOISE, *address, device=self.device)
        acting, log = self.acting_on(slot), defaultdict(list)
        with torch.no_grad():
            for name, x in {**self._state, **self._critic_state, **self._past}.items():
                slot.state[name].copy_(x)
            for group, rows in slot.rows.obs.items():
                rows[0].copy_(self.obs[group])
            acting.begin(distribution.draw_noise(shape, generator), self._state)
        kept, before = T - self.policy.burn_in, self._state  # the first step of the next one's past
        for t in range(T):
            if t == kept:
                before = {name: x.clone() for name, x in acting.state.items()}
            on_step(t)
            with torch.no_grad():  # not around the env, which may differentiate
                action = acting.act(t)
            try:
                result = self.env.step(action)
            except Exception as e:
                self._write_log_prob(slot, acting.params(t + 1))
                self._blame_invalid(slot, t, e)
                raise
            check_obs(result.obs, self.env.spec)
            if result.final_obs is not None:
                check_obs(result.final_obs, self.env.spec, what="final ")
            _write_step(slot, t, result)
            if self._fresh:
                acting.forget(result.terminated_B | result.truncated_B)
            for key, value in result.log.items():
                log[key].append(value)
            self.obs = result.obs
        on_step(T)
        self._state = acting.state
        critic_before = self._follow_critic(slot) if self._fresh_critic else {}
        if self._fresh_past:
            obs = {group: x[kept:T] for group, x in slot.obs.items()}
            ended_KB = (slot.terminated_TB | slot.truncated_TB)[kept:]
            self._past = past_of(self._fresh_past, obs, ended_KB, {**before, **critic_before})
        self._write_log_prob(slot, acting.params(T))
        return _means(log)

    def _follow_critic(self, slot: Slot) -> State:
        """Keep what the critic remembers after a rollout: nobody asks it during one.

        Returns:
            What it remembered before the steps that are kept of the rollout.
        """
        ended_TB = slot.terminated_TB | slot.truncated_TB
        starts_TB = torch.cat([torch.zeros_like(ended_TB[:1]), ended_TB[:-1]])
        obs = {g: slot.obs[g][:-1].flatten(0, 1) for g in self.policy.critic_groups}
        before, T = self._critic_state, len(ended_TB)
        states = self.policy.critic_states(obs, Sequences(before, starts_TB))
        for t, state in enumerate(states, 1):
            if t in (T - self.policy.burn_in, T):
                before = self._critic_state
                self._critic_state = restarted(state, self._fresh_critic, ended_TB[t - 1])
        return before

    def acting_on(self, slot: Slot) -> Acting:
        """Return what acts on a slot, made at the first call for it."""
        if slot not in self._acting:
            self._acting[slot] = make_acting(self.policy, slot, self._config.ppo.cuda_graphs)
        return self._acting[slot]

    @torch.no_grad()
    def _write_log_prob(self, slot: Slot, params_TBP: torch.Tensor) -> None:
        """Write one log-prob of [T, B] instead of T small ones; from the parameters that acted."""
        steps = len(params_TBP)
        slot.behavior_log_prob_TB[:steps].copy_(
            self.policy.distribution.log_prob(params_TBP, slot.action_TBA[:steps])
        )

    def _blame_invalid(self, slot: Slot, steps: int, error: Exception) -> None:
        """Raise for the number that came before an env's own error, if there is one.

        Args:
            slot: The unfinished rollout.
            steps: Done before the one in which the env raised.
            error: What it raised.
        """
        if found := self._find_invalid(slot, steps):
            at = traceback.extract_tb(error.__traceback__)[-1]
            raise InvalidNumberError(
                f"{self._tell(slot, found, steps)}; the env then raised "
                f"{type(error).__name__}: {error} ({at.filename}:{at.lineno})"
            ) from error

    def _drop_invalid(self, slot: Slot) -> list[str]:
        """Leave envs with invalid numbers out and restart them, or raise; returns what to say."""
        T, rollout = self._config.rollout.steps_per_env, self._config.rollout
        found = self._find_invalid(slot, T)
        if not found:
            return []
        said = self._tell(slot, found, T)
        if rollout.on_invalid == "stop":
            said += "; to go on after such numbers set rollout.on_invalid"
        if rollout.on_invalid != "drop_env":
            raise InvalidNumberError(said)
        self._restart(slot, [number.env for number in found])
        self._notes_left -= 1
        if self._notes_left < 0:
            return []
        more = "" if self._notes_left else "; what follows is counted only (Async/samples_dropped)"
        return [f"{said}; left out and started anew{more}"]

    def _restart(self, slot: Slot, envs: list[int]) -> None:
        """Leave `envs` out of the rollout and begin new episodes in them, or in all if need be."""
        slot.dropped_B[envs] = True
        rows = self.env.reset_envs(envs)
        if rows is None:  # this env resets all or none
            address = (int(slot.header["iteration"][0]), AFTER)
            self._start_episodes(self._env_seed(*address), *address)
            slot.restarted_B.fill_(True)
            self._state, self._critic_state = self._fresh, self._fresh_critic
            self._past = self._fresh_past
            return
        check_obs(rows, self.env.spec, rows=len(envs))
        slot.restarted_B[envs] = True
        ended_B = slot.restarted_B.to(self.device)
        self._state = restarted(self._state, self._fresh, ended_B)
        self._critic_state = restarted(self._critic_state, self._fresh_critic, ended_B)
        self._past = restarted(self._past, self._fresh_past, ended_B)
        for group in self.env.spec.obs:
            self.obs[group][envs] = rows[group]

    def _find_invalid(self, slot: Slot, steps: int) -> "list[InvalidNumber]":
        from isaac_hydra_ext.rollout.invalid_numbers import find_invalid  # hardly ever

        return find_invalid(slot, self._groups_read, steps)

    def _tell(self, slot: Slot, found: "list[InvalidNumber]", steps: int) -> str:
        """Dump the first one's steps and say what and where it is."""
        from isaac_hydra_ext.rollout.invalid_numbers import write_dump

        names = ("worker", "generation", "iteration", "policy_version")
        about = {name: int(slot.header[name][0]) for name in names}
        previous = self._last_slot if self._last_slot is not slot else None
        where = write_dump(self._run_dir / NAN_DUMP, found[0], slot, previous, steps, about)
        others = f" (and {len(found) - 1} more envs)" if len(found) > 1 else ""
        return f"rollout {about['iteration']}, {found[0]}{others}; {where}"


def _means(log: Mapping[str, list[Any]]) -> dict[str, float]:
    """Average what the env logged; what is on a GPU comes to the host together."""
    on_device = {
        key: torch.stack(values).float().mean()
        for key, values in log.items()
        if all(isinstance(value, torch.Tensor) for value in values)
    }
    means = {k: sum(map(float, v)) / len(v) for k, v in log.items() if k not in on_device}
    if on_device:
        device = next(iter(on_device.values())).device
        together = torch.stack([mean.to(device) for mean in on_device.values()])
        means |= zip(on_device, together.tolist(), strict=True)
    return means


@torch.no_grad()
def _write_step(slot: Slot, t: int, result: StepResult) -> None:
    """Copy what step t gave, and the final observations of the episodes that it cut off."""
    rows = slot.rows
    numbers = [*(obs[t + 1] for obs in rows.obs.values()), rows.reward[t]]
    given = [*(result.obs[group] for group in rows.obs), result.reward_B]
    copy_each(numbers, given)
    copy_each([rows.terminated[t], rows.truncated[t]], [result.terminated_B, result.truncated_B])
    if result.final_obs is None:
        return
    envs = (result.truncated_B & ~result.terminated_B).nonzero().squeeze(1)
    count = int(slot.header["final_count"][0])
    end = count + envs.shape[0]
    slot.make_room(end)
    assert slot.final_index_C2 is not None
    slot.final_index_C2[count:end, 0] = t
    slot.final_index_C2[count:end, 1] = envs
    for group, obs in slot.final_obs.items():
        obs[count:end] = result.final_obs[group][envs]
    slot.header["final_count"] = end
