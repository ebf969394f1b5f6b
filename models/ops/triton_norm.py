"""Instance normalisation in Triton, with what follows it in a block: a residual and a leaky ReLU.

Forwards one pass over memory for the statistics of a tensor and one that normalises; backwards one for the sums of the
gradient and one for the gradients. Between them a small kernel merges what programs found, in an order that is always
the same. Sums take tiles of rows in turn, so that at any time all programs read one stretch of memory; the pass after
begins where they ended, with what the cache still holds. Offsets within a tile take 32 bits, tiles begin at 64.

Autograd and torch.compile see one operator and its backward operator. Shapes, with channels side by side in memory and
S the rows, all spatial axes in one: x, residual, y and their gradients (B, S, C); statistics (tensors, 2, B, C), mean
and 1 / standard deviation of x and of the residual where that is normalised; weight, bias (C,).
"""
# Triton has no types, and its language neither types of arguments nor of tuples.
# mypy: allow-untyped-defs, disable-error-code="assignment,import-untyped"

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from models.ops.launch import cdiv, next_power_of_2
from models.ops.precision import at_least_fp32

# Channels of a program, the widest of these that divides all, so that what it reads of a row is long. Where none does,
# a power of two within these bounds, some of whose lanes are idle.
_WIDTHS = (128, 64, 32)
_NARROWEST, _WIDEST = 16, 128
# Elements of a tile of the kernels that sum, so few that each sum of a thread stays in 8 registers, and such tiles
# that are loaded together, forwards and backwards; elements of a tile of kernels that read one tensor or several.
_SUMMED, _UNROLL, _UNROLL_BACKWARDS = 1024, 4, 4
_OF_ONE, _OF_SEVERAL = 4096, 2048
# Programs that share a sample's rows where sums are made, as many as one program of a merging kernel holds; programs
# that keep a GPU busy, and those beyond which each of the other kernels takes several tiles.
_MOST_PARTS = 1024
_PROGRAMS_SUMMING, _PROGRAMS = 2048, 16384
_MERGED_CHANNELS = 8
_WARPS, _WARPS_MERGING = 4, 8
# Channels whose multiples let kernels load several at once: what divides a size and kernels are compiled for.
_ALIGNED = 16
# Sizes that kernels are not compiled for.
_UNTOLD = ("length", "batches", "parts", "blocks")


