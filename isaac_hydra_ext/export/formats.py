"""The formats that a policy is exported in, and the proof that each is the policy.

Runs in the process of `appo export`, on the CPU.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from isaac_hydra_ext.envs.contract import EnvSpec
from isaac_hydra_ext.errors import ExportError, shown
from isaac_hydra_ext.export.remembering import over_steps, reference_params
from isaac_hydra_ext.models.actor_critic import ActorCritic, normalizers_of
from isaac_hydra_ext.models.beta import Beta
from isaac_hydra_ext.models.distributions import Categorical, Gaussian
from isaac_hydra_ext.models.recurrent import RecurrentActorCritic

TOLERANCE = 1e-5  # of the largest number that goes into an output
OPSET = 17  # of ONNX Runtime 1.12 and newer
ACTIONS, LOGITS = "actions", "logits"


class DeployedPolicy(nn.Module):
    """Raw observations in, the env's actions out.

    Attributes:
        inputs: Name of the input -> obs group, in the order of the actor's.
        outputs: Names.
        state: Input -> output of what a policy with memory remembers, named as rsl_rl names them.
            It is zero where an episode begins.
        fresh: The state of one env then, [layers, 1, H] each.
    """

    low: torch.Tensor
    high: torch.Tensor
    center: torch.Tensor
    scale: torch.Tensor

    def __init__(self, policy: ActorCritic) -> None:
        """Share the tensors of `policy`'s actor.

        What the distribution's `to_env` reads is held as buffers, so that it moves to a GPU with
        the rest.
        """
        super().__init__()
        groups = policy.actor_groups
        # One group is called as Isaac Lab's own exporters call it.
        self.inputs = dict(zip(["obs"] if len(groups) == 1 else groups, groups, strict=True))
        distribution = policy.distribution
        self.discrete = isinstance(distribution, Categorical)
        self.outputs = [ACTIONS, LOGITS] if self.discrete else [ACTIONS]
        self.squash = isinstance(distribution, Gaussian) and distribution.squash
        self.scaled = self.squash or isinstance(distribution, Beta)
        if not self.discrete:
            for name in ("low", "high", *(("center", "scale") if self.scaled else ())):
                self.register_buffer(name, getattr(distribution, name))
        fresh = policy.initial_state(1)
        self.state = {f"{name[-1]}_in": f"{name[-1]}_out" for name in fresh}
        self.fresh = [x.transpose(0, 1) for x in fresh.values()]
        self.policy = policy
        del policy.critic, policy.critic_normalizers, policy.value_normalizer
        del policy.critic_encoders

    def forward(self, *given: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Act deterministically.

        Args:
            *given: One [N, ...] tensor an obs group, in the order of `inputs`; then the state,
                [layers, N, H] each.

        Returns:
            Actions [N, A]; for discrete ones also the logits [N, sum of choices]; then the state.
        """
        obs = dict(zip(self.inputs.values(), given, strict=False))
        after: tuple[torch.Tensor, ...] = ()
        if self.state:
            assert isinstance(self.policy, RecurrentActorCritic)
            params, after = self.policy.exported_step(obs, given[len(obs) :])
        else:
            params = self.policy.action_params(obs)
        mode = self.policy.distribution.mode(params)
        if self.discrete:
            return mode, params, *after
        if self.scaled:
            mode = self.center + self.scale * (torch.tanh(mode) if self.squash else mode)
        actions = torch.clamp(mode, self.low, self.high)
        return (actions, *after) if after else actions


def normalisation(policy: ActorCritic) -> dict[str, tuple[list[float], list[float]] | None]:
    """Return mean and std that each of the actor's obs groups is normalised with, flattened."""
    normalizers = normalizers_of(policy.actor_groups, policy.actor_normalizers)
    scales = [None if n is None else (n.whole_mean.tolist(), n.std.tolist()) for n in normalizers]
    return dict(zip(policy.actor_groups, scales, strict=True))


def sample_inputs(policy: ActorCritic, spec: EnvSpec, count: int) -> list[torch.Tensor]:
    """Draw the actor's obs groups [count, ...] as the normaliser has seen them, in their dtypes."""
    generator = torch.Generator().manual_seed(0)
    scales = normalisation(policy)
    samples = []
    for group in policy.actor_groups:
        shape, dtype = (count, *spec.obs[group].shape), getattr(torch, spec.obs[group].dtype)
        if dtype.is_floating_point:
            noise = torch.randn((count, max(1, math.prod(shape[1:]))), generator=generator)
            if (scale := scales[group]) is not None:
                noise = noise * torch.tensor(scale[1]) + torch.tensor(scale[0])
            samples.append(noise.reshape(shape).to(dtype))
        else:
            high = 2 if dtype == torch.bool else min(torch.iinfo(dtype).max, 255) + 1
            samples.append(torch.randint(high, shape, generator=generator).to(dtype))
    return samples


@dataclass(frozen=True)
class Reference:
    """What the policy itself does, and how far a file may be from it.

    Attributes:
        outputs: The env's actions [N, A], and the logits of discrete ones.
        nvec: Choices of each discrete action; empty for continuous ones.
        allowed: Rounding grows with the numbers that are added up: 1e-5 of the largest network
            output or action, and 1e-5 where all are below 1.
    """

    outputs: list[np.ndarray]
    nvec: tuple[int, ...]
    allowed: float


