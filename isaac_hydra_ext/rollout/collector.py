"""Acting: the policy drives one vector env for T steps into one slot.

Runs wherever the simulation does: in a worker, or in the learner's main thread with W = 0.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from isaac_hydra_ext.config import RunConfig
from isaac_hydra_ext.envs.registry import make_env
from isaac_hydra_ext.envs.vec_env import check_obs
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.rollout.buffer import Slot
from isaac_hydra_ext.seeding import Stream, make_generator, stream_seed


class Collector:
    """One env, the policy's copy that acts in it, and the observation between two rollouts."""

    def __init__(
        self,
        config: RunConfig,
        worker: int,
        generation: int,
        env_state: Mapping[str, Any] | None = None,
        run_dir: Path | None = None,
    ) -> None:
        """Build the env and start its first episodes.

        Args:
            config: After `complete`.
            worker: Index of the worker, 0 with W = 0.
            generation: How many processes have had this worker's place before.
            env_state: From `VecEnv.state_dict` of an earlier run, to go on from there.
            run_dir: Where the env may write.
        """
        self._config, self._address = config, (worker, generation)
        seed = config.experiment.seed
        env_seed = stream_seed(seed, Stream.ENV, *self._address) % 2**31
        self.env = make_env(config, env_seed, worker, run_dir)
        self.random_start = False
        if env_state is not None:
            self._obs = self.env.load_state_dict(env_state)
        else:
            self._obs = self.env.reset(env_seed)
        starts_anew = env_state is None or not self.env.spec.whole_state
        if starts_anew and config.rollout.init_at_random_ep_len:
            generator = make_generator(seed, Stream.EPISODE_TIME, *self._address)
            self.random_start = self.env.randomize_episode_time(generator)
        check_obs(self._obs, self.env.spec)
        self._device = next(iter(self._obs.values())).device
        self.policy = ActorCritic(config.policy, self.env.spec, seed, self._device)

    @torch.inference_mode()
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
        """
        started = time.monotonic()
        T, distribution = self._config.rollout.steps_per_env, self.policy.distribution
        seed, shape = self._config.experiment.seed, (T, self.env.spec.num_envs)
        address = (*self._address, iteration)
        generator = make_generator(seed, Stream.POLICY_NOISE, *address, device=self._device)
        noise_TBP = distribution.draw_noise(shape, generator)
        params_T, log, finals = [], defaultdict(list), 0
        for group, obs in self._obs.items():
            slot.obs[group][0].copy_(obs)
        for t in range(T):
            on_step(t)
            params = self.policy.action_params({g: obs[t] for g, obs in slot.obs.items()})
            params_T.append(params)
            action = distribution.sample(params, noise_TBP[t])
            slot.action_TBA[t].copy_(action)
            result = self.env.step(distribution.to_env(action))
            check_obs(result.obs, self.env.spec)
            for group, obs in result.obs.items():
                slot.obs[group][t + 1].copy_(obs)
            slot.reward_TB[t].copy_(result.reward_B)
            slot.terminated_TB[t].copy_(result.terminated_B)
            slot.truncated_TB[t].copy_(result.truncated_B)
            if result.final_obs is not None:
                rows = (result.truncated_B & ~result.terminated_B).nonzero().squeeze(1)
                finals = _write_final_obs(slot, t, rows, result.final_obs, finals)
            for key, value in result.log.items():
                log[key].append(value)
        on_step(T)
        # One log-prob of [T, B] instead of T small ones; the parameters are those that acted.
        slot.behavior_log_prob_TB.copy_(
            distribution.log_prob(torch.stack(params_T), slot.action_TBA)
        )
        self._obs = {group: obs[T].clone() for group, obs in slot.obs.items()}
        worker, generation = self._address
        slot.header[0] = (
            iteration, worker, generation, version, finals, 0, time.monotonic() - started, wait_s,
        )  # fmt: skip
        means = {key: sum(values) / len(values) for key, values in log.items()}
        state = self.env.state_dict() if save_env_state else None
        slot.write_extra({"log": means, "env_state": state})


def _write_final_obs(
    slot: Slot, t: int, rows: torch.Tensor, final_obs: Mapping[str, torch.Tensor], count: int
) -> int:
    """Append the final observations of envs `rows` at step t; returns the new count."""
    assert slot.final_index_C2 is not None
    end = count + rows.shape[0]
    slot.final_index_C2[count:end, 0] = t
    slot.final_index_C2[count:end, 1] = rows
    for group, obs in final_obs.items():
        slot.final_obs[group][count:end] = obs[rows]
    return end
