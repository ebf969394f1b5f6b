"""Depth-wise 3D convolution in Triton: forward, transposed, and the gradient of the weights.

A row of a channels-last tensor, all its columns and channels, is one run of memory, in which the next column is C
elements on. Programs take blocks of such runs as they lie: loads are coalesced whatever C is, and a thread meets the
same few channels at every tap. A convolution of 7³ taps spends its time on multiplications, and whatever else a thread
does takes the place of one: so a program computes several rows at once, and each row that it loads, converts and masks
serves all those whose windows it is in.

Grids: the fine one is that of a convolution's input, the coarse one that of its output; at stride 1 they are alike but
for the padding. Tensors (B, C, D, H, W) are channels last; the kernels want weights as (k³, C).
"""
# Triton has no types, and its language neither types of arguments nor of tuples.
# mypy: allow-untyped-defs, disable-error-code="assignment,import-untyped"

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.ops.launch import cdiv
from models.ops.precision import at_least_fp32

# Warps of a program: windows overlap, and what one warp brings into the cache serves the next.
_WARPS = 4
# Elements of a row to each thread of a convolution, loaded at once.
_VECTOR = 4
# Rows of a program, fewer where that leaves too few programs to occupy a GPU.
_MOST_ROWS, _LEAST_ROWS = 16, 4
_PROGRAMS = 768
# Registers of a thread, so that 12 warps fit on a multiprocessor; the compiler would take more, to load far ahead.
_REGISTERS = 168
# Rows of the output's gradient that a program holds while it goes through the taps.
_ROWS_SUMMED = 8
# Programs that share in the gradient of the weights: what fits on 132 multiprocessors in two rounds, and no more, for
# each leaves sums for all its taps.
_PROGRAMS_SUMMED = 792

# Sizes that the kernels are not compiled for; rows, in which all their loads lie, they are.
_UNTOLD = ("fine_depth", "fine_height", "depth", "height", "pad_d", "pad_h", "pad_w")


@triton.jit
def zeros(COUNT: tl.constexpr, BLOCK: tl.constexpr, DTYPE: tl.constexpr):
    """A tuple of COUNT blocks."""
    found = ()
    for _ in tl.static_range(COUNT):
        found += (tl.zeros([BLOCK], DTYPE),)
    return found


@triton.jit
def inside(at, size):
    """Whether 0 <= at < size."""
    # Unsigned, what is below zero is beyond every size: one comparison instead of two.
    return at.to(tl.uint32) < size.to(tl.uint32)


@triton.jit
def load_row(row, exists, place, LENGTH: tl.constexpr):
    """Elements at `place` of the row at this address; zeros outside it, and everywhere if it does not exist."""
    limit = tl.where(exists, LENGTH, 0)
    return tl.load(row + place, mask=inside(place, limit), other=0.0)


@triton.jit
def taps_of(weight, kd, kw, c, CHANNELS: tl.constexpr, K: tl.constexpr):
    """The K taps of this depth and column, from the first row to the last."""
    found = ()
    for kh in tl.static_range(K):
        found += (tl.load(weight + ((kd * K + kh) * K + kw) * CHANNELS + c),)
    return found


@triton.jit
def store_rows(y, bias, sums, c, first, height, place, LENGTH: tl.constexpr, ROWS: tl.constexpr, BIAS: tl.constexpr):
    """Store sums plus the bias at `place` of the rows from `first` on, as far as there are such rows and places."""
    for r in tl.static_range(ROWS):
        total = sums[r]
        if BIAS:
            total += tl.load(bias + c)
        limit = tl.where(first + r < height, LENGTH, 0)
        tl.store(y + r * LENGTH + place, total.to(y.dtype.element_ty), mask=place < limit)


