"""Encoders: from one obs group as the rollout holds it, a picture mostly, to a vector of features.

Used by the learner, by every collector and wherever a policy is played. A package registers its own
in the entry-point group `isaac_hydra_ext.encoders`, as `build(settings, spec) -> nn.Module`, and is
chosen by `policy.encoders.<group>.kind`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from isaac_hydra_ext.config.encoders import CNN, MLP, kind_of, read_cnn, read_mlp
from isaac_hydra_ext.config.policy_schema import PolicyConfig
from isaac_hydra_ext.envs.contract import EnvSpec, TensorSpec
from isaac_hydra_ext.errors import ConfigError, did_you_mean
from isaac_hydra_ext.models.networks import check_contract
from isaac_hydra_ext.system import entry_points

EVERY_PICTURE = "*"  # of `policy.encoders`: what has no encoder of its own
MAX_FLAT = 1024  # numbers of a picture that an MLP reads without being told to


def make_encoder(group: str, settings: Mapping[str, Any] | None, spec: TensorSpec) -> nn.Module:
    """Build a function of [N, *spec.shape] in the group's dtype -> [N, F] float, fresh weights.

    A registered encoder is `build(settings, spec) -> nn.Module` with float32 parameters and nothing
    else that it remembers or draws, as registered networks are.

    Args:
        group: Its name.
        settings: `policy.encoders.<group>`.
        spec: Of the group, as the rollout holds it.

    Raises:
        ConfigError: The group is nothing that it encodes, or it breaks this contract.
    """
    where, kind = f"policy.encoders.{group}", kind_of(settings)
    # Imported here, as most policies have no encoder, and each worker would import them.
    if kind == CNN:
        from isaac_hydra_ext.models.cnn_encoder import CnnEncoder

        return CnnEncoder(read_cnn(group, settings), spec, where)
    if kind == MLP:
        from isaac_hydra_ext.models.mlp_encoder import MlpEncoder

        return MlpEncoder(read_mlp(group, settings), spec)
    build = entry_points.load(f"{where}.kind", kind, entry_points.ENCODERS)
    try:
        encoder = build(dict(settings or {}), spec)
        if not isinstance(encoder, nn.Module):
            raise ConfigError(f"{where}: a {type(encoder).__name__}, not an nn.Module")
        sample = _sample(spec)
        with torch.no_grad():
            first, second = encoder(sample), encoder(sample)
    except (TypeError, ValueError, RuntimeError, KeyError) as e:
        text = " ".join(str(e).split())
        raise ConfigError(f"{where} cannot be built: {type(e).__name__}: {text}") from e
    if first.dim() != 2 or first.shape[0] != 3:
        raise ConfigError(f"{where} gives {tuple(first.shape)} for 3 pictures, not (3, features)")
    check_contract(encoder, first, second, where)
    return encoder


@torch.no_grad()
def num_features(encoder: nn.Module, spec: TensorSpec) -> int:
    """Return F, as the encoder gives it."""
    return encoder(_sample(spec)).shape[1]


def _sample(spec: TensorSpec) -> torch.Tensor:
    return torch.zeros((3, *spec.shape), dtype=getattr(torch, spec.dtype))


def with_every_picture(config: PolicyConfig, spec: EnvSpec, read: Sequence[str]) -> PolicyConfig:
    """Return the policy with an encoder for each picture that is read, where `*` gives them one.

    Args:
        config: The policy's.
        spec: Of the env; a picture has three dimensions or more.
        read: The groups that actor or critic reads.
    """
    given = dict(config.encoders)
    if EVERY_PICTURE not in given:
        return config
    usual = given.pop(EVERY_PICTURE)
    pictures = {group: usual for group in read if len(spec.obs[group].shape) >= 3}
    return replace(config, encoders={**pictures, **given})


def check_groups(config: PolicyConfig, spec: EnvSpec, read: Sequence[str]) -> None:
    """Check that every encoder has its group, and that every large picture that is read has one.

    Args:
        config: The policy's.
        spec: Of the env.
        read: The groups that actor or critic reads.

    Raises:
        ConfigError: Names the group, and how many numbers it is.
    """
    for group in config.encoders:
        if group not in spec.obs:
            hint = did_you_mean(group, spec.obs) or f"; there are {', '.join(spec.obs)}"
            raise ConfigError(f"policy.encoders.{group}: the env has no group {group!r}{hint}")
    for group in read:
        shape = spec.obs[group].shape
        size = math.prod(shape)
        by_mlp = config.network == "mlp"
        if group in config.encoders:
            by_mlp = kind_of(config.encoders[group]) == MLP
        if by_mlp and len(shape) > 1 and size > MAX_FLAT and not config.flatten_images:
            raise ConfigError(
                f"the obs group {group} is a picture, {'x'.join(map(str, shape))} = {size:,} "
                f"numbers: give it an encoder, +policy.encoders={{{group}: {{kind: cnn}}}}, or set "
                "policy.flatten_images=true"
            )
