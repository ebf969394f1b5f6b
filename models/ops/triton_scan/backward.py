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
    at_token,
    following,
    logistic,
    place_of,
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
    done = 0
    while done < CHUNK:
        sizes = ()
        grads = ()
        gates = ()
        outputs = ()
        for k in tl.static_range(UNROLL):
            inside = first + done + k < length
            sizes = sizes + (at_token(delta, place, delta_token, d, live, inside, WIDE, RAGGED),)
            grads = grads + (at_token(grad_y, place, grad_y_token, d, live, inside, WIDE, RAGGED),)
            if GATE:
                gates = gates + (at_token(z, place, z_token, d, live, inside, WIDE, RAGGED),)
            outputs = outputs + (at_token(C, place, C_token, n, n >= 0, inside, WIDE, RAGGED),)
            place, index = following(place, index, run, within, across)
        for k in tl.static_range(UNROLL):
            size, _ = step_size(sizes[k], shift, first + done + k < length, SOFTPLUS, RAGGED)
            before += size
            grad = grads[k].to(STATE)
            if GATE:
                gate = gates[k].to(STATE)
                grad *= gate * logistic(gate)
            head += tl.exp2(rate * before[None, :]) * grad[None, :] * outputs[k].to(STATE)[:, None]
        felt = tl.max(slowest * before, axis=0) > underflow(STATE)
        done = tl.where(felt, done + UNROLL, CHUNK)
    tl.store(heads + (sequence * chunks + chunk) * N * row + tile, head, mask=live[None, :])


