"""The shared memory under several real processes at once: nothing torn, lost, doubled or mixed."""

import multiprocessing
import os
import random
import signal
import time
import zlib
from collections.abc import Iterator
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from how_long import here

from isaac_hydra_ext.config.reading import complete
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import ActionSpec, EnvSpec, TensorSpec
from isaac_hydra_ext.envs.loading import load_run_config
from isaac_hydra_ext.errors import WorkerError
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.rollout.weights import WeightStore
from isaac_hydra_ext.system.stop_signals import StopSignals
from isaac_hydra_ext.workers.block import BlockPlan
from isaac_hydra_ext.workers.channel import Kind, Message
from isaac_hydra_ext.workers.pool import WorkerPool
from isaac_hydra_ext.workers.shared_memory import MemfdBlock

SPAWN = multiprocessing.get_context("spawn")
WORKERS, SLOTS, ROLLOUTS = 4, 3, here(5_000, 25_000)  # rollouts of each worker
SPEC = EnvSpec(
    num_envs=3,
    obs={"a": TensorSpec((5,), "float32"), "image": TensorSpec((4, 4), "uint8")},
    action=ActionSpec("continuous", 2, (-1.0, -1.0), (1.0, 1.0)),
    step_dt=0.0,
    max_episode_length=0,
    has_final_obs=True,
)
PLAN = BlockPlan(SlotLayout(SPEC, 7, torch.float32), WORKERS, SLOTS, weights_nbytes=64)


def arrays(slot: Slot) -> list[np.ndarray]:
    """All that a rollout consists of, the header's checksum aside."""
    assert slot.final_index_C2 is not None
    tensors = [*slot.obs.values(), slot.action_TBA, slot.behavior_log_prob_TB, slot.reward_TB]
    tensors += [slot.terminated_TB, slot.truncated_TB, slot.final_index_C2]
    return [t.numpy() for t in (*tensors, *slot.final_obs.values(), slot._extra[:1000])]


def checksum(slot: Slot) -> int:
    crc = 0
    for array in arrays(slot):
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return crc


def produce(pipe: connection.Connection, block: MemfdBlock, worker: int) -> None:
    """Fill every slot that is granted with noise, and put the noise's checksum into its header."""
    slots = PLAN.slots(block.attach(block.name, PLAN.nbytes), worker)
    noise, chance = np.random.default_rng(worker), random.Random(worker)
    while (order := Message.receive(pipe)).kind is Kind.COLLECT:
        slot = slots[order.slot]
        for array in arrays(slot):
            flat = array.reshape(-1).view(np.uint8)
            flat[:] = np.frombuffer(noise.bytes(flat.size), np.uint8)
            if array.dtype == bool:
                flat &= 1
        slot.header[0] = (order.iteration, worker, 0, 0, checksum(slot), 0, 0.0, 0.0)
        if chance.random() < 0.02:
            time.sleep(0.001)
        Message(Kind.READY, 0, order.iteration, slot=order.slot).send(pipe)


