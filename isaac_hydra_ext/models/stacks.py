"""A policy that sees the last K pictures of an episode at once, `rollout.frame_stack`.

Used by the learner, by every collector and wherever a policy is played. What it remembers between
two steps are the K - 1 pictures before the newest. A rollout holds those before its first step and
then each picture once; the learner puts stacks together as it reads (`learner/ppo/images.py`).
Where an episode has fewer pictures so far, the first is repeated, as Gymnasium's
FrameStackObservation does by itself.
"""

from collections.abc import Mapping

import torch

from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.models.policy import FRAMES, SEEN, Acted, Samples, State


class StackingActorCritic(ActorCritic):
    """`ActorCritic` whose actor's pictures are stacks; see `Policy` for the methods."""

    def initial_state(self, num_envs: int) -> State:
        device, past = self.flat.device, self.frame_stack - 1
        frames = {
            f"{FRAMES}{group}": torch.zeros(
                (num_envs, past, *spec.shape), dtype=getattr(torch, spec.dtype), device=device
            )
            for group, spec in self.images.items()
            if group in self.actor_groups
        }
        return {**frames, SEEN: torch.zeros(num_envs, dtype=torch.int64, device=device)}

    def act(self, obs: Samples, state: State, noise_BN: torch.Tensor | None) -> Acted:
        seen_B, K = state[SEEN], self.frame_stack
        back_BK = steps_back(seen_B, K)
        envs_B1 = torch.arange(len(seen_B), device=seen_B.device).unsqueeze(1)
        stacks, after = {}, {SEEN: (seen_B + 1).clamp(max=K - 1)}
        for name, past in state.items():
            if name == SEEN:
                continue
            group = name.removeprefix(FRAMES)
            pictures = torch.cat([past, obs[group].to(past.dtype).unsqueeze(1)], dim=1)
            stacks[group] = pictures[envs_B1, K - 1 - back_BK]
            after[name] = pictures[:, 1:]
        return self.acted(self.action_params({**obs, **stacks}), noise_BN, after)


def steps_back(seen_M: torch.Tensor, stack: int) -> torch.Tensor:
    """Return [M, K]: how many steps before the newest each picture of a stack is, oldest first.

    Args:
        seen_M: How many pictures before the newest are of its episode.
        stack: K.
    """
    back_K = torch.arange(stack - 1, -1, -1, device=seen_M.device)
    return torch.minimum(back_K, seen_M.unsqueeze(-1))


def without_frames(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state without pictures: what is left belongs to a memory."""
    return {k: x for k, x in state.items() if k != SEEN and not k.startswith(FRAMES)}