@triton.jit(do_not_specialize=UNTOLD)
def chunk_gradients(
    u, delta, A, B, C, D, z, bias, grad_y, states, tails, scratch,
    y, grad_u, grad_delta, grad_z, grad_A, grad_B, grad_C, grad_D, grad_bias,
    walks, length, channels, groups, chunks, row,
    u_order, u_batch, u_token, delta_order, delta_batch, delta_token, B_order, B_batch, B_token,
    C_order, C_batch, C_token, z_order, z_batch, z_token,
    grad_y_order, grad_y_batch, grad_y_token, grad_token,
    CHUNK: tl.constexpr, STRETCH: tl.constexpr, N: tl.constexpr, BLOCK: tl.constexpr, UNROLL: tl.constexpr,
    STATE: tl.constexpr, SKIP: tl.constexpr, GATE: tl.constexpr, BIAS: tl.constexpr, SOFTPLUS: tl.constexpr,
    AGAIN: tl.constexpr, WIDE: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    """All gradients within each chunk.

    Stretch by stretch from the end: a sweep forwards from the saved state leaves a state every `UNROLL` steps in
    `scratch`, and a sweep backwards recomputes the `UNROLL` states between in registers. With `AGAIN` the outputs are
    written again, for a caller that did not keep them. Sums over channels and over
    chunks are left to the caller, block by block and chunk by chunk, so that their order is always the same.
    """
    chunk, group, d, live = block_of(tl.program_id(0), channels, groups, BLOCK)
    batch = tl.program_id(1).to(tl.int64)
    order = tl.program_id(2).to(tl.int64)
    sequence = order * tl.num_programs(1) + batch
    part = tl.program_id(0) % tl.cdiv(channels // groups, BLOCK)
    n = tl.arange(0, N)
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
    sequences = tl.num_programs(2) * tl.num_programs(1)
    projected = (part * sequences + sequence) * length * groups * N + group * N
    grad_B += projected
    grad_C += projected
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
        for done in range(0, STRETCH, UNROLL):
            tl.store(aside + done // UNROLL * N * BLOCK, state)
            xs = ()
            sizes = ()
            inputs = ()
            for k in tl.static_range(UNROLL):
                inside = start + done + k < length
                xs = xs + (at_token(u, place, u_token, d, live, inside, WIDE, RAGGED),)
                sizes = sizes + (at_token(delta, place, delta_token, d, live, inside, WIDE, RAGGED),)
                inputs = inputs + (at_token(B, place, B_token, n, n >= 0, inside, WIDE, RAGGED),)
                place, index = following(place, index, run, within, across)
            for k in tl.static_range(UNROLL):
                size, _ = step_size(sizes[k], shift, start + done + k < length, SOFTPLUS, RAGGED)
                drive = (size * xs[k].to(STATE))[None, :] * inputs[k].to(STATE)[:, None]
                state = tl.exp2(rate * size[None, :]) * state + drive
        tl.debug_barrier()
        for done in range(0, STRETCH, UNROLL):
            begin = STRETCH - UNROLL - done
            state = tl.load(aside + begin // UNROLL * N * BLOCK)
            place, index = place_of(start + begin, origin, run, within, across)
            places = ()
            xs = ()
            sizes = ()
            slopes = ()
            grads = ()
            gates = ()
            inputs = ()
            outputs = ()
            decays = ()
            befores = ()
            for k in tl.static_range(UNROLL):
                inside = start + begin + k < length
                places = places + (place,)
                xs = xs + (at_token(u, place, u_token, d, live, inside, WIDE, RAGGED).to(STATE),)
                raw = at_token(delta, place, delta_token, d, live, inside, WIDE, RAGGED)
                grads = grads + (at_token(grad_y, place, grad_y_token, d, live, inside, WIDE, RAGGED).to(STATE),)
                if GATE:
                    gates = gates + (at_token(z, place, z_token, d, live, inside, WIDE, RAGGED).to(STATE),)
                inputs = inputs + (at_token(B, place, B_token, n, n >= 0, inside, WIDE, RAGGED).to(STATE),)
                outputs = outputs + (at_token(C, place, C_token, n, n >= 0, inside, WIDE, RAGGED).to(STATE),)
                size, slope = step_size(raw, shift, inside, SOFTPLUS, RAGGED)
                sizes = sizes + (size,)
                slopes = slopes + (slope,)
                place, index = following(place, index, run, within, across)
            for k in tl.static_range(UNROLL):
                befores = befores + (state,)
                decay = tl.exp2(rate * sizes[k][None, :])
                decays = decays + (decay,)
                state = decay * state + (sizes[k] * xs[k])[None, :] * inputs[k][:, None]
            for k in tl.static_range(UNROLL - 1, -1, -1):
                inside = start + begin + k < length
                x = xs[k]
                size = sizes[k]
                grad = grads[k]
                if GATE or AGAIN:
                    out = tl.sum(state * outputs[k][:, None], axis=0)
                    if SKIP:
                        out += skip * x
                if GATE:
                    open_ = logistic(gates[k])
                    slope_z = grad * out * open_ * (1 + gates[k] * (1 - open_))
                    put_at_token(grad_z, places[k], grad_token, d, slope_z, live, inside, WIDE, RAGGED)
                    grad *= gates[k] * open_
                    if AGAIN:
                        out *= gates[k] * open_
                if AGAIN:
                    put_at_token(y, places[k], grad_token, d, out, live, inside, WIDE, RAGGED)
                total = passed + outputs[k][:, None] * grad[None, :]
                put_at_token(
                    grad_C,
                    places[k],
                    groups * N,
                    n,
                    tl.sum(state * grad[None, :], axis=1),
                    n >= 0,
                    inside,
                    WIDE,
                    RAGGED,
                )
                put_at_token(
                    grad_B, places[k], groups * N, n, tl.sum(total * (size * x)[None, :], axis=1), n >= 0, inside,
                    WIDE, RAGGED,
                )  # fmt: skip
                driven = tl.sum(total * inputs[k][:, None], axis=0)
                passed = decays[k] * total
                faded = passed * befores[k]
                sum_A += faded * size[None, :]
                slope_delta = (tl.sum(faded * rate, axis=0) * LN2 + x * driven) * slopes[k]
                sum_bias += slope_delta
                put_at_token(grad_delta, places[k], grad_token, d, slope_delta, live, inside, WIDE, RAGGED)
                slope_u = size * driven
                if SKIP:
                    slope_u += skip * grad
                    sum_D += grad * x
                put_at_token(grad_u, places[k], grad_token, d, slope_u, live, inside, WIDE, RAGGED)
                state = befores[k]
        tl.debug_barrier()
    tl.store(grad_A + here, sum_A, mask=live[None, :])
    flat = (sequence * chunks + chunk) * channels + d
    if BIAS:
        tl.store(grad_bias + flat, sum_bias, mask=live)
    if SKIP:
        tl.store(grad_D + flat, sum_D, mask=live)