def test_noise_from_4_processes_arrives_whole_once_and_in_order() -> None:
    block, chance = MemfdBlock(), random.Random(0)
    pipes, processes = [], []
    for worker in range(WORKERS):
        ours, theirs = SPAWN.Pipe()
        process = SPAWN.Process(target=produce, args=(theirs, block, worker), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    memory = block.allocate(PLAN.nbytes)
    slots = [PLAN.slots(memory, w) for w in range(WORKERS)]
    granted, seen = [0] * WORKERS, [0] * WORKERS

    def grant(worker: int) -> None:
        if granted[worker] < ROLLOUTS:
            k = granted[worker]
            Message(Kind.COLLECT, 0, k, slot=k % SLOTS).send(pipes[worker])
            granted[worker] += 1

    for worker in list(range(WORKERS)) * SLOTS:
        grant(worker)
    checksums: set[int] = set()
    while min(seen) < ROLLOUTS:
        ready = connection.wait(pipes, timeout=200)
        assert ready, f"nobody says anything: {seen}"
        for pipe in chance.sample(ready, len(ready)):
            worker = pipes.index(pipe)  # type: ignore[arg-type]
            message = Message.receive(pipes[worker])
            assert (message.kind, message.iteration) == (Kind.READY, seen[worker])
            slot = slots[worker][message.slot]
            header = slot.header[0]
            assert (header["iteration"], header["worker"]) == (seen[worker], worker)
            assert header["final_count"] == checksum(slot), (worker, seen[worker])
            checksums.add(int(header["final_count"]) << 3 | worker)
            seen[worker] += 1
            grant(worker)
    for pipe, process in zip(pipes, processes, strict=True):
        Message(Kind.CLOSE, 0).send(pipe)
        process.join(10)
        assert process.exitcode == 0
    block.close()
    assert len(checksums) > 0.999 * WORKERS * ROLLOUTS, "every rollout had noise of its own"


# ---------------------------------------------------------------- the real pool

# Observes (worker, env, steps since its process began); a step's reward is its number.
MODULE = """
import itertools, multiprocessing
import gymnasium, numpy as np

indices = itertools.count()

class Clock(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        worker = multiprocessing.current_process().name.removeprefix("appo-worker-")
        self.id, self.clock = (float(worker), float(next(indices))), 0

    def reset(self, **kwargs):
        return self.observe(), {}

    def observe(self):
        return np.array([*self.id, self.clock], np.float32)

    def step(self, action):
        self.clock += 1
        return self.observe(), float(self.clock), self.clock % 7 == 0, self.clock % 5 == 0, {}

gymnasium.register("Clock-v0", Clock)
"""


def test_every_step_of_4_workers_reaches_the_learner_once_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clock_env.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)  # spawned processes get it, too
    W, T, B, L, iterations = 4, 3, 2, 2, here(100, 400)
    config: RunConfig = load_run_config(
        {
            "env": {"id": "Clock-v0", "imports": ["clock_env"]},
            "experiment": {"output_dir": str(tmp_path)},
            "rollout": {"num_workers": W, "envs_per_worker": B, "steps_per_env": T}
            | {"max_policy_lag": L, "heartbeat_timeout_s": 30.0, "on_worker_failure": "stop"},
            "policy": {"hidden_dims": [4]},
        }
    )
    complete(config, W * B, [])
    pool, chance = WorkerPool(config, StopSignals()), random.Random(1)
    try:
        spec = pool.build(config, tmp_path, None, 0)
        policy = ActorCritic(config.policy, spec, 1, "cpu")
        layout = SlotLayout.of(spec, config.rollout.steps_per_env, policy)
        weights = pool.attach(layout, policy.flat.numel(), torch.device("cpu"))
        weights.publish(0, policy.flat)
        pool.announce(0)
        for k in range(L + 1):
            pool.grant(0, k, save_env_state=False)
        worker_WB = torch.arange(W).float()[:, None].expand(W, B)
        env_WB = torch.arange(B).float()[None, :].expand(W, B)
        for k in range(iterations):
            slots = pool.gather(k)
            for t in range(T):
                row_WB3 = torch.stack([slot.obs["policy"][t] for slot in slots])
                clock = torch.full((W, B), float(k * T + t))
                expected = torch.stack([worker_WB, env_WB, clock], dim=-1)
                assert torch.equal(row_WB3, expected), (k, t)
                reward_WB = torch.stack([slot.reward_TB[t] for slot in slots])
                assert torch.equal(reward_WB, clock + 1), (k, t)
            versions = [int(slot.header["policy_version"][0]) for slot in slots]
            assert all(max(0, k - L) <= v <= k for v in versions), (k, versions)
            if chance.random() < 0.05:
                time.sleep(0.01)
            pool.release(k)
            weights.publish(k + 1, policy.flat)
            pool.announce(k + 1)
            if k + 1 + L < iterations:
                pool.grant(max(0, k + 1), k + 1 + L, save_env_state=False)
    finally:
        failures = pool.close()
    assert failures == []
    counts = pool.counts
    assert counts.produced == counts.consumed == iterations * W * B * T
    assert counts.abandoned == counts.restarts == 0


# ---------------------------------------------------------------- weights

SIZE, LAG = 20_000, 1


def publish_forever(block: MemfdBlock, newest: Any) -> None:
    memory = block.attach(block.name, WeightStore.nbytes(SIZE, LAG))
    store, version = WeightStore.map(memory, SIZE, LAG), 0
    while True:
        store.publish(version, torch.full((SIZE,), float(version)))
        newest.value = version
        version += 1


@pytest.fixture
def publisher() -> Iterator[tuple]:
    # Without a lock: one that the killed publisher held would never be released.
    block, newest = MemfdBlock(), SPAWN.Value("q", -1, lock=False)
    process = SPAWN.Process(target=publish_forever, args=(block, newest), daemon=True)
    process.start()
    memory = block.allocate(WeightStore.nbytes(SIZE, LAG))
    deadline = time.monotonic() + 60
    while newest.value < 0:
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    yield process, WeightStore.map(memory, SIZE, LAG), newest
    process.kill()
    process.join(10)
    block.close()


def read(store: WeightStore, version: int, flat: torch.Tensor) -> bool:
    """Whether the version was there; if so, it is that version to the last element."""
    try:
        store.load(version, flat)
    except WorkerError as e:
        assert f"version {version} are gone" in str(e)
        return False
    assert float(flat.min()) == float(flat.max()) == version
    return True


def test_weights_read_under_continuous_publishing_are_one_version_or_refused(
    publisher: tuple,
) -> None:
    process, store, newest = publisher
    flat, results = torch.empty(SIZE), [0, 0]
    deadline = time.monotonic() + 4
    while time.monotonic() < deadline:
        results[read(store, newest.value, flat)] += 1
        # The next one is usually half written: the worst moment to read.
        results[read(store, newest.value + 1, flat)] += 1
    assert process.is_alive()
    assert results[True] > 100, "there was something to compare"
    assert results[False] > 100, "there was a race"


def test_a_publisher_killed_in_the_middle_leaves_old_versions_or_an_error(
    publisher: tuple,
) -> None:
    process, store, newest = publisher
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    flat, last = torch.empty(SIZE), newest.value
    there = [v for v in range(last - 3, last + 3) if read(store, v, flat)]
    assert set(there) <= {last - 1, last, last + 1}
    assert there, "one row is never being written"
