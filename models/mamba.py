"""Mamba layers: gated mixing of tokens by selective state-space models that read them in one or several orders."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.ops import FORWARD, MixerWeights, Order, mix_orders, selective_scan
from models.ops.precision import at_least_fp32

_STEP_MIN, _STEP_MAX, _STEP_FLOOR = 1e-3, 0.1, 1e-4


class SelectiveSSM(nn.Module):
    """A selective state-space model over channels: step sizes and projections that the input chooses, and the scan.

    Parameters have the names, shapes and initial distributions of mamba-ssm's `Mamba`. The scan runs in fp32 at
    least, under autocast too.

    Args:
        channels: of the sequence.
        step_rank: rank of the projection that gives the step sizes.
        d_state: states per channel.
        long_memory: start with step sizes log-uniform between 0.001 and 0.1, as Mamba does; otherwise the projection
            starts as PyTorch's linear layers do, which gives steps near softplus(0) = 0.69.
    """

    def __init__(self, channels: int, step_rank: int, d_state: int, *, long_memory: bool = True) -> None:
        super().__init__()
        self.x_proj = nn.Linear(channels, step_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(step_rank, channels)
        self.A_log = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))
        self._split = (step_rank, d_state, d_state)
        if long_memory:
            self._initialise_step_sizes()

    @torch.no_grad()
    def _initialise_step_sizes(self) -> None:
        """Let the step sizes softplus(bias) start log-uniform between `_STEP_MIN` and `_STEP_MAX`."""
        bound = self._split[0] ** -0.5
        self.dt_proj.weight.uniform_(-bound, bound)
        log_step = torch.empty_like(self.dt_proj.bias).uniform_(math.log(_STEP_MIN), math.log(_STEP_MAX))
        step = log_step.exp().clamp(min=_STEP_FLOOR)
        self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus

    def scan(self, x: Tensor, z: Tensor | None = None, *, reverse: bool = False) -> Tensor:
        """Scan x (B, channels, L), gated by silu(z) where z is given; same shape. `reverse` runs from the end."""
        step, B, C = self.x_proj(x.mT).split(self._split, dim=-1)
        return selective_scan(
            x,
            F.linear(step, self.dt_proj.weight).mT,
            -torch.exp(self.A_log.to(at_least_fp32(self.A_log.dtype))),
            B.mT,
            C.mT,
            self.D,
            z,
            self.dt_proj.bias,
            delta_softplus=True,
            reverse=reverse,
        )


class CausalSSM(SelectiveSSM):
    """The parameters of a `SelectiveSSM` and of the causal depth-wise convolution before it, `d_conv` tokens wide."""

    def __init__(self, channels: int, step_rank: int, d_state: int, d_conv: int, *, long_memory: bool = True) -> None:
        super().__init__(channels, step_rank, d_state, long_memory=long_memory)
        self.conv1d = nn.Conv1d(channels, channels, d_conv, padding=d_conv - 1, groups=channels)


class Mamba(CausalSSM):
    """One-directional Mamba (Gu and Dao 2023, arXiv:2312.00752, figure 3).

    Args:
        dim: channels of the tokens.
        d_state: states per inner channel.
        d_conv: extent of the causal convolution in tokens.
        expand: inner channels per channel.
    """

    def __init__(self, dim: int, d_state: int = 16, d_conv: int = 4, expand: int = 2) -> None:
        super().__init__(expand * dim, step_rank(dim), d_state, d_conv)
        self.in_proj = nn.Linear(dim, 2 * expand * dim, bias=False)
        self.out_proj = nn.Linear(expand * dim, dim, bias=False)

    def forward(self, tokens: Tensor, _size: Sequence[int] = ()) -> Tensor:
        """Mix tokens (B, L, dim) along L, each from itself and those before it; same shape.

        The size of the volume, which layers that read it in other orders need, is taken and not used.
        """
        return mix_orders(tokens, _weights(self.in_proj, (self,), self.out_proj), (FORWARD,))


class MultiOrderMamba(nn.Module):
    """Mamba whose inner channels are read in several orders, the results summed before the projection back.

    Projections in and out are shared; each order has a convolution, step sizes and states of its own, and is gated
    within. Two orders are the bidirectional layer of Vision Mamba (Zhu et al. 2024, arXiv:2401.09417), three the
    tri-orientated one of SegMamba (arXiv:2401.13560v4, section 2.3), both as their authors' code has them: only the
    forward order starts with Mamba's small steps.

    Args:
        dim: channels of the tokens.
        orders: among ``forward``, ``backward`` and ``slices``.
        num_slices: runs that the sequence is cut into in the order ``slices``, which visits the first token of each
            run, then the second of each; None for as many as the volume is deep.
        d_state: states per inner channel.
        d_conv: extent of the causal convolutions in tokens.
        expand: inner channels per channel.
    """

    def __init__(
        self, dim: int, orders: Sequence[str], num_slices: int | None, d_state: int, d_conv: int, expand: int
    ) -> None:
        super().__init__()
        inner = expand * dim
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.ssms = nn.ModuleList(
            CausalSSM(inner, step_rank(dim), d_state, d_conv, long_memory=order == "forward") for order in orders
        )
        self.out_proj = nn.Linear(inner, dim, bias=False)
        self.orders = tuple(orders)
        self.num_slices = num_slices

    def forward(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """Mix tokens (B, D·H·W, dim), W fastest, of a volume of `size` (D, H, W); same shape."""
        slices = self.num_slices or size[0]
        orders = [Order(kind, slices if kind == "slices" else 1) for kind in self.orders]
        return mix_orders(tokens, _weights(self.in_proj, cast(Iterable[CausalSSM], self.ssms), self.out_proj), orders)


class CrossScanMamba(nn.Module):
    """VMamba's 2D selective scan (Liu et al. 2024, arXiv:2401.10166, figure 3) carried to three axes.

    A depth-wise 3×3×3 convolution with SiLU, then six scans of the same features: with W, with H and with D running
    fastest, each forwards and backwards; their sum is normalised, gated and projected back. As in VMamba's code, each
    scan has step sizes, projections and states of its own and the convolution is shared.

    Args:
        dim: channels of the tokens.
        d_state: states per inner channel.
        expand: inner channels per channel.
    """

    # Which axis of (D, H, W) comes slowest, next and fastest.
    _AXES = ((0, 1, 2), (0, 2, 1), (1, 2, 0))

    def __init__(self, dim: int, d_state: int, expand: int) -> None:
        super().__init__()
        inner = expand * dim
        self.in_proj = nn.Linear(dim, 2 * inner, bias=False)
        self.conv3d = nn.Conv3d(inner, inner, kernel_size=3, padding=1, groups=inner)
        self.scans = nn.ModuleList(SelectiveSSM(inner, step_rank(dim), d_state) for _ in range(2 * len(self._AXES)))
        self.norm = nn.LayerNorm(inner)
        self.out_proj = nn.Linear(inner, dim, bias=False)

    def forward(self, tokens: Tensor, size: Sequence[int]) -> Tensor:
        """Mix tokens (B, D·H·W, dim), W fastest, of a volume of `size` (D, H, W); same shape."""
        x, z = self.in_proj(tokens).chunk(2, dim=-1)
        volume = F.silu(self.conv3d(x.mT.unflatten(2, size)))
        total = torch.zeros_like(volume)
        for index, ssm in enumerate(self.scans):
            assert isinstance(ssm, SelectiveSSM)
            axes = [axis + 2 for axis in self._AXES[index // 2]]
            ordered = volume.permute(0, 1, *axes)
            y = ssm.scan(ordered.flatten(2), reverse=index % 2 == 1)
            back = [2 + axes.index(axis) for axis in (2, 3, 4)]
            total = total + y.unflatten(2, ordered.shape[2:]).permute(0, 1, *back)
        mixed: Tensor = self.out_proj(self.norm(total.flatten(2).mT) * F.silu(z))
        return mixed


def step_rank(dim: int) -> int:
    """Rank of the step sizes of a layer of `dim` channels, as in Mamba."""
    return math.ceil(dim / 16)


def _weights(in_proj: nn.Linear, ssms: Iterable[CausalSSM], out_proj: nn.Linear) -> MixerWeights:
    """The parameters of a layer as operations take them, those of its orders one after the other."""

    def stacked(parameter: Callable[[CausalSSM], Tensor]) -> Tensor:
        return torch.stack([parameter(ssm) for ssm in ssms])

    return MixerWeights(
        in_proj=in_proj.weight,
        conv_weight=stacked(lambda ssm: ssm.conv1d.weight.squeeze(1)),
        conv_bias=stacked(lambda ssm: cast(Tensor, ssm.conv1d.bias)),
        x_proj=stacked(lambda ssm: ssm.x_proj.weight),
        step_weight=stacked(lambda ssm: ssm.dt_proj.weight),
        step_bias=stacked(lambda ssm: ssm.dt_proj.bias),
        A_log=stacked(lambda ssm: ssm.A_log),
        D=stacked(lambda ssm: ssm.D),
        out_proj=out_proj.weight,
    )
