"""A policy with memory on a GPU; skipped where there is none."""

import pytest
import torch
from torch import nn
from unit.builders import InProcessRun, env_spec, learner_state, run_config

from isaac_hydra_ext.models import sequence, sequence_cells, sequence_scan
from isaac_hydra_ext.models.registry import make_policy
from isaac_hydra_ext.rollout.acting import PlainActing, make_acting
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot
from isaac_hydra_ext.system import compiler

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_kernels_of_a_memory_are_its_plain_steps(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if why_not := compiler.why_not("cuda"):
        pytest.skip(why_not)
    torch.manual_seed(1)
    T, C, H = 9, 130, 48
    rnn = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](5, H).cuda()
    x_TCI = torch.randn(T, C, 5, device="cuda", requires_grad=True)
    state = tuple(torch.randn(C, 1, H, device="cuda") for _ in range(2 if kind == "lstm" else 1))
    starts_TC = torch.rand(T, C, device="cuda") < 0.1
    found = []
    for cells in (None, sequence_cells):
        if cells is not None:
            monkeypatch.setattr(sequence_scan, "_cells", lambda gates: sequence_cells)
        with torch.autocast("cuda", dtype, enabled=dtype == torch.bfloat16):
            out_TCH = sequence.run(rnn, x_TCI, state, starts_TC)  # type: ignore[call-arg]
        gradients = torch.autograd.grad(out_TCH.float().square().sum(), [x_TCI, *rnn.parameters()])
        found.append([out_TCH.float(), *gradients])
    allowed = 1e-5 if dtype == torch.float32 else 2e-2
    for fused, plain in zip(*found, strict=True):
        assert (fused - plain).norm() <= allowed * plain.norm()


def recurrent(kind: str, **ppo: object) -> InProcessRun:
    memory = {"recurrent": {"kind": kind, "hidden": 32}, "hidden_dims": [32]}
    return InProcessRun(
        run_config(
            16,
            experiment={"device": "cuda:0"},
            rollout={"steps_per_env": 110},  # episodes of 200 steps end inside, here and there
            policy=memory,
            ppo={"num_mini_batches": 3, "lr": 1e-4, "lr_schedule": "fixed", **ppo},
        )
    )


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("advantages", ["gae", "vtrace"])
def test_the_recorded_update_of_a_memory_is_the_eager_one(kind: str, advantages: str) -> None:
    states = []
    for cuda_graphs in (False, True):
        run = recurrent(
            kind, advantages=advantages, compile="never", precision="fp32", cuda_graphs=cuda_graphs
        )
        for k in range(3):
            run.collect(k)
            assert run.update(k)["Loss/undone"] == 0
        states.append(learner_state(run.learner))
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_at_lag_0_the_first_ratio_of_a_memory_is_1_though_the_cpu_acted(kind: str) -> None:
    run = recurrent(kind, compile="always", precision="fp32")
    for k in range(4):
        run.collect(k)
        assert run.update(k)["Async/ratio_deviation"] <= 1e-4


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_memory_learns_in_lower_precision(kind: str, precision: str) -> None:
    run = recurrent(kind, compile="always", precision=precision)
    for k in range(3):
        run.collect(k)
        metrics = run.update(k)
        assert metrics["Loss/undone"] == 0 and metrics["Async/ratio_deviation"] < 0.2


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_recorded_acting_remembers_as_plain_acting_does(kind: str) -> None:
    spec, config = env_spec(32), run_config(32, policy={"recurrent": {"kind": kind, "hidden": 16}})
    policy = make_policy(config, spec, "cuda")
    layout = SlotLayout.of(spec, 6, policy)
    recorded, plain = (Slot.allocate(layout, "cuda") for _ in range(2))
    generator = torch.Generator("cuda").manual_seed(5)
    noise_TBP = policy.distribution.draw_noise((6, 32), generator)
    obs_TBO = torch.randn(7, 32, 3, device="cuda")
    acting = make_acting(policy, recorded)
    states = [policy.initial_state(32), policy.initial_state(32)]
    with torch.no_grad():
        for _ in range(2):
            pair = (acting, PlainActing(policy, plain))
            for slot, actor, state in zip((recorded, plain), pair, states, strict=True):
                slot.obs["policy"].copy_(obs_TBO)
                actor.begin(noise_TBP, state)
            for t in range(6):
                torch.testing.assert_close(pair[0].act(t), pair[1].act(t))
                ended_B = torch.rand(32, device="cuda") < 0.2
                for actor in pair:
                    actor.forget(ended_B)
            states = [{name: x.clone() for name, x in actor.state.items()} for actor in pair]
            for name, x in states[0].items():
                torch.testing.assert_close(states[1][name], x)
