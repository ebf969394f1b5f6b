"""Replaying a pass as a CUDA graph: its kernels are launched together, and the processor's part falls away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

# Passes before the recording: kernels are chosen and compiled in them, and the allocator settles.
WARM_UP = 3

TensorPass = Callable[..., Tensor]


class Replayed:
    """A function of tensors on a GPU, recorded once for tensors of one shape and replayed from then on.

    The result of a call is valid until the next one, which overwrites it; so is everything else that the function
    leaves behind, such as gradients. Tensors of other shapes are passed to the function itself.

    Args:
        function: takes tensors and returns one; it may not wait for the device or depend on its values.
        rehearsing: around the passes before the recording, which are to leave no trace.

    Raises:
        RuntimeError: when first called with the function that cannot be recorded.
    """

    def __init__(
        self, function: TensorPass, rehearsing: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> None:
        self._function = function
        self._rehearsing = rehearsing
        self._graph: torch.cuda.CUDAGraph | None = None
        self._given: tuple[Tensor, ...] = ()
        self._found: Tensor | None = None

    def __call__(self, *tensors: Tensor) -> Tensor:
        """The function's result."""
        self.record(*tensors)
        if not self._fits(tensors):
            return self._function(*tensors)
        assert self._graph is not None
        assert self._found is not None
        for place, tensor in zip(self._given, tensors, strict=True):
            place.copy_(tensor)
        self._graph.replay()
        return self._found

    def record(self, *tensors: Tensor) -> None:
        """Make the recording, if it is not there, without a call; leaves what ``rehearsing`` does not bring back."""
        if self._graph is not None:
            return
        given = tuple(tensor.clone() for tensor in tensors)
        # Off the default stream, as a recording is: what the passes keep must belong to no stream but the recorded one.
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        graph = torch.cuda.CUDAGraph()
        with _without_autocast_cache():
            with torch.cuda.stream(aside), self._rehearsing():
                for _ in range(WARM_UP):
                    self._function(*given)
            torch.cuda.current_stream().wait_stream(aside)
            # Threads that prepare batches take pinned memory meanwhile, which would end a recording of all threads.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self._found = self._function(*given)
        self._graph, self._given = graph, given

    def _fits(self, tensors: tuple[Tensor, ...]) -> bool:
        alike = zip(self._given, tensors, strict=True)
        return all(one.shape == other.shape and one.dtype == other.dtype for one, other in alike)


@contextmanager
def _without_autocast_cache() -> Iterator[None]:
    """What autocast keeps of weights lives as long as its region, and a recording longer."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


class ReplayedModule(nn.Module):
    """A network whose passes without gradients are replayed, see `Replayed`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._replayed = Replayed(network)

    def forward(self, image: Tensor) -> Tensor:
        """The network's result, valid until the next call."""
        return self._replayed(image)
