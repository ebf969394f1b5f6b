"""The forward kernels: where each chunk of a sequence ends, what each begins with, and its outputs.

A chunk's end depends on its beginning through one factor alone, the decay over the chunk. So all chunks are scanned
at once from zero, a scan over chunks gives every beginning, and all chunks are scanned at once again for their outputs
(the scan of scans of Blelloch, "Prefix sums and their applications", 1990, for the recurrence of Mamba,
arXiv:2312.00752).

Shapes, with O orders in which the tokens are read: u, delta, z, y (O, B, L, D) with any stride between tokens, or none
between orders; A (O, N, D); B, C (O, B, L, G, N); D, bias (O, D); ends and begins (O, B, chunks, N, D); spans
(O, B, chunks, D); states (O, B, chunks · CHUNK / STRETCH, N, D); walks (O, 4), see `models.ops.order.Walk`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from models.ops.triton_scan.steps import (
    LOG2E,
    UNTOLD,
    at_tokens,
    compose,
    logistic,
    place_of,
    places_after,
    places_before,
    put_at_token,
    step_size,
    underflow,
    walk_of,
)


@triton.jit
def block_of(program, channels, groups, BLOCK: tl.constexpr):
    """Chunk, group, the block's channels and which of them exist, of the program with this index."""
    per_group = channels // groups
    blocks = tl.cdiv(per_group, BLOCK)
    chunk = program // (blocks * groups)
    group = program // blocks % groups
    within = program % blocks * BLOCK + tl.arange(0, BLOCK)
    return chunk, group, group * per_group + within, within < per_group


