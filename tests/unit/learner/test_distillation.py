"""A student's update: by hand, beside rsl_rl's own, on ranks, undone; teachers that do not fit."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from isaac_hydra_ext.checkpoints.file import load_checkpoint, save_checkpoint
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.errors import CheckpointError, ConfigError, NonFiniteError
from isaac_hydra_ext.export.export import export
from isaac_hydra_ext.learner.algorithm import make_algorithm
from isaac_hydra_ext.learner.distillation.distillation import Distillation
from isaac_hydra_ext.learner.distillation.teacher import settle_teacher
from isaac_hydra_ext.learner.group import Group
from isaac_hydra_ext.models.registry import make_policy

from ..builders import changed, continuous, discrete, env_spec, learner_state, run_config
from ..checkpoint_samples import meta
from .test_group import on_ranks

B, T = 3, 6
ACTION = continuous((-2.0, 2.0), (-2.0, 2.0))
THEIRS = {"policy": ((4,), "float32")}
OURS = {"policy": ((3,), "float32"), "full": ((4,), "float32")}
LINEAR = {"normalize_obs": False, "hidden_dims": []}


def spec_of(num_envs: int = B, obs: Any = OURS, action: Any = ACTION) -> EnvSpec:
    return env_spec(num_envs, obs, action)


def teacher(
    where: Path, spec: EnvSpec | None = None, rollout: dict[str, Any] | None = None, **policy: Any
) -> Path:
    """A checkpoint of a policy as it is initialised, with statistics that are not the identity."""
    config = run_config(
        policy={"hidden_dims": [5], **policy},
        experiment={"seed": 11},
        rollout=rollout or {},
    )
    spec = spec or spec_of(2, THEIRS)
    made = make_policy(config, spec)
    obs = {g: torch.randn(50, *s.shape) * 2 + 1 for g, s in spec.obs.items()}
    made.update_statistics(obs, torch.randn(50))
    tensors = {f"policy.{name}": x for name, x in made.state_dict().items()}
    where.mkdir(parents=True, exist_ok=True)
    about = meta(7, config=config.to_dict(), spec=spec.to_json())
    return save_checkpoint(where, 7, tensors, about)


def student_config(path: Path, num_envs: int = B, **sections: Any) -> RunConfig:
    own = {"teacher": str(path), "teacher_groups": ["full"], **sections.pop("distillation", {})}
    return run_config(
        num_envs,
        algorithm={"kind": "distillation"},
        distillation=own,
        **{"rollout": {"steps_per_env": T}, **sections},
    )


def fill(learner: Distillation, iteration: int, ranks: int = 1, only: int | None = None) -> None:
    """Write the samples of `ranks` of B envs side by side, or those of one rank alone."""
    draw = torch.Generator().manual_seed(iteration)
    for x in learner.batch._obs.values():
        values = torch.randn(T + 1, ranks * B, *x.shape[2:], generator=draw)
        x.copy_(values if only is None else values[:, only * B : (only + 1) * B])


def wanted_of(learner: Distillation) -> torch.Tensor:
    return learner._asked(learner.batch.samples_N)


def of(config: RunConfig, spec: EnvSpec | None = None, group: Group | None = None) -> Distillation:
    learner = make_algorithm(config, spec or spec_of(), torch.device("cpu"), group)
    assert isinstance(learner, Distillation)
    return learner


# ------------------------------------------------------------------ the update


def test_one_gradient_step_by_hand(tmp_path: Path) -> None:
    own = {"gradient_length": T, "lr": 0.01}
    learner = of(student_config(teacher(tmp_path), distillation=own, policy=LINEAR))
    fill(learner, 0)
    layer = learner.policy.actor[0]
    weight, bias = layer.weight.clone(), layer.bias.clone()
    x, y = learner.batch.obs_N["policy"], wanted_of(learner)
    error = x @ weight.T + bias - y
    metrics = learner.update(0)
    assert metrics["Loss/behavior"] == pytest.approx(error.square().mean().item(), rel=1e-5)
    # The sum over T steps of the mean over B envs and 2 actions, of the squared error.
    by_bias = T * 2 * error.mean(0) / 2
    by_weight = T * 2 * error.T @ x / (B * T) / 2
    norm = torch.cat([by_bias, by_weight.flatten()]).norm().item()
    assert metrics["Loss/actor_grad_norm"] == pytest.approx(norm, rel=1e-5)
    torch.testing.assert_close(layer.bias, bias - 0.01 * by_bias.sign())  # Adam's first step
    torch.testing.assert_close(layer.weight, weight - 0.01 * by_weight.sign())


@pytest.mark.parametrize(
    ("kind", "optimizer"), [(None, "adam"), (None, "adamw"), ("lstm", "adam"), ("gru", "adam")]
)
def test_it_is_rsl_rls_update(tmp_path: Path, kind: str | None, optimizer: str) -> None:
    """Real rsl_rl, with the same weights and samples: windows, sum, optimizer, clipping, Huber.

    With a memory also what is remembered from window to window, and from epoch to epoch.
    """
    algorithms = pytest.importorskip("rsl_rl.algorithms")
    models, storages = pytest.importorskip("rsl_rl.models"), pytest.importorskip("rsl_rl.storage")
    from tensordict import TensorDict

    own = {"gradient_length": 3, "update_epochs": 2, "loss": "huber", "max_grad_norm": 0.7}
    own["optimizer"] = optimizer
    policy = {"normalize_obs": False, "hidden_dims": [7], "init_std": 0.3}
    policy["recurrent"] = {"kind": kind, "hidden": 5, "layers": 2}
    learner = of(student_config(teacher(tmp_path), distillation=own, policy=policy))
    first = TensorDict({"student": torch.zeros(B, 3), "teacher": torch.zeros(B, 4)}, [B])
    groups = {"student": ["student"], "teacher": ["teacher"]}
    gaussian = {"class_name": "rsl_rl.modules.distribution:GaussianDistribution", "init_std": 0.3}
    sizes = (first, groups, "student", 2, [7], "elu", False, gaussian)
    if kind is None:
        student, pairs = models.MLPModel(*sizes), []
        head = learner.policy.actor
    else:
        student = models.RNNModel(*sizes, kind, 5, 2)
        pairs, head = [(student.rnn.rnn, learner.policy.actor.memory)], learner.policy.actor.head
    both = zip(student.mlp.modules(), head.modules(), strict=False)
    pairs += [pair for pair in both if isinstance(pair[0], nn.Linear)]
    for theirs, ours in pairs:
        theirs.load_state_dict(ours.state_dict())
    storage = storages.RolloutStorage("distillation", B, T, first, [2], "cpu")
    unused = models.MLPModel(first, groups, "teacher", 2, [7])
    rsl_rl = algorithms.Distillation(
        student, unused, storage, num_learning_epochs=2, gradient_length=3, learning_rate=1e-3,
        max_grad_norm=0.7, loss_type="huber", optimizer=optimizer,
    )  # fmt: skip
    for iteration in range(1 if kind else 3):  # it then goes on from another state than acted
        fill(learner, iteration)
        learner.batch._terminated_TN[2, 1] = True  # with the last step of a window
        wanted = wanted_of(learner).view(T, B, 2)
        for t in range(T):
            obs = {"student": learner.batch.obs["policy"][t], "teacher": torch.zeros(B, 4)}
            step = rsl_rl.transition
            step.observations = TensorDict(obs, [B])
            step.actions, step.privileged_actions = torch.zeros(B, 2), wanted[t]
            step.rewards, step.dones = torch.zeros(B), learner.batch.terminated_TN[t].float()
            storage.add_transition(step)
            step.clear()
        loss = rsl_rl.update()["behavior"]
        assert learner.update(iteration)["Loss/behavior"] == pytest.approx(loss, rel=1e-5)
        for theirs, ours in pairs:
            for name, tensor in ours.state_dict().items():
                torch.testing.assert_close(tensor, theirs.state_dict()[name], rtol=1e-4, atol=1e-6)
    assert learner.policy.mean_std() == torch.tensor(0.3)  # nothing is learned of it, to the bit
    # rsl_rl's, which has no gradient either.
    assert bool((student.distribution.std_param == torch.tensor(0.3)).all())


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_window_begins_with_what_the_one_before_remembers(tmp_path: Path, kind: str) -> None:
    """Without a step to speak of, windows of any length see what whole columns do."""
    path, losses = teacher(tmp_path), []
    policy = {"recurrent": {"kind": kind, "hidden": 5, "layers": 1}, "hidden_dims": [7]}
    policy["normalize_obs"] = False
    for length in (1, 2, T):
        own = {"gradient_length": length, "lr": 1e-30}
        learner = of(student_config(path, distillation=own, policy=policy))
        fill(learner, 0)
        learner.batch._truncated_TN[2, 1] = True
        for state in learner.batch._state.values():
            state.normal_(generator=torch.Generator().manual_seed(5))
        losses.append(learner.update(0)["Loss/behavior"])
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    learner.batch._state["actor_h"].zero_()
    assert learner.update(1)["Loss/behavior"] != losses[0]


@pytest.mark.parametrize(("length", "steps"), [(6, [6]), (4, [3, 3]), (5, [3, 3]), (1, [1] * 6)])
def test_windows_are_equal_and_leave_nothing_out(
    tmp_path: Path, length: int, steps: list[int]
) -> None:
    own = {"gradient_length": length}
    learner = of(student_config(teacher(tmp_path), distillation=own))
    windows = list(learner._windows())
    assert [s.stop - s.start for _, s in windows] == steps
    rows = [row for window, _ in windows for row in range(B * T)[window]]
    assert rows == list(range(B * T))
    fill(learner, 0)
    assert learner.update(0)["Loss/minibatch_steps"] == len(steps)


def test_at_the_teachers_own_weights_nothing_is_left_to_learn(tmp_path: Path) -> None:
    path = teacher(tmp_path)
    same = {"hidden_dims": [5], "obs_groups": {"actor": ["full"]}}
    learner = of(student_config(path, policy=same))
    theirs = load_checkpoint(path).tensors
    for name, tensor in learner.policy.state_dict().items():
        source = name.replace("normalizers.full", "normalizers.policy")
        tensor.copy_(theirs[f"policy.{source}"])
    fill(learner, 0)
    before = learner_state(learner)
    assert learner.update(0)["Loss/behavior"] == 0.0
    kept = [name for name in changed(before, learner_state(learner)) if "normal" not in name]
    assert kept == ["optimizer.step"]


def test_statistics_change_once_after_the_update_and_there_is_no_critic(tmp_path: Path) -> None:
    learner = of(student_config(teacher(tmp_path)))
    fill(learner, 0)
    learner.update(0)
    seen = learner.batch.obs_N["policy"]
    state = learner.policy.state_dict()
    torch.testing.assert_close(state["actor_normalizers.policy.mean"], seen.mean(0))
    assert not [name for name in state if "critic" in name or "value" in name]
    assert list(learner.policy.critic_groups) == []
    assert list(learner.policy.parameter_groups()) == ["actor"]


def test_two_ranks_learn_what_one_learner_of_all_samples_does(tmp_path: Path) -> None:
    path, one_at_a_time = teacher(tmp_path), threading.Lock()
    own = {"gradient_length": 2, "max_grad_norm": 0.5, "update_epochs": 2}

    def of_rank(group: Group) -> object:
        with one_at_a_time:  # weights are drawn from the process's generator
            learner = of(student_config(path, distillation=own), group=group)
        states = []
        for iteration in range(3):
            fill(learner, iteration, 2, group.rank)
            learner.update(iteration)
            states.append(learner_state(learner))
        return states

    ranks = on_ranks(2, of_rank)
    alone = of(student_config(path, 2 * B, distillation=own), spec_of(2 * B))
    for iteration in range(3):
        fill(alone, iteration, 2)
        alone.update(iteration)
        expected = learner_state(alone)
        assert changed(ranks[0][iteration], ranks[1][iteration]) == []
        for name, tensor in expected.items():
            found = ranks[0][iteration][name]
            torch.testing.assert_close(found, tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_an_update_with_nan_is_undone_and_too_many_end_the_run(tmp_path: Path) -> None:
    config = student_config(teacher(tmp_path), ppo={"max_bad_updates": 1})
    learner = of(config)
    fill(learner, 0)
    learner.update(0)
    before = learner_state(learner)
    fill(learner, 1)
    learner.batch._obs["full"][3, 1, 0] = torch.nan  # the teacher's alone: in the second window
    metrics = learner.update(1)
    assert metrics["Loss/undone"] == 1.0 and metrics["Loss/minibatch_steps"] == 0.0
    assert changed(before, learner_state(learner)) == []
    with pytest.raises(NonFiniteError, match="2 updates in a row"):
        learner.update(2)
    fill(learner, 2)
    assert learner.update(2)["Loss/undone"] == 0.0
    assert changed(before, learner_state(learner))


# ------------------------------------------------------------------ teachers


@pytest.mark.parametrize(
    ("theirs", "ours", "own", "says"),
    [
        ({}, {}, {"teacher_groups": ["policy"]},
         "reads policy, float32 [4]; here policy: is float32 [3], of policy, full"),
        ({}, {}, {"teacher_groups": ["state"]},
         "reads policy, float32 [4]; here state: there is no such group, of policy, full"),
        ({}, {}, {"teacher_groups": ["full", "policy"]},
         "distillation.teacher_groups=[full, policy]: the teacher reads 1: policy"),
        ({"action": continuous((-1.0, 1.0))}, {}, {},
         "its actions are of 1 numbers, this env's of 2"),
        ({"action": discrete(3)}, {}, {}, "only continuous actions are distilled"),
        ({"squash": "tanh"}, {}, {},
         "was trained with policy.squash=tanh, here policy.squash=none"),
        ({}, {"distribution": "beta"}, {},
         "was trained with policy.squash=none, here policy.distribution=beta"),
        ({"squash": "tanh", "action": continuous((-1.0, 1.0), (-1.0, 1.0))},
         {"squash": "tanh"}, {}, "its env's bounds are others"),
    ],
)  # fmt: skip
def test_a_teacher_that_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, theirs: dict[str, Any], ours: dict[str, Any], own: dict[str, Any], says: str
) -> None:
    action = theirs.pop("action", ACTION)
    path = teacher(tmp_path, spec_of(2, THEIRS, action), **theirs)
    config = student_config(path, distillation=own, policy=ours)
    with pytest.raises(ConfigError) as refused:
        of(config)
    assert says in str(refused.value) and "\n" not in str(refused.value)
    assert "distillation.teacher" in str(refused.value)


def test_the_teachers_checkpoint_and_groups_are_settled_before_the_run(tmp_path: Path) -> None:
    path = teacher(tmp_path / "run" / "checkpoints")
    config = student_config(tmp_path / "run", distillation={"teacher_groups": None})
    settle_teacher(config)
    assert config.distillation.teacher == str(path)
    assert config.teacher_groups == ["policy"]


@pytest.mark.parametrize("what", ["nothing", "an empty run"])
def test_a_teacher_that_is_not_there_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "run"
    if what == "nothing":
        with pytest.raises(ConfigError, match="run: no such file or directory"):
            student_config(path)
        with pytest.raises(ConfigError, match="distillation.teacher: missing"):
            run_config(algorithm={"kind": "distillation"})
        return
    path.mkdir()
    with pytest.raises(CheckpointError, match="distillation.teacher=.*run: no checkpoint"):
        settle_teacher(student_config(path))


@pytest.mark.parametrize("squash", ["none", "tanh"])
def test_an_exported_teacher_says_what_its_run_does(tmp_path: Path, squash: str) -> None:
    pytest.importorskip("onnxruntime")
    path = teacher(tmp_path / "run" / "checkpoints", squash=squash)
    files = export(load_checkpoint(path), tmp_path / "files").directory
    answers = []
    for source in (path, files, files / "policy.onnx"):
        config = student_config(source, policy={"squash": squash})
        settle_teacher(config)
        learner = of(config)
        fill(learner, 0)
        answers.append(wanted_of(learner))
    assert config.distillation.teacher == str(files / "policy.onnx")
    if squash == "none":  # what is exported is clipped to the env's bounds
        answers[0] = answers[0].clamp(-2.0, 2.0)
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(answers[1], answers[2])
    assert learner.update(0)["Loss/undone"] == 0.0
