"""The Mamba layer: a gated, causal mixing of tokens by a selective state-space model."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.ops import selective_scan
from models.ops.precision import at_least_fp32

_STEP_MIN, _STEP_MAX, _STEP_FLOOR = 1e-3, 0.1, 1e-4


class Mamba(nn.Module):
    """One-directional Mamba (Gu and Dao 2023, arXiv:2312.00752, figure 3).

    Parameters have the names, shapes and initial distributions of mamba-ssm's `Mamba`, so that weights can
    be exchanged. The scan runs in fp32 at least, under autocast too.

    Args:
        dim: channels of the tokens.
        d_state: states per inner channel.
        d_conv: extent of the causal convolution in tokens.
        expand: inner channels per channel.
    """

    def __init__(self, dim: int, d_state: int = 16, d_conv: int = 4, expand: int = 2) -> None:
        super().__init__()
        inner = expand * dim
        step_rank = math.ceil(dim / 16)
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, d_conv, padding=d_conv - 1, groups=inner)
        self.x_proj = nn.Linear(inner, step_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(step_rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self._split = (step_rank, d_state, d_state)
        self._initialise_step_sizes()

    @torch.no_grad()
    def _initialise_step_sizes(self) -> None:
        """Let the step sizes softplus(bias) start log-uniform between `_STEP_MIN` and `_STEP_MAX`."""
        bound = self._split[0] ** -0.5
        self.dt_proj.weight.uniform_(-bound, bound)
        log_step = torch.empty_like(self.dt_proj.bias).uniform_(math.log(_STEP_MIN), math.log(_STEP_MAX))
        step = log_step.exp().clamp(min=_STEP_FLOOR)
        self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus

    def forward(self, tokens: Tensor) -> Tensor:
        """Mix tokens (B, L, dim) along L, each from itself and those before it; same shape."""
        length = tokens.shape[1]
        x, z = self.in_proj(tokens).mT.chunk(2, dim=1)
        x = F.silu(self.conv1d(x)[..., :length])
        step, B, C = self.x_proj(x.mT).split(self._split, dim=-1)
        y = selective_scan(
            x,
            F.linear(step, self.dt_proj.weight).mT,
            -torch.exp(self.A_log.to(at_least_fp32(self.A_log.dtype))),
            B.mT,
            C.mT,
            self.D,
            z,
            self.dt_proj.bias,
            delta_softplus=True,
        )
        return self.out_proj(y.mT)
