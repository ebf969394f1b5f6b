"""The scan's kernels made known to autograd.

All that lies between the caller's tensors and the kernels happens within one node of autograd's graph: for short
sequences the host is what takes time, and each view that autograd sees costs it one more node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.ops.order import Order
from models.ops.precision import at_least_fp32
from models.ops.triton_scan.function import Inputs, Kept, Plan, scan_backward, scan_forward


def scan_orders(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    orders: Sequence[Order],
) -> Tensor:
    """See `models.ops.scan.scan_orders`; up to `MOST_STATES` states."""
    y: Tensor = _Scan.apply(delta_softplus, tuple(orders), u, delta, A, B, C, D, z, delta_bias)
    return y


def scan_sequence(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    order: Order,
) -> Tensor:
    """`scan_orders` in one order; tensors as `models.ops.scan.selective_scan` takes them, B and C with groups."""
    # Taken apart outside: what a node of its own returns must not be a view, or nobody may change it in place.
    y: Tensor = _ScanSequence.apply(delta_softplus, (order,), u, delta, A, B, C, D, z, delta_bias)
    return y.squeeze(0).mT


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, softplus: bool, orders: tuple[Order, ...], *inputs: Any) -> Tensor:
        return _forward(ctx, softplus, orders, Inputs(*inputs))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *_backward(ctx, grad_y)


class _ScanSequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, softplus: bool, orders: tuple[Order, ...], *inputs: Any) -> Tensor:
        u, delta, A, B, C, D, z, bias = inputs
        by_token = Inputs(
            u.mT[None],
            delta.mT[None],
            A[None],
            B.permute(0, 3, 1, 2)[None],
            C.permute(0, 3, 1, 2)[None],
            None if D is None else D[None],
            None if z is None else z.mT,
            None if bias is None else bias[None],
        )
        return _forward(ctx, softplus, orders, by_token)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, D, z, bias = _backward(ctx, grad_y)
        return (
            None,
            None,
            u[0].mT,
            delta[0].mT,
            A[0],
            B[0].permute(0, 2, 3, 1),
            C[0].permute(0, 2, 3, 1),
            None if D is None else D[0],
            None if z is None else z.mT,
            None if bias is None else bias[0],
        )


def _forward(ctx: Any, softplus: bool, orders: tuple[Order, ...], given: Inputs) -> Tensor:
    u, delta, A, B, C, D, z, bias = given
    plan = Plan.of(orders, u.shape, B.shape[3], A.shape[2], softplus)
    dtype = at_least_fp32(u.dtype)
    missing = plan.states - A.shape[2]

    def filled(tensor: Tensor) -> Tensor:
        return F.pad(tensor, (0, missing)) if missing else tensor  # `pad` copies even where there is nothing to add

    def whole(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(dtype).contiguous()

    def of_states(tensor: Tensor) -> Tensor:  # in one copy from type and layout
        return filled(tensor.to(dtype, memory_format=torch.contiguous_format).contiguous())

    taken = Inputs(
        _side_by_side(u),
        _side_by_side(delta.to(u.dtype)),
        filled(A.to(dtype)).mT.contiguous(),
        of_states(B),
        of_states(C),
        whole(D),
        None if z is None else _side_by_side(z.to(u.dtype))[None].expand(len(u), *z.shape),
        whole(bias),
    )
    y, kept = scan_forward(plan, taken, keep=any(ctx.needs_input_grad))
    ctx.plan = plan
    ctx.types = B.dtype, C.dtype
    ctx.number = A.shape[2]
    ctx.save_for_backward(*taken, *(kept or ()))
    return y


def _backward(ctx: Any, grad_y: Tensor) -> Inputs:
    """Gradients with respect to what `_forward` was given."""
    *saved, spans, states = ctx.saved_tensors
    inputs = Inputs(*saved)
    shape = *inputs.B.shape[:-1], ctx.number
    # Written in the caller's type by the kernel that adds them up: rounding them would be one more pass.
    grad_B, grad_C = (inputs.B.new_empty(shape, dtype=dtype) for dtype in ctx.types)
    found, _ = scan_backward(ctx.plan, inputs, Kept(spans, states), _side_by_side(grad_y), grad_B, grad_C)
    grad_z = found.z if found.z is None else found.z[0] if len(found.z) == 1 else found.z.sum(0)
    return found._replace(A=found.A.mT[..., : ctx.number], z=grad_z)


def _side_by_side(tensor: Tensor) -> Tensor:
    """The same (..., L, D), the channels of a token side by side in memory."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
