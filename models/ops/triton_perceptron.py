"""A perceptron for each channel in Triton: what is hidden stays in registers, in both passes.

Shapes: x, y and their gradients (rows, C), a row for each voxel of each image; weights (C, H).
"""
# Triton has no types.
# mypy: allow-untyped-defs, disable-error-code="assignment,import-untyped"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.ops.launch import cdiv, next_power_of_2
from models.ops.precision import at_least_fp32

_ROWS, _CHANNELS, _WARPS = 16, 32, 4
# Programs that keep a GPU busy where each makes sums, and blocks of rows that one takes at most.
_PROGRAMS, _MOST_BLOCKS = 2048, 64
_SQRT_HALF = tl.constexpr(0.7071067811865476)
_DENSITY_AT_0 = tl.constexpr(0.3989422804014327)  # of the standard normal distribution


@triton.jit
def probability_of(x):
    """That a standard normal variable is at most x: GELU is x times this."""
    return 0.5 * (1 + tl.erf(x * _SQRT_HALF))


@triton.jit
def rows_of(block, rows, channels, d, ROWS: tl.constexpr):
    """Offsets of a block of rows, and which of them exist."""
    row = block * ROWS + tl.arange(0, ROWS)
    return row.to(tl.int64)[:, None] * channels + d[None, :], (row < rows)[:, None] & (d < channels)[None, :]


@triton.jit
def weights_of(pointer, d, channels, H: tl.constexpr, HIDDEN: tl.constexpr, SUM: tl.constexpr):
    """Weights (HIDDEN, 1, channels of the block) of all hidden channels; zeros for those that fill H up."""
    h = tl.arange(0, HIDDEN)
    mask = (h < H)[:, None] & (d < channels)[None, :]
    return tl.load(pointer + d[None, :] * H + h[:, None], mask=mask, other=0.0).to(SUM)[:, None, :]


