"""The stopwatch against work of known length, and the rule that ends the repeats."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from bench.profiling import clock
from bench.profiling.clock import Mark, Repeater, Rule, Stopwatch, median_interval

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CYCLES = 40_000_000


def sleeper(*lengths_s: float) -> Callable[[Mark], object]:
    """Work in parts that sleep so long."""

    def work(mark: Mark) -> None:
        for number, length_s in enumerate(lengths_s):
            time.sleep(length_s)
            mark(f"part {number % 2}")

    return work


def test_sleep_takes_as_long_as_it_says_and_so_do_its_parts() -> None:
    took, parts = Stopwatch(CPU).time(sleeper(0.02, 0.05, 0.03))
    assert 0.1 <= took < 0.15
    assert 0.05 <= parts["part 0"] < 0.075
    assert 0.05 <= parts["part 1"] < 0.075
    assert sum(parts.values()) == pytest.approx(took, abs=2e-3)


def test_a_second_measurement_starts_from_zero() -> None:
    watch = Stopwatch(CPU)
    watch.time(sleeper(0.05))
    took, parts = watch.time(sleeper(0.01))
    assert took < 0.03
    assert list(parts) == ["part 0"]


@needs_gpu
def test_a_kernel_of_known_length_is_timed_though_its_launch_returns_at_once() -> None:
    # The clock rate is not known beforehand, so a kernel twice as long gives the scale.
    watch = Stopwatch(torch.device("cuda"))
    watch.time(lambda _mark: torch.cuda._sleep(CYCLES))
    single, _ = watch.time(lambda _mark: torch.cuda._sleep(CYCLES))
    double, parts = watch.time(
        lambda mark: [torch.cuda._sleep(CYCLES), mark("first"), torch.cuda._sleep(CYCLES), mark("second")]
    )
    assert double == pytest.approx(2 * single, rel=0.05)
    assert parts["first"] == pytest.approx(single, rel=0.05)
    assert single > 5e-3


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A clock that goes on when it is told to."""
    now = [100.0]

    def go_on(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(clock.time, "perf_counter", lambda: now[0])
    return go_on


RULE = Rule(least=3, enough=6, at_least_s=1.0, at_most_s=50.0)


def repeats(go_on: Callable[[float], None], lengths_s: list[float], deadline: float = float("inf")) -> int:
    """How often work is repeated of which each pass, the first included, is as long as given, over and over."""
    lengths = itertools.cycle(lengths_s)
    repeater = Repeater(CPU, deadline, RULE)
    timing = repeater.first(lambda _mark: go_on(next(lengths)))
    repeater.repeat(lambda _mark: go_on(next(lengths)), timing)
    return len(timing.repeats_s)


def test_equal_passes_end_as_soon_as_there_are_enough(fake_time: Callable[[float], None]) -> None:
    assert repeats(fake_time, [0.5]) == 8  # it looks at every fourth
    assert repeats(fake_time, [0.01]) >= 100  # a second of them in any case


def test_passes_that_scatter_go_on_until_time_is_over(fake_time: Callable[[float], None]) -> None:
    scattered = np.random.default_rng(0).uniform(0.5, 1.5, 40).tolist()
    assert 40 < repeats(fake_time, scattered) < 60


def test_slow_passes_are_repeated_three_times_and_very_slow_ones_once(fake_time: Callable[[float], None]) -> None:
    assert repeats(fake_time, [29.0]) == 3
    assert repeats(fake_time, [60.0]) == 1
    assert repeats(fake_time, [31.0, 20.0]) == 2


def test_a_repeat_may_be_the_mean_of_passes_in_a_row(fake_time: Callable[[float], None]) -> None:
    lengths = itertools.cycle([1.0, 3.0])
    repeater = Repeater(CPU, rule=RULE)
    timing = repeater.first(lambda _mark: fake_time(2.0))
    repeater.repeat(lambda mark: [fake_time(next(lengths)), mark("all")], timing, burst=4)
    assert set(timing.repeats_s) == {2.0}
    assert set(timing.parts_s["all"]) == {2.0}
    assert timing.to_dict()["rule"].endswith("each the mean of 4 in a row")


def test_the_deadline_comes_first_but_leaves_one_repeat(fake_time: Callable[[float], None]) -> None:
    begun = clock.time.monotonic()
    assert repeats(fake_time, [10.0], deadline=begun + 35) == 2
    assert repeats(fake_time, [10.0], deadline=begun) == 1


def test_what_the_watcher_raises_ends_the_work() -> None:
    def refuse(what: str) -> None:
        if what == "repeat 2":
            raise InterruptedError

    repeater = Repeater(CPU, on_pass=refuse)
    timing = repeater.first(sleeper(0.001))
    with pytest.raises(InterruptedError):
        repeater.repeat(sleeper(0.001), timing)
    assert len(timing.repeats_s) == 1


def test_interval_holds_the_median_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    for count in (6, 20, 41):
        held = 0
        for _ in range(2000):
            low, high = median_interval(random.exponential(size=count).tolist()) or (0.0, 0.0)
            held += low <= np.log(2) <= high
        assert held / 2000 > 0.94
    assert held / 2000 < 0.98  # it is no wider than it must be
    assert median_interval([1.0] * 5) is None


def test_a_record_tells_median_quantiles_parts_and_rule() -> None:
    timing = clock.Timing(3.0, RULE, [1.0, 2.0, 3.0, 4.0, 9.0], {"forward": [0.5, 0.6, 0.7, 0.8, 0.9]})
    told = timing.to_dict()
    assert (told["median_s"], told["repeats"], told["first_s"], told["median_low_s"]) == (3.0, 5, 3.0, None)
    assert told["p10_s"] == pytest.approx(1.4)
    assert told["p90_s"] == pytest.approx(7.0)
    assert told["parts"] == {"forward": 0.7}
    assert "6 repeats and 1 s at least" in told["rule"]
