"""The kernels of the scan put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
import triton.language as tl
from torch import Tensor

from models.ops.launch import Launches, cdiv, launches, next_power_of_2
from models.ops.order import Order, walks_of
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

    def walks(self, device: torch.device) -> Tensor:
        """How each order goes through the tokens."""
        return walks_of(self.orders, self.length, device)

    def arguments(self, inputs: Inputs, *others: Tensor) -> dict[str, Any]:
        """What all kernels but `carry` and `add_blocks` take, the walks aside."""
        tokens = [tensor for tensor in (*inputs, *others) if tensor is not None and tensor.dim() >= 4]
        largest = max(2 * self.groups * self.states, *(tensor.stride(2) for tensor in tokens))
        return {
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


def scan_forward(plan: Plan, inputs: Inputs, *, keep: bool) -> tuple[Tensor, Kept | None]:
    """y (O, B, L, D), and with `keep` what `scan_backward` needs besides the inputs."""
    u, delta, A, B, C, D, z, bias = inputs
    ends, begins = (A.new_empty(len(A), plan.batch, plan.chunks, *A.shape[1:]) for _ in range(2))
    of_spans, of_states = plan.kept_shapes
    spans, states = A.new_empty(of_spans), A.new_empty(of_states) if keep else None
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    launch = launches(scan_forward, plan, keep, u.device, *_laid(u, delta, B, C, z))
    walks = plan.walks(u.device)
    launch(
        chunk_ends, plan.grid, (u, delta, A, B, bias, ends, spans, walks),
        lambda: {
            **_strides(u=u, delta=delta, B=B), "UNROLL": plan.unroll(_UNROLL_ENDS), **plan.arguments(inputs),
        },
    )  # fmt: skip
    _carry(launch, plan, ends, spans, A, begins, reverse=False)
    launch(
        chunk_outputs, plan.grid, (u, delta, A, B, C, D, z, bias, begins, y, states, walks),
        lambda: {
            **_strides(u=u, delta=delta, B=B, C=C, z=z, y=y), "UNROLL": plan.unroll(_UNROLL), "STRETCH": plan.stretch,
            "SKIP": D is not None, "GATE": z is not None, "SAVE": keep, **plan.arguments(inputs),
        },
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
    launch = launches(
        scan_backward, plan, again, u.device, *_laid(u, delta, B, C, z, grad_y, grad_B, grad_C), grad_B.shape[-1]
    )
    walks = plan.walks(u.device)
    heads, tails = (A.new_empty(len(A), plan.batch, plan.chunks, *A.shape[1:]) for _ in range(2))
    launch(
        chunk_heads, plan.grid, (delta, A, C, z, bias, grad_y, heads, walks),
        lambda: {
            **_strides(delta=delta, C=C, z=z, grad_y=grad_y), "UNROLL": plan.unroll(_UNROLL), "GATE": gate,
            **plan.arguments(inputs, grad_y),
        },
    )  # fmt: skip
    _carry(launch, plan, heads, kept.spans, A, tails, reverse=True)

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
    written = (y, grad_u, grad_delta, grad_z, grad_BC, sums, walks)
    for first in range(0, count, together):
        launch(
            chunk_gradients, (programs, batch, together),
            (*(_from(one, first) for one in read), scratch, *(_from(one, first) for one in written)),
            lambda: {
                **_strides(u=u, delta=delta, B=B, C=C, z=z, grad_y=grad_y), "grad_token": plan.channels,
                "UNROLL": unroll, "SWEEP": max(unroll, plan.unroll(_UNROLL_SWEEP)), "STRETCH": plan.stretch,
                "SKIP": D is not None, "GATE": gate, "AGAIN": again,
                **plan.arguments(inputs, grad_y), **_limits(plan, A.dtype),
            },
        )  # fmt: skip
    _add_blocks(launch, plan, grad_BC, grad_B, grad_C)
    totals = sums.sum((1, 2))
    grad_A = totals[:, : plan.states]
    grad_D = None if D is None else totals[:, plan.states]
    grad_bias = None if bias is None else totals[:, -1]
    return Inputs(grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias), y


def _carry(
    launch: Launches, plan: Plan, ends: Tensor, spans: Tensor, A: Tensor, begins: Tensor, *, reverse: bool
) -> None:
    columns = plan.states * plan.channels
    launch(
        carry, (cdiv(columns, _CARRY_COLUMNS), plan.batch, len(plan.orders)), (ends, spans, A, begins),
        lambda: {
            "channels": plan.channels, "chunks": plan.chunks, "row": plan.channels, "N": plan.states,
            "ROWS": min(_CARRY_ROWS, next_power_of_2(plan.chunks)), "COLUMNS": _CARRY_COLUMNS,
            "STATE": _state(A), "REVERSE": reverse, "num_warps": _CARRY_WARPS,
        },
    )  # fmt: skip


def _add_blocks(launch: Launches, plan: Plan, grad_BC: Tensor, grad_B: Tensor, grad_C: Tensor) -> None:
    rows = plan.length * plan.groups
    tile = max(1, _ADDED_PAIRS // plan.states)

    def others() -> dict[str, Any]:
        strides = {
            f"{name}_{axis}": stride
            for name, tensor in (("B", grad_B), ("C", grad_C))
            for axis, stride in zip(("order", "batch", "token", "group"), tensor.stride()[:4], strict=True)
        }
        return strides | {
            "rows": rows, "blocks": plan.blocks, "groups": plan.groups,
            "N": plan.states, "KEPT": grad_B.shape[-1], "ROWS": tile, "STATE": _state(grad_BC),
        }  # fmt: skip

    launch(add_blocks, (cdiv(rows, tile), plan.batch, len(plan.orders)), (grad_BC, grad_B, grad_C), others)


def _limits(plan: Plan, state: torch.dtype) -> dict[str, int]:
    """Of registers, for `chunk_gradients`."""
    fits = plan.states <= _REGISTERS_STATES and state == torch.float32 and torch.version.hip is None
    return {"maxnreg": _REGISTERS} if fits else {}


def _state(A: Tensor) -> tl.dtype:
    return tl.float64 if A.dtype == torch.float64 else tl.float32


def _from(tensor: Tensor | None, order: int) -> Tensor | None:
    """What there is for the orders from this one on; no view where that is all, as each costs time on the host."""
    return tensor if tensor is None or order == 0 else tensor[order:]


def _laid(*tensors: Tensor | None) -> list[tuple[int, ...] | None]:
    """How tensors lie in memory."""
    return [None if tensor is None else tensor.stride() for tensor in tensors]


def _strides(**tensors: Tensor | None) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, tensor in tensors.items():
        strides = (0, 0, 0) if tensor is None else tensor.stride()
        found[f"{name}_order"], found[f"{name}_batch"], found[f"{name}_token"] = strides[:3]
    return found
