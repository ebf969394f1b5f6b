"""Mamba's mixing of tokens on a GPU: kernels that take all orders at once, and little kept for the backward pass.

What lies between the tokens and the scan is cheap to compute and large: it is computed again in the backward pass, for
which the forward pass leaves the scan's states every few steps and nothing else. Autograd and torch.compile see one
operator and its backward operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.ops import triton_conv
from models.ops.mixer import MixerWeights
from models.ops.order import Order
from models.ops.precision import no_autocast
from models.ops.triton_scan.function import Inputs, Kept, Plan, scan_backward, scan_forward

# Products over all tokens are cut into so many parts, summed at the end: one alone would occupy one multiprocessor.
_PARTS = 64
# Rows of the projection to the scan are filled up to a multiple of this, so that each token's lie aligned in memory.
_ALIGNED = 16


def mix_orders(tokens: Tensor, weights: MixerWeights, orders: Sequence[Order]) -> Tensor:
    """See `models.ops.mixer.mix_orders`; fp32 and the half precisions."""
    device_type = tokens.device.type
    if torch.is_autocast_enabled(device_type):
        tokens = tokens.to(torch.get_autocast_dtype(device_type))
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (tokens, *weights))
    coded = [f"{order.kind}:{order.slices}" for order in orders]
    with no_autocast(device_type):
        mixed, _, _ = _mix(tokens, *weights, ",".join(coded), keep)
    return mixed


@torch.library.custom_op("segmamba_bench::mix_orders", mutates_args=())
def _mix(
    tokens: Tensor,
    in_proj: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    x_proj: Tensor,
    step_weight: Tensor,
    step_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    out_proj: Tensor,
    orders: str,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    weights = MixerWeights(in_proj, conv_weight, conv_bias, x_proj, step_weight, step_bias, A_log, D, out_proj)
    before = _before_scan(tokens, weights, _decoded(orders))
    y, kept = scan_forward(before.plan, before.inputs, keep=keep)
    mixed = y.sum(0) @ out_proj.to(y.dtype).mT
    spans, states = kept or (tokens.new_empty(0), tokens.new_empty(0))
    return mixed, spans, states


@_mix.register_fake
def _(
    tokens: Tensor,
    in_proj: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    x_proj: Tensor,
    step_weight: Tensor,
    step_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    out_proj: Tensor,
    orders: str,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    mixed = torch.empty_like(tokens, memory_format=torch.contiguous_format)
    if not keep:
        return mixed, tokens.new_empty(0), tokens.new_empty(0)
    plan = _plan(
        tokens,
        MixerWeights(in_proj, conv_weight, conv_bias, x_proj, step_weight, step_bias, A_log, D, out_proj),
        _decoded(orders),
    )
    spans, states = (A_log.new_empty(shape, dtype=torch.float32) for shape in plan.kept_shapes)
    return mixed, spans, states


@torch.library.custom_op("segmamba_bench::mix_orders_backward", mutates_args=())
def _mix_backward(
    grad_mixed: Tensor,
    spans: Tensor,
    states: Tensor,
    tokens: Tensor,
    in_proj: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    x_proj: Tensor,
    step_weight: Tensor,
    step_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    out_proj: Tensor,
    orders: str,
) -> list[Tensor]:
    dtype = tokens.dtype
    weights = MixerWeights(in_proj, conv_weight, conv_bias, x_proj, step_weight, step_bias, A_log, D, out_proj)
    order = _decoded(orders)
    before = _before_scan(tokens, weights, order)
    inputs = before.inputs
    grad_mixed = grad_mixed.to(dtype).contiguous()
    grad_y = (grad_mixed @ out_proj.to(dtype)).unsqueeze(0).expand(inputs.u.shape)
    count, inner = D.shape
    rank, number = step_weight.shape[-1], A_log.shape[-1]
    batch, length, _ = tokens.shape
    grad_projected = tokens.new_zeros(count, batch * length, before.projection.shape[1])
    by_token = grad_projected.view(count, batch, length, 1, -1)
    gradients, y = scan_backward(
        before.plan,
        inputs,
        Kept(spans, states),
        grad_y,
        by_token[..., :number],
        by_token[..., number : 2 * number],
        again=True,
    )
    assert y is not None
    assert gradients.z is not None

    grad_step = gradients.delta.view(count, -1, inner)
    step = before.step
    grad_projected[..., 2 * number : 2 * number + rank] = torch.bmm(grad_step, step_weight.to(dtype))
    grad_u = gradients.u.view(count, -1, inner)
    grad_u.baddbmm_(grad_projected, before.projection)
    grad_projection = _products_over_tokens(grad_projected, inputs.u.view(count, -1, inner))

    grad_xz = tokens.new_empty(*tokens.shape[:2], 2 * inner)
    torch.sum(gradients.z, 0, out=grad_xz[..., inner:])
    _, grad_conv_weight, grad_conv_bias = triton_conv.backward(
        grad_u.view(inputs.u.shape), before.x, conv_weight, conv_bias, order, out=grad_xz[..., :inner]
    )
    flat = grad_xz.view(1, -1, 2 * inner)
    rates = -torch.exp(A_log.float())
    assert gradients.D is not None
    assert gradients.bias is not None
    found = MixerWeights(
        in_proj=_products_over_tokens(flat, tokens.reshape(1, -1, tokens.shape[-1]))[0],
        conv_weight=grad_conv_weight,
        conv_bias=grad_conv_bias,
        x_proj=torch.cat((grad_projection[:, 2 * number : 2 * number + rank], grad_projection[:, : 2 * number]), dim=1),
        step_weight=_products_over_tokens(grad_step, step),
        step_bias=gradients.bias,
        A_log=gradients.A.mT[..., :number] * rates,
        D=gradients.D,
        out_proj=_products_over_tokens(grad_mixed.view(1, -1, grad_mixed.shape[-1]), y.sum(0).view(1, -1, inner))[0],
    )
    grad_tokens = (grad_xz @ in_proj.to(dtype)).view(tokens.shape)
    # An operator's results may share no memory.
    return [grad_tokens, *(torch.empty_like(own).copy_(one) for one, own in zip(found, weights, strict=True))]


@_mix_backward.register_fake
def _(
    _grad_mixed: Tensor,
    _spans: Tensor,
    _states: Tensor,
    tokens: Tensor,
    in_proj: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor,
    x_proj: Tensor,
    step_weight: Tensor,
    step_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    out_proj: Tensor,
    _orders: str,
) -> list[Tensor]:
    given = (tokens, in_proj, conv_weight, conv_bias, x_proj, step_weight, step_bias, A_log, D, out_proj)
    return [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in given]


def _keep_inputs(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.orders, _ = inputs
    ctx.save_for_backward(*output[1:], *tensors)
    ctx.mark_non_differentiable(*output[1:])


def _backward(ctx: Any, grad_mixed: Tensor, *_kept: Tensor | None) -> tuple[Tensor | None, ...]:
    with no_autocast(grad_mixed.device.type):  # some call backward within the region
        return *_mix_backward(grad_mixed, *ctx.saved_tensors, ctx.orders), None, None


_mix.register_autograd(_backward, setup_context=_keep_inputs)


class _BeforeScan(NamedTuple):
    """What lies between the tokens and the scan.

    Attributes:
        plan: of the scan.
        inputs: of the scan.
        x: (B, L, I), what the convolutions read.
        step: (O, B·L, R), the step sizes before their projection to all channels.
        projection: (O, rows, I), the weights of the projection to B, C and step sizes, in this order, filled up.
    """

    plan: Plan
    inputs: Inputs
    x: Tensor
    step: Tensor
    projection: Tensor


def _before_scan(tokens: Tensor, weights: MixerWeights, orders: tuple[Order, ...]) -> _BeforeScan:
    dtype = tokens.dtype
    count, inner = weights.D.shape
    batch, length, _ = tokens.shape
    rank, number = weights.step_weight.shape[-1], weights.A_log.shape[-1]
    plan = _plan(tokens, weights, orders)
    x, z = (tokens @ weights.in_proj.to(dtype).mT).chunk(2, dim=-1)
    u = triton_conv.forward(x, weights.conv_weight, weights.conv_bias, orders)
    by_rank = weights.x_proj.to(dtype)
    projection = F.pad(
        torch.cat((by_rank[:, rank:], by_rank[:, :rank]), dim=1), (0, 0, 0, -(2 * number + rank) % _ALIGNED)
    )
    projected = _in_full(u.view(count, -1, inner), projection.mT)
    step = projected[..., 2 * number : 2 * number + rank].to(dtype)
    delta = torch.bmm(step, weights.step_weight.to(dtype).mT).view(u.shape)
    B, C = (projected[..., start : start + number].view(count, batch, length, 1, number) for start in (0, number))
    rates = -torch.exp(weights.A_log.float())
    if plan.states != number:
        rates, B, C = (F.pad(tensor, (0, plan.states - number)) for tensor in (rates, B, C))
    inputs = Inputs(
        u,
        delta,
        rates.mT.contiguous(),
        B,
        C,
        weights.D.float().contiguous(),
        z.unsqueeze(0).expand(u.shape),
        weights.step_bias.float().contiguous(),
    )
    return _BeforeScan(plan, inputs, x, step, projection)


def _plan(tokens: Tensor, weights: MixerWeights, orders: tuple[Order, ...]) -> Plan:
    batch, length, _ = tokens.shape
    count, inner = weights.D.shape
    return Plan.of(orders, (count, batch, length, inner), groups=1, states=weights.A_log.shape[-1], softplus=True)


def _decoded(orders: str) -> tuple[Order, ...]:
    return tuple(Order(kind, int(slices)) for kind, slices in (one.split(":") for one in orders.split(",")))


def _in_full(left: Tensor, right: Tensor) -> Tensor:
    """Products of batches of matrices in fp32, whatever the factors are in: B and C are not rounded."""
    if left.is_cuda and left.dtype != torch.float32:
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(left.float(), right.float())


def _products_over_tokens(left: Tensor, right: Tensor) -> Tensor:
    """leftᵀ right for each order: (O, T, p) and (O, T, q) to fp32 (O, p, q), T tokens."""
    count, tokens, _ = left.shape
    parts = next(number for number in (_PARTS, 32, 16, 8, 4, 2, 1) if tokens % number == 0)
    cut_left, cut_right = (one.reshape(count * parts, tokens // parts, -1) for one in (left, right))
    return _in_full(cut_left.mT, cut_right).unflatten(0, (count, parts)).sum(1)
