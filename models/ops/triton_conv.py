"""The causal convolution in Triton: all orders in one launch, each token read and written where it lies.

Programs take blocks of tokens that lie side by side, whatever the order, and the programs of a block's orders run at
about the same time. Steps of an order may be far apart in memory; but the tokens one step before a block's are, but for
a few, side by side again, and what one order has read the others find in the cache.

Shapes, with O orders and K taps: x, grad_x (B, L, C) with any stride between tokens; weight (O, K, C) as the kernels
want it; bias (O, C); u (O, B, L, C); grad_u likewise with any stride between tokens; walks (O, 4), see
`models.ops.order.Walk`.
"""
# Triton has no types, and its language neither types of arguments nor of tuples.
# mypy: allow-untyped-defs, disable-error-code="assignment,import-untyped"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.errors import ModelError
from models.ops.launch import cdiv
from models.ops.order import Order, walks_of
from models.ops.precision import at_least_fp32
from models.ops.triton_scan.steps import following, logistic, offset_of, preceding, walk_of

# Channels of a program: narrow, so that the odd multiples of 32 that networks have leave no lane idle.
_CHANNELS = 32
# Tokens of a program of each kernel, as many as its registers hold; the one whose K + 1 sums stay there takes several
# blocks one after another.
_TOKENS_CONVOLVED, _TOKENS_SUMMED, _TOKENS_GATHERED = 128, 32, 64
_MOST_BLOCKS = 16
# Programs that keep a GPU busy.
_PROGRAMS = 4096
_WARPS = 4
# Elements of a sequence from which 32 bits no longer hold the offsets.
_WIDE = 2**31


@triton.jit
def block_of(program, channels, ORDERS: tl.constexpr, CHANNELS: tl.constexpr):
    """Order, block of tokens, channels and which of them exist, of the program with this index."""
    parts = tl.cdiv(channels, CHANNELS)
    d = program // ORDERS % parts * CHANNELS + tl.arange(0, CHANNELS)
    return program % ORDERS, program // (ORDERS * parts), d, d < channels


@triton.jit
def step_of(place, length, origin, run, within):
    """The step at which a walk takes the token at `place`, and which step of its run that is: `place_of` inverted."""
    if run == length:
        # An order of one run goes from token to token: `within` is 1 or -1, its own inverse.
        index = (place - origin) * within
        step = index
    else:
        # Runs of slices begin side by side, and their steps are `within` apart.
        index = place // within
        step = (place - index * within) * run + index
    return step, index


@triton.jit
def load_rows(columns, place, stride, inside, live, WIDE: tl.constexpr):
    """The tokens at `place`, from pointers to the channels of the first; zeros where not `inside` or not `live`."""
    mask = inside[:, None] & live[None, :]
    return tl.load(columns[None, :] + offset_of(place, stride, WIDE)[:, None], mask=mask, other=0.0)


@triton.jit
def store_rows(columns, place, stride, tile, inside, live, WIDE: tl.constexpr):
    """Store what `load_rows` loads."""
    mask = inside[:, None] & live[None, :]
    where = columns[None, :] + offset_of(place, stride, WIDE)[:, None]
    tl.store(where, tile.to(columns.dtype.element_ty), mask=mask)


@triton.jit
def taps_of(columns, place, stride, length, walks, order, live, K: tl.constexpr, WIDE: tl.constexpr):
    """The tokens at `place`, those one step earlier, and so on, K tiles; zeros before the first step."""
    origin, run, within, across = walk_of(walks, order)
    step, index = step_of(place, length, origin, run, within)
    step = tl.where(place < length, step, -1)
    taps = ()
    for k in tl.static_range(K):
        taps += (load_rows(columns, place, stride, step >= k, live, WIDE),)
        place, index = preceding(place, index, run, within, across)
    return taps


@triton.jit
def filter_of(weight, bias, order, channels, d, live, K: tl.constexpr):
    """The weights of an order, those of the token itself first, and its bias."""
    weights = ()
    for k in tl.static_range(K):
        weights += (tl.load(weight + (order * K + K - 1 - k) * channels + d, mask=live, other=0.0),)
    return weights, tl.load(bias + order * channels + d, mask=live, other=0.0)


@triton.jit
def convolved(taps, weights, shift, K: tl.constexpr):
    """What SiLU takes."""
    total = taps[0].to(shift.dtype) * weights[0][None, :] + shift[None, :]
    for k in tl.static_range(1, K):
        total += taps[k].to(shift.dtype) * weights[k][None, :]
    return total


