"""The selective scan in plain PyTorch: chunked, exact, with its gradient written out.

The states of a sequence are N times larger than the sequence, so they are never held at once. The
sequence is worked through in segments that hand on their last state; the backward pass keeps the
inputs and those states alone, and computes the others again.

Inside a segment the recurrence is cut into lanes that advance side by side, so that each step is one
operation over many elements. Dimensions stand in the order in which memory is walked: time first, then
batch, group, state and, innermost, the channels of the group, along which all factors but B and C vary.
Suffixes name them: T time, B batch, G group, N state, E channel within the group.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.ops.precision import at_least_fp32, no_autocast

# State elements per segment: small enough to stay in a processor's last cache, large enough to keep the
# number of operations low. State elements per step: large enough for two threads to share. Measured on CPU.
_SEGMENT_ELEMENTS = 2**20
_STEP_ELEMENTS = 2**16
# On a GPU every operation costs its launch, whatever its size, so there are to be few: a quarter of a GiB per segment.
_SEGMENT_ELEMENTS_ON_GPU = 2**26
_STEP_ELEMENTS_ON_GPU = 2**20


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
    """See `models.ops.scan.selective_scan`."""
    batch, channels, length = u.shape
    groups, states = B.shape[1], A.shape[1]
    dtype = at_least_fp32(u.dtype)
    x, step = u.to(dtype), delta.to(dtype)
    if delta_bias is not None:
        step = step + delta_bias.to(dtype)[:, None]
    if delta_softplus:
        step = F.softplus(step)

    lanes, segment = _plan(length, batch * channels * states, u.is_cuda)

    def time_first(tensor: Tensor) -> Tensor:
        """(B, D or G·N, L) to (T, B, G, E or N); zeros at the end make time a multiple of `lanes`.

        A step of size 0 leaves the state as it is, so the padding changes nothing.
        """
        padded = F.pad(tensor.to(dtype), (0, -length % lanes))
        by_time = padded.permute(2, 0, 1).contiguous()
        return by_time.view(-1, batch, groups, tensor.shape[1] // groups)

    y = _Scan.apply(
        time_first(x),
        time_first(step),
        A.to(dtype).reshape(groups, channels // groups, states).mT.contiguous(),
        time_first(B.flatten(1, 2)),
        time_first(C.flatten(1, 2)),
        lanes,
        segment,
    )
    y = y[:length].reshape(length, batch, channels).permute(1, 2, 0)
    if D is not None:
        y = y + D.to(dtype)[:, None] * x
    if z is not None:
        y = y * F.silu(z.to(dtype))
    return y.to(u.dtype)


def _plan(length: int, width: int, on_gpu: bool) -> tuple[int, int]:
    """Number of lanes, and length of a segment (a multiple of it), for a state of `width` elements."""
    if on_gpu:
        segment = max(1, min(length, _SEGMENT_ELEMENTS_ON_GPU // width))
        # As many steps within a lane as from lane to lane are the fewest in all.
        lanes = min(max(1, _STEP_ELEMENTS_ON_GPU // width), isqrt(segment))
        return lanes, lanes * max(1, segment // lanes)
    lanes = min(max(1, _STEP_ELEMENTS // width), isqrt(length))
    return lanes, lanes * max(1, _SEGMENT_ELEMENTS // (width * lanes))


def linear_recurrence(decay: Tensor, drive: Tensor, initial: Tensor, lanes: int, *, reverse: bool = False) -> None:
    """Turn `drive` in place into the solution of h_t = decay_t h_{t-1} + drive_t, element by element.

    Args:
        decay: (T, ...), T a multiple of `lanes`.
        drive: (T, ...), overwritten by h.
        initial: (...), h before the first step.
        lanes: how many stretches of T / lanes steps advance side by side.
        reverse: run from the last step to the first: h_t = decay_t h_{t+1} + drive_t.
    """
    lane_decay, lane_drive = (tensor.unflatten(0, (lanes, -1)) for tensor in (decay, drive))
    in_order = slice(None, None, -1 if reverse else 1)
    steps = list(zip(lane_decay.unbind(1), lane_drive.unbind(1), strict=True))[in_order]
    start = initial.unsqueeze(0)
    if lanes > 1:
        # A first pass finds where each lane ends if it starts from zero; with the decay over a whole lane
        # that gives, lane after lane, where each truly starts.
        end = steps[0][1].clone()
        for factor, term in steps[1:]:
            torch.addcmul(term, factor, end, out=end)
        start = torch.empty_like(end)
        state = initial
        each_lane = list(zip(start, lane_decay.prod(1), end, strict=True))[in_order]
        for lane_start, lane_factor, lane_end in each_lane:
            lane_start.copy_(state)
            state = torch.addcmul(lane_end, lane_factor, state)
    previous = start
    for factor, term in steps:
        previous = term.addcmul_(factor, previous)


class _Scan(torch.autograd.Function):
    """y_t = C_t · h_t with h_t = exp(δ_t A) h_{t-1} + δ_t B_t u_t.

    u, delta (T, B, G, E); A (G, N, E); B, C (T, B, G, N); y (T, B, G, E).
    """

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, lanes: int, segment: int
    ) -> Tensor:
        y = torch.empty_like(u)
        state = u.new_zeros(u.shape[1], *A.shape)
        starts = []
        for begin in range(0, len(u), segment):
            part = slice(begin, begin + segment)
            starts.append(state)
            state = _forward_segment(u[part], delta[part], A, B[part], C[part], state, lanes, y[part])
        ctx.save_for_backward(u, delta, A, B, C, *starts)
        ctx.lanes, ctx.segment = lanes, segment
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        u, delta, A, B, C, *starts = ctx.saved_tensors
        grad_y = grad_y.contiguous()
        grad_u, grad_delta, grad_B, grad_C = (torch.empty_like(tensor) for tensor in (u, delta, B, C))
        grad_A = torch.zeros_like(A)
        grad_state = torch.zeros_like(starts[0])
        with no_autocast(u.device.type):
            for index in reversed(range(len(starts))):
                part = slice(index * ctx.segment, (index + 1) * ctx.segment)
                grad_state = _backward_segment(
                    (u[part], delta[part], A, B[part], C[part], starts[index], ctx.lanes),
                    (grad_y[part], grad_state),
                    (grad_u[part], grad_delta[part], grad_A, grad_B[part], grad_C[part]),
                )
        return grad_u, grad_delta, grad_A, grad_B, grad_C, None, None


def _forward_segment(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, start: Tensor, lanes: int, y: Tensor
) -> Tensor:
    """Write a segment's y and return its last state."""
    decay_TBGNE = torch.mul(delta.unsqueeze(-2), A).exp_()
    h_TBGNE = (delta * u).unsqueeze(-2) * B.unsqueeze(-1)
    linear_recurrence(decay_TBGNE, h_TBGNE, start, lanes)
    y.copy_(_sum_over_states(C, h_TBGNE))
    return h_TBGNE[-1].clone()  # a view would keep the whole segment in memory


