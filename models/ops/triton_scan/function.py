"""The kernels of the scan put together, and made known to autograd."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.ops.launch import cdiv, next_power_of_2
from models.ops.order import Order, walks_of
from models.ops.precision import at_least_fp32
from models.ops.triton_scan.backward import add_blocks, chunk_gradients, chunk_heads
from models.ops.triton_scan.forward import carry, chunk_ends, chunk_outputs

# Channels of a program, one to a thread of its only warp.
_BLOCK = 32
# Programs that keep a GPU busy: about as many warps as its multiprocessors hold at the kernels' use of registers.
_PROGRAMS = 2048
_CHUNKS = (16, 256)
# Steps from one saved state to the next.
_STRETCH = 64
# Tile of the scan over chunks, and its warps.
_CARRY_ROWS, _CARRY_COLUMNS, _CARRY_WARPS = 1024, 8, 8
# Pairs of gradients of B and C that a program adds up.
_ADDED_PAIRS = 1024
_UNROLL, _UNROLL_ENDS, _UNROLL_SWEEP, _UNROLL_GRADIENTS = 4, 8, 8, 2
# Registers of a thread in the kernel of all gradients, at most, and the states that they suffice for: of its own accord
# ptxas takes all 255, and each scheduler of a multiprocessor then has room for two warps and not for three.
_REGISTERS, _REGISTERS_STATES = 168, 16
MOST_STATES = 64


class Inputs(NamedTuple):
    """What the kernels read, with O orders in which the tokens are read.

    Attributes:
        u, delta: (O, B, L, D), channels side by side in memory.
        A: (O, N, D), contiguous and in the type of the state, like all that follow; N a power of two.
        B, C: (O, B, L, G, N), contiguous for each token.
        D: (O, D) or None.
        z: (O, B, L, D) like u or None.
        bias: (O, D) or None.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    bias: Tensor | None


class Kept(NamedTuple):
    """What the backward pass needs of the forward pass: sums of step sizes, and states every few steps."""

    spans: Tensor
    states: Tensor


