"""Mamba's causal convolution with SiLU over the tokens of a sequence, in several reading orders at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from models.errors import ModelError
from models.ops.backend import choose
from models.ops.order import Order
from models.ops.precision import at_least_fp32, no_autocast


def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[Order], *, backend: str | None = None
) -> Tensor:
    """Convolve tokens depth-wise along each order and pass them through SiLU.

    The convolution of Mamba (Gu and Dao 2023, arXiv:2312.00752, section 3.4) that each token sees itself and those
    before it through; which those are, an order says. With O orders, K taps and p_o(t) the token's place at step t of
    order o: u[o, b, p_o(t)] = silu(bias[o] + Σ_k weight[o, :, K-1-k] · x[b, p_o(t-k)]), where steps before the first
    count as zero. What comes out lies where the token lies, whatever the order. Sums are fp32, or fp64 where x is;
    autocast has no say in it.

    Args:
        x: tokens (B, L, C), with any stride between them; copied if their channels are not side by side in memory.
        weight: (O, C, K), the last tap for the token itself.
        bias: (O, C).
        orders: O of them.
        backend: ``torch`` or ``triton``; by default ``triton`` for tensors on a GPU where it is installed.

    Returns:
        u (O, B, L, C), contiguous, in x's dtype. Differentiable with respect to x, weight and bias, by ``triton`` once.

    Raises:
        ModelError: a shape or dtype does not fit, an order does not suit L, or the backend is unknown or cannot run.
    """
    orders = tuple(orders)
    _check(x, weight, bias, orders)
    with no_autocast(x.device.type):
        if choose("causal_conv", backend, x) == "torch":
            return _torch(x, weight, bias, orders)
        from models.ops.triton_conv import causal_conv as by_triton

        return by_triton(x, weight, bias, orders)


def _torch(x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[Order]) -> Tensor:
    dtype = at_least_fp32(x.dtype)
    tokens, filters, shifts = x.to(dtype), weight.to(dtype).unsqueeze(2), bias.to(dtype)
    channels, taps = weight.shape[1:]
    found = []
    for order, kernel, shift in zip(orders, filters, shifts, strict=True):
        before = F.pad(order.take(tokens).mT, (taps - 1, 0))
        found.append(order.put_back(F.silu(F.conv1d(before, kernel, shift, groups=channels)).mT))
    return torch.stack(found).to(x.dtype).contiguous()


def _check(x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[Order]) -> None:
    for name, tensor in {"x": x, "weight": weight, "bias": bias}.items():
        if not tensor.is_floating_point():
            raise ModelError(f"causal_conv: {name} must be floating point; got {tensor.dtype}.")
    if x.dim() != 3 or x.numel() == 0:
        raise ModelError(f"causal_conv: x must be (B, L, C), none of them 0; got {tuple(x.shape)}.")
    if not orders:
        raise ModelError("causal_conv: orders must be at least one; got none.")
    count, channels = len(orders), x.shape[2]
    if weight.dim() != 3 or weight.shape[:2] != (count, channels) or weight.shape[2] == 0:
        raise ModelError(
            f"causal_conv: weight must be (O, C, K) with O = {count} as in orders, C = {channels} as in x and K at "
            f"least 1; got {tuple(weight.shape)}."
        )
    if bias.shape != (count, channels):
        raise ModelError(
            f"causal_conv: bias must be {(count, channels)} for {count} orders and x {tuple(x.shape)}; "
            f"got {tuple(bias.shape)}."
        )
