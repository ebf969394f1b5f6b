"""The metrics that tables and figures show, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from bench.errors import BenchError, unknown
from bench.metrics import NSD_TOLERANCE_MM

DEFAULT_METRICS = ("dice", "hd95")


@dataclass(frozen=True)
class Metric:
    """A column of ``cases.csv`` as people read it.

    Attributes:
        name: of the column.
        label: with the unit.
        scale: factor from the column to what is printed.
        lower_is_better: whether less is better.
        ranked: whether less or more is better at all.
    """

    name: str
    label: str
    scale: float = 1.0
    lower_is_better: bool = False
    ranked: bool = True

    def text(self, value: float) -> str:
        """A value of the column as it is printed."""
        return f"{self.scale * value:.2f}"


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("dice", "Dice %", 100),
            Metric("hd95", "HD95 mm", lower_is_better=True),
            Metric("nsd", f"NSD({NSD_TOLERANCE_MM:g} mm) %", 100),
            Metric("sensitivity", "sensitivity %", 100),
            Metric("precision", "precision %", 100),
            Metric("volume_error", "volume error %", 100, ranked=False),
            Metric("lesion_dice", "lesion-wise Dice %", 100),
            Metric("lesion_hd95", "lesion-wise HD95 mm", lower_is_better=True),
        )
    }
)


def metrics(names: Sequence[str]) -> tuple[Metric, ...]:
    """The metrics of these names, without repeats.

    Raises:
        BenchError: there is no such metric.
    """
    for name in names:
        if name not in METRICS:
            raise BenchError(unknown("metric", name, list(METRICS)))
    return tuple(METRICS[name] for name in dict.fromkeys(names))
