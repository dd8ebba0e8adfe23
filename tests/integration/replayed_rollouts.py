"""Two sources of rollouts, as another package might have them: one records, one replays.

Each rollout is a safetensors file below `experiment.output_dir`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec, TaskDescription
from isaac_hydra_ext.envs.registry import describe_task
from isaac_hydra_ext.rollout.counts import RolloutCounts
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.rollout.source import EnvStates
from isaac_hydra_ext.rollout.weights import WeightStore
from isaac_hydra_ext.system.activity import Activity
from isaac_hydra_ext.workers.pool import WorkerPool


def tensors_of(slot: Slot) -> dict[str, torch.Tensor]:
    """All that a learner may read of a slot, as views of it."""
    named = {
        "action": slot.action_TBA,
        "log_prob": slot.behavior_log_prob_TB,
        "reward": slot.reward_TB,
        "terminated": slot.terminated_TB,
        "truncated": slot.truncated_TB,
        "dropped": slot.dropped_B,
        "restarted": slot.restarted_B,
        "header": torch.from_numpy(slot.header.view(np.uint8)),
    }
    named |= {f"obs/{group}": obs for group, obs in slot.obs.items()}
    count = int(slot.header["final_count"][0])
    if slot.final_index_C2 is not None:
        named["final_index"] = slot.final_index_C2[:count]
        named |= {f"final_obs/{group}": obs[:count] for group, obs in slot.final_obs.items()}
    return named


def rollouts_of(config: RunConfig) -> Path:
    return Path(config.experiment.output_dir) / "rollouts"


class Recorder(WorkerPool):
    """Workers whose rollouts are written to files as well."""

    def attach(self, layout: SlotLayout, weights_size: int, device: torch.device) -> WeightStore:
        directory = rollouts_of(self._config)
        directory.mkdir()
        about = {"spec": layout.spec.to_json(), "random_start": self.random_start}
        (directory / "about.json").write_text(json.dumps(about))
        return super().attach(layout, weights_size, device)

    def gather(self, iteration: int) -> list[Slot]:
        slots = super().gather(iteration)
        for index, slot in enumerate(slots):
            tensors = {name: tensor.clone() for name, tensor in tensors_of(slot).items()}
            extra = bytearray(json.dumps(slot.read_extra()).encode())
            tensors["extra"] = torch.frombuffer(extra, dtype=torch.uint8)
            save_file(tensors, rollouts_of(self._config) / f"{iteration}_{index}.safetensors")
        return slots


class Replayer:
    """Rollouts from files: no env, no policy; the weights that are published are not read."""

    def __init__(self, config: RunConfig, warn: Callable[[str], None]) -> None:
        self._config, self._warn = config, warn
        self.counts = RolloutCounts()
        self.notes = ["rollouts are replayed"]
        self.activities = [Activity("the replay")]
        self.random_start = [False] * config.num_collectors

    def describe(self) -> TaskDescription:
        return describe_task(self._config.env)

    def build(self, config: RunConfig, run_dir: Path, env_states: EnvStates, first: int) -> EnvSpec:
        self._config = config
        about = json.loads((rollouts_of(config) / "about.json").read_text())
        self.random_start = about["random_start"]
        return EnvSpec.from_json(about["spec"])

    def attach(self, layout: SlotLayout, weights_size: int, device: torch.device) -> WeightStore:
        self._slots = [Slot.allocate(layout, "cpu") for _ in range(self._config.num_collectors)]
        lag = self._config.rollout.max_policy_lag
        return WeightStore.allocate(weights_size, lag, "cpu")

    def announce(self, version: int) -> None:
        pass

    def grant(self, oldest: int, iteration: int, save_env_state: bool) -> None:
        pass

    def gather(self, iteration: int) -> list[Slot]:
        for index, slot in enumerate(self._slots):
            stored = load_file(rollouts_of(self._config) / f"{iteration}_{index}.safetensors")
            slot.header[:] = np.frombuffer(stored["header"].numpy().tobytes(), slot.header.dtype)
            if slot.final_index_C2 is not None:
                slot.make_room(int(slot.header["final_count"][0]))
            for name, tensor in tensors_of(slot).items():
                tensor.copy_(stored[name])
            slot.write_extra(json.loads(stored["extra"].numpy().tobytes()))
            self.counts.produced += slot.reward_TB.numel()
        return self._slots

    def beside(self, update: Callable[[], Any], meanwhile: Callable[[], Any]) -> tuple[Any, Any]:
        read = meanwhile()
        return update(), read

    def release(self, iteration: int) -> None:
        for slot in self._slots:
            self.counts.release(slot.reward_TB.numel(), slot.dropped_samples)

    def close(self) -> list[str]:
        self.counts.abandoned = self.counts.produced - self.counts.consumed
        return []


def record(config: RunConfig, stop: Any, warn: Callable[[str], None]) -> Recorder:
    return Recorder(config, stop, warn)


def replay(config: RunConfig, stop: Any, warn: Callable[[str], None]) -> Replayer:
    return Replayer(config, warn)
