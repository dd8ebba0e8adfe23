"""The learner on a GPU; skipped where there is none."""

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from unit.builders import InProcessRun, discrete, env_spec, learner_state, run_config

from isaac_hydra_ext.checkpoints.file import Checkpoint
from isaac_hydra_ext.envs.contract import TensorSpec
from isaac_hydra_ext.learner.ppo.ppo import PPO
from isaac_hydra_ext.learner.ppo.scan import looped_scan, reverse_scan
from isaac_hydra_ext.models.actor_critic import ActorCritic
from isaac_hydra_ext.models.encoders import make_encoder
from isaac_hydra_ext.models.registry import make_policy
from isaac_hydra_ext.rollout.acting import PlainActing, make_acting
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.system import compiler
from isaac_hydra_ext.system.background import BackgroundThread
from isaac_hydra_ext.workers.shared_memory import register_with_cuda, unregister_from_cuda

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
Train = Callable[..., Checkpoint]
FP32 = {"precision": "fp32"}
SECOND_GPU = """
import torch
from unit.builders import InProcessRun, run_config
run = InProcessRun(run_config(16, experiment={"device": "cuda:1"}))
for k in range(2):
    run.collect(k)
    run.update(k)
assert torch._C._cuda_hasPrimaryContext(1)
assert not torch._C._cuda_hasPrimaryContext(0), "the first GPU has a context that nobody uses"
"""
UNRECORDABLE = """
import torch
from isaac_hydra_ext.system.cuda import Captured
from isaac_hydra_ext.errors import LearnerError
ones, before = torch.ones(4, device="cuda"), torch.cuda.current_stream()
try:
    Captured(lambda: ones.sum().item(), torch.cuda.Stream())
except LearnerError as e:
    assert "cannot be captured as a CUDA graph" in str(e), e
    assert "previous error" not in str(e), f"that is how it ended, not why: {e}"
else:
    raise AssertionError("it waits for the GPU, and was recorded")
assert torch.cuda.current_stream() == before
"""


