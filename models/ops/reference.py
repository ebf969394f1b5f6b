"""The selective scan step by step, as its definition reads: the oracle the other backends are tested against."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.precision import at_least_fp32


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> Tensor:
    """See `models.ops.selective_scan`; keeps every state, so it suits short sequences only."""
    batch, channels, length = u.shape
    state_dtype = at_least_fp32(u.dtype)
    x, step, A = u.to(state_dtype), delta.to(state_dtype), A.to(state_dtype)
    if delta_bias is not None:
        step = step + delta_bias.to(state_dtype)[:, None]
    if delta_softplus:
        step = F.softplus(step)
    per_channel = channels // B.shape[1]
    B, C = (tensor.to(state_dtype).repeat_interleave(per_channel, dim=1) for tensor in (B, C))  # (B, D, N, L)

    state = x.new_zeros(batch, channels, A.shape[1])
    outputs = []
    for t in range(length):
        decay = torch.exp(step[:, :, t, None] * A)
        state = decay * state + step[:, :, t, None] * B[..., t] * x[:, :, t, None]
        outputs.append((state * C[..., t]).sum(-1))
    y = torch.stack(outputs, dim=-1)
    if D is not None:
        y = y + D.to(state_dtype)[:, None] * x
    if z is not None:
        y = y * F.silu(z.to(state_dtype))
    return y.to(u.dtype)
