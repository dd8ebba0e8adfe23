"""The configuration of one rank: its learner's device, and what simulates for it.

Runs in each rank, before it starts anything.
"""

import dataclasses
from collections.abc import Mapping

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.config.seat import OURS, Seat, launched_seat
from isaac_hydra_ext.errors import ConfigError


def take_seat(config: RunConfig, auto_is_gpu: bool, environ: Mapping[str, str]) -> None:
    """Give this process the part of the configuration that is its rank's.

    Args:
        config: Changed in place, before `place`; its devices are there.
        auto_is_gpu: `rollout.device=auto` of this kind of env is a GPU; see `EnvFacts`.
        environ: The environment variables.

    Raises:
        ConfigError: In one line: what goes not together.
    """
    experiment, rollout = config.experiment, config.rollout
    launched, devices = launched_seat(environ), list(experiment.devices)
    if devices:
        _check_devices(config)
        if launched and OURS not in environ and not config.cluster.placement:
            raise ConfigError(
                f"experiment.devices={_written(devices)}: torchrun has started "
                f"{launched.size} processes already; leave out one of the two"
            )
    if len(devices) < 2 and launched is None:
        experiment.device = devices[0] if devices else experiment.device
        return
    seat = launched or Seat(size=len(devices), local_size=len(devices))
    before = [("experiment", "device", experiment.device), ("rollout", "device", rollout.device)]
    experiment.device = devices[seat.local_rank] if devices else _own_device(config, seat)
    if experiment.device.startswith("cuda") and (
        rollout.device == "cuda" or (rollout.device == "auto" and auto_is_gpu)
    ):
        rollout.device = experiment.device  # it simulates beside its learner
    elif rollout.device.startswith("cuda"):
        rollout.device = _own_simulations(rollout.device, seat)
    config.seat = dataclasses.replace(
        seat, named=tuple(b for b in before if getattr(getattr(config, b[0]), b[1]) != b[2])
    )


def _check_devices(config: RunConfig) -> None:
    devices, device = config.experiment.devices, config.experiment.device
    said = f"experiment.devices={_written(devices)}"
    gpus = [name for name in devices if name != "cpu"]
    if wrong := next((name for name in gpus if not name.startswith("cuda:")), None):
        raise ConfigError(f"{said}: {wrong} is none of cpu, cuda:0, cuda:1, ...")
    if device not in ("auto", devices[0]):
        raise ConfigError(f"experiment.device={device}: {said} says otherwise; leave one out")
    if twice := next((name for i, name in enumerate(gpus) if name in gpus[:i]), None):
        raise ConfigError(f"{said}: names {twice} twice; a GPU has one learner")
    if gpus and len(gpus) < len(devices):
        raise ConfigError(f"{said}: all learners are on GPUs, or all on the CPU")


def _own_device(config: RunConfig, seat: Seat) -> str:
    """Return the device of a rank's learner that torchrun has started."""
    import torch

    asked, count = config.experiment.device, torch.cuda.device_count()
    if asked == "cpu" or (asked == "auto" and not count):
        return "cpu"
    if asked.startswith("cuda:"):
        raise ConfigError(
            f"experiment.device={asked}: one GPU for {seat.size} learners; leave it out: each rank "
            "takes the one of its number on its node"
        )
    if seat.local_size > count:
        raise ConfigError(
            f"torchrun: {seat.local_size} ranks on a node with {count} GPUs; lower "
            "--nproc_per_node, or say experiment.device=cpu"
        )
    return f"cuda:{seat.local_rank}"


def _own_simulations(device: str, seat: Seat) -> str:
    """Return this rank's part of the GPUs that simulate on its node."""
    gpus = device.split(",")
    each, rest = divmod(len(gpus), seat.local_size)
    if device == "cuda" or rest:
        raise ConfigError(
            f"rollout.device={device}: rollout.num_workers is per rank: name as many GPUs for each "
            f"of the {seat.local_size} ranks of a node"
        )
    return ",".join(gpus[seat.local_rank * each : (seat.local_rank + 1) * each])


def _written(devices: list[str]) -> str:
    return f"[{','.join(devices)}]"
