"""Results that papers state, kept as data with their source."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class PublishedRow:
    """One line of a paper's table.

    Attributes:
        name: as the paper calls the method.
        models: registered networks that it may be compared with, the closest first.
        scores: (region, metric) to the mean over cases; Dice as a fraction, HD95 in mm.
    """

    name: str
    models: tuple[str, ...]
    scores: Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class PublishedTable:
    """A paper's table.

    Attributes:
        title: what it is.
        source: reference to the paper and the table.
        dataset: registered name of the dataset.
        convention: how it most probably scored empty masks.
        rows: in the paper's order.
    """

    title: str
    source: str
    dataset: str
    convention: str
    rows: tuple[PublishedRow, ...]

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions of its rows."""
        return tuple(dict.fromkeys(region for row in self.rows for region, _ in row.scores))


@cache
def segmamba_table1() -> PublishedTable:
    """Table 1 of the SegMamba paper."""
    text = (files(__package__) / "segmamba_table1.toml").read_text(encoding="utf-8")
    stated = tomllib.loads(text)
    rows = tuple(
        PublishedRow(
            name=row["name"],
            models=tuple(row["models"]),
            scores={
                **{(region, "dice"): value / 100 for region, value in row["dice"].items()},
                **{(region, "hd95"): float(value) for region, value in row["hd95"].items()},
            },
        )
        for row in stated["rows"]
    )
    return PublishedTable(stated["title"], stated["source"], stated["dataset"], stated["convention"], rows)
