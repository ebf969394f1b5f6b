"""What the kernels of the scan share: the order of the steps, and the functions of one step.

Every program scans a block of channels, one to each thread of a warp, whose states stay in registers. The rows
of two-dimensional tiles are apart by a stride that the compiler knows nothing of: it would otherwise deal
the states of a channel out among the threads for the sake of wider loads, and every sum over them would cross threads.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
# Arguments whose values kernels are not compiled for, `row` for the reason above: it is the stride of such tiles.
UNTOLD = ("row", "length", "channels", "chunks")


@triton.jit
def underflow(STATE: tl.constexpr):
    """The power of two below which a state's type knows nothing but zero."""
    if STATE == tl.float64:
        power = -1080.0
    else:
        power = -150.0
    return power


@triton.jit
def walk_of(walks, order):
    """Origin, run, within and across of an order's `models.ops.order.Walk`."""
    walk = walks + order * 4
    return tl.load(walk), tl.load(walk + 1), tl.load(walk + 2), tl.load(walk + 3)


@triton.jit
def place_of(step, origin, run, within, across):
    """Where the token of a step lies, and which step of its run it is: see `models.ops.order.Walk`."""
    index = step % run
    return origin + index * within + (step // run) * across, index


@triton.jit
def following(place, index, run, within, across):
    """Place and index of the step after this one."""
    index += 1
    turned = index == run
    place += tl.where(turned, across - (run - 1) * within, within)
    return place, tl.where(turned, 0, index)


@triton.jit
def preceding(place, index, run, within, across):
    """Place and index of the step before this one."""
    turned = index == 0
    place += tl.where(turned, (run - 1) * within - across, -within)
    return place, tl.where(turned, run, index) - 1


@triton.jit
def offset_of(place, stride, WIDE: tl.constexpr):
    """Offset of a token in elements, in 64 bits where 32 cannot hold it."""
    if WIDE:
        place = tl.cast(place, tl.int64)
    return place * stride


@triton.jit
def at_token(pointer, place, stride, columns, live, inside, WIDE: tl.constexpr, RAGGED: tl.constexpr):
    """Load `columns` of the token at `place`; zeros for columns that are not `live` and for steps not `inside`."""
    # Triton 3.9's interpreter widens a scalar truth that meets a vector of them; the comparison makes it one again.
    where = pointer + (offset_of(place, stride, WIDE) + columns)
    if RAGGED:
        value = tl.load(where, mask=(live & inside) != 0, other=0.0)
    else:
        value = tl.load(where)
    return value


@triton.jit
def places_after(place, index, run, within, across, COUNT: tl.constexpr):
    """Places of `COUNT` steps, the first at `place`, and place and index of the step after them."""
    places = ()
    for _ in tl.static_range(COUNT):
        places = places + (place,)
        place, index = following(place, index, run, within, across)
    return places, place, index


@triton.jit
def places_before(place, index, run, within, across, COUNT: tl.constexpr):
    """Places of `COUNT` steps, the last at `place`, and place and index of the step before them."""
    places = ()
    for _ in tl.static_range(COUNT):
        places = (place,) + places
        place, index = preceding(place, index, run, within, across)
    return places, place, index


@triton.jit
def at_tokens(
    pointer, places, stride, columns, live, first, length, COUNT: tl.constexpr, WIDE: tl.constexpr, RAGGED: tl.constexpr
):
    """`at_token` for `COUNT` steps, of which `first` is the first.

    Kernels read the steps of a turn during the turn before: ptxas puts a load close before its use, to save registers,
    and then every use would wait for memory. It moves nothing across the end of a loop. The loops are ``while`` because
    in a ``for`` Triton 3.6 carries what is read for all states in every thread: nearly twice the registers.
    """
    values = ()
    for k in tl.static_range(COUNT):
        values = values + (at_token(pointer, places[k], stride, columns, live, first + k < length, WIDE, RAGGED),)
    return values


@triton.jit
def put_at_token(pointer, place, stride, columns, value, live, inside, WIDE: tl.constexpr, RAGGED: tl.constexpr):
    """Store what `at_token` loads."""
    where = pointer + (offset_of(place, stride, WIDE) + columns)
    value = value.to(pointer.dtype.element_ty)
    if RAGGED:
        tl.store(where, value, mask=(live & inside) != 0)
    else:
        tl.store(where, value)


@triton.jit
def for_tiles(first, second, AXIS: tl.constexpr):
    """Two vectors, each with a new axis, to meet tiles of states and channels.

    A vector lies otherwise in the threads than a tile and reaches it through shared memory, with a wait. Two fp32
    travel as the halves of one number, and wait once.
    """
    if first.dtype == tl.float32:
        low = first.to(tl.uint32, bitcast=True).to(tl.uint64)
        high = second.to(tl.uint32, bitcast=True).to(tl.uint64)
        both = tl.expand_dims(low | (high << 32), AXIS)
        one = both.to(tl.uint32).to(tl.float32, bitcast=True)
        two = (both >> 32).to(tl.uint32).to(tl.float32, bitcast=True)
    else:
        one = tl.expand_dims(first, AXIS)
        two = tl.expand_dims(second, AXIS)
    return one, two


@triton.jit
def step_size(delta, bias, inside, SOFTPLUS: tl.constexpr, RAGGED: tl.constexpr):
    """The step size, and its derivative with respect to `delta`; 0 past the end, where nothing may change."""
    raw = delta.to(bias.dtype) + bias
    if SOFTPLUS:
        fading = tl.exp2(-tl.abs(raw) * LOG2E)
        # log(1 + x) of small x cancels: fp64 takes Kahan's quotient, fp32 x times the polynomial of least relative
        # error on [0, 1], 3e-8, and 2e-7 when evaluated. It takes a third of the instructions of a logarithm.
        if bias.dtype == tl.float64:
            sum_ = 1 + fading
            log1p = tl.where(sum_ == 1, fading, tl.log(sum_) * (fading / tl.where(sum_ == 1, 1.0, sum_ - 1)))
        else:
            log1p = -0.029505213722586632 + fading * 0.0052326880395412445
            log1p = -0.13663242757320404 + fading * (0.07822591066360474 + fading * log1p)
            log1p = -0.2484298199415207 + fading * (0.19106005132198334 + fading * log1p)
            log1p = -0.4999949336051941 + fading * (0.3331909775733948 + fading * log1p)
            log1p = fading * (0.9999999403953552 + fading * log1p)
        size = tl.maximum(raw, 0.0) + log1p
        slope = tl.where(raw > 0, 1.0, fading) / (1 + fading)
    else:
        size = raw
        slope = tl.zeros_like(raw) + 1
    if RAGGED:
        size = tl.where(inside, size, 0.0)
        slope = tl.where(inside, slope, 0.0)
    return size, slope


@triton.jit
def logistic(x):
    """1 / (1 + exp(-x))."""
    return 1 / (1 + tl.exp2(-x * LOG2E))


@triton.jit
def compose(decay_1, state_1, decay_2, state_2):
    """Two affine maps of a state, one after the other."""
    return decay_1 * decay_2, decay_2 * state_1 + state_2
