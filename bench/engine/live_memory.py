"""How much memory the tensors of a piece of work take at once."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@contextmanager
def peak_tensor_bytes(device: torch.device, limit: float = math.inf) -> Iterator[Callable[[], int]]:
    """Measure the most bytes that tensors took at once; the value is a function that tells.

    On a GPU the allocator knows, and what was there before counts. On a CPU every tensor that comes out of an operation
    inside the block is followed until it is freed; what was there before does not count.

    Args:
        device: where the tensors are.
        limit: bytes beyond which, on a CPU, the operation that takes them fails.

    Raises:
        MemoryError: more than ``limit`` bytes were taken.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device)
        return
    with _Follow(limit) as follow:
        yield lambda: follow.peak


class _Follow(TorchDispatchMode):
    """Counts the storages that operations make, until each is freed."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self._limit = limit
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_storage(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and (key := _storage(leaf)) not in given and key not in self._known:
                self._follow(leaf.untyped_storage(), key)
        return result

    def _follow(self, storage: torch.UntypedStorage, key: int) -> None:
        size = storage.nbytes()
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)
        if self.now > self._limit:
            raise MemoryError(f"tensors take {self.now} bytes; {self._limit:.0f} are allowed")

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata
