"""Timing a piece of work again and again until its median is known."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Mark = Callable[[str], None]
Work = Callable[[Mark], object]

_CONFIDENCE = 0.95
_WARM_UP_PASSES = 3
WARM_UP_S = 3.0
# A pass that takes longer consists of so many that kernels and memory are warm within it.
LONG_S = 30.0


def ignore(_part: str) -> None:
    """Nobody asks how long a part takes."""


@dataclass(frozen=True)
class Rule:
    """How often a piece of work is repeated.

    Attributes:
        least: repeats in any case, unless the time limit comes first.
        enough: repeats, and
        at_least_s: seconds, after which a median that is known well enough is the end.
        at_most_s: seconds after which it ends once ``least`` is reached.
        within: half the width of the median's 95 % interval, as a share of it, at which it is known well enough.
    """

    least: int
    enough: int
    at_least_s: float
    at_most_s: float
    within: float = 0.01

    def __str__(self) -> str:
        return (
            f"after the first pass and up to {_WARM_UP_PASSES} more or {WARM_UP_S:g} s of them, until the 95 % "
            f"interval of the median is within {100 * self.within:g} % of it (with {self.enough} repeats and "
            f"{self.at_least_s:g} s at least), or for {self.at_most_s:g} s (with {self.least} repeats at least, or one "
            f"if the first pass took more than {LONG_S:g} s)"
        )


# Energy counters of GPUs are read off every tenth of a second or so: a second makes that an error of some percent.
ON_GPU = Rule(least=3, enough=20, at_least_s=1.0, at_most_s=3.0)
ON_CPU = Rule(least=3, enough=6, at_least_s=0.5, at_most_s=8.0)


def rule_for(device: torch.device) -> Rule:
    """The rule of a kind of device."""
    return ON_GPU if device.type == "cuda" else ON_CPU


@dataclass
class Timing:
    """What was found.

    Attributes:
        first_s: of the first pass, which chooses kernels, compiles, and asks the system for memory.
        repeats_s: of each timed pass.
        parts_s: of its parts, each as many as there are repeats.
        rule: by which they were repeated.
        burst: passes in a row of which each repeat is the mean.
    """

    first_s: float
    rule: Rule
    repeats_s: list[float] = field(default_factory=list)
    parts_s: dict[str, list[float]] = field(default_factory=dict)
    burst: int = 1

    @property
    def median_s(self) -> float:
        """Of the timed passes."""
        return statistics.median(self.repeats_s)

    def to_dict(self) -> dict[str, Any]:
        """For a record; seconds. The interval of the median is None where there are too few repeats for one."""
        low, high = median_interval(self.repeats_s) or (None, None)
        return {
            "median_s": self.median_s,
            "p10_s": float(np.percentile(self.repeats_s, 10)),
            "p90_s": float(np.percentile(self.repeats_s, 90)),
            "median_low_s": low,
            "median_high_s": high,
            "repeats": len(self.repeats_s),
            "first_s": self.first_s,
            "parts": {name: statistics.median(values) for name, values in self.parts_s.items()},
            "rule": f"{self.rule}{f'; each the mean of {self.burst} in a row' if self.burst > 1 else ''}",
        }


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % confidence interval of a median from order statistics, whatever the distribution; None below six values.

    The interval from the k-th smallest to the k-th largest of n values misses the median with probability
    2·P(Bin(n, 1/2) < k) (Hahn and Meeker, Statistical Intervals, section 5.2).
    """
    from scipy.stats import binom

    k = int(binom.ppf((1 - _CONFIDENCE) / 2, len(values), 0.5))
    if k < 1:
        return None
    ordered = sorted(values)
    return ordered[k - 1], ordered[-k]


