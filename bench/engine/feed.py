"""Batches ahead of time: patches are cut by threads and finished on the device while it trains."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch

from bench.engine.live_memory import peak_tensor_bytes
from data.sampling import Batch, Cut, PatchSampler

_BATCHES_READY = 2
# Transforms are drawn, and not every batch has the one that takes the most memory.
_TRIES = 8


class Feed:
    """The batches of consecutive steps, the same whatever the number of workers.

    Threads cut the patches: what takes time is copying out of memory maps, which Python's lock does not hold up, and
    the copy ends where the device fetches it from. On a GPU one more thread augments on a stream of its own, so that
    a batch is ready when the step before it ends.

    Use it as a context manager; leaving ends the threads.

    Args:
        sampler: gives the patches of each step.
        first: the first step.
        indices: which samples of each batch.
        device: where the batches are wanted.
        workers: threads that cut; 0 cuts where the batch is asked for.
    """

    def __init__(
        self, sampler: PatchSampler, first: int, *, indices: Sequence[int], device: torch.device, workers: int
    ) -> None:
        self._sampler = sampler
        self._indices = indices
        self._device = device
        self._workers = workers
        self._step = first
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="cut") if workers else None
        self._pending: deque[list[Future[Cut]]] = deque()
        self._ready: queue.Queue[tuple[Batch, torch.cuda.Event] | BaseException] = queue.Queue(_BATCHES_READY)
        self._closed = threading.Event()
        self._finisher: threading.Thread | None = None
        if device.type == "cuda" and workers:
            self._finisher = threading.Thread(target=self._finish_ahead, name="finish", daemon=True)
            self._finisher.start()

    @staticmethod
    def device_bytes(sampler: PatchSampler, indices: Sequence[int], device: torch.device, workers: int) -> int:
        """Most bytes of a GPU that batches made ahead take beside the one that is trained on, as a few tries show."""
        if device.type != "cuda" or not workers:
            return 0
        most = size = 0
        for step in range(_TRIES):
            cuts = [sampler.cut(step, index) for index in indices]
            before = torch.cuda.memory_allocated(device)
            with peak_tensor_bytes(device) as peak:
                batch = sampler.finish(cuts, device)
            size = batch.image.nbytes + batch.label.nbytes
            most = max(most, peak() - before)
            del batch
        return most + _BATCHES_READY * size

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads; nothing more comes."""
        self._closed.set()
        if self._finisher is not None:
            self._finisher.join()
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self._finisher is None:
            return self._sampler.finish(self._cut(), self._device)
        found = self._ready.get()
        if isinstance(found, BaseException):
            raise found
        batch, finished = found
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(finished)
        for tensor in (batch.image, batch.label):  # made on another stream: its memory must outlive its use on this one
            tensor.record_stream(stream)
        return batch

    def _cut(self) -> list[Cut]:
        """The cuts of the next step."""
        if self._threads is None:
            cuts = [self._sampler.cut(self._step, index) for index in self._indices]
            self._step += 1
            return cuts
        # Enough steps ahead that every worker has a patch to cut while the device trains on those before.
        ahead = 1 + -(-2 * self._workers // len(self._indices))
        pin = self._device.type == "cuda"
        while len(self._pending) < ahead:
            self._pending.append(
                [self._threads.submit(self._sampler.cut, self._step, index, pin) for index in self._indices]
            )
            self._step += 1
        return [future.result() for future in self._pending.popleft()]

    def _finish_ahead(self) -> None:
        stream = torch.cuda.Stream(self._device)
        with torch.cuda.device(self._device), torch.cuda.stream(stream):
            while not self._closed.is_set():
                found: tuple[Batch, torch.cuda.Event] | BaseException
                try:
                    batch = self._sampler.finish(self._cut(), self._device)
                    finished = torch.cuda.Event()
                    finished.record(stream)
                    found = batch, finished
                except BaseException as error:  # whatever it is, it is the training's to raise
                    found = error
                while not self._closed.is_set():
                    try:
                        self._ready.put(found, timeout=0.1)
                        break
                    except queue.Full:
                        continue
                if isinstance(found, BaseException):
                    return
