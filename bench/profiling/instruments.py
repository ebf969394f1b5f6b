"""What a measurement is made with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from bench.profiling.clock import Repeater
from bench.profiling.driver import Driver


@dataclass
class Instruments:
    """The tools of one process.

    Attributes:
        device: on which everything is measured.
        repeater: times.
        driver: knows the device beyond PyTorch.
        used_before: bytes of the device that were in use before this process took any; None where nobody tells.
        deadline: moment of `time.monotonic` by which the measurement should end.
        on_pass: told what is going on; what it raises ends the work.
        operators: how many operators are listed by the time that they take; 0 for none.
        trace: file for a Chrome trace, None for none.
        files: what a measurement leaves beside its figures, by file name.
    """

    device: torch.device
    repeater: Repeater
    driver: Driver
    used_before: int | None
    deadline: float
    on_pass: Callable[[str], None]
    operators: int = 0
    trace: Path | None = None
    files: dict[str, bytes] = field(default_factory=dict)