class Stopwatch:
    """Times passes on a device, by its own clock: CUDA events on a GPU, the processor's on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._device = device
        self._names: list[str] = []
        self._events: list[torch.cuda.Event] = []
        self._moments: list[float] = []

    def time(self, work: Work) -> tuple[float, dict[str, float]]:
        """Do the work once; returns its seconds and those of its parts, which it ends by calling what it is given.

        A part that comes several times is summed. The device is idle before and after.
        """
        self._names, used = [], 0
        self._moments.clear()
        if self._cuda:
            torch.cuda.synchronize(self._device)
        self._tick(used)

        def mark(name: str) -> None:
            self._names.append(name)
            self._tick(len(self._names))

        work(mark)
        self._tick(len(self._names) + 1)
        if self._cuda:
            torch.cuda.synchronize(self._device)
        parts: dict[str, float] = {}
        for number, name in enumerate(self._names):
            parts[name] = parts.get(name, 0.0) + self._between(number, number + 1)
        return self._between(0, len(self._names) + 1), parts

    def _tick(self, number: int) -> None:
        if not self._cuda:
            self._moments.append(time.perf_counter())
            return
        while len(self._events) <= number:
            self._events.append(torch.cuda.Event(enable_timing=True))
        self._events[number].record(torch.cuda.current_stream(self._device))

    def _between(self, first: int, last: int) -> float:
        if self._cuda:
            return self._events[first].elapsed_time(self._events[last]) / 1000
        return self._moments[last] - self._moments[first]


class Repeater:
    """Repeats a piece of work by a rule.

    Args:
        device: on which it runs.
        deadline: moment of `time.monotonic` by which it should end, with at least one repeat.
        rule: by default that of the device.
        on_pass: told before each pass what it is; what it raises ends the work.
    """

    def __init__(
        self,
        device: torch.device,
        deadline: float = float("inf"),
        rule: Rule | None = None,
        on_pass: Callable[[str], None] = lambda _what: None,
    ) -> None:
        self._watch = Stopwatch(device)
        self._deadline = deadline
        self._rule = rule or rule_for(device)
        self._on_pass = on_pass
        self._long = False

    def first(self, work: Work) -> Timing:
        """The first pass: wall-clock seconds until the device is done with it."""
        self._on_pass("first pass")
        begun = time.perf_counter()
        self._watch.time(work)
        took = time.perf_counter() - begun
        self._long = took > LONG_S
        return Timing(took, self._rule)

    def warm_up(self, work: Work) -> None:
        """A few passes that nobody times."""
        begun = time.monotonic()
        for _ in range(0 if self._long else _WARM_UP_PASSES):
            if time.monotonic() - begun > WARM_UP_S or time.monotonic() > self._deadline:
                return
            self._on_pass("warming up")
            self._watch.time(work)

    def repeat(self, work: Work, timing: Timing, burst: int = 1) -> None:
        """The timed passes, added to ``timing``.

        Args:
            work: one pass.
            timing: of its first.
            burst: passes in a row whose mean is one repeat. A pass that takes no longer than asking for it needs some:
                the device is idle before a repeat, and while it works on one pass, the next is asked for.
        """

        def passes(mark: Mark) -> None:
            for _ in range(burst):
                work(mark)

        timing.burst = burst
        begun = time.monotonic()
        while not self._is_enough(timing.repeats_s, time.monotonic() - begun):
            self._on_pass(f"repeat {len(timing.repeats_s) + 1}")
            took, parts = self._watch.time(passes)
            timing.repeats_s.append(took / burst)
            for name, seconds in parts.items():
                timing.parts_s.setdefault(name, []).append(seconds / burst)

    def _is_enough(self, repeats_s: list[float], elapsed_s: float) -> bool:
        count, rule = len(repeats_s), self._rule
        if count == 0:
            return False
        if time.monotonic() + 1.2 * repeats_s[-1] > self._deadline:
            return True
        if count >= (1 if self._long else rule.least) and elapsed_s >= rule.at_most_s:
            return True
        # The interval moves little from one repeat to the next, and sorting takes time.
        if count < rule.enough or elapsed_s < rule.at_least_s or count % max(4, count // 8):
            return False
        interval = median_interval(repeats_s)
        return interval is not None and interval[1] - interval[0] <= 2 * rule.within * statistics.median(repeats_s)
