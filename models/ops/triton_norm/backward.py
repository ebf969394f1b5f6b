"""The backward kernels: sums of the gradient, by parts and merged, and the gradients."""

from __future__ import annotations

import triton
import triton.language as tl

from models.ops.triton_norm.forward import affine_of, before_activation, statistics_of
from models.ops.triton_norm.tiles import UNTOLD, load_tile, share_of, store_tile


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


@triton.jit(do_not_specialize=UNTOLD)
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


@triton.jit(do_not_specialize=UNTOLD)
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
