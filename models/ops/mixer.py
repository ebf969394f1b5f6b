"""Mamba's mixing of tokens from projection in to projection out, over one or several orders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops.causal_conv import causal_conv
from models.ops.order import Order
from models.ops.precision import at_least_fp32
from models.ops.scan import resolve_backend, scan_orders


class MixerWeights(NamedTuple):
    """Parameters of the mixing; I inner channels, C channels of tokens, R the rank of step sizes, K taps.

    Attributes:
        in_proj: (2·I, C), the second half for the gate.
        conv_weight: (O, I, K).
        conv_bias: (O, I).
        x_proj: (O, R + 2·N, I), to step sizes, then B, then C of the scan.
        step_weight: (O, I, R).
        step_bias: (O, I).
        A_log: (O, I, N).
        D: (O, I).
        out_proj: (C, I).
    """

    in_proj: Tensor
    conv_weight: Tensor
    conv_bias: Tensor
    x_proj: Tensor
    step_weight: Tensor
    step_bias: Tensor
    A_log: Tensor
    D: Tensor
    out_proj: Tensor


def mix_orders(tokens: Tensor, weights: MixerWeights, orders: Sequence[Order]) -> Tensor:
    """Mamba's block (Gu and Dao 2023, arXiv:2312.00752, figure 3) over tokens in each order, the results summed.

    Projections in and out are the orders' common ones; the gate acts within each. Where the scan is that in Triton, so
    is the whole block, and its backward pass computes again what lies between the tokens and the scan.

    Args:
        tokens: (B, L, C).
        weights: the parameters.
        orders: O of them.

    Returns:
        Mixed tokens (B, L, C), in the autocast dtype within an autocast region.

    Raises:
        ModelError: the slices of an order do not divide L, or the scan's backend cannot run here.
    """
    if resolve_backend(None, tokens, weights.A_log.shape[-1]) == "triton" and tokens.dtype != torch.float64:
        from models.ops.fused_mixer import mix_orders as fused

        return fused(tokens, weights, orders)
    return plain(tokens, weights, orders)


def plain(tokens: Tensor, weights: MixerWeights, orders: Sequence[Order], *, backend: str | None = None) -> Tensor:
    """`mix_orders` step by step, in each order after the other, by kernels of ours for the scan at most."""
    x, z = F.linear(tokens, weights.in_proj).chunk(2, dim=-1)
    rank, states = weights.step_weight.shape[-1], weights.A_log.shape[-1]
    rates = -torch.exp(weights.A_log.to(at_least_fp32(weights.A_log.dtype)))
    total: Tensor | None = None
    for index, order in enumerate(orders):
        own = slice(index, index + 1)
        u = causal_conv(x, weights.conv_weight[own], weights.conv_bias[own], (order,), backend="torch")
        step, B, C = F.linear(u, weights.x_proj[index]).split((rank, states, states), dim=-1)
        y = scan_orders(
            u,
            F.linear(step, weights.step_weight[index]),
            rates[own],
            B.unsqueeze(-2),
            C.unsqueeze(-2),
            weights.D[own],
            z,
            weights.step_bias[own],
            True,
            (order,),
            backend=backend,
        ).squeeze(0)
        total = y if total is None else total + y
    assert total is not None
    return F.linear(total, weights.out_proj)
