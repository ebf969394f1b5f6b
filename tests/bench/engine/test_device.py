"""Which device, how many, and whether it repeats itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from bench.engine.device import check_batch, check_devices, choose_device, choose_workers, deterministic
from bench.engine.graph import Replayed
from bench.engine.memory import limit_memory, peak, reset_peak
from bench.errors import BenchError


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("name", "index"), [("", 0), ("cuda", 0), ("cuda:1", 1)])
def test_a_gpu_is_named_with_its_number(name: str, index: int) -> None:
    """Some of torch refuses a bare ``cuda``, the limit on memory for one."""
    assert choose_device(name) == torch.device("cuda", index)


@pytest.mark.usefixtures("two_gpus")
def test_memory_is_limited_as_a_share_of_the_card_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[float, object]] = [(1.0, 0)]
    emptied: list[int] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(len(calls)))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda _device: calls[-1][0])
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _device: type("Card", (), {"total_memory": 80 * 2**30})
    )
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, device: calls.append((share, device.index))
    )
    with limit_memory(choose_device("cuda"), 20 * 2**30):
        assert calls[1:] == [(0.25, 0)]
        with limit_memory(choose_device("cuda"), None):
            assert calls[2:] == [(1.0, 0)]
        assert calls[3:] == [(0.25, 0)]
    assert calls[4:] == [(1.0, 0)]
    assert emptied == [1, 3], "what is kept unused goes before less is allowed"


@pytest.mark.usefixtures("two_gpus")
def test_a_job_gets_no_more_devices_than_there_are_and_equal_shares() -> None:
    check_devices(torch.device("cuda", 0), 2)
    with pytest.raises(BenchError, match="has 2 CUDA devices"):
        check_devices(torch.device("cuda", 0), 3)
    check_batch(2, 4)
    with pytest.raises(BenchError, match="multiple of 2"):
        check_batch(2, 3)


def test_workers_take_no_cores_from_a_network_on_the_cpu() -> None:
    assert choose_workers(-1, torch.device("cpu")) == 0
    assert choose_workers(-1, torch.device("cuda", 0)) > 0
    assert choose_workers(3, torch.device("cpu")) == 3


def test_determinism_lasts_as_long_as_it_is_asked_for() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    with deterministic(True, torch.device("cpu")):
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.are_deterministic_algorithms_enabled() == before
    with deterministic(False, torch.device("cpu")):
        assert torch.are_deterministic_algorithms_enabled() == before


def test_memory_that_recorded_graphs_hold_counts_as_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay takes what lies free in its graph's pool, and the allocator does not hear of it."""
    segments = [
        {"device": 0, "total_size": 1000, "allocated_size": 10, "segment_pool_id": (0, 0)},
        {"device": 0, "total_size": 300, "allocated_size": 100, "segment_pool_id": (0, 1)},
        {"device": 0, "total_size": 50, "allocated_size": 0, "segment_pool_id": (1, 0)},
        {"device": 1, "total_size": 7, "allocated_size": 0, "segment_pool_id": (0, 1)},
    ]
    told = {
        "memory_snapshot": segments, "max_memory_allocated": 5000, "max_memory_reserved": 9000,
        "mem_get_info": (1, 10_001), "current_device": 0,
    }  # fmt: skip
    for name, value in told.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    for device in (torch.device("cuda"), torch.device("cuda", 0)):
        found = peak(device)
        assert found["peak_allocated_bytes"] == 5000 + 200 + 50
        assert (found["peak_reserved_bytes"], found["driver_used_bytes"]) == (9000, 10_000)
    assert peak(torch.device("cuda", 1))["peak_allocated_bytes"] == 5007
    # A peak from before the graph was recorded holds what its pool holds now: together no more than was reserved.
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda *_: 5100)
    assert peak(torch.device("cuda", 0))["peak_allocated_bytes"] == 5100


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_replayed_pass_takes_about_as_much_as_it_does_itself() -> None:
    device = torch.device("cuda", 0)
    given = torch.ones(2**24, device=device)

    def work(x: torch.Tensor) -> torch.Tensor:
        return ((x * 2) * (x * 3)).sum()

    reset_peak(device)
    base = torch.cuda.memory_allocated(device)
    work(given)
    itself = peak(device)["peak_allocated_bytes"] - base
    replayed = Replayed(work)
    replayed(given)
    torch.cuda.empty_cache()
    reset_peak(device)
    replayed(given)
    found = peak(device)["peak_allocated_bytes"] - base - 4 * given.numel()  # beside the copy of what is given
    assert itself <= found < 1.5 * itself


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_pass_is_recorded_while_another_thread_prepares_a_batch() -> None:
    device = torch.device("cuda", 0)

    def prepare() -> float:
        with torch.cuda.stream(torch.cuda.Stream(device)):
            # More than any test before has left pinned, so that it is asked of the driver.
            batch = torch.full((2**26,), 3.0, pin_memory=True).to(device, non_blocking=True)
            return float(batch.mean())

    def work(x: torch.Tensor) -> torch.Tensor:
        doubled = x * 2
        if torch.cuda.is_current_stream_capturing():
            with ThreadPoolExecutor(1) as threads:
                assert threads.submit(prepare).result() == 3
        return doubled + 1

    replayed = Replayed(work)
    assert replayed(torch.full((4,), 5.0, device=device)).tolist() == [11.0] * 4
    assert replayed(torch.full((4,), 7.0, device=device)).tolist() == [15.0] * 4
