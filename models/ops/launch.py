"""Launches of kernels with little time lost on the host, which small kernels wait for."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

# Addresses of which Triton makes a case of its own.
_ALIGNED = 16


def cdiv(whole: int, part: int) -> int:
    """How many parts make up the whole, the last of them perhaps not full; `triton.cdiv` takes ten microseconds."""
    return -(-whole // part)


def next_power_of_2(number: int) -> int:
    """The smallest power of two that is not below a number of at least 1; `triton.next_power_of_2` is as slow."""
    return 1 << (number - 1).bit_length()


class Launches:
    """Launches that come again and again with the same numbers, and other tensors.

    Triton looks at every argument of every launch to find the kernel that was compiled for such arguments. Here it does
    so once; from then on only types and addresses of tensors are looked at.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[Any, ...], tuple[Any, tuple[Any, ...]]] = {}

    def __call__(
        self,
        kernel: Any,
        grid: tuple[int, int, int],
        tensors: Sequence[Tensor | None],
        others: Callable[[], Mapping[str, Any]],
    ) -> None:
        """Launch a kernel.

        Args:
            kernel: a function of `triton.jit`.
            grid: numbers of programs.
            tensors: its first arguments.
            others: gives the arguments after them, none of them a tensor, and options of the compilation, by name: for
                a kernel the same at each call.
        """
        # On AMD's devices the kernel depends on how large the tensors are, too.
        if torch.compiler.is_compiling() or torch.version.hip is not None:
            kernel[grid](*tensors, **others())
            return
        seen = (kernel, *[None if one is None else (one.dtype, one.data_ptr() % _ALIGNED == 0) for one in tensors])
        if (found := self._found.get(seen)) is not None:
            compiled, rest = found
            compiled[grid](*tensors, *rest)
            return
        named = others()
        compiled = kernel[grid](*tensors, **named)
        if compiled is not None:  # Triton's interpreter compiles nothing
            self._found[seen] = compiled, tuple(named[name] for name in kernel.arg_names[len(tensors) :])


@lru_cache(maxsize=1024)
def launches(*_same: Hashable) -> Launches:
    """Those of equal arguments, which must tell all that the numbers follow from, the device among them."""
    return Launches()
