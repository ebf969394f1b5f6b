"""The orders in which a sequence of tokens may be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from models.errors import ModelError

_KINDS = ("forward", "backward", "slices")


class Walk(NamedTuple):
    """An order as arithmetic: step t takes the token at ``origin + (t % run) * within + (t // run) * across``.

    Attributes:
        origin: place of the first step's token.
        run: steps before the walk turns.
        within: places from one step of a run to the next.
        across: places from the start of a run to the start of the next.
    """

    origin: int
    run: int
    within: int
    across: int


@dataclass(frozen=True)
class Order:
    """An order of reading.

    Attributes:
        kind: ``forward``; ``backward``, from the last token to the first; or ``slices``, which takes the first token of
            each of `slices` equal runs, then the second of each, and so on (SegMamba, arXiv:2401.13560v4, section 2.3).
        slices: number of runs; divides the number of tokens.
    """

    kind: str
    slices: int = 1

    def __post_init__(self) -> None:
        if self.kind not in _KINDS:
            raise ModelError(f"An order of tokens is one of {', '.join(_KINDS)}; got {self.kind!r}.")

    def walk(self, length: int) -> Walk:
        """This order of `length` tokens as arithmetic.

        Raises:
            ModelError: `slices` does not divide `length`.
        """
        if self.kind == "forward":
            return Walk(0, length, 1, 0)
        if self.kind == "backward":
            return Walk(length - 1, length, -1, 0)
        if self.slices < 1 or length % self.slices:
            raise ModelError(f"{length} tokens do not make {self.slices} slices of equal length.")
        return Walk(0, self.slices, length // self.slices, 1)

    def take(self, tokens: Tensor) -> Tensor:
        """Tokens (B, L, ...) in this order."""
        if self.kind == "forward":
            return tokens
        if self.kind == "backward":
            return tokens.flip(1)
        self.walk(tokens.shape[1])
        return tokens.unflatten(1, (self.slices, -1)).transpose(1, 2).flatten(1, 2)

    def put_back(self, tokens: Tensor) -> Tensor:
        """Undo `take`."""
        if self.kind == "slices":
            return tokens.unflatten(1, (-1, self.slices)).transpose(1, 2).flatten(1, 2)
        return self.take(tokens)


FORWARD, BACKWARD = Order("forward"), Order("backward")


@lru_cache(maxsize=256)
def walks_of(orders: Sequence[Order], length: int, device: torch.device) -> Tensor:
    """The walks of `orders` over `length` tokens for kernels: int32 (orders, 4) on `device`, made once."""
    return torch.tensor([order.walk(length) for order in orders], dtype=torch.int32, device=device)