@triton.jit
def share_of(program, channels, batches, CHANNELS: tl.constexpr, IDLE: tl.constexpr):
    """Sample, share of its rows, channels and which of them are its own, of the program with this index."""
    columns = tl.cdiv(channels, CHANNELS)
    d = program // batches % columns * CHANNELS + tl.arange(0, CHANNELS)
    live = d < channels
    if IDLE:
        d = d % channels
    return (program % batches).to(tl.int64), (program // (batches * columns)).to(tl.int64), d, live


@triton.jit
def load_tile(pointer, row, d, channels, left, RAGGED: tl.constexpr):
    """A tile of rows and channels from the first row on; the last of the rows `left` again, where there are no more.

    Without masks: a load that may not happen waits for the one before it, as the assembler arranges them.
    """
    if RAGGED:
        row = tl.minimum(row, left - 1)
    return tl.load(pointer + row[:, None] * channels + d[None, :])


@triton.jit
def store_tile(pointer, tile, row, d, channels, left, live, RAGGED: tl.constexpr, IDLE: tl.constexpr):
    """Store what `load_tile` loads, once."""
    where = pointer + row[:, None] * channels + d[None, :]
    tile = tile.to(pointer.dtype.element_ty)
    if RAGGED:
        tl.store(where, tile, mask=(row < left)[:, None] & live[None, :])
    elif IDLE:
        tl.store(where, tile, mask=live[None, :])
    else:
        tl.store(where, tile)


@triton.jit
def merged(count, mean, square):
    """Mean and sum of squared deviations over groups with such counts, means and sums (Chan et al. 1979)."""
    whole = tl.sum(count, axis=0)
    centre = tl.sum(count[:, None] * mean, axis=0) / whole
    apart = mean - centre[None, :]
    square = tl.sum(square + count[:, None] * apart * apart, axis=0)
    # Again, for what rounding left of a mean far from zero.
    return centre + tl.sum(count[:, None] * apart, axis=0) / whole, square


@triton.jit(do_not_specialize=_UNTOLD)
def partial_statistics(
    x, partial, length, channels, batches, parts,
    ROWS: tl.constexpr, UNROLL: tl.constexpr, CHANNELS: tl.constexpr, RAGGED: tl.constexpr, IDLE: tl.constexpr,
):  # fmt: skip
    """Mean and sum of squared deviations over every `parts`th step of UNROLL tiles: partial (parts, 2, B, C).

    Each row of a tile subtracts its own first value from those that it meets. That value is no farther from their mean
    than √(n - 1) standard deviations, so their variance loses no more than n roundings, however far from zero they lie.
    """
    SUM: tl.constexpr = partial.dtype.element_ty
    sample, part, d, live = share_of(tl.program_id(0), channels, batches, CHANNELS, IDLE)
    row = tl.arange(0, ROWS)
    x += sample * length * channels
    start = part * (UNROLL * ROWS)
    first = load_tile(x + start * channels, row, d, channels, tl.cast(length - start, tl.int32), RAGGED).to(SUM)
    count = tl.zeros([ROWS], SUM)
    total = tl.zeros([ROWS, CHANNELS], SUM)
    square = tl.zeros([ROWS, CHANNELS], SUM)
    for step in range(part, tl.cdiv(length, UNROLL * ROWS), parts):
        start = step * (UNROLL * ROWS)
        left = tl.cast(length - start, tl.int32)
        tiles = ()
        for k in tl.static_range(UNROLL):
            tiles += (load_tile(x + (start + k * ROWS) * channels, row, d, channels, left - k * ROWS, RAGGED),)
        for k in tl.static_range(UNROLL):
            apart = tiles[k].to(SUM) - first
            if RAGGED:
                inside = row < left - k * ROWS
                apart = tl.where(inside[:, None], apart, 0.0)
                count += inside.to(SUM)
            else:
                count += 1.0
            total += apart
            square += apart * apart
    mean = total / tl.maximum(count, 1.0)[:, None]
    mean, square = merged(count, first + mean, tl.maximum(square - total * mean, 0.0))
    partial += (part * 2 * batches + sample) * channels
    tl.store(partial + d, mean, mask=live)
    tl.store(partial + batches * channels + d, square, mask=live)


@triton.jit(do_not_specialize=_UNTOLD)
def merge_statistics(
    partial, statistics, length, channels, batches, parts,
    STEP: tl.constexpr, EPS: tl.constexpr, PARTS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """statistics from what `partial_statistics` found in steps of STEP rows: partial (tensors, parts, 2, B, C)."""
    SUM: tl.constexpr = partial.dtype.element_ty
    d = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    part = tl.arange(0, PARTS)
    plane = batches * channels
    here = tl.program_id(1) * channels + d
    where = partial + tl.program_id(2) * parts * 2 * plane + part[:, None] * (2 * plane) + here[None, :]
    mask = (part < parts)[:, None] & (d < channels)[None, :]
    mean = tl.load(where, mask=mask, other=0.0)
    square = tl.load(where + plane, mask=mask, other=0.0)
    steps = tl.cdiv(length, STEP)
    count = tl.cdiv(steps - part, parts) * STEP - tl.where(part == (steps - 1) % parts, steps * STEP - length, 0)
    mean, square = merged(tl.where(part < parts, count, 0).to(SUM), mean, square)
    statistics += tl.program_id(2) * 2 * plane
    tl.store(statistics + here, mean, mask=d < channels)
    tl.store(statistics + plane + here, 1 / tl.sqrt(square / length.to(SUM) + EPS), mask=d < channels)


@triton.jit
def statistics_of(statistics, sample, channels, batches, d):
    """Mean and 1 / standard deviation of some channels, the same for all rows of a tile."""
    statistics += sample * channels + d
    return tl.load(statistics)[None, :], tl.load(statistics + batches * channels)[None, :]


@triton.jit
def affine_of(weight, bias, d, AFFINE: tl.constexpr):
    """Weight and bias of some channels, the same for all rows of a tile."""
    if AFFINE:
        scale = tl.load(weight + d)[None, :]
        shift = tl.load(bias + d)[None, :]
    else:
        scale = 1.0
        shift = 0.0
    return scale, shift


@triton.jit
def before_activation(normalised, scale, shift, added, AFFINE: tl.constexpr, RESIDUAL: tl.constexpr):
    """What the activation takes."""
    if AFFINE:
        normalised = normalised * scale + shift
    if RESIDUAL:
        normalised = normalised + added
    return normalised


@triton.jit(do_not_specialize=_UNTOLD)
def normalise(
    x, residual, weight, bias, statistics, y, length, channels, batches, blocks,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, AFFINE: tl.constexpr, RESIDUAL: tl.constexpr,
    NORMALISED: tl.constexpr, SLOPE: tl.constexpr, RAGGED: tl.constexpr, IDLE: tl.constexpr,
):  # fmt: skip
    """y of `blocks` tiles, the last of all first."""
    SUM: tl.constexpr = statistics.dtype.element_ty
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    sample, part, d, live = share_of(program, channels, batches, CHANNELS, IDLE)
    row = tl.arange(0, ROWS)
    mean, rstd = statistics_of(statistics, sample, channels, batches, d)
    scale, shift = affine_of(weight, bias, d, AFFINE)
    if NORMALISED:
        other_mean, other_rstd = statistics_of(statistics + 2 * batches * channels, sample, channels, batches, d)
    for block in range(blocks):
        start = (part * blocks + block) * ROWS
        left = tl.cast(length - start, tl.int32)
        here = (sample * length + start) * channels
        value = load_tile(x + here, row, d, channels, left, RAGGED)
        added = 0.0
        if RESIDUAL:
            added = load_tile(residual + here, row, d, channels, left, RAGGED).to(SUM)
            if NORMALISED:
                added = (added - other_mean) * other_rstd
        value = before_activation((value.to(SUM) - mean) * rstd, scale, shift, added, AFFINE, RESIDUAL)
        if SLOPE is not None:
            value = tl.where(value > 0, value, value * SLOPE)
        store_tile(y + here, value, row, d, channels, left, live, RAGGED, IDLE)


@triton.jit
def before_gradient(
    grad, kept, added, mean, rstd, scale, shift,
    AFFINE: tl.constexpr, RESIDUAL: tl.constexpr, SLOPE: tl.constexpr, OUTPUT: tl.constexpr,
):  # fmt: skip
    """The gradient before the activation, and the normalised x from what was kept: with OUTPUT y, else x."""
    if OUTPUT:
        positive = kept > 0
        normalised = tl.where(positive, kept, kept * (1 / SLOPE))
        if RESIDUAL:
            normalised = normalised - added
    else:
        normalised = (kept - mean) * rstd
        if SLOPE is not None:
            positive = before_activation(normalised, scale, shift, added, AFFINE, RESIDUAL) > 0
    if SLOPE is not None:
        grad = tl.where(positive, grad, grad * SLOPE)
    return grad, normalised


@triton.jit(do_not_specialize=_UNTOLD)
def partial_sums(
    grad_y, kept, residual, weight, bias, statistics, partial, length, channels, batches, parts,
    ROWS: tl.constexpr, UNROLL: tl.constexpr, CHANNELS: tl.constexpr, AFFINE: tl.constexpr, RESIDUAL: tl.constexpr,
    NORMALISED: tl.constexpr, SLOPE: tl.constexpr, OUTPUT: tl.constexpr, RAGGED: tl.constexpr, IDLE: tl.constexpr,
):  # fmt: skip
    """Sums over every `parts`th step of the gradient before the activation, of its products with the normalised x and,
    if NORMALISED, with the normalised residual: partial (parts, 2 or 3, B, C).
    """
    SUM: tl.constexpr = partial.dtype.element_ty
    sample, part, d, live = share_of(tl.program_id(0), channels, batches, CHANNELS, IDLE)
    row = tl.arange(0, ROWS)
    mean, rstd = statistics_of(statistics, sample, channels, batches, d)
    scale, shift = affine_of(weight, bias, d, AFFINE)
    if NORMALISED:
        other_mean, other_rstd = statistics_of(statistics + 2 * batches * channels, sample, channels, batches, d)
    sum_grad = tl.zeros([ROWS, CHANNELS], SUM)
    sum_x = tl.zeros([ROWS, CHANNELS], SUM)
    sum_residual = tl.zeros([ROWS, CHANNELS], SUM)
    for step in range(part, tl.cdiv(length, UNROLL * ROWS), parts):
        grads = ()
        values = ()
        others = ()
        left = tl.cast(length - step * (UNROLL * ROWS), tl.int32)
        for k in tl.static_range(UNROLL):
            here = (sample * length + (step * UNROLL + k) * ROWS) * channels
            grads += (load_tile(grad_y + here, row, d, channels, left - k * ROWS, RAGGED),)
            values += (load_tile(kept + here, row, d, channels, left - k * ROWS, RAGGED),)
            if RESIDUAL:
                others += (load_tile(residual + here, row, d, channels, left - k * ROWS, RAGGED),)
        for k in tl.static_range(UNROLL):
            added = 0.0
            if RESIDUAL:
                added = others[k].to(SUM)
                if NORMALISED:
                    added = (added - other_mean) * other_rstd
            grad, normalised = before_gradient(
                grads[k].to(SUM), values[k].to(SUM), added, mean, rstd, scale, shift, AFFINE, RESIDUAL, SLOPE, OUTPUT
            )
            if RAGGED:
                grad = tl.where((row < left - k * ROWS)[:, None], grad, 0.0)
            sum_grad += grad
            sum_x += grad * normalised
            if NORMALISED:
                sum_residual += grad * added
    plane = batches * channels
    partial += (part * (3 if NORMALISED else 2) * batches + sample) * channels
    tl.store(partial + d, tl.sum(sum_grad, axis=0), mask=live)
    tl.store(partial + plane + d, tl.sum(sum_x, axis=0), mask=live)
    if NORMALISED:
        tl.store(partial + 2 * plane + d, tl.sum(sum_residual, axis=0), mask=live)


@triton.jit(do_not_specialize=("parts",))
def merge_sums(partial, sums, columns, parts, PARTS: tl.constexpr, COLUMNS: tl.constexpr):
    """sums (columns,) of partial (parts, columns)."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.arange(0, PARTS)
    mask = (part < parts)[:, None] & (column < columns)[None, :]
    tile = tl.load(partial + part[:, None] * columns + column[None, :], mask=mask, other=0.0)
    tl.store(sums + column, tl.sum(tile, axis=0), mask=column < columns)


@triton.jit(do_not_specialize=_UNTOLD)
def gradients(
    grad_y, kept, residual, weight, bias, statistics, sums, grad_x, grad_residual, length, channels, batches, blocks,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, AFFINE: tl.constexpr, RESIDUAL: tl.constexpr,
    NORMALISED: tl.constexpr, SLOPE: tl.constexpr, OUTPUT: tl.constexpr, GRAD_RESIDUAL: tl.constexpr,
    RAGGED: tl.constexpr, IDLE: tl.constexpr,
):  # fmt: skip
    """grad_x and grad_residual of `blocks` tiles, the last of all first; sums (2 or 3, B, C) from `partial_sums`."""
    SUM: tl.constexpr = statistics.dtype.element_ty
    program = tl.num_programs(0) - 1 - tl.program_id(0)
    sample, part, d, live = share_of(program, channels, batches, CHANNELS, IDLE)
    row = tl.arange(0, ROWS)
    plane = batches * channels
    mean, rstd = statistics_of(statistics, sample, channels, batches, d)
    scale, shift = affine_of(weight, bias, d, AFFINE)
    slope = rstd * scale
    share = 1 / length.to(SUM)
    sums += sample * channels + d
    mean_grad = tl.load(sums)[None, :] * share
    mean_x = tl.load(sums + plane)[None, :] * share
    if NORMALISED:
        other_mean, other_rstd = statistics_of(statistics + 2 * plane, sample, channels, batches, d)
        mean_residual = tl.load(sums + 2 * plane)[None, :] * share
    for block in range(blocks):
        start = (part * blocks + block) * ROWS
        left = tl.cast(length - start, tl.int32)
        here = (sample * length + start) * channels
        grad = load_tile(grad_y + here, row, d, channels, left, RAGGED).to(SUM)
        value = load_tile(kept + here, row, d, channels, left, RAGGED).to(SUM)
        added = 0.0
        if RESIDUAL:
            added = load_tile(residual + here, row, d, channels, left, RAGGED).to(SUM)
            if NORMALISED:
                added = (added - other_mean) * other_rstd
        grad, normalised = before_gradient(
            grad, value, added, mean, rstd, scale, shift, AFFINE, RESIDUAL, SLOPE, OUTPUT
        )  # fmt: skip
        value = (grad - mean_grad - normalised * mean_x) * slope
        store_tile(grad_x + here, value, row, d, channels, left, live, RAGGED, IDLE)
        if GRAD_RESIDUAL:
            if NORMALISED:
                grad = (grad - mean_grad - added * mean_residual) * other_rstd
            store_tile(grad_residual + here, grad, row, d, channels, left, live, RAGGED, IDLE)


def instance_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    negative_slope: float | None,
    normalise_residual: bool,
) -> Tensor:
    """See `models.ops.instance_norm.instance_norm`, which checks the arguments."""
    found, _ = _norm(x, weight, bias, residual, eps, negative_slope, normalise_residual)
    return found


@torch.library.custom_op("segmamba_bench::instance_norm", mutates_args=())
def _norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    eps: float,
    negative_slope: float | None,
    normalise_residual: bool,
) -> tuple[Tensor, Tensor]:
    """y, in channels last, and the statistics."""
    x = channels_last(x)
    residual = None if residual is None else channels_last(residual)
    statistics = _statistics([x, residual] if residual is not None and normalise_residual else [x], eps)
    y = _empty(x)
    tiles = _tiles(x, _OF_ONE if residual is None else _OF_SEVERAL)
    normalise[tiles.pop("programs"),](
        x, residual, *_affine(x, weight, bias), statistics, y,
        **tiles, **_kind(weight, bias, residual, negative_slope, normalise_residual),
    )  # fmt: skip
    return y, statistics


@_norm.register_fake
def _(
    x: Tensor,
    _weight: Tensor | None,
    _bias: Tensor | None,
    residual: Tensor | None,
    _eps: float,
    _negative_slope: float | None,
    normalise_residual: bool,
) -> tuple[Tensor, Tensor]:
    tensors = 2 if residual is not None and normalise_residual else 1
    return _empty(x), x.new_empty((tensors, 2, *x.shape[:2]), dtype=at_least_fp32(x.dtype))


@torch.library.custom_op("segmamba_bench::instance_norm_backward", mutates_args=())
def _norm_backward(
    grad_y: Tensor,
    kept: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    statistics: Tensor,
    negative_slope: float | None,
    normalise_residual: bool,
    output: bool,
    wanted: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x and, if `wanted`, of the residual, and (2 or 3, B, C) the sums of `partial_sums`."""
    grad_y, kept = channels_last(grad_y), channels_last(kept)
    residual = None if residual is None else channels_last(residual)
    scale, shift = _affine(kept, weight, bias)
    kind = _kind(weight, bias, residual, negative_slope, normalise_residual) | {"OUTPUT": output}
    shares = _shares(kept, _UNROLL_BACKWARDS)
    programs, parts = shares.pop("programs"), shares["parts"]
    partial = statistics.new_empty(parts, 2 + kind["NORMALISED"], *statistics.shape[2:])
    partial_sums[programs,](grad_y, kept, residual, scale, shift, statistics, partial, **shares, **kind)
    sums = torch.empty_like(partial[0])
    merge_sums[cdiv(sums.numel(), _MERGED_CHANNELS),](
        partial, sums, sums.numel(), parts, PARTS=_MOST_PARTS, COLUMNS=_MERGED_CHANNELS, num_warps=_WARPS_MERGING
    )
    grad_x = _empty(kept)
    grad_residual = _empty(residual) if residual is not None and wanted else kept.new_empty(0)
    tiles = _tiles(kept, _OF_SEVERAL)
    gradients[tiles.pop("programs"),](
        grad_y, kept, residual, scale, shift, statistics, sums, grad_x, grad_residual,
        GRAD_RESIDUAL=residual is not None and wanted, **tiles, **kind,
    )  # fmt: skip
    return grad_x, grad_residual, sums


@_norm_backward.register_fake
def _(
    _grad_y: Tensor,
    kept: Tensor,
    _weight: Tensor | None,
    _bias: Tensor | None,
    residual: Tensor | None,
    statistics: Tensor,
    _negative_slope: float | None,
    _normalise_residual: bool,
    _output: bool,
    wanted: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    grad_residual = _empty(residual) if residual is not None and wanted else kept.new_empty(0)
    return _empty(kept), grad_residual, statistics.new_empty(1 + len(statistics), *statistics.shape[2:])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, residual, _, slope, ctx.normalise_residual = inputs
    y, statistics = output
    ctx.negative_slope = slope
    # A flatter slope takes what is negative to numbers that the dtype does not hold in full.
    invertible = slope is not None and slope >= torch.finfo(x.dtype).tiny
    ctx.output = invertible and weight is None and bias is None
    # A residual that is only added has the gradient of the sum, which needs it for the activation alone.
    ctx.plain = residual is not None and slope is None and not ctx.normalise_residual
    ctx.residual_dtype = None if residual is None else residual.dtype
    ctx.save_for_backward(y if ctx.output else x, weight, bias, None if ctx.plain else residual, statistics)
    ctx.mark_non_differentiable(statistics)


def _backward(ctx: Any, grad_y: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    kept, weight, bias, residual, statistics = ctx.saved_tensors
    wanted = ctx.needs_input_grad[3]
    grad_x, grad_residual, sums = _norm_backward(
        grad_y, kept, weight, bias, residual, statistics,
        ctx.negative_slope, ctx.normalise_residual, ctx.output, wanted,
    )  # fmt: skip
    return (
        grad_x,
        None if weight is None else sums[1].sum(0).to(weight.dtype),
        None if bias is None else sums[0].sum(0).to(bias.dtype),
        (grad_y.to(ctx.residual_dtype) if ctx.plain else grad_residual) if wanted else None,
        None,
        None,
        None,
    )


_norm.register_autograd(_backward, setup_context=_keep)


def channels_last(tensor: Tensor) -> Tensor:
    """The same (B, C, ...), the channels of a voxel side by side in memory and the voxels one after another."""
    rows = tensor.movedim(1, -1)
    return tensor if rows.is_contiguous() else rows.contiguous().movedim(-1, 1)


def _empty(like: Tensor) -> Tensor:
    return torch.empty_like(like.movedim(1, -1), memory_format=torch.contiguous_format).movedim(-1, 1)


def _statistics(tensors: list[Tensor], eps: float) -> Tensor:
    x = tensors[0]
    batches, channels = x.shape[:2]
    shares = _shares(x, _UNROLL)
    programs, parts = shares.pop("programs"), shares["parts"]
    partial = x.new_empty(len(tensors), parts, 2, batches, channels, dtype=at_least_fp32(x.dtype))
    for tensor, own in zip(tensors, partial, strict=True):
        partial_statistics[programs,](tensor, own, **shares)
    statistics = partial.new_empty(len(tensors), 2, batches, channels)
    merge_statistics[cdiv(channels, _MERGED_CHANNELS), batches, len(tensors)](
        partial, statistics, shares["length"], channels, batches, parts,
        STEP=shares["ROWS"] * _UNROLL, EPS=eps, PARTS=_MOST_PARTS, CHANNELS=_MERGED_CHANNELS,
        num_warps=_WARPS_MERGING,
    )  # fmt: skip
    return statistics


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Both of them in the type of the sums if there is one."""
    if weight is None and bias is None:
        return None, None
    like = x.new_empty(x.shape[1], dtype=at_least_fp32(x.dtype))
    return (
        torch.ones_like(like) if weight is None else weight.to(like.dtype).contiguous(),
        torch.zeros_like(like) if bias is None else bias.to(like.dtype).contiguous(),
    )


def _width(channels: int) -> int:
    """Channels of a program."""
    dividing = [width for width in _WIDTHS if channels % width == 0]
    return dividing[0] if dividing else min(_WIDEST, max(_NARROWEST, next_power_of_2(channels)))


def _shares(x: Tensor, unroll: int) -> dict[str, Any]:
    """How kernels that sum share out the rows, and how many programs they need."""
    common = _common(x, _SUMMED)
    step = common["ROWS"] * unroll
    steps = cdiv(common["length"], step)
    columns = len(x) * cdiv(x.shape[1], common["CHANNELS"])
    parts = min(steps, _MOST_PARTS, max(1, _PROGRAMS_SUMMING // columns))
    parts = cdiv(steps, cdiv(steps, parts))  # all have as many steps, or one less
    ragged = common["length"] % step != 0
    return common | {"parts": parts, "UNROLL": unroll, "RAGGED": ragged, "programs": parts * columns}


def _tiles(x: Tensor, elements: int) -> dict[str, Any]:
    """How kernels that take each tile by itself share them out, and how many programs they need."""
    common = _common(x, elements)
    tiles = cdiv(common["length"], common["ROWS"])
    columns = len(x) * cdiv(x.shape[1], common["CHANNELS"])
    blocks = min(tiles, max(1, tiles * columns // _PROGRAMS))
    ragged = common["length"] % (common["ROWS"] * blocks) != 0
    return common | {"blocks": blocks, "RAGGED": ragged, "programs": cdiv(tiles, blocks) * columns}


def _common(x: Tensor, elements: int) -> dict[str, Any]:
    batches, channels = x.shape[:2]
    width = _width(channels)
    if channels % _ALIGNED != 0:
        elements //= 4  # a thread holds the address of each element where it cannot load several at once
    if x.dtype == torch.float64:
        elements //= 2
    return {
        "length": x.shape[2:].numel(),
        "channels": channels,
        "batches": batches,
        "ROWS": elements // width,
        "CHANNELS": width,
        "IDLE": channels % width != 0,
        "num_warps": _WARPS,
    }


def _kind(
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    negative_slope: float | None,
    normalise_residual: bool,
) -> dict[str, Any]:
    return {
        "AFFINE": weight is not None or bias is not None,
        "RESIDUAL": residual is not None,
        "NORMALISED": residual is not None and normalise_residual,
        "SLOPE": negative_slope,
    }
