"""An env's box of actions in float32. Used wherever a policy acts or learns."""

import math
from collections.abc import Sequence

import torch

from isaac_hydra_ext.envs.contract import ActionSpec
from isaac_hydra_ext.errors import ConfigError


def limits(
    spec: ActionSpec, clip: float | None, device: str | torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the least and the largest action, [A] each, that the env may be given.

    Args:
        spec: Of continuous actions.
        clip: Narrows the env's bounds to +-clip.
        device: Where to put them.

    Raises:
        ConfigError: `clip` leaves no action.
    """
    low, high = _within(spec.low, math.inf).to(device), _within(spec.high, -math.inf).to(device)
    limit = math.inf if clip is None else clip
    low, high = low.clamp(min=-limit), high.clamp(max=limit)
    if clip is not None and bool((low > high).any()):
        raise ConfigError(
            f"policy.clip_actions={clip:g}: no action within +-{clip:g} is one of the "
            f"env's, which are {list(spec.low)} to {list(spec.high)}"
        )
    return low, high


def interval(low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return center and half the length of what [-1, 1] is mapped onto.

    That is the box where both bounds are finite, else the interval of length 2 within them that is
    nearest to [-1, 1].
    """
    both = low.isfinite() & high.isfinite()
    above, below = low.clamp(min=-1.0), high.clamp(max=1.0) - 2.0
    begin = torch.where(both, low, torch.where(high.isfinite(), below, above))
    end = torch.where(both, high, begin + 2.0)
    return begin / 2 + end / 2, end / 2 - begin / 2


def _within(bounds: Sequence[float], towards: float) -> torch.Tensor:
    """Return the bounds as float32, rounded into the box where they have to be rounded.

    What float32 cannot hold is infinite, as some envs say "unbounded" with such a number.
    """
    exact = torch.tensor(bounds, dtype=torch.float64)
    rounded = exact.float()
    outside = rounded.double() < exact if towards > 0 else rounded.double() > exact
    inside = torch.nextafter(rounded, torch.full_like(rounded, towards))
    return torch.where(outside & rounded.isfinite(), inside, rounded)
