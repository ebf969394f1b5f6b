"""What networks cost, from the profiles among the records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bench.store import Record


@dataclass(frozen=True)
class Cost:
    """A figure of what a network costs.

    Attributes:
        name: of the figure in a profile's ``measured``.
        title: what it is called.
        unit: in which it is printed.
        scale: factor from the figure to what is printed.
        digits: after the point.
        on_device: whether it depends on the hardware.
    """

    name: str
    title: str
    unit: str
    scale: float
    digits: int
    on_device: bool = True

    @property
    def label(self) -> str:
        """Head of a table's column."""
        return f"{self.title} {self.unit}"


COSTS: Mapping[str, Cost] = MappingProxyType(
    {
        cost.name: cost
        for cost in (
            Cost("parameters", "parameters", "M", 1e-6, 1, on_device=False),
            Cost("gmacs", "operations", "GMAC", 1.0, 1, on_device=False),
            Cost("latency_s", "inference time", "ms", 1e3, 1),
            Cost("train_step_s", "training step", "ms", 1e3, 1),
            Cost("peak_memory_bytes", "peak memory", "GiB", 2.0**-30, 2),
        )
    }
)


@dataclass(frozen=True)
class Costs:
    """Figures of networks on one kind of hardware, at one size.

    Attributes:
        hardware: what they were measured on.
        setting: size, batch, precision, in words.
        figures: network and its options, see `network_key`, to the figures by name.
    """

    hardware: str
    setting: str
    figures: Mapping[str, Mapping[str, float]]


def network_key(model: str, options: Mapping[str, Any]) -> str:
    """Names a network with all its options."""
    return json.dumps([model, dict(options)], sort_keys=True)


def costs(records: Sequence[Record]) -> Costs | None:
    """The figures of the hardware and setting of which most networks were profiled; None where there is no profile.

    Two kinds of hardware, or two sizes, never share a column.
    """
    found: dict[tuple[str, str], dict[str, Mapping[str, float]]] = {}
    for record in records:
        if record.kind != "profile" or record.status != "complete":
            continue
        job = record.content["job"]
        place = str(record.content.get("hardware", "unknown hardware")), str(record.content.get("setting", ""))
        found.setdefault(place, {})[network_key(job["model"], job["model_options"])] = record.content["measured"]
    if not found:
        return None
    (hardware, setting), figures = max(found.items(), key=lambda item: (len(item[1]), item[0]))
    return Costs(hardware, setting, figures)
