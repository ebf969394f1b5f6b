"""Which device, how many, and whether it repeats itself."""

from __future__ import annotations

import pytest
import torch

from bench.engine.device import check_batch, check_devices, choose_device, choose_workers, deterministic
from bench.engine.memory import limit_memory
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