def run_in_a_process(code: str) -> None:
    """For what depends on all that a process has done before, or would spoil what it does next."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    line, env = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(line, capture_output=True, text=True, timeout=200, env=env)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def kernels() -> None:
    """For tests that would compare a thing with itself where no kernel can be built."""
    if why_not := compiler.why_not("cuda"):
        pytest.skip(why_not)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("lag", [0, 1])
def test_the_gpu_learns_what_the_cpu_learns(train_run: Train, workers: int, lag: int) -> None:
    # A fixed learning rate and one minibatch an epoch: the order of samples, which the two
    # devices shuffle differently, does not matter.
    common = [
        f"rollout.num_workers={workers}", f"rollout.max_policy_lag={lag}",
        "rollout.deterministic=true", "ppo.num_mini_batches=1", "experiment.max_iterations=3",
        "ppo.precision=fp32",
    ]  # fmt: skip
    on_cpu = train_run(*common, "experiment.device=cpu")
    on_gpu = train_run(*common, "experiment.device=cuda:0")
    for name, tensor in on_cpu.tensors.items():
        torch.testing.assert_close(on_gpu.tensors[name], tensor, atol=2e-3, rtol=2e-2)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_lower_precisions_stay_finite(train_run: Train, precision: str) -> None:
    common = ["experiment.max_iterations=5", "experiment.device=cuda:0"]
    checkpoint = train_run(*common, f"ppo.precision={precision}")
    assert all(t.isfinite().all() for t in checkpoint.tensors.values())


@pytest.mark.parametrize("shape", [(1, 1), (24, 4096), (64, 130)])
def test_the_scan_kernel_is_the_loop(shape: tuple[int, int], kernels: None) -> None:
    a_TN, b_TN = torch.randn(shape, device="cuda"), torch.rand(shape, device="cuda")
    torch.testing.assert_close(reverse_scan(a_TN, b_TN), looped_scan(a_TN, b_TN))


def updates(count: int, ppo: dict[str, object], **policy: object) -> dict[str, torch.Tensor]:
    # Pendulum's episodes are all cut off in one step: 16 final observations at a time, which
    # is what there is room for at first, or 32 where T holds two of them.
    run = InProcessRun(
        run_config(
            16,
            experiment={"device": "cuda:0"},
            rollout={"steps_per_env": 410, "init_at_random_ep_len": False},
            policy=policy,
            ppo={"batch_size": 1500, "lr": 1e-4, "lr_schedule": "fixed", **FP32, **ppo},
        )
    )
    for k in range(count):
        run.collect(k)
        assert run.update(k)["Loss/minibatch_steps"] == run.config.ppo.update_epochs * 5
    return learner_state(run.learner)


@pytest.mark.parametrize("advantages", ["gae", "vtrace"])
@pytest.mark.parametrize("policy", [{}, {"squash": "tanh", "normalize_values": True}])
def test_the_recorded_update_is_the_eager_one(policy: dict[str, object], advantages: str) -> None:
    common = {"advantages": advantages, "compile": "never"}
    eager = updates(3, {**common, "cuda_graphs": False}, **policy)
    recorded = updates(3, {**common, "cuda_graphs": True}, **policy)
    for name, tensor in eager.items():
        torch.testing.assert_close(recorded[name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("advantages", ["gae", "vtrace"])
@pytest.mark.parametrize("policy", [{}, {"squash": "tanh", "normalize_values": True}])
def test_compiled_gradients_are_the_eager_ones(
    policy: dict[str, object], advantages: str, kernels: None
) -> None:
    # Compiled kernels round otherwise. A step of Adam is as large where a gradient is nearly
    # zero, and has its sign: so the gradients' mean is compared, over five steps too small to
    # matter.
    common = {"advantages": advantages, "update_epochs": 1, "lr": 1e-9}
    eager = updates(1, {**common, "cuda_graphs": False, "compile": "never"}, **policy)
    compiled = updates(1, {**common, "cuda_graphs": True, "compile": "always"}, **policy)
    for name in ("optimizer.exp_avg", "optimizer.exp_avg_sq"):
        difference = (compiled[name] - eager[name]).norm() / eager[name].norm()
        assert difference < 1e-4, name


def test_at_lag_0_the_first_ratio_is_1_though_the_cpu_acted() -> None:
    run = InProcessRun(run_config(16, experiment={"device": "cuda:0"}, ppo=FP32))
    for k in range(3):
        run.collect(k)
        assert run.update(k)["Async/ratio_deviation"] <= 1e-4


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
def test_recorded_acting_is_plain_acting(kind: str) -> None:
    spec = env_spec(32, action=discrete(3, 2) if kind == "discrete" else None)
    config = run_config(32)
    policy = ActorCritic(config.policy, spec, 1, "cuda")
    layout = SlotLayout(spec, 6, policy.distribution.action_dtype)
    recorded, plain = (Slot.allocate(layout, "cuda") for _ in range(2))
    generator = torch.Generator("cuda").manual_seed(5)
    noise_TBP = policy.distribution.draw_noise((6, 32), generator)
    obs_TBO = torch.randn(7, 32, 3, device="cuda")
    acting = make_acting(policy, recorded)
    policy.flat.mul_(1.1)  # new weights, where the graph reads them
    with torch.no_grad():  # as the collector
        for rollout in range(2):
            one_by_one = PlainActing(policy, plain)
            for slot, actor in ((recorded, acting), (plain, one_by_one)):
                slot.obs["policy"].copy_(obs_TBO + rollout)
                actor.begin(noise_TBP, {})
            for t in range(6):
                torch.testing.assert_close(acting.act(t), one_by_one.act(t))
            torch.testing.assert_close(recorded.action_TBA, plain.action_TBA)
            torch.testing.assert_close(acting.params(6), one_by_one.params(6))


def with_an_outgrown_batch(cuda_graphs: bool) -> dict[str, torch.Tensor]:
    rollout, ppo = {"steps_per_env": 16}, {"cuda_graphs": cuda_graphs, "compile": "never", **FP32}
    run = InProcessRun(run_config(4, experiment={"device": "cuda:0"}, rollout=rollout, ppo=ppo))
    for k in range(3):
        slot = run.source.gather(k)[0]
        if k == 1:  # every step of 3 envs is the end of an episode
            slot.truncated_TB.fill_(True)
            slot.terminated_TB.fill_(False)
            slot.make_room(64)
            assert slot.final_index_C2 is not None
            slot.final_index_C2[:64] = slot.truncated_TB.nonzero()
            slot.final_obs["policy"].fill_(0.5)  # nobody has written there before
            slot.header["final_count"] = 64
            slot.dropped_B[2] = True
        run.learner.load([slot])
        assert run.update(k)["Loss/undone"] == 0
    return learner_state(run.learner)


def test_final_observations_may_outgrow_their_room_while_an_env_is_left_out() -> None:
    eager, recorded = with_an_outgrown_batch(False), with_an_outgrown_batch(True)
    for name, tensor in eager.items():
        torch.testing.assert_close(recorded[name], tensor, atol=1e-5, rtol=1e-4)


def test_without_normalisers_no_graph_is_recorded_that_holds_nothing() -> None:
    policy = {"normalize_obs": False, "normalize_critic_obs": False, "normalize_values": False}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The CUDA Graph is empty")
        run = InProcessRun(run_config(16, experiment={"device": "cuda:0"}, policy=policy))
    run.collect(0)
    assert run.update(0)["Loss/undone"] == 0


def test_what_no_graph_can_hold_is_told_and_leaves_the_stream_as_it_was() -> None:
    run_in_a_process(UNRECORDABLE)


def test_memory_that_cannot_be_pinned_costs_nothing_else() -> None:
    memory, device = np.zeros(8192, np.uint8), torch.device("cuda:0")
    assert register_with_cuda([memory], device)
    try:
        assert not register_with_cuda([memory], device), "it is pinned already"
        assert torch.ones(2, device=device).clone().sum().item() == 2
    finally:
        unregister_from_cuda([memory], device)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_learner_on_the_second_gpu_leaves_the_first_alone() -> None:
    run_in_a_process(SECOND_GPU)


def test_an_update_in_its_thread_keeps_no_other_thread_from_the_gpu() -> None:
    run = InProcessRun(run_config(16, experiment={"device": "cuda:0"}))
    run.collect(0)
    run.update(0)  # the first one uploads the graph, and allocates
    run.collect(1)
    stream, thread = run.learner._stream.stream, BackgroundThread[dict[str, float]]()
    assert stream is not None
    ours, theirs = torch.zeros(8, device="cuda"), torch.ones(8, device="cuda")
    with torch.cuda.stream(stream):
        torch.cuda._sleep(4_000_000_000)  # cycles: the update is not done for about 2 s
    update = thread.submit(lambda: run.learner.update(1))
    try:
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:  # after a while the thread only waits for the device
            ours.copy_(theirs)
            time.sleep(1e-3)  # else the update's thread does not get as far as to wait
        assert not stream.query(), "copies waited for the update's end"
    finally:
        metrics = update.result(timeout=60.0)
        thread.stop()
    assert metrics["Loss/undone"] == 0


def test_building_a_policy_leaves_the_gpus_generator_alone() -> None:
    spec, config = env_spec(), run_config()
    draws = []
    for seed in (1, 2):
        torch.cuda.manual_seed(seed)  # as a simulation seeds it
        make_policy(config, spec, "cuda")
        draws.append(torch.randn(8, device="cuda"))
    assert not torch.equal(*draws), "two workers of different seeds draw the same noise"


def learned_from_pictures(where: str, ppo: dict[str, object]) -> dict[str, torch.Tensor]:
    """Three updates from two slots in turn, which one recorded update reads."""
    encoder = {"channels": [8, 8], "kernel": [4, 3], "stride": [2, 2]}
    config = run_config(
        16,
        experiment={"device": "cuda:0"},
        rollout={"steps_per_env": 40, "max_policy_lag": 1},
        policy={"encoders": {"camera": encoder}, "hidden_dims": [16]},
        ppo={"batch_size": 160, "lr": 1e-4, "lr_schedule": "fixed", **FP32, **ppo},
    )
    spec = env_spec(16, {"camera": ((16, 16, 3), "uint8"), "speed": ((2,), "float32")})
    learner = PPO(config, spec, torch.device("cuda:0"))
    slots = Slot.allocate_all(SlotLayout.of(spec, 40, learner.policy), where, 2)
    generator = torch.Generator().manual_seed(1)
    for slot in slots:
        for name, tensor in slot._tensors.items():
            drawn = torch.rand(tensor.shape, generator=generator)
            high = 200 if name == "obs/camera" else 0.02 if tensor.dtype == torch.bool else 1
            tensor.copy_(drawn < high if tensor.dtype == torch.bool else drawn * high)
        slot.dropped_B.fill_(False)
        slot.behavior_log_prob_TB.fill_(-1.0)
        slot.header["policy_version"], slot.header["final_count"] = 0, 0
    learner.capture()
    for k in range(3):
        learner.load([slots[k % 2]])
        assert not learner.update(k)["Loss/undone"]
    return learner_state(learner)


@pytest.mark.parametrize("where", ["cpu", "cuda:0"])
def test_the_recorded_update_from_pictures_is_the_eager_one(where: str) -> None:
    # Slots on the CPU are copied to the GPU; those on the GPU are read in place.
    eager = learned_from_pictures(where, {"compile": "never", "cuda_graphs": False})
    recorded = learned_from_pictures(where, {"compile": "never", "cuda_graphs": True})
    for name, tensor in eager.items():
        torch.testing.assert_close(recorded[name], tensor, atol=1e-4, rtol=1e-3)


def test_compiled_updates_from_pictures_stay_near_the_eager_ones(kernels: None) -> None:
    common = {"update_epochs": 1, "lr": 1e-9}
    eager = learned_from_pictures("cuda:0", {**common, "cuda_graphs": False, "compile": "never"})
    compiled = learned_from_pictures("cuda:0", {**common, "compile": "always"})
    for name in ("optimizer.exp_avg", "optimizer.exp_avg_sq"):
        difference = (compiled[name] - eager[name]).norm() / eager[name].norm()
        assert difference < 1e-2, name


def test_an_encoder_reads_both_layouts_alike_on_a_gpu() -> None:
    torch.backends.cudnn.allow_tf32, before = False, torch.backends.cudnn.allow_tf32
    settings = {"channels": [8, 8], "kernel": [4, 3], "stride": [2, 2]}
    picture = torch.randint(256, (64, 20, 24, 3), dtype=torch.uint8)
    encoder = make_encoder("camera", settings, TensorSpec((20, 24, 3), "uint8"))
    first = make_encoder("camera", settings, TensorSpec((3, 20, 24), "uint8"))
    first.load_state_dict(encoder.state_dict())
    expected = encoder(picture)
    on_gpu, turned = picture.cuda(), picture.permute(0, 3, 1, 2).contiguous().cuda()
    try:
        for found in (encoder.cuda()(on_gpu), first.cuda()(turned)):
            torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=1e-4)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            half = encoder(on_gpu).float().cpu()
        assert (half - expected).norm() < 0.02 * expected.norm()
    finally:
        torch.backends.cudnn.allow_tf32 = before
