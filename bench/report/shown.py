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
        title: what it is called.
        unit: in which tables print it, ``%`` of a fraction or ``mm``.
        lower_is_better: whether less is better.
        ranked: whether less or more is better at all.
    """

    name: str
    title: str
    unit: str
    lower_is_better: bool = False
    ranked: bool = True

    @property
    def scale(self) -> float:
        """Factor from the column to what tables print."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def label(self) -> str:
        """Head of a table's column."""
        return f"{self.title} {self.unit}"

    @property
    def axis_unit(self) -> str:
        """Unit on a figure's axis, which shows the column as it is; empty for a fraction."""
        return "" if self.unit == "%" else self.unit

    @property
    def axis_label(self) -> str:
        """Name and unit, for a figure's axis."""
        return f"{self.title} ({self.axis_unit})" if self.axis_unit else self.title

    @property
    def direction(self) -> str:
        """Which end is the good one, in words."""
        return "lower is better" if self.lower_is_better else "higher is better"

    def text(self, value: float) -> str:
        """A value of the column as tables print it."""
        return f"{self.scale * value:.2f}"


METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            Metric("dice", "Dice", "%"),
            Metric("hd95", "HD95", "mm", lower_is_better=True),
            Metric("nsd", f"NSD({NSD_TOLERANCE_MM:g} mm)", "%"),
            Metric("sensitivity", "sensitivity", "%"),
            Metric("precision", "precision", "%"),
            Metric("volume_error", "volume error", "%", ranked=False),
            Metric("lesion_dice", "lesion-wise Dice", "%"),
            Metric("lesion_hd95", "lesion-wise HD95", "mm", lower_is_better=True),
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
