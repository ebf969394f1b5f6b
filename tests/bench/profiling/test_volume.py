"""A whole case: windows, mirror images and time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.profiling.instruments import Instruments
from bench.profiling.setting import Setting
from bench.profiling.volume import measure_volume

pytestmark = pytest.mark.usefixtures("moody_here")


@pytest.mark.parametrize(("flips", "images"), [(1, 1), (8, 8)])
def test_windows_and_time_are_those_of_the_engines_inference(
    make_setting: Callable[..., Setting], make_tools: Callable[..., Instruments], flips: int, images: int
) -> None:
    heard: list[str] = []
    tools = make_tools()
    tools.on_pass = heard.append
    shape = [12, 8, 16]
    found = measure_volume(
        make_setting("naps", what="volume", more={"shape": shape, "overlap": 0.5, "flips": flips}), tools
    )
    windows = 2 * 1 * 3 * images
    assert found["windows"] == windows
    # Two windows pass through the network together, for 50 ms.
    assert 0.05 * windows / 2 <= found["case_s"] < 0.09 * windows / 2
    assert found["case_s"] == found["time"]["median_s"]
    assert found["voxels_per_s"] == pytest.approx(12 * 8 * 16 / found["case_s"])
    assert found["at_once"] == 2
    assert found["parameters"] == 4 * 3 * 27 + 3
    assert found["peak_memory_bytes"] > 4 * 12 * 8 * 16 * 3  # the logits at least
    assert f"window 0/{windows}" in heard
