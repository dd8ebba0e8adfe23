"""Learning from pictures: shared encoders, and what the learner keeps of a rollout."""

from collections import deque
from typing import Any

import pytest
import torch

from isaac_hydra_ext.errors import ConfigError
from isaac_hydra_ext.learner.group import OneProcess
from isaac_hydra_ext.learner.ppo import preparation
from isaac_hydra_ext.learner.ppo.images import Images
from isaac_hydra_ext.learner.ppo.losses import actor_loss, critic_loss
from isaac_hydra_ext.learner.ppo.preparation import prepare
from isaac_hydra_ext.rollout.layout import SlotLayout
from isaac_hydra_ext.rollout.slot import Slot

from ..builders import InProcessRun, env_spec, run_config

CATCH = {"id": "TestCatch-v0", "imports": ["tests.integration.catch_env"]}
ENCODER = {"channels": [4, 8], "kernel": [4, 3], "stride": [2, 2]}


def catch(policy: dict[str, Any] | None = None, **sections: dict[str, Any]) -> InProcessRun:
    settings = {"encoders": {"policy": ENCODER}, "hidden_dims": [16], **(policy or {})}
    return InProcessRun(run_config(4, **{"env": CATCH, "policy": settings, **sections}))


@pytest.mark.parametrize("share", [False, True])
def test_gradients_are_those_of_both_losses(share: bool) -> None:
    run = catch({"share_encoders": share}, ppo={"value_coef": 0.5})
    run.collect(0)
    learner, ppo = run.learner, run.config.ppo
    made = prepare(ppo, learner._spec, learner.policy, learner.batch, None, OneProcess())
    rows = torch.arange(32)[::2]
    epochs, policy = learner._epochs, learner.policy
    assert epochs._by_hand is None
    samples = type("Samples", (), {"inputs": learner.batch.samples_N, "actor": made.actor,
                                   "critic": made.critic})  # fmt: skip
    forwards = (epochs._actor_loss, epochs._critic_loss)
    actor, value, gradients = epochs._gradients(forwards, samples, rows)  # type: ignore[arg-type]
    obs = {"policy": learner.batch.samples_N["policy"][rows]}
    expected = actor_loss(
        ppo, policy.distribution, made.actor.take(rows), policy.action_params(obs)
    ).total + 0.5 * critic_loss(ppo, made.critic.take(rows), policy.raw_value(obs))
    in_order = [p for part in policy.parameter_groups().values() for p in part]
    for found, wanted in zip(gradients, torch.autograd.grad(expected, in_order), strict=True):
        torch.testing.assert_close(found, wanted)


def test_each_group_of_parameters_is_clipped_by_itself() -> None:
    run = catch({"share_encoders": True}, ppo={"max_grad_norm": 0.01, "update_epochs": 1})
    run.collect(0)
    metrics = run.update(0)
    norms = [metrics[f"Loss/{name}_grad_norm"] for name in ("actor", "shared", "critic")]
    assert all(norm > 0.01 for norm in norms), norms
    assert metrics["Loss/undone"] == 0.0


def test_at_lag_0_the_ratio_is_1() -> None:
    run = catch(ppo={"batch_size": 16})
    for k in range(3):
        run.collect(k)
        assert run.update(k)["Async/ratio_deviation"] <= 1e-4


# ------------------------------------------------------------------ where they lie


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("dropped", [False, True])
def test_pictures_are_read_by_step_and_column_from_the_slots(workers: int, dropped: bool) -> None:
    spec = env_spec(5, {"camera": ((4, 3, 2), "uint8")})
    layout = SlotLayout(spec, 6, torch.float32, images={"camera": spec.obs["camera"]})
    slots = [Slot.allocate(layout, "cpu") for _ in range(workers)]
    for slot in slots:
        slot.obs["camera"].random_(256)
    kept = [torch.tensor([0, 2, 3]) if dropped and w % 2 == 0 else None for w in range(workers)]
    images = Images("camera", spec.obs["camera"], torch.device("cpu"))
    images.load(slots, kept)
    pictures = [s.obs["camera"] if e is None else s.obs["camera"][:, e]
                for s, e in zip(slots, kept, strict=True)]  # fmt: skip
    expected = torch.cat(pictures, dim=1).flatten(0, 1)
    rows = torch.randperm(len(expected))
    assert torch.equal(images[rows], expected[rows])
    assert torch.equal(images[4:17], expected[4:17])
    slots[0].obs["camera"].zero_()  # nothing was copied
    assert int(images[0:1].sum()) == 0


def test_a_rollout_of_pictures_exists_once() -> None:
    run = catch(rollout={"max_policy_lag": 1})
    for k in range(3):
        (slot,) = run.source.gather(k)
        run.learner.load([slot])
        batch = run.learner.batch
        assert "policy" not in batch.obs and list(batch.images) == ["policy"]
        slot.obs["policy"][3, 2] = 77
        assert bool((batch.images["policy"][14:15] == 77).all())  # t * N + n
        run.learner.update(k)
        run.source.release(k)
        run._publish(k + 1)


