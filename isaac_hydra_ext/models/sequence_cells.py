"""What one step of an LSTM or GRU does besides its matrix product, forwards and backwards.

Plain torch operations, on any device: what the kernels of `sequence_kernels.py` are tested against,
and what runs where these cannot be built. All of it is [C, ...], computed in float32 whatever the
tensors are, and written into the tensors named `to_...`; `keep_C1` of the next step turns the state
that it reads, and the gradient that it gives, into zero where an episode begins with it.
"""

import torch


def lstm(
    gates_CG: torch.Tensor,
    c_before_CH: torch.Tensor,
    keep_C1: torch.Tensor,
    to_active_CG: torch.Tensor,
    to_c_CH: torch.Tensor,
    to_h_CH: torch.Tensor,
    to_next_c_CH: torch.Tensor,
    to_next_h_CH: torch.Tensor,
) -> None:
    """Write the activated gates, the state, and the state that the next step reads."""
    i, f, g, o = gates_CG.float().chunk(4, dim=1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    c = f * c_before_CH + i * g
    h = o * c.tanh()
    to_active_CG.copy_(torch.cat([i, f, g, o], dim=1))
    to_c_CH.copy_(c)
    to_h_CH.copy_(h)
    to_next_c_CH.copy_(c * keep_C1)
    to_next_h_CH.copy_(h * keep_C1)


def lstm_backward(
    grad_h_CH: torch.Tensor,
    grad_next_h_CH: torch.Tensor,
    grad_next_c_CH: torch.Tensor,
    keep_C1: torch.Tensor,
    active_CG: torch.Tensor,
    c_CH: torch.Tensor,
    c_before_CH: torch.Tensor,
    to_grad_gates_CG: torch.Tensor,
    to_grad_c_CH: torch.Tensor,
) -> None:
    """Write the gradients of the gates and of c before the step."""
    i, f, g, o = active_CG.float().chunk(4, dim=1)
    h_grad = grad_h_CH.float() + grad_next_h_CH.float() * keep_C1
    tanh_c = c_CH.tanh()
    c_grad = grad_next_c_CH * keep_C1 + h_grad * o * (1 - tanh_c * tanh_c)
    of_gates = [
        c_grad * g * i * (1 - i),
        c_grad * c_before_CH * f * (1 - f),
        c_grad * i * (1 - g * g),
        h_grad * tanh_c * o * (1 - o),
    ]
    to_grad_gates_CG.copy_(torch.cat(of_gates, dim=1))
    to_grad_c_CH.copy_(c_grad * f)


def gru(
    gates_x_CG: torch.Tensor,
    gates_h_CG: torch.Tensor,
    before_CH: torch.Tensor,
    keep_C1: torch.Tensor,
    to_active_CA: torch.Tensor,
    to_h_CH: torch.Tensor,
    to_next_CH: torch.Tensor,
    to_next_h_CH: torch.Tensor,
) -> None:
    """Write r, z, n and the state's part of n side by side, and h: as it is, and for the next step.

    `to_next_CH` is float32, `to_next_h_CH` what the matrix product reads.
    """
    x_r, x_z, x_n = gates_x_CG.float().chunk(3, dim=1)
    h_r, h_z, h_n = gates_h_CG.float().chunk(3, dim=1)
    r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    n = (x_n + r * h_n).tanh()
    h = n + z * (before_CH - n)
    to_active_CA.copy_(torch.cat([r, z, n, h_n], dim=1))
    to_h_CH.copy_(h)
    to_next_CH.copy_(h * keep_C1)
    to_next_h_CH.copy_(h * keep_C1)


def gru_backward(
    grad_h_CH: torch.Tensor,
    grad_next_CH: torch.Tensor,
    keep_C1: torch.Tensor,
    active_CA: torch.Tensor,
    before_CH: torch.Tensor,
    to_grad_x_CG: torch.Tensor,
    to_grad_h_CG: torch.Tensor,
    to_grad_before_CH: torch.Tensor,
) -> None:
    """Write the gradients of both kinds of gates, and the part of h's that goes past them."""
    r, z, n, h_n = active_CA.float().chunk(4, dim=1)
    grad = grad_h_CH.float() + grad_next_CH * keep_C1
    of_n = grad * (1 - z) * (1 - n * n)
    of_r = of_n * h_n * r * (1 - r)
    of_z = grad * (before_CH - n) * z * (1 - z)
    to_grad_x_CG.copy_(torch.cat([of_r, of_z, of_n], dim=1))
    to_grad_h_CG.copy_(torch.cat([of_r, of_z, of_n * r], dim=1))
    to_grad_before_CH.copy_(grad * z)
