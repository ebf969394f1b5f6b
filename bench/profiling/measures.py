"""What can be measured, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bench.profiling.instruments import Instruments
from bench.profiling.network import measure_network
from bench.profiling.setting import Setting

Measure = Callable[[Setting, Instruments], dict[str, Any]]

MEASURES: Mapping[str, Measure] = {
    "network": measure_network,
}