@pytest.mark.parametrize("dropped", [[], [0], [0, 1]], ids=["none", "first", "both"])
def test_an_update_is_captured_from_the_first_rollout_without_a_gap(
    monkeypatch: pytest.MonkeyPatch, dropped: list[int]
) -> None:
    """A graph of fewer columns would be replayed for all rollouts that follow."""
    run = catch()
    captured: list[tuple[int, tuple[int, ...]]] = []
    for k in range(4):
        monkeypatch.setattr(
            run.learner,
            "_capture",
            lambda k=k: captured.append((k, tuple(run.learner.batch.reward_TN.shape))),
        )
        slots = run.source.gather(k)
        slots[0].dropped_B[1] = k in dropped
        run.learner.load(slots)
        shape = run.learner.batch.images["policy"][0 : run.learner.batch.reward_TN.numel()].shape
        assert shape[0] == 8 * (3 if k in dropped else 4)
        assert run.update(k)["Loss/undone"] == 0.0
    assert captured == [(len(dropped), (8, 4))]


@pytest.mark.parametrize("storage", ["as_is", "float16"])
def test_float_pictures_are_acted_on_and_learned_from_as_they_are_stored(storage: str) -> None:
    env = {**CATCH, "kwargs": {"floats": True}}
    run = catch(env=env, rollout={"image_storage": storage}, ppo={"batch_size": 16})
    for k in range(2):
        run.collect(k)
        assert run.update(k)["Async/ratio_deviation"] <= 1e-4
    dtype = run.learner.batch.images["policy"][0:1].dtype
    assert dtype == (torch.float32 if storage == "as_is" else torch.float16)


def test_values_of_pictures_are_computed_in_parts_of_so_many_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = catch()
    run.collect(0)
    learner = run.learner

    def values() -> torch.Tensor:
        args = (run.config.ppo, learner._spec, learner.policy, learner.batch, None, OneProcess())
        return prepare(*args).critic.proximal_value_M

    whole = values()
    monkeypatch.setattr(preparation, "CHUNK_BYTES", 3 * 4 * 16 * 16 * 3)  # three at a time
    seen: list[int] = []
    raw_value = learner.policy.raw_value
    monkeypatch.setattr(
        learner.policy,
        "raw_value",
        lambda x, s: (seen.append(len(x["policy"])), raw_value(x, s))[1],
    )
    torch.testing.assert_close(values(), whole)
    assert seen == [3] * 12  # 9 * 4 rows


def test_a_memory_behind_an_encoder_has_a_ratio_of_1() -> None:
    memory = {"recurrent": {"kind": "gru", "hidden": 8}}
    run = catch(memory, rollout={"steps_per_env": 10}, ppo={"num_mini_batches": 2})
    for k in range(2):
        run.collect(k)
        metrics = run.update(k)
        assert metrics["Async/ratio_deviation"] <= 1e-4 and not metrics["Loss/undone"]


@pytest.mark.parametrize("dark", [False, True])
def test_a_picture_that_never_changes_is_warned_of_by_name(dark: bool) -> None:
    run = catch(env={**CATCH, "kwargs": {"dark": dark}})
    found = []
    for k in range(2):
        (slot,) = run.source.gather(k)
        found.append(slot.read_extra()["notes"])
        run.learner.load([slot])
        run.update(k)
    assert bool(found[0]) is dark and not found[1]
    assert not dark or found[0][0].startswith("the obs group policy is the same in all 8 steps")


# ------------------------------------------------------------------ stacks


def test_stacks_are_those_of_gymnasium_and_no_picture_is_held_twice() -> None:
    K, T, B = 4, 10, 4
    run = catch(rollout={"frame_stack": K, "steps_per_env": T, "max_policy_lag": 1})
    last: list[deque[torch.Tensor]] = []
    ended = torch.ones(B, dtype=torch.bool)
    for k in range(3):
        (slot,) = run.source.gather(k)
        assert slot.frames["policy"].shape[0] == K - 1 + T + 1
        run.learner.load([slot])
        images = run.learner.batch.images["policy"]
        for t in range(T):
            for b in range(B):
                picture = slot.obs["policy"][t, b]
                if ended[b]:
                    last = last or [deque(maxlen=K) for _ in range(B)]
                    last[b].extend([picture] * K)
                else:
                    last[b].append(picture)
                (stack,) = images[t * B + b : t * B + b + 1]
                assert torch.equal(stack, torch.stack(list(last[b]))), (k, t, b)
            ended = slot.terminated_TB[t] | slot.truncated_TB[t]
        last = [deque([x.clone() for x in stack], maxlen=K) for stack in last]
        rows = torch.randperm(T * B)[:9]
        finals = torch.randint(256, (9, 16, 16, 3), dtype=torch.uint8)
        expected = torch.cat([images[rows][:, 1:], finals.unsqueeze(1)], dim=1)
        assert torch.equal(images.with_past(finals, rows), expected)
        metrics = run.learner.update(k)
        assert k or metrics["Async/ratio_deviation"] <= 1e-4
        run.source.release(k)
        run._publish(k + 1)


def test_what_acts_on_stacks_is_what_learns_from_them() -> None:
    run = catch({"share_encoders": True}, rollout={"frame_stack": 3}, ppo={"batch_size": 16})
    for k in range(3):
        run.collect(k)
        metrics = run.update(k)
        assert metrics["Async/ratio_deviation"] <= 1e-4 and not metrics["Loss/undone"]


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"encoders": {}}, "policy.encoders names, and it names none"),
        ({"recurrent": {"kind": "gru"}}, "policy.recurrent remembers what it sees"),
    ],
)
def test_stacks_are_of_pictures_and_instead_of_a_memory(policy: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"rollout.frame_stack=2: .*{said}"):
        catch(policy, rollout={"frame_stack": 2})