@triton.jit(do_not_specialize=UNTOLD)
def chunk_ends(
    u, delta, A, B, bias, ends, spans,
    walks, length, channels, groups, chunks, row,
    u_order, u_batch, u_token, delta_order, delta_batch, delta_token, B_order, B_batch, B_token,
    CHUNK: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr, STATE: tl.constexpr,
    BIAS: tl.constexpr, SOFTPLUS: tl.constexpr, WIDE: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    """The state at the end of each chunk that begins with zero, and the sum of its step sizes.

    From the end backwards, each step weighted by the decay after it; once nothing earlier can be felt, the step sizes
    alone are added up no further: their decay is zero already.
    """
    chunk, group, d, live = block_of(tl.program_id(0), channels, groups, BLOCK)
    batch = tl.program_id(1).to(tl.int64)
    order = tl.program_id(2).to(tl.int64)
    sequence = order * tl.num_programs(1) + batch
    n = tl.arange(0, N)
    u += order * u_order + batch * u_batch
    delta += order * delta_order + batch * delta_batch
    B += order * B_order + batch * B_batch + group * N
    rate = tl.load(A + order * N * row + n[:, None] * row + d[None, :], mask=live[None, :], other=0.0).to(STATE) * LOG2E
    slowest = tl.max(rate, axis=0)
    shift = tl.zeros([BLOCK], STATE)
    if BIAS:
        shift += tl.load(bias + order * channels + d, mask=live, other=0.0).to(STATE)
    state = tl.zeros([N, BLOCK], STATE)
    after = tl.zeros([BLOCK], STATE)
    first = chunk * CHUNK
    origin, run, within, across = walk_of(walks, order)
    place, index = place_of(first + CHUNK - 1, origin, run, within, across)
    start = first + CHUNK - UNROLL
    places, place, index = places_before(place, index, run, within, across, UNROLL)
    xs = at_tokens(u, places, u_token, d, live, start, length, UNROLL, WIDE, RAGGED)
    raws = at_tokens(delta, places, delta_token, d, live, start, length, UNROLL, WIDE, RAGGED)
    inputs = at_tokens(B, places, B_token, n, n >= 0, start, length, UNROLL, WIDE, RAGGED)
    while start >= first:
        place = tl.where(start > first, place, places[UNROLL - 1])
        ahead = start - UNROLL
        places, place, index = places_before(place, index, run, within, across, UNROLL)
        next_xs = at_tokens(u, places, u_token, d, live, ahead, length, UNROLL, WIDE, RAGGED)
        next_raws = at_tokens(delta, places, delta_token, d, live, ahead, length, UNROLL, WIDE, RAGGED)
        next_inputs = at_tokens(B, places, B_token, n, n >= 0, ahead, length, UNROLL, WIDE, RAGGED)
        for k in tl.static_range(UNROLL - 1, -1, -1):
            size, _ = step_size(raws[k], shift, start + k < length, SOFTPLUS, RAGGED)
            weight = tl.exp2(rate * after[None, :]) * (size * xs[k].to(STATE))[None, :]
            state += weight * inputs[k].to(STATE)[:, None]
            after += size
        xs = next_xs
        raws = next_raws
        inputs = next_inputs
        felt = tl.max(slowest * after, axis=0) > underflow(STATE)
        start = tl.where(felt, ahead, first - 1)
    place_in_ends = (sequence * chunks + chunk) * N
    tl.store(ends + (place_in_ends + n[:, None]) * row + d[None, :], state, mask=live[None, :])
    tl.store(spans + (sequence * chunks + chunk) * channels + d, after, mask=live)


@triton.jit(do_not_specialize=UNTOLD)
def carry(
    ends, spans, A, begins,
    channels, chunks, row,
    N: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, STATE: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """What each chunk begins with, from where each would end had it begun with zero; from the last with `REVERSE`."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    batch = tl.program_id(1).to(tl.int64)
    order = tl.program_id(2).to(tl.int64)
    sequence = order * tl.num_programs(1) + batch
    live = column < N * channels
    d = column % channels
    rate = tl.load(A + order * N * row + column, mask=live, other=0.0).to(STATE) * LOG2E
    rows = tl.arange(0, ROWS)
    state = tl.zeros([COLUMNS], STATE)
    for start in range(0, chunks, ROWS):
        step = start + rows
        chunk = step
        onwards = 1
        if REVERSE:
            chunk = chunks - 1 - step
            onwards = -1
        inside = (step < chunks)[:, None] & live[None, :]
        at = (sequence * chunks + chunk)[:, None]
        end = tl.load(ends + at * (N * row) + column[None, :], mask=inside, other=0.0)
        span = tl.load(spans + at * row + d[None, :], mask=inside, other=0.0)
        decay, end = tl.associative_scan((tl.exp2(rate[None, :] * span), end), 0, compose)
        end += decay * state[None, :]
        last = (step + 1 < chunks)[:, None] & live[None, :]
        tl.store(begins + (at + onwards) * (N * row) + column[None, :], end, mask=last)
        if start == 0:
            zero = tl.zeros([ROWS, COLUMNS], STATE)
            tl.store(begins + at * (N * row) + column[None, :], zero, mask=(rows == 0)[:, None] & live[None, :])
        state = tl.sum(tl.where((rows == ROWS - 1)[:, None], end, 0.0), axis=0)


@triton.jit(do_not_specialize=UNTOLD)
def chunk_outputs(
    u, delta, A, B, C, D, z, bias, begins, y, states,
    walks, length, channels, groups, chunks, row,
    u_order, u_batch, u_token, delta_order, delta_batch, delta_token, B_order, B_batch, B_token,
    C_order, C_batch, C_token, z_order, z_batch, z_token, y_order, y_batch, y_token,
    CHUNK: tl.constexpr, STRETCH: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr,
    STATE: tl.constexpr, SKIP: tl.constexpr, GATE: tl.constexpr, BIAS: tl.constexpr, SOFTPLUS: tl.constexpr,
    SAVE: tl.constexpr, WIDE: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    """The outputs of each chunk; with `SAVE` the state before every `STRETCH` steps too, for the backward pass."""
    chunk, group, d, live = block_of(tl.program_id(0), channels, groups, BLOCK)
    batch = tl.program_id(1).to(tl.int64)
    order = tl.program_id(2).to(tl.int64)
    sequence = order * tl.num_programs(1) + batch
    n = tl.arange(0, N)
    u += order * u_order + batch * u_batch
    delta += order * delta_order + batch * delta_batch
    B += order * B_order + batch * B_batch + group * N
    C += order * C_order + batch * C_batch + group * N
    y += order * y_order + batch * y_batch
    rate = tl.load(A + order * N * row + n[:, None] * row + d[None, :], mask=live[None, :], other=0.0).to(STATE) * LOG2E
    shift = tl.zeros([BLOCK], STATE)
    if BIAS:
        shift += tl.load(bias + order * channels + d, mask=live, other=0.0).to(STATE)
    if SKIP:
        skip = tl.load(D + order * channels + d, mask=live, other=0.0).to(STATE)
    if GATE:
        z += order * z_order + batch * z_batch
    tile = n[:, None] * row + d[None, :]
    state = tl.load(begins + (sequence * chunks + chunk) * N * row + tile, mask=live[None, :], other=0.0)
    first = chunk * CHUNK
    origin, run, within, across = walk_of(walks, order)
    place, index = place_of(first, origin, run, within, across)
    places, place, index = places_after(place, index, run, within, across, UNROLL)
    xs = at_tokens(u, places, u_token, d, live, first, length, UNROLL, WIDE, RAGGED)
    raws = at_tokens(delta, places, delta_token, d, live, first, length, UNROLL, WIDE, RAGGED)
    gates = ()
    if GATE:
        gates = at_tokens(z, places, z_token, d, live, first, length, UNROLL, WIDE, RAGGED)
    inputs = at_tokens(B, places, B_token, n, n >= 0, first, length, UNROLL, WIDE, RAGGED)
    outputs = at_tokens(C, places, C_token, n, n >= 0, first, length, UNROLL, WIDE, RAGGED)
    done = 0
    while done < CHUNK:
        if SAVE:
            if done % STRETCH == 0:
                stretch = (sequence * chunks + chunk) * (CHUNK // STRETCH) + done // STRETCH
                tl.store(states + stretch * N * row + tile, state, mask=live[None, :])
        place = tl.where(done + UNROLL < CHUNK, place, places[0])
        ahead = first + done + UNROLL
        next_places, place, index = places_after(place, index, run, within, across, UNROLL)
        next_xs = at_tokens(u, next_places, u_token, d, live, ahead, length, UNROLL, WIDE, RAGGED)
        next_raws = at_tokens(delta, next_places, delta_token, d, live, ahead, length, UNROLL, WIDE, RAGGED)
        next_gates = ()
        if GATE:
            next_gates = at_tokens(z, next_places, z_token, d, live, ahead, length, UNROLL, WIDE, RAGGED)
        next_inputs = at_tokens(B, next_places, B_token, n, n >= 0, ahead, length, UNROLL, WIDE, RAGGED)
        next_outputs = at_tokens(C, next_places, C_token, n, n >= 0, ahead, length, UNROLL, WIDE, RAGGED)
        for k in tl.static_range(UNROLL):
            inside = first + done + k < length
            x = xs[k].to(STATE)
            size, _ = step_size(raws[k], shift, inside, SOFTPLUS, RAGGED)
            drive = (size * x)[None, :] * inputs[k].to(STATE)[:, None]
            state = tl.exp2(rate * size[None, :]) * state + drive
            out = tl.sum(state * outputs[k].to(STATE)[:, None], axis=0)
            if SKIP:
                out += skip * x
            if GATE:
                gate = gates[k].to(STATE)
                out *= gate * logistic(gate)
            put_at_token(y, places[k], y_token, d, out, live, inside, WIDE, RAGGED)
        places = next_places
        xs = next_xs
        raws = next_raws
        gates = next_gates
        inputs = next_inputs
        outputs = next_outputs
        done += UNROLL
