"""What figures demand of the DataFrames that they take, and how they walk over rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench.errors import BenchError


def demand(frame: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Refuse a frame that lacks a column or has no row.

    Raises:
        BenchError: naming ``what`` the frame is, and the columns.
    """
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise BenchError(
            f"{what} lack the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; found "
            f"{', '.join(map(str, frame.columns)) or 'none'}, expected at least {', '.join(columns)}. Rename or add "
            "what is missing."
        )
    if frame.empty:
        raise BenchError(f"{what} have no row; expected at least one. Give complete records, or leave the figure out.")


def demand_finite(frame: pd.DataFrame, columns: Sequence[str], what: str) -> None:
    """Refuse NaN and infinity in columns of numbers.

    Raises:
        BenchError: naming the first row that holds one.
    """
    for column in columns:
        bad = ~np.isfinite(frame[column].to_numpy(dtype=float))
        if bad.any():
            row = frame.iloc[int(bad.argmax())].to_dict()
            raise BenchError(
                f"{what} hold {int(bad.sum())} values of {column} that are not finite, the first in {row}; expected "
                "finite numbers. Score empty masks by a convention, see bench.metrics.CONVENTIONS."
            )


def of(frame: pd.DataFrame, region: str, metric: str, what: str) -> pd.DataFrame:
    """The rows of one region and metric.

    Raises:
        BenchError: there are none; the message lists what there is.
    """
    demand(frame, ("region", "metric"), what)
    found = frame[(frame["region"] == region) & (frame["metric"] == metric)]
    if found.empty:
        there = sorted({f"{r}/{m}" for r, m in zip(frame["region"], frame["metric"], strict=True)})
        raise BenchError(f"{what} hold nothing on {region}/{metric}; found {', '.join(there)}. Ask for one of these.")
    return found


def each(frame: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows as plain mappings, column to value."""
    for row in frame.to_dict("records"):
        yield {str(column): value for column, value in row.items()}
