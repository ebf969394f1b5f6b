"""How fast a device moves memory, found by moving some."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from bench.engine.memory import reset_peak
from bench.profiling.clock import Mark, Repeater, Rule

# Several times what any cache of such a device holds.
COPIED_BYTES = {"cuda": 2**30, "cpu": 2**28}
_RULE = Rule(least=5, enough=10, at_least_s=0.2, at_most_s=1.0)


def copy_bytes_per_s(
    device: torch.device, deadline: float = math.inf, on_pass: Callable[[str], None] = lambda _what: None
) -> float:
    """Bytes a second of copying a tensor that no cache holds, what is read and what is written together; the median.

    Nothing of it is left on the device, nor in the peaks of memory.

    Args:
        device: where the tensor lies and goes.
        deadline: moment of `time.monotonic` by which it should end.
        on_pass: told before each copy; what it raises ends the work.
    """
    size = COPIED_BYTES[device.type]
    repeater = Repeater(device, deadline, _RULE, lambda _what: on_pass("copying for the bandwidth"))
    seconds = _copy_seconds(size, device, repeater)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    reset_peak(device)
    return 2 * size / seconds


def _copy_seconds(size: int, device: torch.device, repeater: Repeater) -> float:
    source = torch.ones(size, dtype=torch.uint8, device=device)  # pages that nobody wrote are all one and the same
    target = torch.ones_like(source)

    def copy(_mark: Mark) -> None:
        target.copy_(source)

    timing = repeater.first(copy)
    repeater.warm_up(copy)
    repeater.repeat(copy, timing)
    return timing.median_s
