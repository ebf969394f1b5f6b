"""Tiles of rows and channels that the kernels read and write."""

from __future__ import annotations

import triton
import triton.language as tl

# Sizes that kernels are not compiled for.
UNTOLD = ("length", "batches", "parts", "blocks")


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
