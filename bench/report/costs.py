"""What networks cost, from the profiles among the records."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from bench.report.settings import option_words, scan_backend, size_text
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
            Cost("peak_memory_bytes", "training memory", "GiB", 2.0**-30, 2),
        )
    }
)


# What measurements must share for their figures to stand in one column.
_SHARED = (
    *("hardware", "image_size", "precision", "compile", "channels_last", "cudnn_benchmark", "torch", "in_channels"),
    *("classes", "fused", "graph"),
)
# Which figures a network's measurement in each mode is asked for; the first ones are the same in both.
_BOTH = ("parameters", "gmacs")
_FIGURES = {"infer": ("latency_s",), "train": ("train_step_s", "peak_memory_bytes")}
_MODES = {"infer": "inference", "train": "training"}


@dataclass(frozen=True)
class Costs:
    """Figures of networks on one kind of hardware, at one size, measured in one way.

    Attributes:
        hardware: what they were measured on.
        setting: size, precision, options and batches, in words.
        figures: network and its options, see `network_key`, to the figures by name.
    """

    hardware: str
    setting: str
    figures: Mapping[str, Mapping[str, float]]


def network_key(model: str, options: Mapping[str, Any]) -> str:
    """Names a network with all its options."""
    return json.dumps([model, dict(options)], sort_keys=True)


def costs(records: Sequence[Record], networks: Collection[str] | None = None) -> Costs | None:
    """The figures of those profiles of whole networks that agree in all but network, mode and batch; None for none.

    Profiles of other networks than those asked for decide nothing. The others agree in the backend of the scan too
    where they have one: of several it is that of most measurements, then the last by name. Of several such groups it
    is the one of most networks, then of most figures, which one of inference alone has not, then of the largest image,
    then the first by name. Of several batches of a mode it is the one of most networks, then the largest. Only complete
    measurements count. Time and memory of training are those of a training step, parameters and operations are from
    either.

    Args:
        records: of any kind.
        networks: the keys of those of interest, see `network_key`; None for all.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        job = record.content.get("job", {})
        if record.kind != "profile" or record.status != "complete" or job.get("what") != "network":
            continue
        if networks is None or network_key(job["model"], job["model_options"]) in networks:
            groups.setdefault(json.dumps([job.get(name, False) for name in _SHARED]), []).append(record)
    # Of equals the first by name, whatever the order of the records.
    merged = [_merge(_of_one_scan(groups[name])) for name in sorted(groups)]
    found, _ = max(merged, key=lambda one: (len(one[0].figures), _count(one[0]), one[1]), default=(None, 0))
    return found


def _count(found: Costs) -> int:
    return sum(map(len, found.figures.values()))


def _of_one_scan(records: Sequence[Record]) -> list[Record]:
    counts = Counter(backend for record in records if (backend := scan_backend(record)))
    chosen = max(counts, key=lambda backend: (counts[backend], backend), default=None)
    return [record for record in records if scan_backend(record) in (None, chosen)]


def _merge(records: Sequence[Record]) -> tuple[Costs, int]:
    """One group's figures, those of inference and training beside each other; and the voxels of its image."""
    figures: dict[str, dict[str, float]] = {}
    batches: dict[str, int] = {}
    for mode, names in _FIGURES.items():
        of_mode = [record for record in records if record.content["job"]["mode"] == mode]
        if not of_mode:
            continue
        counts = Counter(record.content["job"]["batch"] for record in of_mode)
        batches[mode] = max(counts, key=lambda batch: (counts[batch], batch))
        for record in of_mode:
            job, measured = record.content["job"], record.content["measured"]
            if job["batch"] != batches[mode]:
                continue
            mine = figures.setdefault(network_key(job["model"], job["model_options"]), {})
            mine |= {name: measured[name] for name in (*_BOTH, *names) if measured.get(name) is not None}
    job = records[0].content["job"]
    told = [size_text(job["image_size"]), *option_words(job), *_scan(records), _batches(batches)]
    return Costs(str(job["hardware"]), ", ".join(told), figures), math.prod(job["image_size"])


def _scan(records: Sequence[Record]) -> list[str]:
    """By what selective scans were computed, if there are any."""
    used = {
        record.content["job"]["backend"]
        for record in records
        if (record.content["measured"].get("operations") or {}).get("scan")
    }
    return [f"scan by {backend}" for backend in used]  # one, or none


def _batches(batches: Mapping[str, int]) -> str:
    if len(batches) == len(_MODES) and len(set(batches.values())) == 1:
        return f"batch {next(iter(batches.values()))}"
    return "batch " + " and ".join(f"{batch} in {_MODES[mode]}" for mode, batch in batches.items())
