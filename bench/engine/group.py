"""The processes that train one network together; most often there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, nn


@dataclass(frozen=True)
class Group:
    """This process among those of a job.

    Attributes:
        rank: its number, from 0; the first one writes the record.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.rank == 0

    def share(self, total: int) -> range:
        """Which of ``total`` things this process sees to: equal parts, in order of the ranks."""
        return range(self.rank * total // self.size, (self.rank + 1) * total // self.size)

    def mean(self, values: list[float], device: torch.device) -> list[float]:
        """The mean over the processes of each value."""
        if self.size == 1:
            return values
        together = torch.tensor(values, dtype=torch.float64, device=device)
        distributed.all_reduce(together)
        return (together / self.size).tolist()

    def gather(self, thing: Any) -> list[Any]:
        """Everybody's ``thing``, in order of the ranks."""
        if self.size == 1:
            return [thing]
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, thing)
        return found

    def take_buffers_of_first(self, model: nn.Module) -> None:
        """Give every process the first one's buffers, such as running statistics, of which each has its own."""
        if self.size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            distributed.barrier()


ALONE = Group()
