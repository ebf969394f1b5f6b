"""The backward kernels: what each chunk passes to the one before it, and the gradients within it.

Mathematics, with a_t = exp(δ_t A) and g_t the gradient with respect to the state h_t: g_t = C_t dy_t + a_{t+1} g_{t+1}.
That is the same recurrence from the other end, so it is cut into chunks and joined in the same way.

Shapes as in `models.ops.triton_scan.forward`; heads and tails (O, B, chunks, N, D) are what chunks pass to the one
before them, from zero and in truth.
"""

from __future__ import annotations

import triton
import triton.language as tl

from models.ops.triton_scan.forward import block_of
from models.ops.triton_scan.steps import (
    LN2,
    LOG2E,
    UNTOLD,
    at_tokens,
    for_tiles,
    logistic,
    place_of,
    places_after,
    places_before,
    put_at_token,
    step_size,
    underflow,
    walk_of,
)


@triton.jit(do_not_specialize=UNTOLD)
def chunk_heads(
    delta, A, C, z, bias, grad_y, heads,
    walks, length, channels, groups, chunks, row,
    delta_order, delta_batch, delta_token, C_order, C_batch, C_token, z_order, z_batch, z_token,
    grad_y_order, grad_y_batch, grad_y_token,
    CHUNK: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr, STATE: tl.constexpr,
    GATE: tl.constexpr, BIAS: tl.constexpr, SOFTPLUS: tl.constexpr,
    WIDE: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    """The gradient that each chunk passes to the state before it, if none came from the chunk after it."""
    chunk, group, d, live = block_of(tl.program_id(0), channels, groups, BLOCK)
    batch = tl.program_id(1).to(tl.int64)
    order = tl.program_id(2).to(tl.int64)
    sequence = order * tl.num_programs(1) + batch
    n = tl.arange(0, N)
    delta += order * delta_order + batch * delta_batch
    C += order * C_order + batch * C_batch + group * N
    grad_y += order * grad_y_order + batch * grad_y_batch
    if GATE:
        z += order * z_order + batch * z_batch
    tile = n[:, None] * row + d[None, :]
    rate = tl.load(A + order * N * row + tile, mask=live[None, :], other=0.0).to(STATE) * LOG2E
    slowest = tl.max(rate, axis=0)
    shift = tl.zeros([BLOCK], STATE)
    if BIAS:
        shift += tl.load(bias + order * channels + d, mask=live, other=0.0).to(STATE)
    head = tl.zeros([N, BLOCK], STATE)
    before = tl.zeros([BLOCK], STATE)
    first = chunk * CHUNK
    origin, run, within, across = walk_of(walks, order)
    place, index = place_of(first, origin, run, within, across)
    places, place, index = places_after(place, index, run, within, across, UNROLL)
    raws = at_tokens(delta, places, delta_token, d, live, first, length, UNROLL, WIDE, RAGGED)
    grads = at_tokens(grad_y, places, grad_y_token, d, live, first, length, UNROLL, WIDE, RAGGED)
    gates = ()
    if GATE:
        gates = at_tokens(z, places, z_token, d, live, first, length, UNROLL, WIDE, RAGGED)
    outputs = at_tokens(C, places, C_token, n, n >= 0, first, length, UNROLL, WIDE, RAGGED)
    done = 0
    while done < CHUNK:
        place = tl.where(done + UNROLL < CHUNK, place, places[0])
        ahead = first + done + UNROLL
        places, place, index = places_after(place, index, run, within, across, UNROLL)
        next_raws = at_tokens(delta, places, delta_token, d, live, ahead, length, UNROLL, WIDE, RAGGED)
        next_grads = at_tokens(grad_y, places, grad_y_token, d, live, ahead, length, UNROLL, WIDE, RAGGED)
        next_gates = ()
        if GATE:
            next_gates = at_tokens(z, places, z_token, d, live, ahead, length, UNROLL, WIDE, RAGGED)
        next_outputs = at_tokens(C, places, C_token, n, n >= 0, ahead, length, UNROLL, WIDE, RAGGED)
        for k in tl.static_range(UNROLL):
            size, _ = step_size(raws[k], shift, first + done + k < length, SOFTPLUS, RAGGED)
            before += size
            grad = grads[k].to(STATE)
            if GATE:
                gate = gates[k].to(STATE)
                grad *= gate * logistic(gate)
            head += tl.exp2(rate * before[None, :]) * grad[None, :] * outputs[k].to(STATE)[:, None]
        raws = next_raws
        grads = next_grads
        gates = next_gates
        outputs = next_outputs
        felt = tl.max(slowest * before, axis=0) > underflow(STATE)
        done = tl.where(felt, done + UNROLL, CHUNK)
    tl.store(heads + (sequence * chunks + chunk) * N * row + tile, head, mask=live[None, :])


@triton.jit(do_not_specialize=UNTOLD)
def chunk_gradients(
    u, delta, A, B, C, D, z, bias, grad_y, states, tails, scratch,
    y, grad_u, grad_delta, grad_z, grad_BC, sums,
    walks, length, channels, groups, chunks, row,
    u_order, u_batch, u_token, delta_order, delta_batch, delta_token, B_order, B_batch, B_token,
    C_order, C_batch, C_token, z_order, z_batch, z_token,
    grad_y_order, grad_y_batch, grad_y_token, grad_token,
    CHUNK: tl.constexpr, STRETCH: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr,
    SWEEP: tl.constexpr, STATE: tl.constexpr, SKIP: tl.constexpr, GATE: tl.constexpr, BIAS: tl.constexpr,
    SOFTPLUS: tl.constexpr, AGAIN: tl.constexpr, WIDE: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    """All gradients within each chunk.

    Stretch by stretch from the end: a sweep forwards from the saved state leaves a state every `UNROLL` steps in
    `scratch`, and a sweep backwards recomputes those between in registers. With `AGAIN` the outputs are written again,
    for a caller that did not keep them. Sums over channels and over chunks are left undone, so that their order is
    always the same: those of B and C, side by side in `grad_BC` (O, blocks, B, L, G, N, 2), for `add_blocks`, and those
    of A, D and the bias, one below the other in `sums` (O, B, chunks, N + SKIP + BIAS, D), from chunk to chunk.
    """
    chunk, group, d, live = block_of(tl.program_id(0), channels, groups, BLOCK)
    batch = tl.program_id(1).to(tl.int64)
    order = tl.program_id(2).to(tl.int64)
    sequence = order * tl.num_programs(1) + batch
    n = tl.arange(0, N)
    n_twice = n[:, None] * 2 + tl.arange(0, 2)[None, :]
    lane = tl.arange(0, BLOCK)
    u += order * u_order + batch * u_batch
    delta += order * delta_order + batch * delta_batch
    B += order * B_order + batch * B_batch + group * N
    C += order * C_order + batch * C_batch + group * N
    grad_y += order * grad_y_order + batch * grad_y_batch
    whole = sequence * length * channels
    grad_u += whole
    grad_delta += whole
    if AGAIN:
        y += whole
    parts = tl.cdiv(channels // groups, BLOCK)
    part = tl.program_id(0) % parts
    grad_BC += (((order * parts + part) * tl.num_programs(1) + batch) * length * groups + group) * N * 2
    tile = n[:, None] * row + d[None, :]
    rate = tl.load(A + order * N * row + tile, mask=live[None, :], other=0.0).to(STATE) * LOG2E
    shift = tl.zeros([BLOCK], STATE)
    if BIAS:
        shift += tl.load(bias + order * channels + d, mask=live, other=0.0).to(STATE)
    if SKIP:
        skip = tl.load(D + order * channels + d, mask=live, other=0.0).to(STATE)
        sum_D = tl.zeros([BLOCK], STATE)
    if GATE:
        z += order * z_order + batch * z_batch
        grad_z += whole
    here = (sequence * chunks + chunk) * N * row + tile
    passed = tl.load(tails + here, mask=live[None, :], other=0.0)
    origin, run, within, across = walk_of(walks, order)
    sum_A = tl.zeros([N, BLOCK], STATE)
    sum_bias = tl.zeros([BLOCK], STATE)
    own = (sequence * tl.num_programs(0) + tl.program_id(0)) * (STRETCH // UNROLL) * N
    aside = scratch + (own + n[:, None]) * BLOCK + lane[None, :]
    for turn in range(CHUNK // STRETCH):
        stretch = CHUNK // STRETCH - 1 - turn
        start = chunk * CHUNK + stretch * STRETCH
        state = tl.load(
            states + ((sequence * chunks + chunk) * (CHUNK // STRETCH) + stretch) * N * row + tile,
            mask=live[None, :],
            other=0.0,
        )
        place, index = place_of(start, origin, run, within, across)
        places, place, index = places_after(place, index, run, within, across, SWEEP)
        xs = at_tokens(u, places, u_token, d, live, start, length, SWEEP, WIDE, RAGGED)
        raws = at_tokens(delta, places, delta_token, d, live, start, length, SWEEP, WIDE, RAGGED)
        inputs = at_tokens(B, places, B_token, n, n >= 0, start, length, SWEEP, WIDE, RAGGED)
        done = 0
        while done < STRETCH:
            place = tl.where(done + SWEEP < STRETCH, place, places[0])
            ahead = start + done + SWEEP
            places, place, index = places_after(place, index, run, within, across, SWEEP)
            next_xs = at_tokens(u, places, u_token, d, live, ahead, length, SWEEP, WIDE, RAGGED)
            next_raws = at_tokens(delta, places, delta_token, d, live, ahead, length, SWEEP, WIDE, RAGGED)
            next_inputs = at_tokens(B, places, B_token, n, n >= 0, ahead, length, SWEEP, WIDE, RAGGED)
            for k in tl.static_range(SWEEP):
                if k % UNROLL == 0:
                    tl.store(aside + (done + k) // UNROLL * N * BLOCK, state)
                size, _ = step_size(raws[k], shift, start + done + k < length, SOFTPLUS, RAGGED)
                size, drive = for_tiles(size, size * xs[k].to(STATE), 0)
                state = tl.exp2(rate * size) * state + drive * inputs[k].to(STATE)[:, None]
            xs = next_xs
            raws = next_raws
            inputs = next_inputs
            done += SWEEP
        tl.debug_barrier()
        place, index = place_of(start + STRETCH - 1, origin, run, within, across)
        begin = start + STRETCH - UNROLL
        places, place, index = places_before(place, index, run, within, across, UNROLL)
        xs = at_tokens(u, places, u_token, d, live, begin, length, UNROLL, WIDE, RAGGED)
        raws = at_tokens(delta, places, delta_token, d, live, begin, length, UNROLL, WIDE, RAGGED)
        grads = at_tokens(grad_y, places, grad_y_token, d, live, begin, length, UNROLL, WIDE, RAGGED)
        gates = ()
        if GATE:
            gates = at_tokens(z, places, z_token, d, live, begin, length, UNROLL, WIDE, RAGGED)
        inputs = at_tokens(B, places, B_token, n, n >= 0, begin, length, UNROLL, WIDE, RAGGED)
        outputs = at_tokens(C, places, C_token, n, n >= 0, begin, length, UNROLL, WIDE, RAGGED)
        while begin >= start:
            before = tl.load(aside + (begin - start) // UNROLL * N * BLOCK)
            place = tl.where(begin > start, place, places[UNROLL - 1])
            ahead = begin - UNROLL
            next_places, place, index = places_before(place, index, run, within, across, UNROLL)
            next_xs = at_tokens(u, next_places, u_token, d, live, ahead, length, UNROLL, WIDE, RAGGED)
            next_raws = at_tokens(delta, next_places, delta_token, d, live, ahead, length, UNROLL, WIDE, RAGGED)
            next_grads = at_tokens(grad_y, next_places, grad_y_token, d, live, ahead, length, UNROLL, WIDE, RAGGED)
            next_gates = ()
            if GATE:
                next_gates = at_tokens(z, next_places, z_token, d, live, ahead, length, UNROLL, WIDE, RAGGED)
            next_inputs = at_tokens(B, next_places, B_token, n, n >= 0, ahead, length, UNROLL, WIDE, RAGGED)
            next_outputs = at_tokens(C, next_places, C_token, n, n >= 0, ahead, length, UNROLL, WIDE, RAGGED)
            sizes = ()
            slopes = ()
            widths = ()
            drives = ()
            decays = ()
            projections = ()
            befores = (before,)
            for k in tl.static_range(UNROLL):
                size, slope = step_size(raws[k], shift, begin + k < length, SOFTPLUS, RAGGED)
                sizes = sizes + (size,)
                slopes = slopes + (slope,)
                width, drive = for_tiles(size, size * xs[k].to(STATE), 0)
                widths = widths + (width,)
                drives = drives + (drive,)
                projections = projections + (for_tiles(inputs[k].to(STATE), outputs[k].to(STATE), 1),)
                decay = tl.exp2(rate * width)
                decays = decays + (decay,)
                if k + 1 < UNROLL:
                    befores = befores + (decay * befores[k] + drive * projections[k][0],)
            for k in tl.static_range(UNROLL - 1, -1, -1):
                inside = begin + k < length
                x = xs[k].to(STATE)
                grad = grads[k].to(STATE)
                input_, output = projections[k]
                if GATE or AGAIN:
                    out = tl.sum(state * output, axis=0)
                    if SKIP:
                        out += skip * x
                if GATE:
                    gate = gates[k].to(STATE)
                    open_ = logistic(gate)
                    slope_z = grad * out * open_ * (1 + gate * (1 - open_))
                    put_at_token(grad_z, places[k], grad_token, d, slope_z, live, inside, WIDE, RAGGED)
                    grad *= gate * open_
                    if AGAIN:
                        out *= gate * open_
                if AGAIN:
                    put_at_token(y, places[k], grad_token, d, out, live, inside, WIDE, RAGGED)
                total = passed + output * grad[None, :]
                slope_C = tl.sum(state * grad[None, :], axis=1)
                slope_B = tl.sum(total * drives[k], axis=1)
                slopes_BC = tl.join(slope_B, slope_C)
                put_at_token(grad_BC, places[k], groups * N * 2, n_twice, slopes_BC, n_twice >= 0, inside, WIDE, RAGGED)
                passed = decays[k] * total
                faded = passed * befores[k]
                sum_A += faded * widths[k]
                driven = tl.sum(total * input_, axis=0)
                slope_delta = (tl.sum(faded * rate, axis=0) * LN2 + x * driven) * slopes[k]
                sum_bias += slope_delta
                put_at_token(grad_delta, places[k], grad_token, d, slope_delta, live, inside, WIDE, RAGGED)
                slope_u = sizes[k] * driven
                if SKIP:
                    slope_u += skip * grad
                    sum_D += grad * x
                put_at_token(grad_u, places[k], grad_token, d, slope_u, live, inside, WIDE, RAGGED)
                state = befores[k]
            places = next_places
            xs = next_xs
            raws = next_raws
            grads = next_grads
            gates = next_gates
            inputs = next_inputs
            outputs = next_outputs
            begin = ahead
        tl.debug_barrier()
    sums += (sequence * chunks + chunk) * (N + SKIP + BIAS) * row
    tl.store(sums + tile, sum_A, mask=live[None, :])
    if SKIP:
        tl.store(sums + N * row + d, sum_D, mask=live)
    if BIAS:
        tl.store(sums + (N + SKIP) * row + d, sum_bias, mask=live)


@triton.jit(do_not_specialize=("rows", "blocks"))
def add_blocks(
    grad_BC, grad_B, grad_C, rows, blocks, groups,
    B_order, B_batch, B_token, B_group, C_order, C_batch, C_token, C_group,
    N: tl.constexpr, KEPT: tl.constexpr, ROWS: tl.constexpr, STATE: tl.constexpr,
):  # fmt: skip
    """The gradients of B and C from those of the blocks of channels, in the type and the layout of where they go.

    A row is a group of a token; the first `KEPT` of its `N` states go anywhere.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    batch = tl.program_id(1).to(tl.int64)
    order = tl.program_id(2).to(tl.int64)
    n = tl.arange(0, N)
    there = (row < rows)[:, None]
    block_size = tl.num_programs(1) * rows.to(tl.int64) * (N * 2)
    place = order * blocks * block_size + ((batch * rows + row) * (N * 2))[:, None] + tl.arange(0, N * 2)[None, :]
    total = tl.zeros([ROWS, N * 2], STATE)
    for _ in range(blocks):
        total += tl.load(grad_BC + place, mask=there, other=0.0)
        place += block_size
    of_B, of_C = tl.split(tl.reshape(total, [ROWS, N, 2]))
    token, group = row // groups, row % groups
    there &= (n < KEPT)[None, :]
    at_B = grad_B + order * B_order + batch * B_batch + (token * B_token + group * B_group)[:, None] + n[None, :]
    at_C = grad_C + order * C_order + batch * C_batch + (token * C_token + group * C_group)[:, None] + n[None, :]
    tl.store(at_B, of_B.to(grad_B.dtype.element_ty), mask=there)
    tl.store(at_C, of_C.to(grad_C.dtype.element_ty), mask=there)
