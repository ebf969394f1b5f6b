"""What can be measured, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bench.profiling.ceiling import measure_ceiling
from bench.profiling.instruments import Instruments
from bench.profiling.mixers import measure_mixer
from bench.profiling.network import measure_network
from bench.profiling.receptive import measure_receptive_field
from bench.profiling.scan_pass import measure_scan
from bench.profiling.setting import Setting
from bench.profiling.volume import measure_volume

Measure = Callable[[Setting, Instruments], dict[str, Any]]

MEASURES: Mapping[str, Measure] = {
    "network": measure_network,
    "mixer": measure_mixer,
    "scan": measure_scan,
    "volume": measure_volume,
    "receptive-field": measure_receptive_field,
    "ceiling": measure_ceiling,
}