@torch.no_grad()
def reference(policy: ActorCritic, obs: Sequence[torch.Tensor]) -> Reference:
    """Act as `appo eval` would, on the actor's obs groups."""
    distribution = policy.distribution
    if policy.initial_state(1):
        params = reference_params(policy, obs)
    else:
        params = policy.action_params(dict(zip(policy.actor_groups, obs, strict=True)))
    mode = distribution.mode(params)
    actions = distribution.to_env(mode)
    if isinstance(distribution, Categorical):
        outputs, nvec, raw = [actions.numpy(), params.numpy()], tuple(distribution.nvec), params
    else:
        outputs, nvec, raw = [actions.numpy()], (), mode
    largest = max(1.0, float(raw.abs().max()), float(actions.abs().max()))
    return Reference(outputs, nvec, TOLERANCE * largest)


@torch.no_grad()
def write_and_run(
    module: DeployedPolicy, obs: Sequence[torch.Tensor], onnx_path: Path, pt_path: Path
) -> list[list[np.ndarray]]:
    """Write both files; returns the outputs of each for `obs`.

    The ONNX file is read back. TorchScript's reader is an unpickler, which this package never runs:
    its outputs are those of the module that was saved.

    Raises:
        ExportError: A network or an encoder, another package's mostly, does what a format has not.
    """
    with warnings.catch_warnings():
        # TorchScript is what C++ and Isaac Lab's users load; tracing is in every release from 2.5
        # on, and needs no onnxscript.
        warnings.simplefilter("ignore", DeprecationWarning)
        # With its state as an input an LSTM has no fixed batch, whatever PyTorch warns of.
        warnings.filterwarnings("ignore", message="Exporting a model to ONNX with a batch_size")
        # Its checks of shapes are of those that were traced; `over_steps` calls it with others.
        warnings.filterwarnings("ignore", message="Converting a tensor", module="torch.nn")
        examples = (*obs, *(x.repeat(1, len(obs[0]), 1) for x in module.fresh))
        path = onnx_path
        try:
            _write_onnx(module, examples, path)
            outputs = [_called(_onnx_run(path, module), module, obs)]
            path = pt_path
            traced = torch.jit.trace(module, examples, check_trace=False)  # `compare` is the check
            torch.jit.save(traced, str(path))
            return [*outputs, _called(traced, module, obs)]
        except (MemoryError, OSError):
            raise
        except Exception as e:  # of onnx, onnxruntime, torch
            why = f"{type(e).__name__}: {shown(e, 300)}"
            raise ExportError(f"{path.name}: cannot be made of these networks ({why})") from e


def _write_onnx(module: DeployedPolicy, examples: tuple[torch.Tensor, ...], path: Path) -> None:
    import onnx

    first = {name: {0: "N"} for name in (*module.inputs, *module.outputs)}
    second = {name: {1: "N"} for name in (*module.state, *module.state.values())}
    torch.onnx.export(
        module,
        examples,
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=[*module.inputs, *module.state],
        output_names=[*module.outputs, *module.state.values()],
        dynamic_axes={**first, **second},
    )
    onnx.checker.check_model(str(path))


def _onnx_run(path: Path, module: DeployedPolicy) -> Any:
    """Return the file as a function of what `DeployedPolicy.forward` is given."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    outputs = [*module.outputs, *module.state.values()]

    def run(*part: torch.Tensor) -> list[np.ndarray]:
        names = (*module.inputs, *module.state)
        feed = {name: x.numpy() for name, x in zip(names, part, strict=True)}
        return [np.asarray(output) for output in session.run(outputs, feed)]

    return run


def _called(function: Any, module: DeployedPolicy, obs: Sequence[torch.Tensor]) -> list[np.ndarray]:
    """Call with the first row alone and with the rest: N is not what was traced."""
    if module.state:
        return _as_arrays(over_steps(function, module.fresh, obs))
    first = _as_arrays(function(*(x[:1] for x in obs)))
    rest = _as_arrays(function(*(x[1:] for x in obs)))
    return [np.concatenate(parts) for parts in zip(first, rest, strict=True)]


def _as_arrays(outputs: Any) -> list[np.ndarray]:
    parts = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    return [x.numpy() if isinstance(x, torch.Tensor) else x for x in parts]


def compare(name: str, found: Sequence[np.ndarray], expected: Reference) -> float:
    """Return the largest difference of float outputs.

    Discrete actions are compared with the file's own logits: where two logits are nearly equal,
    which one is larger is a matter of rounding.

    Args:
        name: Of the file.
        found: Its outputs.
        expected: The policy's.

    Raises:
        ExportError: They differ by more than is allowed.
    """
    values, wanted = found[-1], expected.outputs[-1]
    if values.shape != wanted.shape or found[0].dtype != expected.outputs[0].dtype:
        raise ExportError(
            f"{name}: gives {values.shape} of {found[0].dtype}, not {wanted.shape} of "
            f"{expected.outputs[0].dtype}; nothing was written"
        )
    difference = float(np.max(np.abs(values - wanted), initial=0.0))
    if not difference <= expected.allowed:  # so that NaN is refused
        raise ExportError(
            f"{name}: differs from the policy by {difference:.1e} (allowed: "
            f"{expected.allowed:.1e}); nothing was written"
        )
    if expected.nvec:
        parts = np.split(values, np.cumsum(expected.nvec)[:-1], axis=-1)
        if not np.array_equal(found[0], np.stack([p.argmax(-1) for p in parts], axis=-1)):
            raise ExportError(f"{name}: its actions are not its best logits; nothing was written")
    return difference
