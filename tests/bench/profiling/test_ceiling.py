"""The largest cube in a memory: against networks whose memory is known, and by trials that are made up."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import models
from bench.engine.live_memory import peak_tensor_bytes
from bench.profiling import ceiling
from bench.profiling.ceiling import Trial, measure_ceiling
from bench.profiling.instruments import Instruments
from bench.profiling.setting import Setting

Make = Callable[..., Setting]
Tools = Callable[..., Instruments]
pytestmark = pytest.mark.usefixtures("moody_here")


def segresnet(make_setting: Make, limit_bytes: int, **fields: object) -> Setting:
    options = models.resolve_options("segresnet", {"init_filters": 8})
    more = {"limit_bytes": limit_bytes}
    return make_setting(**{"what": "ceiling", "model": "segresnet", "model_options": options, "more": more, **fields})


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_the_cube_that_is_found_fits_and_the_next_does_not(make_setting: Make, make_tools: Tools, mode: str) -> None:
    limit = 24 * 2**20
    found = measure_ceiling(segresnet(make_setting, limit, mode=mode), make_tools())
    assert found["finished"]
    assert found["image_size"] == [found["edge"]] * 3
    assert found["peak_memory_bytes"] <= limit
    tried = {trial["image_size"][0]: trial for trial in found["tried"]}
    assert tried[found["edge"]]["fits"]
    assert not tried[found["edge"] + 8]["fits"]
    assert tried[found["edge"] + 8]["why"] == "out of memory"


def test_training_takes_more_than_inference(make_setting: Make, make_tools: Tools) -> None:
    limit = 24 * 2**20
    edges = [
        measure_ceiling(segresnet(make_setting, limit, mode=mode), make_tools())["edge"] for mode in ("infer", "train")
    ]
    assert edges[0] > edges[1] > 0


def test_where_nothing_fits_the_edge_is_zero(make_setting: Make, make_tools: Tools) -> None:
    found = measure_ceiling(segresnet(make_setting, 2**10), make_tools())
    assert (found["edge"], found["image_size"], found["peak_memory_bytes"]) == (0, None, None)
    assert found["finished"]
    assert len(found["tried"]) == 1


@pytest.fixture
def largest(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Lets cubes fit up to an edge, without a network; gives the edges that are tried."""

    def up_to(edge: int) -> list[int]:
        tried: list[int] = []

        def attempt(setting: Setting, _tools: Instruments, _limit: int) -> Trial:
            tried.append(setting.image_size[0])
            return Trial(setting.image_size, setting.image_size[0] <= edge, 1)

        monkeypatch.setattr(ceiling, "_try", attempt)
        return tried

    return up_to


@pytest.mark.parametrize(
    ("model", "edge"),
    [("segresnet", 8), ("segresnet", 136), ("unetr", 176), ("swinunetr", 96), ("segmamba_release", 224)],
)
def test_every_edge_that_a_network_takes_can_be_the_largest(
    make_setting: Make, make_tools: Tools, largest: Callable[[int], list[int]], model: str, edge: int
) -> None:
    tried = largest(edge)
    setting = segresnet(make_setting, 1, model=model, model_options=models.resolve_options(model, {}))
    assert measure_ceiling(setting, make_tools())["edge"] == edge
    assert len(set(tried)) == len(tried) < 14
    for candidate in tried:
        assert models.nearest_size(model, candidate, {}) == (candidate,) * 3


def test_cubes_are_those_of_the_network_whatever_its_multiple(
    make_setting: Make, make_tools: Tools, largest: Callable[[int], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nearest(_model: str, edge: int, _options: object) -> tuple[int, int, int]:
        return (max(36, -(-edge // 12) * 12),) * 3

    monkeypatch.setattr(models, "nearest_size", nearest)
    tried = largest(84)
    assert measure_ceiling(make_setting(what="ceiling", more={"limit_bytes": 1}), make_tools())["edge"] == 84
    assert tried == [36, 72, 144, 108, 84, 96]


def test_at_the_deadline_it_says_that_it_is_not_finished(
    make_setting: Make, make_tools: Tools, largest: Callable[[int], list[int]]
) -> None:
    tried = largest(136)
    found = measure_ceiling(segresnet(make_setting, 1), make_tools(limit_s=-1))
    assert (tried, found["edge"], found["finished"]) == ([], 0, False)


def test_a_bug_is_no_lack_of_memory(make_setting: Make, make_tools: Tools) -> None:
    with pytest.raises(ZeroDivisionError):
        measure_ceiling(make_setting("raises", what="ceiling", more={"limit_bytes": 2**30}), make_tools())


def test_tensors_beyond_the_limit_are_refused() -> None:
    with peak_tensor_bytes(torch.device("cpu"), 1000) as peak:
        kept = torch.ones(200)
        assert peak() == 800
        with pytest.raises(MemoryError, match="1000 are allowed"):
            torch.ones(100)
    assert kept.sum() == 200