def _backward_segment(
    inputs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int],
    grads_out: tuple[Tensor, Tensor],
    grads_in: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
) -> Tensor:
    """Write a segment's gradients and return the gradient of the state it started from.

    Args:
        inputs: u, delta, A, B, C of the segment, the state it starts from, and the number of lanes.
        grads_out: the gradients of the segment's y and of its last state.
        grads_in: where the gradients of u, delta, B, C go, and of A, to which the segment adds.
    """
    u, delta, A, B, C, start, lanes = inputs
    grad_y, grad_end = grads_out
    grad_u, grad_delta, grad_A, grad_B, grad_C = grads_in
    rows = (len(u) + 1, *start.shape)

    # h[t] is the state before step t, h[t + 1] the one after it; decay[t + 1] takes the gradient from the
    # state after step t + 1 to the one after step t, and the segment's own end is handed `grad_end` whole.
    decay, h = u.new_empty(rows), u.new_empty(rows)
    torch.mul(delta.unsqueeze(-2), A, out=decay[:-1])
    decay[:-1].exp_()
    decay[-1] = 1
    delta_u = delta * u
    h[0] = start
    torch.mul(delta_u.unsqueeze(-2), B.unsqueeze(-1), out=h[1:])
    linear_recurrence(decay[:-1], h[1:], start, lanes)

    grad_h = grad_y.unsqueeze(-2) * C.unsqueeze(-1)
    linear_recurrence(decay[1:], grad_h, grad_end, lanes, reverse=True)
    grad_start = decay[0] * grad_h[0]

    grad_C.copy_(_sum_over_channels(h[1:], grad_y))
    grad_B.copy_(_sum_over_channels(grad_h, delta_u))
    grad_delta_u = _sum_over_states(B, grad_h)
    grad_u.copy_(grad_delta_u * delta)

    # From here on the buffers are reused: the gradient of δA, then its product with A, then with δ.
    grad_delta_A = grad_h.mul_(decay[:-1]).mul_(h[:-1])
    torch.mul(grad_delta_A, A, out=h[1:])
    grad_delta.copy_(h[1:].sum(-2) + grad_delta_u * u)
    grad_A += grad_delta_A.mul_(delta.unsqueeze(-2)).sum((0, 1))
    return grad_start


def _sum_over_states(weights_TBGN: Tensor, states_TBGNE: Tensor) -> Tensor:
    return (weights_TBGN.unsqueeze(-2) @ states_TBGNE).squeeze(-2)


def _sum_over_channels(states_TBGNE: Tensor, weights_TBGE: Tensor) -> Tensor:
    return (states_TBGNE @ weights_TBGE.unsqueeze(-1)).squeeze(-1)
