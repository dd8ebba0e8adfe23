"""Who simulates where: how many workers, which GPU each has, which one the learner has.

Runs in the learner's process. A CPU simulation gets cores - 1 worker processes. A GPU simulation
gets one worker process for each GPU that simulates, and the learner a GPU of its own; where there
is one GPU in all, the learner's process hosts the env, because two processes on one GPU only take
turns. A worker sees its own GPU alone, as cuda:0.
"""

import os

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.system.limits import cpu_quota

IN_WORKER = "cuda:0"  # what a worker calls the one GPU that it sees
# Libraries read these once, while they load.
THREAD_CAPS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "PXR_WORK_THREAD_LIMIT",
)


def place(config: RunConfig, auto_is_gpu: bool, num_workers: int | None = None) -> None:
    """Turn `rollout.num_workers=auto` into a number and `rollout.device=cuda` into GPUs.

    A device that only the task knows stays `auto`. One worker on the learner's GPU, or on the only
    one, becomes none: two processes on one GPU only take turns.

    Args:
        config: Changed in place.
        auto_is_gpu: `rollout.device=auto` of this kind of env is a GPU; see `EnvFacts`.
        num_workers: What W is already, once processes or none have been started for it.

    Raises:
        ConfigError: Workers and GPUs do not go together.
    """
    rollout = config.rollout
    if config.experiment.device == "cuda":
        config.experiment.device = "cuda:0"
    learner = config.experiment.device
    if rollout.launcher == "ray":  # which places them
        return
    if num_workers is not None:
        rollout.num_workers = num_workers
    elif rollout.num_workers == "auto":
        ranks = config.seat.local_size
        rollout.num_workers = auto_workers(auto_is_gpu, rollout.device, learner, ranks)
    if rollout.device == "cuda":
        rollout.device = ",".join(_chosen(config))
    if num_workers is None and _would_take_turns(config, auto_is_gpu):
        rollout.num_workers = 0
    if rollout.device.startswith("cuda"):
        _one_process_a_gpu(config)


def auto_workers(
    auto_is_gpu: bool, device: str, learner: str = "auto", local_ranks: int = 1
) -> int:
    """Choose W.

    Args:
        auto_is_gpu: As of `place`.
        device: `rollout.device`.
        learner: `experiment.device`.
        local_ranks: How many learners share this machine's cores.
    """
    if not (_on_gpus(device, auto_is_gpu) and _count()):
        return max(1, available_cores() // local_ranks - 1)
    if local_ranks > 1 and device == "auto":
        return 0  # each rank simulates on its learner's GPU
    named = _named(device) or _free(learner)
    return 0 if _count() == 1 or named == [learner] else len(named)


def learner_device(config: RunConfig) -> str:
    """Return the learner's device: what is asked for, else a GPU on which nothing else runs."""
    if config.experiment.device != "auto":
        return config.experiment.device
    simulating = _named(config.rollout.device)
    if config.num_workers == 0 and simulating:
        return simulating[0]  # nothing then crosses the bus
    free = [gpu for gpu in _all() if gpu not in simulating]
    return free[0] if free else "cpu"


def worker_gpu(config: RunConfig, worker: int, auto_is_gpu: bool) -> str | None:
    """Return the GPU that a worker simulates on, in the learner's numbering; None for a CPU.

    Args:
        config: After `place`.
        worker: Its index.
        auto_is_gpu: As of `place`.
    """
    device = config.rollout.device
    if not (_on_gpus(device, auto_is_gpu) and _count()):
        return None
    return (_named(device) or _chosen(config))[worker]


def worker_environment(config: RunConfig, worker: int, auto_is_gpu: bool) -> dict[str, str]:
    """Return the environment variables with which a worker sees its own GPU and no other.

    Arguments as of `worker_gpu`.
    """
    gpu = worker_gpu(config, worker, auto_is_gpu)
    if gpu is None:
        return {}
    index, visible = int(gpu.removeprefix("cuda:")), os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[index].strip() if visible else str(index)}


