"""The one recurrence behind GAE and V-trace, backwards in time. Runs on the learner's device.

On a GPU it is one kernel, a column of time per thread, instead of T kernels of one row each. The
loop in torch is what that kernel is tested against, and what runs everywhere else.
"""

import torch

from isaac_hydra_ext.system import compiler


def reverse_scan(a_TN: torch.Tensor, b_TN: torch.Tensor) -> torch.Tensor:
    """Return float32 x_TN with x[t] = a[t] + b[t] * x[t + 1], and x[T] = 0."""
    if a_TN.device.type == "cuda" and not compiler.why_not("cuda"):
        from isaac_hydra_ext.learner.ppo.scan_kernel import fused_scan

        return fused_scan(a_TN, b_TN)
    return looped_scan(a_TN, b_TN)


def looped_scan(a_TN: torch.Tensor, b_TN: torch.Tensor) -> torch.Tensor:
    """Compute it with torch operations, on any device."""
    x_TN = torch.empty_like(a_TN)
    x_N = torch.zeros_like(a_TN[0])
    for t in reversed(range(a_TN.shape[0])):
        x_N = a_TN[t] + b_TN[t] * x_N
        x_TN[t] = x_N
    return x_TN
