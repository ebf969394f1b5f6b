"""The forward kernels: statistics, by parts and merged, and the normalised tensor."""

from __future__ import annotations

import triton
import triton.language as tl

from models.ops.triton_norm.tiles import UNTOLD, load_tile, share_of, store_tile


@triton.jit
def merged(count, mean, square):
    """Mean and sum of squared deviations over groups with such counts, means and sums (Chan et al. 1979)."""
    whole = tl.sum(count, axis=0)
    centre = tl.sum(count[:, None] * mean, axis=0) / whole
    apart = mean - centre[None, :]
    square = tl.sum(square + count[:, None] * apart * apart, axis=0)
    # Again, for what rounding left of a mean far from zero.
    return centre + tl.sum(count[:, None] * apart, axis=0) / whole, square


@triton.jit(do_not_specialize=UNTOLD)
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


@triton.jit(do_not_specialize=UNTOLD)
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


@triton.jit(do_not_specialize=UNTOLD)
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
