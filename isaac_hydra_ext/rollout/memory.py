"""Whether a run fits into this machine. Runs in the learner, before it starts and allocates."""

import math
from collections.abc import Mapping

import torch

from isaac_hydra_ext.config.placement import learner_device
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec, TensorSpec
from isaac_hydra_ext.errors import SharedMemoryError
from isaac_hydra_ext.models.past import OBS, PAST, STATE
from isaac_hydra_ext.models.registry import stored_images
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.processes import each_of
from isaac_hydra_ext.system.cuda import free_memory
from isaac_hydra_ext.system.limits import available_memory

SPARSE = ("final_obs/", "final_index", "extra")  # reserved whole; only what is written costs memory


def check_memory(config: RunConfig, spec: EnvSpec, learner_on_cpu: bool) -> None:
    """Refuse rollouts that cannot fit: the kernel would kill somebody once they are written.

    Args:
        config: After `complete`.
        spec: Of one worker's env.
        learner_on_cpu: Its copy of the iteration's rollouts, pictures apart, is then there too.

    Raises:
        SharedMemoryError: Says what is needed, what there is, and which knobs to turn.
    """
    available, ranks = available_memory(), config.seat.local_size
    networks = ranks * network_bytes(config, spec)
    # Each collector's copy, L + 1 versions, and the learner's with its gradient and two moments.
    copies = config.num_collectors + config.rollout.max_policy_lag + 1 + 4 * learner_on_cpu
    if available is not None and networks * copies > available:
        raise SharedMemoryError(
            f"{copies} copies of the networks{each_of(ranks)} need "
            f"{networks * copies / 2**30:,.1f} GiB, available are {available / 2**30:,.1f} GiB; "
            "lower policy.hidden_dims or policy.critic_hidden_dims"
        )
    learner = "cpu" if learner_on_cpu else learner_device(config)
    needs, said = rollout_bytes(config, spec, learner)
    for device, needed in needs.items():
        needed = needed * (ranks if device == "cpu" else 1)
        available = available_memory() if device == "cpu" else free_memory(device)
        if available is None or needed <= available:
            continue
        where = each_of(ranks) if device == "cpu" else f" on {device}"
        raise SharedMemoryError(
            f"the rollouts{where} need {needed / 2**30:,.1f} GiB, available are "
            f"{available / 2**30:,.1f} GiB: {said}; lower rollout.envs_per_worker, "
            "rollout.steps_per_env or rollout.num_workers"
        )


def rollout_bytes(config: RunConfig, spec: EnvSpec, learner: str) -> tuple[dict[str, int], str]:
    """Return what slots and the learner's copies of them take on each device, and it in words.

    Args:
        config: After `complete`.
        spec: Of one collector's env.
        learner: Its device. Pictures of slots that lie there are not copied.
    """
    rollout, collectors = config.rollout, config.num_collectors
    images = stored_images(config, spec)
    state = _remembered(config, spec, images)
    layout = SlotLayout(spec, rollout.steps_per_env, torch.float32, state=state, images=images)
    dense = sum(f.nbytes for name, f in layout.fields.items() if not name.startswith(SPARSE))
    pictures = sum(layout.fields[f"obs/{group}"].nbytes for group in images)
    slots = collectors * (rollout.max_policy_lag + 1)
    where = "cpu" if config.num_workers else rollout.device
    past = sum(f.nbytes for name, f in layout.fields.items() if name.startswith(f"state/{PAST}"))
    needs = {where: slots * dense + collectors * past}  # each keeps the next one's
    copied = dense - pictures if where == learner else dense
    needs[learner] = needs.get(learner, 0) + collectors * copied
    said = (
        f"{slots} slots of {dense / 2**30:,.2f} GiB (W = {collectors}, B = {spec.num_envs}, "
        f"T = {rollout.steps_per_env}, L = {rollout.max_policy_lag}"
        + (f", burn-in = {rollout.burn_in})" if past else ")")
    )
    if images:
        frame = sum(math.prod(s.shape) * getattr(torch, s.dtype).itemsize for s in images.values())
        said += f", {pictures / 2**30:,.2f} GiB of them pictures of {frame / 2**10:,.0f} KiB"
        if any(s.dtype.startswith("float") and s.dtype != "float16" for s in images.values()):
            said += " (half with rollout.image_storage=float16)"
    return needs, said


def _remembered(
    config: RunConfig, spec: EnvSpec, images: Mapping[str, TensorSpec]
) -> dict[str, TensorSpec]:
    """Return what a slot holds of a memory, for one env, with every obs group as its input."""
    recurrent, K = config.policy.recurrent, config.rollout.burn_in
    if not recurrent.kind:
        return {}
    of_layers = TensorSpec((recurrent.layers, recurrent.hidden), "float32")
    roles = ("actor",) if config.has_teacher else ("actor", "critic")
    parts = ("h", "c") if recurrent.kind == "lstm" else ("h",)
    state = {f"{role}_{part}": of_layers for role in roles for part in parts}
    if K:
        state |= {f"{STATE}{name}": tensor for name, tensor in state.items()}
        state |= {
            f"{OBS}{group}": TensorSpec((K, *tensor.shape), tensor.dtype)
            for group, tensor in {**spec.obs, **images}.items()
        }
    return state


def network_bytes(config: RunConfig, spec: EnvSpec) -> int:
    """Return the size of actor and critic, with every obs group but pictures as input of both."""
    policy, images = config.policy, stored_images(config, spec)
    inputs = sum(math.prod(s.shape) for group, s in spec.obs.items() if group not in images)
    critic = policy.critic_hidden_dims or policy.hidden_dims
    weights = 0
    for dims in ([inputs, *policy.hidden_dims, spec.action.dim], [inputs, *critic, 1]):
        weights += sum(a * b for a, b in zip(dims, dims[1:], strict=False))
    return 4 * weights