def device_in_worker(device: str) -> str:
    """Return `rollout.device` as a worker is told it."""
    return IN_WORKER if device.startswith("cuda") else device


def thread_caps() -> dict[str, str]:
    """Return the environment variables for one thread a library; a user's own count stays.

    They must be set around the start of a process, or before what reads them is loaded.
    """
    return {name: "1" for name in THREAD_CAPS if name not in os.environ}


def available_cores() -> int:
    """Return how many cores' time this process may use: its groups may allow less than it sees."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else min(cores, max(1, int(quota)))


def set_learner_threads(config: RunConfig) -> None:
    """Leave the workers their cores. One thread where results must not depend on the machine."""
    import torch

    background = config.num_workers == 0 and config.rollout.max_policy_lag > 0
    beside = config.num_workers if config.rollout.launcher == "local" else 0
    free = available_cores() - beside
    one = config.rollout.deterministic or background
    torch.set_num_threads(1 if one else max(1, free))


def _on_gpus(device: str, auto_is_gpu: bool) -> bool:
    return device.startswith("cuda") or (auto_is_gpu and device == "auto")


def _count() -> int:
    import torch

    return torch.cuda.device_count()  # through NVML: makes no CUDA context


def _all() -> list[str]:
    return [f"cuda:{index}" for index in range(_count())]


def _named(device: str) -> list[str]:
    """Return the GPUs that `rollout.device` names one by one."""
    return device.split(",") if device.startswith("cuda:") else []


def _free(learner: str) -> list[str]:
    """Return the GPUs that the learner leaves: all but its own, or the only one there is."""
    gpus = _all()
    own = gpus[0] if learner == "auto" else learner
    return [gpu for gpu in gpus if gpu != own] or gpus


def _chosen(config: RunConfig) -> list[str]:
    """Return as many of the free GPUs as there are collectors."""
    free = _free(config.experiment.device)
    if config.num_workers == 0:
        return _all()[:1] if config.experiment.device == "auto" else free[:1]
    if config.num_workers > len(free):
        raise ConfigError(
            f"rollout.num_workers={config.num_workers}: a GPU simulation has one worker for each "
            f"GPU that the learner does not use, of which there are {len(free)}"
        )
    return free[: config.num_workers]


def _would_take_turns(config: RunConfig, auto_is_gpu: bool) -> bool:
    """Whether one worker would have no GPU but the learner's."""
    device, learner = config.rollout.device, config.experiment.device
    if config.num_workers != 1 or not (_on_gpus(device, auto_is_gpu) and _count()):
        return False
    gpus = _named(device) or _free(learner)[:1]
    return gpus == [learner] or (learner == "auto" and gpus == _all())


def _one_process_a_gpu(config: RunConfig) -> None:
    """Refuse what would have two processes take turns on a GPU."""
    gpus, workers = _named(config.rollout.device), config.num_workers
    key = f"rollout.device={config.rollout.device}"
    if len(set(gpus)) < len(gpus):
        raise ConfigError(f"{key}: names a GPU twice; two simulations on one only take turns")
    if len(gpus) != max(1, workers):
        raise ConfigError(
            f"rollout.num_workers={workers}: {key} names {len(gpus)} GPU{'s' * (len(gpus) > 1)}, "
            "and each has one worker (0: in the learner's process, on one GPU)"
        )
    if workers and learner_device(config) in gpus:
        raise ConfigError(
            f"experiment.device={learner_device(config)}: simulates already ({key}), and two "
            "processes on one GPU only take turns; give the learner another, or use "
            "rollout.num_workers=0"
        )
    if workers and config.experiment.device == "auto" and learner_device(config) == "cpu":
        raise ConfigError(
            f"{key}: leaves no GPU for the learner; leave one out, or say experiment.device=cpu"
        )
