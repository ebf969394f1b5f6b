"""The kernels of the norm put together: for autograd and torch.compile an operator and its backward operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.ops.launch import cdiv, next_power_of_2
from models.ops.precision import at_least_fp32
from models.ops.triton_norm.backward import gradients, merge_sums, partial_sums
from models.ops.triton_norm.forward import merge_statistics, normalise, partial_statistics

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