@triton.jit(do_not_specialize=("length",))
def convolve(
    x, weight, bias, u, walks, length, channels, x_batch, x_token,
    ORDERS: tl.constexpr, K: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """u of a block of tokens and channels in one order."""
    order, block, d, live = block_of(tl.program_id(0), channels, ORDERS, CHANNELS)
    batch = tl.program_id(1).to(tl.int64)
    place = block * TOKENS + tl.arange(0, TOKENS)
    weights, shift = filter_of(weight, bias, order, channels, d, live, K)
    taps = taps_of(x + batch * x_batch + d, place, x_token, length, walks, order, live, K, WIDE)
    total = convolved(taps, weights, shift, K)
    u += (order * tl.num_programs(1) + batch) * length * channels
    store_rows(u + d, place, channels, total * logistic(total), place < length, live, WIDE)


@triton.jit(do_not_specialize=("length", "blocks"))
def filter_gradients(
    x, weight, bias, grad_u, grad_total, sums, walks, length, channels, blocks,
    x_batch, x_token, grad_u_order, grad_u_batch, grad_u_token,
    ORDERS: tl.constexpr, K: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """The gradient before SiLU of `blocks` blocks of tokens in one order, and their share in those of the filter.

    Sums over programs are left to the caller, so that their order is always the same: sums (programs over tokens, B, O,
    K + 1, C), the bias after the taps.
    """
    order, part, d, live = block_of(tl.program_id(0), channels, ORDERS, CHANNELS)
    batch = tl.program_id(1).to(tl.int64)
    x += batch * x_batch
    grad_u += order.to(tl.int64) * grad_u_order + batch * grad_u_batch
    grad_total += (order * tl.num_programs(1) + batch) * length * channels
    weights, shift = filter_of(weight, bias, order, channels, d, live, K)
    shares = ()
    for _ in tl.static_range(K + 1):
        shares += (tl.zeros([TOKENS, CHANNELS], shift.dtype),)
    for block in range(blocks):
        place = (part * blocks + block) * TOKENS + tl.arange(0, TOKENS)
        taps = taps_of(x + d, place, x_token, length, walks, order, live, K, WIDE)
        grad = load_rows(grad_u + d, place, grad_u_token, place < length, live, WIDE)
        total = convolved(taps, weights, shift, K)
        gate = logistic(total)
        grad = grad.to(shift.dtype) * gate * (1 + total * (1 - gate))
        store_rows(grad_total + d, place, channels, grad, place < length, live, WIDE)
        added = ()
        for k in tl.static_range(K):
            added += (shares[k] + grad * taps[k].to(shift.dtype),)
        added += (shares[K] + grad,)
        shares = added
    sums += ((part * tl.num_programs(1) + batch) * ORDERS + order) * (K + 1) * channels
    for k in tl.static_range(K):
        tl.store(sums + (K - 1 - k) * channels + d, tl.sum(shares[k], axis=0), mask=live)
    tl.store(sums + K * channels + d, tl.sum(shares[K], axis=0), mask=live)


@triton.jit(do_not_specialize=("length",))
def token_gradients(
    weight, grad_total, grad_x, walks, length, channels, grad_x_batch, grad_x_token,
    ORDERS: tl.constexpr, K: tl.constexpr, TOKENS: tl.constexpr, CHANNELS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """grad_x of a block of tokens: what came of each token at its own step and the K - 1 after it, in all orders."""
    _, block, d, live = block_of(tl.program_id(0), channels, 1, CHANNELS)
    batch = tl.program_id(1).to(tl.int64)
    first = block * TOKENS + tl.arange(0, TOKENS)
    total = tl.zeros([TOKENS, CHANNELS], weight.dtype.element_ty)
    for order in range(ORDERS):
        grads = grad_total + (order * tl.num_programs(1) + batch) * length * channels + d
        origin, run, within, across = walk_of(walks, order)
        step, index = step_of(first, length, origin, run, within)
        step = tl.where(first < length, step, length)
        place = first
        for k in tl.static_range(K):
            tap = tl.load(weight + (order * K + K - 1 - k) * channels + d, mask=live, other=0.0)
            grad = load_rows(grads, place, channels, step + k < length, live, WIDE)
            total += grad.to(total.dtype) * tap[None, :]
            place, index = following(place, index, run, within, across)
    store_rows(grad_x + batch * grad_x_batch + d, first, grad_x_token, total, first < length, live, WIDE)


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[Order]) -> Tensor:
    """See `models.ops.causal_conv.causal_conv`, which checks the arguments."""
    found: Tensor = _CausalConv.apply(x, weight, bias, tuple(orders))
    return found


def forward(x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[Order]) -> Tensor:
    """`causal_conv` that autograd knows nothing of."""
    x = _side_by_side(x)
    weight, bias = _filter(x, weight, bias)
    u = x.new_empty(len(orders), *x.shape)
    convolve[_programs(x, _TOKENS_CONVOLVED) * len(orders), len(x)](
        x, weight, bias, u, x_batch=x.stride(0), x_token=x.stride(1),
        TOKENS=_TOKENS_CONVOLVED, **_common(orders, weight, x),
    )  # fmt: skip
    return u


def backward(
    grad_u: Tensor, x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[Order], *, out: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `forward`; the one before SiLU, from which that of x is summed, is rounded to x's dtype.

    Args:
        grad_u: (O, B, L, C), copied if channels are not side by side in memory.
        x: of the forward pass, as are the next three.
        weight: (O, C, K).
        bias: (O, C).
        orders: O of them.
        out: where to write the gradient of x: (B, L, C) with any stride between tokens, channels side by side in
            memory, x's own if need be.

    Returns:
        The gradients with respect to x, summed over orders, weight and bias, in their dtypes, that of x in `out` if
        given.

    Raises:
        ModelError: `out` is not of this shape or its channels are not side by side.
    """
    x, grad_u = _side_by_side(x), _side_by_side(grad_u)
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format) if out is None else _checked(out, x)
    taps, shift = _filter(x, weight, bias)
    grad_total = x.new_empty(grad_u.shape)
    programs, blocks = _shared_out(x, len(orders))
    sums = taps.new_empty(programs * len(x), len(orders), taps.shape[1] + 1, x.shape[2])
    columns = cdiv(x.shape[2], _CHANNELS)
    common = _common(orders, taps, x, grad_u[0], grad_x)
    filter_gradients[programs * columns * len(orders), len(x)](
        x, taps, shift, grad_u, grad_total, sums, blocks=blocks, x_batch=x.stride(0), x_token=x.stride(1),
        grad_u_order=grad_u.stride(0), grad_u_batch=grad_u.stride(1), grad_u_token=grad_u.stride(2),
        TOKENS=_TOKENS_SUMMED, **common,
    )  # fmt: skip
    token_gradients[_programs(x, _TOKENS_GATHERED), len(x)](
        taps, grad_total, grad_x, grad_x_batch=grad_x.stride(0), grad_x_token=grad_x.stride(1),
        TOKENS=_TOKENS_GATHERED, **common,
    )  # fmt: skip
    total = sums.sum(0)
    return grad_x, total[:, :-1].mT.to(weight.dtype).contiguous(), total[:, -1].to(bias.dtype)


class _CausalConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, orders: Sequence[Order]) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.orders = orders
        return forward(x, weight, bias, orders)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_u: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        return *backward(grad_u, x, weight, bias, ctx.orders), None


def _filter(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Weight as (O, K, C), so that neighbouring channels lie side by side, and bias, in the type of the sums."""
    dtype = at_least_fp32(x.dtype)
    return weight.mT.to(dtype).contiguous(), bias.to(dtype).contiguous()


def _programs(x: Tensor, tokens: int) -> int:
    """Programs for the tokens and channels of one sequence."""
    return cdiv(x.shape[1], tokens) * cdiv(x.shape[2], _CHANNELS)


def _shared_out(x: Tensor, orders: int) -> tuple[int, int]:
    """Programs that share the tokens of a sequence where sums are made, and the blocks that each takes."""
    wanted = _programs(x, _TOKENS_SUMMED) * len(x) * orders // _PROGRAMS
    blocks = min(_MOST_BLOCKS, max(1, wanted))
    return cdiv(x.shape[1], _TOKENS_SUMMED * blocks), blocks


def _common(orders: Sequence[Order], weight: Tensor, x: Tensor, *others: Tensor) -> dict[str, Any]:
    """What all kernels take; `others` are (B, L, C) like x."""
    _, length, channels = x.shape
    return {
        "walks": walks_of(tuple(orders), length, x.device),
        "length": length,
        "channels": channels,
        "ORDERS": len(orders),
        "K": weight.shape[1],
        "CHANNELS": _CHANNELS,
        "WIDE": max(channels, *(tensor.stride(1) for tensor in (x, *others))) * length >= _WIDE,
        "num_warps": _WARPS,
    }


def _side_by_side(tensor: Tensor) -> Tensor:
    """The same (..., L, C), the channels of a token side by side in memory."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _checked(out: Tensor, x: Tensor) -> Tensor:
    if out.shape != x.shape or (out.stride(-1) != 1 and out.shape[-1] > 1):
        raise ModelError(
            f"causal_conv: out must be {tuple(x.shape)} with channels side by side; got {tuple(out.shape)} with "
            f"strides {out.stride()}."
        )
    return out