@dataclass(frozen=True)
class Plan:
    """How scans are cut up: see the kernels' arguments of the same names."""

    orders: tuple[Order, ...]
    softplus: bool
    batch: int
    length: int
    channels: int
    groups: int
    states: int
    chunk: int

    @classmethod
    def of(cls, orders: Sequence[Order], shape: Sequence[int], groups: int, states: int, softplus: bool) -> Plan:
        """For u of a shape (O, B, L, D)."""
        count, batch, length, channels = shape
        programs_a_step = count * batch * groups * cdiv(channels // groups, _BLOCK)
        wanted = max(1, length * programs_a_step // _PROGRAMS)
        smallest, largest = _CHUNKS
        chunk = min(largest, max(smallest, 2 ** (wanted.bit_length() - 1)))
        return cls(tuple(orders), softplus, batch, length, channels, groups, next_power_of_2(states), chunk)

    @cached_property
    def chunks(self) -> int:
        return cdiv(self.length, self.chunk)

    @cached_property
    def blocks(self) -> int:
        return cdiv(self.channels // self.groups, _BLOCK)

    @cached_property
    def stretch(self) -> int:
        return min(self.chunk, _STRETCH)

    @cached_property
    def grid(self) -> tuple[int, int, int]:
        return self.chunks * self.groups * self.blocks, self.batch, len(self.orders)

    @cached_property
    def kept_shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Shapes of what `Kept` holds."""
        leading = (len(self.orders), self.batch)
        stretches = self.chunks * (self.chunk // self.stretch)
        return (*leading, self.chunks, self.channels), (*leading, stretches, self.states, self.channels)

    def unroll(self, steps: int) -> int:
        """Steps whose loads are in flight together, `steps` where states are few and chunks long."""
        return max(1, min(steps, self.stretch, 128 // self.states))

    @cached_property
    def unroll_gradients(self) -> int:
        """The same where the states of all those steps must find room in registers too."""
        return max(1, min(_UNROLL_GRADIENTS, 32 // self.states))

    def arguments(self, inputs: Inputs, *others: Tensor) -> dict[str, Any]:
        """What all kernels but `carry` take."""
        tokens = [tensor for tensor in (*inputs, *others) if tensor is not None and tensor.dim() >= 4]
        largest = max(2 * self.groups * self.states, *(tensor.stride(2) for tensor in tokens))
        return {
            "walks": walks_of(self.orders, self.length, inputs.u.device),
            "length": self.length,
            "channels": self.channels,
            "groups": self.groups,
            "chunks": self.chunks,
            "row": self.channels,
            "CHUNK": self.chunk,
            "N": self.states,
            "BLOCK": _BLOCK,
            "STATE": _state(inputs.A),
            "BIAS": inputs.bias is not None,
            "SOFTPLUS": self.softplus,
            "WIDE": largest * self.length >= 2**31,
            "RAGGED": self.length % self.chunk != 0 or self.channels // self.groups % _BLOCK != 0,
            "num_warps": 1,
        }


def scan_orders(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    orders: Sequence[Order],
) -> Tensor:
    """See `models.ops.scan.scan_orders`; up to `MOST_STATES` states."""
    plan = Plan.of(orders, u.shape, B.shape[3], A.shape[2], delta_softplus)
    return _Scan.apply(plan, *_prepare(plan, u, delta, A, B, C, D, z, delta_bias))


def _prepare(
    plan: Plan,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> Inputs:
    """The arguments of `scan_orders` as the kernels want them, B and C but for type and layout; differentiable."""
    dtype = at_least_fp32(u.dtype)
    missing = plan.states - A.shape[2]

    def filled(tensor: Tensor) -> Tensor:
        return F.pad(tensor, (0, missing)) if missing else tensor  # `pad` copies even where there is nothing to add

    def whole(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(dtype).contiguous()

    return Inputs(
        _side_by_side(u),
        _side_by_side(delta.to(u.dtype)),
        filled(A.to(dtype)).mT.contiguous(),
        filled(B),
        filled(C),
        whole(D),
        None if z is None else _for_each_order(_side_by_side(z.to(u.dtype)), len(u)),
        whole(delta_bias),
    )


def scan_forward(plan: Plan, inputs: Inputs, *, keep: bool) -> tuple[Tensor, Kept | None]:
    """y (O, B, L, D), and with `keep` what `scan_backward` needs besides the inputs."""
    u, delta, A, B, C, D, z, bias = inputs
    ends, begins = (A.new_empty(len(A), plan.batch, plan.chunks, *A.shape[1:]) for _ in range(2))
    of_spans, of_states = plan.kept_shapes
    spans, states = A.new_empty(of_spans), A.new_empty(of_states) if keep else None
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    common = plan.arguments(inputs)
    chunk_ends[plan.grid](
        u, delta, A, B, bias, ends, spans,
        **_strides(u=u, delta=delta, B=B), UNROLL=plan.unroll(_UNROLL_ENDS), **common,
    )  # fmt: skip
    _carry(plan, ends, spans, A, begins, reverse=False)
    chunk_outputs[plan.grid](
        u, delta, A, B, C, D, z, bias, begins, y, states,
        **_strides(u=u, delta=delta, B=B, C=C, z=z, y=y),
        SKIP=D is not None, GATE=z is not None, SAVE=keep, STRETCH=plan.stretch,
        UNROLL=plan.unroll(_UNROLL), **common,
    )  # fmt: skip
    return y, None if states is None else Kept(spans, states)


def scan_backward(
    plan: Plan, inputs: Inputs, kept: Kept, grad_y: Tensor, grad_B: Tensor, grad_C: Tensor, *, again: bool = False
) -> tuple[Inputs, Tensor | None]:
    """The gradients with respect to all inputs, that of z (O, B, L, D) too; with `again` y once more.

    Args:
        plan: of the forward pass.
        inputs: likewise.
        kept: by the forward pass.
        grad_y: (O, B, L, D), channels side by side; what is the same for all orders may be expanded.
        grad_B: (O, B, L, G, N) where the gradient of B goes, of any type, states side by side; N may end before the
            states that were filled up.
        grad_C: likewise.
        again: whether y is computed again.
    """
    u, delta, A, B, C, D, z, bias = inputs
    gate = z is not None
    common = plan.arguments(inputs, grad_y) | {"GATE": gate}
    heads, tails = (A.new_empty(len(A), plan.batch, plan.chunks, *A.shape[1:]) for _ in range(2))
    chunk_heads[plan.grid](
        delta, A, C, z, bias, grad_y, heads,
        **_strides(delta=delta, C=C, z=z, grad_y=grad_y), UNROLL=plan.unroll(_UNROLL), **common,
    )  # fmt: skip
    _carry(plan, heads, kept.spans, A, tails, reverse=True)

    grad_u, grad_delta = u.new_empty(u.shape), u.new_empty(u.shape)
    grad_z, y = u.new_empty(u.shape) if gate else None, u.new_empty(u.shape) if again else None
    grad_BC = B.new_empty(len(B), plan.blocks, *B.shape[1:], 2)
    rows = plan.states + (D is not None) + (bias is not None)
    sums = A.new_empty(len(A), plan.batch, plan.chunks, rows, plan.channels)
    unroll = plan.unroll_gradients
    programs, batch, count = plan.grid
    # Where the sequences of one order keep the GPU busy, orders take turns and share the room for states.
    together = 1 if programs * batch >= _PROGRAMS else count
    scratch = A.new_empty(together * batch * programs * (plan.stretch // unroll) * plan.states * _BLOCK)
    read = (u, delta, A, B, C, D, z, bias, grad_y, kept.states, tails)
    written = (y, grad_u, grad_delta, grad_z, grad_BC, sums)
    walks = common.pop("walks")
    common |= _strides(u=u, delta=delta, B=B, C=C, z=z, grad_y=grad_y) | _limits(plan, A.dtype)
    for first in range(0, count, together):
        chunk_gradients[programs, batch, together](
            *(_from(one, first) for one in read), scratch, *(_from(one, first) for one in written),
            walks=_from(walks, first), grad_token=plan.channels,
            SKIP=D is not None, AGAIN=again, STRETCH=plan.stretch, UNROLL=unroll,
            SWEEP=max(unroll, plan.unroll(_UNROLL_SWEEP)), **common,
        )  # fmt: skip
    _add_blocks(plan, grad_BC, grad_B, grad_C)
    totals = sums.sum((1, 2))
    grad_A = totals[:, : plan.states]
    grad_D = None if D is None else totals[:, plan.states]
    grad_bias = None if bias is None else totals[:, -1]
    return Inputs(grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias), y


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, *inputs: Any) -> Tensor:
        given = Inputs(*inputs)
        state = given.A.dtype
        # Not left to autograd, which would round the gradients in a pass of its own; in one copy from type and layout.
        B, C = (one.to(state, memory_format=torch.contiguous_format).contiguous() for one in (given.B, given.C))
        taken = given._replace(B=B, C=C)
        y, kept = scan_forward(plan, taken, keep=any(ctx.needs_input_grad))
        ctx.plan = plan
        ctx.types = given.B.dtype, given.C.dtype
        ctx.save_for_backward(*taken, *(kept or ()))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        *saved, spans, states = ctx.saved_tensors
        inputs = Inputs(*saved)
        grad_B, grad_C = (inputs.B.new_empty(inputs.B.shape, dtype=dtype) for dtype in ctx.types)
        gradients, _ = scan_backward(ctx.plan, inputs, Kept(spans, states), _side_by_side(grad_y), grad_B, grad_C)
        return None, *gradients


def _carry(plan: Plan, ends: Tensor, spans: Tensor, A: Tensor, begins: Tensor, *, reverse: bool) -> None:
    columns = plan.states * plan.channels
    carry[cdiv(columns, _CARRY_COLUMNS), plan.batch, len(A)](
        ends, spans, A, begins,
        channels=plan.channels, chunks=plan.chunks, row=plan.channels,
        N=plan.states, ROWS=min(_CARRY_ROWS, next_power_of_2(plan.chunks)), COLUMNS=_CARRY_COLUMNS,
        STATE=_state(A), REVERSE=reverse, num_warps=_CARRY_WARPS,
    )  # fmt: skip


def _add_blocks(plan: Plan, grad_BC: Tensor, grad_B: Tensor, grad_C: Tensor) -> None:
    rows = plan.length * plan.groups
    tile = max(1, _ADDED_PAIRS // plan.states)
    strides = {
        f"{name}_{axis}": stride
        for name, tensor in (("B", grad_B), ("C", grad_C))
        for axis, stride in zip(("order", "batch", "token", "group"), tensor.stride()[:4], strict=True)
    }
    add_blocks[cdiv(rows, tile), plan.batch, len(plan.orders)](
        grad_BC, grad_B, grad_C, rows=rows, blocks=plan.blocks, groups=plan.groups, **strides,
        N=plan.states, KEPT=grad_B.shape[-1], ROWS=tile, STATE=_state(grad_BC),
    )  # fmt: skip


def _limits(plan: Plan, state: torch.dtype) -> dict[str, int]:
    """Of registers, for `chunk_gradients`."""
    fits = plan.states <= _REGISTERS_STATES and state == torch.float32 and torch.version.hip is None
    return {"maxnreg": _REGISTERS} if fits else {}


def _state(A: Tensor) -> tl.dtype:
    return tl.float64 if A.dtype == torch.float64 else tl.float32


def _side_by_side(tensor: Tensor) -> Tensor:
    """The same (..., L, D), the channels of a token side by side in memory."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def _for_each_order(tensor: Tensor, count: int) -> Tensor:
    """(count, ...) that share what is given; autograd adds up over an expanded axis, even one of length 1."""
    tensor = tensor.unsqueeze(0)
    return tensor if count == 1 else tensor.expand(count, *tensor.shape[1:])


def _from(tensor: Tensor | None, order: int) -> Tensor | None:
    """What there is for the orders from this one on; no view where that is all, as each costs time on the host."""
    return tensor if tensor is None or order == 0 else tensor[order:]


def _strides(**tensors: Tensor | None) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, tensor in tensors.items():
        strides = (0, 0, 0) if tensor is None else tensor.stride()
        found[f"{name}_order"], found[f"{name}_batch"], found[f"{name}_token"] = strides[:3]
    return found