@triton.jit
def apply(
    x, widen, widen_bias, narrow, narrow_bias, y, rows, channels,
    H: tl.constexpr, HIDDEN: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    d = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    at, inside = rows_of(tl.program_id(0), rows, channels, d, ROWS)
    value = tl.load(x + at, mask=inside, other=0.0).to(SUM)[None, :, :]
    shift = weights_of(widen_bias, d, channels, H, HIDDEN, SUM)
    hidden = value * weights_of(widen, d, channels, H, HIDDEN, SUM) + shift
    back = weights_of(narrow, d, channels, H, HIDDEN, SUM)
    total = tl.sum(hidden * probability_of(hidden) * back, axis=0)
    total += tl.load(narrow_bias + d, mask=d < channels, other=0.0).to(SUM)[None, :]
    tl.store(y + at, total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def gradients(
    x, widen, widen_bias, narrow, grad_y, grad_x, sums, bias_sums, rows, channels, blocks,
    H: tl.constexpr, HIDDEN: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr, SUM: tl.constexpr,
):  # fmt: skip
    """The gradient of x, and each program's part of those of the weights: sums (programs, 3, H, C)."""
    d = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    live = d < channels
    weight = weights_of(widen, d, channels, H, HIDDEN, SUM)
    shift = weights_of(widen_bias, d, channels, H, HIDDEN, SUM)
    back = weights_of(narrow, d, channels, H, HIDDEN, SUM)
    of_widen = tl.zeros([HIDDEN, ROWS, CHANNELS], SUM)
    of_shift = tl.zeros([HIDDEN, ROWS, CHANNELS], SUM)
    of_back = tl.zeros([HIDDEN, ROWS, CHANNELS], SUM)
    of_bias = tl.zeros([ROWS, CHANNELS], SUM)
    for block in range(tl.program_id(0) * blocks, tl.program_id(0) * blocks + blocks):
        at, inside = rows_of(block, rows, channels, d, ROWS)
        value = tl.load(x + at, mask=inside, other=0.0).to(SUM)[None, :, :]
        grad = tl.load(grad_y + at, mask=inside, other=0.0).to(SUM)
        hidden = value * weight + shift
        probability = probability_of(hidden)
        density = tl.exp(-0.5 * hidden * hidden) * _DENSITY_AT_0
        slope = grad[None, :, :] * back * (probability + hidden * density)
        of_back += grad[None, :, :] * hidden * probability
        of_shift += slope
        of_widen += slope * value
        of_bias += grad
        tl.store(grad_x + at, tl.sum(slope * weight, axis=0).to(grad_x.dtype.element_ty), mask=inside)
    h = tl.arange(0, HIDDEN)
    own = sums + tl.program_id(0).to(tl.int64) * 3 * H * channels + h[:, None] * channels + d[None, :]
    mask = (h < H)[:, None] & live[None, :]
    tl.store(own, tl.sum(of_widen, axis=1), mask=mask)
    tl.store(own + H * channels, tl.sum(of_shift, axis=1), mask=mask)
    tl.store(own + 2 * H * channels, tl.sum(of_back, axis=1), mask=mask)
    tl.store(bias_sums + tl.program_id(0) * channels + d, tl.sum(of_bias, axis=0), mask=live)


@torch.library.custom_op("segmamba_bench::channel_perceptron", mutates_args=())
def perceptron(x: Tensor, widen: Tensor, widen_bias: Tensor, narrow: Tensor, narrow_bias: Tensor) -> Tensor:
    """See `models.ops.channel_perceptron.channel_perceptron`, which checks the arguments."""
    x = x.contiguous(memory_format=torch.channels_last_3d)
    y = torch.empty_like(x)
    common, columns = _common(x, widen)
    rows = common["rows"]
    apply[cdiv(rows, _ROWS), columns](x, *_contiguous(widen, widen_bias, narrow, narrow_bias), y, **common)
    return y


@perceptron.register_fake
def _(x: Tensor, _widen: Tensor, _widen_bias: Tensor, _narrow: Tensor, _narrow_bias: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.channels_last_3d)


@torch.library.custom_op("segmamba_bench::channel_perceptron_backward", mutates_args=())
def _gradients(
    grad_y: Tensor, x: Tensor, widen: Tensor, widen_bias: Tensor, narrow: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    x, grad_y = (one.contiguous(memory_format=torch.channels_last_3d) for one in (x, grad_y))
    channels, hidden = widen.shape
    common, columns = _common(x, widen)
    blocks = cdiv(common["rows"], _ROWS)
    each = min(_MOST_BLOCKS, max(1, blocks * columns // _PROGRAMS))
    programs = cdiv(blocks, each)
    sums = torch.empty(programs, 3, hidden, channels, dtype=at_least_fp32(x.dtype), device=x.device)
    bias_sums = sums.new_empty(programs, channels)
    grad_x = torch.empty_like(x)
    gradients[programs, columns](
        x, *_contiguous(widen, widen_bias, narrow), grad_y, grad_x, sums, bias_sums, blocks=each, **common
    )
    of_widen, of_shift, of_back = (torch.empty_like(widen).copy_(one.mT) for one in sums.sum(0))
    return grad_x, of_widen, of_shift, of_back, bias_sums.sum(0).to(widen.dtype)


@_gradients.register_fake
def _(
    _grad_y: Tensor, x: Tensor, widen: Tensor, _widen_bias: Tensor, _narrow: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    grad_x = torch.empty_like(x, memory_format=torch.channels_last_3d)
    return grad_x, *(torch.empty_like(widen) for _ in range(3)), widen.new_empty(len(widen))  # type: ignore[return-value]


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:  # noqa: ARG001 - by these names
    ctx.save_for_backward(*inputs[:4])


def _backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, ...]:
    return _gradients(grad_y, *ctx.saved_tensors)


perceptron.register_autograd(_backward, setup_context=_keep)


def _common(x: Tensor, widen: Tensor) -> tuple[dict[str, Any], int]:
    """What both kernels take, and the blocks of channels."""
    channels, hidden = widen.shape
    common = {
        "rows": x.numel() // channels,
        "channels": channels,
        "H": hidden,
        "HIDDEN": next_power_of_2(hidden),
        "ROWS": _ROWS,
        "CHANNELS": _CHANNELS,
        "SUM": tl.float64 if x.dtype == torch.float64 else tl.float32,
        "num_warps": _WARPS,
    }
    return common, cdiv(channels, _CHANNELS)


def _contiguous(*weights: Tensor) -> tuple[Tensor, ...]:
    return tuple(weight.contiguous() for weight in weights)
