"""What a network costs, on networks and allocations whose cost is known."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import moody
import pytest
import torch
from torch import Tensor, nn

from bench.profiling.clock import Mark
from bench.profiling.instruments import Instruments
from bench.profiling.network import Pass, count, measure, measure_network, owned_bytes, train_work
from bench.profiling.operators import top_operators
from bench.profiling.setting import Setting

MIB = 2**20
Make = Callable[..., Setting]
Tools = Callable[..., Instruments]
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
]
pytestmark = pytest.mark.usefixtures("moody_here")


@pytest.mark.parametrize("device", DEVICES)
def test_memory_is_that_of_the_tensors_that_are_there_at_once(device: str, make_tools: Tools) -> None:
    kept = torch.ones(16 * MIB, dtype=torch.uint8, device=device)

    def work(_mark: Mark) -> None:
        first = torch.ones(100 * MIB, dtype=torch.uint8, device=device)
        second = torch.ones(50 * MIB, dtype=torch.uint8, device=device)
        del first
        third = torch.ones(20 * MIB, dtype=torch.uint8, device=device)
        del second, third

    found = measure(work, make_tools(device), lambda: kept.nbytes)
    assert found["peak_memory_bytes"] == 166 * MIB
    assert found["memory"]["peak_allocated_bytes"] == 166 * MIB
    if device == "cuda":
        assert found["memory"]["peak_reserved_bytes"] >= 166 * MIB
        assert found["memory"]["peak_reserved_bytes"] < 300 * MIB
        assert found["energy_j"] is None or found["energy_j"] > 0
    assert found["memory"]["peak_process_bytes"] > 166 * MIB


def test_owned_bytes_count_each_storage_once() -> None:
    network = nn.Linear(8, 8, bias=False)
    tied = nn.ModuleList([network, nn.Linear(8, 8, bias=False)])
    tied[1].weight = network.weight
    image = torch.zeros(100)
    assert owned_bytes(tied, Pass(lambda _mark: None, lambda: iter([image]))) == 4 * (64 + 100)


def test_inference_is_timed_weighed_and_counted(make_setting: Make, make_tools: Tools) -> None:
    found = measure_network(make_setting("naps", batch=2), make_tools())
    assert 0.05 <= found["latency_s"] < 0.08
    assert "train_step_s" not in found
    assert found["parameters"] == 4 * 3 * 27 + 3
    assert found["gmacs"] == pytest.approx(512 * 4 * 3 * 27 / 1e9)  # of one image, whatever the batch
    assert found["operations"]["convolution"] == 512 * 4 * 3 * 27
    assert found["voxels_per_s"] == pytest.approx(2 * 512 / found["latency_s"])
    # Weights, the two images, their logits; a convolution on the CPU may keep a copy of what goes in.
    least = 4 * (327 + 2 * 512 * (4 + 3))
    assert least <= found["peak_memory_bytes"] <= least + 4 * 2 * 1000 * (4 + 3) * 4


def test_a_training_step_is_split_into_forward_backward_and_optimiser(make_setting: Make, make_tools: Tools) -> None:
    found = measure_network(make_setting("naps", mode="train"), make_tools())
    parts = found["time"]["parts"]
    assert list(parts) == ["forward", "backward", "optimiser"]
    assert 0.05 <= parts["forward"] < found["train_step_s"]
    assert sum(parts.values()) == pytest.approx(found["train_step_s"], rel=0.1)
    assert "latency_s" not in found


def test_training_is_the_engines_own_step_and_moves_the_weights(make_setting: Make) -> None:
    setting = make_setting(mode="train")
    network = moody.Moody(4, 3, "good")
    before = network.inner.weight.detach().clone()
    work = train_work(network, setting, torch.device("cpu"))
    phases: list[str] = []
    work(phases.append)
    assert phases == ["forward", "backward", "optimiser"]
    assert not torch.equal(network.inner.weight, before)
    kept = [tensor for tensor in work.starts_from() if tensor.shape == before.shape]
    assert len(kept) == 1  # the momentum of SGD


def test_operators_and_trace_are_written_on_request(make_setting: Make, make_tools: Tools, tmp_path: Path) -> None:
    trace = tmp_path / "traces" / "moody.json.gz"
    found = measure_network(make_setting(mode="train"), make_tools(operators=2, trace=trace))
    names = [row["name"] for row in found["operators"]]
    assert len(names) == 3
    assert names[2].endswith("others")
    assert sum(row["share"] for row in found["operators"]) == pytest.approx(1)
    assert found["operators"][0]["seconds"] >= found["operators"][1]["seconds"] > 0
    assert trace.stat().st_size > 1000


def test_operators_are_ordered_by_the_time_of_their_own() -> None:
    matrix = torch.ones(768, 768)

    def work(_mark: Mark) -> None:
        for _ in range(2):
            (matrix @ matrix)[:1].neg()

    found = top_operators(work, torch.device("cpu"), 3, trace=None)
    assert found[0]["name"] == "aten::mm"  # 0.9 GFLOP, and the matmul that calls it has no time of its own to speak of
    assert found[0]["calls"] == 2
    assert found[0]["share"] > 0.5


def test_passes_too_long_for_their_time_are_not_followed(make_setting: Make, make_tools: Tools) -> None:
    begun = time.monotonic()
    found = measure_network(make_setting("naps"), make_tools(limit_s=0.1))
    assert time.monotonic() - begun < 2
    assert found["time"]["repeats"] == 1
    assert found["peak_memory_bytes"] is None


def test_count_names_what_has_no_formula(make_setting: Make) -> None:
    class Normed(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return nn.functional.instance_norm(image)

    found = count(Normed(), make_setting())
    assert found["gmacs"] == 0
    assert "native_batch_norm" in found["operations"]["uncounted"]
