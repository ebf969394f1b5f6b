"""The table that all statistics start from: what it must hold, and its scores as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.errors import BenchError

COLUMNS = ("case", "model", "seed", "region", "metric", "value")
"""Columns of a table of scores. All but ``value`` are names and are compared as text."""

_KEYS = list(COLUMNS[:-1])


@dataclass(frozen=True)
class Scores:
    """Scores of one region and metric, in the metric's own unit.

    Attributes:
        region: its name.
        metric: its name.
        models: sorted.
        seeds: of each model, in the order of the columns of ``by_seed``.
        by_seed: of each model an array (cases, seeds); cases are sorted and the same for all models, seeds are each
            model's own.
        per_case: (models, cases), averaged over seeds.
    """

    region: str
    metric: str
    models: tuple[str, ...]
    seeds: tuple[tuple[str, ...], ...]
    by_seed: tuple[NDArray[np.float64], ...]
    per_case: NDArray[np.float64]

    @property
    def cases(self) -> int:
        """How many cases there are."""
        return self.per_case.shape[1]

    @property
    def means(self) -> NDArray[np.float64]:
        """(models,): the mean over cases."""
        return self.per_case.mean(axis=1)


def check(frame: pd.DataFrame) -> pd.DataFrame:
    """The table of scores, sorted and without other columns, if paired statistics can be made from it.

    Models may have different seeds, but each has all of its seeds on each case, and all models have the same cases
    in every region and metric.

    Args:
        frame: columns ``COLUMNS``, one row per score; more columns are ignored.

    Raises:
        BenchError: a column is missing, there are no rows, a name is missing, a value is no finite number, a score
            stands there twice, or the models do not share their cases and seeds.
    """
    tidy = _cleaned(frame)
    runs = pd.MultiIndex.from_frame(tidy[["model", "seed"]].drop_duplicates().sort_values(["model", "seed"]))
    for (region, metric), rows in tidy.groupby(["region", "metric"]):
        _check_complete(f"region {region!r}, metric {metric!r}", _wide(rows).reindex(columns=runs).isna())
    return tidy


def scores_of(frame: pd.DataFrame) -> list[Scores]:
    """The scores of each region and metric, sorted by both.

    Raises:
        BenchError: as `check`.
    """
    found = []
    for (region, metric), rows in check(frame).groupby(["region", "metric"]):
        wide = _wide(rows)
        models = tuple(wide.columns.unique("model"))
        seeds = tuple(tuple(wide[model].columns) for model in models)
        by_seed = tuple(wide[model].to_numpy(float) for model in models)
        per_case = np.stack([values.mean(axis=1) for values in by_seed])
        found.append(Scores(str(region), str(metric), models, seeds, by_seed, per_case))
    return found


def _wide(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows are cases, columns (model, seed)."""
    return rows.pivot(index="case", columns=["model", "seed"], values="value").sort_index(axis=1)


def _cleaned(frame: pd.DataFrame) -> pd.DataFrame:
    expected = f"expected {', '.join(COLUMNS)}, one row per score"
    absent = [column for column in COLUMNS if column not in frame.columns]
    if absent:
        there = ", ".join(map(str, frame.columns)) or "none"
        raise BenchError(f"the table of scores lacks the columns {', '.join(absent)}: {expected}; it has {there}")
    if frame.empty:
        raise BenchError(f"the table of scores has no rows: {expected}")
    nameless = frame[frame[_KEYS].isna().any(axis=1)]
    if len(nameless):
        column = next(column for column in _KEYS if nameless[column].isna().iloc[0])
        raise BenchError(
            f"the table of scores has no {column} in the row with index {nameless.index[0]!r} (rows without a name: "
            f"{len(nameless)}): {expected}, all of them filled"
        )
    tidy = frame[_KEYS].astype(str).assign(value=pd.to_numeric(frame["value"], errors="coerce").astype(float))
    strange = ~np.isfinite(tidy["value"].to_numpy())
    if strange.any():
        first = int(strange.argmax())
        raise BenchError(
            f"{_place(tidy.iloc[first])}: the value is {frame['value'].iloc[first]} (values like it: {strange.sum()}); "
            "expected a finite number: give undefined scores a value by the convention of their metric, or leave the "
            "case out for every model"
        )
    double = tidy.duplicated(_KEYS)
    if double.any():
        raise BenchError(
            f"{_place(tidy[double].iloc[0])}: the score stands there more than once (rows too many: {double.sum()}); "
            "expected one row for each case, model, seed, region and metric: remove the others"
        )
    return tidy.sort_values(["region", "metric", "model", "seed", "case"], ignore_index=True)


def _check_complete(where: str, missing: pd.DataFrame) -> None:
    """``missing`` has a row per case and a column per (model, seed) of the whole table."""
    if not missing.to_numpy().any():
        return
    # A case that a model lacks altogether is told apart from a single run that is not finished.
    lacking = missing.T.groupby(level="model").all().T
    if lacking.to_numpy().any():
        model = lacking.any().idxmax()
        other = (~lacking[lacking[model]]).sum().idxmax()
        raise BenchError(
            f"{where}: model {model!r} lacks {_some(lacking.index[lacking[model] & ~lacking[other]])} that model "
            f"{other!r} has; expected the same cases for all models: score those that are missing, or leave them out "
            "for every model"
        )
    places = missing.melt(value_name="absent", ignore_index=False).reset_index().query("absent")
    (model, seed), places = next(iter(places.groupby(["model", "seed"])))
    raise BenchError(
        f"{where}: model {model!r} has no score of seed {seed} for {_some(places['case'])}; expected each seed of a "
        "model on each case: score those that are missing, or leave that seed out"
    )


def _place(row: pd.Series) -> str:
    return ", ".join(f"{key} {row[key]!r}" for key in _KEYS)


def _some(cases: Iterable[str]) -> str:
    """The first three names and how many more there are."""
    cases = list(cases)
    more = f" (+{len(cases) - 3} more)" if len(cases) > 3 else ""
    return f"case{'s' if len(cases) > 1 else ''} {', '.join(cases[:3])}{more}"