@triton.jit(do_not_specialize=_UNTOLD)
def convolve(
    x, weight, bias, y, fine_depth, fine_height, depth, height, pad_d, pad_h, pad_w,
    CHANNELS: tl.constexpr, FINE_WIDTH: tl.constexpr, WIDTH: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """A block of each of ROWS rows of y on the coarse grid, from x on the fine one."""
    FINE_LENGTH: tl.constexpr = FINE_WIDTH * CHANNELS
    LENGTH: tl.constexpr = WIDTH * CHANNELS
    BLOCKS: tl.constexpr = (LENGTH + BLOCK - 1) // BLOCK
    DTYPE: tl.constexpr = weight.dtype.element_ty
    program = tl.program_id(0)
    slabs = tl.cdiv(height, ROWS)
    e = program % BLOCKS * BLOCK + tl.arange(0, BLOCK)
    c = e % CHANNELS
    first = program // BLOCKS % slabs * ROWS
    plane = program // (BLOCKS * slabs)
    top = first * STRIDE - pad_h
    start = e + (e // CHANNELS * (STRIDE - 1) - pad_w) * CHANNELS
    sums = zeros(ROWS, BLOCK, DTYPE)
    for kd in range(K):
        fine_plane = plane % depth * STRIDE + kd - pad_d
        if inside(fine_plane, fine_depth):
            # Before the first row, and with it the tensor, nothing is loaded.
            rows = x + ((plane // depth * fine_depth + fine_plane).to(tl.int64) * fine_height + top) * FINE_LENGTH
            for kw in range(K):
                taps = taps_of(weight, kd, kw, c, CHANNELS, K)
                place = start + kw * CHANNELS
                for j in tl.static_range(STRIDE * (ROWS - 1) + K):
                    exists = inside(top + j, fine_height)
                    row = load_row(rows + j * FINE_LENGTH, exists, place, FINE_LENGTH).to(DTYPE)
                    added = ()
                    for r in tl.static_range(ROWS):
                        if (j >= STRIDE * r) and (j - STRIDE * r < K):
                            added += (sums[r] + row * taps[j - STRIDE * r],)
                        else:
                            added += (sums[r],)
                    sums = added
    y += (plane.to(tl.int64) * height + first) * LENGTH
    store_rows(y, bias, sums, c, first, height, e, LENGTH, ROWS, BIAS)


@triton.jit(do_not_specialize=_UNTOLD)
def convolve_transposed(
    x, weight, bias, y, fine_depth, fine_height, depth, height, pad_d, pad_h, pad_w,
    CHANNELS: tl.constexpr, FINE_WIDTH: tl.constexpr, WIDTH: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, BIAS: tl.constexpr, SHIFT: tl.constexpr,
):  # fmt: skip
    """A block of every STRIDE-th column of each of ROWS rows of y on the fine grid, from x on the coarse one.

    Through tap k, place i of x reaches place STRIDE · i + k - pad of y. Which tap it is between two rows must be known
    when this is compiled: ROWS is a multiple of STRIDE, and SHIFT is pad_h modulo STRIDE. The first row of y is reached
    from the row of x LOWEST after its own, the last from that HIGHEST after.
    """
    FINE_LENGTH: tl.constexpr = FINE_WIDTH * CHANNELS
    LENGTH: tl.constexpr = WIDTH * CHANNELS
    BLOCKS: tl.constexpr = ((FINE_WIDTH + STRIDE - 1) // STRIDE * CHANNELS + BLOCK - 1) // BLOCK
    LOWEST: tl.constexpr = -((K - 1 - SHIFT) // STRIDE)
    HIGHEST: tl.constexpr = (ROWS - 1 + SHIFT) // STRIDE
    DTYPE: tl.constexpr = weight.dtype.element_ty
    program = tl.program_id(0)
    slabs = tl.cdiv(fine_height, ROWS)
    e = program % BLOCKS * BLOCK + tl.arange(0, BLOCK)
    c = e % CHANNELS
    column = program // BLOCKS % STRIDE
    first = program // (BLOCKS * STRIDE) % slabs * ROWS
    plane = program // (BLOCKS * STRIDE * slabs)
    reach = plane % fine_depth + pad_d
    top = (first + pad_h) // STRIDE + LOWEST
    sums = zeros(ROWS, BLOCK, DTYPE)
    for kd in range(reach % STRIDE, K, STRIDE):
        coarse_plane = (reach - kd) // STRIDE
        if inside(coarse_plane, depth):
            rows = x + ((plane // fine_depth * depth + coarse_plane).to(tl.int64) * height + top) * LENGTH
            for kw in range((column + pad_w) % STRIDE, K, STRIDE):
                taps = taps_of(weight, kd, kw, c, CHANNELS, K)
                place = e + (column + pad_w - kw) // STRIDE * CHANNELS
                for j in tl.static_range(HIGHEST - LOWEST + 1):
                    row = load_row(rows + j * LENGTH, inside(top + j, height), place, LENGTH).to(DTYPE)
                    added = ()
                    for r in tl.static_range(ROWS):
                        if (r + SHIFT >= STRIDE * (j + LOWEST)) and (r + SHIFT - STRIDE * (j + LOWEST) < K):
                            added += (sums[r] + row * taps[r + SHIFT - STRIDE * (j + LOWEST)],)
                        else:
                            added += (sums[r],)
                    sums = added
    y += (plane.to(tl.int64) * fine_height + first) * FINE_LENGTH
    place = e + (e // CHANNELS * (STRIDE - 1) + column) * CHANNELS
    store_rows(y, bias, sums, c, first, fine_height, place, FINE_LENGTH, ROWS, BIAS)


@triton.jit
def with_row(column, grads, row, j: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr, ROWS: tl.constexpr):
    """The sums for a column of taps, plus the products of the j-th row of x and the gradients that it has a part in."""
    added = ()
    for kh in tl.static_range(K):
        if (j >= kh) and ((j - kh) % STRIDE == 0) and ((j - kh) // STRIDE < ROWS):
            added += (column[kh] + grads[(j - kh) // STRIDE] * row,)
        else:
            added += (column[kh],)
    return added


@triton.jit(do_not_specialize=(*_UNTOLD, "planes", "items", "each"))
def weight_gradient(
    x, grad, shares, fine_depth, fine_height, depth, height, pad_d, pad_h, pad_w, planes, items, each,
    CHANNELS: tl.constexpr, FINE_WIDTH: tl.constexpr, WIDTH: tl.constexpr, K: tl.constexpr, STRIDE: tl.constexpr,
    ROWS: tl.constexpr, BLOCK: tl.constexpr, PHASES: tl.constexpr, DEPTHS: tl.constexpr,
):  # fmt: skip
    """A share in the gradients of DEPTHS · k² taps, from `each` blocks of ROWS rows of the output's gradient.

    Blocks of a row that are a multiple of PHASES apart hold the same channels in the same order, and a program keeps to
    such. What it holds then is summed over columns, as are shares over programs, by the caller, always in the same
    order: shares (programs with the same taps and phase, k³ + 1, PHASES · BLOCK), the gradient of the bias last.
    """
    FINE_LENGTH: tl.constexpr = FINE_WIDTH * CHANNELS
    LENGTH: tl.constexpr = WIDTH * CHANNELS
    DTYPE: tl.constexpr = shares.dtype.element_ty
    program = tl.program_id(0)
    lanes = program % PHASES * BLOCK + tl.arange(0, BLOCK)
    kd = program // PHASES % (K // DEPTHS) * DEPTHS
    share = program // (PHASES * (K // DEPTHS))
    slabs = tl.cdiv(height, ROWS)
    sums = zeros(DEPTHS * K * K, BLOCK, DTYPE)
    total = tl.zeros([BLOCK], DTYPE)
    for item in range(share * each, tl.minimum(share * each + each, items)):
        first = item % slabs * ROWS
        plane = item // slabs % planes
        e = lanes + item // (slabs * planes) * (PHASES * BLOCK)
        rows = grad + (plane.to(tl.int64) * height + first) * LENGTH
        grads = ()
        for r in tl.static_range(ROWS):
            grads += (load_row(rows + r * LENGTH, first + r < height, e, LENGTH).to(DTYPE),)
            total += grads[r]
        top = first * STRIDE - pad_h
        start = e + (e // CHANNELS * (STRIDE - 1) - pad_w) * CHANNELS
        added = ()
        for near in tl.static_range(DEPTHS):
            fine_plane = plane % depth * STRIDE + kd + near - pad_d
            # Not as `inside` has it: with so many rows at once the compiler would keep the answers in bits of a word.
            within = (fine_plane >= 0) & (fine_plane < fine_depth)
            rows = x + ((plane // depth * fine_depth + fine_plane).to(tl.int64) * fine_height + top) * FINE_LENGTH
            for kw in tl.static_range(K):
                place = start + kw * CHANNELS
                column = ()
                for kh in tl.static_range(K):
                    column += (sums[(near * K + kw) * K + kh],)
                for j in tl.static_range(STRIDE * (ROWS - 1) + K):
                    exists = within & (top + j >= 0) & (top + j < fine_height)
                    row = load_row(rows + j * FINE_LENGTH, exists, place, FINE_LENGTH).to(DTYPE)
                    column = with_row(column, grads, row, j, K, STRIDE, ROWS)
                added += column
        sums = added
    shares += share.to(tl.int64) * (K * K * K + 1) * (PHASES * BLOCK) + lanes
    for near in tl.static_range(DEPTHS):
        for kw in tl.static_range(K):
            for kh in tl.static_range(K):
                tap = ((kd + near) * K + kh) * K + kw
                tl.store(shares + tap * (PHASES * BLOCK), sums[(near * K + kw) * K + kh])
    if kd == 0:
        tl.store(shares + K * K * K * (PHASES * BLOCK), total)


@torch.library.custom_op("segmamba_bench::depthwise_conv3d", mutates_args=())
def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: Sequence[int]) -> Tensor:
    """See `models.ops.depthwise_conv.depthwise_conv3d`, which checks the arguments."""
    y = _empty(x, _coarse(x.shape[2:], weight.shape[2], stride, padding))
    blocks = cdiv(y.shape[4] * y.shape[1], _block())
    _launch(convolve, x, weight, bias, y, (x, y), stride, padding, blocks, _MOST_ROWS // stride)
    return y


@convolution.register_fake
def _(x: Tensor, weight: Tensor, _bias: Tensor | None, stride: int, padding: Sequence[int]) -> Tensor:
    return _empty(x, _coarse(x.shape[2:], weight.shape[2], stride, padding))


@torch.library.custom_op("segmamba_bench::depthwise_conv_transpose3d", mutates_args=())
def transposed_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: Sequence[int], size: Sequence[int]
) -> Tensor:
    """See `models.ops.depthwise_conv.depthwise_conv_transpose3d`, which checks the arguments; to (D, H, W) = size."""
    y = _empty(x, size)
    blocks = cdiv(cdiv(size[2], stride) * y.shape[1], _block()) * stride
    shift = {"SHIFT": padding[1] % stride}
    _launch(convolve_transposed, x, weight, bias, y, (y, x), stride, padding, blocks, _MOST_ROWS, **shift)
    return y


@transposed_convolution.register_fake
def _(
    x: Tensor, _weight: Tensor, _bias: Tensor | None, _stride: int, _padding: Sequence[int], size: Sequence[int]
) -> Tensor:
    return _empty(x, size)


@torch.library.custom_op("segmamba_bench::depthwise_conv3d_weight_gradient", mutates_args=())
def _weight_gradient(
    x: Tensor, grad: Tensor, kernel: int, stride: int, padding: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Gradients of weight (C, 1, k, k, k) and bias (C,), at least fp32, from x and the gradient of `convolution`."""
    x, grad = _channels_last(x), _channels_last(grad)
    batch, channels, depth, height, width = grad.shape
    vector, depths, registers = _summed(kernel)
    block = 32 * _WARPS * vector
    rows = _ROWS_SUMMED // stride
    blocks = cdiv(width * channels, block)
    phases = min(blocks, channels // math.gcd(channels, block))
    items = batch * depth * cdiv(height, rows) * cdiv(blocks, phases)
    columns = phases * (kernel // depths)
    each = cdiv(items, max(1, _PROGRAMS_SUMMED // columns))
    programs = cdiv(items, each)
    shares = x.new_empty(programs, kernel**3 + 1, phases * block, dtype=at_least_fp32(x.dtype))
    weight_gradient[(programs * columns,)](
        x, grad, shares, planes=batch * depth, items=items, each=each, ROWS=rows, BLOCK=block, PHASES=phases,
        DEPTHS=depths, maxnreg=registers, **_common(x, grad, kernel, stride, padding),
    )  # fmt: skip
    # Lanes beyond a row that is shorter hold nothing; all others come in whole columns.
    total = shares.sum(0)[:, : width * channels].unflatten(1, (-1, channels)).sum(1)
    return total[:-1].mT.reshape(channels, 1, kernel, kernel, kernel).contiguous(), total[-1].clone()


@_weight_gradient.register_fake
def _(x: Tensor, _grad: Tensor, kernel: int, _stride: int, _padding: Sequence[int]) -> tuple[Tensor, Tensor]:
    dtype, channels = at_least_fp32(x.dtype), x.shape[1]
    return x.new_empty(channels, 1, kernel, kernel, kernel, dtype=dtype), x.new_empty(channels, dtype=dtype)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG001  called by this name
    x, weight, bias, ctx.stride, ctx.padding = inputs[:5]
    ctx.save_for_backward(x, weight)
    ctx.bias_dtype = None if bias is None else bias.dtype


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    to_x, to_weight, to_bias, *_ = ctx.needs_input_grad
    grad_x = grad_weight = grad_bias = None
    if to_x:
        grad_x = transposed_convolution(grad, weight, None, ctx.stride, ctx.padding, list(x.shape[2:]))
    if to_weight or to_bias:
        for_weight, for_bias = _weight_gradient(x, grad, weight.shape[2], ctx.stride, ctx.padding)
        grad_weight = for_weight.to(weight.dtype) if to_weight else None
        grad_bias = for_bias.to(ctx.bias_dtype) if to_bias else None
    return grad_x, grad_weight, grad_bias, None, None


def _backward_of_transposed(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    to_x, to_weight, to_bias, *_ = ctx.needs_input_grad
    grad_x = grad_weight = grad_bias = None
    if to_x:
        grad_x = convolution(grad, weight, None, ctx.stride, ctx.padding)
    if to_weight:
        grad_weight = _weight_gradient(grad, x, weight.shape[2], ctx.stride, ctx.padding)[0].to(weight.dtype)
    if to_bias:
        grad_bias = grad.sum((0, 2, 3, 4), dtype=at_least_fp32(grad.dtype)).to(ctx.bias_dtype)
    return grad_x, grad_weight, grad_bias, None, None, None


convolution.register_autograd(_backward, setup_context=_keep)
transposed_convolution.register_autograd(_backward_of_transposed, setup_context=_keep)


def _launch(
    kernel: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    grids: tuple[Tensor, Tensor],
    stride: int,
    padding: Sequence[int],
    blocks: int,
    most_rows: int,
    **options: int,
) -> None:
    """Launch `convolve` or its transpose from x to y; fine and coarse of `grids` are these two."""
    planes, height = y.shape[0] * y.shape[2], y.shape[3]
    rows = most_rows
    while rows > _LEAST_ROWS and (rows >= 2 * height or planes * cdiv(height, rows) * blocks < _PROGRAMS):
        rows //= 2
    dtype = at_least_fp32(x.dtype)
    taps = weight.flatten(1).mT.to(dtype).contiguous()
    offsets = taps if bias is None else bias.to(dtype).contiguous()
    kernel[(planes * cdiv(height, rows) * blocks,)](
        _channels_last(x), taps, offsets, y, ROWS=rows, BLOCK=_block(), BIAS=bias is not None, maxnreg=_REGISTERS,
        **_common(*grids, weight.shape[2], stride, padding), **options,
    )  # fmt: skip


def _common(fine: Tensor, coarse: Tensor, kernel: int, stride: int, padding: Sequence[int]) -> dict[str, Any]:
    """What all kernels take."""
    return {
        "fine_depth": fine.shape[2],
        "fine_height": fine.shape[3],
        "depth": coarse.shape[2],
        "height": coarse.shape[3],
        **dict(zip(("pad_d", "pad_h", "pad_w"), padding, strict=True)),
        "CHANNELS": fine.shape[1],
        "FINE_WIDTH": fine.shape[4],
        "WIDTH": coarse.shape[4],
        "K": kernel,
        "STRIDE": stride,
        "num_warps": _WARPS,
    }


def _block() -> int:
    return 32 * _WARPS * _VECTOR


def _summed(kernel: int) -> tuple[int, int, int | None]:
    """Elements to each thread, planes of taps, and registers, so that the sums for k² taps or k³ stay in these."""
    if kernel <= 5:
        return 4, kernel if kernel <= 3 else 1, None
    return 2 if kernel <= 9 else 1, 1, _REGISTERS if kernel <= 7 else None


def _coarse(fine: Sequence[int], kernel: int, stride: int, padding: Sequence[int]) -> list[int]:
    """(D, H, W) after a convolution."""
    return [(size + 2 * pad - kernel) // stride + 1 for size, pad in zip(fine, padding, strict=True)]


def _empty(x: Tensor, size: Sequence[int]) -> Tensor:
    """Room for (D, H, W) = size, otherwise as x."""
    shape = (*x.shape[:2], *size)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last_3d)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last_3d)
